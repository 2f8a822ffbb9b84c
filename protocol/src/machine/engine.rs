//! A whole node, without the world: offer book, reconciliation, host's side, renter's side.
//!
//! Owns nothing of the rules themselves; it hands each input to the part it concerns, and collects the outputs in order.

mod forks;

use std::collections::BTreeMap;

use super::{
    account::{Accounts, NotLost},
    book::Book,
    chain::Chain,
    context::{Asked, Context},
    forks::Concern,
    heads::{Heads, Instance, Origin, forked},
    host::Host,
    host_lease::{HostLease, Remembered},
    io::{Command, Input, NoAnswer, Output, Recalled, Refusal, Token, Verdict},
    opinions::Opinions,
    record::{LeaseRow, Private, Record, Restore},
    regard::Regard,
    renter::Renter,
    renter_lease::{self, RenterLease},
    sync::BookSync,
};
use crate::{
    Amount, Currency, DocumentId, Keypair, NetworkId, NodeId, Timestamp, Verified, encode,
    entry::{Body, Entry},
    limits,
    message::{Request, Response},
    negotiation::{Reject, RejectCode},
    offer::Notice,
    signed::{Document, Signed},
    violation::Violation,
    workload::Workload,
};

/// A record of our own ledger does not hold: it was damaged, or belongs to another node or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} of the ledger can't be taken up: {why}; restore the data directory from a backup, or run: souk ledger check"
)]
pub struct RestoreError {
    /// The lease, or the account.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
}

/// The engine of one node.
#[derive(Debug)]
pub struct Engine {
    cx: Context,
    book: Book,
    sync: BookSync,
    host: Host,
    renter: Renter,
    regard: Regard,
    opinions: Opinions,
    heads: Heads,
    last_now: Timestamp,
}

impl Engine {
    /// A node with this key in this network, as the ledger left it. Leases are taken up where they were; containers are looked
    /// for when the runtime is up.
    ///
    /// # Errors
    /// [`RestoreError`] if a record of an open lease does not verify.
    pub fn new(key: Keypair, network: NetworkId, restore: Restore, now: Timestamp) -> Result<Self, RestoreError> {
        let mut cx = Context::new(Chain::new(key, network, restore.head));
        let head = restore.head.map(|h| h.time);
        if let Ok(Some(genesis)) = cx.chain.begin(now) {
            cx.persist_own(&genesis);
        }
        forks::restore(&mut cx, restore.forked);
        let heads = restore.heads.iter().filter_map(|signed| signed.verify(&network).ok()).collect();
        let own = Instance { nonce: restore.instance, started: now };
        let mut engine = Self {
            book: Book::new(network, limits::BOOK_OFFERS),
            sync: BookSync::default(),
            host: Host::new(restore.offer_seq, head, now),
            renter: Renter::default(),
            regard: Regard::default(),
            opinions: Opinions::default(),
            heads: Heads::new(own, heads, now),
            last_now: now,
            cx,
        };
        for row in &restore.accounts {
            let what = || format!("the account with {}", row.peer);
            let fail = |e: crate::VerifyError| RestoreError { what: what(), why: e.to_string() };
            engine.cx.payments.restore(row, &network, now).map_err(fail)?;
            engine.cx.accounts.restore(row);
        }
        for row in restore.leases {
            engine.restore(&row, now)?;
        }
        engine.cx.look_for_payments();
        Ok(engine)
    }

    fn restore(&mut self, row: &LeaseRow, now: Timestamp) -> Result<(), RestoreError> {
        let network = *self.cx.chain.network();
        let fail = |why: String| RestoreError { what: format!("lease {}", row.lease), why };
        let open = check(&row.open, &network).map_err(fail)?;
        let signed = open.body.draft().ok_or_else(|| fail("its open holds no draft".to_owned()))?;
        let draft = check(signed, &network).map_err(fail)?;
        let answer = optional(row.answer.as_ref(), &network).map_err(fail)?;
        let accepted = answer.clone().filter(|e| matches!(e.body, Body::LeaseAccept { .. }));
        let placement = optional(row.placement.as_ref(), &network).map_err(fail)?;
        let usage = optional(row.usage.as_ref(), &network).map_err(fail)?;
        let ack = optional(row.ack.as_ref(), &network).map_err(fail)?;
        let amend = optional(row.amend.as_ref(), &network).map_err(fail)?;
        let amended = row.amended.iter().map(|e| check(e, &network)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        let close = optional(row.close.as_ref(), &network).map_err(fail)?;
        let close_ack = optional(row.close_ack.as_ref(), &network).map_err(fail)?;
        let voided = answer.is_some() && accepted.is_none();
        let over = voided || (close.is_some() && close_ack.is_some());
        if draft.host == self.cx.me() {
            if let Some(entry) = answer.filter(|_| over) {
                self.host.remember_answer(row.lease, entry, draft.commit_by);
            } else if let Some(accept) = accepted {
                // A restored ledger may lack it, if the renter has not given it back: the container, if there is one, has it.
                let workload = match row.workload.as_slice() {
                    [] => Workload::default(),
                    bytes => Workload::from_bytes(bytes).map_err(|e| fail(e.to_string()))?,
                };
                let events = row.events.clone();
                let from = Remembered { draft, accept, workload, usage, ack, placement, close, events, amended };
                self.host.restore(&mut self.cx, HostLease::restored(from, now), now);
            }
        } else if draft.renter == self.cx.me() {
            // Nothing can come of an open whose contract would be over and its disk gone.
            if !over && (accepted.is_some() || now < draft.ends_at + limits::DISK_KEPT) {
                let (accept, events) = (accepted, row.events.clone());
                let from = renter_lease::Remembered {
                    draft,
                    open,
                    accept,
                    placement,
                    usage,
                    ack,
                    close,
                    close_ack,
                    events,
                    amend,
                    amended,
                    leaving: row.leaving,
                    watched: row.watched,
                    probed: row.probed,
                };
                let lease = RenterLease::restored(from);
                self.renter.restore(lease, row.workload.clone(), now);
            }
        } else {
            return Err(fail("it is between two other nodes".to_owned()));
        }
        Ok(())
    }

    /// Takes an input. Never fails and never panics: what a peer did wrong becomes an [`Output::Violation`].
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        if now < self.last_now {
            self.sync.clock_went_back(now);
            self.host.clock_went_back(now);
            self.renter.clock_went_back(now);
            self.heads.clock_went_back(now);
            self.cx.payments.clock_went_back(now);
        }
        self.last_now = now;
        match input {
            Input::Request { from, token, request } => self.request(from, token, request, now),
            Input::Meeting { from, token, meet, looked_up } => {
                self.heads.set_party(from, self.is_party(&from));
                self.heads.meeting(&mut self.cx, from, token, &meet, *looked_up, now);
            }
            Input::Proof { token, from, data, concern } => self.proof(token, from, &data, concern, now),
            Input::Contradicted(proof) => {
                forked(&mut self.cx, *proof, Concern::Dealt, Origin::Found);
            }
            Input::Met { token, met, concerns } => self.met(token, Some(Response::Met(met)), concerns, now),
            Input::Response { token, result } => self.response(token, result, now),
            Input::Gossip { token, from, data } => self.gossip(token, from, &data, now),
            Input::Connected(peer) => {
                self.cx.connected.insert(peer);
                self.heads.connected(&mut self.cx, peer, now);
                self.sync.connected(&mut self.cx, peer);
                self.host.connected(&peer, now);
                self.renter.connected(&mut self.cx, peer, now);
                self.cx.payments.connected(&peer, now);
            }
            Input::Disconnected(peer) => {
                self.cx.connected.remove(&peer);
                self.sync.disconnected(&peer);
                self.heads.disconnected(peer, now);
            }
            Input::Runtime { lease, report } => self.host.report(&mut self.cx, lease, report, now),
            Input::RuntimeUp(up) => self.host.runtime(&mut self.cx, up, now),
            Input::Image { token, result } => self.host.image(&mut self.cx, token, result, now),
            Input::Owner { token, answer } => self.host.owner_says(&mut self.cx, token, answer, now),
            Input::Locked { lease, locked } => self.host.locked(&mut self.cx, lease, locked, now),
            Input::Reached { lease } => self.host.reached(&lease),
            Input::Beat { lease, events_seen, asked, at, beat } => {
                self.renter.beat(&mut self.cx, lease, (asked, beat, at), events_seen, now)
            }
            Input::Checkpoint(checkpoint) => self.cx.checkpoint(checkpoint, now),
            Input::SettlementVerified { settle, result } => self.payment_verified(settle, &result, now),
            Input::Foreign { slots } => self.host.foreign(&mut self.cx, &slots, now),
            Input::Command(command) => self.command(command, now),
            Input::Tick => {}
        }
        self.tick(now);
    }

    fn tick(&mut self, now: Timestamp) {
        for key in self.book.expire(now) {
            self.cx.out(Output::BookChanged { key });
        }
        self.sync.tick(&mut self.cx, &self.book, now);
        self.heads.tick(&mut self.cx, now);
        self.renter.tick(&mut self.cx, &self.book, now);
        self.host.tick(&mut self.cx, &mut self.book, now);
        self.cx.tell_payments(now);
        self.cx.note_accounts();
    }

    /// The next output to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.cx.poll()
    }

    /// When to send [`Input::Tick`] at the latest, and why.
    #[must_use]
    pub fn deadline(&self) -> Option<(Timestamp, &'static str)> {
        let expiry = self.book.next_expiry().map(|at| (at, "an offer ends"));
        let sync = Some((self.sync.deadline(), "books are compared")).filter(|_| !self.cx.connected.is_empty());
        let heads = self.heads.deadline(&self.cx);
        let payment = self.cx.payments.deadline(|peer| self.cx.connected.contains(peer));
        let payment = payment.map(|at| (at, "a payee has not answered"));
        let parts = [self.renter.deadline(&self.cx), self.host.deadline(&self.cx)];
        [expiry, sync, heads, payment].into_iter().chain(parts).flatten().min()
    }

    fn command(&mut self, command: Command, now: Timestamp) {
        match command {
            Command::Rent { token, wish } => {
                if let Some(host) = self.book.find_ask(&wish.ask).map(|(offer, _)| offer.host) {
                    self.heads.meet_before(&mut self.cx, host, now);
                }
                self.renter.rent(&mut self.cx, &self.book, token, *wish);
            }
            Command::Cancel { token } => self.renter.cancel(token),
            Command::Control { token, lease, action, nonce } => {
                self.renter.control(&mut self.cx, token, lease, action, nonce)
            }
            Command::Label { lease, text } => {
                self.cx.persist(Record::Private(Private::Label { lease, text }));
            }
            Command::Host(setup) => {
                self.host.configure(&mut self.cx, &mut self.book, setup.map(|s| *s), now);
                self.host.hold_restored(&mut self.cx, now);
            }
            Command::Members { list, on_removal } => self.host.set_members(&mut self.cx, list, on_removal, now),
            Command::RememberUse { node, slot_ms, at } => self.host.remember_use(node, slot_ms, at, now),
            Command::Regard(regard) => self.regard = regard,
            Command::Opine { token, peer, lease, body } => self.opine(token, peer, lease, *body, now),
            Command::Accounts(policy) => self.cx.accounts.set_policy(*policy),
            Command::Settle { token, payment } => {
                let result = self.cx.pay(&payment, now).map(|_| ());
                if result.is_ok() {
                    self.renter.paid(&mut self.cx, &payment, now);
                }
                self.cx.out(Output::Done { token, result });
            }
            Command::CannotSettle { peer, currency, why } => {
                self.renter.cannot_pay(&mut self.cx, &(peer, currency), &why, now);
            }
            Command::WriteOff { token, peer, currency, n } => {
                let lost = self.cx.write_off(&(peer, currency), n, now);
                let result = lost.map(|_| ()).map_err(|why| Refusal::Malformed(why.to_string()));
                self.cx.out(Output::Done { token, result });
            }
            Command::Waive { token, lease } => self.host.waive(&mut self.cx, token, lease, now),
            Command::Forgive { token, peer, currency } => {
                self.host.forgive(&mut self.cx, token, (peer, currency), now);
            }
            Command::Abort { lease } => self.host.abort(&mut self.cx, lease, now),
            Command::FromInside { token, lease, wish } => {
                self.host.asked_inside(&mut self.cx, token, lease, &wish, now);
            }
            Command::Amend { token, lease, change } => self.renter.amend(&mut self.cx, token, lease, change, now),
            Command::Quote { token, host, machine } => Renter::quote(&mut self.cx, token, host, machine),
            Command::AskExtension { token, lease, ends_at } => {
                self.renter.ask_extension(&mut self.cx, token, lease, ends_at);
            }
            Command::OfferExtension { token, lease, ends_at, compute_hour } => {
                self.host.offer_extension(&mut self.cx, token, lease, (ends_at, compute_hour), now);
            }
        }
    }

    /// Claims about us that the ledger holds: they count against how many we keep.
    pub fn hold_attestations(&mut self, held: impl IntoIterator<Item = (NodeId, String)>) {
        held.into_iter().for_each(|(author, claim)| self.opinions.hold(author, claim));
    }

    fn opine(&mut self, token: Token, peer: NodeId, lease: Option<crate::LeaseId>, body: Body, now: Timestamp) {
        let made = match (lease, &body) {
            (Some(lease), Body::Dispute(_)) => self.cx.chain.append(lease, peer, body, now),
            (None, Body::Attestation(_)) => self.cx.chain.append_about(peer, body, now),
            _ => return self.cx.out(Output::Done { token, result: Err(Refusal::Malformed("not an opinion".into())) }),
        };
        let result = match made {
            Ok(entry) => {
                let ticket = self.cx.persist(Record::from(&entry));
                if self.cx.connected.contains(&peer) {
                    let request = Request::Opinion { entry: entry.to_signed() };
                    self.cx.send(peer, request, Some(ticket), Asked::Opinion);
                }
                Ok(())
            }
            Err(why) => Err(Refusal::Malformed(why.to_string())),
        };
        self.cx.out(Output::Done { token, result });
    }

    fn opinion(&mut self, from: NodeId, token: Token, entry: &Signed<crate::entry::Entry>, now: Timestamp) {
        let lasting = |sentence: &str| Response::Rejected(Reject::lasting(RejectCode::Malformed, sentence));
        let Some(entry) = self.cx.verify(from, entry) else {
            return self.cx.reply(token, lasting("its signature does not hold"), None);
        };
        if entry.author != from || entry.peer != Some(self.cx.me()) {
            return self.cx.reply(token, lasting("it is not the sender's opinion of this node"), None);
        }
        if entry.time > now + limits::CLOCK_SKEW {
            return self.cx.reply(token, lasting("it is dated ahead"), None);
        }
        match self.opinions.admit(&from, &entry, now) {
            Ok(()) => {
                let ticket = self.cx.persist(Record::from(&entry));
                self.cx.reply(token, Response::Noted, Some(ticket));
            }
            Err(reject) => self.cx.reply(token, Response::Rejected(reject), None),
        }
    }

    fn request(&mut self, from: NodeId, token: Token, request: Request, now: Timestamp) {
        if let Some(reject) = self.regard.refusal(&from, &request, &self.book) {
            return self.cx.reply(token, Response::Rejected(reject), None);
        }
        if let Some(reject) = self.host.refuses_stranger(&from, &request) {
            return self.cx.reply(token, Response::Rejected(reject), None);
        }
        // Our own offer is in the book before its number is on disk.
        let durable = self.host.offer_durable();
        match request {
            Request::BookSummary => {
                let (count, root) = self.book.summary();
                self.cx.reply(token, Response::BookSummary { count, root }, durable);
            }
            Request::BookPage { after } => {
                let (items, more) = self.book.page(after);
                self.cx.reply(token, Response::BookPage { items, more }, durable);
            }
            Request::BookFetch { ids } => {
                let notices = self.book.fetch(&ids);
                self.cx.reply(token, Response::BookNotices { notices }, durable);
            }
            Request::Update(update) => match self.renter.update(&mut self.cx, from, &update, now) {
                Some((response, durable)) => self.cx.reply(token, response, durable),
                None => {
                    let rejected = Response::Rejected(Reject::lasting(
                        RejectCode::Malformed,
                        "this node has no open lease of yours by that id",
                    ));
                    self.cx.out(Output::Recall {
                        token,
                        lease: update.lease,
                        what: Recalled::CloseAck,
                        otherwise: Box::new(rejected),
                    });
                }
            },
            Request::Opinion { entry } => self.opinion(from, token, &entry, now),
            // The shell brings these with what the ledger has on them.
            Request::Meet(_) | Request::Recall { .. } => {
                self.cx.reply(token, Response::Busy { retry_after_ms: 1_000 }, None);
            }
            Request::Propose(_) => {
                self.heads.meet_before(&mut self.cx, from, now);
                self.host.request(&mut self.cx, from, token, request, now);
            }
            Request::Deliver { entry } if is_payment(&entry) => self.payment_delivered(from, token, &entry, now),
            // Orders change how the machine is offered: they are the shell's, which then tells the engine. So are logins.
            Request::Order(_)
            | Request::Login(_)
            | Request::Evidence { .. }
            | Request::Commit { .. }
            | Request::Control { .. }
            | Request::Amend { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Sync { .. }
            | Request::Deliver { .. } => {
                self.host.request(&mut self.cx, from, token, request, now);
            }
        }
    }

    fn response(&mut self, token: Token, result: Result<Response, NoAnswer>, now: Timestamp) {
        if self.cx.is_meeting(token) {
            return self.met(token, result.ok(), BTreeMap::new(), now);
        }
        let Some((peer, asked)) = self.cx.answered(token) else {
            return;
        };
        let (cx, renter, host) = (&mut self.cx, &mut self.renter, &mut self.host);
        match asked {
            Asked::Meet => {}
            Asked::Book => self.sync.response(cx, &mut self.book, peer, result.ok(), now),
            Asked::Propose(command) => renter.proposed(cx, command, peer, result, now),
            Asked::Commit(lease) => renter.committed(cx, lease, peer, result, now),
            Asked::Amend(lease, amend) => renter.amended(cx, lease, amend, result, now),
            Asked::Quote(command) => Renter::quoted(cx, command, peer, result),
            Asked::Control(command, _) => renter.controlled(cx, command, peer, result),
            Asked::Sync(lease) => renter.synced(cx, lease, peer, &result, now),
            Asked::Deliver(lease) => renter.delivered(cx, lease, result.as_ref().ok(), now),
            Asked::Opinion => {}
            Asked::Update(lease) => host.updated(cx, lease, result.ok().as_ref(), now),
            Asked::Settle(key, n) => cx.payment_told(&key, n, result.ok().as_ref(), now),
            // If it is lost, the payer asks again.
            Asked::SettleAck => {}
        }
    }

    /// A peer's payment to us, or its answer to one of ours.
    fn payment_delivered(&mut self, from: NodeId, token: Token, entry: &Signed<Entry>, now: Timestamp) {
        let cx = &mut self.cx;
        let host = &self.host;
        let answered = match payment_in(entry) {
            Some((currency, Some(n))) => {
                let dealing = |cx: &Context, settle: &_| host.dealing(cx, &from, settle, None);
                cx.take_settle(from, entry, dealing, None, now).map(|_| cx.answer_to(&(from, currency), n))
            }
            Some((_, None)) if cx.take_settle_ack(from, entry, now) => Ok(None),
            Some((_, None)) | None => Err("it is no answer to a payment of ours"),
        };
        match answered {
            Ok(answer) => {
                let durable = answer.as_ref().and_then(|(_, ticket)| *ticket).max(cx.newest_ticket());
                cx.reply(token, Response::Settled { ack: answer.map(|(ack, _)| ack) }, durable);
            }
            Err(why) => {
                let reject = Reject::lasting(RejectCode::Terms, why);
                cx.reply(token, Response::Rejected(reject), None);
            }
        }
        self.cx.note_accounts();
    }

    /// What became of a peer's payment.
    fn payment_verified(&mut self, settle: DocumentId, result: &Result<Amount, String>, now: Timestamp) {
        let arrived = result.as_ref().map_or(Amount::ZERO, |amount| *amount);
        if self.cx.settlement_verified(settle, arrived, now).is_some() {
            self.host.payment_verified(&mut self.cx, settle, result, now);
        }
    }

    fn gossip(&mut self, token: Token, from: NodeId, data: &[u8], now: Timestamp) {
        let verdict = match encode::from_bytes::<Notice>(data, limits::OFFER_BYTES + 128) {
            Ok(notice) => {
                let intake = self.book.take(&notice, false, now);
                if let super::book::Intake::New(key) = &intake {
                    self.cx.forked.raise(&key.0, Concern::Seen);
                    self.cx.out(Output::BookChanged { key: *key });
                }
                intake.verdict()
            }
            Err(why) => {
                self.cx.out(Output::Violation(Violation::Malformed {
                    peer: from,
                    what: "an offer",
                    why: why.to_string(),
                }));
                Verdict::Reject
            }
        };
        self.cx.out(Output::Verdict { token, verdict });
    }

    /// Whether a peer is the other side of a lease.
    fn is_party(&self, peer: &NodeId) -> bool {
        self.host.leases().values().any(|l| l.draft().renter == *peer)
            || self.renter.leases().values().any(|l| l.host() == *peer)
    }

    /// When another node with our key was last heard of, which has given way.
    #[must_use]
    pub const fn rival(&self) -> Option<Timestamp> {
        self.heads.rival()
    }

    /// Our id.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.cx.me()
    }

    /// The network.
    #[must_use]
    pub const fn network(&self) -> &NetworkId {
        self.cx.chain.network()
    }

    /// The newest entry of our chain.
    #[must_use]
    pub const fn head(&self) -> Option<super::record::Head> {
        self.cx.chain.head()
    }

    /// Our copy of the market.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// What is between us and each peer.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.cx.accounts
    }

    /// What a peer owes us as of `now`, over all leases of the two both ways, what runs included; negative if we owe, or it has
    /// paid ahead.
    #[must_use]
    pub fn owed_by(&self, peer: &NodeId, currency: &Currency, now: Timestamp) -> i128 {
        self.host.owed_by(&self.cx, &(*peer, currency.clone()), now)
    }

    /// What would be lost in all to a peer if this node's payment `n` to it were written off now.
    ///
    /// # Errors
    /// [`NotLost`].
    pub fn would_lose(&self, peer: &NodeId, currency: &Currency, n: u32, now: Timestamp) -> Result<Amount, NotLost> {
        self.cx.would_lose(&(*peer, currency.clone()), n, now)
    }

    /// Payments of peers that wait to be looked for: bounded for each, and in their number.
    #[must_use]
    pub fn payments_waiting(&self) -> usize {
        self.cx.payments.waiting()
    }

    /// The host's side.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The renter's side.
    #[must_use]
    pub const fn renter(&self) -> &Renter {
        &self.renter
    }

    /// Whom this node wants nothing to do with.
    #[must_use]
    pub const fn regard(&self) -> &Regard {
        &self.regard
    }

    /// Peers that can be asked now.
    pub fn connected(&self) -> impl Iterator<Item = &NodeId> {
        self.cx.connected.iter()
    }
}

/// The currency of a `settle` or a `settle_ack`, and the number of a `settle`, before anything of it is believed.
fn payment_in(entry: &Signed<Entry>) -> Option<(Currency, Option<u32>)> {
    let entry: Entry = encode::from_bytes(entry.payload(), limits::ENTRY_BYTES).ok()?;
    match entry.body {
        Body::Settle(settle) => Some((settle.currency, Some(settle.n))),
        Body::SettleAck(ack) => Some((ack.currency, None)),
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
        | Body::Checkpoint(_) => None,
    }
}

fn is_payment(entry: &Signed<Entry>) -> bool {
    payment_in(entry).is_some()
}

fn check<T: Document>(signed: &Signed<T>, network: &NetworkId) -> Result<Verified<T>, String> {
    signed.verify(network).map_err(|e| e.to_string())
}

fn optional<T: Document>(signed: Option<&Signed<T>>, network: &NetworkId) -> Result<Option<Verified<T>>, String> {
    signed.map(|s| check(s, network)).transpose()
}
