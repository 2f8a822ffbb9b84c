//! Texts kept once each, under small numbers.
//!
//! Entries are counted and given back with the last offer that uses them, so a host that changes its texts with every offer
//! does not grow the memory of others.

use std::collections::BTreeMap;

use super::performance::normal;

/// The number of a text that is absent.
pub(super) const ABSENT: u32 = u32::MAX;

/// One text of a pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// As the offer has it.
    pub text: String,
    /// As it is compared.
    pub normal: String,
    uses: u32,
}

/// A column's distinct texts.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool {
    numbers: BTreeMap<String, u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Pool {
    /// The number of `text`, which is counted as used once more.
    pub fn take(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            self.entries[*number as usize].uses += 1;
            return *number;
        }
        let entry = Entry { text: text.to_owned(), normal: normal(text), uses: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.entries[number as usize] = entry;
                number
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// Counts one use more of a number that is in use.
    pub fn share(&mut self, number: u32) -> u32 {
        if let Some(entry) = self.entries.get_mut(number as usize) {
            entry.uses += 1;
        }
        number
    }

    /// Takes back one use; the last one frees the number.
    pub fn give_back(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number as usize) else {
            return;
        };
        entry.uses = entry.uses.saturating_sub(1);
        if entry.uses == 0 {
            let entry = std::mem::take(entry);
            self.numbers.remove(&entry.text);
            self.free.push(number);
        }
    }

    /// The number of `text` if it is here.
    pub fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    /// The text of a number; none for [`ABSENT`].
    pub fn text(&self, number: u32) -> Option<&str> {
        self.entries.get(number as usize).map(|e| e.text.as_str())
    }

    /// For each number, whether `test` holds of its text.
    pub fn table(&self, test: impl Fn(&Entry) -> bool) -> Vec<bool> {
        self.entries.iter().map(|e| e.uses > 0 && test(e)).collect()
    }

    /// For each number, the place of its text among all in use, as texts are compared, counted from 1: in either direction
    /// it stays clear of the greatest number, which stands for what is absent.
    pub fn ranks(&self) -> Vec<u64> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|i| {
            let entry = &self.entries[*i];
            (&entry.normal, &entry.text)
        });
        let mut ranks = vec![0; order.len()];
        for (rank, i) in order.into_iter().enumerate() {
            ranks[i] = rank as u64 + 1;
        }
        ranks
    }

    /// Numbers ever given out at once.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_given_back_as_often_as_taken_is_gone_and_its_number_used_again() {
        let mut pool = Pool::default();
        let first = pool.take("RTX 4090");
        assert_eq!(pool.take("RTX 4090"), first);
        pool.give_back(first);
        assert_eq!(pool.text(first), Some("RTX 4090"));
        pool.give_back(first);
        assert_eq!(pool.find("RTX 4090"), None);
        for i in 0..1000 {
            let number = pool.take(&i.to_string());
            assert_eq!(number, first);
            pool.give_back(number);
        }
        assert_eq!(pool.capacity(), 1);
        pool.give_back(ABSENT);
    }
}
