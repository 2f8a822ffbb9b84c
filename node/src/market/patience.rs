//! Asking a peer that says to ask again: one that has just started and may sign nothing yet, or has too much to do.
//!
//! Owns how long that goes on. Only for requests that do no harm when they come twice.

use std::time::Duration;

use souk_network::NetworkHandle;
use souk_protocol::{NodeId, message::Response};
use tokio::time::{Instant, sleep};

/// Between two tries, whatever the peer says.
const BETWEEN: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);

/// The answer, and again as long as it is that the peer is busy, for `within` in all. The last answer counts.
///
/// # Errors
///
/// A sentence: the peer was not reached, or its answer is none.
pub async fn ask(network: &NetworkHandle, to: NodeId, body: Vec<u8>, within: Duration) -> Result<Response, String> {
    let end = Instant::now() + within;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let bytes = network.request(to, body.clone(), left).await.map_err(|e| e.to_string())?;
        let response = Response::from_bytes(&bytes).map_err(|e| format!("its answer is {e}"))?;
        let Response::Busy { retry_after_ms } = response else { return Ok(response) };
        let pause = Duration::from_millis(retry_after_ms).clamp(*BETWEEN.start(), *BETWEEN.end());
        if Instant::now() + pause >= end {
            return Ok(response);
        }
        sleep(pause).await;
    }
}
