//! Images that renters send themselves: which leases wait for one, what comes of it, and whose layers it may rest on.
//!
//! An image is taken for a lease that waits for it and for no other, and only as the lease names it. A renter is told nothing of what
//! the engine has but of its own images, those that anyone gets from their registries, and those that the owner lets anyone use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::query_parameters::ListImagesOptionsBuilder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::cache::{Readers, sent_key};
use crate::engine::Engine;
use crate::error::{ImageError, classify, is_missing};
use crate::handover::{HandoverError, Message, Receiving, load, receive, write};
use crate::image::{StoredImage, is_local, stored};
use crate::name::Names;
use crate::report::{FailureCode, PullProgress};

/// How long nothing may come of an image that is waited for.
const SILENCE: Duration = Duration::from_secs(9 * 60);
/// How long an image is waited for, all in all. Shorter than slots are held for it: its not coming is not the host's doing.
const WAIT: Duration = Duration::from_secs(115 * 60);
/// Between two signs of life while the engine unpacks.
const LOADING_EVERY: Duration = Duration::from_secs(20);
/// Disk that stays free, whatever renters send.
const FREE: u64 = 1 << 30;
/// Images taken at once. Others wait for their turn.
const AT_ONCE: usize = 4;

/// Both ends of a stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A lease that waits.
#[derive(Debug)]
struct Waiting {
    owner: String,
    digest: String,
    progress: PullProgress,
    heard: Instant,
    busy: bool,
    failed: Option<FailureCode>,
}

/// All leases that wait for an image from their renter.
#[derive(Debug)]
pub(crate) struct Incoming {
    waiting: Mutex<HashMap<String, Waiting>>,
    changed: Notify,
    places: tokio::sync::Semaphore,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { waiting: Mutex::default(), changed: Notify::new(), places: tokio::sync::Semaphore::new(AT_ONCE) }
    }
}

impl Incoming {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, lease: &str, change: impl FnOnce(&mut Waiting)) {
        if let Some(waiting) = self.lock().get_mut(lease) {
            waiting.heard = Instant::now();
            change(waiting);
        }
        self.changed.notify_waiters();
    }
}

/// Ends the waiting, however it ends.
struct Registered<'a>(&'a Incoming, &'a str);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(self.1);
    }
}

/// Where what comes for a lease is written.
pub(crate) fn folder(engine: &Engine, lease: &str) -> PathBuf {
    engine.config.data_dir.join("sent").join(Names::new(&engine.config.node_id, lease).short)
}

/// Removes what came for a lease.
pub(crate) async fn discard(engine: &Engine, lease: &str) {
    match tokio::fs::remove_dir_all(folder(engine, lease)).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, %lease, "what was sent for an image can't be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Removes what came for any lease but these.
pub(crate) async fn discard_others(engine: &Engine, leases: &[String]) {
    let known: Vec<String> = leases.iter().map(|lease| Names::new(&engine.config.node_id, lease).short).collect();
    let Ok(mut entries) = tokio::fs::read_dir(engine.config.data_dir.join("sent")).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if !known.iter().any(|short| entry.file_name() == short.as_str()) {
            tokio::fs::remove_dir_all(entry.path()).await.ok();
        }
    }
}

/// The image, once its renter has sent it; at once where it is there from before.
pub(crate) async fn wait(
    engine: &Engine,
    lease: &str,
    owner: &str,
    digest: &str,
    progress: &mut impl FnMut(PullProgress),
) -> Result<StoredImage, ImageError> {
    let incoming = &engine.incoming;
    let begun = Instant::now();
    let waiting = Waiting {
        owner: owner.to_owned(),
        digest: digest.to_owned(),
        progress: PullProgress::default(),
        heard: begun,
        busy: false,
        failed: None,
    };
    incoming.lock().insert(lease.to_owned(), waiting);
    let _registered = Registered(incoming, lease);
    let mut told = PullProgress::default();
    loop {
        let changed = incoming.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(image) = known(engine, owner, digest).await? {
            return Ok(image);
        }
        let (now, heard, failed) = match incoming.lock().get(lease) {
            Some(waiting) => (waiting.progress, waiting.heard, waiting.failed),
            None => return Err(ImageError::Unavailable(FailureCode::Cancelled)),
        };
        if let Some(code) = failed {
            return Err(ImageError::Unavailable(code));
        }
        if now != told {
            told = now;
            progress(now);
        }
        if heard.elapsed() > SILENCE || begun.elapsed() > WAIT {
            return Err(ImageError::Unavailable(FailureCode::ImageNotSent));
        }
        // Progress is told twice a second at most; the end at once.
        tokio::time::sleep(Duration::from_millis(if told.bytes_done > 0 { 500 } else { 50 })).await;
        let _ = tokio::time::timeout(Duration::from_secs(5), changed).await;
    }
}

/// An image of this id that this renter may use without sending it.
async fn known(engine: &Engine, owner: &str, digest: &str) -> Result<Option<StoredImage>, ImageError> {
    let Some(id) = engine.cache.sent(owner, digest) else { return Ok(None) };
    match engine.docker.inspect_image(&id).await {
        Ok(image) => {
            let image = stored(image);
            engine.cache.note(&sent_key(owner, digest), &image, Readers::Only(owner.to_owned()));
            Ok(Some(image))
        }
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(ImageError::Unavailable(classify(&error))),
    }
}

/// Takes the image of a lease from its renter, who has been authenticated.
pub(crate) async fn take(engine: &Engine, lease: &str, mut stream: &mut dyn Duplex) -> Result<(), FailureCode> {
    let incoming = &engine.incoming;
    let (owner, digest) = {
        let mut waiting = incoming.lock();
        let waiting = waiting.get_mut(lease).ok_or(FailureCode::InstanceGone)?;
        if std::mem::replace(&mut waiting.busy, true) {
            return Err(FailureCode::ImageBusy);
        }
        (waiting.owner.clone(), waiting.digest.clone())
    };
    let taken = taken(engine, lease, (&owner, &digest), &mut stream).await;
    incoming.told(lease, |waiting| {
        waiting.busy = false;
        if let Err(error) = &taken {
            let code = error.code();
            // Sending once more may help against a lost connection, and against nothing else.
            let lasting = matches!(
                code,
                FailureCode::ImageTooLarge
                    | FailureCode::ImageIncompatible
                    | FailureCode::HostDiskFull
                    | FailureCode::EngineRefused
            );
            waiting.failed = lasting.then_some(code);
        }
    });
    match taken {
        Ok(()) => {
            write(&mut stream, &Message::Done).await.ok();
            tokio::io::AsyncWriteExt::flush(&mut stream).await.ok();
            Ok(())
        }
        Err(error) => {
            tracing::info!(%lease, %error, "an image was not taken");
            Ok(())
        }
    }
}

async fn taken(
    engine: &Engine,
    lease: &str,
    (owner, digest): (&str, &str),
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<(), HandoverError> {
    let incoming = &engine.incoming;
    let _place = incoming.places.acquire().await.map_err(|_| HandoverError::Failed(FailureCode::Cancelled))?;
    // What is counted on is not removed meanwhile.
    let _stays = engine.cache.removing.read().await;
    let folder = folder(engine, lease);
    let limit = engine.config.max_image_mb.saturating_mul(1 << 20);
    let what = Receiving {
        folder: folder.clone(),
        digest: digest.to_owned(),
        most: limit,
        // Once as files, once unpacked.
        room: free(&engine.config.data_dir).map(|free| free.saturating_sub(FREE) / 2),
        architecture: architecture().map(str::to_owned),
    };
    let received = receive(
        stream,
        &what,
        async |layers: &[String]| shared(engine, owner, layers).await,
        |progress| incoming.told(lease, |waiting| waiting.progress = progress),
    )
    .await?;
    let loaded = {
        let loading = load(&engine.docker, folder, &received, None);
        tokio::pin!(loading);
        loop {
            tokio::select! {
                loaded = &mut loading => break loaded,
                () = tokio::time::sleep(LOADING_EVERY) => {
                    incoming.told(lease, |_| {});
                    write(stream, &Message::Loading).await.ok();
                }
            }
        }
    };
    let finished = async {
        let id = loaded?;
        let image = stored(engine.docker.inspect_image(&id).await.map_err(|error| classify(&error))?);
        if image.bytes > limit {
            engine.docker.remove_image(&id, None::<bollard::query_parameters::RemoveImageOptions>, None).await.ok();
            return Err(FailureCode::ImageTooLarge);
        }
        engine.cache.note(&sent_key(owner, digest), &image, Readers::Only(owner.to_owned()));
        Ok(())
    };
    let finished = finished.await;
    if finished.is_ok() {
        discard(engine, lease).await;
    }
    if let Err(code) = finished {
        write(stream, &Message::Refused(code, code.sentence().to_owned())).await.ok();
        return Err(HandoverError::Failed(code));
    }
    Ok(())
}

/// How many of these layers, from the lowest, the engine has in images that this renter may know of.
async fn shared(engine: &Engine, owner: &str, layers: &[String]) -> usize {
    if engine.unpacks_by_itself() {
        // Such an engine wants an archive to be whole.
        return 0;
    }
    let common = |theirs: &[String]| layers.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let mut known: Vec<(usize, String)> =
        engine.cache.readable(owner).into_iter().map(|kept| (common(&kept.layers), kept.id)).collect();
    let options = ListImagesOptionsBuilder::new().build();
    for image in engine.docker.list_images(Some(options)).await.unwrap_or_default() {
        if image.repo_tags.iter().any(|tag| is_local(&engine.config, tag))
            && let Ok(found) = engine.docker.inspect_image(&image.id).await
        {
            known.push((common(&stored(found).layers), image.id));
        }
    }
    known.sort_by(|a, b| b.cmp(a));
    for (count, id) in known {
        if count == 0 {
            break;
        }
        if engine.docker.inspect_image(&id).await.is_ok() {
            return count;
        }
    }
    0
}

/// Bytes free where a folder is.
fn free(path: &std::path::Path) -> Option<u64> {
    let about = rustix::fs::statvfs(path).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Go's name of this machine's processor.
fn architecture() -> Option<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Some("amd64"),
        "aarch64" => Some("arm64"),
        _ => None,
    }
}
