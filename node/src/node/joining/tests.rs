//! How a newcomer begins, among members that this file plays.

use std::collections::BTreeSet;

use starling_protocol::id::Keypair;
use starling_protocol::message::Kind;

use super::*;
use crate::node::standing::Standing;
use crate::node::table::{SECOND, Table, peer};
use crate::node::{Identity, Input};
use crate::settings::Settings;

const ROOT: u8 = 2;

/// A newcomer whose members, from the founder on, say that they have these ages; and whom it asked.
fn newcomer(ages: &[f64]) -> (Table, Vec<NodeId>) {
    let mut table = Table::newcomer(peer(ROOT));
    for (index, age) in (ROOT..).zip(ages) {
        table.greet(peer(index), |hello| hello.standing.age = *age);
    }
    table.pass(SECOND);
    let asked = table.recipients(Kind::SnapshotRequest);
    (table, asked)
}

#[test]
fn a_newcomer_begins_from_the_median_of_three() {
    let (mut table, asked) = newcomer(&[100.0; 5]);
    assert_eq!(asked.len(), 3);
    for (peer, given) in asked.iter().zip([(90.0, 0.4), (100.0, 0.9), (104.0, 0.5)]) {
        assert_eq!(table.node.phase(), Phase::Join);
        table.snapshot(*peer, Some(given));
    }
    assert_eq!(table.node.phase(), Phase::Train);
    assert_eq!(table.node.standing().age, 100.0);
    assert!(table.node.standing().met);
    assert!(table.model().iter().all(|value| *value == 0.5), "coordinate by coordinate");
    assert_eq!(table.events("mesh.joined"), 1);
    assert_eq!(table.recipients(Kind::Beat).len(), 5, "all hear that it answers now");
}

#[test]
fn one_of_three_that_claims_any_age_does_not_decide() {
    for lie in [0.0, 1e15] {
        let (mut table, asked) = newcomer(&[100.0; 3]);
        for (peer, age) in asked.iter().zip([lie, 100.0, 104.0]) {
            table.snapshot(*peer, Some((age, 0.5)));
        }
        let expected = if lie > 0.0 { 104.0 } else { 100.0 };
        assert_eq!(table.node.standing().age, expected);
    }
}

#[test]
fn an_age_beyond_twice_what_all_say_is_not_taken_over() {
    let (mut table, asked) = newcomer(&[100.0; 3]);
    asked.iter().for_each(|peer| table.snapshot(*peer, Some((1e15, 0.5))));
    assert_eq!(table.node.standing().age, 2.0 * 100.0 + 16.0 * 4.0);
}

#[test]
fn of_large_neighbourhoods_five_are_asked() {
    assert_eq!(newcomer(&[100.0; 9]).1.len(), 3);
    assert_eq!(newcomer(&[100.0; 10]).1.len(), 5);
}

#[test]
fn who_is_too_busy_to_give_what_it_learnt_makes_no_newcomer_start_over() {
    // The others are newcomers too.
    let (mut table, asked) = newcomer(&[50.0, 0.0, 0.0]);
    assert_eq!(asked, [peer(ROOT)], "who has learnt nothing is not asked");
    table.snapshot(peer(ROOT), None);
    assert_eq!(table.node.phase(), Phase::Join);
    table.pass(RETRY - SECOND / 10);
    assert_eq!(table.recipients(Kind::SnapshotRequest), []);
    table.pass(SECOND / 5);
    assert_eq!(table.recipients(Kind::SnapshotRequest), [peer(ROOT)], "it is asked again");
    table.snapshot(peer(ROOT), Some((50.0, 0.5)));
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 50.0));
}

#[test]
fn all_begin_at_genesis_if_most_have_learnt_nothing() {
    let (mut table, asked) = newcomer(&[0.0; 4]);
    let genesis = table.model().to_vec();
    let (claims, others): (Vec<NodeId>, Vec<NodeId>) =
        asked.iter().partition(|id| asked.iter().find(|id| **id != peer(ROOT)) == Some(*id));
    assert_eq!((claims.len(), others.len()), (1, 2));
    claims.iter().for_each(|peer| table.snapshot(*peer, Some((7.0, 50.0))));
    others.iter().for_each(|peer| table.snapshot(*peer, None));
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 0.0));
    assert_eq!(table.model(), genesis, "one that claims more does not decide");
    assert!(!table.node.standing().met);
}

#[test]
fn the_founder_begins_first_and_its_age_is_followed() {
    let (mut table, asked) = newcomer(&[0.0; 3]);
    assert!(asked.contains(&peer(ROOT)));
    let genesis = table.model().to_vec();
    for id in asked {
        table.snapshot(id, (id == peer(ROOT)).then_some((7.0, 0.5)));
    }
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 7.0));
    assert_eq!(table.model(), genesis, "a model of two rounds is not worth the risk");
}

#[test]
fn a_founder_that_is_silent_speaks_for_nobody() {
    let (mut table, asked) = newcomer(&[0.0; 3]);
    let genesis = table.model().to_vec();
    let mut others = asked.into_iter().filter(|id| *id != peer(ROOT));
    table.snapshot(others.next().expect("two more"), Some((500.0, 50.0)));
    table.snapshot(others.next().expect("one more"), None);
    table.pass(SNAPSHOT_DEADLINE);
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 0.0));
    assert_eq!(table.model(), genesis);
}

#[test]
fn who_saved_before_it_learnt_or_met_anyone_is_a_newcomer_still() {
    let resumed = |age: f64, met: bool| {
        let (table, _) = newcomer(&[]);
        let standing = Standing { round: 3, age, met, ..Standing::default() };
        let (key, chain, contacts) = (Keypair::from_seed(&[1; 32]), Vec::new(), Vec::new());
        let (resumed, banned) = (Some(standing), BTreeSet::new());
        let identity = Identity { key, epoch: 2, chain, contacts, resumed, banned };
        Node::new(table.node.network.clone(), Settings::default(), identity).resumed
    };
    assert_eq!([resumed(0.0, false), resumed(4.0, false), resumed(0.0, true)], [false, true, true]);
}

#[test]
fn who_leaves_while_it_adopts_does_not_begin() {
    let (mut table, _) = newcomer(&[100.0; 3]);
    table.step(Input::Leave);
    table.node.adopted(100.0, &Done::Adopted(3));
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Leaving, 0.0));
}

#[test]
fn who_is_first_with_a_model_does_not_decide_where_a_flock_begins() {
    let (mut table, asked) = newcomer(&[0.0; 5]);
    let genesis = table.model().to_vec();
    asked.iter().for_each(|peer| table.snapshot(*peer, Some((1e15, -0.5))));
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 16.0 * 4.0));
    assert_eq!(table.model(), genesis);
}

#[test]
fn members_that_do_not_answer_are_given_up_and_asked_again() {
    let (mut table, asked) = newcomer(&[100.0; 3]);
    assert_eq!(asked.len(), 3);
    let mut again = Vec::new();
    while again.is_empty() {
        table.pass(SECOND / 10);
        again = table.recipients(Kind::SnapshotRequest);
    }
    // They were asked half a second before the first one.
    let waited = table.now.since(Time::ZERO + SECOND / 2);
    assert_eq!((again.len(), waited), (3, SNAPSHOT_DEADLINE + RETRY));
    // Those that are there decide at the deadline, without who is not.
    table.snapshot(again[0], Some((100.0, 0.5)));
    table.pass(SNAPSHOT_DEADLINE - SECOND / 10);
    assert_eq!(table.node.phase(), Phase::Join);
    table.pass(SECOND / 10);
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, 100.0));
}

#[test]
fn a_member_that_breaks_off_is_not_waited_for() {
    let (mut table, asked) = newcomer(&[100.0; 3]);
    asked[1..].iter().for_each(|peer| table.snapshot(*peer, Some((100.0, 0.5))));
    assert_eq!(table.node.phase(), Phase::Join);
    table.step(Input::LinkDown(asked[0]));
    assert_eq!(table.node.phase(), Phase::Train);
}

#[test]
fn poison_is_not_adopted_and_others_are_asked() {
    let (mut table, asked) = newcomer(&[100.0; 3]);
    let genesis = table.model().to_vec();
    asked.iter().for_each(|peer| table.snapshot(*peer, Some((100.0, 1e30))));
    assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Join, 0.0));
    assert_eq!(table.model(), genesis);
    table.pass(RETRY + SECOND / 10);
    assert_eq!(table.recipients(Kind::SnapshotRequest).len(), 3);
}

#[test]
fn a_short_training_is_young_for_a_fifth_of_it() {
    for (age, model) in [(20.0, None), (21.0, Some(0.5))] {
        let (mut table, asked) = newcomer(&[age; 3]);
        let genesis = table.model().to_vec();
        table.node.network.spec.training.age_max = Some(100.0);
        asked.iter().for_each(|peer| table.snapshot(*peer, Some((age, 0.5))));
        assert_eq!((table.node.phase(), table.node.standing().age), (Phase::Train, age));
        let expected = model.map_or(genesis.clone(), |value| vec![value; genesis.len()]);
        assert_eq!(table.model(), expected);
    }
}
