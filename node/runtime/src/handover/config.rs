//! An image's configuration: what names it (by its digest), its layers, and what it was made for.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{MAX_CONFIG, MAX_LAYERS};
use crate::reference::is_digest;
use crate::report::FailureCode;

/// The digest of bytes, as images name them.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What souk reads of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// The bytes, as they are hashed.
    pub bytes: Vec<u8>,
    /// `sha256:…` of them: the image's id.
    pub digest: String,
    /// Digests of the unpacked layers, lowest first.
    pub layers: Vec<String>,
    /// The processor, as Go names it.
    pub architecture: String,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// [`FailureCode::ImageCorrupt`] for what is none, [`FailureCode::ImageIncompatible`] for another system's.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, FailureCode> {
        if bytes.len() > MAX_CONFIG {
            return Err(FailureCode::ImageTooLarge);
        }
        let read: Read = serde_json::from_slice(&bytes).map_err(|_| FailureCode::ImageCorrupt)?;
        let layers = read.rootfs.diff_ids;
        let fits = read.rootfs.kind == "layers"
            && (1..=MAX_LAYERS).contains(&layers.len())
            && layers.iter().all(|digest| is_digest(digest));
        if !fits {
            return Err(FailureCode::ImageCorrupt);
        }
        if read.os != "linux" {
            return Err(FailureCode::ImageIncompatible);
        }
        Ok(Self { digest: digest_of(&bytes), bytes, layers, architecture: read.architecture })
    }
}
