//! What peers say of us: attestations and complaints that they deliver, as many as we keep.
//!
//! Each becomes a record that is never dropped, so a peer may send only so many, and so may all of them together. Owns the
//! counts; the documents are in the ledger.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    NodeId, Timestamp,
    entry::{Body, Entry},
    negotiation::{Reject, RejectCode},
    time::Millis,
};

/// Claims about us that are kept, of all authors together.
pub const HELD: usize = 256;
/// Claims about us that are kept of one author.
pub const HELD_OF_AUTHOR: usize = 8;
/// Opinions of one peer in an hour.
pub const OF_PEER: u32 = 8;
/// Opinions of all peers in an hour.
pub const OF_ALL: u32 = 64;

const HOUR: Millis = Millis::from_hours(1);

/// What was said of us.
#[derive(Debug, Default)]
pub struct Opinions {
    held: BTreeSet<(NodeId, String)>,
    hour: u64,
    of_peer: BTreeMap<NodeId, u32>,
    of_all: u32,
}

impl Opinions {
    /// A claim that is in the ledger already.
    pub fn hold(&mut self, author: NodeId, claim: String) {
        if self.held.len() < HELD {
            self.held.insert((author, claim));
        }
    }

    /// Whether an entry of `from` about us is taken. It is verified, and `from` is its author.
    ///
    /// # Errors
    /// Why it is not.
    pub fn admit(&mut self, from: &NodeId, entry: &Entry, now: Timestamp) -> Result<(), Reject> {
        let limit = |sentence: &str| Err(Reject::passing(RejectCode::Limit, sentence));
        let claim = match &entry.body {
            Body::Attestation(said) => Some((*from, said.claim.clone())),
            Body::Dispute(_) => None,
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::LeaseAccept { .. }
            | Body::Void { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::CloseAck { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => {
                return Err(Reject::lasting(RejectCode::Malformed, "it is neither an attestation nor a complaint"));
            }
        };
        let hour = now.0 / HOUR.0;
        if hour != self.hour {
            (self.hour, self.of_all) = (hour, 0);
            self.of_peer.clear();
        }
        if self.of_all >= OF_ALL || self.of_peer.get(from).is_some_and(|n| *n >= OF_PEER) {
            return limit("too many opinions in an hour; try again in the next");
        }
        if let Some(claim) = claim
            && !self.held.contains(&claim)
        {
            let of_author = self.held.range((*from, String::new())..).take_while(|(author, _)| author == from).count();
            if of_author >= HELD_OF_AUTHOR {
                return limit("so many claims of one author are not kept");
            }
            if self.held.len() >= HELD {
                return limit("this node keeps no more attestations");
            }
            self.held.insert(claim);
        }
        self.of_all += 1;
        *self.of_peer.entry(*from).or_insert(0) += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        machine::testkit::{NOW, key},
        opinion::Attestation,
    };

    fn attested(by: u8, claim: &str) -> Entry {
        let body = Body::Attestation(Attestation { claim: claim.to_owned(), until: None, withdrawn: false });
        let (author, peer) = (key(by).node_id(), Some(key(9).node_id()));
        Entry { author, seq: 1, prev: None, time: NOW, lease: None, peer, body }
    }

    #[test]
    fn one_author_and_all_together_fill_only_so_much() {
        let mut opinions = Opinions::default();
        let from = key(1).node_id();
        let mut now = NOW;
        let mut kept = 0;
        for n in 0..100 {
            now = now + HOUR;
            kept += usize::from(opinions.admit(&from, &attested(1, &format!("c{n}")), now).is_ok());
        }
        assert_eq!(kept, HELD_OF_AUTHOR);
        assert!(opinions.admit(&from, &attested(1, "c0"), now).is_ok(), "what is kept can be renewed or withdrawn");
        let again = (0..100).filter(|_| opinions.admit(&from, &attested(1, "c0"), now).is_ok()).count();
        assert!(again < OF_PEER as usize);
        for author in 2..=200 {
            for n in 0..HELD_OF_AUTHOR {
                now = now + HOUR;
                opinions.admit(&key(author).node_id(), &attested(author, &format!("c{n}")), now).ok();
            }
        }
        assert_eq!(opinions.held.len(), HELD);
    }

    #[test]
    fn a_crowd_cannot_write_without_end() {
        let mut opinions = Opinions::default();
        let taken = (2..=200).filter(|n| opinions.admit(&key(*n).node_id(), &attested(*n, "a"), NOW).is_ok()).count();
        assert_eq!(taken, OF_ALL as usize);
    }
}
