//! An image with nothing in it, for a workload that needs nothing but the helper mounted in every instance.
//!
//! Made on the engine itself, so that a demonstration needs no registry.

use std::path::Path;

use bollard::Docker;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use bytes::Bytes;
use futures::StreamExt as _;

use crate::error::{RuntimeError, classify};

/// Seconds that the engine may take for an answer.
const TIMEOUT_SECONDS: u64 = 60;
/// A tar file without members.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

async fn connect(socket: &Path) -> Result<Docker, RuntimeError> {
    let path = socket.display().to_string();
    let failed = |error| RuntimeError::Engine(classify(&error));
    let docker = Docker::connect_with_unix(&path, TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION).map_err(failed)?;
    docker.negotiate_version().await.map_err(failed)
}

/// Makes the image `name:tag` on the engine behind `socket`.
///
/// # Errors
/// [`RuntimeError::Engine`] if the engine does not answer or refuses.
pub async fn import(socket: &Path, name: &str, tag: &str) -> Result<(), RuntimeError> {
    let docker = connect(socket).await?;
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(tag).build();
    let body = bollard::body_full(Bytes::from_static(&EMPTY_TAR));
    let mut answers = docker.create_image(Some(options), Some(body), None);
    while let Some(answer) = answers.next().await {
        answer.map_err(|error| RuntimeError::Engine(classify(&error)))?;
    }
    Ok(())
}

/// Removes it; one that is not there is no error.
///
/// # Errors
/// [`RuntimeError::Engine`] if the engine does not answer or refuses.
pub async fn remove(socket: &Path, name: &str, tag: &str) -> Result<(), RuntimeError> {
    let docker = connect(socket).await?;
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    match docker.remove_image(&format!("{name}:{tag}"), Some(options), None).await {
        Ok(_) => Ok(()),
        Err(error) if crate::error::is_missing(&error) => Ok(()),
        Err(error) => Err(RuntimeError::Engine(classify(&error))),
    }
}
