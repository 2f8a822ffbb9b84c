//! A worker as the kernel sees it: whether it runs, stands or has ended, and the processor time it has had.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::spawn::Worker;

/// How long the kernel may take to let a process stand.
const STAND_WITHIN: Duration = Duration::from_secs(1);

/// Held by descriptor, so that its id can't come to mean another process.
#[derive(Debug)]
pub(super) struct Process {
    worker: Worker,
    pid: u32,
    fd: OwnedFd,
}

impl Process {
    pub(super) fn hold(worker: Worker) -> io::Result<Self> {
        let pid = worker.child.id();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let fd = pidfd_open(raw, PidfdFlags::empty())?;
        Ok(Self { worker, pid, fd })
    }

    /// Kills what is left of it and waits for its end. It isn't reaped by this, so its times can still be read.
    pub(super) async fn end(&self) {
        self.signal(Signal::KILL);
        if let Ok(fd) = self.fd.try_clone() {
            let wait = move || waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            // Whatever it says, `reap` waits, too.
            let _ = tokio::task::spawn_blocking(wait).await;
        }
    }

    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.worker.child.wait()
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Fails only where it has ended.
        let _ = pidfd_send_signal(&self.fd, signal);
    }

    /// Lets it stand, and waits until it does: from then on it uses nothing.
    pub(super) async fn stand(&self) {
        self.signal(Signal::STOP);
        let until = tokio::time::Instant::now() + STAND_WITHIN;
        while tokio::time::Instant::now() < until && !self.stat().is_some_and(|stat| "TtZX".contains(stat.state)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Processor time in microseconds, of all its threads since it began, to a hundredth of a second.
    pub(super) fn cpu_us(&self) -> Option<u64> {
        self.stat().map(|stat| stat.ticks.saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second().max(1))
    }

    fn stat(&self) -> Option<Stat> {
        parse(&std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?)
    }
}

struct Stat {
    state: char,
    ticks: u64,
}

/// The name, which may hold anything, ends with the last parenthesis.
fn parse(stat: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let mut times = fields.skip(10).map(|field| field.parse::<u64>().ok());
    Some(Stat { state, ticks: times.next()??.saturating_add(times.next()??) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    #[test]
    fn times_are_read_whatever_the_name() {
        let stat = parse("12 (a) S (b) T 1 2 3 4 5 6 7 8 9 10 70 8 1 1 20 0").unwrap();
        assert_eq!((stat.state, stat.ticks), ('T', 78));
        assert!(parse("12 (a").is_none());
    }
}
