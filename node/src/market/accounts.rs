//! What people ask and say about money: accounts, payments, what has arrived, invoices.

use souk_protocol::{
    Amount, Currency, NodeId,
    machine::{
        account::Account,
        io::{Command as EngineCommand, Input},
        payments::{By, Claim, HowFound, Payout, Stage},
    },
    payment::PayWhen,
};

use super::{
    command::{CommandError, ErrorCode, LeaseSelector, MoneyCommand, Reply},
    commands::answer,
    settlement::new_reference,
    task::Market,
};
use crate::{
    api::types::{
        AccountDetail, AccountView, AccountsView, ClaimView, ForgiveRequest, PayRequest, PaymentView, ReceivedRequest,
    },
    clock::now,
    config::MANUAL,
};

/// A payment as the API shows it.
pub(super) fn payment_view(row: &Payout, problem: Option<&str>) -> PaymentView {
    let (receipt, why) = match &row.stage {
        Stage::Intended => (None, None),
        Stage::Paid { receipt } | Stage::Settled { receipt } => (Some(receipt.clone()), None),
        Stage::Failed { why } => (None, Some(why.clone())),
    };
    PaymentView {
        reference: row.reference.clone(),
        peer: row.peer,
        currency: row.currency.clone(),
        amount: row.amount,
        method: row.method.clone(),
        by: match row.by {
            By::Person => "person",
            By::Node => "node",
        }
        .to_owned(),
        at_ms: row.at,
        state: row.stage.name().to_owned(),
        receipt: receipt.filter(|r| !r.is_empty()),
        problem: why.or_else(|| problem.map(str::to_owned)),
    }
}

fn claim_view(claim: &Claim, how: HowFound, problem: Option<&str>) -> ClaimView {
    ClaimView {
        settle: claim.settle,
        at_ms: claim.time,
        currency: claim.said.currency.clone(),
        amount: claim.said.amount,
        method: claim.said.method.clone(),
        reference: claim.said.reference.clone(),
        looked_for_by: match how {
            HowFound::Program => "program",
            HowFound::Person => "person",
        }
        .to_owned(),
        problem: problem.map(str::to_owned),
    }
}

fn part(amount: i128) -> Amount {
    Amount(u64::try_from(amount.max(0)).unwrap_or(u64::MAX))
}

fn wrong(message: impl Into<String>) -> CommandError {
    CommandError::new(ErrorCode::BadRequest, message)
}

impl Market {
    pub(super) fn money_command(&mut self, command: MoneyCommand) {
        match command {
            MoneyCommand::Accounts(reply) => answer(reply, Ok(self.accounts())),
            MoneyCommand::Account { peer, reply } => match self.find_other(&peer) {
                Ok(peer) => self.account(peer, reply),
                Err(error) => answer(reply, Err(error)),
            },
            MoneyCommand::Pay { peer, request, reply } => self.pay(&peer, request, reply),
            MoneyCommand::Received { peer, request, reply } => answer(reply, self.received(&peer, &request)),
            MoneyCommand::Forgive { peer, request, reply } => match self.forgive(&peer, &request) {
                Ok(peer) => self.account(peer, reply),
                Err(error) => answer(reply, Err(error)),
            },
            MoneyCommand::Payment { reference, reply } => answer(reply, self.payment(&reference)),
            MoneyCommand::Invoices { request, reply } => {
                let peer = request.peer.as_deref().map(|text| self.find_other(text)).transpose();
                match peer {
                    Ok(peer) => self.ledger.invoices(request, peer, self.money.name.clone(), reply),
                    Err(error) => answer(reply, Err(error)),
                }
            }
        }
    }

    /// Lets go what a peer has refused to sign for, or what it has not signed for yet of a lease.
    fn forgive(&mut self, peer: &str, request: &ForgiveRequest) -> Result<NodeId, CommandError> {
        let peer = self.find_other(peer)?;
        if let Some(reference) = &request.cancel {
            self.cancel_payment(peer, reference)?;
            return Ok(peer);
        }
        if let Some(reference) = &request.lost {
            self.write_off(peer, reference)?;
            return Ok(peer);
        }
        if let Some(text) = &request.lease {
            let lease = self.find(&LeaseSelector(text.clone()))?;
            let hosted = self.engine.host().leases().get(&lease).is_some_and(|l| l.draft().renter == peer);
            if !hosted {
                let why = "this node hosts no open lease of that peer by that name";
                return Err(CommandError::new(ErrorCode::NotFound, why).hint("souk ps lists them"));
            }
            let token = self.token();
            self.input(Input::Command(EngineCommand::Waive { token, lease }));
            return Ok(peer);
        }
        let refused = self.engine.accounts().iter().filter(|a| a.peer() == peer && a.note().refused > Amount::ZERO);
        let currencies: Vec<Currency> = refused.map(|a| a.currency().clone()).collect();
        if currencies.is_empty() {
            let why = "that peer has refused to sign for nothing";
            return Err(CommandError::new(ErrorCode::BadRequest, why).hint("souk account PEER shows what it owes"));
        }
        for currency in currencies {
            let token = self.token();
            self.input(Input::Command(EngineCommand::Forgive { token, peer, currency }));
        }
        Ok(peer)
    }

    /// The owner says that a payment was not made, and is not to be.
    fn cancel_payment(&mut self, peer: NodeId, reference: &str) -> Result<(), CommandError> {
        if self.money.payouts.get(reference).is_none_or(|row| row.peer != peer) {
            return Err(CommandError::new(
                ErrorCode::NotFound,
                "no payment of the last days to that peer has that reference",
            )
            .hint(format!("souk account {peer}")));
        }
        let cancelled = self.money.payouts.cancel(reference);
        cancelled.map_err(|why| CommandError::new(ErrorCode::WrongState, why.to_string()))
    }

    /// The owner holds a payment for lost that a peer has not confirmed.
    fn write_off(&mut self, peer: NodeId, reference: &str) -> Result<(), CommandError> {
        let refused = |why: String| CommandError::new(ErrorCode::WrongState, why).hint(format!("souk account {peer}"));
        let unfinished = self.money.payouts.iter().any(|(row, _)| {
            row.peer == peer && row.reference == reference && matches!(row.stage, Stage::Intended | Stage::Paid { .. })
        });
        if unfinished {
            return Err(refused("this payment is not in the chain yet: wait until it is settled or failed".to_owned()));
        }
        let currencies = self.engine.accounts().iter().filter(|a| a.peer() == peer).map(Account::currency);
        let paid = currencies.filter_map(|c| self.ledger.paid_as(&peer, c, reference).map(|row| (c.clone(), row.n)));
        let mut paid: Vec<(Currency, u32)> = paid.collect();
        let Some((currency, n)) = paid.pop() else {
            let why = "no signed payment of yours to that peer has that reference";
            return Err(CommandError::new(ErrorCode::NotFound, why).hint(format!("souk account {peer}")));
        };
        if !paid.is_empty() {
            let why = "that reference names payments in more than one currency: none is written off";
            return Err(CommandError::new(ErrorCode::Ambiguous, why).hint(format!("souk account {peer}")));
        }
        self.engine.would_lose(&peer, &currency, n, now()).map_err(|why| refused(why.to_string()))?;
        let token = self.token();
        self.input(Input::Command(EngineCommand::WriteOff { token, peer, currency, n }));
        Ok(())
    }

    fn view_of(&self, account: &Account) -> AccountView {
        let (peer, currency, flows) = (account.peer(), account.currency(), account.flows());
        let net = |a: Amount, b: Amount| i128::from(a.0) - i128::from(b.0);
        // As an invoice has it: what was paid ahead is owed to who has paid it.
        let owed = net(flows.earned, flows.received) - net(flows.spent, flows.paid_acked);
        let rules = &self.engine.accounts().policy().lending;
        let (when, line) = (rules.when(&peer, currency), rules.line(&peer, currency));
        let word = match when {
            None => "never",
            Some(PayWhen::Before) => "before",
            Some(PayWhen::After) => "after",
        };
        let claims = self.money.arrivals.iter();
        let mine = |claim: &Claim| claim.peer == peer && claim.said.currency == *currency;
        AccountView {
            peer,
            currency: currency.clone(),
            owes_us: part(owed),
            refused: account.note().refused,
            we_owe: part(-owed),
            owes_us_now: part(self.engine.owed_by(&peer, currency, now())),
            earned: flows.earned,
            spent: flows.spent,
            received_claimed: flows.received_claimed,
            received: flows.received,
            paid: flows.paid,
            paid_acked: flows.paid_acked,
            lost: account.lost(),
            pays: word.to_owned(),
            slice: account.limit(when.unwrap_or(PayWhen::After), line).unit,
            stopped_since_ms: account.note().stopped_at,
            to_confirm: claims.filter(|(claim, how, _)| *how == HowFound::Person && mine(claim)).count(),
            connected: self.engine.connected().any(|p| *p == peer),
        }
    }

    fn accounts(&self) -> AccountsView {
        let (accounts, minute) = (self.engine.accounts(), 60_000);
        let pot = accounts.pot(now());
        let currency = self.money.currency.clone();
        AccountsView {
            accounts: accounts.iter().map(|account| self.view_of(account)).collect(),
            pot_minutes: pot.size / minute,
            pot_taken_minutes: pot.taken / minute,
            daily_limit: self.money.payouts.limits().get(&currency).copied(),
            daily_spent: self.money.payouts.spent(&currency, now()),
            currency,
            programs: self.money.methods.names().map(str::to_owned).collect(),
        }
    }

    fn account(&self, peer: NodeId, reply: Reply<AccountDetail>) {
        let accounts = self.engine.accounts().iter().filter(|a| a.peer() == peer);
        let detail = AccountDetail {
            peer,
            accounts: accounts.map(|account| self.view_of(account)).collect(),
            leases: Vec::new(),
            settlements: Vec::new(),
            payments: self
                .money
                .payouts
                .iter()
                .filter(|(row, _)| row.peer == peer)
                .map(|(row, problem)| payment_view(row, problem))
                .collect(),
            claims: self
                .money
                .arrivals
                .iter()
                .filter(|(claim, ..)| claim.peer == peer)
                .map(|(claim, how, problem)| claim_view(claim, how, problem))
                .collect(),
        };
        self.ledger.account(detail, reply);
    }

    fn payment(&self, reference: &str) -> Result<PaymentView, CommandError> {
        let found = self.money.payouts.iter().find(|(row, _)| row.reference == reference);
        found.map(|(row, problem)| payment_view(row, problem)).ok_or_else(|| {
            CommandError::new(ErrorCode::NotFound, "no payment of the last days has that reference")
                .hint("souk account PEER lists all that are signed")
        })
    }

    /// How a host is paid where nobody says it: the first of its methods that can be used here.
    fn method_for(&self, peer: &NodeId) -> Result<String, CommandError> {
        let leases = self.engine.renter().leases().values().filter(|l| l.host() == *peer);
        let wanted: Vec<&String> = leases.filter_map(|l| l.draft().payment.as_ref()).flat_map(|p| &p.methods).collect();
        let usable = |method: &&&String| method.as_str() == MANUAL || self.money.methods.has(method);
        match wanted.iter().find(usable) {
            Some(method) => Ok((**method).clone()),
            None if wanted.is_empty() && self.money.methods.names().next().is_none() => Ok(MANUAL.to_owned()),
            None if wanted.is_empty() => Err(wrong("this peer's leases name no method of payment")
                .hint("--method NAME pays by a program; --method manual says that you have paid outside of souk")),
            None => {
                let names: Vec<&str> = wanted.iter().map(|m| m.as_str()).collect();
                Err(wrong(format!("the host takes {}, and this node has a program for none of them", names.join(", ")))
                    .hint("add one under [[payment.programs]] in the configuration"))
            }
        }
    }

    fn pay(&mut self, peer: &str, request: PayRequest, reply: Reply<PaymentView>) {
        match self.payment_ordered(peer, request) {
            Ok((reference, true)) => {
                self.money.replies.insert(reference, reply);
            }
            Ok((reference, false)) => answer(reply, self.payment(&reference)),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// Orders a payment: its reference, and whether it is a new one.
    fn payment_ordered(&mut self, peer: &str, request: PayRequest) -> Result<(String, bool), CommandError> {
        let peer = self.find_other(peer)?;
        let currency: Currency = request.currency.unwrap_or_else(|| self.money.currency.clone());
        let reference = match request.reference {
            Some(reference) => reference,
            None => new_reference().map_err(|e| CommandError::new(ErrorCode::Internal, e.to_string()))?,
        };
        let known = self.money.payouts.get(&reference).map(|row| row.method.clone());
        let method = match request.method.or_else(|| known.clone()) {
            Some(method) => method,
            None => self.method_for(&peer)?,
        };
        if known.is_none() && self.ledger.paid_as(&peer, &currency, &reference).is_some() {
            return Err(CommandError::new(ErrorCode::WrongState, "a payment of this reference is signed already")
                .hint(format!("souk account {peer}")));
        }
        let by_hand = method == MANUAL;
        if !by_hand && !self.money.methods.has(&method) {
            let shown: String = method.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(wrong(format!("there is no program for the method `{shown}`")).hint(
                "add it under [[payment.programs]] in the configuration, or say --method manual if you have paid",
            ));
        }
        let stage = if by_hand { Stage::Paid { receipt: String::new() } } else { Stage::Intended };
        let amount = request.amount;
        let at = now();
        let payout = Payout {
            reference: reference.clone(),
            peer,
            currency,
            amount,
            method,
            by: By::Person,
            at,
            stage,
            pending: false,
        };
        let ordered = self.money.payouts.order(payout, at);
        ordered.map_err(|why| CommandError::new(ErrorCode::WrongState, why.to_string()))?;
        Ok((reference, known.is_none()))
    }

    /// A person says what has arrived: of the only payment that waits, of the oldest, or of the one with that reference.
    fn received(&mut self, peer: &str, request: &ReceivedRequest) -> Result<ClaimView, CommandError> {
        let peer = self.find_other(peer)?;
        let named = |claim: &Claim| request.reference.as_ref().is_none_or(|r| claim.said.reference == *r);
        let waiting: Vec<_> = self
            .money
            .arrivals
            .iter()
            .filter(|(claim, ..)| claim.peer == peer && named(claim))
            .map(|(claim, how, problem)| (claim.clone(), claim_view(claim, how, problem)))
            .collect();
        let Some((claim, view)) = waiting.iter().min_by_key(|(claim, _)| (claim.said.n, claim.time)) else {
            return Err(CommandError::new(ErrorCode::NotFound, "no payment of this peer waits to be confirmed")
                .hint("the payer says it first: souk pay"));
        };
        if waiting.len() > 1 && request.reference.is_none() {
            let which: Vec<&str> = waiting.iter().map(|(claim, _)| claim.said.reference.as_str()).collect();
            return Err(CommandError::new(ErrorCode::Ambiguous, "more than one payment of this peer waits")
                .hint(format!("--reference, one of: {}", which.join(", "))));
        }
        if request.amount > claim.said.amount {
            let Claim { said, .. } = claim;
            return Err(wrong(format!("the peer says to have paid {} {}, and not more", said.amount, said.currency)));
        }
        self.money.arrivals.confirm(&claim.settle, request.amount);
        Ok(view.clone())
    }
}
