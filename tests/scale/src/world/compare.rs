//! How a modelled node compares its book with a peer's, as `machine::sync` of the protocol does it, all in one moment.

use souk_protocol::{Timestamp, limits, message::Request};

use super::World;
use crate::costs;

/// Bytes of an answer with a summary.
const SUMMARY: u64 = 60;
/// Bytes of an id in a question.
const ID: u64 = 34;

impl World<'_> {
    /// With the next peer in turn.
    pub(super) fn compare_next(&mut self, node: u32) {
        if !self.online[node as usize] {
            return;
        }
        let mut peers: Vec<u32> = self.net.peers(node).map(|(peer, _)| peer).collect();
        peers.retain(|peer| self.online[*peer as usize]);
        peers.sort_unstable_by_key(|peer| self.ids[*peer as usize]);
        if let Some(peer) = peers.get(self.turn[node as usize] as usize % peers.len().max(1)).copied() {
            self.turn[node as usize] = self.turn[node as usize].wrapping_add(1);
            self.compare(node, peer);
        }
    }

    /// A node asks a peer, and fetches what it lacks.
    pub(super) fn compare(&mut self, node: u32, peer: u32) {
        self.exchange(node, peer, Request::BookSummary.to_bytes().len() as u64, SUMMARY);
        let (Some(_), Some(_)) = (self.way(node, peer), self.way(peer, node)) else { return };
        let theirs = self.books.summary(peer, self.now);
        if theirs.0 == 0 || theirs == self.books.summary(node, self.now) {
            return;
        }
        let pages = theirs.0.div_ceil(limits::BOOK_PAGE as u64);
        for page in 0..pages {
            let lines = (theirs.0 - page * limits::BOOK_PAGE as u64).min(limits::BOOK_PAGE as u64);
            self.exchange(node, peer, SUMMARY, self.page_bytes.0 + lines * self.page_bytes.1);
            self.count_lines(peer, node, lines);
            let (Some(_), Some(_)) = (self.way(node, peer), self.way(peer, node)) else { return };
        }
        let lacks = self.books.lacks(node, peer, self.now);
        for ids in lacks.chunks(limits::BOOK_FETCH) {
            let bytes: usize = ids.iter().map(|doc| self.books.docs[*doc as usize].bytes.len()).sum();
            self.exchange(node, peer, ids.len() as u64 * ID, bytes as u64);
            let (Some(_), Some(_)) = (self.way(node, peer), self.way(peer, node)) else { return };
            self.traffic[node as usize].ns += ids.len() as u64 * costs::INTAKE_NS;
            for doc in ids {
                self.books.learn(node, *doc, Timestamp(self.now).0);
            }
        }
    }

    fn exchange(&mut self, from: u32, to: u32, request: u64, response: u64) {
        self.count_exchange(from, to, request);
        self.count_exchange(to, from, response);
    }
}
