//! What happened to leases: of one, or of all in the order in which this node heard of it.

use std::ops::ControlFlow;

use souk_protocol::{LeaseId, message::LeaseEvent};

use super::{QueryError, View};
use crate::{keys, state::decode, store::KvError};

/// An event, with the place that orders all events of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The journal's record it is in: grows from event to event.
    pub record: u64,
    /// Whose it is.
    pub lease: LeaseId,
    /// What happened.
    pub event: LeaseEvent,
}

impl View {
    /// A lease's events, oldest first.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn events(&self, lease: &LeaseId) -> Result<Vec<LeaseEvent>, QueryError> {
        let rows = self.rows::<(u64, LeaseEvent)>(&keys::events(lease), "event")?;
        Ok(rows.into_iter().map(|(_, (_, event))| event).collect())
    }

    /// The newest events of all leases, oldest first: at most `limit` of those in records below `before`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn newest_events(&self, before: Option<u64>, limit: usize) -> Result<Vec<Happened>, QueryError> {
        let below = before.map(keys::recorded);
        let mut rows = Vec::new();
        self.kv.scan_back(&keys::by_record(), below.as_deref(), &mut |key, value| {
            if rows.len() >= limit {
                return ControlFlow::Break(());
            }
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        rows.reverse();
        self.happened(rows)
    }

    /// The events of all leases in records after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn events_after(&self, after: u64, limit: usize) -> Result<Vec<Happened>, QueryError> {
        let mut rows = Vec::new();
        let from = keys::recorded(after.saturating_add(1));
        self.kv.scan(&keys::by_record(), &from, &mut |key, value| {
            if rows.len() >= limit {
                return ControlFlow::Break(());
            }
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        self.happened(rows)
    }

    fn happened(&self, rows: Vec<super::Row>) -> Result<Vec<Happened>, QueryError> {
        let mut found = Vec::new();
        for (key, value) in rows {
            let record = keys::index_of(&key).ok_or(KvError::Row { what: "event" })?;
            let (lease, n): (LeaseId, u32) = decode(&value, "event")?;
            // Dropped meanwhile, if it is not there.
            if let Some((_, event)) = self.row::<(u64, LeaseEvent)>(&keys::event(&lease, n), "event")? {
                found.push(Happened { record, lease, event });
            }
        }
        Ok(found)
    }
}
