//! What the rest of the node asks of the network.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId, swarm::dial_opts::DialOpts};
use souk_protocol::NodeId;

use super::{Dial, Task};
use crate::{
    error::{DialError, RequestError, StreamError, dial_reason},
    handle::Command,
    limits::MAX_KEPT_PEERS,
    names, peers,
    table::PeerInfo,
};

impl Task {
    pub(super) fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(topic, data) => self.publish(topic, data, None),
            Command::Request(node, outgoing) => match names::peer_id(&node) {
                Some(peer) => self.request(peer, outgoing),
                None => {
                    outgoing.reply.send(Err(RequestError::NotConnected)).ok();
                }
            },
            Command::OpenStream(node, reply) => match names::peer_id(&node) {
                Some(peer) => self.swarm.behaviour_mut().streams.open(peer, reply),
                None => {
                    reply.send(Err(StreamError::NotConnected)).ok();
                }
            },
            Command::Dial(address, reply) => {
                let opts = DialOpts::unknown_peer_id().address(address).build();
                let id = opts.connection_id();
                match self.begin(opts) {
                    Ok(()) => {
                        self.dials.insert(id, Dial::Command(reply));
                    }
                    Err(e) => {
                        reply.send(Err(DialError::Failed(dial_reason(&e)))).ok();
                    }
                }
            }
            Command::AddAddress(node, address) => self.about(&node, |task, peer| {
                task.book.add(peer, address);
                task.discovery.learned(peer, Instant::now());
            }),
            Command::AddCandidate(address) => self.on_seen(&address),
            Command::Keep(node) => self.about(&node, |task, peer| {
                task.book.pin(peer, true);
                let connected = task.table.is_connected(&peer);
                task.discovery.keep(peer, connected, Instant::now());
            }),
            Command::Unkeep(node) => self.about(&node, Self::unkeep),
            Command::Disconnect(node) => self.about(&node, |task, peer| {
                task.swarm.disconnect_peer_id(peer).ok();
            }),
            Command::Block(node) => self.about(&node, |task, peer| {
                task.unkeep(peer);
                task.swarm.behaviour_mut().blocked.block_peer(peer);
            }),
            Command::Unblock(node) => self.about(&node, |task, peer| {
                task.swarm.behaviour_mut().blocked.unblock_peer(peer);
            }),
            Command::Allow(node) => self.about(&node, Self::allow),
            Command::Disallow(node) => self.about(&node, Self::disallow),
            Command::Members(nodes) => self.replace_members(&nodes),
            Command::OpenDoor(open) => self.open_door(open),
            Command::Knock(node, addresses, body, reply) => match names::peer_id(&node) {
                Some(peer) => self.knock(peer, addresses, body, reply),
                None => {
                    reply.send(Err(RequestError::NotConnected)).ok();
                }
            },
            Command::Score(node, score) => self.about(&node, |task, peer| {
                task.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
            }),
            Command::Known(reply) => {
                let known = self.book.worth_keeping(MAX_KEPT_PEERS).into_iter();
                reply.send(known.filter_map(|(peer, at)| Some((names::node_id(&peer)?, at))).collect()).ok();
            }
            Command::Peers(reply) => {
                reply.send(self.peers()).ok();
            }
        }
    }

    /// Begins with peers of earlier days, the best of them remembered as the newest.
    pub(super) fn know(&mut self, known: Vec<(NodeId, Vec<Multiaddr>)>) {
        let mut peers = Vec::new();
        for (node, addresses) in known.into_iter().take(MAX_KEPT_PEERS).rev() {
            let Some(peer) = names::peer_id(&node) else { continue };
            for address in addresses.into_iter().rev().filter(|a| peers::scope(a).is_some()) {
                self.book.met(peer, address);
            }
            peers.insert(0, peer);
        }
        self.discovery.knows(peers, Instant::now());
    }

    fn about(&mut self, node: &NodeId, act: impl FnOnce(&mut Self, PeerId)) {
        if let Some(peer) = names::peer_id(node) {
            act(self, peer);
        }
    }

    pub(super) fn unkeep(&mut self, peer: PeerId) {
        self.book.pin(peer, false);
        self.discovery.unkeep(&peer);
    }

    fn peers(&self) -> Vec<PeerInfo> {
        let (gossip, streams) = (&self.swarm.behaviour().gossip, &self.swarm.behaviour().streams);
        let mut peers: Vec<PeerInfo> = self
            .table
            .iter()
            .filter_map(|(peer, _)| {
                let score = gossip.peer_score(peer).unwrap_or_default();
                self.table.info(peer, score, self.discovery.is_kept(peer), streams.traffic(peer))
            })
            .collect();
        peers.sort_unstable_by_key(|info| info.id);
        peers
    }
}
