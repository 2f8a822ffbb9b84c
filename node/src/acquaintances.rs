//! Peers that this node begins with another day: `peers.json` in its data directory.
//!
//! Owns the file. What is in it is hearsay, like any address: whoever is found there has to show its key. A file that can't be read
//! is as good as none.

use std::{
    io::{Read, Write},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use souk_network::{Multiaddr, NetworkHandle, limits};
use souk_protocol::NodeId;
use tokio_util::sync::CancellationToken;

const FILE: &str = "peers.json";
/// Bytes read of it: 256 peers with four addresses each take a quarter.
const MAX_BYTES: u64 = 256 * 1024;
/// Between two looks at who has been met.
const EVERY: Duration = Duration::from_secs(60);

/// A peer, and where it was found.
type Known = (NodeId, Vec<Multiaddr>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Acquaintances {
    /// The best first.
    peers: Vec<Acquaintance>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Acquaintance {
    node: NodeId,
    addresses: Vec<Multiaddr>,
}

/// Those of earlier days, the best first; none if there is no file, or none that can be read.
#[must_use]
pub fn load(dir: &Path) -> Vec<Known> {
    let path = dir.join(FILE);
    let read = || -> std::io::Result<Acquaintances> {
        let mut text = Vec::new();
        std::fs::File::open(&path)?.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    match read() {
        Ok(known) => {
            let known = known.peers.into_iter().take(limits::MAX_KEPT_PEERS);
            known.map(|peer| (peer.node, peer.addresses.into_iter().take(limits::MAX_ADDRESSES).collect())).collect()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the peers of earlier days can't be read; it begins without them");
            Vec::new()
        }
    }
}

/// Keeps the file until `stop`, and once more then.
pub async fn keep(dir: std::path::PathBuf, network: NetworkHandle, mut written: Vec<Known>, stop: CancellationToken) {
    loop {
        let ended = tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok();
        let known = network.known().await;
        // With nobody met since the start, those of earlier days are all there is.
        if !known.is_empty() && known != written {
            let (folder, list) = (dir.clone(), known.clone());
            let saved = tokio::task::spawn_blocking(move || save(&folder, list)).await;
            match saved {
                Ok(Ok(())) => written = known,
                Ok(Err(error)) => tracing::warn!(%error, "the peers met can't be kept for another day"),
                Err(_) => return,
            }
        }
        if ended {
            return;
        }
    }
}

/// Adds one that was found before there was a node; the first of all.
///
/// # Errors
/// The file system's.
pub fn add(dir: &Path, node: NodeId, addresses: Vec<Multiaddr>) -> std::io::Result<()> {
    let mut known = load(dir);
    known.retain(|(peer, _)| *peer != node);
    known.insert(0, (node, addresses));
    save(dir, known)
}

fn save(dir: &Path, known: Vec<Known>) -> std::io::Result<()> {
    let peers = known.into_iter().map(|(node, addresses)| Acquaintance { node, addresses }).collect();
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, &Acquaintances { peers })?;
    file.write_all(b"\n")?;
    file.persist(dir.join(FILE)).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_is_broken_is_as_good_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        let known: Vec<Known> =
            (0..3).map(|n| (NodeId([n; 32]), vec![format!("/ip4/8.8.8.{n}/tcp/7843").parse().unwrap()])).collect();
        save(dir.path(), known.clone()).unwrap();
        assert_eq!(load(dir.path()), known);
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for text in [&b"{"[..], b"[]", b"{\"peers\":[{\"node\":\"x\",\"addresses\":[]}]}", &whole[..whole.len() / 2]] {
            std::fs::write(&path, text).unwrap();
            assert!(load(dir.path()).is_empty());
        }
    }
}
