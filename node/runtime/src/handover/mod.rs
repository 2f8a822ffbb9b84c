//! Images handed from one engine to another over a stream, layer by layer, without a registry.
//!
//! The sending side reads an engine's own archive (`docker save`, as layout of OCI or of older engines) and sends the layers that the
//! other side wants, unpacked and in pieces that are compressed where that helps. The receiving side trusts nothing: each layer is
//! written to a file of its own under its digest, must be that digest, and must be an archive that unpacks to no more than what was
//! sent; a cut transfer goes on within the layer. Only what is whole goes on to an engine.
//!
//! | who | says |
//! |---|---|
//! | sender | `Offer`: digests of all unpacked layers, lowest first |
//! | receiver | `Want`: which of them, and from which byte on |
//! | sender | for each `Layer`, then `Raw` and `Deflated` pieces; and once the `Config`, which names the image |
//! | receiver | `Got` for each layer that is whole; `Loading` while the engine works; `Done`, or `Refused` |
//!
//! Owns neither policy nor names: who may send what, and which layers may be spoken of, is the caller's.

mod archive;
mod config;
mod layer;
mod local;
mod receive;
mod saved;
mod send;
mod tar;
mod wire;

pub use archive::{archive, load};
pub use config::ImageConfig;
pub use local::{LocalEngine, LocalImage};
pub use receive::{Received, Receiving, receive};
pub use send::{Sending, Sent, send};
pub use tar::{LayerCheck, TarError};
pub use wire::{LayerHead, Message, Want, Wanted, read, write};

use std::io;

use crate::report::FailureCode;

/// Most layers of an image; engines refuse more than 127.
pub const MAX_LAYERS: usize = 127;
/// Bytes of an image's configuration.
pub const MAX_CONFIG: usize = 1 << 20;
/// Bytes of a piece of a layer, unpacked.
pub const PIECE: usize = 256 * 1024;

/// Why an image was not handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The stream broke; what has arrived is kept, and the next attempt goes on from there.
    #[error("the connection was lost: {0}")]
    Stream(#[source] io::Error),
    /// The other side said something that it may not say here.
    #[error("the other side does not keep to the protocol: {0}")]
    Protocol(&'static str),
    /// The other side said no.
    #[error("{sentence}")]
    Refused {
        /// For programs.
        code: FailureCode,
        /// For people.
        sentence: String,
    },
    /// A file of ours can't be written or read.
    #[error("a file on this machine can't be used: {0}")]
    Files(#[source] io::Error),
    /// Our engine failed, or what arrived can't be used.
    #[error("{}", .0.sentence())]
    Failed(FailureCode),
    /// The engine's archive is not what it should be.
    #[error("the engine's archive of the image can't be read: {0}")]
    Archive(String),
}

impl HandoverError {
    /// The code for the other side: it learns no path and no word of the engine's.
    #[must_use]
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Refused { code, .. } | Self::Failed(code) => *code,
            Self::Files(error) if error.kind() == io::ErrorKind::StorageFull => FailureCode::HostDiskFull,
            Self::Files(error) if error.raw_os_error() == Some(122) => FailureCode::HostDiskFull,
            Self::Files(_) | Self::Archive(_) => FailureCode::EngineRefused,
            Self::Stream(_) => FailureCode::ImageNotSent,
            Self::Protocol(_) => FailureCode::ImageCorrupt,
        }
    }

    /// Whether the same is worth another attempt: nothing but the stream failed.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}
