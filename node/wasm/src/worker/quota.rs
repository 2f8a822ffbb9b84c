//! The bounds on a workspace: files in it and bytes on disk.
//!
//! What a guest adds is counted at the call, from above: what it overwrites or removes isn't subtracted. Where the count reaches the
//! limit, the workspace is looked through anew, in the guest's own time, and only then is anything refused. So a limit is never passed.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::ticker::Shared;

/// What making a file or a folder may add on disk beside its contents: an inode, and another block of its folder.
const FILE_BYTES: u64 = 8192;
/// What a write may add beside its bytes: blocks that it begins and ends in.
const WRITE_BYTES: u64 = 8192;
/// How deep folders are followed. A workspace that is deeper counts as full.
const DEPTH: usize = 128;
/// Bytes of a block as `stat` counts.
const BLOCK: u64 = 512;

/// The count of one workspace.
pub(super) struct Quota {
    root: Option<OwnedFd>,
    most: Count,
    now: Count,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    files: u64,
    bytes: u64,
}

impl Count {
    const FULL: Self = Self { files: u64::MAX, bytes: u64::MAX };

    fn plus(self, more: Self) -> Self {
        Self { files: self.files.saturating_add(more.files), bytes: self.bytes.saturating_add(more.bytes) }
    }

    fn within(self, most: Self) -> bool {
        self.files <= most.files && self.bytes <= most.bytes
    }
}

impl Quota {
    /// Counts what is there.
    pub(super) fn new(root: Option<OwnedFd>, files: u64, bytes: u64, shared: Arc<Shared>) -> Self {
        let mut quota = Self { root, most: Count { files, bytes }, now: Count::default(), shared };
        quota.look();
        quota.tell();
        quota
    }

    /// Counts one more file, folder or link, if there is room.
    pub(super) fn take_file(&mut self) -> bool {
        self.take(Count { files: 1, bytes: FILE_BYTES })
    }

    /// Counts a write, if there is room.
    pub(super) fn take_bytes(&mut self, bytes: u64) -> bool {
        self.take(Count { files: 0, bytes: bytes.saturating_add(WRITE_BYTES) })
    }

    /// Whether one file may have this length; a hole takes no room, but must be copied and kept by others.
    pub(super) fn fits(&self, length: u64) -> bool {
        length <= self.most.bytes
    }

    /// Something was refused.
    pub(super) fn refused(&self) {
        self.shared.disk_refused.store(true, Ordering::Relaxed);
    }

    fn take(&mut self, more: Count) -> bool {
        if !self.now.plus(more).within(self.most) {
            self.look();
        }
        let then = self.now.plus(more);
        let fits = then.within(self.most);
        if fits {
            self.now = then;
        }
        self.tell();
        fits
    }

    fn look(&mut self) {
        self.now = match &self.root {
            Some(root) => look_through(root, self.most.files).unwrap_or(Count::FULL),
            None => Count::default(),
        };
    }

    fn tell(&self) {
        self.shared.files.store(self.now.files, Ordering::Relaxed);
        self.shared.disk.store(self.now.bytes, Ordering::Relaxed);
    }
}

/// Counts a folder, no further than one file beyond the limit.
fn look_through(root: &OwnedFd, most: u64) -> Result<Count, Errno> {
    let here = openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut folders = vec![Dir::new(here)?];
    let mut count = Count::default();
    while let Some(folder) = folders.last_mut() {
        let Some(entry) = folder.next() else {
            folders.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let place = folder.fd()?;
        let stat = match statat(place, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        count = count.plus(Count { files: 1, bytes: blocks.saturating_mul(BLOCK) });
        if count.files > most {
            return Ok(count);
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(place.as_fd(), name, flags, Mode::empty()) {
                // What a file system keeps for itself (`lost+found`).
                Err(Errno::ACCESS) => {}
                _ if folders.len() >= DEPTH => return Err(Errno::NAMETOOLONG),
                inner => folders.push(Dir::new(inner?)?),
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::look_through;

    #[test]
    fn files_folders_and_links_count_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), [1_u8; 10_000]).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("root")).unwrap();
        let root = fs::File::open(folder.path()).unwrap().into();
        let count = look_through(&root, 100).unwrap();
        assert_eq!(count.files, 3);
        assert!((10_000..100_000).contains(&count.bytes), "{}", count.bytes);
        assert_eq!(look_through(&root, 1).unwrap().files, 2);
    }

    #[test]
    fn what_is_too_deep_can_not_be_counted() {
        let folder = tempfile::tempdir().unwrap();
        let deep = std::iter::repeat_n("d", 200).collect::<Vec<_>>().join("/");
        fs::create_dir_all(folder.path().join(deep)).unwrap();
        let root = fs::File::open(folder.path()).unwrap().into();
        assert!(look_through(&root, 1000).is_err());
    }
}
