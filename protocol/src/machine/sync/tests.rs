//! A node that meets several peers which have the same book, honest ones and others.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use super::*;
use crate::{
    MachineId, Verified,
    machine::{
        book::Known,
        io::Token,
        testkit::{NOW, context, key, network, offer, outputs},
    },
    offer::Offer,
};

/// A question under way.
struct Question {
    to: NodeId,
    token: Token,
    request: Request,
}

/// A node, and what it has asked.
struct Node {
    cx: Context,
    book: Book,
    sync: BookSync,
    open: Vec<Question>,
    /// Of each notice asked for, whom.
    fetched: BTreeMap<DocumentId, Vec<NodeId>>,
}

impl Node {
    fn new() -> Self {
        let (cx, book) = (context(), Book::new(network(), 10_000));
        let mut node = Self { cx, book, sync: BookSync::default(), open: Vec::new(), fetched: BTreeMap::new() };
        node.tick(NOW);
        node
    }

    fn meet(&mut self, peer: u8) {
        let peer = key(peer).node_id();
        self.cx.connected.insert(peer);
        self.sync.connected(&mut self.cx, peer);
        self.collect();
    }

    fn tick(&mut self, now: Timestamp) {
        self.sync.tick(&mut self.cx, &self.book, now);
        self.collect();
    }

    fn collect(&mut self) {
        for output in outputs(&mut self.cx) {
            if let Output::Send { token, to, request, .. } = output {
                if let Request::BookFetch { ids } = &*request {
                    ids.iter().for_each(|id| self.fetched.entry(*id).or_default().push(to));
                }
                self.open.push(Question { to, token, request: *request });
            }
        }
    }

    /// Whoever it is that `answers` answers from `theirs`; the others' questions stay open.
    fn exchange(&mut self, theirs: &Book, now: Timestamp, answers: impl Fn(&NodeId, &Request) -> bool) {
        while let Some(at) = self.open.iter().position(|q| answers(&q.to, &q.request)) {
            let question = self.open.remove(at);
            let response = match question.request {
                Request::BookSummary => {
                    let (count, root) = theirs.summary();
                    Response::BookSummary { count, root }
                }
                Request::BookPage { after } => {
                    let (items, more) = theirs.page(after);
                    Response::BookPage { items, more }
                }
                Request::BookFetch { ids } => Response::BookNotices { notices: theirs.fetch(&ids) },
                other => panic!("{other:?}"),
            };
            self.answer(question.to, question.token, Some(response), now);
        }
    }

    fn answer(&mut self, peer: NodeId, token: Token, response: Option<Response>, now: Timestamp) {
        assert_eq!(self.cx.answered(token), Some((peer, Asked::Book)));
        self.sync.response(&mut self.cx, &mut self.book, peer, response, now);
        self.tick(now);
    }

    fn asked_twice(&self) -> usize {
        self.fetched.values().filter(|whom| whom.len() > 1).count()
    }
}

/// A book of so many machines.
fn market(machines: u16) -> Book {
    let mut book = Book::new(network(), 10_000);
    for n in 0..machines {
        let host = u8::try_from(n / 60).unwrap() + 100;
        let mut machine = [0; 16];
        machine[..2].copy_from_slice(&n.to_be_bytes());
        let offer = Offer { machine: MachineId(machine), ..offer(host, 1, NOW) };
        book.insert(Known::Offer(Verified::sign(offer, &key(host), &network()).unwrap()), true, NOW);
    }
    book
}

const PEERS: std::ops::Range<u8> = 2..10;

#[test]
fn each_notice_is_asked_of_one_peer_only() {
    let theirs = market(1500);
    let mut node = Node::new();
    PEERS.for_each(|peer| node.meet(peer));
    node.exchange(&theirs, NOW, |_, _| true);
    assert_eq!(node.book.summary(), theirs.summary());
    assert_eq!((node.fetched.len(), node.asked_twice()), (1500, 0));
    let asked: BTreeSet<NodeId> = node.fetched.values().flatten().copied().collect();
    assert!(asked.len() > 2, "the work is shared: {}", asked.len());
    assert!(node.sync.pulls.is_empty() && node.sync.asked.is_empty());
}

#[test]
fn what_a_slow_peer_was_asked_for_another_is_asked_for_in_time() {
    let theirs = market(300);
    let slow = key(2).node_id();
    let mut node = Node::new();
    PEERS.for_each(|peer| node.meet(peer));
    // It shows its index first, and then no notice.
    node.exchange(&theirs, NOW, |to, request| *to == slow && !matches!(request, Request::BookFetch { .. }));
    node.exchange(&theirs, NOW, |to, _| *to != slow);
    let (count, _) = node.book.summary();
    assert_eq!(count, 300 - limits::BOOK_FETCH as u64);
    assert_eq!(node.asked_twice(), 0);
    let at = node.sync.deadline();
    assert_eq!(at, NOW + FETCH_WITHIN);
    node.tick(at);
    node.exchange(&theirs, at, |to, _| *to != slow);
    assert_eq!(node.book.summary(), theirs.summary());
    // Its late answer is no news.
    node.exchange(&theirs, at, |_, _| true);
    assert!(node.sync.pulls.is_empty() && node.sync.asked.is_empty());
    assert_eq!(node.sync.deadline(), NOW + EVERY);
}

#[test]
fn what_a_peer_does_not_give_is_asked_of_another_at_once() {
    let theirs = market(300);
    let empty = Book::new(network(), 10);
    let (withholds, fails, goes) = (key(2).node_id(), key(3).node_id(), key(4).node_id());
    let mut node = Node::new();
    PEERS.for_each(|peer| node.meet(peer));
    let index = |request: &Request| !matches!(request, Request::BookFetch { .. });
    // These three have been asked for all there is.
    for peer in [withholds, fails, goes] {
        node.exchange(&theirs, NOW, |to, request| *to == peer && index(request));
    }
    node.exchange(&theirs, NOW, |_, request| index(request));
    assert_eq!((node.open.len(), node.fetched.len()), (3, 300));
    node.exchange(&empty, NOW, |to, _| *to == withholds);
    let at = node.open.iter().position(|q| q.to == fails).unwrap();
    let question = node.open.remove(at);
    node.answer(fails, question.token, None, NOW);
    node.cx.connected.remove(&goes);
    node.sync.disconnected(&goes);
    node.tick(NOW);
    node.exchange(&theirs, NOW, |to, _| *to != goes);
    assert_eq!(node.book.summary(), theirs.summary());
    assert!(node.fetched.values().all(|whom| whom.len() == 2 && whom[0] != whom[1]));
    assert!(node.sync.pulls.is_empty() && node.sync.asked.is_empty());
}

#[test]
fn two_peers_with_long_false_indexes_are_left_alone_and_take_no_room() {
    let mut node = Node::new();
    node.meet(2);
    node.meet(3);
    let mut n = 0u32;
    let mut most = 0;
    while let Some(question) = node.open.pop() {
        let response = match question.request {
            Request::BookSummary => Response::BookSummary { count: 1_000_000, root: crate::Digest([1; 32]) },
            Request::BookPage { .. } => {
                n += 1;
                let item = |i: u32| {
                    let id = crate::Digest::of(&[n / 2, i].map(u32::to_be_bytes).concat());
                    BookItem { host: NodeId(id.0), machine: MachineId([1; 16]), seq: 1, id: DocumentId(id.0) }
                };
                Response::BookPage { items: (0..200).map(item).collect(), more: true }
            }
            _ => Response::BookNotices { notices: Vec::new() },
        };
        node.answer(question.to, question.token, Some(response), NOW);
        most = most.max(node.sync.pulls.values().map(|p| p.missing.len() + p.elsewhere.len()).max().unwrap_or(0));
    }
    assert_eq!(n, 2 * PAGES);
    assert!(most <= 200 + 2 * limits::BOOK_FETCH, "{most}");
    assert!(node.sync.pulls.is_empty() && node.sync.asked.is_empty());
}
