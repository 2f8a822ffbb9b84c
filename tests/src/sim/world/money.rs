//! A bank outside of souk, how owners pay through it, and what hosts see of it.
//!
//! What was transferred is written down by the payer's shell before its engine hears of it, as a payment program's caller does: after
//! a crash it tells what the chain does not have, and now and then what it has already.

use std::collections::BTreeMap;

use souk_protocol::{
    Amount, DocumentId, NodeId,
    machine::{
        account::{AccountPolicy, Lending},
        io::{ClaimedPayment, Command, DuePayment, Input, MadePayment},
    },
    payment::PayWhen,
};

use super::{Event, Held, World};

/// The method that everybody takes.
pub const METHOD: &str = "bank";

/// A transfer.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// From whom.
    pub from: usize,
    /// What it is, as its payer says it.
    pub payment: MadePayment,
}

/// All transfers, by reference.
#[derive(Debug, Default)]
pub struct Bank {
    transfers: BTreeMap<String, Transfer>,
}

impl Bank {
    /// What was transferred from one node to another in all.
    #[must_use]
    pub fn sum(&self, from: usize, to: &NodeId) -> Amount {
        let sums = self.transfers.values().filter(|t| t.from == from && t.payment.peer == *to);
        sums.fold(Amount::ZERO, |sum, t| sum.saturating_add(t.payment.amount))
    }

    /// How many there were.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.transfers.len() as u64
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transfers.is_empty()
    }
}

/// Whether the owner of this node never pays.
#[must_use]
pub const fn is_deadbeat(id: &NodeId) -> bool {
    id.0[5].is_multiple_of(4)
}

/// The rules of a host in a world in which so many per mille want to be paid.
#[must_use]
pub fn policy(id: &NodeId, paid: u64) -> AccountPolicy {
    if u64::from(id.0[6]) * 1000 / 256 >= paid {
        return AccountPolicy::default();
    }
    let strangers = if id.0[7].is_multiple_of(2) { PayWhen::After } else { PayWhen::Before };
    let lending = Lending {
        methods: vec![METHOD.to_owned()],
        strangers: Some(strangers),
        // Short slices, so that they are used up within the life of a lease; and a pot that is now and then empty.
        slice: souk_protocol::Millis::from_secs(10 + u64::from(id.0[8]) / 8),
        pot: if id.0[9].is_multiple_of(4) { 60_000 } else { u64::MAX },
        ..Lending::default()
    };
    AccountPolicy { lending, ..AccountPolicy::default() }
}

impl World {
    /// A node's engine wants something paid.
    pub(super) fn settlement_due(&mut self, node: usize, due: DuePayment) {
        let run = self.nodes[node].run;
        let late = self.dice.permille(50);
        self.after(20, if late { 120_000 } else { 3_000 }, Event::Pay { node, run, due: Box::new(due) });
    }

    /// Its owner pays, or doesn't.
    pub(super) fn pay(&mut self, node: usize, due: &DuePayment) -> Held {
        let deadbeat = is_deadbeat(&self.nodes[node].id);
        if deadbeat || self.dice.permille(30) {
            let why = "the bank is closed".to_owned();
            let (peer, currency) = (due.peer, due.currency.clone());
            return self.feed(node, Input::Command(Command::CannotSettle { peer, currency, why }));
        }
        let payment = MadePayment {
            peer: due.peer,
            currency: due.currency.clone(),
            amount: due.amount,
            method: METHOD.to_owned(),
            reference: format!("T{}", self.bank.transfers.len()),
        };
        self.bank.transfers.insert(payment.reference.clone(), Transfer { from: node, payment: payment.clone() });
        self.tell_paid(node, payment)
    }

    fn tell_paid(&mut self, node: usize, payment: MadePayment) -> Held {
        let token = self.nodes[node].token();
        self.nodes[node].waiting.insert(token);
        self.feed(node, Input::Command(Command::Settle { token, payment: Box::new(payment) }))
    }

    /// After a start: transfers that the chain does not say are said now. The newest may be said twice.
    pub(super) fn tell_unsaid(&mut self, node: usize) -> Held {
        let ours = self.bank.transfers.values().filter(|t| t.from == node).map(|t| t.payment.clone());
        let ours: Vec<MadePayment> = ours.collect();
        let store = &self.nodes[node].store;
        let mut unsaid: Vec<MadePayment> =
            ours.iter().filter(|p| !store.accounts().has_paid(&p.peer, &p.currency, &p.reference)).cloned().collect();
        unsaid.sort_by_key(|p| p.reference[1..].parse::<u64>().unwrap_or(0));
        if self.dice.permille(500) {
            let again = unsaid.last().cloned();
            unsaid.extend(again);
        }
        for payment in unsaid {
            self.tell_paid(node, payment)?;
        }
        Ok(())
    }

    /// A host looks for a payment: it takes its time, now and then more than an open waits.
    pub(super) fn settlement_claimed(&mut self, node: usize, claimed: ClaimedPayment) {
        let run = self.nodes[node].run;
        let slow = self.dice.permille(60);
        let reference = claimed.said.reference;
        let event = Event::Verified { node, run, settle: claimed.settle, peer: claimed.peer, reference };
        self.after(5, if slow { 60_000 } else { 2_000 }, event);
    }

    /// It has found out.
    pub(super) fn verified(&mut self, node: usize, settle: DocumentId, peer: NodeId, reference: &str) -> Held {
        let us = self.nodes[node].id;
        let transfer = self.bank.transfers.get(reference);
        let transfer = transfer.filter(|t| self.nodes[t.from].id == peer && t.payment.peer == us);
        let result = transfer.map(|t| t.payment.amount).ok_or_else(|| "no such transfer".to_owned());
        self.feed(node, Input::SettlementVerified { settle, result })
    }
}
