//! `souk forward`: ports of an instance on this machine.
//!
//! Each connection gets a stream of its own, so that none waits for another, and one that fails, fails alone: after the nodes have met
//! again new connections work.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

use super::{Context, args::ForwardArgs, error::Failure, output};
use crate::{
    access::forward::{DATAGRAM, UDP_IDLE, read_datagram, write_datagram},
    api::{
        client::{Client, escape},
        types::{SshView, TunnelRequest},
    },
};

/// Connections at once, below what a host's node takes of one renter. Further ones wait.
const CONNECTIONS: usize = 96;
/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// Datagrams of one sender that its stream hasn't taken. When full, further ones are lost, as datagrams are.
const DATAGRAMS: usize = 64;
/// After a connection that couldn't be accepted, for want of descriptors for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where one port leads.
#[derive(Clone)]
pub(super) struct Way {
    client: Client,
    path: Arc<str>,
    port: u16,
    udp: bool,
    places: Arc<Semaphore>,
}

impl Way {
    /// To a TCP port of an instance.
    pub(super) fn to(client: Client, lease: &str, port: u16) -> Self {
        let path = format!("leases/{lease}/tunnel").into();
        Self { client, path, port, udp: false, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) async fn open(&self) -> Result<crate::market::command::ByteStream, Failure> {
        let request = TunnelRequest::Port { host: "localhost".to_owned(), port: self.port, udp: self.udp };
        Ok(self.client.upgrade(&self.path, &request).await?)
    }
}

pub(super) async fn forward(context: &Context, args: ForwardArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    // Says why not, where there is no way in.
    let SshView { lease, .. } = client.get(&format!("leases/{}/ssh", escape(&args.id))).await?;
    let path: Arc<str> = format!("leases/{lease}/tunnel").into();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut running = JoinSet::new();
    for pair in &args.ports {
        let way = Way {
            client: client.clone(),
            path: Arc::clone(&path),
            port: pair.remote,
            udp: args.udp,
            places: Arc::clone(&places),
        };
        let at = (args.bind, pair.local);
        let local = if args.udp {
            let socket = UdpSocket::bind(at).await.map_err(|e| busy(at, &e))?;
            let local = socket.local_addr()?;
            running.spawn(datagrams(socket, way));
            local
        } else {
            let listener = TcpListener::bind(at).await.map_err(|e| busy(at, &e))?;
            let local = listener.local_addr()?;
            running.spawn(connections(listener, way));
            local
        };
        if context.json {
            let protocol = if args.udp { "udp" } else { "tcp" };
            output::json_line(&json!({ "local": local, "port": pair.remote, "protocol": protocol, "lease": lease }))?;
        } else {
            output::line(format!("{local} -> port {} of {}", pair.remote, lease.short()))?;
        }
    }
    tokio::select! {
        ended = running.join_next() => match ended {
            Some(Ok(failure)) => Err(failure),
            Some(Err(_)) | None => Err(Failure::new("forwarding broke off")),
        },
        _ = tokio::signal::ctrl_c() => Ok(0),
    }
}

fn busy((address, port): (IpAddr, u16), error: &io::Error) -> Failure {
    Failure::new(format!("can't listen on {}: {error}", SocketAddr::new(address, port)))
        .hint("choose another port here: souk forward ID LOCAL:PORT, with 0 for any")
}

pub(super) async fn connections(listener: TcpListener, way: Way) -> Failure {
    loop {
        let Ok(place) = Arc::clone(&way.places).acquire_owned().await else {
            return Failure::new("forwarding is over");
        };
        let accepted = match listener.accept().await {
            Ok((accepted, _)) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let way = way.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(failure) = connection(accepted, &way).await
                && let Some(text) = failure.text(false)
            {
                output::note(format!("port {}: {text}", way.port));
            }
        });
    }
}

async fn connection(mut accepted: TcpStream, way: &Way) -> Result<(), Failure> {
    accepted.set_nodelay(true).ok();
    let mut stream = way.open().await?;
    // A broken connection is told to both ends by its end.
    tokio::io::copy_bidirectional_with_sizes(&mut accepted, &mut stream, PIECE, PIECE).await.ok();
    Ok(())
}

/// Datagrams of each sender go their own way, and what comes back goes to that sender.
async fn datagrams(socket: UdpSocket, way: Way) -> Failure {
    let socket = Arc::new(socket);
    let mut senders: BTreeMap<SocketAddr, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // The refusal of an earlier datagram.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        senders.retain(|_, queue| !queue.is_closed());
        let known = senders.get(&from).cloned();
        let queue = match known {
            Some(queue) => queue,
            None => {
                let Ok(place) = Arc::clone(&way.places).try_acquire_owned() else { continue };
                let (queue, waiting) = mpsc::channel(DATAGRAMS);
                senders.insert(from, queue.clone());
                let (socket, way) = (Arc::clone(&socket), way.clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(failure) = sender(&socket, from, waiting, &way).await
                        && let Some(text) = failure.text(false)
                    {
                        output::note(format!("port {}: {text}", way.port));
                    }
                });
                queue
            }
        };
        let _ = queue.try_send(buffer[..length].to_vec());
    }
}

async fn sender(
    socket: &UdpSocket,
    peer: SocketAddr,
    mut waiting: mpsc::Receiver<Vec<u8>>,
    way: &Way,
) -> Result<(), Failure> {
    let stream = way.open().await?;
    let (mut from, mut to) = tokio::io::split(stream);
    let up = async {
        while let Ok(Some(datagram)) = timeout(UDP_IDLE, waiting.recv()).await {
            if write_datagram(&mut to, &datagram).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let down = async {
        while let Ok(Some(datagram)) = read_datagram(&mut from).await {
            socket.send_to(&datagram, peer).await.ok();
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    Ok(())
}
