//! What can go wrong before a guest runs. What goes wrong afterwards is an [`crate::End`].

use std::io;
use std::path::Path;

use thiserror::Error;

use super::ModuleId;
use crate::spec::SpecError;

/// Why a module can't be kept, compiled or started.
#[derive(Debug, Error)]
pub enum WasmError {
    /// The spec is out of bounds.
    #[error("the run's description can't be used")]
    Spec(#[from] SpecError),
    /// There is no such module.
    #[error("the module {module} is not kept here; send it first")]
    Missing {
        /// Its digest.
        module: ModuleId,
    },
    /// It is too large.
    #[error(
        "the module has more than {most} bytes, which is the most that this host takes; build it without debug information"
    )]
    TooLarge {
        /// Most bytes.
        most: u64,
    },
    /// It isn't a module that can be run.
    #[error("the module can't be compiled: {reason}")]
    Invalid {
        /// What the compiler said, in bounds.
        reason: String,
    },
    /// Compiling takes more than allowed, or kills the compiler.
    #[error(
        "compiling the module took more time or memory than this host gives, and was ended ({how}); make it smaller"
    )]
    CompilerEnded {
        /// How it ended.
        how: String,
    },
    /// This processor can't be compiled for.
    #[error("modules can't be compiled on this machine: {reason}")]
    Engine {
        /// What the engine said.
        reason: String,
    },
    /// A worker can't be started or told.
    #[error("a worker process can't be started or spoken to")]
    Worker {
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file can't be used.
    #[error("can't use {path}")]
    Files {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl WasmError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Files { path: path.display().to_string(), source }
    }
}
