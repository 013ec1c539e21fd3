//! Paranoid rounds of a founder whose partners this file plays.

use std::collections::BTreeSet;

use starling_protocol::limits::EXCHANGE_TIMEOUT_FIRST;
use starling_protocol::message::Kind;

use super::*;
use crate::node::Input;
use crate::node::table::{SECOND, Table, peer};
use crate::settings::{Rule, Settings};

/// What partners send, in each parameter.
const VALUE: f32 = 0.5;

/// A founder that has just asked three of its four partners.
fn pulling() -> (Table, Vec<NodeId>) {
    let rule = Rule { pull: 3, outer: None, ..Rule::default() };
    let mut table = Table::with(BTreeSet::new(), Settings { rule, ..Settings::default() });
    (2..6).for_each(|index| table.link(peer(index)));
    let mut asked = Vec::new();
    while asked.is_empty() {
        table.pass(SECOND / 10);
        asked = table.recipients(Kind::SnapshotRequest);
    }
    assert_eq!(asked.len(), 3);
    (table, asked)
}

fn give(table: &mut Table, peers: &[NodeId]) {
    peers.iter().for_each(|peer| table.snapshot(*peer, Some((4.0, VALUE))));
}

/// Models taken, and partners that gave none.
fn totals(table: &Table) -> (u64, u64) {
    (table.node.counters().accepted, table.node.counters().failed)
}

#[test]
fn a_paranoid_round_waits_for_all_that_it_asked_and_for_nobody_else() {
    let (mut table, asked) = pulling();
    let before = table.model().to_vec();
    give(&mut table, &asked[..2]);
    let other = (2..6).map(peer).find(|id| !asked.contains(id)).expect("one of four");
    give(&mut table, &[other, asked[0]]);
    assert_eq!((totals(&table), table.model()), ((0, 0), &before[..]));
    give(&mut table, &asked[2..]);
    assert_eq!(totals(&table), (1, 0));
    for (now, before) in table.model().iter().zip(before) {
        let mean = f32::midpoint(VALUE, f32::midpoint(VALUE, before));
        assert!((now - mean).abs() < 1e-5, "{now} where {mean} is the mean of four");
    }
}

#[test]
fn a_partner_that_breaks_off_is_not_waited_for() {
    let (mut table, asked) = pulling();
    give(&mut table, &asked[..2]);
    table.step(Input::LinkDown(asked[2]));
    assert_eq!(totals(&table), (1, 1));
}

#[test]
fn a_partner_that_has_nothing_to_give_is_not_waited_for() {
    let (mut table, asked) = pulling();
    give(&mut table, &asked[..2]);
    table.snapshot(asked[2], None);
    assert_eq!(totals(&table), (1, 0));
}

#[test]
fn the_deadline_ends_a_paranoid_round_and_the_late_one_is_left_alone() {
    let (mut table, asked) = pulling();
    give(&mut table, &asked[..2]);
    table.pass(EXCHANGE_TIMEOUT_FIRST - SECOND / 10);
    assert_eq!(totals(&table), (0, 0));
    table.pass(SECOND / 10);
    assert_eq!(totals(&table), (1, 1));
    let failures = |id: &NodeId| table.node.conducts.get(*id).map(|conduct| conduct.failures);
    assert_eq!(asked.iter().map(failures).collect::<Vec<_>>(), [Some(0), Some(0), Some(1)]);
    let before = table.model().to_vec();
    table.snapshot(asked[2], Some((4.0, 50.0)));
    assert_eq!((totals(&table), table.model()), ((1, 1), &before[..]), "too late");
}

#[test]
fn a_round_without_any_model_ends_at_its_deadline() {
    let (mut table, asked) = pulling();
    let before = table.model().to_vec();
    table.pass(EXCHANGE_TIMEOUT_FIRST);
    assert_eq!((totals(&table), table.model()), ((0, asked.len() as u64), &before[..]));
    assert!(table.node.next_wakeup() > table.now);
}

#[test]
fn who_pulls_from_partners_that_are_all_slow_learns_to_wait_for_them() {
    let (mut table, mut asked) = pulling();
    let slow = 2 * EXCHANGE_TIMEOUT_FIRST;
    let mut rounds = 0;
    while table.node.counters().accepted == 0 {
        rounds += 1;
        assert!(rounds < 20, "it gives up too early for ever");
        table.pass(slow);
        give(&mut table, &asked);
        asked = table.recipients(Kind::SnapshotRequest);
        while asked.is_empty() {
            table.pass(SECOND / 10);
            asked = table.recipients(Kind::SnapshotRequest);
        }
    }
    assert!(rounds <= 4, "{rounds}");
}
