//! The border for hostile bytes: frames in, verified messages out.
//!
//! A frame is `header (176) | signature (64) | control | slab`. The signature covers a domain tag
//! and the whole header; the header holds the BLAKE3 hash of what follows, so every byte is signed,
//! and the length of what follows is known to be the sender's before any of it is read. Frames bind
//! network, sender, recipient, both boot epochs and a sequence number; wall clocks play no part.

use crate::codec;
use crate::fault::Rejection;
use crate::id::{Keypair, NetworkId, NodeId};
use crate::limits::{CONTROL_BYTES_MAX, HEADER_BYTES, PREFIX_BYTES};
use crate::message::{Kind, Message};
use crate::version;

const MAGIC: [u8; 4] = *b"STL1";
const DOMAIN: &[u8] = b"starling/v1/envelope";

/// Who says something to whom, and as which of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The signer.
    pub sender: NodeId,
    /// The only node that may accept it.
    pub recipient: NodeId,
    /// The sender's boot count.
    pub epoch: u64,
    /// The sender's frame count in this boot, from 1.
    pub sequence: u64,
    /// The recipient's boot count as its Hello said; 0 in frames that open a link.
    pub recipient_epoch: u64,
}

/// A message with its raw bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The control part.
    pub message: Message,
    /// A model, or a specification in Welcome; empty otherwise.
    pub slab: Vec<u8>,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self { message, slab: Vec::new() }
    }
}

impl Frame {
    /// Bytes on the wire: prefix, control part and slab.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        PREFIX_BYTES + codec::encode(&self.message).map_or(0, |c| c.len()) + self.slab.len()
    }
}

/// A frame that passed every check that needs no history. Only [`SealedHeader::open`] makes one
/// from bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Who said it.
    pub address: Address,
    /// What was said.
    pub frame: Frame,
}

impl Verified {
    /// A frame that never was bytes: the simulator's network is trusted to deliver what was sent.
    /// Range checks still apply.
    ///
    /// # Errors
    /// As [`Message::check`].
    pub fn in_process(address: Address, frame: Frame) -> Result<Self, Rejection> {
        frame.message.check()?;
        Ok(Self { address, frame })
    }
}

/// Encodes, hashes and signs `frame`.
///
/// # Errors
/// What a peer would refuse it for: a defect of ours, not of a peer.
pub fn seal(
    key: &Keypair,
    network: NetworkId,
    address: &Address,
    frame: &Frame,
) -> Result<Vec<u8>, Rejection> {
    frame.message.check()?;
    if !frame.slab.is_empty() && !frame.message.takes_slab() {
        return Err(Rejection::Malformed);
    }
    let control = codec::encode(&frame.message).map_err(|_| Rejection::TooLong)?;
    let length = control.len() + frame.slab.len();
    let payload_len = u32::try_from(length).map_err(|_| Rejection::TooLong)?;
    let control_len = u32::try_from(control.len()).map_err(|_| Rejection::TooLong)?;
    let hash = blake3::Hasher::new().update(&control).update(&frame.slab).finalize();

    let mut bytes = Vec::with_capacity(PREFIX_BYTES + length);
    bytes.extend_from_slice(&MAGIC);
    // What opens a link must be readable to the oldest peer that could answer it.
    let opens = frame.message.kind().opens_a_link();
    let version = if opens { version::MIN } else { version::MAX };
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.push(frame.message.kind() as u8);
    bytes.push(0);
    bytes.extend_from_slice(&network.0);
    bytes.extend_from_slice(&address.sender.0);
    bytes.extend_from_slice(&address.recipient.0);
    for word in [address.epoch, address.sequence, address.recipient_epoch] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&payload_len.to_le_bytes());
    bytes.extend_from_slice(hash.as_bytes());
    bytes.extend_from_slice(&control_len.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    let signature = key.sign(&signed_part(&bytes));
    bytes.extend_from_slice(&signature);
    bytes.extend_from_slice(&control);
    bytes.extend_from_slice(&frame.slab);
    Ok(bytes)
}

fn signed_part(header: &[u8]) -> Vec<u8> {
    [DOMAIN, header].concat()
}

/// What this node expects of every frame.
#[derive(Clone, Copy, Debug)]
pub struct Border {
    /// Our network.
    pub network: NetworkId,
    /// Ourselves.
    pub me: NodeId,
    /// Our boot count.
    pub epoch: u64,
    /// Largest encoded model of this network.
    pub model_bytes_max: usize,
}

/// A header whose signature holds: it says how many bytes may be read next.
#[derive(Clone, Debug)]
pub struct SealedHeader {
    address: Address,
    kind: Kind,
    payload_len: usize,
    control_len: usize,
    hash: [u8; 32],
}

/// Reads little-endian fields off a header of checked length.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Rejection::Truncated)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, Rejection> {
        self.take().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Result<usize, Rejection> {
        self.take().map(u32::from_le_bytes).map(|length| length as usize)
    }
}

/// Checks the first [`PREFIX_BYTES`] of a frame that arrived over a connection authenticated as
/// `session_peer`. Cheap checks come first, the signature last.
///
/// # Errors
/// Why the frame is refused; nothing more must be read of it.
pub fn open_header(
    border: &Border,
    session_peer: NodeId,
    prefix: &[u8; PREFIX_BYTES],
) -> Result<SealedHeader, Rejection> {
    let (header, signature) = prefix.split_at(HEADER_BYTES);
    let mut fields = Fields(header);
    if fields.take::<4>()? != MAGIC {
        return Err(Rejection::BadMagic);
    }
    let version = u16::from_le_bytes(fields.take()?);
    let [kind, flags] = fields.take()?;
    let kind = Kind::from_byte(kind).ok_or(Rejection::Unsupported)?;
    if !(version::MIN..=version::MAX).contains(&version) || flags != 0 {
        return Err(Rejection::Unsupported);
    }
    if NetworkId(fields.take()?) != border.network {
        return Err(Rejection::WrongNetwork);
    }
    let address = Address {
        sender: NodeId(fields.take()?),
        recipient: NodeId(fields.take()?),
        epoch: fields.u64()?,
        sequence: fields.u64()?,
        recipient_epoch: fields.u64()?,
    };
    if address.sender != session_peer {
        return Err(Rejection::WrongSender);
    }
    if address.recipient != border.me {
        return Err(Rejection::WrongRecipient);
    }
    if address.recipient_epoch != if kind.opens_a_link() { 0 } else { border.epoch } {
        return Err(Rejection::StaleEpoch);
    }
    let payload_len = fields.length()?;
    let hash = fields.take()?;
    let control_len = fields.length()?;
    if fields.0.iter().any(|&reserved| reserved != 0) {
        return Err(Rejection::Unsupported);
    }
    let slab_len = payload_len.checked_sub(control_len).ok_or(Rejection::Malformed)?;
    if control_len > CONTROL_BYTES_MAX || slab_len > kind.slab_bytes_max(border.model_bytes_max) {
        return Err(Rejection::TooLong);
    }
    let signature = signature.try_into().map_err(|_| Rejection::Truncated)?;
    if !address.sender.verifies(&signed_part(header), signature) {
        return Err(Rejection::BadSignature);
    }
    Ok(SealedHeader { address, kind, payload_len, control_len, hash })
}

impl SealedHeader {
    /// Whether raw bytes follow the control part.
    #[must_use]
    pub fn has_slab(&self) -> bool {
        self.payload_len > self.control_len
    }

    /// How many bytes follow.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Checks the bytes that follow.
    ///
    /// # Errors
    /// Why the frame is refused.
    pub fn open(self, mut payload: Vec<u8>) -> Result<Verified, Rejection> {
        if payload.len() != self.payload_len {
            return Err(Rejection::Truncated);
        }
        if *blake3::hash(&payload).as_bytes() != self.hash {
            return Err(Rejection::BadHash);
        }
        let control = payload.get(..self.control_len).ok_or(Rejection::Truncated)?;
        let message: Message = codec::decode_exact(control).map_err(|_| Rejection::Malformed)?;
        if message.kind() != self.kind {
            return Err(Rejection::Malformed);
        }
        message.check()?;
        if self.payload_len > self.control_len && !message.takes_slab() {
            return Err(Rejection::Malformed);
        }
        // In place: a second copy of a model could be 256 MiB.
        payload.drain(..self.control_len);
        Ok(Verified { address: self.address, frame: Frame { message, slab: payload } })
    }
}
