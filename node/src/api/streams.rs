//! Answers that go on: steps of a rental, output, exec, exports.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use souk_protocol::message::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FRAMES_TYPE, LINES_TYPE, UPGRADE,
    error::{ApiError, JsonBody},
    follow, frames,
    server::Shared,
    types::{ExecRequest, LogsRequest, RentRequest, RentStep},
};
use crate::market::{
    Command, CommandError,
    command::{ByteStream, LeaseSelector},
};

/// How long a client's unread input is thrown away after its command has ended, for the client to close first.
const DRAIN: Duration = Duration::from_secs(5);
/// Bytes copied at once: one read of a log stream, one piece of a body.
const PIECE: usize = 64 * 1024;

fn streaming(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// `POST rent`: one JSON step a line.
pub(super) async fn rent(
    State(shared): State<Shared>,
    JsonBody(mut request): JsonBody<RentRequest>,
) -> Result<Response, ApiError> {
    request.ask = shared.ask_named(request.ask)?;
    let detach = request.detach;
    let steps = shared.market.rent(request).await?;
    let lines = stream::unfold((steps, false), move |(mut steps, over)| async move {
        if over {
            return None;
        }
        let step = steps.recv().await.unwrap_or_else(|| RentStep::Failed { error: CommandError::stopping() });
        let last = match &step {
            RentStep::Running { .. } | RentStep::Exited { .. } | RentStep::Ended { .. } | RentStep::Failed { .. } => {
                true
            }
            RentStep::Accepted { .. } => detach,
            RentStep::Resolving { .. }
            | RentStep::Proposed { .. }
            | RentStep::Countered { .. }
            | RentStep::Drafted { .. }
            | RentStep::Committed { .. }
            | RentStep::Preparing { .. }
            | RentStep::Waiting { .. } => false,
        };
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), (steps, last)))
    });
    Ok(streaming(LINES_TYPE, Body::from_stream(lines)))
}

/// `GET leases/{id}/logs`: frames. When the client goes, so do the streams to the host.
pub(super) async fn logs(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Query(request): Query<LogsRequest>,
) -> Result<Response, ApiError> {
    let frames = follow::read(shared.market.clone(), LeaseSelector(id), request).await?;
    let pieces = stream::unfold(frames, |mut frames| async move { frames.recv().await.map(|piece| (piece, frames)) });
    Ok(streaming(FRAMES_TYPE, Body::from_stream(pieces)))
}

/// `POST leases/{id}/exec`: upgrades, then frames both ways.
pub(super) async fn exec(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|v| v.as_bytes() != UPGRADE.as_bytes()) {
        return Err(ApiError::bad(format!("exec needs the headers `connection: upgrade` and `upgrade: {UPGRADE}`")));
    }
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| ApiError::bad("this connection can't be upgraded"))?;
    let JsonBody(request) = JsonBody::<ExecRequest>::from_request(request, &()).await?;
    if request.command.is_empty() {
        return Err(ApiError::bad("there is no command to run"));
    }
    let id = LeaseSelector(id);
    let ask = |reply| Command::Exec { id, request, reply };
    let host = shared.market.ask(ask).await?;
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        let pump = async {
            match upgrade.await {
                Ok(client) => pump(TokioIo::new(client), host).await,
                Err(error) => tracing::debug!(%error, "exec was not upgraded"),
            }
        };
        tokio::select! {
            () = pump => {}
            () = stop.cancelled() => {}
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, UPGRADE)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Copies both ways at once until either side ends. The end of input is a frame, so a client that closes has gone, and its
/// command with it. A host that is lost is told to the client as an error frame.
async fn pump(client: impl AsyncRead + AsyncWrite, host: ByteStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_host, mut to_host) = tokio::io::split(host);
    let up = async {
        let mut piece = vec![0; PIECE];
        loop {
            match from_client.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    if to_host.write_all(&piece[..n]).await.is_err() || to_host.flush().await.is_err() {
                        break;
                    }
                }
            }
        }
        // The host takes no more; what it still says decides.
        std::future::pending::<()>().await;
    };
    let down = async {
        loop {
            match frames::read(&mut from_host).await {
                Ok(Some(frame)) => {
                    if frames::write(&mut to_client, &frame).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let sentence = format!("the connection to the host was lost: {error}");
                    let _ = frames::write(&mut to_client, &Frame::Error(sentence)).await;
                    break;
                }
            }
        }
        let _ = to_client.shutdown().await;
    };
    tokio::select! {
        () = up => return,
        () = down => {}
    }
    // A close with input unread would reach the client as a reset, and could take the last frames with it.
    let _ = tokio::time::timeout(DRAIN, tokio::io::copy(&mut from_client, &mut tokio::io::sink())).await;
}

/// `GET ledger/export`: the file's bytes. A fault on the way cuts the body off, so that no reader takes it for whole.
pub(super) async fn export(
    State(shared): State<Shared>,
    Query(query): Query<ExportQuery>,
) -> Result<Response, ApiError> {
    let id = query.lease.map(LeaseSelector);
    let ask = |reply| Command::LedgerExport { id, reply };
    let pieces = shared.market.ask(ask).await?;
    let pieces = stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
    let body = Body::from_stream(pieces.map(|piece| piece.map_err(io::Error::other)));
    Ok(streaming("application/octet-stream", body))
}

/// What of the ledger is exported.
#[derive(Debug, serde::Deserialize)]
pub(super) struct ExportQuery {
    lease: Option<String>,
}

/// Any other path.
pub(super) async fn nothing_here() -> Response {
    let error = CommandError::new(crate::market::ErrorCode::NotFound, "there is nothing at this path")
        .hint("the paths are under /v1");
    (StatusCode::NOT_FOUND, Json(error)).into_response()
}
