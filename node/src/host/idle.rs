//! The idle job: the host's own container on slots that nobody rents, gone before a rental's container starts there, and back after.
//!
//! Owns which idle containers there are and what is known of them; says what the runtime is to do next, and whether slots are clear.
//! It runs nothing itself, and holds no locks. One container a slot, rather than one for all of them: a rental then costs the job
//! only the slots that it takes, and nothing has to be restarted around it. An idle container is no lease: it has no ledger, no
//! price, and a name of its own (`idle.3` for slot 3), by which neither the engine nor its bills ever see it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use souk_runtime::{Devices, Egress, ExitCause, ImagePin, InstanceEvent, InstanceSpec, Priority};

/// What idle containers are called, before the slot's number.
const NAME: &str = "idle.";
/// First and longest wait before a job that ended or failed is run again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
/// A run of this long was a good one: the waits begin anew.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// Without word of the end of a killed container, it is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// What runs, and with how much of the machine for each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The image.
    pub image: ImagePin,
    /// Arguments in place of the image's.
    pub command: Option<Vec<String>>,
    /// What it may reach.
    pub egress: Egress,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk in MiB.
    pub disk_mb: u64,
}

/// What the runtime is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Make the container.
    Prepare(Box<InstanceSpec>),
    /// Run it, once the slot's idle lock is held; if it can't be had, [`IdleJob::refused`].
    Start {
        /// The slot.
        slot: u16,
        /// With these devices.
        devices: Devices,
    },
    /// SIGKILL, now.
    Kill {
        /// The slot.
        slot: u16,
    },
    /// Remove it.
    Destroy {
        /// The slot.
        slot: u16,
    },
}

/// What a slot's idle container does, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Its image is fetched, or it is being made.
    Preparing,
    /// It runs.
    Running,
    /// It was killed, and its end is not known yet.
    Ending,
    /// It ended or failed, and is run again in a while.
    Waiting,
    /// It makes room.
    Away,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No process of it is there. What is made may be kept.
    Down { until: Instant },
    /// To be made. Nothing runs.
    Preparing { version: u64 },
    /// A start was ordered, or it runs.
    Up { version: u64, since: Instant },
    /// A kill or removal was ordered, and the end is not known yet.
    Ending { asked: Instant, removal: bool },
}

#[derive(Debug)]
struct Container {
    state: State,
    /// Failures and short runs on end.
    failures: u32,
    /// Why it last failed or ended, as a sentence.
    note: Option<String>,
}

/// The idle job of one machine.
#[derive(Debug, Default)]
pub struct IdleJob {
    job: Option<Job>,
    /// Counts the jobs set, so that a container of an earlier one is known.
    version: u64,
    allowed: BTreeMap<u16, Devices>,
    containers: BTreeMap<u16, Container>,
    /// What an earlier run of the node left has been removed.
    clean: bool,
    orders: Vec<Order>,
}

/// The runtime's name for the idle container of a slot.
#[must_use]
pub fn instance(slot: u16) -> String {
    format!("{NAME}{slot}")
}

/// The slot of an idle container; none for any other instance.
#[must_use]
pub fn slot_of(instance: &str) -> Option<u16> {
    instance.strip_prefix(NAME)?.parse().ok()
}

impl IdleJob {
    /// Sets what is to run; none for nothing. What runs of another job is killed first.
    pub fn set(&mut self, job: Option<Job>, now: Instant) {
        if self.job == job {
            return;
        }
        self.job = job;
        self.version += 1;
        for container in self.containers.values_mut() {
            container.failures = 0;
            if let State::Down { until } = &mut container.state {
                *until = now;
            }
        }
        self.advance(now);
    }

    /// Whether there is one to run.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        self.job.is_some()
    }

    /// It may use these slots from now on, and no others.
    pub fn allow(&mut self, slots: impl IntoIterator<Item = (u16, Devices)>, now: Instant) {
        self.allowed = slots.into_iter().collect();
        self.advance(now);
    }

    /// It must leave these slots, whatever it was allowed.
    pub fn leave(&mut self, slots: &[u16], now: Instant) {
        let before = self.allowed.len();
        self.allowed.retain(|slot, _| !slots.contains(slot));
        if self.allowed.len() != before {
            self.advance(now);
        }
    }

    /// All that an earlier run of this node left is known to be gone: from now on this one rules.
    pub fn cleaned(&mut self, now: Instant) {
        self.clean = true;
        self.advance(now);
    }

    /// Whether no process of the job is on these slots, and none will be until they are allowed again.
    #[must_use]
    pub fn is_clear_of(&self, slots: &[u16]) -> bool {
        self.clean
            && slots.iter().all(|slot| {
                let state = self.containers.get(slot).map(|container| container.state);
                !matches!(state, Some(State::Up { .. } | State::Ending { .. })) && !self.allowed.contains_key(slot)
            })
    }

    /// Slots on which a process of the job may be.
    #[must_use]
    pub fn slots_in_use(&self) -> Vec<u16> {
        let in_use = |container: &Container| matches!(container.state, State::Up { .. } | State::Ending { .. });
        self.containers.iter().filter(|(_, container)| in_use(container)).map(|(slot, _)| *slot).collect()
    }

    /// What each slot's container does, and why it waits.
    pub fn doings(&self) -> impl Iterator<Item = (u16, Doing, Option<&str>)> {
        self.containers.iter().map(|(slot, container)| {
            let doing = match container.state {
                State::Preparing { .. } => Doing::Preparing,
                State::Up { .. } => Doing::Running,
                State::Ending { .. } => Doing::Ending,
                State::Down { .. } if self.allowed.contains_key(slot) => Doing::Waiting,
                State::Down { .. } => Doing::Away,
            };
            (*slot, doing, container.note.as_deref())
        })
    }

    /// The next order for the runtime.
    pub fn next_order(&mut self) -> Option<Order> {
        if self.orders.is_empty() { None } else { Some(self.orders.remove(0)) }
    }

    /// When it wants [`IdleJob::advance`] at the latest; none for never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = |(slot, container): (&u16, &Container)| match container.state {
            State::Down { until } => (self.job.is_some() && self.allowed.contains_key(slot)).then_some(until),
            State::Ending { asked, .. } => Some(asked + KILL_AGAIN),
            State::Preparing { .. } | State::Up { .. } => None,
        };
        self.containers.iter().filter_map(due).min()
    }

    /// News of a slot's container.
    pub fn report(&mut self, slot: u16, event: &InstanceEvent, now: Instant) {
        let Some(container) = self.containers.get_mut(&slot) else { return };
        match (event, container.state) {
            (InstanceEvent::Prepared { .. }, State::Preparing { version }) => {
                container.state = State::Down { until: now };
                if version == self.version
                    && let (Some(_), Some(devices)) = (&self.job, self.allowed.get(&slot))
                {
                    container.state = State::Up { version, since: now };
                    self.orders.push(Order::Start { slot, devices: devices.clone() });
                }
            }
            (InstanceEvent::Exited(exit), State::Up { since, .. }) => {
                let note = format!("it ended with code {}", exit.code);
                // The engine's restart is not the job's fault.
                let good = exit.by == ExitCause::EngineRestart || now.duration_since(since) >= GOOD_RUN;
                container.fell(note, good, now);
            }
            (InstanceEvent::Failed(failure), State::Preparing { .. } | State::Up { .. }) => {
                container.fell(failure.sentence.clone(), false, now);
            }
            (InstanceEvent::Gone, State::Preparing { .. } | State::Up { .. }) => {
                container.fell("its container was removed".to_owned(), false, now);
            }
            (InstanceEvent::Exited(_) | InstanceEvent::NotRunning, State::Ending { removal: false, .. }) => {
                container.state = State::Down { until: now };
            }
            (InstanceEvent::Destroyed | InstanceEvent::Gone, State::Ending { .. }) => {
                self.containers.remove(&slot);
            }
            // Of a command that something later has overtaken, or of no consequence.
            (
                InstanceEvent::PullProgress(_)
                | InstanceEvent::Prepared { .. }
                | InstanceEvent::Started { .. }
                | InstanceEvent::Exited(_)
                | InstanceEvent::NotRunning
                | InstanceEvent::Failed(_)
                | InstanceEvent::DiskFull { .. }
                | InstanceEvent::DiskUse { .. }
                | InstanceEvent::Traffic(_)
                | InstanceEvent::Gone
                | InstanceEvent::Destroyed,
                _,
            ) => {}
        }
        self.advance(now);
    }

    /// An order could not be given, for this reason: nothing was started or is being made.
    pub fn refused(&mut self, slot: u16, why: &str, now: Instant) {
        if let Some(container) = self.containers.get_mut(&slot)
            && matches!(container.state, State::Up { .. } | State::Preparing { .. })
        {
            container.fell(why.to_owned(), false, now);
        }
    }

    /// Goes on where time has passed.
    pub fn advance(&mut self, now: Instant) {
        if !self.clean {
            return;
        }
        if self.job.is_some() {
            for slot in self.allowed.keys() {
                let fresh = Container { state: State::Down { until: now }, failures: 0, note: None };
                self.containers.entry(*slot).or_insert(fresh);
            }
        }
        for (slot, container) in &mut self.containers {
            let slot = *slot;
            let devices = self.allowed.get(&slot);
            match container.state {
                State::Down { until } => match (&self.job, devices) {
                    (Some(job), Some(devices)) if until <= now => {
                        container.state = State::Preparing { version: self.version };
                        self.orders.push(Order::Prepare(Box::new(job.spec(slot, devices.clone()))));
                    }
                    (None, _) => {
                        container.state = State::Ending { asked: now, removal: true };
                        self.orders.push(Order::Destroy { slot });
                    }
                    (Some(_), Some(_) | None) => {}
                },
                State::Preparing { version } if version != self.version => {
                    container.state = State::Ending { asked: now, removal: true };
                    self.orders.push(Order::Destroy { slot });
                }
                State::Up { version, .. } if version != self.version || devices.is_none() => {
                    container.state = State::Ending { asked: now, removal: false };
                    self.orders.push(Order::Kill { slot });
                }
                State::Ending { asked, removal } if now >= asked + KILL_AGAIN => {
                    container.state = State::Ending { asked: now, removal };
                    self.orders.push(if removal { Order::Destroy { slot } } else { Order::Kill { slot } });
                }
                State::Preparing { .. } | State::Up { .. } | State::Ending { .. } => {}
            }
        }
    }
}

impl Container {
    /// Nothing runs any more, and not by our doing.
    fn fell(&mut self, note: String, good: bool, now: Instant) {
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        let wait = BACKOFF.0.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(BACKOFF.1);
        self.note = Some(note);
        self.state = State::Down { until: if good { now } else { now + wait } };
    }
}

impl Job {
    fn spec(&self, slot: u16, devices: Devices) -> InstanceSpec {
        InstanceSpec {
            lease: instance(slot),
            image: self.image.clone(),
            command: self.command.clone(),
            entrypoint: None,
            user: None,
            env: vec![("SOUK_IDLE_SLOT".to_owned(), slot.to_string())],
            workdir: None,
            onstart: None,
            cpu_milli: self.cpu_milli.max(10),
            cpuset: None,
            memory_mb: self.memory_mb.max(16),
            pids: 4096,
            shm_mb: (self.memory_mb / 4).max(1),
            disk_mb: self.disk_mb.max(1),
            egress: self.egress,
            devices,
            volumes: Vec::new(),
            priority: Priority::Idle,
            source: souk_runtime::ImageSource::Registry,
            stop_grace_ms: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_runtime::{Exit, FailureCode, Step};

    use super::*;

    fn job(image: &str) -> Job {
        Job {
            image: ImagePin { reference: image.to_owned(), digest: format!("sha256:{}", "0".repeat(64)) },
            command: None,
            egress: Egress::None,
            cpu_milli: 1000,
            memory_mb: 512,
            disk_mb: 100,
        }
    }

    fn on(slots: &[u16]) -> Vec<(u16, Devices)> {
        slots.iter().map(|slot| (*slot, Devices { gpus: vec![format!("GPU-{slot}")], nodes: vec![] })).collect()
    }

    fn orders(idle: &mut IdleJob) -> Vec<String> {
        std::iter::from_fn(|| idle.next_order())
            .map(|order| match order {
                Order::Prepare(spec) => format!("prepare {} {}", spec.lease, spec.image.reference),
                Order::Start { slot, devices } => format!("start {slot} {}", devices.gpus.join(",")),
                Order::Kill { slot } => format!("kill {slot}"),
                Order::Destroy { slot } => format!("destroy {slot}"),
            })
            .collect()
    }

    const PREPARED: InstanceEvent = InstanceEvent::Prepared { image_bytes: 1 };

    fn exited(by: ExitCause) -> InstanceEvent {
        InstanceEvent::Exited(Exit { code: 137, oom: false, at: 0, by })
    }

    /// A job that runs on these slots.
    fn running(slots: &[u16], now: Instant) -> IdleJob {
        let mut idle = IdleJob::default();
        idle.set(Some(job("a")), now);
        idle.allow(on(slots), now);
        assert_eq!(orders(&mut idle), Vec::<String>::new(), "not before the last run's are gone");
        assert!(!idle.is_clear_of(&[0]), "nor is any slot clear");
        idle.cleaned(now);
        for slot in slots {
            idle.report(*slot, &PREPARED, now);
            idle.report(*slot, &InstanceEvent::Started { at: 1 }, now);
        }
        let given = orders(&mut idle);
        for slot in slots {
            assert!(given.contains(&format!("prepare idle.{slot} a")), "{given:?}");
            assert!(given.contains(&format!("start {slot} GPU-{slot}")), "{given:?}");
        }
        assert_eq!(idle.slots_in_use(), slots);
        idle
    }

    #[test]
    fn it_leaves_a_slot_at_once_and_comes_back() {
        let now = Instant::now();
        let mut idle = running(&[0, 1], now);
        idle.allow(on(&[1]), now);
        assert_eq!(orders(&mut idle), ["kill 0"]);
        assert!(!idle.is_clear_of(&[0]), "a kill is not an end");
        assert!(!idle.is_clear_of(&[0, 1]));
        idle.report(0, &exited(ExitCause::Stop), now);
        assert!(idle.is_clear_of(&[0]));
        assert_eq!(idle.slots_in_use(), [1], "the other slot's goes on");
        assert_eq!(orders(&mut idle), Vec::<String>::new());
        idle.allow(on(&[0, 1]), now);
        assert!(!idle.is_clear_of(&[0]));
        assert_eq!(orders(&mut idle), ["prepare idle.0 a"]);
        idle.report(0, &PREPARED, now);
        assert_eq!(orders(&mut idle), ["start 0 GPU-0"]);
    }

    #[test]
    fn a_slot_taken_while_the_container_is_made_is_clear_and_nothing_is_started() {
        let now = Instant::now();
        let mut idle = IdleJob::default();
        idle.set(Some(job("a")), now);
        idle.cleaned(now);
        idle.allow(on(&[0]), now);
        idle.allow(on(&[]), now);
        assert!(idle.is_clear_of(&[0]));
        idle.report(0, &PREPARED, now);
        assert_eq!(orders(&mut idle), ["prepare idle.0 a"]);
        idle.allow(on(&[0]), now);
        assert_eq!(orders(&mut idle), ["prepare idle.0 a"]);
    }

    #[test]
    fn a_kill_whose_end_nobody_tells_is_sent_again() {
        let now = Instant::now();
        let mut idle = running(&[0], now);
        idle.allow(on(&[]), now);
        assert_eq!(orders(&mut idle), ["kill 0"]);
        idle.report(0, &InstanceEvent::Failed(FailureCode::EngineDown.at(Step::Stop)), now);
        assert!(!idle.is_clear_of(&[0]), "it may run still");
        let later = idle.deadline().unwrap();
        idle.advance(later);
        assert_eq!(orders(&mut idle), ["kill 0"]);
        idle.report(0, &InstanceEvent::NotRunning, later);
        assert!(idle.is_clear_of(&[0]));
    }

    #[test]
    fn short_runs_wait_longer_and_longer() {
        let now = Instant::now();
        let mut idle = running(&[0], now);
        let mut at = now;
        let mut waits = Vec::new();
        for _ in 0..8 {
            idle.report(0, &exited(ExitCause::Guest), at);
            let due = idle.deadline().unwrap();
            waits.push(due.duration_since(at).as_secs());
            at = due;
            idle.advance(at);
            idle.report(0, &PREPARED, at);
            assert_eq!(orders(&mut idle), ["prepare idle.0 a", "start 0 GPU-0"]);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300]);
        at += GOOD_RUN;
        idle.report(0, &exited(ExitCause::Guest), at);
        assert_eq!(orders(&mut idle), ["prepare idle.0 a"], "after a good run at once");
    }

    #[test]
    fn another_job_replaces_it_and_none_removes_it() {
        let now = Instant::now();
        let mut idle = running(&[0], now);
        idle.set(Some(job("b")), now);
        assert_eq!(orders(&mut idle), ["kill 0"]);
        idle.report(0, &exited(ExitCause::Stop), now);
        assert_eq!(orders(&mut idle), ["prepare idle.0 b"]);
        idle.set(None, now);
        assert_eq!(orders(&mut idle), ["destroy 0"]);
        idle.report(0, &PREPARED, now);
        idle.report(0, &exited(ExitCause::Stop), now);
        assert_eq!(idle.slots_in_use(), [0], "not before it is removed");
        idle.report(0, &InstanceEvent::Destroyed, now);
        assert_eq!((orders(&mut idle), idle.slots_in_use()), (vec![], vec![]));
    }
}
