//! How much one peer may ask at once, so that others get their turn.
//!
//! Owns the requests of a peer that wait for the consumer, and the bytes of answers that their askers have not taken. Pure counts and
//! queues: the task hands requests on and sends the answers.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Weak},
};

use libp2p::{
    PeerId,
    request_response::{InboundRequestId, ResponseChannel},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    exchange::{Answer, IntakePermit},
    limits::{ANSWERS, MAX_ANSWER, PEER_ANSWERS, PEER_TURN, SOURCE_REQUESTS, WINDOW},
};

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) id: InboundRequestId,
    pub(crate) body: Vec<u8>,
    pub(crate) held: Option<IntakePermit>,
    pub(crate) channel: ResponseChannel<Answer>,
    /// Its place among the requests of its address, until it is answered.
    pub(crate) place: OwnedSemaphorePermit,
}

/// Places for requests, by the address they come from: [`SOURCE_REQUESTS`] each.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    of: HashMap<IpAddr, Weak<Semaphore>>,
}

impl Sources {
    /// The places of a source; who has none, as on this machine, has them for itself.
    pub(crate) fn places(&mut self, source: Option<IpAddr>) -> Arc<Semaphore> {
        let fresh = || Arc::new(Semaphore::new(SOURCE_REQUESTS));
        let Some(source) = source else { return fresh() };
        let known = self.of.get(&source).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            self.of.retain(|_, places| places.strong_count() > 0);
            let places = fresh();
            self.of.insert(source, Arc::downgrade(&places));
            places
        })
    }
}

/// One peer's requests: at most [`PEER_TURN`] with the consumer, at most a [`WINDOW`] behind them.
#[derive(Debug)]
pub(crate) struct Turn<T = Asked> {
    waiting: VecDeque<T>,
    asked: usize,
}

impl<T> Default for Turn<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), asked: 0 }
    }
}

impl<T> Turn<T> {
    /// Puts a request behind the others; gives it back if there are too many.
    pub(crate) fn wait(&mut self, asked: T) -> Result<(), Box<T>> {
        if self.waiting.len() >= WINDOW {
            return Err(Box::new(asked));
        }
        self.waiting.push_back(asked);
        Ok(())
    }

    /// The next request to hand to the consumer, if it is the peer's turn. Each is followed by [`Turn::done`].
    pub(crate) fn next(&mut self) -> Option<T> {
        if self.asked >= PEER_TURN {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.asked += 1;
        Some(next)
    }

    /// The consumer is done with one of the peer's. One from before it reconnected may be among them.
    pub(crate) fn done(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }
}

/// Answers that their askers have not taken yet, by bytes.
#[derive(Debug)]
pub(crate) struct Untaken<I = InboundRequestId> {
    answers: HashMap<I, (PeerId, usize)>,
    of: HashMap<PeerId, usize>,
    all: usize,
}

impl<I> Default for Untaken<I> {
    fn default() -> Self {
        Self { answers: HashMap::new(), of: HashMap::new(), all: 0 }
    }
}

impl<I: std::hash::Hash + Eq> Untaken<I> {
    fn share(&self) -> usize {
        if self.all < ANSWERS { PEER_ANSWERS } else { MAX_ANSWER / 4 }
    }

    /// Whether a peer has so much to take that it is not worth working out another answer.
    pub(crate) fn is_full(&self, peer: &PeerId) -> bool {
        self.of.get(peer).is_some_and(|bytes| *bytes >= self.share())
    }

    /// Notes an answer that goes out now; false if it does not fit beside those the peer has not taken.
    pub(crate) fn give(&mut self, peer: PeerId, id: I, bytes: usize) -> bool {
        let share = self.share();
        let before = self.of.get(&peer).copied().unwrap_or_default();
        if before > 0 && before + bytes > share {
            return false;
        }
        if bytes > 0 {
            self.answers.insert(id, (peer, bytes));
            self.of.insert(peer, before + bytes);
            self.all += bytes;
        }
        true
    }

    /// An answer has gone out, or never will.
    pub(crate) fn taken(&mut self, id: &I) {
        let Some((peer, bytes)) = self.answers.remove(id) else { return };
        self.all -= bytes;
        if let Some(left) = self.of.get_mut(&peer) {
            *left -= bytes;
            if *left == 0 {
                self.of.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_has_its_turn_and_a_window_behind_it() {
        let mut turn = Turn::<usize>::default();
        for n in 0..WINDOW {
            turn.wait(n).unwrap();
        }
        assert_eq!(*turn.wait(99).unwrap_err(), 99);
        let handed: Vec<usize> = std::iter::from_fn(|| turn.next()).collect();
        assert_eq!(handed, (0..PEER_TURN).collect::<Vec<_>>());
        turn.done();
        assert_eq!((turn.next(), turn.next()), (Some(PEER_TURN), None));
    }

    #[test]
    fn an_address_has_its_places_whoever_comes_from_it() {
        let mut sources = Sources::default();
        let at = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let (one, same, other) =
            (sources.places(at("8.8.8.8")), sources.places(at("8.8.8.8")), sources.places(at("8.8.4.4")));
        let all = one.try_acquire_many(u32::try_from(SOURCE_REQUESTS).unwrap()).unwrap();
        assert!(same.try_acquire().is_err() && other.try_acquire().is_ok());
        drop(all);
        assert!(same.try_acquire().is_ok());
        drop((one, same, other));
        let _ = sources.places(at("1.1.1.1"));
        assert_eq!(sources.of.len(), 1, "those who have gone are forgotten");
        assert!(!Arc::ptr_eq(&sources.places(None), &sources.places(None)));
    }

    #[test]
    fn who_does_not_take_its_answers_gets_no_more_and_others_do() {
        let mut untaken = Untaken::<usize>::default();
        let (deaf, other) = (PeerId::random(), PeerId::random());
        for n in 0..4 {
            assert!(!untaken.is_full(&deaf) && untaken.give(deaf, n, MAX_ANSWER));
        }
        assert!(untaken.is_full(&deaf) && !untaken.give(deaf, 4, 1));
        assert!(!untaken.is_full(&other) && untaken.give(other, 5, MAX_ANSWER));
        untaken.taken(&0);
        untaken.taken(&0);
        assert!(untaken.give(deaf, 6, MAX_ANSWER));
        for id in [1, 2, 3, 5, 6] {
            untaken.taken(&id);
        }
        assert!(untaken.of.is_empty() && untaken.answers.is_empty() && untaken.all == 0);
    }

    #[test]
    fn where_all_is_full_each_answer_waits_for_the_last() {
        let mut untaken = Untaken::<usize>::default();
        for n in 0..64 {
            assert!(untaken.give(PeerId::random(), n, MAX_ANSWER));
        }
        let late = PeerId::random();
        assert!(untaken.give(late, 100, MAX_ANSWER), "who reads is served");
        assert!(untaken.is_full(&late) && !untaken.give(late, 101, 1));
    }
}
