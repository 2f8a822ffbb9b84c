//! What the owner keeps from renters: slots held for the owner's own work, and windows of maintenance.
//!
//! Owns how the listing changes by either, and which windows still count. What they do to leases is the engine's.

use souk_protocol::{Millis, Timestamp, limits, offer::Window};

use super::HostSide;
use crate::{
    api::types::{ScheduleRequest, ScheduleView},
    clock::now,
    config::listing::MaintenanceWindow,
    market::{CommandError, ErrorCode},
};

/// The longest maintenance.
const LONGEST: Millis = Millis::from_hours(30 * 24);

impl HostSide {
    /// What is kept now.
    #[must_use]
    pub fn schedule(&self) -> ScheduleView {
        let maintenance = self.windows(now()).into_iter().map(Into::into).collect();
        ScheduleView { hold: self.config.host.hold, maintenance }
    }

    /// Takes over a change of it. Windows that are over are forgotten.
    ///
    /// # Errors
    /// If it makes no sense, or can't be saved.
    pub fn keep(&mut self, request: ScheduleRequest) -> Result<(), CommandError> {
        let at = now();
        let mut listing = self.listing.clone();
        listing.maintenance = after(&self.windows(at), request, at)?.into_iter().map(MaintenanceWindow::from).collect();
        if let ScheduleRequest::Hold { slots } = request {
            let total = self.devices().len();
            if usize::from(slots) > total {
                let message = format!("{slots} slots are to be held, and this machine has {total}");
                return Err(CommandError::new(ErrorCode::BadRequest, message).hint(format!("souk host hold {total}")));
            }
            listing.hold = Some(slots);
        }
        self.change(listing)
    }

    /// Announced windows that are not over, in order.
    pub(super) fn windows(&self, at: Timestamp) -> Vec<Window> {
        let mut windows: Vec<Window> = self.listing.maintenance.iter().map(|w| Window::from(*w)).collect();
        windows.retain(|w| w.until > at && w.from < w.until);
        windows.sort_unstable();
        windows.truncate(limits::MAINTENANCE_WINDOWS);
        windows
    }
}

/// The windows after a change.
fn after(windows: &[Window], request: ScheduleRequest, at: Timestamp) -> Result<Vec<Window>, CommandError> {
    let bad = |message: String, hint: &str| Err(CommandError::new(ErrorCode::BadRequest, message).hint(hint));
    let mut windows = windows.to_vec();
    match request {
        ScheduleRequest::Hold { .. } => {}
        ScheduleRequest::AddMaintenance { from_ms, for_ms } => {
            let window = Window { from: from_ms, until: from_ms + for_ms };
            if for_ms.0 == 0 || for_ms > LONGEST {
                return bad(format!("maintenance takes more than nothing and at most {LONGEST}"), ADD);
            }
            if window.until <= at {
                return bad("that window is over already".to_owned(), ADD);
            }
            if from_ms.since(at) > limits::TERM {
                return bad("that window is more than a year away".to_owned(), ADD);
            }
            if windows.iter().any(|w| w.from < window.until && window.from < w.until) {
                return bad("that window overlaps one that is announced".to_owned(), "souk host maintenance list");
            }
            if windows.len() >= limits::MAINTENANCE_WINDOWS {
                let most = limits::MAINTENANCE_WINDOWS;
                return bad(format!("{most} windows are announced already"), "souk host maintenance remove N");
            }
            windows.push(window);
            windows.sort_unstable();
        }
        ScheduleRequest::RemoveMaintenance { from_ms } => {
            let before = windows.len();
            windows.retain(|w| w.from != from_ms);
            if windows.len() == before {
                let message = "no window that begins then is announced";
                return Err(CommandError::new(ErrorCode::NotFound, message).hint("souk host maintenance list"));
            }
        }
    }
    Ok(windows)
}

const ADD: &str = "souk host maintenance add 'in 3h' 30min";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AT: Timestamp = Timestamp(1_000_000_000_000);

    fn add(windows: &[Window], hours: u64, lasts: u64) -> Result<Vec<Window>, ErrorCode> {
        let (from_ms, for_ms) = (AT + Millis::from_hours(hours), Millis::from_hours(lasts));
        after(windows, ScheduleRequest::AddMaintenance { from_ms, for_ms }, AT).map_err(|e| e.code)
    }

    #[test]
    fn windows_stay_apart_in_order_and_few() {
        let two = add(&add(&[], 10, 2).unwrap(), 3, 1).unwrap();
        assert_eq!(two.len(), 2);
        assert!(two[0].from < two[1].from);
        for (hours, lasts) in [(9, 2), (11, 1), (10, 2), (8, 9), (20, 0), (9000, 1), (20, 24 * 31)] {
            assert_eq!(add(&two, hours, lasts), Err(ErrorCode::BadRequest), "{hours} {lasts}");
        }
        assert!(add(&two, 12, 1).is_ok() && add(&two, 4, 6).is_ok(), "side by side");
        let past = ScheduleRequest::AddMaintenance { from_ms: Timestamp(5), for_ms: Millis(5) };
        assert!(after(&two, past, AT).is_err());
        let mut many = Vec::new();
        for n in 0..limits::MAINTENANCE_WINDOWS as u64 {
            many = add(&many, n, 1).unwrap();
        }
        assert_eq!(add(&many, 100, 1), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn a_window_is_taken_back_by_its_beginning() {
        let two = add(&add(&[], 10, 2).unwrap(), 3, 1).unwrap();
        let remove = |from_ms| after(&two, ScheduleRequest::RemoveMaintenance { from_ms }, AT);
        assert_eq!(remove(two[1].from).unwrap(), two[..1]);
        assert_eq!(remove(AT).unwrap_err().code, ErrorCode::NotFound);
    }
}
