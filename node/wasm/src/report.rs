//! What is told of a run: how well it is confined, what it has used, how it ended.

use serde::{Deserialize, Serialize};

/// What holds the worker process beside the sandbox of WebAssembly itself. Always told, so that what this machine doesn't have is seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The version of Landlock in force; `None` where the kernel has none: then the process could open files of the host.
    pub landlock: Option<u32>,
    /// Whether only the system calls of a short list can be made.
    pub seccomp: bool,
    /// Whether it runs as a user of its own.
    pub user: bool,
    /// Whether it has no capabilities.
    pub capabilities_dropped: bool,
    /// Whether it can gain nothing by starting programs, and is killed with its parent.
    pub no_new_privileges: bool,
}

/// What a run has used so far. Times and bytes never count twice, and none shrinks but those that say "now".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Processor time in microseconds, since the guest began.
    pub cpu_us: u64,
    /// Bytes of memories and tables now.
    pub memory_bytes: u64,
    /// The most there were at once.
    pub memory_peak_bytes: u64,
    /// Whether more was asked for than granted.
    pub memory_refused: bool,
    /// Instructions, where they are counted; known at the end.
    pub fuel: Option<u64>,
    /// Files in the workspace now; never less than there are.
    pub files: u64,
    /// Bytes on disk in the workspace now; never less than there are.
    pub disk_bytes: u64,
    /// Whether a file or a byte was refused.
    pub disk_refused: bool,
    /// Bytes of output, those dropped among them.
    pub log_bytes: u64,
}

impl Usage {
    /// Takes over a newer sample. Whatever a worker says, counters don't go back.
    pub(crate) fn advance(&mut self, newer: &Self) {
        *self = Self {
            cpu_us: self.cpu_us.max(newer.cpu_us),
            memory_peak_bytes: self.memory_peak_bytes.max(newer.memory_peak_bytes),
            memory_refused: self.memory_refused || newer.memory_refused,
            fuel: newer.fuel.or(self.fuel),
            disk_refused: self.disk_refused || newer.disk_refused,
            log_bytes: self.log_bytes.max(newer.log_bytes),
            ..*newer
        };
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// The guest ended by itself.
    Exited {
        /// With this code.
        code: i32,
    },
    /// It did what no module may: ran into `unreachable`, outside of its memory, too deep.
    Trapped {
        /// Which trap, in words of the engine.
        trap: String,
    },
    /// Its processor time was spent.
    CpuSpent,
    /// Its instructions were spent.
    FuelSpent,
    /// It was told to stop, or killed, by whoever holds it.
    Stopped,
    /// The module can't be run here: it wants what isn't given, or isn't a program.
    Refused {
        /// Why.
        reason: String,
    },
    /// The worker was killed by a signal that nobody here sent: by the kernel, or from outside.
    Killed {
        /// Which.
        signal: i32,
    },
    /// The worker itself failed.
    Failed {
        /// What it said.
        reason: String,
    },
}

/// Most characters of a reason; it is made from what a hostile module led to.
pub(crate) const MAX_REASON: usize = 500;

/// A reason in bounds, without characters that a terminal obeys.
pub(crate) fn reason(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}

/// One fact about a run: `Ready`, `Started`, then `Ended`; or `Ended` at any point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The worker is confined; no byte of the guest has run.
    Ready(Confinement),
    /// The guest begins.
    Started,
    /// It is over, and the process is gone. Always the last.
    Ended {
        /// How.
        end: End,
        /// What it has used.
        usage: Usage,
    },
}
