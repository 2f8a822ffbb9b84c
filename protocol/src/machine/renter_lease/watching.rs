//! What our own meter saw of the host over a whole lease, and the one `probe` that says so in our chain when it ends.
//!
//! Nothing rests on it but our own view of the host: it is signed before our agreement to the close, so whoever sees that sees a
//! chain with the probe in it, and a start between the two finds it there.

use super::RenterLease;
use crate::{
    Millis, Timestamp, Verified,
    entry::{Body, Entry},
    machine::{
        context::Context,
        record::{Private, Record},
    },
    opinion::{Observation, Watched},
};

/// So much more must have been watched before it is written down again: what a crash forgets at most.
const NOTED_EVERY: Millis = Millis::from_mins(10);

/// What was seen, across our starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Watching {
    /// When this meter first looked.
    from: Option<Timestamp>,
    /// By meters before this one, as it was last written down.
    before: Option<Watched>,
    /// How much was watched when that was last written down.
    noted: Millis,
    /// Our chain says it.
    said: bool,
}

impl Watching {
    pub(super) fn restored(before: Option<Watched>, said: bool) -> Self {
        Self { before, said, noted: before.map_or(Millis(0), |seen| seen.watched), from: None }
    }
}

impl RenterLease {
    /// What was seen in all; none where nothing was.
    fn watched(&self) -> Option<Watched> {
        let Watching { from, before, .. } = self.watching;
        let (watched, answered) = self.heartbeat.watched();
        let from = before.map(|seen| seen.from).into_iter().chain(from).min()?;
        let known = before.unwrap_or(Watched { from, watched: Millis(0), answered: Millis(0) });
        let seen = Watched {
            from,
            watched: Millis(known.watched.0.saturating_add(watched.0)),
            answered: Millis(known.answered.0.saturating_add(answered.0)),
        };
        (seen.watched.0 > 0).then_some(seen)
    }

    /// After a look: written down now and then, so that a crash forgets little.
    pub(super) fn note_watched(&mut self, cx: &mut Context, now: Timestamp) {
        if self.watching.from.is_none() && self.heartbeat.watched().0.0 > 0 {
            self.watching.from = Some(Timestamp(now.0.saturating_sub(self.heartbeat.watched().0.0)));
        }
        let Some(seen) = self.watched().filter(|_| !self.watching.said) else { return };
        if seen.watched.0.saturating_sub(self.watching.noted.0) >= NOTED_EVERY.0 {
            self.watching.noted = seen.watched;
            cx.persist(Record::Private(Private::Watched { lease: self.id(), seen }));
        }
    }

    /// At the end: what was seen, once, in our chain. Nothing of what never ran, and nothing where nothing was seen.
    pub(super) fn sign_watched(&mut self, cx: &mut Context, now: Timestamp) -> Option<Verified<Entry>> {
        let started = !self.draft.is_volume() && self.placement.is_some();
        if self.watching.said || !started || self.close.is_none() {
            return None;
        }
        let seen = self.watched()?.until(now)?;
        let body = Body::Probe(Observation::Rental(seen));
        let (entry, ticket) = cx.append(self.id(), self.host(), body, now)?;
        self.watching.said = true;
        self.durable = Some(ticket);
        Some(entry)
    }
}
