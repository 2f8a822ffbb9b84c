//! When to try something again: exponential backoff with jitter, for many things at once.
//!
//! Pure: time and randomness are arguments. It knows nothing of what is tried.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    time::{Duration, Instant},
};

/// The first wait after a failure.
pub(crate) const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub(crate) const LAST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// None while an attempt is under way or none is wanted.
    due: Option<Instant>,
}

/// Things to try, each with its own backoff.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    first: Duration,
    last: Duration,
    entries: HashMap<K, Entry>,
    queue: BTreeSet<(Instant, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Schedule<K> {
    /// An empty schedule with waits from `first`, doubling, to `last`.
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, entries: HashMap::new(), queue: BTreeSet::new() }
    }

    fn set(&mut self, key: K, entry: Entry) {
        let old = self.entries.insert(key.clone(), entry);
        if let Some(at) = old.and_then(|old| old.due) {
            self.queue.remove(&(at, key.clone()));
        }
        if let Some(at) = entry.due {
            self.queue.insert((at, key));
        }
    }

    /// Wants `key` tried at `at` or earlier, keeping its failures.
    pub(crate) fn want(&mut self, key: K, at: Instant) {
        let old = self.entries.get(&key).copied();
        let failures = old.map_or(0, |old| old.failures);
        let due = old.and_then(|old| old.due).map_or(at, |due| due.min(at));
        self.set(key, Entry { failures, due: Some(due) });
    }

    /// The attempt at `key` failed: it is due again after a wait of 75 to 125 % of its backoff, by `jitter` in 0..=1.
    pub(crate) fn failed(&mut self, key: K, now: Instant, jitter: f64) {
        let failures = self.entries.get(&key).map_or(0, |old| old.failures);
        let doublings = failures.min(16);
        let wait =
            self.first.saturating_mul(1 << doublings).min(self.last).mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0));
        self.set(key, Entry { failures: failures.saturating_add(1), due: Some(now + wait) });
    }

    /// `key` succeeded: nothing is wanted of it, and its failures are forgotten.
    pub(crate) fn succeeded(&mut self, key: &K) {
        if self.entries.contains_key(key) {
            self.set(key.clone(), Entry { failures: 0, due: None });
        }
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(Entry { due: Some(at), .. }) = self.entries.remove(key) {
            self.queue.remove(&(at, key.clone()));
        }
    }

    /// Whether `key` is known.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether `key` waits for its turn.
    pub(crate) fn is_pending(&self, key: &K) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.due.is_some())
    }

    /// How many keys are known.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How often `key` failed since it last succeeded.
    #[cfg(test)]
    fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    /// Takes what is due. Each comes back by [`Self::failed`] or [`Self::want`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.queue.first()
            && *at <= now
            && let Some((_, key)) = self.queue.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.due = None;
            }
            due.push(key);
        }
        due
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

/// A random number in 0..=1 for jitter; one half if the system has no randomness to give.
pub(crate) fn jitter() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last_and_start_over_after_a_success() {
        let start = Instant::now();
        let mut schedule = Schedule::new(FIRST, LAST);
        schedule.want("a", start);
        assert_eq!(schedule.due(start), ["a"]);
        assert_eq!(schedule.deadline(), None);
        let mut waits = Vec::new();
        for _ in 0..9 {
            schedule.failed("a", start, 0.5);
            waits.push(schedule.deadline().map(|at| (at - start).as_secs()));
            assert!(schedule.due(start).is_empty());
            assert_eq!(schedule.due(start + LAST * 2), ["a"]);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Some));
        schedule.succeeded(&"a");
        assert_eq!(schedule.failures(&"a"), 0);
        schedule.failed("a", start, 0.0);
        assert_eq!(schedule.deadline(), Some(start + Duration::from_millis(750)));
    }

    #[test]
    fn an_earlier_wish_wins_and_a_removed_key_is_never_due() {
        let start = Instant::now();
        let mut schedule = Schedule::new(FIRST, LAST);
        schedule.want(1, start + LAST);
        schedule.want(2, start + FIRST);
        schedule.want(1, start);
        schedule.want(1, start + LAST);
        assert_eq!(schedule.deadline(), Some(start));
        schedule.remove(&1);
        assert!(!schedule.contains(&1));
        assert_eq!(schedule.due(start + LAST), [2]);
    }
}
