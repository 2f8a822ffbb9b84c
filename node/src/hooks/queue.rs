//! What waits for one hook: which event goes next, when an attempt is made again, and what is let go.
//!
//! Pure: time comes from outside, and so does chance. What is kept on disk is [`super::disk`]'s.

use std::{collections::BTreeMap, time::Duration};

use souk_protocol::{Millis, Timestamp};

use super::{delivery::Verdict, disk::Waiting};
use crate::api::types::HookDelivery;

/// Events that may wait for one hook. When full, the oldest that is not on its way is let go, and counted.
pub const WAITING: usize = 1000;
/// Between the first attempt and the second; doubled each time.
const FIRST_RETRY: Millis = Millis::from_secs(1);
/// The longest time between two attempts, but for chance.
const LAST_RETRY: Millis = Millis::from_hours(1);
/// How long an event is tried.
pub const TRIED_FOR: Millis = Millis::from_hours(24);

/// One hook's queue.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: BTreeMap<u64, Waiting>,
    /// The one that is on its way: one at a time.
    on_its_way: Option<u64>,
    /// Delivered, given up, and let go since the start.
    pub delivered: u64,
    /// Given up, or refused for good.
    pub failed: u64,
    /// Let go because too many waited.
    pub dropped: u64,
    /// The last attempt.
    pub last: Option<HookDelivery>,
}

/// What becomes of an event after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It waits no more.
    Over(Waiting),
    /// It is tried again.
    Again(Waiting),
}

impl Queue {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether this event waits already.
    #[must_use]
    pub fn holds(&self, event: &super::event::EventId) -> bool {
        self.waiting.values().any(|w| w.event == *event)
    }

    /// Takes an event in; returns the one that is let go for it.
    pub fn push(&mut self, waiting: Waiting) -> Option<Waiting> {
        self.waiting.insert(waiting.seq, waiting);
        if self.waiting.len() <= WAITING {
            return None;
        }
        let oldest = self.waiting.keys().find(|seq| Some(**seq) != self.on_its_way).copied()?;
        self.dropped += 1;
        self.waiting.remove(&oldest)
    }

    /// When the next attempt is due; none while one is made.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        if self.on_its_way.is_some() {
            return None;
        }
        self.waiting.values().map(|w| w.next).min()
    }

    /// The event to try now: of those that are due, the oldest.
    pub fn take(&mut self, now: Timestamp) -> Option<Waiting> {
        if self.on_its_way.is_some() {
            return None;
        }
        let waiting = self.waiting.values().find(|w| w.next <= now)?;
        self.on_its_way = Some(waiting.seq);
        Some(waiting.clone())
    }

    /// An attempt has ended. `chance` moves the next one by up to a fifth either way. None if the event was let go meanwhile.
    pub fn tried(&mut self, seq: u64, verdict: Verdict, now: Timestamp, chance: u8) -> Option<Next> {
        if self.on_its_way == Some(seq) {
            self.on_its_way = None;
        }
        let mut waiting = self.waiting.remove(&seq)?;
        waiting.attempts = waiting.attempts.saturating_add(1);
        match verdict {
            Verdict::Delivered => self.delivered += 1,
            Verdict::Again(wait) => {
                let wait = backoff(waiting.attempts, wait, chance);
                waiting.next = Timestamp(now.0.saturating_add(wait.0));
                if waiting.next.since(waiting.since) < TRIED_FOR {
                    self.waiting.insert(seq, waiting.clone());
                    return Some(Next::Again(waiting));
                }
                self.failed += 1;
            }
            Verdict::Never | Verdict::Gone => self.failed += 1,
        }
        Some(Next::Over(waiting))
    }

    /// Lets all go, because the hook is removed or wants nothing any more.
    pub fn clear(&mut self) -> Vec<Waiting> {
        self.on_its_way = None;
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

/// How long after so many attempts the next one is made.
fn backoff(attempts: u32, asked: Option<Duration>, chance: u8) -> Millis {
    let doubled = FIRST_RETRY.0.checked_shl(attempts.saturating_sub(1)).filter(|_| attempts <= 32).unwrap_or(u64::MAX);
    let wait = doubled.min(LAST_RETRY.0);
    let moved = wait * 4 / 5 + wait * 2 / 5 * u64::from(chance) / 255;
    let asked = asked.map_or(0, |a| u64::try_from(a.as_millis()).unwrap_or(u64::MAX));
    Millis(moved.max(asked))
}

/// The latest that a next attempt can be: what a clock that was set back says beyond it is not believed.
#[must_use]
pub fn latest_retry(now: Timestamp) -> Timestamp {
    Timestamp(now.0.saturating_add(LAST_RETRY.0 * 6 / 5))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hooks::event::{EventId, EventKind};

    fn waiting(seq: u64) -> Waiting {
        let (event, kind) = (EventId([0; 16]), EventKind::Outbid);
        Waiting { seq, hook: 1, event, kind, since: Timestamp(0), attempts: 0, next: Timestamp(0), body: String::new() }
    }

    #[test]
    fn it_is_tried_at_doubling_distances_for_a_day() {
        let mut queue = Queue::default();
        queue.push(waiting(1));
        let (mut now, mut gaps) = (Timestamp(0), Vec::new());
        loop {
            let tried = queue.take(now).unwrap();
            assert!(queue.take(now).is_none() && queue.due().is_none(), "one at a time");
            match queue.tried(tried.seq, Verdict::Again(None), now, 127).unwrap() {
                Next::Again(again) => {
                    gaps.push(again.next.since(now).0);
                    now = again.next;
                }
                Next::Over(_) => break,
            }
        }
        let near = |ms: u64, want: u64| ms.abs_diff(want) <= want / 50 + 1;
        assert!(near(gaps[0], 1000) && near(gaps[1], 2000) && near(gaps[5], 32_000), "{gaps:?}");
        assert!(near(*gaps.last().unwrap(), 3_600_000) && (30..40).contains(&gaps.len()), "{gaps:?}");
        assert!(queue.is_empty() && queue.failed == 1);
        assert!(now.0 > TRIED_FOR.0 * 9 / 10 && now.0 < TRIED_FOR.0);
        assert_eq!(backoff(1, None, 0).0, 800);
        assert_eq!(backoff(1, None, 255).0, 1200);
        assert_eq!(backoff(u32::MAX, Some(Duration::from_secs(9000)), 0).0, 9_000_000);
    }

    #[test]
    fn when_full_the_oldest_goes_but_not_the_one_on_its_way() {
        let mut queue = Queue::default();
        for seq in 0..WAITING as u64 {
            assert!(queue.push(waiting(seq)).is_none());
        }
        assert_eq!(queue.take(Timestamp(1)).unwrap().seq, 0);
        assert_eq!(queue.push(waiting(5000)).unwrap().seq, 1);
        assert_eq!((queue.len(), queue.dropped), (WAITING, 1));
        assert!(matches!(queue.tried(0, Verdict::Delivered, Timestamp(1), 0), Some(Next::Over(_))));
        assert_eq!(queue.take(Timestamp(1)).unwrap().seq, 2, "in order");
        assert!(queue.tried(1, Verdict::Delivered, Timestamp(1), 0).is_none());
    }

    #[test]
    fn one_that_fails_does_not_hold_up_the_others() {
        let mut queue = Queue::default();
        queue.push(waiting(1));
        queue.push(waiting(2));
        let first = queue.take(Timestamp(0)).unwrap();
        queue.tried(first.seq, Verdict::Again(None), Timestamp(0), 0);
        assert_eq!(queue.take(Timestamp(0)).unwrap().seq, 2);
    }
}
