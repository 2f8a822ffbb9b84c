//! How others reach this node: asking peers to dial back, doing it for them, places at relays, holes through NATs.
//!
//! What is believed and wanted is decided in `crate::reach`; this does it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::transport::ListenerId,
    dcutr, kad,
    multiaddr::Protocol,
    relay,
    request_response::{Message, OutboundRequestId, ResponseChannel},
    swarm::{
        ConnectionId, DialError as SwarmDialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use souk_protocol::NodeId;
use tokio::sync::watch;

use super::{Dial, Task};
use crate::{
    exchange::{Answer, Event, Question},
    limits::{DIAL_BACKS, MAX_ADDRESSES},
    names,
    peers::{self, Scope},
    reach::{Addresses, Change, DialBack, MAX_ADDRESS, News, Reachability, Relays, Step, Test},
    schedule::jitter,
    table::{Connection, Direction, Peer},
};

/// Between two dials for a peer to see this node over QUIC.
const SHOW_AGAIN: Duration = Duration::from_secs(10);
/// How long a peer that was dialled back may take to say who it is.
const SILENT: Duration = Duration::from_secs(5);
const REACHED: u8 = 1;
const UNREACHED: u8 = 0;

/// What is under way.
pub(super) struct Reaching {
    told: watch::Sender<Reachability>,
    addresses: Addresses,
    relays: Relays,
    /// Places at relays, asked for or had.
    places: HashMap<ListenerId, PeerId>,
    /// Tests that peers make for this node, and whether they have come.
    tests: HashMap<OutboundRequestId, (Test, bool)>,
    /// Tests that this node makes for peers.
    dialling_back: usize,
    /// Of those the ones that are connected, and not yet seen to be so by the peer.
    connected_back: HashMap<ConnectionId, (ResponseChannel<Answer>, Instant)>,
    /// When a peer was last dialled for it to see this node over QUIC.
    shown_by_udp: Option<Instant>,
    /// Whether to relay at all.
    relay: bool,
    /// When to tell all peers what this node does now.
    tell_peers: Option<Instant>,
}

/// After a change of what a node does, before its peers are told: its connections have taken it up by then. Identify tells by
/// itself only those with whom it has finished a first exchange.
const TELL_PEERS: Duration = Duration::from_millis(300);

impl Reaching {
    pub(super) fn new(told: watch::Sender<Reachability>, external: Vec<Multiaddr>, relay: bool) -> Self {
        Self {
            told,
            addresses: Addresses::new(external),
            relays: Relays::default(),
            places: HashMap::new(),
            tests: HashMap::new(),
            dialling_back: 0,
            connected_back: HashMap::new(),
            shown_by_udp: None,
            relay,
            tell_peers: None,
        }
    }

    /// Whether `peer` has been asked to dial back and has not answered: a connection that it makes now is that, and none of its
    /// others is lost.
    pub(super) fn is_tested_by(&self, peer: &PeerId) -> bool {
        self.tests.values().any(|(test, _)| test.by == *peer)
    }

    /// A peer has connected to this node, directly.
    pub(super) fn has_come(&mut self, peer: &PeerId) {
        for (test, came) in self.tests.values_mut() {
            *came |= test.by == *peer;
        }
    }

    pub(super) fn is_place(&self, id: ListenerId) -> bool {
        self.places.contains_key(&id)
    }
}

/// A direct connection over the internet: its peer sees what others see.
fn is_outward(connection: &Connection) -> bool {
    !connection.relayed && peers::scope(&connection.remote) == Some(Scope::Global)
}

impl Task {
    pub(super) fn reaching_deadline(&self) -> Option<Instant> {
        // Without a peer to ask there is nothing to wake for.
        let outward = self.table.iter().any(|(_, peer)| peer.admitted && peer.connections.iter().any(is_outward));
        let due = [self.reaching.addresses.deadline(), self.reaching.relays.deadline()].into_iter().flatten().min();
        // A due test may lack a rested server: not before the next look.
        let due = due.filter(|_| outward).map(|at| at.max(Instant::now() + super::SWEEP / 5));
        [due, self.reaching.tell_peers].into_iter().flatten().min()
    }

    /// Asks for the tests and the places that are due.
    pub(super) fn reach_what_is_due(&mut self, now: Instant) {
        let mut outward: Vec<(&PeerId, &Peer)> = self.table.iter().filter(|(_, p)| p.admitted).collect();
        outward.retain(|(_, peer)| peer.connections.iter().any(is_outward));
        // Not always the same.
        outward.sort_unstable_by_key(|(id, _)| **id);
        let turn = (jitter() * outward.len() as f64) as usize;
        let turn = turn.min(outward.len().saturating_sub(1));
        outward.rotate_left(turn);
        let servers: Vec<PeerId> = outward.iter().map(|(id, _)| **id).collect();
        // A relay is reached at the address that this node has dialled.
        let place = |(id, peer): &(&PeerId, &Peer)| {
            let mut dialled = peer.connections.iter().filter(|c| is_outward(c) && c.direction == Direction::Outbound);
            dialled.next().filter(|_| peer.relays).map(|c| (**id, c.remote.clone()))
        };
        let offered: Vec<(PeerId, Multiaddr)> = outward.iter().filter_map(place).collect();
        for test in self.reaching.addresses.due(&servers, now) {
            let question = Question::Body(test.address.to_vec(), None);
            let id = self.swarm.behaviour_mut().reach.send_request(&test.by, question);
            self.reaching.tests.insert(id, (test, false));
        }
        self.show_by_udp(&servers, now);
        let closed = self.reaching.addresses.public() == Some(false);
        for step in self.reaching.relays.due(closed, &offered, now) {
            match step {
                Step::Reserve(peer, address) => self.reserve(peer, &address, now),
                Step::Leave(peer) => self.leave(&peer),
            }
        }
        self.tell_reachability();
        if self.reaching.tell_peers.is_some_and(|at| at <= now) {
            self.reaching.tell_peers = None;
            self.tell_what_it_does();
        }
    }

    /// By a request of its own, and by identify's push, which tells of all protocols where it arrives.
    fn tell_what_it_does(&mut self) {
        let peers: Vec<PeerId> = self.table.iter().map(|(id, _)| *id).collect();
        let relays = self.reaching.relay && *self.reaching.told.borrow() == Reachability::Public;
        let addresses: Vec<Multiaddr> =
            self.swarm.external_addresses().chain(self.swarm.listeners()).take(MAX_ADDRESSES).cloned().collect();
        let news = News { relays, addresses }.to_bytes();
        let behaviour = self.swarm.behaviour_mut();
        for peer in &peers {
            behaviour.reach.send_request(peer, Question::Body(news.clone(), None));
        }
        behaviour.identify.push(peers);
    }

    /// Dials a peer over QUIC that was dialled by TCP alone, where that is wanted: what it sees is what a hole is punched to.
    fn show_by_udp(&mut self, servers: &[PeerId], now: Instant) {
        let rested = self.reaching.shown_by_udp.is_none_or(|at| now.saturating_duration_since(at) >= SHOW_AGAIN);
        let listens = self.swarm.listeners().any(peers::is_quic);
        if !rested || !listens || !self.reaching.addresses.lacks_udp() {
            return;
        }
        let found = servers.iter().find_map(|peer| {
            let connections = &self.table.get_mut(peer)?.connections;
            let dialled = connections.iter().find(|c| is_outward(c) && c.direction == Direction::Outbound)?;
            let ip = peers::ip_of(&dialled.remote);
            let known = self.book.of(peer).into_iter();
            let mut known = known.filter(|a| peers::is_quic(a) && !peers::is_relayed(a) && peers::ip_of(a) == ip);
            Some((*peer, known.next()?))
        });
        if let Some((peer, address)) = found {
            self.reaching.shown_by_udp = Some(now);
            let opts = DialOpts::peer_id(peer).addresses(vec![address]).condition(PeerCondition::Always).build();
            // If it does not come about, another's turn comes.
            self.begin(opts).ok();
        }
    }

    fn reserve(&mut self, peer: PeerId, address: &Multiaddr, now: Instant) {
        let circuit = peers::without_peer(address.clone()).with(Protocol::P2p(peer)).with(Protocol::P2pCircuit);
        match self.swarm.listen_on(circuit) {
            Ok(id) => {
                tracing::debug!(relay = %peer, "asks for a place at a relay");
                self.reaching.places.insert(id, peer);
            }
            Err(error) => {
                tracing::debug!(relay = %peer, %error, "can't be relayed for");
                self.reaching.relays.lost(peer, now, jitter());
            }
        }
    }

    fn leave(&mut self, peer: &PeerId) {
        let ids: Vec<ListenerId> =
            self.reaching.places.iter().filter(|(_, relay)| *relay == peer).map(|(id, _)| *id).collect();
        for id in ids {
            self.reaching.places.remove(&id);
            self.swarm.remove_listener(id);
        }
    }

    pub(super) fn on_relay_place(&mut self, id: ListenerId) {
        if let Some(peer) = self.reaching.places.get(&id) {
            tracing::info!(relay = %peer, "others reach this node through a relay");
            self.reaching.relays.had(*peer);
            self.tell_reachability();
        }
    }

    pub(super) fn on_relay_place_lost(&mut self, id: ListenerId) {
        if let Some(peer) = self.reaching.places.remove(&id) {
            tracing::info!(relay = %peer, "the place at a relay is lost");
            let now = Instant::now();
            self.reaching.relays.lost(peer, now, jitter());
            self.reach_what_is_due(now);
        }
    }

    /// A socket of this node's is bound here.
    pub(super) fn on_own_address(&mut self, address: &Multiaddr) {
        self.reaching.addresses.listening(address, Instant::now());
    }

    /// A peer has seen this node here.
    pub(super) fn on_seen(&mut self, address: &Multiaddr) {
        let now = Instant::now();
        self.reaching.addresses.seen(address, now);
        self.reach_what_is_due(now);
    }

    /// Tells everybody what is believed now, and behaves accordingly.
    pub(super) fn tell_reachability(&mut self) {
        let nodes = |peers: &Relays| -> Vec<NodeId> { peers.having().filter_map(names::node_id).collect() };
        let now = match self.reaching.addresses.public() {
            Some(true) => Reachability::Public,
            Some(false) => Reachability::Private { relays: nodes(&self.reaching.relays) },
            None => Reachability::Unknown,
        };
        if *self.reaching.told.borrow() == now {
            return;
        }
        tracing::info!(reachability = ?now, "how others reach this node");
        let (kad, service) = match &now {
            // Who can't be dialled is no use in others' tables.
            Reachability::Private { .. } => (kad::Mode::Client, relay::Status::Disable),
            Reachability::Public if self.reaching.relay => (kad::Mode::Server, relay::Status::Enable),
            Reachability::Public | Reachability::Unknown => (kad::Mode::Server, relay::Status::Disable),
        };
        let behaviour = self.swarm.behaviour_mut();
        behaviour.kad.set_mode(Some(kad));
        behaviour.relay.set_status(Some(service));
        self.reaching.told.send_replace(now);
        self.reaching.tell_peers = Some(Instant::now() + TELL_PEERS);
    }

    pub(super) fn on_relaying(&mut self, event: &relay::Event) {
        if let relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } = event {
            self.counters.circuits_relayed.one();
            tracing::debug!(from = %src_peer_id, to = %dst_peer_id, "relays for two peers");
        }
    }

    pub(super) fn on_punched(&mut self, event: &dcutr::Event) {
        match &event.result {
            Ok(_) => {
                tracing::info!(peer = %event.remote_peer_id, "a relayed connection became a direct one");
                self.counters.punched.one();
            }
            Err(error) => {
                tracing::debug!(peer = %event.remote_peer_id, %error, "no direct connection; the relay stays");
                self.counters.punched_in_vain.one();
            }
        }
    }

    /// Closes relayed connections beside which there is a direct one, when nothing flows through them any more.
    pub(super) fn part_with_spare(&mut self, now: Instant) {
        for id in self.table.spare(now) {
            if self.swarm.behaviour().streams.is_idle(id) {
                self.swarm.close_connection(id);
            } else {
                tracing::debug!(?id, "a relayed connection is still in use");
            }
        }
    }

    pub(super) fn on_reach(&mut self, event: Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_asked(peer, request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                let outcome = match response {
                    Answer::Body(body) if body == [REACHED] => DialBack::Reached,
                    Answer::Body(body) if body == [UNREACHED] => DialBack::Unreached,
                    Answer::Body(_) | Answer::Busy(_) | Answer::None | Answer::RequestTooLarge | Answer::TooLarge => {
                        DialBack::Refused
                    }
                };
                self.on_tested(request_id, outcome);
            }
            Event::OutboundFailure { request_id, .. } => self.on_tested(request_id, DialBack::Refused),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    fn on_asked(&mut self, peer: PeerId, question: Question, channel: ResponseChannel<Answer>) {
        match &question {
            Question::Body(bytes, _) if News::is_meant(bytes) => {
                let heard = News::from_bytes(bytes).is_some_and(|news| self.hear(peer, news));
                let answer = if heard { Answer::Body(Vec::new()) } else { Answer::busy() };
                self.answer_reach(channel, answer);
            }
            Question::Body(..) | Question::TooLarge | Question::NoRoom => self.dial_back(peer, question, channel),
        }
    }

    /// False if a peer tells too much.
    fn hear(&mut self, peer: PeerId, news: News) -> bool {
        let now = Instant::now();
        let Some(entry) = self.table.get_mut(&peer) else { return false };
        if !entry.dial_backs.take(now) {
            return false;
        }
        entry.relays = news.relays;
        let remote = entry.connections.iter().min_by_key(|c| c.relayed).map(|c| c.remote.clone());
        if let Some(remote) = remote {
            self.learn_addresses(peer, news.addresses, &remote);
        }
        self.reach_what_is_due(now);
        true
    }

    fn on_tested(&mut self, id: OutboundRequestId, outcome: DialBack) {
        let Some((test, came)) = self.reaching.tests.remove(&id) else { return };
        // Who says so and has not come is wrong, or lies.
        let outcome = if outcome == DialBack::Reached && !came { DialBack::Refused } else { outcome };
        tracing::debug!(address = %test.address, by = %test.by, ?outcome, "a peer dialled back");
        match self.reaching.addresses.tested(&test, outcome, Instant::now()) {
            Some(Change::Confirmed(address)) => self.swarm.add_external_address(address),
            Some(Change::Lost(address)) => self.swarm.remove_external_address(&address),
            None => {}
        }
        self.tell_reachability();
    }

    /// A peer asks to be dialled at an address. Only at the one that its own connection comes from, so that nobody is sent
    /// anywhere; and from a port of its own, which the peer's NAT has not seen.
    fn dial_back(&mut self, peer: PeerId, question: Question, channel: ResponseChannel<Answer>) {
        let asked = match question {
            Question::Body(bytes, _) if bytes.len() <= MAX_ADDRESS => Multiaddr::try_from(bytes).ok(),
            Question::Body(..) | Question::TooLarge | Question::NoRoom => None,
        };
        let in_rate = self.table.get_mut(&peer).is_some_and(|entry| entry.dial_backs.take(Instant::now()));
        let direct = |address: &Multiaddr| !peers::is_relayed(address) && peers::scope(address).is_some();
        let address = asked.filter(direct).filter(|address| {
            let ip = peers::ip_of(address);
            let from = |c: &Connection| !c.relayed && peers::ip_of(&c.remote) == ip;
            ip.is_some() && self.table.get_mut(&peer).is_some_and(|entry| entry.connections.iter().any(from))
        });
        let Some(address) = address.filter(|_| in_rate && self.reaching.dialling_back < DIAL_BACKS) else {
            return self.answer_reach(channel, Answer::busy());
        };
        let opts = DialOpts::peer_id(peer)
            .addresses(vec![address])
            .condition(PeerCondition::Always)
            .allocate_new_port()
            .build();
        self.counters.dialled_back.one();
        self.reaching.dialling_back += 1;
        self.dial(opts, Dial::Back(channel));
    }

    /// The peer was reached, as this side sees it. Were the connection closed now, a lost packet could keep the peer from ever
    /// seeing it: it says who it is on each, and that is waited for.
    pub(super) fn dialled_back(&mut self, channel: ResponseChannel<Answer>, id: ConnectionId) {
        self.reaching.connected_back.insert(id, (channel, Instant::now()));
    }

    /// A peer has said who it is. The connection has served if it was for that, and the two have another.
    pub(super) fn shown_back(&mut self, id: ConnectionId) {
        self.end_dial_back(id, Answer::Body(vec![REACHED]));
    }

    /// What was connected back and is closed, or was not seen by its peer for long.
    pub(super) fn end_dial_back(&mut self, id: ConnectionId, answer: Answer) {
        if let Some((channel, _)) = self.reaching.connected_back.remove(&id) {
            self.reaching.dialling_back = self.reaching.dialling_back.saturating_sub(1);
            self.answer_reach(channel, answer);
            self.swarm.close_connection(id);
        }
    }

    /// Gives up on dial-backs whose peer says nothing.
    pub(super) fn end_silent_dial_backs(&mut self, now: Instant) {
        let silent = |since: Instant| now.saturating_duration_since(since) >= SILENT;
        let ids: Vec<ConnectionId> =
            self.reaching.connected_back.iter().filter(|(_, (_, since))| silent(*since)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end_dial_back(id, Answer::busy());
        }
    }

    pub(super) fn dialled_back_in_vain(&mut self, channel: ResponseChannel<Answer>, error: &SwarmDialError) {
        self.reaching.dialling_back = self.reaching.dialling_back.saturating_sub(1);
        let answer = match error {
            SwarmDialError::Transport(_) | SwarmDialError::WrongPeerId { .. } => Answer::Body(vec![UNREACHED]),
            SwarmDialError::LocalPeerId { .. }
            | SwarmDialError::NoAddresses
            | SwarmDialError::DialPeerConditionFalse(_)
            | SwarmDialError::Aborted
            | SwarmDialError::Denied { .. } => Answer::busy(),
        };
        self.answer_reach(channel, answer);
    }

    fn answer_reach(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // It fails only if the asker is gone, or has waited too long.
        self.swarm.behaviour_mut().reach.send_response(channel, answer).ok();
    }
}
