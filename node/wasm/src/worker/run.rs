//! One run: confine, load, link, call `_start`, and say how it ended.

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wasmtime::{Engine, Linker, Store, Trap};
use wasmtime_wasi::{I32Exit, p1};

use super::confine::{self, Bounds};
use super::guest::{Folders, Guest};
use super::ticker::{Cut, Governor, Shared, tick};
use super::{filter, load, shims};
use crate::engine::{Flavour, engine};
use crate::message::{Line, Order, RunOrder, Word};
use crate::report::{Confinement, End, reason};
use crate::spec::MAX_STACK_BYTES;

/// The stack of the guest's thread: what the guest may use, and ample room for what its calls do.
const THREAD_STACK: usize = MAX_STACK_BYTES + (4 << 20);
/// The stacks of the threads that do little.
const SMALL_STACK: usize = 256 * 1024;
/// How long a guest has to come back from a call when it is told to stop.
const COME_BACK: Duration = Duration::from_millis(200);
/// What the kernel lets a run use beyond its processor time, before it kills.
const CPU_SLACK_SECONDS: u64 = 3;

/// What can be made before the order is known.
pub(super) struct Ready {
    engine: Engine,
    linker: Linker<Guest>,
}

impl Ready {
    pub(super) fn new(flavour: Flavour) -> wasmtime::Result<Self> {
        let engine = engine(flavour)?;
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
        shims::add(&mut linker)?;
        Ok(Self { engine, linker })
    }
}

pub(super) fn run(
    line: &mut Line,
    ready: Ready,
    order: RunOrder,
    fds: Vec<OwnedFd>,
    confinement: &mut Confinement,
) -> wasmtime::Result<ExitCode> {
    let (code, folders) = sort(&order, fds)?;
    confine::bounds(Bounds {
        memory: order.limits.memory_bytes.saturating_add(size(&code)?),
        file: order.limits.disk_bytes,
        cpu_seconds: order.limits.cpu_ms.map(|ms| (ms / 1000).saturating_add(CPU_SLACK_SECONDS)),
    })?;
    let read = folders.notices.as_ref().map(OwnedFd::as_fd);
    confinement.landlock = confine::landlock(folders.workspace.as_ref().map(OwnedFd::as_fd), read)?;
    let shared = Shared::new(line.again()?);
    let timers = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .thread_stack_size(SMALL_STACK)
        .enable_time()
        .build()?;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (engine, guest) = (ready.engine.clone(), Arc::clone(&shared));
    std::thread::Builder::new().stack_size(THREAD_STACK).spawn(move || {
        if wait.recv().is_ok() {
            // Timers of the guest are served by the other thread; its calls find this handle.
            let _entered = timers.enter();
            live(&ready, &order, folders, code, &guest);
        }
    })?;
    let ticker = Arc::clone(&shared);
    let ticked = engine.clone();
    std::thread::Builder::new().stack_size(SMALL_STACK).spawn(move || tick(&ticked, &ticker))?;
    confine::no_more_threads()?;
    confinement.seccomp = filter::apply()?;
    shared.say(&Word::Ready(*confinement));
    let _ = go.send(());
    while let Some(order) = line.receive_plain()? {
        if let Order::Stop = order {
            shared.stop.store(true, Ordering::Relaxed);
            engine.increment_epoch();
            std::thread::sleep(COME_BACK);
            shared.end(End::Stopped, None);
        }
    }
    // The parent has gone, and takes its guests with it.
    Ok(ExitCode::FAILURE)
}

fn sort(order: &RunOrder, fds: Vec<OwnedFd>) -> wasmtime::Result<(OwnedFd, Folders)> {
    let mut fds = fds.into_iter();
    let Some(code) = fds.next() else { wasmtime::bail!("a compiled module is needed") };
    let workspace = if order.workspace { fds.next() } else { None };
    let notices = if order.notices { fds.next() } else { None };
    if workspace.is_some() != order.workspace || notices.is_some() != order.notices {
        wasmtime::bail!("a folder is missing");
    }
    Ok((code, Folders { workspace, notices }))
}

fn size(file: &OwnedFd) -> wasmtime::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

/// From the first byte of the module to its end.
fn live(ready: &Ready, order: &RunOrder, folders: Folders, code: OwnedFd, shared: &Arc<Shared>) -> ! {
    let guest = match Guest::new(order, folders, shared) {
        Ok(guest) => guest,
        Err(error) => shared.end(End::Failed { reason: reason(&format!("{error:#}")) }, None),
    };
    let mut store = Store::new(&ready.engine, guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(1);
    let mut governor = Governor::new(Arc::clone(shared), order.limits.cpu_ms, order.limits.cpu_milli);
    store.epoch_deadline_callback(move |_| governor.look());
    let counted = Flavour::of(&order.mode, order.limits.fuel) != Flavour::Plain;
    let tank = order.limits.fuel.unwrap_or(u64::MAX);
    if counted && let Err(error) = store.set_fuel(tank) {
        shared.end(End::Failed { reason: reason(&format!("{error:#}")) }, None);
    }
    let end = call(ready, &mut store, code, shared)
        .unwrap_or_else(|refused| End::Refused { reason: reason(&format!("{refused:#}")) });
    let fuel = if counted { store.get_fuel().ok().map(|left| tank.saturating_sub(left)) } else { None };
    shared.end(end, fuel)
}

/// Gives an error where the module can't be run at all.
fn call(ready: &Ready, store: &mut Store<Guest>, code: OwnedFd, shared: &Shared) -> wasmtime::Result<End> {
    let module = load::load(&ready.engine, code)?;
    let linked = ready.linker.instantiate_pre(&module)?;
    if module.get_export("_start").and_then(|start| start.func().cloned()).is_none() {
        wasmtime::bail!("the module has no `_start`: it is a library, not a program");
    }
    shared.begin();
    shared.say(&Word::Started);
    let instance = match linked.instantiate(&mut *store) {
        Ok(instance) => instance,
        Err(error) => return ended(error),
    };
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
    match start.call(store, ()) {
        Ok(()) => Ok(End::Exited { code: 0 }),
        Err(error) => ended(error).or_else(|error| Ok(End::Trapped { trap: reason(&format!("{error:#}")) })),
    }
}

/// How it ended, by the error that a call came back with; the error again where it is no end of a guest.
fn ended(error: wasmtime::Error) -> wasmtime::Result<End> {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ok(End::Exited { code: exit.0 });
    }
    if let Some(cut) = error.downcast_ref::<Cut>() {
        return Ok(match cut {
            Cut::Stop => End::Stopped,
            Cut::Cpu => End::CpuSpent,
        });
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Ok(End::FuelSpent),
        Some(trap) => Ok(End::Trapped { trap: reason(&trap.to_string()) }),
        None => Err(error),
    }
}
