//! Catching up on proofs of forks at meetings, so that who was away while one was found learns of it from whomever it meets.
//!
//! Everybody fetches what it lacks, and sends nothing that was not asked for. A node tells those it knows to have contradicted
//! themselves in the order in which it has learned of them; whoever asks remembers how far it has read, so that a meeting of two
//! who know the same costs a few bytes. Of names that it lacks and would keep ([`super::super::forks`]) it then asks for the
//! proofs, a few at a time, and believes none that does not verify. About those who newly connect it asks by name.
//!
//! Owns what each peer was asked and told, and the limits on both. Bounded: [`WITNESSED`] peers, a page of names of each.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use super::peers::{WITNESSED, counts};
use crate::{
    Millis, NodeId, Nonce, Timestamp, encode,
    fork::{FORKS_ASKED, ForkProof, ForksAsked, ForksTold},
    limits,
    machine::{
        context::Context,
        forks::{Concern, Taken},
        io::Output,
        record::{Private, Record},
    },
};

/// A peer's list is read anew so often: who concerned nobody when it was read may by now.
const REREAD: Millis = Millis::from_hours(1);
/// Meetings with one peer in a minute that follow on one another because it had more to tell.
const FOLLOWED: u32 = 8;
/// So often a proof is asked for of one peer.
const TRIES: u8 = 3;
/// Peers that came lately and that others are asked about. The one that came first goes when there are more.
const NEWCOMERS: usize = 64;
/// In a minute, so many times others are asked at once about one with whom something is about to be agreed.
const INQUIRIES: u32 = 6;
const MINUTE: Millis = Millis::from_mins(1);

/// Where a proof comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum Origin {
    /// It was put together here.
    Found,
    /// Others have told it.
    Told,
}

/// Takes a proof in that has been put together here or is verified: whether it is remembered and was not before.
pub(in crate::machine) fn forked(cx: &mut Context, proof: ForkProof, concern: Concern, origin: Origin) -> bool {
    let Ok(author) = proof.verify(cx.chain.network()) else {
        return false;
    };
    match cx.forked.take(author, concern) {
        Taken::Known => return false,
        Taken::No => {
            // The ledger may have found it by itself, and holds it then.
            if origin == Origin::Found {
                cx.persist(Record::Private(Private::ForkGone(author)));
            }
            return false;
        }
        Taken::New { instead_of } => {
            if let Some(gone) = instead_of {
                cx.persist(Record::Private(Private::ForkGone(gone)));
            }
        }
    }
    let proof = Box::new(proof);
    let ticket = cx.persist(Record::Fork(proof.clone()));
    cx.out(Output::Forked { author, proof, found: origin == Origin::Found, after: ticket });
    true
}

#[derive(Debug, Default)]
struct Peer {
    /// The start of its node whose list was read, and how far.
    of: Option<Nonce>,
    after: u64,
    /// When it was read from its beginning.
    read_at: Option<Timestamp>,
    /// Whose proofs it is asked for, and how often it was.
    wanted: BTreeMap<NodeId, u8>,
    /// It was asked about newcomers up to this number.
    inquired: u64,
    /// Since when, and how often since, meetings followed on one another, and it has passed proofs on.
    followed: (Timestamp, u32),
    passed: (Timestamp, u32),
    /// Since when, and how many bytes of proofs, it was told.
    told: (Timestamp, usize),
}

/// Somebody whom others are to be asked about.
#[derive(Debug, Clone, Copy)]
struct Newcomer {
    id: NodeId,
    n: u64,
    at: Timestamp,
    /// Others were asked at once.
    urgent: bool,
}

/// What everybody was asked and told.
#[derive(Debug, Default)]
pub(super) struct Catching {
    peers: BTreeMap<NodeId, Peer>,
    newcomers: VecDeque<Newcomer>,
    newest: u64,
    inquiries: (Timestamp, u32),
}

impl Catching {
    fn peer(&mut self, id: NodeId, cx: &Context) -> &mut Peer {
        if self.peers.len() >= WITNESSED && !self.peers.contains_key(&id) {
            let away = self.peers.keys().find(|id| !cx.connected.contains(*id));
            if let Some(gone) = away.or_else(|| self.peers.keys().next()).copied() {
                self.peers.remove(&gone);
            }
        }
        self.peers.entry(id).or_default()
    }

    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        for peer in self.peers.values_mut() {
            peer.read_at = peer.read_at.map(|at| at.min(now));
        }
        for newcomer in &mut self.newcomers {
            newcomer.at = newcomer.at.min(now);
        }
    }

    /// Its last connection is gone: what it still was to be asked for is read anew, from whoever comes first.
    pub(super) fn disconnected(&mut self, id: &NodeId) {
        if let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.wanted.is_empty()) {
            (peer.of, peer.after, peer.inquired) = (None, 0, 0);
            peer.wanted.clear();
        }
    }

    /// Somebody is here whom others are to be asked about.
    pub(super) fn newcomer(&mut self, id: NodeId, cx: &Context, now: Timestamp) {
        let known = |newcomer: &Newcomer| newcomer.id == id && now < newcomer.at + REREAD;
        if cx.forked.contains(&id) || self.newcomers.iter().any(known) {
            return;
        }
        self.newcomers.retain(|newcomer| newcomer.id != id);
        if self.newcomers.len() >= NEWCOMERS {
            self.newcomers.pop_front();
        }
        self.newest = self.newest.saturating_add(1);
        self.newcomers.push_back(Newcomer { id, n: self.newest, at: now, urgent: false });
    }

    /// Whether others are asked at once about somebody with whom something is about to be agreed.
    pub(super) fn may_inquire(&mut self, id: NodeId, cx: &Context, now: Timestamp) -> bool {
        self.newcomer(id, cx, now);
        let calm = |newcomer: &&mut Newcomer| newcomer.id == id && !newcomer.urgent;
        let Some(newcomer) = self.newcomers.iter_mut().find(calm) else { return false };
        newcomer.urgent = counts(&mut self.inquiries, INQUIRIES, now);
        newcomer.urgent
    }

    /// Whether a proof that a peer passes on by gossip is looked at.
    pub(super) fn may_pass_on(&mut self, from: NodeId, cx: &Context, now: Timestamp) -> bool {
        counts(&mut self.peer(from, cx).passed, limits::PROOFS_PER_MINUTE, now)
    }

    /// What a peer is asked at a meeting.
    pub(super) fn questions(&mut self, id: &NodeId, cx: &Context, now: Timestamp) -> ForksAsked {
        let (newest, newcomers) = (self.newest, self.newcomers.clone());
        let peer = self.peer(*id, cx);
        if peer.read_at.is_none_or(|at| now >= at + REREAD) {
            (peer.read_at, peer.of, peer.after) = (Some(now), None, 0);
        }
        for new in newcomers.iter().filter(|new| new.n > peer.inquired && new.id != *id) {
            // Whoever does not hold a proof of it now is not asked again.
            peer.wanted.entry(new.id).or_insert(TRIES - 1);
        }
        peer.inquired = newest;
        peer.wanted.retain(|id, tries| *tries < TRIES && !cx.forked.contains(id));
        let after = (peer.wanted.len() < FORKS_ASKED).then_some(peer.after);
        let mut proofs: Vec<(Reverse<u8>, NodeId)> = peer.wanted.iter().map(|(id, n)| (Reverse(*n), *id)).collect();
        proofs.sort_unstable();
        let proofs: Vec<NodeId> = proofs.into_iter().take(FORKS_ASKED).map(|(_, id)| id).collect();
        for id in &proofs {
            if let Some(tries) = peer.wanted.get_mut(id) {
                *tries = tries.saturating_add(1);
            }
        }
        ForksAsked { of: peer.of, after, proofs }
    }

    /// What a peer is told: `own` is this start, `held` what the ledger has of the proofs that it wants.
    pub(super) fn answer(
        &mut self,
        from: &NodeId,
        cx: &Context,
        (own, asked): (Nonce, &ForksAsked),
        held: Vec<ForkProof>,
        now: Timestamp,
    ) -> ForksTold {
        let after = asked.after.map(|n| if asked.of == Some(own) { n } else { 0 });
        let (names, upto) = after.map(|n| cx.forked.after(n)).unzip();
        let names = names.unwrap_or_default();
        let told = &mut self.peer(*from, cx).told;
        if now.since(told.0) > MINUTE || now < told.0 {
            *told = (now, 0);
        }
        let mut left: Vec<NodeId> = asked.proofs.clone();
        let (mut proofs, mut bytes) = (Vec::new(), 0);
        for proof in held.into_iter().take(FORKS_ASKED) {
            let Some(at) = proof.accused().and_then(|id| left.iter().position(|wanted| *wanted == id)) else {
                continue;
            };
            let size = encode::to_bytes(&proof).len();
            if bytes + size > limits::FORKS_BYTES || told.1 + size > limits::FORKS_BYTES_PER_MINUTE {
                break;
            }
            left.swap_remove(at);
            bytes += size;
            told.1 += size;
            proofs.push(proof);
        }
        let more = names.last().is_some() && upto.is_some_and(|upto| !cx.forked.after(upto).0.is_empty());
        ForksTold { names, upto, more, proofs }
    }

    /// Takes in what a peer has told in its start `of`. Whether it is worth while to ask it on at once.
    pub(super) fn told(
        &mut self,
        from: NodeId,
        cx: &mut Context,
        (of, told): (Nonce, &ForksTold),
        concerns: &BTreeMap<NodeId, Concern>,
        now: Timestamp,
    ) -> bool {
        let peer = self.peer(from, cx);
        let concern = |cx: &Context, id: &NodeId| cx.concern(id).max(concerns.get(id).copied().unwrap_or_default());
        let (mut bytes, mut progress) = (0, false);
        for proof in &told.proofs {
            // One that was not asked for is not looked at.
            let Some(author) = proof.accused().filter(|id| peer.wanted.remove(id).is_some()) else { continue };
            bytes += encode::to_bytes(proof).len();
            if bytes > limits::FORKS_BYTES {
                cx.wrong_answer(from, "more proofs of forks than fit into one answer");
                return false;
            }
            if !proof.verify(cx.chain.network()).is_ok_and(|id| id == author) {
                cx.wrong_answer(from, "a proof of a fork that proves nothing");
                return false;
            }
            let concern = concern(cx, &author);
            progress |= forked(cx, proof.clone(), concern, Origin::Told);
        }
        // Whoever tells more than it is asked for fills nothing: it is asked for the rest again.
        if let Some(upto) = told.upto.filter(|_| peer.wanted.len() < FORKS_ASKED) {
            (peer.of, peer.after) = (Some(of), upto);
            for name in &told.names {
                let concern = concern(cx, name);
                cx.forked.raise(name, concern);
                if cx.forked.would_take(name, concern) {
                    progress |= peer.wanted.insert(*name, 0).is_none();
                }
            }
            progress |= told.more && !told.names.is_empty();
        }
        let waits = peer.wanted.values().any(|tries| *tries == 0) || (told.more && !told.names.is_empty());
        progress && waits && counts(&mut peer.followed, FOLLOWED, now)
    }

    /// How much is remembered: peers, and names wanted of them.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.peers.len(), self.peers.values().map(|p| p.wanted.len()).sum())
    }
}
