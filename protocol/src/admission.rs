//! Who is a member: a chain of certificates from the network's root key to the node.
//!
//! The founder's key is the root. Whoever is admitted with a ticket gets a certificate from the
//! member that admitted it, appended to that member's own chain, and may admit others in turn; so
//! any member can check any other without asking anyone. The chain is at most
//! [`crate::limits::CHAIN_MAX`] links long.

use serde::{Deserialize, Serialize};

use crate::codec;
use crate::fault::Denial;
use crate::id::{Keypair, NetworkId, NodeId};
use crate::limits::CHAIN_MAX;

const DOMAIN: &[u8] = b"starling/v1/certificate";

/// A signature as it travels. serde has no arrays of 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl From<[u8; 64]> for Signature {
    fn from(bytes: [u8; 64]) -> Self {
        let (mut low, mut high) = ([0; 32], [0; 32]);
        low.copy_from_slice(&bytes[..32]);
        high.copy_from_slice(&bytes[32..]);
        Self(low, high)
    }
}

impl From<Signature> for [u8; 64] {
    fn from(signature: Signature) -> Self {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&signature.0);
        bytes[32..].copy_from_slice(&signature.1);
        bytes
    }
}

/// One member's word for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Who gives it.
    pub issuer: NodeId,
    /// Who is a member by it.
    pub subject: NodeId,
    /// Over domain tag, network, issuer and subject.
    pub signature: Signature,
}

fn signed_part(network: NetworkId, issuer: NodeId, subject: NodeId) -> Vec<u8> {
    [DOMAIN, &network.0, &issuer.0, &subject.0].concat()
}

/// The chain of `subject`, admitted by the owner of `key` whose own chain is `chain`.
///
/// # Errors
/// [`Denial::InvalidCertificate`] if the chain would become longer than [`CHAIN_MAX`].
pub fn extend_chain(
    key: &Keypair,
    network: NetworkId,
    chain: &[Certificate],
    subject: NodeId,
) -> Result<Vec<Certificate>, Denial> {
    if chain.len() >= CHAIN_MAX {
        return Err(Denial::InvalidCertificate);
    }
    let issuer = key.id();
    let signature = key.sign(&signed_part(network, issuer, subject)).into();
    Ok([chain, &[Certificate { issuer, subject, signature }]].concat())
}

/// Checks that `chain` leads from `root` to `subject`. The root itself needs no link.
///
/// # Errors
/// [`Denial::NotMember`] without a chain, [`Denial::InvalidCertificate`] with one that does not
/// hold.
pub fn check_chain(
    network: NetworkId,
    root: NodeId,
    chain: &[Certificate],
    subject: NodeId,
) -> Result<(), Denial> {
    if chain.is_empty() {
        return if subject == root { Ok(()) } else { Err(Denial::NotMember) };
    }
    if chain.len() > CHAIN_MAX {
        return Err(Denial::InvalidCertificate);
    }
    let mut holder = root;
    for link in chain {
        let signed = signed_part(network, link.issuer, link.subject);
        if link.issuer != holder || !holder.verifies(&signed, &link.signature.into()) {
            return Err(Denial::InvalidCertificate);
        }
        holder = link.subject;
    }
    if holder == subject { Ok(()) } else { Err(Denial::InvalidCertificate) }
}

/// Bytes of a chain, to be kept in a file.
///
/// # Errors
/// As [`codec::encode`].
pub fn encode_chain(chain: &[Certificate]) -> Result<Vec<u8>, codec::CodecError> {
    codec::encode(&chain)
}

/// A chain from its bytes.
///
/// # Errors
/// As [`codec::decode_exact`].
pub fn decode_chain(bytes: &[u8]) -> Result<Vec<Certificate>, codec::CodecError> {
    codec::decode_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([9; 32]);

    fn keys<const N: usize>() -> [Keypair; N] {
        core::array::from_fn(|index| Keypair::from_seed(&[u8::try_from(index).expect("few"); 32]))
    }

    #[test]
    fn a_chain_leads_from_the_root_to_its_holder_only() {
        let [root, first, second] = keys();
        let chain = extend_chain(&root, NETWORK, &[], first.id()).expect("short");
        let longer = extend_chain(&first, NETWORK, &chain, second.id()).expect("short");
        let check =
            |chain: &[Certificate], who: &Keypair| check_chain(NETWORK, root.id(), chain, who.id());
        assert_eq!(check(&[], &root), Ok(()));
        assert_eq!(check(&chain, &first), Ok(()));
        assert_eq!(check(&longer, &second), Ok(()));
        assert_eq!(check(&[], &first), Err(Denial::NotMember));
        for (wrong, who) in [
            (chain.clone(), &second),
            (longer[1..].to_vec(), &second),
            (vec![longer[1], longer[0]], &first),
            (longer.clone(), &root),
        ] {
            assert_eq!(check(&wrong, who), Err(Denial::InvalidCertificate));
        }
        let other = NetworkId([8; 32]);
        assert_eq!(
            check_chain(other, root.id(), &chain, first.id()),
            Err(Denial::InvalidCertificate)
        );
        assert_eq!(decode_chain(&encode_chain(&longer).expect("fits")), Ok(longer));
    }

    #[test]
    fn self_made_certificates_do_not_hold() {
        let [root, outsider, friend] = keys();
        let forged = extend_chain(&outsider, NETWORK, &[], friend.id()).expect("short");
        let claimed = vec![Certificate { issuer: root.id(), ..forged[0] }];
        for chain in [forged, claimed] {
            assert_eq!(
                check_chain(NETWORK, root.id(), &chain, friend.id()),
                Err(Denial::InvalidCertificate)
            );
        }
    }

    #[test]
    fn chains_end_somewhere() {
        let keys: [Keypair; CHAIN_MAX + 2] = keys();
        let mut chain = Vec::new();
        for pair in keys.windows(2).take(CHAIN_MAX) {
            chain = extend_chain(&pair[0], NETWORK, &chain, pair[1].id()).expect("short");
        }
        assert_eq!(chain.len(), CHAIN_MAX);
        let next = extend_chain(&keys[CHAIN_MAX], NETWORK, &chain, keys[CHAIN_MAX + 1].id());
        assert_eq!(next, Err(Denial::InvalidCertificate));
    }
}
