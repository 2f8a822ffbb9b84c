//! What a node's disk says of its accounts: folded from the documents by code of its own, as the ledger does it.

use std::collections::BTreeMap;

use souk_protocol::{
    Amount, Currency, DocumentId, NodeId, Signed, Verified,
    entry::{Body, Entry},
    machine::account::{AccountRow, Flows, Note},
    settlement::{Settle, SettleAck},
};

/// A payment.
#[derive(Debug)]
struct Payment {
    id: DocumentId,
    signed: Signed<Entry>,
    said: Settle,
    answered: bool,
}

/// The payments of one direction.
#[derive(Debug, Default)]
struct Direction {
    payments: Vec<Payment>,
    arrived: Amount,
    answer: Option<Signed<Entry>>,
}

impl Direction {
    fn total(&self) -> Amount {
        self.payments.last().map_or(Amount::ZERO, |p| p.said.total)
    }

    fn pay(&mut self, id: DocumentId, signed: Signed<Entry>, said: &Settle, ours: bool) -> Result<(), String> {
        let n = self.payments.last().map_or(0, |p| p.said.n);
        let exact = said.n == n + 1;
        let sum = self.total().0 + said.amount.0;
        let fits = said.n > n && said.total.0 >= sum && (!exact || said.total.0 == sum) && (exact || !ours);
        if !fits {
            return Err(format!("payments: {said:?} after number {n} and {}", self.total()));
        }
        self.payments.push(Payment { id, signed, said: said.clone(), answered: false });
        Ok(())
    }

    fn answer(&mut self, signed: Signed<Entry>, ack: &SettleAck) -> Result<(), String> {
        let arrived = self.arrived;
        let payment = self.payments.iter_mut().find(|p| p.id == ack.settle && p.said.n == ack.n);
        let payment = payment.ok_or("payments: an answer to none")?;
        if ack.total > payment.said.total || ack.total < arrived {
            return Err(format!("payments: {ack:?} after {arrived}"));
        }
        payment.answered = true;
        self.arrived = ack.total;
        self.answer = Some(signed);
        Ok(())
    }

    fn waiting(&self) -> Vec<Signed<Entry>> {
        let from = self.payments.iter().rposition(|p| p.answered).map_or(0, |newest| newest + 1);
        self.payments.iter().skip(from).map(|p| p.signed.clone()).collect()
    }
}

/// All accounts of one node.
#[derive(Debug, Default)]
pub struct Accounts {
    between: BTreeMap<(NodeId, Currency), (Direction, Direction)>,
    notes: BTreeMap<(NodeId, Currency), Note>,
}

impl Accounts {
    /// Takes an entry about a peer.
    ///
    /// # Errors
    /// What contradicts the entries before.
    pub fn entry(&mut self, me: &NodeId, entry: &Verified<Entry>, signed: Signed<Entry>) -> Result<(), String> {
        let ours = entry.author == *me;
        let Some(peer) = (if ours { entry.peer } else { Some(entry.author) }) else { return Ok(()) };
        match &entry.body {
            Body::Settle(said) => {
                let between = self.between.entry((peer, said.currency.clone())).or_default();
                let direction = if ours { &mut between.0 } else { &mut between.1 };
                direction.pay(entry.id(), signed, said, ours)
            }
            Body::SettleAck(ack) => {
                let between = self.between.entry((peer, ack.currency.clone())).or_default();
                let direction = if ours { &mut between.1 } else { &mut between.0 };
                direction.answer(signed, ack)
            }
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::LeaseAccept { .. }
            | Body::Void { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::CloseAck { .. }
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => Ok(()),
        }
    }

    /// Takes a note.
    pub fn note(&mut self, note: Note) {
        self.notes.insert((note.peer, note.currency.clone()), note);
    }

    /// What was paid to a peer, and what of it has arrived by its word; and the same from the peer to us.
    #[must_use]
    pub fn paid(&self, peer: &NodeId, currency: &Currency) -> [Amount; 4] {
        self.between
            .get(&(*peer, currency.clone()))
            .map_or([Amount::ZERO; 4], |(out, back)| [out.total(), out.arrived, back.total(), back.arrived])
    }

    /// Whether a payment of this node, or to it, has no answer yet.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        self.between.values().any(|(out, back)| !out.waiting().is_empty() || !back.waiting().is_empty())
    }

    /// Whether a payment of this reference is said.
    #[must_use]
    pub fn has_paid(&self, peer: &NodeId, currency: &Currency, reference: &str) -> bool {
        let said = |(out, _): &(Direction, Direction)| out.payments.iter().any(|p| p.said.reference == reference);
        self.between.get(&(*peer, currency.clone())).is_some_and(said)
    }

    /// All payments that this node says to have received: from whom, method and reference, what was said to be paid.
    pub fn received(&self) -> impl Iterator<Item = (&NodeId, &Settle, bool)> {
        self.between
            .iter()
            .flat_map(|((peer, _), (_, back))| back.payments.iter().map(move |p| (peer, &p.said, p.answered)))
    }

    /// The rows an engine starts from; `signed` is what peers have signed for as renters, and what this node has, by account.
    #[must_use]
    pub fn rows(&self, signed: &BTreeMap<(NodeId, Currency), (Amount, Amount)>) -> Vec<AccountRow> {
        let keys = self.between.keys().chain(signed.keys()).chain(self.notes.keys());
        let keys: std::collections::BTreeSet<_> = keys.cloned().collect();
        let nothing = (Direction::default(), Direction::default());
        let rows = keys.into_iter().map(|key| {
            let (out, back) = self.between.get(&key).unwrap_or(&nothing);
            let (earned, spent) = signed.get(&key).copied().unwrap_or_default();
            AccountRow {
                flows: Flows {
                    earned,
                    spent,
                    received_claimed: back.total(),
                    received: back.arrived,
                    paid: out.total(),
                    paid_acked: out.arrived,
                },
                note: self.notes.get(&key).cloned(),
                paid: out.payments.last().map(|p| p.signed.clone()),
                unanswered: out.waiting(),
                received: back.payments.last().map(|p| p.signed.clone()),
                unverified: back.waiting(),
                answer: back.answer.clone(),
                peer: key.0,
                currency: key.1,
            }
        });
        rows.collect()
    }
}
