//! What an operator asks, of a founder with peers that this file plays.

use std::collections::BTreeSet;

use starling_protocol::message::Kind;

use super::*;
use crate::node::table::{SECOND, Table, peer};
use crate::node::{Input, Output};

#[test]
fn a_pause_ends_rounds_and_nothing_else() {
    let mut table = Table::new(BTreeSet::new());
    table.pass(3 * SECOND);
    let before = table.node.standing().round;
    assert!(before >= 2, "{before}");

    table.step(Input::Pause);
    table.step(Input::Pause);
    assert!(table.node.is_paused() && table.events("train.paused") == 1);
    table.link(peer(2));
    table.pass(20 * SECOND);
    assert_eq!(table.node.standing().round, before, "the round was over when the pause came");
    assert!(table.node.is_idle());
    assert!(table.node.next_wakeup() > table.now, "a pause costs no processor");
    assert_eq!(table.node.peers(), 1);
    assert!(table.sent(Kind::Beat) >= 2, "peers still hear of it");

    table.step(Input::Resume);
    table.pass(3 * SECOND);
    assert!(!table.node.is_paused());
    assert!(table.node.standing().round >= before + 2);
}

#[test]
fn a_ban_cuts_a_peer_off_until_it_is_ended() {
    let mut table = Table::new(BTreeSet::new());
    table.link(peer(2));
    table.link(peer(3));
    assert_eq!(table.node.peers(), 2);

    table.step(Input::Ban(peer(2)));
    assert_eq!(table.node.peers(), 1);
    assert_eq!(table.events("peer.banned"), 1);
    assert!(table.outputs.contains(&Output::Disconnect(peer(2))));
    assert_eq!(table.sent(Kind::Denied), 1);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 1, "nor is it let in again");
    let rows = table.node.peer_table(table.now);
    let banned: Vec<NodeId> = rows.iter().filter(|row| row.banned).map(|row| row.id).collect();
    assert_eq!(banned, [peer(2)]);
    table.pass(100 * SECOND);
    let dials = |output: &Output| matches!(output, Output::Dial(hint) if hint.id == peer(2));
    assert!(!table.outputs.iter().any(dials), "nor dialled");

    table.step(Input::Unban(peer(2)));
    table.step(Input::Unban(peer(2)));
    assert_eq!(table.events("peer.unbanned"), 1);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 2);
}

#[test]
fn bans_outlive_a_restart_and_are_bounded() {
    let banned = BTreeSet::from([peer(2)]);
    let mut table = Table::new(banned);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 0);
    assert_eq!(table.node.operator_bans().collect::<Vec<_>>(), [peer(2)]);
    table.step(Input::Ban(table.node.id()));
    for index in 0..2 * BANS_MAX as u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&index.to_le_bytes());
        table.step(Input::Ban(NodeId(id)));
    }
    assert_eq!(table.node.operator_bans().count(), BANS_MAX);
    assert_eq!(table.node.overflow(), None);
}

#[test]
fn unban_also_ends_a_ban_for_misbehaviour() {
    let mut table = Table::new(BTreeSet::new());
    table.link(peer(2));
    table.step(Input::Refused(peer(2), starling_protocol::fault::Rejection::BadSignature));
    assert_eq!(table.node.peers(), 0);
    assert!(table.node.peer_table(table.now).iter().any(|row| row.id == peer(2) && row.banned));
    table.step(Input::Unban(peer(2)));
    table.link(peer(2));
    assert_eq!(table.node.peers(), 1);
}

#[test]
fn a_checkpoint_is_taken_when_asked_and_again_if_one_was_under_way() {
    let mut table = Table::new(BTreeSet::new());
    table.step(Input::Save);
    assert_eq!(table.saves(), 1);
    table.step(Input::Save);
    assert_eq!(table.saves(), 1, "one at a time");
    table.step(Input::Saved(true));
    assert_eq!(table.saves(), 2);
}

#[test]
fn a_shorter_pace_holds_at_once() {
    let mut table = Table::new(BTreeSet::new());
    let slow = Tuning {
        round_period: 3600 * SECOND,
        checkpoint_interval: 3600 * SECOND,
        contacts: vec![Hint { id: peer(2), addresses: vec!["/ip4/192.0.2.1/tcp/1".into()] }],
    };
    table.step(Input::Tune(slow.clone()));
    let dials = |output: &Output| matches!(output, Output::Dial(hint) if hint.id == peer(2));
    assert!(table.outputs.iter().any(dials), "a new contact is dialled");
    table.pass(10 * SECOND);
    let before = table.node.standing().round;
    table.pass(10 * SECOND);
    assert_eq!(table.node.standing().round, before);
    assert_eq!(table.saves(), 0);

    let fast = Tuning { round_period: SECOND, checkpoint_interval: 2 * SECOND, ..slow };
    table.step(Input::Tune(fast));
    table.pass(5 * SECOND);
    assert!(table.node.standing().round >= before + 3);
    assert_eq!(table.saves(), 1, "the first is still under way");
}
