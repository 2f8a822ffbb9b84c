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
        tokens: Vec<Token>,
        open: &Verified<Entry>,
        draft: Verified<LeaseDraft>,
        workload: (Workload, Vec<u8>),
        now: Timestamp,
    ) {
        let lease: LeaseId = draft.id().into();
        let fits = draft.resources.disk_mb <= self.volume_free_mb() && self.may_keep_another(&draft.renter).is_ok();
        if !fits {
            let sentence = "the disk was rented to another in the meantime";
            return self.void(cx, tokens, open, &draft, VoidCode::Taken, sentence, now);
        }
        self.accept(cx, tokens, open, draft, workload, now);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::{
        Amount, Millis, Nonce,
        entry::Body,
        machine::{
            book::Book,
            chain::Chain,
            context::Context,
            io::{Output, RuntimeReport},
            testkit::{NOW, context, key, network, outputs, proposal, setup},
        },
        message::Response,
        negotiation::{ImagePin, NO_IMAGE, Proposal},
        workload::Attachment,
    };

    struct Bench {
        cx: Context,
        host: Host,
    }

    fn bench() -> Bench {
        let (mut cx, mut book) = (context(), Book::new(network(), 10));
        let mut host = Host::new(0, None, NOW);
        host.configure(&mut cx, &mut book, Some(setup()), NOW);
        host.hold_restored(&mut cx, NOW);
        host.runtime(&mut cx, true, NOW);
        host.publish(&mut cx, &mut book, NOW);
        outputs(&mut cx);
        Bench { cx, host }
    }

    impl Bench {
        fn reply(&mut self) -> Response {
            let replies = outputs(&mut self.cx).into_iter().filter_map(|output| match output {
                Output::Reply { response, .. } => Some(*response),
                _ => None,
            });
            replies.last().unwrap()
        }

        /// What the host made of a whole deal with this renter.
        fn deal(&mut self, renter: &mut Chain, seed: u8, ask: Proposal, workload: &Workload) -> (LeaseId, Body) {
            let (bytes, digest) = workload.to_bytes();
            let (from, offer) = (key(seed).node_id(), self.host.offer().unwrap().id());
            let ask = Proposal { offer, workload: digest, ..ask };
            self.host.propose(&mut self.cx, from, Token(1), ask.clone(), NOW + Millis(5));
            if self.host.resolving.contains_key(&Token(1)) {
                let pin = ImagePin { reference: ask.image, digest: format!("sha256:{}", "a".repeat(64)) };
                self.host.image(&mut self.cx, Token(1), Ok(pin), NOW + Millis(5));
            }
            let Response::Drafted(draft) = self.reply() else { panic!("no draft") };
            let lease = draft.id(&network()).into();
            let open = renter.append(lease, self.cx.me(), Body::LeaseOpen { draft }, NOW + Millis(9)).unwrap();
            let at = NOW + Millis(10);
            self.host.commit(&mut self.cx, from, Token(2), (&open.to_signed(), None), bytes, at);
            self.host.locked(&mut self.cx, lease, true, at);
            let Response::Answered(entry) = self.reply() else { panic!("no answer") };
            (lease, entry.verify(&network()).unwrap().body.clone())
        }
    }

    fn chain(seed: u8) -> Chain {
        let mut chain = Chain::new(key(seed), network(), None);
        chain.begin(NOW).unwrap();
        chain
    }

    #[test]
    fn a_volume_is_attached_by_its_renter_alone() {
        let mut bench = bench();
        let (mut renter, mut other) = (chain(2), chain(3));
        let plain = proposal(Amount(1_000_000_000), 0);
        let volume = Proposal {
            ask: bench.host.offer().unwrap().volume_ask(),
            price_hour: Amount::ZERO,
            image: NO_IMAGE.to_owned(),
            ..plain.clone()
        };
        let (volume, body) = bench.deal(&mut renter, 2, volume, &Workload::default());
        assert!(matches!(body, Body::LeaseAccept { .. }), "{body:?}");
        let attached = Attachment { volume, path: "/data".to_owned(), read_only: true };
        let workload = Workload { volumes: vec![attached], ..Workload::default() };
        let with = |nonce| Proposal { nonce: Nonce([nonce; 16]), ..plain.clone() };
        let refused = |body: Body| match body {
            Body::Void { code: VoidCode::Unavailable, sentence, .. } => sentence,
            other => panic!("{other:?}"),
        };
        // Not before it is there.
        let (_, body) = bench.deal(&mut renter, 2, with(3), &workload);
        assert!(refused(body).contains("can't be attached: it is preparing"));
        bench.host.report(&mut bench.cx, volume, RuntimeReport::Prepared, NOW + Millis(20));
        assert_eq!(bench.host.leases[&volume].state(), LeaseState::Kept);
        let (_, body) = bench.deal(&mut other, 3, with(4), &workload);
        assert!(refused(body).contains("keeps no volume"));
        // Nor is an instance a volume.
        let (instance, body) = bench.deal(&mut renter, 2, with(5), &workload);
        assert!(matches!(body, Body::LeaseAccept { .. }), "{body:?}");
        let attached = Attachment { volume: instance, path: "/data".to_owned(), read_only: false };
        let of_instance = Workload { volumes: vec![attached], ..Workload::default() };
        let (_, body) = bench.deal(&mut renter, 2, with(6), &of_instance);
        assert!(refused(body).contains("keeps no volume"));
    }
}
