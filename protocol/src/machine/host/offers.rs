//! What the host says of its machine: offers, at the rate others take, and the withdrawal.

use super::{Host, HostSetup, allocation::Sharing};
use crate::{
    MachineId, Millis, NodeId, Timestamp, Verified,
    id::Digest,
    limits,
    machine::{
        book::{Book, Known},
        context::Context,
        io::Output,
        record::{Private, Record},
    },
    offer::{Availability, Notice, Offer, Withdrawal},
};

/// Offers of ours that a proposal may still name, if what they say is what we say today.
const RECENT_OFFERS: usize = 8;
/// Between two of our notices once the burst is used up: what others count, and what one may be longer on its way than the next.
const INTERVAL: Millis = Millis(limits::OFFER_INTERVAL.0 + 500);
/// An offer that ends early, with its membership, is replaced this long before.
const RENEW_BEFORE_END: Millis = Millis::from_mins(1);

impl Host {
    /// Offers the machine so, or withdraws it. Signed leases are not touched.
    pub(in super::super) fn configure(
        &mut self,
        cx: &mut Context,
        book: &mut Book,
        setup: Option<HostSetup>,
        now: Timestamp,
    ) {
        match setup {
            Some(setup) => {
                self.cut(&setup.slots);
                self.sharing = Sharing {
                    hold: setup.hold,
                    min_bid: setup.terms.min_bid_slot_hour,
                    maintenance: setup.maintenance.clone(),
                };
                if !setup.listed {
                    return self.withdraw(cx, book, now);
                }
                self.setup = Some(setup);
                self.retry_at = Timestamp(0);
                self.dirty = true;
            }
            None => self.withdraw(cx, book, now),
        }
    }

    fn withdraw(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        let Some(setup) = self.setup.take() else {
            return;
        };
        self.dirty = false;
        self.recent.clear();
        if self.offer.take().is_none() {
            return;
        }
        self.offer_seq += 1;
        let withdrawal = Withdrawal { host: cx.me(), machine: setup.machine, seq: self.offer_seq, issued_at: now };
        let Some(withdrawal) = cx.sign(withdrawal) else { return };
        self.count_notice(now);
        let ticket = cx.persist(Record::Private(Private::OfferSeq(self.offer_seq)));
        self.offer_ticket = Some(ticket);
        book.insert(Known::Withdrawal(withdrawal.clone()), true, now);
        cx.out(Output::BookChanged { key: (cx.me(), setup.machine) });
        cx.out(Output::Publish { notice: Box::new(Notice::Withdrawal(withdrawal.to_signed())), after: Some(ticket) });
    }

    /// Issues an offer if one is due.
    pub(in super::super) fn publish(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        // A ledger that was restored from an older copy has forgotten numbers that others remember.
        let machine = self.setup.as_ref().map(|s| (cx.me(), s.machine));
        let known = machine.and_then(|key| book.offer(&key)).map_or(0, |offer| offer.seq);
        if known > self.offer_seq {
            self.offer_seq = known;
            self.dirty = true;
        }
        if self.publish_at().is_none_or(|at| now < at) {
            return;
        }
        self.count_notice(now);
        let Some(setup) = &self.setup else { return };
        let mut terms = setup.terms.clone();
        terms.accepts = setup.accept.public();
        let membership = setup.membership_at(now);
        let valid_until = membership.map_or(Timestamp(u64::MAX), |m| m.valid_until).min(now + limits::OFFER_LIFE);
        let offer = Offer {
            host: cx.me(),
            machine: setup.machine,
            seq: self.offer_seq + 1,
            issued_at: now,
            valid_until,
            membership: membership.map(Verified::to_signed),
            hardware: setup.hardware.clone(),
            terms,
            availability: Availability {
                slots_total: self.slots.total(),
                slots_free: self.firm_free(),
                volume_mb: self.volume_free_mb(),
                reachability: setup.reachability,
                maintenance: self.next_maintenance(now),
                ports_free: self.ports_free(),
            },
        };
        self.dirty = false;
        self.published_at = now;
        self.renew_at = (now + renew_every(cx.me(), &offer.machine)).min(before(valid_until, RENEW_BEFORE_END));
        self.retry_at = now + limits::OFFER_LULL;
        let Some(offer) = cx.sign(offer) else { return };
        self.retry_at = Timestamp(0);
        self.offer_seq += 1;
        let ticket = cx.persist(Record::Private(Private::OfferSeq(self.offer_seq)));
        self.offer_ticket = Some(ticket);
        book.insert(Known::Offer(offer.clone()), true, now);
        cx.out(Output::BookChanged { key: (offer.host, offer.machine) });
        if self.recent.len() >= RECENT_OFFERS {
            self.recent.pop_front();
        }
        self.recent.push_back(offer.clone());
        cx.out(Output::Publish { notice: Box::new(Notice::Offer(offer.to_signed())), after: Some(ticket) });
        self.offer = Some(offer);
    }

    /// Counts a notice of ours as the books of others do, withdrawals too: an offer they would not take is held back.
    fn count_notice(&mut self, now: Timestamp) {
        let earned = u32::try_from(now.since(self.counted_at).0 / INTERVAL.0).unwrap_or(u32::MAX);
        let left = self.allowance.saturating_add(earned).min(limits::OFFER_BURST).checked_sub(1);
        // A withdrawal does not wait; what comes after one that was too early does.
        if earned > 0 || left.is_none() {
            self.counted_at = now;
        }
        self.allowance = left.unwrap_or(0);
    }

    /// When the next offer is due, if the machine is offered: what matters to a renter at once, the rest after a while, and
    /// always as far as the rate that others take allows.
    pub(super) fn publish_at(&self) -> Option<Timestamp> {
        let setup = self.setup.as_ref().filter(|_| self.runtime_up)?;
        let allowed = if self.allowance > 0 { Timestamp(0) } else { self.counted_at + INTERVAL };
        let due = match &self.offer {
            None => Timestamp(0),
            Some(offer) if self.dirty && self.is_urgent(setup, offer) => Timestamp(0),
            Some(_) if self.dirty => self.renew_at.min(self.published_at + limits::OFFER_LULL),
            Some(_) => self.renew_at,
        };
        Some(due.max(allowed).max(self.retry_at))
    }

    fn is_urgent(&self, setup: &HostSetup, offer: &Offer) -> bool {
        let (said, free) = (&offer.availability, self.firm_free());
        let mut terms = setup.terms.clone();
        terms.accepts = setup.accept.public();
        (said.slots_free == 0) != (free == 0)
            || (said.volume_mb == 0) != (self.volume_free_mb() == 0)
            || said.slots_total != self.slots.total()
            || said.reachability != setup.reachability
            || offer.terms != terms
            || offer.hardware != setup.hardware
            || offer.machine != setup.machine
            || offer.membership != setup.membership_at(self.latest).map(Verified::to_signed)
    }
}

const fn before(at: Timestamp, length: Millis) -> Timestamp {
    Timestamp(at.0.saturating_sub(length.0))
}

/// Ten minutes, spread by ±20 % over machines, so that renewals don't come in waves.
fn renew_every(host: NodeId, machine: &MachineId) -> Millis {
    let spread = u64::from(Digest::of(&[host.0.as_slice(), machine.0.as_slice()].concat()).0[0]);
    Millis(limits::OFFER_REPUBLISH.0 * (80 + spread * 40 / 255) / 100)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::{
        HostId, OwnerId, Timestamp,
        machine::book::Intake,
        machine::testkit::{NOW, context, key, network, outputs, setup},
        offer::Offer,
        owner::Membership,
    };

    fn membership(valid_until: Timestamp) -> Verified<Membership> {
        let owner = OwnerId(key(9).node_id().0);
        let membership = Membership { owner, node: key(1).node_id(), machine: None, issued_at: NOW, valid_until };
        Verified::sign(membership, &key(9), &network()).unwrap()
    }

    fn published(cx: &mut Context) -> Vec<Verified<Offer>> {
        let notices = outputs(cx).into_iter().filter_map(|o| match o {
            Output::Publish { notice, .. } => Some(*notice),
            _ => None,
        });
        notices
            .filter_map(|n| match n {
                Notice::Offer(offer) => Some(offer.verify(&network()).unwrap()),
                Notice::Withdrawal(_) => None,
            })
            .collect()
    }

    #[test]
    fn an_offer_ends_with_its_membership_and_the_next_is_the_hosts_own() {
        let (mut cx, mut book) = (context(), Book::new(network(), 10));
        let mut host = Host::new(0, None, NOW);
        let ends = NOW + Millis::from_mins(9);
        let setup = HostSetup { membership: Some(membership(ends)), ..setup() };
        host.configure(&mut cx, &mut book, Some(setup), NOW);
        host.runtime(&mut cx, true, NOW);
        host.tick(&mut cx, &mut book, NOW);
        let offers = published(&mut cx);
        assert_eq!(offers.len(), 1);
        assert_eq!((offers[0].host_id(), offers[0].valid_until), (HostId::Owner(OwnerId(key(9).node_id().0)), ends));
        // It is replaced before it ends, so the machine is on the market all the time.
        let at = host.publish_at().unwrap();
        assert!(at < ends, "{at:?}");
        host.tick(&mut cx, &mut book, at);
        let offers = published(&mut cx);
        assert_eq!((offers.len(), offers[0].host_id()), (1, HostId::Node(key(1).node_id())));
        assert!(offers[0].valid_until > ends);
        assert!(host.publish_at().unwrap() > at + Millis::from_mins(5), "and not at once again");
    }

    #[test]
    fn no_offer_is_made_that_others_would_not_take() {
        let (mut cx, mut book, mut theirs) = (context(), Book::new(network(), 10), Book::new(network(), 10));
        let mut host = Host::new(0, None, NOW);
        host.runtime(&mut cx, true, NOW);
        let mut taken = |cx: &mut Context, now: Timestamp| {
            let notices = outputs(cx).into_iter().filter_map(|o| match o {
                Output::Publish { notice, .. } => Some(*notice),
                _ => None,
            });
            notices.for_each(|n| assert!(matches!(theirs.take(&n, false, now), Intake::New(_)), "at {now:?}"));
        };
        // Listed and unlisted twice at once, which is all that others take; the third offer waits until they do.
        for _ in 0..2 {
            host.configure(&mut cx, &mut book, Some(setup()), NOW);
            host.tick(&mut cx, &mut book, NOW);
            host.configure(&mut cx, &mut book, None, NOW);
            taken(&mut cx, NOW);
        }
        host.configure(&mut cx, &mut book, Some(setup()), NOW);
        let at = host.publish_at().unwrap();
        assert_eq!(at, NOW + INTERVAL);
        host.tick(&mut cx, &mut book, at);
        taken(&mut cx, at);
        // A withdrawal that others may be too early for is told nonetheless, and the next offer comes later.
        host.configure(&mut cx, &mut book, None, at);
        outputs(&mut cx);
        host.configure(&mut cx, &mut book, Some(setup()), at);
        assert_eq!(host.publish_at(), Some(at + INTERVAL));
    }

    #[test]
    fn another_membership_is_told_at_once() {
        let (mut cx, mut book) = (context(), Book::new(network(), 10));
        let mut host = Host::new(0, None, NOW);
        host.runtime(&mut cx, true, NOW);
        host.configure(&mut cx, &mut book, Some(setup()), NOW);
        host.tick(&mut cx, &mut book, NOW);
        assert_eq!(published(&mut cx).len(), 1);
        let owned = HostSetup { membership: Some(membership(NOW + Millis::from_hours(1))), ..setup() };
        host.configure(&mut cx, &mut book, Some(owned), NOW);
        host.tick(&mut cx, &mut book, NOW);
        assert_eq!(published(&mut cx).len(), 1);
        host.configure(&mut cx, &mut book, Some(setup()), NOW);
        host.tick(&mut cx, &mut book, NOW);
        assert!(published(&mut cx)[0].membership.is_none());
    }
}
