//! The network: who can reach whom, which connections there are, and the fate of a message.

use std::collections::BTreeSet;

use super::dice::Dice;

/// A pair of nodes, lower first.
#[must_use]
pub fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The network's state.
#[derive(Debug)]
pub struct Net {
    /// Messages lost, per mille.
    pub loss: u64,
    /// Requests that arrive twice, or once more much later, per mille.
    pub repeat: u64,
    /// Connections that exist.
    pub links: BTreeSet<(usize, usize)>,
    /// Connections that are made again whenever it is possible.
    pub wanted: BTreeSet<(usize, usize)>,
    near: Vec<BTreeSet<usize>>,
    side: Vec<u8>,
    cut: BTreeSet<(usize, usize)>,
}

impl Net {
    /// A whole network.
    #[must_use]
    pub fn new(nodes: usize, loss: u64, repeat: u64) -> Self {
        Self {
            loss,
            repeat,
            links: BTreeSet::new(),
            near: vec![BTreeSet::new(); nodes],
            wanted: BTreeSet::new(),
            side: vec![0; nodes],
            cut: BTreeSet::new(),
        }
    }

    /// Splits the nodes in two.
    pub fn partition(&mut self, dice: &mut Dice) {
        for side in &mut self.side {
            *side = u8::from(dice.permille(400));
        }
    }

    /// Cuts a pair apart, or joins it again.
    pub fn cut(&mut self, a: usize, b: usize, apart: bool) {
        if apart {
            self.cut.insert(pair(a, b));
        } else {
            self.cut.remove(&pair(a, b));
        }
    }

    /// Makes it whole again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.side.fill(0);
    }

    /// Whether a message from one can get to the other.
    #[must_use]
    pub fn reaches(&self, a: usize, b: usize) -> bool {
        self.side[a] == self.side[b] && !self.cut.contains(&pair(a, b))
    }

    /// How long a message takes, or none if it is lost.
    pub fn delay(&self, dice: &mut Dice) -> Option<u64> {
        if dice.permille(self.loss) {
            return None;
        }
        Some(if dice.permille(50) { dice.range(200, 6000) } else { dice.range(1, 120) })
    }

    /// Makes a connection; false if there is one.
    pub fn link(&mut self, a: usize, b: usize) -> bool {
        self.near[a].insert(b);
        self.near[b].insert(a);
        self.links.insert(pair(a, b))
    }

    /// Ends a connection; false if there is none.
    pub fn unlink(&mut self, a: usize, b: usize) -> bool {
        self.near[a].remove(&b);
        self.near[b].remove(&a);
        self.links.remove(&pair(a, b))
    }

    /// Connections of a node.
    #[must_use]
    pub fn neighbours(&self, node: usize) -> Vec<usize> {
        self.near[node].iter().copied().collect()
    }
}
