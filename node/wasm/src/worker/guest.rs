//! What a guest sees: its arguments, its folders, its outputs, and the clocks and random bytes of its mode. Nothing else is given.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use super::limit::MemoryLimit;
use super::output::Output;
use super::quota::Quota;
use super::ticker::Shared;
use crate::message::RunOrder;
use crate::spec::{Mode, NOTICES_IN_GUEST, WORKSPACE_IN_GUEST};

/// What each reading of a clock adds to it, where clocks go by being read: a guest that waits for a moment must reach it.
const STEP_NANOS: u64 = 1000;

/// What a run keeps beside the module's own state.
pub(super) struct Guest {
    pub(super) wasi: WasiP1Ctx,
    pub(super) quota: Quota,
    pub(super) memory: MemoryLimit,
    pub(super) deterministic: bool,
}

/// The folders of a guest.
#[derive(Debug, Default)]
pub(super) struct Folders {
    pub(super) workspace: Option<OwnedFd>,
    pub(super) notices: Option<OwnedFd>,
}

impl Guest {
    pub(super) fn new(order: &RunOrder, folders: Folders, shared: &Arc<Shared>) -> wasmtime::Result<Self> {
        let mut builder = WasiCtxBuilder::new();
        // All of a guest's calls are made by its own thread: no other is held by Landlock for it, none is left over at its end.
        builder.allow_blocking_current_thread(true).args(&order.args).envs(&order.env);
        let marked = Arc::new(AtomicBool::new(false));
        let output = |fd: OwnedFd| Output {
            pipe: Arc::new(fd.into()),
            shared: Arc::clone(shared),
            most: order.limits.log_bytes,
            marked: Arc::clone(&marked),
        };
        builder.stdout(output(std::io::stdout().as_fd().try_clone_to_owned()?));
        builder.stderr(output(std::io::stderr().as_fd().try_clone_to_owned()?));
        match &order.mode {
            Mode::Ordinary => {}
            Mode::Deterministic { seed, clock } => be_deterministic(&mut builder, *seed, *clock),
        }
        if let Some(folder) = &folders.notices {
            open(&mut builder, folder, NOTICES_IN_GUEST, FsPerms::ReadOnly)?;
        }
        if let Some(folder) = &folders.workspace {
            open(&mut builder, folder, WORKSPACE_IN_GUEST, FsPerms::ReadWrite)?;
            open(&mut builder, folder, ".", FsPerms::ReadWrite)?;
        }
        let limits = &order.limits;
        Ok(Self {
            wasi: builder.build_p1(),
            quota: Quota::new(folders.workspace, limits.files, limits.disk_bytes, Arc::clone(shared)),
            memory: MemoryLimit::new(limits.memory_bytes, Arc::clone(shared)),
            deterministic: order.mode.is_deterministic(),
        })
    }
}

/// Opens a folder by its descriptor: this process may not be able to walk to it, and need not know where it is.
fn open(builder: &mut WasiCtxBuilder, folder: &OwnedFd, name: &str, perms: FsPerms) -> wasmtime::Result<()> {
    rustix::process::fchdir(folder)?;
    builder.preopened_dir(".", name, perms)?;
    Ok(())
}

fn be_deterministic(builder: &mut WasiCtxBuilder, seed: [u8; 32], clock: u64) {
    let clock = Clock { begin: clock, passed: Arc::default() };
    builder.wall_clock(clock.clone()).monotonic_clock(clock);
    let mut insecure = ChaCha20Rng::from_seed(seed);
    insecure.set_stream(1);
    builder.secure_random(ChaCha20Rng::from_seed(seed)).insecure_random(insecure);
    let (half, _) = seed.split_at(16);
    builder.insecure_random_seed(half.try_into().map_or(0, u128::from_le_bytes));
}

/// A clock that goes on by being read.
#[derive(Debug, Clone)]
struct Clock {
    begin: u64,
    passed: Arc<AtomicU64>,
}

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(STEP_NANOS)
    }

    fn now(&self) -> Duration {
        let passed = self.passed.fetch_add(STEP_NANOS, Ordering::Relaxed);
        Duration::from_nanos(self.begin.saturating_add(passed))
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        STEP_NANOS
    }

    fn now(&self) -> u64 {
        self.passed.fetch_add(STEP_NANOS, Ordering::Relaxed)
    }
}
