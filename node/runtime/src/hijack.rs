//! The raw byte stream behind an exec: one HTTP request upgraded, then bytes both ways.
//!
//! Own, because the client library guesses from the bytes of a terminal whether they are framed: what a guest prints could then be
//! taken for a header that announces gigabytes.

use std::io;
use std::path::Path;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::codec::Decoder;

use crate::logs::OutputStream;
use crate::report::FailureCode;

/// The engine's frames hold one read of a pipe: 32 KiB, with room for other engines.
const MAX_FRAME: usize = 1 << 20;
/// Most bytes read of an error answer.
const MAX_ERROR_BODY: usize = 16 * 1024;
/// Stream byte and length.
const FRAME_HEADER: usize = 8;

/// The upgraded connection.
pub(crate) type Connection = TokioIo<Upgraded>;

/// Starts an exec and gives its connection.
pub(crate) async fn start_exec(
    socket: &Path,
    version: &str,
    exec: &str,
    terminal: bool,
) -> Result<Connection, FailureCode> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::debug!(%error, "an exec's connection");
        FailureCode::EngineDown
    };
    let stream = UnixStream::connect(socket).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends when the connection has been handed over, or closed.
    tokio::spawn(connection.with_upgrades());
    let body = serde_json::json!({ "Detach": false, "Tty": terminal }).to_string();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v{version}/exec/{exec}/start"))
        .header(HOST, "engine")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let text = Limited::new(response.into_body(), MAX_ERROR_BODY)
            .collect()
            .await
            .map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned())
            .unwrap_or_default();
        let error = bollard::errors::Error::DockerResponseServerError { status_code: status.as_u16(), message: text };
        return Err(crate::error::classify(&error));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(&error))?;
    Ok(TokioIo::new(upgraded))
}

/// Splits the engine's stream: framed without a terminal, plain with one.
#[derive(Debug)]
pub(crate) struct Demultiplexer {
    terminal: bool,
    /// Stream of the frame being read, and bytes left of it.
    frame: Option<(OutputStream, usize)>,
}

impl Demultiplexer {
    pub(crate) fn new(terminal: bool) -> Self {
        Self { terminal, frame: None }
    }
}

impl Decoder for Demultiplexer {
    type Item = (OutputStream, Bytes);
    type Error = io::Error;

    fn decode(&mut self, source: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if self.terminal {
            return Ok((!source.is_empty()).then(|| (OutputStream::Stdout, source.split().freeze())));
        }
        loop {
            match self.frame {
                // Handed on as it comes; a frame needn't be complete.
                Some((stream, left)) if left > 0 => {
                    if source.is_empty() {
                        return Ok(None);
                    }
                    let take = left.min(source.len());
                    self.frame = (left > take).then_some((stream, left - take));
                    return Ok(Some((stream, source.split_to(take).freeze())));
                }
                Some(_) | None => {
                    if source.len() < FRAME_HEADER {
                        return Ok(None);
                    }
                    let stream = match source.get_u8() {
                        1 | 0 => OutputStream::Stdout,
                        2 => OutputStream::Stderr,
                        _ => {
                            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame of the engine"));
                        }
                    };
                    source.advance(3);
                    let length = usize::try_from(source.get_u32()).unwrap_or(usize::MAX);
                    if length > MAX_FRAME {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "an oversized frame of the engine"));
                    }
                    self.frame = Some((stream, length));
                }
            }
        }
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let item = self.decode(source)?;
        if item.is_none() {
            // A header cut short by the end of the connection says nothing.
            source.clear();
        }
        Ok(item)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Demultiplexer, OutputStream};
    use bytes::BytesMut;
    use tokio_util::codec::Decoder as _;

    #[test]
    fn frames_are_split_even_when_cut_anywhere() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 2, b'h', b'i', 2, 0, 0, 0, 0, 0, 0, 1, b'!', 1, 0, 0, 0, 0, 0, 0, 0];
        for cut in 0..bytes.len() {
            let mut demux = Demultiplexer::new(false);
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut buffer = BytesMut::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                buffer.extend_from_slice(part);
                while let Some((stream, piece)) = demux.decode(&mut buffer).unwrap() {
                    match stream {
                        OutputStream::Stdout => out.extend_from_slice(&piece),
                        OutputStream::Stderr => err.extend_from_slice(&piece),
                    }
                }
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"hi"[..], &b"!"[..]), "cut at {cut}");
        }
    }

    #[test]
    fn a_guest_cannot_announce_gigabytes() {
        let mut buffer = BytesMut::from(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(Demultiplexer::new(false).decode(&mut buffer).is_err());
        let mut buffer = BytesMut::from(&[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..]);
        let (_, bytes) = Demultiplexer::new(true).decode(&mut buffer).unwrap().unwrap();
        assert_eq!(bytes.len(), 8);
    }
}
