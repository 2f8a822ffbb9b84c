//! The worker process: one order, then it ends. It confines itself before it looks at a byte of the module.
//!
//! It is started ahead of its order where a spare is wanted: what doesn't depend on the order is done by then. Its threads: the main one
//! hears the parent, one runs the guest, one ticks, and one serves timers. None is added once the filter for system calls stands.

mod compile;
mod confine;
mod filter;
mod guest;
mod limit;
mod load;
mod output;
mod quota;
mod readdir;
mod run;
mod shims;
mod ticker;
#[cfg(test)]
mod walls;

use std::process::ExitCode;

use crate::engine::{self, Flavour};
use crate::message::{Line, Order, Word};
use crate::report::{End, Usage, reason};

/// Bytes that a worker adds to a log that it cuts.
pub(crate) const CUT_MARK_BYTES: u64 = output::CUT_MARK.len() as u64;

/// The exit code of a worker that could not even speak.
const MUTE: u8 = 70;

/// The whole life of a worker. The caller's `main` does nothing else, before or after: it ends with the code given.
#[must_use]
pub fn main() -> ExitCode {
    let Ok(mut line) = Line::of_stdin() else { return ExitCode::from(MUTE) };
    let Ok(mut own) = line.again() else { return ExitCode::from(MUTE) };
    hide_panics(&line);
    match serve(&mut line) {
        Ok(code) => code,
        Err(error) => {
            let end = End::Failed { reason: reason(&format!("{error:#}")) };
            let _ = own.say(&Word::Ended { end, usage: Usage::default() });
            ExitCode::FAILURE
        }
    }
}

fn serve(line: &mut Line) -> wasmtime::Result<ExitCode> {
    let Some((Order::Hello { user }, _)) = line.receive()? else { return Ok(ExitCode::SUCCESS) };
    let mut confinement = confine::at_start(user)?;
    // Most runs are of this flavour; the others make their own.
    let ready = run::Ready::new(Flavour::Plain)?;
    match line.receive()? {
        Some((Order::Run(order), fds)) => {
            let flavour = Flavour::of(&order.mode, order.limits.fuel);
            let ready = if flavour == Flavour::Plain { ready } else { run::Ready::new(flavour)? };
            run::run(line, ready, *order, fds, &mut confinement)
        }
        Some((Order::Compile(order), fds)) => {
            compile::compile(line, &engine::engine(order.flavour)?, order, fds, &mut confinement)
        }
        Some((Order::Hello { .. } | Order::Stop, _)) | None => Ok(ExitCode::SUCCESS),
    }
}

/// A panic of the worker is told to the parent, not to the guest's log.
fn hide_panics(line: &Line) {
    let Ok(line) = line.again() else { return };
    let line = std::sync::Mutex::new(line);
    std::panic::set_hook(Box::new(move |panic| {
        let end = End::Failed { reason: reason(&panic.to_string()) };
        if let Ok(mut line) = line.lock() {
            let _ = line.say(&Word::Ended { end, usage: Usage::default() });
        }
        std::process::abort();
    }));
}
