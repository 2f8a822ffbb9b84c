//! What a renter pays, and when: the first payment with an open, and what its hosts ask for, by this node's own count.
//!
//! Owns the decision that something is to be paid, and how much. Paying is the shell's; what was paid is in our chain.

use std::collections::BTreeMap;

use super::{Renter, failed};
use crate::{
    Amount, LeaseId, Millis, NodeId, Timestamp, Verified,
    lease::LeaseDraft,
    limits,
    machine::{
        account::{Key, clamp},
        context::Context,
        io::{DuePayment, DueReason, MadePayment, Output, Refusal, Token},
        renter_lease::Opened,
    },
    message::LeaseUpdate,
    money::{self, Counters},
    payment::{PayLevel, PayWhen, PaymentAsk},
};

/// What could not be paid is asked for again after this, and then at growing intervals.
const RETRY: (Millis, Millis) = (Millis::from_mins(1), Millis::from_hours(1));
/// A payment that was asked for and of which nothing is heard is asked for again after this.
const PAYING_WITHIN: Millis = Millis::from_mins(5);
/// How long before the last moment to commit a first payment must be made: the host looks for it after.
const BEFORE_COMMIT: Millis = Millis::from_secs(5);

/// A draft whose first payment is being made.
#[derive(Debug)]
pub(super) struct FirstPayment {
    pub(super) draft: Verified<LeaseDraft>,
    least: Amount,
    pub(super) until: Timestamp,
}

/// What a host asks for.
#[derive(Debug)]
struct Asked {
    lease: LeaseId,
    methods: Vec<String>,
    ask: Option<PaymentAsk>,
    /// What was told to the shell, and has not been paid.
    told: Option<Option<PayLevel>>,
    again_at: Timestamp,
    retry: Millis,
}

/// What all hosts ask for, by account.
#[derive(Debug, Default)]
pub(super) struct Asking(BTreeMap<Key, Asked>);

/// Five minutes of a lease: what is paid ahead to a host that nothing is known of.
fn first_slice(draft: &LeaseDraft) -> Amount {
    let of = limits::FIRST_SLICE;
    let used = Counters { active: of, storage: of, ..Counters::default() };
    money::due(&draft.dearest(), draft.resources.disk_mb, &used, Amount::ZERO).unwrap_or(Amount::ZERO)
}

/// A lease that is paid before use is opened with this host: it is paid its first slice ahead, and more as what was paid is delivered.
pub(super) fn pays_ahead(cx: &mut Context, draft: &LeaseDraft) {
    if draft.payment.as_ref().is_some_and(|payment| payment.when == PayWhen::Before) {
        let base = first_slice(draft);
        cx.accounts.change(&draft.host, &draft.currency, |account| account.note.ahead.raise(base));
    }
}

fn key(draft: &LeaseDraft) -> Key {
    (draft.host, draft.currency.clone())
}

impl Renter {
    /// What is to be paid before this draft is opened, if anything is. What other leases with the host have used since it was last
    /// signed for is not ahead any more: its host has counted it, and wants that much more.
    ///
    /// # Errors
    /// Why it is not opened: the host wants more than this node pays ahead.
    pub(super) fn first_payment(
        &self,
        cx: &Context,
        draft: &Verified<LeaseDraft>,
        prepay: Option<Millis>,
        now: Timestamp,
    ) -> Result<Option<(FirstPayment, DuePayment)>, Refusal> {
        let Some(payment) = &draft.payment else { return Ok(None) };
        let with_it = self.leases.values().filter(|l| key(l.draft()) == key(draft));
        let uncounted = with_it.fold(Amount::ZERO, |sum, lease| sum.saturating_add(lease.uncounted(now)));
        let ahead = cx.accounts.get(&draft.host, &draft.currency).map_or(0, |a| -a.owing()) - i128::from(uncounted.0);
        let prepaid = prepay.map(|of| {
            let used = Counters { active: of, storage: of, ..Counters::default() };
            money::due(&draft.rates, draft.resources.disk_mb, &used, Amount::ZERO).unwrap_or(Amount(u64::MAX))
        });
        if let Some(most) = cx.accounts.ahead_said(&draft.currency).map(|most| most.max(prepaid.unwrap_or_default()))
            && payment.when == PayWhen::Before
            && most < payment.slice
        {
            // Also where enough is paid ahead already: what is used of it would never be paid again.
            let (slice, currency) = (payment.slice, draft.currency.clone());
            return Err(Refusal::PaysTooLittleAhead { slice, most, currency });
        }
        let most = cx.accounts.ahead_most(&draft.host, &draft.currency, first_slice(draft));
        let most = prepaid.map_or(most, |prepaid| most.max(prepaid));
        let wanted = payment.first.max(prepaid.map_or(Amount::ZERO, |prepaid| clamp(i128::from(prepaid.0) - ahead)));
        if wanted == Amount::ZERO {
            return Ok(None);
        }
        if ahead + i128::from(payment.first.0) > i128::from(most.0) {
            return Err(Refusal::Payment(format!(
                "the host wants {} {} ahead, and this node pays at most {most} ahead to it; `--prepay` allows more",
                payment.first, draft.currency
            )));
        }
        let amount = wanted.min(clamp(i128::from(most.0) - ahead));
        let until = Timestamp(draft.commit_by.0.saturating_sub(BEFORE_COMMIT.0));
        let due = DuePayment {
            peer: draft.host,
            currency: draft.currency.clone(),
            amount,
            methods: payment.methods.clone(),
            lease: draft.id().into(),
            why: DueReason::First,
            until: Some(until),
        };
        let until = until.max(now + BEFORE_COMMIT);
        Ok(Some((FirstPayment { draft: draft.clone(), least: payment.first, until }, due)))
    }

    /// A payment was made: opens that wait for it go out.
    pub(in super::super) fn paid(&mut self, cx: &mut Context, payment: &MadePayment, now: Timestamp) {
        if let Some(asked) = self.asking.0.get_mut(&(payment.peer, payment.currency.clone())) {
            asked.told = None;
            asked.retry = RETRY.0;
        }
        let waits = |first: &FirstPayment| {
            let to = (first.draft.host, &first.draft.currency) == (payment.peer, &payment.currency);
            to && payment.amount >= first.least
        };
        let waiting = self.negotiations.iter().find(|(_, n)| n.paying.as_ref().is_some_and(waits));
        let Some(token) = waiting.map(|(token, _)| *token) else { return };
        let Some(first) = self.negotiations.get_mut(&token).and_then(|n| n.paying.take()) else { return };
        if let Err(why) = self.open(cx, token, &first.draft, now) {
            self.negotiations.remove(&token);
            failed(cx, token, why);
        }
    }

    /// What was to be paid can't be.
    pub(in super::super) fn cannot_pay(&mut self, cx: &mut Context, to: &Key, why: &str, now: Timestamp) {
        if let Some(asked) = self.asking.0.get_mut(to) {
            asked.again_at = now + asked.retry;
            asked.retry = Millis((asked.retry.0 * 2).min(RETRY.1.0));
        }
        let waits = |n: &super::Negotiation| n.paying.as_ref().is_some_and(|first| key(&first.draft) == *to);
        let waiting: Vec<Token> = self.negotiations.iter().filter(|(_, n)| waits(n)).map(|(token, _)| *token).collect();
        for token in waiting {
            self.negotiations.remove(&token);
            failed(cx, token, Refusal::Payment(why.to_owned()));
        }
    }

    /// First payments that were not made in time.
    pub(super) fn give_up_first_payments(&mut self, cx: &mut Context, now: Timestamp) {
        let late = |n: &super::Negotiation| n.paying.as_ref().is_some_and(|first| first.until <= now);
        let late: Vec<Token> = self.negotiations.iter().filter(|(_, n)| late(n)).map(|(token, _)| *token).collect();
        for token in late {
            self.negotiations.remove(&token);
            let why = "it was not made in time; what is paid later is kept by the host as paid ahead".to_owned();
            failed(cx, token, Refusal::Payment(why));
        }
    }

    /// A host's news: what it asks for, and of which lease.
    pub(super) fn take_payment_ask(&mut self, from: NodeId, update: &LeaseUpdate, now: Timestamp) {
        let Some(draft) = self.leases.get(&update.lease).map(super::RenterLease::draft) else { return };
        let Some(payment) = draft.payment.as_ref().filter(|_| draft.host == from) else { return };
        let asked = self.asking.0.entry(key(draft)).or_insert_with(|| Asked {
            lease: update.lease,
            methods: payment.methods.clone(),
            ask: None,
            told: None,
            again_at: now,
            retry: RETRY.0,
        });
        if asked.ask != update.payment {
            asked.lease = update.lease;
            asked.methods.clone_from(&payment.methods);
            asked.ask = update.payment;
        }
    }

    /// Hosts to whom something is, or may still be, to be paid.
    #[must_use]
    pub fn hosts_to_pay(&self) -> usize {
        self.asking.0.len()
    }

    /// Whether more may come to be paid. A lease that was given up is kept for the host's late answer, and costs nothing.
    fn rents_from(&self, to: &Key) -> bool {
        self.leases.values().any(|l| key(l.draft()) == *to && *l.answer() != Opened::GivenUp)
    }

    /// What is to be paid to a host by our own count, and why.
    fn amount_due(&self, cx: &Context, to: &Key, asked: &Asked) -> Option<(Amount, DueReason)> {
        let account = cx.accounts.get(&to.0, &to.1)?;
        let rents = self.rents_from(to);
        let Some(ask) = asked.ask else {
            // Nothing is asked for. The rest is paid when the last lease is over.
            return (!rents).then(|| (clamp(account.owing()), DueReason::Last));
        };
        if !rents {
            return Some((clamp(account.owing()), DueReason::Last));
        }
        let base = self.leases.values().filter(|l| key(l.draft()) == *to).map(|l| first_slice(l.draft())).max();
        let most = cx.accounts.ahead_most(&to.0, &to.1, base.unwrap_or_default());
        let amount = match ask.when {
            PayWhen::After => clamp(account.owing()),
            PayWhen::Before => {
                let ahead = ask.slice.min(most);
                let missing = clamp(account.owing() + i128::from(ahead.0));
                // Less is not worth a payment: with three quarters ahead the host lets it run.
                if missing.0 < ahead.0 / 4 { Amount::ZERO } else { missing }
            }
        };
        Some((amount, DueReason::Low(ask.level)))
    }

    /// Tells the shell what is to be paid now.
    pub(super) fn pay_due(&mut self, cx: &mut Context, now: Timestamp) {
        let mut due = Vec::new();
        let mut settled = Vec::new();
        for (to, asked) in &self.asking.0 {
            let rents = self.rents_from(to);
            match self.amount_due(cx, to, asked) {
                // While a payment is on its way, what is missing shows when it is answered.
                Some((amount, why)) if amount > Amount::ZERO && cx.payments.newest_unanswered(to).is_none() => {
                    let level = asked.ask.map(|a| a.level);
                    let fresh = asked.told.is_none_or(|told| level > told);
                    if fresh || asked.again_at <= now {
                        due.push((to.clone(), amount, why, level));
                    }
                }
                Some(_) if rents => {}
                None if rents => {}
                // A payment on its way may turn out not to have arrived; that is for people to look at.
                Some(_) | None => settled.push(to.clone()),
            }
        }
        for to in settled {
            self.asking.0.remove(&to);
        }
        for (to, amount, why, level) in due {
            let Some(asked) = self.asking.0.get_mut(&to) else { continue };
            asked.told = Some(level);
            asked.again_at = now + PAYING_WITHIN;
            cx.out(Output::SettlementDue(Box::new(DuePayment {
                peer: to.0,
                currency: to.1,
                amount,
                methods: asked.methods.clone(),
                lease: asked.lease,
                why,
                until: None,
            })));
        }
    }

    pub(super) fn payments_deadline(&self, cx: &Context) -> Option<Timestamp> {
        let first = self.negotiations.values().filter_map(|n| n.paying.as_ref()).map(|first| first.until);
        let told = self.asking.0.iter().filter(|(to, asked)| {
            let on_its_way = cx.payments.newest_unanswered(to).is_some();
            let amount = self.amount_due(cx, to, asked).map_or(Amount::ZERO, |(amount, _)| amount);
            asked.told.is_some() && !on_its_way && amount > Amount::ZERO
        });
        first.chain(told.map(|(_, asked)| asked.again_at)).min()
    }

    pub(super) fn payments_clock_went_back(&mut self, now: Timestamp) {
        for asked in self.asking.0.values_mut() {
            asked.again_at = asked.again_at.min(now + asked.retry);
        }
    }
}
