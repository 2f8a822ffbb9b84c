//! The store in sled 0.34.7: one tree. Guards against what is known of it: it may panic on damaged files, refuses to open
//! beside a half-written snapshot, and makes nothing durable.

use std::{
    fs, io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{Batch, Kv, KvError, Visitor, above, ceiling};

/// Bytes of pages kept in memory. Small: a node answers few queries, and an idle one must stay small itself.
const CACHE_BYTES: u64 = 4 << 20;

/// How long it is waited for whoever has just closed the database: a reader of it may be at its last rows.
const FORMER: Duration = Duration::from_secs(2);

/// A sled database.
#[derive(Debug)]
pub struct SledKv {
    directory: PathBuf,
    db: sled::Db,
}

impl SledKv {
    /// Opens the database in `directory`, making it if there is none.
    ///
    /// # Errors
    /// [`KvError::InUse`] if it is open elsewhere; [`KvError::Damaged`] if sled fails or panics, or if an earlier run found
    /// it damaged.
    pub fn open(directory: &Path) -> Result<Self, KvError> {
        if condemned(directory).exists() {
            return Err(damaged(directory, "it was found damaged when last used"));
        }
        remove_half_snapshots(directory).map_err(|e| damaged(directory, &e.to_string()))?;
        let config = sled::Config::new().path(directory).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let attempt = || {
            guarded(directory, || match config.open() {
                Err(sled::Error::Io(e)) if is_locked(&e) => Ok(None),
                opened => opened.map(Some),
            })
        };
        let mut db = attempt()?;
        let began = Instant::now();
        while db.is_none() && began.elapsed() < FORMER {
            std::thread::sleep(FORMER / 50);
            db = attempt()?;
        }
        let Some(db) = db else {
            return Err(KvError::InUse { directory: directory.to_owned() });
        };
        Ok(Self { directory: directory.to_owned(), db })
    }

    /// Opens an empty database in `directory`. What was there is moved aside to `<directory>.bad-<time>`, of which only
    /// the newest is kept.
    ///
    /// # Errors
    /// [`KvError::Damaged`] if the old one can't be moved or sled fails on an empty directory.
    pub fn recreate(directory: &Path) -> Result<Self, KvError> {
        let fail = |e: io::Error| damaged(directory, &e.to_string());
        if directory.exists() {
            for old in set_aside(directory).map_err(fail)? {
                fs::remove_dir_all(old).map_err(fail)?;
            }
            let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
            let aside = sibling(directory, &format!("bad-{time}"));
            fs::rename(directory, &aside).map_err(fail)?;
            tracing::warn!(aside = %aside.display(), "moved the store aside, making it anew from the journal");
        }
        match fs::remove_file(condemned(directory)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
            Ok(()) | Err(_) => {}
        }
        Self::open(directory)
    }

    /// Runs an operation; if it fails, leaves a note so that the next start makes the store anew.
    fn run<T>(&self, operation: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
        guarded(&self.directory, operation).inspect_err(|_| {
            // Best effort: without the note the next start finds the damage by itself or meets it again.
            drop(fs::write(condemned(&self.directory), b""));
        })
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.run(|| Ok(self.db.get(key)?.map(|v| v.to_vec())))
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visitor<'_>) -> Result<(), KvError> {
        let start = Bound::Included(prefix.max(from));
        let end = above(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Included(a), Bound::Excluded(b)) = (start, end)
            && a >= b
        {
            return Ok(());
        }
        self.run(|| {
            for row in self.db.range::<&[u8], _>((start, end)) {
                let (key, value) = row?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn scan_back(&self, prefix: &[u8], below: Option<&[u8]>, visit: Visitor<'_>) -> Result<(), KvError> {
        let end = ceiling(prefix, below);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        if let Bound::Excluded(end) = end
            && prefix >= end
        {
            return Ok(());
        }
        self.run(|| {
            for row in self.db.range::<&[u8], _>((Bound::Included(prefix), end)).rev() {
                let (key, value) = row?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        self.run(|| self.db.apply_batch(changes))
    }

    fn flush(&self) -> Result<(), KvError> {
        self.run(|| self.db.flush().map(|_| ()))
    }

    fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }
}

/// Sled reports a lock held by somebody else as an error of its own making: only the text tells.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn damaged(directory: &Path, what: &str) -> KvError {
    KvError::Damaged { directory: directory.to_owned(), what: what.chars().take(200).collect() }
}

fn guarded<T>(directory: &Path, operation: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
    match catch_unwind(AssertUnwindSafe(operation)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(damaged(directory, &e.to_string())),
        Err(_) => Err(damaged(directory, "sled panicked")),
    }
}

fn sibling(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The note that says the store is damaged.
fn condemned(directory: &Path) -> PathBuf {
    sibling(directory, "condemned")
}

fn set_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.bad-", name.to_string_lossy());
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A snapshot that was being written when the process died makes sled refuse to open.
fn remove_half_snapshots(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
