//! Getting into an instance: streams between the renter's node and the host's.
//!
//! On the host's side each stream is a task of its own: it reads what is wanted, asks the market whether this peer may reach
//! this lease, and pumps [`Frame`]s. It never opens a path that a guest can shape.

pub use crate::api::frames::{read as read_frame, write as write_frame};

pub mod counted;
pub mod exec;
pub mod files;
pub mod forward;
pub mod key_files;
pub mod keys;
pub mod logs;
pub mod public;
pub mod pulse;
pub mod ssh;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use bytes::BytesMut;
use souk_protocol::{
    LeaseId, NodeId, encode,
    message::{Frame, StreamOpen},
};
use souk_runtime::Runtime;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};
use tokio_util::{codec::Decoder, sync::CancellationToken};

use keys::{Granted, KeyStore};

/// Streams served at once to all renters together. More are told to come back.
pub const STREAMS: usize = 512;
/// Of these, to one renter.
pub const STREAMS_PER_RENTER: usize = 128;
/// SSH connections to one instance at once. Each may have [`souk_ssh::CHANNELS`] sessions and forwarded connections.
pub const SSH_CONNECTIONS: usize = 16;
/// Ways of its renter's meter to one instance: one, and those that have broken and are not noticed yet.
pub const PULSES: usize = 4;
/// How long a peer may take to say what it wants.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// How long a reader may take for one frame.
const STALL: Duration = Duration::from_secs(60);
/// Bytes of the first frame.
const OPEN_BYTES: usize = 256 * 1024;

/// Cuts a stream into frames; losing interest in the middle of one loses nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameDecoder;

impl Decoder for FrameDecoder {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, from: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(header) = from.first_chunk::<{ Frame::HEADER }>().copied() else { return Ok(None) };
        let bad = |e: encode::DecodeError| io::Error::new(io::ErrorKind::InvalidData, e.to_string());
        let whole = Frame::HEADER + Frame::content_len(&header).map_err(bad)?;
        if from.len() < whole {
            from.reserve(whole - from.len());
            return Ok(None);
        }
        let content = from.split_to(whole).split_off(Frame::HEADER);
        Frame::from_parts(header[0], content.to_vec()).map(Some).map_err(bad)
    }
}

/// Sends a frame to a peer, which must take it in time.
///
/// # Errors
/// A sentence, if the stream broke or the reader stalls.
pub async fn send<W: AsyncWrite + Unpin>(to: &mut W, frame: &Frame) -> Result<(), String> {
    match timeout(STALL, write_frame(to, frame)).await {
        Ok(sent) => sent.map_err(|e| e.to_string()),
        Err(_) => Err("nothing was read for a minute".to_owned()),
    }
}

/// A peer asks to reach a lease's instance.
#[derive(Debug)]
pub struct Permission {
    /// Who asks.
    pub peer: NodeId,
    /// Which lease.
    pub lease: LeaseId,
    /// Whose it is and which SSH keys it began with, if this peer may; else why not, in a sentence for it.
    pub answer: oneshot::Sender<Result<Granted, String>>,
}

/// Serves streams that renters open to this host.
#[derive(Clone)]
pub struct Server {
    runtime: Arc<dyn Runtime>,
    host_key: souk_ssh::keys::HostKey,
    keys: KeyStore,
    ask: tokio::sync::mpsc::Sender<Permission>,
    places: Arc<Semaphore>,
    renters: Arc<Mutex<BTreeMap<NodeId, Weak<Semaphore>>>>,
    leases: Arc<Mutex<BTreeMap<LeaseId, CancellationToken>>>,
    ssh: Arc<Mutex<BTreeMap<LeaseId, Weak<Semaphore>>>>,
    snapshots: Arc<Mutex<BTreeMap<LeaseId, Weak<Semaphore>>>>,
    pulses: Arc<Mutex<BTreeMap<LeaseId, Weak<Semaphore>>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Server {
    /// A server of this runtime's instances, whose SSH server has this key and lets in whom `keys` names; `ask` reaches the market.
    #[must_use]
    pub fn new(
        runtime: Arc<dyn Runtime>,
        host_key: souk_ssh::keys::HostKey,
        keys: KeyStore,
        ask: tokio::sync::mpsc::Sender<Permission>,
    ) -> Self {
        Self {
            runtime,
            host_key,
            keys,
            ask,
            places: Arc::new(Semaphore::new(STREAMS)),
            renters: Arc::default(),
            leases: Arc::default(),
            ssh: Arc::default(),
            snapshots: Arc::default(),
            pulses: Arc::default(),
        }
    }

    /// Serves one stream in a task of its own.
    pub fn serve<S>(&self, peer: NodeId, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let server = self.clone();
        tokio::spawn(async move {
            let Some(places) = server.take_places(peer) else {
                let busy = Frame::Error(
                    "too many streams are open to this host; close some, or try again in a moment".to_owned(),
                );
                write_frame(&mut stream, &busy).await.ok();
                return;
            };
            if let Err(sentence) = server.open(peer, &mut stream, places).await {
                write_frame(&mut stream, &Frame::Error(sentence)).await.ok();
            }
            stream.shutdown().await.ok();
        });
    }

    /// A lease is over: its streams are cut.
    pub fn end(&self, lease: &LeaseId) {
        if let Some(streams) = self.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(lease) {
            streams.cancel();
        }
        self.keys.forget(lease);
    }

    fn streams_of(&self, lease: LeaseId) -> CancellationToken {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).entry(lease).or_default().clone()
    }

    /// A place among all streams, and one among this renter's.
    fn take_places(&self, peer: NodeId) -> Option<[OwnedSemaphorePermit; 2]> {
        let own = place(&self.renters, peer, STREAMS_PER_RENTER)?;
        Some([own, Arc::clone(&self.places).try_acquire_owned().ok()?])
    }

    async fn open<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        peer: NodeId,
        stream: &mut S,
        places: [OwnedSemaphorePermit; 2],
    ) -> Result<(), String> {
        let first = timeout(OPEN_WITHIN, read_frame(stream)).await.map_err(|_| "nothing was asked for in time")?;
        let Ok(Some(Frame::Open(bytes))) = first else { return Err("the stream began with something else".to_owned()) };
        let open: StreamOpen = encode::from_bytes(&bytes, OPEN_BYTES).map_err(|e| format!("the request is {e}"))?;
        let lease = open.lease();
        let granted = self.permit(peer, lease).await?;
        let other = if let StreamOpen::Files { onward: Some(other), .. } = &open { *other } else { lease };
        self.permit(peer, other).await?;
        // A renter's meter has places of its own, so that it is in nobody's way, for as long as its lease runs.
        let _places = if let StreamOpen::Pulse { .. } = &open { None } else { Some(places) };
        let (over, other_over) = (self.streams_of(lease), self.streams_of(other));
        let meter = match &open {
            StreamOpen::Exec { .. } | StreamOpen::Ssh { .. } | StreamOpen::Forward { .. } => {
                self.runtime.tunnel(&lease.to_string())
            }
            StreamOpen::Snapshot { .. } | StreamOpen::Files { onward: None, .. } => {
                self.runtime.tunnel(&lease.to_string())
            }
            // What a lease's command printed costs nothing to read, nor what is said about the lease or asked to measure it, nor its image, however it comes; and
            // what stays on the host is no traffic.
            StreamOpen::Logs { .. }
            | StreamOpen::SshKeys { .. }
            | StreamOpen::Push { .. }
            | StreamOpen::Pulse { .. }
            | StreamOpen::Files { onward: Some(_), .. } => Arc::default(),
        };
        let mut counted = counted::Counted::new(stream, meter);
        tokio::select! {
            served = self.pump(open, (peer, &granted), &mut counted) => served,
            () = over.cancelled() => Err("the lease is over".to_owned()),
            () = other_over.cancelled() => Err("the lease is over".to_owned()),
        }
    }

    /// Asks the market whether this peer may reach this lease.
    async fn permit(&self, peer: NodeId, lease: LeaseId) -> Result<Granted, String> {
        let (answer, permitted) = oneshot::channel();
        let asked = self.ask.send(Permission { peer, lease, answer }).await;
        asked.map_err(|_| "the host's node is stopping")?;
        permitted.await.map_err(|_| "the host's node is stopping")?
    }

    async fn pump<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        open: StreamOpen,
        (peer, granted): (NodeId, &Granted),
        stream: &mut S,
    ) -> Result<(), String> {
        match open {
            StreamOpen::Logs { lease, follow, tail, since, from } => {
                let options = logs::Options { follow, tail, since, from };
                logs::serve(&*self.runtime, &lease.to_string(), options, stream).await
            }
            StreamOpen::Exec { lease, command, tty, env, user, workdir, size } => {
                let size = size.map(|(columns, rows)| (rows, columns));
                let spec = souk_runtime::ExecSpec { command, terminal: tty, size, env, user, workdir, stdin: true };
                exec::serve(&*self.runtime, &lease.to_string(), spec, stream).await
            }
            StreamOpen::Files { lease, user, onward: None } => {
                let session = self.runtime.files(&lease.to_string(), user).await.map_err(|e| e.to_string())?;
                exec::pass(session, stream).await
            }
            StreamOpen::Files { lease, user, onward: Some(other) } => {
                files::between(&*self.runtime, (lease, other), user, stream).await
            }
            StreamOpen::SshKeys { lease, replace } => keys::serve(&self.keys, lease, granted, replace, stream).await,
            StreamOpen::Ssh { lease } => {
                let _place = place(&self.ssh, lease, SSH_CONNECTIONS)
                    .ok_or("too many SSH connections to this instance are open; close some first")?;
                let allowed = self.keys.allowed(lease, granted).await?;
                ssh::serve(&self.runtime, &self.host_key, lease, allowed, stream).await
            }
            StreamOpen::Pulse { lease } => {
                let _place = place(&self.pulses, lease, PULSES).ok_or("this instance is asked already")?;
                pulse::serve(&*self.runtime, &lease.to_string(), stream).await
            }
            StreamOpen::Push { lease } => {
                send(stream, &Frame::Ready).await?;
                self.runtime.receive_image(&lease.to_string(), stream).await;
                Ok(())
            }
            StreamOpen::Snapshot { lease, keep } => {
                let _place =
                    place(&self.snapshots, lease, 1).ok_or("a snapshot of this instance is being made already")?;
                send(stream, &Frame::Ready).await?;
                let spec = souk_runtime::SnapshotSpec { owner: peer.to_string(), keep };
                self.runtime.snapshot(&lease.to_string(), spec, stream).await;
                Ok(())
            }
            StreamOpen::Forward { lease, host, port, udp } => {
                let target = forward::Target { host, port, udp };
                forward::serve(&*self.runtime, &lease.to_string(), &target, stream).await
            }
        }
    }
}

/// A place among those of one renter or lease, while there is one.
fn place<K: Ord>(among: &Mutex<BTreeMap<K, Weak<Semaphore>>>, key: K, most: usize) -> Option<OwnedSemaphorePermit> {
    let mut among = among.lock().unwrap_or_else(PoisonError::into_inner);
    among.retain(|_, places| places.strong_count() > 0);
    let own = among.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
        let own = Arc::new(Semaphore::new(most));
        among.insert(key, Arc::downgrade(&own));
        own
    });
    own.try_acquire_owned().ok()
}
