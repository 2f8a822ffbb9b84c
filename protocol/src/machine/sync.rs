//! Keeps our book equal to our peers': on meeting one, and then one peer a minute, we compare a digest, and fetch what we lack.
//!
//! Gossip is the fast path; this is the sure one. Owns no offers, only the questions under way.

use std::collections::BTreeMap;

use super::{
    book::{Book, Intake, MachineKey},
    context::{Asked, Context},
    io::Output,
};
use crate::{
    DocumentId, Millis, NodeId, Timestamp, limits,
    message::{Request, Response},
    violation::Violation,
};

/// Between two comparisons with peers we know.
const EVERY: Millis = Millis::from_secs(60);
/// Pages taken from one peer in one go, so that a peer with an endless index is left alone in the end.
const PAGES: u32 = 64;

/// What a peer was asked last: anything else is no answer.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Summary,
    Page,
    Fetch,
}

#[derive(Debug, Default)]
struct Pull {
    stage: Stage,
    missing: Vec<DocumentId>,
    next_page: Option<MachineKey>,
    pages: u32,
}

/// Reconciliation with all peers.
#[derive(Debug, Default)]
pub(super) struct BookSync {
    pulls: BTreeMap<NodeId, Pull>,
    last_peer: Option<NodeId>,
    next_at: Timestamp,
}

impl BookSync {
    pub(super) fn connected(&mut self, cx: &mut Context, peer: NodeId) {
        self.begin(cx, peer);
    }

    /// The clock went back: books are compared shortly.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        self.next_at = self.next_at.min(now + EVERY);
    }

    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        self.pulls.remove(peer);
    }

    pub(super) const fn deadline(&self) -> Timestamp {
        self.next_at
    }

    pub(super) fn tick(&mut self, cx: &mut Context, now: Timestamp) {
        if now < self.next_at {
            return;
        }
        self.next_at = now + EVERY;
        let after = |peer: &&NodeId| self.last_peer.is_none_or(|last| **peer > last);
        if let Some(peer) = cx.connected.iter().find(after).or_else(|| cx.connected.first()).copied() {
            self.last_peer = Some(peer);
            self.begin(cx, peer);
        }
    }

    fn begin(&mut self, cx: &mut Context, peer: NodeId) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.pulls.entry(peer) {
            place.insert(Pull::default());
            cx.send(peer, Request::BookSummary, None, Asked::Book);
        }
    }

    pub(super) fn response(
        &mut self,
        cx: &mut Context,
        book: &mut Book,
        peer: NodeId,
        response: Option<Response>,
        now: Timestamp,
    ) {
        let Some(pull) = self.pulls.get_mut(&peer) else {
            return;
        };
        let more = match (&pull.stage, response) {
            (Stage::Summary, Some(Response::BookSummary { count, root })) => {
                let differs = book.summary() != (count, root) && count > 0;
                if differs {
                    pull.stage = Stage::Page;
                    cx.send(peer, Request::BookPage { after: None }, None, Asked::Book);
                }
                differs
            }
            (Stage::Page, Some(Response::BookPage { items, more })) => {
                pull.pages += 1;
                pull.next_page = items.last().map(|i| (i.host, i.machine)).filter(|_| more && pull.pages < PAGES);
                let items = items.iter().take(limits::BOOK_PAGE);
                pull.missing.extend(items.filter(|i| book.lacks(i)).map(|i| i.id));
                Self::fetch_or_turn(cx, pull, peer)
            }
            (Stage::Fetch, Some(Response::BookNotices { notices })) => {
                for notice in notices {
                    match book.take(&notice, true, now) {
                        Intake::New(key) => cx.out(Output::BookChanged { key }),
                        Intake::Invalid(why) => cx.out(Output::Violation(Violation::Unverified { peer, why })),
                        Intake::Known
                        | Intake::Superseded
                        | Intake::Expired
                        | Intake::FutureDated
                        | Intake::TooOften
                        | Intake::Full => {}
                    }
                }
                Self::fetch_or_turn(cx, pull, peer)
            }
            (_, Some(Response::Busy { .. } | Response::Rejected(_)) | None) => false,
            (_, Some(_)) => {
                cx.wrong_answer(peer, "not an answer to a question about its offer book");
                false
            }
        };
        if !more {
            self.pulls.remove(&peer);
        }
    }

    fn fetch_or_turn(cx: &mut Context, pull: &mut Pull, peer: NodeId) -> bool {
        if !pull.missing.is_empty() {
            let rest = pull.missing.split_off(pull.missing.len().min(limits::BOOK_FETCH));
            let ids = std::mem::replace(&mut pull.missing, rest);
            pull.stage = Stage::Fetch;
            cx.send(peer, Request::BookFetch { ids }, None, Asked::Book);
            return true;
        }
        match pull.next_page.take() {
            Some(after) => {
                pull.stage = Stage::Page;
                cx.send(peer, Request::BookPage { after: Some(after) }, None, Asked::Book);
                true
            }
            None => false,
        }
    }
}
