//! The terms of a lease as they stand: drafted once, changed only by numbered amendments.
//!
//! Owns the rule by which one set of terms follows another, and what use costs under them. Each amendment closes a segment: what
//! was due until then is carried as an amount, and only what is used after it costs the new rates. So a third party recomputes
//! every amount from the draft, the amendments and the counters alone.

use serde::{Deserialize, Serialize};

use crate::{
    id::DocumentId,
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    money::{self, Amount, Counters, Overflow, Rates},
    negotiation::RentalType,
    time::{Millis, Timestamp},
};

/// What a renter wants changed in a lease that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Another bid for an interruptible lease, for all slots and an hour. A raise is at least [`limits::BID_RAISE_PERMILLE`].
    Bid {
        /// The new price.
        compute_hour: Amount,
    },
    /// A later end.
    Extend {
        /// The new end.
        ends_at: Timestamp,
        /// The price from the present end on; none for the present price.
        compute_hour: Option<Amount>,
    },
    /// Another ceiling; none for no ceiling.
    Ceiling {
        /// The new one. Not below what is due already.
        max_spend: Option<Amount>,
    },
    /// Until when the host may extend by itself, at the same price or a lower one; none for not at all.
    AutoExtend {
        /// The latest end.
        until: Option<Timestamp>,
    },
}

impl Change {
    /// Its name, as lists show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bid { .. } => "bid",
            Self::Extend { .. } => "extend",
            Self::Ceiling { .. } => "ceiling",
            Self::AutoExtend { .. } => "auto_extend",
        }
    }
}

/// A price that is agreed on and does not hold yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextPrice {
    /// From when it holds.
    pub from: Timestamp,
    /// For all slots and an hour.
    pub compute_hour: Amount,
}

/// The terms in force, and the account of the segments closed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// Amendments so far.
    pub n: u32,
    /// Compute, for all slots and an hour.
    pub compute_hour: Amount,
    /// When that price was bid: of two equal bids the older goes first.
    pub bid_at: Timestamp,
    /// Compute stops here.
    pub ends_at: Timestamp,
    /// What the lease may cost at most.
    pub max_spend: Option<Amount>,
    /// Until when the host may extend by itself.
    pub extend_until: Option<Timestamp>,
    /// A price that holds later.
    pub next: Option<NextPrice>,
    /// What was used when this segment began.
    pub counted: Counters,
    /// What was due when this segment began.
    pub carried: Amount,
}

/// Why terms can't be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// Only interruptible leases have bids.
    #[error("its price was fixed when it was signed: only an interruptible lease takes bids")]
    NotABid,
    /// The same price again, or one so little above it that raising would never end.
    #[error("a raised bid must be at least 5 % above the present one")]
    RaiseTooSmall,
    /// Not later than the present end.
    #[error("the new end is not after the present one")]
    NotLater,
    /// Over a year from now.
    #[error("a lease may not run for more than a year from now")]
    TooLong,
    /// A second price change before the first holds.
    #[error("another price is agreed on already, from the present end on")]
    PriceAgreed,
    /// Interruptible leases change their price by bids.
    #[error("an interruptible lease's price is its bid: extend it as it is, and bid")]
    BidInstead,
    /// The ceiling is used up already.
    #[error("the limit is below what is due already and keeping the disk")]
    CeilingTooLow,
    /// Over [`limits::PRICE_HOUR`].
    #[error("no lease costs more than a million for an hour")]
    TooDear,
    /// The amounts are impossible.
    #[error("the amounts do not fit")]
    Overflow,
    /// As many amendments as a lease can have.
    #[error("the lease has been changed too often; destroy it and rent anew")]
    TooMany,
}

impl LeaseTerms {
    /// The terms as drafted.
    #[must_use]
    pub const fn drafted(draft: &LeaseDraft) -> Self {
        Self {
            n: 0,
            compute_hour: draft.rates.compute_hour,
            bid_at: draft.drafted_at,
            ends_at: draft.ends_at,
            max_spend: draft.max_spend,
            extend_until: draft.extend_until,
            next: None,
            counted: Counters {
                active: Millis(0),
                waived: Millis(0),
                paused: Millis(0),
                storage: Millis(0),
                rx_bytes: 0,
                tx_bytes: 0,
            },
            carried: Amount::ZERO,
        }
    }

    /// The prices in force.
    #[must_use]
    pub const fn rates(&self, draft: &LeaseDraft) -> Rates {
        Rates { compute_hour: self.compute_hour, ..draft.rates }
    }

    /// The price that holds at the end: the agreed one, or else the present one.
    #[must_use]
    pub fn last_price(&self) -> Amount {
        self.next.map_or(self.compute_hour, |next| next.compute_hour)
    }

    /// What `counters` cost, and never more than the ceiling: what is used past it is the host's loss.
    ///
    /// # Errors
    /// [`Overflow`] if the amount does not fit.
    pub fn due(&self, draft: &LeaseDraft, counters: &Counters) -> Result<Amount, Overflow> {
        let cost =
            money::due(&self.rates(draft), draft.resources.disk_mb, &counters.since(&self.counted), self.carried)?;
        Ok(self.max_spend.map_or(cost, |ceiling| cost.min(ceiling)))
    }

    /// What `counters` cost in a usage of this state: a reserved lease that its renter leaves before its end owes the discount
    /// it has had.
    ///
    /// # Errors
    /// [`Overflow`] if the amount does not fit.
    pub fn due_in(&self, draft: &LeaseDraft, counters: &Counters, state: LeaseState) -> Result<Amount, Overflow> {
        let due = self.due(draft, counters)?;
        if !left_early(draft, state) {
            return Ok(due);
        }
        let due = due.checked_add(discount_taken(draft, counters)?).ok_or(Overflow)?;
        Ok(self.max_spend.map_or(due, |ceiling| due.min(ceiling)))
    }

    /// How much longer until `amount` is due, while the disk exists and, if `running`, compute is billed. None if it never is.
    #[must_use]
    pub fn time_until(
        &self,
        draft: &LeaseDraft,
        counters: &Counters,
        running: bool,
        has_disk: bool,
        amount: Amount,
    ) -> Option<Millis> {
        if self.max_spend.is_some_and(|most| amount > most) {
            return None;
        }
        let counters = counters.since(&self.counted);
        let left = amount.saturating_sub(self.carried);
        money::time_until(&self.rates(draft), draft.resources.disk_mb, &counters, running, has_disk, left)
    }

    /// The terms after a change that takes effect at `at`, when `counters` had been used.
    ///
    /// # Errors
    /// Why they can't be changed so.
    pub fn changed(
        &self,
        draft: &LeaseDraft,
        change: &Change,
        counters: &Counters,
        at: Timestamp,
    ) -> Result<Self, BadChange> {
        let mut next = self.segment(draft, counters)?;
        let price = match *change {
            Change::Bid { compute_hour } => Some(compute_hour),
            Change::Extend { compute_hour, .. } => compute_hour,
            Change::Ceiling { .. } | Change::AutoExtend { .. } => None,
        };
        if price.is_some_and(|price| price > limits::PRICE_HOUR) {
            return Err(BadChange::TooDear);
        }
        match *change {
            Change::Bid { compute_hour } => {
                if draft.rental != RentalType::Interruptible {
                    return Err(BadChange::NotABid);
                }
                let least = u128::from(self.compute_hour.0) * u128::from(1000 + limits::BID_RAISE_PERMILLE) / 1000;
                let raised = compute_hour >= self.compute_hour;
                if compute_hour == self.compute_hour || (raised && u128::from(compute_hour.0) < least) {
                    return Err(BadChange::RaiseTooSmall);
                }
                next.compute_hour = compute_hour;
                next.bid_at = at;
            }
            Change::Extend { ends_at, compute_hour } => {
                if ends_at <= self.ends_at {
                    return Err(BadChange::NotLater);
                }
                if ends_at.since(at) > limits::TERM {
                    return Err(BadChange::TooLong);
                }
                if let Some(compute_hour) = compute_hour.filter(|price| *price != self.compute_hour) {
                    if draft.rental == RentalType::Interruptible {
                        return Err(BadChange::BidInstead);
                    }
                    if self.next.is_some() {
                        return Err(BadChange::PriceAgreed);
                    }
                    next.next = Some(NextPrice { from: self.ends_at, compute_hour });
                }
                next.ends_at = ends_at;
            }
            Change::Ceiling { max_spend } => {
                let reserve = LeaseDraft::disk_reserve(&draft.rates, draft.resources.disk_mb);
                let least = reserve.ok().and_then(|r| r.checked_add(next.carried)).ok_or(BadChange::Overflow)?;
                // Nor may a lower ceiling take away what leaving a reservation early owes by now.
                let owed = if draft.rental == RentalType::Reserved {
                    discount_taken(draft, counters).map_err(|Overflow| BadChange::Overflow)?
                } else {
                    Amount::ZERO
                };
                let least = least.checked_add(owed).ok_or(BadChange::Overflow)?;
                if max_spend.is_some_and(|ceiling| ceiling <= least) {
                    return Err(BadChange::CeilingTooLow);
                }
                next.max_spend = max_spend;
            }
            Change::AutoExtend { until } => {
                if until.is_some_and(|until| until.since(at) > limits::TERM) {
                    return Err(BadChange::TooLong);
                }
                next.extend_until = until;
            }
        }
        Ok(next)
    }

    /// The terms once the host has extended by itself, as the renter allowed.
    ///
    /// # Errors
    /// Why it may not.
    pub fn extended(
        &self,
        draft: &LeaseDraft,
        ends_at: Timestamp,
        compute_hour: Amount,
        counters: &Counters,
    ) -> Result<Self, BadChange> {
        if ends_at <= self.ends_at || self.extend_until.is_none_or(|until| ends_at > until) {
            return Err(BadChange::NotLater);
        }
        if compute_hour > self.compute_hour || (compute_hour != self.compute_hour && self.next.is_some()) {
            return Err(BadChange::PriceAgreed);
        }
        let mut next = self.segment(draft, counters)?;
        if compute_hour < self.compute_hour {
            next.next = Some(NextPrice { from: self.ends_at, compute_hour });
        }
        next.ends_at = ends_at;
        Ok(next)
    }

    /// The terms once the agreed price holds; none if there is none, or not yet.
    ///
    /// # Errors
    /// [`BadChange::Overflow`], [`BadChange::TooMany`].
    pub fn repriced(&self, draft: &LeaseDraft, counters: &Counters, at: Timestamp) -> Result<Option<Self>, BadChange> {
        let Some(price) = self.next.filter(|price| at >= price.from) else {
            return Ok(None);
        };
        let mut next = self.segment(draft, counters)?;
        next.compute_hour = price.compute_hour;
        next.bid_at = price.from;
        next.next = None;
        Ok(Some(next))
    }

    /// Whether `self` is what `known` became: by the renter's change, or by what the host may do alone. `at` is the host's time.
    #[must_use]
    pub fn follows(&self, known: &Self, draft: &LeaseDraft, change: Option<&Change>, at: Timestamp) -> bool {
        if !self.counted.covers(&known.counted) {
            return false;
        }
        match change {
            Some(change) => known.changed(draft, change, &self.counted, at).as_ref() == Ok(self),
            None => {
                let price = self.next.map_or(known.compute_hour, |next| next.compute_hour);
                known.repriced(draft, &self.counted, at).is_ok_and(|next| next.as_ref() == Some(self))
                    || known.extended(draft, self.ends_at, price, &self.counted).as_ref() == Ok(self)
                    || (known.next.is_some()
                        && known.extended(draft, self.ends_at, known.compute_hour, &self.counted).as_ref() == Ok(self))
            }
        }
    }

    /// Closes the segment: the same terms, with what was used so far carried as an amount.
    fn segment(&self, draft: &LeaseDraft, counters: &Counters) -> Result<Self, BadChange> {
        let n = self.n.checked_add(1).filter(|n| *n <= limits::AMENDMENTS).ok_or(BadChange::TooMany)?;
        let carried = self.due(draft, counters).map_err(|Overflow| BadChange::Overflow)?;
        Ok(Self { n, counted: *counters, carried, ..*self })
    }
}

/// An amendment in force, by the host: the renter's change it answers, or none for what the host may do alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amended {
    /// The renter's `amend` entry.
    pub amend: Option<DocumentId>,
    /// The terms from then on.
    pub terms: LeaseTerms,
}

/// Whether a usage of this state is of a reserved lease that its renter has left before its end.
#[must_use]
pub fn left_early(draft: &LeaseDraft, state: LeaseState) -> bool {
    draft.rental == RentalType::Reserved && state == LeaseState::Ended(EndReason::LeftEarly)
}

/// The discount a reserved lease has had for so much use.
fn discount_taken(draft: &LeaseDraft, counters: &Counters) -> Result<Amount, Overflow> {
    let discount = draft.listed_hour.saturating_sub(draft.rates.compute_hour);
    money::due(&Rates { compute_hour: discount, ..Rates::default() }, 0, counters, Amount::ZERO)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::machine::testkit::{self, NOW};

    fn draft() -> LeaseDraft {
        (*testkit::draft(None, Amount(0))).clone()
    }

    fn interruptible() -> LeaseDraft {
        LeaseDraft { rental: RentalType::Interruptible, ..draft() }
    }

    fn used(active: u64) -> Counters {
        Counters { active: Millis(active), storage: Millis(active), ..Counters::default() }
    }

    #[test]
    fn a_bid_costs_from_when_it_is_made() {
        let draft = interruptible();
        let terms = LeaseTerms::drafted(&draft);
        let hour = used(3_600_000);
        let before = terms.due(&draft, &hour).unwrap();
        let double = Change::Bid { compute_hour: Amount(draft.rates.compute_hour.0 * 2) };
        let raised = terms.changed(&draft, &double, &hour, NOW).unwrap();
        assert_eq!(raised.due(&draft, &hour).unwrap(), before, "nothing changes for what was used");
        let two = used(7_200_000);
        let after = raised.due(&draft, &two).unwrap();
        let expected = terms.due(&draft, &two).unwrap().0 + draft.rates.compute_hour.0;
        assert!(after.0 <= expected && expected - after.0 <= 1, "but for the rounding of a segment");
        assert!(raised.follows(&terms, &draft, Some(&double), NOW));
        assert!(!raised.follows(&terms, &draft, None, NOW), "the host can't raise it alone");
        let mut cheat = raised;
        cheat.carried.0 += 1;
        assert!(!cheat.follows(&terms, &draft, Some(&double), NOW));
    }

    #[test]
    fn small_raises_and_raises_of_fixed_prices_are_refused() {
        let draft = interruptible();
        let terms = LeaseTerms::drafted(&draft);
        let price = draft.rates.compute_hour.0;
        let bid = |p| terms.changed(&draft, &Change::Bid { compute_hour: Amount(p) }, &Counters::default(), NOW);
        assert_eq!(bid(price), Err(BadChange::RaiseTooSmall));
        assert_eq!(bid(price + price / 100), Err(BadChange::RaiseTooSmall));
        assert!(bid(price + price / 20).is_ok() && bid(price - 1).is_ok() && bid(0).is_ok());
        let fixed = self::draft();
        let change = Change::Bid { compute_hour: Amount(price * 2) };
        let terms = LeaseTerms::drafted(&fixed);
        assert_eq!(terms.changed(&fixed, &change, &Counters::default(), NOW), Err(BadChange::NotABid));
    }

    #[test]
    fn prices_and_times_beyond_all_sense_are_refused() {
        let draft = interruptible();
        let terms = LeaseTerms::drafted(&draft);
        let changed = |change: Change| terms.changed(&draft, &change, &used(1000), NOW);
        let most = limits::PRICE_HOUR;
        assert_eq!(changed(Change::Bid { compute_hour: Amount(most.0 + 1) }), Err(BadChange::TooDear));
        let dear = changed(Change::Bid { compute_hour: most }).unwrap();
        assert!(dear.due(&draft, &used(limits::TERM.0)).is_ok(), "a year at the highest price can be written down");
        let year = NOW + limits::TERM;
        assert!(changed(Change::AutoExtend { until: Some(year) }).is_ok());
        assert_eq!(changed(Change::AutoExtend { until: Some(year + Millis(1)) }), Err(BadChange::TooLong));
    }

    #[test]
    fn a_higher_price_holds_only_after_the_present_end() {
        let draft = self::draft();
        let terms = LeaseTerms::drafted(&draft);
        let later = draft.ends_at + Millis::from_hours(5);
        let price = Amount(draft.rates.compute_hour.0 * 3);
        let change = Change::Extend { ends_at: later, compute_hour: Some(price) };
        let agreed = terms.changed(&draft, &change, &used(1000), NOW).unwrap();
        assert_eq!((agreed.ends_at, agreed.compute_hour), (later, draft.rates.compute_hour));
        assert_eq!(agreed.repriced(&draft, &used(2000), Timestamp(draft.ends_at.0 - 1)), Ok(None));
        let dear = agreed.repriced(&draft, &used(2000), draft.ends_at).unwrap().unwrap();
        assert_eq!((dear.compute_hour, dear.next), (price, None));
        assert!(dear.follows(&agreed, &draft, None, draft.ends_at));
        assert!(!dear.follows(&agreed, &draft, None, Timestamp(draft.ends_at.0 - 1)));
        assert!(!dear.follows(&terms, &draft, None, draft.ends_at), "not agreed on");
    }

    #[test]
    fn a_host_extends_alone_only_as_far_as_allowed_and_never_dearer() {
        let allowed = draft().ends_at + Millis::from_hours(10);
        let draft = LeaseDraft { extend_until: Some(allowed), ..draft() };
        let terms = LeaseTerms::drafted(&draft);
        let price = draft.rates.compute_hour;
        let to = |at, price| terms.extended(&draft, at, price, &used(5));
        let longer = to(allowed, price).unwrap();
        assert!(longer.follows(&terms, &draft, None, NOW));
        let cheaper = to(allowed, Amount(price.0 / 2)).unwrap();
        assert!(cheaper.follows(&terms, &draft, None, NOW));
        assert!(to(allowed + Millis(1), price).is_err() && to(allowed, Amount(price.0 + 1)).is_err());
    }

    #[test]
    fn who_leaves_a_reserved_lease_early_owes_its_discount() {
        let draft = self::draft();
        let full = draft.rates.compute_hour;
        let mut rates = draft.rates;
        rates.compute_hour = Amount(full.0 * 7 / 10);
        let draft = LeaseDraft { rental: RentalType::Reserved, listed_hour: full, rates, ..draft };
        let terms = LeaseTerms::drafted(&draft);
        let hour = used(3_600_000);
        let stayed = terms.due_in(&draft, &hour, LeaseState::Ended(EndReason::Expired)).unwrap();
        let left = terms.due_in(&draft, &hour, LeaseState::Ended(EndReason::LeftEarly)).unwrap();
        assert_eq!(left.0 - stayed.0, full.0 - rates.compute_hour.0);
    }

    #[test]
    fn no_lower_ceiling_takes_the_discount_from_what_is_owed() {
        let draft = self::draft();
        let full = draft.rates.compute_hour;
        let draft = LeaseDraft { rental: RentalType::Reserved, listed_hour: Amount(full.0 * 2), ..draft };
        let terms = LeaseTerms::drafted(&draft);
        let hour = used(3_600_000);
        let left = LeaseState::Ended(EndReason::LeftEarly);
        let owed = terms.due_in(&draft, &hour, left).unwrap();
        let reserve = LeaseDraft::disk_reserve(&draft.rates, draft.resources.disk_mb).unwrap();
        let ceiling = |most: u64| terms.changed(&draft, &Change::Ceiling { max_spend: Some(Amount(most)) }, &hour, NOW);
        assert_eq!(ceiling(owed.0 + reserve.0), Err(BadChange::CeilingTooLow));
        let lower = ceiling(owed.0 + reserve.0 + 1).unwrap();
        assert!(lower.due_in(&draft, &hour, left).unwrap() >= owed);
    }

    proptest! {
        /// However a lease is cut into segments at one price, it costs what it would cost uncut, but for a unit a cut.
        #[test]
        fn cutting_changes_nothing(cuts in proptest::collection::vec(1u64..5_000_000, 1..20)) {
            let draft = interruptible();
            let mut terms = LeaseTerms::drafted(&draft);
            let whole = terms;
            let mut total = 0;
            for cut in &cuts {
                total += cut;
                let until = Some(NOW + Millis(total));
                terms = terms.changed(&draft, &Change::AutoExtend { until }, &used(total), NOW).unwrap();
            }
            let (a, b) = (whole.due(&draft, &used(total)).unwrap().0, terms.due(&draft, &used(total)).unwrap().0);
            prop_assert!(a >= b && a - b <= cuts.len() as u64);
        }
    }
}
