//! The receiving side: asks for what is missing, and writes what comes into one folder.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;

use flate2::read::DeflateDecoder;
use tokio::io::{AsyncRead, AsyncWrite};

use super::layer::{Arriving, LayerError, blob, part};
use super::wire::{LayerHead, Message, Want, Wanted, read, write};
use super::{HandoverError, ImageConfig, PIECE};
use crate::report::{FailureCode, PullProgress};

/// What is to be received, and where.
#[derive(Debug, Clone)]
pub struct Receiving {
    /// The folder; only this receiver uses it.
    pub folder: PathBuf,
    /// The image's id.
    pub digest: String,
    /// Most bytes of all layers that are sent, unpacked.
    pub most: u64,
    /// Most bytes that there is room for; none where that is not known.
    pub room: Option<u64>,
    /// Go's name of the processor it must be for; none for any.
    pub architecture: Option<String>,
}

/// An image of which all that was wanted is there, as files of the folder.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its configuration.
    pub config: ImageConfig,
    /// So many of its layers, from the lowest, were there before and have no file.
    pub there: usize,
}

/// Receives an image. `there` says how many of its layers, from the lowest, need not be sent.
///
/// # Errors
/// [`HandoverError`]; the other side has been told, unless the stream itself broke.
pub async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    what: &Receiving,
    there: impl AsyncFnOnce(&[String]) -> usize,
    mut progress: impl FnMut(PullProgress),
) -> Result<Received, HandoverError> {
    let received = take(stream, what, there, &mut progress).await;
    if let Err(error) = &received
        && !error.is_cut()
    {
        write(stream, &Message::Refused(error.code(), error.code().sentence().to_owned())).await.ok();
    }
    received
}

async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    what: &Receiving,
    there: impl AsyncFnOnce(&[String]) -> usize,
    progress: &mut impl FnMut(PullProgress),
) -> Result<Received, HandoverError> {
    let Message::Offer(layers) = next(stream).await? else { return Err(HandoverError::Protocol("no offer came first")) };
    let there = there(&layers).await.min(layers.len());
    let folder = what.folder.clone();
    let missing = {
        let (layers, most) = (layers.clone(), what.most);
        blocking(move || {
            std::fs::create_dir_all(&folder)?;
            missing(&folder, &layers, there, most)
        })
        .await?
    };
    let mut done = PullProgress {
        layers: u32::try_from(layers.len()).unwrap_or(u32::MAX),
        layers_done: u32::try_from(layers.len() - missing.len()).unwrap_or(u32::MAX),
        ..PullProgress::default()
    };
    progress(done);
    write(stream, &Message::Want(Want { layers: missing.clone() })).await?;
    let mut open: Vec<Wanted> = missing;
    // Layers that were whole before this attempt count as well.
    let mut budget = what.most.saturating_sub(written(what, &layers).await?);
    let mut room = what.room.unwrap_or(u64::MAX);
    let mut config = None;
    while !open.is_empty() || config.is_none() {
        match next(stream).await? {
            Message::Layer(head) => {
                let place = open.iter().position(|wanted| wanted.index == head.index && wanted.from == head.from);
                let wanted = place.map(|place| open.swap_remove(place));
                let digest = wanted.and_then(|wanted| layers.get(wanted.index));
                let digest = digest.ok_or(HandoverError::Protocol("a layer came that was not wanted"))?;
                budget = budget.checked_sub(head.bytes).ok_or(HandoverError::Failed(FailureCode::ImageTooLarge))?;
                let more = head.bytes.saturating_sub(head.from);
                room = room.checked_sub(more).ok_or(HandoverError::Failed(FailureCode::HostDiskFull))?;
                done.bytes = done.bytes.saturating_add(head.bytes);
                done.bytes_done = done.bytes_done.saturating_add(head.from);
                layer(stream, what, digest, head, |more| {
                    done.bytes_done = done.bytes_done.saturating_add(more);
                    progress(done);
                })
                .await?;
                done.layers_done = done.layers_done.saturating_add(1);
                progress(done);
                write(stream, &Message::Got(head.index)).await?;
            }
            Message::Config(bytes) if config.is_none() => {
                let parsed = ImageConfig::parse(bytes).map_err(HandoverError::Failed)?;
                if parsed.digest != what.digest || parsed.layers != layers {
                    return Err(HandoverError::Failed(FailureCode::ImageCorrupt));
                }
                if what.architecture.as_ref().is_some_and(|wanted| *wanted != parsed.architecture) {
                    return Err(HandoverError::Failed(FailureCode::ImageIncompatible));
                }
                config = Some(parsed);
            }
            Message::Offer(_)
            | Message::Want(_)
            | Message::Raw(_)
            | Message::Deflated(_)
            | Message::Config(_)
            | Message::Got(_)
            | Message::Loading
            | Message::Done
            | Message::Refused(..) => return Err(HandoverError::Protocol("a message came out of turn")),
        }
    }
    let config = config.ok_or(HandoverError::Protocol("no configuration came"))?;
    Ok(Received { config, there })
}

/// The next message of the sender, whose refusal ends it.
async fn next<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Message, HandoverError> {
    match read(stream).await? {
        Message::Refused(code, sentence) => Err(HandoverError::Refused { code, sentence }),
        message @ (Message::Offer(_)
        | Message::Want(_)
        | Message::Layer(_)
        | Message::Raw(_)
        | Message::Deflated(_)
        | Message::Config(_)
        | Message::Got(_)
        | Message::Loading
        | Message::Done) => Ok(message),
    }
}

/// Layers above those that are there and that have no whole file, each digest once, with what has come of them.
fn missing(folder: &std::path::Path, layers: &[String], there: usize, most: u64) -> std::io::Result<Vec<Wanted>> {
    let mut seen = HashSet::new();
    let mut missing = Vec::new();
    for (index, digest) in layers.iter().enumerate().skip(there) {
        if !seen.insert(digest) || std::fs::exists(blob(folder, digest))? {
            continue;
        }
        let from = match std::fs::metadata(part(folder, digest)) {
            Ok(about) if about.len() <= most => about.len(),
            Ok(_) => {
                std::fs::remove_file(part(folder, digest))?;
                0
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        missing.push(Wanted { index, from });
    }
    Ok(missing)
}

/// Bytes of whole layers in the folder.
async fn written(what: &Receiving, layers: &[String]) -> Result<u64, HandoverError> {
    let (folder, layers) = (what.folder.clone(), layers.iter().cloned().collect::<HashSet<_>>());
    blocking(move || {
        let sizes = layers.iter().map(|digest| std::fs::metadata(blob(&folder, digest)).map_or(0, |about| about.len()));
        Ok(sizes.fold(0_u64, u64::saturating_add))
    })
    .await
}

async fn layer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    what: &Receiving,
    digest: &str,
    head: LayerHead,
    mut got: impl FnMut(u64),
) -> Result<(), HandoverError> {
    let (folder, digest) = (what.folder.clone(), digest.to_owned());
    let mut arriving = arrived(move || Arriving::open(&folder, &digest, head.from, head.bytes)).await?;
    while !arriving.is_whole() {
        let (bytes, packed) = match next(stream).await? {
            Message::Raw(bytes) => (bytes, false),
            Message::Deflated(bytes) => (bytes, true),
            Message::Offer(_)
            | Message::Want(_)
            | Message::Layer(_)
            | Message::Config(_)
            | Message::Got(_)
            | Message::Loading
            | Message::Done
            | Message::Refused(..) => return Err(HandoverError::Protocol("a layer was left before its end")),
        };
        let (back, more) = arrived(move || {
            let bytes = if packed { unpack(&bytes).ok_or(LayerError::Bad(FailureCode::ImageCorrupt))? } else { bytes };
            if bytes.is_empty() {
                return Err(LayerError::Bad(FailureCode::ImageCorrupt));
            }
            arriving.take(&bytes)?;
            Ok((arriving, bytes.len() as u64))
        })
        .await?;
        arriving = back;
        got(more);
    }
    arrived(move || arriving.finish()).await
}

/// At most a piece, however small it was packed.
fn unpack(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(PIECE);
    DeflateDecoder::new(bytes).take(PIECE as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= PIECE).then_some(plain)
}

async fn arrived<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
) -> Result<T, HandoverError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| HandoverError::Files(std::io::Error::other(e)))?;
    done.map_err(|error| match error {
        LayerError::Files(error) => HandoverError::Files(error),
        LayerError::Bad(code) => HandoverError::Failed(code),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, HandoverError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other);
    done.and_then(|done| done).map_err(HandoverError::Files)
}
