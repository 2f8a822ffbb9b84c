//! What handles, workers and the supervisor have in common: the engine, the workers by lease, and the engine's last outage.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::report::RuntimeReport;
use crate::usage::UnixNanos;
use crate::volume;
use crate::volume_files;
use crate::worker::{Command, Worker, WorkerHandle};

/// Ends of execs not yet read by a session; a session that falls behind asks the engine instead.
const EXEC_ENDS: usize = 256;

/// An exec that ended: its id and exit code.
pub(crate) type ExecEnd = (String, i64);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Arc<Engine>,
    pub(crate) reports: mpsc::Sender<RuntimeReport>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) exec_ends: broadcast::Sender<ExecEnd>,
    volumes: mpsc::Sender<volume::Command>,
    /// Containers for copies to and from volumes.
    pub(crate) volume_runs: volume_files::Runs,
    workers: Mutex<HashMap<String, WorkerHandle>>,
    /// Instances were looked for since the node has started.
    pub(crate) looked: AtomicBool,
    /// Execs of this node's sessions that may run.
    execs: Mutex<HashSet<String>>,
    outage: RwLock<Option<(UnixNanos, Option<UnixNanos>)>>,
}

impl Shared {
    pub(crate) fn new(engine: Engine, reports: mpsc::Sender<RuntimeReport>) -> Arc<Self> {
        let (volumes, commands) = mpsc::channel(volume::COMMANDS);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(Arc::clone(&engine.volumes).run(commands, reports.clone(), stop.clone()));
        Arc::new(Self {
            engine: Arc::new(engine),
            reports,
            stop,
            tasks,
            volumes,
            volume_runs: volume_files::Runs::default(),
            exec_ends: broadcast::channel(EXEC_ENDS).0,
            workers: Mutex::new(HashMap::new()),
            looked: AtomicBool::new(false),
            execs: Mutex::new(HashSet::new()),
            outage: RwLock::new(None),
        })
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, WorkerHandle>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins, or ends.
    pub(crate) fn has_session(&self, exec: &str, has: bool) {
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        if has {
            execs.insert(exec.to_owned());
        } else {
            execs.remove(exec);
        }
    }

    /// Whether an exec is one of this node's sessions.
    pub(crate) fn is_session(&self, exec: &str) -> bool {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).contains(exec)
    }

    /// Hands a command to the lease's worker, which is started when there is none.
    pub(crate) fn send(self: &Arc<Self>, lease: &str, command: Command) -> Result<(), RuntimeError> {
        crate::spec::check_lease_id(lease)?;
        if self.stop.is_cancelled() {
            return Err(RuntimeError::Closed);
        }
        let mut workers = self.workers();
        let worker = match workers.entry(lease.to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Worker::spawn(self, lease)),
        };
        worker.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RuntimeError::Busy,
            mpsc::error::TrySendError::Closed(_) => RuntimeError::Closed,
        })
    }

    /// Tells the task of the volumes.
    pub(crate) fn volume(&self, command: volume::Command) -> Result<(), RuntimeError> {
        self.volumes.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RuntimeError::Busy,
            mpsc::error::TrySendError::Closed(_) => RuntimeError::Closed,
        })
    }

    /// Forgets the worker of a destroyed instance, unless a command has arrived meanwhile; commands are sent under the same lock.
    pub(crate) fn retire(&self, lease: &str, commands: &mpsc::Receiver<Command>) -> bool {
        let mut workers = self.workers();
        let idle = commands.is_empty();
        if idle {
            workers.remove(lease);
        }
        idle
    }

    /// The worker of a lease, where there is one.
    pub(crate) fn worker(&self, lease: &str) -> Option<WorkerHandle> {
        self.workers().get(lease).cloned()
    }

    /// The leases that have a worker.
    pub(crate) fn leases(&self) -> Vec<String> {
        self.workers().keys().cloned().collect()
    }

    /// Lets every worker look at its instance.
    pub(crate) fn wake_all(&self) {
        for worker in self.workers().values() {
            worker.wake.look.notify_one();
        }
    }

    /// When the engine was last away: since when, and until when if it is back.
    pub(crate) fn last_outage(&self) -> Option<(UnixNanos, Option<UnixNanos>)> {
        *self.outage.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn outage_begins(&self, at: UnixNanos) {
        *self.outage.write().unwrap_or_else(PoisonError::into_inner) = Some((at, None));
    }

    pub(crate) fn outage_ends(&self, at: UnixNanos) {
        let mut outage = self.outage.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, end @ None)) = outage.as_mut() {
            *end = Some(at);
        }
    }
}
