//! Messages between two nodes: requests and answers, and the frames of log and exec streams.
//!
//! Each request is idempotent by its content: one that timed out may have been carried out, and may be sent again. The
//! transport has authenticated the sender, so a message that is not signed speaks for the peer it came from and for nobody
//! else.

use serde::{Deserialize, Serialize};

use crate::{
    encode::{self, DecodeError},
    entry::Entry,
    evidence::EvidencePage,
    heads::{HeldRecord, Meet, Met},
    id::{Digest, DocumentId, LeaseId, MachineId, NodeId, Nonce},
    lease::{LeaseDraft, LeaseState},
    limits,
    login::LoginFor,
    logs::{LogPiece, LogPosition},
    money::Amount,
    negotiation::{Counter, Proposal, Reject},
    offer::Notice,
    owner::OwnerOrder,
    payment::PaymentAsk,
    receipt::{Ack, Usage},
    signed::Signed,
    ssh::SshKeyList,
    time::Timestamp,
};

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// What the offer book holds, in one digest.
    BookSummary,
    /// The next page of the book's index.
    BookPage {
        /// The last machine of the page before; none for the first page.
        after: Option<(NodeId, MachineId)>,
    },
    /// Notices by id, at most [`limits::BOOK_FETCH`].
    BookFetch {
        /// Their ids.
        ids: Vec<DocumentId>,
    },
    /// A renter's bid.
    Propose(Box<Proposal>),
    /// A renter's durable open, with the workload whose digest the draft names.
    Commit {
        /// The `lease_open` entry.
        open: Signed<Entry>,
        /// The workload's bytes.
        #[serde(with = "serde_bytes")]
        workload: Vec<u8>,
        /// The first payment, where the draft asks for one: the renter's `settle`.
        settle: Option<Signed<Entry>>,
    },
    /// A renter's wish about its running lease.
    Control {
        /// Which lease.
        lease: LeaseId,
        /// What to do.
        action: Action,
        /// Tells one wish from the same wish again.
        nonce: Nonce,
    },
    /// A renter's `amend`: wants a lease's terms changed. Answered with [`Response::Answered`], the host's `amended`.
    Amend {
        /// The entry.
        entry: Signed<Entry>,
    },
    /// What it takes to win slots of the machine now.
    Quote {
        /// The machine.
        machine: MachineId,
    },
    /// What the host would take for a later end. Answered with [`Response::Extension`].
    AskExtension {
        /// Which lease.
        lease: LeaseId,
        /// The end wanted.
        ends_at: Timestamp,
    },
    /// A host's news about a lease. Answered with [`Response::Seen`].
    Update(Box<LeaseUpdate>),
    /// A renter asks for a lease's news, after a start or a lost connection.
    Sync {
        /// Which lease.
        lease: LeaseId,
        /// Events it has.
        events_seen: u32,
    },
    /// Entries the other party needs to hold: a `close` by the renter, a `close_ack`, a `settle`, a `settle_ack`. The last two are
    /// answered with [`Response::Settled`].
    Deliver {
        /// The entry.
        entry: Signed<Entry>,
    },
    /// An owner wants something of a node that belongs to it. Answered with [`Response::Ordered`], or rejected.
    Order(Signed<OwnerOrder>),
    /// A renter's own login for the image that it proposes, or whose lease is being prepared. Answered with [`Response::LoginTaken`].
    /// The host keeps it in memory until the image is there.
    Login(Box<LoginFor>),
    /// What a node shows of itself. Answered with [`Response::Evidence`], or rejected: nobody has to show anything.
    Evidence {
        /// Only leases with this node.
        with: Option<NodeId>,
        /// [`EvidencePage::next`] of the page before; none for the first.
        before: Option<u64>,
    },
    /// An attestation about the receiver, or a complaint about a lease between both. Answered with [`Response::Noted`].
    Opinion {
        /// The entry, by the sender.
        entry: Signed<Entry>,
    },
    /// Our chain's head, and what we know of yours. Answered with [`Response::Met`].
    Meet(Box<Meet>),
    /// A node that restores its ledger asks what was signed between the two. Answered with [`Response::Recalled`].
    Recall {
        /// Entries of the asker's chain that it has.
        length: u64,
        /// Its newest entry's time: leases that were over before are left out.
        since: Timestamp,
        /// Answers had before, with the same two numbers.
        page: u32,
    },
}

/// What a renter may ask of its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// End the processes, keep the disk.
    Stop,
    /// Run the command again.
    Start,
    /// End everything; the lease is closed.
    Destroy,
    /// No, to the longer contract at another price that the host has asked for.
    DeclineExtension,
}

/// One thing that happened to a lease, with who caused it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseEvent {
    /// 1, 2, 3 … over the lease.
    pub n: u32,
    /// When.
    pub at: Timestamp,
    /// The state from then on.
    pub state: LeaseState,
    /// What happened.
    pub what: EventCode,
    /// Who or what caused it.
    pub by: Cause,
    /// The command's exit code, where one ended.
    pub exit_code: Option<i32>,
    /// A sentence, where the state's word is not enough.
    pub note: String,
}

impl LeaseEvent {
    /// What the instance calls itself, by the newest of these events that says so; none if that is empty.
    #[must_use]
    pub fn label_of(events: &[Self]) -> Option<&str> {
        let newest = events.iter().rev().find(|e| e.what == EventCode::Labelled)?;
        Some(newest.note.as_str()).filter(|text| !text.is_empty())
    }

    /// The newest of these events that is about the lease, and not only about what the instance calls itself.
    #[must_use]
    pub fn last_step(events: &[Self]) -> Option<&Self> {
        events.iter().rev().find(|e| e.what != EventCode::Labelled)
    }
}

/// What happened to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventCode {
    /// It went to another state.
    #[default]
    State,
    /// A process ended while the lease was not running.
    Exited,
    /// Its slots go to others soon.
    EvictionNotice,
    /// They don't, after all.
    NoticeWithdrawn,
    /// Its terms have changed, but for the price in force.
    Amended,
    /// Its price is another from here on, by a bid or as agreed: a new quantum begins.
    Repriced,
    /// The host asks for a longer contract at another price.
    ExtensionAsked,
    /// The renter does not want it, or its time is past.
    ExtensionDeclined,
    /// The host has announced maintenance.
    MaintenanceAnnounced,
    /// The contract ends soon.
    ExpiringSoon,
    /// A program in the instance said what it is: the note. Names nothing for the renter's commands.
    Labelled,
    /// Half of what may be unpaid, or of what was paid ahead, is used up: the host asks for a payment.
    PaymentAsked,
    /// Nearly all of it is: compute stops soon.
    PaymentWarned,
    /// The renter has acknowledged less than the host claims.
    Disputed,
    /// They agree again: the host has waived the difference, or the renter has acknowledged it.
    Agreed,
}

impl EventCode {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Exited => "exited",
            Self::EvictionNotice => "eviction_notice",
            Self::NoticeWithdrawn => "notice_withdrawn",
            Self::Amended => "amended",
            Self::Repriced => "repriced",
            Self::ExtensionAsked => "extension_asked",
            Self::ExtensionDeclined => "extension_declined",
            Self::MaintenanceAnnounced => "maintenance_announced",
            Self::ExpiringSoon => "expiring_soon",
            Self::Labelled => "labelled",
            Self::PaymentAsked => "payment_asked",
            Self::PaymentWarned => "payment_warned",
            Self::Disputed => "disputed",
            Self::Agreed => "agreed",
        }
    }
}

/// Who or what caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The host's node or its owner.
    Host,
    /// The renter.
    Renter,
    /// The workload itself.
    Guest,
    /// The container engine.
    Engine,
    /// Another renter: a higher bid, or a rental at the fixed price.
    Market,
    /// Time.
    Clock,
}

/// How far preparing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Layers the host has.
    pub layers_done: u32,
    /// Layers of the image.
    pub layers: u32,
    /// Bytes pulled.
    pub bytes_done: u64,
    /// Bytes to pull, as far as known.
    pub bytes: u64,
}

/// Why and when an interruptible instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eviction {
    /// When.
    pub at: Timestamp,
    /// The lease that gets the slots; none for the host's own work.
    pub winner: Option<LeaseId>,
    /// What that one pays for a slot and an hour.
    pub slot_hour: Amount,
}

/// A contract's later end, and its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// The new end.
    pub ends_at: Timestamp,
    /// For all slots and an hour, from the present end on.
    pub compute_hour: Amount,
    /// Until when the host stands by it.
    pub valid_until: Timestamp,
}

/// What it takes to win so many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceQuote {
    /// How many.
    pub slots: u16,
    /// The lowest bid that would run now, for all of them and an hour; none if no bid would.
    pub to_win: Option<Amount>,
    /// The lowest bid that is taken at all.
    pub min_bid: Amount,
    /// The fixed price, if they are to be had for it now.
    pub on_demand: Option<Amount>,
    /// Interruptible leases that run in such slots now, or wait for them.
    pub bids: u16,
}

/// Where an interruptible lease stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rank {
    /// Bids before it.
    pub ahead: u16,
    /// The bid with which it would run now; none if no bid would.
    pub to_win: Option<Amount>,
}

/// A host's news about one lease. Everything in it is cumulative or numbered, so any of them may be lost or repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseUpdate {
    /// Which lease.
    pub lease: LeaseId,
    /// Events the renter has not confirmed, oldest first.
    pub events: Vec<LeaseEvent>,
    /// Pull progress, while preparing.
    pub progress: Option<Progress>,
    /// Host entries the renter may lack, oldest first: accept, placement, close.
    pub entries: Vec<Signed<Entry>>,
    /// The newest usage.
    pub usage: Option<Signed<Usage>>,
    /// When and why it is stopped soon.
    pub eviction: Option<Eviction>,
    /// Where it stands in the auction.
    pub rank: Option<Rank>,
    /// The longer contract the host asks for.
    pub asked: Option<Extension>,
    /// The payment it asks for.
    pub payment: Option<PaymentAsk>,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::BookSummary`].
    BookSummary {
        /// Notices in the book.
        count: u64,
        /// Exclusive or of all their ids: equal books have equal roots.
        root: Digest,
    },
    /// To [`Request::BookPage`].
    BookPage {
        /// Machines in order, each with its newest `seq` and notice.
        items: Vec<BookItem>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`Request::BookFetch`]: those of the ids that are (still) known.
    BookNotices {
        /// The notices.
        notices: Vec<Notice>,
    },
    /// To a proposal: the price the host would take.
    Countered(Signed<Counter>),
    /// To a proposal: the whole lease, to be opened.
    Drafted(Signed<LeaseDraft>),
    /// To a proposal or control: no.
    Rejected(Reject),
    /// To a commit: the host's `lease_accept` or `void`, always the same for the same open.
    Answered(Signed<Entry>),
    /// To a control.
    Controlled {
        /// The lease's state after it.
        state: LeaseState,
    },
    /// To an update or a delivery.
    Seen {
        /// Events the renter has now.
        events_seen: u32,
        /// The acknowledgement of the update's usage.
        ack: Option<Signed<Ack>>,
        /// The `close_ack` for a close.
        close_ack: Option<Signed<Entry>>,
    },
    /// To a sync.
    News(Box<LeaseUpdate>),
    /// To an order: what came of it, in the words of the node's programming interface, as JSON of at most
    /// [`limits::ORDER_ANSWER_BYTES`].
    Ordered {
        /// The answer, or the error.
        #[serde(with = "serde_bytes")]
        answer: Vec<u8>,
    },
    /// To a quote.
    Quoted {
        /// One for each size the machine is sold in.
        slices: Vec<SliceQuote>,
    },
    /// To a question for a later end.
    Extension(Extension),
    /// To a login.
    LoginTaken,
    /// To a question for evidence.
    Evidence(Box<EvidencePage>),
    /// To an opinion: it is kept.
    Noted,
    /// To a meeting.
    Met(Box<Met>),
    /// To a recall: what the answer before it rests on comes first.
    Recalled {
        /// At most [`limits::RECALL_RECORDS`].
        records: Vec<HeldRecord>,
        /// Whether there are more.
        more: bool,
    },
    /// To the delivery of a `settle` or `settle_ack`, which is kept.
    Settled {
        /// Our newest `settle_ack`, if it is for this payment or a later one. None while it is not known whether it has arrived.
        ack: Option<Signed<Entry>>,
    },
    /// The node is over its limits; nothing was done.
    Busy {
        /// Milliseconds to wait before asking again.
        retry_after_ms: u64,
    },
}

/// A line of a book's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookItem {
    /// The host.
    pub host: NodeId,
    /// The machine.
    pub machine: MachineId,
    /// Of the newest notice.
    pub seq: u64,
    /// The newest notice's id.
    pub id: DocumentId,
}

impl Request {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// From a peer's bytes.
    ///
    /// # Errors
    /// [`DecodeError`], also for lists over their limits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let request: Self = encode::from_bytes(bytes, limits::REQUEST_BYTES)?;
        let fits = match &request {
            Self::BookFetch { ids } => ids.len() <= limits::BOOK_FETCH,
            Self::Commit { workload, .. } => workload.len() <= limits::WORKLOAD_BYTES,
            Self::Update(update) => update.fits(),
            Self::Login(of) => of.login.check().is_ok(),
            Self::Meet(meet) => meet.fits(),
            Self::Recall { page, .. } => *page < limits::RECALL_PAGES,
            Self::Propose(_)
            | Self::BookSummary
            | Self::BookPage { .. }
            | Self::Control { .. }
            | Self::Amend { .. }
            | Self::Quote { .. }
            | Self::AskExtension { .. }
            | Self::Sync { .. }
            | Self::Deliver { .. }
            | Self::Evidence { .. }
            | Self::Opinion { .. }
            | Self::Order(_) => true,
        };
        if fits { Ok(request) } else { Err(DecodeError::Malformed("a list is over its limit".to_owned())) }
    }
}

impl LeaseUpdate {
    fn fits(&self) -> bool {
        self.events.len() <= limits::EVENTS_PER_LEASE
            && self.entries.len() <= limits::UPDATE_ENTRIES
            && self
                .events
                .iter()
                .all(|e| e.note.len() <= limits::SENTENCE_BYTES && !e.note.chars().any(char::is_control))
    }
}

impl Response {
    /// As bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// From a peer's bytes.
    ///
    /// # Errors
    /// [`DecodeError`], also for lists over their limits.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let response: Self = encode::from_bytes(bytes, limits::RESPONSE_BYTES)?;
        let fits = match &response {
            Self::BookPage { items, .. } => items.len() <= limits::BOOK_PAGE,
            Self::BookNotices { notices } => notices.len() <= limits::BOOK_FETCH,
            Self::News(update) => update.fits(),
            Self::Evidence(page) => page.fits(),
            Self::Rejected(reject) => {
                reject.sentence.len() <= limits::SENTENCE_BYTES && !reject.sentence.chars().any(char::is_control)
            }
            Self::Ordered { answer } => answer.len() <= limits::ORDER_ANSWER_BYTES,
            Self::Quoted { slices } => slices.len() <= 16,
            Self::Met(met) => met.fits(),
            Self::Recalled { records, .. } => records.len() <= limits::RECALL_RECORDS,
            Self::BookSummary { .. }
            | Self::LoginTaken
            | Self::Noted
            | Self::Settled { .. }
            | Self::Extension(_)
            | Self::Countered(_)
            | Self::Drafted(_)
            | Self::Answered(_)
            | Self::Controlled { .. }
            | Self::Seen { .. }
            | Self::Busy { .. } => true,
        };
        if fits { Ok(response) } else { Err(DecodeError::Malformed("a list or text is over its limit".to_owned())) }
    }
}

/// The first frame on a stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamOpen {
    /// The instance's output.
    Logs {
        /// Which lease.
        lease: LeaseId,
        /// Go on with what comes.
        follow: bool,
        /// Only so many of the last lines.
        tail: Option<u32>,
        /// Only lines from this time on.
        since: Option<Timestamp>,
        /// Only what a reader who was cut off here has not had; in place of the two before.
        from: Option<LogPosition>,
    },
    /// A further command in the instance.
    Exec {
        /// Which lease.
        lease: LeaseId,
        /// The command.
        command: Vec<String>,
        /// Whether it gets a terminal.
        tty: bool,
        /// Added environment.
        env: Vec<(String, String)>,
        /// As whom; none for the instance's user.
        user: Option<String>,
        /// Where; none for the instance's directory.
        workdir: Option<String>,
        /// Columns and rows of the terminal.
        size: Option<(u16, u16)>,
    },
    /// An SSH session with the instance. After [`Frame::Ready`] the stream carries SSH's own bytes. Whoever proves a key of the newest
    /// list gets in: the renter's [`SshKeyList`], or the workload's.
    Ssh {
        /// Which lease.
        lease: LeaseId,
    },
    /// Which keys get in over SSH. After [`Frame::Ready`] the stream carries the newest list that the renter has signed, and ends;
    /// nothing, if the workload's hold.
    SshKeys {
        /// Which lease.
        lease: LeaseId,
        /// A new list first, of the revision after the newest.
        replace: Option<Signed<SshKeyList>>,
    },
    /// The image of an instance that is being prepared, from its renter. After [`Frame::Ready`] the stream carries the messages of a
    /// handover; the renter sends.
    Push {
        /// Which lease.
        lease: LeaseId,
    },
    /// The renter's own meter: a program in the instance that says that it is there. Frames as with `Exec`: a question is
    /// [`Frame::Stdin`], a [`crate::pulse::question`]; an answer [`Frame::Stdout`], a [`crate::pulse::Answer`].
    Pulse {
        /// Which lease.
        lease: LeaseId,
    },
    /// An image of the instance's disk. After [`Frame::Ready`] the stream carries the messages of a handover; the host sends.
    Snapshot {
        /// Which lease.
        lease: LeaseId,
        /// Keep it on the host, as an image that the renter has sent.
        keep: bool,
    },
    /// A connection to a port, made from inside the instance. After [`Frame::Ready`] a TCP stream carries the connection's own bytes
    /// both ways; a UDP stream carries datagrams, each after its length as 16-bit big-endian.
    Forward {
        /// Which lease.
        lease: LeaseId,
        /// Where to, as the instance sees it: a name or an address.
        host: String,
        /// Which port.
        port: u16,
        /// Datagrams, not a connection.
        udp: bool,
    },
    /// The instance's side of a copy of files, of a running instance or a stopped one: frames as with `Exec`. With `onward` it is a
    /// copy from there to another instance of the same renter on the same host: the renter sends the first message for each of the two
    /// as [`Frame::Stdin`], and hears how it goes on as [`Frame::Stdout`].
    Files {
        /// Which lease.
        lease: LeaseId,
        /// As whom; none for the instance's user.
        user: Option<String>,
        /// The lease whose instance takes what this one sends.
        onward: Option<LeaseId>,
    },
}

impl StreamOpen {
    /// The lease that the stream is for.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        match self {
            Self::Logs { lease, .. }
            | Self::Exec { lease, .. }
            | Self::Ssh { lease }
            | Self::SshKeys { lease, .. }
            | Self::Push { lease }
            | Self::Pulse { lease }
            | Self::Snapshot { lease, .. }
            | Self::Forward { lease, .. }
            | Self::Files { lease, .. } => *lease,
        }
    }
}

/// What flows on a log or exec stream after its [`StreamOpen`]. On the wire: one kind byte, a 32-bit big-endian length, and so
/// many bytes, at most [`limits::FRAME_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The open itself, as canonical CBOR.
    Open(Vec<u8>),
    /// To the command.
    Stdin(Vec<u8>),
    /// No more input.
    StdinEnd,
    /// From the command.
    Stdout(Vec<u8>),
    /// From the command.
    Stderr(Vec<u8>),
    /// The terminal's new columns and rows.
    Resize(u16, u16),
    /// It ended with this code.
    Exit(i32),
    /// It can't be done; a sentence for people.
    Error(String),
    /// What was asked for is there; from here on no frames follow, but its own bytes.
    Ready,
    /// Output, with its place.
    Log(LogPiece),
    /// A word about the output, not of it; a sentence for people.
    Note(String),
    /// From where on output follows: the first frame of a stream of it.
    Place(LogPosition),
}

impl Frame {
    /// Bytes before a frame's content.
    pub const HEADER: usize = 5;

    /// As bytes, header included.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let resize;
        let code;
        let piece;
        let place;
        let (kind, body): (u8, &[u8]) = match self {
            Self::Open(bytes) => (0, bytes),
            Self::Stdin(bytes) => (1, bytes),
            Self::StdinEnd => (2, &[]),
            Self::Stdout(bytes) => (3, bytes),
            Self::Stderr(bytes) => (4, bytes),
            Self::Resize(columns, rows) => {
                resize = [columns.to_be_bytes(), rows.to_be_bytes()].concat();
                (5, &resize)
            }
            Self::Exit(value) => {
                code = value.to_be_bytes();
                (6, &code)
            }
            Self::Error(sentence) => (7, sentence.as_bytes()),
            Self::Ready => (8, &[]),
            Self::Log(log) => {
                piece = log.to_bytes();
                (9, &piece)
            }
            Self::Note(sentence) => (10, sentence.as_bytes()),
            Self::Place(position) => {
                place = position.to_bytes();
                (11, &place)
            }
        };
        let mut bytes = Vec::with_capacity(Self::HEADER + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// How many bytes of content follow this header.
    ///
    /// # Errors
    /// [`DecodeError::TooLong`] if it says more than a frame may have.
    pub fn content_len(header: &[u8; Self::HEADER]) -> Result<usize, DecodeError> {
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if len > limits::FRAME_BYTES { Err(DecodeError::TooLong { len, max: limits::FRAME_BYTES }) } else { Ok(len) }
    }

    /// A frame from its kind byte and content.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] for an unknown kind or a content that does not fit it.
    pub fn from_parts(kind: u8, body: Vec<u8>) -> Result<Self, DecodeError> {
        let malformed = || DecodeError::Malformed(format!("a frame of kind {kind} with {} bytes", body.len()));
        Ok(match kind {
            0 => Self::Open(body),
            1 => Self::Stdin(body),
            2 if body.is_empty() => Self::StdinEnd,
            3 => Self::Stdout(body),
            4 => Self::Stderr(body),
            5 => {
                let [a, b, c, d] = <[u8; 4]>::try_from(body.as_slice()).map_err(|_| malformed())?;
                Self::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            6 => Self::Exit(i32::from_be_bytes(<[u8; 4]>::try_from(body.as_slice()).map_err(|_| malformed())?)),
            7 => Self::Error(sentence(&body)),
            8 if body.is_empty() => Self::Ready,
            9 => Self::Log(LogPiece::from_bytes(body)?),
            10 => Self::Note(sentence(&body)),
            11 => Self::Place(LogPosition::from_bytes(&body).ok_or_else(malformed)?),
            _ => return Err(malformed()),
        })
    }
}

/// What may be shown of a peer's sentence.
fn sentence(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(limits::SENTENCE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::logs::LogPoint;
    use proptest::prelude::*;

    #[test]
    fn frames_come_back() {
        for frame in [
            Frame::Stdin(vec![1, 2]),
            Frame::StdinEnd,
            Frame::Resize(80, 24),
            Frame::Exit(-1),
            Frame::Error("no".to_owned()),
            Frame::Log(LogPiece { stderr: true, at: 7, nth: 2, bytes: vec![3] }),
            Frame::Note("well".to_owned()),
            Frame::Place(LogPosition { stdout: LogPoint::after(9, 1), stderr: LogPoint::from_time(8) }),
        ] {
            let bytes = frame.to_bytes();
            let header: [u8; Frame::HEADER] = bytes[..Frame::HEADER].try_into().unwrap();
            assert_eq!(Frame::content_len(&header).unwrap(), bytes.len() - Frame::HEADER);
            assert_eq!(Frame::from_parts(header[0], bytes[Frame::HEADER..].to_vec()).unwrap(), frame);
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics_and_what_decodes_encodes_back(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(request) = Request::from_bytes(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes.clone());
            }
            if let Ok(response) = Response::from_bytes(&bytes) {
                prop_assert_eq!(response.to_bytes(), bytes);
            }
        }
    }
}
