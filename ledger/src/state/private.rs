//! The node's own memory: workloads, states, events, labels, and rows that mean something to the caller only.

use souk_protocol::{LeaseId, limits, message::LeaseEvent};

use super::{Applied, FoldError, Refusal, State};
use crate::{
    chain::Head,
    journal::Position,
    keys,
    record::{PRIVATE_KEY_BYTES, Private},
};

/// Bytes of an event's note: a host's sentence may be longer than ours.
const NOTE_BYTES: usize = 2 * limits::SENTENCE_BYTES;
/// Events kept of a lease.
const KEPT: u32 = limits::EVENTS_PER_LEASE as u32;

impl State {
    pub(super) fn private(&mut self, at: Position, private: &Private) -> Result<Applied, FoldError> {
        match private {
            Private::Workload { lease, sealed } => {
                self.staged.insert(keys::workload(lease), Some(sealed.clone()));
            }
            Private::State { lease, time, state } => {
                self.known(lease)?;
                self.change(lease, false, |lease| lease.state = Some((*state, *time)))?;
            }
            Private::Event { lease, event } => return self.event(at, lease, event),
            Private::Label { lease, text } => return self.label(lease, text),
            Private::Row { key, value } => {
                if key.is_empty() || key.len() > PRIVATE_KEY_BYTES {
                    return Err(Refusal::Private.into());
                }
                let value = value.as_ref().map(|v| v.to_vec());
                self.staged.insert(keys::private(key), value);
            }
            Private::Resume { seq, id, time } => {
                let own = self.own;
                let (seq, id, held) = (*seq, *id, self.head(&own)?);
                if held.is_none_or(|head| head.seq < seq) {
                    let time = held.map_or(*time, |head| head.time.max(*time));
                    self.put(keys::head(&own), &Head { seq, id, time });
                }
                self.staged.insert(keys::RESTORED.to_vec(), Some(Vec::new()));
            }
            Private::ForkGone { author } => {
                let key = keys::proof(author);
                if self.bytes(&key)?.is_none() {
                    return Ok(Applied::Known);
                }
                let count: u64 = self.row(keys::PROOF_COUNT, "count")?.unwrap_or(0);
                self.staged.insert(key, None);
                self.put(keys::PROOF_COUNT.to_vec(), &count.saturating_sub(1));
            }
        }
        Ok(Applied::New)
    }

    /// Keeps an event, drops those that are too many, and indexes it by its record: the order in which this node heard of
    /// things, which no peer's clock can change.
    fn event(&mut self, at: Position, lease: &LeaseId, event: &LeaseEvent) -> Result<Applied, FoldError> {
        if event.note.len() > NOTE_BYTES || event.n == 0 {
            return Err(Refusal::Private.into());
        }
        let newest = self.known(lease)?;
        let row = keys::event(lease, event.n);
        if event.n <= newest.saturating_sub(KEPT) || self.bytes(&row)?.is_some() {
            return Ok(Applied::Known);
        }
        self.put(row, &(at.index, event));
        self.put(keys::recorded(at.index), &(lease, event.n));
        let dropped = newest.saturating_sub(KEPT)..=event.n.saturating_sub(KEPT).min(newest);
        for n in dropped.filter(|n| *n > 0) {
            let row = keys::event(lease, n);
            if let Some((index, _)) = self.row::<(u64, LeaseEvent)>(&row, "event")? {
                self.staged.insert(row, None);
                self.staged.insert(keys::recorded(index), None);
            }
        }
        self.change(lease, false, |lease| lease.events = newest.max(event.n))?;
        Ok(Applied::New)
    }

    fn label(&mut self, lease: &LeaseId, text: &str) -> Result<Applied, FoldError> {
        if text.len() > limits::NAME_BYTES || text.chars().any(char::is_control) {
            return Err(Refusal::Private.into());
        }
        let Some(known) = self.lease(lease)? else {
            return Err(Refusal::UnknownLease(*lease).into());
        };
        let (old, opened) = (known.label.clone(), known.opened_at());
        let new = Some(text.to_owned()).filter(|t| !t.is_empty());
        if old == new {
            return Ok(Applied::Known);
        }
        let row = |label: &str| keys::indexed(&keys::by_label(label), opened, lease);
        if let Some(old) = old {
            self.staged.insert(row(&old), None);
        }
        if let Some(new) = &new {
            self.staged.insert(row(new), Some(Vec::new()));
        }
        self.change(lease, false, |lease| lease.label = new)?;
        Ok(Applied::New)
    }

    /// Checks that a lease is known; returns the number of its newest event.
    fn known(&mut self, lease: &LeaseId) -> Result<u32, FoldError> {
        match self.lease(lease)? {
            Some(known) => Ok(known.events),
            None => Err(Refusal::UnknownLease(*lease).into()),
        }
    }
}
