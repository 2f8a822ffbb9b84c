//! Exports: a node's public records as a file that anyone can check.
//!
//! A file is frames `len: u32 LE | CBOR`: a [`Header`], the records in the order this node learnt them (so that whatever a
//! record answers comes before it), and a [`Trailer`] that the author signs over everything before it. Where the ledger has
//! dropped old records there is a cut: before it some are missing, and a checkpoint after it fixes which and what they came
//! to. [`crate::verify`] reads it.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Digest, DocumentId, Keypair, LeaseId, NetworkId, NodeId,
    encode::{self, DecodeError},
    entry::Entry,
    receipt::{Ack, Usage},
    signed::{Document, Invalid, Signed, Verified, VerifyError},
};

use crate::{
    journal::JournalError,
    record::{Held, Record},
    view::{QueryError, View},
};

/// What the first frame says it is.
pub const FORMAT: &str = "souk ledger export";
/// The version of the format.
pub const VERSION: u32 = 1;
/// Bytes of one frame's content: an entry and its frame fit.
pub const FRAME_BYTES: usize = 8192;

/// Which records to export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Every public record.
    All,
    /// Those of one lease.
    Lease(LeaseId),
    /// Every public record of a ledger that was restored from an older copy: entries of its author may be missing, and those that
    /// came back from others stand where they came back.
    Restored,
}

/// The first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// The network whose signatures these are.
    pub network: NetworkId,
    /// Whose ledger it is.
    pub author: NodeId,
    /// What was chosen.
    pub filter: Filter,
    /// Whether old records have been dropped: there is a cut behind those that are left of them, and a checkpoint behind it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// The last frame: without it a file is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// The signer.
    pub author: NodeId,
    /// Frames between header and trailer.
    pub count: u64,
    /// The author's own newest entry among them.
    pub head: Option<DocumentId>,
    /// BLAKE3 of every byte before the trailer's frame.
    pub digest: Digest,
}

impl Document for Trailer {
    const CONTEXT: &'static str = "souk 2026-11 export v1";
    const NAME: &'static str = "export trailer";
    const MAX_BYTES: usize = 512;

    fn author(&self) -> NodeId {
        self.author
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// What a frame after the first holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Item {
    Entry(Signed<Entry>),
    Usage(Signed<Usage>),
    Ack(Signed<Ack>),
    /// Before it, what a checkpoint behind it stands for is left out.
    Cut,
    Trailer(Signed<Trailer>),
}

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store can't be read.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A record of the journal does not decode.
    #[error("record {index} of the journal can't be read")]
    Decode {
        /// Which, counted from 0.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// The file can't be written.
    #[error("can't write the export")]
    Write(#[source] io::Error),
    /// The key is not the ledger's.
    #[error("the export can't be signed")]
    Sign(#[source] VerifyError),
}

/// Writes the public records of a ledger, all or of one lease, and returns how many.
///
/// # Errors
/// [`ExportError`]; what has been written then is an incomplete export.
pub fn export(view: &View, filter: Filter, key: &Keypair, out: impl Write) -> Result<u64, ExportError> {
    let mut out = Frames { out, hasher: blake3::Hasher::new() };
    let (author, network) = (view.own(), view.network());
    let filter = if filter == Filter::All && view.is_restored()? { Filter::Restored } else { filter };
    let mut reader = view.records();
    let mut cut = Some(reader.base_end()).filter(|end| filter == Filter::All && *end > 0);
    let header = Header { format: FORMAT.to_owned(), version: VERSION, network, author, filter, cut: cut.is_some() };
    out.frame(&header)?;
    let (mut count, mut head) = (0, None);
    while let Some(item) = reader.next_item()? {
        let index = item.mark.at.index;
        if cut.is_some_and(|cut| index >= cut) {
            out.frame(&Item::Cut)?;
            count += 1;
            cut = None;
        }
        let decode = |source| ExportError::Decode { index, source };
        let (lease, item) = match Record::from_bytes(item.record).map_err(decode)? {
            Record::Entry(entry) => {
                let held = Held::read(entry, &network).map_err(decode)?;
                if held.value.author == author && chosen(filter, held.value.lease) {
                    head = Some(held.id);
                }
                (held.value.lease, Item::Entry(held.signed))
            }
            Record::Usage(usage) => {
                let held = Held::read(usage, &network).map_err(decode)?;
                (Some(held.value.lease), Item::Usage(held.signed))
            }
            Record::Ack(ack) => {
                let held = Held::read(ack, &network).map_err(decode)?;
                (Some(held.value.lease), Item::Ack(held.signed))
            }
            Record::Private(_) | Record::Fork(_) => continue,
        };
        if chosen(filter, lease) {
            out.frame(&item)?;
            count += 1;
        }
    }
    let trailer = Trailer { author, count, head, digest: Digest(*out.hasher.finalize().as_bytes()) };
    let trailer = Verified::sign(trailer, key, &network).map_err(ExportError::Sign)?;
    out.frame(&Item::Trailer(trailer.to_signed()))?;
    out.out.flush().map_err(ExportError::Write)?;
    Ok(count)
}

/// A file of frames, the first of which is a header and the last of which is replaced by a trailer for those between: what a
/// dishonest author could make.
#[cfg(test)]
pub(crate) fn sealed(frames: &[Vec<u8>], key: &Keypair, network: NetworkId) -> Vec<u8> {
    let mut out = Vec::new();
    let mut head = None;
    let between = &frames[..frames.len() - 1];
    for frame in between {
        out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        out.extend_from_slice(frame);
        if let Ok(Item::Entry(entry)) = encode::from_bytes(frame, FRAME_BYTES)
            && let Ok(held) = Held::read(entry, &network)
            && held.value.author == key.node_id()
        {
            head = Some(held.id);
        }
    }
    let digest = Digest(*blake3::hash(&out).as_bytes());
    let trailer = Trailer { author: key.node_id(), count: between.len() as u64 - 1, head, digest };
    #[expect(clippy::unwrap_used, reason = "a test's")]
    let trailer = encode::to_bytes(&Item::Trailer(Verified::sign(trailer, key, &network).unwrap().to_signed()));
    out.extend_from_slice(&(trailer.len() as u32).to_le_bytes());
    out.extend_from_slice(&trailer);
    out
}

fn chosen(filter: Filter, lease: Option<LeaseId>) -> bool {
    match filter {
        Filter::All | Filter::Restored => true,
        Filter::Lease(wanted) => lease == Some(wanted),
    }
}

struct Frames<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Frames<W> {
    fn frame<T: Serialize>(&mut self, value: &T) -> Result<(), ExportError> {
        let body = encode::to_bytes(value);
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        for part in [&len[..], &body] {
            self.hasher.update(part);
            self.out.write_all(part).map_err(ExportError::Write)?;
        }
        Ok(())
    }
}
