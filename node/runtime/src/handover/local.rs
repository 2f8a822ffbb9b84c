//! The engine on the side of whoever sends an image or takes one home, found as Docker's own program finds it.

use std::path::Path;

use bollard::Docker;
use tokio::io::{AsyncRead, AsyncWrite};

use super::config::ImageConfig;
use super::saved::Saved;
use super::{HandoverError, MAX_CONFIG, Received, Sending, Sent, load, send};
use crate::error::{classify, is_missing};
use crate::image::stored;
use crate::reference::{Reference, is_digest};
use crate::report::{FailureCode, PullProgress};

/// An engine.
#[derive(Debug, Clone)]
pub struct LocalEngine {
    docker: Docker,
    /// Whether it names images by their manifests, so that their configuration has to be looked for.
    containerd: bool,
}

/// An image of it.
#[derive(Debug, Clone)]
pub struct LocalImage {
    engine: LocalEngine,
    /// What the engine calls it.
    id: String,
    /// The digest of its configuration, which is what it is called elsewhere.
    pub digest: String,
    /// Digests of its unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// Its size in bytes.
    pub bytes: u64,
}

impl LocalEngine {
    /// The engine that `DOCKER_HOST` names, or the one of this machine.
    ///
    /// # Errors
    /// A sentence, if there is none.
    pub async fn connect() -> Result<Self, String> {
        let absent = |error: bollard::errors::Error| format!("no Docker engine answers here: {error}");
        let docker = Docker::connect_with_defaults().map_err(absent)?.negotiate_version().await.map_err(absent)?;
        let info = docker.info().await.map_err(absent)?;
        let words = info.driver_status.into_iter().flatten().flatten();
        let containerd = words.into_iter().any(|word| word.contains("io.containerd.snapshotter"));
        Ok(Self { docker, containerd })
    }

    /// An image, by name or id.
    ///
    /// # Errors
    /// [`FailureCode::ImageNotFound`] where it has none of this name; other codes of the engine.
    pub async fn image(&self, name: &str) -> Result<LocalImage, HandoverError> {
        let id = (2..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !id && !is_digest(name) {
            Reference::parse(name).map_err(|_| HandoverError::Failed(FailureCode::ImageNotFound))?;
        }
        let found = match self.docker.inspect_image(name).await {
            Ok(found) => stored(found),
            Err(error) if is_missing(&error) => return Err(HandoverError::Failed(FailureCode::ImageNotFound)),
            Err(error) => return Err(HandoverError::Failed(classify(&error))),
        };
        let digest =
            if self.containerd { self.configuration(&found.id, &found.layers).await? } else { found.id.clone() };
        Ok(LocalImage { engine: self.clone(), id: found.id, digest, layers: found.layers, bytes: found.bytes })
    }

    /// Reads an image's archive for the digest of its configuration.
    async fn configuration(&self, id: &str, layers: &[String]) -> Result<String, HandoverError> {
        let mut saved = Saved::new(Box::pin(self.docker.export_image(id)));
        while let Some((_, size)) = saved.next_file().await? {
            if size > MAX_CONFIG as u64 {
                continue;
            }
            let bytes = saved.whole(MAX_CONFIG as u64).await?;
            if let Ok(config) = ImageConfig::parse(bytes)
                && config.layers == layers
            {
                return Ok(config.digest);
            }
        }
        Err(HandoverError::Archive("its configuration is not in it".to_owned()))
    }

    /// Loads a received image under a name.
    ///
    /// # Errors
    /// The engine's refusal.
    pub async fn load(&self, folder: &Path, image: &Received, name: &str) -> Result<String, FailureCode> {
        load(&self.docker, folder.to_owned(), image, Some(name)).await
    }
}

impl LocalImage {
    /// Sends it to whoever waits for it at the other end.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        spool: &Path,
        progress: impl FnMut(PullProgress),
    ) -> Result<Sent, HandoverError> {
        let what = Sending {
            docker: &self.engine.docker,
            image: &self.id,
            layers: self.layers.clone(),
            digest: self.digest.clone(),
            config: None,
            bytes: self.bytes,
            spool,
        };
        send(stream, what, progress).await
    }
}

/// Reads an archive to its end, as a test of the engine's stream.
///
/// # Errors
/// What is wrong with it.
#[cfg(test)]
async fn count(
    stream: impl futures::Stream<Item = Result<bytes::Bytes, bollard::errors::Error>>,
) -> Result<usize, HandoverError> {
    let mut saved = Saved::new(Box::pin(stream));
    let mut files = 0;
    while saved.next_file().await?.is_some() {
        files += 1;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_engine_s_archive_cut_anywhere_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let config = br#"{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]}}"#;
        let config = ImageConfig::parse(config.to_vec()).unwrap();
        let image = Received { there: 1, config };
        let pieces: Vec<_> = super::super::archive(folder.path().to_owned(), &image, Some("a:b")).collect().await;
        let all: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        let stream = |bytes: &[u8], step: usize| {
            let pieces: Vec<_> = bytes.chunks(step).map(|part| Ok(bytes::Bytes::copy_from_slice(part))).collect();
            futures::stream::iter(pieces)
        };
        for step in [1, 13, 512, 1 << 20] {
            assert_eq!(count(stream(&all, step)).await.unwrap(), 2);
        }
        assert!(count(stream(&all[..700], 512)).await.is_err());
    }
}
