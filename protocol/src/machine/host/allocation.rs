//! Who gets the machine's slots: fixed prices first, the host's own work next, then bids in their order.
//!
//! Owns the decision; who holds what is in [`Slots`](super::Slots), what a decision does to a lease is the lease's. Nothing is
//! started before its slots are free and locked against the machine's other nodes.

use super::Host;
use crate::{
    Amount, LeaseId, NodeId, Timestamp,
    lease::{LeaseState, PauseReason},
    limits,
    machine::{
        auction::{Auction, Bid},
        context::Context,
        host_lease::{HostLease, contending::Winner},
        io::Output,
    },
    message::SliceQuote,
    negotiation::RentalType,
    offer::{Offer, Window},
};

/// How the owner shares the machine out, listed or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Slots kept for the host's own work.
    pub(super) hold: u16,
    /// The lowest bid for a slot and an hour.
    pub(super) min_bid: Amount,
    /// When nothing runs.
    pub(super) maintenance: Vec<Window>,
}

/// What the last sharing out was made from: while it is the same, nobody's rank changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    capacity: u16,
    bids: Vec<Bid>,
    waiting: Vec<LeaseId>,
}

impl Host {
    /// Slots that are this node's to give.
    fn usable(&self) -> u16 {
        self.slots.total().saturating_sub(self.slots.foreign())
    }

    /// Slots of leases at a fixed price, and of opens that wait for their locks.
    fn firm(&self) -> u16 {
        let firm = |l: &&HostLease| l.draft().rental.is_firm() && (l.wants_slots() || l.holds_slots());
        let leases: u16 =
            self.leases.values().filter(firm).fold(0, |sum, l| sum.saturating_add(l.draft().resources.slots));
        leases.saturating_add(self.slots.held_by_others(|lease| self.leases.contains_key(lease)))
    }

    /// Slots to be had at the fixed price now.
    pub(super) fn firm_free(&self) -> u16 {
        self.usable().saturating_sub(self.firm()).saturating_sub(self.sharing.hold)
    }

    /// Slots left to bids.
    fn capacity(&self) -> u16 {
        self.firm_free()
    }

    /// Whether so many slots at a fixed price are free right now, and nobody waits for them.
    pub(super) fn has_free_now(&self, slots: u16) -> bool {
        let waiting = self.waiting_firm().into_iter().filter_map(|id| self.leases.get(&id));
        let promised = waiting.fold(0u16, |sum, l| sum.saturating_add(l.draft().resources.slots));
        self.slots.free() >= slots.saturating_add(promised)
    }

    fn auction(&self) -> Auction {
        Auction::new(self.leases.values().filter_map(HostLease::bid).collect())
    }

    /// Why no more bids of this renter are taken, if they aren't.
    pub(super) fn bids_full(&self, renter: &NodeId) -> Option<&'static str> {
        let bids = || self.leases.values().filter(|l| l.bid().is_some());
        let waiting = bids().filter(|l| l.draft().renter == *renter && self.slots.of(&l.id()).is_empty());
        if bids().count() >= limits::WAITING_BIDS {
            Some("too many bids wait for this machine")
        } else if waiting.count() >= limits::WAITING_BIDS_OF_RENTER {
            Some("too many bids of yours wait for this machine; destroy or stop some")
        } else {
            None
        }
    }

    /// The window the machine is in, if it is maintained now.
    pub(super) fn maintained(&self, now: Timestamp) -> Option<Window> {
        self.sharing.maintenance.iter().find(|w| w.holds(now)).copied()
    }

    /// The first window that is not over.
    pub(super) fn next_maintenance(&self, now: Timestamp) -> Option<Window> {
        self.sharing.maintenance.iter().filter(|w| w.until > now).min().copied()
    }

    /// When the next window begins or ends.
    pub(super) fn maintenance_due(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.sharing.maintenance.iter().flat_map(|w| [w.from, w.until]);
        ends.filter(|at| *at > now).min()
    }

    /// Whether slots of this lease are on their way to it, or from it.
    fn is_moving(&self, lease: &LeaseId) -> bool {
        self.locking.contains_key(lease)
            || self.restarting.contains_key(lease)
            || self.relocking.contains(lease)
            || self.starting.contains_key(lease)
    }

    /// Whether a lease wants slots, has none, and none are on their way.
    fn waits(&self, lease: &HostLease) -> bool {
        let state = matches!(
            lease.state(),
            LeaseState::Preparing | LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance)
        );
        state && lease.wants_slots() && self.slots.of(&lease.id()).is_empty() && !self.is_moving(&lease.id())
    }

    /// The leases at a fixed price that wait, oldest first.
    fn waiting_firm(&self) -> Vec<LeaseId> {
        let mut waiting: Vec<&HostLease> =
            self.leases.values().filter(|l| l.draft().rental.is_firm() && self.waits(l)).collect();
        waiting.sort_by_key(|l| (l.accept().time, l.id()));
        waiting.into_iter().map(HostLease::id).collect()
    }

    /// Shares the machine out anew: tells who must leave, and gives free slots to those whose turn it is.
    pub(super) fn share_out(&mut self, cx: &mut Context, now: Timestamp) {
        if !self.ready {
            return;
        }
        self.announce_maintenance(cx, now);
        if self.maintained(now).is_some() {
            for lease in self.leases.values_mut() {
                lease.maintain(cx, true, now);
            }
        } else {
            let auction = self.auction();
            let capacity = self.capacity();
            let winners = auction.winners(capacity);
            self.displace(cx, &auction, &winners, now);
            self.tell_ranks(cx, &auction, capacity, now);
            self.give_slots(cx, &auction, &winners);
        }
        self.unlock_unused(cx);
        self.tell_idle(cx, now);
    }

    fn displace(
        &mut self,
        cx: &mut Context,
        auction: &Auction,
        winners: &std::collections::BTreeSet<LeaseId>,
        now: Timestamp,
    ) {
        let firm = self.waiting_firm().into_iter().next_back().and_then(|id| self.leases.get(&id));
        let first = auction.bids().iter().find(|b| winners.contains(&b.lease) && self.slots.of(&b.lease).is_empty());
        let winner = match (firm, first) {
            (Some(lease), _) => Winner { lease: Some(lease.id()), slot_hour: lease.slot_hour() },
            (None, Some(bid)) => Winner { lease: Some(bid.lease), slot_hour: bid.slot_hour() },
            (None, None) => Winner { lease: None, slot_hour: Amount::ZERO },
        };
        for bid in auction.bids() {
            let holds = !self.slots.of(&bid.lease).is_empty() || self.is_moving(&bid.lease);
            let Some(lease) = self.leases.get_mut(&bid.lease) else { continue };
            if winners.contains(&bid.lease) {
                lease.keep(cx, now);
            } else if holds {
                lease.evict(cx, winner, now);
            } else if lease.state() == LeaseState::Preparing {
                lease.wait_outbid(cx, "others have the slots now".to_owned(), now);
            }
            self.settle_slots(bid.lease);
        }
    }

    fn tell_ranks(&mut self, cx: &mut Context, auction: &Auction, capacity: u16, now: Timestamp) {
        let outbid = LeaseState::Paused(PauseReason::Outbid);
        let waiting = self.leases.values().filter(|l| l.state() == outbid).map(HostLease::id).collect();
        let shared = Shared { capacity, bids: auction.bids().to_vec(), waiting };
        if self.shared == shared {
            return;
        }
        self.shared = shared;
        for bid in auction.bids() {
            let rank = auction.rank(capacity, &bid.lease, self.sharing.min_bid);
            if let Some(lease) = self.leases.get_mut(&bid.lease) {
                let waits = lease.state() == outbid;
                lease.ranked(cx, rank.filter(|_| waits), now);
            }
        }
    }

    fn give_slots(&mut self, cx: &mut Context, auction: &Auction, winners: &std::collections::BTreeSet<LeaseId>) {
        if !self.runtime_up {
            return;
        }
        let bids = auction.bids().iter().map(|b| b.lease).filter(|lease| winners.contains(lease));
        let waiting: Vec<LeaseId> = self.waiting_firm().into_iter().chain(bids).collect();
        for lease in waiting {
            let Some(held) = self.leases.get(&lease).filter(|l| self.waits(l) && !l.is_stopping()) else {
                continue;
            };
            let Some(slots) = self.slots.pick_like(held.draft().resources.slots, &held.last_slots()) else {
                continue;
            };
            if self.slots.take(lease, &slots) {
                self.starting.insert(lease, slots.clone());
                cx.out(Output::LockSlots { lease, slots });
                self.dirty = true;
            }
        }
    }

    /// The locks of a waiting lease's slots are ours, and it starts, or another node's, and it waits on.
    pub(super) fn start_locked(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        slots: Vec<u16>,
        locked: bool,
        now: Timestamp,
    ) {
        self.dirty = true;
        let ours = self.slots.of(&lease) == slots;
        let devices = self.slots.devices(&slots);
        let held = self.leases.get_mut(&lease).filter(|l| l.wants_slots() && !l.is_stopping());
        match held.filter(|_| locked && ours && self.runtime_up) {
            Some(held) => held.begin(cx, slots, devices, now),
            None => {
                self.slots.release(&lease);
                if locked {
                    self.unlocking.extend(slots);
                } else {
                    self.slots.mark_foreign(&slots);
                }
            }
        }
    }

    /// Other nodes of this machine hold these slots now.
    pub(in super::super) fn foreign(&mut self, cx: &mut Context, slots: &[u16], now: Timestamp) {
        let before = self.slots.foreign();
        self.slots.set_foreign(slots);
        self.dirty |= before != self.slots.foreign();
        self.share_out(cx, now);
    }

    /// Unlocks what was released and not given to anybody since.
    fn unlock_unused(&mut self, cx: &mut Context) {
        let released = std::mem::take(&mut self.unlocking);
        let unused = |n: &u16| self.slots.all().get(usize::from(*n)).is_none_or(|s| s.lease.is_none());
        let slots: Vec<u16> = released.into_iter().filter(unused).collect();
        if !slots.is_empty() {
            cx.out(Output::UnlockSlots { slots });
        }
    }

    /// Tells where the host's own job may run: on slots nobody has, but for those kept for the host's other work.
    fn tell_idle(&mut self, cx: &mut Context, now: Timestamp) {
        let mut slots = self.slots.unheld();
        let kept = slots.len().saturating_sub(usize::from(self.sharing.hold));
        slots.truncate(kept);
        if !self.runtime_up || self.maintained(now).is_some() {
            slots.clear();
        }
        if self.idle != slots {
            self.idle.clone_from(&slots);
            let devices = self.slots.devices(&slots);
            cx.out(Output::Idle { slots, devices });
        }
    }

    fn announce_maintenance(&mut self, cx: &mut Context, now: Timestamp) {
        if let Some(window) = self.next_maintenance(now) {
            for lease in self.leases.values_mut() {
                lease.announce_maintenance(cx, window, now);
            }
        }
    }

    /// What it takes to win slots, for each size the machine is sold in.
    pub(super) fn slice_quotes(&self, offer: &Offer) -> Vec<SliceQuote> {
        let (auction, capacity) = (self.auction(), self.capacity());
        let price = |slots, rental| super::asked_hour(&offer.terms, slots, rental);
        let quote = |slots| {
            let min_bid = price(slots, RentalType::Interruptible)?;
            Some(SliceQuote {
                slots,
                to_win: auction.price_to_win(capacity, slots, min_bid, None),
                min_bid,
                on_demand: price(slots, RentalType::OnDemand).filter(|_| slots <= capacity),
                bids: u16::try_from(auction.bids().iter().filter(|b| b.slots == slots).count()).unwrap_or(u16::MAX),
            })
        };
        offer.slices().into_iter().filter_map(quote).collect()
    }
}
