//! An instance's output, as frames.

use futures::StreamExt;
use souk_protocol::{Timestamp, limits, message::Frame};
use souk_runtime::{LogChunk, LogOptions, OutputStream, Runtime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::send;

/// Which lines, and how.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Go on with what comes.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u32>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
}

/// Pumps the output of a lease's instance until its command ends, the reader goes, or there is no more.
///
/// # Errors
/// A sentence for the reader.
pub async fn serve<S>(runtime: &dyn Runtime, lease: &str, options: Options, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    // The runtime's `since` excludes its moment; people mean it included.
    let since = options.since.map(|t| t.0.saturating_mul(1_000_000).saturating_sub(1));
    let wanted = LogOptions { follow: options.follow, tail: options.tail, since };
    let mut pieces = runtime.logs(lease, wanted).await.map_err(|e| e.to_string())?;
    let (mut read, mut write) = tokio::io::split(stream);
    let mut nothing = [0; 1];
    let mut line_begins = [true; 2];
    let mut reading = true;
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece,
            // A reader says nothing; when its side ends, or breaks, it is gone.
            gone = read.read(&mut nothing), if reading => match gone {
                Ok(0) | Err(_) if options.follow => return Ok(()),
                Ok(0) | Err(_) => {
                    reading = false;
                    continue;
                }
                Ok(_) => return Err("nothing is to be said while logs are read".to_owned()),
            },
        };
        match piece {
            None => break,
            Some(Err(e)) => return Err(e.to_string()),
            Some(Ok(chunk)) => {
                for frame in frames(&chunk, options.timestamps, &mut line_begins) {
                    send(&mut write, &frame).await?;
                }
            }
        }
    }
    send(&mut write, &Frame::Exit(0)).await
}

fn frames(chunk: &LogChunk, timestamps: bool, line_begins: &mut [bool; 2]) -> Vec<Frame> {
    let stderr = chunk.stream == OutputStream::Stderr;
    let begins = &mut line_begins[usize::from(stderr)];
    let mut bytes = Vec::with_capacity(chunk.bytes.len() + 40);
    if timestamps && *begins {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(chunk.at);
        bytes.extend_from_slice(humantime::format_rfc3339_nanos(at).to_string().as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(&chunk.bytes);
    *begins = chunk.bytes.ends_with(b"\n");
    let frame = |part: &[u8]| if stderr { Frame::Stderr(part.to_vec()) } else { Frame::Stdout(part.to_vec()) };
    bytes.chunks(limits::FRAME_BYTES).map(frame).collect()
}
