//! Where things are put: the target as the asker names it, and folders below it.
//!
//! Only the target's own path is followed through links; below it each folder is opened by its name from the one above.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, fchmod, fstat, futimens, mkdirat, openat, readlinkat, renameat,
    symlinkat, unlinkat, utimensat,
};

use super::limits::Limits;
use crate::{
    Error, part_name, shown,
    wire::{Meta, Open},
};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The target of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    name: Vec<u8>,
    rename: bool,
    pub(super) limits: Limits,
}

impl From<&Open> for Target {
    fn from(open: &Open) -> Self {
        Self {
            path: PathBuf::from(OsStr::from_bytes(&open.path)),
            name: open.name.clone(),
            rename: open.rename,
            limits: Limits::default(),
        }
    }
}

impl Target {
    /// The same, for no more than this.
    #[must_use]
    pub fn limited(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The folder that the root folder becomes.
    pub(super) fn folder(self, meta: Meta) -> Result<Folder, Error> {
        let base = base(&self.path)?;
        if self.name.is_empty() {
            return Ok(Folder::new(base, meta));
        }
        let above = Folder::new(base, meta);
        above.folder(meta, &self.name).map_err(|e| Error::here(self.shown(), e))
    }

    /// The folder and name that the root file gets.
    pub(super) fn file(self) -> Result<(Folder, Vec<u8>), Error> {
        let nothing = Meta::default();
        let ends_open = self.path.as_os_str().as_bytes().ends_with(b"/");
        let is_it = self.name.is_empty() || (self.rename && !ends_open && !self.path.is_dir());
        if !is_it {
            return Ok((Folder::new(base(&self.path)?, nothing), self.name));
        }
        let Some(name) = self.path.file_name().filter(|name| crate::is_name(name.as_bytes())) else {
            return Err(Error::here(self.shown(), io::Error::other("a file can't have this name")));
        };
        let above = self.path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((Folder::new(base(above)?, nothing), name.as_bytes().to_vec()))
    }

    fn shown(&self) -> String {
        shown(self.path.as_os_str().as_bytes())
    }
}

/// Opens a folder of the asker's own choice, made if it isn't there.
fn base(path: &Path) -> Result<OwnedFd, Error> {
    let here = |e: io::Error| {
        if super::is_full(&e) {
            return Error::Full(String::new());
        }
        Error::here(shown(path.as_os_str().as_bytes()), e)
    };
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o777).create(path).map_err(here)?;
    }
    let path = fs::canonicalize(path).map_err(here)?;
    openat(CWD, &path, FOLDER, Mode::empty()).map_err(|e| here(e.into()))
}

/// A folder that things are put in. It gets its mode and time when it has been left and nothing waits to be put in it.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    meta: Meta,
    left: Cell<bool>,
    /// It was made for this copy: what isn't in it need not be looked for. Should something come all the same, it is treated as any
    /// other thing in the way.
    pub(super) fresh: bool,
}

impl Folder {
    fn new(fd: OwnedFd, meta: Meta) -> Self {
        Self { fd, meta, left: Cell::new(false), fresh: false }
    }

    /// The source is done with it.
    pub(super) fn leave(&self) {
        self.left.set(true);
    }

    /// A folder in it, made if it isn't there.
    pub(super) fn folder(&self, meta: Meta, name: &[u8]) -> io::Result<Self> {
        let fresh = match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let open = || openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let opened = match open() {
            Err(rustix::io::Errno::ACCESS) => {
                // One of a former copy that may not be read; where it isn't ours this fails, too.
                rustix::fs::chmodat(&self.fd, name, Mode::RWXU, AtFlags::empty())?;
                open()
            }
            opened => opened,
        };
        let fd = opened.map_err(|error| match error {
            rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP => {
                io::Error::other("there is a file or a link in the folder's place, which is not followed")
            }
            other => other.into(),
        })?;
        let mode = Mode::from_raw_mode(fstat(&fd)?.st_mode & 0o777);
        if !mode.contains(Mode::RWXU) {
            // What can't be written to now is written to nevertheless, as far as it is ours.
            fchmod(&fd, mode | Mode::RWXU).ok();
        }
        Ok(Self { fd, meta, left: Cell::new(false), fresh })
    }

    /// A link in it.
    pub(super) fn link(&self, meta: Meta, name: &[u8], target: &[u8]) -> io::Result<()> {
        let there = readlinkat(&self.fd, name, Vec::new());
        if there.is_ok_and(|there| there.as_bytes() == target) {
            return Ok(());
        }
        let part = part_name(name);
        match unlinkat(&self.fd, part.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        symlinkat(target, &self.fd, part.as_slice())?;
        utimensat(&self.fd, part.as_slice(), &times(meta), AtFlags::SYMLINK_NOFOLLOW).ok();
        self.rename(&part, name)
    }

    /// Gives what is whole its name.
    pub(super) fn rename(&self, part: &[u8], name: &[u8]) -> io::Result<()> {
        renameat(&self.fd, part, &self.fd, name).map_err(|error| match error {
            rustix::io::Errno::ISDIR => io::Error::other("there is a folder of this name"),
            other => other.into(),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.left.get() {
            // Somebody else's folder keeps its own mode and time.
            fchmod(&self.fd, Mode::from_raw_mode(self.meta.mode.into())).ok();
            futimens(&self.fd, &times(self.meta)).ok();
        }
    }
}

/// Read now, changed then.
pub(super) fn times(meta: Meta) -> Timestamps {
    let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let nanoseconds = meta.nanoseconds.min(999_999_999);
    Timestamps { last_access, last_modification: Timespec { tv_sec: meta.seconds, tv_nsec: nanoseconds.into() } }
}
