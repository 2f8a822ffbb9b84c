//! Starting nodes, and waiting for what they do with a deadline.

use std::{future::Future, time::Duration};

use souk_network::{
    Multiaddr, NetworkConfig, NetworkEvent, NetworkHandle, PeerStream, StartError, multiaddr::Protocol, spawn,
};
use souk_protocol::{Keypair, NetworkId, NodeId};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Far beyond what anything here takes: a test that reaches it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What a node runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Quic,
    Tcp,
}

impl Over {
    pub(crate) const BOTH: [Self; 2] = [Self::Quic, Self::Tcp];

    pub(crate) fn listen(self) -> Multiaddr {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Tcp => "/ip4/127.0.0.1/tcp/0",
        }
        .parse()
        .unwrap()
    }
}

pub(crate) struct Node {
    pub(crate) handle: NetworkHandle,
    pub(crate) events: mpsc::Receiver<NetworkEvent>,
    pub(crate) stop: DropGuard,
}

pub(crate) fn key(n: u8) -> Keypair {
    Keypair::from_seed(&[n; 32])
}

/// A configuration for tests: loopback only, in the network `test`.
pub(crate) fn config(seed: u8, over: Over) -> NetworkConfig {
    NetworkConfig { listen: vec![over.listen()], ..NetworkConfig::new(key(seed), NetworkId::of_name("test")) }
}

pub(crate) fn install_crypto() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}

impl Node {
    pub(crate) async fn start(config: NetworkConfig) -> Self {
        install_crypto();
        let cancel = CancellationToken::new();
        // A QUIC socket outlives its node by the few round trips in which its connections drain.
        let (handle, events) = within("a start", async {
            loop {
                match spawn(config.clone(), cancel.clone()) {
                    Ok(started) => return started,
                    Err(StartError::Listen { .. }) => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await;
        let node = Self { handle, events, stop: cancel.drop_guard() };
        until("the node listens", || !node.handle.listen_addrs().is_empty()).await;
        node
    }

    pub(crate) fn id(&self) -> NodeId {
        self.handle.local_id()
    }

    /// An address to dial, ending in `/p2p/…`.
    pub(crate) fn address(&self) -> Multiaddr {
        let id = self.id().to_string().parse().unwrap();
        self.handle.listen_addrs()[0].clone().with(Protocol::P2p(id))
    }

    /// Dials `other` and waits until both sides say so.
    pub(crate) async fn connect(&self, other: &Self) {
        let met = within("dialling", self.handle.dial(other.address())).await.unwrap();
        assert_eq!(met, other.id());
        until("the other side knows", || other.handle.is_connected(&self.id())).await;
    }

    /// The next event for which `pick` gives something; others are dropped.
    pub(crate) async fn next<T>(&mut self, what: &str, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        within(what, async {
            loop {
                let event = self.events.recv().await.expect("the network runs");
                if let Some(picked) = pick(event) {
                    return picked;
                }
            }
        })
        .await
    }

    /// Answers each request with its own body and each stream with its own bytes, until the node stops.
    pub(crate) fn echo(self) -> Echo {
        let Self { handle, mut events, stop } = self;
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                match event {
                    NetworkEvent::Request { body, reply, .. } => reply.send(body).unwrap(),
                    NetworkEvent::Stream { stream, .. } => {
                        tokio::spawn(echo_stream(stream));
                    }
                    NetworkEvent::Listening(_)
                    | NetworkEvent::Connected(_)
                    | NetworkEvent::Disconnected(_)
                    | NetworkEvent::Knock { .. }
                    | NetworkEvent::Gossip { .. } => {}
                }
            }
        });
        Echo { handle, stop, task }
    }
}

pub(crate) struct Echo {
    pub(crate) handle: NetworkHandle,
    pub(crate) stop: DropGuard,
    pub(crate) task: JoinHandle<()>,
}

async fn echo_stream(stream: PeerStream) {
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::io::copy(&mut read, &mut write).await.ok();
    tokio::io::AsyncWriteExt::shutdown(&mut write).await.ok();
}

/// Two connected nodes, the second echoing.
pub(crate) async fn pair(over: Over) -> (Node, Echo) {
    let a = Node::start(config(1, over)).await;
    let b = Node::start(config(2, over)).await;
    a.connect(&b).await;
    (a, b.echo())
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
