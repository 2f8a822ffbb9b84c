//! How much a sink takes: what a source offers has no end of its own.

use std::{io, os::fd::OwnedFd};

use rustix::fs::fstatvfs;

use crate::Error;

/// Between two looks at what is left of the disk, in bytes; an entry counts as one block.
const LOOK_EVERY: u64 = 32 << 20;
/// What an entry counts as.
const BLOCK: u64 = 4096;
/// The part of a file system that is left free, and the most that is.
const RESERVE: (u64, u64) = (64, 1 << 30);

/// What a sink takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of content that come over the stream.
    pub bytes: u64,
    /// Stops before the file system is full: with a 64th of it left, at most 1 GiB.
    pub reserve: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: u64::MAX, bytes: u64::MAX, reserve: false }
    }
}

/// What was taken so far.
#[derive(Debug)]
pub(super) struct Taken {
    limits: Limits,
    entries: u64,
    bytes: u64,
    until_look: u64,
}

impl Taken {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: 0, bytes: 0, until_look: 0 }
    }

    /// One more file, folder or link.
    pub(super) fn entry(&mut self) -> Result<(), Error> {
        self.entries += 1;
        self.until_look = self.until_look.saturating_sub(BLOCK);
        if self.entries > self.limits.entries {
            let most = self.limits.entries;
            return Err(Error::TooMuch(format!("more than {most} files; raise --max-files if they are wanted")));
        }
        Ok(())
    }

    /// Content.
    pub(super) fn bytes(&mut self, length: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(length as u64);
        self.until_look = self.until_look.saturating_sub(length as u64);
        if self.bytes > self.limits.bytes {
            let most = self.limits.bytes;
            return Err(Error::TooMuch(format!("more than {most} bytes; raise --max-size if they are wanted")));
        }
        Ok(())
    }

    /// Looks at the file system of a folder that is written to, now and then.
    pub(super) fn look(&mut self, folder: &OwnedFd) -> Result<(), Error> {
        if !self.limits.reserve || self.until_look > 0 {
            return Ok(());
        }
        self.until_look = LOOK_EVERY;
        let stat =
            fstatvfs(folder).map_err(|e| Error::here("the file system can't be looked at", io::Error::from(e)))?;
        let reserve = (stat.f_blocks.saturating_mul(stat.f_frsize) / RESERVE.0).min(RESERVE.1);
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        self.until_look = LOOK_EVERY.min((free.saturating_sub(reserve) / 4).max(BLOCK));
        if free >= reserve {
            return Ok(());
        }
        Err(Error::Full(format!(", but for {} MiB that are left free", reserve >> 20)))
    }
}
