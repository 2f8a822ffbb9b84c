//! Having a module compiled, by a worker that is killed when it takes too long.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::error::WasmError;
use super::listen::listen;
use super::spawn::Worker;
use crate::engine::Flavour;
use crate::message::{CompileOrder, Order, Word, encode, header, send_header};
use crate::report::{End, reason};

/// What compiling one module may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of the module.
    pub module_bytes: u64,
    /// Bytes of its code.
    pub code_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Seconds of processor time; by the clock four times as many.
    pub cpu_seconds: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { module_bytes: 64 << 20, code_bytes: 512 << 20, memory_bytes: 2 << 30, cpu_seconds: 120 }
    }
}

/// By the clock, where the machine is busy.
const PATIENCE: u64 = 4;

pub(super) async fn compile(
    mut worker: Worker,
    module: &File,
    code: &File,
    flavour: Flavour,
    limits: &CompileLimits,
) -> Result<(), WasmError> {
    let order = CompileOrder {
        flavour,
        memory_bytes: limits.memory_bytes,
        cpu_seconds: limits.cpu_seconds,
        output_bytes: limits.code_bytes,
        module_bytes: limits.module_bytes,
    };
    let within = Duration::from_secs(limits.cpu_seconds.saturating_mul(PATIENCE));
    match tokio::time::timeout(within, talk(&worker, module, code, order)).await {
        Err(_) => Err(WasmError::CompilerEnded { how: format!("after {} s", within.as_secs()) }),
        Ok(Err(source)) => Err(WasmError::Worker { source }),
        Ok(Ok(Some(Word::Compiled))) => Ok(()),
        Ok(Ok(Some(Word::Invalid { reason: text }))) => Err(WasmError::Invalid { reason: reason(&text) }),
        Ok(Ok(Some(Word::Ended { end: End::Failed { reason: text }, .. }))) => {
            Err(WasmError::CompilerEnded { how: reason(&text) })
        }
        Ok(Ok(Some(Word::Ready(_) | Word::Started | Word::Usage(_) | Word::Ended { .. }) | None)) => {
            let _ = worker.child.kill();
            let how = match worker.child.wait() {
                Ok(status) => {
                    status.signal().map_or_else(|| status.to_string(), |signal| format!("by signal {signal}"))
                }
                Err(error) => error.to_string(),
            };
            Err(WasmError::CompilerEnded { how })
        }
    }
}

/// The last word of a compiler, if it has one.
async fn talk(worker: &Worker, module: &File, code: &File, order: CompileOrder) -> io::Result<Option<Word>> {
    let body = encode(&Order::Compile(order))?;
    send_header(worker.socket.as_fd(), header(&body)?, &[module.as_fd(), code.as_fd()])?;
    let (read, mut write) = UnixStream::from_std(worker.socket.try_clone()?)?.into_split();
    write.write_all(&body).await?;
    let mut words = listen(read);
    loop {
        match words.recv().await {
            Some(Ok(Word::Ready(confinement))) => tracing::debug!(?confinement, "a compiler is confined"),
            Some(word) => return word.map(Some),
            None => return Ok(None),
        }
    }
}
