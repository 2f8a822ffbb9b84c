//! The fold: what each record changes in the store.
//!
//! Pure but for the reads of the store it is given: the same records in the same order make the same rows, byte for byte,
//! whatever the store. A record that can't follow those before it is refused and changes nothing; what a counterparty signs
//! against its own word becomes evidence. It writes nothing itself: [`State::take_changes`] hands out what has changed.

mod earned;
mod entry;
mod keep;
mod month;
mod pair;
mod private;
mod receipt;
mod refusal;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, mem, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use souk_protocol::{
    Amount, LeaseId, NetworkId, NodeId, encode,
    signed::{Document, Signed},
};

pub(crate) use entry::check_shape;
pub(crate) use keep::Keep;
pub use keep::totals;
pub(crate) use receipt::check_ack;
pub use refusal::{FoldError, Refusal};

use crate::{
    chain::{EntryRow, ForkProof, ForkRow, Head, PROOFS},
    journal::Position,
    keys,
    lease::{Balance, Lease, Receipts, Status},
    record::{Fact, Held, Record},
    store::{Batch, Kv, KvError},
};

/// Leases kept decoded between groups. Each takes some 6 KB.
const CACHED_LEASES: usize = 128;

/// What a record did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It changed something.
    New,
    /// It was known; nothing changed and it need not be written.
    Known,
    /// It proves that its author contradicted itself. Kept as evidence, with no other effect.
    Fork,
}

#[derive(Debug)]
struct Cached {
    lease: Lease,
    lease_changed: bool,
    receipts_changed: bool,
}

/// The fold of a node's records.
#[derive(Debug)]
pub struct State {
    own: NodeId,
    network: NetworkId,
    kv: Arc<dyn Kv>,
    staged: Batch,
    leases: BTreeMap<LeaseId, Cached>,
    /// Whether entries of our own chain and usages may be left out, as in an export of one lease, or before a checkpoint.
    sparse: bool,
    /// Leases of which only the parties are remembered: nothing but a complaint is taken about them.
    retired: BTreeMap<LeaseId, [NodeId; 2]>,
    /// Whether what is folded was restored from an older copy, whatever the rows say.
    restored: bool,
}

impl State {
    /// The state of `own` in `network` as `kv` holds it.
    #[must_use]
    pub fn new(own: NodeId, network: NetworkId, kv: Arc<dyn Kv>) -> Self {
        Self {
            own,
            network,
            kv,
            staged: Batch::new(),
            leases: BTreeMap::new(),
            sparse: false,
            retired: BTreeMap::new(),
            restored: false,
        }
    }

    /// The same, for records from which some of our own entries have been left out.
    #[must_use]
    pub const fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    /// From here on nothing may be left out.
    pub(crate) const fn end_sparse(&mut self) {
        self.sparse = false;
    }

    /// The same, for the records of a ledger that was restored from an older copy: entries and usages of ours may be missing.
    #[must_use]
    pub const fn restored(mut self) -> Self {
        self.sparse = true;
        self.restored = true;
        self
    }

    /// Folds a verified record that will lie at `at`.
    ///
    /// # Errors
    /// [`FoldError::Refused`] if it can't follow; nothing has changed then.
    pub fn apply(&mut self, at: Position, fact: &Fact) -> Result<Applied, FoldError> {
        match fact {
            Fact::Entry(entry) => {
                if let souk_protocol::entry::Body::LeaseOpen { draft } = &entry.body {
                    draft.verify(&self.network).map_err(Refusal::Draft)?;
                }
                self.entry(at, Held::from(entry))
            }
            Fact::Usage(usage) => self.usage(Held::from(usage)),
            Fact::Ack(ack) => self.ack(Held::from(ack)),
            Fact::Fork(proof) => {
                proof.verify(&self.network).map_err(Refusal::NoFork)?;
                self.fork(proof)
            }
            Fact::Private(private) => self.private(at, private),
        }
    }

    /// Folds a record read back from the journal, whose documents were verified when it was written.
    ///
    /// # Errors
    /// As [`State::apply`].
    pub fn replay(&mut self, at: Position, record: Record) -> Result<Applied, FoldError> {
        match record {
            Record::Entry(entry) => {
                let entry = self.read(entry)?;
                self.entry(at, entry)
            }
            Record::Usage(usage) => {
                let usage = self.read(usage)?;
                self.usage(usage)
            }
            Record::Ack(ack) => {
                let ack = self.read(ack)?;
                self.ack(ack)
            }
            Record::Fork(proof) => self.fork(&proof),
            Record::Private(private) => self.private(at, &private),
        }
    }

    /// A proof that others have found.
    fn fork(&mut self, proof: &ForkProof) -> Result<Applied, FoldError> {
        let author = proof.accused().ok_or(Refusal::Private)?;
        match self.keep_fork(&author, &ForkRow::Proof(proof.clone()))? {
            // It is what the record says, not what it has done.
            Applied::New | Applied::Fork => Ok(Applied::New),
            Applied::Known => Ok(Applied::Known),
        }
    }

    /// Everything that changed since the last call, as rows to write.
    pub fn take_changes(&mut self) -> Batch {
        for (id, cached) in &mut self.leases {
            if mem::take(&mut cached.lease_changed) {
                let row = encode::to_bytes(&cached.lease);
                self.staged.insert(keys::lease(id), Some(row));
            }
            if mem::take(&mut cached.receipts_changed) {
                let row = encode::to_bytes(&cached.lease.receipts);
                self.staged.insert(keys::receipts(id), Some(row));
            }
        }
        mem::take(&mut self.staged)
    }

    /// Drops decoded leases if there are many. Call it once changes are written, or they are lost.
    pub fn forget(&mut self) {
        if self.leases.len() > CACHED_LEASES {
            self.leases.retain(|_, cached| cached.lease_changed || cached.receipts_changed);
        }
    }

    /// Drops every decoded lease; see [`State::forget`].
    pub(crate) fn forget_all(&mut self) {
        self.leases.clear();
    }

    /// Forgets a lease that is over but for its parties; its rows are the caller's to remove. See [`State::forget_retired`].
    pub(crate) fn retire(&mut self, id: &LeaseId) -> Result<(), KvError> {
        if let Some(lease) = self.lease(id)? {
            let parties = [lease.host(), lease.renter()];
            self.retired.insert(*id, parties);
        }
        self.leases.remove(id);
        Ok(())
    }

    /// Forgets a retired lease's parties, too.
    pub(crate) fn forget_retired(&mut self, id: &LeaseId) {
        self.retired.remove(id);
    }

    /// The newest entry held of a chain.
    ///
    /// # Errors
    /// [`KvError`] if the store fails.
    pub fn head(&self, author: &NodeId) -> Result<Option<Head>, KvError> {
        self.row(&keys::head(author), "head")
    }

    /// Whether our own chain may have gaps.
    fn is_restored(&self) -> Result<bool, KvError> {
        Ok(self.restored || self.bytes(keys::RESTORED)?.is_some())
    }

    fn read<T: Document>(&self, signed: Signed<T>) -> Result<Held<T>, Refusal> {
        Held::read(signed, &self.network).map_err(Refusal::Decode)
    }

    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.staged.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.kv.get(key),
        }
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8], what: &'static str) -> Result<Option<T>, KvError> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        decode(&bytes, what).map(Some)
    }

    fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        self.staged.insert(key, Some(encode::to_bytes(value)));
    }

    fn entry_row(&self, author: &NodeId, seq: u64) -> Result<Option<EntryRow>, KvError> {
        self.row(&keys::entry(author, seq), "entry")
    }

    /// The lease, decoded, in the cache; none if nobody opened it.
    fn lease(&mut self, id: &LeaseId) -> Result<Option<&Lease>, KvError> {
        if !self.leases.contains_key(id) {
            let Some(mut lease) = self.row::<Lease>(&keys::lease(id), "lease")? else {
                return Ok(None);
            };
            lease.receipts = self.row::<Receipts>(&keys::receipts(id), "receipts")?.unwrap_or_default();
            let cached = Cached { lease, lease_changed: false, receipts_changed: false };
            self.leases.insert(*id, cached);
        }
        Ok(self.leases.get(id).map(|cached| &cached.lease))
    }

    /// Changes a lease that [`State::lease`] has just found, and with it its indexes and the pair's balance.
    fn change(&mut self, id: &LeaseId, receipts: bool, change: impl FnOnce(&mut Lease)) -> Result<(), KvError> {
        let Some(cached) = self.leases.get_mut(id) else {
            return Ok(());
        };
        let lease = &mut cached.lease;
        let before = (lease.status(), lease.claimed(), lease.agreed());
        change(lease);
        if receipts {
            cached.receipts_changed = true;
        } else {
            cached.lease_changed = true;
        }
        let after = (lease.status(), lease.claimed(), lease.agreed());
        if before == after {
            return Ok(());
        }
        if before.2 != after.2
            && let Some((month, row)) = month::agreed(lease, after.2)
        {
            self.staged.insert(keys::month(id, month), Some(encode::to_bytes(&row)));
        }
        let opened = lease.opened_at();
        let is_host = lease.host() == self.own;
        let peer = if is_host { lease.renter() } else { lease.host() };
        let balance_key = keys::balance(&peer, lease.currency());
        self.move_status(id, opened, Some(before.0), after.0);
        if (before.1, before.2) != (after.1, after.2) {
            let mut balance: Balance = self.row(&balance_key, "balance")?.unwrap_or_default();
            let (claimed, agreed) = if is_host {
                (&mut balance.claimed, &mut balance.earned)
            } else {
                (&mut balance.charged, &mut balance.spent)
            };
            shift(claimed, before.1, after.1);
            shift(agreed, before.2, after.2);
            self.put(balance_key, &balance);
        }
        Ok(())
    }

    fn move_status(&mut self, id: &LeaseId, opened: souk_protocol::Timestamp, from: Option<Status>, to: Status) {
        if from == Some(to) {
            return;
        }
        if let Some(from) = from {
            let row = keys::indexed(&keys::by_status(from), opened, id);
            self.staged.insert(row, None);
        }
        let row = keys::indexed(&keys::by_status(to), opened, id);
        self.staged.insert(row, Some(Vec::new()));
    }

    /// Keeps a proof that `author` contradicted itself, unless one is kept already or there are too many.
    fn keep_fork(&mut self, author: &NodeId, row: &ForkRow) -> Result<Applied, FoldError> {
        let key = keys::proof(author);
        if self.bytes(&key)?.is_some() {
            return Ok(Applied::Known);
        }
        let count: u64 = self.row(keys::PROOF_COUNT, "count")?.unwrap_or(0);
        if count >= PROOFS {
            return Ok(Applied::Known);
        }
        self.put(key, row);
        self.put(keys::PROOF_COUNT.to_vec(), &(count + 1));
        Ok(Applied::Fork)
    }
}

fn shift(sum: &mut Amount, from: Amount, to: Amount) {
    *sum = sum.saturating_sub(from).saturating_add(to);
}

/// Reads a row this crate has written.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, KvError> {
    serde_ipld_dagcbor::from_slice(bytes).map_err(|_| KvError::Row { what })
}
