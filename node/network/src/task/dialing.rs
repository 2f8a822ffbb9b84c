//! Dials: for policy, for commands, and for requests to peers that are not connected.

use std::time::Instant;

use libp2p::{
    PeerId,
    kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult, QueryId},
    swarm::{
        ConnectionId, DialError as SwarmDialError,
        dial_opts::{DialOpts, PeerCondition},
    },
};

use super::{Dial, Task};
use crate::{
    discovery::{Attempt, Target},
    error::{DialError, RequestError, dial_reason},
    handle::Outgoing,
    limits::{MAX_ADDRESSES, MAX_LOOKUPS, MAX_WAITING, RETRY_AFTER},
    peers,
    schedule::jitter,
};

impl Task {
    /// Does what discovery finds due.
    pub(super) fn dial_what_is_due(&mut self, now: Instant) {
        let table = &self.table;
        let attempts = self.discovery.due(now, jitter(), table.admitted(), |peer| table.is_connected(peer));
        for attempt in attempts {
            match attempt {
                Attempt::Bootstrap(index, address) => {
                    let opts = DialOpts::unknown_peer_id().address(address).build();
                    self.dial(opts, Dial::Target(Target::Bootstrap(index)));
                }
                Attempt::Kept(peer) => {
                    let opts = self.dial_opts(peer, PeerCondition::Disconnected);
                    self.dial(opts, Dial::Target(Target::Kept(peer)));
                }
                Attempt::Known(peer) => {
                    // If it is gone, another's turn comes.
                    let opts = self.dial_opts(peer, PeerCondition::DisconnectedAndNotDialing);
                    self.begin(opts).ok();
                }
                Attempt::LookAround => {
                    let local = *self.swarm.local_peer_id();
                    self.swarm.behaviour_mut().kad.get_closest_peers(local);
                }
            }
        }
    }

    fn dial_opts(&mut self, peer: PeerId, condition: PeerCondition) -> DialOpts {
        DialOpts::peer_id(peer)
            .condition(condition)
            .addresses(self.book.of(&peer))
            .extend_addresses_through_behaviour()
            .build()
    }

    /// Every dial of this task's goes this way: the fence is for others'.
    pub(super) fn begin(&mut self, opts: DialOpts) -> Result<(), SwarmDialError> {
        self.swarm.behaviour_mut().fence.pass(opts.connection_id());
        self.swarm.dial(opts)
    }

    pub(super) fn dial(&mut self, opts: DialOpts, purpose: Dial) {
        let id = opts.connection_id();
        match self.begin(opts) {
            Ok(()) => {
                self.dials.insert(id, purpose);
            }
            Err(error) => self.dial_failed(purpose, &error),
        }
    }

    /// A dial of ours ended without a connection.
    pub(super) fn on_dial_error(&mut self, id: ConnectionId, error: &SwarmDialError) {
        if let Some(purpose) = self.dials.remove(&id) {
            self.dial_failed(purpose, error);
        }
    }

    fn dial_failed(&mut self, purpose: Dial, error: &SwarmDialError) {
        let now = Instant::now();
        match purpose {
            Dial::Target(target) => {
                tracing::debug!(?target, reason = dial_reason(error), "dial failed");
                if matches!(error, SwarmDialError::LocalPeerId { .. }) {
                    self.discovery.own_address(target);
                } else {
                    self.discovery.failed(target, now, jitter());
                }
            }
            Dial::Command(reply) => {
                reply.send(Err(DialError::Failed(dial_reason(error)))).ok();
            }
            Dial::Requests(peer) => self.cannot_reach(peer, error),
            Dial::Back(channel) => self.dialled_back_in_vain(channel, error),
            Dial::Knock(knock) => self.knocked_in_vain(knock, dial_reason(error)),
        }
    }

    /// A dialled connection turned out not to be of this network, or went before it showed that it is.
    pub(super) fn dial_in_vain(&mut self, target: Target) {
        self.discovery.failed(target, Instant::now(), jitter());
    }

    /// Sends a request, now or when the peer has been dialled.
    pub(super) fn request(&mut self, peer: PeerId, outgoing: Outgoing) {
        if outgoing.reply.is_closed() {
            return;
        }
        if self.can_be_asked(&peer) {
            self.send_request(peer, outgoing);
            return;
        }
        if self.waiting_requests >= MAX_WAITING {
            let error = RequestError::Busy { retry_after: RETRY_AFTER };
            outgoing.reply.send(Err(error)).ok();
            return;
        }
        self.waiting_requests += 1;
        let waiting = self.waiting.entry(peer).or_default();
        waiting.requests.push(outgoing);
        if waiting.requests.len() == 1 {
            let opts = self.dial_opts(peer, PeerCondition::Always);
            self.dial(opts, Dial::Requests(peer));
        }
    }

    /// Sends what waited for `peer`, which is connected now.
    pub(super) fn send_waiting(&mut self, peer: PeerId) {
        for outgoing in self.take_waiting(peer) {
            self.request(peer, outgoing);
        }
    }

    /// Whether there is a connection to a peer on which requests are spoken: a stranger's is none.
    fn can_be_asked(&self, peer: &PeerId) -> bool {
        self.swarm.behaviour().exchange.is_connected(peer)
    }

    fn take_waiting(&mut self, peer: PeerId) -> Vec<Outgoing> {
        let waiting = self.waiting.remove(&peer).unwrap_or_default().requests;
        self.waiting_requests -= waiting.len();
        waiting
    }

    fn fail_waiting(&mut self, peer: PeerId, error: &RequestError) {
        for outgoing in self.take_waiting(peer) {
            outgoing.reply.send(Err(error.clone())).ok();
        }
    }

    /// The dial for waiting requests failed: the directory may know better addresses, but is asked once only.
    fn cannot_reach(&mut self, peer: PeerId, error: &SwarmDialError) {
        if self.can_be_asked(&peer) {
            self.send_waiting(peer);
            return;
        }
        let Some(waiting) = self.waiting.get_mut(&peer) else {
            return;
        };
        let unknown = matches!(error, SwarmDialError::NoAddresses);
        let ask = unknown && !waiting.looked_up && self.lookups.len() < MAX_LOOKUPS;
        if ask && self.table.admitted() > 0 {
            waiting.looked_up = true;
            let query = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
            self.lookups.insert(query, peer);
        } else if unknown {
            self.fail_waiting(peer, &RequestError::NotConnected);
        } else {
            self.fail_waiting(peer, &RequestError::Unreachable(dial_reason(error)));
        }
    }

    /// The directory's last word on a query.
    pub(super) fn on_closest_peers(&mut self, query: QueryId, result: GetClosestPeersResult) {
        let Some(wanted) = self.lookups.remove(&query) else {
            return;
        };
        let (Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. })) = result;
        let addresses = peers
            .into_iter()
            .filter(|found| found.peer_id == wanted)
            .flat_map(|found| found.addrs)
            .filter(|address| peers::scope(address).is_some())
            .take(MAX_ADDRESSES);
        for address in addresses {
            self.book.add(wanted, address);
        }
        if self.waiting.contains_key(&wanted) {
            let opts = self.dial_opts(wanted, PeerCondition::Always);
            self.dial(opts, Dial::Requests(wanted));
        }
    }
}
