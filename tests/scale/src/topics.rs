//! Sharding: on which topic an offer would be gossiped, and who listens where. Not on the wire: there is one topic of offers.

use souk_protocol::{Digest, resources::SlotClass};

use crate::market::Dice;

/// Models of slots, the most common first. The n-th has a share of 1/n, as models on real markets nearly have.
const CLASSES: [&str; 40] = [
    "RTX 4090",
    "RTX 3090",
    "RTX 5090",
    "H100 80GB HBM3",
    "RTX 4080",
    "A100-SXM4-80GB",
    "RTX 3060",
    "",
    "RTX A6000",
    "L40S",
    "RTX 3080",
    "RTX 4070",
    "H200",
    "A40",
    "RTX 3070",
    "RTX A5000",
    "RTX 4060 Ti",
    "A100-SXM4-40GB",
    "L4",
    "RTX 6000 Ada",
    "RTX A4000",
    "Tesla V100-SXM2-16GB",
    "RTX 5080",
    "RTX 3090 Ti",
    "B200",
    "H100 PCIe",
    "RTX 2080 Ti",
    "A10",
    "RTX 4070 Ti",
    "Tesla T4",
    "RTX 5070",
    "RTX 3060 Ti",
    "RTX 5000 Ada",
    "L40",
    "A30",
    "GTX 1080 Ti",
    "Tesla P100",
    "GTX 1070",
    "MI300X",
    "RX 7900 XTX",
];
/// Classes that a renter searches.
const SEARCHED: usize = 2;
/// In a hundred nodes, those that listen to everything.
const LISTENS_TO_ALL: u64 = 2;

/// The topic of an offer, of so many: a function of its class ([`souk_protocol::offer::Offer::class`]) and of nothing else.
#[must_use]
pub fn topic_of(class: &SlotClass, topics: u16) -> u16 {
    let name = match class {
        SlotClass::Gpu(model) => model.as_str(),
        SlotClass::Cpu => "",
    };
    let digest = Digest::of(name.as_bytes()).0;
    (u64::from_be_bytes(std::array::from_fn(|i| digest[i])) % u64::from(topics.max(1))) as u16
}

/// Draws a class by its share.
pub(crate) fn class(dice: &mut Dice) -> SlotClass {
    // In 1/1000 of the first one's share.
    let shares = (1..=CLASSES.len() as u64).map(|n| 1000 / n);
    let mut left = dice.below(shares.clone().sum());
    for (name, share) in CLASSES.iter().zip(shares) {
        if left < share {
            return if name.is_empty() { SlotClass::Cpu } else { SlotClass::Gpu((*name).to_owned()) };
        }
        left -= share;
    }
    SlotClass::Cpu
}

/// The topics a node listens to: that of its own machine, if it has one, and those of what it searches.
pub(crate) fn listens(own: Option<&SlotClass>, topics: u16, dice: &mut Dice) -> Vec<u16> {
    if dice.percent(LISTENS_TO_ALL) {
        return (0..topics).collect();
    }
    let searched: Vec<SlotClass> = (0..SEARCHED).map(|_| class(dice)).collect();
    let mut all: Vec<u16> = searched.iter().chain(own).map(|class| topic_of(class, topics)).collect();
    all.sort_unstable();
    all.dedup();
    all
}
