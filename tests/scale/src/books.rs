//! What every node's book holds, told by what it lacks of the newest: the rule is the real book's, that the higher `seq` replaces
//! the lower, but 10,000 books of 10,000 offers fit into memory so. Owns no rules of when who is told what.

use std::collections::{BTreeMap, HashMap, VecDeque};

use souk_protocol::{Digest, DocumentId, machine::book::MachineKey, message::BookItem};

use crate::{figures::Spread, flood::NEVER};

/// A notice, by its place in [`Books::docs`].
pub(crate) type Doc = u32;

/// A notice that was published.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) machine: u32,
    pub(crate) seq: u64,
    pub(crate) id: DocumentId,
    /// As gossiped.
    pub(crate) bytes: Vec<u8>,
    pub(crate) at: u64,
    pub(crate) valid_until: u64,
}

#[derive(Debug)]
struct Flight {
    doc: Doc,
    machine: u32,
    began: u64,
    ends: u64,
    arrival: Vec<u32>,
}

#[derive(Debug, Default)]
struct Behind {
    held: Option<Doc>,
    /// Notices that gossip did not bring.
    awaited: Vec<Doc>,
}

/// All books.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) docs: Vec<Published>,
    keys: Vec<MachineKey>,
    order: BTreeMap<MachineKey, u32>,
    by_id: HashMap<DocumentId, Doc>,
    /// Of each machine, what everybody has who is not behind.
    current: Vec<Option<Doc>>,
    root: [u8; 32],
    count: u64,
    flights: VecDeque<Flight>,
    behind: Vec<BTreeMap<u32, Behind>>,
    /// Of notices that gossip did not bring to all, how many still lack them.
    pending: HashMap<Doc, u32>,
    /// Nodes times notices that gossip did not bring.
    pub(crate) missed: u64,
    /// From publication until a node has it.
    pub(crate) to_node: Spread,
    /// … until the last has.
    pub(crate) to_all: Spread,
}

impl Books {
    /// Of so many nodes, about these machines.
    pub(crate) fn new(nodes: usize, keys: Vec<MachineKey>) -> Self {
        Self {
            docs: Vec::new(),
            order: keys.iter().enumerate().map(|(m, key)| (*key, m as u32)).collect(),
            by_id: HashMap::new(),
            current: vec![None; keys.len()],
            keys,
            root: [0; 32],
            count: 0,
            flights: VecDeque::new(),
            behind: std::iter::repeat_with(BTreeMap::new).take(nodes).collect(),
            pending: HashMap::new(),
            missed: 0,
            to_node: Spread::default(),
            to_all: Spread::default(),
        }
    }

    /// A new notice, on nobody's book yet.
    pub(crate) fn add(&mut self, published: Published) -> Doc {
        let doc = self.docs.len() as Doc;
        self.by_id.insert(published.id, doc);
        self.docs.push(published);
        doc
    }

    /// Everybody has it.
    pub(crate) fn everywhere(&mut self, doc: Doc) {
        let machine = self.docs[doc as usize].machine as usize;
        if let Some(old) = self.current[machine].replace(doc) {
            self.toggle(old);
        } else {
            self.count += 1;
        }
        self.toggle(doc);
    }

    fn toggle(&mut self, doc: Doc) {
        xor(&mut self.root, &self.docs[doc as usize].id);
    }

    /// This node has nothing.
    pub(crate) fn forget_all(&mut self, node: u32) {
        let all = (0..self.current.len() as u32).map(|m| (m, Behind::default()));
        self.behind[node as usize] = all.collect();
    }

    /// It is on its way: `arrival` is when each node has it, in milliseconds from its publication; those absent are not waited for.
    pub(crate) fn fly(&mut self, doc: Doc, arrival: Vec<u32>, last: u32) {
        let Published { at: began, machine, .. } = self.docs[doc as usize];
        for after in arrival.iter().filter(|after| **after != NEVER) {
            self.to_node.add((*after).into());
        }
        self.flights.push_back(Flight { doc, machine, began, ends: began + u64::from(last), arrival });
    }

    /// Flights that have ended become what everybody has who is not behind.
    pub(crate) fn settle(&mut self, online: &[bool], now: u64) {
        while self.flights.front().is_some_and(|f| f.ends <= now)
            && let Some(flight) = self.flights.pop_front()
        {
            let Flight { doc, machine, .. } = flight;
            let prior = self.current[machine as usize];
            let mut waiting = 0;
            for (node, after) in flight.arrival.iter().enumerate() {
                if *after == NEVER {
                    let behind =
                        self.behind[node].entry(machine).or_insert_with(|| Behind { held: prior, awaited: Vec::new() });
                    if online[node] {
                        behind.awaited.push(doc);
                        waiting += 1;
                    }
                } else if !self.behind[node].is_empty()
                    && let Some(behind) = self.behind[node].remove(&machine)
                {
                    self.has_come(&behind.awaited, flight.began + u64::from(*after));
                }
            }
            self.everywhere(doc);
            self.missed += u64::from(waiting);
            if waiting == 0 {
                self.to_all.add(flight.ends - flight.began);
            } else {
                self.pending.insert(doc, waiting);
            }
        }
    }

    fn has_come(&mut self, docs: &[Doc], now: u64) {
        for doc in docs {
            let took = now.saturating_sub(self.docs[*doc as usize].at);
            self.to_node.add(took);
            if let Some(left) = self.pending.get_mut(doc) {
                *left -= 1;
                if *left == 0 {
                    self.pending.remove(doc);
                    self.to_all.add(took);
                }
            }
        }
    }

    /// What a node has of a machine.
    pub(crate) fn held(&self, node: u32, machine: u32, now: u64) -> Option<Doc> {
        let here = |f: &&Flight| {
            let after = f.arrival[node as usize];
            after != NEVER && f.began + u64::from(after) <= now
        };
        let base = match self.behind[node as usize].get(&machine) {
            Some(behind) => behind.held,
            None => self.current[machine as usize],
        };
        let doc = self.flights.iter().rev().filter(|f| f.machine == machine).find(here).map(|f| f.doc).or(base)?;
        (self.docs[doc as usize].valid_until > now).then_some(doc)
    }

    /// Machines of which a node may have something else than the others.
    fn unsure(&self, node: u32) -> Vec<u32> {
        let behind = self.behind[node as usize].keys().copied();
        let mut all: Vec<u32> = self.flights.iter().map(|f| f.machine).chain(behind).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A node's count and root, as its book's summary would say.
    pub(crate) fn summary(&self, node: u32, now: u64) -> (u64, Digest) {
        let (mut count, mut root) = (self.count, self.root);
        for machine in self.unsure(node) {
            let (base, held) = (self.current[machine as usize], self.held(node, machine, now));
            if base != held {
                for doc in [base, held].into_iter().flatten() {
                    xor(&mut root, &self.docs[doc as usize].id);
                }
                count = count + u64::from(held.is_some()) - u64::from(base.is_some());
            }
        }
        (count, Digest(root))
    }

    /// What `theirs` has and `ours` lacks.
    pub(crate) fn lacks(&self, ours: u32, theirs: u32, now: u64) -> Vec<Doc> {
        let seq = |doc: Option<Doc>| doc.map(|d| self.docs[d as usize].seq);
        let machines = self.unsure(ours).into_iter();
        machines
            .filter_map(|m| {
                let doc = self.held(theirs, m, now);
                doc.filter(|_| seq(doc) > seq(self.held(ours, m, now)))
            })
            .collect()
    }

    /// A node has a notice by asking for it.
    pub(crate) fn learn(&mut self, node: u32, doc: Doc, now: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|f| f.doc == doc) {
            let after = &mut flight.arrival[node as usize];
            *after = (*after).min(now.saturating_sub(flight.began) as u32);
            return;
        }
        let Published { machine, seq, .. } = self.docs[doc as usize];
        let newest = self.current[machine as usize] == Some(doc);
        let Some(behind) = self.behind[node as usize].get_mut(&machine) else {
            return;
        };
        if behind.held.is_some_and(|held| self.docs[held as usize].seq >= seq) {
            return;
        }
        behind.held = Some(doc);
        let (come, awaited) =
            std::mem::take(&mut behind.awaited).into_iter().partition(|d| self.docs[*d as usize].seq <= seq);
        behind.awaited = awaited;
        if newest {
            self.behind[node as usize].remove(&machine);
        }
        let come: Vec<Doc> = come;
        self.has_come(&come, now);
    }

    /// Lines of a node's index after a machine, at most so many, and whether there are more.
    pub(crate) fn page(&self, node: u32, after: Option<MachineKey>, most: usize, now: u64) -> (Vec<BookItem>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let rest = self.order.range((after.map_or(Unbounded, Excluded), Unbounded));
        let mut lines = rest.filter_map(|((host, machine), m)| {
            let doc = &self.docs[self.held(node, *m, now)? as usize];
            Some(BookItem { host: *host, machine: *machine, seq: doc.seq, id: doc.id })
        });
        let items = lines.by_ref().take(most).collect();
        (items, lines.next().is_some())
    }

    /// A notice by its id, if a node has it.
    pub(crate) fn find(&self, node: u32, id: &DocumentId, now: u64) -> Option<Doc> {
        let doc = *self.by_id.get(id)?;
        (self.held(node, self.docs[doc as usize].machine, now) == Some(doc)).then_some(doc)
    }

    /// A notice by its id.
    pub(crate) fn named(&self, id: &DocumentId) -> Option<Doc> {
        self.by_id.get(id).copied()
    }

    /// Of each machine, the newest `seq` that everybody was sent.
    pub(crate) fn newest(&self) -> Vec<(MachineKey, u64)> {
        let seq = |doc: &Option<Doc>| doc.map(|d| self.docs[d as usize].seq);
        self.keys.iter().zip(&self.current).filter_map(|(key, doc)| Some((*key, seq(doc)?))).collect()
    }

    /// Of what everybody should have: count and root.
    pub(crate) const fn truth(&self) -> (u64, Digest) {
        (self.count, Digest(self.root))
    }

    /// Nodes that are behind.
    pub(crate) fn lagging(&self) -> usize {
        self.behind.iter().filter(|behind| !behind.is_empty()).count()
    }

    /// Whether something is on its way.
    pub(crate) fn flying(&self) -> bool {
        !self.flights.is_empty()
    }
}

fn xor(root: &mut [u8; 32], id: &DocumentId) {
    root.iter_mut().zip(id.0).for_each(|(a, b)| *a ^= b);
}
