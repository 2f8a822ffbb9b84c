//! Exports: a node's public records as a file that anyone can check.
//!
//! A file is frames `len: u32 LE | CBOR`: a [`Header`], the records in the order this node learnt them (so that whatever a
//! record answers comes before it), and a [`Trailer`] that the author signs over everything before it. [`crate::verify`] reads it.

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
}

/// The last frame: without it a file is incomplete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trailer {
    /// The signer.
    pub author: NodeId,
    /// Records between header and trailer.
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
    out.frame(&Header { format: FORMAT.to_owned(), version: VERSION, network, author, filter })?;
    let mut reader = view.records();
    let (mut count, mut head) = (0, None);
    while let Some(item) = reader.next_item()? {
        let index = item.mark.at.index;
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
