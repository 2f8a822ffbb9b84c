//! A run: who hosts what and listens where, one world for each topic, and the sum of them. Topics share nodes and nothing else: a
//! node gossips and compares books for each of its topics by itself.

use souk_protocol::resources::SlotClass;

use crate::{
    costs,
    figures::{Figures, Percentiles, Spread},
    market::Dice,
    topics,
    world::{Member, Traffic, World},
};

/// What is to be simulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Nodes, beside those that observe.
    pub nodes: u32,
    /// Of them, hosts; each has one machine.
    pub hosts: u32,
    /// Virtual seconds to measure, after the warm-up.
    pub seconds: u64,
    /// Of a thousand copies, so many are lost.
    pub loss_permille: u64,
    /// Topics that offers are sharded over.
    pub topics: u16,
    /// Whole engines that take everything in.
    pub observers: u32,
    /// Copies of so many bytes are announced by `IDONTWANT`; libp2p does so from 1000 on.
    pub unwanted_from: usize,
    /// Gives the same again.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 1000,
            hosts: 1000,
            seconds: 900,
            loss_permille: 0,
            topics: 1,
            observers: 20,
            unwanted_from: 1000,
            seed: 1,
        }
    }
}

/// Runs it. The same plan gives the same figures.
///
/// # Errors
/// If an engine refuses what it is given, which is a fault of this program.
pub fn run(plan: &Plan) -> anyhow::Result<Figures> {
    anyhow::ensure!(plan.hosts <= plan.nodes && plan.nodes > 1 && plan.topics > 0, "no such world can be made");
    let mut dice = Dice(plan.seed);
    let classes: Vec<Option<SlotClass>> = (0..plan.nodes)
        .map(|n| {
            let class = topics::class(&mut dice);
            (n < plan.hosts).then_some(class)
        })
        .collect();
    let mut listeners = vec![Vec::new(); plan.topics.into()];
    for (n, class) in classes.iter().enumerate() {
        for topic in topics::listens(class.as_ref(), plan.topics, &mut dice) {
            let offers = class.clone().filter(|class| topics::topic_of(class, plan.topics) == topic);
            listeners[usize::from(topic)].push(Member { node: n as u32, offers });
        }
    }
    let mut sum = Sum::new(plan);
    let all: usize = listeners.iter().map(Vec::len).sum();
    for members in listeners {
        if members.iter().all(|m| m.offers.is_none()) {
            continue;
        }
        let share = plan.observers as usize * members.len() / all;
        let world = World::new(plan, members, share.max(2), Dice(dice.roll()))?;
        sum.add(world.run());
    }
    Ok(sum.figures())
}

/// What a world found.
pub(crate) struct Found {
    pub(crate) members: Vec<Member>,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) figures: Figures,
    pub(crate) offers: u64,
    pub(crate) offer_bytes: u64,
    pub(crate) copies: u64,
    pub(crate) expected: u64,
    pub(crate) missed: u64,
    pub(crate) to_node: Spread,
    pub(crate) to_all: Spread,
}

struct Sum {
    figures: Figures,
    traffic: Vec<Traffic>,
    offers: u64,
    offer_bytes: u64,
    copies: u64,
    expected: u64,
    missed: u64,
    to_node: Spread,
    to_all: Spread,
}

impl Sum {
    fn new(plan: &Plan) -> Self {
        let figures = Figures {
            seed: plan.seed,
            nodes: plan.nodes,
            hosts: plan.hosts,
            topics: plan.topics,
            seconds: plan.seconds,
            loss_permille: plan.loss_permille,
            unwanted_from: plan.unwanted_from as u64,
            equal_after: Some(0.0),
            ..Figures::default()
        };
        Self {
            figures,
            traffic: vec![Traffic::default(); plan.nodes as usize],
            offers: 0,
            offer_bytes: 0,
            copies: 0,
            expected: 0,
            missed: 0,
            to_node: Spread::default(),
            to_all: Spread::default(),
        }
    }

    fn add(&mut self, found: Found) {
        for (member, traffic) in found.members.iter().zip(&found.traffic) {
            self.traffic[member.node as usize].add(traffic);
        }
        let (figures, of) = (&mut self.figures, found.figures);
        figures.observers += of.observers;
        if of.largest_topic.0 > figures.largest_topic.0 {
            (figures.largest_topic, figures.joiner, figures.cut_off) = (of.largest_topic, of.joiner, of.cut_off);
        }
        figures.equal_after = figures.equal_after.zip(of.equal_after).map(|(a, b)| a.max(b));
        figures.verdicts.iter_mut().zip(of.verdicts).for_each(|(a, b)| *a += b);
        self.offers += found.offers;
        self.offer_bytes += found.offer_bytes;
        self.copies += found.copies;
        self.expected += found.expected;
        self.missed += found.missed;
        self.to_node.join(found.to_node);
        self.to_all.join(found.to_all);
    }

    fn figures(mut self) -> Figures {
        let seconds = self.figures.seconds as f64;
        let round = |v: f64| (v * 1000.0).round() / 1000.0;
        let each = |of: &dyn Fn(&Traffic) -> u64, unit: f64| {
            Percentiles::of(self.traffic.iter().map(|t| of(t) as f64 / unit / seconds).collect())
        };
        let mean = |of: &dyn Fn(&Traffic) -> u64| {
            round(self.traffic.iter().map(|t| of(t) as f64).sum::<f64>() / 1000.0 / seconds / self.traffic.len() as f64)
        };
        self.figures.received = each(&|t| t.received.iter().sum(), 1000.0);
        self.figures.sent = each(&|t| t.sent, 1000.0);
        self.figures.received_by_kind = [mean(&|t| t.received[0]), mean(&|t| t.received[1]), mean(&|t| t.received[2])];
        self.figures.cpu = each(&|t| t.ns + costs::MESSAGE_NS * t.messages, 1_000_000.0);
        self.figures.offers_per_second = round(self.offers as f64 / seconds);
        self.figures.offer_bytes = round(self.offer_bytes as f64 / self.offers.max(1) as f64);
        self.figures.copies = round(self.copies as f64 / self.expected.max(1) as f64);
        self.figures.missed_per_million = round(self.missed as f64 * 1e6 / self.expected.max(1) as f64);
        self.figures.to_node = Percentiles::spread(&self.to_node);
        self.figures.to_all = Percentiles::spread(&self.to_all);
        self.figures
    }
}
