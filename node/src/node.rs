//! The whole node: its parts started, wired and stopped in order.

use std::path::PathBuf;

use souk_ledger::lock::DirectoryLock;
use souk_protocol::NodeId;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// What a node needs to know beside its configuration.
#[derive(Debug)]
pub struct Options {
    /// Where its data is. Its identity has been made.
    pub dir: PathBuf,
    /// Keeps other nodes off that directory; held until this one has stopped.
    pub lock: DirectoryLock,
    /// Told once, when the node serves its API and listens.
    pub ready: oneshot::Sender<Ready>,
}

/// A node that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its key, as a peer id.
    pub node: NodeId,
    /// Where it listens, as multiaddresses with its peer id.
    pub listen: Vec<String>,
    /// Its API's socket.
    pub socket: PathBuf,
}

/// Runs a node until `stop` is cancelled, by a signal or over its API.
///
/// # Errors
/// What kept it from starting, or brought it down; the context chain reads as one sentence.
#[allow(clippy::unused_async)]
pub async fn run(config: Config, options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    drop((config, options, stop));
    Err(anyhow::anyhow!("this build has no node"))
}
