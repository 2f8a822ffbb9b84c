//! What goes into the engine and what comes out of it.
//!
//! The shell feeds inputs with a time and carries outputs out in their order. An output with `after` waits until the store has
//! said that record durable; a signature never leaves the node before its record is on disk.

use std::collections::BTreeMap;

use crate::{
    AskId, Digest, DocumentId, LeaseId, MachineId, NodeId, Nonce, Timestamp, Verified,
    checkpoint::Checkpoint,
    cluster::MemberList,
    fork::ForkProof,
    heads::Meet,
    lease::{EndReason, LeaseDraft},
    message::{Action, Cause, Extension, Progress, Request, Response, SliceQuote},
    money::{Amount, Currency},
    negotiation::{ImagePin, Reject, RentalType},
    offer::Notice,
    payment::PayLevel,
    settlement::Settle,
    terms::{BadChange, Change},
    time::Millis,
    violation::Violation,
    workload::Workload,
};

pub use super::heads::LookedUp;
use super::{
    account::AccountPolicy,
    forks::Concern,
    policy::{HostSetup, OnRemoval},
    pricing::{OwnerAnswer, Question},
    record::Record,
    renter_lease::heartbeat::Beat,
};

/// Names a record the engine asked to be stored; tickets are handed out in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a question, so that its answer finds back. Inbound ones are the shell's, outbound ones the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A question got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NoAnswer {
    /// A sentence for people.
    pub why: String,
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// A peer asks. Every request gets exactly one [`Output::Reply`] or [`Output::Recall`].
    Request {
        /// Who.
        from: NodeId,
        /// For the answer.
        token: Token,
        /// What.
        request: Request,
    },
    /// A peer meets us ([`Request::Meet`]), and what the ledger has on it. Answered like any request.
    Meeting {
        /// Who.
        from: NodeId,
        /// For the answer.
        token: Token,
        /// Its head, and what it wants to know.
        meet: Box<Meet>,
        /// What the ledger has.
        looked_up: Box<LookedUp>,
    },
    /// A proof of a fork came by gossip. Answered by [`Output::Verdict`].
    Proof {
        /// For the verdict.
        token: Token,
        /// Who forwarded it.
        from: NodeId,
        /// Its bytes.
        data: Vec<u8>,
        /// What the shell has of the one it accuses.
        concern: Concern,
    },
    /// The ledger, or the shell that compares what peers sign with it, holds a proof of a fork.
    Contradicted(Box<ForkProof>),
    /// A peer has answered a meeting: as [`Input::Response`], with what the shell has of those whom the answer accuses.
    Met {
        /// The send's token.
        token: Token,
        /// The answer.
        met: Box<crate::heads::Met>,
        /// Everybody of [`crate::fork::ForksTold::accused`] who concerns somebody.
        concerns: BTreeMap<NodeId, Concern>,
    },
    /// The answer to an [`Output::Send`].
    Response {
        /// The send's token.
        token: Token,
        /// The answer.
        result: Result<Response, NoAnswer>,
    },
    /// A notice came by gossip. Answered by [`Output::Verdict`].
    Gossip {
        /// For the verdict.
        token: Token,
        /// Who forwarded it.
        from: NodeId,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A peer can be asked now.
    Connected(NodeId),
    /// A peer is gone.
    Disconnected(NodeId),
    /// News of a container.
    Runtime {
        /// Which lease.
        lease: LeaseId,
        /// What.
        report: RuntimeReport,
    },
    /// The container engine can be used, or not.
    RuntimeUp(bool),
    /// The answer to [`Output::ResolveImage`].
    Image {
        /// The question's token.
        token: Token,
        /// The pinned image.
        result: Result<ImagePin, Reject>,
    },
    /// The answer to [`Output::AskOwner`].
    Owner {
        /// The question's token.
        token: Token,
        /// The answer.
        answer: OwnerAnswer,
    },
    /// The answer to [`Output::LockSlots`].
    Locked {
        /// Which lease.
        lease: LeaseId,
        /// Whether all of them are ours now.
        locked: bool,
    },
    /// As a host: the renter of a lease, or one that it has let in, has reached its instance, by a stream through this node. So
    /// the lease is known to its renter.
    Reached {
        /// Which lease.
        lease: LeaseId,
    },
    /// As a renter: what came of a question into an instance. Times are since this machine's start.
    Beat {
        /// Which lease.
        lease: LeaseId,
        /// How many of its events were known when it was asked.
        events_seen: u32,
        /// When it was asked.
        asked: Millis,
        /// When that is known.
        at: Millis,
        /// What came of it.
        beat: Beat,
    },
    /// The ledger can drop old records once our chain says this.
    Checkpoint(Checkpoint),
    /// The answer to [`Output::VerifySettlement`], at any time.
    SettlementVerified {
        /// The payment: the peer's `settle`.
        settle: DocumentId,
        /// What of its amount has arrived; or that nothing has, and why, for the logs.
        result: Result<Amount, String>,
    },
    /// Slots of this machine that other nodes of it hold now.
    Foreign {
        /// Their numbers.
        slots: Vec<u16>,
    },
    /// The owner of this node wants something.
    Command(Command),
    /// Time has passed.
    Tick,
}

/// What the owner of this node may want.
#[derive(Debug, Clone)]
pub enum Command {
    /// Rent an ask.
    Rent {
        /// For the steps.
        token: Token,
        /// How.
        wish: Box<Wish>,
    },
    /// Nobody waits for a rental any more: if nothing is signed yet, nothing will be.
    Cancel {
        /// The rent command's token.
        token: Token,
    },
    /// Stop, start or destroy an instance rented by us.
    Control {
        /// For the result.
        token: Token,
        /// Which.
        lease: LeaseId,
        /// What.
        action: Action,
        /// Makes the wish unique.
        nonce: Nonce,
    },
    /// Give a lease a name.
    Label {
        /// Which.
        lease: LeaseId,
        /// The name.
        text: String,
    },
    /// Offer this machine so, from now on; none to withdraw it. Comes once after each start, whatever is offered: restored leases
    /// are taken up after it, when their slots are locked again.
    Host(Option<Box<HostSetup>>),
    /// The members of the private cluster that this node is in, and what becomes of the leases of who is not (any more) on the list.
    /// Comes after each start, before [`Self::Host`], and whenever there is a newer list; an older one changes nothing. Never sent
    /// by a node in a public network.
    Members {
        /// Verified in this network.
        list: Verified<MemberList>,
        /// For leases here.
        on_removal: OnRemoval,
    },
    /// Host's side: what a member has used of this machine before this start, from the ledger's receipts. What restored leases count
    /// from now on is noted by the engine itself.
    RememberUse {
        /// Who.
        node: NodeId,
        /// Slots times milliseconds.
        slot_ms: u64,
        /// When, at the latest.
        at: Timestamp,
    },
    /// Whom this node wants nothing to do with, from now on.
    Regard(super::regard::Regard),
    /// Say something of a peer: an attestation, or a complaint about a lease. Signed, stored, and delivered if the peer can be reached.
    /// Done once it is signed.
    Opine {
        /// For the result.
        token: Token,
        /// Of whom.
        peer: NodeId,
        /// The lease it is about; none for an attestation.
        lease: Option<LeaseId>,
        /// What: [`crate::entry::Body::Attestation`] or [`crate::entry::Body::Dispute`].
        body: Box<crate::entry::Body>,
    },
    /// The owner's rules about money hold from now on. Comes once after each start, and whenever they change.
    Accounts(Box<AccountPolicy>),
    /// A payment was made, outside of souk: say so in our chain, and tell the peer. A payment of the same method and reference as the
    /// newest one to that peer and currency is that one.
    Settle {
        /// For the result.
        token: Token,
        /// The payment.
        payment: Box<MadePayment>,
    },
    /// What [`Output::SettlementDue`] asks for can't be paid.
    CannotSettle {
        /// Whom.
        peer: NodeId,
        /// In what.
        currency: Currency,
        /// A sentence for who waits for it.
        why: String,
    },
    /// The owner holds one of this node's payments for lost: it is owed again. Refused as `Engine::would_lose` says.
    WriteOff {
        /// For the result.
        token: Token,
        /// Whom.
        peer: NodeId,
        /// In what.
        currency: Currency,
        /// The payment's number in this direction and currency.
        n: u32,
    },
    /// Host's side: waive what the renter of a lease has not acknowledged.
    Waive {
        /// For the result.
        token: Token,
        /// Which.
        lease: LeaseId,
    },
    /// Host's side: what a peer has refused to sign for counts no more in how far this node lends to it. Agreements and payments stay.
    Forgive {
        /// For the result.
        token: Token,
        /// Whom.
        peer: NodeId,
        /// In what.
        currency: Currency,
    },
    /// Host's side: take the machine back from a lease.
    Abort {
        /// Which.
        lease: LeaseId,
    },
    /// Host's side: a program in the instance of a lease wants something for it. Done once it is decided.
    FromInside {
        /// For the result.
        token: Token,
        /// Which.
        lease: LeaseId,
        /// What.
        wish: InsideWish,
    },
    /// Change the terms of a lease rented by us. Done once the host has signed them.
    Amend {
        /// For the result.
        token: Token,
        /// Which.
        lease: LeaseId,
        /// What.
        change: Change,
    },
    /// Ask a host what it takes to win slots of its machine. Answered by [`Output::Quoted`].
    Quote {
        /// For the answer.
        token: Token,
        /// Whom.
        host: NodeId,
        /// Which machine.
        machine: MachineId,
    },
    /// Ask the host of a lease what it takes for a later end. Answered by [`Output::Quoted`].
    AskExtension {
        /// For the answer.
        token: Token,
        /// Which.
        lease: LeaseId,
        /// The end wanted.
        ends_at: Timestamp,
    },
    /// Host's side: ask the renter of a lease for a longer contract at this price, from the present end on.
    OfferExtension {
        /// For the result.
        token: Token,
        /// Which.
        lease: LeaseId,
        /// The end.
        ends_at: Timestamp,
        /// For all slots and an hour.
        compute_hour: Amount,
    },
}

/// A payment that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePayment {
    /// To whom.
    pub peer: NodeId,
    /// In what.
    pub currency: Currency,
    /// How much, above zero.
    pub amount: Amount,
    /// How: see [`crate::settlement::method`].
    pub method: String,
    /// What the payee finds it by, at most [`crate::settlement::REFERENCE_BYTES`].
    pub reference: String,
}

/// Money that should be paid now, by this node's own count and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuePayment {
    /// To whom.
    pub peer: NodeId,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// Methods that the host takes, the one it prefers first.
    pub methods: Vec<String>,
    /// The lease it is for, or one of them.
    pub lease: LeaseId,
    /// Why now.
    pub why: DueReason,
    /// Past this it is too late for that; none if there is no such moment.
    pub until: Option<Timestamp>,
}

/// Why something should be paid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DueReason {
    /// The open of a lease waits for it: the host takes it only with its first payment.
    First,
    /// The account is half used up, or more.
    Low(PayLevel),
    /// All leases with the host are over, and something is left to be paid.
    Last,
}

/// A payment of a peer, to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedPayment {
    /// The peer's `settle`.
    pub settle: DocumentId,
    /// Who says to have paid.
    pub peer: NodeId,
    /// What it says.
    pub said: Settle,
    /// When it was signed.
    pub time: Timestamp,
    /// An open waits for it, until then; none if nothing does.
    pub until: Option<Timestamp>,
}

/// What a program in an instance may want for that instance, and for no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsideWish {
    /// End the processes, keep the disk.
    Stop,
    /// End everything; the lease is closed.
    Destroy,
    /// Say what it is, at most [`crate::limits::NAME_BYTES`]; empty takes that back.
    Label(String),
}

/// What a renter wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The ask.
    pub ask: AskId,
    /// Unique to this negotiation.
    pub nonce: Nonce,
    /// How the slots are rented. Of an interruptible rental `bid` is the bid.
    pub rental: RentalType,
    /// By how much the host may extend the contract by itself.
    pub extend: Option<Millis>,
    /// The first bid for all slots together, per hour; none for the listed price.
    pub bid: Option<Amount>,
    /// Never more than this per hour; none for the listed price.
    pub max_price: Option<Amount>,
    /// How long.
    pub term: Option<Millis>,
    /// Disk in MB.
    pub disk_mb: u64,
    /// What the guest may reach.
    pub egress: crate::resources::Egress,
    /// Ports that shall be reached from outside.
    pub ports: Vec<crate::ports::PortRequest>,
    /// The image.
    pub image: String,
    /// The image's digest, to insist on.
    pub image_digest: Option<String>,
    /// What runs.
    pub workload: Workload,
    /// What the lease may cost at most.
    pub max_spend: Option<Amount>,
    /// Pay so much use ahead, at its price: it runs so long without this node. None for a slice, where the host wants to be paid
    /// before.
    pub prepay: Option<Millis>,
    /// Time between receipts.
    pub tick: Option<Millis>,
    /// A name for it.
    pub label: Option<String>,
    /// A volume on the machine of that ask, instead of its slots. Nothing runs there: image, workload and price are ignored.
    pub volume: bool,
}

/// News of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeReport {
    /// The image is on its way.
    Progress(Progress),
    /// The container exists, not yet started.
    Prepared,
    /// Its command runs.
    Started,
    /// Its command has ended.
    Exited {
        /// With this code.
        code: i32,
        /// By whose doing.
        by: Cause,
        /// Set if it was killed for memory, wrote over its disk, and the like: a sentence.
        note: String,
    },
    /// It was asked to stop, and has no processes (any more).
    NotRunning,
    /// It wrote more than its disk.
    DiskFull,
    /// It can't be made or started.
    Failed {
        /// Why.
        reason: EndReason,
        /// A sentence for the renter.
        note: String,
    },
    /// Container, disk and network are gone.
    Destroyed,
    /// After a restart of the node or the engine: there is no such container.
    Missing,
    /// Traffic so far.
    Traffic {
        /// Into the instance.
        rx_bytes: u64,
        /// Out of the instance.
        tx_bytes: u64,
    },
}

/// What a runtime is told. Each order is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeOrder {
    /// Pull the image and make the container.
    Prepare {
        /// The terms.
        draft: Verified<LeaseDraft>,
        /// What runs.
        workload: Box<Workload>,
        /// Devices the container gets, and no others.
        devices: Vec<String>,
    },
    /// Run the command, with these devices and no others: if the container was made with others, it moves.
    Start {
        /// GPU UUIDs or device paths.
        devices: Vec<String>,
    },
    /// Tell the guest, in a file of the container, that it will be stopped; none takes that back.
    Notice(Option<String>),
    /// End the processes, all of them: SIGTERM, and SIGKILL after this long.
    Stop(Millis),
    /// Remove container, disk and network.
    Destroy,
    /// Make a volume: its file system, of this size, empty; prepared or failed.
    CreateVolume {
        /// In MB.
        disk_mb: u64,
    },
    /// Look whether the volume is there, and make it attachable again: prepared or missing.
    AdoptVolume,
    /// Remove the volume with all that is in it.
    DestroyVolume,
    /// Look whether the container is there, and report what it does: prepared, started, exited or missing.
    Adopt {
        /// The terms.
        draft: Verified<LeaseDraft>,
    },
}

/// A step of a negotiation, for the person who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// We bid.
    Proposed {
        /// 1, 2, 3 …
        round: u8,
        /// Per hour, all slots.
        price_hour: Amount,
    },
    /// The host wants another price.
    Countered {
        /// Per hour, all slots.
        price_hour: Amount,
    },
    /// The host has signed the whole lease.
    Drafted {
        /// The terms.
        draft: Verified<LeaseDraft>,
    },
    /// We have signed, too, and wait for the host's accept.
    Committed {
        /// The lease.
        lease: LeaseId,
    },
    /// The lease exists.
    Accepted {
        /// The lease.
        lease: LeaseId,
    },
    /// There is no lease.
    Failed {
        /// Why.
        why: Refusal,
    },
}

/// A host's word on what it takes now. Binds nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quote {
    /// For slots of its machine, one for each size.
    Slices(Vec<SliceQuote>),
    /// For a later end of a contract.
    Extension(Extension),
}

/// Why something the owner wanted was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The ask is not in our copy of the market.
    #[error("ask {0} is not on the market (any more); search again")]
    UnknownAsk(AskId),
    /// The host has signed two chains.
    #[error("{0} is known to have signed two contradicting chains, and no lease with it is made; choose another host")]
    Forked(NodeId),
    /// The host says no.
    #[error("the host refused: {0}")]
    Host(Reject),
    /// The prices do not meet.
    #[error("the host wants {host_wants}/h, over your limit of {limit}/h")]
    Price {
        /// The host's last word.
        host_wants: Amount,
        /// Ours.
        limit: Amount,
    },
    /// The host answered with something that is not what we bid for.
    #[error("the host's draft is not what was agreed: {0}")]
    BadDraft(&'static str),
    /// The host does not answer.
    #[error("the host does not answer: {0}")]
    NoAnswer(String),
    /// The host signed that there is no lease.
    #[error("the host voided the lease: {0}")]
    Void(String),
    /// We run too many negotiations or leases already.
    #[error("too many negotiations or leases at once; wait for some to end")]
    TooMany,
    /// No such lease, or it is not ours to control.
    #[error("no open lease {0} rented by this node")]
    UnknownLease(LeaseId),
    /// No such lease on this machine.
    #[error("no open lease {0} on this machine")]
    NotHosted(LeaseId),
    /// The change is not one that these terms allow.
    #[error("the lease can't be changed so: {0}")]
    Change(BadChange),
    /// One change at a time.
    #[error("another change of this lease waits for its host's answer; try again in a moment")]
    Pending,
    /// The first payment is not made.
    #[error("the first payment was not made: {0}")]
    Payment(String),
    /// Our owner lets less be paid ahead than the host lets anything run on: it would stop again and again.
    #[error(
        "the host wants {slice} {currency} paid ahead at a time, and `renter.payment.ahead_most` allows {most}: \
         set it to {slice} at least, or rent with `--prepay`"
    )]
    PaysTooLittleAhead {
        /// The host's slice.
        slice: Amount,
        /// What may be paid ahead.
        most: Amount,
        /// In what.
        currency: Currency,
    },
    /// A wish from inside an instance is not granted.
    #[error("{0}")]
    Inside(&'static str),
    /// Something of ours is malformed.
    #[error("{0}")]
    Malformed(String),
}

/// What to do with a gossiped message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Good: forward it.
    Accept,
    /// Not for us now: don't forward it, and blame nobody.
    Ignore,
    /// Wrong everywhere and always: blame the sender.
    Reject,
}

/// What is looked up in the ledger for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// Our accept or void of this open: [`Response::Answered`].
    Answer(DocumentId),
    /// Our agreement to the other party's close, with our newest acknowledgement where we are the renter: the answer to the
    /// message that first brought both may have been lost. As [`Response::Seen`].
    CloseAck,
}

/// What the shell is to do.
#[derive(Debug, Clone)]
pub enum Output {
    /// Store a record. The ticket is durable once the store says so.
    Persist {
        /// Names it.
        ticket: Ticket,
        /// The record.
        record: Box<Record>,
    },
    /// Ask a peer.
    Send {
        /// For the answer.
        token: Token,
        /// Whom.
        to: NodeId,
        /// What.
        request: Box<Request>,
        /// Not before this is durable.
        after: Option<Ticket>,
    },
    /// Answer a peer.
    Reply {
        /// The request's token.
        token: Token,
        /// The answer.
        response: Box<Response>,
        /// Not before this is durable.
        after: Option<Ticket>,
    },
    /// Answer from the ledger, about a lease that the engine no longer holds, or else with this. The answer leaves once every
    /// record asked for before is durable.
    Recall {
        /// The request's token.
        token: Token,
        /// The lease.
        lease: LeaseId,
        /// What to look up.
        what: Recalled,
        /// If nothing is on record.
        otherwise: Box<Response>,
    },
    /// Judge a gossiped message.
    Verdict {
        /// Its token.
        token: Token,
        /// The judgement.
        verdict: Verdict,
    },
    /// Gossip a notice of ours.
    Publish {
        /// The notice.
        notice: Box<Notice>,
        /// Not before this is durable.
        after: Option<Ticket>,
    },
    /// Tell the runtime.
    Runtime {
        /// About this lease.
        lease: LeaseId,
        /// What.
        order: Box<RuntimeOrder>,
        /// Not before this is durable.
        after: Option<Ticket>,
    },
    /// Find the digest of an image, by the host's rules. Answered by [`Input::Image`].
    ResolveImage {
        /// For the answer.
        token: Token,
        /// The image as written.
        reference: String,
        /// The digest it must have, if the renter insists.
        digest: Option<String>,
        /// Who wants it.
        renter: NodeId,
        /// Digest of the workload, by which a login for it is known.
        workload: Digest,
    },
    /// Ask the machine's owner, or the program that answers for them. Answered by [`Input::Owner`], or given up after
    /// [`crate::limits::OWNER_WITHIN`].
    AskOwner {
        /// For the answer.
        token: Token,
        /// What.
        question: Box<Question>,
    },
    /// Lock slots against other nodes of this machine. Answered by [`Input::Locked`].
    LockSlots {
        /// For this lease.
        lease: LeaseId,
        /// Their numbers.
        slots: Vec<u16>,
    },
    /// The host's own job may run on these slots now, and on no others.
    Idle {
        /// Their numbers.
        slots: Vec<u16>,
        /// Their devices.
        devices: Vec<String>,
    },
    /// Unlock them.
    UnlockSlots {
        /// Their numbers.
        slots: Vec<u16>,
    },
    /// A negotiation went on.
    Step {
        /// The rent command's token.
        token: Token,
        /// The step.
        step: Box<Step>,
    },
    /// What a host takes.
    Quoted {
        /// The command's token.
        token: Token,
        /// The answer.
        result: Result<Quote, Refusal>,
    },
    /// Pay this. Answered by [`Command::Settle`] or [`Command::CannotSettle`]; told again if neither comes and it is still so.
    SettlementDue(Box<DuePayment>),
    /// Find out whether this payment has arrived. Answered by [`Input::SettlementVerified`]; one at a time for each peer and currency.
    /// Asked again after a restart.
    VerifySettlement(Box<ClaimedPayment>),
    /// A command is done, or refused.
    Done {
        /// The command's token.
        token: Token,
        /// The outcome.
        result: Result<(), Refusal>,
    },
    /// A lease's state, counters or progress changed.
    Changed {
        /// Which.
        lease: LeaseId,
        /// When.
        at: Timestamp,
    },
    /// The book's notice of this machine was replaced or dropped.
    BookChanged {
        /// Which machine.
        key: super::book::MachineKey,
    },
    /// An author is known to have contradicted itself.
    Forked {
        /// Who.
        author: NodeId,
        /// The proof.
        proof: Box<ForkProof>,
        /// Whether it was found here: then it is passed on by gossip. What others have told goes on by itself, or at meetings.
        found: bool,
        /// Not before this is durable.
        after: Ticket,
    },
    /// Nothing is signed from here on: the shell starts the engine anew, behind its guard ([`super::guard`]).
    Halted(OwnKey),
    /// A peer broke the protocol.
    Violation(Violation),
}

/// What keeps a node from signing with its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnKey {
    /// Another node that has the key is there, and goes first.
    #[error(
        "another node with this node's key is running ({told_by} is in touch with it): the two would contradict each other"
    )]
    Elsewhere {
        /// When it started, by its clock.
        started: Timestamp,
        /// Who has heard of it.
        told_by: NodeId,
    },
    /// Peers hold newer entries of ours than this ledger: it was restored from a copy.
    #[error(
        "this ledger has {length} entries of its own chain, and {told_by} has seen {known}: it was restored from an older copy"
    )]
    Behind {
        /// Entries here.
        length: u64,
        /// Entries that others have seen.
        known: u64,
        /// Who has.
        told_by: NodeId,
    },
}
