//! What the rest of the node holds of the network: a cheap handle that sends commands and waits for their outcome.
//!
//! Owns the window of each peer: how many requests may be in flight to it. Callers beyond it wait here, in their own task.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use libp2p::Multiaddr;
use souk_protocol::NodeId;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout_at,
};

use crate::{
    error::{Closed, DialError, PublishError, RequestError, StreamError},
    limits::{KNOCK_TIMEOUT, MAX_GOSSIP, MAX_KNOCK, MAX_REQUEST, REQUEST_TIMEOUT, WINDOW},
    names::Topic,
    reach::Reachability,
    status::{Counters, NetworkStatus},
    streams::PeerStream,
    table::PeerInfo,
};

/// Windows kept before unused ones are swept.
const SWEEP_WINDOWS: usize = 256;

/// The outcome of a request.
pub(crate) type RequestOutcome = Result<Vec<u8>, RequestError>;

/// A request on its way to the task. Its place in the window is freed when the exchange is over, whoever still waits for it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) body: Vec<u8>,
    pub(crate) _place: OwnedSemaphorePermit,
    pub(crate) reply: oneshot::Sender<RequestOutcome>,
}

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Topic, Vec<u8>),
    Request(NodeId, Outgoing),
    OpenStream(NodeId, oneshot::Sender<Result<PeerStream, StreamError>>),
    Dial(Multiaddr, oneshot::Sender<Result<NodeId, DialError>>),
    AddAddress(NodeId, Multiaddr),
    AddCandidate(Multiaddr),
    Keep(NodeId),
    Unkeep(NodeId),
    Disconnect(NodeId),
    Block(NodeId),
    Unblock(NodeId),
    Allow(NodeId),
    Disallow(NodeId),
    Members(Vec<NodeId>),
    OpenDoor(bool),
    Knock(NodeId, Vec<Multiaddr>, Vec<u8>, oneshot::Sender<RequestOutcome>),
    Score(NodeId, f64),
    Known(oneshot::Sender<Vec<(NodeId, Vec<Multiaddr>)>>),
    Peers(oneshot::Sender<Vec<PeerInfo>>),
}

#[derive(Debug)]
struct Shared {
    id: NodeId,
    commands: mpsc::Sender<Command>,
    listening: watch::Receiver<Vec<Multiaddr>>,
    connected: watch::Receiver<BTreeSet<NodeId>>,
    reachability: watch::Receiver<Reachability>,
    relayed: watch::Receiver<BTreeSet<NodeId>>,
    counters: Arc<Counters>,
    windows: Mutex<HashMap<NodeId, Weak<Semaphore>>>,
}

/// The network, for everybody but its owner. Cheap to clone; every method may be called from any task. Methods wait while the
/// command queue is full.
#[derive(Debug, Clone)]
pub struct NetworkHandle(Arc<Shared>);

impl NetworkHandle {
    pub(crate) fn new(
        id: NodeId,
        commands: mpsc::Sender<Command>,
        listening: watch::Receiver<Vec<Multiaddr>>,
        connected: watch::Receiver<BTreeSet<NodeId>>,
        reachability: watch::Receiver<Reachability>,
        relayed: watch::Receiver<BTreeSet<NodeId>>,
        counters: Arc<Counters>,
    ) -> Self {
        let windows = Mutex::default();
        Self(Arc::new(Shared { id, commands, listening, connected, reachability, relayed, counters, windows }))
    }

    /// This node.
    #[must_use]
    pub fn local_id(&self) -> NodeId {
        self.0.id
    }

    /// The addresses this node listens on now, without `/p2p/…`. Empty until the sockets are bound, shortly after the start.
    #[must_use]
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.0.listening.borrow().clone()
    }

    /// The peers connected now, in order of id.
    #[must_use]
    pub fn connected(&self) -> Vec<NodeId> {
        self.0.connected.borrow().iter().copied().collect()
    }

    /// Whether a peer is connected now.
    #[must_use]
    pub fn is_connected(&self, peer: &NodeId) -> bool {
        self.0.connected.borrow().contains(peer)
    }

    /// Whether a peer is connected, and through relays only.
    #[must_use]
    pub fn is_relayed(&self, peer: &NodeId) -> bool {
        self.0.relayed.borrow().contains(peer)
    }

    /// How others reach this node, as far as is known now.
    #[must_use]
    pub fn reachability(&self) -> Reachability {
        self.0.reachability.borrow().clone()
    }

    /// How others reach this node, and each change of it.
    #[must_use]
    pub fn reachability_changes(&self) -> watch::Receiver<Reachability> {
        self.0.reachability.clone()
    }

    /// What the network did since it started.
    #[must_use]
    pub fn status(&self) -> NetworkStatus {
        self.0.counters.snapshot(self.0.connected.borrow().len())
    }

    async fn command(&self, command: Command) -> Result<(), Closed> {
        self.0.commands.send(command).await.map_err(|_| Closed)
    }

    /// Publishes a message to everybody who reads `topic`. With no such peer connected it waits for one, up to two minutes, among
    /// the latest 128. A message published before is not sent again.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] beyond [`MAX_GOSSIP`] bytes; [`PublishError::Closed`].
    pub async fn publish(&self, topic: Topic, data: Vec<u8>) -> Result<(), PublishError> {
        if data.len() > MAX_GOSSIP {
            return Err(PublishError::TooLarge { size: data.len(), limit: MAX_GOSSIP });
        }
        self.command(Command::Publish(topic, data)).await.map_err(|Closed| PublishError::Closed)
    }

    /// Asks `peer` and waits for its answer, `timeout` at most and never longer than a minute, waiting for a place in the peer's
    /// window and for dialling included. A peer that is not connected is dialled at the addresses known of it, or looked up.
    ///
    /// # Errors
    /// Every failure is a [`RequestError`]; no request is ever lost silently. After [`RequestError::Timeout`] and
    /// [`RequestError::Disconnected`] the peer may have acted on it.
    pub async fn request(&self, peer: NodeId, body: Vec<u8>, timeout: Duration) -> RequestOutcome {
        let outcome = self.request_inner(peer, body, timeout).await;
        match outcome {
            Ok(_) => self.0.counters.requests_answered.one(),
            Err(_) => self.0.counters.requests_failed.one(),
        }
        outcome
    }

    async fn request_inner(&self, peer: NodeId, body: Vec<u8>, timeout: Duration) -> RequestOutcome {
        if body.len() > MAX_REQUEST {
            return Err(RequestError::TooLarge { size: body.len(), limit: MAX_REQUEST });
        }
        let timeout = timeout.min(REQUEST_TIMEOUT);
        let exchange = async {
            let place = self.window(peer).acquire_owned().await.map_err(|_| RequestError::Closed)?;
            let (reply, answer) = oneshot::channel();
            self.command(Command::Request(peer, Outgoing { body, _place: place, reply }))
                .await
                .map_err(|Closed| RequestError::Closed)?;
            answer.await.unwrap_or(Err(RequestError::Closed))
        };
        timeout_at(tokio::time::Instant::now() + timeout, exchange).await.unwrap_or(Err(RequestError::Timeout(timeout)))
    }

    fn window(&self, peer: NodeId) -> Arc<Semaphore> {
        let mut windows = self.0.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get(&peer).and_then(Weak::upgrade) {
            return window;
        }
        if windows.len() >= SWEEP_WINDOWS {
            windows.retain(|_, window| window.strong_count() > 0);
        }
        let window = Arc::new(Semaphore::new(WINDOW));
        windows.insert(peer, Arc::downgrade(&window));
        window
    }

    /// Opens a stream to a connected peer, over its best connection, and waits until it is accepted.
    ///
    /// # Errors
    /// Every failure is a [`StreamError`].
    pub async fn open_stream(&self, peer: NodeId, timeout: Duration) -> Result<PeerStream, StreamError> {
        let open = async {
            let (reply, outcome) = oneshot::channel();
            self.command(Command::OpenStream(peer, reply)).await.map_err(|Closed| StreamError::Closed)?;
            outcome.await.unwrap_or_else(|_| {
                Err(if self.0.commands.is_closed() { StreamError::Closed } else { StreamError::Disconnected })
            })
        };
        timeout_at(tokio::time::Instant::now() + timeout, open).await.unwrap_or(Err(StreamError::Timeout(timeout)))
    }

    /// Dials an address, with or without `/p2p/…`, and waits until a node of this network is connected there.
    ///
    /// # Errors
    /// [`DialError::Failed`] with the reason; [`DialError::Closed`].
    pub async fn dial(&self, address: Multiaddr) -> Result<NodeId, DialError> {
        let (reply, outcome) = oneshot::channel();
        self.command(Command::Dial(address, reply)).await.map_err(|Closed| DialError::Closed)?;
        outcome.await.unwrap_or(Err(DialError::Closed))
    }

    /// Notes an address of a peer, believed as it is. Nothing is dialled until a request, or [`Self::keep`], needs the peer.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn add_address(&self, peer: NodeId, address: Multiaddr) -> Result<(), Closed> {
        self.command(Command::AddAddress(peer, address)).await
    }

    /// Notes an address under which this node may be reached. It counts once peers have dialled back to it.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn add_candidate(&self, address: Multiaddr) -> Result<(), Closed> {
        self.command(Command::AddCandidate(address)).await
    }

    /// Stays in touch with a peer: dials it now if it is not connected, and again, with backoff, whenever its last connection
    /// goes. For peers with open leases.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn keep(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Keep(peer)).await
    }

    /// No longer stays in touch with a peer. Its connections are left as they are.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn unkeep(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Unkeep(peer)).await
    }

    /// Closes all connections of a peer. A kept peer is dialled again.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn disconnect(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Disconnect(peer)).await
    }

    /// Closes all connections of a peer and refuses new ones until [`Self::unblock`], or the node's end. It is no longer kept.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn block(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Block(peer)).await
    }

    /// Lets a blocked peer connect again.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn unblock(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Unblock(peer)).await
    }

    /// Makes a node a member of this private cluster. Without effect in a public network. A connection that it has as a stranger
    /// is closed, after the answer that it waits for: it connects anew.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn allow(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Allow(peer)).await
    }

    /// Ends a node's membership of this private cluster and closes its connections. Without effect in a public network.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn disallow(&self, peer: NodeId) -> Result<(), Closed> {
        self.command(Command::Disallow(peer)).await
    }

    /// Makes these nodes the members of this private cluster, and no others, as [`Self::allow`] and [`Self::disallow`] would one by
    /// one. Without effect in a public network.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn members(&self, set: Vec<NodeId>) -> Result<(), Closed> {
        self.command(Command::Members(set)).await
    }

    /// Lets strangers come as far as to knock, or no more. They are [`crate::limits::STRANGERS`] at most, for
    /// [`KNOCK_TIMEOUT`] at most, and get nothing but answers to their knocks. Closed at the start. Without effect in a public
    /// network.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn open_door(&self, open: bool) -> Result<(), Closed> {
        self.command(Command::OpenDoor(open)).await
    }

    /// Knocks at the door of another node's private cluster, and waits for the answer, [`KNOCK_TIMEOUT`] at most. A peer that is
    /// not connected is dialled at `addresses`, or at those known of it if there are none; it need be no member in this node's
    /// eyes. The connection made for it serves for nothing else, and is closed before the answer is given: whoever was admitted by
    /// it dials, or keeps, the peer then.
    ///
    /// # Errors
    /// Every failure is a [`RequestError`]; [`RequestError::Busy`], too, if this node knocks there already.
    pub async fn knock(&self, peer: NodeId, addresses: Vec<Multiaddr>, body: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        if body.len() > MAX_KNOCK {
            return Err(RequestError::TooLarge { size: body.len(), limit: MAX_KNOCK });
        }
        let knock = async {
            let (reply, answer) = oneshot::channel();
            let command = Command::Knock(peer, addresses, body, reply);
            self.command(command).await.map_err(|Closed| RequestError::Closed)?;
            let gone = || if self.0.commands.is_closed() { RequestError::Closed } else { RequestError::Disconnected };
            answer.await.unwrap_or_else(|_| Err(gone()))
        };
        let deadline = tokio::time::Instant::now() + KNOCK_TIMEOUT;
        timeout_at(deadline, knock).await.unwrap_or(Err(RequestError::Timeout(KNOCK_TIMEOUT)))
    }

    /// Adds so much to a connected peer's gossip score, in place of what was added before; within [`crate::limits::APPLICATION_SCORE`]
    /// of nothing. Forgotten with the peer's score.
    ///
    /// # Errors
    /// [`Closed`].
    pub async fn set_application_score(&self, peer: NodeId, score: f64) -> Result<(), Closed> {
        let most = crate::limits::APPLICATION_SCORE;
        let score = if score.is_nan() { 0.0 } else { score.clamp(-most, most) };
        self.command(Command::Score(peer, score)).await
    }

    /// Peers worth beginning with another day, the best first: for [`crate::NetworkConfig::known`]. Empty once the network has
    /// stopped.
    pub async fn known(&self) -> Vec<(NodeId, Vec<Multiaddr>)> {
        let (reply, outcome) = oneshot::channel();
        if self.command(Command::Known(reply)).await.is_err() {
            return Vec::new();
        }
        outcome.await.unwrap_or_default()
    }

    /// The connected peers in detail, in order of id; none once the network has stopped.
    pub async fn peers(&self) -> Vec<PeerInfo> {
        let (reply, peers) = oneshot::channel();
        if self.command(Command::Peers(reply)).await.is_err() {
            return Vec::new();
        }
        peers.await.unwrap_or_default()
    }
}
