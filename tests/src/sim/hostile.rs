//! One real engine, and peers whose every word a test writes by hand.
//!
//! The bench carries outputs out at once and as wished: images are found, locks are free, containers do what they are told. What
//! the engine writes down, says and complains about is kept, so that a test can show that a lie has changed nothing.

use souk_protocol::{
    DocumentId, Keypair, LeaseId, Millis, NetworkId, NodeId, Nonce, Timestamp, Verified,
    entry::{Body, Entry},
    lease::LeaseDraft,
    machine::{
        chain::Chain,
        engine::Engine,
        io::{ClaimedPayment, DuePayment, Input, NoAnswer, Output, RuntimeOrder, RuntimeReport, Step, Token, Verdict},
        record::{Record, Restore},
    },
    message::{Cause, Request, Response},
    negotiation::{ImagePin, Proposal, RentalType},
    offer::Offer,
    resources::Egress,
    signed::{Document, Signed},
    violation::Violation,
    workload::Workload,
};

use super::owner;

/// The network of every bench.
#[must_use]
pub fn network() -> NetworkId {
    NetworkId::of_name("hostile")
}

/// An engine with everything it has said.
#[derive(Debug)]
pub struct Bench {
    /// The engine.
    pub engine: Engine,
    /// The time.
    pub now: Timestamp,
    /// Records asked to be stored.
    pub records: Vec<Record>,
    /// Questions to peers that have not been answered yet.
    pub asked: Vec<(Token, NodeId, Request)>,
    /// Breaches it complained of.
    pub violations: Vec<Violation>,
    /// Steps of its negotiations.
    pub steps: Vec<Step>,
    /// Payments it wants made.
    pub dues: Vec<DuePayment>,
    /// Payments it looks for.
    pub claims: Vec<ClaimedPayment>,
    replies: Vec<(Token, Response)>,
    verdicts: Vec<Verdict>,
    token: u64,
}

/// All that a lie must leave as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    records: usize,
    book: (u64, souk_protocol::Digest),
    free: u16,
    leases: Vec<(LeaseId, String)>,
}

impl Bench {
    /// An engine that nobody has spoken to.
    ///
    /// # Panics
    /// Never: there is nothing to restore.
    #[must_use]
    pub fn new(key: Keypair) -> Self {
        let now = Timestamp(1_790_000_000_000);
        let Ok(engine) = Engine::new(key, network(), Restore::default(), now) else {
            panic!("an empty ledger can't be taken up");
        };
        let mut bench = Self {
            engine,
            now,
            records: Vec::new(),
            asked: Vec::new(),
            violations: Vec::new(),
            steps: Vec::new(),
            dues: Vec::new(),
            claims: Vec::new(),
            replies: Vec::new(),
            verdicts: Vec::new(),
            token: 1,
        };
        bench.feed(Input::RuntimeUp(true));
        bench
    }

    /// Gives it an input, and carries out what comes of it.
    pub fn feed(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(input, self.now);
            while let Some(output) = self.engine.poll_output() {
                inputs.extend(self.carry_out(output));
            }
        }
    }

    fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Persist { record, .. } => self.records.push(*record),
            // Heads are no part of what is lied about here.
            Output::Send { token, request, .. } if matches!(*request, Request::Meet(_)) => {
                let result = Err(NoAnswer { why: "it does not answer".to_owned() });
                return Some(Input::Response { token, result });
            }
            Output::Send { token, to, request, .. } => self.asked.push((token, to, *request)),
            Output::Reply { token, response, .. } => self.replies.push((token, *response)),
            Output::Recall { token, otherwise, .. } => self.replies.push((token, *otherwise)),
            Output::Verdict { verdict, .. } => self.verdicts.push(verdict),
            Output::Violation(violation) => self.violations.push(violation),
            Output::Step { step, .. } => self.steps.push(*step),
            Output::SettlementDue(due) => self.dues.push(*due),
            Output::VerifySettlement(claimed) => self.claims.push(*claimed),
            Output::ResolveImage { token, reference, .. } => {
                return Some(Input::Image { token, result: Ok(ImagePin { reference, digest: owner::image_digest() }) });
            }
            Output::AskOwner { token, question } => {
                return Some(Input::Owner { token, answer: owner::answer(&question) });
            }
            Output::LockSlots { lease, .. } => return Some(Input::Locked { lease, locked: true }),
            Output::Runtime { lease, order, .. } => {
                let report = match *order {
                    RuntimeOrder::Prepare { .. } | RuntimeOrder::CreateVolume { .. } => RuntimeReport::Prepared,
                    RuntimeOrder::Start { .. } => RuntimeReport::Started,
                    RuntimeOrder::Stop(_) => {
                        RuntimeReport::Exited { code: 143, by: Cause::Renter, note: String::new() }
                    }
                    RuntimeOrder::Destroy | RuntimeOrder::DestroyVolume => RuntimeReport::Destroyed,
                    RuntimeOrder::Adopt { .. } | RuntimeOrder::AdoptVolume | RuntimeOrder::Notice(_) => return None,
                };
                return Some(Input::Runtime { lease, report });
            }
            Output::Forked { .. }
            | Output::Halted(_)
            | Output::Publish { .. }
            | Output::Idle { .. }
            | Output::Quoted { .. }
            | Output::UnlockSlots { .. }
            | Output::Done { .. }
            | Output::Changed { .. }
            | Output::BookChanged { .. } => {}
        }
        None
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Millis) {
        self.now = self.now + time;
        self.feed(Input::Tick);
    }

    fn token(&mut self) -> Token {
        self.token += 1;
        Token(self.token)
    }

    /// A peer asks; the answer.
    ///
    /// # Panics
    /// Unless there is exactly one.
    pub fn ask(&mut self, from: NodeId, request: Request) -> Response {
        let token = self.token();
        self.feed(Input::Request { from, token, request });
        let mut answers = self.replies.extract_if(.., |(t, _)| *t == token).map(|(_, response)| response);
        let (first, second) = (answers.next(), answers.next());
        assert!(second.is_none(), "two answers");
        first.unwrap_or_else(|| panic!("no answer"))
    }

    /// The answer to a request that was not answered at once, if it has come.
    pub fn reply_to(&mut self, token: Token) -> Option<Response> {
        let place = self.replies.iter().position(|(t, _)| *t == token)?;
        Some(self.replies.remove(place).1)
    }

    /// A peer gossips; the verdict.
    ///
    /// # Panics
    /// If there is none.
    pub fn gossip(&mut self, from: NodeId, data: Vec<u8>) -> Verdict {
        let token = self.token();
        self.feed(Input::Gossip { token, from, data });
        self.verdicts.pop().unwrap_or_else(|| panic!("no verdict"))
    }

    /// Answers the oldest question that has not been answered.
    ///
    /// # Panics
    /// If there is none.
    pub fn answer(&mut self, with: impl FnOnce(&Request) -> Result<Response, NoAnswer>) {
        assert!(!self.asked.is_empty(), "nothing was asked");
        let (token, _, request) = self.asked.remove(0);
        let result = with(&request);
        self.feed(Input::Response { token, result });
    }

    /// What must not change.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let host = self.engine.host();
        let hosted = host.leases().iter().map(|(id, l)| (*id, format!("{} {}", l.state(), l.acked())));
        let rented = self.engine.renter().leases().iter();
        let rented = rented.map(|(id, l)| (*id, format!("{} {} {:?}", l.state(), l.acked(), l.answer())));
        Mark {
            records: self.records.len(),
            book: self.engine.book().summary(),
            free: host.slots().free(),
            leases: hosted.chain(rented).collect(),
        }
    }

    /// The complaints since the last call.
    pub fn complaints(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }
}

/// A peer with a key, and no scruples.
#[derive(Debug)]
pub struct Liar {
    /// Its key.
    pub key: Keypair,
    /// Its chain.
    pub chain: Chain,
}

impl Liar {
    /// With a key of this seed.
    #[must_use]
    pub fn new(seed: u8, now: Timestamp) -> Self {
        let key = Keypair::from_seed(&[seed; 32]);
        let mut chain = Chain::new(key.clone(), network(), None);
        let _genesis = chain.begin(now);
        Self { key, chain }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.key.node_id()
    }

    /// Signs anything.
    ///
    /// # Panics
    /// If it is not even well-formed.
    #[must_use]
    pub fn sign<T: Document>(&self, value: T) -> Signed<T> {
        self.verified(value).to_signed()
    }

    /// Signs anything.
    ///
    /// # Panics
    /// If it is not even well-formed.
    #[must_use]
    pub fn verified<T: Document>(&self, value: T) -> Verified<T> {
        Verified::sign(value, &self.key, &network()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The next entry of its chain.
    ///
    /// # Panics
    /// If it is not even well-formed.
    pub fn entry(&mut self, lease: LeaseId, peer: NodeId, body: Body, now: Timestamp) -> Verified<Entry> {
        self.chain.append(lease, peer, body, now).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The next entry of its chain, about a peer and no lease.
    ///
    /// # Panics
    /// If it is not even well-formed.
    pub fn entry_about(&mut self, peer: NodeId, body: Body, now: Timestamp) -> Verified<Entry> {
        self.chain.append_about(peer, body, now).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A bid that an honest host takes, and the workload it is for.
    #[must_use]
    pub fn bid(&self, offer: &Offer, id: DocumentId, nonce: u8) -> (Proposal, Vec<u8>) {
        let workload = Workload { keep_alive: true, salt: Nonce([nonce; 16]), ..Workload::default() };
        let (bytes, digest) = workload.to_bytes();
        let proposal = Proposal {
            ask: souk_protocol::AskId::of(&offer.host, &offer.machine, 1),
            offer: id,
            nonce: Nonce([nonce; 16]),
            round: 0,
            rental: RentalType::OnDemand,
            price_hour: offer.terms.slot_hour,
            term: Some(Millis::from_hours(2)),
            extend: None,
            disk_mb: 1000,
            egress: Egress::None,
            ports: Vec::new(),
            image: "debian:12".to_owned(),
            image_digest: None,
            workload: digest,
            max_spend: None,
            tick: Some(Millis::from_secs(10)),
        };
        (proposal, bytes)
    }

    /// Bids for a slot of a bench's machine, and returns the draft and the workload.
    ///
    /// # Panics
    /// If the host does not draft.
    pub fn drafted(&self, bench: &mut Bench, nonce: u8) -> (Verified<LeaseDraft>, Vec<u8>) {
        let offer = bench.engine.host().offer().cloned().unwrap_or_else(|| panic!("no offer"));
        let (proposal, bytes) = self.bid(&offer, offer.id(), nonce);
        let answer = bench.ask(self.id(), Request::Propose(Box::new(proposal)));
        let Response::Drafted(draft) = &answer else { panic!("no draft: {answer:?}") };
        (draft.verify(&network()).unwrap_or_else(|e| panic!("{e}")), bytes)
    }

    /// Its open of a draft.
    pub fn open(&mut self, draft: &Verified<LeaseDraft>, now: Timestamp) -> Verified<Entry> {
        let body = Body::LeaseOpen { draft: draft.to_signed() };
        self.entry(draft.id().into(), draft.host, body, now)
    }
}
