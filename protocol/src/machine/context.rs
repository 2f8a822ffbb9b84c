//! What the parts of the engine share: our chain, the outputs waiting to be carried out, and the questions waiting for answers.

use std::collections::{BTreeMap, VecDeque};

use super::{
    account::{Accounts, Key},
    chain::Chain,
    forks::{Concern, Forks},
    io::{Output, Ticket, Token},
    record::{Private, Record},
    settling::Payments,
};
use crate::{
    DocumentId, LeaseId, NodeId, Timestamp, Verified,
    checkpoint::Checkpoint,
    entry::{Body, Entry},
    key::KeyCache,
    message::{Request, Response},
    signed::{Document, Signed},
    violation::Violation,
};

/// Keys of peers kept decompressed: some more than there are connections as a rule.
const KEYS: usize = 1024;

/// What an outbound question was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Book,
    Propose(Token),
    Commit(LeaseId),
    Control(Token, LeaseId),
    Amend(LeaseId, DocumentId),
    Quote(Token),
    Update(LeaseId),
    Sync(LeaseId),
    Deliver(LeaseId),
    /// What we have said of it.
    Opinion,
    Meet,
    /// A payment of ours, by the key of its account and its number.
    Settle(Key, u32),
    /// Our answer to a payment.
    SettleAck,
}

/// The engine's shared parts.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) chain: Chain,
    pub(super) connected: std::collections::BTreeSet<NodeId>,
    /// Authors that are known to have contradicted themselves: no new leases with them.
    pub(super) forked: Forks,
    /// Of our newest entry.
    head_ticket: Option<Ticket>,
    /// What is between us and each peer.
    pub(super) accounts: Accounts,
    /// Payments on their way.
    pub(super) payments: Payments,
    /// Of those who sign what we verify.
    keys: KeyCache,
    outputs: VecDeque<Output>,
    next_ticket: u64,
    next_token: u64,
    asked: BTreeMap<Token, (NodeId, Asked)>,
}

impl Context {
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            forked: Forks::new(chain.key()),
            chain,
            connected: std::collections::BTreeSet::new(),
            head_ticket: None,
            accounts: Accounts::default(),
            payments: Payments::default(),
            keys: KeyCache::new(KEYS),
            outputs: VecDeque::new(),
            next_ticket: 1,
            next_token: 1,
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn me(&self) -> NodeId {
        self.chain.me()
    }

    /// How much a key's fork matters, as far as accounts and connections show.
    pub(super) fn concern(&self, node: &NodeId) -> Concern {
        if *node == self.me() || self.accounts.any_with(node) {
            Concern::Dealt
        } else if self.connected.contains(node) {
            Concern::Seen
        } else {
            Concern::Nobody
        }
    }

    /// Writes down what has changed of the accounts beside what was signed.
    pub(super) fn note_accounts(&mut self) {
        for note in self.accounts.take_changed().into_values() {
            self.persist(Record::Private(Private::Account(Box::new(note))));
        }
    }

    pub(super) fn out(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn persist(&mut self, record: Record) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.out(Output::Persist { ticket, record: Box::new(record) });
        ticket
    }

    /// Everything asked for so far is durable with this.
    pub(super) const fn newest_ticket(&self) -> Option<Ticket> {
        match self.next_ticket.checked_sub(1) {
            Some(n) if n > 0 => Some(Ticket(n)),
            Some(_) | None => None,
        }
    }

    /// Signs and stores the next entry of our chain. None if it breaks its own bounds, which bounded inputs prevent.
    pub(super) fn append(
        &mut self,
        lease: LeaseId,
        peer: NodeId,
        body: Body,
        now: Timestamp,
    ) -> Option<(Verified<Entry>, Ticket)> {
        let entry = self.chain.append(lease, peer, body, now).ok()?;
        Some((entry.clone(), self.persist_own(&entry)))
    }

    /// Stores an entry of our chain.
    pub(super) fn persist_own(&mut self, entry: &Verified<Entry>) -> Ticket {
        let ticket = self.persist(Record::from(entry));
        self.head_ticket = Some(ticket);
        ticket
    }

    /// Nothing that tells our head leaves before this is durable.
    pub(super) const fn head_durable(&self) -> Option<Ticket> {
        self.head_ticket
    }

    /// Stores an entry that stands for the older part of our chain. One about entries that are not there is ignored.
    pub(super) fn checkpoint(&mut self, checkpoint: Checkpoint, now: Timestamp) {
        if let Ok(entry) = self.chain.checkpoint(checkpoint, now) {
            self.persist_own(&entry);
        }
    }

    /// Signs and stores the next entry of our chain, about a peer and no lease.
    pub(super) fn append_about(
        &mut self,
        peer: NodeId,
        body: Body,
        now: Timestamp,
    ) -> Option<(Verified<Entry>, Ticket)> {
        let entry = self.chain.append_about(peer, body, now).ok()?;
        let ticket = self.persist_own(&entry);
        Some((entry, ticket))
    }

    /// A document of ours beside the chain.
    pub(super) fn sign<T: Document>(&self, value: T) -> Option<Verified<T>> {
        if self.chain.is_halted() {
            return None;
        }
        Verified::sign(value, self.chain.key(), self.chain.network()).ok()
    }

    pub(super) fn send(&mut self, to: NodeId, request: Request, after: Option<Ticket>, asked: Asked) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.asked.insert(token, (to, asked));
        self.out(Output::Send { token, to, request: Box::new(request), after });
        token
    }

    /// Whether this is a question of a meeting that has not been answered.
    pub(super) fn is_meeting(&self, token: Token) -> bool {
        self.asked.get(&token).is_some_and(|(_, asked)| *asked == Asked::Meet)
    }

    pub(super) fn answered(&mut self, token: Token) -> Option<(NodeId, Asked)> {
        self.asked.remove(&token)
    }

    pub(super) fn reply(&mut self, token: Token, response: Response, after: Option<Ticket>) {
        self.out(Output::Reply { token, response: Box::new(response), after });
    }

    pub(super) fn changed(&mut self, lease: LeaseId, at: Timestamp) {
        self.out(Output::Changed { lease, at });
    }

    /// Checks a document a peer sent; one that does not verify is that peer's violation.
    pub(super) fn verify<T: Document>(&mut self, peer: NodeId, signed: &Signed<T>) -> Option<Verified<T>> {
        match signed.verify_with(self.chain.network(), |node| self.keys.of(node)) {
            Ok(document) => Some(document),
            Err(why) => {
                self.out(Output::Violation(Violation::Unverified { peer, why }));
                None
            }
        }
    }

    pub(super) fn false_receipt(&mut self, peer: NodeId, why: &'static str) {
        self.out(Output::Violation(Violation::FalseReceipt { peer, why }));
    }

    pub(super) fn wrong_answer(&mut self, peer: NodeId, why: &'static str) {
        self.out(Output::Violation(Violation::WrongAnswer { peer, why }));
    }

    pub(super) fn id_of<T: Document>(&self, signed: &Signed<T>) -> DocumentId {
        signed.id(self.chain.network())
    }
}
