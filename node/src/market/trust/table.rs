//! Evidence of others: folded leases and acknowledged payments (the ledger's [`Shelf`] says which are kept), attestations that
//! count, and which hosts were there. A cache: everything in it can be asked for again.
//!
//! Owns the file `reputation`, sealed with the node's key: what others could change there would be believed.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use souk_ledger::reputation::{Cause, Evidence, Failure, Paid, Shelf, Side};
use souk_protocol::{
    Amount, Currency, DocumentId, LeaseId, Millis, NodeId, Timestamp, encode, machine::uptime::Uptime,
};

use crate::{clock::now, seal::Seal};

/// Attestations kept.
pub const VOUCHES: usize = 4_096;
/// Bytes of the file.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Between two writes.
const SAVE_EVERY: Millis = Millis::from_mins(10);
const FILE: &str = "reputation";

/// A claim that somebody vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vouch {
    pub seq: u64,
    pub until: Option<Timestamp>,
    pub withdrawn: bool,
    pub entry: DocumentId,
}

impl Vouch {
    pub(super) fn holds(&self, now: Timestamp) -> bool {
        !self.withdrawn && self.until.is_none_or(|until| now < until)
    }
}

/// One lease, as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    lease: LeaseId,
    parties: (NodeId, NodeId),
    signatures: u8,
    n: u64,
    currency: Currency,
    agreed: Amount,
    used: Millis,
    at: Timestamp,
    closed: bool,
    ends_at: Timestamp,
    failures: Vec<(u8, bool, bool)>,
    shown_by: NodeId,
}

impl Row {
    fn of(evidence: &Evidence, shown_by: NodeId) -> Self {
        let cause = |f: &Failure| Cause::ALL.iter().position(|c| *c == f.cause).and_then(|n| u8::try_from(n).ok());
        Self {
            lease: evidence.lease,
            parties: (evidence.host, evidence.renter),
            signatures: evidence.signatures,
            n: evidence.n,
            currency: evidence.currency.clone(),
            agreed: evidence.agreed,
            used: evidence.used,
            at: evidence.at,
            closed: evidence.closed,
            ends_at: evidence.ends_at,
            failures: evidence
                .failures
                .iter()
                .filter_map(|f| Some((cause(f)?, f.against == Side::Host, f.admitted)))
                .collect(),
            shown_by,
        }
    }

    fn read(self) -> (Evidence, NodeId) {
        let failure = |(cause, host, admitted): (u8, bool, bool)| {
            let against = if host { Side::Host } else { Side::Renter };
            Cause::ALL.get(usize::from(cause)).map(|cause| Failure { cause: *cause, against, admitted })
        };
        let evidence = Evidence {
            lease: self.lease,
            host: self.parties.0,
            renter: self.parties.1,
            signatures: self.signatures,
            n: self.n,
            currency: self.currency,
            agreed: self.agreed,
            settled: Amount::ZERO,
            used: self.used,
            at: self.at,
            closed: self.closed,
            ends_at: self.ends_at,
            failures: self.failures.into_iter().filter_map(failure).collect(),
        };
        (evidence, self.shown_by)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    leases: Vec<Row>,
    payments: Vec<(NodeId, NodeId, Currency, Amount)>,
    vouches: Vec<(NodeId, NodeId, String, Vouch)>,
    uptime: Uptime,
}

/// What others have shown.
#[derive(Debug)]
pub struct Table {
    shelf: Shelf,
    vouches: BTreeMap<(NodeId, NodeId, String), Vouch>,
    pub(super) uptime: Uptime,
    file: PathBuf,
    seal: Arc<Seal>,
    saved_at: Timestamp,
    changed: bool,
}

/// What the file is sealed for: it is no lease's.
fn sealed_for() -> LeaseId {
    LeaseId(*blake3::hash(b"souk 2026-11 evidence of others").as_bytes())
}

impl Table {
    /// Reads the file; one that can't be read is started anew.
    #[must_use]
    pub fn open(dir: &std::path::Path, seal: Seal) -> Self {
        let file = dir.join(FILE);
        let mut table = Self {
            shelf: Shelf::default(),
            vouches: BTreeMap::new(),
            uptime: Uptime::default(),
            file,
            seal: Arc::new(seal),
            saved_at: now(),
            changed: false,
        };
        match table.load() {
            Ok(Some(saved)) => table.take_saved(saved),
            Ok(None) => {}
            Err(why) => tracing::warn!("{why}; evidence of others is collected anew"),
        }
        table
    }

    fn load(&self) -> Result<Option<Saved>, String> {
        let shown = self.file.display();
        let about = match fs::metadata(&self.file) {
            Ok(about) => about,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{shown} can't be read: {e}")),
        };
        if !about.is_file() || about.len() > FILE_BYTES {
            return Err(format!("{shown} is not what this node has written"));
        }
        let sealed = fs::read(&self.file).map_err(|e| format!("{shown} can't be read: {e}"))?;
        let bytes = self.seal.open(&sealed_for(), &sealed).ok_or(format!("{shown} is damaged"))?;
        encode::from_bytes(&bytes, bytes.len()).map(Some).map_err(|e| format!("{shown} is of another version: {e}"))
    }

    fn take_saved(&mut self, saved: Saved) {
        let at = now();
        for row in saved.leases {
            let (evidence, shown_by) = row.read();
            self.shelf.take_lease(evidence, shown_by, at);
        }
        for (payer, payee, currency, total) in saved.payments {
            self.shelf.take_payment(Paid { payer, payee, currency, total });
        }
        for (author, subject, claim, vouch) in saved.vouches.into_iter().take(VOUCHES) {
            self.vouches.insert((author, subject, claim), vouch);
        }
        self.uptime = saved.uptime;
        self.changed = false;
    }

    /// Takes a lease that was verified; whether it tells anything new.
    pub(super) fn take_lease(&mut self, evidence: Evidence, shown_by: NodeId) -> bool {
        let new = self.shelf.take_lease(evidence, shown_by, now());
        self.changed |= new;
        new
    }

    pub(super) fn take_payment(&mut self, paid: Paid) -> bool {
        let new = self.shelf.take_payment(paid);
        self.changed |= new;
        new
    }

    /// Who is how near is known anew: what is far goes first.
    pub(super) fn rate(&mut self, near: &BTreeMap<NodeId, u8>) {
        self.shelf.rate(near.clone(), now());
    }

    pub(super) fn take_vouch(&mut self, author: NodeId, subject: NodeId, claim: String, vouch: Vouch) -> bool {
        let key = (author, subject, claim);
        let known = self.vouches.get(&key);
        if known.is_some_and(|held| held.seq >= vouch.seq) || (known.is_none() && self.vouches.len() >= VOUCHES) {
            return false;
        }
        self.vouches.insert(key, vouch);
        self.changed = true;
        true
    }

    /// Drops the attestations that `keep` says no to: author, subject and entry are asked. Whether any was.
    pub(super) fn keep_vouches(&mut self, keep: impl Fn(NodeId, NodeId, DocumentId) -> bool) -> bool {
        let before = self.vouches.len();
        self.vouches.retain(|(author, subject, _), vouch| keep(*author, *subject, vouch.entry));
        let dropped = self.vouches.len() < before;
        self.changed |= dropped;
        dropped
    }

    pub(super) fn evidence(&self) -> impl Iterator<Item = &Evidence> {
        self.shelf.leases().map(|(evidence, _)| evidence)
    }

    pub(super) fn payments(&self) -> impl Iterator<Item = Paid> + '_ {
        self.shelf.payments()
    }

    /// Claims in force: who vouches, for whom, what.
    pub(super) fn vouches(&self, now: Timestamp) -> impl Iterator<Item = (NodeId, NodeId, &str)> {
        let holding = self.vouches.iter().filter(move |(_, vouch)| vouch.holds(now));
        holding.map(|((author, subject, claim), _)| (*author, *subject, claim.as_str()))
    }

    pub(super) const fn note_looked(&mut self) {
        self.changed = true;
    }

    /// Writes the file if it is time to, on a thread that may wait.
    pub(super) fn save_sometimes(&mut self) {
        if self.changed && now().since(self.saved_at) >= SAVE_EVERY {
            let save = self.save();
            tokio::task::spawn_blocking(save);
        }
    }

    /// What writes the file as it is now.
    pub(in crate::market) fn save(&mut self) -> impl FnOnce() + Send + 'static {
        self.saved_at = now();
        let changed = std::mem::take(&mut self.changed);
        let rows = self.shelf.payments().map(|p| (p.payer, p.payee, p.currency, p.total));
        let vouches = self.vouches.iter().map(|((a, b, c), vouch)| (*a, *b, c.clone(), vouch.clone()));
        let saved = Saved {
            leases: self.shelf.leases().map(|(evidence, by)| Row::of(evidence, by)).collect(),
            payments: rows.collect(),
            vouches: vouches.collect(),
            uptime: self.uptime.clone(),
        };
        let (file, seal) = (self.file.clone(), Arc::clone(&self.seal));
        move || {
            if changed && let Err(error) = write(&file, &seal, &saved) {
                tracing::warn!(%error, "evidence of others was not written; it is asked for again after a restart");
            }
        }
    }
}

fn write(file: &std::path::Path, seal: &Seal, saved: &Saved) -> anyhow::Result<()> {
    let sealed = seal.close(&sealed_for(), &encode::to_bytes(saved))?;
    let dir = file.parent().ok_or_else(|| anyhow::anyhow!("it has no folder"))?;
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut new, &sealed)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_protocol::Keypair;

    use super::*;

    fn seal() -> Seal {
        Seal::of(&Keypair::from_seed(&[1; 32]))
    }

    fn node(n: u8) -> NodeId {
        Keypair::from_seed(&[n; 32]).node_id()
    }

    fn lease(n: u32, at: u64) -> Evidence {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Evidence {
            lease: LeaseId(id),
            host: node(1),
            renter: node(2),
            signatures: 8,
            n: 3,
            currency: Currency::usd(),
            agreed: Amount(7),
            settled: Amount::ZERO,
            used: Millis(5),
            at: Timestamp(at),
            closed: true,
            ends_at: Timestamp(at + 9),
            failures: [Failure { cause: Cause::Bait, against: Side::Host, admitted: true }].into(),
        }
    }

    #[test]
    fn it_comes_back_from_its_file_and_a_changed_file_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::open(dir.path(), seal());
        table.take_lease(lease(1, 10), node(3));
        let paid = Paid { payer: node(2), payee: node(1), currency: Currency::usd(), total: Amount(4) };
        assert!(table.take_payment(paid.clone()) && !table.take_payment(paid.clone()));
        let vouch = Vouch { seq: 4, until: None, withdrawn: false, entry: DocumentId([1; 32]) };
        assert!(table.take_vouch(node(4), node(1), "verified".to_owned(), vouch.clone()));
        assert!(!table.take_vouch(node(4), node(1), "verified".to_owned(), Vouch { seq: 3, ..vouch }));
        table.save()();
        let again = Table::open(dir.path(), seal());
        assert_eq!(again.evidence().collect::<Vec<_>>(), [&lease(1, 10)]);
        assert_eq!(again.payments().collect::<Vec<_>>(), [paid]);
        assert_eq!(again.vouches(Timestamp(1)).collect::<Vec<_>>(), [(node(4), node(1), "verified")]);
        let file = dir.path().join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(Table::open(dir.path(), seal()).evidence().count(), 0);
    }
}
