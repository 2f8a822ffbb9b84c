//! One worker a lease: carries out its commands in order, and reports what is true.
//!
//! The truth is what an inspection of the container says; engine events only say when to look. Each start and each end is
//! reported once, found live or after an outage. The worker decides nothing: it does what it is told, and stops by itself only an
//! instance that overflows its disk, because there the host is at risk.

mod adopt;
mod disk;
mod files;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::RuntimeError;
use crate::files_only::{FilesOnly, Users};
use crate::image;
use crate::incoming;
use crate::instance::{Instance, Observed, ObservedState};
use crate::report::{Exit, ExitCause, FailureCode, InstanceEvent, RuntimeReport, Step};
use crate::runtime::Adopted;
use crate::shared::Shared;
use crate::spec::{Devices, InstanceSpec};
use crate::usage::{Meter, TunnelMeter, Usage};

/// Commands that wait for one worker. When full the sender is told `Busy`.
pub(crate) const COMMANDS: usize = 16;
/// An exit may lie so far before its outage.
const OUTAGE_SLACK_NANOS: u64 = 2_000_000_000;
/// Exit code of a process that SIGKILL ended.
const KILLED: i64 = 137;
/// The exit code of a process ended by SIGTERM.
const TERMINATED: i64 = 143;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    Prepare(Box<InstanceSpec>),
    /// With the devices it has, or with these.
    Start(Option<Devices>),
    Notice(Option<String>),
    Stop {
        grace_ms: u64,
    },
    Kill,
    Destroy,
    /// Makes a stopped instance run for its files alone; none where it runs by itself.
    FilesOnly(oneshot::Sender<Result<Option<FilesOnly>, RuntimeError>>),
    Usage(oneshot::Sender<Usage>),
    Adopt(oneshot::Sender<Result<Adopted, FailureCode>>),
}

/// What the event stream tells a worker.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) look: Notify,
    pub(crate) oom: AtomicBool,
    pub(crate) tunnel: Arc<TunnelMeter>,
    pub(crate) entrance: crate::dial::Entrance,
    pub(crate) files_only: Users,
}

/// The worker's end of the map in [`Shared`].
#[derive(Debug, Clone)]
pub(crate) struct WorkerHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) wake: Arc<Wake>,
}

pub(crate) struct Worker {
    instance: Instance,
    shared: Arc<Shared>,
    reports: mpsc::Sender<RuntimeReport>,
    commands: mpsc::Receiver<Command>,
    backlog: VecDeque<Command>,
    wake: Arc<Wake>,
    meter: Meter,
    /// The state last reported; `None` where no container is known.
    known: Option<ObservedState>,
    stop_asked: bool,
    disk_mb: Option<u64>,
    disk_full_told: bool,
    /// A notice was written that the next run must not find.
    noticed: bool,
    disk_nearly_full: bool,
    /// Bytes that were written beyond the granted disk before a run for files alone.
    overfull: Option<u64>,
}

/// Parts in a hundred of the granted disk from which on it is nearly full.
const NEARLY_FULL: u128 = 90;
/// Parts in a hundred below which it is not any more.
const EASED: u128 = 80;

/// What to do when the backlog has a command while something long runs.
enum Interruption {
    None,
    End,
}

impl Worker {
    /// Starts a worker and gives its handle.
    pub(crate) fn spawn(shared: &Arc<Shared>, lease: &str) -> WorkerHandle {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let instance = Instance::new(Arc::clone(&shared.engine), lease);
        let wake = Arc::new(Wake::default());
        let names = &instance.names;
        let tunnel = Arc::clone(&wake.tunnel);
        let meter = Meter::open(&shared.engine.config.data_dir, &names.short, &names.bridge, tunnel);
        let worker = Self {
            instance,
            shared: Arc::clone(shared),
            reports: shared.reports.clone(),
            commands,
            backlog: VecDeque::new(),
            wake: Arc::clone(&wake),
            meter,
            known: None,
            stop_asked: false,
            disk_mb: None,
            disk_full_told: false,
            noticed: false,
            disk_nearly_full: false,
            overfull: None,
        };
        let stop = shared.stop.clone();
        shared.tasks.spawn(worker.run(stop));
        WorkerHandle { commands: sender, wake }
    }

    async fn run(mut self, stop: CancellationToken) {
        self.serve(stop).await;
        if self.wake.files_only.stands()
            && let Err(code) = self.end_files_only().await
        {
            tracing::warn!(?code, lease = %self.instance.lease, "a run for files goes on; the next node ends it");
        }
    }

    async fn serve(&mut self, stop: CancellationToken) {
        let period = Duration::from_secs(self.shared.engine.config.check_seconds);
        let mut disk_check = tokio::time::interval(period);
        disk_check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let command = match self.backlog.pop_front() {
                Some(command) => command,
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    command = self.commands.recv() => match command {
                        Some(command) => command,
                        None => return,
                    },
                    () = self.wake.look.notified() => {
                        self.look().await;
                        continue;
                    }
                    _ = disk_check.tick() => {
                        self.check_disk().await;
                        continue;
                    }
                },
            };
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.carry_out(command) => ended,
            };
            if ended && self.backlog.is_empty() && self.shared.retire(&self.instance.lease, &self.commands) {
                return;
            }
        }
    }

    /// Carries out one command; true when the instance is gone for good.
    async fn carry_out(&mut self, command: Command) -> bool {
        let Some(command) = self.after_files_only(command).await else { return false };
        match command {
            // Whoever asked may be gone: then the guard goes, and wakes this worker.
            Command::FilesOnly(answer) => drop(answer.send(self.files_only().await)),
            Command::Prepare(spec) => self.prepare(&spec).await,
            Command::Start(devices) => self.start(devices).await,
            Command::Notice(text) => self.notice(text).await,
            Command::Stop { grace_ms } => self.stop(grace_ms).await,
            Command::Kill => self.kill().await,
            Command::Destroy => return self.destroy().await,
            Command::Usage(answer) => {
                let _ = answer.send(self.meter.read());
            }
            Command::Adopt(answer) => {
                let _ = answer.send(self.adopt().await);
            }
        }
        false
    }

    async fn report(&self, event: InstanceEvent) {
        let report = RuntimeReport::Instance { lease: self.instance.lease.clone(), event };
        // Facts wait for the reader; only a reader that is gone loses them.
        let _ = self.reports.send(report).await;
    }

    async fn fail(&self, step: Step, code: FailureCode) {
        tracing::info!(lease = %self.instance.lease, ?step, ?code, "step failed");
        self.report(InstanceEvent::Failed(code.at(step))).await;
    }

    async fn prepare(&mut self, spec: &InstanceSpec) {
        let info = self.shared.engine.info();
        if spec.check().is_err() || spec.lease != self.instance.lease {
            return self.fail(Step::Check, FailureCode::SpecInvalid).await;
        }
        if !info.egress.contains(&spec.egress) {
            return self.fail(Step::Check, FailureCode::FirewallUnavailable).await;
        }
        if !spec.source.is_open()
            && let Some(image_bytes) = self.instance.made_from(spec).await
        {
            // What the renter gave for its image is not asked for a second time.
            self.disk_mb = Some(spec.disk_mb);
            return self.report(InstanceEvent::Prepared { image_bytes }).await;
        }
        let engine = Arc::clone(&self.shared.engine);
        let reports = self.reports.clone();
        let lease = self.instance.lease.clone();
        let pull = async {
            image::ensure(&engine, spec, |progress| {
                let report =
                    RuntimeReport::Instance { lease: lease.clone(), event: InstanceEvent::PullProgress(progress) };
                let _ = reports.try_send(report);
            })
            .await
        };
        tokio::pin!(pull);
        let image = loop {
            tokio::select! {
                image = &mut pull => break Some(image),
                interruption = self.collect() => if let Interruption::End = interruption { break None },
            }
        };
        engine.logins.forget(&self.instance.lease);
        let image = match image {
            Some(Ok(image)) => image,
            Some(Err(error)) => return self.fail(Step::Pull, error.code()).await,
            None => return self.fail(Step::Pull, FailureCode::Cancelled).await,
        };
        match self.instance.create(spec, &image).await {
            Ok(()) => {
                self.disk_mb = Some(spec.disk_mb);
                self.known.get_or_insert(ObservedState::Created);
                self.report(InstanceEvent::Prepared { image_bytes: image.bytes }).await;
            }
            Err(code) => self.fail(Step::Create, code).await,
        }
    }

    /// Takes commands while something long runs: answers what can be answered, keeps the rest in order.
    async fn collect(&mut self) -> Interruption {
        if self.backlog.len() >= COMMANDS {
            return std::future::pending().await;
        }
        let Some(command) = self.commands.recv().await else {
            return std::future::pending().await;
        };
        let ends = matches!(command, Command::Stop { .. } | Command::Kill | Command::Destroy);
        if let Command::Usage(answer) = command {
            let _ = answer.send(self.meter.read());
        } else {
            self.backlog.push_back(command);
        }
        if ends { Interruption::End } else { Interruption::None }
    }

    async fn start(&mut self, devices: Option<Devices>) {
        self.stop_asked = false;
        self.disk_full_told = false;
        self.wake.oom.store(false, Ordering::Relaxed);
        if let Some(devices) = devices
            && let Err(code) = self.place(&devices).await
        {
            return self.fail(Step::Start, code).await;
        }
        match self.instance.start().await {
            Ok(()) => {
                self.look().await;
                if std::mem::take(&mut self.noticed) {
                    self.notice(None).await;
                }
            }
            Err(code) => self.fail(Step::Start, code).await,
        }
    }

    /// Makes sure that the instance has these devices, moving it where it must. A stop or destroy ends the long part of that.
    async fn place(&mut self, devices: &Devices) -> Result<(), FailureCode> {
        let instance = self.instance.clone();
        let making = instance.make_successor(devices);
        tokio::pin!(making);
        let moves = loop {
            tokio::select! {
                moves = &mut making => break moves?,
                interruption = self.collect() => if let Interruption::End = interruption {
                    return Err(FailureCode::Cancelled);
                },
            }
        };
        if moves {
            instance.take_over().await?;
            tracing::info!(lease = %instance.lease, "moved to other devices");
            // The successor has not run yet; the end of its predecessor's last run was told.
            self.known = Some(ObservedState::Created);
        }
        Ok(())
    }

    async fn notice(&mut self, text: Option<String>) {
        if self.wake.files_only.stands() {
            return;
        }
        if !matches!(
            self.instance.observe(false).await,
            Ok(Some(Observed { state: ObservedState::Running { .. }, .. }))
        ) {
            return;
        }
        self.noticed |= text.is_some();
        let instance = self.instance.clone();
        let setting = instance.set_notice(text.as_deref());
        tokio::pin!(setting);
        let result = loop {
            tokio::select! {
                result = &mut setting => break result,
                // A guest that slows its notice down is stopped all the same.
                interruption = self.collect() => if let Interruption::End = interruption { return },
            }
        };
        if let Err(code) = result {
            tracing::info!(?code, lease = %instance.lease, "the notice could not be set inside the instance");
        }
    }

    async fn stop(&mut self, grace_ms: u64) {
        self.stop_asked = true;
        self.learn().await;
        let before = self.known;
        let instance = self.instance.clone();
        let stopping = instance.stop(grace_ms);
        tokio::pin!(stopping);
        let result = loop {
            tokio::select! {
                result = &mut stopping => break result,
                interruption = self.collect() => if let Interruption::End = interruption {
                    // A kill or destroy overtakes the grace; another stop changes nothing.
                    let overtaken = self.backlog.iter().any(|next| matches!(next, Command::Kill | Command::Destroy));
                    if overtaken && let Err(code) = instance.kill().await {
                        tracing::debug!(?code, lease = %instance.lease, "the kill during a stop was refused");
                    }
                },
            }
        };
        self.ended(before, result).await;
    }

    async fn kill(&mut self) {
        self.stop_asked = true;
        self.learn().await;
        let before = self.known;
        let mut result = self.instance.kill().await;
        if result.is_ok() {
            // The engine answers a kill before the process is gone; a stop without grace waits for it.
            result = self.instance.stop(0).await;
        }
        self.ended(before, result).await;
    }

    /// Before the first stop after a restart: what is there, so that an end of long ago is not told as this stop's doing, which
    /// would be taken for the end of a start that was asked for meanwhile.
    async fn learn(&mut self) {
        if self.known.is_none()
            && let Ok(Some(found)) = self.instance.observe(false).await
        {
            self.known = Some(found.state);
        }
    }

    /// After a stop or kill: what is true now, or that nothing changed.
    async fn ended(&mut self, before: Option<ObservedState>, result: Result<(), FailureCode>) {
        match result {
            Ok(()) => {
                self.look().await;
                let runs = matches!(self.known, Some(ObservedState::Running { .. }));
                if self.known == before && !runs {
                    self.report(InstanceEvent::NotRunning).await;
                }
            }
            Err(FailureCode::InstanceGone) => self.report(InstanceEvent::NotRunning).await,
            Err(code) => self.fail(Step::Stop, code).await,
        }
    }

    async fn destroy(&mut self) -> bool {
        self.stop_asked = true;
        // The last words of the processes are facts too: reported before the container is gone.
        if matches!(self.known, Some(ObservedState::Running { .. })) && self.instance.kill().await.is_ok() {
            let _ = self.instance.stop(0).await;
            self.look().await;
        }
        // The counters go with the network.
        let usage = self.meter.read();
        match self.instance.remove().await {
            Ok(()) => {
                self.known = None;
                if usage != Usage::default() {
                    self.report(InstanceEvent::Traffic(usage)).await;
                }
                self.meter.remove();
                self.report(InstanceEvent::Destroyed).await;
                let engine = &self.shared.engine;
                engine.logins.forget(&self.instance.lease);
                incoming::discard(engine, &self.instance.lease).await;
                engine.cache.collect(engine).await;
                true
            }
            Err(code) => {
                self.fail(Step::Destroy, code).await;
                false
            }
        }
    }

    /// Looks at the container and reports what is new.
    async fn look(&mut self) {
        if self.wake.files_only.stands() {
            return self.look_at_files_only().await;
        }
        match self.instance.observe(false).await {
            Ok(found) => self.tell(found).await,
            // The supervisor notices an engine that is down, and wakes everybody when it is back.
            Err(code) => tracing::debug!(?code, lease = %self.instance.lease, "can't look now"),
        }
    }

    async fn tell(&mut self, found: Option<Observed>) {
        let Some(found) = found else {
            if self.known.take().is_some() {
                self.report(InstanceEvent::Gone).await;
            }
            return;
        };
        let before = self.known.replace(found.state);
        if before == Some(found.state) {
            return;
        }
        self.disk_mb = found.disk_mb.or(self.disk_mb);
        match found.state {
            ObservedState::Created => {}
            ObservedState::Running { since } => {
                self.report(InstanceEvent::Started { at: since }).await;
            }
            ObservedState::Exited { code, oom, started, at } => {
                if before != Some(ObservedState::Running { since: started }) {
                    self.report(InstanceEvent::Started { at: started }).await;
                }
                let oom_seen = self.wake.oom.swap(false, Ordering::Relaxed);
                let oom = code == KILLED && (oom || oom_seen);
                let by = self.cause(at);
                let usage = self.meter.read();
                if usage != Usage::default() {
                    self.report(InstanceEvent::Traffic(usage)).await;
                }
                self.report(InstanceEvent::Exited(Exit { code, oom, at, by })).await;
            }
        }
        self.meter.read();
    }

    fn cause(&self, at: u64) -> ExitCause {
        let in_outage = self
            .shared
            .last_outage()
            .is_some_and(|(from, to)| at.saturating_add(OUTAGE_SLACK_NANOS) >= from && to.is_none_or(|to| at <= to));
        if self.stop_asked {
            ExitCause::Stop
        } else if in_outage && !self.shared.engine.info().live_restore {
            ExitCause::EngineRestart
        } else {
            ExitCause::Guest
        }
    }
}
