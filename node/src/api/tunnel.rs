//! `POST leases/{id}/tunnel`: SSH or a port of an instance, as plain bytes once the host has said that it is there.

use std::time::Duration;

use axum::{
    extract::{FromRequest, Path, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use souk_protocol::message::Frame;

use super::{
    UPGRADE,
    error::{ApiError, JsonBody},
    frames,
    server::Shared,
    types::TunnelRequest,
};
use crate::market::{Command, CommandError, ErrorCode, command::LeaseSelector};

/// How long the host may take to connect.
const READY_WITHIN: Duration = Duration::from_secs(45);
/// Bytes copied at once.
const PIECE: usize = 64 * 1024;

pub(super) async fn open(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|v| v.as_bytes() != UPGRADE.as_bytes()) {
        return Err(ApiError::bad(format!(
            "a tunnel needs the headers `connection: upgrade` and `upgrade: {UPGRADE}`"
        )));
    }
    let upgrade = request
        .extensions_mut()
        .remove::<OnUpgrade>()
        .ok_or_else(|| ApiError::bad("this connection can't be upgraded"))?;
    let JsonBody(request) = JsonBody::<TunnelRequest>::from_request(request, &()).await?;
    let id = LeaseSelector(id);
    let mut host = shared.market.ask(|reply| Command::Tunnel { id, request, reply }).await?;
    let first = tokio::time::timeout(READY_WITHIN, frames::read(&mut host)).await;
    match first {
        Ok(Ok(Some(Frame::Ready))) => {}
        Ok(Ok(Some(Frame::Error(sentence)))) => return Err(CommandError::new(ErrorCode::Rejected, sentence).into()),
        Ok(Ok(_) | Err(_)) => {
            let message = "the host's node ended the stream before it was open";
            return Err(CommandError::new(ErrorCode::Unreachable, message)
                .hint("souk show ID says how the lease is")
                .into());
        }
        Err(_) => return Err(CommandError::new(ErrorCode::Timeout, "the host did not answer in time").into()),
    }
    let stop = shared.stop.clone();
    shared.tasks.spawn(async move {
        let pump = async {
            match upgrade.await {
                Ok(client) => {
                    let mut client = TokioIo::new(client);
                    // Ended by either side: both know by themselves what that means.
                    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut host, PIECE, PIECE).await.ok();
                }
                Err(error) => tracing::debug!(%error, "a tunnel was not upgraded"),
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
