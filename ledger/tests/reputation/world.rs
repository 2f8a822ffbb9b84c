//! A market made up from a seed: honest hosts of known quality, honest renters, and what attackers add to it.

use std::collections::{BTreeMap, BTreeSet};

use souk_ledger::reputation::{Cause, Evidence, Failure, Reputation, Scores, Seed, Side};
use souk_protocol::{Amount, Currency, LeaseId, Millis, NodeId, Timestamp, money::NANO};

/// Renters, and hosts, on the network's list.
pub const LISTED: usize = 10;
pub const DAY: u64 = 24 * 3_600_000;
pub const NOW: Timestamp = Timestamp(1_800_000_000_000 - 1_800_000_000_000 % DAY);

/// A small generator of our own, so that a seed means the same for ever (SplitMix64).
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    pub fn node(&mut self) -> NodeId {
        let mut id = [0; 32];
        id.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.next().to_le_bytes()));
        NodeId(id)
    }
}

pub fn failed(cause: Cause, admitted: bool) -> Failure {
    Failure { cause, against: Side::Host, admitted }
}

pub struct World {
    pub rng: Rng,
    /// Hosts with the share of their leases that end well.
    pub hosts: Vec<(NodeId, f64)>,
    pub renters: Vec<NodeId>,
    pub evidence: Vec<Evidence>,
}

impl World {
    /// 60 hosts, 250 renters, 90 days. A renter has 6 to 19 leases at 2 to 8 hosts, of 1 to some 60 units each; good hosts are
    /// taken more often, and what goes wrong is the host's own close in two of three cases, the renter's complaint in the third.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let hosts: Vec<(NodeId, f64)> = (0..60).map(|_| (rng.node(), rng.unit())).collect();
        let renters: Vec<NodeId> = (0..250).map(|_| rng.node()).collect();
        let mut world = Self { rng, hosts, renters, evidence: Vec::new() };
        for renter in world.renters.clone() {
            let known: Vec<usize> = (0..2 + world.rng.below(7)).map(|_| world.pick()).collect();
            for _ in 0..6 + world.rng.below(14) {
                let (host, quality) = world.hosts[known[world.rng.below(known.len())]];
                let units = (world.rng.unit() * 4.1).exp();
                let mut failures = BTreeSet::new();
                if world.rng.unit() < 0.5 * (1.0 - quality) {
                    failures.insert(if world.rng.unit() < 0.67 {
                        failed(Cause::HostAbort, true)
                    } else {
                        failed(Cause::PerformanceShort, false)
                    });
                }
                world.lease(renter, host, units, failures);
            }
        }
        world
    }

    fn pick(&mut self) -> usize {
        loop {
            let n = self.rng.below(self.hosts.len());
            if self.rng.unit() < 0.3 + 0.7 * self.hosts[n].1 {
                return n;
            }
        }
    }

    /// A closed and paid lease of the last 90 days.
    pub fn lease(&mut self, renter: NodeId, host: NodeId, units: f64, failures: BTreeSet<Failure>) -> &mut Evidence {
        let amount = Amount((units * NANO as f64) as u64);
        let at = Timestamp(NOW.0 - (self.rng.unit() * 90.0 * DAY as f64) as u64);
        self.evidence.push(Evidence {
            lease: LeaseId(self.rng.node().0),
            host,
            renter,
            signatures: 6,
            n: 60,
            currency: Currency::usd(),
            agreed: amount,
            settled: amount,
            used: Millis((units * 3_600_000.0) as u64),
            at,
            closed: true,
            ends_at: at,
            failures,
        });
        self.evidence.last_mut().unwrap()
    }

    /// A lease without failures.
    pub fn good(&mut self, renter: NodeId, host: NodeId, units: f64) {
        self.lease(renter, host, units, BTreeSet::new());
    }

    /// All that was paid, in units.
    pub fn volume(&self) -> f64 {
        self.evidence.iter().map(|e| e.settled.0 as f64 / NANO as f64).sum()
    }

    pub fn an_honest_host(&mut self) -> NodeId {
        let n = self.rng.below(self.hosts.len());
        self.hosts[n].0
    }

    /// Somebody who has rented here for long: the renter with the most hosts.
    pub fn established(&self) -> Reputation {
        let hosts_of = |r: &NodeId| {
            let hosts: BTreeSet<NodeId> = self.evidence.iter().filter(|e| e.renter == *r).map(|e| e.host).collect();
            hosts.len()
        };
        let most = self.renters.iter().max_by_key(|r| hosts_of(r)).unwrap();
        let mut view = Reputation::new(*most);
        view.evidence.clone_from(&self.evidence);
        view.seeds = self.list();
        view
    }

    /// The network's list.
    fn list(&self) -> BTreeMap<NodeId, Seed> {
        let hosts = self.hosts[..LISTED].iter().map(|h| h.0);
        self.renters[..LISTED].iter().copied().chain(hosts).map(|n| (n, Seed::Listed)).collect()
    }

    /// Somebody who has just come, and has the network's list only.
    pub fn newcomer(&self) -> Reputation {
        let mut view = Reputation::new(NodeId([0xEE; 32]));
        view.seeds = self.list();
        view.evidence.clone_from(&self.evidence);
        view
    }

    pub fn views(&self) -> [(&'static str, Reputation); 2] {
        [("established", self.established()), ("newcomer", self.newcomer())]
    }

    /// Rank correlation of the honest hosts' scores with their quality.
    pub fn correlation(&self, scores: &Scores) -> f64 {
        let pairs: Vec<(f64, f64)> = self.hosts.iter().map(|(h, q)| (scores.of(h).trust, *q)).collect();
        spearman(&pairs)
    }
}

/// Spearman's rank correlation; equals share the mean of their ranks.
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let rank = |value: f64, all: &dyn Fn(&(f64, f64)) -> f64| {
        let below = pairs.iter().filter(|p| all(p) < value).count() as f64;
        let same = pairs.iter().filter(|p| all(p) == value).count() as f64;
        below + (same - 1.0) / 2.0
    };
    let ranks: Vec<(f64, f64)> = pairs.iter().map(|p| (rank(p.0, &|p| p.0), rank(p.1, &|p| p.1))).collect();
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in ranks {
        both += (a - mean) * (b - mean);
        first += (a - mean).powi(2);
        second += (b - mean).powi(2);
    }
    both / (first * second).sqrt()
}

/// Sybil hosts and renters.
pub struct Sybils {
    pub hosts: Vec<NodeId>,
    pub renters: Vec<NodeId>,
}

impl World {
    /// `renters` Sybils buy `share` of the market's trade from honest hosts, in all, and then each praises `each` of `hosts`
    /// Sybil hosts with large leases paid among themselves.
    pub fn sybils(&mut self, renters: usize, hosts: usize, share: f64, each: usize, fake_units: f64) -> Sybils {
        // What they buy is part of the market then.
        let bought = self.volume() * share / (1.0 - share);
        let sybils = Sybils {
            hosts: (0..hosts).map(|_| self.rng.node()).collect(),
            renters: (0..renters).map(|_| self.rng.node()).collect(),
        };
        let purchases = (400 / renters).max(1);
        for (n, renter) in sybils.renters.iter().enumerate() {
            for _ in 0..purchases {
                let host = self.an_honest_host();
                self.good(*renter, host, bought / (renters * purchases) as f64);
            }
            for k in 0..each {
                self.good(*renter, sybils.hosts[(n * each + k) % hosts], fake_units);
            }
        }
        sybils
    }

    /// Every Sybil renter complains of everything about some honest hosts, with leases that cost next to nothing.
    pub fn slander(&mut self, sybils: &Sybils, victims: usize) {
        for renter in &sybils.renters {
            for n in 0..victims {
                let causes = [Cause::Bait, Cause::PerformanceShort, Cause::ProofFailed, Cause::DisputedAck];
                let failures = causes.into_iter().map(|c| failed(c, false)).collect();
                let host = self.hosts[n].0;
                self.lease(*renter, host, 0.0, failures);
            }
        }
    }
}
