//! Compiling one module, in a process that is confined and can be killed: a module may be made to cost its compiler any time and memory.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use wasmtime::Engine;

use super::confine::{self, Bounds};
use super::filter;
use crate::message::{CompileOrder, Line, Word};
use crate::report::{Confinement, reason};

pub(super) fn compile(
    line: &mut Line,
    engine: &Engine,
    order: CompileOrder,
    fds: Vec<OwnedFd>,
    confinement: &mut Confinement,
) -> wasmtime::Result<ExitCode> {
    let mut fds = fds.into_iter();
    let (Some(module), Some(output)) = (fds.next(), fds.next()) else {
        wasmtime::bail!("a module and a place for its code are needed");
    };
    confine::bounds(Bounds {
        memory: order.memory_bytes,
        file: order.output_bytes,
        cpu_seconds: Some(order.cpu_seconds),
    })?;
    confinement.landlock = confine::landlock(None, None)?;
    confine::no_more_threads()?;
    confinement.seccomp = filter::apply()?;
    line.say(&Word::Ready(*confinement))?;
    let mut bytes = Vec::new();
    File::from(module).take(order.module_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    let word = match check(&bytes, order.module_bytes).and_then(|()| engine.precompile_module(&bytes)) {
        Ok(code) => {
            File::from(output).write_all(&code)?;
            Word::Compiled
        }
        Err(error) => Word::Invalid { reason: reason(&format!("{error:#}")) },
    };
    line.say(&word)?;
    Ok(ExitCode::SUCCESS)
}

fn check(bytes: &[u8], most: u64) -> wasmtime::Result<()> {
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > most {
        wasmtime::bail!("it has more than {most} bytes");
    }
    match bytes.get(..8) {
        Some(b"\0asm\x01\0\0\0") => Ok(()),
        Some(b"\0asm\x0d\0\x01\0") => wasmtime::bail!("it is a component; only modules of WASI preview 1 are run"),
        Some(_) | None => wasmtime::bail!("it is no WebAssembly module"),
    }
}
