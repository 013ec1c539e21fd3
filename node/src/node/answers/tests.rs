//! What a founder answers to guests that this file plays.

use std::collections::BTreeSet;

use starling_learning::compress::{Codec, Codecs};
use starling_protocol::limits::QUARANTINE_ROUNDS;
use starling_protocol::message::Kind;

use super::*;
use crate::node::Input;
use crate::node::table::{SECOND, Table, peer};

/// Further than any gate lets in.
const FAR: f32 = 100.0;

/// A founder with a guest that it does not draw.
fn table() -> (Table, NodeId) {
    let mut table = Table::new(BTreeSet::new());
    table.link_as(peer(2), false);
    (table, peer(2))
}

fn return_of(table: &mut Table, guest: NodeId) {
    table.step(Input::LinkDown(guest));
    table.link_as(guest, false);
}

/// Asks with the node's own model, each parameter moved by `offset`; whether one came back.
fn ask(table: &mut Table, guest: NodeId, offset: f32) -> Result<(), ExchangeOutcome> {
    let model: Vec<f32> = table.model().iter().map(|value| value + offset).collect();
    match table.ask(guest, table.node.standing().age, &model).expect("answered at once") {
        ExchangeOutcome::Model { .. } => Ok(()),
        outcome => Err(outcome),
    }
}

const LIMITED: Result<(), ExchangeOutcome> = Err(ExchangeOutcome::RateLimited);

#[test]
fn a_third_request_within_a_round_is_refused_on_a_new_link_too() {
    let (mut table, guest) = table();
    let told = [(); 3].map(|()| ask(&mut table, guest, 0.0));
    assert_eq!(told, [Ok(()), Ok(()), LIMITED]);
    for _ in 0..3 {
        return_of(&mut table, guest);
        assert_eq!(ask(&mut table, guest, 0.0), LIMITED);
    }
    table.pass(SECOND * 12 / 10);
    assert_eq!(ask(&mut table, guest, 0.0), Ok(()), "our rounds earn it tokens");
}

#[test]
fn where_no_rounds_go_on_time_earns_tokens_at_the_pace_of_the_last() {
    for done in [false, true] {
        let (mut table, guest) = table();
        if done {
            table.node.phase = Phase::Done;
        } else {
            table.step(Input::Pause);
        }
        table.pass(2 * SECOND);
        table.node.counters.round_time = SECOND;
        let told = [(); 3].map(|()| ask(&mut table, guest, 0.0));
        assert_eq!(told, [Ok(()), Ok(()), LIMITED]);
        // Two tokens in a round, for the view has one place.
        table.pass(SECOND * 4 / 10);
        assert_eq!(ask(&mut table, guest, 0.0), LIMITED);
        table.pass(SECOND * 2 / 10);
        let told = [(); 2].map(|()| ask(&mut table, guest, 0.0));
        assert_eq!(told, [Ok(()), LIMITED], "done: {done}");
    }
}

#[test]
fn a_quarantine_outlives_the_link_and_ends_after_its_rounds() {
    let (mut table, guest) = table();
    for merge in 0..10 {
        assert_eq!(table.events("peer.quarantined"), 0, "before merge {merge}");
        assert_eq!(ask(&mut table, guest, if merge == 3 { 0.0 } else { FAR }), Ok(()));
        table.pass(SECOND * 12 / 10);
    }
    assert_eq!(table.events("peer.quarantined"), 1);
    assert_eq!((table.node.counters().accepted, table.node.counters().rejected), (1, 9));
    let until = table.node.standing().round + QUARANTINE_ROUNDS - 1;
    return_of(&mut table, guest);
    while table.node.standing().round < until - 1 {
        assert_eq!(ask(&mut table, guest, 0.0), Err(ExchangeOutcome::Refused));
        table.pass(SECOND);
    }
    table.pass(3 * SECOND);
    assert_eq!(ask(&mut table, guest, 0.0), Ok(()));
}

#[test]
fn who_asks_us_cannot_pull_us_like_an_outlier() {
    let (mut table, guest) = table();
    let before = table.model().to_vec();
    for _ in 0..2 {
        assert_eq!(ask(&mut table, guest, FAR), Ok(()));
    }
    assert_eq!(table.node.counters().rejected, 2);
    assert_eq!(table.model(), before);
}

#[test]
fn others_hear_that_we_are_busy_while_we_wait() {
    let (mut table, guest) = table();
    table.link(peer(3));
    let (partner, request) = table.asked();
    assert_eq!(partner, peer(3));
    assert_eq!(ask(&mut table, guest, 0.0), Err(ExchangeOutcome::Busy));
    table.give(partner, request.exchange, 4.0, 0.0);
    assert_eq!(ask(&mut table, guest, 0.0), Ok(()));
}

fn score(table: &mut Table, from: NodeId, exchange: u64, correct: u32, total: u32) {
    table.say(from, Message::CrossScore(CrossScore { exchange, correct, total }));
}

/// An exchange of the node's own, answered.
fn exchanged(table: &mut Table) -> u64 {
    let (partner, request) = table.asked();
    table.give(partner, request.exchange, table.node.standing().age, 0.0);
    request.exchange
}

#[test]
fn one_score_counts_for_each_reply_from_its_partner_for_its_exchange() {
    let (mut table, guest) = table();
    let partner = peer(3);
    table.link(partner);
    let (_, request) = table.asked();
    score(&mut table, partner, request.exchange, 64, 64);
    table.give(partner, request.exchange, 4.0, 0.0);
    score(&mut table, guest, request.exchange, 64, 64);
    assert_eq!(table.node.cross_accuracy(), None, "too early, or of another");
    score(&mut table, partner, request.exchange, 32, 64);
    assert_eq!(table.node.cross_accuracy(), Some(0.5));
    score(&mut table, partner, request.exchange, 64, 64);
    assert_eq!(table.node.cross_accuracy(), Some(0.5), "one for each reply");
    let next = exchanged(&mut table);
    score(&mut table, partner, request.exchange, 64, 64);
    score(&mut table, partner, next, 64, 64);
    assert_eq!(table.node.cross_accuracy(), Some(0.5), "a wrong one was its one");
    for total in [0, SCORE_ROWS_MAX + 1] {
        let next = exchanged(&mut table);
        score(&mut table, partner, next, 0, total);
        assert_eq!(table.node.cross_accuracy(), Some(0.5), "{total} rows are none");
    }
    let next = exchanged(&mut table);
    score(&mut table, partner, next, 16, 64);
    assert_eq!(table.node.cross_accuracy(), Some(0.25), "of each peer the newest counts");
}

#[test]
fn a_reply_is_written_in_what_the_partner_reads() {
    let reads = |codecs: Codecs, asked: Codec| {
        let mut table = Table::new(BTreeSet::new());
        table.greet(peer(2), |hello| {
            hello.codecs = codecs.bits();
            hello.standing.answers = false;
        });
        let model = table.model().to_vec();
        match table.ask_in(peer(2), 4.0, asked, None, &model) {
            Some(ExchangeOutcome::Model { codec, .. }) => Codec::from_byte(codec),
            told => panic!("{told:?}"),
        }
    };
    let without = Codecs::from_bits(Codecs::ALL.bits() & !(1 << Codec::Ref3 as u32));
    for codec in [Codec::Int6, Codec::Int8] {
        assert_eq!(reads(Codecs::ALL, codec), Some(Codec::Ref3));
        assert_eq!(reads(without, codec), Some(codec));
    }
    assert_eq!(reads(Codecs::ALL, Codec::Fp32), Some(Codec::Fp32), "who sends exact wants exact");
}

#[test]
fn what_was_asked_on_a_link_that_is_gone_is_not_answered_before_the_new_one_is_greeted() {
    let (mut table, guest) = table();
    table.step(Input::LinkDown(guest));
    table.step(Input::LinkUp(guest));
    table.outputs.clear();
    let outcome = ExchangeOutcome::Model { age: 0.0, codec: Codec::Fp32 as u8 };
    table.node.reply(guest, 7, outcome, vec![1]);
    table.step(Input::Tick);
    assert_eq!(table.recipients(Kind::ExchangeReply), []);
    return_of(&mut table, guest);
    table.node.reply(guest, 7, outcome, vec![1]);
    table.step(Input::Tick);
    assert_eq!(table.recipients(Kind::ExchangeReply), [guest]);
}

#[test]
fn an_operator_sees_how_far_a_peer_is_trusted() {
    let (mut table, guest) = table();
    let told = |table: &Table| table.node.peer_table(table.now).first().map(|peer| peer.trusted);
    assert_eq!(told(&table), Some(None));
    assert_eq!(ask(&mut table, guest, 0.0), Ok(()));
    assert_eq!(told(&table), Some(Some(1.0)));
    return_of(&mut table, guest);
    assert_eq!(told(&table), Some(Some(1.0)), "a new link changes nothing");
    table.pass(2 * SECOND);
    assert_eq!(ask(&mut table, guest, FAR), Ok(()));
    assert_eq!(told(&table), Some(Some(0.0)), "beyond the gate");
}
