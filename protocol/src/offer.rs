//! Offers: what a host says of one machine, signed and gossiped, and how it takes it back.

use serde::{Deserialize, Serialize};

use crate::{
    encode,
    id::{AskId, MachineId, NetworkId, NodeId},
    limits,
    money::{Amount, Currency},
    owner::{HostId, Membership},
    resources::{DiskQuota, Egress, Hardware, RuntimeKind, SlotClass},
    signed::{Document, Invalid, Signed, VerifyError},
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
    /// Those, and renters for whom one of these nodes attests.
    Attested {
        /// The attesters.
        by: Vec<NodeId>,
    },
    /// Those, and renters trusted at least so much.
    Trusted {
        /// In thousandths.
        least: u16,
    },
}

impl Accepts {
    /// Checks the bounds of both.
    ///
    /// # Errors
    /// Says what is out of them.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Anyone | Self::Named => Ok(()),
            Self::Attested { by } => {
                Invalid::unless((1..=limits::ATTESTERS).contains(&by.len()), "it names no attester, or too many")
            }
            Self::Trusted { least } => {
                Invalid::unless((1..=1000).contains(least), "the trust it asks for is not between 0.001 and 1")
            }
        }
    }
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
    /// Disk to be had for volumes now, in MB; zero where the host keeps none.
    pub volume_mb: u64,
    /// When the machine is maintained next: no new contract crosses it.
    pub maintenance: Option<Window>,
    /// How the host is reached.
    pub reachability: Reachability,
    /// Public ports left for guests.
    pub ports_free: u16,
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
    /// Whose the machine is, if not the host's own: the owner's signature, to which the host agrees by carrying it.
    pub membership: Option<Signed<Membership>>,
}

impl Offer {
    /// Whose the machine is: its owner by the membership it carries, else the host itself. True of a verified offer only.
    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.membership_read().map_or(HostId::Node(self.host), |m| HostId::Owner(m.owner))
    }

    /// The membership it carries. To be believed of a verified offer only.
    #[must_use]
    pub fn membership_read(&self) -> Option<Membership> {
        self.membership.as_ref().and_then(|m| read(m).ok())
    }

    /// The membership it carries, if any, is this host's and holds as long as the offer. Its signature is another matter.
    fn check_membership(&self) -> Result<(), Invalid> {
        let Some(signed) = &self.membership else { return Ok(()) };
        let membership = read(signed)?;
        membership.check().map_err(|Invalid(why)| Invalid(format!("its membership: {why}")))?;
        Invalid::unless(membership.covers(&self.host, &self.machine), "its membership is another machine's")?;
        let begins = membership.issued_at <= self.issued_at + limits::CLOCK_SKEW;
        let lasts = self.valid_until <= membership.valid_until;
        Invalid::unless(begins && lasts, "its membership does not hold as long as it does")
    }

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

    /// What a volume on this machine is asked for by: an ask of no slots.
    #[must_use]
    pub fn volume_ask(&self) -> AskId {
        AskId::of(&self.host, &self.machine, 0)
    }

    /// The size of the ask with this id, if it is one of this machine's.
    #[must_use]
    pub fn slots_of(&self, ask: &AskId) -> Option<u16> {
        self.slices().into_iter().find(|n| AskId::of(&self.host, &self.machine, *n) == *ask)
    }
}

fn read(signed: &Signed<Membership>) -> Result<Membership, Invalid> {
    encode::from_bytes(signed.payload(), limits::MEMBERSHIP_BYTES)
        .map_err(|e| Invalid(format!("its membership is {e}")))
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
        Invalid::unless(a.ports_free <= limits::PUBLIC_PORTS, "its public ports are too many")?;
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
        t.accepts.check()?;
        let lists = t.egress.len() <= 4
            && t.runtimes.len() <= 4
            && t.registries.len() <= limits::REGISTRIES
            && t.payment.len() <= 8;
        Invalid::unless(lists, "one of its lists is too long")?;
        t.registries.iter().try_for_each(|r| Invalid::text(r, 255, "a registry"))?;
        t.payment.iter().try_for_each(|p| Invalid::text(p, limits::NAME_BYTES, "a payment method"))?;
        self.check_membership()
    }

    fn check_carried(&self, network: &NetworkId) -> Result<(), VerifyError> {
        self.membership.as_ref().map_or(Ok(()), |m| m.verify(network).map(|_| ()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Keypair, Verified,
        machine::{
            book::{Book, Intake},
            testkit::{NOW, key, network, offer},
        },
        owner::OwnerId,
    };

    fn membership(by: u8, node: u8) -> Membership {
        Membership {
            owner: OwnerId(key(by).node_id().0),
            node: key(node).node_id(),
            machine: None,
            issued_at: NOW,
            valid_until: NOW + Millis::from_hours(24),
        }
    }

    fn signed(membership: Membership, by: &Keypair) -> Signed<Membership> {
        Verified::sign(membership, by, &network()).unwrap().to_signed()
    }

    /// An offer of node 1 with that membership, signed by node 1 without a look at what it carries.
    fn carrying(membership: Signed<Membership>, seq: u64) -> Signed<Offer> {
        let offer = Offer { membership: Some(membership), ..offer(1, seq, NOW) };
        let payload = encode::to_bytes(&offer);
        let signature = key(1).sign(&crate::signed::digest(Offer::CONTEXT, &network(), &payload).0);
        let envelope = (serde_bytes::Bytes::new(&payload), serde_bytes::Bytes::new(&signature));
        encode::from_bytes(&encode::to_bytes(&envelope), 8192).unwrap()
    }

    #[test]
    fn a_membership_shows_whose_the_machine_is() {
        let owner = OwnerId(key(9).node_id().0);
        let verified = carrying(signed(membership(9, 1), &key(9)), 1).verify(&network()).unwrap();
        assert_eq!(verified.host_id(), HostId::Owner(owner));
        assert!(verified.payload().len() < 1200, "{}", verified.payload().len());
        assert_eq!(offer(1, 1, NOW).host_id(), HostId::Node(key(1).node_id()));
    }

    #[test]
    fn what_is_no_membership_of_this_machine_at_this_time_makes_no_offer() {
        let refused = |membership| carrying(membership, 1).verify(&network()).is_err();
        assert!(!refused(signed(membership(9, 1), &key(9))));
        assert!(refused(signed(membership(9, 2), &key(9))), "another node's");
        let other = Some(MachineId([8; 16]));
        assert!(refused(signed(Membership { machine: other, ..membership(9, 1) }, &key(9))), "another machine's");
        let short = Membership { valid_until: NOW + Millis::from_mins(20), ..membership(9, 1) };
        assert!(refused(signed(short, &key(9))), "ends before the offer");
        let late = Membership { issued_at: NOW + limits::CLOCK_SKEW + Millis(1), ..membership(9, 1) };
        assert!(refused(signed(late, &key(9))), "begins after the offer");
        let elsewhere = Verified::sign(membership(9, 1), &key(9), &NetworkId::of_name("main")).unwrap();
        assert!(refused(elsewhere.to_signed()), "another network's");
        let mut forged = encode::to_bytes(&signed(membership(9, 1), &key(9)));
        *forged.last_mut().unwrap() ^= 1;
        assert!(refused(encode::from_bytes(&forged, 1024).unwrap()), "forged");
        // In the owner's name, by the host itself.
        let payload = encode::to_bytes(&membership(9, 1));
        let signature = key(1).sign(&crate::signed::digest(Membership::CONTEXT, &network(), &payload).0);
        let envelope = (serde_bytes::Bytes::new(&payload), serde_bytes::Bytes::new(&signature));
        assert!(refused(encode::from_bytes(&encode::to_bytes(&envelope), 1024).unwrap()), "signed by the host");
        let junk = (serde_bytes::Bytes::new(&[0; 3000]), serde_bytes::Bytes::new(&signature));
        assert!(refused(encode::from_bytes(&encode::to_bytes(&junk), 8192).unwrap()), "oversized junk");
    }

    #[test]
    fn a_book_takes_no_changed_membership_for_the_one_it_knows() {
        let mut book = Book::new(network(), 10);
        let mut take = |offer| book.take(&Notice::Offer(offer), false, NOW);
        let good = signed(membership(9, 1), &key(9));
        assert!(matches!(take(carrying(good.clone(), 1)), Intake::New(_)));
        assert!(matches!(take(carrying(good.clone(), 2)), Intake::New(_)), "the same again");
        let mut forged = encode::to_bytes(&good);
        *forged.last_mut().unwrap() ^= 1;
        let forged = encode::from_bytes(&forged, 1024).unwrap();
        assert!(matches!(take(carrying(forged, 3)), Intake::Invalid(_)));
        let renewed = signed(Membership { valid_until: NOW + Millis::from_hours(48), ..membership(9, 1) }, &key(9));
        assert!(matches!(take(carrying(renewed, 3)), Intake::New(_)));
    }

    #[test]
    fn search_names_the_owner_and_the_host_again_when_it_leaves() {
        use crate::{
            machine::search::{AskIndex, Options, search},
            query::{Field, Query},
        };
        let mut index = AskIndex::default();
        let owned = |by: u8, seq| carrying(signed(membership(by, 1), &key(by)), seq).verify(&network()).unwrap();
        let own = |seq| Verified::sign(offer(1, seq, NOW), &key(1), &network()).unwrap();
        let mut offers = vec![own(1), owned(9, 2), owned(9, 3), owned(8, 4), own(5)];
        // Another machine of the host is its own all the time.
        let other = Offer { machine: MachineId([7; 16]), ..offer(1, 1, NOW) };
        let other = Verified::sign(other, &key(1), &network()).unwrap();
        index.insert(other.id(), &other);
        offers.extend([owned(9, 6)]);
        for offer in &offers {
            index.insert(offer.id(), offer);
            let options = Options { all: true, ..Options::at(NOW) };
            let found = search(&index, &Query::parse("").unwrap(), &options);
            for row in &found.rows {
                let wanted = if row.machine == offer.machine { offer.host_id() } else { other.host_id() };
                assert_eq!(row.text(Field::HostId), Some(wanted.to_string().as_str()), "seq {}", offer.seq);
            }
            assert!(found.rows.iter().any(|row| row.machine == offer.machine));
        }
    }

    proptest! {
        /// Whatever the times and names in a membership are, an offer verifies with it only if it covers the whole offer.
        #[test]
        fn no_offer_outlives_its_membership(
            node in 1u8..3, machine in proptest::option::of(0u8..3), begins in 0u64..400_000, lives in 1u64..4_000_000,
        ) {
            let issued_at = Timestamp(NOW.0 - 200_000 + begins);
            let membership = Membership {
                node: key(node).node_id(),
                machine: machine.map(|m| MachineId([m; 16])),
                issued_at,
                valid_until: issued_at + Millis(lives),
                ..membership(9, 1)
            };
            let covers = node == 1
                && machine.is_none_or(|m| m == 1)
                && issued_at <= NOW + limits::CLOCK_SKEW
                && NOW + limits::OFFER_LIFE <= membership.valid_until;
            let verified = carrying(signed(membership, &key(9)), 1).verify(&network());
            prop_assert_eq!(verified.is_ok(), covers);
        }
    }
}
