//! What a host takes and what a renter gives: prices, peers, terms.
//!
//! Pure functions of a proposal, the offer and the owner's settings. They decide; the host's and renter's machines act.

use crate::{
    Amount, MachineId, Millis, NodeId, SshKey, Timestamp, Verified,
    lease::LeaseDraft,
    limits,
    machine::pricing::OwnerAsked,
    message::Extension,
    money::Rates,
    negotiation::{NO_IMAGE, Proposal, Reject, RejectCode, RentalType},
    offer::{Offer, Reachability, Terms, Window},
    owner::Membership,
    ports::PublicPorts,
    resources::{Egress, Hardware, Resources},
    terms::{Change, LeaseTerms},
};

pub use super::accept::Accept;

/// A machine on offer, as its owner set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSetup {
    /// Whether it is offered now. Leases keep their slots if not.
    pub listed: bool,
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
    /// What the owner is asked beside.
    pub asked: OwnerAsked,
    /// How far what is due may run ahead of what is acknowledged, as so much time at the lease's price.
    pub credit: Millis,
    /// Time between receipts, unless the renter asks for another.
    pub tick: Millis,
    /// The longest contract.
    pub max_term: Millis,
    /// Disk for volumes, taken or not, in MB. It is no part of `hardware`.
    pub volume_mb: u64,
    /// Slots kept for the host's own work: bids give way to it, signed contracts at a fixed price do not.
    pub hold: u16,
    /// When the machine is maintained: no new contract crosses a window, and nothing runs in one.
    pub maintenance: Vec<Window>,
    /// How the machine is reached.
    pub reachability: Reachability,
    /// Whose it is, if not the host's own. Left out of offers once it ends.
    pub membership: Option<Verified<Membership>>,
    /// The key of its SSH server, named in every lease.
    pub ssh_host_key: SshKey,
    /// Ports of its public address that instances may have.
    pub public: Option<PublicPorts>,
}

impl HostSetup {
    /// The membership that offers made at `now` carry: none once it is about to end.
    #[must_use]
    pub fn membership_at(&self, now: Timestamp) -> Option<&Verified<Membership>> {
        self.membership.as_ref().filter(|m| m.holds_at(now) && now + limits::MEMBERSHIP_LEAST < m.valid_until)
    }
}

/// What becomes of the open leases of who is removed from a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRemoval {
    /// They end at once, disk and all.
    #[default]
    Ends,
    /// They go on till their contracts end, and are not extended.
    RunsOut,
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
        /// The same without the discount of a reservation.
        listed_hour: Amount,
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
    if let Some(refusal) = setup.accept.refusal(renter) {
        return Err(refusal);
    }
    let slots = offer
        .slots_of(&p.ask)
        .ok_or_else(|| Reject::passing(RejectCode::Stale, "this ask is no longer offered; search again"))?;
    if p.rental.is_firm() && slots > free {
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
    check_ceiling(&offer.terms, p)?;
    let times = |rate: Amount| rate.0.checked_mul(u64::from(slots)).map(Amount);
    let overflow = || Reject::lasting(RejectCode::Terms, "the price of so many slots does not fit");
    let listed_hour = times(offer.terms.slot_hour).ok_or_else(overflow)?;
    let asked_hour = asked_hour(&offer.terms, slots, p.rental).ok_or_else(overflow)?;
    let floor_hour = match p.rental {
        RentalType::OnDemand => times(setup.floor_slot_hour.min(offer.terms.slot_hour)).ok_or_else(overflow)?,
        RentalType::Interruptible | RentalType::Reserved => asked_hour,
    };
    if p.price_hour >= floor_hour {
        // A bid is what it says; a fixed price is never more than is asked for.
        let fixed = p.price_hour.min(asked_hour);
        let price_hour = if p.rental.is_firm() { fixed } else { p.price_hour };
        return Ok(Decision::Draft { price_hour, listed_hour, resources, ends_at });
    }
    if p.rental != RentalType::OnDemand {
        return Ok(Decision::Counter { price_hour: asked_hour, listed_hour });
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

/// Decides on a proposal for a volume of `offer`'s machine, on which `free_mb` MB are left for volumes.
#[must_use]
pub fn decide_volume(
    setup: &HostSetup,
    offer: &Offer,
    free_mb: u64,
    renter: &NodeId,
    p: &Proposal,
    now: Timestamp,
) -> Decision {
    let considered = || {
        p.check().map_err(|e| Reject::lasting(RejectCode::Malformed, e.0))?;
        if let Some(refusal) = setup.accept.refusal(renter) {
            return Err(refusal);
        }
        let plain = p.rental == RentalType::OnDemand && p.egress == Egress::None && p.image == NO_IMAGE;
        if !plain || !p.ports.is_empty() || p.price_hour != Amount::ZERO {
            return Err(Reject::lasting(RejectCode::Malformed, "a volume is disk at a fixed price, and nothing else"));
        }
        if setup.volume_mb == 0 {
            return Err(Reject::lasting(RejectCode::NoDisk, "this host keeps no volumes"));
        }
        if p.disk_mb < limits::VOLUME_LEAST_MB {
            let sentence = format!("the smallest volume has {} MB", limits::VOLUME_LEAST_MB);
            return Err(Reject::lasting(RejectCode::NoDisk, sentence));
        }
        if p.disk_mb > free_mb {
            let sentence = format!("{} MB are asked for; {free_mb} MB are left for volumes", p.disk_mb);
            return Err(Reject::passing(RejectCode::NoDisk, sentence));
        }
        let ends_at = latest_end(setup, p, None, now)?;
        check_ceiling(&offer.terms, p)?;
        let resources = Resources::volume(p.disk_mb);
        Ok(Decision::Draft { price_hour: Amount::ZERO, listed_hour: Amount::ZERO, resources, ends_at })
    };
    considered().unwrap_or_else(Decision::Reject)
}

/// What an offer asks for so many slots and an hour, rented so; of an interruptible rental the lowest bid. None if it does not
/// fit.
#[must_use]
pub fn asked_hour(terms: &Terms, slots: u16, rental: RentalType) -> Option<Amount> {
    let slot_hour = match rental {
        RentalType::OnDemand | RentalType::Reserved => terms.slot_hour,
        RentalType::Interruptible => terms.min_bid_slot_hour,
    };
    let whole = slot_hour.0.checked_mul(u64::from(slots))?;
    if rental != RentalType::Reserved {
        return Some(Amount(whole));
    }
    let kept = u128::from(1000u16.saturating_sub(terms.reserved_discount));
    u64::try_from(u128::from(whole) * kept / 1000).ok().map(Amount)
}

/// What a host wants for a later end of a lease, for all its slots and an hour: the price at which the same is rented out now.
///
/// # Errors
/// Why it grants no later end.
pub fn extension_price(
    setup: Option<&HostSetup>,
    maintenance: Option<Window>,
    draft: &LeaseDraft,
    terms: &LeaseTerms,
    ends_at: Timestamp,
    now: Timestamp,
) -> Result<Amount, Reject> {
    let no = |sentence: String| Err(Reject::passing(RejectCode::Terms, sentence));
    let Some(setup) = setup.filter(|s| s.machine == draft.machine) else {
        return no("the machine is not offered any more, so the contract ends as agreed".to_owned());
    };
    let longest = now + setup.max_term;
    let latest = setup.terms.latest_end.map_or(longest, |end| end.min(longest));
    let latest = maintenance.filter(|_| !draft.is_volume()).map_or(latest, |w| w.from.min(latest));
    if ends_at > latest {
        return no(format!("this host grants contracts for {} more at most", latest.since(now)));
    }
    if setup.terms.currency != draft.currency {
        return no("the host rents out in another currency now".to_owned());
    }
    if draft.rental == RentalType::Interruptible {
        return Ok(terms.compute_hour);
    }
    asked_hour(&setup.terms, draft.resources.slots, draft.rental)
        .map_or_else(|| no("the price of so many slots does not fit".to_owned()), Ok)
}

/// Whether the host agrees to a change its renter wants. `asked` is a longer contract that the host has asked for itself.
///
/// # Errors
/// Why it does not.
pub fn agree(
    setup: Option<&HostSetup>,
    maintenance: Option<Window>,
    draft: &LeaseDraft,
    terms: &LeaseTerms,
    asked: Option<Extension>,
    change: &Change,
    now: Timestamp,
) -> Result<(), Reject> {
    match *change {
        Change::Bid { compute_hour } => {
            let least = setup.map_or(Some(Amount::ZERO), |setup| {
                asked_hour(&setup.terms, draft.resources.slots, RentalType::Interruptible)
            });
            match least {
                Some(least) if compute_hour >= least => Ok(()),
                least => {
                    let least = least.unwrap_or(Amount(u64::MAX));
                    Err(Reject::passing(RejectCode::Price, format!("the lowest bid for these slots is {least}/h")))
                }
            }
        }
        Change::Extend { ends_at, compute_hour } => {
            // Where another price is agreed on already, that one holds in the time that is added.
            let paid = compute_hour.filter(|_| terms.next.is_none()).unwrap_or_else(|| terms.last_price());
            let offered = asked.filter(|a| now < a.valid_until && ends_at <= a.ends_at && paid >= a.compute_hour);
            if offered.is_some() {
                return Ok(());
            }
            let price = extension_price(setup, maintenance, draft, terms, ends_at, now)?;
            if paid >= price {
                return Ok(());
            }
            Err(Reject::passing(RejectCode::Price, format!("the host wants {price}/h for a later end")))
        }
        Change::Ceiling { .. } | Change::AutoExtend { .. } => Ok(()),
    }
}

fn check_ceiling(terms: &Terms, p: &Proposal) -> Result<(), Reject> {
    let Some(ceiling) = p.max_spend else { return Ok(()) };
    let overflow = |_| Reject::lasting(RejectCode::Terms, "the price of so much disk does not fit");
    let reserve = LeaseDraft::disk_reserve(&rates_of(terms), p.disk_mb).map_err(overflow)?;
    if ceiling > reserve {
        return Ok(());
    }
    let sentence = format!(
        "a limit of {ceiling} leaves nothing to use: keeping the disk for {} after the end costs {reserve}",
        limits::DISK_KEPT
    );
    Err(Reject::lasting(RejectCode::Terms, sentence))
}

const fn rates_of(terms: &Terms) -> Rates {
    Rates {
        compute_hour: Amount::ZERO,
        storage_gb_month: terms.storage_gb_month,
        up_gb: terms.up_gb,
        down_gb: terms.down_gb,
    }
}

/// No contract on slots crosses a window of maintenance.
fn contract_end(setup: &HostSetup, p: &Proposal, now: Timestamp) -> Result<Timestamp, Reject> {
    let window = setup.maintenance.iter().filter(|w| w.until > now).min();
    if window.is_some_and(|w| w.holds(now)) {
        return Err(Reject::passing(RejectCode::Unavailable, "the machine is being maintained; try again later"));
    }
    latest_end(setup, p, window, now)
}

fn latest_end(setup: &HostSetup, p: &Proposal, window: Option<&Window>, now: Timestamp) -> Result<Timestamp, Reject> {
    let longest = now + setup.max_term.min(Millis(limits::TERM.0 - limits::COMMIT_WITHIN.0));
    // A lease must end after the last moment to open it.
    let shortest = Millis(1000);
    let latest = setup.terms.latest_end.map_or(longest, |end| end.min(longest));
    let latest = window.map_or(latest, |w| w.from.min(latest));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        machine::testkit::{self, NOW, key, offer, proposal, setup},
        money::Counters,
    };

    const LISTED: u64 = 1_000_000_000;
    const FLOOR: u64 = 700_000_000;

    fn answer(setup: &HostSetup, free: u16, p: &Proposal) -> Decision {
        let mut offer = offer(1, 1, NOW);
        offer.terms = setup.terms.clone();
        decide(setup, &offer, free, &key(2).node_id(), p, NOW)
    }

    fn code(decision: Decision) -> RejectCode {
        let Decision::Reject(reject) = &decision else { panic!("not refused: {decision:?}") };
        reject.code
    }

    #[test]
    fn a_fixed_price_is_the_price() {
        let fixed = HostSetup { floor_slot_hour: Amount(LISTED), ..setup() };
        for round in 0..limits::ROUNDS - 1 {
            let decision = answer(&fixed, 4, &proposal(Amount(LISTED - 1), round));
            assert_eq!(decision, Decision::Counter { price_hour: Amount(LISTED), listed_hour: Amount(LISTED) });
        }
        let last = proposal(Amount(LISTED - 1), limits::ROUNDS - 1);
        assert_eq!(code(answer(&fixed, 4, &last)), RejectCode::Price);
        // Bidding more than is asked for costs no more.
        let Decision::Draft { price_hour, .. } = answer(&fixed, 4, &proposal(Amount(LISTED * 3), 0)) else {
            panic!("no draft")
        };
        assert_eq!(price_hour, Amount(LISTED));
    }

    #[test]
    fn a_contract_that_gets_dearer_is_extended_at_the_price_agreed_on() {
        let (setup, draft) = (setup(), crate::machine::testkit::draft(None, Amount(0)));
        let terms = LeaseTerms::drafted(&draft);
        let agreed = |terms: &LeaseTerms, hours, compute_hour| {
            let ends_at = draft.ends_at + Millis::from_hours(hours);
            agree(Some(&setup), None, &draft, terms, None, &Change::Extend { ends_at, compute_hour }, NOW)
        };
        let price = extension_price(Some(&setup), None, &draft, &terms, draft.ends_at + Millis(1), NOW).unwrap();
        let cheap = LeaseTerms { compute_hour: Amount(price.0 - 1), ..terms };
        assert!(agreed(&cheap, 1, None).is_err() && agreed(&cheap, 1, Some(price)).is_ok());
        let next = Some(crate::terms::NextPrice { from: draft.ends_at, compute_hour: price });
        assert!(agreed(&LeaseTerms { next, ..cheap }, 2, None).is_ok());
    }

    #[test]
    fn a_floor_takes_what_is_above_it_and_comes_down_to_it_in_rounds() {
        let Decision::Draft { price_hour, .. } = answer(&setup(), 4, &proposal(Amount(FLOOR), 0)) else {
            panic!("no draft")
        };
        assert_eq!(price_hour, Amount(FLOOR));
        let counters: Vec<u64> = (0..5)
            .map(|round| {
                let decision = answer(&setup(), 4, &proposal(Amount(1), round));
                let Decision::Counter { price_hour, .. } = decision else { panic!("{decision:?}") };
                price_hour.0
            })
            .collect();
        assert_eq!(counters, [LISTED, 900_000_000, 800_000_000, FLOOR, FLOOR]);
    }

    #[test]
    fn what_the_host_does_not_grant_is_refused_by_name() {
        let price = Amount(LISTED);
        assert_eq!(code(answer(&setup(), 0, &proposal(price, 0))), RejectCode::Taken);
        let greedy = Proposal { disk_mb: 100_001, ..proposal(price, 0) };
        assert_eq!(code(answer(&setup(), 4, &greedy)), RejectCode::NoDisk);
        let long = Proposal { term: Some(Millis::from_hours(101)), ..proposal(price, 0) };
        assert_eq!(code(answer(&setup(), 4, &long)), RejectCode::Terms);
        let poor = Proposal { max_spend: Some(Amount(1)), ..proposal(price, 0) };
        assert_eq!(code(answer(&setup(), 4, &poor)), RejectCode::Terms, "a ceiling under the price of the disk");
        let (peers, by) = (BTreeSet::new(), vec![key(3).node_id()]);
        let conditions = [
            Accept::Peers(peers.clone()),
            Accept::Attested { peers: peers.clone(), by },
            Accept::Trusted { peers, least: 1 },
        ];
        for accept in conditions {
            let picky = HostSetup { accept, ..setup() };
            assert_eq!(code(answer(&picky, 4, &proposal(price, 0))), RejectCode::NotAccepted);
            let mut friend = picky;
            if let Accept::Peers(peers) | Accept::Attested { peers, .. } | Accept::Trusted { peers, .. } =
                &mut friend.accept
            {
                peers.insert(key(2).node_id());
            }
            assert!(
                matches!(answer(&friend, 4, &proposal(price, 0)), Decision::Draft { .. }),
                "the named may in any case"
            );
        }
        let other = Proposal { egress: crate::resources::Egress::Internet, ..proposal(price, 0) };
        assert_eq!(code(answer(&setup(), 4, &other)), RejectCode::Terms);
        let mut ending = setup();
        ending.terms.latest_end = Some(NOW + Millis::from_secs(30));
        assert_eq!(code(answer(&ending, 4, &proposal(price, 0))), RejectCode::Terms);
        let short = Proposal { term: Some(Millis::from_secs(20)), ..proposal(price, 0) };
        let Decision::Draft { ends_at, .. } = answer(&ending, 4, &short) else { panic!("no draft") };
        assert_eq!(ends_at, NOW + Millis::from_secs(20), "never past the offer's latest end");
    }

    proptest! {
        /// Two honest sides agree exactly if the renter's limit is at least the floor, for no more than the limit, within the
        /// rounds there are.
        #[test]
        fn negotiations_end(first in 1u64..2_000_000_000, limit in 1u64..2_000_000_000, floor in 1u64..=LISTED) {
            let host = HostSetup { floor_slot_hour: Amount(floor), ..setup() };
            let limit = Amount(limit);
            let mut bid = Amount(first).min(limit);
            let mut agreed = None;
            for round in 0..limits::ROUNDS {
                match answer(&host, 4, &proposal(bid, round)) {
                    Decision::Draft { price_hour, .. } => {
                        agreed = Some(price_hour);
                        break;
                    }
                    Decision::Counter { price_hour, .. } => match next_bid(bid, limit, price_hour) {
                        Some(next) => {
                            prop_assert!(next >= bid.min(price_hour) && next <= limit);
                            bid = next;
                        }
                        None => break,
                    },
                    Decision::Reject(reject) => {
                        prop_assert_eq!(reject.code, RejectCode::Price);
                        break;
                    }
                }
            }
            prop_assert_eq!(agreed.is_some(), limit >= Amount(floor));
            prop_assert!(agreed.is_none_or(|price| price <= limit && price >= Amount(floor) && price.0 <= LISTED));
        }

        #[test]
        fn no_price_is_too_strange_to_bid(last in any::<u64>(), limit in any::<u64>(), counter in any::<u64>()) {
            if let Some(next) = next_bid(Amount(last), Amount(limit), Amount(counter)) {
                prop_assert!(next.0 <= limit);
            }
        }
    }

    #[test]
    fn a_longer_contract_is_paid_at_the_price_that_will_hold_in_it() {
        let setup = setup();
        let draft = testkit::draft(None, Amount(0));
        let terms = LeaseTerms::drafted(&draft);
        let half = Amount(LISTED / 2);
        let end = |hours| draft.ends_at + Millis::from_hours(hours);
        let cheap = Change::Extend { ends_at: end(1), compute_hour: Some(half) };
        let terms = terms.changed(&draft, &cheap, &Counters::default(), NOW).unwrap();
        for compute_hour in [None, Some(Amount(LISTED))] {
            let more = Change::Extend { ends_at: end(9), compute_hour };
            let agreed = agree(Some(&setup), None, &draft, &terms, None, &more, NOW);
            assert_eq!(agreed.unwrap_err().code, RejectCode::Price, "it would cost half of what is asked");
        }
    }
}
