//! What a run found, and distributions of numbers. Equal seeds give equal figures: nothing here comes from a clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a number of milliseconds is spread.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// How many of each number below [`FEW`]; most are.
    few: Vec<u64>,
    by: BTreeMap<u64, u64>,
    count: u64,
}

/// Numbers counted in a plain list.
const FEW: u64 = 4096;

impl Spread {
    pub(crate) fn add(&mut self, ms: u64) {
        self.add_many(ms, 1);
    }

    fn add_many(&mut self, ms: u64, n: u64) {
        self.count += n;
        if ms < FEW {
            let at = ms as usize;
            if self.few.len() <= at {
                self.few.resize(at + 1, 0);
            }
            self.few[at] += n;
        } else {
            *self.by.entry(ms).or_default() += n;
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        other.few.iter().zip(0..).for_each(|(n, ms)| self.add_many(ms, *n));
        other.by.into_iter().for_each(|(ms, n)| self.add_many(ms, n));
    }

    /// The least number that so many in a hundred are not above.
    pub(crate) fn at(&self, percent: u64) -> u64 {
        let mut left = (self.count * percent).div_ceil(100);
        let few = self.few.iter().zip(0..).map(|(n, ms)| (ms, *n)).filter(|(_, n)| *n > 0);
        for (ms, n) in few.chain(self.by.iter().map(|(ms, n)| (*ms, *n))) {
            if left <= n {
                return ms;
            }
            left -= n;
        }
        self.by.last_key_value().map_or(0, |(ms, _)| *ms)
    }
}

/// Half of the nodes have no more than the first, 99 in a hundred no more than the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
}

impl Percentiles {
    /// Of these.
    pub(crate) fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        let at = |percent: usize| all.get((all.len() * percent / 100).min(all.len().saturating_sub(1)));
        let round = |v: Option<&f64>| v.map_or(0.0, |v| (v * 1000.0).round() / 1000.0);
        Self { p50: round(at(50)), p99: round(at(99)) }
    }

    pub(crate) fn spread(spread: &Spread) -> Self {
        Self { p50: spread.at(50) as f64, p99: spread.at(99) as f64 }
    }
}

/// How a node came to the whole book.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CatchUp {
    /// From its first connection until it had all that was there then; none if it never did.
    pub seconds: Option<f64>,
    /// What it received for that, kB.
    pub received_kb: f64,
    /// Offers it asked for.
    pub fetched: u64,
    /// Of them, those that it asked more than one peer for.
    pub fetched_twice: u64,
    /// Lines of indexes it read.
    pub lines: u64,
}

/// What a run found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Gives the same again.
    pub seed: u64,
    /// Nodes.
    pub nodes: u32,
    /// Of them, hosts, each of one machine.
    pub hosts: u32,
    /// Topics that offers are sharded over.
    pub topics: u16,
    /// Virtual seconds that were measured.
    pub seconds: u64,
    /// Copies of messages that were lost, in a thousand.
    pub loss_permille: u64,
    /// Copies announced by `IDONTWANT` from so many bytes on.
    pub unwanted_from: u64,
    /// Whole engines, with real books, among the nodes.
    pub observers: u32,
    /// Nodes and hosts of the largest topic.
    pub largest_topic: (u32, u32),
    /// Offers published in a second.
    pub offers_per_second: f64,
    /// Bytes of one, as gossiped.
    pub offer_bytes: f64,
    /// Received by a node, kB/s.
    pub received: Percentiles,
    /// Sent by a node, kB/s.
    pub sent: Percentiles,
    /// Of what is received, kB/s by an average node: offers by gossip, what gossip says of them, reconciliation.
    pub received_by_kind: [f64; 3],
    /// Milliseconds of one core a second.
    pub cpu: Percentiles,
    /// Copies of one offer that one node receives.
    pub copies: f64,
    /// From publication until a node has it, ms.
    pub to_node: Percentiles,
    /// … until the last node that listens has it, ms.
    pub to_all: Percentiles,
    /// Of a million times that an offer should come to a node, gossip failed in so many.
    pub missed_per_million: f64,
    /// A node that comes with an empty book.
    pub joiner: CatchUp,
    /// A node that was cut off for ten minutes (two thirds of the run, if that is shorter).
    pub cut_off: CatchUp,
    /// After the last offer, until all books were equal to the bit, in seconds; none if they never were.
    pub equal_after: Option<f64>,
    /// Verdicts of the observers: taken, ignored, rejected.
    pub verdicts: [u64; 3],
}
