//! Who is beaten to and whose link is closed, by a founder with a view of two.

use std::collections::{BTreeMap, BTreeSet};

use starling_protocol::fault::Rejection;
use starling_protocol::message::{ExchangeOutcome, Kind};

use super::*;
use crate::node::Input;
use crate::node::table::{SECOND, Table, peer};
use crate::settings::Settings;

const VIEW: usize = 2;
/// As many as are kept.
const KEPT: u8 = 5;

/// A founder and its linked peers, those that it draws from first.
fn table(peers: u8) -> (Table, Vec<NodeId>, Vec<NodeId>) {
    let mut table =
        Table::with(BTreeSet::new(), Settings { view_max: VIEW, ..Settings::default() });
    (2..2 + peers).for_each(|index| table.link(peer(index)));
    let rows = table.node.peer_table(table.now);
    let (drawn, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.drawn);
    let ids = |rows: Vec<&crate::node::Peer>| rows.into_iter().map(|row| row.id).collect();
    (table, ids(drawn), ids(others))
}

fn beats(table: &mut Table) -> BTreeMap<NodeId, usize> {
    let mut beats = BTreeMap::new();
    for output in core::mem::take(&mut table.outputs) {
        if let Output::Send(address, frame) = output
            && frame.message.kind() == Kind::Beat
        {
            *beats.entry(address.recipient).or_default() += 1;
        }
    }
    beats
}

#[test]
fn the_link_unused_the_longest_is_closed_and_strangers_close_none() {
    let (mut table, drawn, others) = table(KEPT + 1);
    assert_eq!((drawn.len(), others.len()), (2, 4));
    table.pass(SECOND);
    let (unused, used) = others.split_last().expect("four");
    for peer in used {
        table.say(*peer, Message::SnapshotRequest);
    }
    table.pass(6 * SECOND);
    assert!(table.outputs.contains(&Output::Disconnect(*unused)), "{:?}", table.outputs);
    assert_eq!(table.node.peers(), usize::from(KEPT));

    table.step(Input::LinkUp(peer(99)));
    table.outputs.clear();
    table.pass(7 * SECOND);
    assert_eq!(table.node.peers(), usize::from(KEPT), "a stranger is no reason");
}

#[test]
fn the_view_hears_each_beat_and_others_of_a_change_and_now_and_then() {
    let (mut table, drawn, others) = table(KEPT);
    // Without rounds the view stays as it is.
    table.step(Input::Pause);
    table.pass(SECOND);
    beats(&mut table);
    table.node.counters.step_ns = 1000;
    table.pass(7 * SECOND);
    let told = beats(&mut table);
    assert!(others.iter().all(|peer| told.get(peer) == Some(&1)), "{told:?}");
    table.node.counters.step_ns = 1900;
    // Eight to twelve beats, at most one of them the twelfth.
    table.pass(48 * SECOND);
    let told = beats(&mut table);
    let heard = |peer| told.get(peer).copied().unwrap_or(0);
    assert!(drawn.iter().all(|peer| (8..=12).contains(&heard(peer))), "{told:?}");
    assert!(others.iter().all(|peer| heard(peer) <= 1), "{told:?}");
}

#[test]
fn a_link_whose_stream_ended_is_gone_and_begins_anew() {
    let (mut table, ..) = table(1);
    for rejection in [Rejection::Truncated, Rejection::Unexpected] {
        table.outputs.clear();
        table.step(Input::Refused(peer(2), rejection));
        assert_eq!(table.node.peers(), 0);
        let cuts = table.outputs.iter().filter(|output| **output == Output::Disconnect(peer(2)));
        assert_eq!(cuts.count(), 1);
        table.link(peer(2));
        assert_eq!(table.sent(Kind::Hello), 1, "it is greeted again");
        assert_eq!(table.node.peers(), 1);
    }
}

#[test]
fn who_is_about_to_begin_is_told_of_others_at_once() {
    let (mut table, ..) = table(1);
    beats(&mut table);
    table.link_as(peer(7), true);
    assert_eq!(beats(&mut table).get(&peer(7)), None);
    table.link_as(peer(8), false);
    assert_eq!(beats(&mut table).get(&peer(8)), Some(&1));
}

/// A founder that has met its only peer and makes a round in each tick from then on.
fn quick_pair() -> Table {
    let (mut table, ..) = table(1);
    let model = table.model().to_vec();
    assert!(matches!(table.ask(peer(2), 0.0, &model), Some(ExchangeOutcome::Model { .. })));
    table.node.settings.round_period = SECOND / 20;
    table
}

#[test]
fn five_quick_rounds_without_an_answer_stop_the_training_and_are_no_isolation_yet() {
    let mut table = quick_pair();
    let mut trained = 0;
    for tick in 1..=80 {
        table.pass(SECOND / 10);
        while let Some((asked, request)) = table.asks() {
            table.decline(asked, request.exchange, ExchangeOutcome::Busy);
        }
        assert_eq!(table.node.isolated(), tick > 60, "after {tick} ticks");
        if tick == 30 {
            assert!(table.node.counters().silent_rounds > SILENT_ROUNDS);
            trained = table.node.counters().rounds;
        }
    }
    assert_eq!(table.events("mesh.isolated"), 1);
    assert_eq!(table.node.counters().rounds, trained);
    let model = table.model().to_vec();
    table.ask(peer(2), 0.0, &model);
    assert!(!table.node.isolated());
    assert_eq!(table.events("mesh.joined"), 1);
}

#[test]
fn who_lost_all_its_peers_is_isolated_though_it_makes_no_more_rounds() {
    let mut table = quick_pair();
    table.step(Input::LinkDown(peer(2)));
    table.pass(4 * SECOND);
    let rounds = table.node.counters().rounds;
    assert!(table.node.counters().silent_rounds == SILENT_ROUNDS && !table.node.isolated());
    table.pass(10 * SECOND);
    assert!(table.node.isolated() && table.node.counters().rounds == rounds);
    assert_eq!(table.events("mesh.isolated"), 1);
}
