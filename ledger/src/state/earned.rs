//! What each lease of this host earned in each day: a row for each, folded from its usages and its close.
//!
//! Receipts are cumulative and only the newest is kept, so the day a sum was earned would be lost with the next one. The rows
//! of a lease always add up to its newest usage, and to its close where that claims more.

use souk_protocol::{Amount, LeaseId, Rates, Timestamp, money::Counters, receipt::Usage};

use super::State;
use crate::{
    earnings::{Day, day_of, less, passed, split, waived},
    keys,
    lease::Lease,
    store::KvError,
};

impl State {
    /// A usage of our own that follows the newest one of its lease.
    pub(super) fn earn(&mut self, id: &LeaseId, usage: &Usage) -> Result<(), KvError> {
        let Some(lease) = self.lease(id)? else { return Ok(()) };
        let last = lease.newest_usage().map(|u| &u.value);
        let (counters, due) = last.map_or_else(Default::default, |u| (u.counters, u.due));
        let (newest, terms) = (last.map(|u| day_of(u.time)), last.map_or(0, |u| u.terms));
        let steps = steps(lease, terms, usage);
        let disk_mb = lease.draft.value.resources.disk_mb;
        let today = day_of(usage.time);
        let waived = steps.first().map_or(Amount::ZERO, |step| waived(&step.rates, &counters, &usage.counters));
        let given_up = waived.max(due.saturating_sub(usage.due)).min(due);
        if let Some(newest) = newest {
            self.take_back(id, newest, given_up)?;
        }
        let mut at = (counters, due.saturating_sub(given_up));
        let mut day = self.earned_in(id, today, newest, at.1)?;
        day.counters = passed(&day.counters, &counters, &usage.counters);
        for step in steps {
            // Whatever was carried, the steps lead from what was due to what is.
            let to = (step.counters, step.due.min(usage.due).max(at.1));
            day.parts = day.parts.plus(&split(&step.rates, disk_mb, (&at.0, at.1), (&to.0, to.1)));
            at = to;
        }
        self.put(keys::earned(today, id), &day);
        Ok(())
    }

    /// The last word of a lease claims more than its newest usage: a discount taken back, say.
    pub(super) fn earn_at_close(&mut self, id: &LeaseId, due: Amount, at: Timestamp) -> Result<(), KvError> {
        let Some(lease) = self.lease(id)? else { return Ok(()) };
        let last = lease.newest_usage().map(|u| (day_of(u.value.time), u.value.due));
        let (day, used) = last.unwrap_or((day_of(closed_at(lease).unwrap_or(at)), Amount::ZERO));
        let counted = used.max(if lease.host_close.is_some() { lease.claimed() } else { Amount::ZERO });
        let more = due.saturating_sub(counted);
        if more == Amount::ZERO {
            return Ok(());
        }
        let mut row = self.earned_in(id, day, None, Amount::ZERO)?;
        row.parts.other = row.parts.other.saturating_add(more);
        self.put(keys::earned(day, id), &row);
        Ok(())
    }

    /// The row of a day, or a new one after `last`, the day of the newest usage, when `due` was owed.
    fn earned_in(&self, id: &LeaseId, day: u32, last: Option<u32>, due: Amount) -> Result<Day, KvError> {
        let found: Option<Day> = self.row(&keys::earned(day, id), "earnings")?;
        let before = last.filter(|last| *last != day);
        Ok(found.unwrap_or(Day { before: due, previous: before, ..Day::default() }))
    }

    /// What was claimed is less than before: the newest earnings go first.
    fn take_back(&mut self, id: &LeaseId, from: u32, mut amount: Amount) -> Result<(), KvError> {
        let mut next = Some(from);
        // Bounded by the lease's days: each row names an earlier one.
        while let Some(day) = next.filter(|_| amount > Amount::ZERO) {
            let Some(mut row) = self.row::<Day>(&keys::earned(day, id), "earnings")? else { break };
            let there = row.parts.total().min(amount);
            row.parts = less(&row.parts, there);
            amount = amount.saturating_sub(there);
            row.before = row.before.saturating_sub(amount);
            next = row.previous.filter(|previous| *previous < day);
            self.put(keys::earned(day, id), &row);
        }
        Ok(())
    }
}

/// A stretch of use at one price.
struct Step {
    rates: Rates,
    /// What was used at its end.
    counters: Counters,
    /// What was due then.
    due: Amount,
}

/// The stretches from a usage under the terms `from` to the next one: each amendment between them begins another.
fn steps(lease: &Lease, from: u32, usage: &Usage) -> Vec<Step> {
    let draft = &lease.draft.value;
    let mut rates = lease.terms_numbered(from).map_or(draft.rates, |terms| terms.rates(draft));
    let mut steps = Vec::new();
    let amended = lease.amended.iter().filter_map(|entry| entry.value.body.amended()).map(|amended| &amended.terms);
    for terms in amended.filter(|terms| terms.n > from && terms.n <= usage.terms) {
        steps.push(Step { rates, counters: terms.counted, due: terms.carried });
        rates = terms.rates(draft);
    }
    steps.push(Step { rates, counters: usage.counters, due: usage.due });
    steps
}

fn closed_at(lease: &Lease) -> Option<Timestamp> {
    lease.host_close.as_ref().map(|close| close.value.time)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use proptest::prelude::*;
    use souk_protocol::{
        Millis, Verified,
        entry::Body,
        lease::{EndReason, LeaseDraft, LeaseState},
        negotiation::RentalType,
        receipt::{Ack, PartialReason},
        terms::{Amended, Change, LeaseTerms},
    };

    use super::*;
    use crate::{
        commit::{Backend, Ledger},
        fixture::{Deal, Party},
        journal::{Sizes, simulated::SimulatedDisk},
        record::Fact,
    };

    /// What happens next to a lease.
    #[derive(Debug, Clone)]
    enum Step {
        /// Time passes, of which some is billed and some of that waived, and bytes flow.
        Usage { hours: u64, active: u64, waived: u64, bytes: u64 },
        /// The renter agrees to the newest usage, less this.
        Ack { less: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let usage = (0u64..40, 0u64..40, 0u64..3, 0u64..4_000_000_000)
            .prop_map(|(hours, active, waived, bytes)| Step::Usage { hours, active: active.min(hours), waived, bytes });
        let ack = prop_oneof![Just(0u64), 1..1_000_000_000u64].prop_map(|less| Step::Ack { less });
        proptest::collection::vec(prop_oneof![3 => usage, 1 => ack], 1..40)
    }

    fn of(draft: &LeaseDraft, host: &Party) -> Deal {
        let draft = Verified::sign(draft.clone(), &host.key, &host.network).unwrap();
        Deal { id: draft.id().into(), draft, open: None, n: 0, usage: None }
    }

    #[test]
    fn a_changed_bid_is_earned_at_each_price_for_its_time() {
        let (mut host, mut renter) = (Party::new(1), Party::new(2));
        let disk = Arc::new(SimulatedDisk::default());
        let own = host.key.node_id();
        let mut ledger = Ledger::open_with(disk, Sizes::default(), &Backend::Memory, own, host.network).unwrap();
        ledger.stage(&Fact::Entry(host.genesis())).unwrap();
        renter.genesis();
        let mut draft = (*Deal::new(&host, &renter, 1).draft).clone();
        draft.rental = RentalType::Interruptible;
        draft.rates = Rates { compute_hour: Amount(350_000_000), ..Rates::default() };
        let mut deal = of(&draft, &host);
        ledger.stage(&Fact::Entry(deal.open(&mut renter, &host))).unwrap();
        ledger.stage(&Fact::Entry(deal.accept(&mut host, &renter))).unwrap();
        let ran = |hours| Counters { active: Millis::from_hours(hours), ..Counters::default() };
        let mut terms = LeaseTerms::drafted(&draft);
        for hours in 1..=4 {
            if let Some(bid) = [None, None, Some(700_000_000), Some(100_000_000)][hours as usize - 1] {
                // A bid at each full hour after the first, and no usage until both hold.
                let change = Change::Bid { compute_hour: Amount(bid) };
                let now = Timestamp(crate::fixture::START + host.seq);
                let body = Body::Amend { n: terms.n + 1, change, valid_until: now + Millis::from_mins(1) };
                let wanted = renter.say(Some(deal.id), &host, body);
                terms = terms.changed(&draft, &change, &ran(hours - 1), now).unwrap();
                ledger.stage(&Fact::Entry(wanted.clone())).unwrap();
                let body = Body::Amended(Amended { amend: Some(wanted.id()), terms });
                let amended = host.say(Some(deal.id), &renter, body);
                ledger.stage(&Fact::Entry(amended)).unwrap();
            }
            if [2, 3].contains(&hours) {
                continue;
            }
            deal.n += 1;
            let usage = Usage {
                host: own,
                lease: deal.id,
                n: deal.n,
                prev: deal.usage.as_ref().map(Verified::id),
                time: draft.drafted_at + Millis::from_hours(hours),
                counters: ran(hours),
                due: terms.due(&draft, &ran(hours)).unwrap(),
                state: LeaseState::Running,
                terms: terms.n,
            };
            let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
            ledger.stage(&Fact::Usage(usage.clone())).unwrap();
            deal.usage = Some(usage);
        }
        ledger.commit().unwrap();
        let total = ledger.view().earnings(0..=u32::MAX).unwrap().total();
        let claimed = total.values().next().unwrap().claimed;
        let sum = Amount(2 * 350_000_000 + 700_000_000 + 100_000_000);
        assert_eq!((claimed.compute, claimed.other, claimed.total()), (sum, Amount::ZERO, sum));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_days_of_a_lease_add_up_to_its_claim_and_its_agreement(
            leases in proptest::collection::vec(
                (steps(), 0u64..2_000_000_000, 0u64..500_000_000, 0u64..50_000_000, any::<bool>(), 0u8..4),
                1..4,
            ),
            cut in 0u64..2_000,
        ) {
            let (mut host, mut renter) = (Party::new(1), Party::new(2));
            let disk = Arc::new(SimulatedDisk::default());
            let mut ledger = Ledger::open_with(
                disk, Sizes::default(), &Backend::Memory, host.key.node_id(), host.network,
            ).unwrap();
            let genesis = host.genesis();
            ledger.stage(&Fact::Entry(genesis)).unwrap();
            renter.genesis();
            for (number, (steps, compute, storage, traffic, ceiling, end)) in leases.into_iter().enumerate() {
                let mut draft = (*Deal::new(&host, &renter, number as u64).draft).clone();
                draft.rates = Rates {
                    compute_hour: Amount(compute), storage_gb_month: Amount(storage),
                    up_gb: Amount(traffic), down_gb: Amount(traffic / 2),
                };
                draft.max_spend = ceiling.then_some(Amount(compute * 10));
                let mut deal = of(&draft, &host);
                let open = deal.open(&mut renter, &host);
                ledger.stage(&Fact::Entry(open)).unwrap();
                let accept = deal.accept(&mut host, &renter);
                ledger.stage(&Fact::Entry(accept)).unwrap();
                let mut counters = Counters::default();
                let mut time = draft.drafted_at;
                for step in steps {
                    match step {
                        Step::Usage { hours, active, waived, bytes } => {
                            time = time + Millis::from_hours(hours) + Millis(number as u64);
                            counters.active.0 += active * 3_600_000 + 7;
                            counters.waived.0 = (counters.waived.0 + waived * 3_600_000).min(counters.active.0);
                            counters.storage.0 += hours * 3_600_000 + 13;
                            counters.tx_bytes += bytes;
                            deal.n += 1;
                            let usage = Usage {
                                host: host.key.node_id(), lease: deal.id, n: deal.n,
                                prev: deal.usage.as_ref().map(Verified::id), time, counters,
                                due: LeaseTerms::drafted(&draft).due(&draft, &counters).unwrap(),
                                state: LeaseState::Running, terms: 0,
                            };
                            let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
                            ledger.stage(&Fact::Usage(usage.clone())).unwrap();
                            deal.usage = Some(usage);
                        }
                        Step::Ack { less } => {
                            let Some(usage) = &deal.usage else { continue };
                            let due = Amount(usage.due.0.saturating_sub(less));
                            let ack = Ack {
                                renter: renter.key.node_id(), lease: deal.id, n: usage.n, usage: usage.id(), due,
                                partial: (due < usage.due).then_some(PartialReason::OverMetered),
                            };
                            // One that takes back what was agreed is refused, or is a fork: both change nothing.
                            drop(ledger.stage(&Fact::Ack(Verified::sign(ack, &renter.key, &renter.network).unwrap())));
                        }
                    }
                }
                let used = deal.usage.as_ref().map_or(0, |u| u.due.0);
                let close = |due| Body::Close { reason: EndReason::Destroyed, usage: None, due: Amount(due) };
                let said = match end {
                    0 => None,
                    // The host waives something, claims what it counted, or takes a discount back.
                    1 => Some(used / 2),
                    2 => Some(used),
                    _ => Some(used + 12_345),
                };
                if let Some(due) = said {
                    let entry = host.say(Some(deal.id), &renter, close(due));
                    ledger.stage(&Fact::Entry(entry.clone())).unwrap();
                    let body = Body::CloseAck { close: entry.id(), due: Amount(due) };
                    let ack = renter.say(Some(deal.id), &host, body);
                    ledger.stage(&Fact::Entry(ack)).unwrap();
                }
            }
            ledger.commit().unwrap();
            let view = ledger.view();
            let all = view.earnings(0..=u32::MAX).unwrap();
            let balance = view.balance(&renter.key.node_id(), &souk_protocol::Currency::usd()).unwrap();
            let held = view.leases(crate::view::Select::All, 100).unwrap();
            let agreed: u64 = held.iter().map(|l| l.agreed().min(l.claimed()).0).sum();
            let total = all.total();
            prop_assert_eq!(total.values().map(|e| e.claimed.total().0).sum::<u64>(), balance.claimed.0);
            prop_assert_eq!(total.values().map(|e| e.acknowledged.total().0).sum::<u64>(), agreed);
            // Any cut into two spans adds up to the whole.
            let start = day_of(Timestamp(crate::fixture::START)) + u32::try_from(cut / 24).unwrap();
            let (left, right) = (view.earnings(0..=start).unwrap(), view.earnings(start + 1..=u32::MAX).unwrap());
            let mut both = left.days.clone();
            both.extend(right.days.clone());
            prop_assert_eq!(both, all.days);
        }
    }
}
