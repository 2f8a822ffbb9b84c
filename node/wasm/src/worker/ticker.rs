//! Time of a run: the tick that interrupts the guest, its processor time, its share of a core, and the samples for the parent.
//!
//! Ticks stand still with the process: a run that was stopped by SIGSTOP has missed none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, UpdateDeadline};

use crate::message::{Line, Word};
use crate::report::{End, Usage};

/// How often a guest is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two samples.
const SAMPLE: u64 = 12;
/// Microseconds that a guest below its share may run ahead.
const BURST_US: i64 = 100_000;

/// What the threads of a worker know of the run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) memory: AtomicU64,
    pub(super) memory_peak: AtomicU64,
    pub(super) memory_refused: AtomicBool,
    pub(super) files: AtomicU64,
    pub(super) disk: AtomicU64,
    pub(super) disk_refused: AtomicBool,
    pub(super) log: AtomicU64,
    ticks: AtomicU64,
    /// Processor time of the process when the guest began.
    began_us: AtomicU64,
    line: Mutex<Line>,
}

impl Shared {
    pub(super) fn new(line: Line) -> Arc<Self> {
        Arc::new(Self {
            stop: AtomicBool::new(false),
            memory: AtomicU64::new(0),
            memory_peak: AtomicU64::new(0),
            memory_refused: AtomicBool::new(false),
            files: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            disk_refused: AtomicBool::new(false),
            log: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            began_us: AtomicU64::new(u64::MAX),
            line: Mutex::new(line),
        })
    }

    pub(super) fn begin(&self) {
        self.began_us.store(process_us(), Ordering::Relaxed);
    }

    pub(super) fn cpu_us(&self) -> u64 {
        process_us().saturating_sub(self.began_us.load(Ordering::Relaxed))
    }

    pub(super) fn usage(&self, fuel: Option<u64>) -> Usage {
        Usage {
            cpu_us: self.cpu_us(),
            memory_bytes: self.memory.load(Ordering::Relaxed),
            memory_peak_bytes: self.memory_peak.load(Ordering::Relaxed),
            memory_refused: self.memory_refused.load(Ordering::Relaxed),
            fuel,
            files: self.files.load(Ordering::Relaxed),
            disk_bytes: self.disk.load(Ordering::Relaxed),
            disk_refused: self.disk_refused.load(Ordering::Relaxed),
            log_bytes: self.log.load(Ordering::Relaxed),
        }
    }

    pub(super) fn say(&self, word: &Word) {
        // A parent that doesn't hear has gone; the main thread notices.
        if let Ok(mut line) = self.line.lock() {
            let _ = line.say(word);
        }
    }

    /// Says how it ended, and ends. Nothing is said after it: the line stays locked.
    pub(super) fn end(&self, end: End, fuel: Option<u64>) -> ! {
        let usage = self.usage(fuel);
        if let Ok(mut line) = self.line.lock() {
            let _ = line.say(&Word::Ended { end, usage });
            std::process::exit(0);
        }
        std::process::exit(1);
    }
}

/// Ticks for as long as the process lives.
pub(super) fn tick(engine: &Engine, shared: &Shared) {
    loop {
        std::thread::sleep(TICK);
        let ticks = shared.ticks.fetch_add(1, Ordering::Relaxed);
        engine.increment_epoch();
        if ticks.is_multiple_of(SAMPLE) && shared.began_us.load(Ordering::Relaxed) != u64::MAX {
            shared.say(&Word::Usage(shared.usage(None)));
        }
    }
}

/// Why a guest was interrupted for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Stop,
    Cpu,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("the run was ended")
    }
}

impl std::error::Error for Cut {}

/// What happens to a guest at a tick.
pub(super) struct Governor {
    shared: Arc<Shared>,
    cpu_us: Option<u64>,
    milli: Option<u32>,
    last_ticks: u64,
    last_us: u64,
    credit_us: i64,
}

impl Governor {
    pub(super) fn new(shared: Arc<Shared>, cpu_ms: Option<u64>, milli: Option<u32>) -> Self {
        let cpu_us = cpu_ms.map(|ms| ms.saturating_mul(1000));
        Self { shared, cpu_us, milli, last_ticks: 0, last_us: 0, credit_us: BURST_US }
    }

    /// Ends the guest, or lets it wait for its share, or lets it go on.
    pub(super) fn look(&mut self) -> wasmtime::Result<UpdateDeadline> {
        loop {
            if self.shared.stop.load(Ordering::Relaxed) {
                return Err(Cut::Stop.into());
            }
            let used = self.shared.cpu_us();
            if self.cpu_us.is_some_and(|most| used > most) {
                return Err(Cut::Cpu.into());
            }
            if !self.must_wait(used) {
                return Ok(UpdateDeadline::Continue(1));
            }
            std::thread::sleep(TICK);
        }
    }

    fn must_wait(&mut self, used: u64) -> bool {
        let Some(milli) = self.milli else { return false };
        let ticks = self.shared.ticks.load(Ordering::Relaxed);
        let passed = ticks.saturating_sub(self.last_ticks).saturating_mul(u64::try_from(TICK.as_micros()).unwrap_or(0));
        let earned = passed.saturating_mul(u64::from(milli)) / 1000;
        let spent = used.saturating_sub(self.last_us);
        (self.last_ticks, self.last_us) = (ticks, used);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.credit_us = self.credit_us.saturating_add(number(earned)).min(BURST_US).saturating_sub(number(spent));
        self.credit_us < 0
    }
}

fn process_us() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000).saturating_add(part(time.tv_nsec) / 1000)
}
