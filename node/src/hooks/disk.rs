//! Hooks on disk: their definitions, what waits for delivery, what has been told, what became of deliveries.
//!
//! Owns the folder `hooks` in the data directory (mode 0700, files 0600). Everything is written whole or not at all. What waits
//! is a file each, durable before it counts, so that a crash loses none and only those that were on their way come twice. Holds
//! nothing in memory and decides nothing. Not for async threads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use souk_protocol::Timestamp;

use super::{
    event::{EventId, EventKind},
    target::Target,
    watch::Watch,
};
use crate::api::types::HookDelivery;

/// The folder in a data directory.
pub const FOLDER: &str = "hooks";
/// Bytes of a file that is read whole.
const FILE_BYTES: u64 = 16 << 20;
/// Bytes of a waiting event's file.
const WAITING_BYTES: u64 = 64 << 10;
/// Bytes of the log before it is put aside; the one before that is then gone.
const LOG_BYTES: u64 = 1 << 20;

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Never given twice, as names may be.
    pub id: u64,
    /// What people call it.
    pub name: String,
    /// What it waits for; empty for everything.
    pub events: Vec<EventKind>,
    /// Where events go.
    pub target: Target,
    /// Since when it is there.
    pub added: Timestamp,
    /// Why it gets nothing any more: its receiver said that it is gone.
    #[serde(default)]
    pub disabled: Option<String>,
}

impl Hook {
    /// Whether it waits for this.
    #[must_use]
    pub fn wants(&self, kind: EventKind) -> bool {
        self.disabled.is_none() && (self.events.is_empty() || self.events.contains(&kind))
    }
}

/// All hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// The id that the next one gets.
    pub next_id: u64,
    /// In the order in which they were added.
    pub hooks: Vec<Hook>,
}

/// An event on its way to one hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its place in the queue of all.
    pub seq: u64,
    /// The hook's id.
    pub hook: u64,
    /// The event's id.
    pub event: EventId,
    /// Its kind.
    pub kind: EventKind,
    /// Since when it waits.
    pub since: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next.
    pub next: Timestamp,
    /// What is sent: the same bytes each time.
    pub body: String,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub struct Found {
    /// The hooks.
    pub hooks: Hooks,
    /// What has been told.
    pub watch: Watch,
    /// What waits, oldest first.
    pub waiting: Vec<Waiting>,
}

impl Disk {
    /// The folder of a node's hooks.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { folder: dir.join(FOLDER) }
    }

    /// Reads everything. What waits for a hook that is gone is removed, as is what can't be read; the latter is logged.
    ///
    /// # Errors
    /// If the hooks' definitions can't be read: to go on without them would lose events in silence.
    pub fn open(&self) -> io::Result<Found> {
        let hooks: Hooks = match read(&self.folder.join("hooks.json"), FILE_BYTES) {
            Ok(hooks) => hooks,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
            Err(e) => return Err(e),
        };
        let watch = match read(&self.folder.join("told.json"), FILE_BYTES) {
            Ok(watch) => watch,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "what hooks have been told is not known any more; they hear of what comes from now on");
                }
                Watch::since(crate::clock::now())
            }
        };
        let mut waiting = Vec::new();
        for entry in self.queue()? {
            let path = entry?.path();
            match read::<Waiting>(&path, WAITING_BYTES) {
                Ok(w) if self.file(&w) == path && hooks.hooks.iter().any(|h| h.id == w.hook) => waiting.push(w),
                Ok(_) => fs::remove_file(&path)?,
                Err(error) => {
                    tracing::warn!(%error, "a waiting event can't be read, and is let go");
                    fs::remove_file(&path)?;
                }
            }
        }
        waiting.sort_by_key(|w| w.seq);
        Ok(Found { hooks, watch, waiting })
    }

    fn queue(&self) -> io::Result<fs::ReadDir> {
        self.make()?;
        fs::read_dir(self.folder.join("queue"))
    }

    fn make(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join("queue"))
    }

    fn file(&self, waiting: &Waiting) -> PathBuf {
        self.folder.join("queue").join(format!("{:016x}-{}.json", waiting.seq, waiting.hook))
    }

    /// Writes the hooks, durably.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_hooks(&self, hooks: &Hooks) -> io::Result<()> {
        self.make()?;
        write(&self.folder, "hooks.json", hooks, true)
    }

    /// Writes what has been told, durably.
    ///
    /// # Errors
    /// The file system's.
    pub fn save_watch(&self, watch: &Watch) -> io::Result<()> {
        self.make()?;
        write(&self.folder, "told.json", watch, true)
    }

    /// Writes events that wait, durably, each as one file.
    ///
    /// # Errors
    /// The file system's; some of them may be written then.
    pub fn enqueue(&self, waiting: &[Waiting]) -> io::Result<()> {
        self.make()?;
        let queue = self.folder.join("queue");
        for w in waiting {
            let path = self.file(w);
            let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.folder)?;
            serde_json::to_writer(&mut file, w)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
        }
        File::open(queue)?.sync_all()
    }

    /// Notes another attempt. Not durable: after a crash it may be tried a little earlier.
    ///
    /// # Errors
    /// The file system's.
    pub fn update(&self, waiting: &Waiting) -> io::Result<()> {
        let file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.folder)?;
        serde_json::to_writer(&file, waiting)?;
        file.persist(self.file(waiting)).map_err(|e| e.error).map(drop)
    }

    /// Removes events that wait no more.
    ///
    /// # Errors
    /// None: one that can't be removed is logged, since all that follows is that it comes twice.
    pub fn remove(&self, waiting: &[Waiting]) -> io::Result<()> {
        for w in waiting {
            if let Err(error) = fs::remove_file(self.file(w))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "a delivered event can't be removed, and will be delivered again after a restart");
            }
        }
        Ok(())
    }

    /// Adds to the log.
    ///
    /// # Errors
    /// The file system's.
    pub fn log(&self, delivery: &HookDelivery) -> io::Result<()> {
        self.make()?;
        let path = self.folder.join("log.jsonl");
        if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES) {
            fs::rename(&path, self.folder.join("log.1.jsonl"))?;
        }
        let mut line = serde_json::to_vec(delivery)?;
        line.push(b'\n');
        OpenOptions::new().append(true).create(true).mode(0o600).open(path)?.write_all(&line)
    }

    /// The newest of the log, oldest first: of one hook, or of all.
    ///
    /// # Errors
    /// The file system's.
    pub fn logged(&self, hook: Option<&str>, limit: usize) -> io::Result<Vec<HookDelivery>> {
        let mut found = std::collections::VecDeque::new();
        for name in ["log.1.jsonl", "log.jsonl"] {
            let file = match File::open(self.folder.join(name)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            for line in BufReader::new(file.take(2 * LOG_BYTES)).split(b'\n') {
                // A line that a crash cut off is nobody's.
                let Ok(delivery) = serde_json::from_slice::<HookDelivery>(&line?) else { continue };
                if hook.is_none_or(|h| h == delivery.hook) {
                    found.push_back(delivery);
                    if found.len() > limit {
                        found.pop_front();
                    }
                }
            }
        }
        Ok(found.into())
    }
}

fn read<T: DeserializeOwned>(path: &Path, most: u64) -> io::Result<T> {
    let mut text = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut text)?;
    let damaged =
        |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: {why}", path.display()));
    if text.len() as u64 > most {
        return Err(damaged("it is too large".to_owned()));
    }
    // The parser's own words would quote what it found, and that may be secret.
    serde_json::from_slice(&text).map_err(|e| damaged(format!("line {}, column {}", e.line(), e.column())))
}

fn write(folder: &Path, name: &str, value: &impl Serialize, durable: bool) -> io::Result<()> {
    // Temporary files are made with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(folder)?;
    serde_json::to_writer(&mut file, value)?;
    if durable {
        file.as_file().sync_all()?;
    }
    file.persist(folder.join(name)).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn hook(id: u64) -> Hook {
        let target = Target::of_text("https://a:secret@b/c").unwrap();
        Hook { id, name: format!("hook{id}"), events: Vec::new(), target, added: Timestamp(1), disabled: None }
    }

    fn waiting(seq: u64, hook: u64) -> Waiting {
        let (event, kind) = (EventId([1; 16]), EventKind::Outbid);
        Waiting { seq, hook, event, kind, since: Timestamp(1), attempts: 0, next: Timestamp(1), body: "{}".into() }
    }

    #[test]
    fn everything_comes_back_and_orphans_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::of(dir.path());
        assert!(disk.open().unwrap().hooks.hooks.is_empty());
        assert!(!dir.path().join(FOLDER).exists(), "a node without hooks has no folder for them");
        let hooks = Hooks { next_id: 3, hooks: vec![hook(1), hook(2)] };
        disk.save_hooks(&hooks).unwrap();
        let mut third = waiting(3, 1);
        disk.enqueue(&[waiting(2, 2), waiting(1, 1), third.clone(), waiting(4, 9)]).unwrap();
        third.attempts = 5;
        disk.update(&third).unwrap();
        disk.remove(&[waiting(2, 2)]).unwrap();
        fs::write(dir.path().join(FOLDER).join("queue/zzz.json"), b"{\"half").unwrap();

        let found = disk.open().unwrap();
        assert_eq!(found.hooks, hooks);
        assert_eq!(found.waiting, [waiting(1, 1), third]);
        assert_eq!(fs::read_dir(dir.path().join(FOLDER).join("queue")).unwrap().count(), 2);
        for file in ["hooks.json", "queue/0000000000000001-1.json"] {
            let mode = fs::metadata(dir.path().join(FOLDER).join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn damage_is_named_and_its_secrets_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::of(dir.path());
        fs::create_dir(dir.path().join(FOLDER)).unwrap();
        fs::write(dir.path().join(FOLDER).join("hooks.json"), b"{\"next_id\": \"secret\"}").unwrap();
        let error = disk.open().unwrap_err().to_string();
        assert!(error.contains("hooks.json is damaged: line 1") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_log_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::of(dir.path());
        let delivery = |n: u64| HookDelivery {
            at_ms: Timestamp(n),
            hook: if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
            output: "x".repeat(4096),
            ..HookDelivery::default()
        };
        for n in 0..600 {
            disk.log(&delivery(n)).unwrap();
        }
        let even = disk.logged(Some("even"), 3).unwrap();
        assert_eq!(even.iter().map(|d| d.at_ms.0).collect::<Vec<_>>(), [594, 596, 598]);
        assert!(disk.logged(None, 10_000).unwrap().len() < 600, "the oldest are gone");
    }
}
