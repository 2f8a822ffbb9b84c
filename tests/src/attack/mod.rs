//! A peer that keeps to no rule: Noise is real, and every byte above it is what the attacker likes.
//!
//! Owns one connection over TCP: the handshake, yamux's frames made by hand, and what the victim says back. Nothing in here
//! waits for ever, and nothing bounds what is sent but the victim's own windows. [`rpc`] makes gossipsub's messages, [`storm`] the
//! attacks themselves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness: what does not work fails the test"
)]

pub mod rpc;
pub mod storm;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{
    AsyncReadExt, AsyncWriteExt,
    io::{ReadHalf, WriteHalf},
};
use libp2p::{PeerId, core::upgrade::OutboundConnectionUpgrade, identity, noise};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// A TCP connection, to futures' traits.
pub type Socket = Compat<TcpStream>;
type Secured = noise::Output<Socket>;

/// How long a handshake may take before the attacker gives it up.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// What yamux lets each side send on a new stream.
const WINDOW: i64 = 256 * 1024;

const DATA: u8 = 0;
const WINDOW_UPDATE: u8 = 1;
const PING: u8 = 2;
const SYN: u16 = 1;
const ACK: u16 = 2;
const RST: u16 = 8;

/// What the attacker does with what the victim sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It reads, and lets the victim send on.
    Reads,
    /// It reads the connection, and never opens a window again: streams stall.
    Stalls,
    /// It does not read from the socket at all: the connection stalls.
    Deaf,
}

/// One connection. It is closed when dropped.
#[derive(Debug)]
pub struct Raw {
    /// Who it says it is.
    pub id: PeerId,
    frames: mpsc::Sender<Vec<u8>>,
    shared: Arc<Shared>,
    next: AtomicU32,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What may still be sent on each stream.
    credit: Mutex<HashMap<u32, i64>>,
    changed: tokio::sync::Notify,
    cut: AtomicBool,
    received: AtomicU64,
}

/// A TCP connection to the victim, with nothing said on it.
///
/// # Errors
/// What the system says.
pub async fn knock(to: SocketAddr) -> io::Result<Socket> {
    let socket = timeout(HANDSHAKE, TcpStream::connect(to)).await??;
    socket.set_nodelay(true)?;
    Ok(socket.compat())
}

/// A line of multistream-select.
#[must_use]
pub fn line(text: &str) -> Vec<u8> {
    let mut bytes = rpc::varint(text.len() as u64 + 1);
    bytes.extend(text.bytes());
    bytes.push(b'\n');
    bytes
}

async fn select<T>(io: &mut T, protocol: &str) -> io::Result<()>
where
    T: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let said = [line("/multistream/1.0.0"), line(protocol)].concat();
    io.write_all(&said).await?;
    io.flush().await?;
    let mut heard = vec![0; said.len()];
    io.read_exact(&mut heard).await?;
    if heard == said { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl Raw {
    /// Connects as somebody new.
    ///
    /// # Errors
    /// If the victim does not let it.
    pub async fn dial(to: SocketAddr, manners: Manners) -> io::Result<Self> {
        Self::dial_as(&identity::Keypair::generate_ed25519(), to, manners).await
    }

    /// Connects with a key.
    ///
    /// # Errors
    /// If the victim does not let it.
    pub async fn dial_as(key: &identity::Keypair, to: SocketAddr, manners: Manners) -> io::Result<Self> {
        let io = timeout(HANDSHAKE, async {
            let mut socket = knock(to).await?;
            select(&mut socket, "/noise").await?;
            let noise = noise::Config::new(key).map_err(io::Error::other)?;
            let (_, mut io) = noise.upgrade_outbound(socket, "/noise").await.map_err(io::Error::other)?;
            select(&mut io, "/yamux/1.0.0").await?;
            Ok::<Secured, io::Error>(io)
        })
        .await??;
        let (reader, writer) = io.split();
        // Sixteen frames: when it is full the attacker waits for the victim to read.
        let (frames, queue) = mpsc::channel(16);
        let shared = Arc::new(Shared::default());
        let mut tasks = vec![tokio::spawn(write(writer, queue, Arc::clone(&shared)))];
        if manners == Manners::Deaf {
            // Held, so that the socket stays open.
            tasks.push(tokio::spawn(async move {
                let _held = reader;
                std::future::pending::<()>().await;
            }));
        } else {
            let answers = (manners == Manners::Reads).then(|| frames.clone());
            tasks.push(tokio::spawn(read(reader, answers, Arc::clone(&shared))));
        }
        Ok(Self { id: key.public().to_peer_id(), frames, shared, next: AtomicU32::new(1), tasks })
    }

    /// Whether the victim has hung up.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.shared.cut.load(Ordering::Relaxed) || self.frames.is_closed()
    }

    /// Bytes that the victim has said.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Opens a stream, says which protocol it is for and what follows at once: its number.
    ///
    /// # Errors
    /// If the victim has hung up, or does not read.
    pub async fn open(&self, protocol: &str, body: &[u8]) -> io::Result<u32> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let head = [line("/multistream/1.0.0"), line(protocol)].concat();
        self.shared.credit.lock().unwrap().insert(id, WINDOW);
        self.frame(DATA, SYN, id, &head).await?;
        self.take(id, head.len());
        if !body.is_empty() {
            self.say(id, body).await?;
        }
        Ok(id)
    }

    /// Says more on a stream, as far as the victim's windows allow.
    ///
    /// # Errors
    /// If the victim has hung up, has reset the stream, or does not read for a while.
    pub async fn say(&self, stream: u32, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(16 * 1024) {
            timeout(Duration::from_secs(2), self.wait_for(stream, part.len())).await??;
            self.frame(DATA, 0, stream, part).await?;
            self.take(stream, part.len());
        }
        Ok(())
    }

    /// Sends frames as they are.
    ///
    /// # Errors
    /// As [`Raw::say`].
    pub async fn bytes(&self, bytes: Vec<u8>) -> io::Result<()> {
        let sent = timeout(Duration::from_secs(2), self.frames.send(bytes)).await?;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Forgets a stream, as if it had never been.
    ///
    /// # Errors
    /// As [`Raw::say`].
    pub async fn reset(&self, stream: u32) -> io::Result<()> {
        self.shared.credit.lock().unwrap().remove(&stream);
        self.frame(WINDOW_UPDATE, RST, stream, &[]).await
    }

    async fn frame(&self, kind: u8, flags: u16, stream: u32, body: &[u8]) -> io::Result<()> {
        self.bytes(frame(kind, flags, stream, u32::try_from(body.len()).unwrap(), body)).await
    }

    fn take(&self, stream: u32, bytes: usize) {
        if let Some(left) = self.shared.credit.lock().unwrap().get_mut(&stream) {
            *left -= i64::try_from(bytes).unwrap();
        }
    }

    async fn wait_for(&self, stream: u32, bytes: usize) -> io::Result<()> {
        loop {
            let changed = self.shared.changed.notified();
            if self.is_cut() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            match self.shared.credit.lock().unwrap().get(&stream) {
                None => return Err(io::ErrorKind::ConnectionReset.into()),
                Some(left) if *left >= i64::try_from(bytes).unwrap() => return Ok(()),
                Some(_) => {}
            }
            timeout(Duration::from_millis(100), changed).await.ok();
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One frame of yamux.
#[must_use]
pub fn frame(kind: u8, flags: u16, stream: u32, length: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

async fn write(mut io: WriteHalf<Secured>, mut queue: mpsc::Receiver<Vec<u8>>, shared: Arc<Shared>) {
    while let Some(bytes) = queue.recv().await {
        if io.write_all(&bytes).await.is_err() || io.flush().await.is_err() {
            break;
        }
    }
    shared.cut.store(true, Ordering::Relaxed);
}

/// Follows what the victim says until it hangs up; opens its windows again if there is a way to.
async fn read(mut io: ReadHalf<Secured>, answers: Option<mpsc::Sender<Vec<u8>>>, shared: Arc<Shared>) {
    let mut rest = vec![0; 16 * 1024];
    let mut header = [0; 12];
    while io.read_exact(&mut header).await.is_ok() {
        let flags = u16::from_be_bytes([header[2], header[3]]);
        let stream = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        if flags & RST != 0 {
            shared.credit.lock().unwrap().remove(&stream);
        }
        let answer = match header[1] {
            DATA => {
                let mut left = length as usize;
                while left > 0 {
                    let part = left.min(rest.len());
                    if io.read_exact(&mut rest[..part]).await.is_err() {
                        shared.cut.store(true, Ordering::Relaxed);
                        return;
                    }
                    left -= part;
                }
                shared.received.fetch_add(length.into(), Ordering::Relaxed);
                (length > 0).then(|| frame(WINDOW_UPDATE, 0, stream, length, &[]))
            }
            WINDOW_UPDATE => {
                if let Some(left) = shared.credit.lock().unwrap().get_mut(&stream) {
                    *left += i64::from(length);
                }
                None
            }
            PING if flags & SYN != 0 => Some(frame(PING, ACK, 0, length, &[])),
            _ => None,
        };
        shared.changed.notify_waiters();
        if let (Some(answer), Some(answers)) = (answer, &answers) {
            answers.try_send(answer).ok();
        }
    }
    shared.cut.store(true, Ordering::Relaxed);
    shared.changed.notify_waiters();
}
