//! Payments of ours that are never confirmed: which of several is told next, and what follows when the owner writes them off.
//!
//! Owns no sums: those are the account's. Nothing is written off but by the owner's word, and nothing is signed for it: the totals
//! in our chain go on, and what is lost is our own loss until the payee confirms it.

use super::{Between, Context, Entry, Refusal, Sent, Ticket, Timestamp, Verified, number};
use crate::{machine::account::Key, money::Amount};

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

impl Context {
    /// The owner holds for lost what a payee has not confirmed: it is owed again, and may be paid again. How much that is.
    ///
    /// # Errors
    /// [`Refusal::Payment`] if all is confirmed.
    pub(in super::super) fn write_off(&mut self, key: &Key) -> Result<Amount, Refusal> {
        let nothing = || Refusal::Payment("every payment to this peer is confirmed: nothing is lost".to_owned());
        let between = self.payments.between.get_mut(key).ok_or_else(nothing)?;
        let n = number(between.paid.as_ref());
        let open = self.accounts.get(&key.0, &key.1).is_some_and(|a| a.flows().paid > a.flows().paid_acked);
        if !open {
            return Err(nothing());
        }
        between.unanswered.iter_mut().for_each(|sent| sent.lost = true);
        Ok(self.accounts.change(&key.0, &key.1, |account| account.write_off(n)))
    }
}
