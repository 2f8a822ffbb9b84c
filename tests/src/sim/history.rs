//! What a lease's events must add up to: warnings before evictions, and what its runs cost.

use souk_protocol::{
    Millis,
    lease::{LeaseDraft, LeaseState, PauseReason},
    machine::record::LeaseRow,
    message::{Cause, EventCode, LeaseEvent},
    negotiation::RentalType,
};

/// What the runs in a lease's events add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Runs {
    /// Runs.
    pub count: u64,
    /// Of them ended by others.
    pub evicted: u64,
    /// Milliseconds run.
    pub active: u64,
    /// Of them free, since others cut the run within its quantum.
    pub free: u64,
}

/// Whether all of a lease's events are there.
#[must_use]
pub fn is_whole(row: &LeaseRow) -> bool {
    row.events.first().is_some_and(|e| e.n == 1)
}

/// Adds up the runs. What the renter changes begins a new quantum, and so does an agreed price; what the host does alone does not.
#[must_use]
pub fn runs(draft: &LeaseDraft, events: &[LeaseEvent]) -> Runs {
    let mut runs = Runs::default();
    let mut began = None;
    let mut quantum_from = None;
    for event in events {
        match (event.state, event.what) {
            (LeaseState::Running, EventCode::State) if began.is_none() => {
                runs.count += 1;
                (began, quantum_from) = (Some(event.at), Some(event.at));
            }
            (LeaseState::Running, EventCode::Repriced | EventCode::Amended) if event.by != Cause::Host => {
                quantum_from = Some(event.at);
            }
            (LeaseState::Running, _) => {}
            (state, _) => {
                if let (Some(from), Some(quantum)) = (began.take(), quantum_from.take()) {
                    runs.active += event.at.since(from).0;
                    let outbid = state == LeaseState::Paused(PauseReason::Outbid);
                    runs.evicted += u64::from(outbid);
                    if outbid && draft.rental == RentalType::Interruptible && event.at.since(quantum) < draft.quantum {
                        runs.free += event.at.since(quantum).0;
                    }
                }
            }
        }
    }
    runs
}

/// Whether every run that others ended was ended after a warning in time, but for `slack`.
///
/// # Errors
/// Which was not.
pub fn warned(draft: &LeaseDraft, events: &[LeaseEvent], slack: Millis) -> Result<(), String> {
    let mut told = None;
    let mut before = None;
    for event in events {
        match event.what {
            EventCode::EvictionNotice => told = Some(event.at),
            EventCode::NoticeWithdrawn => told = None,
            EventCode::State => {
                let outbid = event.state == LeaseState::Paused(PauseReason::Outbid);
                if outbid && draft.rental != RentalType::Interruptible {
                    return Err("allocation-rule: a lease at a fixed price was outbid".to_owned());
                }
                let in_time = told.is_some_and(|at| event.at + slack >= at + draft.notice);
                if outbid && before == Some(LeaseState::Running) && draft.notice.0 > 0 && !in_time {
                    return Err(format!("allocation-rule: stopped at {} without a warning in time", event.at.0));
                }
                told = None;
            }
            EventCode::Exited
            | EventCode::Amended
            | EventCode::Repriced
            | EventCode::ExtensionAsked
            | EventCode::ExtensionDeclined
            | EventCode::MaintenanceAnnounced
            | EventCode::ExpiringSoon
            | EventCode::PaymentAsked
            | EventCode::PaymentWarned
            | EventCode::Disputed
            | EventCode::Agreed
            | EventCode::Labelled => {}
        }
        before = Some(event.state);
    }
    Ok(())
}
