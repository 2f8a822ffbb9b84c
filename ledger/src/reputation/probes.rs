//! What we have seen of peers ourselves, outside of leases: whether they answer, and whether figures they promise are true.

use std::collections::BTreeMap;

use souk_protocol::{Millis, NodeId, Timestamp, opinion::Observation};

use super::{
    evidence::{Cause, Probe},
    limits,
    scale::decay,
};

/// The mean of the newest windows of each peer. A window told several times counts once, at its best.
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
    let mut sums: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    for ((peer, _), up) in windows {
        let (sum, count) = sums.entry(peer).or_default();
        *sum += u64::from(up);
        *count += 1;
    }
    sums.into_iter().map(|(peer, (sum, count))| (peer, sum as f64 / (1000 * count) as f64)).collect()
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
