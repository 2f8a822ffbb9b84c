//! Which event a step of a lease is: the one place where the lease's words meet the events' words.
//!
//! The reasons of a pause are told apart by their words as the ledger and the API show them, so that a reason without an event
//! of its own is `lease_stopped` with that reason in its data.

use souk_protocol::lease::LeaseState;

use super::event::EventKind;
use crate::api::types::Role;

/// Whether a lease in this state waits for its host's machine or engine to come back.
#[must_use]
pub fn host_is_away(state: LeaseState) -> bool {
    matches!(word(state).as_deref(), Some("host_restart" | "engine_restart"))
}

/// The event of a lease that came into `now`; `ran` if it has run before, `before` if that is known.
#[must_use]
pub fn step(role: Role, before: Option<&str>, ran: bool, now: LeaseState) -> Option<EventKind> {
    match now {
        LeaseState::Preparing => None,
        LeaseState::Running if !ran => Some(EventKind::LeaseStarted),
        // Told as `back_online`.
        LeaseState::Running if matches!(before, Some("host_restart" | "engine_restart")) => None,
        LeaseState::Running => Some(EventKind::Resumed),
        LeaseState::Ended(_) => Some(EventKind::LeaseEnded),
        LeaseState::Paused(_) => {
            let renter = role == Role::Renter;
            match word(now).as_deref() {
                // Told as `offline`, and at the host as `engine_down`.
                Some("host_restart" | "engine_restart") => None,
                Some("outbid") if renter => Some(EventKind::Outbid),
                Some("no_credit" | "max_spend") if renter => Some(EventKind::LowCredit),
                Some("maintenance") if renter => Some(EventKind::Maintenance),
                Some("disk_full") => Some(EventKind::DiskFull),
                Some(_) | None => Some(EventKind::LeaseStopped),
            }
        }
    }
}

/// The reason's word of a pause or an end.
#[must_use]
pub fn word(state: LeaseState) -> Option<String> {
    match state {
        LeaseState::Paused(reason) => Some(reason.to_string()),
        LeaseState::Ended(reason) => Some(reason.to_string()),
        LeaseState::Preparing | LeaseState::Running => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use souk_protocol::lease::{EndReason, PauseReason};

    #[test]
    fn each_step_has_the_event_of_its_side() {
        let paused = |reason| LeaseState::Paused(reason);
        let running = LeaseState::Running;
        for (role, before, ran, now, event) in [
            (Role::Renter, None, false, LeaseState::Preparing, None),
            (Role::Renter, None, false, running, Some(EventKind::LeaseStarted)),
            (Role::Renter, Some("stopped"), true, running, Some(EventKind::Resumed)),
            (Role::Renter, Some("host_restart"), true, running, None),
            (Role::Renter, None, true, paused(PauseReason::HostRestart), None),
            (Role::Renter, None, true, paused(PauseReason::NoCredit), Some(EventKind::LowCredit)),
            (Role::Host, None, true, paused(PauseReason::NoCredit), Some(EventKind::LeaseStopped)),
            (Role::Host, None, true, paused(PauseReason::DiskFull), Some(EventKind::DiskFull)),
            (Role::Renter, None, true, paused(PauseReason::Exited), Some(EventKind::LeaseStopped)),
            (Role::Host, None, true, LeaseState::Ended(EndReason::Destroyed), Some(EventKind::LeaseEnded)),
        ] {
            assert_eq!(step(role, before, ran, now), event, "{role:?} {before:?} {now}");
        }
    }
}
