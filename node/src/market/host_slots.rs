//! Who is on this machine: its slots, its offer, and the bids on it, as `souk host show` prints them.

use souk_protocol::machine::{auction::Bid, host_lease::HostLease};

use super::task::Market;
use crate::{
    api::types::{BidView, OfferView, SlotHolder, SlotView},
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
                None if elsewhere.contains(&n) || held.get(n).is_some_and(|s| s.foreign) => SlotHolder::Elsewhere,
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

    /// The leases that bid for slots, in the order in which they are served.
    pub(super) fn bid_views(&self) -> Vec<BidView> {
        let mut bids: Vec<(Bid, &HostLease)> =
            self.engine.host().leases().values().filter_map(|held| Some((held.bid()?, held))).collect();
        bids.sort_by(|(a, _), (b, _)| a.order(b));
        (1..)
            .zip(bids)
            .map(|(rank, (bid, held))| BidView {
                rank,
                number: self.meta.get(&bid.lease).map_or(0, |meta| meta.number),
                lease: bid.lease,
                renter: held.draft().renter,
                slots: bid.slots,
                price_hour: bid.price_hour,
                slot_hour: held.slot_hour(),
                currency: held.draft().currency.clone(),
                bid_at_ms: bid.at,
                state: held.state(),
                since_ms: held.since(),
            })
            .collect()
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
            volume_mb: self.host.as_ref().map_or(0, crate::host::HostSide::volume_mb),
            volume_free_mb: offer.availability.volume_mb,
        })
    }
}
