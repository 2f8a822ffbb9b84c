//! The sending side: reads the engine's archive once, and sends of it what the other side wants.
//!
//! Which layer an entry is shows only when it has been read (older engines name layers by something else), so each is written to a
//! file without a name first. There is room for the largest layer to be had in that folder, and nothing stays there.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bollard::Docker;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateEncoder, MultiGzDecoder};
use futures::Stream;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::config::digest_of;
use super::saved::Saved;
use super::wire::{LayerHead, Message, Wanted, ended, read, write};
use super::{HandoverError, MAX_CONFIG, PIECE};
use crate::reference::is_digest;
use crate::report::{FailureCode, PullProgress};

/// How long the other side's engine may be silent while it works.
const SILENCE: Duration = Duration::from_secs(180);
/// How long its reason is waited for, once the stream has failed.
const REASON: Duration = Duration::from_secs(2);
/// Bytes a second of a link on which compressing costs more than it saves.
const FAST: f64 = 60e6;
/// Pieces sent as they are after one that compressing didn't help.
const AS_IS: u32 = 32;
/// The beginning of a compressed layer, as newer engines may save it.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What is sent.
#[derive(Debug)]
pub struct Sending<'a> {
    /// The engine.
    pub docker: &'a Docker,
    /// The image's name or id in it.
    pub image: &'a str,
    /// Digests of its unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// The digest of the configuration that names the image for the other side.
    pub digest: String,
    /// That configuration, where it isn't the archive's own.
    pub config: Option<Vec<u8>>,
    /// Its size, as the engine tells it: what there is to send at most.
    pub bytes: u64,
    /// A folder for one layer.
    pub spool: &'a Path,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Layers of the image.
    pub layers: usize,
    /// Of these, sent.
    pub sent: usize,
    /// Bytes of them, unpacked, without what was there from an earlier attempt.
    pub bytes: u64,
    /// The same, as they went over the stream.
    pub packed: u64,
}

/// Sends an image, and waits until the other side has it.
///
/// # Errors
/// [`HandoverError`].
pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    what: Sending<'_>,
    mut progress: impl FnMut(PullProgress),
) -> Result<Sent, HandoverError> {
    let (mut from, mut to) = tokio::io::split(stream);
    write(&mut to, &Message::Offer(what.layers.clone())).await?;
    let want = read(&mut from).await?.want()?;
    let mut wanted = HashMap::new();
    for layer in &want.layers {
        let digest = what.layers.get(layer.index).ok_or(HandoverError::Protocol("a layer is wanted that there is not"))?;
        wanted.insert(digest.clone(), *layer);
    }
    let mut work = Work {
        told: PullProgress {
            layers: u32::try_from(what.layers.len()).unwrap_or(u32::MAX),
            layers_done: u32::try_from(what.layers.len().saturating_sub(wanted.len())).unwrap_or(u32::MAX),
            bytes_done: 0,
            bytes: if wanted.is_empty() { 0 } else { what.bytes },
        },
        sent: Sent { layers: what.layers.len(), ..Sent::default() },
        wanted,
        as_is: 0,
    };
    progress(work.told);
    let result = {
        let answers = answers(&mut from);
        tokio::pin!(answers);
        let sending = work.all(&mut to, &what, &mut progress);
        tokio::pin!(sending);
        let sent = tokio::select! {
            early = &mut answers => match early {
                Ok(()) => Err(HandoverError::Protocol("it was said to be there before it was sent")),
                Err(error) => return Err(error),
            },
            sent = &mut sending => sent,
        };
        match sent {
            Ok(()) => answers.await,
            Err(HandoverError::Stream(error)) => match tokio::time::timeout(REASON, answers).await {
                Ok(Err(refused @ HandoverError::Refused { .. })) => Err(refused),
                Ok(_) | Err(_) => Err(HandoverError::Stream(error)),
            },
            Err(error) => Err(error),
        }
    };
    if let Err(error) = &result
        && !matches!(error, HandoverError::Stream(_) | HandoverError::Refused { .. })
    {
        let sentence = "the image could not be read where it is".to_owned();
        write(&mut to, &Message::Refused(FailureCode::ImageNotSent, sentence)).await.ok();
    }
    result.map(|()| work.sent)
}

/// What the other side says until it has the image.
async fn answers<S: AsyncRead + AsyncWrite>(from: &mut ReadHalf<&mut S>) -> Result<(), HandoverError>
where
    S: Unpin,
{
    let mut loading = false;
    loop {
        let message = if loading {
            tokio::time::timeout(SILENCE, read(from)).await.map_err(|_| ended())??
        } else {
            read(from).await?
        };
        match message {
            Message::Done => return Ok(()),
            Message::Refused(code, sentence) => return Err(HandoverError::Refused { code, sentence }),
            Message::Loading => loading = true,
            Message::Got(_) => {}
            Message::Offer(_)
            | Message::Want(_)
            | Message::Layer(_)
            | Message::Raw(_)
            | Message::Deflated(_)
            | Message::Config(_) => return Err(HandoverError::Protocol("a message came out of turn")),
        }
    }
}

/// What is left to do.
struct Work {
    wanted: HashMap<String, Wanted>,
    told: PullProgress,
    sent: Sent,
    as_is: u32,
}

/// A file of the archive.
struct Entry {
    file: std::fs::File,
    digest: String,
    bytes: u64,
}

impl Work {
    async fn all<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        to: &mut WriteHalf<&mut S>,
        what: &Sending<'_>,
        progress: &mut impl FnMut(PullProgress),
    ) -> Result<(), HandoverError> {
        let mut config = what.config.clone();
        if !self.wanted.is_empty() || config.is_none() {
            let mut saved = Saved::new(Box::pin(what.docker.export_image(what.image)));
            while let Some((name, size)) = saved.next_file().await? {
                if self.wanted.is_empty() && config.is_some() {
                    break;
                }
                if size <= MAX_CONFIG as u64 {
                    let bytes = saved.whole(MAX_CONFIG as u64).await?;
                    let digest = digest_of(&bytes);
                    if config.is_none() && digest == what.digest {
                        config = Some(bytes);
                    } else if let Some(entry) = small(what.spool, bytes).await? {
                        self.entry(to, entry, progress).await?;
                    }
                } else if let Some(entry) = self.spool(&mut saved, what.spool, &name).await? {
                    self.entry(to, entry, progress).await?;
                } else {
                    self.left_out(size, progress);
                }
            }
        }
        if !self.wanted.is_empty() {
            return Err(HandoverError::Archive("a layer is not in it".to_owned()));
        }
        let config = config.ok_or_else(|| HandoverError::Archive("its configuration is not in it".to_owned()))?;
        self.told.bytes = self.told.bytes_done;
        progress(self.told);
        write(to, &Message::Config(config)).await
    }

    /// Less is to be sent than it seemed.
    fn left_out(&mut self, bytes: u64, progress: &mut impl FnMut(PullProgress)) {
        self.told.bytes = self.told.bytes.saturating_sub(bytes).max(self.told.bytes_done);
        progress(self.told);
    }

    /// Writes an entry down while it is hashed; none where its name says that it is not wanted.
    async fn spool(
        &self,
        saved: &mut Saved<impl Stream<Item = Result<Bytes, bollard::errors::Error>> + Unpin>,
        folder: &Path,
        name: &str,
    ) -> Result<Option<Entry>, HandoverError> {
        let Some(first) = saved.read().await? else { return Ok(None) };
        let packed = first.starts_with(&GZIP);
        let named = name.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
        let unwanted = named.is_some_and(|digest| is_digest(&digest) && !self.wanted.contains_key(&digest));
        if unwanted && !packed {
            return Ok(None);
        }
        let mut work = (unnamed(folder)?, Sha256::new(), 0_u64);
        let mut piece = Some(first);
        while let Some(bytes) = piece {
            work = blocking(move || {
                let (mut file, mut hash, count) = work;
                file.write_all(&bytes)?;
                hash.update(&bytes);
                Ok((file, hash, count + bytes.len() as u64))
            })
            .await?;
            piece = saved.read().await?;
        }
        let (file, hash, bytes) = work;
        if packed {
            let folder = folder.to_owned();
            return unpacked(file, folder).await.map(Some);
        }
        Ok(Some(Entry { file, digest: format!("sha256:{}", hex::encode(hash.finalize())), bytes }))
    }

    async fn entry<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        to: &mut WriteHalf<&mut S>,
        entry: Entry,
        progress: &mut impl FnMut(PullProgress),
    ) -> Result<(), HandoverError> {
        let Some(wanted) = self.wanted.get(&entry.digest).copied() else {
            self.left_out(entry.bytes, progress);
            return Ok(());
        };
        let Wanted { index, from } = wanted;
        if from > entry.bytes {
            return Err(HandoverError::Protocol("more is there of a layer than it has"));
        }
        write(to, &Message::Layer(LayerHead { index, from, bytes: entry.bytes })).await?;
        let mut file = entry.file;
        file.seek(SeekFrom::Start(from)).map_err(HandoverError::Files)?;
        self.told.bytes_done += from;
        let mut at = from;
        while at < entry.bytes {
            let pack = self.as_is == 0;
            let (back, plain, message) = blocking(move || {
                let (count, message) = piece(&mut file, pack)?;
                Ok((file, count, message))
            })
            .await?;
            file = back;
            if plain == 0 {
                return Err(HandoverError::Archive("a layer became shorter".to_owned()));
            }
            let (length, helped) = message.piece();
            let begun = Instant::now();
            write(to, &message).await?;
            let rate = length as f64 / begun.elapsed().as_secs_f64().max(1e-6);
            self.as_is = if pack && (!helped || rate > FAST) { AS_IS } else { self.as_is.saturating_sub(1) };
            at += plain;
            self.sent.bytes += plain;
            self.sent.packed += length as u64;
            self.told.bytes_done += plain;
            self.told.bytes = self.told.bytes.max(self.told.bytes_done);
            progress(self.told);
        }
        self.wanted.remove(&entry.digest);
        self.sent.sent += 1;
        self.told.layers_done += 1;
        progress(self.told);
        Ok(())
    }
}

/// The next piece of a layer, compressed where that is tried and helps.
fn piece(file: &mut std::fs::File, pack: bool) -> std::io::Result<(u64, Message)> {
    let mut plain = Vec::with_capacity(PIECE);
    std::io::Read::by_ref(file).take(PIECE as u64).read_to_end(&mut plain)?;
    let count = plain.len() as u64;
    if pack {
        let mut packed = Vec::with_capacity(plain.len());
        DeflateEncoder::new(plain.as_slice(), Compression::fast()).read_to_end(&mut packed)?;
        if packed.len() < plain.len() / 10 * 9 {
            return Ok((count, Message::Deflated(packed)));
        }
    }
    Ok((count, Message::Raw(plain)))
}

fn unnamed(folder: &Path) -> Result<std::fs::File, HandoverError> {
    tempfile::tempfile_in(folder).map_err(HandoverError::Files)
}

/// A small entry that may be a layer.
async fn small(folder: &Path, bytes: Vec<u8>) -> Result<Option<Entry>, HandoverError> {
    let packed = bytes.starts_with(&GZIP);
    let (digest, count) = (digest_of(&bytes), bytes.len() as u64);
    let mut file = unnamed(folder)?;
    let file = blocking(move || file.write_all(&bytes).map(|()| file)).await?;
    if packed {
        return unpacked(file, folder.to_owned()).await.map(Some);
    }
    Ok((count > 0).then_some(Entry { file, digest, bytes: count }))
}

/// A compressed layer as it is unpacked.
async fn unpacked(mut file: std::fs::File, folder: PathBuf) -> Result<Entry, HandoverError> {
    blocking(move || {
        file.rewind()?;
        let mut plain = tempfile::tempfile_in(folder)?;
        let mut reader = MultiGzDecoder::new(std::io::BufReader::new(file));
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0_u64, vec![0; PIECE]);
        loop {
            let read = reader.read(&mut piece)?;
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            plain.write_all(&piece[..read])?;
            bytes += read as u64;
        }
        Ok(Entry { file: plain, digest: format!("sha256:{}", hex::encode(hash.finalize())), bytes })
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, HandoverError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other);
    done.and_then(|done| done).map_err(HandoverError::Files)
}
