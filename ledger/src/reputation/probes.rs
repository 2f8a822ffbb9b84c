//! What we have seen of peers ourselves: whether they answer, outside of leases and in ours, and whether figures they promise are true.

use std::collections::BTreeMap;

use souk_protocol::{
    LeaseId, Millis, NodeId, Timestamp,
    opinion::{Observation, UPTIME_WINDOW, Watched},
};

use super::{
    evidence::{Cause, Probe},
    limits,
    scale::decay,
};

/// Of a lease's time at least so much in each window must have been watched to say anything of them: as much as of own looks.
const WATCHED_OF_WINDOW: Millis = Millis::from_hours(1);

/// The mean of the newest windows of each peer. A window told several times counts once, at its best. What was seen of leases fills
/// only windows of which nothing else was seen: neither counts twice.
pub(super) fn uptime(probes: &[Probe], now: Timestamp) -> BTreeMap<NodeId, f64> {
    let oldest = now.0.saturating_sub(Millis::from_hours(24 * limits::UPTIME_DAYS).0);
    let mut windows: BTreeMap<(NodeId, Timestamp), u16> = BTreeMap::new();
    for probe in probes {
        if let Observation::Uptime { from, up_permille } = &probe.seen
            && (oldest..=now.0).contains(&from.0)
        {
            let best = windows.entry((probe.peer, *from)).or_default();
            *best = (*best).max((*up_permille).min(1000));
        }
    }
    let mut filled: BTreeMap<(NodeId, Timestamp), u16> = BTreeMap::new();
    for probe in probes.iter().filter(|probe| probe.at <= now) {
        let Some(watched) = probe.seen.rental() else { continue };
        for from in windows_of(watched, probe.at, Timestamp(oldest)) {
            if !windows.contains_key(&(probe.peer, from)) {
                let best = filled.entry((probe.peer, from)).or_default();
                *best = (*best).max(permille(watched));
            }
        }
    }
    windows.extend(filled);
    let mut sums: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    for ((peer, _), up) in windows {
        let (sum, count) = sums.entry(peer).or_default();
        *sum += u64::from(up);
        *count += 1;
    }
    sums.into_iter().map(|(peer, (sum, count))| (peer, sum as f64 / (1000 * count) as f64)).collect()
}

/// The share of the time watched in which it ran.
fn permille(watched: &Watched) -> u16 {
    let share = u128::from(watched.answered.0) * 1000 / u128::from(watched.watched.0.max(1));
    u16::try_from(share).unwrap_or(1000).min(1000)
}

/// The windows, not before `oldest`, that a lease watched until `at` says something of.
fn windows_of(watched: &Watched, at: Timestamp, oldest: Timestamp) -> impl Iterator<Item = Timestamp> {
    let window = UPTIME_WINDOW.0;
    let (first, last) = (watched.from.0 / window, at.0 / window);
    let enough = last.saturating_sub(first).saturating_add(1).saturating_mul(WATCHED_OF_WINDOW.0) <= watched.watched.0;
    let begin = first.max(oldest.0.div_ceil(window));
    let end = if enough { last.saturating_add(1) } else { begin };
    (begin..end).map(move |n| Timestamp(n.saturating_mul(window)))
}

/// The newest leases of each peer that were watched and still matter, the newest first, at most [`limits::WATCHED_NAMED`].
pub(super) fn watched(probes: &[Probe], now: Timestamp) -> BTreeMap<NodeId, Vec<(Timestamp, LeaseId, Watched)>> {
    let oldest = now.0.saturating_sub(Millis::from_hours(24 * limits::UPTIME_DAYS).0);
    let mut of: BTreeMap<NodeId, Vec<(Timestamp, LeaseId, Watched)>> = BTreeMap::new();
    for probe in probes {
        if let (Some(lease), Some(watched), true) = (probe.lease, probe.seen.rental(), probe.at.0 >= oldest) {
            of.entry(probe.peer).or_default().push((probe.at, lease, *watched));
        }
    }
    for leases in of.values_mut() {
        leases.sort_by(|a, b| b.cmp(a));
        leases.truncate(limits::WATCHED_NAMED);
    }
    of
}

/// The weight of promised figures that were short when measured: of each figure, the newest measurement.
pub(super) fn short(probes: &[Probe], now: Timestamp) -> BTreeMap<NodeId, f64> {
    let mut newest: BTreeMap<(NodeId, &str), (Timestamp, u64, u64)> = BTreeMap::new();
    for probe in probes.iter().filter(|p| p.at.0 <= now.0.saturating_add(limits::AHEAD_MS)) {
        if let Observation::Performance { what, promised, measured } = &probe.seen {
            let seen = (probe.at, *promised, *measured);
            let entry = newest.entry((probe.peer, what)).or_insert(seen);
            *entry = (*entry).max(seen);
        }
    }
    let mut short = BTreeMap::new();
    for ((peer, _), (at, promised, measured)) in newest {
        let enough = u128::from(promised) * u128::from(limits::PERFORMANCE_PERMILLE);
        let left = decay(at, now);
        if u128::from(measured) * 1000 < enough && left > 0.0 {
            *short.entry(peer).or_default() += left * Cause::PerformanceShort.weight();
        }
    }
    short
}
