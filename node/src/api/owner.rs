//! The routes about the owner of this node, and the owner's machines.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};

use super::{
    error::{Answer, JsonBody, answer},
    server::Shared,
    types::{JoinRequest, MachineOrder, MachineResult, MachineView, OwnerView, RefreshRequest},
};
use crate::market::{
    Command,
    command::{OwnerCommand, Reply},
};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/owner", get(show))
        .route("/owner/join", post(join))
        .route("/owner/leave", post(leave))
        .route("/owner/refresh", post(refresh))
        .route("/host/machines", get(machines))
        .route("/host/machines/order", post(order))
}

async fn ask<T>(shared: &Shared, make: impl FnOnce(Reply<T>) -> OwnerCommand) -> Answer<T>
where
    T: serde::Serialize,
{
    answer(shared.market.ask(|reply| Command::Owner(make(reply))).await)
}

async fn show(State(shared): State<Shared>) -> Answer<OwnerView> {
    ask(&shared, OwnerCommand::Show).await
}

async fn join(State(shared): State<Shared>, JsonBody(request): JsonBody<JoinRequest>) -> Answer<OwnerView> {
    ask(&shared, |reply| OwnerCommand::Join { request, reply }).await
}

async fn leave(State(shared): State<Shared>) -> Answer<OwnerView> {
    ask(&shared, OwnerCommand::Leave).await
}

async fn refresh(State(shared): State<Shared>, JsonBody(request): JsonBody<RefreshRequest>) -> Answer<OwnerView> {
    ask(&shared, |reply| OwnerCommand::Refresh { request, reply }).await
}

async fn machines(State(shared): State<Shared>) -> Answer<Vec<MachineView>> {
    ask(&shared, OwnerCommand::Machines).await
}

async fn order(State(shared): State<Shared>, JsonBody(request): JsonBody<MachineOrder>) -> Answer<Vec<MachineResult>> {
    ask(&shared, |reply| OwnerCommand::Order { request, reply }).await
}
