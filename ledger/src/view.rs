//! Questions to the ledger, answered beside its writer.
//!
//! Each answer holds what was committed when it was read; two rows of one answer may be one group apart.

mod earned;
mod events;
mod months;
mod names;
mod pair;

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use serde::de::DeserializeOwned;
use souk_protocol::{Currency, LeaseId, NetworkId, NodeId, checkpoint::Checkpoint, entry::Entry, signed::Signed};

use crate::{
    chain::{EntryRow, ForkProof, ForkRow, Head},
    journal::{Disk, Generation, JournalError, Position, Reader, find},
    keys,
    lease::{Balance, Lease, Status},
    record::Record,
    state::decode,
    store::{Kv, KvError},
};

pub use events::Happened;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KvError),
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal has something else where the store says an entry is.
    #[error("record {0} of the journal is not the entry it should be: the store is not of this journal")]
    NotThere(u64),
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Which leases to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All.
    All,
    /// Those of a host.
    Host(NodeId),
    /// Those of a renter.
    Renter(NodeId),
    /// Those that have come so far.
    Status(Status),
}

/// A cheap handle that reads a ledger.
#[derive(Debug, Clone)]
pub struct View {
    kv: Arc<dyn Kv>,
    disk: Arc<dyn Disk>,
    durable: Arc<Mutex<Durable>>,
    own: NodeId,
    network: NetworkId,
}

/// Which part of the journal may be read.
#[derive(Debug)]
pub(crate) struct Durable {
    /// Everything before this place.
    pub(crate) end: Position,
    /// What stands for its oldest segments.
    pub(crate) generation: Generation,
}

impl View {
    pub(crate) fn new(
        kv: Arc<dyn Kv>,
        disk: Arc<dyn Disk>,
        durable: Arc<Mutex<Durable>>,
        own: NodeId,
        network: NetworkId,
    ) -> Self {
        Self { kv, disk, durable, own, network }
    }

    /// Whose ledger it is.
    #[must_use]
    pub const fn own(&self) -> NodeId {
        self.own
    }

    /// The network it is of.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// One lease.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn lease(&self, id: &LeaseId) -> Result<Option<Lease>, QueryError> {
        let Some(mut lease) = self.row::<Lease>(&keys::lease(id), "lease")? else {
            return Ok(None);
        };
        lease.receipts = self.row(&keys::receipts(id), "receipts")?.unwrap_or_default();
        Ok(Some(lease))
    }

    /// Leases, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn leases(&self, select: Select, limit: usize) -> Result<Vec<Lease>, QueryError> {
        let index = match select {
            Select::All => keys::by_time(),
            Select::Host(host) => keys::by_host(&host),
            Select::Renter(renter) => keys::by_renter(&renter),
            Select::Status(status) => keys::by_status(status),
        };
        let mut ids = Vec::new();
        self.kv.scan_back(&index, None, &mut |key, _| {
            if ids.len() >= limit {
                return ControlFlow::Break(());
            }
            ids.extend(keys::lease_of(key));
            ControlFlow::Continue(())
        })?;
        let mut leases = Vec::new();
        for id in ids {
            leases.extend(self.lease(&id)?);
        }
        Ok(leases)
    }

    /// The ids of all leases, in no order that means anything.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn lease_ids(&self) -> Result<Vec<LeaseId>, QueryError> {
        let mut ids = Vec::new();
        self.kv.scan(keys::LEASES, b"", &mut |key, _| {
            ids.extend(keys::lease_of(key));
            ControlFlow::Continue(())
        })?;
        Ok(ids)
    }

    /// The newest entry held of a chain; of our own, the newest there is.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn head(&self, author: &NodeId) -> Result<Option<Head>, QueryError> {
        Ok(self.row(&keys::head(author), "head")?)
    }

    /// Whether the ledger was restored from an older copy, so that entries of our own chain may be missing.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn is_restored(&self) -> Result<bool, QueryError> {
        Ok(self.kv.get(keys::RESTORED)?.is_some())
    }

    /// Entries held of a chain from a number on, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if store or journal fail.
    pub fn entries_from(&self, author: &NodeId, seq: u64, limit: usize) -> Result<Vec<Signed<Entry>>, QueryError> {
        let (prefix, from) = (keys::entries(author), keys::entry(author, seq));
        let mut rows: Vec<EntryRow> = Vec::new();
        let mut failed = None;
        self.kv.scan(&prefix, &from, &mut |_, value| {
            match decode(value, "entry") {
                Ok(row) => rows.push(row),
                Err(error) => failed = Some(error),
            }
            if rows.len() >= limit || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(error) => Err(error.into()),
            None => rows.into_iter().map(|row| self.entry_at(row.at)).collect(),
        }
    }

    /// The newest entries held of all chains.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn heads(&self) -> Result<Vec<(NodeId, Head)>, QueryError> {
        let rows = self.rows::<Head>(keys::HEADS, "head")?;
        Ok(rows.into_iter().filter_map(|(key, head)| Some((NodeId(*key.get(1..)?.first_chunk()?), head))).collect())
    }

    /// Our newest checkpoint, and its number in our chain.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn checkpoint(&self) -> Result<Option<(u64, Checkpoint)>, QueryError> {
        Ok(self.row(keys::CHECKPOINT, "checkpoint")?)
    }

    /// One entry of a chain, if it is held.
    ///
    /// # Errors
    /// [`QueryError`] if store or journal fail.
    pub fn entry(&self, author: &NodeId, seq: u64) -> Result<Option<Signed<Entry>>, QueryError> {
        let row: Option<EntryRow> = self.row(&keys::entry(author, seq), "entry")?;
        // Without a row's record it has been dropped since the row was read.
        let Some(row) = row else { return Ok(None) };
        self.find(row.at)
    }

    /// What is between us and a peer in one currency.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn balance(&self, peer: &NodeId, currency: &Currency) -> Result<Balance, QueryError> {
        let row = self.row(&keys::balance(peer, currency), "balance")?;
        Ok(row.unwrap_or_default())
    }

    /// All balances, with one peer or with everybody.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn balances(&self, peer: Option<&NodeId>) -> Result<Vec<(NodeId, Currency, Balance)>, QueryError> {
        let prefix = peer.map_or_else(|| keys::BALANCES.to_vec(), keys::balances_with);
        let rows = self.rows::<Balance>(&prefix, "balance")?;
        Ok(rows
            .into_iter()
            .filter_map(|(key, balance)| {
                let peer = NodeId(*key.get(1..)?.first_chunk()?);
                let currency = String::from_utf8(key.get(33..)?.to_vec()).ok()?;
                Some((peer, Currency(currency), balance))
            })
            .collect())
    }

    /// The proof that an author has contradicted itself, if there is one.
    ///
    /// # Errors
    /// [`QueryError`] if store or journal fail.
    pub fn fork(&self, author: &NodeId) -> Result<Option<ForkProof>, QueryError> {
        let row: Option<ForkRow> = self.row(&keys::proof(author), "proof")?;
        row.map(|row| match row {
            ForkRow::After(at, second) => Ok(ForkProof::Entries(self.entry_at(at)?, second)),
            ForkRow::Before(first, at) => Ok(ForkProof::Entries(first, self.entry_at(at)?)),
            ForkRow::Proof(proof) => Ok(proof),
        })
        .transpose()
    }

    /// Everybody of whom such a proof is held.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn forked(&self) -> Result<Vec<NodeId>, QueryError> {
        let mut nodes = Vec::new();
        self.kv.scan(keys::PROOFS, b"", &mut |key, _| {
            nodes.extend(key.last_chunk().map(|id| NodeId(*id)));
            ControlFlow::Continue(())
        })?;
        Ok(nodes)
    }

    /// A lease's workload, as the caller sealed it.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn workload(&self, lease: &LeaseId) -> Result<Option<Vec<u8>>, QueryError> {
        Ok(self.kv.get(&keys::workload(lease))?)
    }

    /// A row of the caller's own.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn private(&self, key: &[u8]) -> Result<Option<Vec<u8>>, QueryError> {
        Ok(self.kv.get(&keys::private(key))?)
    }

    /// The caller's own rows whose keys begin with `prefix`, in order.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn private_rows(&self, prefix: &[u8]) -> Result<Vec<Row>, QueryError> {
        let mut rows = Vec::new();
        self.kv.scan(&keys::private(prefix), b"", &mut |key, value| {
            rows.push((key[1..].to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    /// A reader of all durable records that are kept, from the first.
    #[must_use]
    pub fn records(&self) -> Reader {
        let (end, generation) = self.durable();
        Reader::from_first(Arc::clone(&self.disk), generation, end)
    }

    fn durable(&self) -> (Position, Generation) {
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        (durable.end, Arc::clone(&durable.generation))
    }

    /// All rows of the store, to compare two of them.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn all_rows(&self) -> Result<Vec<Row>, QueryError> {
        let mut rows = Vec::new();
        self.kv.scan(b"", b"", &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    fn entry_at(&self, at: Position) -> Result<Signed<Entry>, QueryError> {
        self.find(at)?.ok_or(QueryError::NotThere(at.index))
    }

    fn find(&self, at: Position) -> Result<Option<Signed<Entry>>, QueryError> {
        // The generation that is held keeps its files on disk.
        let (_, generation) = self.durable();
        let Some(bytes) = find(&*self.disk, &generation, at)? else {
            return Ok(None);
        };
        match Record::from_bytes(&bytes) {
            Ok(Record::Entry(entry)) => Ok(Some(entry)),
            Ok(Record::Usage(_) | Record::Ack(_) | Record::Fork(_) | Record::Private(_)) | Err(_) => {
                Err(QueryError::NotThere(at.index))
            }
        }
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8], what: &'static str) -> Result<Option<T>, KvError> {
        let bytes = self.kv.get(key)?;
        bytes.map(|bytes| decode(&bytes, what)).transpose()
    }

    fn rows<T: DeserializeOwned>(&self, prefix: &[u8], what: &'static str) -> Result<Vec<(Vec<u8>, T)>, KvError> {
        let mut rows = Vec::new();
        self.kv.scan(prefix, b"", &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        rows.into_iter().map(|(key, value)| Ok((key, decode(&value, what)?))).collect()
    }
}
