//! How modules are compiled and run: one configuration of Wasmtime for parent, compiler and worker, and the key that tells two apart.
//!
//! Only what finished proposals give is on: no threads, no memories of 64 bits, no garbage collector. Growth of memory stays within one
//! reservation of 4 GiB of addresses, so that bounds are checked by the processor.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use wasmtime::{Config, Engine, OptLevel};

use crate::spec::{MAX_STACK_BYTES, Mode};

/// What is compiled into a module besides its own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// Checks for interruption.
    Plain,
    /// And a count of instructions.
    Fuel,
    /// And one pattern of bits for every NaN, one result for every relaxed instruction.
    Deterministic,
}

impl Flavour {
    /// What a run needs.
    #[must_use]
    pub fn of(mode: &Mode, fuel: Option<u64>) -> Self {
        match (mode.is_deterministic(), fuel) {
            (true, _) => Self::Deterministic,
            (false, Some(_)) => Self::Fuel,
            (false, None) => Self::Plain,
        }
    }
}

/// Makes an engine.
///
/// # Errors
/// Where this processor can't be compiled for.
pub fn engine(flavour: Flavour) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(MAX_STACK_BYTES)
        .epoch_interruption(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false)
        .concurrency_support(false);
    match flavour {
        Flavour::Plain => {}
        Flavour::Fuel => {
            config.consume_fuel(true);
        }
        Flavour::Deterministic => {
            config.consume_fuel(true).cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
        }
    }
    Engine::new(&config)
}

/// What compiled code depends on, in short: Wasmtime's version, its settings, this processor.
///
/// # Errors
/// As [`engine`].
pub fn key(flavour: Flavour) -> wasmtime::Result<String> {
    let engine = engine(flavour)?;
    let mut digest = Digest(blake3::Hasher::new());
    flavour.hash(&mut digest);
    engine.precompile_compatibility_hash().hash(&mut digest);
    let hash = digest.0.finalize().to_hex();
    Ok(hash.chars().take(32).collect())
}

/// A hash that is the same in every process.
struct Digest(blake3::Hasher);

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        let hash = self.0.finalize();
        hash.as_bytes().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
