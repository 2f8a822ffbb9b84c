//! Machine-wide locks of slots: two nodes of one machine, on two networks say, never sell the same GPU or CPU slot.
//!
//! Owns lock files under one directory, held with `flock` for as long as a lease holds the slots. The kernel drops them when the
//! process ends, whatever ends it, so a crash leaks none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// A lock file that is a link is somebody's trap.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Bytes of the kernel's list of locks that are read.
const LOCKS_BYTES: u64 = 1 << 20;

/// The slots' locks of one node.
#[derive(Debug)]
pub struct SlotLocks {
    dir: PathBuf,
    names: Vec<String>,
    /// By name: numbers change when the machine is cut anew, a device's name does not.
    held: BTreeMap<String, File>,
}

impl SlotLocks {
    /// Locks for a machine's slots. The directory is made when the first is taken.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), names: Vec::new(), held: BTreeMap::new() }
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

    /// Takes all of these, or none.
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
            let path = self.dir.join(format!("{name}.lock"));
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(NO_FOLLOW)
                .open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => taken.push((name.clone(), file)),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        self.held.extend(taken);
        Ok(true)
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

    /// Lets go of these.
    pub fn unlock(&mut self, slots: &[u16]) {
        for name in slots.iter().filter_map(|slot| self.names.get(usize::from(*slot))) {
            self.held.remove(name);
        }
    }
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
}
