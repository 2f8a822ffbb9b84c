//! A tree of files, one step at a time, in memory that grows with its depth only.
//!
//! Every folder is opened from the one above it without following a link; only the root's own path is followed.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use crate::{DEPTH, Error, glob::Pattern, is_part, shown, wire::Meta};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What comes next.
pub(crate) enum Step {
    Folder(Meta, Vec<u8>),
    Leave,
    File { meta: Meta, size: u64, name: Vec<u8>, at: Place },
    Link(Meta, Vec<u8>, Vec<u8>),
    Problem(String),
}

/// Where a file can be opened, and its path for people.
pub(crate) struct Place {
    pub(crate) folder: Arc<OwnedFd>,
    pub(crate) name: CString,
    pub(crate) path: Vec<u8>,
}

struct Level {
    entries: Dir,
    folder: Arc<OwnedFd>,
    path: Vec<u8>,
    /// It can't be read on.
    over: bool,
}

/// A walk through a tree.
pub(crate) struct Walk {
    root: Option<Root>,
    stack: Vec<Level>,
    excludes: Vec<Pattern>,
}

enum Root {
    Folder(OwnedFd, Meta),
    File(Meta, u64, Place),
}

pub(crate) fn meta(stat: &Stat) -> Meta {
    Meta {
        mode: (stat.st_mode & 0o777) as u16,
        seconds: stat.st_mtime,
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999),
    }
}

pub(crate) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

impl Walk {
    /// A walk from a file or folder; links on the way to it are followed.
    pub(crate) fn new(path: &[u8], excludes: &[Vec<u8>]) -> Result<Self, Error> {
        let what = || shown(path);
        let here = |e: io::Error| Error::here(what(), e);
        let real = std::fs::canonicalize(Path::new(OsStr::from_bytes(path))).map_err(here)?;
        let excludes = excludes.iter().map(|text| Pattern::new(text)).collect();
        let folder = real.parent().unwrap_or(Path::new("/"));
        let name = real.file_name().unwrap_or(OsStr::new("."));
        let above = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| here(e.into()))?;
        let stat = statat(&above, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| here(e.into()))?;
        let root = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let root = openat(&above, name, FOLDER, Mode::empty()).map_err(|e| here(e.into()))?;
                Root::Folder(root, meta(&stat))
            }
            FileType::RegularFile => {
                let name = CString::new(name.as_bytes()).map_err(|e| here(e.into()))?;
                let place = Place { folder: Arc::new(above), name, path: path.to_vec() };
                Root::File(meta(&stat), size(&stat), place)
            }
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => return Err(here(io::Error::other("it is neither a file nor a folder"))),
        };
        Ok(Self { root: Some(root), stack: Vec::new(), excludes })
    }

    fn enter(&mut self, folder: OwnedFd, path: Vec<u8>) -> Result<(), io::Error> {
        let entries = Dir::read_from(folder.as_fd())?;
        self.stack.push(Level { entries, folder: Arc::new(folder), path, over: false });
        Ok(())
    }

    /// The next step; none at the end.
    pub(crate) fn next(&mut self) -> Option<Step> {
        match self.root.take() {
            Some(Root::File(meta, size, at)) => return Some(Step::File { meta, size, name: Vec::new(), at }),
            Some(Root::Folder(folder, meta)) => {
                return Some(match self.enter(folder, Vec::new()) {
                    Ok(()) => Step::Folder(meta, Vec::new()),
                    Err(error) => Step::Problem(format!("the folder can't be read: {error}")),
                });
            }
            None => {}
        }
        loop {
            let level = self.stack.last_mut()?;
            let entry = if level.over { None } else { level.entries.read() };
            let name = match entry {
                None => {
                    self.stack.pop();
                    return Some(Step::Leave);
                }
                Some(Err(error)) => {
                    level.over = true;
                    return Some(Step::Problem(format!("{}: can't be read on: {error}", shown(&level.path))));
                }
                Some(Ok(entry)) => entry.file_name().to_owned(),
            };
            if let Some(step) = self.entry(&name) {
                return Some(step);
            }
        }
    }

    /// The step of one entry; none where it is left out.
    fn entry(&mut self, name: &CStr) -> Option<Step> {
        let bytes = name.to_bytes();
        if bytes == b"." || bytes == b".." || is_part(bytes) {
            return None;
        }
        let level = self.stack.last()?;
        let folder = Arc::clone(&level.folder);
        let mut path = level.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(bytes);
        let problem = |e: &dyn std::fmt::Display| Some(Step::Problem(format!("{}: {e}", shown(&path))));
        let stat = match statat(&*folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(rustix::io::Errno::NOENT) => return None,
            Err(error) => return problem(&error),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.excludes.iter().any(|pattern| pattern.is_for(&path, kind == FileType::Directory)) {
            return None;
        }
        let (meta, bytes) = (meta(&stat), bytes.to_vec());
        match kind {
            FileType::RegularFile => {
                let at = Place { folder, name: name.to_owned(), path };
                Some(Step::File { meta, size: size(&stat), name: bytes, at })
            }
            FileType::Symlink => match readlinkat(&*folder, name, Vec::new()) {
                Ok(target) => Some(Step::Link(meta, bytes, target.into_bytes())),
                Err(error) => problem(&error),
            },
            FileType::Directory if self.stack.len() >= DEPTH => problem(&"folders are nested too deep"),
            FileType::Directory => {
                let opened = openat(&*folder, name, FOLDER, Mode::empty()).map_err(io::Error::from);
                match opened.and_then(|opened| self.enter(opened, path.clone())) {
                    Ok(()) => Some(Step::Folder(meta, bytes)),
                    Err(error) => problem(&error),
                }
            }
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => problem(&"it is neither a file, a folder nor a link, and was left out"),
        }
    }
}
