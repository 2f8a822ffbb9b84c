//! Nodes that come late or are cut off for a while, and how long they take until they know everything.

use std::collections::BTreeMap;

use souk_protocol::{
    DocumentId,
    machine::{book::MachineKey, io::Input},
};

use super::World;
use crate::figures::CatchUp;

/// A node that has come (back).
#[derive(Debug, Default)]
pub(super) struct Return {
    at: u64,
    received: u64,
    /// What there was then and it has not got.
    lacks: Vec<(MachineKey, u64)>,
    fetched: BTreeMap<DocumentId, u32>,
    pub(super) found: CatchUp,
}

impl World<'_> {
    /// It is connected to all its peers at once.
    pub(super) fn comes(&mut self, node: u32) {
        self.online[node as usize] = true;
        let received = self.traffic[node as usize].received.iter().sum();
        let back = Return { at: self.now, received, lacks: self.books.newest(), ..Return::default() };
        self.away.insert(node, back);
        self.connect(node);
        // They look at what it has, too.
        for (peer, _) in self.net.peers(node).collect::<Vec<_>>() {
            if peer < self.watched && self.online[peer as usize] {
                self.compare(peer, node);
            }
        }
        self.look(node);
    }

    pub(super) fn goes(&mut self, node: u32) {
        self.online[node as usize] = false;
        for (peer, _) in self.net.peers(node).collect::<Vec<_>>() {
            self.handle(node, Input::Disconnected(self.ids[peer as usize]));
            if peer >= self.watched {
                self.handle(peer, Input::Disconnected(self.ids[node as usize]));
            }
        }
    }

    /// Whether it knows everything by now.
    pub(super) fn look(&mut self, node: u32) {
        let Some(back) = self.away.get_mut(&node).filter(|b| b.found.seconds.is_none()) else { return };
        let Some(engine) = &self.engines[node as usize] else { return };
        let book = engine.book();
        back.lacks.retain(|(key, seq)| book.offer(key).is_none_or(|offer| offer.seq < *seq));
        if back.lacks.is_empty() {
            let received: u64 = self.traffic[node as usize].received.iter().sum();
            back.found.seconds = Some((self.now - back.at) as f64 / 1000.0);
            back.found.received_kb = ((received - back.received) as f64 / 1000.0).round();
        }
    }

    /// It has asked for these.
    pub(super) fn note_fetch(&mut self, node: u32, ids: &[DocumentId]) {
        let Some(back) = self.away.get_mut(&node).filter(|b| b.found.seconds.is_none()) else { return };
        for id in ids {
            let times = back.fetched.entry(*id).or_default();
            *times += 1;
            back.found.fetched += 1;
            back.found.fetched_twice += u64::from(*times == 2);
        }
    }
}
