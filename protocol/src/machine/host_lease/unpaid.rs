//! What a hosted lease does about money that is not its own: the account of its renter, which all leases of the two share.

use super::HostLease;
use crate::{
    Amount, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{LeaseState, PauseReason},
    machine::{context::Context, record::Record},
    message::{Cause, EventCode},
    opinion::{Dispute, DisputeCode},
    payment::{PayLevel, PayWhen, PaymentAsk},
};

impl HostLease {
    /// What was used and is not signed for, as long as that is open: what is agreed on, or refused, is the account's.
    #[must_use]
    pub fn unsigned(&self, now: Timestamp) -> Amount {
        if self.closed {
            return Amount::ZERO;
        }
        // Its renter has closed it: what it did not admit counts as refused since then.
        let admitted = self.renter_close.as_ref().and_then(|close| close.body.closing()).map(|(.., due)| due);
        admitted.unwrap_or_else(|| self.count(now).1).saturating_sub(self.acked())
    }

    /// So much was used that its renter does not sign for, for good.
    pub(super) fn refused(&mut self, cx: &mut Context, more: Amount) {
        if more > Amount::ZERO {
            cx.accounts.change(&self.draft.renter, &self.draft.currency, |account| account.has_refused(more));
            // What follows from it leaves after it is written down.
            cx.note_accounts();
            self.durable = cx.newest_ticket();
        }
    }

    /// Its renter closes it and admits so much of what was used, which is agreed to once the instance is gone.
    pub(super) fn take_renters_close(&mut self, cx: &mut Context, close: &Verified<Entry>, now: Timestamp) {
        let admitted = close.body.closing().map_or(Amount::ZERO, |(.., due)| due);
        let used = self.count(now).1;
        self.durable = Some(cx.persist(Record::from(close)));
        self.renter_close = Some(close.clone());
        self.refused(cx, used.saturating_sub(admitted.max(self.acked())));
    }

    /// What an hour of its present state costs, times `scale`: the hours of a month times the MB of a GB.
    pub(in super::super) fn cost_rate(&self, scale: u128) -> u128 {
        if self.ending.is_some() || self.state.is_ended() {
            return 0;
        }
        let compute = if self.state == LeaseState::Running { u128::from(self.terms.compute_hour.0) } else { 0 };
        let disk = if self.meter.has_disk() { u128::from(self.draft.resources.disk_mb) } else { 0 };
        compute * scale + disk * u128::from(self.draft.rates.storage_gb_month.0)
    }

    /// What its renter is asked for now.
    #[must_use]
    pub const fn payment(&self) -> Option<PaymentAsk> {
        self.payment
    }

    /// Whether it stands still until its renter has paid.
    pub(super) fn is_unpaid(&self) -> bool {
        self.payment.is_some_and(|ask| ask.level == PayLevel::Stopped)
    }

    /// How its renter's account stands now. It is told when the level has changed, or a payment has arrived.
    pub(in super::super) fn at_account(
        &mut self,
        cx: &mut Context,
        ask: Option<PaymentAsk>,
        ahead: Amount,
        now: Timestamp,
    ) {
        self.ahead = ahead;
        let gist = |ask: Option<PaymentAsk>| ask.map(|a| (a.level, a.when, a.slice, a.received));
        if gist(self.payment) != gist(ask) {
            self.payment = ask;
            self.tell(now);
            cx.changed(self.id(), now);
        }
    }

    /// The level has risen: an event, but for the stop, which is one itself.
    pub(in super::super) fn tell_payment(&mut self, cx: &mut Context, ask: &PaymentAsk, now: Timestamp) {
        if self.ending.is_some() || self.state.is_ended() {
            return;
        }
        let currency = &self.draft.currency;
        let stands = match ask.when {
            PayWhen::After => format!("{} {currency} are owed of the {} that may be", ask.owed, ask.slice),
            PayWhen::Before => format!("{} {currency} are left of what was paid ahead", ask.ahead),
        };
        let note = format!("{stands}: pay {} {currency}", ask.pay);
        match ask.level {
            PayLevel::Asked => self.log_code(cx, EventCode::PaymentAsked, Cause::Clock, note, now),
            PayLevel::Warned => self.log_code(cx, EventCode::PaymentWarned, Cause::Clock, note, now),
            PayLevel::Stopped => {}
        }
    }

    /// What is owed is too much: compute stops, and waits for nothing but a payment. The disk is kept.
    pub(in super::super) fn stop_unpaid(&mut self, cx: &mut Context, now: Timestamp) {
        let waits = matches!(self.state, LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance));
        if self.ending.is_some() || self.draft.is_volume() || !(self.needs_slots() || waits) {
            return;
        }
        let Some(ask) = self.payment else { return };
        let currency = self.draft.currency.clone();
        let note = match ask.when {
            PayWhen::After => format!("{} {currency} are owed: it runs on when that is paid", ask.owed),
            PayWhen::Before => {
                format!("what was paid ahead is used up: it runs on when {} {currency} are paid", ask.pay)
            }
        };
        if waits {
            self.enter(cx, LeaseState::Paused(PauseReason::NoCredit), Cause::Clock, None, note, now);
        } else {
            self.pause_with(cx, PauseReason::NoCredit, Cause::Clock, note, now);
        }
        if ask.owed > Amount::ZERO {
            self.complain(cx, DisputeCode::Unpaid, "what is owed was not paid when it was asked for", now);
        }
    }

    /// Keeps a complaint in our chain, once for each thing complained of.
    pub(super) fn complain(&mut self, cx: &mut Context, code: DisputeCode, sentence: &str, now: Timestamp) {
        if !self.complained.insert(code) {
            return;
        }
        let about = self.usage.as_ref().map_or_else(|| self.draft.id(), |u| u.id());
        let body = Body::Dispute(Dispute { about, code, sentence: sentence.to_owned() });
        if let Some((_, ticket)) = cx.append(self.id(), self.draft.renter, body, now) {
            self.durable = Some(ticket);
        }
    }
}
