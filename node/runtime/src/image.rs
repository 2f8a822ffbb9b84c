//! Images: names to pinned digests by the host's policy, and pulls with progress.
//!
//! Owns the rule which images the engine may be asked for. Everything is pinned: by the registry's manifest digest, or, for
//! images that the engine has and the owner allowed by pattern, by image id.

use std::collections::HashMap;

use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::config::RuntimeConfig;
use crate::error::{ImageError, classify, is_missing};
use crate::reference::{Reference, is_digest, matches_pattern};
use crate::report::{FailureCode, PullProgress};

/// Most layers that a pull may announce; the engine itself refuses more than 127.
const MAX_LAYERS: usize = 512;

/// An image that can't change: what a lease names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImagePin {
    /// The name in canonical form, or as the engine knows a local image.
    pub reference: String,
    /// `sha256:…`: the manifest's digest, or the image id of a local image.
    pub digest: String,
}

/// An image found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// The pin.
    pub pin: ImagePin,
    /// Size on disk in bytes, where the engine has it already.
    pub bytes: Option<u64>,
}

/// An image in the engine's store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoredImage {
    /// The image id.
    pub(crate) id: String,
    /// Size on disk in bytes.
    pub(crate) bytes: u64,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) volumes: Vec<String>,
}

/// Whether the owner lets an image of the engine's store be used by name.
fn is_local(config: &RuntimeConfig, reference: &str) -> bool {
    config.local_images.iter().any(|pattern| matches_pattern(pattern, reference))
}

/// Finds what a name stands for now.
pub(crate) async fn resolve(
    docker: &bollard::Docker,
    config: &RuntimeConfig,
    reference: &str,
) -> Result<ResolvedImage, ImageError> {
    if is_local(config, reference) {
        // Checked as a name all the same: it becomes part of a URL path.
        Reference::parse(reference)?;
        match docker.inspect_image(reference).await {
            Ok(image) => {
                let image = stored(image);
                return Ok(ResolvedImage {
                    pin: ImagePin { reference: reference.to_owned(), digest: image.id },
                    bytes: Some(image.bytes),
                });
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(ImageError::Unavailable(classify(&error))),
        }
    }
    let parsed = Reference::parse(reference)?;
    parsed.check_registry(&config.registries)?;
    let digest = match &parsed.digest {
        Some(digest) => digest.clone(),
        None => match docker.inspect_registry_image(&parsed.canonical(), None).await {
            Ok(found) => found
                .descriptor
                .digest
                .filter(|digest| is_digest(digest))
                .ok_or(ImageError::Unavailable(FailureCode::ImageNotFound))?,
            Err(error) => return Err(ImageError::Unavailable(registry_code(&error))),
        },
    };
    let by_digest = format!("{}@{digest}", parsed.name());
    let bytes = docker.inspect_image(&by_digest).await.ok().map(|image| stored(image).bytes);
    Ok(ResolvedImage { pin: ImagePin { reference: parsed.canonical(), digest }, bytes })
}

/// Makes sure that the engine has an image, pulling it where it must. Dropping the future ends the pull.
pub(crate) async fn ensure(
    docker: &bollard::Docker,
    config: &RuntimeConfig,
    pin: &ImagePin,
    mut progress: impl FnMut(PullProgress),
) -> Result<StoredImage, ImageError> {
    if !is_digest(&pin.digest) {
        return Err(ImageError::Malformed { reference: pin.digest.chars().take(200).collect() });
    }
    if is_local(config, &pin.reference) {
        match docker.inspect_image(&pin.digest).await {
            Ok(image) => {
                let image = stored(image);
                if image.id == pin.digest {
                    return within_limit(config, image);
                }
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(ImageError::Unavailable(classify(&error))),
        }
    }
    let parsed = Reference::parse(&pin.reference)?;
    parsed.check_registry(&config.registries)?;
    let name = parsed.name();
    let by_digest = format!("{name}@{}", pin.digest);
    match docker.inspect_image(&by_digest).await {
        Ok(image) => return within_limit(config, stored(image)),
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(ImageError::Unavailable(classify(&error))),
    }
    pull(docker, config, &name, &pin.digest, &mut progress).await?;
    let image = match docker.inspect_image(&by_digest).await {
        Ok(image) => stored(image),
        Err(error) => return Err(ImageError::Unavailable(classify(&error))),
    };
    let checked = within_limit(config, image);
    if checked.is_err() {
        let removed = docker.remove_image(&by_digest, None::<RemoveImageOptions>, None).await;
        if let Err(error) = removed {
            tracing::warn!(%error, image = %by_digest, "an image over the size limit can't be removed");
        }
    }
    checked
}

fn within_limit(config: &RuntimeConfig, image: StoredImage) -> Result<StoredImage, ImageError> {
    if image.bytes > config.max_image_mb.saturating_mul(1 << 20) {
        return Err(ImageError::Unavailable(FailureCode::ImageTooLarge));
    }
    Ok(image)
}

async fn pull(
    docker: &bollard::Docker,
    config: &RuntimeConfig,
    name: &str,
    digest: &str,
    progress: &mut impl FnMut(PullProgress),
) -> Result<(), ImageError> {
    let options = CreateImageOptionsBuilder::new().from_image(name).tag(digest).build();
    let mut stream = docker.create_image(Some(options), None, None);
    let mut layers = Layers::default();
    let limit = config.max_image_mb.saturating_mul(1 << 20);
    let mut told = PullProgress::default();
    while let Some(line) = stream.next().await {
        let line = line.map_err(|error| ImageError::Unavailable(registry_code(&error)))?;
        if let Some(detail) = &line.error_detail {
            let error = bollard::errors::Error::DockerStreamError { error: detail.message.clone().unwrap_or_default() };
            return Err(ImageError::Unavailable(registry_code(&error)));
        }
        layers.take(&line);
        let now = layers.progress();
        if layers.seen.len() > MAX_LAYERS || now.bytes > limit {
            return Err(ImageError::Unavailable(FailureCode::ImageTooLarge));
        }
        if now != told {
            told = now;
            progress(now);
        }
    }
    Ok(())
}

/// Classes an error of an engine that spoke to a registry: there, "not found" means the image.
fn registry_code(error: &bollard::errors::Error) -> FailureCode {
    let code = classify(error);
    if code == FailureCode::InstanceGone { FailureCode::ImageNotFound } else { code }
}

/// What a pull said of each layer.
#[derive(Debug, Default)]
struct Layers {
    seen: HashMap<String, Layer>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Layer {
    done: bool,
    bytes_done: u64,
    bytes: u64,
}

impl Layers {
    fn take(&mut self, line: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&line.id, &line.status) else {
            return;
        };
        // Lines about the image as a whole carry the digest as id.
        if status.starts_with("Pulling from") || self.seen.len() > MAX_LAYERS {
            return;
        }
        let layer = self.seen.entry(id.clone()).or_default();
        let size = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
        let detail = line.progress_detail.as_ref();
        match status.as_str() {
            "Downloading" => {
                layer.bytes_done = detail.and_then(|d| size(d.current)).unwrap_or(layer.bytes_done);
                layer.bytes = detail.and_then(|d| size(d.total)).unwrap_or(layer.bytes);
            }
            "Download complete" | "Verifying Checksum" => layer.bytes_done = layer.bytes,
            "Extracting" => {
                // A small layer may be there before any download line was sent.
                layer.bytes = detail.and_then(|d| size(d.total)).unwrap_or(layer.bytes).max(layer.bytes);
                layer.bytes_done = layer.bytes;
            }
            "Pull complete" | "Already exists" => {
                layer.done = true;
                layer.bytes_done = layer.bytes;
            }
            _ => {}
        }
    }

    fn progress(&self) -> PullProgress {
        let mut sum = PullProgress::default();
        for layer in self.seen.values() {
            sum.layers = sum.layers.saturating_add(1);
            sum.layers_done = sum.layers_done.saturating_add(u32::from(layer.done));
            sum.bytes = sum.bytes.saturating_add(layer.bytes);
            sum.bytes_done = sum.bytes_done.saturating_add(layer.bytes_done.min(layer.bytes));
        }
        sum
    }
}

fn stored(image: ImageInspect) -> StoredImage {
    let config = image.config.unwrap_or_default();
    StoredImage {
        id: image.id.unwrap_or_default(),
        bytes: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default(),
    }
}
