//! Compacts the ledger beside its thread: begins when there is enough to gain, and takes each step between two groups.
//!
//! Owns when and in which order; [`crate::compact`] does the work, in a thread of its own so that appends go on.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    commit::{Ledger, StoreFailure},
    compact::{Built, CompactError, Plan, Prepared, Stop},
    compacted::{Asker, Compacted, NotCompacted},
    thread::Event,
};

/// Who asks hears nothing for longer than this while the checkpoint is not signed.
const SIGNED_WITHIN: Duration = Duration::from_secs(60);
/// Who asks is answered so long after the end at the latest, though replaced files are still being read.
const SWEPT_WITHIN: Duration = Duration::from_secs(10);

/// The state of a ledger's compaction.
#[derive(Debug, Default)]
pub(crate) struct Housekeeping {
    step: Step,
    stop: Stop,
    /// The segment up to which the last attempt failed: not tried again until there are more.
    failed: Option<u64>,
    asked: Option<Asked>,
}

/// Somebody waits for the end.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    /// Bytes of the ledger then.
    bytes: u64,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    Preparing(u64, Working<Option<Prepared>>),
    /// For the checkpoint to be in our chain.
    Waiting(u64, Box<Prepared>, Instant),
    Building(u64, Working<Built>, Done),
    /// For what was replaced to be gone, so that whoever asked hears how much that was.
    Sweeping(Done, Instant),
}

/// What was done, as far as it is known before the end.
#[derive(Debug, Clone, Copy)]
struct Done {
    records: u64,
    kept: u64,
    up_to: u64,
    entries_kept: u64,
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
    /// Whether something goes on whose end is to be looked for often.
    pub(crate) const fn is_working(&self) -> bool {
        matches!(self.step, Step::Preparing(..) | Step::Building(..) | Step::Sweeping(..))
    }

    /// Whether there is something to look for after each group.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self.step, Step::Idle) && self.asked.is_none()
    }

    /// Somebody wants it to begin now, or to hear how what has begun ends.
    pub(crate) fn ask(&mut self, asker: Option<Asker>, ledger: &Ledger) {
        match (asker, &self.asked) {
            (None, _) => {}
            (Some(asker), Some(_)) => asker.answer(Err(NotCompacted::Asked)),
            (Some(asker), None) => match ledger.disk_bytes() {
                Ok(bytes) => self.asked = Some(Asked { asker, bytes }),
                Err(error) => asker.answer(Err(NotCompacted::Failed(error.to_string()))),
            },
        }
    }

    fn answer(&mut self, what: Result<Compacted, NotCompacted>) {
        if let Some(asked) = self.asked.take() {
            asked.asker.answer(what);
        }
    }

    /// Goes on, if it can. Nothing may be staged. If somebody has asked, it begins whether or not it is worth it.
    pub(crate) fn go_on(&mut self, ledger: &mut Ledger, report: &dyn Fn(Event)) -> Result<(), StoreFailure> {
        self.step = match std::mem::take(&mut self.step) {
            Step::Idle => {
                ledger.sweep();
                let asked = self.asked.is_some();
                match ledger.plan(asked)? {
                    Some(plan) if asked || self.failed != Some(plan.segment) => self.prepare(plan),
                    Some(_) | None => {
                        self.answer(Err(NotCompacted::Nothing));
                        Step::Idle
                    }
                }
            }
            Step::Preparing(segment, working) if working.thread.is_finished() => {
                let began = working.began;
                match working.join() {
                    Ok(Some(prepared)) if self.asked.is_some() && !prepared.gains() => {
                        prepared.discard();
                        self.answer(Err(NotCompacted::Nothing));
                        Step::Idle
                    }
                    Ok(Some(prepared)) => {
                        let (records, kept) = prepared.records();
                        let took = began.elapsed();
                        tracing::info!(segment, records, kept, ?took, "the oldest part of the journal can be replaced");
                        if ledger.checkpoint()?.as_ref() != Some(prepared.checkpoint()) {
                            report(Event::Checkpoint(Box::new(prepared.checkpoint().clone())));
                        }
                        Step::Waiting(segment, Box::new(prepared), Instant::now())
                    }
                    Ok(None) => {
                        self.answer(Err(NotCompacted::Nothing));
                        Step::Idle
                    }
                    Err(why) => self.fail(segment, &why),
                }
            }
            Step::Waiting(segment, prepared, since) => {
                if ledger.checkpoint()?.as_ref() == Some(prepared.checkpoint()) {
                    self.build(segment, *prepared, ledger)
                } else {
                    if since.elapsed() > SIGNED_WITHIN {
                        self.answer(Err(NotCompacted::Unsigned));
                    }
                    Step::Waiting(segment, prepared, since)
                }
            }
            Step::Building(segment, working, done) if working.thread.is_finished() => match working.join() {
                Ok(built) => {
                    ledger.install(built)?;
                    tracing::info!(segment, "replaced the oldest part of the journal");
                    if self.asked.is_some() { Step::Sweeping(done, Instant::now()) } else { Step::Idle }
                }
                Err(why) => self.fail(segment, &why),
            },
            Step::Sweeping(done, since) => {
                ledger.sweep();
                if ledger.has_replaced() && since.elapsed() < SWEPT_WITHIN {
                    Step::Sweeping(done, since)
                } else {
                    self.finish(ledger, done)?;
                    Step::Idle
                }
            }
            working @ (Step::Preparing(..) | Step::Building(..)) => working,
        };
        Ok(())
    }

    /// Tells whoever asked what was done.
    fn finish(&mut self, ledger: &Ledger, done: Done) -> Result<(), StoreFailure> {
        let Some(asked) = self.asked.take() else {
            return Ok(());
        };
        let compacted = Compacted {
            bytes_before: asked.bytes,
            bytes_after: ledger.disk_bytes()?,
            still_read: ledger.has_replaced(),
            records: done.records,
            dropped: done.records.saturating_sub(done.kept),
            checkpoint: ledger.checkpoint_seq()?.unwrap_or_default(),
            up_to: done.up_to,
            entries_kept: done.entries_kept,
        };
        asked.asker.answer(Ok(compacted));
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
        let ((records, kept), checkpoint) = (prepared.records(), prepared.checkpoint());
        let done = Done { records, kept, up_to: checkpoint.seq, entries_kept: checkpoint.kept };
        match Working::begin(move || prepared.build(&stop, durable)) {
            Some(working) => Step::Building(segment, working, done),
            None => self.fail(segment, "the system has no thread left"),
        }
    }

    fn fail(&mut self, segment: u64, why: &str) -> Step {
        tracing::warn!(segment, why, "the journal was not compacted; it is as it was, and tried again later");
        self.failed = Some(segment);
        self.answer(Err(NotCompacted::Failed(why.to_owned())));
        Step::Idle
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        self.stop.stop();
        match std::mem::take(&mut self.step) {
            Step::Preparing(_, working) => drop(working.join()),
            Step::Building(_, working, _) => drop(working.join()),
            Step::Idle | Step::Waiting(..) | Step::Sweeping(..) => {}
        }
    }
}
