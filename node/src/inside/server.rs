//! The server of one instance's endpoint: HTTP/1.1, one request a connection, everything bounded.
//!
//! Owns the bounds. Nothing that a guest sends is kept beyond its request, nothing of it reaches a log, and none of it chooses
//! which lease is meant.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use souk_protocol::LeaseId;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{ApiKey, Ask, SelfView, What};

/// Connections of one instance at once. More wait in the kernel's queue, where they cost the node nothing.
const CONNECTIONS: usize = 8;
/// How long one may take for its request.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long one lasts at most, the answer read.
const LASTS: Duration = Duration::from_secs(20);
/// Bytes of a request's head; hyper takes no less.
const HEAD_BYTES: usize = 8 * 1024;
/// Headers of a request.
const HEADERS: usize = 32;
/// Bytes of a request's body.
const BODY_BYTES: usize = 4 * 1024;
/// Requests of one instance that are carried out in a second; and as many may come at once.
const PER_SECOND: u32 = 10;
/// How long the node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Whose endpoint it is, and who answers.
#[derive(Debug)]
pub(super) struct Of {
    pub(super) lease: LeaseId,
    pub(super) key: ApiKey,
    pub(super) asks: mpsc::Sender<Ask>,
}

/// Serves until told to stop.
pub(super) async fn serve(listener: UnixListener, of: Of, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let pace = tokio::sync::Mutex::new(Pace::new());
    let shared = Arc::new((of, pace));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let (stream, place) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => match accepted {
                Some((Ok((stream, _)), place)) => (stream, place),
                // Out of descriptors: not this guest's alone, and it passes.
                Some((Err(_), _)) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
                None => return,
            },
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, &shared.0, &shared.1) => {}
                () = tokio::time::sleep(LASTS) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: UnixStream, of: &Of, pace: &tokio::sync::Mutex<Pace>) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(request, of, pace).await) });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS);
    // What a guest did wrong is its own affair.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// So many requests a second.
#[derive(Debug)]
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    fn new() -> Self {
        Self { left: PER_SECOND, since: Instant::now() }
    }

    fn take(&mut self) -> bool {
        if self.since.elapsed() >= Duration::from_secs(1) {
            *self = Self::new();
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Why a request is refused.
#[derive(Debug, Serialize)]
struct Refused {
    error: String,
}

/// What a label request carries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    label: String,
}

fn refused(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    answer(status, &Refused { error: sentence.to_owned() })
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut text = serde_json::to_vec(body).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Generic in the body, so that tests need no connection.
async fn respond<B>(request: Request<B>, of: &Of, pace: &tokio::sync::Mutex<Pace>) -> Response<Full<Bytes>>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !pace.lock().await.take() {
        return refused(StatusCode::TOO_MANY_REQUESTS, "more than ten requests in a second; try again in a moment");
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = given.and_then(|text| text.strip_prefix("Bearer "));
    if !key.is_some_and(|key| of.key.is(key)) {
        let sentence = "send this instance's key: Authorization: Bearer $CONTAINER_API_KEY";
        return refused(StatusCode::UNAUTHORIZED, sentence);
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let what = match (&method, path.as_str()) {
        (&Method::GET, "/v1/self" | "/v1/self/notice") => What::Show,
        (&Method::POST, "/v1/self/stop") => What::Stop,
        (&Method::POST, "/v1/self/destroy") => What::Destroy,
        (&Method::POST, "/v1/self/label") => match label(request.into_body()).await {
            Ok(text) => What::Label(text),
            Err(sentence) => return refused(StatusCode::BAD_REQUEST, sentence),
        },
        (_, "/v1/self" | "/v1/self/notice" | "/v1/self/stop" | "/v1/self/destroy" | "/v1/self/label") => {
            return refused(StatusCode::METHOD_NOT_ALLOWED, "GET to look, POST to stop, destroy or label");
        }
        _ => {
            let sentence = "there is GET /v1/self and /v1/self/notice, POST /v1/self/stop, /destroy and /label";
            return refused(StatusCode::NOT_FOUND, sentence);
        }
    };
    match ask(of, what).await {
        Ok(view) if path == "/v1/self/notice" => answer(StatusCode::OK, &view.notice),
        Ok(view) => answer(StatusCode::OK, &view),
        Err((status, sentence)) => refused(status, &sentence),
    }
}

/// The label in a request's body: `{"label": "epoch 3"}`.
async fn label<B>(body: B) -> Result<String, &'static str>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = timeout(HEAD_WITHIN, Limited::new(body, BODY_BYTES).collect()).await;
    let bytes = match read {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) => return Err("the body is over 4 KiB, or broke off"),
        Err(_) => return Err("the body did not come in time"),
    };
    let labelled: Labelled =
        serde_json::from_slice(&bytes).map_err(|_| r#"the body is to be {"label": "some text"}"#)?;
    Ok(labelled.label)
}

async fn ask(of: &Of, what: What) -> Result<SelfView, (StatusCode, String)> {
    let busy = || (StatusCode::SERVICE_UNAVAILABLE, "the host's node is busy or stopping; try again".to_owned());
    let (answer, answered) = oneshot::channel();
    let asked = async {
        of.asks.send(Ask { lease: of.lease, what, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(ANSWER_WITHIN, asked).await {
        Ok(Some(Ok(view))) => Ok(view),
        Ok(Some(Err(why))) => Err((StatusCode::CONFLICT, why)),
        Ok(None) | Err(_) => Err(busy()),
    }
}
