//! Trust from where we stand: a personalised walk over settled trade, cut after [`limits::DEPTH`] steps, computed exactly.
//!
//! Owns the walk, the halving of regions behind one bridge, and how much of a node's trust came through another. What trust is
//! worth in votes is `votes`' business.

use std::collections::BTreeSet;

use super::{
    graph::{Graph, Index},
    limits::{BRIDGE, DEPTH, RESTART},
};

/// Where one step goes, with its share, by number.
type Steps = Vec<Vec<(Index, f64)>>;

/// A finished walk.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Share of the start at each node; sums to 1, or to 0 if there is nowhere to start.
    pub start: Vec<f64>,
    /// Trust that came to each node by walking.
    pub mass: Vec<f64>,
    /// Steps from the nearest start; `usize::MAX` for what is out of reach.
    pub depth: Vec<usize>,
    /// `at[k][node]`: what is at a node after k steps.
    at: Vec<Vec<f64>>,
    /// Steps from a node, with what does not go back to the start, and bridges halved.
    forth: Steps,
    /// The same by where they end.
    back: Steps,
}

impl Walk {
    /// Walks `graph` from `start`, with one-way edges of accepted attesters beside its trade.
    pub(super) fn new(graph: &Graph, start: Vec<f64>, vouched: &[(Index, Index, f64)]) -> Self {
        let mut edges = graph.trade.clone();
        for (from, to, value) in vouched {
            edges[*from as usize].push((*to, *value));
        }
        let depth = depths(&edges, &start);
        let mut forth: Steps = edges
            .into_iter()
            .map(|edges| {
                let all: f64 = edges.iter().map(|(_, value)| value).sum();
                edges.into_iter().map(|(to, value)| (to, (1.0 - RESTART) * value / all)).collect()
            })
            .collect();
        let at = steps(&forth, &start);
        let bridges = bridges(&forth, &at, &depth, &start);
        for edges in &mut forth {
            edges.iter_mut().for_each(|(to, share)| *share *= bridges[*to as usize]);
        }
        let at = steps(&forth, &start);
        let mut back: Steps = vec![Vec::new(); start.len()];
        for (from, edges) in (0_u32..).zip(&forth) {
            edges.iter().for_each(|(to, share)| back[*to as usize].push((from, *share)));
        }
        let mass = (0..start.len()).map(|n| RESTART * at[1..].iter().map(|step| step[n]).sum::<f64>()).collect();
        Self { start, mass, depth, at, forth, back }
    }

    /// Whether the walk begins at a node.
    pub(super) fn is_start(&self, node: Index) -> bool {
        self.start[node as usize] > 0.0
    }

    /// For each of `raters`, the trust in it that did not come through `node`: whoever is fed by the host it praises has none.
    pub(super) fn without(&self, node: Index, raters: impl Iterator<Item = Index>, scratch: &mut Scratch) -> Vec<f64> {
        let n = node as usize;
        // One and two steps from the node, and back to it after two and three.
        let one = &self.forth[n];
        scratch.clear();
        for (middle, share) in one {
            for (to, next) in &self.forth[*middle as usize] {
                scratch.add(*to, share * next);
            }
        }
        let into = |to: Index, scratch: &Scratch| -> f64 {
            self.back[to as usize].iter().map(|(from, share)| scratch.get(*from) * share).sum()
        };
        let home = [scratch.get(node), into(node, scratch)];
        // What first comes to the node after so many steps.
        let first0 = self.start[n];
        let first1 = self.at[1][n];
        let first2 = self.at[2][n] - first0 * home[0];
        let first3 = self.at[3][n] - first0 * home[1] - first1 * home[0];
        let (first2, first3) = (first2.max(0.0), first3.max(0.0));
        raters
            .map(|rater| {
                let step1 = one.iter().filter(|(to, _)| *to == rater).map(|(_, share)| share).sum::<f64>();
                let step2 = scratch.get(rater);
                let step3 = into(rater, scratch);
                let fed = RESTART
                    * (first0 * (step1 + step2 + step3)
                        + first1 * (step1 + step2 + step3)
                        + first2 * (step1 + step2)
                        + first3 * step1);
                (self.mass[rater as usize] - fed).max(0.0)
            })
            .collect()
    }
}

/// Sparse sums by node, kept between uses so that each costs only what it touches.
#[derive(Debug)]
pub(super) struct Scratch {
    sums: Vec<f64>,
    touched: Vec<Index>,
}

impl Scratch {
    pub(super) fn new(nodes: usize) -> Self {
        Self { sums: vec![0.0; nodes], touched: Vec::new() }
    }

    fn clear(&mut self) {
        for node in self.touched.drain(..) {
            self.sums[node as usize] = 0.0;
        }
    }

    fn add(&mut self, node: Index, value: f64) {
        let sum = &mut self.sums[node as usize];
        if *sum == 0.0 {
            self.touched.push(node);
        }
        *sum += value;
    }

    fn get(&self, node: Index) -> f64 {
        self.sums[node as usize]
    }
}

/// What is at each node after 0, 1, … [`DEPTH`] steps.
fn steps(forth: &Steps, start: &[f64]) -> Vec<Vec<f64>> {
    let mut at = vec![start.to_vec()];
    for _ in 0..DEPTH {
        let mut next = vec![0.0; start.len()];
        if let Some(here) = at.last() {
            for (edges, mass) in forth.iter().zip(here).filter(|(_, mass)| **mass > 0.0) {
                edges.iter().for_each(|(to, share)| next[*to as usize] += mass * share);
            }
        }
        at.push(next);
    }
    at
}

/// Steps from the nearest start; `usize::MAX` for what is out of reach.
fn depths(edges: &Steps, start: &[f64]) -> Vec<usize> {
    let mut depth = vec![usize::MAX; start.len()];
    let mut here: BTreeSet<usize> = (0..start.len()).filter(|n| start[*n] > 0.0).collect();
    for steps in 0..=DEPTH {
        here.iter().for_each(|n| depth[*n] = steps);
        let next = here.iter().flat_map(|n| &edges[*n]).map(|(to, _)| *to as usize);
        here = next.filter(|n| depth[*n] == usize::MAX).collect();
    }
    depth
}

/// What is left of what comes to each node: [`BRIDGE`] if all of it comes over one node nearer to the start, all of it if no
/// such node brings more than half. What we deal with or name ourselves is no bridge.
fn bridges(forth: &Steps, at: &[Vec<f64>], depth: &[usize], start: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; start.len()];
    let mut largest = vec![0.0_f64; start.len()];
    for (from, edges) in forth.iter().enumerate() {
        let sent: f64 = at[..DEPTH].iter().map(|step| step[from]).sum();
        for (to, share) in edges.iter().map(|(to, share)| (*to as usize, share)).filter(|_| sent > 0.0) {
            if depth[from] < depth[to] {
                sum[to] += sent * share;
                if start[from] == 0.0 {
                    largest[to] = largest[to].max(sent * share);
                }
            }
        }
    }
    let left = |(sum, largest): (f64, f64)| {
        if sum > 0.0 { (1.0 + BRIDGE - largest / sum).clamp(BRIDGE, 1.0) } else { 1.0 }
    };
    sum.into_iter().zip(largest).map(left).collect()
}
