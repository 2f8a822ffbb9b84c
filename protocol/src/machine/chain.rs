//! Our author chain: numbers, links and signs our entries.
//!
//! Owns the head. Does not store anything: the caller asks for each entry to be stored before anything that depends on it
//! leaves the node.

use super::record::Head;
use crate::{
    Keypair, NetworkId, NodeId, Timestamp, Verified, VerifyError,
    checkpoint::Checkpoint,
    entry::{Body, Entry},
    id::LeaseId,
    signed::Document,
};

/// The chain of one node.
#[derive(Debug)]
pub struct Chain {
    key: Keypair,
    network: NetworkId,
    head: Option<Head>,
    halted: bool,
}

impl Chain {
    /// The chain that `head` ends; none before the genesis.
    #[must_use]
    pub const fn new(key: Keypair, network: NetworkId, head: Option<Head>) -> Self {
        Self { key, network, head, halted: false }
    }

    /// Our id.
    #[must_use]
    pub const fn me(&self) -> NodeId {
        self.key.node_id()
    }

    /// Our key, for documents beside the chain.
    #[must_use]
    pub const fn key(&self) -> &Keypair {
        &self.key
    }

    /// The network every signature is for.
    #[must_use]
    pub const fn network(&self) -> &NetworkId {
        &self.network
    }

    /// The newest entry.
    #[must_use]
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// When the next entry would be dated, at `now`: never before the newest one.
    #[must_use]
    pub fn next_time(&self, now: Timestamp) -> Timestamp {
        self.head.map_or(now, |head| head.time.max(now))
    }

    /// Makes the genesis if there is none yet.
    ///
    /// # Errors
    /// As [`Chain::append`].
    pub fn begin(&mut self, now: Timestamp) -> Result<Option<Verified<Entry>>, VerifyError> {
        if self.head.is_some() {
            return Ok(None);
        }
        let network = self.network;
        self.push(None, None, Body::Genesis { network }, now).map(Some)
    }

    /// Signs the next entry, about a lease with a peer. Its time is never before the last entry's, whatever the clock says.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] if the body breaks its own bounds: the chain is unchanged then.
    pub fn append(
        &mut self,
        lease: LeaseId,
        peer: NodeId,
        body: Body,
        now: Timestamp,
    ) -> Result<Verified<Entry>, VerifyError> {
        self.push(Some(lease), Some(peer), body, now)
    }

    /// Signs a checkpoint of the chain so far.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] if it is about entries that are not there: the chain is unchanged then.
    pub fn checkpoint(&mut self, checkpoint: Checkpoint, now: Timestamp) -> Result<Verified<Entry>, VerifyError> {
        self.push(None, None, Body::Checkpoint(checkpoint), now)
    }

    /// Signs nothing more, until another chain is made: somebody else goes on with this one.
    pub const fn halt(&mut self) {
        self.halted = true;
    }

    /// Whether nothing is signed any more.
    #[must_use]
    pub const fn is_halted(&self) -> bool {
        self.halted
    }

    /// Signs the next entry, about a peer and no lease.
    ///
    /// # Errors
    /// As [`Chain::append`].
    pub fn append_about(&mut self, peer: NodeId, body: Body, now: Timestamp) -> Result<Verified<Entry>, VerifyError> {
        self.push(None, Some(peer), body, now)
    }

    fn push(
        &mut self,
        lease: Option<LeaseId>,
        peer: Option<NodeId>,
        body: Body,
        now: Timestamp,
    ) -> Result<Verified<Entry>, VerifyError> {
        if self.halted {
            return Err(VerifyError::Signature(Entry::NAME));
        }
        let entry = Entry {
            author: self.me(),
            seq: self.head.map_or(0, |h| h.seq + 1),
            prev: self.head.map(|h| h.id),
            time: self.next_time(now),
            lease,
            peer,
            body,
        };
        let entry = Verified::sign(entry, &self.key, &self.network)?;
        self.head = Some(Head { author: entry.author, seq: entry.seq, id: entry.id(), time: entry.time });
        Ok(entry)
    }
}
