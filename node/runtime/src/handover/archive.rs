//! From the files of a received image to an engine, or to an archive that any engine loads.

use std::collections::HashSet;
use std::io::Read as _;
use std::path::PathBuf;

use bollard::Docker;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::layer::blob;
use super::tar::{BLOCK, Header, padding};
use super::{PIECE, Received};
use crate::error::classify;
use crate::report::FailureCode;

/// Pieces on their way to the engine. When full, the reading waits.
const PIECES: usize = 8;
/// How long an engine may take to unpack an image.
const LOAD_WITHIN: std::time::Duration = std::time::Duration::from_secs(3600);

/// The archive of an image (`docker load`, `podman load`), without the layers that are there already. A file that can't be read ends
/// it with an error.
pub fn archive(
    folder: PathBuf,
    image: &Received,
    name: Option<&str>,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Unpin + use<> {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let (image, name) = (image.clone(), name.map(str::to_owned));
    tokio::task::spawn_blocking(move || {
        // Whoever reads no more needs no more.
        let put = |piece: Vec<u8>| pieces.blocking_send(Ok(Bytes::from(piece))).map_err(|_| std::io::ErrorKind::BrokenPipe.into());
        if let Err(error) = write(&folder, &image, name.as_deref(), put) {
            let _ = pieces.blocking_send(Err(error));
        }
    });
    Box::pin(futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

fn write(
    folder: &std::path::Path,
    image: &Received,
    name: Option<&str>,
    put: impl Fn(Vec<u8>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let pad = |size: u64| vec![0; usize::try_from(padding(size)).unwrap_or(0)];
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let file = |name: &str, content: &[u8]| {
        put(Header::file(name, content.len() as u64).to_vec())?;
        put(content.to_vec())?;
        put(pad(content.len() as u64))
    };
    let config = format!("{}.json", hex(&image.config.digest));
    let layers: Vec<String> = image.config.layers.iter().map(|digest| format!("{}/layer.tar", hex(digest))).collect();
    let tags: Vec<&str> = name.into_iter().collect();
    let manifest = serde_json::json!([{
        "Config": config,
        "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { tags.into() },
        "Layers": layers,
    }]);
    file("manifest.json", &serde_json::to_vec(&manifest)?)?;
    file(&config, &image.config.bytes)?;
    let mut seen = HashSet::new();
    for (digest, path) in image.config.layers.iter().zip(&layers).skip(image.there) {
        if !seen.insert(digest) {
            continue;
        }
        let mut layer = std::fs::File::open(blob(folder, digest))?;
        let size = layer.metadata()?.len();
        put(Header::file(path, size).to_vec())?;
        let mut left = size;
        while left > 0 {
            let mut piece = Vec::with_capacity(PIECE);
            let read = layer.by_ref().take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
            put(piece)?;
        }
        put(pad(size))?;
    }
    put(vec![0; 2 * BLOCK])
}

/// Loads a received image into an engine, with a name or without, and gives the id that it has there.
///
/// # Errors
/// The engine's refusal; [`FailureCode::ImageCorrupt`] where it made something else of it.
pub async fn load(docker: &Docker, folder: PathBuf, image: &Received, name: Option<&str>) -> Result<String, FailureCode> {
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let docker = docker.clone().with_timeout(LOAD_WITHIN);
    let mut lines = Box::pin(docker.import_image_stream(options, archive(folder, image, name), None));
    let mut loaded = None;
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| classify(&error))?;
        let said = line.stream.unwrap_or_default();
        if let Some(id) = said.trim().strip_prefix("Loaded image ID: ") {
            loaded = Some(id.to_owned());
        }
    }
    // An engine that names images by their manifests has another id for it; what it is shows in its layers.
    let id = name.map(str::to_owned).or(loaded).unwrap_or_else(|| image.config.digest.clone());
    let found = docker.inspect_image(&id).await.map_err(|error| classify(&error))?;
    let layers = found.root_fs.and_then(|fs| fs.layers).unwrap_or_default();
    match found.id {
        Some(id) if layers == image.config.layers => Ok(id),
        Some(_) | None => Err(FailureCode::ImageCorrupt),
    }
}
