//! What the ledger holds of trust: rows of whom the owner trusts and blocks, and attestations.

use std::collections::BTreeMap;

use souk_ledger::{
    lease::Lease,
    record::{Fact, Private},
    regard::{Blocked, Trusted},
    thread::AppendError,
    view::View,
};
use souk_protocol::{HostId, LeaseId, NodeId, Signed, entry::Entry};

use super::{Ledger, Progress, logged};

/// Whom the owner trusts and blocks, and what this node vouches for.
pub type Regards = (BTreeMap<HostId, Trusted>, BTreeMap<HostId, Blocked>, Said);
/// Our attestations: by whom they are about, and by claim.
pub type Said = BTreeMap<NodeId, BTreeMap<String, Signed<Entry>>>;

impl Ledger {
    /// Whom the owner trusts and blocks, and what this node vouches for.
    ///
    /// # Errors
    /// If the ledger can't be read.
    pub fn regard(&self) -> anyhow::Result<Regards> {
        let view = self.view();
        let mut said = Said::new();
        for (about, claim, row) in view.attestations_by(&self.me())? {
            if let Some(entry) = view.entry(&self.me(), row.seq)? {
                said.entry(about).or_default().insert(claim, entry);
            }
        }
        Ok((view.trusted()?.into_iter().collect(), view.blocked()?.into_iter().collect(), said))
    }

    /// Claims about this node, by author.
    #[must_use]
    pub fn claims_about_us(&self) -> Vec<(NodeId, String)> {
        let held = logged(self.view().attestations_about(&self.me())).unwrap_or_default();
        held.into_iter().map(|(author, claim, _)| (author, claim)).collect()
    }

    /// A lease, as the ledger holds it.
    #[must_use]
    pub fn held(&self, lease: &LeaseId) -> Option<Lease> {
        logged(self.view().lease(lease)).flatten()
    }

    /// What reads the ledger beside the task.
    #[must_use]
    pub fn reader(&self) -> View {
        self.view().clone()
    }

    /// Writes a row of the owner's, and goes on once it is on disk.
    pub fn keep_row(&self, row: Private, done: impl FnOnce() + Send + 'static) {
        let (handle, mut progress) = (self.handle.clone(), self.progress.clone());
        let fact = Fact::Private(row);
        // In the order of the calls, but for a disk that is hopelessly behind.
        let mut queued = handle.append(fact.clone());
        tokio::spawn(async move {
            while queued == Err(AppendError::Full) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                queued = handle.append(fact.clone());
            }
            // If its thread has ended, who waits is told that the node is stopping.
            let Ok(ticket) = queued else { return };
            let durable = |state: &Progress| matches!(state, Progress::Durable(n) if *n >= ticket.0);
            if progress.wait_for(durable).await.is_ok() {
                done();
            }
        });
    }

    /// Comes once every entry of our own that was handed over before is on disk.
    pub fn durable(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut progress = self.progress.clone();
        let newest = super::locked(&self.own).last().copied().unwrap_or(0);
        async move {
            // A ledger that has ended makes nothing durable any more; then nothing is sent either, as the node stops.
            progress.wait_for(|state| matches!(state, Progress::Durable(n) if *n >= newest)).await.ok();
        }
    }
}
