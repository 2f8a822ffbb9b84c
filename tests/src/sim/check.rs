//! The invariants, by name: what must hold after each step, and what must hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{
    Amount, Currency, LeaseId, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseState, PauseReason},
    machine::{account::Limit, host_lease::HostLease, record::LeaseRow, renter_lease::Opened},
    money::{self, Counters},
    payment::PayWhen,
    workload::Attachment,
};

use super::{
    history,
    node::Node,
    rule,
    store::Store,
    world::{World, money::is_deadbeat},
};

/// Kept by one engine for others, at most: see the limits of the host's machine.
const PENDING: usize = 256 + 4096 + 64 + 4096 + 4096;

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// After an input to a node.
///
/// # Errors
/// The invariant that broke.
pub fn at_each_step(node: &mut Node, now: Timestamp) -> Result<(), String> {
    let Some(engine) = &node.engine else {
        return Ok(());
    };
    let host = engine.host();
    ensure(host.pending() <= PENDING, || "bounded: a host keeps too much for others".to_owned())?;
    for (id, lease) in host.leases() {
        let (counters, due) = lease.count(now);
        let draft = lease.draft();
        let terms = lease.terms();
        ensure(terms.max_spend.is_none_or(|most| due <= most), || {
            format!("money-conserved: {} is due {due}, over its ceiling", id.short())
        })?;
        ensure(lease.acked() <= due, || {
            format!("money-conserved: {} is acknowledged for more than is due", id.short())
        })?;
        let longest = terms.ends_at.since(lease.accept().time);
        ensure(counters.active <= longest, || format!("never-past-the-end: {} computes past its end", id.short()))?;
        let slots = host.slots().of(id);
        let enough = slots.len() == usize::from(draft.resources.slots);
        ensure(slots.is_empty() || enough, || format!("one-slot-one-lease: {} holds {slots:?}", id.short()))?;
    }
    let volumes = || host.leases().iter().filter(|(_, l)| l.draft().is_volume());
    let taken = volumes().filter(|(_, l)| !l.state().is_ended()).map(|(_, l)| l.draft().resources.disk_mb).sum::<u64>();
    if let Some((machine, setup)) = &node.hosting {
        ensure(taken <= setup.volume_mb, || format!("volumes: {taken} MB of {} are rented out", setup.volume_mb))?;
        let kept = |id: &LeaseId| volumes().any(|(v, l)| v == id && l.state() == LeaseState::Kept);
        for (id, lease) in host.leases().iter().filter(|(_, l)| l.state() == LeaseState::Running) {
            let attached = &lease.workload().volumes;
            let all = attached.iter().all(|a| kept(&a.volume) && machine.volumes.contains_key(&a.volume));
            ensure(all, || format!("volumes: {} runs without one of {attached:?}", id.short()))?;
            let theirs = |a: &Attachment| host.leases()[&a.volume].draft().renter == lease.draft().renter;
            ensure(attached.iter().all(theirs), || format!("no-leak: {} has another's volume", id.short()))?;
        }
    }
    for (id, lease) in volumes() {
        let (counters, _) = lease.count(now);
        let none = counters.active.0 == 0 && host.slots().of(id).is_empty();
        ensure(none, || format!("one-slot-one-lease: volume {} computes", id.short()))?;
    }
    let open = host.leases().values().filter(|l| !l.state().is_ended());
    let granted = open.flat_map(|l| l.draft().public.iter().flat_map(|access| access.ports.iter().map(|p| p.public)));
    let mut ports: Vec<u16> = granted.collect();
    ports.sort_unstable();
    ensure(ports.windows(2).all(|pair| pair[0] != pair[1]), || {
        format!("one-port-one-lease: two leases have one of the public ports {ports:?}")
    })?;
    let busy = |n: &u16| host.slots().all().get(usize::from(*n)).is_none_or(|s| s.lease.is_some());
    ensure(!node.idle.iter().any(busy), || format!("one-slot-one-lease: the host's own job is on {:?}", node.idle))?;
    bounded(node, now)?;
    rule::check(node)
}

/// Whether nothing is left to be done.
#[must_use]
pub fn is_at_rest(world: &World) -> bool {
    world.nodes.iter().all(|node| {
        node.outbox.is_empty()
            && node.waiting.is_empty()
            && node.store.waiting() == 0
            && !node.store.accounts().are_waiting()
            && node.engine.as_ref().is_some_and(|e| {
                let paid = is_deadbeat(&node.id) || e.renter().hosts_to_pay() == 0;
                paid && e.host().leases().is_empty()
                    && e.renter().leases().values().all(|l| *l.answer() == Opened::GivenUp)
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
    for (i, node) in world.nodes.iter().enumerate() {
        let Some(engine) = &node.engine else { continue };
        if node.store.accounts().are_waiting() {
            left.push(format!("node {i} waits for an answer to a payment, or for a payment"));
        }
        if engine.renter().hosts_to_pay() > 0 {
            left.push(format!("node {i} has to pay {} hosts", engine.renter().hosts_to_pay()));
        }
        let waiting = [node.outbox.len(), node.waiting.len(), node.store.waiting()];
        if waiting != [0; 3] {
            left.push(format!("node {i} waits with {waiting:?} outputs, verifications and records"));
        }
    }
    left.truncate(6);
    left.join("; ")
}

/// What a host's account with a peer may come to: five quarters of the first slice and all that was settled, which bounds every
/// slice there was; what the disks cost, which are kept; and some seconds of compute, until all is stopped, with the bytes that had
/// flowed until then and are told of later. Leases that are over and forgotten have had theirs. What the node itself owed was set
/// against it, until a payment of its own, under way then, was heard to have arrived.
fn bounded(node: &mut Node, now: Timestamp) -> Result<(), String> {
    let Some(engine) = &node.engine else { return Ok(()) };
    for account in engine.accounts().iter() {
        let of_peer = |l: &&HostLease| l.draft().renter == account.peer() && l.draft().currency == *account.currency();
        let leases = || engine.host().leases().values().filter(of_peer);
        if leases().next().is_none() || leases().any(|l| l.draft().payment.is_none()) {
            continue;
        }
        let slice = account.note().lent.base.0 + account.settled_to_us().0;
        let beyond = node.beyond.entry((account.peer(), account.currency().clone())).or_default();
        for lease in leases() {
            let (used, draft) = (lease.count(now).0, lease.draft());
            let cost = |part: Counters| {
                money::due(&draft.rates, draft.resources.disk_mb, &part, Amount::ZERO).map_or(0, |amount| amount.0)
            };
            let disk = cost(Counters { storage: used.storage, ..Counters::default() });
            let traffic = cost(Counters { rx_bytes: used.rx_bytes, tx_bytes: used.tx_bytes, ..Counters::default() });
            // Who leaves early gives back what it got off.
            let off = draft.listed_hour.0.saturating_sub(draft.rates.compute_hour.0);
            let back = u64::try_from(u128::from(used.active.0) * u128::from(off) / 3_600_000 + 1).unwrap_or(0);
            let seconds = lease.terms().compute_hour.0.max(draft.listed_hour.0) / 3600 * 6;
            let of_lease = beyond.leases.entry(lease.id()).or_default();
            if account.note().stopped_at.is_none() {
                of_lease.traffic = traffic;
            }
            of_lease.most = of_lease.most.max(disk + seconds + back + traffic.saturating_sub(of_lease.traffic));
        }
        let flows = account.flows();
        beyond.netted = beyond.netted.max(flows.spent.0.saturating_sub(flows.paid_acked.0));
        let of_leases: u64 = beyond.leases.values().map(|b| b.most).sum();
        let most = i128::from(slice) * 5 / 4 + i128::from(of_leases) + i128::from(beyond.netted);
        let owed = engine.owed_by(&account.peer(), account.currency(), now);
        ensure(owed <= most, || {
            format!(
                "one-slice: {} owes {owed}, over {most}: {:?} {:?}",
                account.peer(),
                account.flows(),
                account.note()
            )
        })?;
        let slack = Limit { when: PayWhen::After, unit: account.note().lent.slice };
        ensure(account.note().lent.slice.0 <= slice && slack.stop() >= 0, || "a slice out of nothing".to_owned())?;
    }
    ensure(engine.payments_waiting() <= 64, || "bounded: payments".to_owned())
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
            ensure(node.waiting.is_empty(), || {
                format!("every wish has an outcome: {:?} of node {i} have none", node.waiting)
            })?;
            ensure(node.inbound.is_empty(), || format!("every request gets exactly one reply: node {i} owes some"))?;
            let slots = engine.host().slots();
            ensure(slots.free() == slots.total(), || format!("no-orphans: slots of node {i} are held"))?;
        }
        if let Some((machine, _)) = &node.hosting {
            let left: Vec<String> = machine.containers.keys().map(LeaseId::short).collect();
            ensure(left.is_empty(), || format!("no-orphans: containers {left:?} on node {i}"))?;
            let left: Vec<String> = machine.volumes.keys().map(LeaseId::short).collect();
            ensure(left.is_empty(), || format!("no-orphans: volumes {left:?} on node {i}"))?;
            let locked = machine.locks.values().any(Option::is_some);
            ensure(!locked, || format!("no-orphans: locks {:?} on node {i}", machine.locks))?;
        }
        for (lease, row) in node.store.rows() {
            let open = node.store.read(&row.open).ok_or("an open that does not verify")?;
            let side = if open.author == node.id { &mut renters } else { &mut hosts };
            side.insert(*lease, i);
        }
    }
    payments(world)?;
    let all: BTreeSet<LeaseId> = hosts.keys().chain(renters.keys()).copied().collect();
    for lease in all {
        let host = hosts.get(&lease).map(|i| &world.nodes[*i]);
        let renter = renters.get(&lease).map(|i| &world.nodes[*i]);
        let renter = renter.ok_or_else(|| format!("both-sides-agree: {} has no renter", lease.short()))?;
        let theirs = &renter.store.rows()[&lease];
        match host.map(|h| (h, &h.store.rows()[&lease])) {
            Some((host, ours)) => {
                let exact = world.is_exact();
                let tally = both(&lease, (host, ours), (renter, theirs), exact)?;
                world.outcome.accepted += u64::from(tally.accepted);
                world.outcome.volumes += u64::from(tally.volume);
                world.outcome.voided += u64::from(!tally.accepted && ours.answer.is_some());
                world.outcome.unconfirmed += u64::from(tally.unconfirmed);
                let sum = &mut world.outcome;
                sum.acknowledged = sum.acknowledged.saturating_add(tally.acknowledged.0);
                sum.amended += tally.amended;
                sum.evicted += tally.evicted;
                sum.freed += tally.freed;
            }
            None => ensure(theirs.answer.is_none(), || {
                format!("both-sides-agree: only the renter knows the answer to {}", lease.short())
            })?,
        }
    }
    Ok(())
}

/// `money-conserved`, of payments: what was transferred, what its payer says, and what its payee says are the same to the unit.
fn payments(world: &mut World) -> Result<(), String> {
    let usd = Currency::usd();
    // Each is read from all rows of a node: once, not for each pair.
    let signed: Vec<BTreeMap<_, (Amount, Amount)>> = world.nodes.iter().map(|n| n.store.signed_for()).collect();
    for (i, payer) in world.nodes.iter().enumerate() {
        for (j, payee) in world.nodes.iter().enumerate().filter(|(j, _)| *j != i) {
            let [paid, paid_acked, ..] = payer.store.accounts().paid(&payee.id, &usd);
            let [.., claimed, received] = payee.store.accounts().paid(&payer.id, &usd);
            let sum = world.bank.sum(i, &payee.id);
            ensure(sum == paid && paid == paid_acked && paid == claimed && claimed == received, || {
                format!(
                    "money-conserved: {sum} transferred, {paid} said, {paid_acked} heard to have arrived, {claimed} heard, {received} arrived"
                )
            })?;
            let spent = signed[i].get(&(payee.id, usd.clone())).map_or(Amount::ZERO, |(_, spent)| *spent);
            let earned = signed[j].get(&(payer.id, usd.clone())).map_or(Amount::ZERO, |(earned, _)| *earned);
            ensure(spent == earned, || format!("money-conserved: {spent} signed for, {earned} known"))?;
        }
    }
    world.outcome.payments = world.bank.len();
    for node in &world.nodes {
        for row in node.store.rows().values() {
            let hosted = node.store.read(&row.open).is_some_and(|o| o.author != node.id);
            let states: Vec<LeaseState> = row.events.iter().filter(|_| hosted).map(|e| e.state).collect();
            let stopped = states.iter().position(|s| *s == LeaseState::Paused(PauseReason::NoCredit));
            world.outcome.stopped += u64::from(stopped.is_some());
            let again = stopped.is_some_and(|at| states[at..].contains(&LeaseState::Running));
            world.outcome.resumed += u64::from(again);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    accepted: bool,
    /// A volume that was kept, and paid for.
    volume: bool,
    unconfirmed: bool,
    acknowledged: Amount,
    amended: u64,
    evicted: u64,
    freed: u64,
}

fn both(
    id: &LeaseId,
    (host, ours): (&Node, &LeaseRow),
    (renter, theirs): (&Node, &LeaseRow),
    exact: bool,
) -> Result<Tally, String> {
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
        return Ok(Tally { accepted: true, unconfirmed: true, ..Tally::default() });
    }
    agree(ours.close == theirs.close && ours.close_ack == theirs.close_ack, "two ends")?;
    agree(ours.usage == theirs.usage, "two last usages")?;
    agree(ours.ack == theirs.ack, "two last acknowledgements")?;
    agree(ours.amended.last() == theirs.amended.last(), "two last amendments")?;
    let acked = match &theirs.ack {
        Some(ack) => renter.store.read(ack).ok_or("an acknowledgement that does not verify")?.due,
        None => Amount::ZERO,
    };
    let money = |holds: bool, what: String| ensure(holds, || format!("money-conserved: {name}: {what}"));
    money(
        *agreed == acked && acked == claimed,
        format!(
            "{claimed} claimed, {acked} acknowledged, {agreed} agreed to: {:?} after {:?}",
            theirs.ack.as_ref().and_then(|a| renter.store.read(a)),
            ours.events
        ),
    )?;
    let fold = host.store.fold_of(id).ok_or("no draft")?;
    let mut tally = Tally { accepted: true, acknowledged: acked, amended: u64::from(fold.n), ..Tally::default() };
    if let Some(usage) = &ours.usage {
        let usage = host.store.read(usage).ok_or("a usage that does not verify")?;
        money(fold.n == usage.terms, "the last usage is not of the last terms".to_owned())?;
        let cost = fold.cost(&usage.counters, usage.state);
        money(cost == Some(u128::from(usage.due.0)), "the sum is not what the counters cost".to_owned())?;
        money(fold.ceiling().is_none_or(|most| usage.due <= most), "over the ceiling".to_owned())?;
        let counters = usage.counters;
        let ran = host.hosting.as_ref().map_or(0, |(machine, _)| machine.ran.get(id).copied().unwrap_or(0));
        tally.volume = fold.draft.is_volume() && counters.storage.0 > 0;
        let starts = ours.events.len() as u64 + 1;
        let active = counters.active.0;
        money(active <= ran + starts * 2_100, format!("{active} ms counted, {ran} ms run"))?;
        money(counters.active >= counters.waived, "more is waived than was run".to_owned())?;
        if history::is_whole(ours) {
            let slack = 100 + 2_000 * host.clock_steps;
            history::warned(&fold.draft, &ours.events, Millis(slack)).map_err(|why| format!("{name}: {why}"))?;
            let runs = history::runs(&fold.draft, &ours.events);
            let (billed, payable) = (active - counters.waived.0, runs.active - runs.free);
            money(billed <= payable + slack, format!("{billed} ms billed, of {runs:?}"))?;
            let longest = fold.ends_at.since(fold.draft.drafted_at).0;
            money(!exact || billed + 100 >= payable.min(longest), format!("{billed} ms billed only, of {runs:?}"))?;
            (tally.evicted, tally.freed) = (runs.evicted, u64::from(runs.free > 0));
        }
    }
    Ok(tally)
}

fn entry(store: &Store, signed: Option<&souk_protocol::Signed<Entry>>) -> Result<Option<Verified<Entry>>, String> {
    signed.map(|s| store.read(s).ok_or_else(|| "an entry that does not verify".to_owned())).transpose()
}
