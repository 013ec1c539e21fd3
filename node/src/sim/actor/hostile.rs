//! What a hostile node does that a production node would not.

use core::time::Duration;
use std::sync::Arc;

use rand::RngExt;
use starling_learning::compress::Codec;
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::message::{ExchangeOutcome, ExchangeRequest, Message};
use starling_protocol::time::Time;

use super::Actor;
use crate::jobs::Job;
use crate::sim::attack::{Attack, COPIES_MAX, Crowd};
use crate::sim::queue::Cargo;

impl Actor {
    pub(in crate::sim) fn is_hostile(&self) -> bool {
        self.attacker.is_some()
    }

    pub(super) fn attack(&self) -> Option<Attack> {
        self.attacker.as_ref().map(|attacker| attacker.attack)
    }

    pub(in crate::sim) fn inform(&mut self, crowd: &Arc<Crowd>) {
        if let Some(attacker) = &mut self.attacker {
            attacker.crowd = Arc::clone(crowd);
        }
    }

    /// Lets a hostile node put another model in its own model's place before it is sent.
    pub(super) fn forge(&mut self, job: &Job) {
        let (Some(attacker), Some(live)) = (&mut self.attacker, &mut self.live) else { return };
        let (peer, sent) = match job {
            Job::Encode { peer, .. } => (Some(*peer), None),
            Job::Snapshot { .. } => (None, None),
            Job::Answer { peer, request, .. } => {
                (Some(*peer), live.worker.replica().decode(*peer, request))
            }
            _ => return,
        };
        let peer = peer.and_then(|peer| self.ids.index(peer));
        if let Some(forged) = attacker.forge(|| self.network.genesis(), peer, sent) {
            live.worker.replace_params(&forged);
        }
    }

    /// What a hostile node says instead; none if it keeps silent.
    pub(super) fn misreport(&self, mut frame: Frame) -> Option<Frame> {
        match (self.attack(), &mut frame.message) {
            (Some(Attack::Tarpit {}), Message::ExchangeReply(_)) => return None,
            (Some(Attack::Tarpit {}), Message::Beat(beat)) => beat.standing.step_ns = u64::MAX,
            (Some(Attack::FalseAge { factor }), message) => match message {
                Message::ExchangeRequest(request) => request.age *= factor,
                Message::ExchangeReply(reply) => {
                    if let ExchangeOutcome::Model { age, .. } = &mut reply.outcome {
                        *age *= factor;
                    }
                }
                Message::SnapshotReply(reply) => {
                    reply.age = reply.age.map(|age| age * factor);
                }
                Message::Beat(beat) => beat.standing.age *= factor,
                Message::Hello(hello) => hello.standing.age *= factor,
                _ => {}
            },
            _ => {}
        }
        Some(frame)
    }

    /// How long a hostile node holds a frame back: a share of what it would wait itself, which is
    /// about what its victim does.
    pub(super) fn hold_back(&self, address: &Address, frame: &Frame) -> Duration {
        match (self.attack(), &frame.message, &self.live) {
            (Some(Attack::Dawdle { share }), Message::ExchangeReply(_), Some(live)) => {
                live.node.patience(address.recipient).mul_f64(share)
            }
            _ => Duration::ZERO,
        }
    }

    /// A flooding node numbers its frames with gaps, for those that it makes up in between.
    pub(super) fn spread(&self, address: Address) -> Address {
        match self.attack() {
            Some(Attack::Flood { .. }) => {
                Address { sequence: address.sequence * u64::from(COPIES_MAX), ..address }
            }
            _ => address,
        }
    }

    /// For each request of its own a flooding node sends others to random partners besides.
    pub(super) fn flood(&mut self, now: Time, address: Address, frame: &Frame) {
        let Some(Attack::Flood { factor }) = self.attack() else { return };
        let (Message::ExchangeRequest(request), Some(live)) = (&frame.message, &self.live) else {
            return;
        };
        let (mut forged, mut slab) = (live.worker.replica().params().to_vec(), Vec::new());
        if Codec::Int8.encode(&mut forged, &mut slab).is_err() {
            return;
        }
        let (exchange, age, codec) = (request.exchange, request.age, Codec::Int8 as u8);
        let message =
            Message::ExchangeRequest(ExchangeRequest { exchange, age, codec, base: None });
        for copy in 1..factor {
            let linked: Vec<(usize, u64)> =
                self.links.iter().map(|(peer, epoch)| (*peer, *epoch)).collect();
            let Some((peer, epoch)) =
                linked.get(self.rng.random_range(0..linked.len().max(1))).copied()
            else {
                return;
            };
            let Some(recipient) = self.ids.nodes.get(peer).copied() else { return };
            let sequence = address.sequence + u64::from(copy);
            let address = Address { recipient, recipient_epoch: epoch, sequence, ..address };
            let frame = Frame { message: message.clone(), slab: slab.clone() };
            if let Ok(verified) = Verified::in_process(address, frame) {
                self.post(now, peer, Cargo::Frame(verified));
            }
        }
    }

    /// Duration of a local step.
    pub(super) fn step_time(&self) -> Duration {
        let slow = (self.ids.nodes.len() as f64 * self.scenario.slow_share).round() as usize;
        let factor = if self.index < slow { self.scenario.slow_factor } else { 1 };
        self.scenario.step * factor
    }
}
