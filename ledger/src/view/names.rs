//! Finding leases by what people call them: number, label, the first digits of an id. Reads index rows only, at most as many as
//! asked for, however many leases there are.

use std::ops::ControlFlow;

use souk_protocol::{LeaseId, Nonce};

use super::{QueryError, View};
use crate::{keys, lease::Lease, state::decode};

impl View {
    /// The newest lease's number, which is how many leases there are.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn lease_count(&self) -> Result<u64, QueryError> {
        Ok(self.row(keys::LEASE_COUNT, "count")?.unwrap_or(0))
    }

    /// The lease of a number.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn numbered(&self, number: u64) -> Result<Option<LeaseId>, QueryError> {
        Ok(self.kv.get(&keys::numbered(number))?.as_deref().and_then(keys::lease_of))
    }

    /// The lease this node opened in the negotiation of a nonce.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn negotiated(&self, nonce: &Nonce) -> Result<Option<LeaseId>, QueryError> {
        Ok(self.kv.get(&keys::of_nonce(nonce))?.as_deref().and_then(keys::lease_of))
    }

    /// The leases of a label, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn labelled(&self, label: &str, limit: usize) -> Result<Vec<LeaseId>, QueryError> {
        // Labels have no control characters; one that has would read rows of others.
        if label.is_empty() || label.chars().any(char::is_control) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        self.kv.scan_back(&keys::by_label(label), None, &mut |key, _| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            found.extend(keys::lease_of(key));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Leases whose ids begin with these hexadecimal digits, in the order of their ids, at most `limit`. None for a text that is
    /// not hexadecimal, or empty.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn starting_with(&self, digits: &str, limit: usize) -> Result<Vec<LeaseId>, QueryError> {
        let digits = digits.to_ascii_lowercase();
        let nibble = |c: char| c.to_digit(16).and_then(|d| u8::try_from(d).ok());
        let Some(nibbles) = digits.chars().map(nibble).collect::<Option<Vec<u8>>>().filter(|n| !n.is_empty()) else {
            return Ok(Vec::new());
        };
        let (whole, rest) = nibbles.as_chunks::<2>();
        let start: Vec<u8> = whole.iter().map(|[high, low]| high << 4 | low).collect();
        let (prefix, mut from) = (keys::leases_like(&start), keys::leases_like(&start));
        // Half a byte more: from its first value up, while it begins so.
        from.extend(rest.first().map(|high| high << 4));
        let mut found = Vec::new();
        self.kv.scan(&prefix, &from, &mut |key, _| {
            let id = keys::lease_of(key).filter(|id| id.to_string().starts_with(&digits));
            let Some(id) = id.filter(|_| found.len() < limit) else { return ControlFlow::Break(()) };
            found.push(id);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Leases by their numbers, newest first: those below `before`, or from the newest on, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn page(&self, before: Option<u64>, limit: usize) -> Result<Vec<Lease>, QueryError> {
        let below = before.map(keys::numbered);
        let mut ids = Vec::new();
        self.kv.scan_back(&keys::by_number(), below.as_deref(), &mut |_, id| {
            if ids.len() >= limit {
                return ControlFlow::Break(());
            }
            ids.extend(keys::lease_of(id));
            ControlFlow::Continue(())
        })?;
        let mut leases = Vec::new();
        for id in ids {
            leases.extend(self.lease(&id)?);
        }
        Ok(leases)
    }

    /// How many leases have a receipt that both sides have signed. Reads one row a lease.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn receipt_count(&self) -> Result<u64, QueryError> {
        let (mut count, mut failed) = (0, None);
        self.kv.scan(keys::RECEIPTS, b"", &mut |_, row| match decode::<crate::lease::Receipts>(row, "receipts") {
            Ok(receipts) => {
                count += u64::from(receipts.agreed.is_some());
                ControlFlow::Continue(())
            }
            Err(e) => {
                failed = Some(e);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(count), |e| Err(e.into()))
    }
}
