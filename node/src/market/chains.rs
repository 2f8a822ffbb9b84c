//! Whether a peer's entry fits what we hold of its chain: asked before the engine may sign anything that rests on it.
//!
//! The ledger keeps a contradiction as evidence and opens no lease by it, so what we would sign after it could not be written
//! down. Owns the entries that are on their way to the ledger; the rest is in the ledger.

use std::collections::BTreeMap;

use souk_protocol::{
    DocumentId, NodeId, Signed, Timestamp, encode,
    entry::Entry,
    fork::ForkProof,
    limits,
    message::{Request, Response},
    signed::Document,
};

use crate::ledger::Ledger;

/// Entries remembered until the ledger surely has them.
const RECENT: usize = 4096;

/// What of an entry its neighbours must fit.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The entry.
    pub id: DocumentId,
    /// The one it names before it.
    pub prev: Option<DocumentId>,
    /// When it was made.
    pub time: Timestamp,
}

/// Links of peers' entries that were given to the ledger lately.
#[derive(Debug, Default)]
pub struct Chains {
    recent: BTreeMap<(NodeId, u64), Link>,
    order: std::collections::VecDeque<(NodeId, u64)>,
}

type Overlay = BTreeMap<(NodeId, u64), Link>;

impl Chains {
    /// An entry goes to the ledger.
    pub fn note(&mut self, entry: &Entry, id: DocumentId) {
        let key = (entry.author, entry.seq);
        if self.order.len() >= RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.recent.remove(&oldest);
        }
        self.order.push_back(key);
        self.recent.insert(key, Link { id, prev: entry.prev, time: entry.time });
    }

    /// Whether all entries in a request fit.
    pub fn fit_request(&self, ledger: &Ledger, request: &Request) -> bool {
        match request {
            Request::Commit { open, settle, .. } => self.fit(ledger, settle.iter().chain([open])),
            Request::Deliver { entry } | Request::Amend { entry } | Request::Opinion { entry } => {
                self.fit(ledger, [entry])
            }
            Request::Update(update) => self.fit(ledger, &update.entries),
            Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Propose(_)
            | Request::Control { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Sync { .. }
            | Request::Login(_)
            | Request::Evidence { .. }
            | Request::Meet(_)
            | Request::Recall { .. }
            | Request::Order(_) => true,
        }
    }

    /// Whether all entries in an answer fit.
    pub fn fit_response(&self, ledger: &Ledger, response: &Response) -> bool {
        match response {
            Response::Answered(entry) => self.fit(ledger, [entry]),
            Response::Seen { close_ack, .. } => self.fit(ledger, close_ack),
            Response::Settled { ack } => self.fit(ledger, ack),
            Response::News(update) => self.fit(ledger, &update.entries),
            Response::BookSummary { .. }
            | Response::BookPage { .. }
            | Response::BookNotices { .. }
            | Response::Countered(_)
            | Response::Drafted(_)
            | Response::Rejected(_)
            | Response::Controlled { .. }
            | Response::Ordered { .. }
            | Response::Quoted { .. }
            | Response::LoginTaken
            | Response::Evidence(_)
            | Response::Noted
            | Response::Met(_)
            | Response::Recalled { .. }
            | Response::Extension(_)
            | Response::Busy { .. } => true,
        }
    }

    /// The proof that an author contradicts what is held of its chain, if one of its entries in a request does.
    #[must_use]
    pub fn proof_in_request(ledger: &Ledger, request: &Request) -> Option<ForkProof> {
        match request {
            Request::Commit { open: entry, .. }
            | Request::Deliver { entry }
            | Request::Amend { entry }
            | Request::Opinion { entry } => Self::proof(ledger, [entry]),
            Request::Update(update) => Self::proof(ledger, &update.entries),
            Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Propose(_)
            | Request::Control { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Sync { .. }
            | Request::Login(_)
            | Request::Evidence { .. }
            | Request::Meet(_)
            | Request::Recall { .. }
            | Request::Order(_) => None,
        }
    }

    /// The same of an answer.
    #[must_use]
    pub fn proof_in_response(ledger: &Ledger, response: &Response) -> Option<ForkProof> {
        match response {
            Response::Answered(entry) => Self::proof(ledger, [entry]),
            Response::Seen { close_ack, .. } => Self::proof(ledger, close_ack),
            Response::Settled { ack } => Self::proof(ledger, ack),
            Response::News(update) => Self::proof(ledger, &update.entries),
            Response::BookSummary { .. }
            | Response::BookPage { .. }
            | Response::BookNotices { .. }
            | Response::Countered(_)
            | Response::Drafted(_)
            | Response::Rejected(_)
            | Response::Controlled { .. }
            | Response::Ordered { .. }
            | Response::Quoted { .. }
            | Response::LoginTaken
            | Response::Evidence(_)
            | Response::Noted
            | Response::Met(_)
            | Response::Recalled { .. }
            | Response::Extension(_)
            | Response::Busy { .. } => None,
        }
    }

    fn proof<'a>(ledger: &Ledger, entries: impl IntoIterator<Item = &'a Signed<Entry>>) -> Option<ForkProof> {
        let network = ledger.network();
        entries.into_iter().find_map(|signed| {
            let entry = signed.verify(&network).ok().filter(|e| e.author != ledger.me())?;
            let held = |seq: u64| ledger.entry(&entry.author, seq);
            let beside = [Some(entry.seq), entry.seq.checked_sub(1)];
            let before = beside.into_iter().flatten().filter_map(held);
            let mut proofs = before.map(|held| ForkProof::Entries(held, signed.clone()));
            let after = || entry.seq.checked_add(1).and_then(held);
            let proves = |proof: &ForkProof| proof.verify(&network).is_ok();
            proofs.find(proves).or_else(|| after().map(|held| ForkProof::Entries(signed.clone(), held)).filter(proves))
        })
    }

    fn fit<'a>(&self, ledger: &Ledger, entries: impl IntoIterator<Item = &'a Signed<Entry>>) -> bool {
        let mut overlay = Overlay::new();
        entries.into_iter().all(|signed| self.fits(ledger, &mut overlay, signed))
    }

    fn fits(&self, ledger: &Ledger, overlay: &mut Overlay, signed: &Signed<Entry>) -> bool {
        // What does not even decode is the engine's to refuse.
        let Ok(entry) = encode::from_bytes::<Entry>(signed.payload(), limits::ENTRY_BYTES) else { return true };
        if entry.check().is_err() || entry.author == ledger.me() {
            return true;
        }
        let (author, id) = (entry.author, signed.id(&ledger.network()));
        let held = |seq: u64| {
            let key = (author, seq);
            overlay.get(&key).or_else(|| self.recent.get(&key)).copied().or_else(|| ledger.link(&author, seq))
        };
        if let Some(known) = held(entry.seq) {
            return known.id == id;
        }
        let before = entry.seq.checked_sub(1).and_then(held);
        let after = entry.seq.checked_add(1).and_then(held);
        // All of them: what one knows of earlier entries must not hide what another knows of later ones.
        let newest =
            |links: &Overlay| links.range((author, 0)..=(author, entry.seq)).map(|(_, link)| link.time).next_back();
        let latest = newest(overlay).max(newest(&self.recent)).max(ledger.head_before(&author, entry.seq));
        let fits = before.is_none_or(|b| entry.prev == Some(b.id))
            && after.is_none_or(|a| a.prev == Some(id))
            && latest.is_none_or(|at| entry.time >= at);
        if fits {
            overlay.insert((author, entry.seq), Link { id, prev: entry.prev, time: entry.time });
        }
        fits
    }
}
