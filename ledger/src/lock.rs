//! The lock that keeps a second node off a data directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Why the data directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use by another souk node ({holder}): stop that one, or choose another data directory",
        directory.display()
    )]
    Held {
        /// The data directory.
        directory: PathBuf,
        /// `process 1234`, or that it did not say.
        holder: String,
    },
    /// The lock file can't be made or locked.
    #[error("can't lock {}", file.display())]
    Io {
        /// The lock file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Sole use of a data directory, until dropped or the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`, which must exist, through a file `lock` in it that holds this process's id.
    ///
    /// # Errors
    /// [`LockError::Held`] if another node has it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let fail = |source| LockError::Io { file: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(fail)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = (&mut file).take(20).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse::<u32>().ok());
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder: pid
                        .map_or_else(|| "it did not say which process".to_owned(), |pid| format!("process {pid}")),
                });
            }
            Err(e) => return Err(fail(e.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(fail)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        let error = DirectoryLock::acquire(directory.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
