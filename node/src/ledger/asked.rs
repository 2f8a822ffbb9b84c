//! What people ask the ledger: leases by name and page by page, events, earnings. Each question reads as many rows as it answers,
//! however many leases there are.

use souk_ledger::{lease::Lease, view::View};
use souk_protocol::{LeaseId, NodeId, Nonce, Timestamp, machine::record::LeaseRow};

use super::{Ledger, logged, row};
use crate::{
    api::types::{EarningsRequest, EarningsView, EventsRequest, HappenedView},
    market::{
        CommandError,
        command::{ErrorCode, Reply},
        select,
    },
};

/// Leases of one name that are looked at: more than a person wants to read.
const NAMED: usize = 17;
/// Leases that are looked at for quotas: so many at once, and so often.
const USED_PAGE: usize = 500;
const USED_PAGES: usize = 20;

impl Ledger {
    /// Leases that a person's words may mean, for [`select::resolve`] to choose from.
    #[must_use]
    pub fn named(&self, text: &str) -> Vec<Lease> {
        let view = self.view();
        let mut ids = Vec::new();
        if let Some(number) = select::number(text) {
            ids.extend(logged(view.numbered(number)).flatten());
        }
        ids.extend(logged(view.labelled(text.trim(), NAMED)).unwrap_or_default());
        if let Some(digits) = select::digits(text) {
            ids.extend(logged(view.starting_with(&digits, NAMED)).unwrap_or_default());
        }
        ids.sort_unstable();
        ids.dedup();
        ids.iter().filter_map(|id| logged(view.lease(id)).flatten()).collect()
    }

    /// The lease this node opened in the negotiation of a nonce.
    #[must_use]
    pub fn negotiated(&self, nonce: &Nonce) -> Option<LeaseId> {
        logged(self.view().negotiated(nonce)).flatten()
    }

    /// A lease's row number, once its open is in the ledger.
    #[must_use]
    pub fn number(&self, lease: &LeaseId) -> Option<u64> {
        logged(self.view().lease(lease)).flatten().map(|l| l.number)
    }

    /// Leases by their numbers, newest first: those below `before`, or from the newest on, at most `limit`.
    #[must_use]
    pub fn page(&self, before: Option<u64>, limit: usize) -> Vec<LeaseRow> {
        let leases = logged(self.view().page(before, limit)).unwrap_or_default();
        leases.into_iter().filter_map(|l| logged(row(self.view(), &self.seal, l))).collect()
    }

    /// What others have used of this host since then: who, slots times milliseconds, and when at the latest; of the newest leases.
    #[must_use]
    pub fn used_here(&self, since: Timestamp) -> Vec<(NodeId, u64, Timestamp)> {
        let mut used = Vec::new();
        let mut before = None;
        for _ in 0..USED_PAGES {
            let page = logged(self.view().page(before, USED_PAGE)).unwrap_or_default();
            before = page.last().map(|lease| lease.number);
            for lease in page.iter().filter(|lease| lease.host() == self.me()) {
                let Some(usage) = lease.receipts.recent.last().map(|held| &held.value) else { continue };
                let active = usage.counters.active.0.saturating_sub(usage.counters.waived.0);
                let slots = u64::from(lease.draft.value.resources.slots);
                if usage.time >= since && active > 0 {
                    used.push((lease.renter(), active.saturating_mul(slots), usage.time));
                }
            }
            if page.len() < USED_PAGE {
                break;
            }
        }
        used
    }

    /// Events of all leases.
    pub fn happened(&self, request: EventsRequest, reply: Reply<Vec<HappenedView>>) {
        self.beside(reply, move |view| request.answer(view));
    }

    /// What this node earned as a host.
    pub fn earnings(&self, request: EarningsRequest, reply: Reply<EarningsView>) {
        self.beside(reply, move |view| request.answer(view));
    }

    /// Answers a question beside the market task: it may read many rows.
    pub(super) fn beside<T: Send + 'static>(
        &self,
        reply: Reply<T>,
        ask: impl FnOnce(&View) -> Result<T, CommandError> + Send + 'static,
    ) {
        let view = self.view().clone();
        tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone: then nobody minds.
            reply.send(ask(&view)).ok();
        });
    }
}

/// The ledger's failure as the API tells it.
pub fn unreadable(error: &souk_ledger::view::QueryError) -> CommandError {
    CommandError::new(ErrorCode::Internal, format!("the ledger can't be read: {error}"))
}
