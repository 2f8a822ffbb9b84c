//! PID 1: run what is due before the command, start the command, pass signals to everybody, reap, and end with the command's code.
//!
//! Owns the life of the instance's processes from inside. It takes signals synchronously (all of them blocked, one wait
//! loop), so there are no signal handlers and no races with them.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::onstart::{self, Stage};
use crate::process::{self, Child, Signal, SignalSet};
use crate::say;

/// The command was found but the kernel would not execute it.
const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;
/// Told to end before the command began.
const TERMINATED: u8 = 128 + 15;
/// A script that takes longer than this before the command is said to.
const LONG_MS: u32 = 60_000;
/// How often the end of the last process is looked for while the instance stops; processes that an exec brought in are
/// no children of PID 1, so no SIGCHLD tells of their end.
const STOP_POLL_MS: u32 = 25;

/// What PID 1 waits for.
enum Running {
    /// A script before the command.
    Stage(u32, &'static str),
    Command(u32),
    /// The command has ended, or there is none and the instance is only kept.
    Nothing,
}

/// Runs the instance until its command ends, or, without one, until it is told to stop. Returns the exit code.
pub fn run(command: &[OsString]) -> u8 {
    let signals = SignalSet::block_for_init();
    let mut stages = Vec::new().into_iter();
    if std::process::id() == 1 {
        // What an earlier run was told is no news for this one. Another user than root may not; the host then does it.
        let _ = crate::notice::remove();
        stages = onstart::stages().into_iter();
    }
    let mut running = match next(&mut stages, command) {
        Ok(running) => running,
        Err(code) => return code,
    };
    let keep_alive = command.is_empty();
    let mut code = if keep_alive { 0 } else { TERMINATED };
    let mut stopping = false;
    let mut told = keep_alive;
    loop {
        let signal = if stopping {
            signals.wait_for_ms(STOP_POLL_MS)
        } else if let (Running::Stage(_, name), false) = (&running, told) {
            let signal = signals.wait_for_ms(LONG_MS);
            if signal.is_none() {
                told = true;
                say(&format!("{name} still runs; the command starts when it has ended"));
            }
            signal
        } else {
            signals.wait()
        };
        match signal {
            Some(Signal::Forward(number)) => {
                process::signal_everybody(number);
                stopping = true;
            }
            Some(Signal::PassOn(number)) => process::signal_everybody(number),
            Some(Signal::Child) | None => {}
        }
        while let Some(Child { pid, status }) = process::reap() {
            match running {
                Running::Command(main) if main == pid => {
                    code = exit_code(status);
                    running = Running::Nothing;
                    if !stopping {
                        return code;
                    }
                }
                Running::Stage(stage, name) if stage == pid => {
                    let failed = exit_code(status);
                    if failed != 0 && !stopping {
                        say(&format!(
                            "{name} ended with code {failed}{}",
                            if keep_alive { "" } else { "; the command starts all the same" }
                        ));
                    }
                    running = Running::Nothing;
                    if !stopping {
                        running = match next(&mut stages, command) {
                            Ok(running) => running,
                            Err(code) => return code,
                        };
                    }
                }
                Running::Command(_) | Running::Stage(..) | Running::Nothing => {}
            }
        }
        if stopping && matches!(running, Running::Nothing) && !process::others_remain() {
            return code;
        }
    }
}

/// Starts what is due next: a script that can be started, else the command.
fn next(stages: &mut std::vec::IntoIter<Stage>, command: &[OsString]) -> Result<Running, u8> {
    for stage in stages {
        match process::start(&stage.program, &stage.arguments) {
            Ok(pid) => return Ok(Running::Stage(pid, stage.name)),
            Err(error) => say(&format!("{} can't be run: {error}", stage.name)),
        }
    }
    let Some((program, arguments)) = command.split_first() else { return Ok(Running::Nothing) };
    process::start(program, arguments).map(Running::Command).map_err(|error| refused(program, &error))
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
