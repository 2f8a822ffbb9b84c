//! Which event a step of a lease is: the one place where the lease's words meet the events' words.
//!
//! The reasons of a pause are told apart by their words as the ledger and the API show them, so that a reason without an event
//! of its own is `lease_stopped` with that reason in its data.

use souk_protocol::{
    lease::LeaseState,
    message::{EventCode, LeaseEvent},
};

use super::event::EventKind;
use crate::api::types::Role;

/// Whether a lease in this state waits for its host's machine or engine to come back.
#[must_use]
pub fn host_is_away(state: LeaseState) -> bool {
    matches!(word(state).as_deref(), Some("host_restart" | "engine_restart"))
}

/// What a lease was before a step.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// The reason of its pause, if it was in one.
    pub word: Option<&'a str>,
    /// Whether it has ever run.
    pub ran: bool,
}

/// The event that a step is to this side of the lease.
#[must_use]
pub fn step(role: Role, before: Before<'_>, event: &LeaseEvent) -> Option<EventKind> {
    let renter = role == Role::Renter;
    match event.what {
        EventCode::State => state(renter, before, event.state),
        EventCode::EvictionNotice => renter.then_some(EventKind::EvictionNotice),
        EventCode::NoticeWithdrawn => renter.then_some(EventKind::NoticeWithdrawn),
        EventCode::ExtensionAsked => renter.then_some(EventKind::ExtensionAsked),
        EventCode::MaintenanceAnnounced => renter.then_some(EventKind::Maintenance),
        EventCode::ExpiringSoon => renter.then_some(EventKind::ExpiringSoon),
        EventCode::PaymentWarned => renter.then_some(EventKind::LowCredit),
        // A longer contract shows in its terms.
        EventCode::Amended
        | EventCode::Repriced
        | EventCode::ExtensionDeclined
        | EventCode::Exited
        | EventCode::PaymentAsked
        | EventCode::Disputed
        | EventCode::Agreed
        | EventCode::Labelled => None,
    }
}

fn state(renter: bool, before: Before<'_>, now: LeaseState) -> Option<EventKind> {
    let now_word = word(now);
    match now {
        LeaseState::Preparing => None,
        LeaseState::Kept if !before.ran => Some(EventKind::LeaseStarted),
        LeaseState::Kept => Some(EventKind::Resumed),
        LeaseState::Running if !before.ran => Some(EventKind::LeaseStarted),
        // Told as `back_online`.
        LeaseState::Running if matches!(before.word, Some("host_restart" | "engine_restart")) => None,
        LeaseState::Running => Some(EventKind::Resumed),
        LeaseState::Ended(_) => Some(EventKind::LeaseEnded),
        // A pause that goes on, with an exit code that came later, say.
        LeaseState::Paused(_) if now_word.as_deref() == before.word => None,
        LeaseState::Paused(_) => match now_word.as_deref() {
            // Told as `offline`, and at the host as `engine_down`.
            Some("host_restart" | "engine_restart") => None,
            Some("outbid") if renter => Some(EventKind::Outbid),
            Some("no_credit" | "max_spend") if renter => Some(EventKind::LowCredit),
            Some("maintenance") if renter => Some(EventKind::Maintenance),
            Some("disk_full") => Some(EventKind::DiskFull),
            Some(_) | None => Some(EventKind::LeaseStopped),
        },
    }
}

/// The reason's word of a pause or an end.
#[must_use]
pub fn word(state: LeaseState) -> Option<String> {
    match state {
        LeaseState::Paused(reason) => Some(reason.to_string()),
        LeaseState::Ended(reason) => Some(reason.to_string()),
        LeaseState::Preparing | LeaseState::Running | LeaseState::Kept => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use souk_protocol::{
        Timestamp,
        lease::{EndReason, PauseReason},
        message::Cause,
    };

    fn event(what: EventCode, state: LeaseState) -> LeaseEvent {
        LeaseEvent { n: 1, at: Timestamp(1), state, what, by: Cause::Host, exit_code: None, note: String::new() }
    }

    #[test]
    fn each_step_has_the_event_of_its_side() {
        let paused = LeaseState::Paused;
        let running = LeaseState::Running;
        let ended = LeaseState::Ended(EndReason::Destroyed);
        for (role, before, ran, now, expected) in [
            (Role::Renter, None, false, LeaseState::Preparing, None),
            (Role::Renter, None, false, running, Some(EventKind::LeaseStarted)),
            (Role::Renter, Some("stopped"), true, running, Some(EventKind::Resumed)),
            (Role::Renter, Some("outbid"), true, running, Some(EventKind::Resumed)),
            (Role::Renter, Some("host_restart"), true, running, None),
            (Role::Renter, None, true, paused(PauseReason::HostRestart), None),
            (Role::Renter, None, true, paused(PauseReason::Outbid), Some(EventKind::Outbid)),
            (Role::Renter, Some("outbid"), true, paused(PauseReason::Outbid), None),
            (Role::Host, None, true, paused(PauseReason::Outbid), Some(EventKind::LeaseStopped)),
            (Role::Renter, None, true, paused(PauseReason::Maintenance), Some(EventKind::Maintenance)),
            (Role::Renter, None, true, paused(PauseReason::NoCredit), Some(EventKind::LowCredit)),
            (Role::Host, None, true, paused(PauseReason::NoCredit), Some(EventKind::LeaseStopped)),
            (Role::Host, None, true, paused(PauseReason::DiskFull), Some(EventKind::DiskFull)),
            (Role::Renter, None, true, paused(PauseReason::Exited), Some(EventKind::LeaseStopped)),
            (Role::Host, None, true, ended, Some(EventKind::LeaseEnded)),
        ] {
            let told = step(role, Before { word: before, ran }, &event(EventCode::State, now));
            assert_eq!(told, expected, "{role:?} {before:?} {now}");
        }
        let before = Before { word: None, ran: true };
        for (what, expected) in [
            (EventCode::EvictionNotice, Some(EventKind::EvictionNotice)),
            (EventCode::MaintenanceAnnounced, Some(EventKind::Maintenance)),
            (EventCode::Amended, None),
            (EventCode::Exited, None),
        ] {
            assert_eq!(step(Role::Renter, before, &event(what, running)), expected, "{what:?}");
            assert_eq!(step(Role::Host, before, &event(what, running)), None, "{what:?}: the host's own doing");
        }
    }
}
