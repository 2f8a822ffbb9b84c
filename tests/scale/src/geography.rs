//! Where nodes are, and how long a packet takes between them. Owns the table of latencies; no queues and no losses.

use crate::market::Dice;

/// Shares of the nodes in a hundred: Europe, North America, East Asia, South America, Oceania.
const SHARES: [u64; 5] = [35, 35, 20, 5, 5];

/// One way in milliseconds, between the regions.
const ONE_WAY: [[u64; 5]; 5] = [
    [12, 45, 110, 95, 135],
    [45, 20, 80, 70, 85],
    [110, 80, 25, 140, 60],
    [95, 70, 140, 20, 150],
    [135, 85, 60, 150, 15],
];

/// Draws a region.
pub(crate) fn region(dice: &mut Dice) -> u8 {
    let mut left = dice.below(100);
    for (region, share) in SHARES.iter().enumerate() {
        if left < *share {
            return region as u8;
        }
        left -= share;
    }
    0
}

/// One way between two nodes, each with its region: the table's, spread by −20 to +40 % over pairs.
pub(crate) fn one_way(a: (u32, u8), b: (u32, u8)) -> u16 {
    let (low, high) = (a.0.min(b.0), a.0.max(b.0));
    let spread = Dice(u64::from(low) << 32 | u64::from(high)).below(61);
    (ONE_WAY[usize::from(a.1)][usize::from(b.1)] * (80 + spread) / 100) as u16
}
