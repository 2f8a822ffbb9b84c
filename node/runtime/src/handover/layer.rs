//! A layer's file while it arrives: counted, hashed, checked as an archive, and renamed when it is the digest it should be.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::tar::LayerCheck;
use crate::report::FailureCode;

/// Bytes read at once of a part that is there.
const READ: usize = 1 << 20;

/// Why a layer is not taken.
#[derive(Debug)]
pub(super) enum LayerError {
    Files(io::Error),
    Bad(FailureCode),
}

impl From<io::Error> for LayerError {
    fn from(error: io::Error) -> Self {
        Self::Files(error)
    }
}

/// The file of a whole layer.
pub(super) fn blob(folder: &Path, digest: &str) -> PathBuf {
    folder.join(digest.trim_start_matches("sha256:"))
}

/// The file of one that is not whole.
pub(super) fn part(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{}.part", digest.trim_start_matches("sha256:")))
}

/// A layer that arrives. Its calls block on the disk.
pub(super) struct Arriving {
    file: std::fs::File,
    part: PathBuf,
    whole: PathBuf,
    digest: String,
    hash: Sha256,
    check: LayerCheck,
    at: u64,
    bytes: u64,
}

impl Arriving {
    /// Goes on with a part of which so many bytes are there; these are read again, so that all are hashed and checked.
    pub(super) fn open(folder: &Path, digest: &str, from: u64, bytes: u64) -> Result<Self, LayerError> {
        let path = part(folder, digest);
        let mut file = std::fs::OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let mut arriving = Self {
            file: file.try_clone()?,
            part: path,
            whole: blob(folder, digest),
            digest: digest.to_owned(),
            hash: Sha256::new(),
            check: LayerCheck::default(),
            at: 0,
            bytes,
        };
        if file.metadata()?.len() != from || from > bytes {
            return arriving.spoilt(FailureCode::ImageCorrupt);
        }
        let mut piece = vec![0; READ];
        while arriving.at < from {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return arriving.spoilt(FailureCode::ImageCorrupt);
            }
            if let Err(code) = arriving.look(&piece[..read]) {
                return arriving.spoilt(code);
            }
        }
        Ok(arriving)
    }

    fn look(&mut self, bytes: &[u8]) -> Result<(), FailureCode> {
        self.at += bytes.len() as u64;
        if self.at > self.bytes {
            return Err(FailureCode::ImageCorrupt);
        }
        self.hash.update(bytes);
        self.check.take(bytes).map_err(|error| {
            tracing::info!(%error, layer = %self.digest, "a layer was refused");
            FailureCode::ImageCorrupt
        })
    }

    /// What can't become the layer is not kept.
    fn spoilt<T>(&self, code: FailureCode) -> Result<T, LayerError> {
        std::fs::remove_file(&self.part)?;
        Err(LayerError::Bad(code))
    }

    /// Takes further bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        match self.look(bytes) {
            Ok(()) => {
                if let Err(error) = self.file.write_all(bytes) {
                    // Room for others counts more than what has come.
                    std::fs::remove_file(&self.part)?;
                    return Err(LayerError::Files(error));
                }
                Ok(())
            }
            Err(code) => self.spoilt(code),
        }
    }

    /// Whether all of it has come.
    pub(super) const fn is_whole(&self) -> bool {
        self.at == self.bytes
    }

    /// Gives it its name, if it is what it should be.
    pub(super) fn finish(self) -> Result<(), LayerError> {
        let found = format!("sha256:{}", hex::encode(self.hash.clone().finalize()));
        if found != self.digest || self.check.finish().is_err() {
            return self.spoilt(FailureCode::ImageCorrupt);
        }
        std::fs::rename(&self.part, &self.whole)?;
        Ok(())
    }
}
