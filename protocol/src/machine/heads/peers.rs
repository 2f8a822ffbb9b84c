//! What each peer has told of its head, by start of its node. Knows nothing of messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    Millis, NodeId, Nonce, Timestamp, Verified,
    heads::{ChainHead, HeadReport},
    limits,
    signed::Signed,
};

/// Peers remembered. The one heard of longest ago goes first; parties of leases stay.
pub(super) const WITNESSED: usize = 4096;
/// How long an earlier start of a key has to show that it is still there, once a later one shows.
const DOUBT: Millis = Millis::from_secs(4);
/// In this time both are asked so often: a peer's answers come over any of its connections.
const PROBE_EVERY: Millis = Millis(1_000);
const PROBES: u32 = 2;
/// Numbers of entries a peer was asked about lately.
const ASKED: usize = 4 * limits::INSTANCES;
const MINUTE: Millis = Millis::from_mins(1);

/// What a report was to us.
#[derive(Debug)]
pub(super) enum Sighted {
    /// No news.
    Known,
    /// The chain has grown.
    Further,
    /// It names another entry than this one.
    Contradicts(Verified<HeadReport>),
}

/// One start of a peer's node.
#[derive(Debug)]
struct Sighting {
    /// Its furthest head.
    report: Verified<HeadReport>,
    /// The newest of its reports that has heard of others.
    echo: Option<Verified<HeadReport>>,
    last: Timestamp,
    /// It may still be there.
    present: bool,
}

#[derive(Debug, Default)]
struct Peer {
    starts: Vec<Sighting>,
    /// Since when, and how often since, it has asked us, and we it.
    requests: (Timestamp, u32),
    questions: (Timestamp, u32),
    asked_at: Option<Timestamp>,
    /// Until when it is looked for on two nodes, and when it is asked next for that.
    doubt: Option<(Timestamp, Timestamp)>,
    seen: Option<Option<ChainHead>>,
    told: u64,
    party: bool,
    /// Numbers it was asked about, the newest last.
    asked: VecDeque<u64>,
    /// When its head was written down last.
    kept_at: Option<Timestamp>,
}

impl Peer {
    fn last(&self) -> Timestamp {
        let heard = self.starts.iter().map(|s| s.last).max().unwrap_or(Timestamp(0));
        heard.max(self.questions.0).max(self.requests.0)
    }
}

pub(super) fn counts(counter: &mut (Timestamp, u32), most: u32, now: Timestamp) -> bool {
    if now.since(counter.0) > MINUTE || now < counter.0 {
        *counter = (now, 0);
    }
    counter.1 = counter.1.saturating_add(1);
    counter.1 <= most
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
    /// Those looked for on two nodes.
    doubted: BTreeSet<NodeId>,
    /// Heads of parties to be written down, once a minute has passed since the last one.
    held_back: BTreeMap<NodeId, (Timestamp, Verified<HeadReport>)>,
}

impl Peers {
    fn peer(&mut self, id: NodeId) -> &mut Peer {
        if self.peers.len() >= WITNESSED && !self.peers.contains_key(&id) {
            let oldest = self.peers.iter().filter(|(_, p)| !p.party).min_by_key(|(_, p)| p.last());
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.peers.remove(&oldest);
                self.doubted.remove(&oldest);
            }
        }
        self.peers.entry(id).or_default()
    }

    /// A head from before our start. Its author may have stopped since.
    pub(super) fn remember(&mut self, report: Verified<HeadReport>, now: Timestamp) {
        let peer = self.peer(report.author);
        peer.told = report.length();
        peer.party = true;
        peer.starts.push(Sighting { report, echo: None, last: now, present: false });
    }

    pub(super) fn is_party(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|p| p.party)
    }

    /// Whether it is the other side of a lease now.
    pub(super) fn set_party(&mut self, id: NodeId, party: bool) {
        self.peer(id).party = party;
    }

    /// Whether it may ask once more in this minute.
    pub(super) fn may_be_asked(&mut self, id: NodeId, now: Timestamp) -> bool {
        counts(&mut self.peer(id).requests, limits::MEETINGS_PER_MINUTE, now)
    }

    /// Whether we may ask it once more in this minute; counts it.
    pub(super) fn may_ask(&mut self, id: NodeId, now: Timestamp) -> bool {
        let peer = self.peer(id);
        peer.asked_at = Some(now);
        counts(&mut peer.questions, limits::MEETINGS_PER_MINUTE / 2, now)
    }

    pub(super) fn asked_at(&self, id: &NodeId) -> Option<Timestamp> {
        self.peers.get(id).and_then(|p| p.asked_at)
    }

    /// Whether a peer was asked about this number of its chain.
    pub(super) fn was_asked(&self, id: &NodeId, seq: u64) -> bool {
        self.peers.get(id).is_some_and(|p| p.asked.contains(&seq))
    }

    /// Whether a further head of a party is to be written down now. If not, the newest is held back until it may be.
    pub(super) fn may_keep(&mut self, report: &Verified<HeadReport>, now: Timestamp) -> bool {
        let peer = self.peer(report.author);
        match peer.kept_at.map(|at| at.min(now) + MINUTE).filter(|due| now < *due) {
            Some(due) => {
                self.held_back.insert(report.author, (due, report.clone()));
                false
            }
            None => {
                peer.kept_at = Some(now);
                self.held_back.remove(&report.author);
                true
            }
        }
    }

    /// Heads held back that are to be written down now.
    pub(super) fn take_kept(&mut self, now: Timestamp) -> Vec<Verified<HeadReport>> {
        let due: Vec<NodeId> = self.held_back.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
        let mut kept = Vec::new();
        for id in due {
            let Some((_, report)) = self.held_back.remove(&id) else { continue };
            if let Some(peer) = self.peers.get_mut(&id).filter(|p| p.party) {
                peer.kept_at = Some(now);
                kept.push(report);
            }
        }
        kept
    }

    /// When the next of them may be written down.
    pub(super) fn kept_deadline(&self) -> Option<Timestamp> {
        self.held_back.values().map(|(at, _)| *at).min()
    }

    /// Takes a report in.
    pub(super) fn sighted(&mut self, id: NodeId, report: &Verified<HeadReport>, now: Timestamp) -> Sighted {
        let sighted = self.take_in(id, report, now);
        if self.peers.get(&id).is_some_and(|p| p.doubt.is_some()) {
            self.doubted.insert(id);
        }
        sighted
    }

    fn take_in(&mut self, id: NodeId, report: &Verified<HeadReport>, now: Timestamp) -> Sighted {
        let peer = self.peer(id);
        if let Some(before) = peer.starts.iter().find(|s| s.report.contradicts(report)) {
            return Sighted::Contradicts(before.report.clone());
        }
        // An earlier start whose head is part of this one's chain, and which is gone, has nothing more to say.
        peer.starts.retain(|s| s.present || s.report.instance == report.instance || s.report.head != report.head);
        let known = peer.starts.iter().position(|s| s.report.instance == report.instance);
        let at = known.unwrap_or_else(|| {
            if peer.starts.len() >= limits::INSTANCES {
                let oldest = peer.starts.iter().enumerate().min_by_key(|(_, s)| (s.present, s.last)).map(|(i, _)| i);
                peer.starts.remove(oldest.unwrap_or(0));
            }
            if !peer.starts.is_empty() {
                peer.doubt = Some((now + DOUBT, now));
            }
            peer.starts.push(Sighting { report: report.clone(), echo: None, last: now, present: true });
            peer.starts.len() - 1
        });
        let Some(start) = peer.starts.get_mut(at) else { return Sighted::Known };
        start.last = now;
        start.present = true;
        if report.length() > start.report.length() {
            start.report = report.clone();
        }
        if report.heard.iter().any(|nonce| *nonce != report.instance) {
            start.echo = Some(report.clone());
        }
        if report.length() > peer.told {
            peer.told = report.length();
            return Sighted::Further;
        }
        Sighted::Known
    }

    /// Instances to be repeated, numbers of entries to be reported on, and what the peer is to know of itself.
    pub(super) fn questions(&mut self, id: &NodeId) -> (Vec<Nonce>, Vec<u64>, Vec<Signed<HeadReport>>) {
        let Some(peer) = self.peers.get_mut(id) else {
            return (Vec::new(), Vec::new(), Vec::new());
        };
        let known = peer.starts.iter().map(|s| s.report.instance).take(limits::INSTANCES).collect();
        let at: BTreeSet<u64> = peer.starts.iter().filter_map(|s| s.report.head.map(|head| head.seq)).collect();
        let furthest = peer.starts.iter().map(|s| &s.report).max_by_key(|r| r.length());
        let echoes = peer.starts.iter().filter_map(|s| s.echo.as_ref());
        let yours = echoes.chain(furthest).take(limits::INSTANCES).map(Verified::to_signed).collect();
        let at: Vec<u64> = at.into_iter().take(limits::INSTANCES).collect();
        peer.asked.retain(|seq| !at.contains(seq));
        peer.asked.extend(&at);
        peer.asked.drain(..peer.asked.len().saturating_sub(ASKED));
        (known, at, yours)
    }

    /// What a start of a peer is to know of the others with its key, and of its own chain.
    pub(super) fn evidence_for(&self, id: &NodeId, theirs: &HeadReport) -> Vec<Signed<HeadReport>> {
        let Some(peer) = self.peers.get(id) else {
            return Vec::new();
        };
        let others = || peer.starts.iter().filter(|s| s.report.instance != theirs.instance);
        let echoes = others().filter_map(|s| s.echo.as_ref()).filter(|e| e.heard.contains(&theirs.instance));
        let further = peer.starts.iter().map(|s| &s.report).filter(|r| r.length() > theirs.length());
        let against = others().map(|s| &s.report).filter(|r| r.contradicts(theirs));
        let all = echoes.chain(further.max_by_key(|r| r.length())).chain(against);
        all.take(limits::INSTANCES).map(Verified::to_signed).collect()
    }

    /// Whether an earlier start of a peer may still be there.
    pub(super) fn doubts(&self, id: &NodeId, instance: Nonce) -> bool {
        self.peers
            .get(id)
            .is_some_and(|p| p.doubt.is_some() && p.starts.iter().any(|s| s.present && s.report.instance != instance))
    }

    /// Whether a countersignature of our head by this peer is of another head than the one before.
    pub(super) fn is_new_seen(&mut self, id: &NodeId, head: Option<ChainHead>) -> bool {
        self.peers.get_mut(id).is_some_and(|p| p.seen.replace(head) != Some(head))
    }

    /// Its last connection is gone; whether it has ever told anything.
    pub(super) fn disconnected(&mut self, id: &NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(id) else {
            return false;
        };
        peer.doubt = None;
        for start in &mut peer.starts {
            start.present = false;
        }
        !peer.starts.is_empty()
    }

    /// Peers to be asked now, since two starts of them may be there at once.
    pub(super) fn probes(&mut self, now: Timestamp) -> Vec<NodeId> {
        let mut probes = Vec::new();
        self.doubted.retain(|id| self.peers.get(id).is_some_and(|p| p.doubt.is_some()));
        for id in &self.doubted {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let Some((until, next)) = peer.doubt else { continue };
            if now >= until {
                // Who has not shown by now is gone.
                let began = Timestamp(until.0.saturating_sub(DOUBT.0));
                peer.starts.iter_mut().for_each(|s| s.present &= s.last >= began);
                peer.doubt = None;
            } else if now >= next {
                peer.doubt = Some((until, now + PROBE_EVERY));
                probes.extend((0..PROBES).map(|_| *id));
            }
        }
        probes
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let doubts = self.doubted.iter().filter_map(|id| self.peers.get(id)?.doubt);
        doubts.map(|(until, next)| until.min(next)).min()
    }

    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        for peer in self.peers.values_mut() {
            peer.doubt = peer.doubt.map(|(until, next)| (until.min(now + DOUBT), next.min(now + PROBE_EVERY)));
            peer.asked_at = peer.asked_at.map(|at| at.min(now));
            peer.kept_at = peer.kept_at.map(|at| at.min(now));
        }
        for (at, _) in self.held_back.values_mut() {
            *at = (*at).min(now + MINUTE);
        }
    }

    /// How much is remembered: peers, and starts of them.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.peers.len(), self.peers.values().map(|p| p.starts.len()).sum())
    }
}
