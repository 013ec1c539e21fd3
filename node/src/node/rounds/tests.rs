//! A node's own rounds, of a founder with partners that this file plays.

use std::collections::BTreeSet;

use starling_learning::mix::distance;
use starling_protocol::limits::{EXCHANGE_TIMEOUT_FIRST, LATENCIES_MAX};

use super::*;
use crate::node::Input;
use crate::node::table::{SECOND, Table, peer};
use crate::settings::Settings;

/// Further than any gate lets in.
const FAR: f32 = 100.0;

fn table(peers: u8) -> Table {
    let mut table = Table::new(BTreeSet::new());
    (2..2 + peers).for_each(|index| table.link(peer(index)));
    table
}

/// Merges taken, requests answered, own exchanges failed.
fn totals(table: &Table) -> (u64, u64, u64) {
    let counters = table.node.counters();
    (counters.accepted, counters.answered, counters.failed)
}

fn own(table: &Table) -> (f64, Vec<f32>) {
    (table.node.standing().age, table.model().to_vec())
}

/// A founder with one partner, whose id is lower than its own or higher.
fn pair(lower: bool) -> (Table, NodeId) {
    let mut table = Table::new(BTreeSet::new());
    let me = table.node.id();
    let mut others = (2..=u8::MAX).map(peer);
    let partner = others.find(|id| (*id < me) == lower).expect("half of all are");
    table.link(partner);
    (table, partner)
}

#[test]
fn of_requests_that_cross_ours_wins_if_our_id_is_lower() {
    let (mut table, partner) = pair(false);
    let (_, request) = table.asked();
    let (age, model) = own(&table);
    assert_eq!(table.ask(partner, age, &model), None, "the other end answers ours");
    assert_eq!(totals(&table), (0, 0, 0));
    table.give(partner, request.exchange, age, 0.0);
    assert_eq!(totals(&table), (1, 0, 0));
}

#[test]
fn of_requests_that_cross_theirs_is_answered_if_its_id_is_lower_and_costs_no_token() {
    let (mut table, partner) = pair(true);
    let (age, model) = own(&table);
    let told: Vec<_> = (0..3).map(|_| table.ask(partner, age, &model)).collect();
    assert_eq!(told[2], Some(ExchangeOutcome::RateLimited));
    let (_, request) = table.asked();
    let before = totals(&table);
    assert_eq!(before, (2, 2, 0));
    let told = table.ask(partner, age, &model);
    assert!(matches!(told, Some(ExchangeOutcome::Model { .. })), "{told:?}");
    assert_eq!(totals(&table), (3, 3, 0));
    table.give(partner, request.exchange, age, 0.0);
    assert_eq!(totals(&table), (3, 3, 0), "ours is void");
    assert_eq!(table.events("frame.rejected"), 0, "and that is nobody's fault");
    assert!(table.asked().1.exchange > request.exchange, "rounds go on");
}

#[test]
fn a_partner_that_cannot_answer_is_replaced_once_and_not_twice() {
    let outcomes = [ExchangeOutcome::Busy, ExchangeOutcome::RateLimited];
    for (outcome, peers) in outcomes.into_iter().flat_map(|it| (2..6).map(move |peers| (it, peers)))
    {
        let mut table = table(peers);
        let (first, request) = table.asked();
        table.decline(first, request.exchange, outcome);
        let (second, again) = table.asks().expect("a second choice at once");
        assert_ne!(second, first);
        table.decline(second, again.exchange, outcome);
        assert_eq!(table.asks(), None);
        assert_eq!((totals(&table), table.events("exchange.failed")), ((0, 0, 1), 1));
    }
}

#[test]
fn a_round_has_as_many_exchanges_as_are_set_whatever_comes_of_them() {
    let settings = Settings { exchanges_per_round: 3, ..Settings::default() };
    let mut table = Table::with(BTreeSet::new(), settings);
    (2..6).for_each(|index| table.link(peer(index)));
    for _ in 0..3 {
        let (first, request) = table.asked();
        let round = table.node.standing().round;
        table.give(first, request.exchange, own(&table).0, 0.0);
        let (second, request) = table.asks().expect("the next at once");
        assert_ne!(second, first);
        table.decline(second, request.exchange, ExchangeOutcome::Refused);
        let (third, request) = table.asks().expect("one that failed ends no round");
        assert_ne!(third, second);
        table.give(third, request.exchange, own(&table).0, 0.0);
        assert_eq!((table.asks(), table.node.standing().round), (None, round));
    }
    assert_eq!(totals(&table), (6, 0, 3));
}

#[test]
fn who_has_two_exchanges_a_round_answers_each_peer_twice_as_often() {
    let answered = |exchanges_per_round| {
        let settings = Settings { exchanges_per_round, ..Settings::default() };
        let mut table = Table::with(BTreeSet::new(), settings);
        (2..6).for_each(|index| table.link(peer(index)));
        let (age, model) = own(&table);
        let mut answered = 0;
        while table.node.standing().round < 9 {
            while let Some((asked, request)) = table.asks() {
                table.decline(asked, request.exchange, ExchangeOutcome::Refused);
            }
            let told = table.ask(peer(2), age, &model);
            answered += usize::from(matches!(told, Some(ExchangeOutcome::Model { .. })));
            table.pass(SECOND / 10);
        }
        answered
    };
    // Two at once, then one in two of seven rounds, or one in each.
    assert_eq!((answered(1), answered(2)), (5, 9));
}

/// How long a partner that says this is left alone by a node that always has another choice.
fn spared_after(outcome: ExchangeOutcome) -> Duration {
    let mut table = Table::new(BTreeSet::new());
    for index in 2..6 {
        table.greet(peer(index), |hello| hello.standing.step_ns = 1_000_000_000);
    }
    let (first, mut request) = table.asked();
    let begun = table.now;
    table.decline(first, request.exchange, outcome);
    for _ in 0..200 {
        let asked;
        (asked, request) = table.asked();
        if asked == first {
            break;
        }
        table.decline(asked, request.exchange, ExchangeOutcome::Busy);
    }
    table.now.since(begun)
}

#[test]
fn who_is_asked_too_often_is_spared_until_its_rounds_earned_us_a_token() {
    // Rounds of four steps of a second, of which two earn one of its four partners a token.
    let (limited, busy) =
        (spared_after(ExchangeOutcome::RateLimited), spared_after(ExchangeOutcome::Busy));
    assert!(limited >= 8 * SECOND && limited < 40 * SECOND, "{limited:?}");
    assert!(busy < 8 * SECOND, "{busy:?}");
}

#[test]
fn a_lost_reference_is_asked_for_once_then_comes_a_whole_model_and_then_a_fault() {
    let mut table = table(1);
    let (partner, request) = table.asked();
    assert_eq!(request.base, None, "nothing is held yet");
    table.give(partner, request.exchange, 4.0, 0.0);
    let old = table.reference(partner).expect("held from now on");
    let nothing = vec![0.0; table.model().len()];
    table.ask_in(partner, 4.0, Codec::Ref3, Some(old), &nothing).expect("answered");
    let new = table.reference(partner);
    assert_ne!(new, Some(old));

    let (_, request) = table.asked();
    assert_eq!((request.base, request.codec), (new, Codec::Ref3 as u8));
    let held = ExchangeOutcome::BaseMismatch { held: Some(old) };
    table.decline(partner, request.exchange, held);
    let (_, request) = table.asks().expect("again, with what is held");
    assert_eq!((request.base, request.codec), (Some(old), Codec::Ref3 as u8));
    table.decline(partner, request.exchange, held);
    let (_, request) = table.asks().expect("once more, whole");
    assert_eq!((request.base, request.codec), (None, Codec::Int6 as u8));
    let counted = (table.events("frame.rejected"), table.events("exchange.failed"));
    assert_eq!(counted, (0, 0));
    table.decline(partner, request.exchange, held);
    assert_eq!(table.asks(), None);
    let counted = (table.events("frame.rejected"), table.events("exchange.failed"));
    assert_eq!(counted, (1, 1));
}

#[test]
fn a_whole_model_follows_at_once_if_the_partner_holds_nothing_of_ours() {
    for held in [None, Some(7)] {
        let mut table = table(1);
        let (partner, request) = table.asked();
        table.give(partner, request.exchange, 4.0, 0.0);
        let (_, request) = table.asked();
        assert!(request.base.is_some());
        table.decline(partner, request.exchange, ExchangeOutcome::BaseMismatch { held });
        let (_, request) = table.asks().expect("again, whole");
        assert_eq!((request.base, request.codec), (None, Codec::Int6 as u8));
        table.give(partner, request.exchange, 4.0, 0.0);
        assert_eq!(totals(&table), (2, 0, 0));
    }
}

#[test]
fn a_reply_after_the_time_out_is_dropped_and_one_to_nothing_asked_is_a_fault() {
    let mut table = table(1);
    let (partner, request) = table.asked();
    table.pass(EXCHANGE_TIMEOUT_FIRST - SECOND / 10);
    assert_eq!(totals(&table), (0, 0, 0));
    table.pass(SECOND / 10);
    assert_eq!(totals(&table), (0, 0, 1), "given up");
    let before = table.model().to_vec();
    table.give(partner, request.exchange, 4.0, 0.001);
    assert_eq!(totals(&table), (0, 0, 1));
    assert_eq!(table.model(), before);
    assert_eq!(table.events("frame.rejected"), 0, "slow is no fault");
    table.give(partner, request.exchange + 1000, 4.0, 0.001);
    assert_eq!(table.model(), before);
    assert_eq!(table.events("frame.rejected"), 1);
}

#[test]
fn a_reply_of_another_than_the_partner_is_dropped() {
    let mut table = table(2);
    let (partner, request) = table.asked();
    let other = if partner == peer(2) { peer(3) } else { peer(2) };
    table.give(other, request.exchange, 4.0, 0.001);
    assert_eq!(totals(&table), (0, 0, 0));
    table.give(partner, request.exchange, 4.0, 0.001);
    assert_eq!(totals(&table), (1, 0, 0));
}

/// An exchange of the node's own that takes so long; with whom.
fn exchanged_in(table: &mut Table, took: impl Fn(NodeId) -> Duration) -> NodeId {
    let (partner, request) = table.asked();
    let end = table.now + took(partner);
    while table.now < end {
        table.now = table.now + SECOND / 100;
        table.step(Input::Tick);
    }
    table.give(partner, request.exchange, table.node.standing().age, 0.0);
    partner
}

#[test]
fn a_node_that_knew_faster_times_learns_to_wait_for_partners_that_are_all_slow_now() {
    let mut table = table(2);
    for _ in 0..LATENCIES_MAX {
        exchanged_in(&mut table, |_| SECOND / 100);
    }
    assert_eq!(totals(&table), (LATENCIES_MAX as u64, 0, 0));
    let begun = table.now;
    // As when others start on the same machine: six times what it has ever waited.
    for _ in 0..100 {
        exchanged_in(&mut table, |_| SECOND * 3 / 10);
    }
    let (accepted, _, failed) = totals(&table);
    assert_eq!(accepted + failed, LATENCIES_MAX as u64 + 100);
    // Half of what it remembers must be slow before it believes it, and then it does.
    assert!(failed <= 40, "{failed} exchanges of 100 were given up");
    let took = table.now.since(begun);
    assert!(took <= 150 * SECOND, "100 rounds of a second took {took:?}");
}

#[test]
fn who_alone_is_always_late_is_left_alone_and_changes_nothing() {
    let mut table = table(3);
    let late = peer(2);
    let took = |peer| if peer == late { SECOND * 3 / 10 } else { SECOND / 100 };
    let asked = (0..300).filter(|_| exchanged_in(&mut table, took) == late).count();
    assert!((2..=20).contains(&asked), "{asked} of 300");
    assert!(table.node.patience(late) <= SECOND / 10, "{:?}", table.node.patience(late));
}

/// How far a reply of this offset moves the model, and the gate's threshold.
fn moved(table: &mut Table, offset: f32) -> (f64, f64) {
    let (partner, request) = table.asked();
    let (age, before) = own(table);
    let threshold = table.node.threshold();
    table.give(partner, request.exchange, age, offset);
    (distance(&before, table.model()), threshold)
}

#[test]
fn an_outlier_is_pulled_by_a_threshold_from_the_second_own_rejection_in_a_row_on() {
    let mut table = table(3);
    assert_eq!(moved(&mut table, FAR).0, 0.0, "one may be hostile");
    for _ in 0..2 {
        let (pulled, threshold) = moved(&mut table, FAR);
        assert!(threshold > 0.0 && (pulled / threshold - 1.0).abs() < 0.01, "{pulled}");
    }
    assert_eq!(table.node.counters().rejected, 3);
    moved(&mut table, 0.0);
    assert_eq!(table.node.counters().accepted, 1);
    assert_eq!(moved(&mut table, FAR).0, 0.0, "not in a row any more");
}

/// The least and the largest of what is held for the gradient's length, of a founder alone, from
/// half a cycle before the second one begins to its first steps.
fn scales_around_a_cycle(steps_per_round: u32) -> (f64, f64) {
    let settings = Settings { steps_per_round, ..Settings::default() };
    let mut table = Table::with(BTreeSet::new(), settings);
    let (mut least, mut largest) = (f64::INFINITY, 0.0_f64);
    while table.node.standing().age < 550.0 {
        table.pass(SECOND);
        if table.node.standing().age >= 250.0 {
            let scale = table.node.standing().gradient_scale;
            (least, largest) = (least.min(scale), largest.max(scale));
        }
    }
    (least, largest)
}

#[test]
fn what_is_held_for_a_gradient_stays_within_twice_where_a_cycle_begins() {
    // Rounds of four steps end where a cycle does; those of three and seven begin before it, at a
    // rate of almost nothing, and end after it, at the full one.
    for steps in [3, 4, 7] {
        let (least, largest) = scales_around_a_cycle(steps);
        assert!(least > 0.0 && largest <= 2.0 * least, "{steps} steps: {least} to {largest}");
    }
}

/// The largest and the last share by which our age differs from that of eleven honest partners that
/// take as many steps as we, over 200 exchanges with them and a twelfth, which claims `lie` times
/// our age from the `quiet`-th exchange on. It also asks, as often as it likes.
fn age_moved(lie: f64, quiet: u32) -> (f64, f64) {
    let mut table = table(12);
    let liar = peer(13);
    let (mut largest, mut last) = (0.0_f64, 0.0);
    let begun = table.node.standing().steps;
    table.node.standing.age = 1000.0;
    for exchange in 0..200 {
        let (partner, request) = table.asked();
        let age = table.node.standing().age;
        let steps = (table.node.standing().steps - begun) as f64;
        let honest = 1000.0 + steps + f64::from(exchange % 5) * 4.0 - 8.0;
        let lies = exchange >= quiet;
        let claim = if lies && partner == liar { lie * age } else { honest };
        table.give(partner, request.exchange, claim, 0.0);
        if lies {
            let (age, model) = own(&table);
            table.ask(liar, lie * age, &model);
        }
        let standing = table.node.standing();
        let expected = 1000.0 + (standing.steps - begun) as f64;
        last = (standing.age / expected - 1.0).abs();
        largest = largest.max(last);
    }
    assert_eq!(table.node.counters().accepted - table.node.counters().answered, 200);
    (largest, last)
}

#[test]
fn one_of_twelve_that_claims_a_high_age_moves_ours_by_a_twentieth_at_most() {
    let (largest, _) = age_moved(1000.0, 4);
    assert!(largest <= 0.05, "a thousand times our age moved it by {largest}");
    // While few claims are known it is not told from the others yet: each moves us by no more than
    // half of sixteen rounds, and the others bring us back.
    let (largest, last) = age_moved(1000.0, 0);
    assert!(largest <= 0.1, "a thousand times our age from the first moved it by {largest}");
    assert!(last <= 0.05, "a thousand times our age from the first left it off by {last}");
}

#[test]
fn one_of_twelve_that_claims_a_low_age_moves_ours_by_a_twentieth_at_most() {
    for lie in [0.55, 0.95] {
        for quiet in [0, 4] {
            let (largest, _) = age_moved(lie, quiet);
            assert!(
                largest <= 0.05,
                "{lie} of our age from exchange {quiet} moved it by {largest}"
            );
        }
    }
}

#[test]
fn nobody_is_asked_on_a_link_that_is_not_greeted_yet() {
    let mut table = Table::new(BTreeSet::new());
    table.step(Input::LinkUp(peer(2)));
    let model = Encoded { codec: Codec::Fp32, base: None, slab: vec![1] };
    for greeted in [false, true] {
        if greeted {
            table.link(peer(2));
        }
        table.node.stage = Stage::Encoding { peer: peer(2), second: false };
        table.node.request(peer(2), false, model.clone());
        assert_eq!(matches!(table.node.stage, Stage::Waiting { .. }), greeted);
    }
}
