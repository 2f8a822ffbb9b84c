//! What the swarm reports.

use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use libp2p::{
    Multiaddr, PeerId,
    core::ConnectedPoint,
    gossipsub::{self, Message, MessageAcceptance, MessageId},
    identify, kad, ping,
    relay::HOP_PROTOCOL_NAME,
    swarm::{ConnectionId, SwarmEvent},
};
use souk_protocol::NodeId;

use super::{Dial, Task};
use crate::{
    behaviour::BehaviourEvent,
    error::DialError,
    event::{GossipVerdict, NetworkEvent},
    exchange::Answer,
    limits::{MAX_ADDRESSES, MAX_VERDICTS},
    names, peers,
    schedule::jitter,
    streams,
};

/// Two pings in a row without an answer: one may be lost to a stall, and ping itself never closes a connection.
const SILENT_PINGS: u32 = 2;

impl Task {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are many and open-ended; the rest report progress that others report better"
    )]
    pub(super) fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint)
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                tracing::debug!(peer = %peer_id, cause = ?cause, "connection closed");
                self.on_closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_error(connection_id, &error)
            }
            SwarmEvent::NewListenAddr { listener_id, address } if peers::is_relayed(&address) => {
                self.on_relay_place(listener_id);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } if peers::is_relayed(&address) => {}
            SwarmEvent::NewExternalAddrCandidate { address } => self.on_seen(&address),
            SwarmEvent::NewListenAddr { address, .. } => {
                self.on_own_address(&address);
                tracing::info!(%address, "listening");
                self.listening.send_modify(|all| {
                    if !all.contains(&address) {
                        all.push(address.clone());
                    }
                });
                self.outbox.listening(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.send_modify(|all| all.retain(|a| *a != address));
            }
            SwarmEvent::ListenerClosed { listener_id, .. } if self.reaching.is_place(listener_id) => {
                self.on_relay_place_lost(listener_id);
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                tracing::warn!(?addresses, ?reason, "no longer listening");
                self.listening.send_modify(|all| all.retain(|a| !addresses.contains(a)));
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "a listening socket failed once");
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Exchange(event) => self.on_exchange(event),
            BehaviourEvent::Streams(streams::Inbound { peer, admitted }) => {
                self.admit(peer);
                if let Some(from) = names::node_id(&peer) {
                    let stream = admitted.stream;
                    admitted.place.send(NetworkEvent::Stream { from, stream });
                }
            }
            BehaviourEvent::Knock(event) => self.on_knock(event),
            BehaviourEvent::Lan(found) => self.on_found(&found),
            BehaviourEvent::Gossip(event) => self.on_gossip(event),
            BehaviourEvent::Reach(event) => self.on_reach(event),
            BehaviourEvent::Punch(event) => self.on_punched(&event),
            BehaviourEvent::Relay(event) => self.on_relaying(&event),
            // Its listeners tell of places, its connections of circuits.
            BehaviourEvent::Relayed(_) => {}
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => self.on_ping(&event),
            BehaviourEvent::Kad(event) => self.on_kad(event),
            BehaviourEvent::Crowd(never)
            | BehaviourEvent::Limits(never)
            | BehaviourEvent::Blocked(never)
            | BehaviourEvent::Door(never)
            | BehaviourEvent::Fence(never) => match never {},
        }
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(node) = names::node_id(&peer) else {
            // Not an Ed25519 key: nobody of this network.
            self.counters.connections_foreign.one();
            self.swarm.close_connection(id);
            return;
        };
        self.counters.connections_established.one();
        let dial = self.dials.remove(&id);
        if self.swarm.behaviour().door.is_strange(id) {
            // Nothing but knocking happens there: it is none of this network's connections.
            if let Some(Dial::Knock(knock)) = dial {
                self.visiting(knock, id);
            }
            return;
        }
        if endpoint.is_relayed() {
            self.counters.connections_relayed.one();
        } else if endpoint.is_listener() {
            self.reaching.has_come(&peer);
        }
        let target = match dial {
            Some(Dial::Back(channel)) => return self.dialled_back(channel, id),
            Some(Dial::Target(target)) => Some(target),
            Some(Dial::Command(reply)) => {
                // Told when the peer is admitted; until then it waits with the dials.
                self.dials.insert(id, Dial::Command(reply));
                None
            }
            Some(Dial::Requests(_) | Dial::Knock(_)) | None => None,
        };
        self.table.established((peer, node), id, endpoint, target, &self.limits, Instant::now());
        self.note_relayed(&peer, node);
        // Left open, each would take its turn at our requests and keep them until it times out.
        if !self.reaching.is_tested_by(&peer) {
            for old in self.table.superseded(&peer, id, Instant::now()) {
                self.swarm.close_connection(old);
            }
        }
        if let ConnectedPoint::Dialer { address, .. } = endpoint {
            // It answered there: worth remembering for when it goes.
            self.book.met(peer, address.clone());
        }
        if self.table.get_mut(&peer).is_some_and(|peer| peer.admitted) {
            self.admitted_by(peer, id);
        }
        self.send_waiting(peer);
    }

    fn note_relayed(&self, peer: &PeerId, node: NodeId) {
        let now = self.table.is_relayed(peer);
        self.relayed.send_if_modified(|all| if now { all.insert(node) } else { all.remove(&node) });
    }

    /// A connection of an admitted peer is what it was dialled for.
    fn admitted_by(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(entry) = self.table.get_mut(&peer) {
            let node = entry.node;
            let target = entry.connections.iter_mut().find(|c| c.id == id).and_then(|c| c.target.take());
            if let Some(Dial::Command(reply)) = self.dials.remove(&id) {
                reply.send(Ok(node)).ok();
            }
            if target.is_some() {
                self.discovery.connected(peer, target, Instant::now());
            }
        }
    }

    /// A peer showed that it is of this network.
    pub(super) fn admit(&mut self, peer: PeerId) {
        let Some(entry) = self.table.get_mut(&peer) else {
            return;
        };
        if entry.admitted {
            return;
        }
        entry.admitted = true;
        let node = entry.node;
        let ids: Vec<ConnectionId> = entry.connections.iter().map(|c| c.id).collect();
        self.discovery.connected(peer, None, Instant::now());
        for id in ids {
            self.admitted_by(peer, id);
        }
        self.connected.send_modify(|all| {
            all.insert(node);
        });
        self.outbox.connection(node, true);
    }

    fn on_closed(&mut self, peer: PeerId, id: ConnectionId) {
        self.end_dial_back(id, Answer::busy());
        self.end_visit(id);
        if let Some(Dial::Command(reply)) = self.dials.remove(&id) {
            let why = "the node there is not of this network, or closed the connection at once";
            reply.send(Err(DialError::Failed(why.to_owned()))).ok();
        }
        let (target, gone) = self.table.closed(&peer, id);
        if let Some(node) = names::node_id(&peer) {
            self.note_relayed(&peer, node);
        }
        if let Some(target) = target {
            self.dial_in_vain(target);
        }
        if let Some(gone) = gone
            && gone.admitted
        {
            self.discovery.disconnected(peer, Instant::now(), jitter());
            self.connected.send_modify(|all| {
                all.remove(&gone.node);
            });
            self.outbox.connection(gone.node, false);
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        let identify::Event::Received { connection_id, peer_id, info } = event else {
            return;
        };
        if info.protocol_version != self.names.network {
            tracing::debug!(peer = %peer_id, "a node of another network or version");
            self.counters.connections_foreign.one();
            self.swarm.disconnect_peer_id(peer_id).ok();
            return;
        }
        self.shown_back(connection_id);
        let Some(entry) = self.table.get_mut(&peer_id) else {
            return;
        };
        entry.set_agent(&info.agent_version);
        entry.relays = info.protocols.contains(&HOP_PROTOCOL_NAME);
        let remote = entry.connections.iter().find(|c| c.id == connection_id).map(|c| c.remote.clone());
        if let Some(remote) = remote {
            self.learn_addresses(peer_id, info.listen_addrs, &remote);
        }
        self.admit(peer_id);
        self.reach_what_is_due(Instant::now());
    }

    /// A peer says where it is reached, over a connection from `remote`.
    pub(super) fn learn_addresses(&mut self, peer: PeerId, told: Vec<Multiaddr>, remote: &Multiaddr) {
        let credible: Vec<Multiaddr> = told
            .into_iter()
            .filter(|address| peers::is_credible(address, remote))
            .map(peers::without_peer)
            .take(MAX_ADDRESSES)
            .collect();
        self.tell_directory(&peer, &credible);
        for address in credible {
            self.book.add(peer, address);
        }
    }

    /// Replaces what the directory knows of a peer: it would keep every address ever told.
    fn tell_directory(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        for address in addresses {
            kad.add_address(peer, address.clone());
        }
        let stale: Vec<Multiaddr> = kad
            .kbucket(*peer)
            .into_iter()
            .flat_map(|bucket| {
                bucket
                    .iter()
                    .filter(|entry| entry.node.key.preimage() == peer)
                    .flat_map(|entry| entry.node.value.iter().cloned().collect::<Vec<_>>())
                    .collect::<Vec<_>>()
            })
            .filter(|known| !addresses.contains(&peers::without_peer(known.clone())))
            .collect();
        if !addresses.is_empty() {
            for address in stale {
                kad.remove_address(peer, &address);
            }
        }
    }

    fn on_ping(&mut self, event: &ping::Event) {
        let rtt = match &event.result {
            Ok(rtt) => Some(*rtt),
            Err(ping::Failure::Timeout | ping::Failure::Other { .. }) => None,
            Err(ping::Failure::Unsupported) => return,
        };
        let silent = self.table.pinged(&event.peer, event.connection, rtt);
        if silent >= SILENT_PINGS {
            self.counters.connections_silent.one();
            self.swarm.close_connection(event.connection);
        }
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "of the directory's many events only finished lookups concern us"
    )]
    fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id, result: kad::QueryResult::GetClosestPeers(result), step, ..
            } if step.last => self.on_closest_peers(id, result),
            _ => {}
        }
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                self.on_message(propagation_source, message_id, message)
            }
            gossipsub::Event::Subscribed { peer_id, .. } => {
                self.admit(peer_id);
                self.publish_waiting(Instant::now());
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "a peer does not keep up with our gossip");
            }
            gossipsub::Event::Unsubscribed { .. } | gossipsub::Event::GossipsubNotSupported { .. } => {}
        }
    }

    fn on_message(&mut self, peer: PeerId, id: MessageId, message: Message) {
        self.admit(peer);
        self.counters.gossip_received.one();
        self.counters.bytes_in.add(message.data.len());
        self.table.received(&peer, message.data.len());
        let in_rate = self.table.get_mut(&peer).is_some_and(|peer| peer.gossip.take(Instant::now()));
        let topic = self.names.topic_of(&message.topic);
        let (Some(from), Some(topic), true) = (names::node_id(&peer), topic, in_rate) else {
            return self.overrun(&id, &peer);
        };
        if self.verdicts.len() >= MAX_VERDICTS {
            return self.overrun(&id, &peer);
        }
        let (verdict, judged) = GossipVerdict::new();
        let event = NetworkEvent::Gossip { topic, from, data: Bytes::from(message.data), verdict };
        if self.outbox.send(event).is_err() {
            return self.overrun(&id, &peer);
        }
        let judged = judged.map(move |verdict| (id, peer, verdict.unwrap_or(MessageAcceptance::Ignore)));
        self.verdicts.push(judged.boxed());
    }

    fn overrun(&mut self, id: &MessageId, from: &PeerId) {
        self.counters.gossip_overrun.one();
        self.judge(id, from, MessageAcceptance::Ignore);
    }
}
