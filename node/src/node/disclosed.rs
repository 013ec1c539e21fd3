//! What has left this machine, and to whom: what `starling privacy` tells.

use std::collections::BTreeMap;

use starling_protocol::envelope::Frame;
use starling_protocol::id::NodeId;
use starling_protocol::limits::SCORES_MAX;
use starling_protocol::message::Message;

/// What was sent in one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Models, whole or as differences.
    pub models: u64,
    /// Their bytes.
    pub model_bytes: u64,
    /// Bytes of all frames, models included.
    pub bytes: u64,
}

/// Whether a model left with it.
fn has_model(frame: &Frame) -> bool {
    let may = matches!(
        frame.message,
        Message::ExchangeRequest(_) | Message::ExchangeReply(_) | Message::SnapshotReply(_)
    );
    may && !frame.slab.is_empty()
}

impl Sent {
    fn add(&mut self, frame: &Frame) {
        if has_model(frame) {
            self.models += 1;
            self.model_bytes += frame.slab.len() as u64;
        }
        self.bytes += frame.wire_bytes() as u64;
    }
}

/// The same by recipient.
#[derive(Clone, Debug, Default)]
pub struct Disclosed {
    /// At most [`SCORES_MAX`] recipients of models.
    pub peers: BTreeMap<NodeId, Sent>,
    /// Models to those that came when the table was full.
    pub others: Sent,
}

impl Disclosed {
    pub(super) fn count(&mut self, peer: NodeId, frame: &Frame) {
        // Strangers get greetings only, and there is no end to them.
        let fits = has_model(frame) && self.peers.len() < SCORES_MAX;
        if fits || self.peers.contains_key(&peer) {
            self.peers.entry(peer).or_default().add(frame);
        } else if has_model(frame) {
            self.others.add(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::message::SnapshotReply;

    use super::*;

    #[test]
    fn models_are_told_from_other_bytes_and_the_table_is_bounded() {
        let mut disclosed = Disclosed::default();
        let reply = Message::SnapshotReply(SnapshotReply { age: Some(1.0), codec: 0 });
        let model = Frame { message: reply, slab: vec![0; 100] };
        let peer = NodeId([1; 32]);
        disclosed.count(peer, &model);
        disclosed.count(peer, &Message::Bye.into());
        let sent = disclosed.peers[&peer];
        assert_eq!((sent.models, sent.model_bytes), (1, 100));
        assert!(sent.bytes > 100 + 2 * 240, "{sent:?}");
        for index in 0..SCORES_MAX as u64 {
            let mut id = [2; 32];
            id[..8].copy_from_slice(&index.to_le_bytes());
            disclosed.count(NodeId(id), &model);
        }
        assert_eq!(disclosed.peers.len(), SCORES_MAX);
        assert_eq!(disclosed.others.model_bytes, 100);
    }
}
