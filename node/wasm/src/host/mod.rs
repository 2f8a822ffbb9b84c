//! The parent's side: keeps modules and their compiled code, starts workers, hears them, ends them. It runs no byte of a module itself.

mod actor;
mod compile;
mod error;
mod listen;
mod output;
mod pool;
mod process;
mod spawn;
mod store;

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode as Bits, OFlags};

pub use actor::{Handle, Running};
pub use compile::CompileLimits;
pub use error::WasmError;
pub use output::{Chunk, Stream};
pub use spawn::Program;
pub use store::ModuleId;

use crate::engine::Flavour;
use crate::message::RunOrder;
use crate::spec::Spec;
use pool::Pool;
use store::Store;

/// What the owner of a machine decides about modules.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where modules and compiled code are kept; made when absent, closed to others. Nobody else may write there.
    pub folder: PathBuf,
    /// How a worker is started.
    pub program: Program,
    /// The user and group that workers become; needs root. They must be able to write to the workspaces they are given,
    /// and to read the notices; not to walk there.
    pub user: Option<(u32, u32)>,
    /// Workers that are started ahead.
    pub spares: usize,
    /// What compiling a module may take.
    pub compile: CompileLimits,
    /// Room for compiled code, in bytes; what was used longest ago goes first.
    pub cache_bytes: u64,
}

impl Config {
    /// With the defaults.
    #[must_use]
    pub fn new(folder: &Path, program: Program) -> Self {
        Self {
            folder: folder.to_owned(),
            program,
            user: None,
            spares: 1,
            compile: CompileLimits::default(),
            cache_bytes: 2 << 30,
        }
    }
}

/// Modules of this machine, and how to run them. A handle: clones mean the same.
#[derive(Debug, Clone)]
pub struct Wasm {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    pool: Pool,
    limits: CompileLimits,
    /// One module is compiled at a time: it takes a core and much memory.
    compiling: tokio::sync::Mutex<()>,
}

impl Wasm {
    /// Opens the folder. Workers are started ahead from now on, so it must be called within a runtime of Tokio.
    ///
    /// # Errors
    /// A folder that can't be used.
    pub async fn open(config: Config) -> Result<Self, WasmError> {
        let Config { folder, program, user, spares, compile, cache_bytes } = config;
        let store = blocking(move || Store::open(&folder, cache_bytes)).await?;
        let pool = Pool::new(program, user, spares);
        pool.fill();
        let inner = Inner { store, pool, limits: compile, compiling: tokio::sync::Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps a module, by its digest. Nothing is looked at but its size: only a compiler process reads it.
    ///
    /// # Errors
    /// A module that is too large, a disk that is full.
    pub async fn put(&self, module: Vec<u8>) -> Result<ModuleId, WasmError> {
        let most = self.inner.limits.module_bytes;
        if u64::try_from(module.len()).unwrap_or(u64::MAX) > most {
            return Err(WasmError::TooLarge { most });
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.store.put(&module)).await
    }

    /// Whether a module is kept.
    #[must_use]
    pub fn has(&self, module: &ModuleId) -> bool {
        self.inner.store.has(module)
    }

    /// Forgets a module and what was compiled from it. What runs goes on.
    ///
    /// # Errors
    /// A file that can't be removed.
    pub async fn remove(&self, module: ModuleId) -> Result<(), WasmError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.store.remove(&module)).await
    }

    /// Has the module compiled, unless it is; says what is wrong with it otherwise.
    ///
    /// # Errors
    /// A module that isn't there, isn't valid, or takes too much to compile.
    pub async fn compile(&self, module: ModuleId, flavour: Flavour) -> Result<(), WasmError> {
        self.code(module, flavour).await.map(drop)
    }

    /// Starts a run, compiling the module first where that wasn't done.
    ///
    /// # Errors
    /// As [`Wasm::compile`]; a spec out of bounds, a folder that can't be opened, a worker that can't be started.
    pub async fn start(&self, module: ModuleId, spec: &Spec) -> Result<Running, WasmError> {
        spec.check()?;
        let code = self.code(module, Flavour::of(&spec.mode, spec.limits.fuel)).await?;
        let workspace = spec.workspace.as_deref().map(folder).transpose()?;
        let notices = spec.notices.as_deref().map(folder).transpose()?;
        let order = RunOrder {
            args: spec.args.clone(),
            env: spec.env.clone(),
            limits: spec.limits,
            mode: spec.mode.clone(),
            workspace: workspace.is_some(),
            notices: notices.is_some(),
        };
        let worker = self.inner.pool.take().await?;
        let fds = [Some(code.as_fd()), workspace.as_ref().map(OwnedFd::as_fd), notices.as_ref().map(OwnedFd::as_fd)];
        let fds: Vec<_> = fds.into_iter().flatten().collect();
        let most = spec.limits.log_bytes;
        actor::start(worker, order, &fds, most, notices.as_ref()).map_err(|source| WasmError::Worker { source })
    }

    async fn code(&self, module: ModuleId, flavour: Flavour) -> Result<Arc<File>, WasmError> {
        if let Some(code) = self.find(module, flavour).await? {
            return Ok(code);
        }
        let _one = self.inner.compiling.lock().await;
        // Another start may have had it compiled meanwhile.
        if let Some(code) = self.find(module, flavour).await? {
            return Ok(code);
        }
        let inner = Arc::clone(&self.inner);
        let (source, target) = blocking(move || Ok((inner.store.module(&module)?, inner.store.target()?))).await?;
        let worker = self.inner.pool.make().await?;
        compile::compile(worker, &source, target.as_file(), flavour, &self.inner.limits).await?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.store.keep(&module, flavour, target)).await
    }

    async fn find(&self, module: ModuleId, flavour: Flavour) -> Result<Option<Arc<File>>, WasmError> {
        if let Some(code) = self.inner.store.known(&module, flavour) {
            return Ok(Some(code));
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.store.find(&module, flavour)).await
    }
}

fn folder(path: &Path) -> Result<OwnedFd, WasmError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Bits::empty()).map_err(|error| WasmError::io(path, error.into()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WasmError> + Send + 'static,
) -> Result<T, WasmError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(WasmError::Worker { source: std::io::Error::other(error) }),
    }
}
