//! PID 1: start the command, pass signals to everybody, reap, and end with the command's code.
//!
//! Owns the life of the instance's processes from inside. It takes signals synchronously (all of them blocked, one wait
//! loop), so there are no signal handlers and no races with them.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::process::{self, Child, Signal, SignalSet};
use crate::say;

/// The command was found but the kernel would not execute it.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;
/// The host's order to start nothing.
const FILES_ONLY: &str = "/.souk/orders/files-only";
/// How often the end of the last process is looked for while the instance stops; processes that an exec brought in are
/// no children of PID 1, so no SIGCHLD tells of their end.
const STOP_POLL_MS: u32 = 25;

/// Runs the instance until its command ends, or, without one, until it is told to stop. Returns the exit code.
pub fn run(command: &[OsString]) -> u8 {
    let signals = SignalSet::block_for_init();
    if std::process::id() == 1 {
        // What an earlier run was told is no news for this one. Another user than root may not; the host then does it.
        let _ = crate::notice::remove();
    }
    // The host wants to reach the files alone, and nothing of the renter's starts. The folder is the host's, mounted read-only.
    let command = if std::path::Path::new(FILES_ONLY).exists() { &[] } else { command };
    let mut main_child = match command.split_first() {
        None => None,
        Some((program, arguments)) => match process::start(program, arguments) {
            Ok(pid) => Some(pid),
            Err(error) => return refused(program, &error),
        },
    };
    let keep_alive = main_child.is_none();
    let mut code = 0;
    let mut stopping = false;
    loop {
        let signal = if stopping { signals.wait_for_ms(STOP_POLL_MS) } else { signals.wait() };
        match signal {
            Some(Signal::Forward(number)) => {
                process::signal_everybody(number);
                stopping = true;
            }
            Some(Signal::PassOn(number)) => process::signal_everybody(number),
            Some(Signal::Child) | None => {}
        }
        while let Some(Child { pid, status }) = process::reap() {
            if Some(pid) == main_child {
                code = exit_code(status);
                main_child = None;
                if !stopping {
                    return code;
                }
            }
        }
        if stopping && main_child.is_none() && !process::others_remain() {
            return if keep_alive { 0 } else { code };
        }
    }
}

/// Says why the command could not be started, and gives the shell's code for it.
fn refused(program: &OsString, error: &std::io::Error) -> u8 {
    let name = program.to_string_lossy();
    if error.kind() == ErrorKind::NotFound {
        say(&format!("{name}: command not found in this image (or the interpreter it names is missing)"));
        NOT_FOUND
    } else if error.kind() == ErrorKind::PermissionDenied {
        say(&format!("{name}: not executable (is it a file with the x permission?)"));
        NOT_EXECUTABLE
    } else {
        say(&format!("{name}: can't be executed: {error}"));
        NOT_EXECUTABLE
    }
}

/// The code a shell would give: the program's own, or 128 + the signal that ended it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}
