//! Whether what a host has signed is what its renter bid for.

use super::Negotiation;
use crate::{
    Amount, Millis, NodeId, Timestamp, lease::LeaseDraft, limits, machine::policy, negotiation::RentalType,
    offer::Offer, resources::Resources,
};

/// How far the host's clock may differ from ours in a draft.
const CLOCKS: Millis = limits::CLOCK_SKEW;

/// What an offer asks for so many slots and an hour, rented so; of an interruptible rental the lowest bid.
pub(super) fn asked_hour(offer: &Offer, slots: u16, rental: RentalType) -> Option<Amount> {
    policy::asked_hour(&offer.terms, slots, rental)
}

/// Whether a draft is what was bid for, word by word.
pub(super) fn check_draft(
    n: &Negotiation,
    d: &LeaseDraft,
    from: NodeId,
    me: NodeId,
    now: Timestamp,
) -> Result<(), &'static str> {
    let asked = |rental| asked_hour(&n.offer, n.slots, rental);
    let want = |holds: bool, what: &'static str| if holds { Ok(()) } else { Err(what) };
    let terms = &n.offer.terms;
    let (_, workload) = n.wish.workload.to_bytes();
    let granted = if n.wish.volume {
        Some(Resources::volume(n.wish.disk_mb))
    } else {
        let total = n.offer.availability.slots_total;
        Resources::share(&n.offer.hardware, n.offer.class(), n.slots, total, n.wish.disk_mb)
    };
    want(d.host == from && d.renter == me && d.nonce == n.wish.nonce, "it is for somebody else")?;
    want(d.machine == n.offer.machine && d.ask == n.wish.ask && d.offer == n.offer.id(), "it is for another ask")?;
    want(granted.as_ref() == Some(&d.resources), "it grants other resources")?;
    want(d.egress == n.wish.egress, "it grants another egress")?;
    let ports = match &d.public {
        Some(access) => access.grants(&n.wish.ports),
        None => n.wish.ports.is_empty(),
    };
    want(ports, "it grants other public ports")?;
    want(d.currency == terms.currency, "it is in another currency")?;
    want(d.rental == n.wish.rental, "it is another type of rental")?;
    want(d.rates.compute_hour <= n.bid, "its price is above the bid")?;
    let fair =
        d.rental != RentalType::Reserved || asked(RentalType::OnDemand).is_some_and(|listed| d.listed_hour <= listed);
    want(fair, "its undiscounted price is above the offer's")?;
    want(
        d.notice >= terms.eviction_notice && d.quantum >= terms.quantum,
        "its notice or quantum is below the offer's",
    )?;
    let until = n.wish.extend.map(|extend| d.ends_at + extend);
    want(d.extend_until == until, "it may be extended by another time than we allow")?;
    let side = d.rates.storage_gb_month <= terms.storage_gb_month
        && d.rates.up_gb <= terms.up_gb
        && d.rates.down_gb <= terms.down_gb;
    want(side, "its storage or traffic prices are above the offer's")?;
    want(d.max_spend == n.wish.max_spend, "its ceiling is another")?;
    want(n.wish.tick.is_none_or(|t| d.tick == t), "its tick is another")?;
    want(d.workload == workload, "it is for another workload")?;
    want(d.image.reference == n.wish.image, "it is for another image")?;
    want(n.wish.image_digest.as_ref().is_none_or(|digest| *digest == d.image.digest), "its image has another digest")?;
    let clock = d.drafted_at <= now + CLOCKS && now <= d.drafted_at + CLOCKS;
    want(clock, "the two clocks differ by more than two minutes")?;
    want(now < d.commit_by + CLOCKS, "its last moment is past")?;
    want(
        d.confirm_by <= now + limits::COMMIT_WITHIN + limits::CONFIRM_WITHIN + CLOCKS,
        "it asks us to wait for too long",
    )?;
    let term = n
        .wish
        .term
        .is_none_or(|t| d.ends_at + CLOCKS >= now + t && d.ends_at <= now + t + limits::COMMIT_WITHIN + CLOCKS);
    want(term, "its end is not the one asked for")
}
