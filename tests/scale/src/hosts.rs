//! What hosts offer, and how it changes: the setups that real engines are given. When an offer goes out is the engine's affair.

use souk_protocol::{
    Amount, Millis, NodeId, SshKey,
    machine::{
        policy::{Accept, HostSetup},
        pricing::OwnerAsked,
    },
    resources::SlotClass,
};

use crate::market::{self, Dice};

/// Between two changes of a host's state, on average: somebody rents a slot, or gives it back.
pub(crate) const CHANGE_EVERY: Millis = Millis::from_mins(5);

/// A machine of a class.
pub(crate) fn setup(host: NodeId, class: &SlotClass, dice: &mut Dice) -> HostSetup {
    let mut offer = market::offer(dice, host);
    // Drawn until it has GPUs or not, as its class says.
    while offer.hardware.gpus.is_empty() == matches!(class, SlotClass::Gpu(_)) {
        offer = market::offer(dice, host);
    }
    if let (SlotClass::Gpu(model), Some(group)) = (class, offer.hardware.gpus.first_mut()) {
        group.model.clone_from(model);
    }
    let slots = usize::from(offer.availability.slots_total);
    let device = |n: usize| (!offer.hardware.gpus.is_empty()).then(|| format!("GPU-{n}"));
    HostSetup {
        listed: true,
        machine: offer.machine,
        slots: (0..slots).map(device).collect(),
        floor_slot_hour: offer.terms.min_bid_slot_hour,
        terms: offer.terms,
        hardware: offer.hardware,
        accept: Accept::Anyone,
        asked: OwnerAsked::default(),
        credit: Millis::from_mins(5),
        tick: Millis::from_secs(60),
        max_term: Millis::from_hours(24 * 30),
        volume_mb: 0,
        hold: dice.below(slots as u64 + 1) as u16,
        maintenance: Vec::new(),
        reachability: offer.availability.reachability,
        membership: None,
        ssh_host_key: SshKey([7; 32]),
        public: None,
    }
}

/// Its next state: another number of free slots, or on a machine of one slot now and then another price.
pub(crate) fn change(setup: &mut HostSetup, dice: &mut Dice) {
    let slots = setup.slots.len() as u64;
    if dice.percent(10) {
        setup.terms.slot_hour = Amount(setup.terms.slot_hour.0 + 1_000_000);
    } else {
        setup.hold = ((u64::from(setup.hold) + 1 + dice.below(slots)) % (slots + 1)) as u16;
    }
}

/// Until the next one, as independent events have it.
pub(crate) fn until_next_change(dice: &mut Dice) -> u64 {
    let uniform = (dice.below(1 << 30) + 1) as f64 / (1u64 << 30) as f64;
    (-uniform.ln() * CHANGE_EVERY.0 as f64) as u64 + 1
}
