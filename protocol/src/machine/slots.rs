//! The slots of one machine, and who holds them.
//!
//! Owns the map from slot to lease. Allocation keeps big slices sellable: it takes aligned runs where it can, from the fullest
//! part of the machine first.

use crate::id::LeaseId;

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The GPU's UUID or the declared device's path; none for a CPU slot.
    pub device: Option<String>,
    /// The lease that holds it.
    pub lease: Option<LeaseId>,
    /// Whether another node of the machine holds it.
    pub foreign: bool,
}

impl Slot {
    const fn is_free(&self) -> bool {
        self.lease.is_none() && !self.foreign
    }
}

/// A machine's slots, numbered from 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    /// Free slots with these devices.
    #[must_use]
    pub fn new(devices: impl IntoIterator<Item = Option<String>>) -> Self {
        let slots = devices.into_iter().take(usize::from(crate::limits::SLOTS));
        Self { slots: slots.map(|device| Slot { device, lease: None, foreign: false }).collect() }
    }

    /// No slots.
    #[must_use]
    pub const fn empty() -> Self {
        Self { slots: Vec::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u16 {
        u16::try_from(self.slots.len()).unwrap_or(u16::MAX)
    }

    /// How many nobody holds, neither here nor another node of the machine.
    #[must_use]
    pub fn free(&self) -> u16 {
        u16::try_from(self.slots.iter().filter(|s| s.is_free()).count()).unwrap_or(u16::MAX)
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots a lease holds.
    #[must_use]
    pub fn of(&self, lease: &LeaseId) -> Vec<u16> {
        self.numbers(|slot| slot.lease.as_ref() == Some(lease))
    }

    /// The devices of some slots.
    #[must_use]
    pub fn devices(&self, slots: &[u16]) -> Vec<String> {
        slots.iter().filter_map(|n| self.slots.get(usize::from(*n))?.device.clone()).collect()
    }

    /// `count` free slots for a new lease; none if there are not so many. Nothing is taken yet.
    #[must_use]
    pub fn pick(&self, count: u16) -> Option<Vec<u16>> {
        let count = usize::from(count);
        let free = Slot::is_free;
        if count == 0 || self.slots.iter().filter(|s| free(s)).count() < count {
            return None;
        }
        // Aligned runs leave whole slices of the same size and of its doubles to others.
        let run = (0..self.slots.len())
            .step_by(count)
            .filter(|start| start + count <= self.slots.len())
            .filter(|start| self.slots[*start..start + count].iter().all(free))
            .min_by_key(|start| {
                let pair = start / (2 * count) * 2 * count;
                let end = (pair + 2 * count).min(self.slots.len());
                (self.slots[pair..end].iter().filter(|s| free(s)).count(), *start)
            });
        let chosen: Vec<usize> = match run {
            Some(start) => (start..start + count).collect(),
            None => (0..self.slots.len()).filter(|i| free(&self.slots[*i])).take(count).collect(),
        };
        Some(chosen.into_iter().filter_map(|i| u16::try_from(i).ok()).collect())
    }

    /// `count` free slots, the ones of `last` if they are so many and free.
    #[must_use]
    pub fn pick_like(&self, count: u16, last: &[u16]) -> Option<Vec<u16>> {
        let free = |n: &u16| self.slots.get(usize::from(*n)).is_some_and(Slot::is_free);
        if last.len() == usize::from(count) && count > 0 && last.iter().all(free) {
            return Some(last.to_vec());
        }
        self.pick(count)
    }

    /// The slots with exactly these devices; none if one is missing.
    #[must_use]
    pub fn with_devices(&self, devices: &[String]) -> Option<Vec<u16>> {
        let slots = self.numbers(|s| s.device.as_ref().is_some_and(|d| devices.contains(d)));
        (slots.len() == devices.len()).then_some(slots)
    }

    /// The slots nobody holds.
    #[must_use]
    pub fn unheld(&self) -> Vec<u16> {
        self.numbers(Slot::is_free)
    }

    /// How many another node of the machine holds.
    #[must_use]
    pub fn foreign(&self) -> u16 {
        u16::try_from(self.slots.iter().filter(|s| s.foreign).count()).unwrap_or(u16::MAX)
    }

    /// Other nodes hold these, of those that no lease of ours does, and no others.
    pub fn set_foreign(&mut self, slots: &[u16]) {
        for (n, slot) in (0u16..).zip(&mut self.slots) {
            slot.foreign = slot.lease.is_none() && slots.contains(&n);
        }
    }

    /// Other nodes hold these, too.
    pub fn mark_foreign(&mut self, slots: &[u16]) {
        for n in slots {
            if let Some(slot) = self.slots.get_mut(usize::from(*n)) {
                slot.foreign = slot.lease.is_none();
            }
        }
    }

    /// How many are held by leases that are not `known`.
    #[must_use]
    pub fn held_by_others(&self, known: impl Fn(&LeaseId) -> bool) -> u16 {
        let others = self.slots.iter().filter(|s| s.lease.as_ref().is_some_and(|lease| !known(lease)));
        u16::try_from(others.count()).unwrap_or(u16::MAX)
    }

    /// Gives slots to a lease. False, and nothing changed, if one of them is another's or does not exist.
    pub fn take(&mut self, lease: LeaseId, slots: &[u16]) -> bool {
        let fits = |n: &u16| self.slots.get(usize::from(*n)).is_some_and(|s| s.lease.is_none_or(|l| l == lease));
        if slots.is_empty() || !slots.iter().all(fits) {
            return false;
        }
        for n in slots {
            let slot = &mut self.slots[usize::from(*n)];
            slot.lease = Some(lease);
            slot.foreign = false;
        }
        true
    }

    /// Frees whatever a lease holds, and says what that was.
    pub fn release(&mut self, lease: &LeaseId) -> Vec<u16> {
        let held = self.of(lease);
        for n in &held {
            self.slots[usize::from(*n)].lease = None;
        }
        held
    }

    fn numbers(&self, wanted: impl Fn(&Slot) -> bool) -> Vec<u16> {
        (0u16..).zip(&self.slots).filter(|(_, s)| wanted(s)).map(|(n, _)| n).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn lease(n: u8) -> LeaseId {
        LeaseId([n; 32])
    }

    #[test]
    fn small_leases_gather_so_that_big_slices_stay_whole() {
        let mut slots = Slots::new((0..8).map(|i| Some(format!("GPU-{i}"))));
        for n in 0..2 {
            let picked = slots.pick(1).unwrap();
            assert!(slots.take(lease(n), &picked));
        }
        assert_eq!((slots.of(&lease(0)), slots.of(&lease(1))), (vec![0], vec![1]));
        assert_eq!(slots.pick(4).unwrap(), vec![4, 5, 6, 7]);
        assert_eq!(slots.devices(&slots.of(&lease(1))), vec!["GPU-1".to_owned()]);
    }

    proptest! {
        #[test]
        fn a_slot_has_one_lease_and_nothing_is_lost(steps in proptest::collection::vec((0u8..12, 1u16..5, any::<bool>()), 0..64)) {
            let mut slots = Slots::new((0..8).map(|_| None));
            let mut held = std::collections::BTreeMap::new();
            for (id, count, release) in steps {
                if release {
                    slots.release(&lease(id));
                    held.remove(&id);
                } else if let std::collections::btree_map::Entry::Vacant(place) = held.entry(id) {
                    let enough = slots.free() >= count;
                    match slots.pick(count) {
                        Some(picked) => {
                            prop_assert!(enough && picked.len() == usize::from(count));
                            prop_assert!(slots.take(lease(id), &picked));
                            prop_assert!(!slots.take(lease(99), &picked));
                            place.insert(count);
                        }
                        None => prop_assert!(!enough),
                    }
                }
                let total: u16 = held.values().sum();
                prop_assert_eq!(slots.free(), 8 - total);
            }
        }
    }
}
