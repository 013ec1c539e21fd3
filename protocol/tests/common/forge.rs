//! Any header one likes, signed for real. Written from the format's description and not from the
//! code under test, so that the two check each other.

use starling_protocol::codec;
use starling_protocol::envelope::{Address, Frame};
use starling_protocol::id::{Keypair, NetworkId, NodeId};
use starling_protocol::message::{Kind, Message};

use super::frames;

/// Where the header's fields begin, in bytes.
pub const VERSION_AT: usize = 4;
pub const KIND_AT: usize = 6;
pub const FLAGS_AT: usize = 7;
pub const NETWORK_AT: usize = 8;
pub const SENDER_AT: usize = 40;
pub const RECIPIENT_AT: usize = 72;
pub const EPOCH_AT: usize = 104;
pub const SEQUENCE_AT: usize = 112;
pub const RECIPIENT_EPOCH_AT: usize = 120;
pub const PAYLOAD_LEN_AT: usize = 128;
pub const HASH_AT: usize = 132;
pub const CONTROL_LEN_AT: usize = 164;
pub const RESERVED_AT: usize = 168;
pub const SIGNATURE_AT: usize = 176;
pub const PAYLOAD_AT: usize = 240;

/// A frame of which everything may be wrong but the signature.
#[derive(Clone, Debug)]
pub struct Forge {
    pub magic: [u8; 4],
    pub version: u16,
    pub kind: u8,
    pub flags: u8,
    pub network: NetworkId,
    pub sender: NodeId,
    pub recipient: NodeId,
    pub epoch: u64,
    pub sequence: u64,
    pub recipient_epoch: u64,
    pub payload_len: u32,
    pub hash: [u8; 32],
    pub control_len: u32,
    pub reserved: [u8; 8],
    pub payload: Vec<u8>,
}

impl Forge {
    /// A frame of these bytes that is right in all else.
    pub fn raw(kind: u8, address: &Address, control: &[u8], slab: &[u8]) -> Self {
        let payload = [control, slab].concat();
        Self {
            magic: *b"STL1",
            version: 1,
            kind,
            flags: 0,
            network: frames::NETWORK,
            sender: address.sender,
            recipient: address.recipient,
            epoch: address.epoch,
            sequence: address.sequence,
            recipient_epoch: address.recipient_epoch,
            payload_len: u32::try_from(payload.len()).expect("short"),
            hash: *blake3::hash(&payload).as_bytes(),
            control_len: u32::try_from(control.len()).expect("short"),
            reserved: [0; 8],
            payload,
        }
    }

    /// What an honest sender would make of `frame`.
    pub fn honest(frame: &Frame) -> Self {
        let kind = frame.message.kind();
        let control = codec::encode(&frame.message).expect("short");
        Self::raw(kind as u8, &frames::address(kind, kind as u64), &control, &frame.slab)
    }

    /// The fixed frame of this kind.
    pub fn of(kind: Kind) -> Self {
        Self::honest(&frames::frame(kind))
    }

    /// A frame of these control bytes.
    pub fn control(kind: Kind, control: &[u8]) -> Self {
        Self::raw(kind as u8, &frames::address(kind, kind as u64), control, &[])
    }

    /// A frame of this message without a slab.
    pub fn message(message: Message) -> Self {
        Self::honest(&message.into())
    }

    /// Its header as it travels.
    pub fn header(&self) -> Vec<u8> {
        [
            &self.magic[..],
            &self.version.to_le_bytes(),
            &[self.kind, self.flags],
            &self.network.0,
            &self.sender.0,
            &self.recipient.0,
            &self.epoch.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.recipient_epoch.to_le_bytes(),
            &self.payload_len.to_le_bytes(),
            &self.hash,
            &self.control_len.to_le_bytes(),
            &self.reserved,
        ]
        .concat()
    }

    /// The frame, signed by `key`.
    pub fn signed_by(&self, key: &Keypair) -> Vec<u8> {
        let header = self.header();
        let signature = sign_header(key, &header);
        [&header[..], &signature, &self.payload].concat()
    }

    /// The frame, signed by the fixed sender.
    pub fn signed(&self) -> Vec<u8> {
        self.signed_by(&frames::sender())
    }
}

/// A header's signature.
pub fn sign_header(key: &Keypair, header: &[u8]) -> [u8; 64] {
    key.sign(&[&b"starling/v1/envelope"[..], header].concat())
}

/// `bytes` with the hash of what follows and the sender's signature made right, if there is a
/// whole prefix.
pub fn signed_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let (prefix, payload) = bytes.split_at_checked(PAYLOAD_AT)?;
    let mut header = prefix[..SIGNATURE_AT].to_vec();
    header[HASH_AT..CONTROL_LEN_AT].copy_from_slice(blake3::hash(payload).as_bytes());
    let signature = sign_header(&frames::sender(), &header);
    Some([&header[..], &signature, payload].concat())
}
