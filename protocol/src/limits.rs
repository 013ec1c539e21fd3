//! Every bound of the protocol, with its reason. Worst-case memory follows from these.

use core::time::Duration;

/// Bytes of the fixed header that opens every frame.
pub const HEADER_BYTES: usize = 176;
/// Bytes of the Ed25519 signature after the header.
pub const SIGNATURE_BYTES: usize = 64;
/// What a reader takes before it knows anything: header and signature.
pub const PREFIX_BYTES: usize = HEADER_BYTES + SIGNATURE_BYTES;
/// Largest control part of a frame. Hello with a full chain of certificates needs under 4 KiB.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Largest canonical network specification.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// Largest encoded model: 64 Mi parameters as fp32. The bound in force is the network's own model.
pub const MODEL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Addresses taken from one peer, one ticket or one hint. More would let a peer steer our dialling.
pub const ADDRESSES_MAX: usize = 8;
/// Longest address text; a DNS name has at most 253 bytes, the rest of a multiaddr under 100.
pub const ADDRESS_BYTES_MAX: usize = 400;
/// Peer hints in one beat.
pub const HINTS_MAX: usize = 4;
/// Links in a chain of certificates from the root to a node: invited by an invited node, and so on.
pub const CHAIN_MAX: usize = 8;
/// Longest ticket text accepted; a full one with eight addresses is under 12 KiB.
pub const TICKET_CHARS_MAX: usize = 16 * 1024;
/// Tickets whose uses are counted at a time; the oldest is forgotten first.
pub const TICKETS_COUNTED_MAX: usize = 1024;
/// Partners we draw from (a rotating partial view), whatever the size of the network. Ten
/// and twelve are alike in accuracy, with and without attackers, and ten hold a tenth less memory;
/// with eight, gate-fitters once turned an honest node.
pub const VIEW_MAX: usize = 10;
/// Links held for each place in the view: its own, one of another that holds us in theirs, and a
/// reserve for joiners.
pub const LINKS_PER_MEMBER: usize = 3;
/// Links held at once.
pub const LINKS_MAX: usize = LINKS_PER_MEMBER * VIEW_MAX;
/// Known peers that we could dial, linked or not, for each place in the view.
pub const CANDIDATES_PER_MEMBER: usize = 8;
/// Known peers that we could dial, linked or not.
pub const CANDIDATES_MAX: usize = CANDIDATES_PER_MEMBER * VIEW_MAX;
/// Peers whose misbehaviour or bans are remembered.
pub const SCORES_MAX: usize = 1000;
/// Peers that the operator may have banned at a time.
pub const BANS_MAX: usize = 1000;
/// Bits of the replay window per sender: reordering beyond it does not happen on one stream.
pub const WINDOW_BITS: u64 = 1024;
/// Jobs that the owner of the weights has to do at a time: answers, snapshots, a step of the round,
/// an adoption and two checkpoints.
pub const JOBS_PENDING_MAX: usize = 2 * ANSWERS_PENDING_MAX + 4;
/// Exchange requests being answered by the compute owner at a time; beyond it a peer hears Busy.
pub const ANSWERS_PENDING_MAX: usize = 4;
/// Distances remembered to learn the gate's threshold.
pub const DISTANCES_MAX: usize = 24;
/// Claimed ages remembered from partners we drew ourselves.
pub const AGES_MAX: usize = 24;
/// Round-trip times remembered to set time-outs.
pub const LATENCIES_MAX: usize = 64;
/// Peers whose newest cross score is remembered; with more of them the mean would be that of a
/// model of long ago.
pub const CROSS_SCORES_MAX: usize = 16;
/// Hold-out rows that a score stands for: all nodes keep to it, or a liar would weigh more by more.
pub const SCORE_ROWS_MAX: u32 = 64;
/// Exchanges that a node may have in a round. The paranoid profile pulls six models in one; with
/// three in pairs hardly anything was gained over two.
pub const EXCHANGES_PER_ROUND_MAX: u32 = 16;
/// An exchange never waits longer than this for its partner.
pub const EXCHANGE_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// And never less: below it the scheduler of a busy host looks like a dead peer.
pub const EXCHANGE_TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// Before any exchange was timed.
pub const EXCHANGE_TIMEOUT_FIRST: Duration = Duration::from_secs(2);
/// A linked peer that has not said Hello by then is disconnected.
pub const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Between beats to a linked peer, before jitter of a fifth either way.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(5);
/// Longest time a failing peer is left alone.
pub const COOLDOWN_MAX: Duration = Duration::from_secs(60);
/// Longest back-off between dials of one peer.
pub const DIAL_BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Own rounds for which a peer that keeps failing the gate is neither drawn nor answered.
pub const QUARANTINE_ROUNDS: u64 = 64;
/// Largest age that is believed to be one: 2^53, where f64 stops counting single steps.
pub const AGE_MAX: f64 = 9_007_199_254_740_992.0;

const _: () = assert!(LINKS_MAX >= 2 * VIEW_MAX);
const _: () = assert!(CANDIDATES_MAX >= LINKS_MAX);
const _: () = assert!(SPEC_BYTES_MAX <= MODEL_BYTES_MAX);
const _: () = assert!(MODEL_BYTES_MAX + CONTROL_BYTES_MAX < u32::MAX as usize);
