//! The market task: sole caller of the engine. Inputs come from peers, people, the runtime and the store; outputs are carried
//! out in order.
//!
//! Owns the engine, the waiting outputs and who waits for an answer. It never waits for a flush, a peer or the container
//! engine: what takes time runs beside it and comes back as `Internal`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use souk_network::{GossipVerdict, NetworkEvent, NetworkHandle, Reply as PeerReply, Topic};
use souk_protocol::{
    LeaseId, NodeId,
    entry::Entry,
    machine::{
        backoff::Backoff,
        engine::Engine,
        io::{Input, NoAnswer, Output, OwnKey, Refusal, RuntimeReport, Step, Ticket, Token},
        pricing::{About, OwnerAnswer},
        record::Record,
        search::AskIndex,
    },
    message::{Request, Response},
    negotiation::{ImagePin, Reject},
};
use souk_runtime::{Adopted, DockerRuntime, HostInventory, Runtime, RuntimeReport as ContainerReport, Usage};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    chains::Chains,
    clustered::Clustered,
    command::Command,
    early::Early,
    idle::IdleSide,
    logins::Logins,
    outbox::Outbox,
    owned::Owned,
    patience,
    pricing::Prices,
    pulses::Pulses,
    rentals::Rentals,
    settlement::Money,
    terms::Waiters,
    trust::{Computed, Pulled, Trust},
    views::Meta,
};
use crate::{
    access::{
        Permission, Server,
        keys::KeyStore,
        public::{self, Wanted},
    },
    clock::now,
    host::{HostSide, instances, locks::SlotLocks},
    inside::{Ask, Endpoints},
    ledger::{Ledger, Progress},
};

/// Results of work beside the task that it has not read. When full, that work waits.
const INTERNAL: usize = 1024;
/// Streams waiting for permission. When full, they wait.
const PERMISSIONS: usize = 64;
/// Between two looks at traffic counters of running instances.
const TRAFFIC_EVERY: Duration = Duration::from_secs(5);
/// Between two attempts to reach a container engine that never answered.
const ENGINE_RETRY: Duration = Duration::from_secs(5);
/// How long a peer has for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a host has to answer a wish about an instance.
const CONTROL_WITHIN: Duration = Duration::from_secs(30);
/// How long a stop waits for the last records to be durable.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// Whether the store has failed, or up to which ticket all is durable.
pub type Durable = Result<Ticket, String>;

/// Results of work beside the task.
pub(super) enum Internal {
    Response {
        token: Token,
        result: Result<Response, NoAnswer>,
    },
    Image {
        token: Token,
        result: Result<ImagePin, Reject>,
    },
    Owner {
        token: Token,
        about: About,
        answer: OwnerAnswer,
        failure: Option<String>,
    },
    /// What was found, and how many reports each lease had when it was asked about.
    Adopted(Vec<Adopted>, BTreeMap<LeaseId, u64>),
    Traffic {
        lease: LeaseId,
        usage: Usage,
    },
    Runtime(Box<DockerRuntime>, mpsc::Receiver<ContainerReport>, Box<HostInventory>),
    NoRuntime(String),
    /// What the idle job's image stands for.
    IdleImage {
        reference: String,
        result: Result<ImagePin, Reject>,
    },
    /// Look at all instances again.
    LookAgain,
    /// What came of a question into a rented instance.
    Beat(Input),
    /// What a payment program said about a payment of ours.
    Paid {
        reference: String,
        answer: souk_protocol::machine::payments::Answer,
    },
    /// What one said about a payment of a peer.
    Found {
        claim: Box<souk_protocol::machine::payments::Claim>,
        found: souk_protocol::machine::payments::Found,
    },
    /// A host has a login, or won't have it.
    LoginGiven(super::logins::Waiting, Result<(), Refusal>),
    /// What a member said of its list of members.
    Listed(NodeId, Box<souk_protocol::cluster::ClusterAnswer>),
    /// What came of asking a peer for evidence.
    Pulled(NodeId, Pulled),
    /// New scores; none if they could not be computed.
    Scored(Option<Box<Computed>>),
}

/// What the task is made of.
#[derive(Debug)]
pub struct Parts {
    /// The engine, as the ledger left it.
    pub engine: Engine,
    /// The ledger.
    pub ledger: Ledger,
    /// Row numbers, labels and commands of open leases.
    pub meta: BTreeMap<LeaseId, Meta>,
    /// How far the ledger has come.
    pub progress: watch::Receiver<Progress>,
    /// The network.
    pub network: NetworkHandle,
    /// What happens on it.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// What people want.
    pub commands: mpsc::Receiver<Command>,
    /// The machine as a host, if it is one.
    pub host: Option<HostSide>,
    /// The slots' locks.
    pub locks: SlotLocks,
    /// The owner, and the owner's other machines.
    pub owned: Owned,
    /// The private cluster, if the node is in one.
    pub cluster: Option<Clustered>,
    /// What a status tells of the node.
    pub about: super::About,
    /// Where the owner's hooks are told what happens.
    pub hooks: crate::hooks::Feed,
    /// Registry logins.
    pub logins: Logins,
    /// Trust and reputation.
    pub trust: Trust,
    /// Peers that were met before the engine was made.
    pub connected: std::collections::BTreeSet<NodeId>,
    /// What people have wanted before.
    pub waiting: Vec<Command>,
    /// Streams that renters have opened meanwhile.
    pub early: Early,
    /// Payments.
    pub money: Money,
}

pub(super) struct Market {
    pub(super) engine: Engine,
    pub(super) ledger: Ledger,
    pub(super) meta: BTreeMap<LeaseId, Meta>,
    pub(super) network: NetworkHandle,
    pub(super) host: Option<HostSide>,
    pub(super) locks: SlotLocks,
    pub(super) owned: Owned,
    pub(super) cluster: Option<Clustered>,
    pub(super) about: super::About,
    pub(super) hooks: crate::hooks::Feed,
    pub(super) index: AskIndex,
    pub(super) backoff: Backoff,
    pub(super) rentals: Rentals,
    pub(super) waiters: Waiters,
    pub(super) prices: Prices,
    pub(super) runtime: Option<Arc<DockerRuntime>>,
    pub(super) runtime_problem: Option<String>,
    pub(super) server: Option<Server>,
    /// Streams from before there was one.
    pub(super) early: Early,
    pub(super) endpoints: Endpoints,
    /// Wishes from inside instances that the engine has not answered.
    pub(super) inside: BTreeMap<Token, Ask>,
    pub(super) public: watch::Sender<Wanted>,
    permissions: mpsc::Sender<Permission>,
    outbox: Outbox,
    pub(super) internal: mpsc::Sender<Internal>,
    peer_replies: BTreeMap<Token, (NodeId, PeerReply)>,
    chains: Chains,
    verdicts: BTreeMap<Token, GossipVerdict>,
    next_token: u64,
    pub(super) adopt: bool,
    /// Reports of the runtime about each hosted lease.
    pub(super) reported: BTreeMap<LeaseId, u64>,
    /// Leases opened whose numbers the ledger has not given yet.
    pub(super) unnumbered: BTreeSet<LeaseId>,
    /// Leases that the engine has let go of, whose last records may not be durable yet.
    pub(super) settling: BTreeSet<LeaseId>,
    pub(super) kept: BTreeSet<NodeId>,
    pub(super) idle: IdleSide,
    pub(super) pulses: Pulses,
    pub(super) logins: Logins,
    pub(super) trust: Trust,
    pub(super) money: Money,
    pub(super) recalls: super::heads::Asked,
    pub(super) meetings: super::heads::Asked,
    pub(super) recalling: Arc<tokio::sync::Semaphore>,
    halted: Option<End>,
}

/// How a market ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// It may not sign any more, and begins anew behind its guard.
    Anew(OwnKey),
    /// Its cluster has another key, which its connections are sealed with from the next start on.
    Rekeyed,
}

/// Runs the market until `stop`, or until the store fails.
///
/// # Errors
/// What the store failed with: the node must not go on without it.
pub async fn run(parts: Parts, stop: CancellationToken) -> anyhow::Result<End> {
    let (internal, mut results) = mpsc::channel(INTERNAL);
    let (permissions, mut asked) = mpsc::channel(PERMISSIONS);
    let Parts {
        engine,
        ledger,
        meta,
        mut progress,
        network,
        mut events,
        mut commands,
        host,
        locks,
        owned,
        cluster,
        about,
        hooks,
        logins,
        trust,
        connected,
        waiting,
        early,
        money,
    } = parts;
    let (asks, mut inside) = mpsc::channel(crate::inside::ASKS);
    let endpoints = Endpoints::new(about.api.clone(), asks);
    let mut market = Market {
        engine,
        ledger,
        meta,
        network,
        host,
        locks,
        owned,
        cluster,
        about,
        hooks,
        index: AskIndex::default(),
        backoff: Backoff::default(),
        rentals: Rentals::default(),
        waiters: Waiters::default(),
        prices: Prices::default(),
        runtime: None,
        runtime_problem: None,
        server: None,
        early,
        endpoints,
        inside: BTreeMap::new(),
        public: watch::Sender::new(Wanted::default()),
        permissions,
        outbox: Outbox::default(),
        internal,
        peer_replies: BTreeMap::new(),
        chains: Chains::default(),
        verdicts: BTreeMap::new(),
        next_token: 1,
        adopt: false,
        reported: BTreeMap::new(),
        unnumbered: BTreeSet::new(),
        settling: BTreeSet::new(),
        kept: BTreeSet::new(),
        idle: IdleSide::default(),
        pulses: Pulses::default(),
        logins,
        trust,
        recalls: super::heads::Asked::for_recalls(),
        meetings: super::heads::Asked::for_meetings(),
        recalling: Arc::new(tokio::sync::Semaphore::new(super::heads::RECALLING)),
        halted: None,
        money,
    };
    market.begin_money();
    market.remember_failures();
    market.begin_trust();
    market.begin_cluster();
    market.tell_heard_of();
    market.ask_pulses();
    let public_ends = CancellationToken::new();
    let _public_ends = public_ends.clone().drop_guard();
    if let Some(host) = &market.host {
        let (bind, wanted) = (host.config().host.public.bind, market.public.subscribe());
        tokio::spawn(public::listen(bind, wanted, public_ends));
        market.want_public_ports();
        market.connect_runtime(Duration::ZERO);
    } else {
        market.input(Input::Command(souk_protocol::machine::io::Command::Host(None)));
    }
    let mut reports: Option<mpsc::Receiver<ContainerReport>> = None;
    let mut traffic = tokio::time::interval(TRAFFIC_EVERY);
    let mut reachability = market.network.reachability_changes();
    market.drain().await;
    for peer in connected {
        market.event(NetworkEvent::Connected(peer));
        market.drain().await;
    }
    for command in waiting {
        market.command(command);
        market.drain().await;
    }
    loop {
        if market.halted.is_some() {
            break;
        }
        let wake = market.engine.deadline().map(|(at, _)| Instant::now() + at.since(now()).to_std());
        let money_wake = market.money_deadline().map(|at| Instant::now() + at.since(now()).to_std());
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = progress.changed() => {
                if changed.is_err() {
                    anyhow::bail!("the ledger's thread has ended");
                }
                let state = progress.borrow_and_update().clone();
                if let Some(checkpoint) = market.ledger.checkpoint() {
                    market.input(Input::Checkpoint(checkpoint));
                }
                let money = if let Progress::Durable(ticket) = &state { Some(*ticket) } else { None };
                if let Some(ticket) = money {
                    market.money_durable(ticket);
                }
                match market.ledger.decided(&state) {
                    Some(Ok(ticket)) => market.durable(ticket).await,
                    Some(Err(why)) => {
                        anyhow::bail!("the ledger can't be written: {why}; nothing is signed without it, so the node stops")
                    }
                    None => {}
                }
            }
            Some(result) = results.recv() => market.result(result, &mut reports),
            report = next(&mut reports) => match report {
                Some(report) => market.container(report),
                None => reports = None,
            },
            event = events.recv() => match event {
                Some(event) => market.event(event),
                None if stop.is_cancelled() => break,
                None => anyhow::bail!("the network's task has ended"),
            },
            Ok(()) = reachability.changed() => {
                reachability.borrow_and_update();
                market.offer_machine();
            }
            Some(permission) = asked.recv() => market.permit(permission),
            Some(ask) = inside.recv() => market.asked_inside(ask),
            Some(command) = commands.recv() => market.command(command),
            _ = traffic.tick() => {
                market.ask_traffic();
                market.controls_overdue();
                market.owned.tick();
                market.mind_the_door();
                market.tell_machines();
                market.waiters_overdue();
                market.follow_market();
                market.mark_all();
                market.forget();
                market.forget_logins();
                market.follow_trust();
                market.money_tick();
            }
            () = sleep_until(money_wake) => market.money_tick(),
            () = sleep_until(Some(market.idle.wake())) => market.idle_wake(),
            () = sleep_until(wake) => market.engine.handle(Input::Tick, now()),
        }
        market.drain().await;
    }
    market.flush(&mut progress).await;
    tokio::task::spawn_blocking(market.trust.save()).await.ok();
    market.end_idle(&mut reports).await;
    drop(reports);
    if let Some(runtime) = &market.runtime
        && tokio::time::timeout(FLUSH_WITHIN, runtime.shutdown()).await.is_err()
    {
        tracing::warn!("the container engine is slow; stopping without waiting for it");
    }
    let ledger = market.ledger;
    tokio::task::spawn_blocking(move || ledger.shutdown()).await.ok();
    Ok(market.halted.unwrap_or(End::Stopped))
}

async fn next(reports: &mut Option<mpsc::Receiver<ContainerReport>>) -> Option<ContainerReport> {
    match reports {
        Some(reports) => reports.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Market {
    pub(super) fn input(&mut self, input: Input) {
        self.engine.handle(input, now());
    }

    /// Ends the task after this turn, in order. The first reason holds.
    pub(super) const fn halt(&mut self, end: End) {
        if self.halted.is_none() {
            self.halted = Some(end);
        }
    }

    pub(super) const fn token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    /// Carries out everything the engine wants, until it wants nothing more.
    async fn drain(&mut self) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                if let Some(output) = self.outbox.admit(output) {
                    self.carry_out(output).await;
                }
            }
            if !self.move_money().await {
                break;
            }
        }
        if std::mem::take(&mut self.adopt) {
            self.adopt_all();
        }
        self.keep_peers();
        self.show_marked();
    }

    async fn durable(&mut self, ticket: Ticket) {
        self.number_new();
        self.tell_forks();
        while let Some(output) = self.outbox.release(ticket) {
            self.carry_out(output).await;
        }
        for lease in std::mem::take(&mut self.settling) {
            if self.view(lease).is_some_and(|v| v.state.is_ended()) {
                self.judge(lease);
                self.lease_changed(lease);
                self.settling.remove(&lease);
            } else {
                self.settling.insert(lease);
            }
        }
    }

    async fn flush(&mut self, progress: &mut watch::Receiver<Progress>) {
        let deadline = Instant::now() + FLUSH_WITHIN;
        while !self.outbox.is_empty() {
            let changed = tokio::time::timeout_at(deadline, progress.changed()).await;
            let state = progress.borrow_and_update().clone();
            match (changed, self.ledger.decided(&state)) {
                (Ok(Ok(())), Some(Ok(ticket))) => self.durable(ticket).await,
                (Ok(Ok(())), None) => {}
                (Err(_) | Ok(Err(_)), _) | (_, Some(Err(_))) => {
                    tracing::warn!(
                        "stopping before the last records were durable; nothing was sent that rests on them"
                    );
                    return;
                }
            }
        }
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist { ticket, record } => {
                self.link(&record);
                let noted = self.noted(&record);
                self.ledger.append(ticket, *record).await;
                self.note(noted);
            }
            Output::Send { token, to, request, .. } => self.send(token, to, &request),
            Output::Reply { token, response, .. } => self.reply(token, &response),
            Output::Recall { token, lease, what, otherwise } => {
                let asker = self.peer_replies.get(&token).map(|(peer, _)| *peer);
                let response = asker.and_then(|peer| self.ledger.recall(&peer, &lease, what)).unwrap_or(*otherwise);
                self.reply(token, &response);
            }
            Output::Verdict { token, verdict } => self.verdict(token, verdict),
            Output::Publish { notice, .. } => {
                let network = self.network.clone();
                let bytes = souk_protocol::encode::to_bytes(&*notice);
                tokio::spawn(async move {
                    if let Err(error) = network.publish(Topic::Offers, bytes).await {
                        tracing::warn!(%error, "an offer was not published");
                    }
                });
            }
            Output::Runtime { lease, order, .. } => self.order(lease, *order),
            Output::ResolveImage { token, reference, digest, renter, workload } => {
                self.resolve(token, reference, digest, self.logins.given(renter, workload));
            }
            Output::AskOwner { token, question } => self.ask_owner(token, &question),
            Output::LockSlots { lease, slots } => {
                let locked = self.locks.lock(&slots).unwrap_or_else(|error| {
                    tracing::error!(%error, "the slots' lock files can't be made; nothing is rented out");
                    false
                });
                self.input(Input::Locked { lease, locked });
            }
            Output::Idle { slots, .. } => self.idle_slots(&slots),
            Output::UnlockSlots { slots } => self.locks.unlock(&slots),
            Output::Quoted { token, result } => self.quoted(token, result),
            Output::Step { token, step } => {
                if let Step::Failed { why } = &*step {
                    self.logins.failed(token);
                    if let Some(host) = self.rentals.attempt(token) {
                        self.attempt_failed(host, why);
                    }
                }
                let meta = &self.meta;
                let heard = self.rentals.step(token, *step, |lease| meta.get(&lease).map_or(0, |m| m.number));
                if !heard {
                    // Nobody waits any more: nothing is signed for nobody.
                    self.input(Input::Command(souk_protocol::machine::io::Command::Cancel { token }));
                }
            }
            Output::SettlementDue(due) => self.settlement_due(&due),
            Output::VerifySettlement(payment) => self.settlement_claimed(&payment),
            Output::Done { token, result } => self.control_done(token, result),
            Output::Changed { lease, .. } => {
                self.judge(lease);
                self.lease_changed(lease);
            }
            Output::BookChanged { key } => {
                let book = self.engine.book();
                let offer = book.offer(&key);
                match offer.filter(|o| !self.engine.is_forked(&o.host)) {
                    Some(offer) => self.index.insert(offer.id(), offer),
                    None => {
                        self.index.remove(&key.0, &key.1);
                    }
                }
                self.owned.book_changed(&key, offer, book.is_withdrawn(&key));
                self.show_host(key.0);
            }
            Output::Forked { author, proof, found, .. } => self.forked(author, &proof, found),
            Output::Halted(why) => {
                tracing::error!("{why}; nothing is signed any more");
                self.halt(End::Anew(why));
            }
            Output::Violation(violation) => tracing::warn!(peer = %violation.peer(), "{violation}"),
        }
    }

    /// A peer's entry is about to be written: the next ones must fit it.
    fn link(&mut self, record: &Record) {
        if let Record::Entry(signed) = record
            && let Ok(entry) =
                souk_protocol::encode::from_bytes::<Entry>(signed.payload(), souk_protocol::limits::ENTRY_BYTES)
        {
            if entry.author == self.engine.me() {
                self.note_said(&entry, signed);
            } else {
                self.chains.note(&entry, signed.id(self.engine.network()));
            }
        }
    }

    fn send(&self, token: Token, to: NodeId, request: &Request) {
        let (network, internal, body) = (self.network.clone(), self.internal.clone(), request.to_bytes());
        // A wish to start waits at the host until the processes of the last run have ended.
        let patient = matches!(request, Request::Control { .. });
        let within = if patient { CONTROL_WITHIN } else { ANSWER_WITHIN };
        tokio::spawn(async move {
            let result = if patient {
                patience::ask(&network, to, body, within).await
            } else {
                let bytes = network.request(to, body, within).await.map_err(|e| e.to_string());
                bytes.and_then(|bytes| Response::from_bytes(&bytes).map_err(|e| format!("its answer is {e}")))
            };
            let result = result.map_err(|why| NoAnswer { why });
            internal.send(Internal::Response { token, result }).await.ok();
        });
    }

    fn reply(&mut self, token: Token, response: &Response) {
        if let Some((_, reply)) = self.peer_replies.remove(&token)
            && let Err(error) = reply.send(response.to_bytes())
        {
            tracing::warn!(%error, "an answer to a peer was too large");
        }
    }

    fn verdict(&mut self, token: Token, verdict: souk_protocol::machine::io::Verdict) {
        use souk_protocol::machine::io::Verdict;
        let Some(waiting) = self.verdicts.remove(&token) else { return };
        match verdict {
            Verdict::Accept => waiting.accept(),
            Verdict::Ignore => waiting.ignore(),
            Verdict::Reject => waiting.reject(),
        }
    }

    pub(super) fn expect_reply(&mut self, from: NodeId, reply: PeerReply) -> Token {
        let token = self.token();
        self.peer_replies.insert(token, (from, reply));
        token
    }

    pub(super) fn expect_verdict(&mut self, verdict: GossipVerdict) -> Token {
        let token = self.token();
        self.verdicts.insert(token, verdict);
        token
    }

    fn event(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Listening(address) => tracing::info!(%address, "listening"),
            NetworkEvent::Connected(peer) => {
                let book = self.engine.book();
                self.owned.connected(peer, |key| book.offer(key).is_some());
                self.input(Input::Connected(peer));
                self.give_logins(peer);
                self.score_connection(peer);
                self.hand_over_opinions(peer);
                self.compare_lists(peer);
            }
            NetworkEvent::Disconnected(peer) => {
                self.owned.disconnected(peer);
                self.input(Input::Disconnected(peer));
            }
            NetworkEvent::Gossip { topic: Topic::Offers, from, data, verdict } => {
                let token = self.expect_verdict(verdict);
                self.input(Input::Gossip { token, from, data: data.to_vec() });
            }
            NetworkEvent::Gossip { topic: Topic::Proofs, from, data, verdict } => {
                self.proof_came(from, &data, verdict);
            }
            NetworkEvent::Request { from, body, reply } => match Request::from_bytes(&body) {
                Ok(request) if !self.chains.fit_request(&self.ledger, &request) => {
                    let proof = Chains::proof_in_request(&self.ledger, &request);
                    let reject = self.contradicted(from, proof);
                    reply.send(Response::Rejected(reject).to_bytes()).ok();
                }
                Ok(Request::Evidence { with, before }) => self.show_evidence(from, with, before, reply),
                Ok(Request::Opinion { entry }) if !self.knows_lease_of(&entry, &from) => {
                    let sentence = "this node has no lease with you by that id";
                    let reject = Reject::lasting(souk_protocol::negotiation::RejectCode::Malformed, sentence);
                    reply.send(Response::Rejected(reject).to_bytes()).ok();
                }
                Ok(Request::Order(order)) => self.ordered(from, &order, reply),
                Ok(Request::Login(given)) => self.login_came(from, *given, reply),
                Ok(Request::Meet(meet)) => self.met(from, meet, reply),
                Ok(Request::Recall { length, since, page }) => self.recalled(from, (length, since, page), reply),
                Ok(request) => {
                    if matches!(request, Request::Propose(_)) {
                        self.look_at_renter(from);
                    }
                    let token = self.expect_reply(from, reply);
                    self.input(Input::Request { from, token, request });
                }
                Err(error) => {
                    tracing::warn!(peer = %from, "a peer's request is {error}");
                    let sentence = format!("the request is {error}");
                    let reject = Reject::lasting(souk_protocol::negotiation::RejectCode::Malformed, sentence);
                    reply.send(Response::Rejected(reject).to_bytes()).ok();
                }
            },
            NetworkEvent::Knock { peer, body, reply, .. } => self.knocked(peer, &body, reply),
            NetworkEvent::Stream { from, stream } => self.stream(from, stream),
        }
    }

    fn result(&mut self, result: Internal, reports: &mut Option<mpsc::Receiver<ContainerReport>>) {
        match result {
            Internal::Response { token, result } => {
                let fits = |response: &Response| self.chains.fit_response(&self.ledger, response);
                let proof = match &result {
                    Ok(response) if !fits(response) => Some(Chains::proof_in_response(&self.ledger, response)),
                    Ok(_) | Err(_) => None,
                };
                let why = || NoAnswer { why: "its answer contradicts what was signed before".to_owned() };
                let result = if proof.is_some() { Err(why()) } else { result };
                if let Some(proof) = proof.flatten() {
                    self.input(Input::Contradicted(Box::new(proof)));
                }
                let input = match result {
                    Ok(Response::Met(met)) => {
                        let concerns = self.concerns(met.forks.accused());
                        Input::Met { token, met, concerns }
                    }
                    result => Input::Response { token, result },
                };
                self.input(input);
            }
            Internal::Image { token, result } => self.input(Input::Image { token, result }),
            Internal::Owner { token, about, answer, failure } => self.owner_answered(token, about, answer, failure),
            Internal::IdleImage { reference, result } => self.idle_image(reference, result),
            Internal::Beat(input) => self.input(input),
            Internal::Paid { reference, answer } => self.paid(&reference, answer),
            Internal::Found { claim, found } => self.found(&claim, found),
            Internal::LookAgain => self.adopt = true,
            Internal::Listed(peer, answer) => self.listed(peer, *answer),
            Internal::Pulled(peer, pulled) => self.pulled(peer, pulled),
            Internal::Scored(computed) => self.scored(computed),
            Internal::LoginGiven(waiting, result) => self.login_given(waiting, result),
            Internal::Adopted(found, asked) => {
                self.idle_cleaned();
                for adopted in &found {
                    let Ok(lease) = adopted.lease.parse() else { continue };
                    if self.reported.get(&lease) != asked.get(&lease) {
                        // Something happened to it meanwhile: what was found is old.
                        self.adopt = true;
                    } else {
                        if !matches!(adopted.state, souk_runtime::InstanceState::Gone) {
                            self.open_inside(lease);
                        }
                        self.input(Input::Runtime { lease, report: instances::found(adopted) });
                    }
                }
            }
            Internal::Traffic { lease, usage } => {
                let report = RuntimeReport::Traffic { rx_bytes: usage.rx_bytes, tx_bytes: usage.tx_bytes };
                self.input(Input::Runtime { lease, report });
            }
            Internal::Runtime(runtime, receiver, inventory) => {
                let volumes = self.engine.host().leases().values().filter(|l| l.draft().is_volume());
                let taken_mb = volumes.filter(|l| !l.state().is_ended()).map(|l| l.draft().resources.disk_mb).sum();
                if let Some(host) = &mut self.host {
                    host.take_stock(*inventory, runtime.info().volumes.then_some(taken_mb));
                }
                tracing::info!(version = runtime.info().engine_version, "the container engine answers");
                let runtime = Arc::new(*runtime);
                let open = self.engine.host().leases().keys().copied().collect();
                self.server = Some(Server::new(
                    Arc::clone(&runtime) as Arc<dyn Runtime>,
                    self.about.ssh.host_key(),
                    KeyStore::open(&self.about.dir, *self.engine.network(), &open),
                    self.permissions.clone(),
                ));
                self.runtime = Some(runtime);
                self.want_public_ports();
                self.runtime_problem = None;
                self.serve_early();
                *reports = Some(receiver);
                self.adopt = true;
                self.offer_machine();
                self.refresh_idle();
                self.input(Input::RuntimeUp(true));
            }
            Internal::NoRuntime(problem) => {
                if self.runtime_problem.as_ref() != Some(&problem) {
                    tracing::warn!("{problem}");
                }
                self.runtime_problem = Some(problem);
                self.serve_early();
                self.connect_runtime(ENGINE_RETRY);
            }
        }
    }
}
