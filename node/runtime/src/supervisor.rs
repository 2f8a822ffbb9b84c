//! The one task that watches the engine: its events wake the workers, its absence is reported, its return makes all look again.
//!
//! It also keeps the firewall in force. It knows no state of any instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;

use crate::cut::RulesWatch;
use crate::name::{LABEL_LEASE, LABEL_NODE};
use crate::report::RuntimeReport;
use crate::shared::Shared;
use crate::usage::now;

/// Least time between two checks of the firewall, however often rules change.
const BETWEEN_CHECKS: Duration = Duration::from_millis(50);
/// First and longest wait between tries to reach an engine that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Events that say an instance changed.
const CHANGES: [&str; 5] = ["start", "die", "oom", "destroy", "kill"];

/// Watches until the runtime is shut down.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = watch_events(&shared) => {}
        () = keep_firewall(&shared) => {}
    }
}

async fn keep_firewall(shared: &Shared) {
    let mut check = tokio::time::interval(Duration::from_secs(shared.engine.config.check_seconds));
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let watch = RulesWatch::open();
    if let Err(error) = &watch {
        tracing::warn!(%error, "changes to the firewall are seen only from time to time");
    }
    let changed = async || match &watch {
        Ok(watch) => watch.changed().await,
        Err(_) => std::future::pending().await,
    };
    loop {
        tokio::select! {
            _ = check.tick() => {}
            () = changed() => {}
        }
        shared.engine.check_firewall().await;
        // Other programs may change their own rules all the time.
        tokio::time::sleep(BETWEEN_CHECKS).await;
    }
}

async fn watch_events(shared: &Shared) {
    loop {
        follow(shared).await;
        // The stream ended. A living engine only dropped it; otherwise wait for its return.
        if shared.engine.docker.ping().await.is_err() {
            shared.outage_begins(now());
            let _ = shared.reports.send(RuntimeReport::EngineDown).await;
            wait_for_return(shared).await;
            shared.outage_ends(now());
            let _ = shared.reports.send(RuntimeReport::EngineUp).await;
        }
        shared.wake_all();
    }
}

/// Reads events until the stream ends. They begin a little in the past: an event seen twice does no harm, one missed might.
async fn follow(shared: &Shared) {
    let filters = HashMap::from([
        ("type", vec![String::from("container")]),
        ("label", vec![format!("{LABEL_NODE}={}", shared.engine.config.node_id)]),
    ]);
    let since = (now() / 1_000_000_000).saturating_sub(2).to_string();
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let mut events = shared.engine.docker.events(Some(options));
    while let Some(Ok(event)) = events.next().await {
        take(shared, event);
    }
}

fn take(shared: &Shared, event: EventMessage) {
    let action = event.action.unwrap_or_default();
    let mut attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
    if action == "exec_die" {
        let code = attributes.get("exitCode").and_then(|code| code.parse().ok());
        if let (Some(exec), Some(code)) = (attributes.remove("execID"), code) {
            // Nobody waits for it: fine.
            let _ = shared.exec_ends.send((exec, code));
        }
        return;
    }
    if !CHANGES.contains(&action.as_str()) {
        return;
    }
    let Some(worker) = attributes.get(LABEL_LEASE).and_then(|lease| shared.worker(lease)) else {
        return;
    };
    if action == "oom" {
        worker.wake.oom.store(true, Ordering::Relaxed);
    }
    worker.wake.look.notify_one();
}

async fn wait_for_return(shared: &Shared) {
    let (mut wait, longest) = BACKOFF;
    loop {
        tokio::time::sleep(wait).await;
        if shared.engine.docker.ping().await.is_ok() && shared.engine.refresh().await.is_ok() {
            return;
        }
        wait = (wait * 2).min(longest);
    }
}
