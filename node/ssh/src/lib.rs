//! An SSH server for one instance, over a stream that the node has authenticated already.
//!
//! Each SSH session is a command run in the instance, each direct connection a socket made inside it: nothing of a client's reaches the
//! host itself. It owns the keys' forms ([`keys`]), who gets in, and the bounds of one connection (`budget`); it opens no
//! port, knows no leases' rules, and keeps nothing.
//!
//! ```text
//!  stream ⇄ russh ─requests─▶ server (one a connection) ─▶ command (one a session channel) ─▶ exec in the instance
//!                                                      └─▶ forward (one a direct channel)  ─▶ socket in its network
//! ```

mod budget;
mod command;
mod forward;
pub mod keys;
mod server;
mod signal;

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use russh::{MethodKind, MethodSet, SshId, server::Config};
use souk_runtime::Runtime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use keys::{AllowedKeys, HostKey};
use server::{Connection, ConnectionError};

pub use server::IMAGE_USER;

/// Session and forwarding channels open at once on one connection. More are refused.
pub const CHANNELS: usize = 128;
/// What a client may send on a channel before it is granted more.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes of one SSH packet.
const PACKET: u32 = 32 * 1024;
/// Bytes between russh and the stream, each way.
const PIPE: usize = 256 * 1024;
/// Packets to a client that russh has not yet taken. When full, what writes them waits.
const EVENTS: usize = 32;
/// How long a client may take to prove its key.
const LOGIN_WITHIN: Duration = Duration::from_secs(60);
/// Between questions whether a silent client is still there; after so many without answer it is gone.
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(30), 4);

/// Which instance is served, to whom, and as what.
#[derive(Clone)]
pub struct Access {
    /// Runs it.
    pub runtime: Arc<dyn Runtime>,
    /// Its lease.
    pub lease: String,
    /// What the server proves to be.
    pub host_key: HostKey,
    /// Whose clients get in. A connection whose key is taken out of it ends at once.
    pub allowed: watch::Receiver<AllowedKeys>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Serves one SSH connection until either side ends it. Dropped, it ends at once: commands are hung up and then killed.
///
/// # Errors
/// A sentence for the log: SSH tells its client itself.
pub async fn serve<S>(stream: &mut S, access: Access) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = Arc::new(config(&access.host_key)?);
    let (near, far) = tokio::io::duplex(PIPE);
    let mut allowed = access.allowed.clone();
    let (connection, mut logged_in) = Connection::new(access);
    let serving = async {
        let session = russh::server::run_stream(config, far, connection).await?;
        session.await
    };
    let out = async {
        let proven = tokio::time::timeout(LOGIN_WITHIN, logged_in.wait_for(Option::is_some)).await;
        let proven = proven.map_err(|_| "no key was proven in time")?.map_or(None, |key| key.clone());
        let gone = |list: &AllowedKeys| proven.as_ref().is_some_and(|key| !list.has(key));
        let removed = allowed.wait_for(gone).await.is_ok();
        if !removed {
            // Nobody changes the list any more.
            std::future::pending::<()>().await;
        }
        Err("its key was removed")
    };
    let mut near = near;
    tokio::select! {
        served = serving => served.map_err(|e: ConnectionError| e.to_string()),
        moved = tokio::io::copy_bidirectional_with_sizes(stream, &mut near, PIPE, PIPE) => {
            moved.map(|_| ()).map_err(|e| e.to_string())
        }
        out = out => out.map_err(str::to_owned),
    }
}

fn config(host_key: &HostKey) -> Result<Config, String> {
    Ok(Config {
        server_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-souk_", env!("CARGO_PKG_VERSION")))),
        methods: MethodSet::from([MethodKind::PublicKey].as_slice()),
        // The stream's other end has been authenticated: timing tells it nothing that it doesn't know.
        auth_rejection_time: Duration::from_millis(100),
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key.private().map_err(|e| e.to_string())?],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        event_buffer_size: EVENTS,
        max_auth_attempts: 20,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE.0),
        keepalive_max: KEEPALIVE.1,
        ..Config::default()
    })
}
