//! What a node does before it signs anything: it asks peers for its own head, and whether its key is in use elsewhere.
//!
//! A copied key, a second start, a restored backup: each would contradict what was signed before, for ever. So the engine is not
//! made until the guard has passed. Owns the questions and what came of them; the shell asks them, stores what is caught up, and
//! then makes the engine from its ledger. Bounded by time ([`PATIENCE`], [`CATCH_UP`]), by peers and by records.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    heads::{Instance, countersign, goes_first, report},
    io::OwnKey,
    record::Head,
};
use crate::{
    DocumentId, Keypair, Millis, NetworkId, NodeId, Nonce, Timestamp, Verified,
    entry::Entry,
    fork::{ForksAsked, ForksTold},
    heads::{ChainHead, HeadReport, HeldRecord, Meet, Met},
    limits,
    message::{Request, Response},
    negotiation::{Reject, RejectCode},
    signed::{Document, Signed},
};

/// How long the other sides of open leases are waited for.
pub const PATIENCE: Millis = Millis::from_secs(30);
/// How long any peer is waited for where no lease is open.
pub const PATIENCE_IDLE: Millis = Millis::from_secs(5);
/// After the first answer, others have so long to answer as well.
const SETTLE: Millis = Millis(500);
/// A connected peer that has not answered in this time is not waited for.
const ANSWER: Millis = Millis::from_secs(3);
/// A peer that is in doubt is asked again after this.
const AGAIN: Millis = Millis(700);
/// A peer that has no time to say what it holds of us is asked again after this at the latest.
const BUSY: Millis = Millis::from_secs(3);
/// Doubts hold a start up no longer than this.
const DOUBT: Millis = Millis::from_secs(20);
/// How long catching up may wait for the other sides of leases …
pub const CATCH_UP: Millis = Millis::from_secs(30);
/// … and for answers under way.
const CATCH_UP_AT_MOST: Millis = Millis::from_secs(90);
/// Peers asked.
const PEERS: usize = 512;
/// Records taken from all peers together: some 100 MB at worst.
const RECORDS: usize = 16_384;
/// Of them from peers that are no party to an open lease: only what this node has signed itself, each once.
const OUTSIDE: usize = RECORDS / 4;
/// Of them what parties have signed themselves, the same share for each: what this node has signed can't be crowded out by it.
const FOREIGN: usize = RECORDS / 2;

/// The guard's last word.
#[derive(Debug)]
pub enum Verdict {
    /// Sign, once the receipts among these records that the ledger lacks are stored: numbers of usages are in no chain.
    Pass {
        /// Peers asked with success.
        answers: usize,
        /// What the other sides of open leases hold of us.
        records: Vec<(NodeId, HeldRecord)>,
    },
    /// Another node has the key, and goes first.
    Refuse(OwnKey),
    /// The ledger is behind. Store the head, then the records that fit, and go on from there.
    CatchUp {
        /// The newest entry of our chain that any peer has seen.
        head: Head,
        /// What peers hold of us, in the order in which it can be stored.
        records: Vec<(NodeId, HeldRecord)>,
    },
}

/// What the guard is at, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Peers are asked for our head.
    Asking {
        /// Who have answered.
        answers: usize,
        /// Other sides of open leases that have not.
        missing: usize,
    },
    /// Some peer has seen our key elsewhere a moment ago.
    Doubting,
    /// The ledger is behind.
    CatchingUp {
        /// Entries here.
        length: u64,
        /// Entries that others have seen.
        known: u64,
    },
}

#[derive(Debug, Default)]
struct Asked {
    at: Timestamp,
    /// None while an answer is under way.
    answered: Option<bool>,
    doubt: bool,
    recall: Option<Recall>,
}

#[derive(Debug)]
struct Recall {
    page: u32,
    done: bool,
    /// Records taken that this node has not signed.
    foreign: usize,
    /// When to ask for the page again: the peer had no time.
    again_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub struct Guard {
    key: Keypair,
    network: NetworkId,
    own: Instance,
    head: Option<Head>,
    /// Other sides of open leases.
    parties: BTreeSet<NodeId>,
    /// Whether anybody else can be expected to be met.
    expects: bool,
    began: Timestamp,
    peers: BTreeMap<NodeId, Asked>,
    first_answer: Option<Timestamp>,
    refused: Option<OwnKey>,
    /// Our newest entry as others have seen it, if it is not here, and since when that is known.
    target: Option<(Head, Timestamp)>,
    records: Vec<(NodeId, HeldRecord)>,
    /// What of them this node has signed, by the party that holds it; of others, from whichever came first.
    own_records: BTreeSet<(Option<NodeId>, DocumentId)>,
    /// Records from others than parties.
    outside: usize,
    out: VecDeque<(NodeId, Request)>,
}

impl Guard {
    /// A start of the node with this key, whose ledger ends with `head`, with open leases with `parties`. `expects`: it was told
    /// of addresses to begin with.
    #[must_use]
    pub fn new(
        key: Keypair,
        network: NetworkId,
        instance: Nonce,
        head: Option<Head>,
        parties: BTreeSet<NodeId>,
        expects: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            key,
            network,
            own: Instance { nonce: instance, started: now },
            head,
            parties,
            expects,
            began: now,
            peers: BTreeMap::new(),
            first_answer: None,
            refused: None,
            target: None,
            records: Vec::new(),
            own_records: BTreeSet::new(),
            outside: 0,
            out: VecDeque::new(),
        }
    }

    /// A peer can be asked.
    pub fn connected(&mut self, peer: NodeId, now: Timestamp) {
        if self.peers.len() < PEERS || self.peers.contains_key(&peer) {
            self.ask(peer, now);
        }
    }

    /// A peer is gone. What it has said stands.
    pub fn disconnected(&mut self, peer: &NodeId) {
        if let Some(asked) = self.peers.get_mut(peer) {
            asked.answered = asked.answered.or(Some(false));
            asked.doubt = false;
            if let Some(recall) = &mut asked.recall {
                recall.done = true;
            }
        }
    }

    fn ask(&mut self, peer: NodeId, now: Timestamp) {
        let Some(report) = self.report(self.own_head(), Vec::new(), now) else { return };
        let meet = Meet {
            report: report.to_signed(),
            known: Vec::new(),
            at: Vec::new(),
            yours: Vec::new(),
            forks: ForksAsked::default(),
        };
        let asked = self.peers.entry(peer).or_default();
        asked.at = now;
        if asked.answered != Some(true) {
            asked.answered = None;
        }
        self.out.push_back((peer, Request::Meet(Box::new(meet))));
    }

    fn own_head(&self) -> Option<ChainHead> {
        self.head.map(|head| ChainHead { seq: head.seq, id: head.id })
    }

    fn length(&self) -> u64 {
        self.head.map_or(0, |head| head.seq.saturating_add(1))
    }

    fn report(&self, head: Option<ChainHead>, heard: Vec<Nonce>, now: Timestamp) -> Option<Verified<HeadReport>> {
        report(&self.key, &self.network, (self.own, false), head, heard, now)
    }

    fn verify<T: Document>(&self, signed: &Signed<T>) -> Option<Verified<T>> {
        signed.verify(&self.network).ok()
    }

    /// A peer meets us. `own`: our entries of the numbers that it asks about.
    pub fn meeting(&mut self, from: NodeId, meet: &Meet, own: &[ChainHead], now: Timestamp) -> Response {
        let Some(theirs) = self.verify(&meet.report).filter(|r| r.author == from) else {
            let sentence = "the head is not signed by the one who tells it";
            return Response::Rejected(Reject::lasting(RejectCode::Malformed, sentence));
        };
        self.examine(from, &meet.yours, None, now);
        let heard = meet.known.clone();
        let seen = countersign(&self.key, &self.network, &theirs, now);
        let (Some(report), Some(seen)) = (self.report(self.own_head(), heard.clone(), now), seen) else {
            return Response::Busy { retry_after_ms: 1_000 };
        };
        let at = own.iter().filter(|head| meet.at.contains(&head.seq)).take(limits::INSTANCES);
        let at = at.filter_map(|head| self.report(Some(*head), heard.clone(), now)).map(|r| r.to_signed()).collect();
        let (report, seen) = (report.to_signed(), seen.to_signed());
        Response::Met(Box::new(Met {
            report,
            at,
            seen,
            yours: Vec::new(),
            newest: None,
            doubt: false,
            forks: ForksTold::default(),
        }))
    }

    /// A peer has answered, or not.
    pub fn answered(&mut self, from: NodeId, response: Option<Response>, now: Timestamp) {
        match response {
            Some(Response::Met(met)) => {
                let own = self.verify(&met.report).is_some_and(|r| r.author == from);
                if !own {
                    return self.no_answer(&from);
                }
                self.first_answer = self.first_answer.or(Some(now));
                self.examine(from, &met.yours, met.newest.as_ref(), now);
                let Some(asked) = self.peers.get_mut(&from) else { return };
                asked.answered = Some(true);
                asked.doubt = met.doubt;
                asked.at = now;
                if self.target.is_some() || self.parties.contains(&from) {
                    self.recall(from);
                }
            }
            Some(Response::Recalled { records, more }) => self.recalled(from, records, more, now),
            // It says that it can't tell now, not that it holds nothing.
            Some(Response::Busy { retry_after_ms }) if self.is_recalling(&from) => {
                let after = Millis(retry_after_ms.clamp(100, BUSY.0));
                if let Some(recall) = self.peers.get_mut(&from).and_then(|a| a.recall.as_mut()) {
                    recall.again_at = Some(now + after);
                }
            }
            Some(_) | None => self.no_answer(&from),
        }
    }

    fn is_recalling(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).and_then(|a| a.recall.as_ref()).is_some_and(|recall| !recall.done)
    }

    fn no_answer(&mut self, from: &NodeId) {
        if let Some(asked) = self.peers.get_mut(from) {
            asked.answered = asked.answered.or(Some(false));
            asked.doubt = false;
            if let Some(recall) = &mut asked.recall {
                recall.done = true;
            }
        }
    }

    /// Reports of our own head that others hold. Only what we have signed ourselves counts.
    fn examine(&mut self, from: NodeId, yours: &[Signed<HeadReport>], newest: Option<&Signed<Entry>>, now: Timestamp) {
        let me = self.key.node_id();
        for signed in yours {
            let Some(report) = self.verify(signed).filter(|r| r.author == me) else { return };
            if report.instance == self.own.nonce {
                continue;
            }
            // Our nonce was drawn at this start: whoever has signed it lives.
            if report.heard.contains(&self.own.nonce) && goes_first(&report, false, self.own) {
                self.refused = Some(OwnKey::Elsewhere { started: report.started, told_by: from });
            }
            if let Some(head) = report.head {
                self.aim(Head { author: me, seq: head.seq, id: head.id, time: report.time }, now);
            }
        }
        if let Some(entry) = newest.and_then(|signed| self.verify(signed)).filter(|entry| entry.author == me) {
            self.aim(Head { author: me, seq: entry.seq, id: entry.id(), time: entry.time }, now);
        }
    }

    /// Our chain goes on to here at least.
    fn aim(&mut self, head: Head, now: Timestamp) {
        let known = self.target.map_or_else(|| self.length(), |(target, _)| target.seq.saturating_add(1));
        if head.seq < known {
            return;
        }
        let since = self.target.map_or(now, |(_, since)| since);
        let first = self.target.is_none();
        self.target = Some((head, since));
        if first {
            let answered: Vec<NodeId> =
                self.peers.iter().filter(|(_, a)| a.answered == Some(true)).map(|(peer, _)| *peer).collect();
            for peer in answered {
                self.recall(peer);
            }
        }
    }

    /// Asks a peer for what it holds of us.
    fn recall(&mut self, peer: NodeId) {
        let (length, since) = (self.length(), self.head.map_or(Timestamp(0), |head| head.time));
        let Some(asked) = self.peers.get_mut(&peer).filter(|a| a.recall.is_none()) else { return };
        asked.recall = Some(Recall { page: 0, done: false, foreign: 0, again_at: None });
        self.out.push_back((peer, Request::Recall { length, since, page: 0 }));
    }

    fn recalled(&mut self, from: NodeId, records: Vec<HeldRecord>, more: bool, now: Timestamp) {
        let me = self.key.node_id();
        for record in records.into_iter().take(limits::RECALL_RECORDS) {
            let mut signed_here = None;
            let own = match &record {
                HeldRecord::Entry(signed) => {
                    let Some(entry) = self.verify(signed) else { return self.no_answer(&from) };
                    if entry.author != me && (entry.author != from || entry.peer != Some(me)) {
                        return self.no_answer(&from);
                    }
                    let entry = Some(entry).filter(|entry| entry.author == me);
                    signed_here = entry.as_ref().map(Verified::id);
                    entry
                }
                HeldRecord::Usage(signed) => {
                    let Some(usage) = self.verify(signed) else { return self.no_answer(&from) };
                    signed_here = Some(usage.id()).filter(|_| usage.host == me);
                    None
                }
                HeldRecord::Ack(signed) => {
                    let Some(ack) = self.verify(signed) else { return self.no_answer(&from) };
                    signed_here = Some(ack.id()).filter(|_| ack.renter == me);
                    None
                }
                HeldRecord::Workload { bytes, .. } if bytes.len() > limits::WORKLOAD_BYTES => {
                    return self.no_answer(&from);
                }
                HeldRecord::Workload { .. } => None,
            };
            if let Some(entry) = own {
                self.aim(Head { author: me, seq: entry.seq, id: entry.id(), time: entry.time }, now);
            }
            if self.has_room(from, matches!(record, HeldRecord::Entry(_)), signed_here) {
                self.records.push((from, record));
            }
        }
        let (length, since) = (self.length(), self.head.map_or(Timestamp(0), |head| head.time));
        let full = self.records.len() >= RECORDS;
        let Some(recall) = self.peers.get_mut(&from).and_then(|a| a.recall.as_mut()) else { return };
        recall.page = recall.page.saturating_add(1);
        recall.done = !more || full || recall.page >= limits::RECALL_PAGES;
        let page = recall.page;
        if !recall.done {
            self.out.push_back((from, Request::Recall { length, since, page }));
        }
    }

    /// Whether one more record of this peer is taken; counts it. What this node has not signed is taken of parties alone.
    fn has_room(&mut self, from: NodeId, is_entry: bool, signed_here: Option<DocumentId>) -> bool {
        if self.records.len() >= RECORDS {
            return false;
        }
        if self.parties.contains(&from) {
            if let Some(id) = signed_here {
                return self.own_records.insert((Some(from), id));
            }
            let share = FOREIGN / self.parties.len().max(1);
            let recall = self.peers.get_mut(&from).and_then(|a| a.recall.as_mut()).filter(|r| r.foreign < share);
            return recall.map(|r| r.foreign += 1).is_some();
        }
        let Some(id) = signed_here.filter(|_| is_entry && self.outside < OUTSIDE) else { return false };
        let new = self.own_records.insert((None, id));
        self.outside += usize::from(new);
        new
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        let again: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, a)| a.doubt && a.answered == Some(true) && now >= a.at + AGAIN)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in again {
            self.ask(peer, now);
        }
        let (length, since) = (self.length(), self.head.map_or(Timestamp(0), |head| head.time));
        for (peer, asked) in &mut self.peers {
            let busy = asked.recall.as_mut().filter(|r| !r.done && r.again_at.is_some_and(|at| now >= at));
            if let Some(recall) = busy {
                recall.again_at = None;
                self.out.push_back((*peer, Request::Recall { length, since, page: recall.page }));
            }
        }
    }

    /// The next request to send.
    pub fn poll(&mut self) -> Option<(NodeId, Request)> {
        self.out.pop_front()
    }

    /// When to look again at the latest.
    #[must_use]
    pub fn deadline(&self, now: Timestamp) -> Timestamp {
        now + Millis(100)
    }

    fn answers(&self) -> usize {
        self.peers.values().filter(|a| a.answered == Some(true)).count()
    }

    fn missing(&self) -> usize {
        let answered = |peer: &&NodeId| self.peers.get(peer).is_some_and(|a| a.answered == Some(true));
        self.parties.len() - self.parties.iter().filter(answered).count()
    }

    /// Whether somebody is being asked for what it holds of us.
    fn under_way(&self) -> bool {
        self.peers.values().any(|a| a.recall.as_ref().is_some_and(|r| !r.done))
    }

    fn doubts(&self) -> bool {
        self.peers.values().any(|a| a.doubt)
    }

    /// What it is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.target {
            Some((head, _)) => Phase::CatchingUp { length: self.length(), known: head.seq.saturating_add(1) },
            None if self.doubts() => Phase::Doubting,
            None => Phase::Asking { answers: self.answers(), missing: self.missing() },
        }
    }

    /// The last word, once there is one.
    pub fn verdict(&mut self, now: Timestamp) -> Option<Verdict> {
        if let Some(why) = self.refused {
            return Some(Verdict::Refuse(why));
        }
        let doubts = self.doubts() && now < self.began + DOUBT;
        if let Some((head, since)) = self.target {
            let complete = !self.under_way() && (self.missing() == 0 || now >= since + CATCH_UP);
            let done = (complete && !doubts && now >= since + SETTLE) || now >= since + CATCH_UP_AT_MOST;
            let records = || std::mem::take(&mut self.records);
            return done.then(records).map(|records| Verdict::CatchUp { head, records });
        }
        let answers = self.answers();
        if self.parties.is_empty() && !self.expects && self.peers.is_empty() {
            return Some(Verdict::Pass { answers, records: Vec::new() });
        }
        let patience = if self.parties.is_empty() { PATIENCE_IDLE } else { PATIENCE };
        let late = now >= self.began + patience;
        let waited_for = self.peers.values().any(|a| a.answered.is_none() && now < a.at + ANSWER);
        let settled = self.first_answer.is_some_and(|at| now >= at + SETTLE) && !waited_for;
        let passes = !doubts && (late || (settled && self.missing() == 0 && !self.under_way()));
        passes.then(|| Verdict::Pass { answers, records: std::mem::take(&mut self.records) })
    }
}
