//! Who is let in, by a founder whose callers this file plays.

use std::collections::BTreeSet;

use starling_learning::compress::Codec;
use starling_protocol::limits::{LINKS_MAX, SCORES_MAX};
use starling_protocol::message::Kind;

use super::*;
use crate::node::Input;
use crate::node::table::{SECOND, Table, peer};
use crate::settings::Settings;

fn stranger(index: u64) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&index.to_le_bytes());
    NodeId(id)
}

/// Why somebody was not let in, the first time that it was said.
fn denial(table: &mut Table) -> Option<Denial> {
    match table.take(|_, frame| frame.message.kind() == Kind::Denied)?.1.message {
        Message::Denied(denial) => Some(denial),
        _ => None,
    }
}

#[test]
fn strangers_on_all_links_give_way_after_a_second_to_members() {
    let mut table = Table::new(BTreeSet::new());
    (0..LINKS_MAX as u64).for_each(|index| table.step(Input::LinkUp(stranger(index))));
    assert_eq!(table.node.overflow(), None);
    table.link(peer(2));
    assert_eq!(denial(&mut table), Some(Denial::Full), "they have just come");
    table.pass(STRANGER_GRACE);
    for index in 2..2 + LINKS_MAX as u8 {
        table.link(peer(index));
        assert_eq!(denial(&mut table), Some(Denial::Full), "for {index}");
    }
    assert_eq!(table.node.peers(), LINKS_MAX);
}

#[test]
fn members_are_never_pushed_out_and_only_they_fill_all_links() {
    let mut table = Table::new(BTreeSet::new());
    for index in 2..1 + LINKS_MAX as u8 {
        table.link(peer(index));
    }
    table.pass(STRANGER_GRACE);
    for index in 0..10 * LINKS_MAX as u64 {
        table.step(Input::LinkUp(stranger(index)));
    }
    table.pass(STRANGER_GRACE);
    assert_eq!(table.node.peers(), LINKS_MAX - 1);
    table.outputs.clear();
    table.link(peer(100));
    assert_eq!(denial(&mut table), Some(Denial::Full), "the one stranger goes");
    assert_eq!(table.node.peers(), LINKS_MAX);
    table.link(peer(101));
    assert_eq!(denial(&mut table), Some(Denial::Full));
    assert_eq!(table.node.peers(), LINKS_MAX);
    assert!((2..1 + LINKS_MAX as u8).all(|index| table.node.links.contains_key(&peer(index))));
}

#[test]
fn a_stranger_that_waits_for_its_ticket_to_be_saved_is_not_pushed_out() {
    let mut table = Table::new(BTreeSet::new());
    let ticket = table.node.invite(1, u64::MAX, [0; 16], Vec::new()).expect("short");
    table.step(Input::LinkUp(stranger(0)));
    table.say(stranger(0), Message::Join(Join { ticket }));
    (1..LINKS_MAX as u64).for_each(|index| table.step(Input::LinkUp(stranger(index))));
    table.pass(STRANGER_GRACE);
    (2..100).for_each(|index| table.link(peer(index)));
    assert_eq!(table.node.peers(), LINKS_MAX - 1);
    table.outputs.clear();
    table.step(Input::Saved(true));
    assert_eq!(table.recipients(Kind::Welcome), [stranger(0)]);
}

#[test]
fn strangers_are_banned_too_and_their_bans_push_out_no_members() {
    let mut table = Table::new(BTreeSet::new());
    table.link(peer(2));
    table.step(Input::Refused(peer(2), Rejection::BadSignature));
    for index in 0..2 * SCORES_MAX as u64 {
        table.step(Input::LinkUp(stranger(index)));
        table.step(Input::Refused(stranger(index), Rejection::BadSignature));
        table.outputs.truncate(100);
    }
    assert_eq!(table.node.counters().frames_rejected, 2 * SCORES_MAX as u64 + 1);
    assert_eq!(table.node.counters().bans, 2 * SCORES_MAX as u64 + 1);
    let banned: Vec<NodeId> = table.node.scores.banned(table.now).collect();
    assert_eq!(banned.len(), SCORES_MAX);
    assert!(banned.contains(&peer(2)), "the member's ban holds");
}

#[test]
fn who_reads_no_codec_of_the_network_is_told_that_it_is_too_old() {
    let bit = |codec: Codec| 1 << codec as u32;
    // Differences alone are no use: there is no first one.
    for codecs in [0, bit(Codec::Ref3), 1 << 31] {
        let mut table = Table::new(BTreeSet::new());
        table.greet(peer(2), |hello| hello.codecs = codecs);
        assert_eq!(denial(&mut table), Some(Denial::Version), "{codecs:b}");
        assert_eq!(table.node.peers(), 0);
    }
}

#[test]
fn a_request_is_written_in_what_the_partner_reads() {
    let bit = |codec: Codec| 1 << codec as u32;
    let cases = [
        (Codecs::ALL.bits(), Codec::Int6, Codec::Ref3),
        (Codecs::ALL.bits() & !bit(Codec::Ref3), Codec::Int6, Codec::Int6),
        (bit(Codec::Int8), Codec::Int8, Codec::Int8),
        (bit(Codec::Fp32), Codec::Fp32, Codec::Fp32),
    ];
    for (codecs, first, second) in cases {
        let mut table = Table::new(BTreeSet::new());
        table.greet(peer(2), |hello| hello.codecs = codecs);
        for expected in [first, second] {
            let (partner, request) = table.asked();
            assert_eq!(Codec::from_byte(request.codec), Some(expected), "{codecs:b}");
            assert_eq!(request.base.is_some(), expected == Codec::Ref3);
            table.give(partner, request.exchange, 4.0, 0.0);
        }
    }
}

#[test]
fn new_peers_are_saved_until_a_view_full_is_known() {
    let view_max = 3;
    let mut table = Table::with(BTreeSet::new(), Settings { view_max, ..Settings::default() });
    let mut link = |index| {
        let before = table.saves();
        table.link(peer(index));
        let saves = table.saves() - before;
        table.step(Input::Saved(true));
        table.step(Input::LinkDown(peer(index)));
        saves
    };
    assert_eq!([2, 3, 2, 4, 2].map(&mut link), [1, 1, 0, 1, 0], "the known are no news");
    assert_eq!([5, 6, 7, 5, 2].map(&mut link), [0; 5], "nor is anyone where a view full is known");
    assert!(table.now < Time::ZERO + SECOND, "and none was due");
}
