//! Files that hold a file system each, mounted where the engine sees them: the sized disks of instances and volumes.
//!
//! A [`LoopDisks`] owns one folder: `NAME.ext4` is the file, `NAME/` the place it is mounted at. The space is preallocated, so that
//! what was granted is there whatever else fills the machine's disk, and writing beyond it fails inside with ENOSPC. Bytes and
//! inodes are both bounded, by the file system itself. Loop devices clear themselves with the last unmount.
//!
//! Mounts are made in the engine's mount namespace, which is found by the process at the other end of its socket: a node in a
//! namespace of its own (a hardened unit) would otherwise mount where the engine sees nothing. Everything may be repeated, and
//! carries on where a crash cut it. What is inside a disk is never looked at: it may be a guest's.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;

/// Longest name of a disk, in bytes.
pub const MAX_DISK_NAME: usize = 64;
/// The smallest disk: below it a file system has no room for its own tables.
pub const LEAST_DISK_BYTES: u64 = 8 * MIB;

const MIB: u64 = 1 << 20;
/// Up to this size there is an inode for each 8 KiB, beyond for each 16 KiB.
const MANY_INODES_UP_TO: u64 = 64 << 30;
/// Making the file system of a very large file may take its time.
const MAKE_WITHIN: Duration = Duration::from_secs(120);
/// How long a mount or unmount may take; after a crash the journal is replayed.
const MOUNT_WITHIN: Duration = Duration::from_secs(60);
/// What is kept of a program's complaint.
const MESSAGE_BYTES: usize = 300;

/// Why a disk can't be had.
#[derive(Debug, Error)]
pub enum LoopDiskError {
    /// The name can't be a file's.
    #[error("a disk's name is 1 to {MAX_DISK_NAME} letters, digits, dashes or underscores")]
    Name,
    /// There is no such disk.
    #[error("there is no disk {name}; it was removed, or never made")]
    Missing {
        /// Its name.
        name: String,
    },
    /// The machine has no room to set the space aside.
    #[error("the machine's disk has no room for another {mib} MiB; free some, or offer less disk")]
    NoRoom {
        /// What was wanted, in MiB.
        mib: u64,
    },
    /// A program failed.
    #[error("{program} failed: {message}; loop-mounted disks need root, a loop device and {program}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said, shortened.
        message: String,
    },
    /// The engine's process can't be found.
    #[error("the container engine's process can't be seen from here; check that it runs on this machine")]
    Engine,
    /// A file can't be used.
    #[error("can't use {path}: {source}")]
    Files {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFill {
    /// Bytes written.
    pub used_bytes: u64,
    /// Bytes that can still be written.
    pub free_bytes: u64,
}

/// The disks of one folder. A handle without state of its own: what exists and what is mounted is asked of the kernel each time.
#[derive(Debug, Clone)]
pub struct LoopDisks {
    folder: PathBuf,
    socket: PathBuf,
    preallocate: bool,
}

/// One line of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    /// `major:minor` of the file system.
    device: String,
    at: PathBuf,
}

/// Where the engine mounts, as seen from here.
#[derive(Debug, Clone)]
struct Place {
    /// The process to enter; `None` where it shares this one's mounts.
    enter: Option<u32>,
}

impl Place {
    /// A path of the engine, as this process opens it.
    fn path(&self, path: &Path) -> PathBuf {
        match self.enter {
            None => path.to_owned(),
            Some(process) => {
                let inside = path.strip_prefix("/").unwrap_or(path);
                PathBuf::from(format!("/proc/{process}/root")).join(inside)
            }
        }
    }

    fn mounts(&self) -> Result<Vec<Mounted>, LoopDiskError> {
        let table = match self.enter {
            None => PathBuf::from("/proc/self/mountinfo"),
            Some(process) => PathBuf::from(format!("/proc/{process}/mountinfo")),
        };
        let text = fs::read_to_string(&table).map_err(|source| files(&table, source))?;
        Ok(text.lines().filter_map(parse_mount).collect())
    }

    async fn run(&self, program: &'static str, words: &[&std::ffi::OsStr]) -> Result<(), LoopDiskError> {
        let mut command = match self.enter {
            None => tokio::process::Command::new(program),
            Some(process) => {
                let mut command = tokio::process::Command::new("nsenter");
                command.args(["--target", &process.to_string(), "--mount", "--", program]);
                command
            }
        };
        command.args(words);
        output_of(program, command, MOUNT_WITHIN).await
    }
}

impl LoopDisks {
    /// The disks of a folder (an absolute path that the engine sees as the same), for the engine behind this socket. With
    /// `preallocate`, the whole size is set aside at once.
    #[must_use]
    pub fn new(folder: &Path, engine_socket: &Path, preallocate: bool) -> Self {
        Self { folder: folder.to_owned(), socket: engine_socket.to_owned(), preallocate }
    }

    /// Where a disk is mounted when it is.
    #[must_use]
    pub fn mount_point(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.ext4"))
    }

    /// Whether a disk of this name was made.
    #[must_use]
    pub fn exists(&self, name: &str) -> bool {
        check(name).is_ok() && self.file(name).exists()
    }

    /// Makes a disk on which so many bytes can be written. Nothing is done where there is one already, whatever its size.
    ///
    /// # Errors
    /// No room, no `mkfs.ext4`, a name that is none.
    pub async fn create(&self, name: &str, bytes: u64) -> Result<(), LoopDiskError> {
        check(name)?;
        if self.exists(name) {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| files(&self.folder, source))?;
        let unfinished = self.folder.join(format!("{name}.new"));
        let made = self.make(&unfinished, bytes.max(LEAST_DISK_BYTES)).await;
        let made = made.and_then(|()| fs::rename(&unfinished, self.file(name)).map_err(|e| files(&unfinished, e)));
        if made.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    async fn make(&self, path: &Path, bytes: u64) -> Result<(), LoopDiskError> {
        let size = file_size(bytes);
        let (folder, target, preallocate) = (self.folder.clone(), path.to_owned(), self.preallocate);
        tokio::task::spawn_blocking(move || set_aside(&folder, &target, size, preallocate))
            .await
            .map_err(|_| LoopDiskError::Engine)??;
        let per_inode = if bytes <= MANY_INODES_UP_TO { "8192" } else { "16384" };
        let mut command = tokio::process::Command::new("mkfs.ext4");
        command
            .args(["-q", "-F", "-b", "4096", "-m", "0", "-I", "256", "-i", per_inode])
            .args(["-J", &format!("size={}", journal_bytes(bytes) / MIB)])
            // Discarding would give the space back that was just set aside; zeros are there already.
            .args(["-O", "^resize_inode", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"])
            .arg(path);
        output_of("mkfs.ext4", command, MAKE_WITHIN).await
    }

    /// Mounts a disk, where it isn't yet, and gives the place.
    ///
    /// # Errors
    /// No such disk, no loop device, no right to mount.
    pub async fn mount(&self, name: &str) -> Result<PathBuf, LoopDiskError> {
        check(name)?;
        let (file, at) = (self.file(name), self.mount_point(name));
        if !file.exists() {
            return Err(LoopDiskError::Missing { name: name.to_owned() });
        }
        let place = self.place().await?;
        if device_at(&place.mounts()?, &at).is_some() {
            return Ok(at);
        }
        match fs::DirBuilder::new().mode(0o700).create(&at) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(files(&at, source)),
        }
        let options = "loop,noatime,nodev,noinit_itable,errors=remount-ro";
        place
            .run(
                "mount",
                &["-t".as_ref(), "ext4".as_ref(), "-o".as_ref(), options.as_ref(), file.as_ref(), at.as_ref()],
            )
            .await?;
        Ok(at)
    }

    /// Mounts a folder of a mounted disk over another path too, where it isn't yet; other such places of this disk are unmounted,
    /// but for those under `keep`.
    ///
    /// # Errors
    /// As [`LoopDisks::mount`].
    pub async fn bind(&self, name: &str, inside: &str, target: &Path, keep: &Path) -> Result<(), LoopDiskError> {
        let at = self.mount(name).await?;
        let place = self.place().await?;
        let mounts = place.mounts()?;
        let device = device_at(&mounts, &at).ok_or_else(|| LoopDiskError::Missing { name: name.to_owned() })?;
        if device_at(&mounts, target).as_ref() == Some(&device) {
            return Ok(());
        }
        for other in mounts.iter().filter(|m| m.device == device && m.at != at && !m.at.starts_with(keep)) {
            place.run("umount", &[other.at.as_ref()]).await?;
        }
        place.run("mount", &["--bind".as_ref(), at.join(inside).as_ref(), target.as_ref()]).await
    }

    /// Unmounts what [`LoopDisks::bind`] mounted over a path; fine where nothing of this disk is there.
    ///
    /// # Errors
    /// Where it is in use.
    pub async fn unbind(&self, name: &str, target: &Path) -> Result<(), LoopDiskError> {
        check(name)?;
        let place = self.place().await?;
        let mounts = place.mounts()?;
        let Some(device) = device_at(&mounts, &self.mount_point(name)) else {
            return Ok(());
        };
        if device_at(&mounts, target).as_ref() == Some(&device) {
            place.run("umount", &[target.as_ref()]).await?;
        }
        Ok(())
    }

    /// Unmounts a disk everywhere; fine where it isn't mounted. What still has it open keeps it until it ends.
    ///
    /// # Errors
    /// Where it can't be.
    pub async fn unmount(&self, name: &str) -> Result<(), LoopDiskError> {
        check(name)?;
        let place = self.place().await?;
        let mounts = place.mounts()?;
        let at = self.mount_point(name);
        let Some(device) = device_at(&mounts, &at) else {
            return Ok(());
        };
        for mount in mounts.iter().rev().filter(|mount| mount.device == device) {
            if let Err(error) = place.run("umount", &[mount.at.as_ref()]).await {
                tracing::debug!(%error, at = %mount.at.display(), "unmounted as soon as nobody uses it");
                place.run("umount", &["-l".as_ref(), mount.at.as_ref()]).await?;
            }
        }
        Ok(())
    }

    /// Unmounts a disk and deletes it with all that is on it; fine where there is none.
    ///
    /// # Errors
    /// Where it can't be unmounted or deleted.
    pub async fn destroy(&self, name: &str) -> Result<(), LoopDiskError> {
        check(name)?;
        let (file, at) = (self.file(name), self.mount_point(name));
        let unfinished = self.folder.join(format!("{name}.new"));
        if file.exists() || at.exists() {
            self.unmount(name).await?;
        }
        for path in [&file, &unfinished] {
            absent_is_fine(fs::remove_file(path)).map_err(|source| files(path, source))?;
        }
        absent_is_fine(fs::remove_dir(&at)).map_err(|source| files(&at, source))
    }

    /// The disks there are, half-made ones too.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let stem = name.strip_suffix(".ext4").or_else(|| name.strip_suffix(".new")).unwrap_or(&name);
                check(stem).is_ok().then(|| stem.to_owned())
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How full a mounted disk is.
    ///
    /// # Errors
    /// Where it isn't mounted.
    pub async fn fill(&self, name: &str) -> Result<DiskFill, LoopDiskError> {
        let place = self.place().await?;
        let at = self.mount_point(name);
        if device_at(&place.mounts()?, &at).is_none() {
            return Err(LoopDiskError::Missing { name: name.to_owned() });
        }
        let stat = rustix::fs::statvfs(place.path(&at)).map_err(|error| files(&at, error.into()))?;
        Ok(DiskFill {
            used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// A path of the engine's, as this process opens it.
    ///
    /// # Errors
    /// Where the engine's process can't be found.
    pub async fn seen(&self, path: &Path) -> Result<PathBuf, LoopDiskError> {
        Ok(self.place().await?.path(path))
    }

    async fn place(&self) -> Result<Place, LoopDiskError> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(|_| LoopDiskError::Engine)?;
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
        let process = peer.filter(|pid| *pid != 0).ok_or(LoopDiskError::Engine)?;
        let namespace = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        let own = namespace("/proc/self/ns/mnt").map_err(|_| LoopDiskError::Engine)?;
        let theirs = namespace(&format!("/proc/{process}/ns/mnt")).map_err(|_| LoopDiskError::Engine)?;
        Ok(Place { enter: (own != theirs).then_some(process) })
    }
}

fn check(name: &str) -> Result<(), LoopDiskError> {
    let fits = !name.is_empty()
        && name.len() <= MAX_DISK_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(()) } else { Err(LoopDiskError::Name) }
}

fn files(path: &Path, source: std::io::Error) -> LoopDiskError {
    LoopDiskError::Files { path: path.display().to_string(), source }
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The journal of a disk on which so many bytes can be written.
fn journal_bytes(bytes: u64) -> u64 {
    (bytes / 64 / MIB * MIB).clamp(4 * MIB, 64 * MIB)
}

/// The size of the file behind so many writable bytes: inode tables (one part in 32 or 64), the journal, the blocks that ext4
/// keeps back for itself (one in 50, 16 MiB at most), bitmaps and descriptors.
fn file_size(bytes: u64) -> u64 {
    let tables = if bytes <= MANY_INODES_UP_TO { bytes / 28 } else { bytes / 58 };
    let kept_back = (bytes / 40).min(18 * MIB);
    let size = bytes.saturating_add(tables).saturating_add(journal_bytes(bytes)).saturating_add(kept_back + 2 * MIB);
    size.div_ceil(MIB).saturating_mul(MIB)
}

fn set_aside(folder: &Path, path: &Path, size: u64, preallocate: bool) -> Result<(), LoopDiskError> {
    let no_room = || LoopDiskError::NoRoom { mib: size / MIB };
    absent_is_fine(fs::remove_file(path)).map_err(|source| files(path, source))?;
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| files(path, source))?;
    if preallocate {
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG) => return Err(no_room()),
            Err(error) => tracing::warn!(%error, folder = %folder.display(), "disk space can't be set aside here"),
        }
    }
    file.set_len(size).map_err(|source| files(path, source))
}

async fn output_of(
    program: &'static str,
    mut command: tokio::process::Command,
    within: Duration,
) -> Result<(), LoopDiskError> {
    let failed = |message: String| LoopDiskError::Program { program, message };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).env("LC_ALL", "C");
    let output = tokio::time::timeout(within, command.output())
        .await
        .map_err(|_| failed(String::from("it did not end in time")))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().chars().take(MESSAGE_BYTES).collect()))
}

/// The file system mounted last at a path.
fn device_at(mounts: &[Mounted], path: &Path) -> Option<String> {
    mounts.iter().rev().find(|mount| mount.at == path).map(|mount| mount.device.clone())
}

/// A line of `/proc/*/mountinfo`.
fn parse_mount(line: &str) -> Option<Mounted> {
    let mut fields = line.split(' ');
    let device = fields.nth(2)?.to_owned();
    let at = PathBuf::from(unescape(fields.nth(1)?));
    at.components().next().is_some_and(|first| first == Component::RootDir).then_some(Mounted { device, at })
}

/// The kernel writes blanks and backslashes of paths as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{LoopDiskError, LoopDisks, check, file_size, parse_mount};
    use std::path::Path;

    #[test]
    fn names_lead_nowhere() {
        for name in ["", ".", "..", "a/b", "a.b", "a b", &"x".repeat(65)] {
            assert!(matches!(check(name), Err(LoopDiskError::Name)), "{name:?}");
        }
        assert!(check("0123-abc_D").is_ok());
    }

    #[test]
    fn a_mount_table_is_read() {
        let line = "99 28 7:3 /layer /var/lib/a\\040b rw,noatime shared:1 - ext4 /dev/loop3 rw";
        let mount = parse_mount(line).unwrap();
        assert_eq!((mount.device.as_str(), mount.at.as_path()), ("7:3", Path::new("/var/lib/a b")));
        assert_eq!(parse_mount("99 28 0:4 net:[4026531992] x rw - nsfs nsfs rw"), None);
        assert_eq!(parse_mount(""), None);
    }

    #[test]
    fn overhead_is_small() {
        assert!(file_size(10 << 30) < (10 << 30) / 100 * 106);
        assert!(file_size(1 << 40) < (1 << 40) / 100 * 103);
    }

    #[tokio::test]
    async fn a_disk_that_was_never_made_is_not_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let disks = LoopDisks::new(folder.path(), Path::new("/nonexistent"), true);
        assert!(matches!(disks.mount("absent").await, Err(LoopDiskError::Missing { .. })));
        assert!(matches!(disks.create("../x", 1).await, Err(LoopDiskError::Name)));
        disks.destroy("absent").await.unwrap();
        assert!(disks.list().is_empty());
    }
}
