//! The one place that can't be checked by the compiler: taking machine code from a file.
#![allow(unsafe_code, reason = "wasmtime runs what it is given here; the reason why it may is in `load`")]

use std::fs::File;
use std::os::fd::OwnedFd;

use wasmtime::{Engine, Module};

/// Takes a compiled module.
///
/// # Errors
/// Where the file is none, or is for another engine.
pub(super) fn load(engine: &Engine, code: OwnedFd) -> wasmtime::Result<Module> {
    // SAFETY: the bytes must be those that Wasmtime has made, and not change meanwhile. They come by descriptor from the parent alone,
    // which opens nothing but files of its cache whose keyed digest it has checked (`crate::host::store`): written by a compiler process
    // of its own, for this engine, from the module with this digest, into a folder that only its user can write to, and never written
    // again under the same inode. A compiler process that a module took over could write other code; it would get no more than the same
    // module gets by taking over this process, which is confined before this line, and the file serves no other module.
    unsafe { Module::deserialize_open_file(engine, File::from(code)) }
}
