//! The runtime of a souk host: creates, watches, meters and destroys instances on a container engine, and reports.
//!
//! It knows containers, images, devices and firewall tables, and nothing of prices or peers; a lease is an opaque id. It
//! never decides: it does what it is told, idempotently, and tells what is true.
//!
//! ```text
//!  market ──prepare, start, stop, kill, destroy, adopt──▶ DockerRuntime ──▶ worker (one a lease) ──▶ instance ──▶ engine
//!    ▲                                                         │                  ▲ look!
//!    └────────────── RuntimeReport (bounded, in order) ────────┴── worker         └── supervisor ◀── the engine's events
//!  access ──logs, exec──▶ straight to the engine, a session each
//! ```
//!
//! Reading order: [`spec`] and [`report`] are the vocabulary; [`runtime`] the face; `worker` the behaviour; `container` and
//! [`firewall`] what keeps a guest contained; [`inventory`] what the machine has.

pub mod blank;
mod cache;
pub mod config;
mod container;
mod cut;
pub mod dial;
mod disk;
mod disk_test;
mod engine;
pub mod error;
pub mod exec;
mod files_direct;
mod files_only;
pub mod firewall;
pub mod gpu_use;
pub mod handover;
mod helper;
mod hijack;
pub mod image;
mod incoming;
pub mod inside;
mod instance;
pub mod inventory;
mod login;
pub mod logs;
pub mod loopfs;
mod moving;
pub mod name;
mod notice;
mod process;
pub mod reference;
pub mod report;
pub mod runtime;
mod shared;
mod snapshot;
pub mod spec;
pub mod subnet;
mod supervisor;
pub mod usage;
mod volume;
mod volume_files;
mod worker;

pub use config::{DiskQuota, LogLimit, NewConnections, Nvidia, RuntimeConfig, RuntimeInfo};
pub use container::CAPABILITIES;
pub use dial::DialError;
pub use error::{ImageError, RuntimeError};
pub use exec::{ExecControl, ExecInput, ExecSession, ExecSpec};
pub use gpu_use::{GpuMeter, GpuUse};
pub use helper::HELPER_IN_INSTANCE;
pub use image::{ImagePin, ImageSource, ResolvedImage};
pub use incoming::Duplex;
pub use inside::FOLDER_IN_INSTANCE;
pub use inventory::{CpuInfo, GpuInfo, HostInventory};
pub use login::Login;
pub use logs::{LogChunk, LogOptions, LogStream, OutputStream};
pub use loopfs::{DiskFill, LoopDiskError, LoopDisks};
pub use notice::{MAX_NOTICE_BYTES, NOTICE_IN_INSTANCE};
pub use report::{Exit, ExitCause, Failure, FailureCode, InstanceEvent, PullProgress, RuntimeReport, Step};
pub use runtime::{Adopted, DockerRuntime, InstanceState, Runtime, RuntimeFuture};
pub use snapshot::SnapshotSpec;
pub use spec::{Devices, Egress, InstanceSpec, Priority, SpecError};
pub use subnet::Cidr;
pub use usage::{TunnelMeter, UnixNanos, Usage};
pub use volume::{VolumeEvent, VolumeMount};
pub use volume_files::VOLUME_IN_COPY;
