//! The output of an instance's command, as the engine keeps it: split by stream, each piece with its time.
//!
//! Reads only; what is kept and for how long is set when the container is made.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::error::{RuntimeError, classify};
use crate::instance::Instance;
use crate::report::FailureCode;
use crate::usage::{UnixNanos, parse_time};

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output (with a terminal: everything).
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which part of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOptions {
    /// Go on with what is written from now on, until the command ends.
    pub follow: bool,
    /// Only so many last lines of what is there.
    pub tail: Option<u32>,
    /// Only what was written after this moment: the time of the last piece read continues without gap or repeat.
    pub since: Option<UnixNanos>,
}

/// A piece of output: a line, or at most 16 KiB of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// Which output.
    pub stream: OutputStream,
    /// When the engine read it. Pieces of one long line share their time.
    pub at: UnixNanos,
    /// The bytes, the line's end with them.
    pub bytes: Bytes,
}

/// The pieces in order. An item may be an error once, then the stream ends.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<LogChunk, RuntimeError>> + Send>>;

pub(crate) async fn open(instance: &Instance, options: LogOptions) -> Result<LogStream, RuntimeError> {
    if instance.observe(false).await.map_err(RuntimeError::Engine)?.is_none() {
        return Err(RuntimeError::Engine(FailureCode::InstanceGone));
    }
    let seconds = options.since.map_or(0, |since| since / 1_000_000_000);
    let mut query = LogsOptionsBuilder::new()
        .follow(options.follow)
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .since(i32::try_from(seconds).unwrap_or(i32::MAX));
    if let Some(lines) = options.tail {
        query = query.tail(&lines.to_string());
    }
    let after = options.since;
    let stream = instance.engine.docker.logs(&instance.names.container, Some(query.build())).filter_map(move |item| {
        std::future::ready(match item {
            Ok(output) => read(output).filter(|chunk| after.is_none_or(|after| chunk.at > after)).map(Ok),
            Err(error) => Some(Err(RuntimeError::Engine(classify(&error)))),
        })
    });
    Ok(Box::pin(stream))
}

/// Takes the time that the engine puts before each piece.
fn read(output: LogOutput) -> Option<LogChunk> {
    let (stream, message) = match output {
        LogOutput::StdOut { message } | LogOutput::Console { message } => (OutputStream::Stdout, message),
        LogOutput::StdErr { message } => (OutputStream::Stderr, message),
        LogOutput::StdIn { .. } => return None,
    };
    let space = message.iter().position(|byte| *byte == b' ')?;
    let at = parse_time(std::str::from_utf8(message.get(..space)?).ok()?)?;
    Some(LogChunk { stream, at, bytes: message.slice(space + 1..) })
}
