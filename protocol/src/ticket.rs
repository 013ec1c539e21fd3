//! Tickets: one line of text that lets a node into a network.
//!
//! `starling1` followed by base32 of the signed ticket. It names the network, its root, the member
//! that invites with that member's own chain (so that any member can admit in its absence), where
//! to find members, until when and how often it may be used. Whoever holds it may use it: treat it
//! as a password.

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::admission::{self, Certificate, Signature};
use crate::codec;
use crate::fault::Denial;
use crate::id::{Keypair, NetworkId, NodeId};
use crate::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, CHAIN_MAX, TICKET_CHARS_MAX};
use crate::message::Hint;

const PREFIX: &str = "starling1";
const DOMAIN: &[u8] = b"starling/v1/ticket";

/// What the inviter states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The network.
    pub network: NetworkId,
    /// Its root key.
    pub root: NodeId,
    /// The member that invites.
    pub inviter: NodeId,
    /// The inviter's chain of certificates.
    #[serde(deserialize_with = "codec::list::<_, _, CHAIN_MAX>")]
    pub chain: Vec<Certificate>,
    /// Members to ask, the inviter first.
    #[serde(deserialize_with = "codec::list::<_, _, ADDRESSES_MAX>")]
    pub contacts: Vec<Hint>,
    /// Tells tickets apart.
    pub nonce: [u8; 16],
    /// Unix seconds after which it is void.
    pub not_after: u64,
    /// How many nodes it admits. Counted by each admitting member for itself.
    pub uses: u32,
}

/// Terms with the inviter's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What was signed.
    pub terms: Terms,
    signature: Signature,
}

/// A text that is no ticket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Something else was pasted.
    #[error(
        "this is no ticket: a ticket begins with `starling1` and is one line of letters and digits"
    )]
    NotATicket,
    /// Letters are missing or wrong.
    #[error("the ticket is damaged: copy it again, whole ({0})")]
    Damaged(&'static str),
    /// Signed by another key, or altered.
    #[error("the ticket's signature does not hold: it was altered; ask for a new one")]
    BadSignature,
}

fn signed_part(terms: &Terms) -> Result<Vec<u8>, TicketError> {
    let bytes = codec::encode(terms).map_err(|_| TicketError::Damaged("too long"))?;
    Ok([DOMAIN, &bytes].concat())
}

impl Ticket {
    /// Signs `terms` with the inviter's key.
    ///
    /// # Errors
    /// [`TicketError::Damaged`] if the terms are too long for one ticket.
    pub fn sign(key: &Keypair, terms: Terms) -> Result<Self, TicketError> {
        let signature = key.sign(&signed_part(&terms)?).into();
        Ok(Self { terms, signature })
    }

    /// The one line of text.
    ///
    /// # Errors
    /// [`TicketError::Damaged`] if the ticket is too long for one.
    pub fn to_text(&self) -> Result<String, TicketError> {
        let bytes = codec::encode(self).map_err(|_| TicketError::Damaged("too long"))?;
        Ok(format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()))
    }

    /// Reads a ticket and checks that it is whole, in bounds and signed by its inviter, whose chain
    /// leads to the root it names. Not its date: the reader's clock may be wrong, the member's
    /// counts.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::NotATicket)?;
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::NotATicket);
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| TicketError::Damaged("letters are missing or wrong"))?;
        let ticket: Self = codec::decode_exact(&bytes)
            .map_err(|_| TicketError::Damaged("its end is missing, or it is of another version"))?;
        let terms = &ticket.terms;
        let bounded = terms.contacts.len() <= ADDRESSES_MAX
            && terms.contacts.iter().all(|contact| {
                contact.addresses.len() <= ADDRESSES_MAX
                    && contact.addresses.iter().all(|address| {
                        address.len() <= ADDRESS_BYTES_MAX
                            && address.bytes().all(|byte| byte.is_ascii_graphic())
                    })
            });
        if !bounded {
            return Err(TicketError::Damaged("too many addresses, or unreadable ones"));
        }
        let chain = admission::check_chain(terms.network, terms.root, &terms.chain, terms.inviter);
        let signed = signed_part(terms)?;
        if chain.is_err() || !terms.inviter.verifies(&signed, &ticket.signature.into()) {
            return Err(TicketError::BadSignature);
        }
        Ok(ticket)
    }

    /// Names the ticket where its uses are counted. A nonce would not do: whoever may sign tickets
    /// can choose one that another ticket has.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut first = [0; 16];
        let signature: [u8; 64] = self.signature.into();
        blake3::Hasher::new().update(&signature).finalize_xof().fill(&mut first);
        first
    }

    /// Whether a member of `network` with root `root` may admit the holder at `now_unix` seconds,
    /// after `used` earlier admissions.
    ///
    /// # Errors
    /// Why not.
    pub fn admits(
        &self,
        network: NetworkId,
        root: NodeId,
        now_unix: u64,
        used: u32,
    ) -> Result<(), Denial> {
        if self.terms.network != network || self.terms.root != root {
            return Err(Denial::InvalidTicket);
        }
        if now_unix > self.terms.not_after {
            return Err(Denial::TicketExpired);
        }
        if used >= self.terms.uses { Err(Denial::TicketSpent) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        let key = Keypair::from_seed(&[5; 32]);
        let contact = Hint { id: key.id(), addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()] };
        let terms = Terms {
            network: NetworkId([1; 32]),
            root: key.id(),
            inviter: key.id(),
            chain: Vec::new(),
            contacts: vec![contact],
            nonce: [3; 16],
            not_after: 1000,
            uses: 2,
        };
        Ticket::sign(&key, terms).expect("short")
    }

    #[test]
    fn reads_back_what_it_printed() {
        let text = ticket().to_text().expect("short");
        assert!(text.starts_with("starling1"));
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        assert_eq!(Ticket::parse(&format!("  {text}\n")), Ok(ticket()));
    }

    #[test]
    fn every_damaged_letter_and_every_cut_is_noticed() {
        let text = ticket().to_text().expect("short");
        for end in 0..text.len() {
            assert!(Ticket::parse(&text[..end]).is_err(), "cut at {end}");
        }
        for place in "starling1".len()..text.len() {
            let mut letters = text.clone().into_bytes();
            letters[place] = if letters[place] == b'a' { b'b' } else { b'a' };
            let damaged = String::from_utf8(letters).expect("ascii");
            assert!(Ticket::parse(&damaged).is_err(), "letter {place}");
        }
        assert_eq!(Ticket::parse("hello"), Err(TicketError::NotATicket));
        let long = format!("starling1{}", "a".repeat(TICKET_CHARS_MAX));
        assert_eq!(Ticket::parse(&long), Err(TicketError::NotATicket));
    }

    #[test]
    fn admits_within_its_terms() {
        let (ticket, network) = (ticket(), NetworkId([1; 32]));
        let root = ticket.terms.root;
        assert_eq!(ticket.admits(network, root, 1000, 1), Ok(()));
        assert_eq!(ticket.admits(network, root, 1001, 0), Err(Denial::TicketExpired));
        assert_eq!(ticket.admits(network, root, 0, 2), Err(Denial::TicketSpent));
        let other = NetworkId([2; 32]);
        assert_eq!(ticket.admits(other, root, 0, 0), Err(Denial::InvalidTicket));
        let stranger = Keypair::from_seed(&[6; 32]).id();
        assert_eq!(ticket.admits(network, stranger, 0, 0), Err(Denial::InvalidTicket));
    }

    #[test]
    fn a_ticket_for_another_root_is_not_believed() {
        let mut forged = ticket().terms;
        forged.root = Keypair::from_seed(&[6; 32]).id();
        let signed = Ticket::sign(&Keypair::from_seed(&[5; 32]), forged).expect("short");
        let text = signed.to_text().expect("short");
        assert_eq!(Ticket::parse(&text), Err(TicketError::BadSignature));
    }
}
