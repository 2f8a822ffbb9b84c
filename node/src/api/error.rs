//! Errors as HTTP answers, and request bodies that are read with bounds.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::market::{CommandError, ErrorCode};

/// Bytes of a request's body. The largest is a rental with a 64 KiB workload, in JSON.
const BODY_BYTES: usize = 512 * 1024;
/// How long a request's body may take.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A [`CommandError`] on its way out.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) CommandError);

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        Self(error)
    }
}

impl ApiError {
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self(CommandError::new(ErrorCode::BadRequest, message))
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::NotFound | ErrorCode::NoMatch => StatusCode::NOT_FOUND,
        ErrorCode::Ambiguous | ErrorCode::WrongState | ErrorCode::Rejected | ErrorCode::Price => StatusCode::CONFLICT,
        ErrorCode::Unreachable => StatusCode::BAD_GATEWAY,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Unavailable | ErrorCode::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (status(self.0.code), axum::Json(self.0)).into_response()
    }
}

/// A JSON answer, or an error.
pub(crate) type Answer<T> = Result<axum::Json<T>, ApiError>;

/// Wraps a command's result.
pub(crate) fn answer<T: Serialize>(result: Result<T, CommandError>) -> Answer<T> {
    result.map(axum::Json).map_err(ApiError)
}

/// A JSON body within bounds of size and time. An empty one reads as `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body: Body = request.into_body();
        let bytes = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_BYTES))
            .await
            .map_err(|_| ApiError(CommandError::new(ErrorCode::Timeout, "the request's body took longer than 10 s")))?
            .map_err(|_| {
                ApiError(CommandError::new(ErrorCode::TooLarge, "the request's body is over 512 KiB, or was cut off"))
            })?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|e| ApiError::bad(format!("the request's body does not fit: {e}")))
    }
}
