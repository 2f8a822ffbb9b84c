//! Payments of ours that are never confirmed: which of several is told next, and what follows when the owner writes them off.
//!
//! Owns no sums: those are the account's. Nothing is written off but by the owner's word, and nothing is signed for it: the totals
//! in our chain go on, and what is lost is our own loss until the payee confirms it.

use super::{Between, Context, Entry, Sent, Ticket, Timestamp, Verified, number, said};
use crate::{
    limits,
    machine::account::{Key, NotLost},
    money::Amount,
};

impl Sent {
    /// To be told at once.
    pub(super) const fn new(entry: Verified<Entry>, ticket: Option<Ticket>, now: Timestamp) -> Self {
        Self { entry, ticket, in_flight: false, again_at: now, retry: super::RETRY.0, taken: false, lost: false }
    }
}

impl Between {
    /// The place of the payment that is told next. Payees take payments in order, so none is told before all older ones were taken
    /// or written off; one that is taken, and waits to be looked for, holds up none.
    pub(super) fn to_tell(&self) -> Option<usize> {
        if self.unanswered.iter().any(|sent| sent.in_flight) {
            return None;
        }
        let passed = self.unanswered.iter().take_while(|sent| sent.taken || sent.lost).count();
        let open = self.unanswered.iter().enumerate().take(passed.saturating_add(1));
        open.min_by_key(|(_, sent)| sent.again_at).map(|(place, _)| place)
    }
}

impl Between {
    /// What is lost of the payments that are not answered.
    pub(super) fn lost_open(&self) -> Amount {
        let lost = self.unanswered.iter().filter(|sent| sent.lost).filter_map(|sent| said(&sent.entry));
        lost.fold(Amount::ZERO, |sum, s| sum.saturating_add(s.amount))
    }
}

impl Context {
    /// What would be lost in all if payment `n` to a payee were written off now. A payment that is not answered is written off by
    /// itself. Of those that are answered a payee says only how much has arrived in all, so what it says is missing goes together.
    ///
    /// # Errors
    /// [`NotLost`].
    pub(in super::super) fn would_lose(&self, key: &Key, n: u32, now: Timestamp) -> Result<Amount, NotLost> {
        let between = self.payments.between.get(key).ok_or(NotLost::Unknown)?;
        let account = self.accounts.get(&key.0, &key.1).ok_or(NotLost::Unknown)?;
        if n == 0 || n > number(between.paid.as_ref()) {
            return Err(NotLost::Unknown);
        }
        let old = |at: Timestamp| now.since(at) >= limits::LOST_AFTER;
        if let Some(sent) = between.unanswered.iter().find(|s| number(Some(&s.entry)) == n) {
            let amount = said(&sent.entry).map_or(Amount::ZERO, |s| s.amount);
            return match (sent.lost, old(sent.entry.time)) {
                (true, _) => Err(NotLost::Already),
                (false, false) => Err(NotLost::Young),
                (false, true) => Ok(account.lost().saturating_add(amount)),
            };
        }
        let front = between.unanswered.front().and_then(|sent| said(&sent.entry));
        let answered = front.map_or(account.flows().paid, |s| s.total.saturating_sub(s.amount));
        let missing = answered.saturating_sub(account.flows().paid_acked);
        let all = missing.saturating_add(between.lost_open());
        match (missing > Amount::ZERO, all > account.lost(), old(between.corrected.1)) {
            (false, ..) => Err(NotLost::Confirmed),
            (true, false, _) => Err(NotLost::Already),
            (true, true, false) => Err(NotLost::Young),
            (true, true, true) => Ok(all),
        }
    }

    /// The owner holds a payment for lost: it is owed again, and may be paid again. How much is lost in all then.
    ///
    /// # Errors
    /// [`NotLost`].
    pub(in super::super) fn write_off(&mut self, key: &Key, n: u32, now: Timestamp) -> Result<Amount, NotLost> {
        let all = self.would_lose(key, n, now)?;
        let between = self.payments.between.entry(key.clone()).or_default();
        between.unanswered.iter_mut().filter(|s| number(Some(&s.entry)) == n).for_each(|s| s.lost = true);
        let lost = between.unanswered.iter().filter(|s| s.lost).map(|s| number(Some(&s.entry))).collect();
        self.accounts.change(&key.0, &key.1, |account| account.write_off(lost, all));
        Ok(all)
    }
}
