//! A node: a real engine, its disk, and the outputs that wait for the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use souk_protocol::{
    Currency, Keypair, LeaseId, NodeId, Timestamp,
    machine::{
        engine::Engine,
        io::{Output, Ticket, Token},
        policy::HostSetup,
    },
};

use super::{machine::Machine, store::Store};

/// When virtual time begins.
pub const EPOCH: u64 = 1_790_000_000_000;

/// What an account may come to beyond its slice.
#[derive(Debug, Default)]
pub struct Beyond {
    /// By what its leases cost.
    pub leases: BTreeMap<LeaseId, OfLease>,
    /// By what the node owed itself.
    pub netted: u64,
}

/// What a lease may cost beyond its account's slice.
#[derive(Debug, Default)]
pub struct OfLease {
    /// In all.
    pub most: u64,
    /// What its traffic cost when it was not stopped yet.
    pub traffic: u64,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its key.
    pub key: Keypair,
    /// Its id.
    pub id: NodeId,
    /// None while it is down.
    pub engine: Option<Engine>,
    /// Counts its starts.
    pub run: u64,
    /// Its disk.
    pub store: Store,
    /// The machine it hosts on, and how it offers it.
    pub hosting: Option<(Machine, HostSetup)>,
    /// Its clock against virtual time, in milliseconds.
    pub clock: i64,
    /// Everything up to this is durable.
    pub durable: Ticket,
    /// The newest ticket handed out.
    pub newest: Ticket,
    /// Whether a flush is under way.
    pub flushing: bool,
    /// Outputs that wait for a record, in order.
    pub outbox: VecDeque<(Ticket, Output)>,
    /// Questions of others that have no answer yet: who asked, and in which message.
    pub inbound: BTreeMap<Token, (usize, u64)>,
    /// Gossip that has no verdict yet.
    pub gossip: BTreeMap<Token, Vec<u8>>,
    /// Gossip seen.
    pub seen: BTreeSet<[u8; 32]>,
    /// The next token for the engine.
    pub next_token: u64,
    /// Commands whose outcome has not been told.
    pub waiting: BTreeSet<Token>,
    /// Leases whose containers are being looked for.
    pub adopting: BTreeSet<LeaseId>,
    /// Since when a lease is not as the rule says, in virtual milliseconds; kept while all is calm.
    pub amiss: BTreeMap<LeaseId, u64>,
    /// Slots the host's own job runs on.
    pub idle: Vec<u16>,
    /// Whether the engine was told that the container engine can be used.
    pub told_up: bool,
    /// What the accounts of its renters may come to beyond their slices: see `one-slice` of the checks.
    pub beyond: BTreeMap<(NodeId, Currency), Beyond>,
    /// The node's time at its last input.
    pub fed_at: Timestamp,
    /// Steps of its clock.
    pub clock_steps: u64,
    /// When the engine is to be woken, and which waking counts.
    pub wake: Option<(u64, u64)>,
}

impl Node {
    /// A node that is down.
    #[must_use]
    pub fn new(key: Keypair, store: Store, hosting: Option<(Machine, HostSetup)>, clock: i64) -> Self {
        Self {
            id: key.node_id(),
            key,
            engine: None,
            run: 0,
            store,
            hosting,
            clock,
            durable: Ticket(0),
            newest: Ticket(0),
            flushing: false,
            outbox: VecDeque::new(),
            inbound: BTreeMap::new(),
            gossip: BTreeMap::new(),
            seen: BTreeSet::new(),
            next_token: 1,
            waiting: BTreeSet::new(),
            adopting: BTreeSet::new(),
            amiss: BTreeMap::new(),
            idle: Vec::new(),
            told_up: false,
            beyond: BTreeMap::new(),
            fed_at: Timestamp(0),
            clock_steps: 0,
            wake: None,
        }
    }

    /// The node's time.
    #[must_use]
    pub fn time(&self, now: u64) -> Timestamp {
        Timestamp((EPOCH + now).saturating_add_signed(self.clock))
    }

    /// A token that was not used before in this run.
    pub fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }
}
