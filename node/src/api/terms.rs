//! The routes about leases' terms, and about what hosts take.

use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use souk_protocol::message::Action;

use super::{
    error::{Answer, JsonBody, answer},
    routes::control,
    server::Shared,
    types::{
        ChangeView, ExtensionRequest, ExtensionView, LeaseDetail, LeaseView, OfferExtensionRequest, SlicesRequest,
        SlicesView,
    },
};
use crate::market::{
    Command,
    command::{AskSelector, LeaseSelector},
    terms::TermsCommand,
};

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/quote/slices", post(slices))
        .route("/leases/{id}/change", post(change))
        .route("/leases/{id}/extension", post(extension))
        .route("/leases/{id}/extension/decline", post(decline))
        .route("/leases/{id}/extension/offer", post(offer))
}

async fn slices(State(shared): State<Shared>, JsonBody(mut request): JsonBody<SlicesRequest>) -> Answer<SlicesView> {
    request.of = shared.ask_named(AskSelector(request.of))?.0;
    let ask = |reply| Command::Terms(TermsCommand::Slices { request, reply });
    answer(shared.market.ask(ask).await)
}

async fn change(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(change): JsonBody<ChangeView>,
) -> Answer<LeaseDetail> {
    let id = LeaseSelector(id);
    let ask = |reply| Command::Terms(TermsCommand::Change { id, change, reply });
    answer(shared.market.ask(ask).await)
}

async fn extension(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<ExtensionRequest>,
) -> Answer<ExtensionView> {
    let id = LeaseSelector(id);
    let ask = |reply| Command::Terms(TermsCommand::Extension { id, request, reply });
    answer(shared.market.ask(ask).await)
}

async fn decline(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<LeaseView> {
    control(shared, id, Action::DeclineExtension).await
}

async fn offer(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<OfferExtensionRequest>,
) -> Answer<LeaseDetail> {
    let id = LeaseSelector(id);
    let ask = |reply| Command::Terms(TermsCommand::OfferExtension { id, request, reply });
    answer(shared.market.ask(ask).await)
}
