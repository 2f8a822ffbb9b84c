//! Volumes: leases of disk without slots, how much of it is left, and the instances that have them attached.
//!
//! Owns the budget and the rule that an instance runs only while every volume it has attached is kept, and that a volume in use is
//! not destroyed by its renter. What a volume's lease goes through is the lease's own.

use std::collections::BTreeSet;

use super::Host;
use crate::{
    LeaseId, NodeId, Timestamp, Verified,
    entry::{Entry, VoidCode},
    lease::{LeaseDraft, LeaseState, PauseReason},
    limits,
    machine::{context::Context, host_lease::HostLease, io::Token},
    message::{Action, Cause},
    negotiation::{Reject, RejectCode},
    workload::Workload,
};

impl Host {
    fn volumes(&self) -> impl Iterator<Item = &HostLease> {
        self.leases.values().filter(|l| l.draft().is_volume() && !l.state().is_ended())
    }

    /// Disk left for volumes, in MB. One that is being destroyed counts until it is gone.
    pub(super) fn volume_free_mb(&self) -> u64 {
        let all = self.setup.as_ref().map_or(0, |s| s.volume_mb);
        let taken = self.volumes().fold(0u64, |sum, l| sum.saturating_add(l.draft().resources.disk_mb));
        all.saturating_sub(taken)
    }

    /// Whether this renter has room for one more.
    pub(super) fn may_keep_another(&self, renter: &NodeId) -> Result<(), Reject> {
        if self.volumes().filter(|l| l.draft().renter == *renter).count() < limits::VOLUMES_OF_RENTER {
            return Ok(());
        }
        let sentence = format!("a renter has at most {} volumes on a machine", limits::VOLUMES_OF_RENTER);
        Err(Reject::passing(RejectCode::Limit, sentence))
    }

    /// The open of a volume: taken if its disk is still free.
    pub(super) fn commit_volume(
        &mut self,
        cx: &mut Context,
        token: Token,
        open: &Verified<Entry>,
        draft: Verified<LeaseDraft>,
        workload: (Workload, Vec<u8>),
        now: Timestamp,
    ) {
        let lease: LeaseId = draft.id().into();
        let fits = draft.resources.disk_mb <= self.volume_free_mb() && self.may_keep_another(&draft.renter).is_ok();
        if !fits {
            let sentence = "the disk was rented to another in the meantime";
            return self.void(cx, vec![token], open, &draft, VoidCode::Taken, sentence, now);
        }
        self.accept(cx, vec![token], open, draft, workload, now);
        if let Some(held) = self.leases.get_mut(&lease) {
            held.begin_volume(cx, now);
        }
    }

    /// Why the volumes that a workload wants are not to be had by this renter, if they aren't.
    pub(super) fn volumes_missing(&self, renter: NodeId, workload: &Workload) -> Option<String> {
        workload.volumes.iter().find_map(|wanted| {
            let volume =
                self.leases.get(&wanted.volume).filter(|l| l.draft().renter == renter && l.draft().is_volume());
            match volume {
                Some(volume) if volume.state() == LeaseState::Kept && !volume.is_ending() => None,
                Some(volume) => {
                    Some(format!("volume {} can't be attached: it is {}", wanted.volume.short(), volume.state()))
                }
                None => Some(format!("this host keeps no volume {} of yours", wanted.volume.short())),
            }
        })
    }

    /// Stops what has a volume attached that is not kept any more: nothing is written to what is about to go.
    pub(super) fn stop_without_volumes(&mut self, cx: &mut Context, now: Timestamp) {
        let using = |l: &&HostLease| !l.workload().volumes.is_empty() && l.wants_slots();
        let stopped: Vec<(LeaseId, String)> = self
            .leases
            .values()
            .filter(using)
            .filter_map(|l| Some((l.id(), self.volumes_missing(l.draft().renter, l.workload())?)))
            .collect();
        for (lease, why) in stopped {
            if let Some(held) = self.leases.get_mut(&lease) {
                held.volume_ended(cx, why, now);
            }
            self.settle_slots(lease);
        }
    }

    /// The leases that have a volume attached, running or not.
    fn attached_to(&self, volume: LeaseId) -> BTreeSet<LeaseId> {
        let uses = |l: &&HostLease| {
            !l.state().is_ended() && !l.is_ending() && l.workload().volumes.iter().any(|a| a.volume == volume)
        };
        self.leases.values().filter(uses).map(HostLease::id).collect()
    }

    /// Why a wish about a volume is refused, if it is.
    pub(super) fn cannot_control_volume(&self, volume: LeaseId, action: Action) -> Option<String> {
        match action {
            Action::Stop | Action::Start => Some("a volume is neither started nor stopped".to_owned()),
            Action::Destroy => {
                let by = self.attached_to(volume);
                let first = by.first()?;
                let more = if by.len() > 1 { format!(" and {} more", by.len() - 1) } else { String::new() };
                Some(format!("it is attached to instance {}{more}: destroy that first", first.short()))
            }
            Action::DeclineExtension => None,
        }
    }
}

impl HostLease {
    /// A volume it has attached is not kept any more: it stops, and its own disk is kept.
    fn volume_ended(&mut self, cx: &mut Context, why: String, now: Timestamp) {
        self.stop_for_volume(cx, PauseReason::VolumeEnded, Cause::Clock, why, now);
    }
}
