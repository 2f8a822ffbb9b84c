//! The market task's side of the idle job, and of other nodes' slots: what holds a rental's start back until its slots are clear.
//!
//! Owns the orders held back. Which idle containers there are is [`IdleJob`]'s; which slots it may use is the engine's to say.

use std::time::{Duration, Instant};

use souk_protocol::{
    LeaseId,
    machine::io::{Input, RuntimeOrder},
    negotiation::{ImagePin as Pin, Reject},
};
use souk_runtime::{Devices, ImagePin, InstanceEvent, Runtime, RuntimeReport as ContainerReport};
use tokio::sync::mpsc;

use super::{
    command::CommandError,
    containers,
    hosting::not_a_host,
    task::{Internal, Market},
};
use crate::{
    api::types::{IdleJobRequest, IdleJobView, IdleSlotView, IdleState},
    host::{
        idle::{Doing, IdleJob, Order, instance},
        instances,
    },
};

/// Between two looks whether another node's idle job has left a slot.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at the slots that other nodes of this machine hold.
const FOREIGN_EVERY: Duration = Duration::from_secs(2);
/// Between two attempts to find an image.
const FIND_AGAIN: Duration = Duration::from_secs(60);
/// How long a stop waits for the idle containers to be gone.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The idle job, and what waits for it to leave.
#[derive(Debug, Default)]
pub(super) struct IdleSide {
    job: IdleJob,
    /// What the image's name stands for.
    image: Option<ImagePin>,
    problem: Option<String>,
    find_at: Option<Instant>,
    /// Orders that wait until their leases' slots are clear, in order.
    held: Vec<(LeaseId, RuntimeOrder)>,
    look_at: Option<Instant>,
    /// When to look again which slots other nodes hold.
    foreign_at: Option<Instant>,
}

impl IdleSide {
    /// When it wants to be woken.
    pub(super) fn wake(&self) -> tokio::time::Instant {
        let look = self.look_at.filter(|_| !self.held.is_empty());
        let foreign = self.foreign_at.unwrap_or_else(Instant::now);
        let due = [self.job.deadline(), self.find_at, look].into_iter().flatten().fold(foreign, Instant::min);
        tokio::time::Instant::from_std(due)
    }
}

impl Market {
    /// Carries an order out, or holds it back: nothing of a lease is made or started while an idle job may be on its slots, this
    /// node's or another's.
    pub(super) fn order(&mut self, lease: LeaseId, order: RuntimeOrder) {
        match &order {
            RuntimeOrder::Prepare { .. } | RuntimeOrder::Start { .. } if self.runtime.is_some() => {
                let slots = self.engine.host().slots().of(&lease);
                self.idle.job.leave(&slots, Instant::now());
                self.carry_idle();
                if self.waits(lease) || !self.is_clear(lease) {
                    self.idle.held.retain(|(of, held)| *of != lease || !same_kind(held, &order));
                    self.idle.held.push((lease, order));
                    self.idle.look_at = Some(Instant::now() + LOOK_EVERY);
                    return;
                }
            }
            RuntimeOrder::Notice(_) if self.waits(lease) => return,
            // What was to be started before is not to be any more.
            RuntimeOrder::Stop(_) | RuntimeOrder::Destroy => self.idle.held.retain(|(of, _)| *of != lease),
            RuntimeOrder::Prepare { .. }
            | RuntimeOrder::Start { .. }
            | RuntimeOrder::Notice(_)
            | RuntimeOrder::Adopt { .. }
            | RuntimeOrder::CreateVolume { .. }
            | RuntimeOrder::AdoptVolume
            | RuntimeOrder::DestroyVolume => {}
        }
        self.give(lease, order);
    }

    fn waits(&self, lease: LeaseId) -> bool {
        self.idle.held.iter().any(|(of, _)| *of == lease)
    }

    fn is_clear(&self, lease: LeaseId) -> bool {
        let slots = self.engine.host().slots().of(&lease);
        self.idle.job.is_clear_of(&slots) && !self.locks.idle_elsewhere(&slots)
    }

    /// Gives the orders whose slots are clear now.
    fn release(&mut self) {
        for (lease, order) in std::mem::take(&mut self.idle.held) {
            if !self.waits(lease) && self.is_clear(lease) {
                self.give(lease, order);
            } else {
                self.idle.held.push((lease, order));
            }
        }
        self.idle.look_at = (!self.idle.held.is_empty()).then(|| Instant::now() + LOOK_EVERY);
    }

    /// The engine says which slots the job may use.
    pub(super) fn idle_slots(&mut self, slots: &[u16]) {
        let all = self.engine.host().slots().all();
        let devices = |slot: &u16| {
            let device = all.get(usize::from(*slot)).and_then(|s| s.device.clone());
            (*slot, device.map_or_else(Devices::default, |device| instances::devices(&[device])))
        };
        let allowed: Vec<_> = slots.iter().map(devices).collect();
        self.idle.job.allow(allowed, Instant::now());
        self.carry_idle();
    }

    /// News of an idle container.
    pub(super) fn idle_report(&mut self, slot: u16, event: &InstanceEvent) {
        self.idle.job.report(slot, event, Instant::now());
        self.carry_idle();
    }

    /// What an earlier run of this node left is gone.
    pub(super) fn idle_cleaned(&mut self) {
        self.idle.job.cleaned(Instant::now());
        self.carry_idle();
    }

    /// Time has passed.
    pub(super) fn idle_wake(&mut self) {
        let now = Instant::now();
        if self.idle.foreign_at.is_none_or(|at| at <= now) {
            self.idle.foreign_at = Some(now + FOREIGN_EVERY);
            self.look_for_foreign();
        }
        if self.idle.find_at.is_some_and(|at| at <= now) {
            self.refresh_idle();
        }
        self.idle.job.advance(now);
        self.carry_idle();
    }

    /// Gives the job's orders to the runtime, lets go of locks it needs no more, and releases what waited for it.
    fn carry_idle(&mut self) {
        while let Some(order) = self.idle.job.next_order() {
            let Some(runtime) = self.runtime.clone() else { continue };
            let (slot, given) = match order {
                Order::Prepare(spec) => {
                    let slot = crate::host::idle::slot_of(&spec.lease).unwrap_or(u16::MAX);
                    (slot, runtime.prepare(*spec))
                }
                Order::Start { slot, devices } => match self.locks.lock_idle(slot) {
                    Ok(true) => (slot, runtime.start_on(&instance(slot), devices)),
                    Ok(false) => {
                        self.idle.job.refused(slot, "another node of this machine uses the slot", Instant::now());
                        continue;
                    }
                    Err(error) => {
                        let why = format!("the slot's lock file can't be made: {error}");
                        self.idle.job.refused(slot, &why, Instant::now());
                        continue;
                    }
                },
                Order::Kill { slot } => (slot, runtime.kill(&instance(slot))),
                Order::Destroy { slot } => (slot, runtime.destroy(&instance(slot))),
            };
            if let Err(error) = given {
                // A kill or removal that was not taken is ordered again by itself.
                self.idle.job.refused(slot, &format!("{:#}", anyhow::Error::from(error)), Instant::now());
            }
        }
        self.locks.keep_idle(&self.idle.job.slots_in_use());
        if !self.idle.held.is_empty() {
            self.release();
        }
    }

    /// Looks which slots other nodes of this machine hold, and tells the engine what is new.
    fn look_for_foreign(&mut self) {
        let count = self.engine.host().slots().total();
        if self.host.is_none() || count == 0 {
            return;
        }
        let slots: Vec<u16> = (0..count).collect();
        let foreign = self.locks.foreign(&slots);
        // Against what the engine holds now: it marks slots by itself where a lock was not to be had, and forgets in a new cut.
        let all = self.engine.host().slots().all();
        let differs = (0u16..).zip(all).any(|(n, s)| s.foreign != (s.lease.is_none() && foreign.contains(&n)));
        if differs {
            self.input(Input::Foreign { slots: foreign });
        }
    }

    /// Takes over what the owner wants to run; its image is looked up where it isn't known.
    pub(super) fn refresh_idle(&mut self) {
        self.idle.find_at = None;
        let Some(host) = &self.host else { return };
        let wanted = host.config().host.idle_job.image.clone();
        let Some(wanted) = wanted else {
            self.idle.image = None;
            self.idle.problem = None;
            self.idle.job.set(None, Instant::now());
            return self.carry_idle();
        };
        let Some(runtime) = self.runtime.clone() else { return };
        match self.idle.image.clone().filter(|image| image.reference == wanted) {
            Some(image) => {
                let job = host.idle_job(image, &runtime.info());
                self.idle.job.set(Some(job), Instant::now());
                self.carry_idle();
            }
            None => {
                let internal = self.internal.clone();
                tokio::spawn(async move {
                    // Its own work is the owner's choice: the lists are for renters.
                    let any = crate::config::Images::default();
                    let result = containers::resolve_image(Some(&runtime), &any, (&wanted, None), None).await;
                    internal.send(Internal::IdleImage { reference: wanted, result }).await.ok();
                });
            }
        }
    }

    /// The job's image was found, or not.
    pub(super) fn idle_image(&mut self, reference: String, result: Result<Pin, Reject>) {
        let wanted = self.host.as_ref().and_then(|host| host.config().host.idle_job.image.as_ref());
        if wanted != Some(&reference) {
            return;
        }
        match result {
            Ok(pin) => {
                self.idle.problem = None;
                self.idle.image = Some(ImagePin { reference: pin.reference, digest: pin.digest });
                self.refresh_idle();
            }
            Err(reject) => {
                tracing::warn!(image = reference, "the idle job can't run: {reject}");
                self.idle.problem = Some(reject.to_string());
                self.idle.find_at = Some(Instant::now() + FIND_AGAIN);
            }
        }
    }

    /// Sets the job where asked to, and tells what there is.
    pub(super) fn idle_job(&mut self, request: Option<IdleJobRequest>) -> Result<IdleJobView, CommandError> {
        if let Some(request) = request {
            self.host.as_mut().ok_or_else(not_a_host)?.set_idle_job(request)?;
            // A tag may stand for another image by now.
            self.idle.image = None;
            self.refresh_idle();
        }
        let settings = &self.host.as_ref().ok_or_else(not_a_host)?.config().host.idle_job;
        let state = |doing| match doing {
            Doing::Preparing => IdleState::Preparing,
            Doing::Running => IdleState::Running,
            Doing::Ending => IdleState::Ending,
            Doing::Waiting => IdleState::Waiting,
            Doing::Away => IdleState::Away,
        };
        let slots = self.idle.job.doings().map(|(slot, doing, note)| IdleSlotView {
            slot,
            state: state(doing),
            note: note.map(str::to_owned),
        });
        Ok(IdleJobView {
            image: settings.image.clone(),
            digest: self.idle.image.as_ref().map(|image| image.digest.clone()),
            command: settings.command.clone(),
            problem: self.idle.problem.clone(),
            slots: slots.collect(),
        })
    }

    /// Before the node stops: its idle containers go, as nobody would take them from a slot that is sold meanwhile.
    pub(super) async fn end_idle(&mut self, reports: &mut Option<mpsc::Receiver<ContainerReport>>) {
        self.idle.job.set(None, Instant::now());
        self.carry_idle();
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        while let (Some(reports), false) = (reports.as_mut(), self.idle.job.slots_in_use().is_empty()) {
            match tokio::time::timeout_at(deadline, reports.recv()).await {
                Ok(Some(ContainerReport::Instance { lease, event })) => {
                    if let Some(slot) = crate::host::idle::slot_of(&lease) {
                        self.idle_report(slot, &event);
                    }
                }
                Ok(Some(ContainerReport::EngineDown | ContainerReport::EngineUp | ContainerReport::Volume { .. })) => {}
                Ok(None) | Err(_) => {
                    tracing::warn!("the idle job may still run: the container engine is slow");
                    return;
                }
            }
        }
    }
}

fn same_kind(a: &RuntimeOrder, b: &RuntimeOrder) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}
