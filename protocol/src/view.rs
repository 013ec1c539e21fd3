//! Whom a node knows and whom it draws its partners from: a slowly rotating partial view.
//!
//! The view holds at most [`VIEW_MAX`](crate::limits::VIEW_MAX) nodes, chosen by our own generator
//! from all candidates we heard of, so neither the size of the network nor the eagerness of a peer
//! changes what a node holds. Once in 48 draws an entry is replaced (after Cyclon: Voulgaris,
//! Gavidia, van Steen, "CYCLON: Inexpensive Membership Management", 2005; candidates spread as its
//! shuffles do, a few at random in each beat). Whoever calls knows which candidates are linked.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::id::NodeId;
use crate::limits::{ADDRESSES_MAX, CANDIDATES_PER_MEMBER, DIAL_BACKOFF_MAX};
use crate::message::Hint;
use crate::time::Time;

/// Addresses of one node taken from others.
const HEARSAY_MAX: usize = 4;
/// Mean number of draws between two replacements. Replacing four times as often changed no accuracy
/// with 64 and 256 nodes, and costs whole models and links.
const DRAWS_PER_ROTATION: u32 = 48;

#[derive(Clone, Debug, Default)]
struct Candidate {
    /// From the operator or a ticket, the newest first.
    given: Vec<String>,
    /// From the node itself.
    own: Vec<String>,
    /// From others, the newest first; may be stale, or invented.
    hearsay: Vec<String>,
    failures: u32,
    retry_at: Time,
    /// Known from the operator or a ticket: never forgotten.
    pinned: bool,
}

impl Candidate {
    fn can_be_dialled(&self) -> bool {
        !self.hearsay.is_empty() || self.is_sure()
    }

    /// Whether it has an address that is no hearsay.
    fn is_sure(&self) -> bool {
        !self.given.is_empty() || !self.own.is_empty()
    }

    /// Addresses that are no hearsay. Half of the places are for what the node says itself: what
    /// was given may be stale.
    fn sure(&self) -> impl Iterator<Item = &String> {
        let own = self.own.iter().filter(|address| !self.given.contains(address));
        let places = ADDRESSES_MAX - own.clone().count().min(ADDRESSES_MAX / 2);
        self.given.iter().take(places).chain(own).take(ADDRESSES_MAX)
    }

    fn hint(&self, id: NodeId) -> Hint {
        let all = self.sure().chain(&self.hearsay);
        Hint { id, addresses: all.take(ADDRESSES_MAX).cloned().collect() }
    }
}

/// Candidates and the view among them.
#[derive(Clone, Debug)]
pub struct View {
    candidates: BTreeMap<NodeId, Candidate>,
    members: BTreeSet<NodeId>,
    capacity: usize,
}

impl View {
    /// An empty view of at most `capacity` nodes.
    #[must_use]
    pub fn of(capacity: usize) -> Self {
        Self { candidates: BTreeMap::new(), members: BTreeSet::new(), capacity }
    }

    /// Most nodes it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Takes note of a node. Addresses that the operator or a ticket gave (`pinned`) are kept apart
    /// from hearsay, which cannot push them out; the newest come first. Once
    /// [`CANDIDATES_PER_MEMBER`] times the view are known a random one that is neither pinned nor
    /// in the view makes room, one that we never reached before any other.
    pub fn learn(&mut self, hint: &Hint, pinned: bool, rng: &mut ChaCha8Rng) {
        if !self.candidates.contains_key(&hint.id) && !self.make_room(rng) {
            return;
        }
        let known = self.candidates.entry(hint.id).or_default();
        known.pinned |= pinned;
        if pinned {
            let older = std::mem::take(&mut known.given);
            for address in hint.addresses.iter().chain(&older) {
                if !known.given.contains(address) && known.given.len() < ADDRESSES_MAX {
                    known.given.push(address.clone());
                }
            }
            return;
        }
        // The first of a hint is the best.
        for address in hint.addresses.iter().rev() {
            let mut all = known.given.iter().chain(&known.own).chain(&known.hearsay);
            if !all.any(|known| known == address) {
                known.hearsay.insert(0, address.clone());
            }
        }
        known.hearsay.truncate(HEARSAY_MAX);
    }

    fn make_room(&mut self, rng: &mut ChaCha8Rng) -> bool {
        if self.candidates.len() >= CANDIDATES_PER_MEMBER * self.capacity {
            let idle = self
                .candidates
                .iter()
                .filter(|(id, candidate)| !candidate.pinned && !self.members.contains(id));
            let (reached, heard): (Vec<_>, Vec<_>) =
                idle.partition(|(_, candidate)| candidate.is_sure());
            let pool = if heard.is_empty() { reached } else { heard };
            let Some(evicted) = choose(pool.into_iter().map(|(id, _)| *id), rng) else {
                return false;
            };
            self.candidates.remove(&evicted);
        }
        true
    }

    /// Fills the view from the candidates that are `allowed` and either `linked` or can be dialled.
    pub fn fill(
        &mut self,
        linked: impl Fn(NodeId) -> bool,
        allowed: impl Fn(NodeId) -> bool,
        rng: &mut ChaCha8Rng,
    ) {
        while self.members.len() < self.capacity {
            let outside = self.candidates.iter().filter(|(id, candidate)| {
                let reachable = linked(**id) || candidate.can_be_dialled();
                reachable && !self.members.contains(id) && allowed(**id)
            });
            let Some(chosen) = choose(outside.map(|(id, _)| *id), rng) else { return };
            self.members.insert(chosen);
        }
    }

    /// Once in 48 calls: drops one random member, if there is someone to take its place.
    pub fn rotate(&mut self, rng: &mut ChaCha8Rng) {
        let others = self.candidates.len() > self.members.len();
        if others
            && rng.random_range(0..DRAWS_PER_ROTATION) == 0
            && let Some(dropped) = choose(self.members.iter().copied(), rng)
        {
            self.members.remove(&dropped);
        }
    }

    /// The view.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter().copied()
    }

    /// Whether `id` is in the view.
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.members.contains(&id)
    }

    /// Takes `id` out of the view, so that another candidate gets its place.
    pub fn drop_member(&mut self, id: NodeId) {
        self.members.remove(&id);
    }

    /// Whether `id` is a candidate.
    #[must_use]
    pub fn knows(&self, id: NodeId) -> bool {
        self.candidates.contains_key(&id)
    }

    /// How many are known.
    #[must_use]
    pub fn candidates_len(&self) -> usize {
        self.candidates.len()
    }

    /// Everyone known.
    pub fn candidates(&self) -> impl Iterator<Item = Hint> + '_ {
        self.candidates.iter().map(|(id, candidate)| candidate.hint(*id))
    }

    /// Those that were reached, at the addresses that they said themselves, for the address book.
    pub fn met(&self) -> impl Iterator<Item = Hint> + '_ {
        let met = self.candidates.iter().filter(|(_, candidate)| !candidate.own.is_empty());
        met.map(|(id, candidate)| Hint { id: *id, addresses: candidate.own.clone() })
    }

    /// View members to dial now: those that `linked` does not hold and whose back-off is over. Each
    /// returned one is backed off as if the dial failed; [`View::reached`] clears that.
    pub fn due_for_dial(
        &mut self,
        now: Time,
        linked: impl Fn(NodeId) -> bool,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Hint> {
        let mut due = Vec::new();
        for id in self.members.iter().filter(|id| !linked(**id)) {
            let Some(candidate) = self.candidates.get_mut(id) else { continue };
            if !candidate.can_be_dialled() || candidate.retry_at > now {
                continue;
            }
            candidate.failures = candidate.failures.saturating_add(1);
            let jitter = rng.random_range(0.5..1.5);
            let backoff = 0.5 * 1.6_f64.powi(candidate.failures.min(12).cast_signed()) * jitter;
            candidate.retry_at =
                now + Duration::from_secs_f64(backoff.min(DIAL_BACKOFF_MAX.as_secs_f64()));
            due.push(candidate.hint(*id));
        }
        due
    }

    /// The earliest time at which [`View::due_for_dial`] may have something.
    #[must_use]
    pub fn next_dial(&self, linked: impl Fn(NodeId) -> bool) -> Option<Time> {
        let wanted = self.members.iter().filter(|id| !linked(**id));
        wanted
            .filter_map(|id| self.candidates.get(id))
            .filter(|candidate| candidate.can_be_dialled())
            .map(|candidate| candidate.retry_at)
            .min()
    }

    /// A link to a node is up and it said where it listens: that replaces all hearsay.
    pub fn reached(&mut self, hint: &Hint, rng: &mut ChaCha8Rng) {
        self.learn(hint, false, rng);
        if let Some(candidate) = self.candidates.get_mut(&hint.id) {
            candidate.failures = 0;
            candidate.retry_at = Time::ZERO;
            candidate.own.clone_from(&hint.addresses);
            candidate.hearsay.clear();
        }
    }

    /// Makes place for someone who may be there: a member that could not be reached in a few tries
    /// leaves the view if others wait, at once if it has no address to reach it at. One of which we
    /// only heard is forgotten after many; one that was reached may come back whenever it is
    /// switched on again, and the table is bounded without that.
    pub fn give_up_on_unreachable(&mut self, linked: impl Fn(NodeId) -> bool) {
        const TRIES_IN_VIEW: u32 = 3;
        const TRIES_AT_ALL: u32 = 20;
        let others = self.candidates.len() > self.members.len();
        let gone = |candidate: &Candidate, tries| candidate.failures >= tries;
        if others {
            let candidates = &self.candidates;
            self.members.retain(|id| {
                let waits = |c: &Candidate| c.can_be_dialled() && !gone(c, TRIES_IN_VIEW);
                linked(*id) || candidates.get(id).is_some_and(waits)
            });
        }
        let members = &mut self.members;
        self.candidates.retain(|id, candidate| {
            let known = candidate.pinned || candidate.is_sure();
            let keep = linked(*id) || known || !gone(candidate, TRIES_AT_ALL);
            if !keep {
                members.remove(id);
            }
            keep
        });
    }

    /// Up to `count` random candidates that `fit`, to tell others about. What we only heard is not
    /// passed on: invented nodes and addresses would spread by honest ones.
    pub fn hints(
        &self,
        count: usize,
        fit: impl Fn(NodeId) -> bool,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Hint> {
        let mut pool: Vec<_> = self
            .candidates
            .iter()
            .filter(|(id, candidate)| candidate.is_sure() && fit(**id))
            .collect();
        let mut hints = Vec::with_capacity(count.min(pool.len()));
        while hints.len() < count && !pool.is_empty() {
            let (id, candidate) = pool.swap_remove(rng.random_range(0..pool.len()));
            hints.push(Hint { id: *id, addresses: candidate.sure().cloned().collect() });
        }
        hints
    }
}

/// One item of `items`, each with equal chance.
pub fn choose<T>(items: impl Iterator<Item = T>, rng: &mut ChaCha8Rng) -> Option<T> {
    let mut pool: Vec<T> = items.collect();
    if pool.is_empty() {
        return None;
    }
    Some(pool.swap_remove(rng.random_range(0..pool.len())))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::limits::{CANDIDATES_MAX, VIEW_MAX};

    fn hint(index: u16) -> Hint {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&index.to_be_bytes());
        Hint { id: NodeId(id), addresses: vec![format!("/ip4/127.0.0.1/tcp/{index}")] }
    }

    fn view(nodes: u16) -> (View, ChaCha8Rng) {
        let (mut view, mut rng) = (View::of(VIEW_MAX), ChaCha8Rng::seed_from_u64(1));
        for index in 0..nodes {
            view.learn(&hint(index), false, &mut rng);
        }
        (view, rng)
    }

    #[test]
    fn candidates_and_members_are_bounded_whatever_is_heard() {
        let (mut view, mut rng) = view(1000);
        view.fill(|_| false, |_| true, &mut rng);
        assert_eq!(view.candidates().count(), CANDIDATES_MAX);
        assert_eq!(view.members().count(), VIEW_MAX);
    }

    #[test]
    fn rotation_visits_every_candidate_in_the_end_and_replaces_once_in_48_draws() {
        let (mut view, mut rng) = view(40);
        let (mut seen, mut replaced) = (BTreeSet::new(), 0);
        for _ in 0..12_000 {
            view.rotate(&mut rng);
            replaced += VIEW_MAX - view.members().count();
            view.fill(|_| false, |_| true, &mut rng);
            seen.extend(view.members());
        }
        assert_eq!(seen.len(), 40);
        // 12,000 draws replace 250 on average, standard deviation 16; the first fill adds ten.
        assert!((190..=330).contains(&replaced), "{replaced}");
    }

    #[test]
    fn dials_back_off_and_a_reached_peer_starts_afresh() {
        let (mut view, mut rng) = view(1);
        view.fill(|_| false, |_| true, &mut rng);
        assert_eq!(view.due_for_dial(Time::ZERO, |_| false, &mut rng).len(), 1);
        assert_eq!(view.due_for_dial(Time::ZERO, |_| false, &mut rng).len(), 0);
        let retry = view.next_dial(|_| false).expect("waiting");
        assert!(retry > Time::ZERO && retry <= Time::ZERO + Duration::from_secs(2));
        assert_eq!(view.due_for_dial(retry, |_| true, &mut rng).len(), 0);
        assert_eq!(view.due_for_dial(retry, |_| false, &mut rng).len(), 1);
        view.reached(&hint(0), &mut rng);
        assert_eq!(view.next_dial(|_| false), Some(Time::ZERO));
    }

    /// Where node 0 is said to be.
    fn said(ports: &[u16]) -> Hint {
        let at = |port: &u16| format!("/ip4/127.0.0.1/tcp/{port}");
        Hint { id: hint(0).id, addresses: ports.iter().map(at).collect() }
    }

    #[test]
    fn hearsay_adds_addresses_and_the_node_itself_replaces_them() {
        let (mut view, mut rng) = view(1);
        view.learn(&said(&[7]), false, &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[7, 0])));
        view.reached(&said(&[9]), &mut rng);
        for port in 10..30 {
            view.learn(&said(&[port]), false, &mut rng);
        }
        assert_eq!(view.candidates().next(), Some(said(&[9, 29, 28, 27, 26])));
    }

    #[test]
    fn what_the_operator_gave_outlives_what_the_node_says() {
        let (mut view, mut rng) = view(0);
        view.learn(&said(&[1, 2]), true, &mut rng);
        view.reached(&said(&[9, 2]), &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[1, 2, 9])));
        view.reached(&said(&[]), &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[1, 2])));
        view.learn(&said(&[1, 2, 3, 4, 5, 6, 7, 8]), true, &mut rng);
        view.reached(&said(&[11, 12, 13, 14, 15, 16]), &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[1, 2, 3, 4, 11, 12, 13, 14])));
    }

    #[test]
    fn hearsay_is_kept_in_its_order_and_not_passed_on() {
        let (mut view, mut rng) = view(0);
        view.learn(&said(&[1, 2, 3, 4, 5, 6]), false, &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[1, 2, 3, 4])));
        view.reached(&said(&[9]), &mut rng);
        view.learn(&said(&[7, 8]), false, &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[9, 7, 8])));
        assert_eq!(view.hints(1, |_| true, &mut rng), [said(&[9])]);
    }

    #[test]
    fn what_is_pinned_again_is_there_once_and_the_newest_first() {
        let (mut view, mut rng) = view(0);
        for _ in 0..5 {
            view.learn(&said(&[1, 2]), true, &mut rng);
        }
        assert_eq!(view.candidates().next(), Some(said(&[1, 2])));
        view.learn(&said(&[3, 2, 3]), true, &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[3, 2, 1])));
        view.learn(&said(&[11, 12, 13, 14, 15, 16, 17]), true, &mut rng);
        assert_eq!(view.candidates().next(), Some(said(&[11, 12, 13, 14, 15, 16, 17, 3])));
    }

    #[test]
    fn the_unreachable_make_place_but_who_was_pinned_or_reached_is_kept() {
        let (mut view, mut rng) = view(1);
        view.learn(&hint(9), true, &mut rng);
        view.reached(&hint(8), &mut rng);
        view.fill(|_| false, |_| true, &mut rng);
        for second in 0..100_u32 {
            let now = Time::ZERO + Duration::from_secs(100) * second;
            view.due_for_dial(now, |_| false, &mut rng);
            view.give_up_on_unreachable(|_| false);
            view.fill(|_| false, |_| true, &mut rng);
        }
        let known: BTreeSet<NodeId> = view.candidates().map(|hint| hint.id).collect();
        assert_eq!(known, BTreeSet::from([8, 9].map(|index| hint(index).id)));
        assert_eq!(view.met().collect::<Vec<_>>(), [hint(8)]);
    }

    #[test]
    fn hints_are_distinct_and_fit() {
        let (mut view, mut rng) = view(20);
        assert_eq!(view.hints(4, |_| true, &mut rng), [], "hearsay is not passed on");
        for index in 0..20 {
            view.reached(&hint(index), &mut rng);
        }
        let hints = view.hints(4, |id| id != hint(3).id, &mut rng);
        let ids: BTreeSet<_> = hints.iter().map(|hint| hint.id).collect();
        assert_eq!(ids.len(), 4);
        assert!(!ids.contains(&hint(3).id));
    }
}
