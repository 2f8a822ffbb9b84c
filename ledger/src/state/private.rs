//! The node's own memory: workloads, states, events, and rows that mean something to the caller only.

use souk_protocol::{LeaseId, Timestamp, limits};

use super::{Applied, FoldError, Refusal, State};
use crate::{
    keys,
    record::{PRIVATE_KEY_BYTES, Private},
};

/// Bytes of an event's text.
const EVENT_BYTES: usize = 2 * limits::SENTENCE_BYTES;

impl State {
    pub(super) fn private(&mut self, private: &Private) -> Result<Applied, FoldError> {
        match private {
            Private::Workload { lease, sealed } => {
                self.staged.insert(keys::workload(lease), Some(sealed.clone()));
            }
            Private::State { lease, time, state } => {
                self.known(lease)?;
                self.change(lease, false, |lease| lease.state = Some((*state, *time)))?;
            }
            Private::Event { lease, time, text } => self.event(lease, *time, text)?,
            Private::Row { key, value } => {
                if key.is_empty() || key.len() > PRIVATE_KEY_BYTES {
                    return Err(Refusal::Private.into());
                }
                let value = value.as_ref().map(|v| v.to_vec());
                self.staged.insert(keys::private(key), value);
            }
        }
        Ok(Applied::New)
    }

    fn event(&mut self, lease: &LeaseId, time: Timestamp, text: &str) -> Result<(), FoldError> {
        if text.len() > EVENT_BYTES {
            return Err(Refusal::Private.into());
        }
        let n = self.known(lease)?;
        self.put(keys::event(lease, n), &(time, text));
        if let Some(dropped) = n.checked_sub(limits::EVENTS_PER_LEASE as u64) {
            self.staged.insert(keys::event(lease, dropped), None);
        }
        self.change(lease, false, |lease| lease.events += 1)?;
        Ok(())
    }

    /// Checks that a lease is known; returns how many events it has had.
    fn known(&mut self, lease: &LeaseId) -> Result<u64, FoldError> {
        match self.lease(lease)? {
            Some(known) => Ok(known.events),
            None => Err(Refusal::UnknownLease(*lease).into()),
        }
    }
}
