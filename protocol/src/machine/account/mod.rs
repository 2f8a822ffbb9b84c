//! The account of a pair of nodes in one currency: what each owes the other over all leases, how far that may go, and what follows.
//!
//! Pure. Owns slices, the rules of asking, warning and stopping, the netting over leases both ways, and the strangers' pot. It does
//! not own use, which the leases meter, nor what stops and starts: [`crate::machine::host`] acts on the host's side,
//! [`crate::machine::renter`] on the renter's. All sums are cumulative and come back from the ledger; what does not follow from them
//! is in a [`Note`], written down whenever it changes, so that a restart changes nothing.

mod accounts;
mod policy;
mod slice;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    accounts::{Accounts, Key, Pot},
    policy::{AccountPolicy, Disputed, Lending, Paying},
    slice::Slice,
};
use crate::{
    entry::Entry,
    id::NodeId,
    limits,
    money::{Amount, Currency},
    payment::{PayLevel, PayWhen},
    signed::Signed,
    time::Timestamp,
};

/// Sums of what both nodes have signed, from this node's side. Each only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flows {
    /// What the peer, as renter, has signed for.
    pub earned: Amount,
    /// What this node, as renter, has signed for.
    pub spent: Amount,
    /// What the peer says to have paid to this node.
    pub received_claimed: Amount,
    /// What of it has arrived, by this node's own word.
    pub received: Amount,
    /// What this node has paid to the peer.
    pub paid: Amount,
    /// What of it has arrived, by the peer's word.
    pub paid_acked: Amount,
}

/// What of an account does not follow from the sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// The other node.
    pub peer: NodeId,
    /// The currency.
    pub currency: Currency,
    /// How far the peer may be unpaid.
    pub lent: Slice,
    /// How far this node pays ahead.
    pub ahead: Slice,
    /// Since when the peer's instances are stopped for what is unpaid.
    pub stopped_at: Option<Timestamp>,
    /// What it has taken from the strangers' pot, and on which day since 1970.
    pub drawn: Option<Drawn>,
    /// What the peer has used here, as renter, and refused to sign for, in all since it was last forgiven. Only this node's own
    /// measure of whom it lends to: it is no part of what the two agree on, and the peer's own account knows nothing of it.
    #[serde(default, skip_serializing_if = "nothing")]
    pub refused: Amount,
    /// What this node's owner has written off of its own payments. Only this node's own measure of what is still to be paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// Payments of this node that its owner holds for lost: the payee has not confirmed them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Those that the payee has not answered, by their numbers, in rising order.
    pub unanswered: Vec<u32>,
    /// What is lost in all, with what was answered as not arrived; less once the payee confirms it after all.
    pub amount: Amount,
}

/// Why a payment is not written off. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLost {
    /// There is no such payment.
    #[error("no payment of this node's to this peer has this number; `souk account PEER` lists them")]
    Unknown,
    /// It has arrived.
    #[error("the peer has confirmed this payment: nothing of it is lost")]
    Confirmed,
    /// It was written off before.
    #[error("this payment is written off already")]
    Already,
    /// It may still arrive.
    #[error(
        "this payment was made, or answered, less than {} minutes ago and may still be confirmed; try again later",
        limits::LOST_AFTER.0 / 60_000
    )]
    Young,
}

/// Left out of a [`Note`], so that notes of before it was counted are read, and written, as they were.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
const fn nothing(amount: &Amount) -> bool {
    amount.0 == 0
}

/// Something taken from the strangers' pot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    /// The day, counted from 1970.
    pub day: u64,
    /// Slots times milliseconds.
    pub slot_ms: u64,
}

/// An account as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRow {
    /// The other node.
    pub peer: NodeId,
    /// The currency.
    pub currency: Currency,
    /// The sums.
    pub flows: Flows,
    /// The newest note; none if none was written.
    pub note: Option<Note>,
    /// This node's newest payment.
    pub paid: Option<Signed<Entry>>,
    /// This node's payments that the peer has not answered, oldest first.
    pub unanswered: Vec<Signed<Entry>>,
    /// The peer's newest payment.
    pub received: Option<Signed<Entry>>,
    /// The peer's payments that this node has not answered, oldest first.
    pub unverified: Vec<Signed<Entry>>,
    /// This node's newest answer.
    pub answer: Option<Signed<Entry>>,
}

/// How far an account may go, and from which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// When use is paid.
    pub when: PayWhen,
    /// The slice, or the line if that is more.
    pub unit: Amount,
}

impl Limit {
    /// What may be owed at most: compute stops when it is passed. Negative amounts are paid ahead.
    #[must_use]
    pub fn stop(&self) -> i128 {
        match self.when {
            PayWhen::After => i128::from(self.unit.0) * 5 / 4,
            PayWhen::Before => -1,
        }
    }

    /// How far it is used up, if so much is owed.
    #[must_use]
    pub fn level(&self, owed: i128) -> Option<PayLevel> {
        if self.unit == Amount::ZERO && owed <= 0 {
            return None;
        }
        self.steps().into_iter().rev().find(|(from, _)| owed >= *from).map(|(_, level)| level)
    }

    /// From which amount owed on each level holds, in rising order.
    fn steps(&self) -> [(i128, PayLevel); 3] {
        let unit = i128::from(self.unit.0);
        let (asked, warned) = match self.when {
            PayWhen::After => (unit / 2, unit),
            PayWhen::Before => (-unit / 2, -unit / 4),
        };
        [(asked, PayLevel::Asked), (warned, PayLevel::Warned), (self.stop() + 1, PayLevel::Stopped)]
    }

    /// The next amount owed at which the level rises; none if it can't.
    #[must_use]
    pub fn next(&self, owed: i128) -> Option<i128> {
        self.steps().into_iter().map(|(from, _)| from).find(|from| *from > owed)
    }

    /// Whether what was stopped may run again: a quarter of a slice is there to run on.
    #[must_use]
    pub fn runs_again(&self, owed: i128) -> bool {
        let unit = i128::from(self.unit.0);
        match self.when {
            PayWhen::After => owed <= unit,
            PayWhen::Before => unit == 0 || owed <= (-unit / 4).min(-1),
        }
    }

    /// What to pay so that the account is where it begins: nothing owed, or a slice ahead.
    #[must_use]
    pub fn to_pay(&self, owed: i128) -> Amount {
        let target = match self.when {
            PayWhen::After => 0,
            PayWhen::Before => -i128::from(self.unit.0),
        };
        clamp(owed - target)
    }
}

/// An amount, where a negative one is nothing.
pub(super) fn clamp(amount: i128) -> Amount {
    Amount(u64::try_from(amount.max(0)).unwrap_or(u64::MAX))
}

/// The account of a pair of nodes in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub(super) flows: Flows,
    pub(super) note: Note,
    /// The level that the peer was last told.
    pub(super) told: Option<PayLevel>,
}

impl Account {
    /// An account without anything in it.
    #[must_use]
    pub const fn new(peer: NodeId, currency: Currency) -> Self {
        const NONE: Slice = Slice { base: Amount::ZERO, slice: Amount::ZERO, used: Amount::ZERO };
        const NOTHING: Flows = Flows {
            earned: Amount::ZERO,
            spent: Amount::ZERO,
            received_claimed: Amount::ZERO,
            received: Amount::ZERO,
            paid: Amount::ZERO,
            paid_acked: Amount::ZERO,
        };
        let note = Note {
            peer,
            currency,
            lent: NONE,
            ahead: NONE,
            stopped_at: None,
            drawn: None,
            refused: Amount::ZERO,
            lost: None,
        };
        Self { flows: NOTHING, note, told: None }
    }

    /// The account as the ledger has it: what the note does not say yet is made up for.
    #[must_use]
    pub fn restored(row: &AccountRow) -> Self {
        let mut account = Self::new(row.peer, row.currency.clone());
        account.flows = row.flows;
        if let Some(note) = row.note.clone().filter(|n| n.peer == row.peer && n.currency == row.currency) {
            account.note = note;
        }
        // The payee's word is on disk before the note that follows from it.
        let open = account.flows.paid.saturating_sub(account.flows.paid_acked);
        if let Some(lost) = &mut account.note.lost {
            lost.amount = lost.amount.min(open);
        }
        account.grow();
        account
    }

    /// The other node.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        self.note.peer
    }

    /// The currency.
    #[must_use]
    pub const fn currency(&self) -> &Currency {
        &self.note.currency
    }

    /// The sums.
    #[must_use]
    pub const fn flows(&self) -> &Flows {
        &self.flows
    }

    /// What does not follow from them.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// What the peer owes this node if it has used so much more than it has signed for; negative if it has paid ahead. What this node
    /// owes for leases the other way is set off against it; what it has paid ahead there is not lent. Payments count once this node
    /// has said that they arrived. What the peer has refused to sign for uses up what it has paid ahead, and what it is lent, like
    /// what it has signed for.
    #[must_use]
    pub fn owed(&self, unsigned: Amount) -> i128 {
        let f = &self.flows;
        let used = i128::from(f.earned.0) + i128::from(unsigned.0) + i128::from(self.note.refused.0);
        let to_us = used - i128::from(f.received.0);
        let to_them = i128::from(f.spent.0) - i128::from(f.paid_acked.0);
        to_us - to_them.max(0)
    }

    /// What this node owes the peer by what it has signed for; negative if it has paid ahead. What the peer owes for leases the other
    /// way is set off against it. This node's payments count when they are made, so that nothing is paid twice, unless its owner has
    /// written them off.
    #[must_use]
    pub fn owing(&self) -> i128 {
        let f = &self.flows;
        let to_them = i128::from(f.spent.0) - i128::from(f.paid.saturating_sub(self.lost()).0);
        let to_us = i128::from(f.earned.0) - i128::from(f.received.0);
        to_them - to_us.max(0)
    }

    /// What of the peer's debts is settled: signed for, and paid.
    #[must_use]
    pub fn settled_to_us(&self) -> Amount {
        self.flows.earned.min(self.flows.received)
    }

    /// What of this node's payments was delivered.
    #[must_use]
    pub fn settled_by_us(&self) -> Amount {
        self.flows.spent.min(self.flows.paid.saturating_sub(self.lost()))
    }

    /// What of this node's payments its owner has written off, and the payee has not confirmed since.
    #[must_use]
    pub fn lost(&self) -> Amount {
        self.note.lost.as_ref().map_or(Amount::ZERO, |lost| lost.amount)
    }

    /// So much is lost in all, of it the payments of these numbers that are not answered.
    pub(in super::super) fn write_off(&mut self, unanswered: Vec<u32>, amount: Amount) {
        self.note.lost = (amount > Amount::ZERO).then_some(Lost { unanswered, amount });
    }

    /// The payee has confirmed `acked` in all, of the `said` that were paid up to payment `n`, which it answers. Of what is lost,
    /// `open` is in payments after that one; the rest is at most what it says is missing.
    pub(in super::super) fn paid_acked(&mut self, n: u32, said: Amount, acked: Amount, open: Amount) {
        self.flows.paid_acked = acked;
        if let Some(lost) = &mut self.note.lost {
            lost.unanswered.retain(|lost| *lost > n);
            lost.amount = lost.amount.min(said.saturating_sub(acked).saturating_add(open));
        }
        self.note.lost = self.note.lost.take().filter(|lost| lost.amount > Amount::ZERO);
    }

    /// Whether the peer has not settled even a first slice yet.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.settled_to_us() < self.note.lent.base.max(Amount(1))
    }

    /// The peer has signed for so much more.
    pub(super) fn has_earned(&mut self, more: Amount) {
        self.flows.earned = self.flows.earned.saturating_add(more);
    }

    /// The peer has used so much more, and does not sign for it.
    pub(in super::super) fn has_refused(&mut self, more: Amount) {
        self.note.refused = self.note.refused.saturating_add(more);
    }

    /// Nothing that the peer has refused to sign for counts any more. What it was.
    pub(in super::super) fn forgive(&mut self) -> Amount {
        std::mem::replace(&mut self.note.refused, Amount::ZERO)
    }

    /// This node has signed for so much more.
    pub(super) fn has_spent(&mut self, more: Amount) {
        self.flows.spent = self.flows.spent.saturating_add(more);
    }

    fn grow(&mut self) {
        let (to_us, by_us) = (self.settled_to_us(), self.settled_by_us());
        self.note.lent.grow(to_us);
        self.note.ahead.grow(by_us);
    }

    /// How far it goes on the host's side: the slice, or a line if that is more.
    #[must_use]
    pub fn limit(&self, when: PayWhen, line: Option<Amount>) -> Limit {
        let slice = self.note.lent.slice;
        let unit = match when {
            PayWhen::After => line.map_or(slice, |line| line.max(slice)),
            PayWhen::Before => slice,
        };
        Limit { when, unit }
    }

    /// The level has changed: whether the peer is to be told, and whether it has just been missed.
    ///
    /// A level is told when it rises. One that has fallen is told again when it rises anew.
    pub(super) fn at_level(&mut self, level: Option<PayLevel>) -> bool {
        let rises = level > self.told;
        self.told = level;
        rises
    }

    /// What is unpaid has passed its limit: three doublings are lost, once until it is paid.
    pub(super) fn stop(&mut self, now: Timestamp) {
        if self.note.stopped_at.is_none() {
            self.note.stopped_at = Some(now);
            self.miss();
        }
    }

    /// What was due was not settled: three doublings are lost.
    pub(in super::super) fn miss(&mut self) {
        let settled = self.settled_to_us();
        self.note.lent.miss(settled);
    }

    /// What was paid ahead is used up. Nothing was lent, and nobody has lost anything: no doubling is lost.
    pub(super) fn stop_used_up(&mut self, now: Timestamp) {
        self.note.stopped_at.get_or_insert(now);
    }

    /// It is paid again.
    pub(super) fn resume(&mut self) {
        self.note.stopped_at = None;
    }
}
