//! Payments on their way: ours to their payees until they are answered, and others' to us until it is known whether they arrived.
//!
//! Owns the documents and their delivery, not the money: how much is to be paid, and what follows from it, is in
//! [`super::account`]. A peer's payments are looked for one at a time and in order, so that what has arrived in all never shrinks,
//! and each is answered once.

mod lost;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use super::{
    account::{AccountRow, Key, clamp},
    context::{Asked, Context},
    io::{ClaimedPayment, MadePayment, Output, Refusal, Ticket},
    record::Record,
};
use crate::{
    DocumentId, Millis, NetworkId, NodeId, Timestamp, Verified, VerifyError,
    entry::{Body, Entry},
    limits,
    message::{Request, Response},
    money::{Amount, Currency},
    settlement::{Settle, SettleAck},
    signed::Signed,
};

/// Between two tellings of a payment that is not answered: whether money has arrived takes its time.
const RETRY: (Millis, Millis) = (Millis::from_secs(2), Millis::from_mins(10));

/// Peers whose payments are counted by the hour.
const COUNTED: usize = 4096;
const HOUR: Millis = Millis::from_hours(1);
const MINUTE: Millis = Millis::from_mins(1);

/// A payment of ours.
#[derive(Debug)]
struct Sent {
    entry: Verified<Entry>,
    ticket: Option<Ticket>,
    in_flight: bool,
    again_at: Timestamp,
    retry: Millis,
    /// The payee has it, and looks for it: the next one may be told.
    taken: bool,
    /// The owner has written it off.
    lost: bool,
}

/// A payment of a peer.
#[derive(Debug)]
struct Claimed {
    entry: Verified<Entry>,
    until: Option<Timestamp>,
}

/// The payments of one account.
#[derive(Debug, Default)]
struct Between {
    paid: Option<Verified<Entry>>,
    unanswered: VecDeque<Sent>,
    received: Option<Verified<Entry>>,
    unverified: VecDeque<Claimed>,
    /// Whether the first of them is being looked for.
    looking: bool,
    answer: Option<(Verified<Entry>, Option<Ticket>)>,
    /// What had arrived of the payment answered last.
    arrived: Option<(DocumentId, Amount)>,
    /// Payments in a row that did not arrive, and when the last of them was answered.
    missed: (u8, Timestamp),
    /// How often the answer to our newest payment was corrected, and when that, or the answer, was.
    corrected: (u8, Timestamp),
    /// When the newest payment was taken.
    taken_at: Timestamp,
}

/// All payments on their way.
#[derive(Debug, Default)]
pub(super) struct Payments {
    between: BTreeMap<Key, Between>,
    /// Since when, and how many since, payments of a peer were taken. Only of peers with accounts, and of the last hour.
    taken: BTreeMap<NodeId, (Timestamp, u32)>,
}

/// What a peer's payment is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dealing {
    /// Whether there is anything between us and the peer but what it says itself.
    pub(super) deals: bool,
    /// Whether anything is paid here in this currency and by this method.
    pub(super) fits: bool,
    /// Whether it comes with an open of a draft of ours, and is in that one's currency.
    pub(super) drafted: bool,
}

/// What became of a peer's payment when it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is looked for.
    Waits,
    /// It was answered before; so much of it had arrived, if it is the newest that was.
    Answered(Amount),
    /// It came with an open before one that was made earlier: it is not taken yet, since that one could not be taken after it.
    Early,
}

fn said(entry: &Entry) -> Option<&Settle> {
    if let Body::Settle(settle) = &entry.body { Some(settle) } else { None }
}

fn number(entry: Option<&Verified<Entry>>) -> u32 {
    entry.and_then(|e| said(e)).map_or(0, |s| s.n)
}

impl Payments {
    /// Takes back what the ledger has of one account.
    pub(super) fn restore(&mut self, row: &AccountRow, network: &NetworkId, now: Timestamp) -> Result<(), VerifyError> {
        let check = |signed: &Signed<Entry>| signed.verify(network);
        let optional = |signed: Option<&Signed<Entry>>| signed.map(check).transpose();
        let lost = row.note.as_ref().and_then(|note| note.lost.as_ref()).map_or(&[][..], |lost| &lost.unanswered);
        let sent = |entry| Sent { lost: lost.contains(&number(Some(&entry))), ..Sent::new(entry, None, now) };
        let between = Between {
            paid: optional(row.paid.as_ref())?,
            unanswered: row.unanswered.iter().map(|s| check(s).map(sent)).collect::<Result<_, _>>()?,
            received: optional(row.received.as_ref())?,
            unverified: row
                .unverified
                .iter()
                .map(|s| check(s).map(|entry| Claimed { entry, until: None }))
                .collect::<Result<_, _>>()?,
            looking: false,
            answer: optional(row.answer.as_ref())?.map(|entry| (entry, None)),
            arrived: None,
            missed: (0, now),
            corrected: (0, now),
            taken_at: now,
        };
        self.between.insert((row.peer, row.currency.clone()), between);
        Ok(())
    }

    /// The newest payment of ours that is not answered, nor written off: it goes with an open that waits for it.
    pub(super) fn newest_unanswered(&self, key: &Key) -> Option<&Verified<Entry>> {
        self.between.get(key)?.unanswered.iter().rev().find(|sent| !sent.lost).map(|sent| &sent.entry)
    }

    /// Payments of peers and to peers that wait, as far as others can make them more.
    pub(super) fn waiting(&self) -> usize {
        self.between.values().map(|b| b.unverified.len()).sum()
    }

    fn of_peer(&self, peer: &NodeId) -> impl Iterator<Item = &Between> {
        self.between.iter().filter(move |((of, _), _)| of == peer).map(|(_, between)| between)
    }

    /// Counts a payment of a peer: whether it may be taken in this hour.
    fn counts(&mut self, peer: NodeId, now: Timestamp) -> bool {
        self.taken.retain(|_, (since, _)| now.since(*since) < HOUR && *since <= now);
        if self.taken.len() >= COUNTED && !self.taken.contains_key(&peer) {
            let oldest = self.taken.iter().min_by_key(|(_, (since, _))| *since).map(|(peer, _)| *peer);
            oldest.map(|peer| self.taken.remove(&peer));
        }
        let (_, count) = self.taken.entry(peer).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= limits::PAYMENTS_PER_HOUR
    }

    /// The peer can be reached (again): it is told what it has not answered.
    pub(super) fn connected(&mut self, peer: &NodeId, now: Timestamp) {
        for (_, between) in self.between.iter_mut().filter(|((of, _), _)| of == peer) {
            for sent in &mut between.unanswered {
                sent.again_at = now;
                sent.retry = RETRY.0;
            }
        }
    }

    /// The clock went back: what was to happen again shortly happens shortly.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        for sent in self.between.values_mut().flat_map(|b| &mut b.unanswered) {
            sent.again_at = sent.again_at.min(now + sent.retry);
        }
    }

    /// When a payment is to be told again.
    pub(super) fn deadline(&self, connected: impl Fn(&NodeId) -> bool) -> Option<Timestamp> {
        let reachable = self.between.iter().filter(|((peer, _), _)| connected(peer));
        reachable.filter_map(|(_, b)| b.to_tell().and_then(|at| b.unanswered.get(at))).map(|s| s.again_at).min()
    }
}

impl Context {
    /// Says in our chain that a payment was made. One that was said before is that one again.
    pub(super) fn pay(&mut self, payment: &MadePayment, now: Timestamp) -> Result<Ticket, Refusal> {
        let malformed = |why: &str| Refusal::Malformed(format!("this payment can't be written down: {why}"));
        let key = (payment.peer, payment.currency.clone());
        let between = self.payments.between.entry(key.clone()).or_default();
        let same = |entry: &Verified<Entry>| {
            said(entry).is_some_and(|s| s.method == payment.method && s.reference == payment.reference)
        };
        if let Some(sent) = between.unanswered.iter().find(|sent| same(&sent.entry)) {
            return Ok(sent.ticket.unwrap_or(Ticket(0)));
        }
        if between.paid.as_ref().is_some_and(same) {
            return Ok(Ticket(0));
        }
        let n = number(between.paid.as_ref()).checked_add(1).ok_or_else(|| malformed("there are too many"))?;
        let paid = self.accounts.get(&payment.peer, &payment.currency).map_or(Amount::ZERO, |a| a.flows().paid);
        let settle = Settle {
            n,
            currency: payment.currency.clone(),
            amount: payment.amount,
            total: paid.checked_add(payment.amount).ok_or_else(|| malformed("the sum of all does not fit"))?,
            method: payment.method.clone(),
            reference: payment.reference.clone(),
        };
        settle.check().map_err(|e| malformed(&e.0))?;
        let total = settle.total;
        let appended = self.append_about(payment.peer, Body::Settle(settle), now);
        let (entry, ticket) = appended.ok_or_else(|| malformed("its peer is this node"))?;
        self.accounts.change(&payment.peer, &payment.currency, |account| account.flows.paid = total);
        let between = self.payments.between.entry(key).or_default();
        between.paid = Some(entry.clone());
        between.unanswered.push_back(Sent::new(entry, Some(ticket), now));
        Ok(ticket)
    }

    /// Tells payees of payments they have not answered, the oldest first.
    pub(super) fn tell_payments(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        for (key, between) in &mut self.payments.between {
            let reachable = self.connected.contains(&key.0);
            if reachable
                && let Some(place) = between.to_tell()
                && let Some(sent) = between.unanswered.get_mut(place).filter(|s| s.again_at <= now)
            {
                sent.in_flight = true;
                due.push((key.clone(), sent.entry.clone(), sent.ticket));
            }
        }
        for (key, entry, ticket) in due {
            let (peer, n) = (key.0, number(Some(&entry)));
            self.send(peer, Request::Deliver { entry: entry.to_signed() }, ticket, Asked::Settle(key, n));
        }
    }

    /// A payee's answer to a payment.
    pub(super) fn payment_told(&mut self, key: &Key, n: u32, response: Option<&Response>, now: Timestamp) {
        if let Some(between) = self.payments.between.get_mut(key)
            && let Some(sent) = between.unanswered.iter_mut().find(|s| number(Some(&s.entry)) == n)
        {
            sent.in_flight = false;
            sent.taken |= matches!(response, Some(Response::Settled { .. }));
            sent.again_at = now + sent.retry;
            sent.retry = Millis((sent.retry.0 * 2).min(RETRY.1.0));
        }
        match response {
            Some(Response::Settled { ack: Some(ack) }) => {
                self.take_settle_ack(key.0, ack, now);
            }
            Some(Response::Settled { ack: None } | Response::Busy { .. } | Response::Rejected(_)) | None => {}
            Some(_) => self.wrong_answer(key.0, "not an answer to a payment"),
        }
    }

    /// A payee says what has arrived. False if that is not about a payment of ours.
    pub(super) fn take_settle_ack(&mut self, from: NodeId, signed: &Signed<Entry>, now: Timestamp) -> bool {
        let Some(entry) = self.verify(from, signed).filter(|e| e.author == from && e.peer == Some(self.chain.me()))
        else {
            return false;
        };
        let Body::SettleAck(ack) = &entry.body else {
            return false;
        };
        let key = (from, ack.currency.clone());
        let Some(between) = self.payments.between.get_mut(&key) else {
            return false;
        };
        let before = self.accounts.get(&key.0, &key.1).map_or(Amount::ZERO, |a| a.flows().paid_acked);
        let known = |e: &Verified<Entry>| e.id() == ack.settle;
        let Some(place) = between.unanswered.iter().position(|sent| known(&sent.entry)) else {
            // Answered before; news only if it says more. Each is an entry in our ledger, so there may be but a few.
            let newest = between.paid.as_ref().filter(|e| known(e)).and_then(|e| said(e));
            if ack.total <= before {
                return true;
            }
            let (times, at) = between.corrected;
            let may = times < limits::CORRECTIONS && now >= at.min(now) + MINUTE;
            let fits = may && newest.is_some_and(|s| s.n == ack.n && ack.total <= s.total);
            if fits {
                let all = newest.map_or(Amount::ZERO, |s| s.total);
                between.corrected = (times + 1, now);
                self.settle_acked(&key, &entry, ack, all);
            }
            return fits;
        };
        let told = between.unanswered.get(place).and_then(|sent| said(&sent.entry));
        let fits = |s: &&Settle| s.n == ack.n && ack.total <= s.total && ack.total >= before;
        let Some(all) = told.filter(fits).map(|s| s.total) else {
            self.false_receipt(from, "an answer to a payment that does not fit it");
            return false;
        };
        between.unanswered.drain(..=place);
        between.corrected = (0, now);
        self.settle_acked(&key, &entry, ack, all);
        true
    }

    fn settle_acked(&mut self, key: &Key, entry: &Verified<Entry>, ack: &SettleAck, said: Amount) {
        self.persist(Record::from(entry));
        let open = self.payments.between.get(key).map_or(Amount::ZERO, Between::lost_open);
        self.accounts.change(&key.0, &key.1, |account| account.paid_acked(ack.n, said, ack.total, open));
    }

    /// A peer says to have paid us. It is kept, and looked for. `dealing` says what it is to us: of strangers
    /// only so many payments are taken, and of nobody any in a currency or by a method that nothing is paid in here. `until` says for how long an open waits for it. Payments with opens may overtake others;
    /// those that are told by themselves come in their order, and where one is missing there it was lost here, and counts no more.
    pub(super) fn take_settle(
        &mut self,
        from: NodeId,
        signed: &Signed<Entry>,
        dealing: impl FnOnce(&Self, &Settle) -> Dealing,
        until: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(Told, DocumentId), &'static str> {
        let me = self.chain.me();
        let entry = self.verify(from, signed).filter(|e| e.author == from && e.peer == Some(me));
        let entry = entry.ok_or("the payment does not verify, or is not to this node")?;
        let settle = said(&entry).ok_or("it is no payment")?.clone();
        let key = (from, settle.currency.clone());
        let total = self.accounts.get(&key.0, &key.1).map_or(Amount::ZERO, |a| a.flows().received_claimed);
        let mut before = self.payments.between.get_mut(&key);
        let waiting = before.as_mut().and_then(|b| b.unverified.iter_mut().find(|c| c.entry.id() == entry.id()));
        if let Some(waiting) = waiting {
            waiting.until = waiting.until.max(until);
            return Ok((Told::Waits, entry.id()));
        }
        let newest = before.as_ref().map_or(0, |b| number(b.received.as_ref()));
        if settle.n <= newest {
            let arrived = before.and_then(|b| b.arrived).filter(|(settle, _)| *settle == entry.id());
            return Ok((Told::Answered(arrived.map_or(Amount::ZERO, |(_, amount)| amount)), entry.id()));
        }
        let next = newest.checked_add(1) == Some(settle.n);
        if !next && until.is_some() {
            return Ok((Told::Early, entry.id()));
        }
        let of_peer = || self.payments.of_peer(&from);
        // One more is looked for each hour: else what was once amiss would stay so until a restart.
        let missed = of_peer().fold(0u8, |sum, b| sum.saturating_add(b.missed.0));
        let newest = of_peer().filter(|b| b.missed.0 > 0).map(|b| b.missed.1).max().unwrap_or(now);
        let waited = now.since(newest.min(now)) >= HOUR && of_peer().all(|b| b.unverified.is_empty());
        if missed >= limits::PAYMENTS_MISSED && !waited {
            return Err("too many of your payments did not arrive; ask the host, or tell this one again in an hour");
        }
        if of_peer().map(|b| b.unverified.len()).sum::<usize>() >= limits::PAYMENTS_WAITING {
            return Err("too many of your payments wait to be looked for");
        }
        let least = total.checked_add(settle.amount).ok_or("the payments' sum overflows")?;
        if settle.total < least || (next && settle.total != least) {
            return Err("its sum does not follow from the payment before it");
        }
        let dealing = dealing(self, &settle);
        if !dealing.drafted {
            self.may_take(&key, dealing)?;
            if !self.payments.counts(from, now) {
                return Err("you have made too many payments within an hour; wait, and tell this one again");
            }
        }
        let between = self.payments.between.entry(key.clone()).or_default();
        between.taken_at = now;
        between.received = Some(entry.clone());
        between.unverified.push_back(Claimed { entry: entry.clone(), until });
        self.persist(Record::from(&entry));
        self.accounts.change(&key.0, &key.1, |account| account.flows.received_claimed = settle.total);
        self.look_for_payment(&key);
        Ok((Told::Waits, entry.id()))
    }

    /// Whether a payment that comes with no open may be taken.
    fn may_take(&self, key: &Key, dealing: Dealing) -> Result<(), &'static str> {
        if !dealing.fits {
            return Err("nothing is paid here in this currency, or by this method; ask the host");
        }
        if self.has_account(&key.0, &key.1) {
            return Ok(());
        }
        if self.payments.of_peer(&key.0).count() >= limits::ACCOUNTS_PER_PEER {
            return Err("you have accounts here in too many currencies");
        }
        if dealing.deals {
            return Ok(());
        }
        let strange = |of: &NodeId| {
            self.payments.between.iter().filter(|(key, b)| key.0 == *of && self.is_strange(key, b)).count()
        };
        let all = self.payments.between.iter().filter(|(key, b)| self.is_strange(key, b)).count();
        if strange(&key.0) >= limits::STRANGE_ACCOUNTS_PER_PEER || all >= limits::STRANGE_ACCOUNTS {
            return Err("this node has nothing to do with you, and takes no more payments of strangers now");
        }
        Ok(())
    }

    /// Whether anything was used, paid or has arrived in an account: not what its peer merely says to have paid.
    pub(super) fn has_account(&self, peer: &NodeId, currency: &Currency) -> bool {
        self.accounts.get(peer, currency).is_some_and(|a| {
            let f = a.flows();
            [f.earned, f.spent, f.received, f.paid].into_iter().any(|sum| sum > Amount::ZERO)
        })
    }

    /// Whether an account is one of a stranger that takes up room: something is looked for, or has arrived, and nothing was used.
    fn is_strange(&self, key: &Key, between: &Between) -> bool {
        let flows = self.accounts.get(&key.0, &key.1).map(|a| *a.flows()).unwrap_or_default();
        let used = [flows.earned, flows.spent, flows.paid].into_iter().any(|sum| sum > Amount::ZERO);
        !used && (!between.unverified.is_empty() || flows.received > Amount::ZERO)
    }

    /// Forgets accounts in which nothing was used and nothing has arrived, those whose payments were told longest ago first.
    fn forget_empty_accounts(&mut self) {
        let is_empty = |key: &Key, b: &Between| b.unverified.is_empty() && !self.has_account(&key.0, &key.1);
        let empty = self.payments.between.iter().filter(|(key, b)| is_empty(key, b));
        let mut empty: Vec<(Timestamp, Key)> = empty.map(|(key, b)| (b.taken_at, key.clone())).collect();
        empty.sort_unstable();
        for (_, key) in empty.iter().take(empty.len().saturating_sub(limits::EMPTY_ACCOUNTS)) {
            if self.accounts.forget(key) {
                self.payments.between.remove(key);
            }
        }
    }

    /// Has the oldest payment that is not answered looked for.
    fn look_for_payment(&mut self, key: &Key) {
        let Some(between) = self.payments.between.get_mut(key).filter(|b| !b.looking) else {
            return;
        };
        let Some((claimed, settle)) = between.unverified.front().and_then(|c| Some((c, said(&c.entry)?))) else {
            return;
        };
        let payment = ClaimedPayment {
            settle: claimed.entry.id(),
            peer: key.0,
            said: settle.clone(),
            time: claimed.entry.time,
            until: claimed.until,
        };
        between.looking = true;
        self.out(Output::VerifySettlement(Box::new(payment)));
    }

    /// Has all looked for that were not answered before the node started.
    pub(super) fn look_for_payments(&mut self) {
        let keys: Vec<Key> = self.payments.between.keys().cloned().collect();
        for key in keys {
            self.look_for_payment(&key);
        }
    }

    /// What became of a payment that was looked for: it is answered, and the peer told. None if it is not the one being looked for.
    pub(super) fn settlement_verified(&mut self, settle: DocumentId, arrived: Amount, now: Timestamp) -> Option<Key> {
        let front = |b: &Between| b.unverified.front().is_some_and(|c| c.entry.id() == settle);
        let key = self.payments.between.iter().find(|(_, b)| front(b)).map(|(key, _)| key.clone())?;
        let (n, amount, most) = self
            .payments
            .between
            .get(&key)
            .and_then(|b| b.unverified.front())
            .and_then(|c| said(&c.entry))
            .map(|s| (s.n, s.amount, s.total))?;
        let before = self.accounts.get(&key.0, &key.1).map_or(Amount::ZERO, |a| a.flows().received);
        let total = clamp(i128::from(before.0) + i128::from(arrived.min(amount).0)).min(most);
        let body = Body::SettleAck(SettleAck { settle, n, currency: key.1.clone(), total });
        let (ack, ticket) = self.append_about(key.0, body, now)?;
        self.accounts.change(&key.0, &key.1, |account| account.flows.received = total);
        if let Some(between) = self.payments.between.get_mut(&key) {
            between.unverified.pop_front();
            between.looking = false;
            between.missed = if arrived == Amount::ZERO { (between.missed.0.saturating_add(1), now) } else { (0, now) };
            between.answer = Some((ack.clone(), Some(ticket)));
            between.arrived = Some((settle, arrived.min(amount)));
        }
        if self.connected.contains(&key.0) {
            self.send(key.0, Request::Deliver { entry: ack.to_signed() }, Some(ticket), Asked::SettleAck);
        }
        self.look_for_payment(&key);
        if arrived == Amount::ZERO {
            self.forget_empty_accounts();
        }
        Some(key)
    }

    /// Our newest answer to a payer, if it is for this payment or a later one.
    pub(super) fn answer_to(&self, key: &Key, n: u32) -> Option<(Signed<Entry>, Option<Ticket>)> {
        let (answer, ticket) = self.payments.between.get(key)?.answer.as_ref()?;
        let fits = if let Body::SettleAck(ack) = &answer.body { ack.n >= n } else { false };
        fits.then(|| (answer.to_signed(), *ticket))
    }
}
