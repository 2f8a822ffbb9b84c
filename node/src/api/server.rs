//! Listening, and what every connection is held to.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::Request, middleware::Next, response::IntoResponse};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use souk_protocol::AskId;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{TOKEN_FILE, error::ApiError, hooks::OverTcp, routes, types::SearchResults};
use crate::{
    config::Api,
    hooks::HooksHandle,
    market::{CommandError, ErrorCode, MarketHandle, command::AskSelector},
    orders::OrdersHandle,
};

/// Connections served at once. When full, the next wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// How long a client may take for its headers, and between two requests.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// Headers of a request.
const HEADERS: usize = 32;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long connections may go on after the node has been told to stop.
const GRACE: Duration = Duration::from_secs(3);
/// The longest path a Unix socket can have.
const SOCKET_PATH_BYTES: usize = 107;

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another process answers there.
    #[error("another node is running here: it answers at {}", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// The path can't be a socket's.
    #[error(
        "the API's socket {} has a path of {} bytes, {SOCKET_PATH_BYTES} is the most; set api.socket to a shorter one",
        path.display(),
        path.as_os_str().len()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is in its place.
    #[error("{} is in the place of the API's socket and is not one; move it away", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system said no.
    #[error("can't serve the API at {at}")]
    Io {
        /// Where.
        at: String,
        /// Why not.
        source: io::Error,
    },
}

/// What the routes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) market: MarketHandle,
    pub(super) orders: OrdersHandle,
    pub(super) hooks: Option<HooksHandle>,
    /// Cancelled to stop the whole node.
    pub(super) stop: CancellationToken,
    /// Tasks that outlive their request: upgraded connections.
    pub(super) tasks: TaskTracker,
    last_search: Arc<Mutex<Vec<AskId>>>,
}

impl Shared {
    /// Keeps a search's rows, for the row numbers that follow.
    pub(super) fn remember(&self, results: &SearchResults) {
        let rows = results.rows.iter().map(|r| r.id).collect();
        *self.last_search.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Turns a row number of the last search into its ask; leaves ids alone.
    pub(super) fn ask_named(&self, name: AskSelector) -> Result<AskSelector, ApiError> {
        let text = name.0.trim();
        let digits = text.trim_start_matches('#');
        // Ids are given by at least four digits, and no search prints that many rows.
        if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(name);
        }
        let row: usize = digits.parse().unwrap_or(0);
        let rows = self.last_search.lock().unwrap_or_else(PoisonError::into_inner);
        let found = row.checked_sub(1).and_then(|i| rows.get(i));
        found.copied().map(AskSelector::from).ok_or_else(|| {
            let message = if rows.is_empty() {
                format!("`{text}` is a row number, and this node has searched nothing yet")
            } else {
                format!("the last search had {} rows, none of number {text}", rows.len())
            };
            let error = CommandError::new(ErrorCode::NotFound, message);
            ApiError(error.hint("souk search, then rent by row number or id"))
        })
    }
}

/// The API, bound but not yet served.
pub struct Server {
    unix: UnixListener,
    socket: PathBuf,
    tcp: Option<(TcpListener, blake3::Hash)>,
    hooks: Option<HooksHandle>,
}

impl Server {
    /// Binds the Unix socket (mode 0600), and loopback where configured. Whoever calls this holds the data directory's lock; a
    /// socket that nobody answers at is left over from a crash and is replaced.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn bind(config: &Api, dir: &Path) -> Result<Self, ServerError> {
        let socket = config.socket_in(dir);
        let unix = bind_unix(&socket).await?;
        let tcp = match config.tcp {
            Some(address) => Some(bind_tcp(address, dir).await?),
            None => None,
        };
        Ok(Self { unix, socket, tcp, hooks: None })
    }

    /// Serves this node's hooks too.
    #[must_use]
    pub fn with_hooks(mut self, hooks: HooksHandle) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// Where its Unix socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The loopback address it serves too, if configured: with the port that was given where port 0 was asked for.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        let (listener, _) = self.tcp.as_ref()?;
        listener.local_addr().ok()
    }

    /// Serves until `stop` is cancelled, which `POST shutdown` does too. Then requests under way have a few seconds, and the
    /// socket is removed.
    pub async fn serve(self, market: MarketHandle, orders: OrdersHandle, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let hooks = self.hooks.clone();
        let shared =
            Shared { market, orders, hooks, stop: stop.clone(), tasks: tasks.clone(), last_search: Arc::default() };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let router = routes::router(shared);
        let unix = accept_unix(&self.unix, router.clone(), &places, &tasks, &stop);
        let tcp = async {
            if let Some((listener, token)) = &self.tcp {
                let guarded = guard(router.clone(), *token);
                accept_tcp(listener, guarded, &places, &tasks, &stop).await;
            }
        };
        futures::future::join(unix, tcp).await;
        tasks.close();
        if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::debug!("some API connections were cut off");
        }
        if let Err(error) = std::fs::remove_file(&self.socket) {
            tracing::debug!(%error, "the API's socket was not removed");
        }
    }
}

async fn bind_unix(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |source| ServerError::Io { at: path.display().to_string(), source };
    let path_buf = || path.to_owned();
    if path.as_os_str().len() > SOCKET_PATH_BYTES {
        return Err(ServerError::TooLong { path: path_buf() });
    }
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(ServerError::NotASocket { path: path_buf() });
        }
        Ok(_) => {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(ServerError::Running { path: path_buf() });
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

async fn bind_tcp(address: SocketAddr, dir: &Path) -> Result<(TcpListener, blake3::Hash), ServerError> {
    let failed = |at: String| move |source| ServerError::Io { at, source };
    let path = dir.join(TOKEN_FILE);
    let token = token(&path).map_err(failed(path.display().to_string()))?;
    let listener = TcpListener::bind(address).await.map_err(failed(address.to_string()))?;
    Ok((listener, blake3::hash(token.as_bytes())))
}

/// The bearer token: read, or drawn and written for its owner alone.
fn token(path: &Path) -> io::Result<String> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(text.trim().to_owned()),
        Ok(_) => std::fs::remove_file(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    let token = hex::encode(bytes);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    Ok(token)
}

/// Lets only requests with the bearer token pass. Hashes are compared, in constant time.
fn guard(router: Router, token: blake3::Hash) -> Router {
    router.layer(axum::middleware::from_fn(move |mut request: Request, next: Next| async move {
        let given = request
            .headers()
            .get(axum::http::header::AUTHORIZATION)
            .and_then(|v| v.as_bytes().strip_prefix(b"Bearer "))
            .map(blake3::hash);
        if given == Some(token) {
            request.extensions_mut().insert(OverTcp);
            return next.run(request).await;
        }
        let error = CommandError::new(ErrorCode::Unauthorized, "the bearer token is missing or wrong")
            .hint(format!("it is in {TOKEN_FILE} in the data directory"));
        ApiError(error).into_response()
    }))
}

async fn accept_unix(
    listener: &UnixListener,
    router: Router,
    places: &Arc<Semaphore>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serve = connection(stream, router.clone(), stop.clone());
                tasks.spawn(async move {
                    serve.await;
                    drop(place);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_tcp(
    listener: &TcpListener,
    router: Router,
    places: &Arc<Semaphore>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serve = connection(stream, router.clone(), stop.clone());
                tasks.spawn(async move {
                    serve.await;
                    drop(place);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// An accept fails when descriptors run out: others must end first.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the API could not accept a connection");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an API connection ended");
    }
}
