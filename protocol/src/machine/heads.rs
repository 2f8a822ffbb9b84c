//! Meetings: chain heads told, countersigned and compared, so that one key with two chains is found out, and one key on two
//! nodes stops one of them.
//!
//! Owns what peers have told of their heads lately, by peer and start of their node, and what is known of another start with our
//! own key. Bounded: [`WITNESSED`] peers, [`limits::INSTANCES`] starts of each. Entries are never asked for here: two heads are
//! enough for a proof, and entries are for their parties alone. Proofs that others hold are fetched in [`forks`]. What happens before the first signature is in [`super::guard`].

mod forks;
mod peers;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod together;

use std::collections::{BTreeMap, BTreeSet};

pub(super) use self::forks::{Origin, forked};
use self::{
    forks::Catching,
    peers::{Peers, Sighted},
};
use super::{
    context::{Asked, Context},
    forks::Concern,
    io::{Output, OwnKey, Token},
    record::{Private, Record},
};
use crate::{
    Keypair, Millis, NetworkId, NodeId, Nonce, Timestamp, Verified, encode,
    entry::Entry,
    fork::ForkProof,
    heads::{ChainHead, HeadReport, HeadSeen, Meet, Met},
    limits,
    message::{Request, Response},
    negotiation::{Reject, RejectCode},
    signed::Signed,
};

/// Each connected peer is met again about so often …
const EVERY: Millis = Millis::from_secs(60);
/// … but no more than one in this time.
const LEAST: Millis = Millis::from_secs(1);
/// A meeting at a negotiation is left out if there was one so shortly before.
const RECENT: Millis = Millis::from_secs(10);
/// A peer whose connection was lost is told once more that we are there: it may have closed it for another node with our key.
const LOST_AFTER: Millis = Millis(1_500);
/// Lost peers to be told at once.
const LOST: usize = 64;
/// Other peers asked about one with which something is about to be agreed.
const INQUIRED: usize = 3;

/// The one who signs with our key now, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) nonce: Nonce,
    pub(super) started: Timestamp,
}

/// Whether a node that shares our key goes first: one that signs already before one that does not, then the one that started
/// earlier, then the lower nonce.
pub(super) fn goes_first(other: &HeadReport, signing: bool, own: Instance) -> bool {
    let rank = |signing: bool, started: Timestamp, nonce: Nonce| (!signing, started, nonce);
    rank(other.signing, other.started, other.instance) < rank(signing, own.started, own.nonce)
}

/// A report of our own head, signed.
pub(super) fn report(
    key: &Keypair,
    network: &NetworkId,
    (own, signing): (Instance, bool),
    head: Option<ChainHead>,
    heard: Vec<Nonce>,
    now: Timestamp,
) -> Option<Verified<HeadReport>> {
    let author = key.node_id();
    let report = HeadReport {
        author,
        instance: own.nonce,
        started: own.started,
        signing,
        head,
        time: now,
        heard: capped(heard),
    };
    Verified::sign(report, key, network).ok()
}

/// Our countersignature of another's report.
pub(super) fn countersign(
    key: &Keypair,
    network: &NetworkId,
    report: &Verified<HeadReport>,
    now: Timestamp,
) -> Option<Verified<HeadSeen>> {
    let (witness, author) = (key.node_id(), report.author);
    let seen = HeadSeen { witness, author, report: report.id(), head: report.head, time: now };
    Verified::sign(seen, key, network).ok()
}

fn capped<T>(mut items: Vec<T>) -> Vec<T> {
    items.truncate(limits::INSTANCES);
    items
}

/// What the shell has looked up for a meeting, all of it durable.
#[derive(Debug, Clone, Default)]
pub struct LookedUp {
    /// Our own entries of the numbers asked about.
    pub own: Vec<ChainHead>,
    /// The newest entry held of the asker's chain, if it comes after the head it tells.
    pub newest: Option<Signed<Entry>>,
    /// The entry held of the asker that has the number of the head it tells, and is another.
    pub clash: Option<Signed<Entry>>,
    /// The proofs that the asker wants ([`crate::fork::ForksAsked::proofs`]), as far as they are held.
    pub proofs: Vec<ForkProof>,
}

/// All meetings.
#[derive(Debug)]
pub(super) struct Heads {
    own: Instance,
    peers: Peers,
    last_peer: Option<NodeId>,
    next_at: Timestamp,
    lost: BTreeMap<NodeId, Timestamp>,
    rival: Option<Timestamp>,
    catching: Catching,
}

impl Heads {
    /// The meetings of a node that has just started.
    pub(super) fn new(own: Instance, known: Vec<Verified<HeadReport>>, now: Timestamp) -> Self {
        let mut peers = Peers::default();
        for report in known {
            peers.remember(report, now);
        }
        Self {
            own,
            peers,
            last_peer: None,
            next_at: now + EVERY,
            lost: BTreeMap::new(),
            rival: None,
            catching: Catching::default(),
        }
    }

    /// When another node with our key was last heard of, which gives way to this one.
    pub(super) const fn rival(&self) -> Option<Timestamp> {
        self.rival
    }

    pub(super) fn connected(&mut self, cx: &mut Context, peer: NodeId, now: Timestamp) {
        self.lost.remove(&peer);
        cx.forked.raise(&peer, Concern::Seen);
        self.catching.newcomer(peer, cx, now);
        self.meet(cx, peer, now);
    }

    pub(super) fn disconnected(&mut self, peer: NodeId, now: Timestamp) {
        self.catching.disconnected(&peer);
        if self.peers.disconnected(&peer) && self.lost.len() < LOST {
            self.lost.insert(peer, now + LOST_AFTER);
        }
    }

    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        self.next_at = self.next_at.min(now + EVERY);
        for at in self.lost.values_mut() {
            *at = (*at).min(now + LOST_AFTER);
        }
        self.peers.clock_went_back(now);
        self.catching.clock_went_back(now);
    }

    pub(super) fn deadline(&self, cx: &Context) -> Option<(Timestamp, &'static str)> {
        let round = (self.next_at, "heads are compared");
        let round = Some(round).filter(|_| !cx.connected.is_empty() && !cx.chain.is_halted());
        let lost = self.lost.values().min().map(|at| (*at, "a lost peer is told that we are there"));
        let doubt = self.peers.deadline().map(|at| (at, "a key is looked for on two nodes"));
        let kept = self.peers.kept_deadline().map(|at| (at, "a peer's head is written down"));
        [round, lost, doubt, kept].into_iter().flatten().min()
    }

    pub(super) fn tick(&mut self, cx: &mut Context, now: Timestamp) {
        if cx.chain.is_halted() {
            self.lost.clear();
        }
        for report in self.peers.take_kept(now) {
            cx.persist(Record::Private(Private::Head(report.to_signed())));
        }
        for peer in self.peers.probes(now) {
            self.meet(cx, peer, now);
        }
        let lost: Vec<NodeId> = self.lost.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect();
        for peer in lost {
            self.lost.remove(&peer);
            self.meet(cx, peer, now);
        }
        if now < self.next_at {
            return;
        }
        let peers = u64::try_from(cx.connected.len()).unwrap_or(u64::MAX).max(1);
        self.next_at = now + Millis(EVERY.0 / peers).max(LEAST);
        let after = |peer: &&NodeId| self.last_peer.is_none_or(|last| **peer > last);
        if let Some(peer) = cx.connected.iter().find(after).or_else(|| cx.connected.first()).copied() {
            self.last_peer = Some(peer);
            self.meet(cx, peer, now);
        }
    }

    /// Meets a peer before something is agreed with it, unless it was met just now.
    pub(super) fn meet_before(&mut self, cx: &mut Context, peer: NodeId, now: Timestamp) {
        if self.peers.asked_at(&peer).is_none_or(|at| now >= at + RECENT) {
            self.meet(cx, peer, now);
        }
        // Others may know better of it than it says itself.
        if self.catching.may_inquire(peer, cx, now) {
            let others = || cx.connected.iter().filter(|other| **other != peer);
            let after = others().filter(|other| self.last_peer.is_none_or(|last| **other > last));
            let asked: BTreeSet<NodeId> = after.chain(others()).take(INQUIRED).copied().collect();
            for other in asked {
                self.last_peer = Some(other);
                self.meet(cx, other, now);
            }
        }
    }

    fn meet(&mut self, cx: &mut Context, peer: NodeId, now: Timestamp) {
        let Some(report) = self.report(cx, head_of(cx), Vec::new(), now) else { return };
        if !self.peers.may_ask(peer, now) {
            return;
        }
        let (known, at, yours) = self.peers.questions(&peer);
        let meet =
            Meet { report: report.to_signed(), known, at, yours, forks: self.catching.questions(&peer, cx, now) };
        cx.send(peer, Request::Meet(Box::new(meet)), cx.head_durable(), Asked::Meet);
    }

    fn report(
        &self,
        cx: &Context,
        head: Option<ChainHead>,
        heard: Vec<Nonce>,
        now: Timestamp,
    ) -> Option<Verified<HeadReport>> {
        if cx.chain.is_halted() {
            return None;
        }
        report(cx.chain.key(), cx.chain.network(), (self.own, true), head, heard, now)
    }

    /// A peer meets us.
    pub(super) fn meeting(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        meet: &Meet,
        looked_up: LookedUp,
        now: Timestamp,
    ) {
        let busy = Response::Busy { retry_after_ms: 5_000 };
        if cx.chain.is_halted() || !self.peers.may_be_asked(from, now) {
            return cx.reply(token, busy, None);
        }
        let Some(theirs) = cx.verify(from, &meet.report).filter(|r| r.author == from) else {
            let sentence = "the head is not signed by the one who tells it";
            return cx.reply(token, Response::Rejected(Reject::lasting(RejectCode::Malformed, sentence)), None);
        };
        self.examine(cx, from, &meet.yours, None, now);
        if let Some(entry) = looked_up.clash {
            forked(cx, ForkProof::Head(meet.report.clone(), entry), Concern::Dealt, Origin::Found);
        }
        self.sighted(cx, from, &theirs, now);
        let key = cx.chain.key();
        let (seen, own) = (countersign(key, cx.chain.network(), &theirs, now), head_of(cx));
        let report = self.report(cx, own, meet.known.clone(), now);
        let (Some(seen), Some(report)) = (seen, report) else {
            return cx.reply(token, busy, None);
        };
        let asked = looked_up.own.into_iter().filter(|head| meet.at.contains(&head.seq));
        let at = capped(asked.collect()).into_iter();
        let met = Met {
            report: report.to_signed(),
            at: at
                .filter_map(|head| match own {
                    // Of our newest entry that is the same report: it is not signed a second time.
                    Some(newest) if newest == head => Some(report.clone()),
                    Some(_) | None => self.report(cx, Some(head), meet.known.clone(), now),
                })
                .map(|r| r.to_signed())
                .collect(),
            seen: seen.to_signed(),
            yours: self.peers.evidence_for(&from, &theirs),
            newest: looked_up.newest,
            doubt: self.peers.doubts(&from, theirs.instance),
            forks: self.catching.answer(&from, cx, (self.own.nonce, &meet.forks), looked_up.proofs, now),
        };
        cx.reply(token, Response::Met(Box::new(met)), cx.head_durable());
        // Two starts of one key: each is asked, over whatever connection it is that leads there.
        for peer in self.peers.probes(now) {
            self.meet(cx, peer, now);
        }
    }

    /// The answer to a meeting.
    pub(super) fn met(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        response: Option<Response>,
        concerns: &BTreeMap<NodeId, Concern>,
        now: Timestamp,
    ) {
        let met = match response {
            Some(Response::Met(met)) => met,
            Some(Response::Busy { .. } | Response::Rejected(_)) | None => return,
            Some(_) => return cx.wrong_answer(from, "not an answer to a meeting"),
        };
        let Some(theirs) = cx.verify(from, &met.report).filter(|r| r.author == from) else {
            return cx.wrong_answer(from, "a head that is not its own");
        };
        // Whose chain has not grown tells its newest entry twice.
        for signed in met.at.iter().filter(|signed| **signed != met.report) {
            let Some(earlier) = cx.verify(from, signed).filter(|r| r.author == from) else { return };
            // A number nobody asked for is no answer.
            if earlier.head.is_some_and(|head| self.peers.was_asked(&from, head.seq)) {
                self.sighted(cx, from, &earlier, now);
            }
        }
        self.sighted(cx, from, &theirs, now);
        self.examine(cx, from, &met.yours, met.newest.as_ref(), now);
        if let Some(seen) = cx.verify(from, &met.seen)
            && seen.witness == from
            && seen.author == cx.me()
            && self.peers.is_new_seen(&from, seen.head)
            && self.peers.is_party(&from)
        {
            cx.persist(Record::Private(Private::HeadSeen(seen.to_signed())));
        }
        for peer in self.peers.probes(now) {
            self.meet(cx, peer, now);
        }
        if self.catching.told(from, cx, (theirs.instance, &met.forks), concerns, now) {
            self.meet(cx, from, now);
        }
    }

    /// Whether a proof that a peer passes on by gossip is looked at.
    pub(super) fn may_pass_on(&mut self, from: NodeId, cx: &Context, now: Timestamp) -> bool {
        self.catching.may_pass_on(from, cx, now)
    }

    /// Whether a peer is the other side of a lease now: then its head is kept over restarts.
    pub(super) fn set_party(&mut self, peer: NodeId, party: bool) {
        self.peers.set_party(peer, party);
    }

    fn sighted(&mut self, cx: &mut Context, peer: NodeId, report: &Verified<HeadReport>, now: Timestamp) {
        match self.peers.sighted(peer, report, now) {
            Sighted::Known => {}
            Sighted::Further => {
                if self.peers.is_party(&peer) && self.peers.may_keep(report, now) {
                    cx.persist(Record::Private(Private::Head(report.to_signed())));
                }
            }
            Sighted::Contradicts(before) => {
                let proof = ForkProof::Heads(before.to_signed(), report.to_signed());
                let party = if self.peers.is_party(&peer) { Concern::Dealt } else { Concern::Seen };
                let concern = cx.concern(&peer).max(party);
                forked(cx, proof, concern, Origin::Found);
            }
        }
    }

    /// Reports of our own head that others hold: by another start of our key, or further than we are.
    fn examine(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        yours: &[Signed<HeadReport>],
        newest: Option<&Signed<Entry>>,
        now: Timestamp,
    ) {
        let me = cx.me();
        let length = cx.chain.head().map_or(0, |head| head.seq.saturating_add(1));
        for signed in yours {
            // Most is what this start has said itself. Nothing follows from that, so its signature is not worth a look.
            if self.says_own(signed, me) {
                continue;
            }
            let Some(report) = cx.verify(from, signed) else { return };
            if report.author != me {
                return cx.wrong_answer(from, "a head of another, told as ours");
            }
            let ours = report.head.filter(|head| Some(head.seq) == cx.chain.head().map(|h| h.seq));
            if ours.is_some_and(|head| Some(head.id) != cx.chain.head().map(|h| h.id))
                && let Some(own) = self.report(cx, head_of(cx), Vec::new(), now)
            {
                forked(cx, ForkProof::Heads(own.to_signed(), report.to_signed()), Concern::Dealt, Origin::Found);
            }
            if report.heard.contains(&self.own.nonce) {
                self.rival = Some(now);
                if goes_first(&report, true, self.own) {
                    return halt(cx, OwnKey::Elsewhere { started: report.started, told_by: from });
                }
            }
            if report.length() > length {
                return halt(cx, OwnKey::Behind { length, known: report.length(), told_by: from });
            }
        }
        let newest = newest.and_then(|signed| cx.verify(from, signed));
        if let Some(entry) = newest.filter(|entry| entry.author == me && entry.seq >= length) {
            halt(cx, OwnKey::Behind { length, known: entry.seq.saturating_add(1), told_by: from });
        }
    }

    /// Whether a report claims to be by this very start of this node.
    fn says_own(&self, signed: &Signed<HeadReport>, me: NodeId) -> bool {
        let report = encode::from_bytes::<HeadReport>(signed.payload(), limits::HEAD_BYTES);
        report.is_ok_and(|report| report.author == me && report.instance == self.own.nonce)
    }
}

fn halt(cx: &mut Context, why: OwnKey) {
    if !cx.chain.is_halted() {
        cx.chain.halt();
        cx.out(Output::Halted(why));
    }
}

fn head_of(cx: &Context) -> Option<ChainHead> {
    cx.chain.head().map(|head| ChainHead { seq: head.seq, id: head.id })
}
