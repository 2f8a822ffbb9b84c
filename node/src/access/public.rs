//! Public ports of instances: listeners on this machine whose connections go on from inside the instance's network.
//!
//! Owns the listeners and what runs over them. Which lease has which port is the engine's, which is asked for by [`Wanted`]: listeners
//! are opened and closed until they are what it says. Nothing of the host is reached by them but the instance's own loopback, and the
//! firewall has no hole: to the guest a visitor comes from its `127.0.0.1`.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use souk_protocol::{LeaseId, ports::PublicPort};
use souk_runtime::{Runtime, TunnelMeter};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    counted::Counted,
    forward::{DATAGRAM, UDP_IDLE},
};

/// Connections and senders of datagrams at once, of all instances. More wait, or are lost as datagrams are.
const VISITORS: usize = 1024;
/// Of these, to one instance.
const VISITORS_PER_LEASE: usize = 256;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 256;
/// Bytes copied at once, each way.
const PIECE: usize = 32 * 1024;
/// Datagrams of one sender on their way in. When full, further ones are lost, as datagrams are.
const DATAGRAMS: usize = 64;
/// Between two tries for a port that another program has.
const AGAIN: Duration = Duration::from_secs(1);
/// After a connection that couldn't be accepted, for want of descriptors for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Which ports are to be listened on, and what runs the instances behind them.
#[derive(Clone, Default)]
pub struct Wanted {
    /// None until the container engine has answered: connections are taken and closed.
    pub runtime: Option<Arc<dyn Runtime>>,
    /// The ports of each lease that isn't over.
    pub leases: BTreeMap<LeaseId, Vec<PublicPort>>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted").field("leases", &self.leases).finish_non_exhaustive()
    }
}

/// One lease's listeners.
struct Open {
    places: Arc<Semaphore>,
    ports: BTreeMap<u16, DropGuard>,
}

/// Keeps the listeners as they are wanted until `stop`, which closes them all.
pub async fn listen(bind: IpAddr, mut wanted: watch::Receiver<Wanted>, stop: CancellationToken) {
    let all = Arc::new(Semaphore::new(VISITORS));
    let mut open: BTreeMap<LeaseId, Open> = BTreeMap::new();
    let mut told: BTreeMap<u16, io::ErrorKind> = BTreeMap::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        open.retain(|lease, _| now.leases.contains_key(lease));
        let mut missing = false;
        for (lease, ports) in &now.leases {
            let lease_open = open.entry(*lease).or_insert_with(|| Open {
                places: Arc::new(Semaphore::new(VISITORS_PER_LEASE)),
                ports: BTreeMap::new(),
            });
            for port in ports.iter().filter(|p| !lease_open.ports.contains_key(&p.public)).copied().collect::<Vec<_>>()
            {
                let end = stop.child_token();
                let way = Way {
                    wanted: wanted.clone(),
                    lease: lease.to_string().into(),
                    port,
                    places: Arc::clone(&lease_open.places),
                    all: Arc::clone(&all),
                    end: end.clone(),
                };
                match way.open(SocketAddr::new(bind, port.public)).await {
                    Ok(()) => {
                        told.remove(&port.public);
                        lease_open.ports.insert(port.public, end.drop_guard());
                    }
                    Err(error) => {
                        missing = true;
                        if told.insert(port.public, error.kind()) != Some(error.kind()) {
                            tracing::warn!(port = port.public, %lease, %error, "an instance's public port can't be listened on; trying on");
                        }
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if missing => {}
        }
    }
}

/// From one public port to one port inside.
#[derive(Clone)]
struct Way {
    wanted: watch::Receiver<Wanted>,
    lease: Arc<str>,
    port: PublicPort,
    places: Arc<Semaphore>,
    all: Arc<Semaphore>,
    end: CancellationToken,
}

/// A visitor's place among those of the instance, and among all.
type Place = [tokio::sync::OwnedSemaphorePermit; 2];

impl Way {
    async fn open(self, at: SocketAddr) -> io::Result<()> {
        let end = self.end.clone();
        if self.port.udp {
            let socket = UdpSocket::bind(at).await?;
            tokio::spawn(async move { end.run_until_cancelled(self.datagrams(socket)).await });
        } else {
            let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            // Accepted connections have it from their listener: visitors that vanish give their places back.
            socket.set_keepalive(true)?;
            socket.bind(at)?;
            let listener = socket.listen(BACKLOG)?;
            tokio::spawn(async move { end.run_until_cancelled(self.connections(listener)).await });
        }
        Ok(())
    }

    /// Waits for a place of its own before one of all, so that one instance's visitors keep nobody else's out.
    async fn place(&self) -> Option<Place> {
        let own = Arc::clone(&self.places).acquire_owned().await.ok()?;
        Some([own, Arc::clone(&self.all).acquire_owned().await.ok()?])
    }

    fn place_now(&self) -> Option<Place> {
        let own = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some([own, Arc::clone(&self.all).try_acquire_owned().ok()?])
    }

    fn runtime(&self) -> Option<Arc<dyn Runtime>> {
        self.wanted.borrow().runtime.clone()
    }

    async fn connections(self, listener: TcpListener) {
        loop {
            let accepted = match listener.accept().await {
                Ok((accepted, _)) => accepted,
                Err(error) => {
                    tracing::debug!(%error, port = self.port.public, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            // Those behind it wait in the kernel meanwhile.
            let Some(place) = self.place().await else { return };
            let (way, end) = (self.clone(), self.end.clone());
            tokio::spawn(async move {
                let _place = place;
                end.run_until_cancelled(way.connection(accepted)).await
            });
        }
    }

    async fn connection(self, accepted: TcpStream) {
        let Some(runtime) = self.runtime() else { return };
        let mut inside = match runtime.dial(&self.lease, "localhost", self.port.port).await {
            Ok(inside) => inside,
            Err(error) => {
                tracing::debug!(%error, port = self.port.public, "nobody answers inside");
                // As a port that nobody listens on.
                accepted.set_zero_linger().ok();
                return;
            }
        };
        accepted.set_nodelay(true).ok();
        let mut visitor = Counted::new(accepted, runtime.tunnel(&self.lease));
        // A broken connection is told to both ends by its end.
        tokio::io::copy_bidirectional_with_sizes(&mut visitor, &mut inside, PIECE, PIECE).await.ok();
    }

    /// Datagrams of each sender go their own way, and what comes back goes to that sender.
    async fn datagrams(self, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut senders: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
                // The refusal of an earlier datagram.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            let known = senders.get(&from).filter(|queue| !queue.is_closed()).cloned();
            let queue = match known {
                Some(queue) => queue,
                None => {
                    senders.retain(|_, queue| !queue.is_closed());
                    let Some(place) = self.place_now() else { continue };
                    let (queue, waiting) = mpsc::channel(DATAGRAMS);
                    senders.insert(from, queue.clone());
                    let (way, end, socket) = (self.clone(), self.end.clone(), Arc::clone(&socket));
                    tokio::spawn(async move {
                        let _place = place;
                        end.run_until_cancelled(way.sender(&socket, from, waiting)).await
                    });
                    queue
                }
            };
            let _ = queue.try_send(buffer[..length].to_vec());
        }
    }

    async fn sender(self, socket: &UdpSocket, peer: SocketAddr, waiting: mpsc::Receiver<Vec<u8>>) {
        let Some(runtime) = self.runtime() else { return };
        match runtime.dial_udp(&self.lease, "localhost", self.port.port).await {
            Ok(inside) => exchange(socket, peer, waiting, &inside, &runtime.tunnel(&self.lease)).await,
            Err(error) => tracing::debug!(%error, port = self.port.public, "nobody answers inside"),
        }
    }
}

/// Passes datagrams between a sender and the instance until neither has sent any for a while.
async fn exchange(
    socket: &UdpSocket,
    peer: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    inside: &UdpSocket,
    meter: &TunnelMeter,
) {
    let mut buffer = vec![0; DATAGRAM];
    let mut refused = None;
    loop {
        let turn = async {
            tokio::select! {
                datagram = waiting.recv() => datagram.map(Ok),
                received = inside.recv(&mut buffer) => Some(Err(received)),
            }
        };
        match timeout(UDP_IDLE, turn).await {
            Ok(Some(Ok(datagram))) => {
                // A port that nobody listens on, or a datagram too large for the way: lost, as datagrams are.
                if inside.send(&datagram).await.is_ok() {
                    meter.received(datagram.len());
                }
            }
            Ok(Some(Err(Ok(length)))) => {
                if socket.send_to(&buffer[..length], peer).await.is_ok() {
                    meter.sent(length);
                }
            }
            Ok(Some(Err(Err(_)))) => {
                // The refusal of an earlier datagram; of one after the other where the socket is broken.
                let now = Instant::now();
                if refused.replace(now).is_some_and(|before: Instant| now - before < Duration::from_millis(1)) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Ok(None) | Err(_) => return,
        }
    }
}
