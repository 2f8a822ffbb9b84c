//! The accounts of those who rent here: who is asked for a payment, warned, stopped, and started again.
//!
//! Owns what follows from an account for the machine's leases. How far an account may go is [`crate::machine::account`]'s.

use std::collections::BTreeMap;

use super::Host;
use crate::{
    Amount, LeaseId, Millis, NodeId, Timestamp,
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    machine::{
        account::{Key, Limit, clamp},
        context::Context,
        host_lease::HostLease,
        io::{Output, Refusal, Token},
    },
    message::Cause,
    money::{self, Counters, Currency, MONTH_MS, Rates},
    negotiation::{Reject, RejectCode},
    payment::{PayLevel, PayWhen, PaymentAsk, PaymentTerms},
    resources::Resources,
};

/// What is stopped for money and can't start yet, since its slots are taken, tries again so often.
const START_AGAIN: Millis = Millis::from_secs(30);
/// Ticks in a slice, at least.
const TICKS_OF_SLICE: u64 = 5;

/// What a peer's leases here come to.
#[derive(Debug, Default)]
struct Sum {
    leases: Vec<LeaseId>,
    /// When its leases are paid by their drafts: the strictest of them.
    when: Option<PayWhen>,
    /// Used and not signed for.
    unsigned: Amount,
    /// What all of them cost in an hour now, times [`SCALE`].
    rate: u128,
}

/// Hours of a month, times MB of a GB: what storage prices are divided by.
const SCALE: u128 = MONTH_MS / 3_600_000 * 1000;
const HOUR_MS: u128 = 3_600_000;

impl Sum {
    /// When so much more is due, rounded up.
    fn reaches(&self, more: i128, now: Timestamp) -> Option<Timestamp> {
        let more = u128::try_from(more.max(1)).ok()?;
        if self.rate == 0 {
            return None;
        }
        let ms = more.saturating_mul(SCALE * HOUR_MS).div_ceil(self.rate);
        Some(now + Millis(u64::try_from(ms).unwrap_or(u64::MAX).max(1)))
    }
}

/// The first slice of a lease: so much use at its price, and no more than the cap.
pub(super) fn first_slice(rates: &Rates, disk_mb: u64, of: Millis, most: Option<Amount>) -> Amount {
    let used = Counters { active: of, storage: of, ..Counters::default() };
    let slice = money::due(rates, disk_mb, &used, Amount::ZERO).unwrap_or(Amount(u64::MAX));
    most.map_or(slice, |most| slice.min(most))
}

impl Host {
    /// What the leases come to of each peer that is asked to pay for one of them, by currency.
    fn sums(&self, now: Timestamp) -> BTreeMap<Key, Sum> {
        let asked = self.leases.values().map(HostLease::draft).filter(|d| d.payment.is_some());
        let mut sums: BTreeMap<Key, Sum> = asked.map(|d| ((d.renter, d.currency.clone()), Sum::default())).collect();
        if sums.is_empty() {
            return sums;
        }
        for lease in self.leases.values() {
            let draft = lease.draft();
            let Some(sum) = sums.get_mut(&(draft.renter, draft.currency.clone())) else { continue };
            sum.leases.push(lease.id());
            sum.unsigned = sum.unsigned.saturating_add(lease.unsigned(now));
            sum.rate = sum.rate.saturating_add(lease.cost_rate(SCALE));
            sum.when = sum.when.max(draft.payment.as_ref().map(|p| p.when));
        }
        sums
    }

    /// How a peer's account is watched: more strictly than its drafts say never, less strictly if the owner has come to trust it.
    fn limit_of(cx: &Context, key: &Key, drafted: Option<PayWhen>) -> Option<Limit> {
        let lending = &cx.accounts.policy().lending;
        let when = drafted?.min(lending.when(&key.0, &key.1)?);
        let line = lending.line(&key.0, &key.1);
        Some(cx.accounts.get(&key.0, &key.1)?.limit(when, line))
    }

    /// What a peer owes now, by this machine's leases and all that came before; negative if it has paid ahead.
    pub(in super::super) fn owed_by(&self, cx: &Context, key: &Key, now: Timestamp) -> i128 {
        let of_peer = |l: &&HostLease| l.draft().renter == key.0 && l.draft().currency == key.1;
        let unsigned =
            self.leases.values().filter(of_peer).fold(Amount::ZERO, |sum, l| sum.saturating_add(l.unsigned(now)));
        cx.accounts.get(&key.0, &key.1).map_or_else(|| i128::from(unsigned.0), |account| account.owed(unsigned))
    }

    /// Looks at all accounts: asks, warns, stops, and lets run again what is paid.
    pub(super) fn watch_accounts(&mut self, cx: &mut Context, now: Timestamp) {
        let mut next: Option<Timestamp> = None;
        for (key, sum) in self.sums(now) {
            let Some(limit) = Self::limit_of(cx, &key, sum.when) else {
                self.unwatched(cx, &key, &sum, now);
                continue;
            };
            let owed = cx.accounts.get(&key.0, &key.1).map_or(0, |a| a.owed(sum.unsigned));
            let looked = self.watch(cx, &key, &sum, (limit, owed), now);
            next = [next, looked].into_iter().flatten().min();
        }
        let waits = self.run_again(cx, now).then(|| now + START_AGAIN);
        self.credit_at = [next, waits].into_iter().flatten().min();
        cx.note_accounts();
    }

    /// Nobody asks this peer for anything (any more).
    fn unwatched(&mut self, cx: &mut Context, key: &Key, sum: &Sum, now: Timestamp) {
        if cx.accounts.get(&key.0, &key.1).is_some_and(|a| a.note().stopped_at.is_some()) {
            cx.accounts.change(&key.0, &key.1, |account| account.resume());
        }
        for id in &sum.leases {
            if let Some(lease) = self.leases.get_mut(id) {
                lease.at_account(cx, None, Amount::ZERO, now);
            }
        }
    }

    /// One account. Returns when it is to be looked at again.
    fn watch(
        &mut self,
        cx: &mut Context,
        key: &Key,
        sum: &Sum,
        (mut limit, owed): (Limit, i128),
        now: Timestamp,
    ) -> Option<Timestamp> {
        let stopped_at = cx.accounts.get(&key.0, &key.1).and_then(|a| a.note().stopped_at);
        let level = match (limit.level(owed), stopped_at) {
            (level, Some(_)) if limit.runs_again(owed) => {
                cx.accounts.change(&key.0, &key.1, |account| account.resume());
                level.filter(|l| *l != PayLevel::Stopped)
            }
            (_, Some(_)) => Some(PayLevel::Stopped),
            (Some(PayLevel::Stopped), None) => {
                cx.accounts.change(&key.0, &key.1, |account| match limit.when {
                    PayWhen::After => account.stop(now),
                    PayWhen::Before => account.stop_used_up(now),
                });
                limit = Self::limit_of(cx, key, sum.when).unwrap_or(limit);
                Some(PayLevel::Stopped)
            }
            (level, None) => level,
        };
        let (told, received, stopped_at) = cx.accounts.change(&key.0, &key.1, |account| {
            (account.at_level(level), account.flows().received, account.note().stopped_at)
        });
        let pay = limit.to_pay(owed);
        let ask = level.map(|level| PaymentAsk {
            level,
            when: limit.when,
            owed: clamp(owed),
            ahead: clamp(-owed),
            slice: limit.unit,
            pay,
            received,
        });
        let gone_at = stopped_at.map(|at| at + cx.accounts.policy().lending.keep);
        for id in &sum.leases {
            let Some(lease) = self.leases.get_mut(id) else { continue };
            lease.at_account(cx, ask.filter(|_| lease.draft().payment.is_some()), clamp(-owed), now);
            if let Some(ask) = ask.filter(|_| told) {
                lease.tell_payment(cx, &ask, now);
            }
            // What was rented when nothing was asked for is not stopped for it.
            let paid = lease.draft().payment.is_some();
            if level == Some(PayLevel::Stopped) && paid {
                lease.stop_unpaid(cx, now);
            }
            if gone_at.is_some_and(|at| now >= at) && paid {
                let note = "what was owed stayed unpaid".to_owned();
                lease.end(cx, EndReason::Unpaid, Cause::Clock, note, now);
            }
            self.settle_slots(*id);
        }
        let rises = limit.next(owed).filter(|_| stopped_at.is_none()).and_then(|at| sum.reaches(at - owed, now));
        let gone = gone_at.filter(|at| *at > now && sum.leases.iter().any(|id| self.is_kept(id)));
        [rises, gone].into_iter().flatten().min()
    }

    /// Whether a lease is still to end if it stays unpaid.
    fn is_kept(&self, lease: &LeaseId) -> bool {
        let asked = |l: &HostLease| l.draft().payment.is_some() && !l.is_ending() && !l.state().is_ended();
        self.leases.get(lease).is_some_and(asked)
    }

    /// Starts again what was stopped for credit and has it now. Whether some of it still waits for slots.
    fn run_again(&mut self, cx: &mut Context, now: Timestamp) -> bool {
        let stopped =
            |l: &&HostLease| l.state() == LeaseState::Paused(PauseReason::NoCredit) && l.cannot_start(now).is_none();
        let ready: Vec<LeaseId> = self.leases.values().filter(stopped).map(HostLease::id).collect();
        let mut waits = false;
        for id in ready {
            let Some(lease) = self.leases.get(&id) else { continue };
            let (slots, firm) = (lease.draft().resources.slots, lease.draft().rental.is_firm());
            let volumes = self.volumes_missing(lease.draft().renter, lease.workload()).is_none();
            let busy = lease.is_stopping() || self.restarting.contains_key(&id) || self.relocking.contains(&id);
            let room = !firm || (self.firm_free() >= slots && self.maintained(now).is_none());
            if busy || !room || !volumes || !self.runtime_up || !self.ready {
                waits = true;
                continue;
            }
            if let Some(lease) = self.leases.get_mut(&id) {
                if firm {
                    lease.wait_for_slots(cx, Cause::Renter, now);
                } else {
                    lease.wait_outbid(cx, "there is credit again: it waits for its turn".to_owned(), now);
                }
            }
        }
        waits
    }

    /// The owner waives what the renter of a lease does not acknowledge.
    pub(in super::super) fn waive(&mut self, cx: &mut Context, token: Token, lease: LeaseId, now: Timestamp) {
        let waived = self.leases.get_mut(&lease).map(|held| held.waive(cx, now));
        let result = match waived {
            Some(true) => Ok(()),
            Some(false) => Err(Refusal::Malformed(
                "its renter acknowledges all that is claimed, or nothing that could be waived".to_owned(),
            )),
            None => Err(Refusal::NotHosted(lease)),
        };
        cx.out(Output::Done { token, result });
    }

    /// The owner lends again to a peer as if it had not refused to sign for what it used.
    pub(in super::super) fn forgive(
        &self,
        cx: &mut Context,
        token: Token,
        (peer, currency): (NodeId, Currency),
        now: Timestamp,
    ) {
        let refused = cx.accounts.get(&peer, &currency).map_or(Amount::ZERO, |a| a.note().refused);
        let result = if refused == Amount::ZERO {
            let why = format!("{peer} has refused nothing in {currency} that still counts; see `souk account`");
            Err(Refusal::Malformed(why))
        } else {
            cx.accounts.change(&peer, &currency, super::super::account::Account::forgive);
            cx.note_accounts();
            for lease in self.leases.values().filter(|l| l.draft().renter == peer) {
                cx.changed(lease.id(), now);
            }
            Ok(())
        };
        cx.out(Output::Done { token, result });
    }

    /// How a lease of these prices would be paid by this renter.
    ///
    /// # Errors
    /// Why nothing is rented to it now: it owes too much.
    pub(super) fn payment_terms(
        &self,
        cx: &Context,
        renter: NodeId,
        currency: &Currency,
        (rates, resources): (&Rates, &Resources),
        now: Timestamp,
    ) -> Result<Option<PaymentTerms>, Reject> {
        let lending = &cx.accounts.policy().lending;
        let key = (renter, currency.clone());
        let Some(mut when) = lending.when(&renter, currency) else { return Ok(None) };
        let base = first_slice(rates, resources.disk_mb, lending.slice, lending.slice_most);
        let account = cx.accounts.get(&renter, currency).map(|a| a.limit(when, lending.line(&renter, currency)));
        let line = lending.line(&renter, currency).filter(|_| when == PayWhen::After);
        let unit = account.map_or(Amount::ZERO, |l| l.unit).max(base).max(line.unwrap_or_default());
        let owed = self.owed_by(cx, &key, now);
        if owed > i128::from(unit.0) || (owed > 0 && when == PayWhen::Before) {
            let refused = cx.accounts.get(&renter, currency).map_or(Amount::ZERO, |a| a.note().refused);
            let of_it = if refused > Amount::ZERO {
                format!(" ({refused} of what you used is not acknowledged)")
            } else {
                String::new()
            };
            let sentence = format!(
                "you owe this host {} {currency} for what you rented before{of_it}; pay that first: souk pay {}",
                clamp(owed),
                cx.me()
            );
            return Err(Reject::passing(RejectCode::Unpaid, sentence));
        }
        // What strangers leave unpaid comes from one pot; when it is empty, they pay first.
        if when == PayWhen::After && !self.pot_covers(cx, &key, resources.slots, now) {
            when = PayWhen::Before;
        }
        let first = match when {
            PayWhen::Before => clamp(i128::from(unit.0) + owed),
            PayWhen::After => Amount::ZERO,
        };
        if unit == Amount::ZERO {
            return Ok(None);
        }
        Ok(Some(PaymentTerms { when, methods: lending.methods.clone(), slice: unit, first }))
    }

    /// Slots times milliseconds that a slice may be unpaid.
    fn draws(cx: &Context, slots: u16) -> u64 {
        cx.accounts.policy().lending.slice.0.saturating_mul(5).saturating_mul(u64::from(slots)) / 4
    }

    fn pot_covers(&self, cx: &Context, key: &Key, slots: u16, now: Timestamp) -> bool {
        let stranger = cx.accounts.policy().lending.is_stranger(&key.0, &key.1)
            && cx.accounts.get(&key.0, &key.1).is_none_or(|a| a.is_unproven());
        !stranger || cx.accounts.has_in_pot(&key.0, &key.1, Self::draws(cx, slots), now)
    }

    /// Whether the strangers' pot still has what this lease would take, and if so takes it. Its first slice counts from now on.
    pub(super) fn lend(&self, cx: &mut Context, draft: &LeaseDraft, now: Timestamp) -> bool {
        let Some(payment) = &draft.payment else { return true };
        let key = (draft.renter, draft.currency.clone());
        if payment.when == PayWhen::After {
            if !self.pot_covers(cx, &key, draft.resources.slots, now) {
                return false;
            }
            let stranger = cx.accounts.policy().lending.is_stranger(&key.0, &key.1)
                && cx.accounts.get(&key.0, &key.1).is_none_or(|a| a.is_unproven());
            if stranger {
                cx.accounts.draw(&key.0, &key.1, Self::draws(cx, draft.resources.slots), now);
            }
        }
        let lending = &cx.accounts.policy().lending;
        let base = first_slice(&draft.dearest(), draft.resources.disk_mb, lending.slice, lending.slice_most);
        cx.accounts.change(&key.0, &key.1, |account| account.note.lent.raise(base));
        true
    }

    /// The longest tick of a lease with such a slice, so that a slice has five of them.
    pub(super) fn tick_of(rates: &Rates, disk_mb: u64, slice: Amount) -> Millis {
        let lasts =
            money::time_until(rates, disk_mb, &Counters::default(), true, true, slice).unwrap_or(limits::TICK.1);
        Millis((lasts.0 / TICKS_OF_SLICE).clamp(limits::TICK.0.0, limits::TICK.1.0))
    }
}
