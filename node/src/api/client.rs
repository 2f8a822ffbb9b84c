//! Asking a running node: over its Unix socket, a loopback port, or a link to another machine ([`crate::remote`]).
//!
//! One connection a request. Owns no rule and no output: answers come back typed, refusals as [`ClientError::Refused`].

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use zeroize::Zeroizing;

use super::UPGRADE;
use crate::{
    market::{CommandError, ErrorCode, command::ByteStream},
    remote::{LinkError, SshLink},
};

/// Bytes of an answer that is read whole.
const ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of one line of a stream of lines.
const LINE_BYTES: usize = 1024 * 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no node is running for {}", dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
    },
    /// The socket is there, but not for this user.
    #[error("{} is not yours to use", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
    },
    /// Nobody answers at the port.
    #[error("no node answers at http://{at}: {why}")]
    NoAnswer {
        /// The port.
        at: SocketAddr,
        /// Why not.
        why: String,
    },
    /// There is no way to the machine it is on.
    #[error(transparent)]
    Link(LinkError),
    /// The node said no.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// The connection broke.
    #[error("the connection to the node was lost: {0}")]
    Lost(String),
    /// The answer makes no sense: another version, most likely.
    #[error("the node's answer does not fit this program: {0}")]
    Mismatch(String),
}

impl ClientError {
    /// Whether the node may only be restarting, or busy.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::NoAnswer { .. } | Self::Lost(_) => true,
            Self::Refused(error) => matches!(error.code, ErrorCode::Busy | ErrorCode::Stopping),
            Self::Forbidden { .. } | Self::Link(_) | Self::Mismatch(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some("souk up -d".to_owned()),
            Self::Forbidden { socket } => {
                Some(format!("run as the user that started the node (ls -l {})", socket.display()))
            }
            Self::NoAnswer { .. } => Some("souk up --api-tcp 127.0.0.1:PORT, or the port it was given then".to_owned()),
            Self::Link(error) => error.hint(),
            Self::Refused(error) => error.hint.clone(),
            Self::Lost(_) => Some("souk status".to_owned()),
            Self::Mismatch(_) => Some("souk down && souk up -d, to run this version".to_owned()),
        }
    }
}

/// The bearer token of a loopback port.
#[derive(Clone)]
struct Token(Zeroizing<String>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// How a node is reached.
#[derive(Debug, Clone)]
enum Way {
    Unix { dir: PathBuf, socket: PathBuf },
    Loopback { address: SocketAddr, token: Token },
    Ssh(Arc<SshLink>),
}

/// Asks one node.
#[derive(Debug, Clone)]
pub struct Client(Way);

/// A path's segment or query value, with what is special in a URL escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

impl Client {
    /// A client of the node of `dir`, whose socket is `socket`.
    #[must_use]
    pub fn new(dir: &Path, socket: PathBuf) -> Self {
        Self(Way::Unix { dir: dir.to_owned(), socket })
    }

    /// A client of a node that serves its API at a loopback port, with this token.
    #[must_use]
    pub fn loopback(address: SocketAddr, token: Zeroizing<String>) -> Self {
        Self(Way::Loopback { address, token: Token(token) })
    }

    /// A client of a node on another machine.
    #[must_use]
    pub fn over(link: SshLink) -> Self {
        Self(Way::Ssh(Arc::new(link)))
    }

    /// Reads.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        whole(self.send(Method::GET, path, Bytes::new(), false).await?).await
    }

    /// Changes or asks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        whole(self.send(Method::POST, path, json(body)?, false).await?).await
    }

    /// Reads an answer that goes on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(&self, path: &str) -> Result<Pieces, ClientError> {
        let response = self.send(Method::GET, path, Bytes::new(), false).await?;
        Ok(Pieces(response.into_body()))
    }

    /// Asks for an answer of one JSON value a line.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lines(&self, path: &str, body: &impl Serialize) -> Result<Lines, ClientError> {
        let response = self.send(Method::POST, path, json(body)?, false).await?;
        Ok(Lines { pieces: Pieces(response.into_body()), rest: Vec::new() })
    }

    /// Asks for a two-way stream of frames.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upgrade(&self, path: &str, body: &impl Serialize) -> Result<ByteStream, ClientError> {
        let response = self.send(Method::POST, path, json(body)?, true).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ClientError::Mismatch("it did not upgrade".to_owned()));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    /// What it means that the socket can't be connected to.
    pub(crate) fn not_connected(dir: &Path, socket: &Path, error: &io::Error) -> ClientError {
        let kind = error.kind();
        if kind == io::ErrorKind::PermissionDenied {
            ClientError::Forbidden { socket: socket.to_owned() }
        } else if kind == io::ErrorKind::NotFound || kind == io::ErrorKind::ConnectionRefused {
            ClientError::NotRunning { dir: dir.to_owned() }
        } else {
            ClientError::Lost(error.to_string())
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        upgrade: bool,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header(header::HOST, "souk")
            .header(header::CONTENT_TYPE, "application/json");
        if upgrade {
            request = request.header(header::CONNECTION, "upgrade").header(header::UPGRADE, UPGRADE);
        }
        if let Way::Loopback { token, .. } = &self.0 {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.0.as_str()));
        }
        let request = request.body(Full::new(body)).map_err(|e| ClientError::Mismatch(e.to_string()))?;
        match &self.0 {
            Way::Unix { dir, socket } => {
                let stream = UnixStream::connect(socket).await;
                exchange(stream.map_err(|e| Self::not_connected(dir, socket, &e))?, request, path).await
            }
            Way::Loopback { address, .. } => {
                let stream = TcpStream::connect(address).await;
                let stream = stream.map_err(|e| ClientError::NoAnswer { at: *address, why: e.to_string() })?;
                stream.set_nodelay(true).ok();
                exchange(stream, request, path).await
            }
            Way::Ssh(link) => {
                let again = link.was_there();
                let stream = link.open().await.map_err(|error| match error {
                    // What was reached once is waited for, where a command waits for its node.
                    error if again => ClientError::Lost(error.to_string()),
                    error => ClientError::Link(error),
                })?;
                exchange(stream, request, path).await
            }
        }
    }
}

/// One request and the head of its answer, on a connection of its own.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    path: &str,
) -> Result<Response<Incoming>, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    // Ends with the connection: when the answer has been read or dropped.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(lost)?;
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = collect(response.into_body()).await?;
    let error: CommandError =
        serde_json::from_slice(&bytes).map_err(|_| ClientError::Mismatch(format!("{status} for {path}")))?;
    Err(ClientError::Refused(error))
}

fn lost(error: hyper::Error) -> ClientError {
    ClientError::Lost(error.to_string())
}

fn json(body: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(body).map(Bytes::from).map_err(|e| ClientError::Mismatch(e.to_string()))
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    http_body_util::Limited::new(body, ANSWER_BYTES)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|e| ClientError::Lost(e.to_string()))
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let bytes = collect(response.into_body()).await?;
    serde_json::from_slice(&bytes).map_err(|e| ClientError::Mismatch(e.to_string()))
}

/// A body, piece by piece.
#[derive(Debug)]
pub struct Pieces(Incoming);

impl Pieces {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the body is cut off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(lost)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// As something to read from.
    pub fn into_reader(self) -> impl tokio::io::AsyncRead + Unpin + Send {
        let stream = futures::stream::unfold(Some(self), |pieces| async move {
            let mut pieces = pieces?;
            match pieces.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(pieces))),
                Ok(None) => None,
                Err(e) => Some((Err(io::Error::other(e)), None)),
            }
        });
        tokio_util::io::StreamReader::new(Box::pin(stream))
    }
}

/// A body of one JSON value a line.
#[derive(Debug)]
pub struct Lines {
    pieces: Pieces,
    rest: Vec<u8>,
}

impl Lines {
    /// The next value; none at the end.
    ///
    /// # Errors
    /// [`ClientError`], also for a line that is too long or is no such value.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|e| ClientError::Mismatch(e.to_string()));
            }
            if self.rest.len() > LINE_BYTES {
                return Err(ClientError::Mismatch("a line without end".to_owned()));
            }
            match self.pieces.next().await? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None if self.rest.is_empty() => return Ok(None),
                None => return Err(ClientError::Lost("the answer was cut off".to_owned())),
            }
        }
    }
}
