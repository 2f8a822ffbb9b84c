//! What the local API asks of the market task, and the errors it answers with.
//!
//! Each [`Command`] carries where its answer goes. Owns the queue between both, its size and what happens when it is full; owns
//! none of the rules.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use souk_protocol::{AskId, Nonce, logs::LogPosition, message::Action};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
};

use crate::api::types::{
    AcceptRequest, AccountDetail, AccountsView, ClaimView, ClusterView, EarningsRequest, EarningsView, EventsRequest,
    ExecRequest, FilesRequest, ForgiveRequest, HappenedView, HostView, IdleJobRequest, IdleJobView, InviteRequest,
    InviteView, InvoiceRequest, InvoiceView, JoinRequest, JupyterView, LeaseDetail, LeaseView, LeasesRequest,
    LedgerCheckView, LedgerCompactView, ListRequest, LogsRequest, MachineOrder, MachineResult, MachineView,
    MarketRequest, MarketView, MemberRequest, MetricView, OwnerView, PayRequest, PaymentView, PeerView, PriceRequest,
    QuoteView, ReceiptView, ReceiptsRequest, ReceivedRequest, RefreshRequest, RentRequest, RentStep, ScheduleRequest,
    ScheduleView, SearchRequest, SearchResults, SshKeysRequest, SshKeysView, SshView, StatusView, TunnelRequest,
};
use crate::template::Template;

/// Commands waiting for the market task. When full, the asker waits [`QUEUE_WAIT`] and is then told that the node is busy.
pub const QUEUE: usize = 256;
/// How long an asker waits for a place in the queue.
pub const QUEUE_WAIT: Duration = Duration::from_secs(2);
/// Steps of one rental that its asker has not read. When half full, progress is skipped; when full, the asker reads too slowly
/// and its stream ends (the rental goes on).
pub const STEPS: usize = 64;
/// Pieces of an export that its asker has not read. When full, the exporter waits.
pub const EXPORT_PIECES: usize = 4;

/// Where an answer goes. Dropping it unanswered reads as "the node is stopping".
pub type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A two-way stream of bytes; on it flow [`souk_protocol::message::Frame`]s.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A boxed [`Duplex`].
pub type ByteStream = Box<dyn Duplex>;

/// How a person names a lease: its row number, its label, or the first digits of its id. Resolved by [`super::select`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseSelector(pub String);

/// How a request names an ask: its id, or the first digits of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AskSelector(pub String);

impl From<AskId> for AskSelector {
    fn from(id: AskId) -> Self {
        Self(id.to_string())
    }
}

/// One thing asked of the market task.
pub enum Command {
    /// How the node is.
    Status(Reply<StatusView>),
    /// Whom it is connected to, or knows.
    Peers(Reply<Vec<PeerView>>),
    /// What is measured.
    Metrics(Reply<Vec<MetricView>>),
    /// Asks that match a query.
    Search {
        /// What is looked for.
        request: SearchRequest,
        /// The answer.
        reply: Reply<SearchResults>,
    },
    /// What a rental would cost, without asking its host.
    Quote {
        /// The rental.
        request: Box<RentRequest>,
        /// The answer.
        reply: Reply<QuoteView>,
    },
    /// Negotiates and takes a lease. The first error ends it, as [`RentStep::Failed`]. If the other end of `steps` is gone before
    /// the open is written, the negotiation stops; afterwards it makes no difference.
    Rent {
        /// The rental.
        request: Box<RentRequest>,
        /// Hears of each step; the last is `Running`, `Exited`, `Ended` or `Failed`.
        steps: StepSender,
    },
    /// As [`Command::Rent`], under a nonce that the asker has on disk, so that it finds what came of it after a crash.
    RentAs {
        /// The rental.
        request: Box<RentRequest>,
        /// The negotiation's.
        nonce: Nonce,
        /// Hears of each step.
        steps: StepSender,
    },
    /// The lease that a negotiation with this nonce has come to, and whether its host has answered; none if nothing was signed.
    LeaseOf {
        /// The negotiation's.
        nonce: Nonce,
        /// The answer.
        reply: Reply<Option<(LeaseView, bool)>>,
    },
    /// Leases of this node, as renter and as host.
    Leases {
        /// Which.
        request: LeasesRequest,
        /// The answer, newest last.
        reply: Reply<Vec<LeaseView>>,
    },
    /// All about one lease.
    Lease {
        /// Which.
        id: LeaseSelector,
        /// The answer.
        reply: Reply<LeaseDetail>,
    },
    /// A renter's wish about its lease; answered when the host has.
    Control {
        /// Which.
        id: LeaseSelector,
        /// What to do.
        action: Action,
        /// The lease after it.
        reply: Reply<LeaseView>,
    },
    /// About the terms of leases.
    Terms(super::terms::TermsCommand),
    /// Names a lease.
    Label {
        /// Which.
        id: LeaseSelector,
        /// The name; empty for none.
        text: String,
        /// The lease after it.
        reply: Reply<LeaseView>,
    },
    /// Opens the output of an instance. The market has sent the `Open` frame when it answers: the asker reads frames.
    Logs {
        /// Which.
        id: LeaseSelector,
        /// Which lines.
        request: LogsRequest,
        /// Where a reader was cut off that goes on.
        from: Option<LogPosition>,
        /// Frames to read.
        reply: Reply<ByteStream>,
    },
    /// Runs a further command in an instance. The market has sent the `Open` frame when it answers: the asker writes `Stdin`,
    /// `StdinEnd` and `Resize`, and reads until `Exit` or `Error`.
    Exec {
        /// Which.
        id: LeaseSelector,
        /// What.
        request: ExecRequest,
        /// Frames both ways.
        reply: Reply<ByteStream>,
    },
    /// Opens the instance's side of a copy. The market has sent the `Open` frame when it answers; then as with `Exec`.
    Files {
        /// Which.
        id: LeaseSelector,
        /// What.
        request: FilesRequest,
        /// Frames both ways.
        reply: Reply<ByteStream>,
    },
    /// How an SSH client gets into an instance.
    SshAccess {
        /// Which.
        id: LeaseSelector,
        /// The keys.
        reply: Reply<SshView>,
    },
    /// Which keys get into an instance over SSH; answered when the host has.
    SshKeys {
        /// Which.
        id: LeaseSelector,
        /// What changes.
        request: SshKeysRequest,
        /// The keys after it.
        reply: Reply<SshKeysView>,
    },
    /// What a lease runs, as a template.
    LeaseTemplate {
        /// Which.
        id: LeaseSelector,
        /// The template, without the values of variables.
        reply: Reply<Template>,
    },
    /// How a rented Jupyter is reached.
    JupyterAccess {
        /// Which.
        id: LeaseSelector,
        /// Its port and token.
        reply: Reply<JupyterView>,
    },
    /// Opens SSH or a port of an instance. The market has sent the `Open` frame when it answers: the asker reads `Ready` or `Error`, and
    /// after `Ready` plain bytes.
    Tunnel {
        /// Which.
        id: LeaseSelector,
        /// What.
        request: TunnelRequest,
        /// Bytes both ways.
        reply: Reply<ByteStream>,
    },
    /// The newest receipts, one for each lease.
    Receipts {
        /// Of which leases.
        request: ReceiptsRequest,
        /// The answer.
        reply: Reply<Vec<ReceiptView>>,
    },
    /// What happened to leases, of all of them.
    Events {
        /// Which.
        request: EventsRequest,
        /// The answer, newest last.
        reply: Reply<Vec<HappenedView>>,
    },
    /// Checks the node's own ledger as a stranger would.
    LedgerCheck(Reply<LedgerCheckView>),
    /// Drops records that later ones have replaced; answered when the space is free again, which may take minutes.
    LedgerCompact(Reply<LedgerCompactView>),
    /// The ledger as a file. A piece that is an error ends it.
    LedgerExport {
        /// Only what concerns this lease.
        id: Option<LeaseSelector>,
        /// Pieces in order; make the channel with [`EXPORT_PIECES`].
        reply: Reply<mpsc::Receiver<Result<Bytes, CommandError>>>,
    },
    /// What this node earned as a host.
    HostEarnings {
        /// In which days.
        request: EarningsRequest,
        /// The answer.
        reply: Reply<EarningsView>,
    },
    /// What this machine offers.
    HostShow(Reply<HostView>),
    /// Offers this machine, or changes how.
    HostList {
        /// What changes.
        request: ListRequest,
        /// The host after it.
        reply: Reply<HostView>,
    },
    /// Changes this machine's prices, and how they come about. Signed leases keep theirs.
    HostPrice {
        /// What changes.
        request: Box<PriceRequest>,
        /// The host after it.
        reply: Reply<HostView>,
    },
    /// What is on offer, by model.
    Market {
        /// Of what.
        request: MarketRequest,
        /// The answer.
        reply: Reply<MarketView>,
    },
    /// Takes the offer back. Running leases go on.
    HostUnlist(Reply<HostView>),
    /// What this machine's owner keeps from renters.
    HostSchedule {
        /// What changes; none only asks.
        request: Option<ScheduleRequest>,
        /// What is kept after it.
        reply: Reply<ScheduleView>,
    },
    /// Changes who may rent here.
    HostAccept {
        /// Who, and whether.
        request: AcceptRequest,
        /// The host after it.
        reply: Reply<HostView>,
    },
    /// What runs on slots that nobody rents.
    HostIdleJob {
        /// What is to run from now on; none only asks.
        request: Option<IdleJobRequest>,
        /// The job after it.
        reply: Reply<IdleJobView>,
    },
    /// About the owner of this node, and the owner's other machines.
    Owner(OwnerCommand),
    /// About the private cluster of this node.
    Cluster(ClusterCommand),
    /// About trust and reputation.
    Trust(super::trust::TrustCommand),
    /// About accounts and payments.
    Money(MoneyCommand),
}

/// One thing asked about accounts and payments. Peers are named by their id, or by its first or last characters.
#[derive(Debug)]
pub enum MoneyCommand {
    /// All accounts.
    Accounts(Reply<AccountsView>),
    /// All about one.
    Account {
        /// With whom.
        peer: String,
        /// The answer.
        reply: Reply<AccountDetail>,
    },
    /// Pays, or says that something was paid. Answered once the intention is on disk; of what was paid by hand, once it is signed.
    Pay {
        /// Whom.
        peer: String,
        /// What.
        request: PayRequest,
        /// The payment as it stands.
        reply: Reply<PaymentView>,
    },
    /// Says what has arrived of a peer's payment.
    Received {
        /// Whose.
        peer: String,
        /// What.
        request: ReceivedRequest,
        /// The payment that was answered.
        reply: Reply<ClaimView>,
    },
    /// Lets go what a peer has not signed for.
    Forgive {
        /// Whose.
        peer: String,
        /// What.
        request: ForgiveRequest,
        /// The account then.
        reply: Reply<AccountDetail>,
    },
    /// How a payment of this node's stands.
    Payment {
        /// Its name.
        reference: String,
        /// The answer.
        reply: Reply<PaymentView>,
    },
    /// Months of accounts.
    Invoices {
        /// Which.
        request: InvoiceRequest,
        /// One for each peer and currency in which there was anything.
        reply: Reply<Vec<InvoiceView>>,
    },
}

/// One thing asked about the owner.
#[derive(Debug)]
pub enum OwnerCommand {
    /// Whose this node is.
    Show(Reply<OwnerView>),
    /// Belongs to an owner from now on.
    Join {
        /// By this membership.
        request: JoinRequest,
        /// Whose it is after that.
        reply: Reply<OwnerView>,
    },
    /// Belongs to nobody else any more.
    Leave(Reply<OwnerView>),
    /// The owner's key or members have changed.
    Refresh {
        /// Which members.
        request: RefreshRequest,
        /// Whose it is after that.
        reply: Reply<OwnerView>,
    },
    /// The owner's machines.
    Machines(Reply<Vec<MachineView>>),
    /// Tells machines of the owner's to do something.
    Order {
        /// Which, and what.
        request: MachineOrder,
        /// What came of it, for each.
        reply: Reply<Vec<MachineResult>>,
    },
}

/// One thing asked about the private cluster of this node.
#[derive(Debug)]
pub enum ClusterCommand {
    /// Who is in.
    Show(Reply<ClusterView>),
    /// Makes a ticket. Answered once it is on disk.
    Invite {
        /// For how many, and how long.
        request: InviteRequest,
        /// The ticket.
        reply: Reply<InviteView>,
    },
    /// Changes a member, or makes a node one.
    Member {
        /// Which, and how.
        request: MemberRequest,
        /// The cluster after that.
        reply: Reply<ClusterView>,
    },
    /// Makes a new key for all members.
    Rotate(Reply<ClusterView>),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Status(_) => "Status",
            Self::Peers(_) => "Peers",
            Self::Metrics(_) => "Metrics",
            Self::Search { .. } => "Search",
            Self::Quote { .. } => "Quote",
            Self::Rent { .. } => "Rent",
            Self::RentAs { .. } => "RentAs",
            Self::LeaseOf { .. } => "LeaseOf",
            Self::Leases { .. } => "Leases",
            Self::Lease { .. } => "Lease",
            Self::Control { .. } => "Control",
            Self::Terms(_) => "Terms",
            Self::Label { .. } => "Label",
            Self::Logs { .. } => "Logs",
            Self::Exec { .. } => "Exec",
            Self::Files { .. } => "Files",
            Self::SshAccess { .. } => "SshAccess",
            Self::SshKeys { .. } => "SshKeys",
            Self::LeaseTemplate { .. } => "LeaseTemplate",
            Self::JupyterAccess { .. } => "JupyterAccess",
            Self::Tunnel { .. } => "Tunnel",
            Self::Receipts { .. } => "Receipts",
            Self::LedgerCheck(_) => "LedgerCheck",
            Self::LedgerCompact(_) => "LedgerCompact",
            Self::LedgerExport { .. } => "LedgerExport",
            Self::Events { .. } => "Events",
            Self::HostEarnings { .. } => "HostEarnings",
            Self::HostShow(_) => "HostShow",
            Self::HostList { .. } => "HostList",
            Self::HostPrice { .. } => "HostPrice",
            Self::Market { .. } => "Market",
            Self::HostUnlist(_) => "HostUnlist",
            Self::HostSchedule { .. } => "HostSchedule",
            Self::HostAccept { .. } => "HostAccept",
            Self::Owner(_) => "Owner",
            Self::Cluster(_) => "Cluster",
            Self::Trust(_) => "Trust",
            Self::Money(_) => "Money",
            Self::HostIdleJob { .. } => "HostIdleJob",
        })
    }
}

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request makes no sense.
    BadRequest,
    /// The token is missing or wrong.
    Unauthorized,
    /// No lease, ask or peer of that name.
    NotFound,
    /// More than one has that name.
    Ambiguous,
    /// No offer matches.
    NoMatch,
    /// It can't be done in the present state.
    WrongState,
    /// The other side said no.
    Rejected,
    /// No price both sides take.
    Price,
    /// The other node can't be reached.
    Unreachable,
    /// It took too long; it may have been done.
    Timeout,
    /// Over a limit; asking again later can help.
    Busy,
    /// More than may be sent.
    TooLarge,
    /// A part of this machine is missing: a container engine, a right.
    Unavailable,
    /// The node is going down.
    Stopping,
    /// A fault of the node itself.
    Internal,
}

/// Why a command was not done, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// For programs.
    pub code: ErrorCode,
    /// What happened and why: one sentence, lower case, no full stop.
    pub message: String,
    /// What to do next: a command or half a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl CommandError {
    /// An error without a hint.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The market task is gone.
    #[must_use]
    pub fn stopping() -> Self {
        Self::new(ErrorCode::Stopping, "the node is stopping").hint("start it again: souk up")
    }
}

/// Sends the steps of one rental without ever waiting.
#[derive(Debug, Clone)]
pub struct StepSender(mpsc::Sender<RentStep>);

impl StepSender {
    /// A sender, and where its steps come out.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<RentStep>) {
        let (sender, receiver) = mpsc::channel(STEPS);
        (Self(sender), receiver)
    }

    /// Tells a step, by the rule of [`STEPS`]. Whether the asker is still there.
    pub fn send(&self, step: RentStep) -> bool {
        let skippable = matches!(step, RentStep::Preparing { .. });
        if skippable && self.0.capacity() < STEPS / 2 {
            return !self.0.is_closed();
        }
        self.0.try_send(step).is_ok()
    }

    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Asks the market task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MarketHandle {
    commands: mpsc::Sender<Command>,
}

impl MarketHandle {
    /// A handle, and the queue that the market task reads.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(QUEUE);
        (Self { commands }, receiver)
    }

    /// Puts a command in the queue.
    ///
    /// # Errors
    /// `busy` if there is no place for it in time, `stopping` if the task is gone.
    pub async fn send(&self, command: Command) -> Result<(), CommandError> {
        use mpsc::error::SendTimeoutError;
        match self.commands.send_timeout(command, QUEUE_WAIT).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => Err(CommandError::stopping()),
            Err(SendTimeoutError::Timeout(_)) => {
                Err(CommandError::new(ErrorCode::Busy, "the node has too much to do and took no more")
                    .hint("ask again in a few seconds"))
            }
        }
    }

    /// Puts a command in the queue and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::send`], and whatever the command answers.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.send(make(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(CommandError::stopping()))
    }

    /// Starts a rental and returns its steps.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn rent(&self, request: RentRequest) -> Result<mpsc::Receiver<RentStep>, CommandError> {
        let (steps, receiver) = StepSender::channel();
        let request = Box::new(request);
        self.send(Command::Rent { request, steps }).await?;
        Ok(receiver)
    }
}
