//! What programs in an instance may decide for it: to stop, to be destroyed, and what it is called.
//!
//! The host alone hears of such a wish, so the renter has its word for it and no more. Nothing here therefore costs the renter
//! more than the host could cause without it: billing stops, never starts, and no discount is claimed back.

use super::{super::context::Context, HostLease};
use crate::{
    Timestamp,
    lease::{EndReason, LeaseState, PauseReason},
    limits,
    machine::io::InsideWish,
    message::{Cause, EventCode, LeaseEvent},
    negotiation::RentalType,
};

impl HostLease {
    /// Carries out a wish from inside. A wish that changes nothing is granted.
    ///
    /// # Errors
    /// Why it is not granted, for the program that asked.
    pub(in super::super) fn asked_inside(
        &mut self,
        cx: &mut Context,
        wish: &InsideWish,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        if self.ending.is_some() || self.state.is_ended() {
            return Err("this instance is being destroyed");
        }
        match wish {
            InsideWish::Stop => {
                let note = "asked for by a program in the instance".to_owned();
                self.pause_with(cx, PauseReason::Stopped, Cause::Guest, note, now);
                if self.state == LeaseState::Paused(PauseReason::Stopped) {
                    Ok(())
                } else {
                    Err("this instance is not running (any more)")
                }
            }
            InsideWish::Destroy => {
                // Leaving a reserved term costs its discount, and the renter has only the host's word for who left.
                if self.draft.rental == RentalType::Reserved && now < self.terms.ends_at {
                    return Err(
                        "this instance is rented for a reserved term, which only its renter can leave (souk destroy); \
                                it can be stopped from inside",
                    );
                }
                self.end(cx, EndReason::AskedFromInside, Cause::Guest, String::new(), now);
                Ok(())
            }
            InsideWish::Label(text) => self.label(cx, text, now),
        }
    }

    fn label(&mut self, cx: &mut Context, text: &str, now: Timestamp) -> Result<(), &'static str> {
        if text.len() > limits::NAME_BYTES || text.chars().any(char::is_control) {
            return Err("a label is at most 64 bytes, without control characters");
        }
        if self.label_from_inside().unwrap_or_default() == text {
            return Ok(());
        }
        let mut labels = self.events.iter().rev().filter(|e| e.what == EventCode::Labelled).peekable();
        let last = labels.peek().copied();
        if labels.count() >= limits::LABELS {
            return Err("the label was changed too often; what it is called now stays");
        }
        if last.is_some_and(|e| now < e.at + limits::LABEL_EVERY) {
            return Err("the label was changed less than ten seconds ago; try again in a moment");
        }
        self.log_code(cx, EventCode::Labelled, Cause::Guest, text.to_owned(), now);
        Ok(())
    }

    /// What the instance calls itself.
    #[must_use]
    pub fn label_from_inside(&self) -> Option<&str> {
        LeaseEvent::label_of(&self.events)
    }
}
