//! The market in columns: every ask of every offer known, kept up to date offer by offer.
//!
//! What is the same for all slices of a machine is kept once a machine; an ask is a machine and a number of slots. Numbers
//! that an offer does not tell are NaN, texts [`ABSENT`]. Places in the columns are used again after a removal, so memory
//! follows the most that was ever known at once. How many offers that is, and of how many hosts and machines facts are set, the
//! owner of the index bounds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use super::{
    columns::{Column, TextColumn},
    facts::PeerFacts,
    pool::{ABSENT, Pool},
    score::Medians,
};
use crate::{
    id::{AskId, DocumentId, MachineId, NodeId},
    offer::Offer,
    owner::{HostId, OwnerId},
};

const COLUMNS: usize = Column::Count as usize;
const TEXT_COLUMNS: usize = TextColumn::Count as usize;

/// Where a machine is in the columns.
#[derive(Debug, Clone)]
struct Place {
    machine: u32,
    /// Its asks, smallest first.
    rows: Vec<u32>,
}

/// Which machine and offer a place holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub host: NodeId,
    pub machine: MachineId,
    pub offer: DocumentId,
    /// Whose it is by the text of its host, if not the host's own.
    pub owner: Option<OwnerId>,
}

/// Every ask known, ready to be searched.
#[derive(Debug)]
pub struct AskIndex {
    places: BTreeMap<(NodeId, MachineId), Place>,
    facts: BTreeMap<NodeId, PeerFacts>,
    proven: BTreeMap<(NodeId, MachineId), f64>,
    numbers: [Vec<f64>; COLUMNS],
    texts: [Vec<u32>; TEXT_COLUMNS],
    pools: [Pool; TEXT_COLUMNS],
    identities: Vec<Identity>,
    free_machines: Vec<u32>,
    /// Of each ask: its machine's place.
    machine_of: Vec<u32>,
    /// Of each ask: its slots; 0 where there is none at this place.
    slots: Vec<u16>,
    /// Of each ask: whether it is the smallest of its machine.
    smallest: Vec<bool>,
    /// Of each ask: its id, as a number that orders as the id does.
    ids: Vec<u64>,
    free_rows: Vec<u32>,
    asks: usize,
    /// Changes with every change of the columns.
    generation: u64,
    pub(super) medians: Mutex<Option<Arc<Medians>>>,
}

impl Default for AskIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl AskIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            places: BTreeMap::new(),
            facts: BTreeMap::new(),
            proven: BTreeMap::new(),
            numbers: std::array::from_fn(|_| Vec::new()),
            texts: std::array::from_fn(|_| Vec::new()),
            pools: std::array::from_fn(|_| Pool::default()),
            identities: Vec::new(),
            free_machines: Vec::new(),
            machine_of: Vec::new(),
            slots: Vec::new(),
            smallest: Vec::new(),
            ids: Vec::new(),
            free_rows: Vec::new(),
            asks: 0,
            generation: 0,
            medians: Mutex::new(None),
        }
    }

    /// Takes in an offer that was verified and checked, in place of the machine's earlier one. Slices larger than the GPUs
    /// the offer lists of its class are left out: no such thing can be had.
    pub fn insert(&mut self, id: DocumentId, offer: &Offer) {
        let key = (offer.host, offer.machine);
        let sizes = Self::sizes(offer);
        if let Some(place) = self.places.get(&key).filter(|place| self.holds(place, &sizes)) {
            // Most offers replace one that is cut the same way: its asks stay where they are.
            let machine = place.machine;
            self.identities[machine as usize].offer = id;
            self.write(machine, offer);
            self.generation += 1;
            return;
        }
        self.remove(&key.0, &key.1);
        let machine = self.free_machines.pop().unwrap_or_else(|| {
            self.identities.push(Identity { host: key.0, machine: key.1, offer: id, owner: None });
            self.numbers.iter_mut().for_each(|c| c.push(f64::NAN));
            self.texts.iter_mut().for_each(|c| c.push(ABSENT));
            (self.identities.len() - 1) as u32
        });
        self.identities[machine as usize] = Identity { host: key.0, machine: key.1, offer: id, owner: None };
        self.write(machine, offer);
        let mut rows = Vec::new();
        for slots in sizes {
            rows.push(self.add_row(machine, slots, rows.is_empty(), &key));
        }
        self.asks += rows.len();
        self.places.insert(key, Place { machine, rows });
        self.generation += 1;
    }

    /// The sizes of an offer's asks.
    fn sizes(offer: &Offer) -> Vec<u16> {
        let listed = offer.hardware.gpus.first().map_or(usize::MAX, |g| g.uuid_hashes.len());
        let mut sizes = offer.slices();
        sizes.retain(|slots| usize::from(*slots) <= listed);
        sizes
    }

    /// Whether the asks at a place are of these sizes.
    fn holds(&self, place: &Place, sizes: &[u16]) -> bool {
        place.rows.iter().map(|row| self.slots[*row as usize]).eq(sizes.iter().copied())
    }

    fn write(&mut self, machine: u32, offer: &Offer) {
        self.write_hardware(machine, offer);
        self.write_terms(machine, offer);
        self.write_texts(machine, offer);
        self.write_facts(machine, self.facts(&offer.host));
        self.write_performance(machine, self.proven.get(&(offer.host, offer.machine)).copied(), offer);
    }

    /// Forgets a machine's asks; false if there were none.
    pub fn remove(&mut self, host: &NodeId, machine: &MachineId) -> bool {
        let Some(place) = self.places.remove(&(*host, *machine)) else {
            return false;
        };
        self.asks -= place.rows.len();
        // Backwards, so that an offer republished unchanged finds its places in the order it left them.
        for row in place.rows.into_iter().rev() {
            self.slots[row as usize] = 0;
            self.free_rows.push(row);
        }
        for (column, pool) in self.texts.iter_mut().zip(&mut self.pools) {
            pool.give_back(std::mem::replace(&mut column[place.machine as usize], ABSENT));
        }
        self.free_machines.push(place.machine);
        self.generation += 1;
        true
    }

    /// Sets what is known of a host, for its present and later offers. The default facts are forgotten again.
    pub fn set_facts(&mut self, host: NodeId, facts: PeerFacts) {
        let facts = facts.bounded();
        if facts == PeerFacts::default() {
            self.facts.remove(&host);
        } else {
            self.facts.insert(host, facts);
        }
        let machines: Vec<u32> = self
            .places
            .range((host, MachineId([0; 16]))..=(host, MachineId([u8::MAX; 16])))
            .map(|(_, place)| place.machine)
            .collect();
        for machine in machines {
            self.write_facts(machine, facts);
        }
        self.generation += 1;
    }

    /// What is known of a host.
    #[must_use]
    pub fn facts(&self, host: &NodeId) -> PeerFacts {
        self.facts.get(host).copied().unwrap_or_default()
    }

    /// Sets the `dlperf` of one slot that challenges have proven of a machine, or takes it back. Counts from the machine's
    /// next offer on, and at once if `offer`, its present one, is given.
    pub fn set_proven(&mut self, host: NodeId, machine: MachineId, dlperf: Option<f64>, offer: Option<&Offer>) {
        let key = (host, machine);
        match dlperf.filter(|x| x.is_finite() && *x >= 0.0) {
            Some(proven) => self.proven.insert(key, proven),
            None => self.proven.remove(&key),
        };
        if let (Some(place), Some(offer)) = (self.places.get(&key), offer) {
            let place = place.machine;
            self.write_performance(place, self.proven.get(&key).copied(), offer);
            self.generation += 1;
        }
    }

    /// Asks in the index, expired ones included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.asks
    }

    /// Whether there is no ask.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.asks == 0
    }

    /// Machines in the index.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.places.len()
    }

    fn add_row(&mut self, machine: u32, slots: u16, smallest: bool, key: &(NodeId, MachineId)) -> u32 {
        let row = self.free_rows.pop().unwrap_or_else(|| {
            self.machine_of.push(0);
            self.slots.push(0);
            self.smallest.push(false);
            self.ids.push(0);
            (self.slots.len() - 1) as u32
        });
        let at = row as usize;
        self.machine_of[at] = machine;
        self.slots[at] = slots;
        self.smallest[at] = smallest;
        self.ids[at] = u64::from_be_bytes(AskId::of(&key.0, &key.1, slots).0);
        row
    }

    pub(super) fn set_text(&mut self, machine: u32, column: TextColumn, text: Option<&str>) {
        let text = text.filter(|t| !t.is_empty());
        let pool = &mut self.pools[column as usize];
        let number = &mut self.texts[column as usize][machine as usize];
        if pool.text(*number) != text {
            let before = std::mem::replace(number, text.map_or(ABSENT, |t| pool.take(t)));
            pool.give_back(before);
        }
    }

    /// As [`Self::set_text`] with the id of the machine's owner, or of its host, which costs more to write out than to look up:
    /// this machine before, or another one of the host, has it.
    pub(super) fn set_host(&mut self, machine: u32, offer: &Offer) {
        let (column, at) = (TextColumn::Host as usize, machine as usize);
        let owner = match offer.host_id() {
            HostId::Owner(owner) => Some(owner),
            HostId::Node(_) => None,
        };
        let before = std::mem::replace(&mut self.identities[at].owner, owner);
        let is_written = self.texts[column][at] != ABSENT;
        if is_written && before == owner {
            return;
        }
        if let Some(owner) = owner {
            return self.set_text(machine, TextColumn::Host, Some(&owner.to_string()));
        }
        if is_written {
            return self.set_text(machine, TextColumn::Host, Some(&offer.host.to_string()));
        }
        let others = (offer.host, MachineId([0; 16]))..=(offer.host, MachineId([u8::MAX; 16]));
        let places = self.places.range(others).map(|(_, place)| place.machine as usize);
        let mut own = places.filter(|place| self.identities[*place].owner.is_none());
        let known = own.next().map(|place| self.texts[column][place]);
        let number = match known.filter(|number| *number != ABSENT) {
            Some(number) => self.pools[column].share(number),
            None => self.pools[column].take(&offer.host.to_string()),
        };
        self.texts[column][at] = number;
    }

    pub(super) fn set(&mut self, machine: u32, column: Column, value: f64) {
        self.numbers[column as usize][machine as usize] = value;
    }
}

/// What reading the columns takes, for the other parts of search.
impl AskIndex {
    pub(super) fn numbers(&self, column: Column) -> &[f64] {
        &self.numbers[column as usize]
    }

    pub(super) fn texts(&self, column: TextColumn) -> &[u32] {
        &self.texts[column as usize]
    }

    pub(super) fn pool(&self, column: TextColumn) -> &Pool {
        &self.pools[column as usize]
    }

    /// The text of an ask's machine.
    pub(super) fn text(&self, column: TextColumn, row: usize) -> Option<&str> {
        let number = self.texts(column)[self.machine_of[row] as usize];
        self.pool(column).text(number)
    }

    pub(super) fn machine_of(&self) -> &[u32] {
        &self.machine_of
    }

    pub(super) fn slots(&self) -> &[u16] {
        &self.slots
    }

    pub(super) fn is_smallest(&self, row: usize) -> bool {
        self.smallest[row] && self.slots[row] > 0
    }

    pub(super) fn ids(&self) -> &[u64] {
        &self.ids
    }

    pub(super) fn identity(&self, row: usize) -> &Identity {
        &self.identities[self.machine_of[row] as usize]
    }

    /// Places for asks, empty ones included.
    pub(super) const fn rows(&self) -> usize {
        self.slots.len()
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }
}
