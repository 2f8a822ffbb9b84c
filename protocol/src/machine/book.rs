//! The offer book: the newest notice of each machine we have heard of.
//!
//! Owns which notices are kept, for how long, and the verdict on each that comes in. Does no searching.

use std::collections::{BTreeMap, BTreeSet};

use super::io::Verdict;
use crate::{
    DocumentId, MachineId, Millis, NetworkId, NodeId, Timestamp, Verified,
    id::{AskId, Digest},
    key::PublicKey,
    limits,
    message::BookItem,
    offer::{Notice, Offer, Withdrawal},
    signed::{Document, VerifyError},
};

/// What a notice is looked up by before its id is computed: a part of its signature.
type Mark = [u8; 16];

/// One machine of one host.
pub type MachineKey = (NodeId, MachineId);

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intake {
    /// Taken in: it is the machine's newest.
    New(MachineKey),
    /// We have it.
    Known,
    /// We have a newer one.
    Superseded,
    /// Its time is past.
    Expired,
    /// Its time is yet to come.
    FutureDated,
    /// Its author says too much.
    TooOften,
    /// No room, or too many machines of this host.
    Full,
    /// It does not verify, here or anywhere.
    Invalid(VerifyError),
}

impl Intake {
    /// What gossip does with it: only what is wrong everywhere and always is blamed on the sender.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::New(_) => Verdict::Accept,
            Self::Invalid(_) => Verdict::Reject,
            Self::Known | Self::Superseded | Self::Expired | Self::FutureDated | Self::TooOften | Self::Full => {
                Verdict::Ignore
            }
        }
    }
}

/// A notice that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The machine is offered.
    Offer(Verified<Offer>),
    /// It is not.
    Withdrawal(Verified<Withdrawal>),
}

impl Known {
    fn id(&self) -> DocumentId {
        match self {
            Self::Offer(o) => o.id(),
            Self::Withdrawal(w) => w.id(),
        }
    }

    fn mark(&self) -> Mark {
        match self {
            Self::Offer(o) => o.mark(),
            Self::Withdrawal(w) => w.mark(),
        }
    }

    /// Whether these are its very bytes.
    fn is(&self, notice: &Notice) -> bool {
        match (self, notice) {
            (Self::Offer(known), Notice::Offer(signed)) => known.is(signed),
            (Self::Withdrawal(known), Notice::Withdrawal(signed)) => known.is(signed),
            (Self::Offer(_), Notice::Withdrawal(_)) | (Self::Withdrawal(_), Notice::Offer(_)) => false,
        }
    }

    fn key(&self) -> MachineKey {
        match self {
            Self::Offer(o) => (o.host, o.machine),
            Self::Withdrawal(w) => (w.host, w.machine),
        }
    }

    fn seq(&self) -> u64 {
        match self {
            Self::Offer(o) => o.seq,
            Self::Withdrawal(w) => w.seq,
        }
    }

    fn issued_at(&self) -> Timestamp {
        match self {
            Self::Offer(o) => o.issued_at,
            Self::Withdrawal(w) => w.issued_at,
        }
    }

    /// A tombstone stays as long as an offer it ends could be valid.
    fn kept_until(&self) -> Timestamp {
        match self {
            Self::Offer(o) => o.valid_until,
            Self::Withdrawal(w) => w.issued_at + limits::OFFER_LIFE + limits::CLOCK_SKEW,
        }
    }

    fn slices(&self) -> Vec<u16> {
        match self {
            Self::Offer(o) => o.slices(),
            Self::Withdrawal(_) => Vec::new(),
        }
    }

    fn notice(&self) -> Notice {
        match self {
            Self::Offer(o) => Notice::Offer(o.to_signed()),
            Self::Withdrawal(w) => Notice::Withdrawal(w.to_signed()),
        }
    }

    /// A withdrawal outranks an offer of the same number; else the lower id wins, so that all books agree.
    fn beats(&self, other: &Self) -> bool {
        let rank = |k: &Self| (k.seq(), matches!(k, Self::Withdrawal(_)), std::cmp::Reverse(k.id()));
        rank(self) > rank(other)
    }
}

#[derive(Debug)]
struct Listing {
    known: Known,
    /// Notices this machine may still send at once, and when that was counted.
    allowance: u32,
    counted_at: Timestamp,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    network: NetworkId,
    capacity: usize,
    listings: BTreeMap<MachineKey, Listing>,
    ids: BTreeMap<DocumentId, MachineKey>,
    /// Most notices come several times: the very same bytes are known without hashing them. Of two notices with one mark the
    /// later is held here, which costs the other no more than its hash.
    marks: BTreeMap<Mark, MachineKey>,
    expiry: BTreeSet<(Timestamp, MachineKey)>,
    keys: BTreeMap<NodeId, (PublicKey, usize)>,
    asks: BTreeMap<AskId, MachineKey>,
    root: [u8; 32],
}

impl Book {
    /// An empty book of at most `capacity` machines.
    #[must_use]
    pub const fn new(network: NetworkId, capacity: usize) -> Self {
        Self {
            network,
            capacity,
            listings: BTreeMap::new(),
            ids: BTreeMap::new(),
            marks: BTreeMap::new(),
            expiry: BTreeSet::new(),
            keys: BTreeMap::new(),
            asks: BTreeMap::new(),
            root: [0; 32],
        }
    }

    /// Takes in a notice, or says why not. `solicited` ones, that we asked for, are not counted against their author's rate.
    pub fn take(&mut self, notice: &Notice, solicited: bool, now: Timestamp) -> Intake {
        let mark = match notice {
            Notice::Offer(o) => o.mark(),
            Notice::Withdrawal(w) => w.mark(),
        };
        let held = self.marks.get(&mark).and_then(|key| self.listings.get(key));
        if held.is_some_and(|listing| listing.known.is(notice)) {
            return Intake::Known;
        }
        let id = match notice {
            Notice::Offer(o) => o.id(&self.network),
            Notice::Withdrawal(w) => w.id(&self.network),
        };
        if self.ids.contains_key(&id) {
            return Intake::Known;
        }
        let keys = &self.keys;
        let mut used = None;
        let key = |node: &NodeId| {
            let key = keys.get(node).map_or_else(|| PublicKey::of(node), |(key, _)| Ok(*key));
            used = key.ok();
            key
        };
        let known = match notice {
            Notice::Offer(o) => {
                // A machine's next offer carries the same membership as the last, as a rule.
                let known = |new: &Offer| {
                    self.offer(&(new.host, new.machine)).is_some_and(|held| held.membership == new.membership)
                };
                o.verify_identified(&self.network, id, key, known).map(Known::Offer)
            }
            Notice::Withdrawal(w) => w.verify_identified(&self.network, id, key, |_| false).map(Known::Withdrawal),
        };
        match known {
            Ok(known) => self.insert_of(known, used, solicited, now),
            Err(error) => Intake::Invalid(error),
        }
    }

    /// Takes in a verified notice, ours for one.
    pub fn insert(&mut self, known: Known, solicited: bool, now: Timestamp) -> Intake {
        self.insert_of(known, None, solicited, now)
    }

    /// As [`Book::insert`], with its author's key where that is at hand.
    fn insert_of(&mut self, known: Known, used: Option<PublicKey>, solicited: bool, now: Timestamp) -> Intake {
        let key = known.key();
        if known.issued_at() > now + limits::CLOCK_SKEW {
            return Intake::FutureDated;
        }
        if known.kept_until() <= now {
            return Intake::Expired;
        }
        let mut allowance = limits::OFFER_BURST;
        let mut counted_at = now;
        match self.listings.get(&key) {
            Some(listing) => {
                if !known.beats(&listing.known) {
                    return if known.id() == listing.known.id() { Intake::Known } else { Intake::Superseded };
                }
                let earned = now.since(listing.counted_at).0 / limits::OFFER_INTERVAL.0;
                allowance =
                    u32::try_from(u64::from(listing.allowance) + earned).unwrap_or(u32::MAX).min(limits::OFFER_BURST);
                counted_at = if earned > 0 { now } else { listing.counted_at };
                if !solicited {
                    let Some(left) = allowance.checked_sub(1) else {
                        return Intake::TooOften;
                    };
                    allowance = left;
                }
            }
            None => {
                let machines = self.keys.get(&key.0).map_or(0, |(_, machines)| *machines);
                if self.listings.len() >= self.capacity || machines >= limits::MACHINES_PER_HOST {
                    return Intake::Full;
                }
            }
        }
        let public = match used.or_else(|| self.keys.get(&key.0).map(|(public, _)| *public)) {
            Some(public) => public,
            None => match PublicKey::of(&key.0) {
                Ok(public) => public,
                Err(bad) => return Intake::Invalid(VerifyError::Key(Offer::NAME, bad)),
            },
        };
        // Most offers replace one that is cut the same way: its asks stay.
        let before = self.listings.get(&key).map(|l| l.known.slices()).unwrap_or_default();
        let after = known.slices();
        self.unlist(&key);
        if before != after {
            self.drop_asks(&key, &before);
            for slots in after {
                // An id already there is another machine's by a crafted collision: the first one keeps it.
                self.asks.entry(AskId::of(&key.0, &key.1, slots)).or_insert(key);
            }
        }
        self.keys.entry(key.0).or_insert((public, 0)).1 += 1;
        self.toggle(&known.id());
        self.ids.insert(known.id(), key);
        self.marks.insert(known.mark(), key);
        self.expiry.insert((known.kept_until(), key));
        self.listings.insert(key, Listing { known, allowance, counted_at });
        Intake::New(key)
    }

    /// Drops what has ended by `now`, and says which machines that were.
    pub fn expire(&mut self, now: Timestamp) -> Vec<MachineKey> {
        let mut gone = Vec::new();
        while let Some((_, key)) = self.expiry.first().filter(|(at, _)| *at <= now).copied() {
            self.remove(&key);
            gone.push(key);
        }
        gone
    }

    /// When the next notice ends.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.expiry.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, key: &MachineKey) {
        if let Some(slices) = self.listings.get(key).map(|l| l.known.slices()) {
            self.drop_asks(key, &slices);
        }
        self.unlist(key);
    }

    fn drop_asks(&mut self, key: &MachineKey, slices: &[u16]) {
        for slots in slices {
            let ask = AskId::of(&key.0, &key.1, *slots);
            if self.asks.get(&ask) == Some(key) {
                self.asks.remove(&ask);
            }
        }
    }

    fn unlist(&mut self, key: &MachineKey) {
        let Some(old) = self.listings.remove(key) else {
            return;
        };
        let id = old.known.id();
        self.toggle(&id);
        self.ids.remove(&id);
        let mark = old.known.mark();
        if self.marks.get(&mark) == Some(key) {
            self.marks.remove(&mark);
        }
        self.expiry.remove(&(old.known.kept_until(), *key));
        if let Some((_, machines)) = self.keys.get_mut(&key.0) {
            *machines -= 1;
            if *machines == 0 {
                self.keys.remove(&key.0);
            }
        }
    }

    fn toggle(&mut self, id: &DocumentId) {
        for (a, b) in self.root.iter_mut().zip(id.0) {
            *a ^= b;
        }
    }

    /// The machine's offer, if it is offered.
    #[must_use]
    pub fn offer(&self, key: &MachineKey) -> Option<&Verified<Offer>> {
        match &self.listings.get(key)?.known {
            Known::Offer(offer) => Some(offer),
            Known::Withdrawal(_) => None,
        }
    }

    /// Whether its host has taken the machine back, as far as that is remembered.
    #[must_use]
    pub fn is_withdrawn(&self, key: &MachineKey) -> bool {
        self.listings.get(key).is_some_and(|l| matches!(l.known, Known::Withdrawal(_)))
    }

    /// All offers, in the order of host and machine.
    pub fn offers(&self) -> impl Iterator<Item = &Verified<Offer>> {
        self.listings.values().filter_map(|l| match &l.known {
            Known::Offer(offer) => Some(offer),
            Known::Withdrawal(_) => None,
        })
    }

    /// The offers of this host.
    pub fn offers_of(&self, host: &NodeId) -> impl Iterator<Item = &Verified<Offer>> {
        self.listings.range(super::regard::machines_of(*host)).filter_map(|(_, listing)| match &listing.known {
            Known::Offer(offer) => Some(offer),
            Known::Withdrawal(_) => None,
        })
    }

    /// Whether a machine of this host is offered.
    #[must_use]
    pub fn offers_any_of(&self, host: &NodeId) -> bool {
        self.offers_of(host).next().is_some()
    }

    /// The offer that has this ask, and the ask's size in slots.
    #[must_use]
    pub fn find_ask(&self, ask: &AskId) -> Option<(&Verified<Offer>, u16)> {
        let offer = self.offer(self.asks.get(ask)?)?;
        Some((offer, offer.slots_of(ask)?))
    }

    /// Count and root: equal for equal books.
    #[must_use]
    pub fn summary(&self) -> (u64, Digest) {
        (self.listings.len() as u64, Digest(self.root))
    }

    /// A page of the index, and whether there is more.
    #[must_use]
    pub fn page(&self, after: Option<MachineKey>) -> (Vec<BookItem>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.listings.range((from, Unbounded));
        let items = rest.by_ref().take(limits::BOOK_PAGE).map(|((host, machine), l)| BookItem {
            host: *host,
            machine: *machine,
            seq: l.known.seq(),
            id: l.known.id(),
        });
        let items = items.collect();
        (items, rest.next().is_some())
    }

    /// Whether a peer's notice would replace ours.
    #[must_use]
    pub fn lacks(&self, item: &BookItem) -> bool {
        match self.listings.get(&(item.host, item.machine)) {
            // At the same number it may be a withdrawal, which outranks an offer whatever its id.
            Some(l) => item.seq > l.known.seq() || (item.seq == l.known.seq() && item.id != l.known.id()),
            None => true,
        }
    }

    /// Whether a notice of this id is the newest of its machine here.
    #[must_use]
    pub fn holds(&self, id: &DocumentId) -> bool {
        self.ids.contains_key(id)
    }

    /// Notices by id, those we have.
    #[must_use]
    pub fn fetch(&self, ids: &[DocumentId]) -> Vec<Notice> {
        let keys = ids.iter().take(limits::BOOK_FETCH).filter_map(|id| self.ids.get(id));
        keys.filter_map(|key| Some(self.listings.get(key)?.known.notice())).collect()
    }

    /// How long until an author of one notice every so often may send the next.
    #[must_use]
    pub const fn author_interval() -> Millis {
        limits::OFFER_INTERVAL
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::machine::testkit::{NOW, key, network, offer};

    fn signed(host: u8, machine: u8, seq: u64, issued: Timestamp) -> Known {
        let offer = Offer { machine: MachineId([machine; 16]), ..offer(host, seq, issued) };
        Known::Offer(Verified::sign(offer, &key(host), &network()).unwrap())
    }

    fn withdrawn(host: u8, machine: u8, seq: u64, issued_at: Timestamp) -> Known {
        let withdrawal = Withdrawal { host: key(host).node_id(), machine: MachineId([machine; 16]), seq, issued_at };
        Known::Withdrawal(Verified::sign(withdrawal, &key(host), &network()).unwrap())
    }

    #[test]
    fn asks_are_found_by_id_and_go_with_their_offer() {
        let mut book = Book::new(network(), 10);
        book.insert(signed(1, 1, 1, NOW), true, NOW);
        let host = key(1).node_id();
        for slots in [1, 2, 4] {
            let ask = AskId::of(&host, &MachineId([1; 16]), slots);
            assert_eq!(book.find_ask(&ask).map(|(o, n)| (o.seq, n)), Some((1, slots)));
        }
        book.insert(signed(1, 1, 2, NOW), true, NOW);
        let ask = AskId::of(&host, &MachineId([1; 16]), 2);
        assert_eq!(book.find_ask(&ask).map(|(o, _)| o.seq), Some(2));
        book.insert(withdrawn(1, 1, 2, NOW), true, NOW);
        assert!(book.find_ask(&ask).is_none() && book.asks.is_empty());
        assert_eq!(book.insert(signed(1, 1, 2, NOW), true, NOW), Intake::Superseded);
    }

    #[test]
    fn what_has_ended_is_dropped_and_nothing_is_left_of_it() {
        let mut book = Book::new(network(), 10);
        book.insert(signed(1, 1, 1, NOW), true, NOW);
        book.insert(signed(2, 1, 1, NOW), true, NOW);
        assert_eq!(book.expire(book.next_expiry().unwrap()).len(), 2);
        assert_eq!(book.summary(), (0, Digest([0; 32])));
        assert!(
            book.ids.is_empty()
                && book.marks.is_empty()
                && book.keys.is_empty()
                && book.asks.is_empty()
                && book.next_expiry().is_none()
        );
    }

    #[test]
    fn a_full_book_takes_no_more() {
        let mut book = Book::new(network(), 2);
        for host in 1..=2 {
            assert!(matches!(book.insert(signed(host, 1, 1, NOW), false, NOW), Intake::New(_)));
        }
        assert_eq!(book.insert(signed(3, 1, 1, NOW), false, NOW), Intake::Full);
        assert!(matches!(book.insert(signed(2, 1, 2, NOW), false, NOW), Intake::New(_)), "what it has may be replaced");
    }

    proptest! {
        /// Whatever order notices come in, every book ends up the same.
        #[test]
        fn books_agree_whatever_the_order(
            notices in proptest::collection::vec((1u8..3, 1u8..3, 0u64..4, any::<bool>(), 0u64..3), 1..16),
            seed in any::<u64>(),
        ) {
            let make = |(host, machine, seq, gone, ms): &(u8, u8, u64, bool, u64)| {
                let issued = Timestamp(NOW.0 - ms);
                if *gone { withdrawn(*host, *machine, *seq, issued) } else { signed(*host, *machine, *seq, issued) }
            };
            let known: Vec<Known> = notices.iter().map(make).collect();
            let mut shuffled = known.clone();
            let mut state = seed | 1;
            for i in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(i, usize::try_from(state >> 33).unwrap() % (i + 1));
            }
            let fill = |notices: Vec<Known>| {
                let mut book = Book::new(network(), 100);
                for notice in notices {
                    book.insert(notice, true, NOW);
                }
                book
            };
            let (a, b) = (fill(known), fill(shuffled));
            prop_assert_eq!(a.summary(), b.summary());
            prop_assert_eq!(a.page(None), b.page(None));
            prop_assert!(a.page(None).0.iter().all(|item| !b.lacks(item)));
            prop_assert_eq!(a.asks.keys().collect::<Vec<_>>(), b.asks.keys().collect::<Vec<_>>());
        }
    }
}
