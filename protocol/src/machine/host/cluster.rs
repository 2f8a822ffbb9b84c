//! A host in a private cluster: it deals with members alone, and each uses no more of it than its quota.
//!
//! Owns what the list means for leases here; who is on it is [`crate::cluster`]'s. Money has no part in it: a price of zero is a
//! price.

use super::{Host, reject_for_now};
use crate::{
    LeaseId, Millis, NodeId, Timestamp, Verified,
    cluster::{MemberList, Roster},
    lease::{EndReason, LeaseState, PauseReason},
    machine::{context::Context, host_lease::HostLease, io::Token, policy::OnRemoval, quota::slot_hours},
    message::{Cause, Request},
    negotiation::{Reject, RejectCode},
};

/// What a stranger is told.
const STRANGER: &str = "this node deals with the members of its private cluster only, and you are not on their list: ask its keeper for a ticket \
     (souk cluster invite)";

/// The cluster that this host is in.
#[derive(Debug)]
pub(super) struct Cluster {
    roster: Roster,
    on_removal: OnRemoval,
}

impl Cluster {
    pub(super) const fn roster(&self) -> &Roster {
        &self.roster
    }
}

impl Host {
    /// The list of the cluster's members that holds here, if this node is in one.
    #[must_use]
    pub fn roster(&self) -> Option<&Roster> {
        self.cluster.as_ref().map(|c| &c.roster)
    }

    /// What a member has used of this host within the last [`crate::limits::QUOTA_WINDOW`], in slots times milliseconds.
    #[must_use]
    pub fn used_by(&self, node: &NodeId, now: Timestamp) -> u64 {
        self.uses.within(node, now)
    }

    /// A list came, or the owner's wish for those who leave it. A list that is not newer changes nothing.
    pub(in super::super) fn set_members(
        &mut self,
        cx: &mut Context,
        list: Verified<MemberList>,
        on_removal: OnRemoval,
        now: Timestamp,
    ) {
        if list.founding.network() != *cx.chain.network() {
            return;
        }
        self.note_use(now);
        match &mut self.cluster {
            Some(cluster) => {
                cluster.on_removal = on_removal;
                // One that is older, or another cluster's, changes nothing.
                let _adopted = cluster.roster.adopt(list);
            }
            None => self.cluster = Some(Cluster { roster: Roster::new(list), on_removal }),
        }
        self.end_removed(cx, now);
    }

    /// What a member had used before this node started.
    pub(in super::super) fn remember_use(&mut self, node: NodeId, slot_ms: u64, at: Timestamp, now: Timestamp) {
        let roster = self.cluster.as_ref().map(|c| &c.roster);
        self.uses.add(node, slot_ms, at, now, |node| roster.is_some_and(|r| r.is_member(node)));
    }

    /// Ends what those rent who are not on the list, unless they may stay till their contracts end.
    fn end_removed(&mut self, cx: &mut Context, now: Timestamp) {
        let Some(cluster) = self.cluster.as_ref().filter(|c| c.on_removal == OnRemoval::Ends) else { return };
        let removed = |l: &&HostLease| !l.is_ending() && !cluster.roster.is_member(&l.draft().renter);
        let mut ending: Vec<(bool, LeaseId)> =
            self.leases.values().filter(removed).map(|l| (l.draft().is_volume(), l.id())).collect();
        // Instances before the volumes that they may have attached.
        ending.sort_unstable();
        for (_, lease) in ending {
            if let Some(held) = self.leases.get_mut(&lease) {
                let note = "the renter was removed from the cluster".to_owned();
                held.end(cx, EndReason::MemberRemoved, Cause::Host, note, now);
            }
            self.settle_slots(lease);
        }
    }

    /// Whether this node is in a cluster, and the other is not.
    pub(in super::super) fn is_stranger(&self, node: &NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|c| !c.roster.is_member(node))
    }

    /// The answer to a request of who is not in the cluster; none where it is answered like a member's. What concerns a lease that is
    /// open goes on, so that both sides come to its end. An open is refused where it is judged: the same one gets the same answer.
    pub(in super::super) fn refuses_stranger(&self, from: &NodeId, request: &Request) -> Option<Reject> {
        let about_open_leases = match request {
            Request::Commit { .. }
            | Request::Meet(_)
            | Request::Recall { .. }
            | Request::Control { .. }
            | Request::Update(_)
            | Request::Sync { .. }
            | Request::Deliver { .. } => true,
            Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Propose(_)
            | Request::Amend { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Order(_)
            | Request::Login(_)
            | Request::Evidence { .. }
            | Request::Opinion { .. } => false,
        };
        (!about_open_leases).then(|| self.stranger(from)).flatten()
    }

    /// The refusal of who is not in the cluster.
    pub(super) fn stranger(&self, from: &NodeId) -> Option<Reject> {
        self.is_stranger(from).then(|| Reject::lasting(RejectCode::NotMember, STRANGER))
    }

    /// Why a member may not have so many slots more now, beside those of `lease`, if it may not.
    pub(super) fn over_quota(
        &self,
        renter: &NodeId,
        slots: u16,
        lease: Option<LeaseId>,
        now: Timestamp,
    ) -> Option<Reject> {
        let quota = self.cluster.as_ref()?.roster.quota_of(renter)?;
        let held = self.slots_of(renter, lease);
        let most = quota.slots_at_once.filter(|most| slots > 0 && held.saturating_add(u32::from(slots)) > *most);
        if let Some(most) = most {
            let most = if most == 1 { "one slot".to_owned() } else { format!("{most} slots") };
            let sentence = format!(
                "your cluster lets you have {most} of a host at once; you have {held} here, and want {slots} more: stop or destroy some"
            );
            return Some(Reject::passing(RejectCode::Quota, sentence));
        }
        let hours = quota.slot_hours.filter(|_| slots > 0)?;
        self.hours_used_up(renter, hours, now).map(|why| Reject::passing(RejectCode::Quota, why))
    }

    fn hours_used_up(&self, renter: &NodeId, hours: u32, now: Timestamp) -> Option<String> {
        if self.uses.within(renter, now) < slot_hours(hours) {
            return None;
        }
        let again = match self.uses.below_at(renter, slot_hours(hours), now) {
            at if at > now => format!("some are free again in {}", at.since(now)),
            _ => "its keeper can raise that".to_owned(),
        };
        Some(format!(
            "your cluster lets you use {hours} slot hours of a host in 30 days, and they are used up: {again}"
        ))
    }

    /// Slots that a renter has, or gets without asking again: running, waiting for their turn, or on their way.
    fn slots_of(&self, renter: &NodeId, without: Option<LeaseId>) -> u32 {
        let claims = |l: &&HostLease| {
            let for_money = l.state() == LeaseState::Paused(PauseReason::NoCredit) && !l.is_ending();
            l.draft().renter == *renter && Some(l.id()) != without && (l.wants_slots() || l.holds_slots() || for_money)
        };
        let leases = self.leases.values().filter(claims).map(|l| l.draft().resources.slots);
        let opening = self.locking.iter().map(|(id, l)| (id, l.draft()));
        let opening = opening.chain(self.paying.iter().map(|(id, p)| (id, p.draft())));
        let coming = opening.filter(|(id, draft)| draft.renter == *renter && !self.leases.contains_key(*id));
        leases.chain(coming.map(|(_, draft)| draft.resources.slots)).map(u32::from).fold(0, u32::saturating_add)
    }

    /// Counts what has been used since it was last counted.
    fn note_use(&mut self, now: Timestamp) {
        if self.cluster.is_none() {
            return;
        }
        let used: Vec<(NodeId, u64)> =
            self.leases.values_mut().map(|l| (l.draft().renter, l.newly_used(now))).filter(|(_, ms)| *ms > 0).collect();
        for (renter, slot_ms) in used {
            self.remember_use(renter, slot_ms, now, now);
        }
    }

    /// The last that is counted of a lease that goes.
    pub(super) fn note_last_use(&mut self, lease: &mut HostLease) {
        if self.cluster.is_some() {
            let (renter, slot_ms) = (lease.draft().renter, lease.newly_used(self.latest));
            self.remember_use(renter, slot_ms, self.latest, self.latest);
        }
    }

    /// Stops what runs for members whose slot hours are used up, and notes when to look again.
    pub(super) fn watch_quotas(&mut self, cx: &mut Context, now: Timestamp) {
        self.note_use(now);
        self.quota_at = None;
        let Some(cluster) = &self.cluster else { return };
        let bounded = |l: &HostLease| {
            let quota = cluster.roster.quota_of(&l.draft().renter)?;
            Some((l.draft().renter, quota.slot_hours?))
        };
        let running = self.leases.values().filter(|l| l.needs_slots() && !l.is_ending());
        let members: std::collections::BTreeSet<(NodeId, u32)> = running.filter_map(bounded).collect();
        for (renter, hours) in members {
            let Some(why) = self.hours_used_up(&renter, hours, now) else {
                let left = slot_hours(hours).saturating_sub(self.uses.within(&renter, now));
                let running = |l: &&HostLease| l.draft().renter == renter && l.state() == LeaseState::Running;
                let slots =
                    self.leases.values().filter(running).map(|l| u64::from(l.draft().resources.slots)).sum::<u64>();
                if slots > 0 {
                    let at = now + Millis(left.div_ceil(slots).max(1));
                    self.quota_at = Some(self.quota_at.map_or(at, |other| other.min(at)));
                }
                continue;
            };
            let of_renter = |l: &&HostLease| l.draft().renter == renter && l.needs_slots() && !l.is_ending();
            let stopping: Vec<LeaseId> = self.leases.values().filter(of_renter).map(HostLease::id).collect();
            for lease in stopping {
                if let Some(held) = self.leases.get_mut(&lease) {
                    held.quota_used(cx, why.clone(), now);
                }
                self.settle_slots(lease);
            }
        }
    }

    /// Whether a wish to start is refused for its renter's quota. If so, it is answered.
    pub(super) fn start_over_quota(&self, cx: &mut Context, token: Token, lease: &HostLease, now: Timestamp) -> bool {
        let draft = lease.draft();
        let Some(reject) = self.over_quota(&draft.renter, draft.resources.slots, Some(lease.id()), now) else {
            return false;
        };
        reject_for_now(cx, token, reject.code, reject.sentence);
        true
    }
}
