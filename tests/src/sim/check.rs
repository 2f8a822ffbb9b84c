//! The invariants, by name: what must hold after each step, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{
    Amount, LeaseId, Timestamp, Verified,
    entry::{Body, Entry},
    lease::EndReason,
    machine::{record::LeaseRow, renter_lease::Opened},
    terms::LeaseTerms,
};

use super::{node::Node, store::Store, world::World};

/// Kept by one engine for others, at most: see the limits of the host's machine.
const PENDING: usize = 256 + 4096 + 64 + 4096 + 4096;

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// After an input to a node.
///
/// # Errors
/// The invariant that broke.
pub fn at_each_step(node: &Node, now: Timestamp) -> Result<(), String> {
    let Some(engine) = &node.engine else {
        return Ok(());
    };
    let host = engine.host();
    ensure(host.pending() <= PENDING, || "bounded: a host keeps too much for others".to_owned())?;
    for (id, lease) in host.leases() {
        let (counters, due) = lease.count(now);
        let draft = lease.draft();
        ensure(draft.max_spend.is_none_or(|most| due <= most), || {
            format!("money-conserved: {} is due {due}, over its ceiling", id.short())
        })?;
        ensure(lease.acked() <= due, || {
            format!("money-conserved: {} is acknowledged for more than is due", id.short())
        })?;
        let longest = draft.ends_at.since(lease.accept().time);
        ensure(counters.active <= longest, || format!("never-past-the-end: {} computes past its end", id.short()))?;
        let slots = host.slots().of(id);
        let enough = slots.len() == usize::from(draft.resources.slots);
        ensure(slots.is_empty() || enough, || format!("one-slot-one-lease: {} holds {slots:?}", id.short()))?;
    }
    Ok(())
}

/// Whether nothing is left to be done.
#[must_use]
pub fn is_at_rest(world: &World) -> bool {
    world.nodes.iter().all(|node| {
        node.outbox.is_empty()
            && node.store.waiting() == 0
            && node.engine.as_ref().is_some_and(|e| {
                e.host().leases().is_empty() && e.renter().leases().values().all(|l| *l.answer() == Opened::GivenUp)
            })
    })
}

/// What is left to be done.
#[must_use]
pub fn unrest(world: &World) -> String {
    let mut left = Vec::new();
    for (i, node) in world.nodes.iter().enumerate() {
        let Some(engine) = &node.engine else {
            left.push(format!("node {i} is down"));
            continue;
        };
        for (id, lease) in engine.host().leases() {
            left.push(format!("node {i} hosts {} in {}: {:?}", id.short(), lease.state(), lease.events()));
        }
        for (id, lease) in engine.renter().leases() {
            if *lease.answer() != Opened::GivenUp {
                left.push(format!("node {i} rents {} in {}: {:?}", id.short(), lease.state(), lease.answer()));
            }
        }
    }
    left.truncate(6);
    left.join("; ")
}

/// When everything has come to rest.
///
/// # Errors
/// The invariant that broke.
pub fn at_the_end(world: &mut World) -> Result<(), String> {
    let mut hosts: BTreeMap<LeaseId, usize> = BTreeMap::new();
    let mut renters: BTreeMap<LeaseId, usize> = BTreeMap::new();
    for (i, node) in world.nodes.iter().enumerate() {
        if let Some(engine) = &node.engine {
            ensure(node.inbound.is_empty(), || format!("every request gets exactly one reply: node {i} owes some"))?;
            let slots = engine.host().slots();
            ensure(slots.free() == slots.total(), || format!("no-orphans: slots of node {i} are held"))?;
        }
        if let Some((machine, _)) = &node.hosting {
            let left: Vec<String> = machine.containers.keys().map(LeaseId::short).collect();
            ensure(left.is_empty(), || format!("no-orphans: containers {left:?} on node {i}"))?;
            let locked = machine.locks.values().any(Option::is_some);
            ensure(!locked, || format!("no-orphans: locks {:?} on node {i}", machine.locks))?;
        }
        for (lease, row) in node.store.rows() {
            let open = node.store.read(&row.open).ok_or("an open that does not verify")?;
            let side = if open.author == node.id { &mut renters } else { &mut hosts };
            side.insert(*lease, i);
        }
    }
    let all: BTreeSet<LeaseId> = hosts.keys().chain(renters.keys()).copied().collect();
    for lease in all {
        let host = hosts.get(&lease).map(|i| &world.nodes[*i]);
        let renter = renters.get(&lease).map(|i| &world.nodes[*i]);
        let renter = renter.ok_or_else(|| format!("both-sides-agree: {} has no renter", lease.short()))?;
        let theirs = &renter.store.rows()[&lease];
        match host.map(|h| (h, &h.store.rows()[&lease])) {
            Some((host, ours)) => {
                let tally = both(&lease, host, ours, renter, theirs)?;
                world.outcome.accepted += u64::from(tally.accepted);
                world.outcome.voided += u64::from(!tally.accepted && ours.answer.is_some());
                world.outcome.unconfirmed += u64::from(tally.unconfirmed);
                world.outcome.acknowledged += tally.acknowledged.0;
            }
            None => ensure(theirs.answer.is_none(), || {
                format!("both-sides-agree: only the renter knows the answer to {}", lease.short())
            })?,
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    accepted: bool,
    unconfirmed: bool,
    acknowledged: Amount,
}

fn both(id: &LeaseId, host: &Node, ours: &LeaseRow, renter: &Node, theirs: &LeaseRow) -> Result<Tally, String> {
    let name = id.short();
    let agree = |same: bool, what: &str| ensure(same, || format!("both-sides-agree: {name}: {what}"));
    agree(ours.open == theirs.open, "two opens")?;
    let Some(answer) = entry(&host.store, ours.answer.as_ref())? else {
        agree(theirs.answer.is_none(), "an answer that the host does not know")?;
        return Ok(Tally::default());
    };
    if matches!(answer.body, Body::Void { .. }) {
        agree(theirs.answer.is_none() || theirs.answer == ours.answer, "two answers")?;
        return Ok(Tally::default());
    }
    agree(ours.answer == theirs.answer, "an accept that its renter does not know")?;
    let close = entry(&host.store, ours.close.as_ref())?.ok_or(format!("both-sides-agree: {name} is never closed"))?;
    let Body::Close { reason, due: claimed, .. } = close.body else {
        return Err(format!("a close that is a {}", close.body.name()));
    };
    let Some(close_ack) = entry(&renter.store, theirs.close_ack.as_ref())? else {
        return Err(format!("both-sides-agree: {name}: the renter never agreed to {reason}"));
    };
    let Body::CloseAck { due: agreed, .. } = &close_ack.body else {
        return Err("an agreement that is something else".to_owned());
    };
    if reason == EndReason::Unconfirmed || close_ack.author == host.id {
        ensure(*agreed == Amount::ZERO, || format!("money-conserved: {name} was never taken up and costs {agreed}"))?;
        return Ok(Tally { accepted: true, unconfirmed: true, acknowledged: Amount::ZERO });
    }
    agree(ours.close == theirs.close && ours.close_ack == theirs.close_ack, "two ends")?;
    agree(ours.usage == theirs.usage, "two last usages")?;
    agree(ours.ack == theirs.ack, "two last acknowledgements")?;
    let acked = match &theirs.ack {
        Some(ack) => renter.store.read(ack).ok_or("an acknowledgement that does not verify")?.due,
        None => Amount::ZERO,
    };
    let money = |holds: bool, what: String| ensure(holds, || format!("money-conserved: {name}: {what}"));
    money(
        *agreed == acked && acked == claimed,
        format!("{claimed} claimed, {acked} acknowledged, {agreed} agreed to"),
    )?;
    if let Some(usage) = &ours.usage {
        let usage = host.store.read(usage).ok_or("a usage that does not verify")?;
        let draft = host.store.read(&ours.open).and_then(|o| host.store.read(o.body.draft()?)).ok_or("no draft")?;
        let newest = entry(&host.store, ours.amended.last())?.and_then(|e| e.body.amended().map(|a| a.terms));
        let terms = newest.unwrap_or_else(|| LeaseTerms::drafted(&draft));
        money(terms.n == usage.terms, "the last usage is not of the last terms".to_owned())?;
        money(
            terms.due_in(&draft, &usage.counters, usage.state) == Ok(usage.due),
            "the sum is not what the counters cost".to_owned(),
        )?;
        money(terms.max_spend.is_none_or(|most| usage.due <= most), "over the ceiling".to_owned())?;
        let truth = host.hosting.as_ref().map_or(0, |(machine, _)| machine.ran.get(id).copied().unwrap_or(0));
        let starts = ours.events.len() as u64 + 1;
        let billed = usage.counters.active.0;
        money(billed <= truth + starts * 2_100, format!("{billed} ms billed, {truth} ms run"))?;
    }
    Ok(Tally { accepted: true, unconfirmed: false, acknowledged: acked })
}

fn entry(store: &Store, signed: Option<&souk_protocol::Signed<Entry>>) -> Result<Option<Verified<Entry>>, String> {
    signed.map(|s| store.read(s).ok_or_else(|| "an entry that does not verify".to_owned())).transpose()
}
