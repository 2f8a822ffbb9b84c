//! Decoding and signature checks, on threads of their own.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Scope,
};

use souk_protocol::{
    NetworkId, encode,
    entry::Body,
    key::KeyCache,
    signed::{Document, Signed, Verified},
};

use super::{Fault, frames::Frame};
use crate::{
    export::{FRAME_BYTES, Item},
    record::Fact,
};

/// Batches that wait for one thread. When full the reader waits: it never has more than two out for each.
const WAITING: usize = 2;
/// Keys a thread keeps decompressed.
const KEYS: usize = 1024;

/// Frames checked together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: Vec<Frame>,
}

/// A frame whose signatures hold, or what is wrong with it.
pub(super) struct Checked {
    pub(super) offset: u64,
    pub(super) record: u64,
    pub(super) content: Result<Content, String>,
}

/// What a frame between header and trailer holds.
pub(super) enum Content {
    Fact(Fact),
    Cut,
}

impl Checked {
    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { offset: self.offset, record: self.record, what: what.into() }
    }
}

/// One thread that checks batches in order.
pub(super) struct Checker {
    batches: SyncSender<Batch>,
    results: Receiver<Vec<Checked>>,
}

impl Checker {
    pub(super) fn spawn<'scope>(scope: &'scope Scope<'scope, '_>, network: NetworkId) -> Self {
        let (batches, inbox) = sync_channel::<Batch>(WAITING);
        let (outbox, results) = sync_channel(WAITING);
        scope.spawn(move || {
            let mut keys = Keys(KeyCache::new(KEYS));
            for batch in inbox {
                let checked = batch
                    .frames
                    .into_iter()
                    .map(|frame| Checked {
                        offset: frame.offset,
                        record: frame.record,
                        content: keys.check(&frame.body, &network),
                    })
                    .collect();
                if outbox.send(checked).is_err() {
                    break;
                }
            }
        });
        Self { batches, results }
    }

    pub(super) fn send(&self, batch: Batch) {
        // The thread ends only after this end is dropped; if it panicked, the scope passes the panic on.
        drop(self.batches.send(batch));
    }

    pub(super) fn receive(&self) -> Vec<Checked> {
        self.results.recv().unwrap_or_default()
    }
}

struct Keys(KeyCache);

impl Keys {
    fn check(&mut self, body: &[u8], network: &NetworkId) -> Result<Content, String> {
        let item: Item = encode::from_bytes(body, FRAME_BYTES).map_err(|e| e.to_string())?;
        match item {
            Item::Entry(entry) => {
                let entry = self.verify(&entry, network)?;
                if let Body::LeaseOpen { draft } = &entry.body {
                    self.verify(draft, network)?;
                }
                Ok(Content::Fact(Fact::Entry(entry)))
            }
            Item::Usage(usage) => Ok(Content::Fact(Fact::Usage(self.verify(&usage, network)?))),
            Item::Ack(ack) => Ok(Content::Fact(Fact::Ack(self.verify(&ack, network)?))),
            Item::Cut => Ok(Content::Cut),
            Item::Trailer(_) => Err("a trailer in the middle".to_owned()),
        }
    }

    fn verify<T: Document>(&mut self, signed: &Signed<T>, network: &NetworkId) -> Result<Verified<T>, String> {
        signed.verify_with(network, |node| self.0.of(node)).map_err(|e| e.to_string())
    }
}
