//! Offers: what a host says of one machine, signed and gossiped, and how it takes it back.

use serde::{Deserialize, Serialize};

use crate::{
    id::{AskId, MachineId, NodeId},
    limits,
    money::{Amount, Currency},
    resources::{DiskQuota, Egress, Hardware, RuntimeKind, SlotClass},
    signed::{Document, Invalid, Signed},
    time::{Millis, Timestamp},
};

/// Whom a host rents to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accepts {
    /// Anybody.
    Anyone,
    /// Peers its owner has named; who they are is not told.
    Named,
}

/// How a host is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// At an address of its own.
    Direct,
    /// Through a relay.
    Relayed,
    /// Not known yet.
    Unknown,
}

/// On what terms the machine's slots are to be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// On-demand price of one slot for one hour.
    pub slot_hour: Amount,
    /// The lowest bid for one slot for one hour.
    pub min_bid_slot_hour: Amount,
    /// Disk, per GB and month of 30 days.
    pub storage_gb_month: Amount,
    /// Traffic out of the instance, per GB.
    pub up_gb: Amount,
    /// Traffic into the instance, per GB.
    pub down_gb: Amount,
    /// The currency of every price here.
    pub currency: Currency,
    /// The smallest slice, in slots.
    pub min_slots: u16,
    /// No contract runs past this.
    pub latest_end: Option<Timestamp>,
    /// Warning before an interruptible instance is stopped for a higher bid.
    pub eviction_notice: Millis,
    /// A run cut shorter than this is free.
    pub quantum: Millis,
    /// Discount for a reserved term, in thousandths.
    pub reserved_discount: u16,
    /// What guests may be granted to reach.
    pub egress: Vec<Egress>,
    /// What runs workloads.
    pub runtimes: Vec<RuntimeKind>,
    /// How the disk limit is enforced.
    pub disk_quota: DiskQuota,
    /// Registries images may come from.
    pub registries: Vec<String>,
    /// Ways to pay.
    pub payment: Vec<String>,
    /// Who may rent.
    pub accepts: Accepts,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

impl Window {
    /// Whether a moment is in it.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// What changes by the minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Availability {
    /// Slots the machine is cut into.
    pub slots_total: u16,
    /// Slots to be had at the fixed price now: nobody has them on demand or reserved, nor does the host keep them for itself.
    pub slots_free: u16,
    /// When the machine is maintained next: no new contract crosses it.
    pub maintenance: Option<Window>,
    /// How the host is reached.
    pub reachability: Reachability,
}

/// One machine's offer. Replaced by a higher `seq`; at the same `seq` the lower id wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Whose machine it is: the signer.
    pub host: NodeId,
    /// Which machine.
    pub machine: MachineId,
    /// Orders the offers of a machine; survives restarts.
    pub seq: u64,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends by itself: at most [`limits::OFFER_LIFE`] later.
    pub valid_until: Timestamp,
    /// The machine.
    pub hardware: Hardware,
    /// The terms.
    pub terms: Terms,
    /// The state.
    pub availability: Availability,
}

impl Offer {
    /// The class of the machine's slots.
    #[must_use]
    pub fn class(&self) -> SlotClass {
        self.hardware.gpus.first().map_or(SlotClass::Cpu, |g| SlotClass::Gpu(g.model.clone()))
    }

    /// Sizes this machine is sold in: the smallest slice, doubled up to all of it.
    #[must_use]
    pub fn slices(&self) -> Vec<u16> {
        let total = self.availability.slots_total;
        let mut sizes = Vec::new();
        let mut size = self.terms.min_slots.max(1);
        while size < total {
            sizes.push(size);
            size = size.saturating_mul(2);
        }
        if total > 0 {
            sizes.push(total);
        }
        sizes
    }

    /// The size of the ask with this id, if it is one of this machine's.
    #[must_use]
    pub fn slots_of(&self, ask: &AskId) -> Option<u16> {
        self.slices().into_iter().find(|n| AskId::of(&self.host, &self.machine, *n) == *ask)
    }
}

impl Document for Offer {
    const CONTEXT: &'static str = "souk 2026-11 offer v1";
    const NAME: &'static str = "offer";
    const MAX_BYTES: usize = limits::OFFER_BYTES;

    fn author(&self) -> NodeId {
        self.host
    }

    fn check(&self) -> Result<(), Invalid> {
        self.hardware.check()?;
        let life = self.valid_until.0.checked_sub(self.issued_at.0);
        let lives = life.is_some_and(|ms| ms > 0 && ms <= limits::OFFER_LIFE.0);
        Invalid::unless(lives, "it must end after it was issued, within 30 minutes")?;
        let a = &self.availability;
        let slots = a.slots_total >= 1 && a.slots_total <= limits::SLOTS && a.slots_free <= a.slots_total;
        Invalid::unless(slots, "its slots make no sense")?;
        let t = &self.terms;
        Invalid::unless(t.min_slots >= 1 && t.min_slots <= a.slots_total, "its smallest slice makes no sense")?;
        let window = a.maintenance.is_none_or(|w| w.from < w.until);
        Invalid::unless(window, "its maintenance ends before it begins")?;
        Invalid::unless(
            t.eviction_notice <= limits::NOTICE && t.quantum <= limits::QUANTUM,
            "its notice or quantum is over the limit",
        )?;
        Invalid::unless(t.reserved_discount <= 1000, "its discount is over the price")?;
        t.currency.check()?;
        let lists = t.egress.len() <= 4
            && t.runtimes.len() <= 4
            && t.registries.len() <= limits::REGISTRIES
            && t.payment.len() <= 8;
        Invalid::unless(lists, "one of its lists is too long")?;
        t.registries.iter().try_for_each(|r| Invalid::text(r, 255, "a registry"))?;
        t.payment.iter().try_for_each(|p| Invalid::text(p, limits::NAME_BYTES, "a payment method"))
    }
}

/// A host's word that a machine is no longer offered: a tombstone, kept as long as any offer it ends could be valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Withdrawal {
    /// The signer.
    pub host: NodeId,
    /// Which machine.
    pub machine: MachineId,
    /// Ends every offer with a `seq` up to this.
    pub seq: u64,
    /// When it was made.
    pub issued_at: Timestamp,
}

impl Document for Withdrawal {
    const CONTEXT: &'static str = "souk 2026-11 withdrawal v1";
    const NAME: &'static str = "withdrawal";
    const MAX_BYTES: usize = 256;

    fn author(&self) -> NodeId {
        self.host
    }

    fn check(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// What travels on the offers topic and in book requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// A machine is offered.
    Offer(Signed<Offer>),
    /// A machine is offered no more.
    Withdrawal(Signed<Withdrawal>),
}
