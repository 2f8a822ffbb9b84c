//! The routes of accounts, payments and invoices.

use axum::{
    Router,
    extract::{Path, Query, State},
    routing::{get, post},
};

use super::{
    error::{Answer, JsonBody, answer},
    server::Shared,
    types::{
        AccountDetail, AccountsView, ClaimView, ForgiveRequest, InvoiceRequest, InvoiceView, PayRequest, PaymentView,
        ReceivedRequest,
    },
};
use crate::market::{Command, command::MoneyCommand};

pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/accounts", get(accounts))
        .route("/accounts/{peer}", get(account))
        .route("/accounts/{peer}/pay", post(pay))
        .route("/accounts/{peer}/received", post(received))
        .route("/accounts/{peer}/forgive", post(forgive))
        .route("/payments/{reference}", get(payment))
        .route("/invoices", get(invoices))
}

async fn accounts(State(shared): State<Shared>) -> Answer<AccountsView> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Accounts(reply))).await)
}

async fn account(State(shared): State<Shared>, Path(peer): Path<String>) -> Answer<AccountDetail> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Account { peer, reply })).await)
}

async fn pay(
    State(shared): State<Shared>,
    Path(peer): Path<String>,
    JsonBody(request): JsonBody<PayRequest>,
) -> Answer<PaymentView> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Pay { peer, request, reply })).await)
}

async fn received(
    State(shared): State<Shared>,
    Path(peer): Path<String>,
    JsonBody(request): JsonBody<ReceivedRequest>,
) -> Answer<ClaimView> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Received { peer, request, reply })).await)
}

async fn forgive(
    State(shared): State<Shared>,
    Path(peer): Path<String>,
    JsonBody(request): JsonBody<ForgiveRequest>,
) -> Answer<AccountDetail> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Forgive { peer, request, reply })).await)
}

async fn payment(State(shared): State<Shared>, Path(reference): Path<String>) -> Answer<PaymentView> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Payment { reference, reply })).await)
}

async fn invoices(State(shared): State<Shared>, Query(request): Query<InvoiceRequest>) -> Answer<Vec<InvoiceView>> {
    answer(shared.market.ask(|reply| Command::Money(MoneyCommand::Invoices { request, reply })).await)
}
