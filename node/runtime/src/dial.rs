//! Connections to what an instance serves, made from inside its own network namespace.
//!
//! A socket belongs to the namespace it is made in, for good. It is made by a thread that has entered the instance's and ends right
//! after, so nothing of the node's ever runs in there; `localhost` is the instance's own, and what it may reach it may reach no further
//! by this way. Names are resolved by the helper inside. Owns no policy: who may dial is asked before.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::RuntimeError;
use crate::exec::{self, ExecSpec};
use crate::helper::HELPER_IN_INSTANCE;
use crate::instance::{Instance, ObservedState};
use crate::process;
use crate::shared::Shared;

/// How long one address may take to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long a name may take to be resolved.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;
/// Between two looks whether an instance that was entered still runs: its network is held open no longer than that.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes read of the helper's answer.
const ANSWER_BYTES: usize = 1024;
/// Bytes of a host name.
const NAME_BYTES: usize = 255;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is nothing to dial from.
    #[error("the instance isn't running")]
    NotRunning,
    /// The engine was asked and failed.
    #[error(transparent)]
    Engine(RuntimeError),
    /// The node lacks a right.
    #[error("the host's node may not enter the instance's network; it has to run as root")]
    Forbidden,
    /// That is no host name.
    #[error("`{0}` is no host name")]
    BadName(String),
    /// The name means nothing inside.
    #[error("`{0}` can't be resolved in the instance")]
    Unresolved(String),
    /// The other end said no, or nothing.
    #[error("{address}: {source}")]
    Refused {
        /// The last address tried.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No socket could be made.
    #[error("no socket could be made: {0}")]
    Socket(io::Error),
}

pub(crate) async fn tcp(
    shared: &Arc<Shared>,
    instance: &Instance,
    host: &str,
    port: u16,
) -> Result<TcpStream, DialError> {
    let addresses = addresses(shared, instance, host).await?;
    let inside = enter(shared, instance).await?;
    let mut last = DialError::Unresolved(host.to_owned());
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        let made =
            made_inside(
                Arc::clone(&inside),
                move || if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() },
            );
        let socket = match made.await {
            Ok(socket) => socket,
            Err(error) => {
                last = error;
                continue;
            }
        };
        match timeout(CONNECT_WITHIN, socket.connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Ok(Err(source)) => last = DialError::Refused { address, source },
            Err(_) => last = DialError::Refused { address, source: io::ErrorKind::TimedOut.into() },
        }
    }
    Err(last)
}

pub(crate) async fn udp(
    shared: &Arc<Shared>,
    instance: &Instance,
    host: &str,
    port: u16,
) -> Result<UdpSocket, DialError> {
    let ip = addresses(shared, instance, host).await?.into_iter().next();
    let ip = ip.ok_or_else(|| DialError::Unresolved(host.to_owned()))?;
    let inside = enter(shared, instance).await?;
    let any = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = made_inside(inside, move || std::net::UdpSocket::bind((any, 0))).await?;
    socket.set_nonblocking(true).map_err(DialError::Socket)?;
    let socket = UdpSocket::from_std(socket).map_err(DialError::Socket)?;
    let address = SocketAddr::new(ip, port);
    socket.connect(address).await.map_err(|source| DialError::Refused { address, source })?;
    Ok(socket)
}

/// Where a host is, as the instance sees it.
async fn addresses(shared: &Arc<Shared>, instance: &Instance, host: &str) -> Result<Vec<IpAddr>, DialError> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if host.is_empty() || host.len() > NAME_BYTES || host.starts_with('-') || !host.chars().all(plain) {
        return Err(DialError::BadName(host.chars().filter(|c| !c.is_control()).take(80).collect()));
    }
    let command = [HELPER_IN_INSTANCE, "resolve", host].map(str::to_owned).to_vec();
    let session = exec::open(shared, instance, ExecSpec { command, ..ExecSpec::default() }).await;
    let mut session = session.map_err(|_| DialError::NotRunning)?;
    let mut text = Vec::new();
    let reading = async {
        while let Some(Ok((stream, bytes))) = session.output.next().await {
            if stream == crate::logs::OutputStream::Stdout && text.len() + bytes.len() <= ANSWER_BYTES {
                text.extend_from_slice(&bytes);
            }
        }
    };
    let answered = timeout(RESOLVE_WITHIN, reading).await;
    let found: Vec<IpAddr> =
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).take(ADDRESSES).collect();
    if answered.is_err() || found.is_empty() {
        return Err(DialError::Unresolved(host.to_owned()));
    }
    Ok(found)
}

/// A running instance's network namespace, held open together with its first process.
#[derive(Debug)]
struct Inside {
    process: OwnedFd,
    namespace: File,
}

/// The way into an instance that was found last, so that the engine isn't asked for each connection. Let go of when its first
/// process ends.
#[derive(Debug, Default)]
pub(crate) struct Entrance(Mutex<Option<Arc<Inside>>>);

impl Entrance {
    fn known(&self) -> Option<Arc<Inside>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.filter(|inside| process::is_alive(&inside.process))
    }

    fn set(&self, inside: Option<Arc<Inside>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = inside;
    }
}

async fn enter(shared: &Arc<Shared>, instance: &Instance) -> Result<Arc<Inside>, DialError> {
    let Some(worker) = shared.worker(&instance.lease) else { return find(instance).await.map(Arc::new) };
    if let Some(inside) = worker.wake.entrance.known() {
        return Ok(inside);
    }
    let inside = Arc::new(find(instance).await?);
    worker.wake.entrance.set(Some(Arc::clone(&inside)));
    let (stop, own) = (shared.stop.clone(), Arc::downgrade(&inside));
    shared.tasks.spawn(async move {
        let ended = async {
            while own.upgrade().is_some_and(|inside| process::is_alive(&inside.process)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(ended).await;
        // Unless another one was found meanwhile.
        if worker.wake.entrance.known().is_none() {
            worker.wake.entrance.set(None);
        }
    });
    Ok(inside)
}

async fn find(instance: &Instance) -> Result<Inside, DialError> {
    let found = instance
        .inspect(&instance.names.container, false)
        .await
        .map_err(|code| DialError::Engine(RuntimeError::Engine(code)))?;
    let found = found.ok_or(DialError::NotRunning)?;
    let pid = found.state.as_ref().and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok());
    let seen = instance.read(found).ok_or(DialError::NotRunning)?;
    let (true, Some(pid)) = (matches!(seen.state, ObservedState::Running { .. }), pid.filter(|pid| *pid > 1)) else {
        return Err(DialError::NotRunning);
    };
    // Held and looked at before the namespace is opened, and still alive after: then it is this container's.
    let process = process::hold(pid, &seen.id).ok_or(DialError::NotRunning)?;
    let namespace = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied { DialError::Forbidden } else { DialError::NotRunning }
    })?;
    if process::is_alive(&process) { Ok(Inside { process, namespace }) } else { Err(DialError::NotRunning) }
}

/// Makes a socket in a namespace, on a thread that ends with it.
async fn made_inside<T: Send + 'static>(
    inside: Arc<Inside>,
    make: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DialError> {
    let (made, socket) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("dial".to_owned()).spawn(move || {
        let _runtime = runtime.enter();
        let entered = move_into_link_name_space(inside.namespace.as_fd(), Some(LinkNameSpaceType::Network));
        let result = match entered {
            Ok(()) => make().map_err(DialError::Socket),
            Err(rustix::io::Errno::PERM) => Err(DialError::Forbidden),
            Err(error) => Err(DialError::Socket(error.into())),
        };
        made.send(result).ok();
    });
    thread.map_err(DialError::Socket)?;
    socket.await.map_err(|_| DialError::NotRunning)?
}
