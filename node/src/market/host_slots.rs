//! Who is on this machine: its slots, its offer, and the bids on it, as `souk host show` prints them.

use souk_protocol::negotiation::RentalType;

use super::task::Market;
use crate::{
    api::types::{BidView, LeaseView, OfferView, SlotHolder, SlotView},
    host::HostSide,
};

impl Market {
    /// Every slot there is: those of the present cut, and those beyond it that leases still hold.
    pub(super) fn slot_views(&self, host: &HostSide) -> Vec<SlotView> {
        let devices = host.devices();
        let held = self.engine.host().slots().all();
        let elsewhere = self.locks.elsewhere();
        let slot = |n: usize| {
            let device = devices.get(n).map_or_else(|| held.get(n).and_then(|s| s.device.clone()), |(d, _)| d.clone());
            let holder = match held.get(n).and_then(|s| s.lease) {
                Some(lease) => SlotHolder::Lease { lease },
                None if elsewhere.contains(&n) => SlotHolder::Elsewhere,
                None => SlotHolder::Free,
            };
            SlotView {
                slot: u16::try_from(n).unwrap_or(u16::MAX),
                device,
                gpu: devices.get(n).and_then(|(_, gpu)| gpu.clone()),
                listed: n < devices.len(),
                holder,
            }
        };
        (0..devices.len().max(held.len())).map(slot).collect()
    }

    /// The offer that is out.
    pub(super) fn offer_view(&self) -> Option<OfferView> {
        let offer = self.engine.host().offer()?;
        Some(OfferView {
            id: offer.id(),
            seq: offer.seq,
            issued_at_ms: offer.issued_at,
            valid_until_ms: offer.valid_until,
            slots_total: offer.availability.slots_total,
            slots_free: offer.availability.slots_free,
            slices: offer.slices(),
        })
    }
}

/// Bids by rank: the highest price for a slot first, then the older lease.
pub(super) fn bids(leases: &[LeaseView]) -> Vec<BidView> {
    let mut bids: Vec<&LeaseView> =
        leases.iter().filter(|l| l.rental != RentalType::OnDemand && !l.state.is_ended()).collect();
    let slot_hour = |l: &LeaseView| l.price_hour.0 / u64::from(l.resources.slots.max(1));
    bids.sort_by_key(|l| (std::cmp::Reverse(slot_hour(l)), l.number));
    (1..)
        .zip(bids)
        .map(|(rank, l)| BidView {
            rank,
            number: l.number,
            lease: l.lease,
            renter: l.peer,
            slots: l.resources.slots,
            slot_hour: souk_protocol::Amount(slot_hour(l)),
            currency: l.currency.clone(),
            state: l.state,
            since_ms: l.since_ms,
        })
        .collect()
}
