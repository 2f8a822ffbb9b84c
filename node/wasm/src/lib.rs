//! Runs one WASI module in a worker process of its own: sandboxed, metered, ended when told.
pub mod engine;
mod message;
pub mod report;
pub mod spec;
pub mod worker;
