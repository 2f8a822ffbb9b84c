//! What happens next in a ledger made at random.

use souk_ledger::record::Fact;
use souk_protocol::{
    Amount, Currency, DocumentId, Millis, Timestamp, Verified,
    entry::{Body, VoidCode},
    lease::{EndReason, LeaseState, PauseReason},
    money::Counters,
    negotiation::RentalType,
    opinion::{Attestation, Dispute, DisputeCode, Observation, Watched},
    receipt::{Ack, PartialReason, Usage},
    settlement::{Settle, SettleAck},
    terms::{Amended, Change, LeaseTerms, NextPrice},
};

use super::{
    dice::Dice,
    world::{Deal, World},
};

impl World {
    /// Somebody says something.
    pub fn step(&mut self) {
        if self.deals.is_empty() || self.rng.one_in(14) {
            return self.open();
        }
        let deal = self.rng.below(self.deals.len());
        match self.rng.below(45) {
            0..4 => self.answer(deal),
            4 => self.place(deal),
            5..15 => self.usage(deal),
            15..21 => self.ack(deal),
            21..27 => self.amend(deal),
            27..31 => self.amended(deal),
            31 => self.anchor(deal),
            32 => self.close(deal),
            33 => self.close_ack(deal),
            34 => self.dispute(deal),
            35 => self.settle(),
            36 => self.settle_ack(),
            37 => self.attest(),
            38 => self.probe(),
            39..42 => self.checkpoint(),
            42..44 => self.watched(deal),
            _ => self.repeat(),
        }
    }

    fn about(&mut self, deal: usize, by_host: bool, body: Body) -> Option<DocumentId> {
        let Deal { id, host, renter, .. } = self.deals[deal];
        // Once in a while by the other, who may not.
        let by_host = by_host != self.rng.one_in(25);
        let (by, to) = if by_host { (host, renter) } else { (renter, host) };
        self.say(by, Some(to), Some(id), body)
    }

    fn open(&mut self) {
        let (host, renter) = self.pair();
        let Some(draft) = self.draft(host, renter) else { return };
        let Ok(signed) = Verified::sign(draft.clone(), &self.parties[host].key, &self.network) else { return };
        let id = signed.id().into();
        let body = Body::LeaseOpen { draft: signed.to_signed() };
        let (by, to) = if self.rng.one_in(30) { (host, renter) } else { (renter, host) };
        let Some(open) = self.say(by, Some(to), Some(id), body.clone()) else { return };
        if self.rng.one_in(20) {
            self.say(by, Some(to), Some(id), body);
        }
        let terms = vec![LeaseTerms::drafted(&draft)];
        let (amends, usages, signed, closes) = (Vec::new(), Vec::new(), Amount::ZERO, [None; 2]);
        self.deals.push(Deal { id, draft, host, renter, open, start: 0, terms, amends, usages, signed, closes });
        let last = self.deals.len() - 1;
        if !self.rng.one_in(6) {
            self.about(last, true, Body::LeaseAccept { open });
        }
    }

    fn answer(&mut self, deal: usize) {
        let open = if self.rng.one_in(10) { DocumentId(self.noise()) } else { self.deals[deal].open };
        let code = [VoidCode::Taken, VoidCode::Late, VoidCode::Unknown, VoidCode::Unavailable, VoidCode::Unpaid];
        let code = code[self.rng.below(5)];
        let body = if self.rng.one_in(3) {
            Body::Void { open, code, sentence: "somebody was faster".to_owned() }
        } else {
            Body::LeaseAccept { open }
        };
        self.about(deal, true, body);
    }

    fn place(&mut self, deal: usize) {
        let start = self.deals[deal].start + self.rng.below(3) as u32;
        let body = Body::Placement { start, slots: vec![0, 1], devices: vec!["GPU-1".to_owned()] };
        if self.about(deal, true, body).is_some() {
            self.deals[deal].start = start;
        }
    }

    fn usage(&mut self, deal: usize) {
        let last = self.deals[deal].usages.last().cloned();
        let mut counters = self.counters(&last.as_ref().map_or(Counters::default(), |u| u.counters));
        let newest = self.deals[deal].terms.len() - 1;
        let number = if self.rng.one_in(20) { self.rng.below(newest + 1) } else { newest };
        let twist = if self.rng.one_in(6) { self.rng.below(9) } else { 9 };
        let (mut n, mut prev, mut time) =
            (last.as_ref().map_or(1, |u| u.n + 1), last.as_ref().map(Verified::id), self.now);
        match twist {
            0 => counters.active.0 /= 2,
            1 => counters.tx_bytes /= 2,
            2 => n += 1 + self.rng.below(3) as u64,
            3 => n = n.saturating_sub(1 + self.rng.below(6) as u64).max(1),
            4 => prev = Some(DocumentId(self.noise())),
            5 => time -= 20_000_000,
            _ => {}
        }
        counters.waived = counters.waived.min(counters.active);
        if n == 1 {
            prev = None;
        }
        let states = [
            LeaseState::Running,
            LeaseState::Preparing,
            LeaseState::Kept,
            LeaseState::Paused(PauseReason::Outbid),
            LeaseState::Ended(EndReason::Destroyed),
            LeaseState::Ended(EndReason::LeftEarly),
        ];
        let kinds = if self.rng.one_in(4) { states.len() } else { 1 };
        let state = states[self.rng.below(kinds)];
        let Deal { id, draft, terms, host, .. } = &self.deals[deal];
        let (id, host) = (*id, *host);
        let due = terms[number].due_in(draft, &counters, state).unwrap_or(Amount(u64::MAX));
        let due = Amount(self.or_else(due.0, 25));
        let by = if self.rng.one_in(60) { self.rng.below(4) } else { host };
        let terms = if self.rng.one_in(60) { 7 } else { number as u32 };
        let node = self.parties[by].node;
        let usage = Usage { host: node, lease: id, n, prev, time: Timestamp(time), counters, terms, due, state };
        let Ok(usage) = Verified::sign(usage, &self.parties[by].key, &self.network) else { return };
        // A peer's may be lost: the next one leaves out its number.
        let lost = by != 0 && self.rng.one_in(10);
        let left =
            self.deals[deal].draft.rental == RentalType::Reserved && state == LeaseState::Ended(EndReason::LeftEarly);
        if lost || self.tell(Fact::Usage(usage.clone())) {
            if left {
                self.done.push("left early");
            }
            self.deals[deal].usages.push(usage);
        }
    }

    fn ack(&mut self, deal: usize) {
        let usages = &self.deals[deal].usages;
        let Some(back) = usages.len().checked_sub(1) else { return };
        let back = if self.rng.one_in(4) { self.rng.below(back.min(6) + 1) } else { 0 };
        let usage = self.deals[deal].usages.iter().rev().nth(back).unwrap().clone();
        let renter = if self.rng.one_in(60) { self.rng.below(4) } else { self.deals[deal].renter };
        let less = if self.rng.one_in(3) { self.rng.magnitude() % usage.due.0.max(1) } else { 0 };
        let reasons =
            [PartialReason::OverMetered, PartialReason::NotRunning, PartialReason::NotAsked, PartialReason::Silent];
        let reason = reasons[self.rng.below(4)];
        let due = Amount(self.or_else(usage.due.0 - less, 25));
        let partial = (less > 0 || self.rng.one_in(40)).then_some(reason);
        let id = if self.rng.one_in(40) { DocumentId(self.noise()) } else { usage.id() };
        let n = self.or_else(usage.n, 60);
        let ack = Ack { renter: self.parties[renter].node, lease: usage.lease, n, usage: id, due, partial };
        let Ok(ack) = Verified::sign(ack, &self.parties[renter].key, &self.network) else { return };
        if self.tell(Fact::Ack(ack)) {
            let signed = &mut self.deals[deal].signed;
            *signed = due.max(*signed);
        }
    }

    fn amend(&mut self, deal: usize) {
        let terms = *self.deals[deal].terms.last().unwrap();
        let price = Amount(self.or_else(terms.compute_hour.0.saturating_mul(21) / 20, 3));
        let later = Timestamp(terms.ends_at.0 + self.rng.between(0, 90_000_000));
        let bids = self.deals[deal].draft.rental == RentalType::Interruptible;
        let change = match self.rng.below(if bids { 7 } else { 6 }) {
            0 | 6 => Change::Bid { compute_hour: price },
            1 => Change::Extend { ends_at: later, compute_hour: None },
            2 | 5 => Change::Extend { ends_at: later, compute_hour: Some(price) },
            3 => {
                let more = if self.rng.one_in(2) { 1 << 60 } else { self.rng.magnitude() };
                let ceiling = Amount(terms.carried.0.saturating_add(more));
                Change::Ceiling { max_spend: (!self.rng.one_in(4)).then_some(ceiling) }
            }
            _ => Change::AutoExtend { until: (!self.rng.one_in(4)).then_some(later) },
        };
        let n = terms.n + u32::from(!self.rng.one_in(20));
        let hours = self.rng.below(100) as u64;
        let valid_until = Timestamp(self.now + hours * 3_600_000);
        if let Some(id) = self.about(deal, false, Body::Amend { n, change, valid_until }) {
            self.deals[deal].amends.push((id, change));
            if self.rng.one_in(2) {
                self.amended(deal);
            }
        }
    }

    fn amended(&mut self, deal: usize) {
        let used = self.deals[deal].usages.last().map_or(Counters::default(), |u| u.counters);
        let counted = if self.rng.one_in(2) { used } else { self.counters(&used) };
        let known = *self.deals[deal].terms.last().unwrap();
        if let Some(next) = known.next
            && self.rng.one_in(2)
        {
            // The agreed price's time has come.
            self.now = self.now.max(next.from.0);
        }
        let now = Timestamp(self.now);
        let many = self.deals[deal].amends.len();
        let alone = self.rng.one_in(if known.next.is_some() { 2 } else { 4 });
        let asked = if many > 0 && !alone {
            let at = many - 1 - self.rng.below(many.min(2));
            Some(self.deals[deal].amends[at])
        } else {
            None
        };
        let draft = self.deals[deal].draft.clone();
        let end = Timestamp(known.ends_at.0 + self.rng.between(1, 40_000_000));
        let made = match asked {
            Some((_, change)) => known.changed(&draft, &change, &counted, now).ok(),
            None if known.next.is_some() || self.rng.one_in(4) => known.repriced(&draft, &counted, now).ok().flatten(),
            None => {
                let price = Amount(self.or_else(known.compute_hour.0, 2));
                known.extended(&draft, end, price, &counted).ok()
            }
        };
        let mut terms = made.unwrap_or(LeaseTerms { n: known.n + 1, counted, ends_at: end, ..known });
        if self.rng.one_in(5) {
            match self.rng.below(9) {
                0 => terms.carried.0 += 1,
                1 => terms.compute_hour.0 /= 2,
                2 => terms.n += 1,
                3 => terms.bid_at = now,
                4 => terms.max_spend = None,
                5 => terms.next = Some(NextPrice { from: known.ends_at, compute_hour: Amount(1) }),
                6 => terms.counted.active.0 /= 2,
                7 => terms.extend_until = None,
                _ => terms.ends_at.0 += 1,
            }
        }
        let body = Body::Amended(Amended { amend: asked.map(|(id, _)| id), terms });
        if self.about(deal, true, body).is_some() {
            self.deals[deal].terms.push(terms);
            self.done.push(match asked {
                Some((_, change)) => change.name(),
                None if known.next.is_some() && terms.next.is_none() => "repriced",
                None => "extended alone",
            });
            if !self.rng.one_in(6) {
                self.deals[deal].amends.clear();
            }
            if terms.next.is_some() && self.rng.one_in(2) {
                self.amended(deal);
            }
        }
    }

    fn anchor(&mut self, deal: usize) {
        let due = Amount(self.or_else(self.deals[deal].signed.0, 3));
        let usage = self.deals[deal].usages.last().map_or(DocumentId([0; 32]), Verified::id);
        self.about(deal, true, Body::Anchor { usage, ack: usage, due });
    }

    fn close(&mut self, deal: usize) {
        let by_host = self.rng.one_in(2);
        let reasons = [
            EndReason::Destroyed,
            EndReason::VolumeLost,
            EndReason::Unpaid,
            EndReason::Disputed,
            EndReason::HostVanished,
        ];
        let reason = reasons[self.rng.below(5)];
        let last = self.deals[deal].usages.last().map(|u| (u.id(), u.due));
        let due = self.or_else(last.map_or(0, |(_, due)| due.0), 4);
        let body = Body::Close { reason, usage: last.map(|(id, _)| id), due: Amount(due) };
        if let Some(id) = self.about(deal, by_host, body) {
            let deal = &mut self.deals[deal];
            deal.closes[usize::from(!by_host)] = Some(id);
        }
    }

    fn close_ack(&mut self, deal: usize) {
        let by_host = self.rng.one_in(2);
        let close = self.deals[deal].closes[usize::from(by_host)].unwrap_or(DocumentId([5; 32]));
        let due = self.amount();
        self.about(deal, by_host, Body::CloseAck { close, due });
    }

    fn dispute(&mut self, deal: usize) {
        let by_host = self.rng.one_in(2);
        let about = self.deals[deal].open;
        let code = DisputeCode::ALL[self.rng.below(DisputeCode::ALL.len())];
        self.about(deal, by_host, Body::Dispute(Dispute { about, code, sentence: "it never came".to_owned() }));
    }

    fn settle(&mut self) {
        let (payer, payee) = self.pair();
        let currency = Currency(["USD", "EUR"][self.rng.below(2)].to_owned());
        let last =
            self.settles.iter().rev().find(|(by, to, _, s)| (*by, *to) == (payer, payee) && s.currency == currency);
        let (n, total) = last.map_or((0, 0), |(.., settle)| (settle.n, settle.total.0));
        let amount = self.or_else(1_000_000_000, 10);
        let gap = self.rng.one_in(8);
        let total = total.wrapping_add(amount);
        let settle = Settle {
            n: n + 1 + u32::from(gap),
            currency,
            amount: Amount(amount),
            total: Amount(if gap { total.wrapping_add(7) } else { self.or_else(total, 15) }),
            method: "manual".to_owned(),
            reference: "INV-7".to_owned(),
        };
        if let Some(id) = self.say(payer, Some(payee), None, Body::Settle(settle.clone())) {
            self.settles.push((payer, payee, id, settle));
        }
    }

    fn settle_ack(&mut self) {
        let Some(last) = self.settles.len().checked_sub(1) else { return };
        let at = last - self.rng.below(last.min(3) + 1);
        let (payer, payee, id, settle) = self.settles[at].clone();
        let total = Amount(self.or_else(settle.total.0, 4));
        let n = if self.rng.one_in(15) { settle.n + 1 } else { settle.n };
        let currency = if self.rng.one_in(20) { Currency("EUR".to_owned()) } else { settle.currency };
        self.say(payee, Some(payer), None, Body::SettleAck(SettleAck { settle: id, n, currency, total }));
    }

    /// What stands for old records is worked out now, and said later.
    fn checkpoint(&mut self) {
        if let Some((cut, mut checkpoint)) = self.checkpoint.take() {
            match self.rng.below(12) {
                0 => checkpoint.kept = checkpoint.kept.saturating_sub(1).max(1),
                1 => checkpoint.totals.0[3] ^= 1,
                2 => checkpoint.entries.0[3] ^= 1,
                3 => checkpoint.id = DocumentId(self.noise()),
                4 => checkpoint.seq += 1,
                _ => {}
            }
            if self.say(0, None, None, Body::Checkpoint(checkpoint)).is_some() {
                self.cut = Some(cut);
            }
        } else {
            self.checkpoint = self.checkpoint_here();
        }
    }

    fn attest(&mut self) {
        let (by, about) = self.pair();
        let claim = ["datacenter", "verified"][self.rng.below(2)].to_owned();
        let until = self.rng.one_in(2).then_some(Timestamp(self.now));
        let withdrawn = self.rng.one_in(3);
        self.say(by, Some(about), None, Body::Attestation(Attestation { claim, until, withdrawn }));
    }

    /// What a renter saw of its host: as it should be, too long, too early, or twice.
    fn watched(&mut self, deal: usize) {
        let watched = 1 + self.rng.below(10_000) as u64;
        let watched = Millis(self.or_else(watched, 10));
        let answered = Millis(self.or_else(watched.0 / 2, 10));
        let from = Timestamp(self.now.saturating_sub(self.or_else(watched.0, 10)));
        let seen = Body::Probe(Observation::Rental(Watched { from, watched, answered }));
        let times = if self.rng.one_in(4) { 2 } else { 1 };
        for _ in 0..times {
            self.about(deal, false, seen.clone());
        }
    }

    fn probe(&mut self) {
        let (by, about) = self.pair();
        let window = 12 * 3_600_000;
        let observation = if self.rng.one_in(2) {
            let from = Timestamp(self.now / window * window);
            Observation::Uptime { from, up_permille: self.rng.below(1001) as u16 }
        } else {
            Observation::Performance { what: "disk_mb_s".to_owned(), promised: 500, measured: 480 }
        };
        self.say(by, Some(about), None, Body::Probe(observation));
    }
}
