//! Which images this node has brought to its engine, whom each may serve, and which of them go first when room is wanted.
//!
//! An engine gives any image that it has to whoever names it. So that no renter reaches another's (or the owner's) private image by its
//! digest, what is there is used without asking a registry only where this node itself got it without a login. The list is a file of
//! the node's; where it is lost, images are asked for again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveImageOptions};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{is_missing, status};
use crate::image::StoredImage;

/// Most images remembered; of more, those used longest ago are forgotten (the engine keeps them).
const MOST: usize = 4096;
/// Bytes of the file that are read.
const LIMIT: u64 = 64 << 20;
/// An image that was asked for so lately is not removed: its container may be about to be made.
const GRACE: Duration = Duration::from_secs(3600);

/// Whom an image may serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Readers {
    /// Whoever names it: any stranger gets it from its registry.
    Everyone,
    /// Nobody without asking: its registry decides each time.
    Nobody,
    /// The renter who sent it.
    Only(String),
}

/// An image that this node has brought to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// The image id.
    pub(crate) id: String,
    pub(crate) readers: Readers,
    /// Digests of its unpacked layers, lowest first.
    pub(crate) layers: Vec<String>,
    bytes: u64,
    /// Seconds since 1970.
    used: u64,
}

/// The list, by the name the engine knows the image by: `name@digest`, or `owner/digest` for one that was sent.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    kept: Mutex<BTreeMap<String, Kept>>,
    /// Held while images are removed; whoever counts on layers holds it for reading.
    pub(crate) removing: tokio::sync::RwLock<()>,
}

/// The key of an image that a renter has sent.
pub(crate) fn sent_key(owner: &str, digest: &str) -> String {
    format!("{owner}/{digest}")
}

impl Cache {
    /// Reads the list; a damaged one is as none.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join("images.json");
        let readable = std::fs::metadata(&path).is_ok_and(|about| about.len() <= LIMIT);
        let kept = readable.then(|| std::fs::read(&path).ok()).flatten().and_then(|text| {
            let read = serde_json::from_slice(&text);
            read.inspect_err(|error| tracing::warn!(%error, "the list of images is damaged; they are asked for again"))
                .ok()
        });
        Self { path, kept: Mutex::new(kept.unwrap_or_default()), removing: tokio::sync::RwLock::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the image of this name may be used without asking its registry.
    pub(crate) fn is_open(&self, key: &str) -> bool {
        self.lock().get(key).is_some_and(|kept| kept.readers == Readers::Everyone)
    }

    /// The id of an image that this renter has sent.
    pub(crate) fn sent(&self, owner: &str, digest: &str) -> Option<String> {
        self.lock().get(&sent_key(owner, digest)).map(|kept| kept.id.clone())
    }

    /// Images whose layers this renter may be told of: its own, and those that are for everyone.
    pub(crate) fn readable(&self, owner: &str) -> Vec<Kept> {
        let mine = |kept: &&Kept| match &kept.readers {
            Readers::Everyone => true,
            Readers::Nobody => false,
            Readers::Only(of) => of == owner,
        };
        self.lock().values().filter(mine).cloned().collect()
    }

    /// An image was brought here, or is used again.
    pub(crate) fn note(&self, key: &str, image: &StoredImage, readers: Readers) {
        let mut kept = self.lock();
        let before = kept.get(key).map(|kept| kept.readers.clone());
        // Who got it without a login has shown that everyone may have it.
        let readers = if before == Some(Readers::Everyone) { Readers::Everyone } else { readers };
        let entry =
            Kept { id: image.id.clone(), readers, layers: image.layers.clone(), bytes: image.bytes, used: seconds() };
        let fresh = kept.get(key).is_some_and(|old| {
            old.id == entry.id && old.readers == entry.readers && entry.used.saturating_sub(old.used) < 60
        });
        if fresh {
            return;
        }
        kept.insert(key.to_owned(), entry);
        while kept.len() > MOST {
            let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone()) else { break };
            kept.remove(&oldest);
        }
        self.save(&kept);
    }

    fn forget(&self, key: &str) {
        let mut kept = self.lock();
        if kept.remove(key).is_some() {
            self.save(&kept);
        }
    }

    fn save(&self, kept: &BTreeMap<String, Kept>) {
        let write = || -> std::io::Result<()> {
            let new = self.path.with_extension("json.new");
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(kept).map_err(std::io::Error::other)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "the list of images can't be written; after a restart they are asked for again");
        }
    }

    /// Removes images that no container needs, those used longest ago first, until all together fit in the configured room.
    pub(crate) async fn collect(&self, engine: &Engine) {
        let most = engine.config.image_cache_mb.saturating_mul(1 << 20);
        let sum = |kept: &BTreeMap<String, Kept>| kept.values().fold(0_u64, |sum, kept| sum.saturating_add(kept.bytes));
        if sum(&self.lock()) <= most {
            return;
        }
        let Ok(_alone) = self.removing.try_write() else { return };
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let Ok(containers) = engine.docker.list_containers(Some(options)).await else { return };
        let used: Vec<String> = containers.into_iter().filter_map(|container| container.image_id).collect();
        let mut candidates: Vec<(u64, String, String)> = {
            let kept = self.lock();
            let late = seconds().saturating_sub(GRACE.as_secs());
            let idle = |kept: &Kept| !used.contains(&kept.id) && kept.used <= late;
            let found = kept.iter().filter(|(_, kept)| idle(kept));
            found.map(|(key, kept)| (kept.used, key.clone(), kept.id.clone())).collect()
        };
        candidates.sort();
        for (_, key, id) in candidates {
            if sum(&self.lock()) <= most {
                break;
            }
            let name = if key.contains('@') { &key } else { &id };
            match engine.docker.remove_image(name, None::<RemoveImageOptions>, None).await {
                Ok(_) => {
                    tracing::info!(image = %name, "removed an image that nobody has used for long");
                    self.forget(&key);
                }
                Err(error) if is_missing(&error) => self.forget(&key),
                // Something of the owner's rests on it.
                Err(error) if status(&error) == Some(409) => {}
                Err(error) => tracing::warn!(%error, image = %name, "an image can't be removed"),
            }
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn image(id: &str) -> StoredImage {
        StoredImage { id: id.to_owned(), bytes: 1, layers: vec!["sha256:l".to_owned()], ..StoredImage::default() }
    }

    #[test]
    fn who_may_use_what_survives_a_restart_and_damage_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path());
        cache.note("r/open@d", &image("1"), Readers::Everyone);
        cache.note("r/private@d", &image("2"), Readers::Nobody);
        cache.note(&sent_key("ann", "d3"), &image("3"), Readers::Only("ann".to_owned()));
        // A pull with a login takes nothing back.
        cache.note("r/open@d", &image("1"), Readers::Nobody);
        let again = Cache::open(folder.path());
        assert!(again.is_open("r/open@d") && !again.is_open("r/private@d") && !again.is_open("r/none@d"));
        assert_eq!((again.sent("ann", "d3"), again.sent("bob", "d3")), (Some("3".to_owned()), None));
        let ids = |owner| again.readable(owner).into_iter().map(|kept| kept.id).collect::<Vec<_>>();
        assert_eq!(ids("ann"), ["3", "1"]);
        assert_eq!(ids("bob"), ["1"]);
        std::fs::write(folder.path().join("images.json"), "{\"r/open@d\":").unwrap();
        assert!(!Cache::open(folder.path()).is_open("r/open@d"));
    }
}
