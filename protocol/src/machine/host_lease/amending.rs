//! Changes of a hosted lease's terms: those the renter asks for, those the host may make alone, and those the host asks for.

use super::{
    super::{context::Context, record::Record},
    HostLease,
};
use crate::{
    Amount, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{LeaseState, PauseReason},
    limits,
    message::{Cause, EventCode, Extension},
    negotiation::{Reject, RejectCode, RentalType},
    terms::{Amended, Change, LeaseTerms},
};

const MINUTE: Millis = Millis::from_mins(1);
/// What a lease grows by at least, where its renter lets the host extend it.
const EXTEND_BY: Millis = Millis::from_mins(10);
/// Amendments told again until the renter shows to know them.
pub(super) const AMENDED: usize = limits::UPDATE_ENTRIES / 2;

impl HostLease {
    /// The terms in force.
    #[must_use]
    pub const fn terms(&self) -> &LeaseTerms {
        &self.terms
    }

    /// The longer contract we have asked the renter for.
    #[must_use]
    pub const fn asked(&self) -> Option<Extension> {
        self.asked
    }

    /// Our answer to this very `amend`, if we gave it.
    pub(in super::super) fn answer_to(&self, amend: &Verified<Entry>) -> Option<&Verified<Entry>> {
        let of = |e: &&Verified<Entry>| e.body.amended().is_some_and(|a| a.amend == Some(amend.id()));
        self.amended.iter().find(of)
    }

    /// Whether this `amend`, or a later one of the renter's, was refused: its answer stays the same.
    pub(in super::super) fn was_refused(&self, amend: &Verified<Entry>) -> bool {
        self.refused_to.is_some_and(|seq| amend.seq <= seq)
    }

    /// This `amend` is refused.
    pub(in super::super) fn refuse(&mut self, amend: &Verified<Entry>) {
        self.refused_to = self.refused_to.max(Some(amend.seq));
    }

    /// Whether the renter asks for changes too often.
    pub(in super::super) fn amends_too_often(&mut self, now: Timestamp) -> bool {
        if now.since(self.amends.0) > MINUTE {
            self.amends = (now, 0);
        }
        self.amends.1 = self.amends.1.saturating_add(1);
        self.amends.1 > limits::AMENDS_PER_MINUTE
    }

    /// Puts the renter's change in force. The host's policy has agreed to it.
    pub(in super::super) fn amend(
        &mut self,
        cx: &mut Context,
        amend: &Verified<Entry>,
        now: Timestamp,
    ) -> Result<(), Reject> {
        let malformed = || Reject::lasting(RejectCode::Malformed, "the entry is no change of this lease");
        let (n, change, valid_until) = amend.body.amend().ok_or_else(malformed)?;
        if self.ending.is_some() || self.state.is_ended() {
            return Err(Reject::lasting(RejectCode::Terms, "the lease is over"));
        }
        if n != self.terms.n.saturating_add(1) {
            return Err(Reject::passing(RejectCode::Stale, "its terms have changed in the meantime; look again"));
        }
        // Dated as the entry will be: others recompute the terms from it, and the renter's date is anybody's.
        let at = cx.chain.next_time(now);
        if at > valid_until || valid_until > now + limits::AMEND_WITHIN + limits::CLOCK_SKEW {
            return Err(Reject::passing(RejectCode::Stale, "the change came too late, or the two clocks differ"));
        }
        // Its number shows that the renter knows all before it.
        let known = self.amended.len().saturating_sub(1);
        self.amended.drain(..known);
        // Whatever the renter changes closes a segment, and counts what ran so far.
        let mut meter = self.meter.clone();
        meter.price_changes(now);
        let counters = *meter.counters();
        let terms = self
            .terms
            .changed(&self.draft, &change, &counters, at)
            .map_err(|why| Reject::lasting(RejectCode::Terms, why.to_string()))?;
        cx.persist(Record::from(amend));
        self.meter = meter;
        let amended = Amended { amend: Some(amend.id()), terms };
        let busy = || Reject::passing(RejectCode::Unavailable, "the host can't sign right now");
        self.put_in_force(cx, amended, at).then_some(()).ok_or_else(busy)?;
        if matches!(change, Change::Extend { .. }) {
            self.asked = None;
            self.expiry_told = false;
        }
        let note = self.describe(&change);
        let bid = matches!(change, Change::Bid { .. });
        let what = if bid { EventCode::Repriced } else { EventCode::Amended };
        self.log_code(cx, what, Cause::Renter, note, now);
        self.issue_usage(cx, now);
        Ok(())
    }

    fn put_in_force(&mut self, cx: &mut Context, amended: Amended, at: Timestamp) -> bool {
        let terms = amended.terms;
        let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, Body::Amended(amended), at) else {
            return false;
        };
        self.durable = Some(ticket);
        self.terms = terms;
        self.meter.compute_until(terms.ends_at);
        self.amended.push(entry);
        true
    }

    fn describe(&self, change: &Change) -> String {
        let currency = &self.draft.currency;
        match change {
            Change::Bid { compute_hour } => format!("the bid is {compute_hour} {currency}/h now"),
            Change::Extend { compute_hour: Some(price), .. } => {
                format!("extended, at {price} {currency}/h from the former end on")
            }
            Change::Extend { .. } => "extended at the same price".to_owned(),
            Change::Ceiling { max_spend: Some(most) } => format!("it may cost {most} {currency} at most now"),
            Change::Ceiling { max_spend: None } => "it has no spending limit now".to_owned(),
            Change::AutoExtend { until: Some(_) } => "the host may extend it by itself".to_owned(),
            Change::AutoExtend { until: None } => "the host may not extend it by itself any more".to_owned(),
        }
    }

    /// The agreed price holds from now on, if its time has come.
    pub(super) fn reprice(&mut self, cx: &mut Context, now: Timestamp) {
        if self.reprice_due().is_none_or(|at| now < at) || self.ending.is_some() {
            return;
        }
        self.meter.price_changes(now);
        self.reprice_again_at = now + MINUTE;
        if let Ok(Some(terms)) = self.terms.repriced(&self.draft, self.meter.counters(), now)
            && self.put_in_force(cx, Amended { amend: None, terms }, now)
        {
            let note = format!("the agreed price of {} {}/h holds now", terms.compute_hour, self.draft.currency);
            self.log_code(cx, EventCode::Repriced, Cause::Clock, note, now);
            self.issue_usage(cx, now);
        }
    }

    /// When the agreed price begins to hold; later where that could not be signed.
    pub(super) fn reprice_due(&self) -> Option<Timestamp> {
        self.terms.next.filter(|_| !self.untold()).map(|next| next.from.max(self.reprice_again_at))
    }

    /// To when the host may extend the lease by itself now, since the renter allows it and the end is near.
    pub(in super::super) fn wants_extension(&self, now: Timestamp) -> Option<Timestamp> {
        self.extension_due().filter(|at| now >= *at && now < self.terms.ends_at).and_then(|_| self.extended_end())
    }

    /// When it will want that.
    pub(super) fn extension_due(&self) -> Option<Timestamp> {
        let open = self.ending.is_none() && !self.state.is_ended() && self.extended_end().is_some();
        let expired = self.state == LeaseState::Paused(PauseReason::Expired) || self.untold();
        let before = Millis(limits::EXTEND_BEFORE.0.min(self.first_term().0 / 4));
        let at = Timestamp(self.terms.ends_at.0.saturating_sub(before.0));
        let at = at.max(self.extend_again_at);
        // A contract that is over is not extended any more, nor one whose renter knows nothing of the last extensions.
        (open && !expired && at < self.terms.ends_at).then_some(at)
    }

    /// Whether the renter lacks as many amendments as an update can tell.
    fn untold(&self) -> bool {
        self.amended.len() >= limits::UPDATE_ENTRIES / 2
    }

    /// A lease grows by the term it began with.
    fn first_term(&self) -> Millis {
        self.draft.ends_at.since(self.draft.drafted_at)
    }

    fn extended_end(&self) -> Option<Timestamp> {
        let until = self.terms.extend_until?;
        // Not by seconds, each a signed entry.
        let by = self.first_term().max(EXTEND_BY);
        (until > self.terms.ends_at).then(|| (self.terms.ends_at + by).min(until))
    }

    /// Extends it, as the renter allowed, at this price or the present one if that is lower.
    pub(in super::super) fn extend_alone(
        &mut self,
        cx: &mut Context,
        ends_at: Timestamp,
        compute_hour: Amount,
        now: Timestamp,
    ) {
        self.extend_again_at = now + MINUTE;
        // A renter that has not heard of so many changes could not follow if the first of them were dropped.
        if self.amended.len() + 1 >= AMENDED {
            return;
        }
        self.meter.advance(now);
        let price = if self.draft.rental == RentalType::Interruptible || self.terms.next.is_some() {
            self.terms.compute_hour
        } else {
            compute_hour.min(self.terms.compute_hour)
        };
        let Ok(terms) = self.terms.extended(&self.draft, ends_at, price, self.meter.counters()) else {
            return;
        };
        if self.put_in_force(cx, Amended { amend: None, terms }, now) {
            self.extend_again_at = now;
            self.expiry_told = false;
            let note = "extended, as the renter allowed".to_owned();
            self.log_code(cx, EventCode::Amended, Cause::Host, note, now);
            self.issue_usage(cx, now);
        }
    }

    /// The host would not extend it now as the renter allows: asked again later.
    pub(in super::super) fn not_extended(&mut self, now: Timestamp) {
        self.extend_again_at = now + MINUTE;
    }

    /// Asks the renter for a longer contract, as the owner wants it, declined before or not.
    pub(in super::super) fn ask_extension_anew(&mut self, cx: &mut Context, extension: Extension, now: Timestamp) {
        self.declined = None;
        self.ask_extension(cx, extension, now);
    }

    /// Asks the renter for a longer contract.
    pub(in super::super) fn ask_extension(&mut self, cx: &mut Context, extension: Extension, now: Timestamp) {
        if self
            .asked
            .is_some_and(|asked| (asked.ends_at, asked.compute_hour) == (extension.ends_at, extension.compute_hour))
        {
            return;
        }
        // Who has declined is asked again only for less, or for another end.
        if self.declined.is_some_and(|d| d.ends_at == extension.ends_at && d.compute_hour <= extension.compute_hour) {
            return;
        }
        self.asked = Some(extension);
        let note = format!(
            "the host offers a later end at {} {}/h from the present end on: accept it with `souk extend`, or decline",
            extension.compute_hour, self.draft.currency
        );
        self.log_code(cx, EventCode::ExtensionAsked, Cause::Host, note, now);
    }

    /// The renter does not want it.
    pub(in super::super) fn decline_extension(&mut self, cx: &mut Context, by: Cause, now: Timestamp) {
        if let Some(asked) = self.asked.take() {
            self.declined = (by == Cause::Renter).then_some(asked);
            self.log_code(cx, EventCode::ExtensionDeclined, by, String::new(), now);
        }
    }
}
