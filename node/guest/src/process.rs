//! The few system calls that PID 1 needs, wrapped safely: blocked signals, waiting, reaping, telling everybody.
//!
//! The only unsafe code of the helper; it decides nothing.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

/// What a signal means to PID 1.
pub enum Signal {
    /// The instance is asked to end: tell every process, then wait for them.
    Forward(i32),
    /// A signal for the programs that doesn't end the instance.
    PassOn(i32),
    /// A child changed state.
    Child,
}

/// Signals that ask the instance to end.
const ENDING: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// Signals that programs give a meaning of their own.
const PASSED_ON: [i32; 3] = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// The signals that PID 1 waits for, all blocked.
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Blocks the signals that PID 1 handles, in this (only) thread.
    pub fn block_for_init() -> Self {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given; sigaddset and sigprocmask get an initialised set and valid
        // signal numbers; the old mask isn't asked for (null is allowed).
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            let mut set = set.assume_init();
            for signal in ENDING.into_iter().chain(PASSED_ON).chain([libc::SIGCHLD]) {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            set
        };
        Self(set)
    }

    /// Waits for the next signal.
    pub fn wait(&self) -> Option<Signal> {
        // SAFETY: the set is initialised; the siginfo isn't asked for (null is allowed).
        classify(unsafe { libc::sigwaitinfo(&raw const self.0, std::ptr::null_mut()) })
    }

    /// Waits for the next signal, at most so many milliseconds.
    pub fn wait_for_ms(&self, milliseconds: u32) -> Option<Signal> {
        let limit = libc::timespec {
            tv_sec: libc::time_t::from(milliseconds / 1000),
            tv_nsec: libc::c_long::from(milliseconds % 1000) * 1_000_000,
        };
        // SAFETY: the set and the time limit are initialised; the siginfo isn't asked for (null is allowed).
        classify(unsafe { libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const limit) })
    }
}

/// Starts the command with no signal blocked, and gives its process id.
pub fn start(program: &OsStr, arguments: &[OsString]) -> std::io::Result<u32> {
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory of this frame.
    unsafe {
        command.pre_exec(|| {
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
            Ok(())
        });
    }
    command.spawn().map(|child| child.id())
}

fn classify(signal: i32) -> Option<Signal> {
    match signal {
        libc::SIGCHLD => Some(Signal::Child),
        ending if ENDING.contains(&ending) => Some(Signal::Forward(ending)),
        passed if PASSED_ON.contains(&passed) => Some(Signal::PassOn(passed)),
        _ => None,
    }
}

/// A child that ended.
pub struct Child {
    /// Its process id within the instance.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
}

/// The next ended child, own or adopted, if there is one.
pub fn reap() -> Option<Child> {
    let mut status = 0;
    // SAFETY: the status points to a live integer; WNOHANG never blocks.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    Some(Child { pid, status: ExitStatus::from_raw(status) })
}

/// Sends a signal to every process of the instance that this user may signal, PID 1 itself excepted.
pub fn signal_everybody(signal: i32) {
    // As an ordinary process (a test outside a container) -1 would reach the whole machine.
    if std::process::id() != 1 {
        return;
    }
    // SAFETY: kill takes plain numbers; -1 from PID 1 means all processes of its own PID namespace but itself.
    unsafe { libc::kill(-1, signal) };
}

/// The user this runs as.
pub fn user() -> u32 {
    // SAFETY: geteuid takes nothing, touches no memory and can't fail.
    unsafe { libc::geteuid() }
}

/// Whether this user may make files in a folder.
pub fn may_write(folder: &std::path::Path) -> bool {
    let Ok(path) = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()) else { return false };
    // SAFETY: the path is a string that ends with NUL and lives here.
    unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}

/// Gives the terminal of the standard input so many rows and columns; where there is none, nothing happens.
pub fn size_terminal(rows: u16, columns: u16) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize, which lives here.
    unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSWINSZ, &raw const size) };
}

/// Whether a process is left that is worth waiting for: any but PID 1, zombies, and interactive shells (leaders of a session with a
/// terminal), which ignore SIGTERM by custom and have nothing to save.
pub fn others_remain() -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return false;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| std::fs::read(format!("/proc/{pid}/stat")).ok())
        .any(|stat| worth_waiting_for(&stat))
}

/// Reads a `/proc/PID/stat` line; the command name in it may hold anything, so the fields count from its last `)`.
fn worth_waiting_for(stat: &[u8]) -> bool {
    let Some(end_of_name) = stat.iter().rposition(|byte| *byte == b')') else {
        return false;
    };
    let pid = stat.split(|byte| *byte == b' ').next();
    let rest = stat.get(end_of_name + 1..).unwrap_or_default();
    let fields: Vec<&[u8]> = rest.split(|byte| *byte == b' ').filter(|field| !field.is_empty()).collect();
    let (state, session, terminal) = (fields.first(), fields.get(3), fields.get(4));
    let zombie = matches!(state, Some(&(b"Z" | b"X")));
    let interactive_shell = session.copied() == pid && terminal.is_some_and(|tty| *tty != b"0");
    !zombie && !interactive_shell
}

#[cfg(test)]
mod tests {
    use super::worth_waiting_for;

    #[test]
    fn shells_with_a_terminal_and_zombies_hold_nothing_up() {
        assert!(worth_waiting_for(b"7 (python) S 1 7 1 0 -1 4194304"));
        assert!(worth_waiting_for(b"9 (a) Z (b) S 7 9 7 34816 9 0"));
        assert!(!worth_waiting_for(b"7 (bash) S 0 7 7 34816 7 0"));
        assert!(!worth_waiting_for(b"8 (sh) Z 1 7 1 0 -1 0"));
        assert!(!worth_waiting_for(b""));
    }
}
