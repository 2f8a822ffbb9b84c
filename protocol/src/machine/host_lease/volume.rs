//! The lease of a volume: disk without slots.
//!
//! It is made, kept, and removed: `preparing → kept ⇄ paused(expired | max_spend) → ended`. Kept, it can be attached; paused, its
//! bytes are there for the last days of the disk, and it can be extended back to what it was. Its credit is not watched: like the
//! disk of any paused lease it is kept to the contract's end, which bounds what the host may lose.

use super::{
    super::{
        context::Context,
        io::{RuntimeOrder, RuntimeReport},
    },
    HostLease,
};
use crate::{
    Timestamp,
    lease::{EndReason, LeaseState, PauseReason},
    limits,
    message::Cause,
};

impl HostLease {
    /// The lease exists: its file system is made.
    pub(in super::super) fn begin_volume(&mut self, cx: &mut Context, now: Timestamp) {
        self.prepare_by = now + limits::PREPARE_WITHIN;
        self.create_volume(cx);
    }

    fn create_volume(&self, cx: &mut Context) {
        self.order(cx, RuntimeOrder::CreateVolume { disk_mb: self.draft.resources.disk_mb });
    }

    /// After a restart of the node or the engine: what is there is looked at.
    pub(super) fn adopt_volume(&self, cx: &mut Context) {
        self.order(cx, RuntimeOrder::AdoptVolume);
    }

    /// What the runtime tells of a volume.
    pub(super) fn volume_report(&mut self, cx: &mut Context, report: RuntimeReport, now: Timestamp) {
        let alive = self.ending.is_none();
        match report {
            RuntimeReport::Prepared if alive => {
                self.meter.disk_created(now);
                if self.state == LeaseState::Preparing {
                    self.enter(cx, LeaseState::Kept, Cause::Host, None, String::new(), now);
                }
            }
            RuntimeReport::Failed { reason, note } if alive && self.state == LeaseState::Preparing => {
                self.end(cx, reason, Cause::Host, note, now);
            }
            RuntimeReport::Missing if alive && !self.meter.has_disk() => self.create_volume(cx),
            RuntimeReport::Missing if alive => {
                let note = "the volume was gone when the host looked for it".to_owned();
                self.end(cx, EndReason::VolumeLost, Cause::Host, note, now);
            }
            RuntimeReport::Missing => self.destroyed(cx, now),
            // Removed, though nobody has ordered it.
            RuntimeReport::Destroyed if alive => {
                let note = "the volume is gone".to_owned();
                self.end(cx, EndReason::VolumeLost, Cause::Host, note, now);
                self.destroyed(cx, now);
            }
            RuntimeReport::Destroyed => self.destroyed(cx, now),
            RuntimeReport::Prepared
            | RuntimeReport::Failed { .. }
            | RuntimeReport::Progress(_)
            | RuntimeReport::Started
            | RuntimeReport::Exited { .. }
            | RuntimeReport::NotRunning
            | RuntimeReport::DiskFull
            | RuntimeReport::Traffic { .. } => {}
        }
    }

    /// What time brings about for a volume; false if nothing, or if this is none.
    pub(super) fn volume_step(&mut self, cx: &mut Context, now: Timestamp) -> bool {
        let there =
            matches!(self.state, LeaseState::Kept | LeaseState::Paused(PauseReason::Expired | PauseReason::MaxSpend));
        if !self.draft.is_volume() || !there {
            return false;
        }
        let next = if now >= self.terms.ends_at {
            LeaseState::Paused(PauseReason::Expired)
        } else if self.over_ceiling(now) {
            LeaseState::Paused(PauseReason::MaxSpend)
        } else {
            LeaseState::Kept
        };
        if self.state == next {
            return false;
        }
        // From one pause to the other nothing changes for anybody, but at a later end.
        let by = if next == LeaseState::Kept { Cause::Renter } else { Cause::Clock };
        self.enter(cx, next, by, None, String::new(), now);
        true
    }

    /// Stops an instance whose volume is gone, and lets it wait for nothing.
    pub(in super::super) fn stop_for_volume(
        &mut self,
        cx: &mut Context,
        reason: PauseReason,
        by: Cause,
        why: String,
        now: Timestamp,
    ) {
        if self.needs_slots() {
            return self.pause_with(cx, reason, by, why, now);
        }
        if self.wants_slots() {
            self.enter(cx, LeaseState::Paused(reason), by, None, why, now);
        }
    }
}
