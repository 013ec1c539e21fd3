//! Identities: who a node is, which network it belongs to, and the key it signs with.

use core::fmt;
use core::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// What precedes the 32 key bytes in the multihash form of an Ed25519 peer id (libp2p "peer ids"
/// specification: identity multihash, length 36, protobuf key type 1, 32 bytes).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A node: its Ed25519 public key. Printed as the libp2p peer id of that key (`12D3KooW…`), so that
/// logs, tickets and addresses name a node in one way.
/// Serialised as that text where people read, as its bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

impl NodeId {
    /// The last ten characters of the printed form: enough to tell nodes apart in a table.
    #[must_use]
    pub fn short(&self) -> String {
        let full = self.to_string();
        full.get(full.len().saturating_sub(10)..).unwrap_or_default().to_owned()
    }

    /// Whether `signature` is this node's over `message`. Strict: refuses non-canonical signatures
    /// and small-order keys, so that one statement has one encoding.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
            .is_ok()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        f.write_str(&bs58::encode(bytes).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

/// A text that names no node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a node id: expected the text that `starling status` prints, 12D3KooW…")]
pub struct InvalidNodeId(String);

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        let invalid = || InvalidNodeId(text.chars().take(64).collect());
        let mut bytes = [0; 38];
        let length = bs58::decode(text).onto(&mut bytes[..]).map_err(|_| invalid())?;
        match bytes.split_first_chunk::<6>() {
            Some((&PEER_ID_PREFIX, key)) if length == 38 => {
                key.try_into().map(Self).map_err(|_| invalid())
            }
            _ => Err(invalid()),
        }
    }
}

/// A network: the BLAKE3 hash of its canonical specification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkId(pub [u8; 32]);

impl NetworkId {
    /// The first eight bytes in hex, as they stand in protocol names and tables.
    #[must_use]
    pub fn short(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0[..8])
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({})", self.short())
    }
}

/// A node's signing key. Its `Debug` never prints the secret; the secret is wiped on drop.
#[derive(Clone)]
pub struct Keypair(SigningKey);

impl Keypair {
    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The seed, for the transport that authenticates with the same key. Wiped when dropped.
    #[must_use]
    pub fn to_seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`, which must begin with a domain tag.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({}, <redacted>)", self.id().short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_libp2p_peer_id_and_reads_it_back() {
        let id = Keypair::from_seed(&[7; 32]).id();
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.len(), 52);
        assert_eq!(text.parse(), Ok(id));
        for wrong in ["", "12D3KooW", "hello", &text[1..], &format!("{text}x"), "0OIl"] {
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let (ours, theirs) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]));
        let mut signature = ours.sign(b"tag: message");
        assert!(ours.id().verifies(b"tag: message", &signature));
        assert!(!ours.id().verifies(b"tag: massage", &signature));
        assert!(!theirs.id().verifies(b"tag: message", &signature));
        signature[0] ^= 1;
        assert!(!ours.id().verifies(b"tag: message", &signature));
        assert!(!format!("{ours:?}").contains("01010101"));
    }
}
