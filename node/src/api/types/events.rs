//! What happened to leases, of all of them, in the order in which this node heard of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use souk_ledger::view::{QueryError, View};
use souk_protocol::LeaseId;

use super::{EventView, Role};
use crate::{
    ledger::unreadable,
    market::{CommandError, page_size},
};

/// Which events: without `after` the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsRequest {
    /// Those in records after this, oldest first.
    pub after: Option<u64>,
    /// The newest of those in records before this.
    pub before: Option<u64>,
    /// At most so many; none for 100, 1000 at most.
    pub limit: Option<u32>,
}

/// An event of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HappenedView {
    /// The journal's record it is in: grows from event to event, and is what `after` and `before` mean.
    pub record: u64,
    /// The lease's row number.
    pub number: u64,
    /// The lease.
    pub lease: LeaseId,
    /// Its label.
    pub label: Option<String>,
    /// This node's side of it.
    pub role: Role,
    /// What happened.
    #[serde(flatten)]
    pub event: EventView,
}

/// What all events of a lease have in common.
struct Named {
    number: u64,
    label: Option<String>,
    role: Role,
}

impl EventsRequest {
    /// Reads the events.
    ///
    /// # Errors
    /// If the ledger can't be read.
    pub fn answer(&self, view: &View) -> Result<Vec<HappenedView>, CommandError> {
        self.read(view).map_err(|e| unreadable(&e))
    }

    fn read(&self, view: &View) -> Result<Vec<HappenedView>, QueryError> {
        let limit = page_size(self.limit);
        let events = match self.after {
            Some(after) => view.events_after(after, limit)?,
            None => view.newest_events(self.before, limit)?,
        };
        let mut names: BTreeMap<LeaseId, Named> = BTreeMap::new();
        for event in &events {
            if !names.contains_key(&event.lease)
                && let Some(lease) = view.lease(&event.lease)?
            {
                let role = if lease.host() == view.own() { Role::Host } else { Role::Renter };
                names.insert(event.lease, Named { number: lease.number, label: lease.label, role });
            }
        }
        let shown = events.iter().filter_map(|event| {
            let named = names.get(&event.lease)?;
            Some(HappenedView {
                record: event.record,
                number: named.number,
                lease: event.lease,
                label: named.label.clone(),
                role: named.role,
                event: EventView::from(&event.event),
            })
        });
        Ok(shown.collect())
    }
}
