//! The routes about the private cluster of this node.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};

use super::{
    error::{Answer, JsonBody, answer},
    server::Shared,
    types::{ClusterView, InviteRequest, InviteView, MemberRequest},
};
use crate::market::{
    Command,
    command::{ClusterCommand, Reply},
};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/cluster", get(show))
        .route("/cluster/invite", post(invite))
        .route("/cluster/member", post(member))
        .route("/cluster/rotate", post(rotate))
}

async fn ask<T>(shared: &Shared, make: impl FnOnce(Reply<T>) -> ClusterCommand) -> Answer<T>
where
    T: serde::Serialize,
{
    answer(shared.market.ask(|reply| Command::Cluster(make(reply))).await)
}

async fn show(State(shared): State<Shared>) -> Answer<ClusterView> {
    ask(&shared, ClusterCommand::Show).await
}

async fn invite(State(shared): State<Shared>, JsonBody(request): JsonBody<InviteRequest>) -> Answer<InviteView> {
    ask(&shared, |reply| ClusterCommand::Invite { request, reply }).await
}

async fn member(State(shared): State<Shared>, JsonBody(request): JsonBody<MemberRequest>) -> Answer<ClusterView> {
    ask(&shared, |reply| ClusterCommand::Member { request, reply }).await
}

async fn rotate(State(shared): State<Shared>) -> Answer<ClusterView> {
    ask(&shared, ClusterCommand::Rotate).await
}
