//! The hooks' task: owner of the hooks, of what waits for them, and of what they have been told.
//!
//! What happened is on disk for every hook that waits for it before it counts as told. Attempts run beside the task, one at a
//! time for each hook, so that a slow receiver holds up nobody else.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use souk_protocol::{Keypair, Millis, NodeId};
use tokio::{
    sync::mpsc,
    task::{Id, JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Command, HooksHandle,
    delivery::{Attempt, Verdict, program, webhook::Poster},
    disk::{Disk, Hook, Hooks, Waiting},
    event::{Event, EventKind, Happening},
    feed::{Feed, NEWS, News},
    machine::{Machine, MachineWatch, Sample, Sampler},
    queue::{Next, Queue, latest_retry},
    target::Target,
    watch::Watch,
};
use crate::{
    api::types::HookDelivery,
    clock::{now, random},
    market::{CommandError, command::Reply},
};

/// Attempts made at once, over all hooks. When full, events wait.
const AT_ONCE: usize = 8;
/// Tests under way at once. When full, the next is refused.
pub(super) const TESTS: usize = 4;
/// Between two samples of the machine.
const SAMPLE_EVERY: Duration = Duration::from_secs(15);

/// An attempt that ran beside the task.
pub(super) struct Done {
    hook: u64,
    /// What waits; none for a test.
    seq: Option<u64>,
    delivery: HookDelivery,
    verdict: Verdict,
    reply: Option<Reply<HookDelivery>>,
}

/// The task, before it runs.
#[derive(Debug)]
pub struct HooksTask {
    pub(super) me: NodeId,
    dir: PathBuf,
    disk: Disk,
    pub(super) hooks: Hooks,
    watch: Watch,
    pub(super) queues: BTreeMap<u64, Queue>,
    next_seq: u64,
    poster: Arc<Poster>,
    wanted: Arc<AtomicBool>,
    commands: mpsc::Receiver<Command>,
    news: mpsc::Receiver<News>,
    running: JoinSet<Done>,
    /// Whose attempt each running task makes: of a hook, of what waits there.
    flying: HashMap<Id, (u64, Option<u64>)>,
    machine: Option<Machine>,
    machine_watch: MachineWatch,
}

/// Reads the hooks of a data directory: their handle, the market's end, and the task to run.
///
/// # Errors
/// If their definitions can't be read.
pub fn open(dir: &Path, key: Keypair) -> io::Result<(HooksHandle, Feed, HooksTask)> {
    let disk = Disk::of(dir);
    let found = disk.open()?;
    let (handle, commands) = HooksHandle::channel();
    let (sender, news) = mpsc::channel(NEWS);
    let wanted = Arc::new(AtomicBool::new(!found.hooks.hooks.is_empty()));
    let feed = Feed::new(sender, Arc::clone(&wanted), found.watch.leases());
    let mut queues: BTreeMap<u64, Queue> = found.hooks.hooks.iter().map(|h| (h.id, Queue::default())).collect();
    let next_seq = found.waiting.last().map_or(1, |w| w.seq + 1);
    let latest = latest_retry(now());
    for mut waiting in found.waiting {
        waiting.next = waiting.next.min(latest);
        if let Some(queue) = queues.get_mut(&waiting.hook) {
            queue.push(waiting);
        }
    }
    let task = HooksTask {
        me: key.node_id(),
        dir: dir.to_owned(),
        disk,
        hooks: found.hooks,
        watch: found.watch,
        queues,
        next_seq,
        poster: Arc::new(Poster::new(key)),
        wanted,
        commands,
        news,
        running: JoinSet::new(),
        flying: HashMap::new(),
        machine: None,
        machine_watch: MachineWatch::default(),
    };
    Ok((handle, feed, task))
}

impl HooksTask {
    /// Runs until `stop`. Attempts under way are cut off; what they were about is delivered after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut samples = tokio::time::interval(SAMPLE_EVERY);
        samples.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sampler = Some(Sampler::default());
        let mut sampling: Option<JoinHandle<(Sampler, Sample)>> = None;
        loop {
            self.start_due();
            let wake = self.wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.running.shutdown().await,
                Some(done) = self.running.join_next_with_id(), if !self.running.is_empty() => match done {
                    Ok((id, done)) => {
                        self.flying.remove(&id);
                        self.done(done).await;
                    }
                    Err(error) => self.broke(error.id()).await,
                },
                Some(command) = self.commands.recv() => self.command(command).await,
                Some(news) = self.news.recv() => self.news(news).await,
                taken = finished(&mut sampling) => {
                    sampling = None;
                    if let Some((back, sample)) = taken {
                        sampler = Some(back);
                        self.sampled(&sample).await;
                    }
                }
                _ = samples.tick() => {
                    if let (true, Some(machine)) = (self.wants_samples(), self.machine.clone())
                        && let Some(mut taking) = sampler.take()
                    {
                        sampling = Some(tokio::task::spawn_blocking(move || {
                            let sample = taking.take(&machine);
                            (taking, sample)
                        }));
                    }
                }
                () = sleep_until(wake) => {}
            }
        }
    }

    fn wants_samples(&self) -> bool {
        self.hooks.hooks.iter().any(|h| h.wants(EventKind::GpuIdle) || h.wants(EventKind::DiskNearlyFull))
    }

    /// When the next attempt is due, if there is room for one.
    fn wake(&self) -> Option<Instant> {
        if self.running.len() >= AT_ONCE {
            return None;
        }
        let due =
            self.hooks.hooks.iter().filter(|h| h.disabled.is_none()).filter_map(|h| self.queues.get(&h.id)?.due());
        due.min().map(|at| Instant::now() + at.since(now()).to_std())
    }

    fn start_due(&mut self) {
        let at = now();
        let hooks: Vec<Hook> = self.hooks.hooks.iter().filter(|h| h.disabled.is_none()).cloned().collect();
        for hook in hooks {
            if self.running.len() >= AT_ONCE {
                return;
            }
            if let Some(waiting) = self.queues.get_mut(&hook.id).and_then(|queue| queue.take(at)) {
                self.attempt(&hook, waiting, None);
            }
        }
    }

    /// Makes an attempt beside the task.
    pub(super) fn attempt(&mut self, hook: &Hook, waiting: Waiting, test: Option<Reply<HookDelivery>>) {
        let (target, poster, dir) = (hook.target.clone(), Arc::clone(&self.poster), self.dir.clone());
        let (id, name) = (hook.id, hook.name.clone());
        let seq = test.is_none().then_some(waiting.seq);
        let task = self.running.spawn(async move {
            let began = Instant::now();
            let attempt = deliver(&target, &poster, &waiting, &dir).await;
            let delivery = HookDelivery {
                at_ms: now(),
                hook: name,
                event: waiting.kind.name().to_owned(),
                id: waiting.event.to_string(),
                attempt: waiting.attempts.saturating_add(1),
                delivered: attempt.verdict == Verdict::Delivered,
                outcome: attempt.outcome,
                code: attempt.code,
                took_ms: Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
                next_ms: None,
                output: attempt.output,
            };
            Done { hook: id, seq, delivery, verdict: attempt.verdict, reply: test }
        });
        self.flying.insert(task.id(), (id, seq));
    }

    pub(super) fn tests(&self) -> usize {
        self.flying.values().filter(|(_, seq)| seq.is_none()).count()
    }

    async fn done(&mut self, done: Done) {
        let Done { hook, seq, mut delivery, verdict, reply } = done;
        let queue = self.queues.get_mut(&hook);
        let next = seq.zip(queue).and_then(|(seq, queue)| queue.tried(seq, verdict, now(), chance()));
        match next {
            Some(Next::Over(waiting)) => self.on_disk(move |disk| disk.remove(&[waiting])).await,
            Some(Next::Again(waiting)) => {
                delivery.next_ms = Some(waiting.next);
                self.on_disk(move |disk| disk.update(&waiting)).await
            }
            None => Ok(()),
        }
        .unwrap_or_else(|error| tracing::warn!(%error, "what waits for a hook can't be noted"));
        if verdict == Verdict::Gone || reply.is_some() && verdict == Verdict::Delivered {
            let why = (verdict == Verdict::Gone).then(|| delivery.outcome.clone());
            self.disable(hook, why).await;
        }
        if let Some(queue) = self.queues.get_mut(&hook) {
            queue.last = Some(delivery.clone());
        }
        let (hook, outcome, event) = (&delivery.hook, &delivery.outcome, &delivery.event);
        if delivery.delivered {
            tracing::debug!(%hook, %event, %outcome, "a hook has an event");
        } else {
            tracing::info!(%hook, %event, %outcome, attempt = delivery.attempt, "a hook did not take an event");
        }
        let line = delivery.clone();
        if let Err(error) = self.on_disk(move |disk| disk.log(&line)).await {
            tracing::warn!(%error, "the hooks' log can't be written");
        }
        if let Some(reply) = reply {
            reply.send(Ok(delivery)).ok();
        }
    }

    /// An attempt's task did not end as it should: that counts as an attempt.
    async fn broke(&mut self, id: Id) {
        let Some((hook, seq)) = self.flying.remove(&id) else { return };
        let name = self.hooks.hooks.iter().find(|h| h.id == hook).map_or_else(String::new, |h| h.name.clone());
        let outcome = "the attempt broke off".to_owned();
        let delivery = HookDelivery { at_ms: now(), hook: name, outcome, ..HookDelivery::default() };
        self.done(Done { hook, seq, delivery, verdict: Verdict::Again(None), reply: None }).await;
    }

    /// Takes a hook out of service, with what waits for it; or, without a reason, into it again.
    async fn disable(&mut self, id: u64, why: Option<String>) {
        let Some(hook) = self.hooks.hooks.iter_mut().find(|h| h.id == id && h.disabled != why) else { return };
        tracing::info!(hook = %hook.name, why = why.as_deref().unwrap_or("it takes events again"), "a hook has changed");
        hook.disabled = why;
        if hook.disabled.is_some() {
            self.forget(id).await;
        }
        if let Err(error) = self.save_hooks().await {
            tracing::warn!(%error, "the hooks can't be saved");
        }
    }

    /// Lets go what waits for a hook.
    pub(super) async fn forget(&mut self, id: u64) {
        let waiting = self.queues.get_mut(&id).map(Queue::clear).unwrap_or_default();
        self.on_disk(move |disk| disk.remove(&waiting)).await.ok();
    }

    pub(super) async fn save_hooks(&self) -> io::Result<()> {
        let hooks = self.hooks.clone();
        self.on_disk(move |disk| disk.save_hooks(&hooks)).await
    }

    /// There is a hook now, or none any more. The first hears of what comes from now on.
    pub(super) async fn hooks_changed(&mut self, were: usize) {
        let are = self.hooks.hooks.len();
        if were == 0 && are > 0 {
            self.watch = Watch::since(now());
            self.save_watch().await;
        }
        self.wanted.store(are > 0, Ordering::Release);
    }

    async fn save_watch(&self) {
        let watch = self.watch.clone();
        if let Err(error) = self.on_disk(move |disk| disk.save_watch(&watch)).await {
            tracing::warn!(%error, "what hooks were told can't be saved: after a crash they may hear of it again");
        }
    }

    async fn news(&mut self, news: News) {
        if self.hooks.hooks.is_empty() {
            // It was shown before the last hook went.
            return;
        }
        let happenings = match news {
            News::Lease(sight) => self.watch.lease(&sight, now()),
            News::Told(happening) => vec![*happening],
            News::Machine(machine) => {
                let engine = machine.engine.and_then(|up| self.watch.engine(machine.id, up, now()));
                self.machine = Some(machine);
                engine.into_iter().collect()
            }
        };
        if self.tell(happenings).await && self.watch.take_changed() {
            self.save_watch().await;
        }
    }

    async fn sampled(&mut self, sample: &Sample) {
        if let Some(machine) = self.machine.clone() {
            let news = self.machine_watch.sample(&machine, sample, now());
            self.tell(news).await;
        }
    }

    /// Puts what happened before every hook that waits for it: on disk first. Whether it is safe there.
    async fn tell(&mut self, happenings: Vec<Happening>) -> bool {
        let mut new = Vec::new();
        for happening in happenings {
            let kind = happening.kind;
            let event = Event::of(self.me, happening);
            let body = event.body();
            for hook in self.hooks.hooks.iter().filter(|h| h.wants(kind)) {
                if self.queues.get(&hook.id).is_some_and(|queue| queue.holds(&event.id)) {
                    continue;
                }
                let (seq, at) = (self.next_seq, now());
                self.next_seq += 1;
                let body = body.clone();
                new.push(Waiting { seq, hook: hook.id, event: event.id, kind, since: at, attempts: 0, next: at, body });
            }
        }
        if new.is_empty() {
            return true;
        }
        let written = new.clone();
        let saved = self.on_disk(move |disk| disk.enqueue(&written)).await;
        if let Err(error) = &saved {
            tracing::warn!(%error, "events for hooks can't be written; they are delivered, unless the node ends first");
        }
        let mut over = Vec::new();
        for waiting in new {
            over.extend(self.queues.entry(waiting.hook).or_default().push(waiting));
        }
        if !over.is_empty() {
            tracing::warn!(events = over.len(), "too many events wait for a hook: the oldest are let go");
            self.on_disk(move |disk| disk.remove(&over)).await.ok();
        }
        saved.is_ok()
    }

    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let disk = self.disk.clone();
        tokio::task::spawn_blocking(move || work(&disk)).await.map_err(io::Error::other)?
    }

    /// A test event for one hook.
    pub(super) fn test_event(&self, hook: &Hook) -> Result<Waiting, CommandError> {
        let number = random::<8>().map(u64::from_be_bytes);
        let number = number.map_err(|e| CommandError::new(crate::market::ErrorCode::Internal, e.to_string()))?;
        let at = now();
        let happening = Happening {
            kind: EventKind::Test,
            at,
            machine: None,
            lease: None,
            text: format!("a test of the hook {}", hook.name),
            data: serde_json::json!({ "hook": hook.name }),
            subject: Vec::new(),
            number,
        };
        let event = Event::of(self.me, happening);
        let body = event.body();
        let kind = EventKind::Test;
        Ok(Waiting { seq: 0, hook: hook.id, event: event.id, kind, since: at, attempts: 0, next: at, body })
    }
}

async fn deliver(target: &Target, poster: &Poster, waiting: &Waiting, dir: &Path) -> Attempt {
    match target {
        Target::Url(url) => poster.post(url, waiting.event, &waiting.body).await,
        Target::Program(words) => match serde_json::from_str::<Event>(&waiting.body) {
            Ok(event) => program::run(words, &event, &waiting.body, dir).await,
            Err(_) => Attempt {
                verdict: Verdict::Never,
                outcome: "the event's file does not hold an event".to_owned(),
                code: None,
                output: String::new(),
            },
        },
    }
}

/// One of 256, for the time of the next attempt; the middle if the system has no randomness.
fn chance() -> u8 {
    random::<1>().map_or(127, |[byte]| byte)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn finished<T>(work: &mut Option<JoinHandle<T>>) -> Option<T> {
    match work {
        Some(work) => work.await.ok(),
        None => std::future::pending().await,
    }
}
