//! What a run of a module is to be: its arguments, its limits and what it may see. Owns the bounds of each.
//!
//! It doesn't know where the module comes from, nor whose it is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most arguments, the program's name among them.
pub const MAX_ARGS: usize = 1_024;
/// Most variables of the environment.
pub const MAX_ENV: usize = 512;
/// Most bytes of all arguments, or of the whole environment.
pub const MAX_TEXT_BYTES: usize = 128 * 1024;
/// Least memory of a guest: a page and what the worker needs beside it.
pub const MIN_MEMORY_BYTES: u64 = 64 * 1024;
/// Most memory of a guest: what 32 bits can address.
pub const MAX_MEMORY_BYTES: u64 = 4 << 30;
/// Most bytes of stack that a guest's calls may take; deeper recursion traps.
pub const MAX_STACK_BYTES: usize = 1 << 20;
/// Where a guest finds its own files. Its relative names lie there, too.
pub const WORKSPACE_IN_GUEST: &str = "/workspace";
/// Where a guest finds what its host has to tell it; it can't write there.
pub const NOTICES_IN_GUEST: &str = "/run/souk";
/// The file in there.
pub const NOTICE_FILE: &str = "notice.json";
/// Most bytes of a notice.
pub const MAX_NOTICE_BYTES: usize = 4096;

/// What a guest may use up. All of it is the guest's alone: the worker's own needs come on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memories and tables together. Beyond it growing fails, as on a machine that has no more.
    pub memory_bytes: u64,
    /// Processor time in milliseconds; then the guest is ended. `None` for no end.
    pub cpu_ms: Option<u64>,
    /// The share of one core, in thousandths, in the long run; `None` for a whole one.
    pub cpu_milli: Option<u32>,
    /// Instructions, roughly; then the guest is ended, at the same point on every machine. `None` doesn't count them, unless the
    /// mode is deterministic, where they are always counted.
    pub fuel: Option<u64>,
    /// Bytes on disk in the workspace. Beyond it writing fails.
    pub disk_bytes: u64,
    /// Files, folders and links in the workspace. Beyond it making one fails.
    pub files: u64,
    /// Bytes of output in one run. What comes beyond is dropped, and a mark says so.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            cpu_ms: None,
            cpu_milli: None,
            fuel: None,
            disk_bytes: 256 << 20,
            files: 10_000,
            log_bytes: 30 << 20,
        }
    }
}

/// What a run may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Clocks and random bytes of the machine.
    Ordinary,
    /// Only the module, its arguments and its files: clocks begin at a given moment and go on by being read, random bytes come from a
    /// seed, what a file system adds of its own (times, inodes, order) is hidden.
    Deterministic {
        /// Where random bytes come from.
        seed: [u8; 32],
        /// Nanoseconds since 1970-01-01 UTC at which the clocks begin.
        clock: u64,
    },
}

impl Mode {
    /// Whether it is the deterministic one.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        match self {
            Self::Ordinary => false,
            Self::Deterministic { .. } => true,
        }
    }
}

/// One run of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Arguments; the first is the program's name.
    pub args: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The folder that the guest has as [`WORKSPACE_IN_GUEST`]. Nobody else may write to it meanwhile. What a guest leaves in it is
    /// as hostile as the guest: links that lead anywhere, names that are no text.
    pub workspace: Option<PathBuf>,
    /// The folder that the guest has, to read, as [`NOTICES_IN_GUEST`].
    pub notices: Option<PathBuf>,
    /// What it may use up.
    pub limits: Limits,
    /// What it may depend on.
    pub mode: Mode,
}

/// Why a spec is refused.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SpecError {
    /// Arguments that no guest can be given.
    #[error(
        "the arguments are too long, or hold a NUL; give at least the program's name, and at most {MAX_ARGS} of {MAX_TEXT_BYTES} bytes together"
    )]
    Args,
    /// An environment that no guest can be given.
    #[error("the environment is too large, or holds a name that is empty or has '=' or NUL in it")]
    Env,
    /// Memory out of bounds.
    #[error("the memory of a module is between {MIN_MEMORY_BYTES} and {MAX_MEMORY_BYTES} bytes")]
    Memory,
    /// A limit of zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

impl Spec {
    /// A run with the program's name as its only argument, and the default limits.
    #[must_use]
    pub fn new(program: &str) -> Self {
        Self {
            args: vec![program.to_owned()],
            env: Vec::new(),
            workspace: None,
            notices: None,
            limits: Limits::default(),
            mode: Mode::Ordinary,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first that is out of bounds.
    pub fn check(&self) -> Result<(), SpecError> {
        let bytes: usize = self.args.iter().map(String::len).sum();
        let fits = (1..=MAX_ARGS).contains(&self.args.len()) && bytes <= MAX_TEXT_BYTES;
        if !fits || self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(SpecError::Args);
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        let name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        let plain = self.env.iter().all(|(key, value)| name(key) && !value.contains('\0'));
        if self.env.len() > MAX_ENV || bytes > MAX_TEXT_BYTES || !plain {
            return Err(SpecError::Env);
        }
        let limits = &self.limits;
        if !(MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&limits.memory_bytes) {
            return Err(SpecError::Memory);
        }
        let zero = [
            ("cpu_ms", limits.cpu_ms == Some(0)),
            ("cpu_milli", limits.cpu_milli == Some(0)),
            ("fuel", limits.fuel == Some(0)),
            ("disk_bytes", limits.disk_bytes == 0),
            ("files", limits.files == 0),
        ];
        zero.iter().find(|(_, is)| *is).map_or(Ok(()), |(field, _)| Err(SpecError::Zero(field)))
    }
}
