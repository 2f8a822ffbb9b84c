//! Money that the engine wants paid, and payments of peers that it wants found: carried out by programs of the owner's, or told
//! to people.
//!
//! Owns the programs, and the machines that decide what is asked of them when ([`souk_protocol::machine::payments`]); each row of
//! theirs is in the ledger before anything rests on it. Never waits for a program.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use souk_protocol::{
    Currency, DocumentId, NodeId, Timestamp, encode,
    machine::{
        account::{AccountPolicy, Paying},
        io::{ClaimedPayment, Command as EngineCommand, DuePayment, DueReason, Input, MadePayment, Refusal, Token},
        payments::{Answer, Arrivals, By, Claim, Found, HowFound, Limits, Look, Payout, PayoutStep, Payouts, Stage},
    },
};

use super::{
    accounts::payment_view,
    command::Reply,
    commands::answer,
    task::{Internal, Market},
};
use crate::{
    api::types::PaymentView,
    clock::{now, random},
    config::Config,
    hooks::{EventKind, Happening},
    settlement::Methods,
};

/// News that hooks have not taken; the oldest go.
const UNTOLD: usize = 256;
/// Bytes of a payment's row.
const ROW_BYTES: usize = 4096;
/// Rows of payments.
const PAYOUT: &[u8] = b"payout/";
/// Rows of references that are used up.
const USED: &[u8] = b"payment-used/";

/// What the market task keeps of money.
#[derive(Debug)]
pub struct Money {
    pub(super) methods: Methods,
    pub(super) payouts: Payouts,
    pub(super) arrivals: Arrivals,
    /// The owner's rules as the configuration has them.
    rules: AccountPolicy,
    /// The rules that the engine was told last.
    told: Option<AccountPolicy>,
    pub(super) currency: Currency,
    /// Who this is, on invoices.
    pub(super) name: Option<String>,
    /// Payments that the engine is asked to sign.
    signing: BTreeMap<Token, String>,
    /// Rows on their way to the disk, by the ledger's tickets.
    writing: VecDeque<(u64, String)>,
    pub(super) replies: BTreeMap<String, Reply<PaymentView>>,
    untold: VecDeque<Happening>,
}

fn row_key(reference: &str) -> Vec<u8> {
    [PAYOUT, blake3::hash(reference.as_bytes()).as_bytes()].concat()
}

fn used_key(claim: &Claim) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new_derive_key("souk 2026-11 used payment reference v1");
    hasher.update(claim.said.method.as_bytes()).update(&[0]).update(claim.said.reference.as_bytes());
    [USED, hasher.finalize().as_bytes()].concat()
}

impl Money {
    /// As the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let currency = config.renter.currency.clone();
        let renter = &config.renter.payment;
        let limits: Limits = renter.daily_limit.iter().map(|limit| (currency.clone(), *limit)).collect();
        let ahead_most = renter.ahead_most.iter().map(|most| (currency.clone(), *most)).collect();
        let mut lending = config.host.payment.rules();
        lending.peers = config.host.accept.peers.iter().copied().collect();
        lending.currencies = [&config.host.prices.currency, &currency].into_iter().cloned().collect();
        Self {
            methods: Methods::of(&config.payment.programs),
            payouts: Payouts::new(limits),
            arrivals: Arrivals::default(),
            rules: AccountPolicy { lending, paying: Paying { ahead_most } },
            told: None,
            currency,
            name: config.payment.name.clone(),
            signing: BTreeMap::new(),
            writing: VecDeque::new(),
            replies: BTreeMap::new(),
            untold: VecDeque::new(),
        }
    }
}

impl Market {
    /// Takes up payments that the last run of the node left, and tells the engine the owner's rules. Comes before anything else.
    pub(super) fn begin_money(&mut self) {
        for (_, bytes) in self.ledger.rows(PAYOUT) {
            let Ok(row) = encode::from_bytes::<Payout>(&bytes, ROW_BYTES) else {
                tracing::error!("a payment's row in the ledger can't be read, and is left alone");
                continue;
            };
            // Of what is over the disk says so itself.
            let open = matches!(row.stage, Stage::Intended | Stage::Paid { .. });
            let signed = open && self.ledger.paid_as(&row.peer, &row.currency, &row.reference).is_some();
            self.money.payouts.restore(row, signed, now());
        }
        self.money.payouts.tick(now());
        self.tell_rules();
    }

    /// Tells the engine the owner's rules, if they have changed: the configuration's, whom the owner trusts, and who belongs to
    /// the owner.
    pub(super) fn tell_rules(&mut self) {
        let mut rules = self.money.rules.clone();
        if let Some(host) = &self.host {
            rules.lending.peers.extend(host.config().host.accept.peers.iter().copied());
        }
        for (peer, lines) in self.ledger.trusted_peers() {
            rules.lending.peers.insert(peer);
            rules.lending.lines.extend(lines.into_iter().map(|(currency, most)| ((peer, currency), most)));
        }
        rules.lending.free = self.owned.kept().collect::<BTreeSet<NodeId>>();
        if self.money.told.as_ref() != Some(&rules) {
            self.money.told = Some(rules.clone());
            self.input(Input::Command(EngineCommand::Accounts(Box::new(rules))));
        }
    }

    /// Payments go on whose time has come; what hooks had no room for is told again.
    pub(super) fn money_tick(&mut self) {
        self.tell_rules();
        self.money.payouts.tick(now());
        self.money.arrivals.tick(now());
        while let Some(news) = self.money.untold.pop_front() {
            if !self.hooks.tell(news.clone()) {
                self.money.untold.push_front(news);
                break;
            }
        }
    }

    /// When [`Self::money_tick`] is to come at the latest.
    pub(super) fn money_deadline(&self) -> Option<Timestamp> {
        [self.money.payouts.deadline(), self.money.arrivals.deadline()].into_iter().flatten().min()
    }

    /// Everything up to this ticket of the ledger is durable.
    pub(super) fn money_durable(&mut self, ticket: u64) {
        while let Some((needs, _)) = self.money.writing.front()
            && *needs <= ticket
            && let Some((_, reference)) = self.money.writing.pop_front()
        {
            self.money.payouts.written(&reference);
            // Who ordered it hears that it is on disk; of what was paid by hand, that it is signed.
            let by_hand = self.money.payouts.get(&reference).is_some_and(|row| matches!(row.stage, Stage::Paid { .. }));
            if !by_hand {
                self.answer_payment(&reference);
            }
        }
    }

    fn answer_payment(&mut self, reference: &str) {
        if let Some(reply) = self.money.replies.remove(reference)
            && let Some((row, problem)) = self.money.payouts.iter().find(|(row, _)| row.reference == reference)
        {
            answer(reply, Ok(payment_view(row, problem)));
        }
    }

    /// Does what the machines of money want, until they want nothing more. Whether there was anything.
    pub(super) async fn move_money(&mut self) -> bool {
        let mut moved = false;
        loop {
            if let Some(step) = self.money.payouts.poll() {
                self.payout_step(step).await;
            } else if let Some(look) = self.money.arrivals.poll() {
                self.arrival_step(look).await;
            } else {
                return moved;
            }
            moved = true;
        }
    }

    async fn payout_step(&mut self, step: PayoutStep) {
        match step {
            PayoutStep::Write(row) => {
                let written = self.ledger.keep(row_key(&row.reference), Some(encode::to_bytes(&row))).await;
                if let Some(ticket) = written {
                    self.money.writing.push_back((ticket, row.reference));
                }
            }
            PayoutStep::Forget(reference) => {
                self.ledger.keep(row_key(&reference), None).await;
            }
            PayoutStep::Ask(row) => {
                let (methods, internal, me) = (self.money.methods.clone(), self.internal.clone(), self.engine.me());
                tracing::info!(peer = %row.peer, reference = row.reference, "{} {} are being paid by {}", row.amount, row.currency, row.method);
                tokio::spawn(async move {
                    let answer = methods.pay(me, &row).await;
                    internal.send(Internal::Paid { reference: row.reference, answer }).await.ok();
                });
            }
            PayoutStep::Sign(row) => {
                let token = self.token();
                self.money.signing.insert(token, row.reference.clone());
                let Payout { reference, peer, currency, amount, method, .. } = row;
                let payment = Box::new(MadePayment { peer, currency, amount, method, reference });
                self.input(Input::Command(EngineCommand::Settle { token, payment }));
            }
            PayoutStep::Over(row) => self.payment_over(&row),
        }
    }

    fn payment_over(&mut self, row: &Payout) {
        self.answer_payment(&row.reference);
        let Stage::Failed { why } = &row.stage else { return };
        tracing::warn!(peer = %row.peer, reference = row.reference, "a payment failed: {why}");
        let text = format!("{} {} to {} were not paid: {why}", row.amount, row.currency, row.peer);
        self.tell_money(EventKind::PaymentFailed, &row.peer, row.reference.as_bytes(), text, payment_view(row, None));
        // What the engine waits for was ordered by the node.
        if row.by == By::Node {
            let (peer, currency) = (row.peer, row.currency.clone());
            let why = format!("{} says: {why}", row.method);
            self.input(Input::Command(EngineCommand::CannotSettle { peer, currency, why }));
        }
    }

    /// The engine has taken a payment into our chain, or has not. False if the token is of something else.
    pub(super) fn payment_signed(&mut self, token: Token, result: &Result<(), Refusal>) -> bool {
        let Some(reference) = self.money.signing.remove(&token) else { return false };
        if let Err(why) = result {
            tracing::error!(reference, "a payment that was made is not in our chain: {why}");
        }
        self.money.payouts.signed(&reference, result.clone().map_err(|why| why.to_string()), now());
        true
    }

    /// A payment program has answered.
    pub(super) fn paid(&mut self, reference: &str, answer: Answer) {
        if let Answer::Unknown { why } = &answer {
            tracing::warn!(reference, "it is not known whether a payment was made: {why}; the program is asked again");
        }
        self.money.payouts.answered(reference, answer, now());
    }

    /// Something should be paid to a host. A program pays it, within the limit; else people hear of it.
    pub(super) fn settlement_due(&mut self, due: &DuePayment) {
        let method = due.methods.iter().find(|method| self.money.methods.has(method));
        let why = match method {
            None => format!("none of its methods ({}) has a program here", due.methods.join(", ")),
            Some(method) => match self.pay_by_itself(due, method) {
                Ok(()) => return,
                Err(why) => why,
            },
        };
        let DuePayment { peer, currency, amount, .. } = due;
        tracing::warn!(%peer, "{amount} {currency} are to be paid, and this node does not pay them by itself: {why}");
        let text = format!("{amount} {currency} are to be paid to {peer}: {why}");
        let data = serde_json::json!({
            "peer": peer, "currency": currency, "amount": amount.to_string(), "methods": due.methods, "lease": due.lease, "why": why,
        });
        let subject = [peer.0.as_slice(), currency.0.as_bytes()].concat();
        self.tell_money(EventKind::PaymentDue, peer, &subject, text, data);
        if due.why == DueReason::First {
            let why = format!("the host wants {amount} {currency} first, and {why}");
            self.input(Input::Command(EngineCommand::CannotSettle { peer: *peer, currency: currency.clone(), why }));
        }
    }

    fn pay_by_itself(&mut self, due: &DuePayment, method: &str) -> Result<(), String> {
        if self.money.payouts.is_under_way(&due.peer, &due.currency) {
            return Ok(());
        }
        let reference = new_reference().map_err(|e| e.to_string())?;
        let payout = Payout {
            reference,
            peer: due.peer,
            currency: due.currency.clone(),
            amount: due.amount,
            method: method.to_owned(),
            by: By::Node,
            at: now(),
            stage: Stage::Intended,
            pending: false,
        };
        self.money.payouts.order(payout, now()).map_err(|why| {
            if self.money.payouts.limits().is_empty() {
                "renter.payment.daily_limit is not set".to_owned()
            } else {
                why.to_string()
            }
        })
    }

    /// A peer says to have paid.
    pub(super) fn settlement_claimed(&mut self, payment: &ClaimedPayment) {
        let ClaimedPayment { settle, peer, said, time, until } = payment.clone();
        let how = if self.money.methods.has(&said.method) { HowFound::Program } else { HowFound::Person };
        let claim = Claim { settle, peer, said, time, until };
        let used = self.used_by(&claim);
        self.money.arrivals.claimed(claim, how, used);
    }

    fn used_by(&self, claim: &Claim) -> Option<DocumentId> {
        self.ledger.kept(&used_key(claim)).and_then(|bytes| bytes.try_into().ok()).map(DocumentId)
    }

    /// A program has said whether a payment has arrived.
    pub(super) fn found(&mut self, claim: &Claim, found: Found) {
        if let Found::Unknown { why } = &found {
            tracing::warn!(peer = %claim.peer, "it is not known whether a payment has arrived: {why}; the program is asked again");
        }
        let used = self.used_by(claim);
        self.money.arrivals.found(&claim.settle, found, used, now());
    }

    async fn arrival_step(&mut self, look: Look) {
        match look {
            Look::Ask(claim) => {
                let (methods, internal, me) = (self.money.methods.clone(), self.internal.clone(), self.engine.me());
                tokio::spawn(async move {
                    let found = methods.check(me, &claim).await;
                    internal.send(Internal::Found { claim: Box::new(claim), found }).await.ok();
                });
            }
            Look::Tell(claim) => {
                let (said, peer) = (&claim.said, &claim.peer);
                let text = format!(
                    "{peer} says to have paid {} {} by {}, reference {}: souk account {peer} --received {}",
                    said.amount, said.currency, said.method, said.reference, said.amount
                );
                tracing::info!("{text}");
                let data = serde_json::json!({
                    "peer": peer, "currency": said.currency, "amount": said.amount.to_string(), "method": said.method,
                    "reference": said.reference, "settle": claim.settle,
                });
                self.tell_money(EventKind::PaymentClaimed, peer, &claim.settle.0, text, data);
            }
            Look::Use(claim) => {
                self.ledger.keep(used_key(&claim), Some(claim.settle.0.to_vec())).await;
            }
            Look::Done(claim, result) => {
                match &result {
                    Ok(amount) => {
                        tracing::info!(peer = %claim.peer, "{amount} of {} {} have arrived", claim.said.amount, claim.said.currency)
                    }
                    Err(why) => tracing::warn!(peer = %claim.peer, "a payment has not arrived: {why}"),
                }
                self.input(Input::SettlementVerified { settle: claim.settle, result });
            }
        }
    }

    fn tell_money(
        &mut self,
        kind: EventKind,
        peer: &NodeId,
        subject: &[u8],
        text: String,
        data: impl serde::Serialize,
    ) {
        let data = serde_json::to_value(data).unwrap_or_default();
        let at = now();
        // What is due is told again and again until it is paid: each time is an event of its own.
        let number = if kind == EventKind::PaymentDue { at.0 } else { 0 };
        let subject = [peer.0.as_slice(), subject].concat();
        let news = Happening { kind, at, machine: None, lease: None, text, data, subject, number };
        if !self.hooks.tell(news.clone()) {
            if self.money.untold.len() >= UNTOLD {
                self.money.untold.pop_front();
            }
            self.money.untold.push_back(news);
        }
    }
}

/// A name for a payment that nothing else has.
pub(super) fn new_reference() -> std::io::Result<String> {
    let bytes: [u8; 16] = random().map_err(std::io::Error::other)?;
    Ok(format!("souk-{}", hex::encode(bytes)))
}
