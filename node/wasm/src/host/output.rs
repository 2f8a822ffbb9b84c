//! A guest's outputs, as they come. Nobody who reads means a guest that waits; nobody who will read means a closed pipe.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;

/// Pieces that wait for the reader. When full the guest waits at its next write.
const CHUNKS: usize = 16;
/// Most bytes of a piece.
const CHUNK: usize = 16 * 1024;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, cut anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which output.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}

/// Reads both to their ends, and no more than a worker lets through.
pub(super) fn read(stdout: OwnedFd, stderr: OwnedFd, most: u64) -> io::Result<mpsc::Receiver<Chunk>> {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let left = Arc::new(AtomicU64::new(most.saturating_add(crate::worker::CUT_MARK_BYTES)));
    for (stream, fd) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
        let pipe = Receiver::from_owned_fd(fd)?;
        tokio::spawn(forward(stream, pipe, sender.clone(), Arc::clone(&left)));
    }
    Ok(chunks)
}

async fn forward(stream: Stream, mut pipe: Receiver, to: mpsc::Sender<Chunk>, left: Arc<AtomicU64>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut buffer) => read,
            () = to.closed() => return,
        };
        let Ok(read @ 1..) = read else { return };
        let length = u64::try_from(read).unwrap_or(u64::MAX);
        // The worker cuts a log itself. One that doesn't is no worker any more, and not heard.
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length)).is_err() {
            return;
        }
        let bytes = Bytes::copy_from_slice(buffer.get(..read).unwrap_or_default());
        if to.send(Chunk { stream, bytes }).await.is_err() {
            return;
        }
    }
}
