//! A machine: its container engine, which survives the node, and the locks on its slots, which do not.
//!
//! Orders are carried out one after another for each lease, after a random time. True running times are kept, to hold bills
//! against.

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{
    LeaseId,
    lease::EndReason,
    machine::io::{RuntimeOrder, RuntimeReport},
    message::Cause,
};

use super::dice::Dice;

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Made, never started.
    Created,
    /// Its command runs since this virtual time.
    Running(u64),
    /// Its command ended.
    Exited(i32, Cause),
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it does.
    pub doing: Doing,
    /// The devices it sees.
    pub devices: Vec<String>,
    /// The slots of its last start.
    pub slots: Vec<u16>,
    /// Counts its starts, so that an old end of its command is not taken for a new one.
    pub start: u32,
}

/// The slots and devices a host has signed for a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The slots' numbers.
    pub slots: Vec<u16>,
    /// Their devices.
    pub devices: Vec<String>,
}

/// What the engine does by itself or was ordered to.
#[derive(Debug, Clone)]
pub enum Step {
    /// An order of the node.
    Order(Box<RuntimeOrder>),
    /// The command of this start ends by itself.
    Exit(u32),
}

/// What to report of a step, and of a start which it was and after how long its command ends by itself.
pub type Carried = (Option<RuntimeReport>, Option<(u32, u64)>);

/// A machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// Whether its container engine answers.
    pub up: bool,
    /// Its containers.
    pub containers: BTreeMap<LeaseId, Container>,
    /// Its volumes, and their sizes in MB.
    pub volumes: BTreeMap<LeaseId, u64>,
    /// True running time of each lease's container, in virtual milliseconds, ended runs only.
    pub ran: BTreeMap<LeaseId, u64>,
    /// Who has locked a slot: a lease of the node, or none for another node of the machine.
    pub locks: BTreeMap<u16, Option<LeaseId>>,
    /// When the last order of a lease will have been carried out.
    pub busy_until: BTreeMap<LeaseId, u64>,
    /// Steps that wait for the engine to come back.
    pub deferred: Vec<(LeaseId, Step, u64)>,
    /// Share of orders that fail, per mille.
    pub failing: u64,
    /// Leases whose containers have been made, ever.
    pub made: BTreeSet<LeaseId>,
}

impl Machine {
    /// How long a container has truly run by `now`.
    #[must_use]
    pub fn true_running(&self, lease: &LeaseId, now: u64) -> u64 {
        let current = match self.containers.get(lease).map(|c| c.doing) {
            Some(Doing::Running(since)) => now - since,
            Some(Doing::Created | Doing::Exited(..)) | None => 0,
        };
        self.ran.get(lease).copied().unwrap_or(0) + current
    }

    fn end_run(&mut self, lease: LeaseId, code: i32, by: Cause, now: u64) -> bool {
        let Some(container) = self.containers.get_mut(&lease) else {
            return false;
        };
        let Doing::Running(since) = container.doing else {
            return false;
        };
        container.doing = Doing::Exited(code, by);
        *self.ran.entry(lease).or_insert(0) += now - since;
        true
    }

    /// Ends every run, as an engine that stops without live-restore does.
    pub fn kill_all(&mut self, now: u64) -> Vec<LeaseId> {
        let ids: Vec<LeaseId> = self.containers.keys().copied().collect();
        ids.into_iter().filter(|id| self.end_run(*id, 137, Cause::Engine, now)).collect()
    }

    /// Carries a step out. Returns what to report, and after how long the command will end by itself if it has just started.
    ///
    /// `placed` is what its host has signed for its newest start, on disk.
    ///
    /// # Errors
    /// The invariant that broke.
    pub fn step(
        &mut self,
        lease: LeaseId,
        step: Step,
        placed: Option<&Placed>,
        dice: &mut Dice,
        now: u64,
    ) -> Result<Carried, String> {
        let order = match step {
            Step::Exit(start) => {
                let current = self.containers.get(&lease).is_some_and(|c| c.start == start);
                let ended = current && self.end_run(lease, 0, Cause::Guest, now);
                let report = RuntimeReport::Exited { code: 0, by: Cause::Guest, note: String::new() };
                return Ok((ended.then_some(report), None));
            }
            Step::Order(order) => *order,
        };
        let report = match order {
            RuntimeOrder::Prepare { devices, .. } => {
                if self.containers.contains_key(&lease) {
                    Some(RuntimeReport::Prepared)
                } else if dice.permille(self.failing) {
                    Some(RuntimeReport::Failed { reason: EndReason::ImageFailed, note: "no such image".to_owned() })
                } else {
                    self.made.insert(lease);
                    self.containers
                        .insert(lease, Container { doing: Doing::Created, devices, slots: Vec::new(), start: 0 });
                    Some(RuntimeReport::Prepared)
                }
            }
            RuntimeOrder::Start { devices } => return self.start(lease, devices, placed, dice, now),
            RuntimeOrder::Notice(_) => None,
            RuntimeOrder::Stop(_) => {
                let ended = self.end_run(lease, 143, Cause::Renter, now);
                Some(if ended {
                    RuntimeReport::Exited { code: 143, by: Cause::Renter, note: String::new() }
                } else {
                    RuntimeReport::NotRunning
                })
            }
            RuntimeOrder::Destroy => {
                self.end_run(lease, 137, Cause::Host, now);
                self.containers.remove(&lease);
                Some(RuntimeReport::Destroyed)
            }
            RuntimeOrder::CreateVolume { disk_mb } => {
                if !self.volumes.contains_key(&lease) && dice.permille(self.failing) {
                    Some(RuntimeReport::Failed { reason: EndReason::CreateFailed, note: "no disk".to_owned() })
                } else {
                    self.volumes.insert(lease, disk_mb);
                    Some(RuntimeReport::Prepared)
                }
            }
            RuntimeOrder::AdoptVolume if self.volumes.contains_key(&lease) => Some(RuntimeReport::Prepared),
            RuntimeOrder::AdoptVolume => Some(RuntimeReport::Missing),
            RuntimeOrder::DestroyVolume => {
                self.volumes.remove(&lease);
                Some(RuntimeReport::Destroyed)
            }
            RuntimeOrder::Adopt { .. } => Some(match self.containers.get(&lease).map(|c| c.doing) {
                None => RuntimeReport::Missing,
                Some(Doing::Created) => RuntimeReport::Prepared,
                Some(Doing::Running(_)) => RuntimeReport::Started,
                Some(Doing::Exited(code, by)) => RuntimeReport::Exited { code, by, note: String::new() },
            }),
        };
        Ok((report, None))
    }

    fn start(
        &mut self,
        lease: LeaseId,
        devices: Vec<String>,
        placed: Option<&Placed>,
        dice: &mut Dice,
        now: u64,
    ) -> Result<Carried, String> {
        let failed = |note: &str| RuntimeReport::Failed { reason: EndReason::CreateFailed, note: note.to_owned() };
        let Some(container) = self.containers.get_mut(&lease) else {
            return Ok((Some(failed("no such container")), None));
        };
        if matches!(container.doing, Doing::Running(_)) {
            return Ok((None, None));
        }
        if dice.permille(self.failing) {
            return Ok((Some(failed("the engine refused")), None));
        }
        container.devices.clone_from(&devices);
        if let Some(placed) = placed {
            if placed.devices != devices {
                return Err(format!("one-slot-one-lease: {} starts with devices not signed for", lease.short()));
            }
            if let Some(slot) = placed.slots.iter().find(|slot| !self.locks.get(slot).is_some_and(Option::is_some)) {
                return Err(format!(
                    "one-slot-one-lease: {} starts in slot {slot}, which is not locked",
                    lease.short()
                ));
            }
            container.slots.clone_from(&placed.slots);
        }
        let wanted: BTreeSet<&String> = devices.iter().collect();
        let slots = container.slots.clone();
        for (other, c) in &self.containers {
            let shared = c.devices.iter().any(|d| wanted.contains(d)) || c.slots.iter().any(|s| slots.contains(s));
            if *other != lease && shared && matches!(c.doing, Doing::Running(_)) {
                return Err(format!(
                    "one-slot-one-lease: {} starts with devices that {} runs with",
                    lease.short(),
                    other.short()
                ));
            }
        }
        let Some(container) = self.containers.get_mut(&lease) else {
            return Ok((None, None));
        };
        container.start += 1;
        container.doing = Doing::Running(now);
        let ends_after = if dice.permille(500) { dice.range(50, 120_000) } else { u64::MAX / 4 };
        Ok((Some(RuntimeReport::Started), Some((container.start, ends_after))))
    }

    /// Locks all of these slots for a lease of the node, or none. The locks are the node's: its leases pass them on.
    pub fn lock(&mut self, lease: LeaseId, slots: &[u16]) -> bool {
        let free = slots.iter().all(|n| self.locks.get(n).is_none_or(Option::is_some));
        if free {
            for n in slots {
                self.locks.insert(*n, Some(lease));
            }
        }
        free
    }

    /// Unlocks slots of the node.
    pub fn unlock(&mut self, slots: &[u16]) {
        for n in slots {
            if self.locks.get(n).is_some_and(Option::is_some) {
                self.locks.remove(n);
            }
        }
    }

    /// The node died, and its locks with it.
    pub fn node_died(&mut self) {
        self.locks.retain(|_, holder| holder.is_none());
        self.busy_until.clear();
    }
}
