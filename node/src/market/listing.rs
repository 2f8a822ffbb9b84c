//! Leases and receipts in lists: what is open from the engine, what is over from the ledger, a page at a time.

use souk_protocol::LeaseId;

use super::{CommandError, command::LeaseSelector, task::Market, views};
use crate::api::types::{LeaseView, LeasesRequest, ReceiptView, ReceiptsRequest};

/// Rows of a page, where nothing else is asked for.
const PAGE: u32 = 100;
/// The most rows of a page.
const LONGEST_PAGE: u32 = 1000;

/// How many rows to answer with.
#[must_use]
pub fn page_size(asked: Option<u32>) -> usize {
    asked.unwrap_or(PAGE).clamp(1, LONGEST_PAGE) as usize
}

impl Market {
    /// Leases, newest last: those that are open, or a page of all.
    pub(super) fn leases(&self, request: &LeasesRequest) -> Vec<LeaseView> {
        let mut shown: Vec<LeaseView> = if request.all {
            let rows = self.ledger.page(request.before, page_size(request.limit));
            rows.iter().filter_map(|row| self.live(row.lease).or_else(|| views::past(self.engine.me(), row))).collect()
        } else {
            let (hosted, rented) = (self.engine.host().leases().keys(), self.engine.renter().leases().keys());
            let open: Vec<LeaseId> = hosted.chain(rented).copied().collect();
            open.into_iter().filter_map(|lease| self.live(lease)).filter(|v| !v.state.is_ended()).collect()
        };
        shown.sort_by_key(|v| v.number);
        shown.dedup_by_key(|v| v.lease);
        shown
    }

    /// The newest receipts, newest lease last: of one lease, or of a page of them.
    pub(super) fn receipts(&self, request: &ReceiptsRequest) -> Result<Vec<ReceiptView>, CommandError> {
        let rows = match &request.lease {
            Some(id) => {
                self.find(&LeaseSelector(id.clone())).map(|lease| self.ledger.row(&lease).into_iter().collect())?
            }
            None => self.ledger.page(request.before, page_size(request.limit)),
        };
        let mut shown: Vec<ReceiptView> =
            rows.iter().filter_map(|row| views::receipt(self.engine.me(), self.engine.network(), row)).collect();
        shown.sort_by_key(|r| r.number);
        Ok(shown)
    }
}
