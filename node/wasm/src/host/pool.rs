//! Workers started ahead: each waits for one order, with its engine made, its privileges gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::WasmError;
use super::spawn::{self, Program, Worker};

#[derive(Debug, Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: Program,
    user: Option<(u32, u32)>,
    spares: usize,
    waiting: Mutex<VecDeque<Worker>>,
}

impl Pool {
    pub(super) fn new(program: Program, user: Option<(u32, u32)>, spares: usize) -> Self {
        Self { shared: Arc::new(Shared { program, user, spares, waiting: Mutex::default() }) }
    }

    /// A worker: one that waits, or a new one. Another is started in its place.
    pub(super) async fn take(&self) -> Result<Worker, WasmError> {
        let spare = self.spare();
        let worker = match spare {
            Some(worker) => Ok(worker),
            None => self.make().await,
        };
        self.fill();
        worker
    }

    /// A new worker, for work that can wait for it.
    pub(super) async fn make(&self) -> Result<Worker, WasmError> {
        let started = spawn::start(&self.shared.program, self.shared.user).await;
        started.map_err(|source| WasmError::Worker { source })
    }

    /// Starts what is missing, in the background. More than wanted may come of two calls at once; they are used up first.
    pub(super) fn fill(&self) {
        if self.waiting(|waiting| waiting.len()) >= self.shared.spares {
            return;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            match pool.make().await {
                Ok(worker) => pool.waiting(|waiting| waiting.push_back(worker)),
                // The next start makes its own, and says why it can't.
                Err(error) => tracing::debug!(%error, "no spare worker"),
            }
        });
    }

    fn spare(&self) -> Option<Worker> {
        loop {
            let mut worker = self.waiting(VecDeque::pop_front)?;
            if matches!(worker.child.try_wait(), Ok(None)) {
                return Some(worker);
            }
        }
    }

    fn waiting<T>(&self, then: impl FnOnce(&mut VecDeque<Worker>) -> T) -> T {
        then(&mut self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
