//! Trust, as the market task holds it: whom the owner trusts and blocks, what is vouched for, evidence of others, and the scores
//! computed from all of it.
//!
//! Rules are elsewhere: budgets and blocks in the protocol crate, the formula in the ledger's. Here they are fed and their
//! answers carried to where they count: searches, who may rent, gossip.

mod evidence;
mod opinions;
mod regard;
mod scores;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use souk_ledger::{
    regard::{Blocked, Trusted},
    reputation::Scores,
};
use souk_protocol::{
    HostId, NodeId, Signed, Timestamp,
    entry::Entry,
    machine::{
        evidence::{Giver, Puller},
        io::Token,
    },
};

use super::{
    command::{LeaseSelector, Reply},
    commands::answer,
    task::Market,
};
use crate::{
    api::types::{
        AttestRequest, AttestationView, BlockRequest, BlockView, ReportRequest, ReportView, ReputationRequest,
        ReputationView, TrustRequest, TrustView,
    },
    config,
    ledger::Ledger,
    seal::Seal,
};

pub(super) use evidence::Pulled;
pub(super) use scores::Computed;
pub use table::Table;

/// What may be asked about trust.
#[derive(Debug)]
pub enum TrustCommand {
    /// Whom the owner trusts.
    Trust {
        /// What changes; none only asks.
        request: Option<TrustRequest>,
        /// Everybody trusted after it.
        reply: Reply<Vec<TrustView>>,
    },
    /// Whom the owner blocks.
    Block {
        /// What changes; none only asks.
        request: Option<BlockRequest>,
        /// Everybody blocked after it.
        reply: Reply<Vec<BlockView>>,
    },
    /// Attestations by this node and about it.
    Attestations {
        /// The answer.
        reply: Reply<Vec<AttestationView>>,
    },
    /// Vouches for a node.
    Attest {
        /// For whom, and what.
        request: AttestRequest,
        /// What was signed.
        reply: Reply<AttestationView>,
    },
    /// Complains of the other party of a lease.
    Report {
        /// Which lease.
        id: LeaseSelector,
        /// What of.
        request: ReportRequest,
        /// What was signed.
        reply: Reply<ReportView>,
    },
    /// What is thought of nodes.
    Reputation {
        /// Of whom; none for everybody known.
        peer: Option<String>,
        /// What to show.
        request: ReputationRequest,
        /// The answer.
        reply: Reply<Vec<ReputationView>>,
    },
}

/// What the market task keeps of trust.
#[derive(Debug)]
pub struct Trust {
    config: config::Trust,
    trusted: BTreeMap<HostId, Trusted>,
    blocked: BTreeMap<HostId, Blocked>,
    /// Our attestations in force, by whom they are about and claim: handed over when we meet.
    said: BTreeMap<NodeId, BTreeMap<String, Signed<Entry>>>,
    waiting: BTreeMap<Token, opinions::Waiting>,
    puller: Puller,
    giver: Giver,
    table: Table,
    scores: Option<Arc<Scores>>,
    computed_at: Option<Timestamp>,
    next_at: Timestamp,
    computing: bool,
    dirty: bool,
    /// Scores that gossip was told of.
    told: BTreeMap<NodeId, f64>,
    /// Renters let in by trust or attestations, beside those named.
    pub(super) let_in: BTreeSet<NodeId>,
}

impl Trust {
    /// The parties of leases and payments that others have shown; some more than once.
    pub(super) fn heard_of(&self) -> impl Iterator<Item = NodeId> + '_ {
        let leases = self.table.evidence().flat_map(|lease| [lease.host, lease.renter]);
        leases.chain(self.table.payments().flat_map(|paid| [paid.payer, paid.payee]))
    }

    /// Takes up what the ledger and the evidence file hold.
    ///
    /// # Errors
    /// If the ledger can't be read.
    pub fn open(config: config::Trust, ledger: &Ledger, dir: &std::path::Path, seal: Seal) -> anyhow::Result<Self> {
        let (trusted, blocked, said) = ledger.regard()?;
        Ok(Self {
            config,
            trusted,
            blocked,
            said,
            waiting: BTreeMap::new(),
            puller: Puller::default(),
            giver: Giver::default(),
            table: Table::open(dir, seal),
            scores: None,
            computed_at: None,
            next_at: Timestamp(0),
            computing: false,
            dirty: true,
            told: BTreeMap::new(),
            let_in: BTreeSet::new(),
        })
    }
}

impl Trust {
    /// Whom the owner of this node trusts or blocks.
    pub(super) fn regarded(&self) -> impl Iterator<Item = HostId> + '_ {
        self.trusted.keys().chain(self.blocked.keys()).copied()
    }

    /// What writes the evidence file as it is now.
    pub(super) fn save(&mut self) -> impl FnOnce() + Send + 'static {
        self.table.save()
    }
}

impl Market {
    pub(super) fn trust_command(&mut self, command: TrustCommand) {
        match command {
            TrustCommand::Trust { request, reply } => self.trust_changed(request, reply),
            TrustCommand::Block { request, reply } => self.block_changed(request, reply),
            TrustCommand::Attestations { reply } => self.attestations(reply),
            TrustCommand::Attest { request, reply } => self.attest(&request, reply),
            TrustCommand::Report { id, request, reply } => self.report(&id, &request, reply),
            TrustCommand::Reputation { peer, request, reply } => self.reputation(peer.as_deref(), &request, reply),
        }
    }

    /// At the start: the engine learns whom we block, and how much is said of us already.
    pub(super) fn begin_trust(&mut self) {
        self.regard_changed();
        let held = self.ledger.claims_about_us();
        self.engine.hold_attestations(held);
    }

    /// Every few seconds.
    pub(super) fn follow_trust(&mut self) {
        self.look_for_hosts();
        self.pull_evidence();
        self.compute_scores();
        self.trust.table.save_sometimes();
    }

    /// The nodes of somebody: one, or an owner's with offers on the market.
    pub(super) fn nodes_of(&self, who: &HostId) -> Vec<NodeId> {
        match who {
            HostId::Node(node) => vec![*node],
            HostId::Owner(_) => {
                let of_owner = self.engine.book().offers().filter(|o| o.host_id() == *who).map(|o| o.host);
                of_owner.collect::<BTreeSet<NodeId>>().into_iter().collect()
            }
        }
    }

    fn is_trusted(&self, node: &NodeId) -> bool {
        let names = |who: HostId| self.trust.trusted.contains_key(&who);
        names(HostId::Node(*node)) || self.engine.book().offers_of(node).any(|o| names(o.host_id()))
    }

    /// Whose attestations count: named in the configuration, or trusted.
    fn attesters(&self) -> BTreeSet<NodeId> {
        let mut all: BTreeSet<NodeId> = self.trust.config.attesters.iter().copied().collect();
        if let Some(host) = &self.host {
            all.extend(host.config().host.accept.attested_by.iter().copied());
        }
        all.extend(self.trust.trusted.keys().flat_map(|who| self.nodes_of(who)));
        all.insert(self.engine.me());
        all
    }

    fn unreadable<T>(reply: Reply<T>, error: &souk_ledger::view::QueryError) {
        answer(reply, Err(crate::ledger::unreadable(error)));
    }
}
