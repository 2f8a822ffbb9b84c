//! The routes that answer at once.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    routing::{get, post},
};
use souk_protocol::message::Action;

use super::{
    error::{Answer, JsonBody, answer},
    server::Shared,
    streams, terms, tether,
    types::{
        AcceptRequest, EarningsRequest, EarningsView, EventView, EventsRequest, HappenedView, HostView, IdleJobRequest,
        IdleJobView, JupyterView, LabelRequest, LeaseDetail, LeaseView, LeasesRequest, LedgerCheckView,
        LedgerCompactView, ListRequest, MarketRequest, MarketView, OrderRequest, OrderView, PeerView, PriceRequest,
        QuoteView, ReceiptView, ReceiptsRequest, RentRequest, ScheduleRequest, ScheduleView, SearchRequest,
        SearchResults, ShutdownView, SshKeysRequest, SshKeysView, SshView, StatusView,
    },
};
use crate::{
    market::{Command, command::LeaseSelector},
    template::Template,
};

pub(super) fn router(shared: Shared) -> Router {
    let v1 = Router::new()
        .route("/status", get(status))
        .route("/peers", get(peers))
        .route("/metrics", get(super::metrics::text))
        .route("/metrics.json", get(super::metrics::json))
        .route("/search", post(search))
        .route("/quote", post(quote))
        .route("/rent", post(streams::rent))
        .route("/run", post(tether::run))
        .route("/leases", get(leases))
        .route("/leases/{id}", get(lease))
        .route("/leases/{id}/events", get(events))
        .route("/leases/{id}/logs", get(streams::logs))
        .route("/leases/{id}/exec", post(streams::exec))
        .route("/leases/{id}/files", post(streams::files))
        .route("/leases/{id}/ssh", get(ssh_access))
        .route("/leases/{id}/ssh/keys", get(ssh_keys).post(change_ssh_keys))
        .route("/leases/{id}/template", get(lease_template))
        .route("/leases/{id}/jupyter", get(jupyter_access))
        .route("/leases/{id}/tunnel", post(super::tunnel::open))
        .route("/leases/{id}/stop", post(stop))
        .route("/leases/{id}/start", post(start))
        .route("/leases/{id}/destroy", post(destroy))
        .route("/leases/{id}/label", post(label))
        .merge(terms::router())
        .route("/orders", get(orders).post(order_add))
        .route("/orders/{number}/cancel", post(order_cancel))
        .route("/receipts", get(receipts))
        .route("/events", get(all_events))
        .route("/ledger/check", get(ledger_check))
        .route("/ledger/compact", post(ledger_compact))
        .route("/ledger/export", get(streams::export))
        .merge(super::owner::routes())
        .merge(super::cluster::routes())
        .merge(super::trust::routes())
        .merge(super::accounts::router())
        .route("/host", get(host))
        .route("/host/earnings", get(host_earnings))
        .route("/host/list", post(host_list))
        .route("/host/price", post(host_price))
        .route("/market", post(market))
        .route("/host/unlist", post(host_unlist))
        .route("/host/accept", post(host_accept))
        .route("/host/schedule", get(host_schedule).post(host_keep))
        .route("/host/idle-job", get(idle_job).post(set_idle_job))
        .route("/shutdown", post(shutdown))
        .merge(super::hooks::router());
    Router::new().nest("/v1", v1).fallback(streams::nothing_here).with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Answer<StatusView> {
    answer(shared.market.ask(Command::Status).await)
}

async fn peers(State(shared): State<Shared>) -> Answer<Vec<PeerView>> {
    answer(shared.market.ask(Command::Peers).await)
}

async fn search(State(shared): State<Shared>, JsonBody(request): JsonBody<SearchRequest>) -> Answer<SearchResults> {
    let ask = |reply| Command::Search { request, reply };
    let results = shared.market.ask(ask).await?;
    shared.remember(&results);
    Ok(Json(results))
}

async fn orders(State(shared): State<Shared>) -> Answer<Vec<OrderView>> {
    answer(shared.orders.list().await)
}

async fn order_add(State(shared): State<Shared>, JsonBody(request): JsonBody<OrderRequest>) -> Answer<OrderView> {
    answer(shared.orders.add(request).await)
}

async fn order_cancel(State(shared): State<Shared>, Path(number): Path<u32>) -> Answer<OrderView> {
    answer(shared.orders.cancel(number).await)
}

async fn quote(State(shared): State<Shared>, JsonBody(mut request): JsonBody<RentRequest>) -> Answer<QuoteView> {
    request.ask = shared.ask_named(request.ask)?;
    let request = Box::new(request);
    let ask = |reply| Command::Quote { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn leases(State(shared): State<Shared>, Query(request): Query<LeasesRequest>) -> Answer<Vec<LeaseView>> {
    let ask = |reply| Command::Leases { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn lease(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<LeaseDetail> {
    let id = LeaseSelector(id);
    answer(shared.market.ask(|reply| Command::Lease { id, reply }).await)
}

async fn ssh_access(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<SshView> {
    let id = LeaseSelector(id);
    answer(shared.market.ask(|reply| Command::SshAccess { id, reply }).await)
}

async fn ssh_keys(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<SshKeysView> {
    let (id, request) = (LeaseSelector(id), SshKeysRequest::default());
    answer(shared.market.ask(|reply| Command::SshKeys { id, request, reply }).await)
}

async fn change_ssh_keys(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<SshKeysRequest>,
) -> Answer<SshKeysView> {
    let id = LeaseSelector(id);
    answer(shared.market.ask(|reply| Command::SshKeys { id, request, reply }).await)
}

async fn lease_template(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<Template> {
    let id = LeaseSelector(id);
    answer(shared.market.ask(|reply| Command::LeaseTemplate { id, reply }).await)
}

async fn jupyter_access(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<JupyterView> {
    let id = LeaseSelector(id);
    answer(shared.market.ask(|reply| Command::JupyterAccess { id, reply }).await)
}

async fn events(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<Vec<EventView>> {
    let id = LeaseSelector(id);
    let detail = shared.market.ask(|reply| Command::Lease { id, reply }).await;
    answer(detail.map(|detail| detail.events))
}

pub(super) async fn control(shared: Shared, id: String, action: Action) -> Answer<LeaseView> {
    let id = LeaseSelector(id);
    let ask = |reply| Command::Control { id, action, reply };
    answer(shared.market.ask(ask).await)
}

async fn stop(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<LeaseView> {
    control(shared, id, Action::Stop).await
}

async fn start(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<LeaseView> {
    control(shared, id, Action::Start).await
}

async fn destroy(State(shared): State<Shared>, Path(id): Path<String>) -> Answer<LeaseView> {
    control(shared, id, Action::Destroy).await
}

async fn label(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    JsonBody(LabelRequest { text }): JsonBody<LabelRequest>,
) -> Answer<LeaseView> {
    let id = LeaseSelector(id);
    let ask = |reply| Command::Label { id, text, reply };
    answer(shared.market.ask(ask).await)
}

async fn receipts(State(shared): State<Shared>, Query(request): Query<ReceiptsRequest>) -> Answer<Vec<ReceiptView>> {
    let ask = |reply| Command::Receipts { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn all_events(State(shared): State<Shared>, Query(request): Query<EventsRequest>) -> Answer<Vec<HappenedView>> {
    let ask = |reply| Command::Events { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn host_earnings(State(shared): State<Shared>, Query(request): Query<EarningsRequest>) -> Answer<EarningsView> {
    let ask = |reply| Command::HostEarnings { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn ledger_check(State(shared): State<Shared>) -> Answer<LedgerCheckView> {
    answer(shared.market.ask(Command::LedgerCheck).await)
}

async fn ledger_compact(State(shared): State<Shared>) -> Answer<LedgerCompactView> {
    answer(shared.market.ask(Command::LedgerCompact).await)
}

async fn host(State(shared): State<Shared>) -> Answer<HostView> {
    answer(shared.market.ask(Command::HostShow).await)
}

async fn host_list(State(shared): State<Shared>, JsonBody(request): JsonBody<ListRequest>) -> Answer<HostView> {
    let ask = |reply| Command::HostList { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn host_price(State(shared): State<Shared>, JsonBody(request): JsonBody<PriceRequest>) -> Answer<HostView> {
    let request = Box::new(request);
    let ask = |reply| Command::HostPrice { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn market(State(shared): State<Shared>, JsonBody(request): JsonBody<MarketRequest>) -> Answer<MarketView> {
    let ask = |reply| Command::Market { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn host_unlist(State(shared): State<Shared>) -> Answer<HostView> {
    answer(shared.market.ask(Command::HostUnlist).await)
}

async fn host_accept(State(shared): State<Shared>, JsonBody(request): JsonBody<AcceptRequest>) -> Answer<HostView> {
    let ask = |reply| Command::HostAccept { request, reply };
    answer(shared.market.ask(ask).await)
}

async fn host_schedule(State(shared): State<Shared>) -> Answer<ScheduleView> {
    answer(shared.market.ask(|reply| Command::HostSchedule { request: None, reply }).await)
}

async fn host_keep(State(shared): State<Shared>, JsonBody(request): JsonBody<ScheduleRequest>) -> Answer<ScheduleView> {
    let ask = |reply| Command::HostSchedule { request: Some(request), reply };
    answer(shared.market.ask(ask).await)
}

async fn idle_job(State(shared): State<Shared>) -> Answer<IdleJobView> {
    let ask = |reply| Command::HostIdleJob { request: None, reply };
    answer(shared.market.ask(ask).await)
}

async fn set_idle_job(
    State(shared): State<Shared>,
    JsonBody(request): JsonBody<IdleJobRequest>,
) -> Answer<IdleJobView> {
    let ask = |reply| Command::HostIdleJob { request: Some(request), reply };
    answer(shared.market.ask(ask).await)
}

async fn shutdown(State(shared): State<Shared>) -> Json<ShutdownView> {
    shared.stop.cancel();
    Json(ShutdownView { pid: std::process::id() })
}
