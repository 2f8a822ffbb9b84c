//! The routes about trust, blocks, attestations, complaints and reputation.

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{get, post},
};

use super::{
    error::{Answer, JsonBody, answer},
    server::Shared,
    types::{
        AttestRequest, AttestationView, BlockRequest, BlockView, ReportRequest, ReportView, ReputationRequest,
        ReputationView, TrustRequest, TrustView,
    },
};
use crate::market::{
    Command,
    command::{LeaseSelector, Reply},
    trust::TrustCommand,
};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/trust", get(trusted).post(trust))
        .route("/block", get(blocked).post(block))
        .route("/attestations", get(attestations).post(attest))
        .route("/leases/{id}/report", post(report))
        .route("/reputation", get(all))
        .route("/reputation/{peer}", get(one))
}

async fn ask<T>(shared: &Shared, make: impl FnOnce(Reply<T>) -> TrustCommand) -> Answer<T>
where
    T: serde::Serialize,
{
    answer(shared.market.ask(|reply| Command::Trust(make(reply))).await)
}

async fn trusted(State(shared): State<Shared>) -> Answer<Vec<TrustView>> {
    ask(&shared, |reply| TrustCommand::Trust { request: None, reply }).await
}

async fn trust(State(shared): State<Shared>, JsonBody(request): JsonBody<TrustRequest>) -> Answer<Vec<TrustView>> {
    ask(&shared, |reply| TrustCommand::Trust { request: Some(request), reply }).await
}

async fn blocked(State(shared): State<Shared>) -> Answer<Vec<BlockView>> {
    ask(&shared, |reply| TrustCommand::Block { request: None, reply }).await
}

async fn block(State(shared): State<Shared>, JsonBody(request): JsonBody<BlockRequest>) -> Answer<Vec<BlockView>> {
    ask(&shared, |reply| TrustCommand::Block { request: Some(request), reply }).await
}

async fn attestations(State(shared): State<Shared>) -> Answer<Vec<AttestationView>> {
    ask(&shared, |reply| TrustCommand::Attestations { reply }).await
}

async fn attest(State(shared): State<Shared>, JsonBody(request): JsonBody<AttestRequest>) -> Answer<AttestationView> {
    ask(&shared, |reply| TrustCommand::Attest { request, reply }).await
}

async fn report(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ReportRequest>,
) -> Answer<ReportView> {
    let id = LeaseSelector(id);
    ask(&shared, |reply| TrustCommand::Report { id, request, reply }).await
}

async fn all(State(shared): State<Shared>, Query(request): Query<ReputationRequest>) -> Answer<Vec<ReputationView>> {
    ask(&shared, |reply| TrustCommand::Reputation { peer: None, request, reply }).await
}

async fn one(
    State(shared): State<Shared>,
    Path(peer): Path<String>,
    Query(request): Query<ReputationRequest>,
) -> Answer<Vec<ReputationView>> {
    ask(&shared, |reply| TrustCommand::Reputation { peer: Some(peer), request, reply }).await
}
