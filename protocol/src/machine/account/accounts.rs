//! All accounts of a node, its rules about them, and the pot that strangers' unpaid use comes from.

use std::collections::BTreeMap;

use super::{Account, AccountPolicy, AccountRow, Drawn, Note};
use crate::{
    id::NodeId,
    money::{Amount, Currency},
    time::{Millis, Timestamp},
};

/// Names an account: the other node, and the currency.
pub type Key = (NodeId, Currency);

const DAY: Millis = Millis::from_hours(24);

/// The accounts of one node.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    policy: AccountPolicy,
    accounts: BTreeMap<Key, Account>,
    /// Notes that have changed, to be written down.
    changed: BTreeMap<Key, Note>,
}

/// What is left for strangers today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pot {
    /// Slots times milliseconds a day.
    pub size: u64,
    /// Of them taken today.
    pub taken: u64,
}

impl Pot {
    /// What is left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.size.saturating_sub(self.taken)
    }
}

const fn day(now: Timestamp) -> u64 {
    now.0 / DAY.0
}

impl Accounts {
    /// The rules.
    #[must_use]
    pub const fn policy(&self) -> &AccountPolicy {
        &self.policy
    }

    pub(in super::super) fn set_policy(&mut self, policy: AccountPolicy) {
        self.policy = policy;
    }

    /// Takes back an account from the ledger.
    pub(in super::super) fn restore(&mut self, row: &AccountRow) {
        let account = Account::restored(row);
        self.accounts.insert((row.peer, row.currency.clone()), account);
    }

    /// An account, if there is anything in it.
    #[must_use]
    pub fn get(&self, peer: &NodeId, currency: &Currency) -> Option<&Account> {
        self.accounts.get(&(*peer, currency.clone()))
    }

    /// Whether there is any account with a peer.
    #[must_use]
    pub fn any_with(&self, peer: &NodeId) -> bool {
        let from = (*peer, Currency(String::new()));
        self.accounts.range(from..).next().is_some_and(|((node, _), _)| node == peer)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Changes an account, which begins empty. Sums that grew make slices grow.
    pub(in super::super) fn change<T>(
        &mut self,
        peer: &NodeId,
        currency: &Currency,
        change: impl FnOnce(&mut Account) -> T,
    ) -> T {
        let key = (*peer, currency.clone());
        let account = self.accounts.entry(key.clone()).or_insert_with(|| Account::new(*peer, currency.clone()));
        let before = account.note.clone();
        let done = change(account);
        account.grow();
        if account.note != before {
            self.changed.insert(key, account.note.clone());
        }
        done
    }

    /// Drops an account whose note says nothing: whether it did.
    pub(in super::super) fn forget(&mut self, key: &Key) -> bool {
        let blank = self.accounts.get(key).is_none_or(|a| a.note == Account::new(key.0, key.1.clone()).note);
        if blank {
            self.accounts.remove(key);
        }
        blank
    }

    /// Notes to be written down.
    pub(in super::super) fn take_changed(&mut self) -> BTreeMap<Key, Note> {
        std::mem::take(&mut self.changed)
    }

    /// The strangers' pot at `now`.
    #[must_use]
    pub fn pot(&self, now: Timestamp) -> Pot {
        let of_today = |d: &Drawn| d.day == day(now);
        let taken = self.accounts.values().filter(|a| a.is_unproven()).filter_map(|a| a.note.drawn.filter(of_today));
        let taken = taken.fold(0u64, |sum, d| sum.saturating_add(d.slot_ms));
        Pot { size: self.policy.lending.pot, taken }
    }

    /// Whether the pot has so much for a stranger, on top of what it has taken today itself.
    #[must_use]
    pub fn has_in_pot(&self, peer: &NodeId, currency: &Currency, slot_ms: u64, now: Timestamp) -> bool {
        let own = self.get(peer, currency).and_then(|a| a.note.drawn).filter(|d| d.day == day(now));
        let more = slot_ms.saturating_sub(own.map_or(0, |d| d.slot_ms));
        more <= self.pot(now).left()
    }

    /// Takes it. One stranger's leases share one slice, so the largest of them counts.
    pub(in super::super) fn draw(&mut self, peer: &NodeId, currency: &Currency, slot_ms: u64, now: Timestamp) {
        self.change(peer, currency, |account| {
            let own = account.note.drawn.filter(|d| d.day == day(now)).map_or(0, |d| d.slot_ms);
            account.note.drawn = Some(Drawn { day: day(now), slot_ms: slot_ms.max(own) });
        });
    }

    /// What its owner has said that this node pays ahead at most; none for what each host has earned trust for.
    #[must_use]
    pub fn ahead_said(&self, currency: &Currency) -> Option<Amount> {
        self.policy.paying.ahead_most.get(currency).copied()
    }

    /// How far this node pays a host ahead at most, where a lease's first slice is `base`.
    #[must_use]
    pub fn ahead_most(&self, peer: &NodeId, currency: &Currency, base: Amount) -> Amount {
        let own = self.get(peer, currency).map_or(base, |a| a.note.ahead.slice.max(base));
        self.ahead_said(currency).unwrap_or(own)
    }
}
