//! A month between this node and a peer, in one currency: what was used, what was paid, and what is owed at its beginning and
//! its end. The content of an invoice, without its form.
//!
//! Every line is what both have signed: a lease's line is the difference of two agreements ([`crate::months`]), a payment counts
//! with the payee's acknowledgement, in the month of that one's date. So both parties' statements are each other's mirror, to the
//! unit, as soon as both hold the same documents; and closing balance of a month is the opening balance of the next.

use std::collections::BTreeMap;

use souk_protocol::{Amount, Currency, LeaseId, NodeId, Timestamp};

use crate::{
    lease::Lease,
    months::{AgreedIn, Month},
    pair::{Settlement, SettlementKey},
    view::{QueryError, Select, View},
};

/// Leases of one peer that are looked at, in each direction.
const LEASES: usize = 100_000;
/// Payments of one peer that are looked at, in each direction and currency.
const PAYMENTS: usize = 100_000;

/// What a lease cost in the month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The lease.
    pub lease: LeaseId,
    /// Its row number here.
    pub number: u64,
    /// What people here call it.
    pub label: Option<String>,
    /// The image, or what it is instead.
    pub image: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// What was agreed to before the month.
    pub before: Amount,
    /// The last agreement in the month.
    pub agreed: AgreedIn,
}

impl Line {
    /// What the month cost.
    #[must_use]
    pub const fn amount(&self) -> Amount {
        self.agreed.due.saturating_sub(self.before)
    }
}

/// A payment whose arrival was acknowledged in the month.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaidLine {
    /// The payment, and its acknowledgement.
    pub payment: Settlement,
    /// What has arrived of it.
    pub arrived: Amount,
}

/// A month of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The other node.
    pub peer: NodeId,
    /// Of all amounts.
    pub currency: Currency,
    /// Which month.
    pub month: Month,
    /// What the peer owed this node when it began; negative if this node owed.
    pub opening: i128,
    /// What the peer used of this node's.
    pub sold: Vec<Line>,
    /// What this node used of the peer's.
    pub bought: Vec<Line>,
    /// What the peer paid.
    pub received: Vec<PaidLine>,
    /// What this node paid.
    pub paid: Vec<PaidLine>,
    /// What the peer owes this node at its end, or by now; negative if this node owes.
    pub closing: i128,
}

impl Statement {
    /// Whether nothing happened and nothing is owed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let nothing =
            self.sold.is_empty() && self.bought.is_empty() && self.received.is_empty() && self.paid.is_empty();
        nothing && self.opening == 0 && self.closing == 0
    }
}

fn sum(amounts: impl Iterator<Item = Amount>) -> i128 {
    amounts.map(|amount| i128::from(amount.0)).sum()
}

/// The lines of one direction, and what was agreed to before the month in all.
#[derive(Default)]
struct Side {
    before: i128,
    lines: Vec<Line>,
}

fn line(lease: &Lease, months: &[(Month, AgreedIn)], month: Month) -> (Amount, Option<Line>) {
    let before = months.iter().rev().find(|(m, _)| *m < month).map_or(Amount::ZERO, |(_, row)| row.due);
    let agreed = months.iter().find(|(m, _)| *m == month).map(|(_, row)| *row);
    let line = agreed.map(|agreed| Line {
        lease: lease.id(),
        number: lease.number,
        label: lease.label.clone(),
        image: if lease.draft.value.is_volume() {
            "volume".to_owned()
        } else {
            lease.draft.value.image.reference.clone()
        },
        opened_at: lease.opened_at(),
        before,
        agreed,
    });
    (before, line.filter(|line| line.amount() > Amount::ZERO))
}

impl View {
    /// A month with a peer, for each currency in which there is anything.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn statements(&self, peer: &NodeId, month: Month) -> Result<Vec<Statement>, QueryError> {
        let sold = self.side(Select::Renter(*peer), true, month)?;
        let bought = self.side(Select::Host(*peer), false, month)?;
        let settled = self.settled(Some(peer))?;
        let currencies = sold.keys().chain(bought.keys()).chain(settled.iter().map(|key| &key.currency));
        let currencies: std::collections::BTreeSet<Currency> = currencies.cloned().collect();
        let (mut sold, mut bought) = (sold, bought);
        let mut statements = Vec::new();
        for currency in currencies {
            let (sold, bought) =
                (sold.remove(&currency).unwrap_or_default(), bought.remove(&currency).unwrap_or_default());
            let (received_before, received) = self.arrived(peer, &currency, false, month)?;
            let (paid_before, paid) = self.arrived(peer, &currency, true, month)?;
            let opening = sold.before - received_before - (bought.before - paid_before);
            let closing = opening + sum(sold.lines.iter().map(Line::amount))
                - sum(received.iter().map(|p| p.arrived))
                - sum(bought.lines.iter().map(Line::amount))
                + sum(paid.iter().map(|p| p.arrived));
            let (sold, bought) = (sold.lines, bought.lines);
            statements.push(Statement { peer: *peer, currency, month, opening, sold, bought, received, paid, closing });
        }
        Ok(statements)
    }

    fn side(&self, of: Select, we_host: bool, month: Month) -> Result<BTreeMap<Currency, Side>, QueryError> {
        let mut sides: BTreeMap<Currency, Side> = BTreeMap::new();
        for lease in self.leases(of, LEASES)?.into_iter().rev() {
            let host = if we_host { lease.host() == self.own() } else { lease.renter() == self.own() };
            if !host {
                continue;
            }
            let (before, line) = line(&lease, &self.months(&lease.id())?, month);
            let side = sides.entry(lease.currency().clone()).or_default();
            side.before += i128::from(before.0);
            side.lines.extend(line);
        }
        Ok(sides)
    }

    /// What had arrived before a month, and the payments that arrived in it.
    fn arrived(
        &self,
        peer: &NodeId,
        currency: &Currency,
        by_us: bool,
        month: Month,
    ) -> Result<(i128, Vec<PaidLine>), QueryError> {
        let of = SettlementKey { peer: *peer, currency: currency.clone(), by_us };
        let mut rows = self.settlements(&of, PAYMENTS)?;
        rows.reverse();
        let (start, end) = (month.start(), month.next().start());
        let (mut before, mut in_month, mut total) = (0, Vec::new(), Amount::ZERO);
        for payment in rows {
            let Some(ack) = payment.ack else { continue };
            let arrived = ack.total.saturating_sub(total);
            total = total.max(ack.total);
            if ack.time < start {
                before += i128::from(arrived.0);
            } else if ack.time < end {
                in_month.push(PaidLine { payment, arrived });
            }
        }
        Ok((before, in_month))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use proptest::prelude::*;
    use souk_protocol::{
        Millis, Verified,
        entry::Body,
        settlement::{Settle, SettleAck},
    };

    use super::*;
    use crate::{
        commit::{Backend, Ledger},
        fixture::{Deal, Party, START},
        journal::{Sizes, simulated::SimulatedDisk},
        record::Fact,
    };

    fn ledger(of: &Party) -> Ledger {
        let disk = Arc::new(SimulatedDisk::default());
        Ledger::open_with(disk, Sizes::default(), &Backend::Memory, of.key.node_id(), of.network).unwrap()
    }

    /// What happens next between the two.
    #[derive(Debug, Clone)]
    enum Step {
        /// Days pass, some of them used, in one of the leases; the renter agrees to that less this, or says nothing.
        Use { lease: usize, days: u64, agrees: Option<u64> },
        /// The renter pays, and so much of it arrives.
        Pay { amount: u64, arrives: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let agrees = prop_oneof![1 => Just(None), 4 => (0u64..2).prop_map(Some)];
        let used = (0usize..3, 0u64..20, agrees).prop_map(|(lease, days, agrees)| Step::Use { lease, days, agrees });
        let pay =
            (1u64..5_000_000_000, 0u64..5_000_000_000).prop_map(|(amount, arrives)| Step::Pay { amount, arrives });
        proptest::collection::vec(prop_oneof![3 => used, 1 => pay], 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Both parties' months mirror each other, follow each other, and end with what the balance says.
        #[test]
        fn both_sides_say_the_same_and_months_follow_each_other(steps in steps()) {
            let (mut host, mut renter) = (Party::new(1), Party::new(2));
            let (mut ours, mut theirs) = (ledger(&host), ledger(&renter));
            ours.stage(&Fact::Entry(host.genesis())).unwrap();
            theirs.stage(&Fact::Entry(renter.genesis())).unwrap();
            let mut both = |fact: Fact| {
                ours.stage(&fact).unwrap();
                theirs.stage(&fact).unwrap();
            };
            let mut deals: Vec<Deal> = (0..3).map(|n| Deal::new(&host, &renter, n)).collect();
            for deal in &mut deals {
                let open = deal.open(&mut renter, &host);
                both(Fact::Entry(open));
                let accept = deal.accept(&mut host, &renter);
                both(Fact::Entry(accept));
            }
            let (mut now, mut n, mut paid, mut arrived) = (START, 0, 0, 0);
            let mut days = [0u64; 3];
            for step in steps {
                match step {
                    Step::Use { lease, days: more, agrees } => {
                        now += more * 86_400_000;
                        days[lease] += more;
                        let deal = &mut deals[lease];
                        deal.n += 1;
                        let mut usage = deal.usage_value(deal.n, &host);
                        usage.time = Timestamp(now.max(deal.usage.as_ref().map_or(0, |u| u.time.0)));
                        usage.counters.active = Millis(days[lease] * 86_400_000);
                        usage.counters.storage = usage.counters.active;
                        usage.due = souk_protocol::terms::LeaseTerms::drafted(&deal.draft)
                            .due(&deal.draft, &usage.counters)
                            .unwrap();
                        let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
                        deal.usage = Some(usage.clone());
                        both(Fact::Usage(usage));
                        let ack = agrees.map(|less| deal.ack(&renter, less.min(deal.usage.as_ref().unwrap().due.0)));
                        if let Some(ack) = ack {
                            both(Fact::Ack(ack));
                        }
                    }
                    Step::Pay { amount, arrives } => {
                        n += 1;
                        paid += amount;
                        let settle = Settle {
                            n,
                            currency: Currency::usd(),
                            amount: Amount(amount),
                            total: Amount(paid),
                            method: "manual".to_owned(),
                            reference: format!("r{n}"),
                        };
                        let settle = renter.say_at(now, None, &host, Body::Settle(settle));
                        both(Fact::Entry(settle.clone()));
                        arrived += arrives.min(amount);
                        let ack = SettleAck { settle: settle.id(), n, currency: Currency::usd(), total: Amount(arrived) };
                        let ack = host.say_at(now, None, &renter, Body::SettleAck(ack));
                        both(Fact::Entry(ack));
                    }
                }
            }
            ours.commit().unwrap();
            theirs.commit().unwrap();
            let (ours, theirs) = (ours.view(), theirs.view());
            let (me, you) = (host.key.node_id(), renter.key.node_id());
            let mut month = Month::of(Timestamp(START));
            let (mut opening, last) = (0, Month::of(Timestamp(now)).next());
            while month <= last {
                let (a, b) = (ours.statements(&you, month).unwrap(), theirs.statements(&me, month).unwrap());
                prop_assert!(a.len() == 1 && b.len() == 1);
                let (a, b) = (&a[0], &b[0]);
                prop_assert_eq!((a.opening, a.closing), (-b.opening, -b.closing));
                prop_assert_eq!((&a.sold, &a.bought), (&b.bought, &b.sold));
                prop_assert_eq!((&a.received, &a.paid), (&b.paid, &b.received));
                prop_assert_eq!(a.opening, opening);
                opening = a.closing;
                month = month.next();
            }
            prop_assert_eq!(opening, ours.balance(&you, &Currency::usd()).unwrap().owed());
        }
    }
}
