//! Links to other nodes: who is let in, what each said last, what it may still ask.

use core::time::Duration;

use starling_learning::compress::Codecs;
use starling_protocol::admission::{self, Certificate};
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::fault::{Denial, Rejection, Severity};
use starling_protocol::id::NodeId;
use starling_protocol::limits::{HELLO_DEADLINE, HINTS_MAX, LINKS_PER_MEMBER, TICKETS_COUNTED_MAX};
use starling_protocol::message::{self, Hello, Hint, Join, Message, Welcome, check_addresses};
use starling_protocol::ticket::{Terms, Ticket, TicketError};
use starling_protocol::time::Time;
use starling_protocol::version;

use super::standing::TicketUse;
use super::{Node, Output, Phase};
use crate::event::Event;
use crate::spec::Membership;

/// A stranger that had so long to say who it is makes room when all links are taken.
const STRANGER_GRACE: Duration = Duration::from_secs(1);

/// One linked node.
#[derive(Clone, Debug)]
pub(super) struct Link {
    since: Time,
    /// The peer's boot count, once its Hello was accepted.
    epoch: Option<u64>,
    /// What it decodes.
    pub(super) codecs: Codecs,
    pub(super) standing: message::Standing,
    /// Whether our Hello said that we answer.
    said_answers: bool,
    /// When one of us last asked the other for something.
    pub(super) used: Time,
    pub(super) tally: Tally,
}

/// What came of the exchanges with one linked node, whoever asked for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
    pub(super) last: Option<Time>,
}

impl Link {
    fn new(now: Time, said_answers: bool) -> Self {
        Self {
            said_answers,
            used: now,
            since: now,
            epoch: None,
            codecs: Codecs::default(),
            standing: message::Standing::default(),
            tally: Tally::default(),
        }
    }

    pub(super) fn admitted(&self) -> bool {
        self.epoch.is_some()
    }

    pub(super) fn hello_deadline(&self) -> Option<Time> {
        (!self.admitted()).then(|| self.since + HELLO_DEADLINE)
    }

    pub(super) fn count_merge(&mut self, rejected: bool, now: Time) {
        let tally = &mut self.tally;
        *(if rejected { &mut tally.rejected } else { &mut tally.accepted }) += 1;
        tally.last = Some(now);
    }
}

/// A ticket holder that is let in once the use of its ticket is on disk.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) peer: NodeId,
    epoch: u64,
    chain: Vec<Certificate>,
    uses_left: u32,
    /// Whether the checkpoint under way has it.
    pub(super) covered: bool,
}

impl Node {
    pub(super) fn discovered(&mut self, hint: &Hint) {
        // The local network says anything; what we pass on must pass a border.
        if hint.id != self.me && check_addresses(&hint.addresses).is_ok() {
            self.view.learn(hint, false, &mut self.rng);
            self.fill_view();
        }
    }

    pub(super) fn link_up(&mut self, peer: NodeId) {
        if peer == self.me || self.links.contains_key(&peer) {
            return;
        }
        let denial = if self.is_banned(peer) {
            Some(Denial::Banned)
        } else if !self.make_room() {
            Some(Denial::Full)
        } else {
            None
        };
        if let Some(denial) = denial {
            self.deny(peer, denial);
            return;
        }
        let standing = self.public_standing();
        self.links.insert(peer, Link::new(self.now, standing.answers));
        let (links, rounds) = (&self.links, self.token_rounds);
        self.conducts.meet(peer, self.now, rounds, |id| links.contains_key(&id));
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::MAX,
            codecs: Codecs::ALL.bits(),
            standing,
            chain: self.chain.clone(),
            addresses: self.addresses.clone(),
        };
        self.send(peer, Message::Hello(hello).into());
    }

    /// Whether one more link may be held, if need be in the place of the stranger that has been
    /// silent the longest: strangers must not keep members out.
    fn make_room(&mut self) -> bool {
        if self.links.len() < LINKS_PER_MEMBER * self.view.capacity() {
            return true;
        }
        let silent = self.links.iter().filter(|(id, link)| {
            let waits = self.admissions.iter().any(|admission| admission.peer == **id);
            !link.admitted() && !waits && self.now.since(link.since) >= STRANGER_GRACE
        });
        let oldest = silent.min_by_key(|(_, link)| link.since).map(|(id, _)| *id);
        if let Some(stranger) = oldest {
            self.deny(stranger, Denial::Full);
        }
        oldest.is_some()
    }

    pub(super) fn link_down(&mut self, peer: NodeId, reason: &str) {
        let Some(link) = self.links.remove(&peer) else { return };
        if link.admitted() {
            let (peer, reason, peers) = (peer.to_string(), reason.to_owned(), self.peers());
            self.event(Event::PeerDisconnected { peer, reason, peers });
        }
        self.partner_lost(peer, "disconnected");
        self.joining.lost(peer);
        self.pull_lost(peer);
    }

    pub(super) fn disconnect(&mut self, peer: NodeId, reason: &str) {
        self.link_down(peer, reason);
        self.outputs.push(Output::Disconnect(peer));
    }

    pub(super) fn deny(&mut self, peer: NodeId, denial: Denial) {
        self.send(peer, Message::Denied(denial).into());
        self.event(Event::PeerDenied { peer: peer.to_string(), reason: denial.name().to_owned() });
        self.disconnect(peer, denial.name());
    }

    pub(super) fn public_standing(&self) -> message::Standing {
        message::Standing {
            age: self.standing.age,
            round: self.standing.round,
            answers: matches!(self.phase, Phase::Train | Phase::Done),
            step_ns: self.counters.step_ns,
        }
    }

    /// Addresses and queues one frame.
    pub(super) fn send(&mut self, peer: NodeId, frame: Frame) {
        let opens = frame.message.kind().opens_a_link();
        let epoch = self.links.get(&peer).and_then(|link| link.epoch);
        if epoch.is_none() && !opens {
            // What was to be said on a link that is gone. On a new one it would be refused.
            return;
        }
        let epoch = epoch.filter(|_| !opens);
        self.sequence += 1;
        let address = Address {
            sender: self.me,
            recipient: peer,
            epoch: self.epoch,
            sequence: self.sequence,
            recipient_epoch: epoch.unwrap_or(0),
        };
        self.counters.sent_bytes += frame.wire_bytes() as u64;
        self.counters.payload_sent_bytes += frame.slab.len() as u64;
        self.counters.messages_sent += 1;
        if frame.message.kind().asks() {
            self.uses(peer);
        }
        self.disclosed.count(peer, &frame);
        self.outputs.push(Output::Send(address, frame));
    }

    pub(super) fn received(&mut self, verified: Verified) {
        let Verified { address, frame } = verified;
        let peer = address.sender;
        let Some(link) = self.links.get(&peer) else { return };
        if self.phase == Phase::Leaving {
            return;
        }
        self.counters.received_bytes += frame.wire_bytes() as u64;
        self.counters.payload_received_bytes += frame.slab.len() as u64;
        let stale = link.epoch.is_some_and(|epoch| epoch != address.epoch);
        let Some(conduct) = self.conducts.get_mut(peer) else { return };
        if !conduct.takes_frame(self.now) {
            return self.fault(peer, Rejection::Flood);
        }
        let taken = conduct.window.take(address.epoch, address.sequence);
        if stale || taken.is_err() {
            return self.fault(peer, Rejection::Replay);
        }
        let admitted = self.links.get(&peer).is_some_and(Link::admitted);
        if frame.message.kind().asks() {
            self.uses(peer);
        }
        match frame.message {
            Message::Hello(hello) if !admitted => self.hello(peer, address.epoch, hello),
            Message::Denied(denial) => self.denied(peer, denial),
            Message::Join(join) => self.join(peer, address.epoch, &join),
            Message::Beat(beat) if admitted => self.take_beat(peer, beat),
            Message::Bye if admitted => self.disconnect(peer, "left"),
            Message::ExchangeRequest(request) if admitted => {
                self.exchange_requested(peer, &request, frame.slab);
            }
            Message::ExchangeReply(reply) if admitted => {
                self.exchange_replied(peer, &reply, frame.slab);
            }
            Message::CrossScore(score) if admitted => self.cross_scored(peer, score),
            Message::SnapshotRequest if admitted => self.snapshot_requested(peer),
            Message::SnapshotReply(reply) if admitted => {
                self.snapshot_replied(peer, reply, frame.slab);
            }
            _ => self.fault(peer, Rejection::Unexpected),
        }
    }

    /// Takes note that the link is of use.
    fn uses(&mut self, peer: NodeId) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.used = self.now;
        }
    }

    /// Counts what a peer did wrong, and cuts it off if that was too much.
    pub(super) fn fault(&mut self, peer: NodeId, rejection: Rejection) {
        self.count_fault(peer, rejection);
        let member = self.conducts.get(peer).is_some_and(|conduct| conduct.member);
        let tolerated = match rejection.severity() {
            // A stranger that asks too early has until its deadline to say who it is.
            Severity::None | Severity::High => true,
            Severity::Fatal => false,
            // With whatever else it does wrong it has one try.
            Severity::Mid | Severity::Low => member,
        };
        if !tolerated || self.is_banned(peer) {
            self.disconnect(peer, rejection.name());
        }
    }

    /// A frame that did not pass the border ends its stream, and a link cannot do without.
    pub(super) fn refused(&mut self, peer: NodeId, rejection: Rejection) {
        self.count_fault(peer, rejection);
        self.disconnect(peer, rejection.name());
    }

    fn count_fault(&mut self, peer: NodeId, rejection: Rejection) {
        let (name, reason) = (peer.to_string(), rejection.name().to_owned());
        self.counters.frames_rejected += 1;
        self.event(Event::FrameRejected { peer: name.clone(), reason: reason.clone() });
        let member = self.conducts.get(peer).is_some_and(|conduct| conduct.member);
        if self.scores.count(peer, rejection.severity(), member, self.now) {
            self.counters.bans += 1;
            self.event(Event::PeerBanned { peer: name, reason });
            self.view.drop_member(peer);
        }
    }

    fn hello(&mut self, peer: NodeId, epoch: u64, hello: Hello) {
        if version::negotiate(hello.version_min, hello.version_max).is_none() {
            return self.deny(peer, Denial::Version);
        }
        let root = self.network.spec.root;
        if self.network.spec.membership == Membership::Invite {
            let checked = admission::check_chain(self.network.id, root, &hello.chain, peer);
            if let Err(denial) = checked {
                // A stranger may hold a ticket: it says so next, or runs into the deadline.
                if !(denial == Denial::NotMember && hello.chain.is_empty()) {
                    self.deny(peer, denial);
                }
                return;
            }
        }
        let codecs = Codecs::from_bits(hello.codecs);
        if self.network.absolute_codec(codecs).is_none() {
            return self.deny(peer, Denial::Version);
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.epoch = Some(epoch);
        link.codecs = codecs;
        link.standing = hello.standing;
        let said_answers = link.said_answers;
        if let Some(conduct) = self.conducts.get_mut(peer) {
            conduct.admitted(epoch);
        }
        let hint = Hint { id: peer, addresses: hello.addresses };
        let known = self.view.knows(peer);
        self.view.reached(&hint, &mut self.rng);
        self.fill_view();
        if !known && self.view.candidates_len() <= self.view.capacity() {
            // After a crash the flock must be found again; whoever knows a view full will.
            self.checkpoint();
        }
        let (age, peers) = (hello.standing.age, self.peers());
        self.event(Event::PeerConnected { peer: peer.to_string(), age, peers });
        self.outputs.push(Output::Admitted(peer));
        // Who is about to begin needs to know others now, and everyone that we answer by now.
        if !hello.standing.answers || said_answers != self.public_standing().answers {
            self.send_beat(peer);
        }
    }

    fn denied(&mut self, peer: NodeId, denial: Denial) {
        let reason = denial.name().to_owned();
        self.event(Event::PeerRefusedUs { peer: peer.to_string(), reason });
        self.view.drop_member(peer);
        self.disconnect(peer, "denied");
    }

    /// Takes a ticket: its holder is let in as soon as the use is on disk, so that a crash cannot
    /// give it back.
    fn join(&mut self, peer: NodeId, epoch: u64, join: &Join) {
        let waiting = self.admissions.iter_mut().find(|admission| admission.peer == peer);
        if let Some(admission) = waiting {
            admission.epoch = epoch;
            return;
        }
        if self.admissions.len() >= LINKS_PER_MEMBER * self.view.capacity() {
            return self.deny(peer, Denial::Full);
        }
        let used = match Ticket::parse(&join.ticket) {
            Err(_) => return self.deny(peer, Denial::InvalidTicket),
            Ok(ticket) => self.count_ticket(&ticket),
        };
        let chain = used.and_then(|uses_left| {
            admission::extend_chain(&self.key, self.network.id, &self.chain, peer)
                .map(|chain| (uses_left, chain))
        });
        let (uses_left, chain) = match chain {
            Ok(granted) => granted,
            Err(denial) => return self.deny(peer, denial),
        };
        self.admissions.push(Admission { peer, epoch, chain, uses_left, covered: false });
        self.checkpoint();
    }

    /// Lets in whom the last checkpoint has: gives each a chain through us, and the specification.
    pub(super) fn admit_saved(&mut self, durable: bool) {
        let all = core::mem::take(&mut self.admissions);
        let (saved, waiting): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|admission| admission.covered && durable);
        self.admissions = waiting;
        for Admission { peer, epoch, chain, uses_left, .. } in saved {
            let Some(link) = self.links.get_mut(&peer) else { continue };
            // It is no partner yet: it comes back with a Hello of its own.
            link.epoch = Some(epoch);
            let mut hints = self.view.hints(HINTS_MAX, |id| id != peer, &mut self.rng);
            hints.push(Hint { id: self.me, addresses: self.addresses.clone() });
            let slab = self.network.canonical.clone();
            self.send(peer, Frame { message: Message::Welcome(Welcome { chain, hints }), slab });
            self.event(Event::PeerAdmitted { peer: peer.to_string(), uses_left });
            if let Some(link) = self.links.get_mut(&peer) {
                link.epoch = None;
            }
        }
    }

    /// Takes one use of a ticket; how many are left.
    fn count_ticket(&mut self, ticket: &Ticket) -> Result<u32, Denial> {
        let (name, tickets) = (ticket.fingerprint(), &mut self.standing.tickets);
        let known = tickets.iter().position(|entry| entry.ticket == name);
        let used = known.and_then(|at| tickets.get(at)).map_or(0, |entry| entry.used);
        ticket.admits(self.network.id, self.network.spec.root, self.unix, used)?;
        if let Some(at) = known {
            tickets.remove(at);
        } else if tickets.len() >= TICKETS_COUNTED_MAX {
            tickets.remove(0);
        }
        tickets.push(TicketUse { ticket: name, used: used + 1 });
        Ok(ticket.terms.uses - used - 1)
    }

    /// A ticket for `uses` nodes until `not_after` (Unix seconds).
    ///
    /// # Errors
    /// If it would be too long.
    pub fn invite(
        &self,
        uses: u32,
        not_after: u64,
        nonce: [u8; 16],
        addresses: Vec<String>,
    ) -> Result<String, TicketError> {
        let terms = Terms {
            network: self.network.id,
            root: self.network.spec.root,
            inviter: self.me,
            chain: self.chain.clone(),
            contacts: vec![Hint { id: self.me, addresses }],
            nonce,
            not_after,
            uses,
        };
        Ticket::sign(&self.key, terms)?.to_text()
    }
}

#[cfg(test)]
mod tests;
