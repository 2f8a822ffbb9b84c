//! The network task: the sole owner of the swarm.
//!
//! One loop takes commands, swarm events, replies, verdicts and deadlines, one at a time, and never waits for anybody while
//! handling one. What it decides by policy is in `discovery`; what it does is in this module's children.

mod commands;
mod dialing;
mod events;
mod exchanges;
mod knocking;
mod reaching;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, Swarm,
    gossipsub::{MessageAcceptance, MessageId, PublishError},
    kad::QueryId,
    request_response::{InboundRequestId, OutboundRequestId, ResponseChannel},
    swarm::ConnectionId,
};
use souk_protocol::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    knocking::{Knock, Knocking},
    reaching::Reaching,
};
use crate::{
    behaviour::Behaviour,
    config::{Limits, NetworkConfig},
    discovery::{Discovery, Target},
    error::{DialError, StartError},
    event::NetworkEvent,
    exchange::Answer,
    gossip::Unpublished,
    handle::{Command, NetworkHandle, Outgoing},
    limits::{CLOSING, COMMANDS},
    names::{self, Names, Topic},
    outbox::Outbox,
    peers::AddressBook,
    reach::Reachability,
    status::Counters,
    table::Table,
    transport,
    turns::Untaken,
};

/// Between two sweeps of connections.
const SWEEP: Duration = Duration::from_secs(5);
/// Between two attempts to publish what found no reader yet.
const REPUBLISH: Duration = Duration::from_millis(500);

/// Starts a network. Must be called within a tokio runtime, with rustls' default crypto provider installed.
///
/// The task ends when `cancel` is cancelled, or when the receiver is dropped; it then closes its connections, which takes half
/// a second at most. The receiver's end means that it has ended.
///
/// # Errors
/// [`StartError`] if a setting can't be used or an address can't be listened on.
pub fn spawn(
    config: NetworkConfig,
    cancel: CancellationToken,
) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
    let config = config.within_its_fence();
    let names = Names::of(&config.network)?;
    let counters = Arc::<Counters>::default();
    let (events, receiver) = mpsc::channel(config.limits.events.max(1));
    let mut swarm = transport::swarm(names::identity(&config.keypair)?, config.fence.as_ref(), |identity, relayed| {
        Behaviour::new(&config, &names, identity, relayed, events.clone(), &counters)
    })?;
    for address in &config.listen {
        transport::check_free(address)
            .map_err(|e| StartError::Listen { address: address.clone(), source: Box::new(e) })?;
        swarm
            .listen_on(address.clone())
            .map_err(|e| StartError::Listen { address: address.clone(), source: Box::new(e) })?;
    }
    for address in &config.external {
        swarm.add_external_address(address.clone());
    }

    let (commands, inbox) = mpsc::channel(COMMANDS);
    let (listening, listening_now) = watch::channel(Vec::new());
    let (connected, connected_now) = watch::channel(BTreeSet::new());
    let (reachability, reachable_now) = watch::channel(Reachability::Unknown);
    let (relayed, relayed_now) = watch::channel(BTreeSet::new());
    let id = config.keypair.node_id();
    let handle = NetworkHandle::new(
        id,
        commands,
        listening_now,
        connected_now,
        reachable_now,
        relayed_now,
        Arc::clone(&counters),
    );
    tracing::info!(network = %config.name, id = %config.network.short(), node = %id, "network starts");
    let mut task = Task {
        discovery: Discovery::new(config.bootstrap, config.limits.min_peers, Instant::now()),
        swarm,
        names,
        limits: config.limits,
        counters,
        inbox,
        outbox: Outbox::new(events),
        listening,
        connected,
        reaching: Reaching::new(reachability, config.external, config.relay),
        relayed,
        knocking: Knocking::new(Instant::now()),
        table: Table::default(),
        book: AddressBook::default(),
        dials: HashMap::new(),
        waiting: HashMap::new(),
        waiting_requests: 0,
        lookups: HashMap::new(),
        asked: HashMap::new(),
        replies: FuturesUnordered::new(),
        answers: Untaken::default(),
        verdicts: FuturesUnordered::new(),
        unpublished: Unpublished::default(),
        next_republish: Instant::now(),
        next_sweep: Instant::now() + SWEEP,
    };
    task.know(config.known);
    task.tell_reachability();
    runtime.spawn(task.run(cancel));
    Ok((handle, receiver))
}

/// What a dial was for.
#[derive(Debug)]
enum Dial {
    /// A policy's target.
    Target(Target),
    /// Requests waiting for this peer.
    Requests(PeerId),
    /// A peer that asked to be dialled back.
    Back(ResponseChannel<Answer>),
    /// Somebody at whose door this node knocks.
    Knock(Knock),
    /// A command that waits for its outcome.
    Command(oneshot::Sender<Result<NodeId, DialError>>),
}

/// Requests to a peer that is not connected yet.
#[derive(Debug, Default)]
struct Waiting {
    requests: Vec<Outgoing>,
    /// The directory was asked for its addresses already.
    looked_up: bool,
}

/// A verdict to come, with the message it is about.
type VerdictFuture = BoxFuture<'static, (MessageId, PeerId, MessageAcceptance)>;
/// A reply to come, with the channel it goes to.
type ReplyFuture = BoxFuture<'static, (PeerId, InboundRequestId, ResponseChannel<Answer>, Answer)>;

struct Task {
    swarm: Swarm<Behaviour>,
    names: Names,
    limits: Limits,
    counters: Arc<Counters>,
    inbox: mpsc::Receiver<Command>,
    outbox: Outbox,
    listening: watch::Sender<Vec<Multiaddr>>,
    connected: watch::Sender<BTreeSet<NodeId>>,
    relayed: watch::Sender<BTreeSet<NodeId>>,
    discovery: Discovery,
    reaching: Reaching,
    knocking: Knocking,
    table: Table,
    book: AddressBook,
    /// Dials under way, and those of commands until their peer is admitted; bounded by the limits on connections.
    dials: HashMap<ConnectionId, Dial>,
    waiting: HashMap<PeerId, Waiting>,
    waiting_requests: usize,
    /// Directory queries for the addresses of a peer.
    lookups: HashMap<QueryId, PeerId>,
    /// Requests sent; bounded by the windows.
    asked: HashMap<OutboundRequestId, Outgoing>,
    /// Bounded by `MAX_REPLIES`.
    replies: FuturesUnordered<ReplyFuture>,
    /// Answers that their askers have not taken yet.
    answers: Untaken,
    /// Bounded by `MAX_VERDICTS`.
    verdicts: FuturesUnordered<VerdictFuture>,
    unpublished: Unpublished,
    next_republish: Instant,
    next_sweep: Instant,
}

impl Task {
    async fn run(mut self, cancel: CancellationToken) {
        let queue = self.outbox.queue();
        let mut handles_gone = false;
        loop {
            let deadline = tokio::time::Instant::from_std(self.deadline());
            tokio::select! {
                () = cancel.cancelled() => break,
                () = queue.closed() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.inbox.recv(), if !handles_gone => match command {
                    Some(command) => self.on_command(command),
                    // The consumer is still served.
                    None => handles_gone = true,
                },
                Some((peer, id, channel, answer)) = self.replies.next() => self.on_answer(peer, id, channel, answer),
                Some((channel, answer)) = self.knocking.replies.next() => self.on_knock_reply(channel, answer),
                Some((id, from, verdict)) = self.verdicts.next() => self.on_verdict(&id, &from, verdict),
                Ok(permit) = queue.reserve(), if self.outbox.is_waiting() => {
                    drop(permit);
                    self.outbox.flush();
                }
                () = tokio::time::sleep_until(deadline) => self.on_deadline(),
            }
        }
        drop(queue);
        self.close().await;
    }

    fn deadline(&self) -> Instant {
        let republish = (!self.unpublished.is_empty()).then_some(self.next_republish);
        let door = self.swarm.behaviour().door.deadline();
        let soon = [self.discovery.deadline(), self.reaching_deadline(), republish, door];
        soon.into_iter().flatten().fold(self.next_sweep, Instant::min)
    }

    fn on_deadline(&mut self) {
        let now = Instant::now();
        self.dial_what_is_due(now);
        self.reach_what_is_due(now);
        self.swarm.behaviour_mut().door.show_out(now);
        if now >= self.next_republish {
            self.next_republish = now + REPUBLISH;
            self.publish_waiting(now);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
            self.part_with_spare(now);
            self.end_silent_dial_backs(now);
            self.tend_local_network(now);
        }
    }

    fn on_verdict(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        match &verdict {
            MessageAcceptance::Accept => self.counters.gossip_accepted.one(),
            MessageAcceptance::Ignore => self.counters.gossip_ignored.one(),
            MessageAcceptance::Reject => self.counters.gossip_rejected.one(),
        }
        self.judge(id, from, verdict);
    }

    fn judge(&mut self, id: &MessageId, from: &PeerId, verdict: MessageAcceptance) {
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, from, verdict);
    }

    /// Publishes, or keeps the message until somebody reads the topic.
    fn publish(&mut self, topic: Topic, data: Vec<u8>, since: Option<Instant>) {
        let size = data.len();
        let hash = self.names.topic(topic).hash();
        let published = self.swarm.behaviour_mut().gossip.publish(hash, data.clone());
        match published {
            Ok(_) => {
                self.counters.gossip_published.one();
                self.counters.bytes_out.add(size);
            }
            // Known already: somebody else has spread it.
            Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => match since {
                Some(since) => self.unpublished.put_back(topic, data, since),
                None => {
                    let lost = self.unpublished.push(topic, data, Instant::now());
                    self.counters.gossip_unpublished.add(lost);
                }
            },
            Err(
                error @ (PublishError::SigningError(_)
                | PublishError::MessageTooLarge
                | PublishError::TransformFailed(_)),
            ) => {
                tracing::warn!(%error, ?topic, size, "a message could not be published");
                self.counters.gossip_unpublished.one();
            }
        }
    }

    fn publish_waiting(&mut self, now: Instant) {
        if self.unpublished.is_empty() {
            return;
        }
        let (fresh, lost) = self.unpublished.take(now);
        self.counters.gossip_unpublished.add(lost);
        for (topic, data, since) in fresh {
            self.publish(topic, data, Some(since));
        }
    }

    /// Parts with connections that never showed to be of this network, and with peers beyond the limit that are of no use: the
    /// newest go first, so that newcomers can't displace those who have proved themselves.
    fn sweep(&mut self, now: Instant) {
        let mut foreign = Vec::new();
        let mut spare = Vec::new();
        let mesh: BTreeSet<PeerId> = self.swarm.behaviour().gossip.all_mesh_peers().copied().collect();
        for (id, peer) in self.table.iter() {
            let age = now.saturating_duration_since(peer.since);
            if !peer.admitted {
                if age > crate::limits::ADMISSION {
                    foreign.push(*id);
                }
            } else if !self.discovery.is_kept(id) && !mesh.contains(id) {
                spare.push((age, *id));
            }
        }
        let excess = self.table.admitted().saturating_sub(self.limits.max_peers);
        spare.sort_unstable();
        self.counters.connections_foreign.add(foreign.len());
        let parted = spare.into_iter().take(excess).map(|(_, id)| id);
        for peer in foreign.into_iter().chain(parted) {
            self.swarm.disconnect_peer_id(peer).ok();
        }
    }

    /// Closes every connection, so that peers know at once, and waits for that a little.
    async fn close(mut self) {
        self.inbox.close();
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            self.swarm.disconnect_peer_id(peer).ok();
        }
        let closed = async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.next().await;
            }
            // The last packets leave with the next turn of the sockets.
            self.swarm.next().now_or_never();
        };
        tokio::time::timeout(CLOSING, closed).await.ok();
        tracing::info!("network stopped");
    }
}
