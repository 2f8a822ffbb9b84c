//! Images: names to pinned digests by the host's policy, and pulls with progress.
//!
//! Owns the rule which images the engine may be asked for. Everything is pinned: by the registry's manifest digest, or, for
//! images that the engine has and the owner allowed by pattern, by image id.

use std::collections::HashMap;

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::cache::Readers;
use crate::config::RuntimeConfig;
use crate::engine::Engine;
use crate::error::{ImageError, classify, is_missing};
use crate::incoming;
use crate::login::Login;
use crate::reference::{Reference, is_digest, matches_pattern};
use crate::report::{FailureCode, PullProgress};
use crate::spec::InstanceSpec;

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

/// How an image comes to the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageSource {
    /// From its registry, as anybody gets it, or from the engine's own store where the owner allowed that.
    #[default]
    Registry,
    /// From its registry, with the renter's own login, which is given apart ([`crate::DockerRuntime::give_login`]).
    Login,
    /// From the renter itself, over a stream ([`crate::Runtime::receive_image`]). The pin's digest is the image's id.
    Sent {
        /// The renter, opaque to the runtime: images sent by one are never another's.
        owner: String,
    },
}

impl ImageSource {
    /// Whether nothing of the renter's is needed for it.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Registry)
    }
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
    /// Digests of its unpacked layers, lowest first.
    pub(crate) layers: Vec<String>,
}

/// Whether the owner lets an image of the engine's store be used by name.
pub(crate) fn is_local(config: &RuntimeConfig, reference: &str) -> bool {
    config.local_images.iter().any(|pattern| matches_pattern(pattern, reference))
}

/// Finds what a name stands for now, with the renter's login where there is one.
pub(crate) async fn resolve(
    engine: &Engine,
    reference: &str,
    login: Option<&Login>,
) -> Result<ResolvedImage, ImageError> {
    let (docker, config) = (&engine.docker, &engine.config);
    if login.is_none() && is_local(config, reference) {
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
    let credentials = credentials(login, &parsed)?;
    let open = |digest: &str| login.is_none() && engine.cache.is_open(&format!("{}@{digest}", parsed.name()));
    let digest = match &parsed.digest {
        Some(digest) if open(digest) => digest.clone(),
        Some(_) | None => registry_digest(docker, &parsed.canonical(), credentials)
            .await
            .map_err(|code| ImageError::Unavailable(login_code(code, login)))?,
    };
    if parsed.digest.as_ref().is_some_and(|wanted| *wanted != digest) {
        return Err(ImageError::Unavailable(FailureCode::ImageNotFound));
    }
    let by_digest = format!("{}@{digest}", parsed.name());
    let found = if open(&digest) { docker.inspect_image(&by_digest).await.ok() } else { None };
    let bytes = found.map(|image| stored(image).bytes);
    Ok(ResolvedImage { pin: ImagePin { reference: parsed.canonical(), digest }, bytes })
}

/// Makes sure that the engine has an image, pulling it where it must. Dropping the future ends the pull.
pub(crate) async fn ensure(
    engine: &Engine,
    spec: &InstanceSpec,
    mut progress: impl FnMut(PullProgress),
) -> Result<StoredImage, ImageError> {
    let (config, pin) = (&engine.config, &spec.image);
    if !is_digest(&pin.digest) {
        return Err(ImageError::Malformed { reference: pin.digest.chars().take(200).collect() });
    }
    let image = match &spec.source {
        ImageSource::Registry => from_registry(engine, pin, None, &mut progress).await?,
        ImageSource::Login => {
            let missing = ImageError::Unavailable(FailureCode::LoginMissing);
            let login = engine.logins.wait(&spec.lease).await.ok_or(missing)?;
            from_registry(engine, pin, Some(&login), &mut progress).await?
        }
        ImageSource::Sent { owner } => {
            incoming::wait(engine, &spec.lease, owner, &pin.digest, &mut progress).await?
        }
    };
    within_limit(config, image)
}

async fn from_registry(
    engine: &Engine,
    pin: &ImagePin,
    login: Option<&Login>,
    progress: &mut impl FnMut(PullProgress),
) -> Result<StoredImage, ImageError> {
    let (docker, config) = (&engine.docker, &engine.config);
    if login.is_none() && is_local(config, &pin.reference) {
        match docker.inspect_image(&pin.digest).await {
            Ok(image) => {
                let image = stored(image);
                if image.id == pin.digest {
                    return Ok(image);
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
    let readers = if login.is_none() { Readers::Everyone } else { Readers::Nobody };
    if login.is_none() && engine.cache.is_open(&by_digest) {
        match docker.inspect_image(&by_digest).await {
            Ok(image) => {
                let image = stored(image);
                engine.cache.note(&by_digest, &image, readers);
                return Ok(image);
            }
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(ImageError::Unavailable(classify(&error))),
        }
    }
    let credentials = credentials(login, &parsed)?;
    // Only the registry knows who may have it. The engine itself gives what it has by the owner's hand or another renter's login to
    // whoever names the digest, without asking (20.10 keeps manifests).
    let asked = registry_digest(docker, &by_digest, credentials.clone()).await;
    let same = asked.map_err(|code| ImageError::Unavailable(login_code(code, login)))? == pin.digest;
    if !same {
        return Err(ImageError::Unavailable(FailureCode::ImageNotFound));
    }
    let pulled = pull(docker, config, (&name, &pin.digest), credentials, progress).await;
    pulled.map_err(|error| match error {
        ImageError::Unavailable(code) => ImageError::Unavailable(login_code(code, login)),
        error @ (ImageError::Malformed { .. } | ImageError::RegistryRefused { .. }) => error,
    })?;
    let image = match docker.inspect_image(&by_digest).await {
        Ok(image) => stored(image),
        Err(error) => return Err(ImageError::Unavailable(classify(&error))),
    };
    if let Err(error) = within_limit(config, image.clone()) {
        let removed = docker.remove_image(&by_digest, None::<RemoveImageOptions>, None).await;
        if let Err(error) = removed {
            tracing::warn!(%error, image = %by_digest, "an image over the size limit can't be removed");
        }
        return Err(error);
    }
    engine.cache.note(&by_digest, &image, readers);
    Ok(image)
}

/// The digest that a registry has for a name, for whoever asks so.
async fn registry_digest(
    docker: &bollard::Docker,
    name: &str,
    credentials: Option<DockerCredentials>,
) -> Result<String, FailureCode> {
    let found = docker.inspect_registry_image(name, credentials).await.map_err(|error| registry_code(&error))?;
    found.descriptor.digest.filter(|digest| is_digest(digest)).ok_or(FailureCode::ImageNotFound)
}

/// What the engine tells the registry. A login goes to no registry but its own.
fn credentials(login: Option<&Login>, image: &Reference) -> Result<Option<DockerCredentials>, ImageError> {
    match login {
        None => Ok(None),
        Some(login) if login.is_for(&image.registry) => Ok(Some(login.credentials())),
        Some(_) => Err(ImageError::Unavailable(FailureCode::LoginRefused)),
    }
}

/// A refusal of who came with a login is the login's.
fn login_code(code: FailureCode, login: Option<&Login>) -> FailureCode {
    if login.is_some() && code == FailureCode::ImageDenied { FailureCode::LoginRefused } else { code }
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
    (name, digest): (&str, &str),
    credentials: Option<DockerCredentials>,
    progress: &mut impl FnMut(PullProgress),
) -> Result<(), ImageError> {
    let options = CreateImageOptionsBuilder::new().from_image(name).tag(digest).build();
    let mut stream = docker.create_image(Some(options), None, credentials);
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

pub(crate) fn stored(image: ImageInspect) -> StoredImage {
    let config = image.config.unwrap_or_default();
    StoredImage {
        id: image.id.unwrap_or_default(),
        bytes: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        entrypoint: config.entrypoint.unwrap_or_default(),
        command: config.cmd.unwrap_or_default(),
        volumes: config.volumes.unwrap_or_default(),
        layers: image.root_fs.and_then(|fs| fs.layers).unwrap_or_default(),
    }
}
