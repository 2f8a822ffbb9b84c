//! Machine-wide locks of slots: two nodes of one machine, on two networks say, never sell the same GPU or CPU slot.
//!
//! Owns lock files under one directory, held with `flock` for as long as a lease holds the slots. The kernel drops them when the
//! process ends, whatever ends it, so a crash leaks none.
//!
//! A slot has two locks. Its own is a lease's. The other one, `….idle.lock`, is held while a node's idle job may run there: such a
//! slot is free for every node to sell, and whoever has sold it waits for that lock before anything of the lease is started. The
//! idle job's node takes the idle lock first and then looks at the slot's own; the seller takes the slot's own first and then looks
//! at the idle lock. So one of them sees the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// A lock file that is a link is somebody's trap.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
/// Tries for a lock: another node that only looks at it holds it for some microseconds.
const TRIES: u32 = 4;
/// Between two of them.
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

/// Bytes of the kernel's list of locks that are read.
const LOCKS_BYTES: u64 = 1 << 20;

/// The slots' locks of one node.
#[derive(Debug)]
pub struct SlotLocks {
    dir: PathBuf,
    names: Vec<String>,
    /// By name: numbers change when the machine is cut anew, a device's name does not.
    held: BTreeMap<String, File>,
    /// The idle locks held.
    idle: BTreeMap<String, File>,
}

impl SlotLocks {
    /// Locks for a machine's slots. The directory is made when the first is taken.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), names: Vec::new(), held: BTreeMap::new(), idle: BTreeMap::new() }
    }

    /// Names the slots: by device, or by number where they have none. Locks held stay held.
    pub fn name(&mut self, devices: &[Option<String>]) {
        let name = |(n, device): (usize, &Option<String>)| match device {
            Some(device) => format!("gpu-{}", device.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "_")),
            None => format!("cpu-{n}"),
        };
        self.names = devices.iter().enumerate().map(name).collect();
    }

    /// Slots that other processes of this machine hold: another node's. Looks at the kernel's list of locks and takes none, so
    /// that nobody who rents at this moment finds a slot taken. Slots of nodes in other process namespaces are not in it.
    #[must_use]
    pub fn elsewhere(&self) -> BTreeSet<usize> {
        let mut locks = String::new();
        if let Ok(file) = File::open("/proc/locks") {
            // What can't be read is not shown; renting asks the locks themselves.
            drop(file.take(LOCKS_BYTES).read_to_string(&mut locks));
        }
        let locked: BTreeSet<&str> = locks
            .lines()
            .filter(|line| line.contains(" FLOCK "))
            .filter_map(|line| line.split_whitespace().nth(5))
            .collect();
        let taken = |name: &String| {
            let file = std::fs::symlink_metadata(self.dir.join(format!("{name}.lock"))).ok()?;
            let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
            Some(locked.contains(format!("{major:02x}:{minor:02x}:{}", file.ino()).as_str()))
        };
        let others = self.names.iter().enumerate().filter(|(_, name)| !self.held.contains_key(*name));
        others.filter(|(_, name)| taken(name) == Some(true)).map(|(n, _)| n).collect()
    }

    /// Takes all of these, or none. Those held already are fine.
    ///
    /// # Errors
    /// If the directory or a lock file can't be made.
    pub fn lock(&mut self, slots: &[u16]) -> io::Result<bool> {
        self.make_dir()?;
        let mut taken = Vec::new();
        for slot in slots {
            let Some(name) = self.names.get(usize::from(*slot)) else { return Ok(false) };
            if self.held.contains_key(name) {
                continue;
            }
            match self.take(&own(name))? {
                Some(file) => taken.push((name.clone(), file)),
                None => return Ok(false),
            }
        }
        self.held.extend(taken);
        Ok(true)
    }

    /// Lets go of these.
    pub fn unlock(&mut self, slots: &[u16]) {
        for name in slots.iter().filter_map(|slot| self.names.get(usize::from(*slot))) {
            self.held.remove(name);
        }
    }

    /// Those of these slots that other nodes of this machine hold now. Takes nothing and makes no file.
    #[must_use]
    pub fn foreign(&self, slots: &[u16]) -> Vec<u16> {
        let elsewhere = |name: &String| !self.held.contains_key(name) && self.is_taken(&own(name));
        slots.iter().copied().filter(|slot| self.names.get(usize::from(*slot)).is_some_and(elsewhere)).collect()
    }

    /// Takes a slot's idle lock; false where another node has it, or the slot itself.
    ///
    /// # Errors
    /// As [`SlotLocks::lock`].
    pub fn lock_idle(&mut self, slot: u16) -> io::Result<bool> {
        self.make_dir()?;
        let Some(name) = self.names.get(usize::from(slot)).cloned() else { return Ok(false) };
        if !self.idle.contains_key(&name) {
            let Some(file) = self.take(&idle(&name))? else { return Ok(false) };
            self.idle.insert(name.clone(), file);
        }
        if self.foreign(&[slot]).is_empty() {
            return Ok(true);
        }
        self.idle.remove(&name);
        Ok(false)
    }

    /// Keeps the idle locks of these slots, and lets go of all others.
    pub fn keep_idle(&mut self, slots: &[u16]) {
        let kept: BTreeSet<&String> = slots.iter().filter_map(|slot| self.names.get(usize::from(*slot))).collect();
        self.idle.retain(|name, _| kept.contains(name));
    }

    /// Whether another node's idle job may still run on one of these slots.
    #[must_use]
    pub fn idle_elsewhere(&self, slots: &[u16]) -> bool {
        let elsewhere = |name: &String| !self.idle.contains_key(name) && self.is_taken(&idle(name));
        slots.iter().any(|slot| self.names.get(usize::from(*slot)).is_some_and(elsewhere))
    }

    fn take(&self, file: &str) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(NO_FOLLOW)
            .open(self.dir.join(file))?;
        for attempt in 1..=TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) if attempt < TRIES => std::thread::sleep(BETWEEN_TRIES),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(None)
    }

    /// Whether somebody has an exclusive lock on a file. A shared one, let go at once, finds that out; two who look at the same time
    /// don't mistake each other for holders.
    fn is_taken(&self, file: &str) -> bool {
        let file = OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(self.dir.join(file));
        file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// Makes the directory; one that somebody else could have filled is refused.
    fn make_dir(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.dir)?;
        let found = std::fs::symlink_metadata(&self.dir)?;
        let owner = rustix::process::geteuid().as_raw();
        if !found.is_dir() || (found.uid() != owner && found.uid() != 0) || found.mode() & 0o022 != 0 {
            let what = format!("{} belongs to another user, or others may write to it", self.dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        Ok(())
    }
}

fn own(name: &str) -> String {
    format!("{name}.lock")
}

fn idle(name: &str) -> String {
    format!("{name}.idle.lock")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_nodes_of_one_machine_do_not_hold_one_slot() {
        let dir = tempfile::tempdir().unwrap();
        let devices = [Some("GPU-a/b".to_owned()), None];
        let (mut a, mut b) = (SlotLocks::new(dir.path()), SlotLocks::new(dir.path()));
        a.name(&devices);
        b.name(&devices);
        assert!(a.lock(&[0]).unwrap());
        assert!(a.lock(&[0]).unwrap(), "again is fine");
        assert!(!b.lock(&[1, 0]).unwrap(), "all or none");
        assert_eq!((a.elsewhere(), b.elsewhere()), (BTreeSet::new(), BTreeSet::from([0])));
        assert!(a.lock(&[1]).unwrap(), "so 1 was not kept");
        a.unlock(&[0]);
        assert!(b.lock(&[0]).unwrap());
        drop(a);
        assert!(b.lock(&[1]).unwrap(), "freed with its node");
        assert!(!b.lock(&[7]).unwrap(), "no such slot");
    }

    #[test]
    fn slots_of_other_nodes_are_seen_without_disturbing_them() {
        let dir = tempfile::tempdir().unwrap();
        let devices = [None, None, None];
        let (mut a, mut b) = (SlotLocks::new(dir.path()), SlotLocks::new(dir.path()));
        a.name(&devices);
        b.name(&devices);
        assert_eq!(b.foreign(&[0, 1, 2]), Vec::<u16>::new(), "there is no directory yet");
        assert!(a.lock(&[1]).unwrap());
        assert_eq!(b.foreign(&[0, 1, 2, 9]), vec![1]);
        assert_eq!(a.foreign(&[0, 1, 2]), Vec::<u16>::new(), "its own are not foreign");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "looking makes no files");
        a.unlock(&[1]);
        assert_eq!(b.foreign(&[1]), Vec::<u16>::new());
        // One node looks again and again; the other gets its lock every time.
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                for _ in 0..200 {
                    let _ = b.foreign(&[1]);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            while !looking.is_finished() {
                assert!(a.lock(&[1]).unwrap());
                a.unlock(&[1]);
            }
        });
    }

    #[test]
    fn an_idle_job_and_a_lease_of_another_node_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (mut idler, mut seller) = (SlotLocks::new(dir.path()), SlotLocks::new(dir.path()));
        idler.name(&[None, None]);
        seller.name(&[None, None]);
        assert!(idler.lock_idle(0).unwrap());
        assert!(idler.lock_idle(0).unwrap(), "again is fine");
        assert!(!seller.lock_idle(0).unwrap(), "one idle job a slot");
        assert!(!idler.idle_elsewhere(&[0]) && seller.idle_elsewhere(&[0, 1]) && !seller.idle_elsewhere(&[1]));
        assert!(seller.lock(&[0]).unwrap(), "an idle slot can be sold");
        assert!(seller.idle_elsewhere(&[0]), "and the lease waits");
        assert_eq!(idler.foreign(&[0, 1]), vec![0]);
        idler.keep_idle(&[]);
        assert!(!seller.idle_elsewhere(&[0]));
        assert!(!idler.lock_idle(0).unwrap(), "not on a slot that is sold");
        assert!(!seller.idle_elsewhere(&[0]), "and nothing is left of the attempt");
        assert!(idler.lock_idle(1).unwrap());
    }
}
