//! `POST run`: a rental that ends with the connection it was asked over.
//!
//! The steps are those of `rent`, but the answer stays open after the last of them. When the asker goes, however it goes, the lease is
//! destroyed: also one that is accepted only then. Owns no state; what a node that was killed leaves behind ends with its contract.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, extract::State, http::header, response::Response};
use bytes::Bytes;
use futures::stream;
use souk_protocol::{LeaseId, message::Action};
use tokio::sync::mpsc;

use super::{
    LINES_TYPE,
    error::{ApiError, JsonBody},
    server::Shared,
    types::{RentRequest, RentStep},
};
use crate::market::{Command, ErrorCode, command::LeaseSelector};

/// Steps that the asker has not read. When full the rental's own queue fills, which skips what may be skipped.
const STEPS: usize = 16;
/// Between two attempts to end a lease, and how many: an hour of a host that can't be reached.
const AGAIN: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 720;

pub(super) async fn run(
    State(shared): State<Shared>,
    JsonBody(mut request): JsonBody<RentRequest>,
) -> Result<Response, ApiError> {
    request.ask = shared.ask_named(request.ask)?;
    request.detach = false;
    let steps = shared.market.rent(request).await?;
    let (told, lines) = mpsc::channel::<Bytes>(STEPS);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        if let Some(lease) = follow(steps, told, &shared).await {
            release(&shared, lease).await;
        }
    });
    let lines =
        stream::unfold(lines, |mut lines| async move { Some((Ok::<_, Infallible>(lines.recv().await?), lines)) });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(LINES_TYPE));
    Ok(response)
}

/// Passes steps on until the asker has gone and it is known what came of the rental: the lease that is to be ended, if there is one.
async fn follow(mut steps: mpsc::Receiver<RentStep>, told: mpsc::Sender<Bytes>, shared: &Shared) -> Option<LeaseId> {
    let mut lease = None;
    loop {
        let step = tokio::select! {
            step = steps.recv() => step,
            () = told.closed(), if lease.is_some() => return lease,
            () = shared.stop.cancelled() => return lease,
        };
        let Some(step) = step else { break };
        if let RentStep::Accepted { lease: accepted, .. } = &step {
            lease = Some(*accepted);
        }
        let over = matches!(step, RentStep::Ended { .. } | RentStep::Failed { .. });
        let mut line = serde_json::to_vec(&step).unwrap_or_default();
        line.push(b'\n');
        // An asker that has gone needs no more of it, but what is being signed is ours to end.
        told.send(Bytes::from(line)).await.ok();
        if over {
            // One that failed after it was accepted is ended, too: it can't hurt where it is over.
            return lease;
        }
    }
    tokio::select! {
        () = told.closed() => {}
        () = shared.stop.cancelled() => {}
    }
    lease
}

async fn release(shared: &Shared, lease: LeaseId) {
    for _ in 0..ATTEMPTS {
        let id = || LeaseSelector(lease.to_string());
        match shared.market.ask(|reply| Command::Lease { id: id(), reply }).await {
            Ok(detail) if detail.view.state.is_ended() => return,
            Ok(_) => {}
            Err(error) if matches!(error.code, ErrorCode::NotFound | ErrorCode::Stopping) => return,
            Err(_) => {}
        }
        match shared.market.ask(|reply| Command::Control { id: id(), action: Action::Destroy, reply }).await {
            Ok(view) if view.state.is_ended() => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%lease, error = error.message, "a run's lease is not ended yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shared.stop.cancelled() => return,
        }
    }
    tracing::warn!(%lease, "a run's lease could not be ended: its host can't be reached; it ends with its contract");
}
