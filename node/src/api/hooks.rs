//! The routes of hooks.

use axum::{
    Extension, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};

use super::{
    error::{Answer, ApiError, JsonBody, answer},
    server::Shared,
    types::{HookDelivery, HookLogRequest, HookRequest, HookView, HooksView},
};
use crate::{
    hooks::{Command, HooksHandle},
    market::CommandError,
};

/// Marks requests that came over the network, be it loopback: who has the token may use the node, not run programs on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTcp;

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/hooks", get(list).post(add))
        .route("/hooks/log", get(log))
        .route("/hooks/{name}/remove", post(remove))
        .route("/hooks/{name}/test", post(test))
}

fn hooks(shared: Shared) -> Result<HooksHandle, ApiError> {
    shared.hooks.ok_or_else(|| ApiError(CommandError::stopping()))
}

async fn list(State(shared): State<Shared>) -> Answer<HooksView> {
    answer(hooks(shared)?.ask(Command::List).await)
}

async fn add(
    State(shared): State<Shared>,
    over_tcp: Option<Extension<OverTcp>>,
    JsonBody(request): JsonBody<HookRequest>,
) -> Answer<HookView> {
    let programs = over_tcp.is_none();
    answer(hooks(shared)?.ask(|reply| Command::Add { request, programs, reply }).await)
}

async fn remove(State(shared): State<Shared>, Path(name): Path<String>) -> Answer<HookView> {
    answer(hooks(shared)?.ask(|reply| Command::Remove { name, reply }).await)
}

async fn test(State(shared): State<Shared>, Path(name): Path<String>) -> Answer<HookDelivery> {
    answer(hooks(shared)?.ask(|reply| Command::Test { name, reply }).await)
}

async fn log(State(shared): State<Shared>, Query(request): Query<HookLogRequest>) -> Answer<Vec<HookDelivery>> {
    answer(hooks(shared)?.ask(|reply| Command::Log { request, reply }).await)
}
