//! What a host takes and what a renter gives: prices, peers, terms.
//!
//! Pure functions of a proposal, the offer and the owner's settings. They decide; the host's and renter's machines act.

use std::collections::BTreeSet;

use crate::{
    Amount, MachineId, Millis, NodeId, Timestamp,
    lease::LeaseDraft,
    limits,
    money::Rates,
    negotiation::{Proposal, Reject, RejectCode},
    offer::{Accepts, Offer, Reachability, Terms},
    resources::{Hardware, Resources},
};

/// Whom the host rents to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Anybody.
    Anyone,
    /// These peers.
    Peers(BTreeSet<NodeId>),
}

impl Accept {
    /// Whether a peer may rent.
    #[must_use]
    pub fn takes(&self, peer: &NodeId) -> bool {
        match self {
            Self::Anyone => true,
            Self::Peers(peers) => peers.contains(peer),
        }
    }

    /// What the offer says of it.
    #[must_use]
    pub const fn public(&self) -> Accepts {
        match self {
            Self::Anyone => Accepts::Anyone,
            Self::Peers(_) => Accepts::Named,
        }
    }
}

/// A machine on offer, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSetup {
    /// Which machine.
    pub machine: MachineId,
    /// What it has for guests.
    pub hardware: Hardware,
    /// One item a slot: the GPU's UUID or device path, none for a CPU slot.
    pub slots: Vec<Option<String>>,
    /// The terms; `accepts` in them is replaced by what `accept` says.
    pub terms: Terms,
    /// The lowest price taken for a slot and hour; equal to the listed price if it is fixed.
    pub floor_slot_hour: Amount,
    /// Who may rent.
    pub accept: Accept,
    /// How far what is due may run ahead of what is acknowledged, as so much time at the lease's price.
    pub credit: Millis,
    /// Time between receipts, unless the renter asks for another.
    pub tick: Millis,
    /// The longest contract.
    pub max_term: Millis,
    /// How the machine is reached.
    pub reachability: Reachability,
}

/// What the host makes of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// No.
    Reject(Reject),
    /// Not at that price, but at this one, for all slots and an hour.
    Counter {
        /// The price.
        price_hour: Amount,
        /// The listed one.
        listed_hour: Amount,
    },
    /// Yes, at this price, if the image can be had.
    Draft {
        /// The price for all slots and an hour.
        price_hour: Amount,
        /// What is granted.
        resources: Resources,
        /// When the contract ends.
        ends_at: Timestamp,
    },
}

/// Decides on a proposal for an ask of `offer`, of whose slots `free` are free.
#[must_use]
pub fn decide(
    setup: &HostSetup,
    offer: &Offer,
    free: u16,
    renter: &NodeId,
    proposal: &Proposal,
    now: Timestamp,
) -> Decision {
    match consider(setup, offer, free, renter, proposal, now) {
        Ok(decision) => decision,
        Err(reject) => Decision::Reject(reject),
    }
}

fn consider(
    setup: &HostSetup,
    offer: &Offer,
    free: u16,
    renter: &NodeId,
    p: &Proposal,
    now: Timestamp,
) -> Result<Decision, Reject> {
    p.check().map_err(|e| Reject::lasting(RejectCode::Malformed, e.0))?;
    if !setup.accept.takes(renter) {
        let sentence =
            format!("this host rents to peers its owner has named; ask the owner to run: souk host accept {renter}");
        return Err(Reject::lasting(RejectCode::NotAccepted, sentence));
    }
    let slots = offer
        .slots_of(&p.ask)
        .ok_or_else(|| Reject::passing(RejectCode::Stale, "this ask is no longer offered; search again"))?;
    if slots > free {
        return Err(Reject::passing(RejectCode::Taken, format!("{slots} slots are asked for and {free} are free")));
    }
    if !offer.terms.egress.contains(&p.egress) {
        return Err(Reject::lasting(RejectCode::Terms, "this host does not grant that egress"));
    }
    let total = offer.availability.slots_total;
    let resources = Resources::share(&offer.hardware, offer.class(), slots, total, p.disk_mb).ok_or_else(|| {
        let most = offer.hardware.disk_mb.saturating_mul(u64::from(slots)) / u64::from(total.max(1));
        Reject::lasting(
            RejectCode::NoDisk,
            format!("{} MB of disk are asked for; these slots carry {most} MB", p.disk_mb),
        )
    })?;
    let ends_at = contract_end(setup, p, now)?;
    if let Some(ceiling) = p.max_spend {
        let overflow = |_| Reject::lasting(RejectCode::Terms, "the price of so much disk does not fit");
        let reserve = LeaseDraft::disk_reserve(&rates_of(&offer.terms), p.disk_mb).map_err(overflow)?;
        if ceiling <= reserve {
            let sentence = format!(
                "a limit of {ceiling} leaves nothing for compute: keeping the disk for {} after the end costs {reserve}",
                limits::DISK_KEPT
            );
            return Err(Reject::lasting(RejectCode::Terms, sentence));
        }
    }
    let times = |rate: Amount| rate.0.checked_mul(u64::from(slots)).map(Amount);
    let overflow = || Reject::lasting(RejectCode::Terms, "the price of so many slots does not fit");
    let listed_hour = times(offer.terms.slot_hour).ok_or_else(overflow)?;
    let floor_hour = times(setup.floor_slot_hour.min(offer.terms.slot_hour)).ok_or_else(overflow)?;
    if p.price_hour >= floor_hour {
        return Ok(Decision::Draft { price_hour: p.price_hour.min(listed_hour), resources, ends_at });
    }
    if p.round + 1 >= limits::ROUNDS {
        return Err(Reject::lasting(
            RejectCode::Price,
            format!("the price is {listed_hour}/h, and no agreement was found in {} rounds", limits::ROUNDS),
        ));
    }
    // From the listed price towards the floor, a third of the way a round: nobody gains by opening lower.
    let room = listed_hour.0 - floor_hour.0;
    let price_hour = Amount(listed_hour.0 - room / 3 * u64::from(p.round.min(3)));
    Ok(Decision::Counter { price_hour: if p.round >= 3 { floor_hour } else { price_hour }, listed_hour })
}

const fn rates_of(terms: &Terms) -> Rates {
    Rates {
        compute_hour: Amount::ZERO,
        storage_gb_month: terms.storage_gb_month,
        up_gb: terms.up_gb,
        down_gb: terms.down_gb,
    }
}

fn contract_end(setup: &HostSetup, p: &Proposal, now: Timestamp) -> Result<Timestamp, Reject> {
    let longest = now + setup.max_term.min(Millis(limits::TERM.0 - limits::COMMIT_WITHIN.0));
    // A lease must end after the last moment to open it.
    let shortest = Millis(1000);
    let latest = setup.terms.latest_end.map_or(longest, |end| end.min(longest));
    let end = match p.term {
        Some(term) if now + term > latest => {
            let sentence = format!("a term of {term} is asked for; this host grants at most {}", latest.since(now));
            return Err(Reject::lasting(RejectCode::Terms, sentence));
        }
        Some(term) => now + term,
        None => latest,
    };
    let enough = if p.term.is_some() { shortest } else { limits::COMMIT_WITHIN };
    if end < now + enough {
        return Err(Reject::lasting(RejectCode::Terms, "this machine's offer is about to end"));
    }
    Ok(end)
}

/// What the renter bids after a counter-offer: the counter if it is within the limit, else half way between its last bid and
/// the limit. None if the limit was bid already: there is no agreement to be had.
#[must_use]
pub fn next_bid(last: Amount, limit: Amount, counter: Amount) -> Option<Amount> {
    if counter <= limit {
        return Some(counter);
    }
    if last >= limit {
        return None;
    }
    let half = Amount(last.0 + (limit.0 - last.0) / 2);
    // The last steps are not worth a round.
    Some(if half.0 - last.0 < limit.0 / 20 { limit } else { half })
}
