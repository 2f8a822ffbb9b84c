//! The routes that monitoring asks.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::{
    error::{Answer, ApiError, answer},
    server::Shared,
    types::MetricView,
};
use crate::market::Command;

/// Prometheus' text format.
const CONTENT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is measured, as Prometheus reads it.
pub(super) async fn text(State(shared): State<Shared>) -> Response {
    match shared.market.ask(Command::Metrics).await {
        Ok(metrics) => {
            let text: String = metrics.iter().map(ToString::to_string).collect();
            ([(header::CONTENT_TYPE, CONTENT)], text).into_response()
        }
        Err(error) => ApiError(error).into_response(),
    }
}

/// The same as JSON.
pub(super) async fn json(State(shared): State<Shared>) -> Answer<Vec<MetricView>> {
    answer(shared.market.ask(Command::Metrics).await)
}
