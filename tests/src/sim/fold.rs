//! A lease's terms and what it costs, recomputed from its signed documents by other code than the engine's.
//!
//! Owns its own arithmetic and its own reading of the rules for amendments, so that a mistake in the engine's is not made twice.

use std::collections::BTreeMap;

use souk_protocol::{
    Amount, DocumentId, Timestamp, Verified,
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    money::Counters,
    negotiation::RentalType,
    terms::{Amended, Change},
};

const HOUR_MS: u128 = 3_600_000;
const GB_MONTH: u128 = 1_000_000_000 * 30 * 24 * HOUR_MS;

/// What the signed documents of a lease add up to.
#[derive(Debug, Clone)]
pub struct Fold {
    /// The terms as drafted.
    pub draft: Verified<LeaseDraft>,
    /// Amendments so far.
    pub n: u32,
    /// For all slots and an hour.
    pub price: Amount,
    /// When that was bid.
    pub bid_at: Timestamp,
    /// The contract's end.
    pub ends_at: Timestamp,
    /// Whether the lease exists.
    pub accepted: bool,
    /// Whether a close is signed.
    pub closing: bool,
    /// The slots and devices of the newest start.
    pub placed: Option<(Vec<u16>, Vec<String>)>,
    ceiling: Option<Amount>,
    extend_until: Option<Timestamp>,
    next: Option<(Timestamp, Amount)>,
    counted: Counters,
    carried: u128,
    asked: BTreeMap<DocumentId, (u32, Change, Timestamp)>,
}

impl Fold {
    /// A lease that is opened.
    #[must_use]
    pub fn new(draft: Verified<LeaseDraft>) -> Self {
        Self {
            n: 0,
            price: draft.rates.compute_hour,
            bid_at: draft.drafted_at,
            ends_at: draft.ends_at,
            accepted: false,
            closing: false,
            placed: None,
            ceiling: draft.max_spend,
            extend_until: draft.extend_until,
            next: None,
            counted: Counters::default(),
            carried: 0,
            asked: BTreeMap::new(),
            draft,
        }
    }

    /// The renter asks for a change.
    pub fn ask(&mut self, id: DocumentId, (n, change, until): (u32, Change, Timestamp)) {
        self.asked.insert(id, (n, change, until));
    }

    /// The host's amendment.
    ///
    /// # Errors
    /// Why it is none that this lease allows.
    pub fn amend(&mut self, amended: &Amended, at: Timestamp) -> Result<(), String> {
        let new = &amended.terms;
        let counted = new.counted;
        let carried = self.cost(&counted, LeaseState::Running).ok_or("an amendment of an impossible amount")?;
        let grows = counted.active >= self.counted.active
            && counted.waived >= self.counted.waived
            && counted.paused >= self.counted.paused
            && counted.storage >= self.counted.storage;
        if !grows || new.n != self.n + 1 {
            return Err("an amendment that does not follow the one before".to_owned());
        }
        let interruptible = self.draft.rental == RentalType::Interruptible;
        match amended.amend {
            Some(id) => {
                let (n, change, until) = *self.asked.get(&id).ok_or("a change that nobody asked for")?;
                if n != new.n || at > until + limits::CLOCK_SKEW {
                    return Err("a change taken out of its turn".to_owned());
                }
                self.asked.retain(|_, (n, ..)| *n > new.n);
                match change {
                    Change::Bid { compute_hour } => {
                        let raise = compute_hour > self.price;
                        let enough = u128::from(compute_hour.0) * 100 >= u128::from(self.price.0) * 105;
                        // Rounded down, a raise may be a unit short of a twentieth.
                        let enough = enough || (u128::from(compute_hour.0) + 1) * 100 > u128::from(self.price.0) * 105;
                        if !interruptible || compute_hour == self.price || (raise && !enough) {
                            return Err("a bid that is none".to_owned());
                        }
                        self.price = compute_hour;
                        self.bid_at = at;
                    }
                    Change::Extend { ends_at, compute_hour } => {
                        if ends_at <= self.ends_at {
                            return Err("an extension to an earlier end".to_owned());
                        }
                        if let Some(price) = compute_hour.filter(|price| *price != self.price) {
                            if interruptible || self.next.is_some() {
                                return Err("an extension at a price it can't have".to_owned());
                            }
                            self.next = Some((self.ends_at, price));
                        }
                        self.ends_at = ends_at;
                    }
                    Change::Ceiling { max_spend } => self.ceiling = max_spend,
                    Change::AutoExtend { until } => self.extend_until = until,
                }
            }
            None if new.ends_at > self.ends_at => {
                if self.extend_until.is_none_or(|until| new.ends_at > until) {
                    return Err("the host extends a lease without leave".to_owned());
                }
                let price = new.next.map(|next| next.compute_hour).filter(|_| self.next.is_none());
                if let Some(price) = price {
                    if price > self.price {
                        return Err("the host extends a lease at a higher price".to_owned());
                    }
                    self.next = Some((self.ends_at, price));
                }
                self.ends_at = new.ends_at;
            }
            None => {
                let (from, price) = self.next.take().ok_or("the host changes a lease by itself")?;
                if at < from {
                    return Err("a price before its time".to_owned());
                }
                self.price = price;
                self.bid_at = from;
            }
        }
        self.n = new.n;
        (self.counted, self.carried) = (counted, carried);
        let next = new.next.map(|next| (next.from, next.compute_hour));
        let same = (new.compute_hour, new.bid_at, new.ends_at, new.max_spend, new.extend_until, next)
            == (self.price, self.bid_at, self.ends_at, self.ceiling, self.extend_until, self.next);
        if !same || u128::from(new.carried.0) != self.carried {
            return Err(format!("money-conserved: signed terms {new:?} are not those recomputed: {self:?}"));
        }
        Ok(())
    }

    /// What so much use costs, when the lease is in this state; none if no amount can say it.
    #[must_use]
    pub fn cost(&self, counters: &Counters, state: LeaseState) -> Option<u128> {
        let billed = u128::from(counters.active.0 - counters.waived.0)
            .checked_sub(u128::from(self.counted.active.0 - self.counted.waived.0))?;
        let stored = u128::from(counters.storage.0.checked_sub(self.counted.storage.0)?);
        let disk = u128::from(self.draft.resources.disk_mb) * 1_000_000;
        let compute = billed.checked_mul(u128::from(self.price.0))?.checked_mul(GB_MONTH / HOUR_MS)?;
        let storage = stored.checked_mul(disk)?.checked_mul(u128::from(self.draft.rates.storage_gb_month.0))?;
        let mut due = self.carried + compute.checked_add(storage)? / GB_MONTH;
        if let Some(most) = self.ceiling {
            due = due.min(u128::from(most.0));
        }
        let left = state == LeaseState::Ended(EndReason::LeftEarly) && self.draft.rental == RentalType::Reserved;
        if left {
            let discount = self.draft.listed_hour.0.saturating_sub(self.draft.rates.compute_hour.0);
            let ran = u128::from(counters.active.0 - counters.waived.0);
            due += ran * u128::from(discount) / HOUR_MS;
            due = self.ceiling.map_or(due, |most| due.min(u128::from(most.0)));
        }
        u64::try_from(due).ok().map(u128::from)
    }

    /// The most it may cost.
    #[must_use]
    pub const fn ceiling(&self) -> Option<Amount> {
        self.ceiling
    }
}
