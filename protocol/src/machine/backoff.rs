//! Which hosts a renter leaves alone for a while, because they have failed it.
//!
//! Owns the rule, over this node's own leases and attempts only; nothing that another node says of a host counts here. What
//! came of each lease is found out by the shell ([`Outcome`]), searches leave the avoided hosts out by default, and a person
//! who names an ask gets it all the same.
//!
//! ```text
//! avoided until = time of the last failure + min(5 min × 2^(failures − 1), 1 day)
//! failures      = those in a row since the last good lease, each within a week of the one before
//! ```
//!
//! What is remembered is a set: the order in which outcomes become known makes no difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{LeaseId, Millis, NodeId, Timestamp, entry::VoidCode, lease::EndReason};

/// How long a host is avoided after one failure.
pub const FIRST: Millis = Millis::from_mins(5);
/// The longest a host is avoided after its last failure.
pub const LONGEST: Millis = Millis::from_hours(24);
/// A failure longer ago than this counts no more with a new one.
pub const FORGOTTEN: Millis = Millis::from_hours(7 * 24);
/// Outcomes remembered of a host, the newest: enough for [`LONGEST`], so the oldest make no difference.
pub const KEPT_PER_HOST: usize = 16;
/// Hosts remembered. Past it the one whose last outcome is oldest is forgotten.
pub const KEPT_HOSTS: usize = 4096;

/// How a host failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// It took the machine back.
    HostAborted,
    /// It could not make or start the container.
    CreateFailed,
    /// Preparing took it too long.
    PrepareTimeout,
    /// It lost the container.
    ContainerLost,
    /// Its container engine did not come back.
    EngineLost,
    /// It drafted a lease and then could not serve it.
    Unavailable,
    /// It drafted a lease and then did not know its own draft.
    UnknownDraft,
    /// It did not answer in time.
    NoAnswer,
    /// It drafted another lease than was asked for.
    BadDraft,
}

impl Failure {
    /// The failure in an end, if the host caused it.
    #[must_use]
    pub const fn of_end(reason: EndReason) -> Option<Self> {
        match reason {
            EndReason::HostAborted | EndReason::MemberRemoved => Some(Self::HostAborted),
            EndReason::CreateFailed => Some(Self::CreateFailed),
            EndReason::PrepareTimeout => Some(Self::PrepareTimeout),
            EndReason::ContainerLost | EndReason::VolumeLost => Some(Self::ContainerLost),
            EndReason::EngineLost => Some(Self::EngineLost),
            // Its accept came after its own deadline.
            EndReason::Unconfirmed | EndReason::HostVanished => Some(Self::NoAnswer),
            EndReason::Destroyed
            | EndReason::LeftEarly
            | EndReason::AskedFromInside
            | EndReason::Expired
            | EndReason::Unpaid
            | EndReason::Disputed
            | EndReason::ImageFailed => None,
        }
    }

    /// The failure in a void. That another renter was first, or our open late, is nobody's fault.
    #[must_use]
    pub const fn of_void(code: VoidCode) -> Option<Self> {
        match code {
            VoidCode::Unavailable => Some(Self::Unavailable),
            VoidCode::Unknown => Some(Self::UnknownDraft),
            VoidCode::Taken | VoidCode::Late | VoidCode::Unpaid => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostAborted => "host_aborted",
            Self::CreateFailed => "create_failed",
            Self::PrepareTimeout => "prepare_timeout",
            Self::ContainerLost => "container_lost",
            Self::EngineLost => "engine_lost",
            Self::Unavailable => "unavailable",
            Self::UnknownDraft => "unknown_draft",
            Self::NoAnswer => "no_answer",
            Self::BadDraft => "bad_draft",
        })
    }
}

/// What a lease or an attempt says of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It ran and ended by its renter or its contract's end: clears the failures before it.
    Good,
    /// The host failed.
    Failed(Failure),
}

impl Verdict {
    /// What the end of a lease says. One that ended by the renter's doing before it ran says nothing.
    #[must_use]
    pub const fn of_end(reason: EndReason, ran: bool) -> Option<Self> {
        match Failure::of_end(reason) {
            Some(failure) => Some(Self::Failed(failure)),
            None if ran && matches!(reason, EndReason::Destroyed | EndReason::LeftEarly | EndReason::Expired) => {
                Some(Self::Good)
            }
            None => None,
        }
    }
}

/// What came of one lease, or of one attempt to get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// When it was over, by our own clock or countersignature: not by the host's word.
    pub at: Timestamp,
    /// The lease; none of an attempt that never came to an open.
    pub lease: Option<LeaseId>,
    /// What it says.
    pub verdict: Verdict,
}

/// A host that is avoided now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avoided {
    /// Failures in a row.
    pub failures: u32,
    /// The last of them.
    pub last: Failure,
    /// When that was.
    pub last_at_ms: Timestamp,
    /// Until when it is avoided.
    pub until_ms: Timestamp,
}

/// The failures in a row that a host's outcomes end with, and until when they keep it avoided, whether or not that is past.
/// An outcome dated after `now` counts as of now, so that a clock set back avoids nobody for longer than [`LONGEST`].
#[must_use]
pub fn standing<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>, now: Timestamp) -> Option<Avoided> {
    let mut in_order: Vec<&Outcome> = outcomes.into_iter().collect();
    in_order.sort_unstable();
    let mut standing: Option<Avoided> = None;
    for outcome in in_order {
        let at = outcome.at.min(now);
        standing = match outcome.verdict {
            Verdict::Good => None,
            Verdict::Failed(last) => {
                let before = standing.filter(|s| at.since(s.last_at_ms) < FORGOTTEN).map_or(0, |s| s.failures);
                let failures = before.saturating_add(1);
                Some(Avoided { failures, last, last_at_ms: at, until_ms: at + wait(failures) })
            }
        };
    }
    standing
}

/// How long a host is avoided after so many failures in a row.
#[must_use]
pub fn wait(failures: u32) -> Millis {
    let doubled = failures.checked_sub(1).map_or(Some(0), |n| FIRST.0.checked_mul(1_u64.checked_shl(n)?));
    Millis(doubled.unwrap_or(u64::MAX).min(LONGEST.0))
}

/// What this node remembers of the hosts it has rented from.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    hosts: BTreeMap<NodeId, BTreeSet<Outcome>>,
}

impl Backoff {
    /// Remembers an outcome. A lease has one: what is said of it first stays. Whether anything has changed.
    pub fn note(&mut self, host: NodeId, outcome: Outcome) -> bool {
        let known = self.hosts.entry(host).or_default();
        if outcome.lease.is_some() && known.iter().any(|o| o.lease == outcome.lease) {
            return false;
        }
        let new = known.insert(outcome);
        if known.len() > KEPT_PER_HOST {
            known.pop_first();
        }
        if self.hosts.len() > KEPT_HOSTS {
            let oldest = self.hosts.iter().min_by_key(|(_, outcomes)| outcomes.last().map(|o| o.at));
            if let Some(host) = oldest.map(|(host, _)| *host) {
                self.hosts.remove(&host);
            }
        }
        new
    }

    /// Why and until when a host is avoided; none if it is not, now.
    #[must_use]
    pub fn avoided(&self, host: &NodeId, now: Timestamp) -> Option<Avoided> {
        standing(self.hosts.get(host)?, now).filter(|avoided| now < avoided.until_ms)
    }

    /// All hosts that are avoided now, by id.
    pub fn all(&self, now: Timestamp) -> impl Iterator<Item = (NodeId, Avoided)> + '_ {
        self.hosts.keys().filter_map(move |host| Some((*host, self.avoided(host, now)?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const HOST: NodeId = NodeId([7; 32]);

    fn lease(n: u64) -> Option<LeaseId> {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Some(LeaseId(id))
    }

    fn failed(n: u64, at: Timestamp) -> Outcome {
        Outcome { at, lease: lease(n), verdict: Verdict::Failed(Failure::CreateFailed) }
    }

    fn good(n: u64, at: Timestamp) -> Outcome {
        Outcome { at, lease: lease(n), verdict: Verdict::Good }
    }

    fn of(outcomes: &[Outcome]) -> Backoff {
        let mut backoff = Backoff::default();
        for outcome in outcomes {
            backoff.note(HOST, *outcome);
        }
        backoff
    }

    #[test]
    fn a_host_that_fails_again_and_again_is_avoided_for_twice_as_long_each_time_up_to_a_day() {
        let minutes: Vec<u64> = (0..=11).map(|n| wait(n).0 / 60_000).collect();
        assert_eq!(minutes, [0, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]);
        assert_eq!(wait(u32::MAX), LONGEST);
        let backoff = of(&[failed(1, NOW), failed(2, NOW + Millis::from_mins(6))]);
        let until = NOW + Millis::from_mins(16);
        let avoided = backoff.avoided(&HOST, NOW + Millis::from_mins(7)).unwrap();
        assert_eq!((avoided.failures, avoided.until_ms), (2, until));
        assert!(backoff.avoided(&HOST, Timestamp(until.0 - 1)).is_some());
        assert_eq!(backoff.avoided(&HOST, until), None);
    }

    #[test]
    fn a_good_lease_clears_what_was_before_it_and_old_failures_do_not_count_with_new_ones() {
        let later = NOW + Millis::from_mins(1);
        assert_eq!(of(&[failed(1, NOW), good(2, later)]).avoided(&HOST, later), None);
        let again = later + Millis::from_mins(1);
        assert_eq!(of(&[failed(1, NOW), good(2, later), failed(3, again)]).avoided(&HOST, again).unwrap().failures, 1);
        let week = NOW + FORGOTTEN;
        assert_eq!(of(&[failed(1, NOW), failed(2, week)]).avoided(&HOST, week).unwrap().failures, 1);
        assert_eq!(of(&[failed(1, NOW)]).avoided(&NodeId([8; 32]), NOW), None);
    }

    #[test]
    fn a_lease_counts_once_and_only_what_the_host_did_counts() {
        let mut backoff = of(&[failed(1, NOW)]);
        assert!(!backoff.note(HOST, good(1, NOW + Millis(5))));
        assert!(!backoff.note(HOST, failed(1, NOW + Millis(9))));
        assert_eq!(backoff.avoided(&HOST, NOW).unwrap().failures, 1);
        assert_eq!(Verdict::of_end(EndReason::ImageFailed, false), None);
        assert_eq!(Verdict::of_end(EndReason::Destroyed, false), None, "destroyed before it ran");
        assert_eq!(Verdict::of_end(EndReason::Destroyed, true), Some(Verdict::Good));
        assert_eq!(Verdict::of_end(EndReason::ContainerLost, true), Some(Verdict::Failed(Failure::ContainerLost)));
        assert_eq!(Failure::of_void(VoidCode::Taken), None);
        assert_eq!(Failure::of_void(VoidCode::Unavailable), Some(Failure::Unavailable));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut backoff = Backoff::default();
        for host in 0..KEPT_HOSTS as u64 + 10 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&host.to_be_bytes());
            backoff.note(NodeId(id), failed(host, NOW + Millis(host)));
        }
        assert_eq!(backoff.hosts.len(), KEPT_HOSTS);
        assert!(!backoff.hosts.contains_key(&NodeId([0; 32])), "the oldest is forgotten");
        for n in 0..100 {
            backoff.note(HOST, failed(n, NOW + Millis(n)));
        }
        assert_eq!(backoff.hosts[&HOST].len(), KEPT_PER_HOST);
        let avoided = backoff.avoided(&HOST, NOW + Millis(100)).unwrap();
        assert_eq!(avoided.until_ms, NOW + Millis(99) + LONGEST);
    }

    fn history() -> impl Strategy<Value = Vec<Outcome>> {
        let one = (0_u64..20 * 24 * 60, 0_u8..4);
        proptest::collection::vec(one, 0..KEPT_PER_HOST).prop_map(|all| {
            let outcome = |(n, (minutes, kind)): (u64, (u64, u8))| {
                let at = NOW + Millis::from_mins(minutes);
                if kind == 0 { good(n, at) } else { failed(n, at) }
            };
            (0..).zip(all).map(outcome).collect()
        })
    }

    proptest! {
        /// What a node knows of a host does not depend on the order in which it learnt it.
        #[test]
        fn the_order_in_which_outcomes_are_learnt_makes_no_difference(mut all in history(), seed: u64, minutes in 0_u64..30_000) {
            let now = NOW + Millis::from_mins(minutes);
            let before = of(&all).avoided(&HOST, now);
            all.sort_by_key(|o| blake3::hash(&[&seed.to_be_bytes()[..], &o.lease.unwrap().0].concat()).as_bytes().to_owned());
            prop_assert_eq!(of(&all).avoided(&HOST, now), before);
        }

        /// Never longer than a day past the last failure nor past now, never without a failure since the last good lease, and
        /// one failure more never shortens it.
        #[test]
        fn a_host_is_avoided_for_a_reason_and_not_for_ever(all in history(), minutes in 0_u64..30_000) {
            let now = NOW + Millis::from_mins(minutes);
            let avoided = of(&all).avoided(&HOST, now);
            if let Some(avoided) = avoided {
                let last_good = all.iter().filter(|o| o.verdict == Verdict::Good).map(|o| o.at.min(now)).max();
                prop_assert!(avoided.failures >= 1 && avoided.last_at_ms <= now);
                prop_assert!(avoided.until_ms > now && avoided.until_ms <= now + LONGEST);
                prop_assert!(last_good.is_none_or(|at| at <= avoided.last_at_ms));
            }
            let mut more = all;
            more.push(failed(1000, now.max(more.iter().map(|o| o.at).max().unwrap_or(now))));
            let after = of(&more).avoided(&HOST, now).unwrap();
            prop_assert!(avoided.is_none_or(|before| after.until_ms >= before.until_ms));
            prop_assert!(after.until_ms >= now + FIRST);
        }

        /// Nobody whose every lease was good is avoided.
        #[test]
        fn who_never_failed_is_never_avoided(times in proptest::collection::vec(0_u64..1_000_000, 0..40)) {
            let all: Vec<Outcome> = (0..).zip(times).map(|(n, ms)| good(n, NOW + Millis(ms))).collect();
            prop_assert_eq!(of(&all).avoided(&HOST, NOW), None);
        }
    }
}
