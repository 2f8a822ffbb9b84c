//! Options of the renter's commands.

use clap::{Args, ValueEnum};
use souk_protocol::{Amount, Millis, ports::PortRequest};

use super::{ImageArgs, StandingArgs, values::duration};
use crate::api::types::{AttachRequest, RentalKind};

/// `souk search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Conditions, such as 'gpu_name=RTX_4090 num_gpus>=2'
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// Sort by these fields, as in dph,num_gpus-; a - after one puts its largest first [default: score-]
    #[arg(short, long, value_name = "FIELDS", allow_hyphen_values = true)]
    pub order: Vec<String>,
    /// How it is to be rented, which decides what $/h is [default: on-demand]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub rental: Option<RentalArg>,
    /// Disk to include in the price, in GB; asks with less are left out [default: 10]
    #[arg(long, value_name = "GB")]
    pub storage: Option<u64>,
    /// Show at most so many [default: 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Look for the machines that this template is for; conditions given besides must hold, too
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// Say what each condition excludes
    #[arg(long)]
    pub explain: bool,
    /// Also what is rented, your own, too small for --storage, or of hosts that failed you
    #[arg(long)]
    pub all: bool,
}

/// `souk market`.
#[derive(Debug, Args)]
pub struct MarketArgs {
    /// A GPU's model or a part of its name, or cpu [default: all]
    #[arg(value_name = "GPU")]
    pub gpu: Vec<String>,
}

/// How slots are rented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RentalArg {
    /// At the host's price, until the contract's end
    OnDemand,
    /// By a bid; $/h is the lowest the host takes for the whole ask
    Bid,
    /// For a term; $/h is after the discount, and only asks that have one are shown
    Reserved,
}

impl From<RentalArg> for RentalKind {
    fn from(arg: RentalArg) -> Self {
        match arg {
            RentalArg::OnDemand => Self::OnDemand,
            RentalArg::Bid => Self::Bid,
            RentalArg::Reserved => Self::Reserved,
        }
    }
}

/// `souk rent`.
#[derive(Debug, Args)]
pub struct RentArgs {
    /// The ask: a row of the last search, or the first digits of its id
    pub ask: Option<String>,
    /// The image to run
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// How the host gets it.
    #[command(flatten)]
    pub image_access: ImageArgs,
    /// Take from this template what isn't said here: a name, a file, or the first digits of an id
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// How it is rented [default: on-demand, or bid with --bid]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub rental: Option<RentalArg>,
    /// The price to propose, per hour for the whole instance [default: the host's]
    #[arg(long, value_name = "AMOUNT")]
    pub price: Option<Amount>,
    /// With --type bid, which it implies: the bid per hour for the whole instance [default: the lowest the host takes]
    #[arg(long, value_name = "AMOUNT", conflicts_with = "price")]
    pub bid: Option<Amount>,
    /// Take counter-offers up to this, per hour for the whole instance
    #[arg(long, value_name = "AMOUNT")]
    pub max_price: Option<Amount>,
    /// Disk in GB
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub disk: Option<u64>,
    /// Add a variable (repeatable); K alone passes on this shell's
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Run the image's Jupyter in place of its command: souk open shows it
    #[arg(long, conflicts_with_all = ["command", "entrypoint"])]
    pub jupyter: bool,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// What it may reach [default: the most the host grants]
    #[arg(long, value_name = "EGRESS", value_enum)]
    pub egress: Option<EgressArg>,
    /// A public port for a port of the instance (repeatable): any of the host's, or HOST_PORT
    #[arg(short = 'p', long = "port", value_name = "[HOST_PORT:]PORT[/udp]")]
    pub ports: Vec<PortRequest>,
    /// How long the contract shall run, such as 3h [default: as long as the host grants]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub term: Option<Millis>,
    /// Let the host extend it by itself, at the same price or a lower one, by up to this beyond its end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub extend: Option<Millis>,
    /// What the lease may cost at most, all in all
    #[arg(long, value_name = "AMOUNT")]
    pub max_spend: Option<Amount>,
    /// Pay for so much use with the rental, such as 8h, where the host asks to be paid before use: more than this node would pay
    /// ahead by itself
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub prepay: Option<Millis>,
    /// Attach a volume of that machine (repeatable): NAME:/path, or NAME:/path:ro to only read it
    #[arg(long, value_name = "VOLUME", value_parser = AttachRequest::parse)]
    pub volume: Vec<AttachRequest>,
    /// A name for it
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Let this public SSH key in, beside the rental's own: a line of OpenSSH or a file (repeatable) [default: the configured ones]
    #[arg(long, value_name = "KEY|FILE")]
    pub ssh_key: Vec<String>,
    /// Time between two receipts, such as 60s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
    /// A script of this computer that the instance runs at each start, before the command
    #[arg(long, value_name = "FILE", conflicts_with = "onstart_cmd")]
    pub onstart: Option<std::path::PathBuf>,
    /// The same as one line
    #[arg(long, value_name = "COMMAND")]
    pub onstart_cmd: Option<String>,
    /// Standing orders.
    #[command(flatten)]
    pub standing: StandingArgs,
    /// Return once the lease exists
    #[arg(short, long)]
    pub detach: bool,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// The command to run, instead of the image's
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What a guest may reach.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum EgressArg {
    /// Public addresses
    Internet,
    /// The host's LAN, too, where the host grants it
    Full,
    /// Nothing
    None,
}

impl From<EgressArg> for souk_protocol::resources::Egress {
    fn from(arg: EgressArg) -> Self {
        match arg {
            EgressArg::Internet => Self::Internet,
            EgressArg::Full => Self::Full,
            EgressArg::None => Self::None,
        }
    }
}

impl From<souk_protocol::resources::Egress> for EgressArg {
    fn from(egress: souk_protocol::resources::Egress) -> Self {
        match egress {
            souk_protocol::resources::Egress::Internet => Self::Internet,
            souk_protocol::resources::Egress::Full => Self::Full,
            souk_protocol::resources::Egress::None => Self::None,
        }
    }
}

/// `souk ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Ended leases too
    #[arg(short, long)]
    pub all: bool,
    /// With -a: at most so many, the newest
    #[arg(long, value_name = "N", requires = "all", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 100)]
    pub limit: u32,
    /// With -a: only leases with numbers below this
    #[arg(long, value_name = "NUMBER", requires = "all")]
    pub before: Option<u64>,
    /// Keep showing, as it changes
    #[arg(short, long)]
    pub watch: bool,
}

/// `souk events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The lease: its number, its label, or the first digits of its id [default: all leases]
    pub id: Option<String>,
    /// Go on with what happens
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 100)]
    pub limit: u32,
}

/// One lease.
#[derive(Debug, Args)]
pub struct LeaseArg {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
}

/// Some leases.
#[derive(Debug, Args)]
pub struct LeaseArgs {
    /// The leases: numbers, labels, or first digits of ids
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `souk destroy`.
#[derive(Debug, Args)]
pub struct DestroyArgs {
    /// The leases: numbers, labels, or first digits of ids
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `souk label`.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// The name; empty for none
    pub text: String,
}

/// `souk logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<u32>,
    /// Only lines since: 10m ago, or 2026-11-02T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Put the time before each line
    #[arg(short, long)]
    pub timestamps: bool,
}

/// `souk exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass this terminal's or pipe's input on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run as this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Add a variable (repeatable); K alone passes on this shell's
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}
