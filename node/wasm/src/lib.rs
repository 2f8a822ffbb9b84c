//! Runs a WASI module in a worker process of its own: sandboxed, metered, ended when told.
//!
//! It knows modules and runs, and nothing of leases, prices or peers. It decides nothing: what a run may use and see is in its [`Spec`],
//! what became of it comes as [`Event`]s.
//!
//! ```text
//!  caller ── put, compile, start ──▶ Wasm ──▶ store (modules, compiled code, keyed digests)
//!    │                                 └────▶ pool ──▶ starter thread ──▶ worker process, one a run
//!    ├── pause, resume, notice, stop, kill ──▶ actor (one a run) ◀── words: ready, started, usage, ended ──┘
//!    └◀─ Event, Chunk ─────────────────────────┘       descriptors: code, workspace, notices ──▶ worker
//! ```
//!
//! A worker is the same program again, started as [`worker::main`]. It opens no path of the host; it confines itself
//! (limits, no privileges, Landlock, a list of system calls) and says how far that went before it looks at the module. Only the compiler,
//! which is such a process, too, ever parses a module; a run takes machine code that its parent has vouched for.
//!
//! Reading order: [`spec`] and [`report`] are the vocabulary; [`host`] the face; [`worker`] what runs in the process; [`engine`] what is
//! compiled.

pub mod engine;
pub mod host;
mod message;
pub mod report;
pub mod spec;
pub mod worker;

pub use engine::Flavour;
pub use host::{Chunk, CompileLimits, Config, Handle, ModuleId, Program, Running, Stream, Wasm, WasmError};
pub use report::{Confinement, End, Event, Usage};
pub use spec::{Limits, MAX_NOTICE_BYTES, Mode, NOTICES_IN_GUEST, Spec, SpecError, WORKSPACE_IN_GUEST};
