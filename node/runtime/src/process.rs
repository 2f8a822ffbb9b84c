//! Processes of an exec, as this machine's kernel sees them: signalled by descriptor, and only where they belong to the container.
//!
//! Process ids are reused; a pidfd opened before the cgroup is read can't come to mean another process afterwards.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Most processes of one tree that are looked at; a container's own limit is far below.
const MAX_TREE: usize = 65_536;
/// Between SIGHUP and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// A process held so that its id can't come to mean another.
pub(crate) fn hold(pid: i32, container: &str) -> Option<OwnedFd> {
    if container.is_empty() {
        return None;
    }
    let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup.contains(container).then_some(descriptor)
}

/// Sends a signal to one process of a container; false where it is gone, isn't the container's, or the signal doesn't exist.
pub(crate) fn signal(pid: i32, container: &str, signal: i32) -> bool {
    let (Some(process), Some(signal)) = (hold(pid, container), Signal::from_named_raw(signal)) else {
        return false;
    };
    pidfd_send_signal(&process, signal).is_ok()
}

/// Sends a signal to a process of a container and its descendants; false where there is none of them, or no such signal.
pub(crate) fn signal_tree(root: i32, container: &str, signal: i32) -> bool {
    let Some(signal) = Signal::from_named_raw(signal) else { return false };
    let told = hold_all(&tree(root), container);
    told.iter().filter(|(_, process)| pidfd_send_signal(process, signal).is_ok()).count() > 0
}

/// Ends a process and its descendants: SIGHUP, then after a moment SIGKILL, except for those that ignore SIGHUP on purpose.
pub(crate) async fn end_tree(root: i32, container: &str) {
    let told = hold_all(&tree(root), container);
    for (_, process) in &told {
        let _ = pidfd_send_signal(process, Signal::HUP);
    }
    tokio::time::sleep(GRACE).await;
    // What answered the hangup with new processes has them among its descendants now. A process in `told` still means the same one
    // where it can be held again, as its own descriptor was open all the while and says whether it has ended.
    let left: Vec<i32> = told.iter().filter(|(_, process)| is_alive(process)).flat_map(|(pid, _)| tree(*pid)).collect();
    for (pid, process) in hold_all(&left, container) {
        if pid == root || !ignores_hangup(pid) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
}

fn hold_all(pids: &[i32], container: &str) -> Vec<(i32, OwnedFd)> {
    pids.iter().filter_map(|pid| Some((*pid, hold(*pid, container)?))).collect()
}

/// A descriptor becomes readable when its process ends.
pub(crate) fn is_alive(process: &OwnedFd) -> bool {
    let mut waiting = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut waiting, Some(&now)) == Ok(0)
}

/// A process and its descendants, parents first.
fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        if found.len() >= MAX_TREE {
            break;
        }
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    found.truncate(MAX_TREE);
    found
}

fn ignores_hangup(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}
