//! Copying trees of files between two programs that don't trust each other.
//!
//! One side is the [source](mod@source), the other the [sink](mod@sink); both are plain blocking code over a reader and a writer, so that the
//! same code runs in the command line and in the static helper inside an instance. What flows between them is in [`wire`].
//!
//! Owns how files are read, compared and written. It doesn't know leases, nodes or terminals.
//!
//! ```text
//!   source                                        sink
//!     ── Folder, File, Link, Leave … ─────────────▶   at most WINDOW files ahead of the answers
//!     ◀──────────── Want | Have(digests) | Skip ──   one for each File, in order
//!     ── Data | Hole | Same … End | Equal | Gone ─▶   for each Want and Have, in order
//!     ── Finished ────────────────────────────────▶
//!     ◀───────────────────────────────── Done ────
//! ```
//!
//! A sink puts nothing outside its target whatever the source says: there are no paths on the wire, only names of one component,
//! and each folder is opened from the one above it without following a link. A file is written beside its name and takes the name when
//! it is whole; what a cut left is compared by digests and gone on with.

pub mod glob;
pub mod progress;
pub mod relay;
pub mod sink;
pub mod source;
mod walk;
pub mod wire;

use std::io;

pub use progress::{Progress, Summary};
pub use sink::{Limits, Target};

/// Files announced and not yet answered. A sink's answers wait in memory no longer than this.
pub const WINDOW: usize = 512;
/// Bytes of content in one message.
pub const PIECE: usize = 128 * 1024;
/// The least bytes that one digest stands for.
pub const CHUNK: u64 = 1 << 20;
/// Digests of one file. Beyond [`CHUNK`] times this a digest stands for more bytes.
pub const DIGESTS: u64 = 1 << 16;
/// The most bytes that one digest stands for: what a source holds of a file at once.
pub const CHUNK_MOST: u64 = 16 << 20;
/// Folders within folders.
pub const DEPTH: usize = 256;
/// Bytes of one name.
pub const NAME_BYTES: usize = 255;
/// Bytes of a path or of a link's target.
pub const PATH_BYTES: usize = 4096;
/// Patterns that keep files out.
pub const EXCLUDES: usize = 256;

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream between the two broke.
    #[error("the copy was cut off: {0}")]
    Cut(io::Error),
    /// The other side broke the rules.
    #[error("the other side breaks the rules of copying: {0}")]
    Violation(&'static str),
    /// The other side gave up.
    #[error("{0}")]
    Other(String),
    /// Something at this side.
    #[error("{what}: {source}")]
    Here {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// More is offered than the asker wants.
    #[error("the source has {0}")]
    TooMuch(String),
    /// The disk that is written to is full.
    #[error("the disk is full{0}")]
    Full(String),
}

impl Error {
    pub(crate) fn here(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Here { what: what.into(), source: source.into() }
    }

    /// Whether trying again goes on where this ended.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(self, Self::Cut(_))
    }
}

/// Bytes as text for people: what is no UTF-8 as `\xNN`, control characters escaped.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Whether a name is one component of a path.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

/// How many bytes one digest of a file of this length stands for.
#[must_use]
pub fn chunk_of(length: u64) -> u64 {
    length.div_ceil(DIGESTS).next_power_of_two().clamp(CHUNK, CHUNK_MOST)
}

/// The name that a file has until it is whole.
#[must_use]
pub fn part_name(name: &[u8]) -> Vec<u8> {
    let digest = blake3::hash(name).to_hex();
    format!(".souk-{}.part", &digest.as_str()[..16]).into_bytes()
}

/// Whether a name is one that [`part_name`] gives.
#[must_use]
pub fn is_part(name: &[u8]) -> bool {
    let middle = name.strip_prefix(b".souk-").and_then(|rest| rest.strip_suffix(b".part"));
    middle.is_some_and(|hex| hex.len() == 16 && hex.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_one_component() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(!is_name(bad), "{}", shown(bad));
        }
        for good in [&b"a"[..], b"...", b"\xff\xfe", b"a b", &[b'x'; 255]] {
            assert!(is_name(good), "{}", shown(good));
        }
    }

    #[test]
    fn digests_stay_few() {
        for length in [0, 1, CHUNK, 5 << 30, DIGESTS * CHUNK, DIGESTS * CHUNK + 1, 1 << 40] {
            let chunk = chunk_of(length);
            assert!(length.div_ceil(chunk) <= DIGESTS, "{length}");
        }
    }

    #[test]
    fn part_names_know_themselves() {
        assert!(is_part(&part_name(b"model.bin")));
        assert!(!is_part(b".souk-model.part"));
        assert_eq!(shown(b"a\xffb\n"), "a\\xffb\\n");
    }
}
