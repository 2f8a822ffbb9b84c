//! Keeps our book equal to our peers': on meeting one, and then one peer a minute, we compare a digest, and fetch what we lack.
//!
//! Gossip is the fast path; this is the sure one. A notice is asked of one peer at a time, however many have it; who is slow, or
//! does not give it, is not waited for. Owns no offers, only the questions under way.

use std::collections::BTreeMap;

use super::{
    book::{Book, Intake, MachineKey},
    context::{Asked, Context},
    io::Output,
};
use crate::{
    DocumentId, Millis, NodeId, Timestamp, limits,
    message::{BookItem, Request, Response},
    violation::Violation,
};

/// Between two comparisons with peers we know.
const EVERY: Millis = Millis::from_secs(60);
/// Pages taken from one peer in one go, so that a peer with an endless index is left alone in the end.
const PAGES: u32 = 64;
/// So long nobody else is asked for the notices that a peer was asked for: a full answer over a slow line takes some seconds.
const FETCH_WITHIN: Millis = Millis::from_secs(10);

/// What a peer was asked last: anything else is no answer.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Summary,
    Page,
    Fetch,
    /// Nothing: what is left of its index was asked of others.
    Wait,
}

#[derive(Debug, Default)]
struct Pull {
    stage: Stage,
    /// Of its page, what we lacked.
    missing: Vec<BookItem>,
    /// What others were asked for. Looked through before each page, so never much more than [`BookSync::asked`].
    elsewhere: Vec<BookItem>,
    /// What it was asked for.
    fetching: Vec<DocumentId>,
    next_page: Option<MachineKey>,
    pages: u32,
}

/// Reconciliation with all peers.
#[derive(Debug, Default)]
pub(super) struct BookSync {
    pulls: BTreeMap<NodeId, Pull>,
    /// Of each notice that was asked for, whom, and until when nobody else is. At most [`limits::BOOK_FETCH`] for each peer.
    asked: BTreeMap<DocumentId, (NodeId, Timestamp)>,
    /// None of them is overdue before this.
    overdue_at: Timestamp,
    /// Pulls that wait are to look again.
    wake: bool,
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
        for (_, until) in self.asked.values_mut() {
            *until = (*until).min(now + FETCH_WITHIN);
        }
        self.overdue_at = self.overdue_at.min(now + FETCH_WITHIN);
    }

    pub(super) fn disconnected(&mut self, peer: &NodeId) {
        if let Some(pull) = self.pulls.remove(peer) {
            self.release(peer, &pull.fetching, |_| false);
        }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        let waits = self.pulls.values().any(|pull| matches!(pull.stage, Stage::Wait));
        if waits && !self.asked.is_empty() { self.next_at.min(self.overdue_at) } else { self.next_at }
    }

    pub(super) fn tick(&mut self, cx: &mut Context, book: &Book, now: Timestamp) {
        if now >= self.overdue_at {
            let before = self.asked.len();
            self.asked.retain(|_, (_, until)| *until > now);
            self.overdue_at = self.asked.values().map(|(_, until)| *until).min().unwrap_or(now + FETCH_WITHIN);
            self.wake |= self.asked.len() < before;
        }
        if std::mem::take(&mut self.wake) {
            let waits = self.pulls.iter().filter(|(_, pull)| matches!(pull.stage, Stage::Wait));
            let waiting: Vec<NodeId> = waits.map(|(peer, _)| *peer).collect();
            waiting.into_iter().for_each(|peer| self.go_on(cx, book, peer, now));
        }
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
        let fetched = std::mem::take(&mut pull.fetching);
        let more = match (&pull.stage, response) {
            (Stage::Summary, Some(Response::BookSummary { count, root })) => {
                let differs = book.summary() != (count, root) && count > 0;
                if differs {
                    pull.stage = Stage::Page;
                    cx.send(peer, Request::BookPage { after: None }, None, Asked::Book);
                }
                differs
            }
            (Stage::Page, Some(Response::BookPage { mut items, more })) => {
                pull.pages += 1;
                pull.next_page = items.last().map(|i| (i.host, i.machine)).filter(|_| more && pull.pages < PAGES);
                items.truncate(limits::BOOK_PAGE);
                pull.missing = items;
                self.go_on(cx, book, peer, now);
                true
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
                self.release(&peer, &fetched, |id| book.holds(id));
                self.go_on(cx, book, peer, now);
                true
            }
            (_, Some(Response::Busy { .. } | Response::Rejected(_)) | None) => false,
            (_, Some(_)) => {
                cx.wrong_answer(peer, "not an answer to a question about its offer book");
                false
            }
        };
        if !more {
            self.pulls.remove(&peer);
            self.release(&peer, &fetched, |_| false);
        }
    }

    /// A peer is asked for these no more: what did not come may be asked of others.
    fn release(&mut self, peer: &NodeId, ids: &[DocumentId], came: impl Fn(&DocumentId) -> bool) {
        for id in ids {
            if self.asked.get(id).is_some_and(|(whom, _)| whom == peer) {
                self.asked.remove(id);
                self.wake |= !came(id);
            }
        }
        self.wake |= self.asked.is_empty();
    }

    /// Asks a peer for what it has, we lack and nobody else was asked for; else for its next page; else waits for what others were
    /// asked for, or is done with it.
    fn go_on(&mut self, cx: &mut Context, book: &Book, peer: NodeId, now: Timestamp) {
        let Some(pull) = self.pulls.get_mut(&peer) else {
            return;
        };
        let mut ids = Vec::new();
        for again in [false, true] {
            if again {
                // Some of these have come since, or were given up.
                pull.missing = std::mem::take(&mut pull.elsewhere);
            }
            while ids.len() < limits::BOOK_FETCH
                && let Some(item) = pull.missing.pop()
            {
                if !book.lacks(&item) {
                    continue;
                }
                if self.asked.get(&item.id).is_some_and(|(_, until)| now < *until) {
                    pull.elsewhere.push(item);
                } else {
                    self.asked.insert(item.id, (peer, now + FETCH_WITHIN));
                    self.overdue_at = self.overdue_at.min(now + FETCH_WITHIN);
                    ids.push(item.id);
                }
            }
            if !ids.is_empty() {
                pull.stage = Stage::Fetch;
                pull.fetching.clone_from(&ids);
                cx.send(peer, Request::BookFetch { ids }, None, Asked::Book);
                return;
            }
        }
        if let Some(after) = pull.next_page.take() {
            pull.stage = Stage::Page;
            cx.send(peer, Request::BookPage { after: Some(after) }, None, Asked::Book);
        } else if pull.elsewhere.is_empty() {
            self.pulls.remove(&peer);
        } else {
            pull.stage = Stage::Wait;
        }
    }
}

#[cfg(test)]
mod tests;
