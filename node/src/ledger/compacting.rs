//! `souk ledger compact`: what is asked of the ledger's thread, and how its answer reads.

use souk_ledger::compacted::{Asker, Compacted, NotCompacted};

use super::Ledger;
use crate::{
    api::types::LedgerCompactView,
    market::{
        CommandError,
        command::{ErrorCode, Reply},
    },
};

impl Ledger {
    /// Has old records dropped soon, whether or not it is worth it. The answer comes when the space is free again.
    pub fn compact(&self, reply: Reply<LedgerCompactView>) {
        self.handle.compact(Asker::new(move |done| {
            // Whoever asked may be gone: then nobody minds.
            reply.send(done.map(view).map_err(refused)).ok();
        }));
    }
}

const fn view(done: Compacted) -> LedgerCompactView {
    LedgerCompactView {
        bytes_before: done.bytes_before,
        bytes_after: done.bytes_after,
        still_read: done.still_read,
        records: done.records,
        dropped: done.dropped,
        checkpoint: done.checkpoint,
        up_to: done.up_to,
        entries_kept: done.entries_kept,
    }
}

fn refused(why: NotCompacted) -> CommandError {
    let (code, hint) = match &why {
        NotCompacted::Nothing => (ErrorCode::WrongState, None),
        NotCompacted::Asked => (ErrorCode::Busy, None),
        NotCompacted::Unsigned => (ErrorCode::Timeout, Some("souk status")),
        NotCompacted::Failed(_) => (ErrorCode::Internal, Some("souk ledger check")),
    };
    let error = CommandError::new(code, why.to_string());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}
