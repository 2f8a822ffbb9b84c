//! Knocks in both directions, who is a member, and members found on the local network.
//!
//! A knock of this node's goes over a connection made for it alone, unless there is one to the peer already, and is told to be over
//! when that connection is closed: what is dialled then is a member's connection from its first byte, on both sides.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId,
    request_response::{Message, OutboundRequestId, ResponseChannel},
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use souk_protocol::NodeId;
use tokio::sync::oneshot;

use super::{Dial, Task, exchanges};
use crate::{
    door::{Knocks, Source},
    error::RequestError,
    event::{NetworkEvent, Reply},
    exchange::{Answer, Event, Question},
    handle::RequestOutcome,
    lan::Found,
    limits::{MAX_ADDRESSES, MAX_KNOCK_ANSWER, MAX_KNOCKING, MAX_REPLIES, RETRY_AFTER},
    names, peers,
};

/// Between two dials of a member that was found on the local network and is not connected.
const FOUND_AGAIN: Duration = Duration::from_secs(30);

/// A knock of this node's.
#[derive(Debug)]
pub(super) struct Knock {
    peer: PeerId,
    body: Vec<u8>,
    reply: oneshot::Sender<RequestOutcome>,
}

/// A connection made to knock.
#[derive(Debug)]
struct Visit {
    peer: PeerId,
    /// Told when it is closed.
    outcome: Option<(oneshot::Sender<RequestOutcome>, RequestOutcome)>,
}

/// What is under way.
pub(super) struct Knocking {
    rates: Knocks,
    /// Knocks sent; bounded, with dials and visits, by `MAX_KNOCKING`.
    asked: HashMap<OutboundRequestId, (oneshot::Sender<RequestOutcome>, Option<ConnectionId>)>,
    dialling: usize,
    visits: HashMap<ConnectionId, Visit>,
    /// Bounded by `MAX_REPLIES`.
    pub(super) replies: FuturesUnordered<BoxFuture<'static, (ResponseChannel<Answer>, Answer)>>,
    next_found: Instant,
}

impl Knocking {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rates: Knocks::new(now),
            asked: HashMap::new(),
            dialling: 0,
            visits: HashMap::new(),
            replies: FuturesUnordered::new(),
            next_found: now,
        }
    }
}

impl Task {
    pub(super) fn knock(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        body: Vec<u8>,
        reply: oneshot::Sender<RequestOutcome>,
    ) {
        let knock = Knock { peer, body, reply };
        let under_way = self.knocking.asked.len() + self.knocking.dialling + self.knocking.visits.len();
        // A second one over a connection that the first closes would be lost.
        let visited = self.knocking.visits.values().any(|visit| visit.peer == peer);
        if under_way >= MAX_KNOCKING || visited {
            knock.reply.send(Err(RequestError::Busy { retry_after: RETRY_AFTER })).ok();
            return;
        }
        if self.swarm.is_connected(&peer) {
            return self.send_knock(knock, None);
        }
        // Strangers are not let in through relays.
        let direct = |address: &Multiaddr| peers::scope(address).is_some() && !peers::is_relayed(address);
        let mut at: Vec<Multiaddr> = addresses.into_iter().filter(direct).take(MAX_ADDRESSES).collect();
        if at.is_empty() {
            at = self.book.of(&peer).into_iter().filter(direct).collect();
        }
        if at.is_empty() {
            knock.reply.send(Err(RequestError::NotConnected)).ok();
            return;
        }
        let opts = DialOpts::peer_id(peer).addresses(at).condition(PeerCondition::Always).build();
        self.swarm.behaviour_mut().door.visit(opts.connection_id());
        self.knocking.dialling += 1;
        self.dial(opts, Dial::Knock(knock));
    }

    fn send_knock(&mut self, knock: Knock, over: Option<ConnectionId>) {
        let question = Question::Body(knock.body, None);
        let id = self.swarm.behaviour_mut().knock.send_request(&knock.peer, question);
        self.knocking.asked.insert(id, (knock.reply, over));
    }

    /// A connection was made to knock.
    pub(super) fn visiting(&mut self, knock: Knock, id: ConnectionId) {
        self.knocking.dialling = self.knocking.dialling.saturating_sub(1);
        self.knocking.visits.insert(id, Visit { peer: knock.peer, outcome: None });
        self.send_knock(knock, Some(id));
    }

    pub(super) fn knocked_in_vain(&mut self, knock: Knock, reason: String) {
        self.knocking.dialling = self.knocking.dialling.saturating_sub(1);
        knock.reply.send(Err(RequestError::Unreachable(reason))).ok();
    }

    /// A connection is closed, perhaps one that was made to knock.
    pub(super) fn end_visit(&mut self, id: ConnectionId) {
        if let Some(Visit { outcome: Some((reply, outcome)), .. }) = self.knocking.visits.remove(&id) {
            reply.send(outcome).ok();
        }
    }

    fn on_knock_outcome(&mut self, id: OutboundRequestId, outcome: RequestOutcome) {
        let Some((reply, over)) = self.knocking.asked.remove(&id) else { return };
        match over.and_then(|over| Some((over, self.knocking.visits.get_mut(&over)?))) {
            Some((over, visit)) => {
                visit.outcome = Some((reply, outcome));
                self.swarm.close_connection(over);
            }
            None => {
                reply.send(outcome).ok();
            }
        }
    }

    pub(super) fn on_knock(&mut self, event: Event) {
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                self.swarm.behaviour_mut().door.knocked(connection_id);
                self.on_knocked(peer, connection_id, request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_knock_outcome(request_id, exchanges::outcome(response));
            }
            Event::OutboundFailure { request_id, error, .. } => {
                self.on_knock_outcome(request_id, Err(exchanges::failure(&error)));
            }
            Event::InboundFailure { connection_id, .. } | Event::ResponseSent { connection_id, .. } => {
                self.swarm.behaviour_mut().door.answered(connection_id, Instant::now());
            }
        }
    }

    fn on_knocked(&mut self, peer: PeerId, id: ConnectionId, question: Question, channel: ResponseChannel<Answer>) {
        let (body, held) = match question {
            Question::Body(body, held) => (body, held),
            Question::TooLarge => return self.on_knock_reply(channel, Answer::RequestTooLarge),
            Question::NoRoom => return self.refuse_knock(channel),
        };
        let of_member = self.table.get_mut(&peer);
        let of_member = of_member.and_then(|entry| entry.connections.iter().find(|c| c.id == id));
        let remote = self.swarm.behaviour().door.remote(id).or_else(|| Some(&of_member?.remote)).cloned();
        let (Some(node), Some(address)) = (names::node_id(&peer), remote) else {
            return self.refuse_knock(channel);
        };
        // Members compare lists, and are bounded by being few.
        let in_rate = self.swarm.behaviour().lan.roster().is_member(&peer)
            || Source::of(&address).is_some_and(|source| self.knocking.rates.take(source, Instant::now()));
        if !in_rate || self.knocking.replies.len() >= MAX_REPLIES {
            return self.refuse_knock(channel);
        }
        let (reply, answer) = Reply::new(held, MAX_KNOCK_ANSWER);
        let event = NetworkEvent::Knock { peer: node, address, body: Bytes::from(body), reply };
        if self.outbox.send(event).is_err() {
            return self.refuse_knock(channel);
        }
        self.counters.knocks_received.one();
        let answered = answer.map(move |answer| (channel, answer.unwrap_or(Answer::None)));
        self.knocking.replies.push(answered.boxed());
    }

    fn refuse_knock(&mut self, channel: ResponseChannel<Answer>) {
        self.counters.knocks_busy.one();
        self.on_knock_reply(channel, Answer::busy());
    }

    pub(super) fn on_knock_reply(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        // It fails only if the stranger is gone.
        self.swarm.behaviour_mut().knock.send_response(channel, answer).ok();
    }

    pub(super) fn open_door(&mut self, open: bool) {
        self.swarm.behaviour_mut().door.open(open, Instant::now());
    }

    pub(super) fn allow(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().door.allow(peer, Instant::now());
    }

    pub(super) fn disallow(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().door.disallow(peer);
        self.forget_member(peer);
    }

    pub(super) fn replace_members(&mut self, nodes: &[NodeId]) {
        let members: HashSet<PeerId> = nodes.iter().filter_map(names::peer_id).collect();
        for former in self.swarm.behaviour_mut().door.replace(members, Instant::now()) {
            self.forget_member(former);
        }
    }

    /// Who is no member is looked for no more.
    fn forget_member(&mut self, peer: PeerId) {
        if !self.swarm.behaviour().lan.roster().is_member(&peer) {
            self.unkeep(peer);
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
        }
    }

    pub(super) fn on_found(&mut self, Found(peer): &Found) {
        if !self.swarm.is_connected(peer) {
            tracing::info!(%peer, "a member of the cluster is on the local network");
            self.dial_found(*peer);
        }
    }

    fn dial_found(&mut self, peer: PeerId) {
        let at = self.swarm.behaviour().lan.of(&peer).to_vec();
        let condition = PeerCondition::DisconnectedAndNotDialing;
        // If nobody is there, it is dialled again before long.
        self.begin(DialOpts::peer_id(peer).addresses(at).condition(condition).build()).ok();
    }

    /// Dials those that were found and are not connected, now and then.
    pub(super) fn tend_local_network(&mut self, now: Instant) {
        self.swarm.behaviour_mut().lan.tend(now);
        if now < self.knocking.next_found {
            return;
        }
        self.knocking.next_found = now + FOUND_AGAIN;
        let found: Vec<PeerId> = self.swarm.behaviour().lan.found().copied().collect();
        for peer in found {
            if !self.swarm.is_connected(&peer) {
                self.dial_found(peer);
            }
        }
    }
}
