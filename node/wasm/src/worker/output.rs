//! A guest's standard output: straight into the pipe, up to the limit of its log; what comes beyond is dropped after a mark.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::ticker::Shared;

/// What a log ends with that was cut.
pub(super) const CUT_MARK: &[u8] = b"\n[souk: the log's limit is reached; what follows is dropped]\n";
/// What is taken at once.
const CHUNK: usize = 64 * 1024;

/// One of the two outputs. They share the limit.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) pipe: Arc<File>,
    pub(super) shared: Arc<Shared>,
    pub(super) most: u64,
    pub(super) marked: Arc<AtomicBool>,
}

impl Output {
    fn put(&self, bytes: &[u8]) -> std::io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let before = self.shared.log.fetch_add(length, Ordering::Relaxed);
        let room = usize::try_from(self.most.saturating_sub(before)).unwrap_or(usize::MAX);
        let mut pipe = &*self.pipe;
        pipe.write_all(bytes.get(..room).unwrap_or(bytes))?;
        if room < bytes.len() && !self.marked.swap(true, Ordering::Relaxed) {
            pipe.write_all(CUT_MARK)?;
        }
        Ok(())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only what is newer than preview 2 asks for this one.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    /// Waits for the reader: a guest that nobody hears stands still, as a program in a terminal does.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes).map_err(|error| {
            if error.kind() == std::io::ErrorKind::BrokenPipe {
                StreamError::Closed
            } else {
                StreamError::LastOperationFailed(error.into())
            }
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}
