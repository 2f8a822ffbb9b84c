//! How one offer spreads by gossip: along the mesh at once, by `IHAVE` and `IWANT` where that fails. Owns the rules of
//! forwarding; what a node then thinks of the offer is the book's.
//!
//! Offers don't wait for each other here: a node's line is idle when one comes. Each copy may be lost, as with a peer's queue that
//! overflows; between real nodes QUIC would send a lost packet again.

use crate::{costs, market::Dice, mesh::Mesh};

/// Between two heartbeats of gossipsub, in milliseconds.
pub(crate) const HEARTBEAT: u32 = 500;
/// In so many heartbeats a message is told of (`history_gossip`).
pub(crate) const TOLD: u32 = 3;
/// To so many peers outside the mesh (`gossip_lazy`; a quarter of 14 is less).
pub(crate) const LAZY: usize = 6;
/// An `IWANT` that is not followed by its message in so many milliseconds may be sent again (`iwant_followup_time`).
const FOLLOW_UP: u32 = 3000;
/// From a message's arrival to its first forwarded copy, in milliseconds: the verdict.
const VERDICT: u32 = 1;
/// Never.
pub(crate) const NEVER: u32 = u32::MAX;
/// Nothing of a flood is left after so many milliseconds: heartbeats in a row that all fail are given up.
const HORIZON: usize = 30_000;

#[derive(Debug, Clone, Copy)]
enum Step {
    Message { to: u32, from: u32 },
    Heartbeat { node: u32, n: u32 },
    Told { node: u32, by: u32, ms: u16 },
}

/// What one flood cost one node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Copies {
    /// Received, the first one among them.
    pub(crate) received: u16,
    /// Sent.
    pub(crate) sent: u16,
    /// Small messages about it: `IWANT`, `IDONTWANT`. Received and sent.
    pub(crate) notes: (u16, u16),
}

/// The room that a flood needs, used again by the next.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    steps: Vec<Vec<Step>>,
    asked: Vec<u32>,
    /// By node, of the last flood.
    pub(crate) copies: Vec<Copies>,
}

/// What is spread, and where.
pub(crate) struct Spread<'a> {
    pub(crate) net: &'a Mesh,
    pub(crate) online: &'a [bool],
    pub(crate) origin: u32,
    /// Milliseconds since the world began.
    pub(crate) at: u64,
    /// Of the message.
    pub(crate) bytes: usize,
    /// In a thousand.
    pub(crate) loss: u64,
    /// Messages of so many bytes are announced by `IDONTWANT`.
    pub(crate) unwanted_from: usize,
}

impl Spread<'_> {
    fn loses(&self, dice: &mut Dice) -> bool {
        self.loss > 0 && dice.below(1000) < self.loss
    }
}

impl Flood {
    /// Spreads it; gives back when each node has it, in milliseconds from now, and when the last has.
    pub(crate) fn run(&mut self, spread: &Spread<'_>, dice: &mut Dice) -> (Vec<u32>, u32) {
        let n = spread.online.len();
        let mut arrival = vec![NEVER; n];
        self.copies.clear();
        self.copies.resize(n, Copies::default());
        self.asked.clear();
        self.asked.resize(n, 0);
        self.steps.iter_mut().for_each(Vec::clear);
        let mut left = spread.online.iter().filter(|o| **o).count();
        let mut last = 0;
        self.push(0, Step::Message { to: spread.origin, from: spread.origin });
        let mut t = 0;
        while t < self.steps.len() && left > 0 {
            let mut at = 0;
            // What a step adds for this very millisecond is done in it.
            while at < self.steps[t].len() && left > 0 {
                let step = self.steps[t][at];
                at += 1;
                match step {
                    Step::Message { to, from } => {
                        if arrival[to as usize] == NEVER {
                            arrival[to as usize] = t as u32;
                            (left, last) = (left - 1, t as u32);
                            self.forward(spread, to, from, &arrival, dice);
                        }
                    }
                    Step::Heartbeat { node, n } => self.tell(spread, (node, n), t as u32, &arrival, dice),
                    Step::Told { node, by, ms } => {
                        if arrival[node as usize] == NEVER && self.asked[node as usize] <= t as u32 {
                            self.want(spread, (node, by, ms), t as u32, dice);
                        }
                    }
                }
            }
            t += 1;
        }
        (arrival, last)
    }

    fn push(&mut self, at: u32, step: Step) {
        let at = at as usize;
        if at < HORIZON {
            if self.steps.len() <= at {
                self.steps.resize_with(at + 1, Vec::new);
            }
            self.steps[at].push(step);
        }
    }

    fn forward(&mut self, spread: &Spread<'_>, node: u32, from: u32, arrival: &[u32], dice: &mut Dice) {
        let now = arrival[node as usize];
        let announced = spread.bytes >= spread.unwanted_from && node != spread.origin;
        let mut turn = 0;
        for &(peer, ms) in spread.net.mesh.of(node) {
            let p = peer as usize;
            if !spread.online[p] {
                continue;
            }
            if announced {
                self.copies[node as usize].notes.1 += 1;
                self.copies[p].notes.0 += 1;
            }
            // It has said that it has it.
            let said = spread.bytes >= spread.unwanted_from
                && arrival[p] != NEVER
                && peer != spread.origin
                && arrival[p] + u32::from(ms) <= now;
            if peer == from || said {
                continue;
            }
            self.copies[node as usize].sent += 1;
            turn += 1;
            if spread.loses(dice) {
                continue;
            }
            self.copies[p].received += 1;
            if arrival[p] == NEVER {
                let at = now + VERDICT + u32::from(ms) + costs::line_ms(turn * spread.bytes);
                self.push(at, Step::Message { to: peer, from: node });
            }
        }
        let beat = u64::from(HEARTBEAT);
        let phase = (spread.at + u64::from(now)) % beat;
        let wait = (u64::from(spread.net.beat[node as usize]) + beat - phase) % beat;
        self.push(now + wait.max(1) as u32, Step::Heartbeat { node, n: 1 });
    }

    /// Only those who lack it matter; the bytes to all are counted elsewhere.
    fn tell(&mut self, spread: &Spread<'_>, (node, n): (u32, u32), now: u32, arrival: &[u32], dice: &mut Dice) {
        let others = spread.net.others.of(node);
        let skip = if others.len() > LAZY { dice.below(others.len() as u64) as usize } else { 0 };
        for &(peer, ms) in others.iter().cycle().skip(skip).take(LAZY.min(others.len())) {
            let lacks = spread.online[peer as usize] && arrival[peer as usize] == NEVER;
            if lacks && !spread.loses(dice) {
                self.push(now + u32::from(ms), Step::Told { node: peer, by: node, ms });
            }
        }
        if n < TOLD {
            self.push(now + HEARTBEAT, Step::Heartbeat { node, n: n + 1 });
        }
    }

    fn want(&mut self, spread: &Spread<'_>, (node, by, ms): (u32, u32, u16), now: u32, dice: &mut Dice) {
        self.asked[node as usize] = now + FOLLOW_UP;
        self.copies[node as usize].notes.1 += 1;
        if spread.loses(dice) {
            return;
        }
        self.copies[by as usize].notes.0 += 1;
        self.copies[by as usize].sent += 1;
        if spread.loses(dice) {
            return;
        }
        self.copies[node as usize].received += 1;
        let at = now + 2 * u32::from(ms) + costs::line_ms(spread.bytes);
        self.push(at, Step::Message { to: node, from: by });
    }
}
