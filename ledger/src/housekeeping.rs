//! Compacts the ledger beside its thread: begins when there is enough to gain, and takes each step between two groups.
//!
//! Owns when and in which order; [`crate::compact`] does the work, in a thread of its own so that appends go on.

use std::{
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{
    commit::{Ledger, StoreFailure},
    compact::{Built, CompactError, Plan, Prepared, Stop},
    thread::Event,
};

/// The state of a ledger's compaction.
#[derive(Debug, Default)]
pub(crate) struct Housekeeping {
    step: Step,
    stop: Stop,
    /// The segment up to which the last attempt failed: not tried again until there are more.
    failed: Option<u64>,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    Preparing(u64, Working<Option<Prepared>>),
    /// For the checkpoint to be in our chain.
    Waiting(u64, Box<Prepared>),
    Building(u64, Working<Built>),
}

#[derive(Debug)]
struct Working<T> {
    thread: JoinHandle<Result<T, CompactError>>,
    began: Instant,
}

impl<T: Send + 'static> Working<T> {
    fn begin(work: impl FnOnce() -> Result<T, CompactError> + Send + 'static) -> Option<Self> {
        let thread = thread::Builder::new().name("compaction".to_owned()).spawn(work).ok()?;
        Some(Self { thread, began: Instant::now() })
    }

    fn join(self) -> Result<T, String> {
        match self.thread.join() {
            Ok(done) => done.map_err(|e| e.to_string()),
            Err(_) => Err("it ended by a panic".to_owned()),
        }
    }
}

impl Housekeeping {
    /// Whether another thread is at work, whose end is to be looked for.
    pub(crate) const fn is_working(&self) -> bool {
        matches!(self.step, Step::Preparing(..) | Step::Building(..))
    }

    /// Whether there is something to look for after each group.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle)
    }

    /// Goes on, if it can. Nothing may be staged. With `asked`, begins whether or not it is worth it.
    pub(crate) fn go_on(
        &mut self,
        ledger: &mut Ledger,
        asked: bool,
        report: &dyn Fn(Event),
    ) -> Result<(), StoreFailure> {
        self.step = match std::mem::take(&mut self.step) {
            Step::Idle => {
                ledger.sweep();
                match ledger.plan(asked)? {
                    Some(plan) if asked || self.failed != Some(plan.segment) => self.prepare(plan),
                    Some(_) | None => Step::Idle,
                }
            }
            Step::Preparing(segment, working) if working.thread.is_finished() => {
                let began = working.began;
                match working.join() {
                    Ok(Some(prepared)) => {
                        let (records, kept) = prepared.records();
                        let took = began.elapsed();
                        tracing::info!(segment, records, kept, ?took, "the oldest part of the journal can be replaced");
                        if ledger.checkpoint()?.as_ref() != Some(prepared.checkpoint()) {
                            report(Event::Checkpoint(Box::new(prepared.checkpoint().clone())));
                        }
                        Step::Waiting(segment, Box::new(prepared))
                    }
                    Ok(None) => Step::Idle,
                    Err(why) => self.fail(segment, &why),
                }
            }
            Step::Waiting(segment, prepared) => {
                if ledger.checkpoint()?.as_ref() == Some(prepared.checkpoint()) {
                    self.build(segment, *prepared, ledger)
                } else {
                    Step::Waiting(segment, prepared)
                }
            }
            Step::Building(segment, working) if working.thread.is_finished() => match working.join() {
                Ok(built) => {
                    ledger.install(built)?;
                    tracing::info!(segment, "replaced the oldest part of the journal");
                    Step::Idle
                }
                Err(why) => self.fail(segment, &why),
            },
            working @ (Step::Preparing(..) | Step::Building(..)) => working,
        };
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Step {
        let (segment, stop) = (plan.segment, self.stop.clone());
        match Working::begin(move || plan.prepare(&stop)) {
            Some(working) => Step::Preparing(segment, working),
            None => self.fail(segment, "the system has no thread left"),
        }
    }

    fn build(&mut self, segment: u64, prepared: Prepared, ledger: &Ledger) -> Step {
        let (stop, durable) = (self.stop.clone(), ledger.durable_end());
        match Working::begin(move || prepared.build(&stop, durable)) {
            Some(working) => Step::Building(segment, working),
            None => self.fail(segment, "the system has no thread left"),
        }
    }

    fn fail(&mut self, segment: u64, why: &str) -> Step {
        tracing::warn!(segment, why, "the journal was not compacted; it is as it was, and tried again later");
        self.failed = Some(segment);
        Step::Idle
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop.stop();
        match std::mem::take(&mut self.step) {
            Step::Preparing(_, working) => drop(working.join()),
            Step::Building(_, working) => drop(working.join()),
            Step::Idle | Step::Waiting(..) => {}
        }
    }
}
