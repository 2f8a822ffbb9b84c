//! The allocation rule of the market, recomputed from what is on a host's disk by the plainest code there is.
//!
//! Fixed prices first, then what the host holds for itself, then bids by price for a slot, age and lease id: each is taken while it
//! fits. Who runs, who waits and who is on notice is then held against it.

use std::cmp::Ordering;

use souk_protocol::{
    LeaseId, Millis, Timestamp,
    lease::{LeaseState, PauseReason},
    negotiation::RentalType,
};

use super::{fold::Fold, node::Node};

/// What the rule says of a host, now.
#[derive(Debug, Default)]
pub struct Shares {
    /// Leases at a fixed price that run or want to.
    pub firm: Vec<LeaseId>,
    /// Interruptible leases that are to run, first come first.
    pub winners: Vec<LeaseId>,
    /// Those that are not.
    pub losers: Vec<LeaseId>,
}

impl Shares {
    /// Every lease that wants to run, and whether it is to.
    pub fn supposed(&self) -> impl Iterator<Item = (LeaseId, bool)> {
        let run = self.firm.iter().chain(&self.winners).map(|id| (*id, true));
        run.chain(self.losers.iter().map(|id| (*id, false)))
    }
}

fn wants(fold: &Fold, state: LeaseState) -> bool {
    !fold.closing
        && !fold.draft.is_volume()
        && match state {
            LeaseState::Preparing | LeaseState::Running => true,
            LeaseState::Paused(why) => matches!(
                why,
                PauseReason::HostRestart | PauseReason::EngineRestart | PauseReason::Outbid | PauseReason::Maintenance
            ),
            LeaseState::Ended(_) | LeaseState::Kept => false,
        }
}

fn served_before(a: &Fold, b: &Fold) -> Ordering {
    // a.price / a.slots > b.price / b.slots
    let (left, right) = (
        u128::from(a.price.0) * u128::from(b.draft.resources.slots),
        u128::from(b.price.0) * u128::from(a.draft.resources.slots),
    );
    right.cmp(&left).then(a.bid_at.cmp(&b.bid_at)).then(a.draft.id().0.cmp(&b.draft.id().0))
}

/// The rule; none while it can't be told from outside: the node or its engine is down, something is not on disk yet, or nothing may
/// run.
#[must_use]
pub fn shares(node: &Node) -> Option<Shares> {
    let engine = node.engine.as_ref().filter(|_| node.told_up && node.store.waiting() == 0)?;
    let (_, setup) = node.hosting.as_ref()?;
    if setup.maintenance.iter().any(|w| w.from <= node.fed_at && node.fed_at < w.until) {
        return None;
    }
    let host = engine.host();
    let mut taken = u64::from(setup.hold);
    taken += host.slots().all().iter().filter(|s| s.foreign && s.lease.is_none()).count() as u64;
    let unknown = |lease: &LeaseId| !host.leases().contains_key(lease);
    taken += host.slots().all().iter().filter(|s| s.lease.as_ref().is_some_and(unknown)).count() as u64;
    let mut shares = Shares::default();
    let mut bids: Vec<(&LeaseId, &Fold)> = Vec::new();
    for (lease, fold, state) in node.store.hosted() {
        let wanting = wants(fold, state);
        if fold.draft.rental != RentalType::Interruptible {
            let stopping = host.leases().get(lease).is_some_and(|l| l.holds_slots());
            if wanting || stopping {
                taken += u64::from(fold.draft.resources.slots);
            }
            if wanting {
                shares.firm.push(*lease);
            }
        } else if wanting {
            bids.push((lease, fold));
        }
    }
    bids.sort_by(|(_, a), (_, b)| served_before(a, b));
    let mut left = (setup.slots.len() as u64).saturating_sub(taken);
    for (lease, fold) in bids {
        let slots = u64::from(fold.draft.resources.slots);
        if slots <= left {
            left -= slots;
            shares.winners.push(*lease);
        } else {
            shares.losers.push(*lease);
        }
    }
    Some(shares)
}

/// Holds a host against the rule.
///
/// # Errors
/// How it is broken.
pub fn check(node: &Node) -> Result<(), String> {
    let (Some(shares), Some(engine)) = (shares(node), node.engine.as_ref()) else {
        return Ok(());
    };
    let host = engine.host();
    let known = |id: &LeaseId| host.leases().get(id).ok_or(format!("nothing-lost: {} is on disk only", id.short()));
    for id in &shares.losers {
        let lease = known(id)?;
        let notice = lease.draft().notice;
        let holds = !host.slots().of(id).is_empty();
        match (lease.state(), lease.eviction()) {
            (LeaseState::Running, Some(eviction)) => {
                let late = eviction.at > node.fed_at + notice || eviction.at + Millis(1) < node.fed_at;
                if late {
                    return Err(format!("allocation-rule: the notice of {} ends at another time", id.short()));
                }
            }
            (LeaseState::Running, None) => {
                return Err(format!("allocation-rule: {} runs, and others bid more", id.short()));
            }
            (LeaseState::Preparing, _) if holds && !node.adopting.contains(id) => {
                return Err(format!("allocation-rule: {} starts, and others bid more", id.short()));
            }
            (LeaseState::Preparing | LeaseState::Kept | LeaseState::Paused(_) | LeaseState::Ended(_), _) => {}
        }
    }
    let mut waiting: Vec<(Timestamp, LeaseId)> = Vec::new();
    for id in &shares.firm {
        let lease = known(id)?;
        if lease.state() == LeaseState::Paused(PauseReason::Outbid) || lease.eviction().is_some() {
            return Err(format!("allocation-rule: {} has a fixed price and is displaced", id.short()));
        }
        waiting.push((lease.accept().time, *id));
    }
    waiting.sort_unstable();
    let in_order = waiting.into_iter().map(|(_, id)| id).chain(shares.winners.iter().copied());
    for id in in_order {
        let lease = known(&id)?;
        if lease.eviction().is_some() && lease.state() == LeaseState::Running {
            return Err(format!("allocation-rule: {} bids enough, and is on notice", id.short()));
        }
        let waits = matches!(
            lease.state(),
            LeaseState::Preparing | LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance)
        );
        let idle = waits && host.slots().of(&id).is_empty() && !lease.is_stopping();
        if idle && lease.draft().resources.slots <= host.slots().free() {
            return Err(format!("progress: {} is next, slots are free, and it gets none", id.short()));
        }
    }
    Ok(())
}
