//! The command line's grammar: commands, options, help with examples.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use souk_protocol::{Amount, Currency, Millis, NodeId};

use crate::api::types::{RentalKind, Who};

/// A market for compute where the price is settled face to face: rent other people's machines, or rent out your own.
///
/// There is no server, no account and no fee. Run a node with `souk up`; the other commands ask it.
#[derive(Debug, Parser)]
#[command(
    name = "souk",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Examples:\n  souk up -d                                     run a node in the background\n  \
                  souk search 'gpu_name=RTX_4090' -o dph         what is on offer, cheapest first\n  \
                  souk rent 1 --image debian:12 -- sleep 1h      rent the first of them\n  \
                  souk up --host && souk host list --price 0.35  rent this machine out\n\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage; exec passes on the command's own, 125 is souk's."
)]
pub struct Cli {
    /// Data directory: key, configuration, ledger [default: ~/.local/share/souk]
    #[arg(
        long,
        global = true,
        env = "SOUK_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key, a machine id and a configuration; never overwrites
    #[command(after_help = "Examples:\n  souk init\n  souk init --network test --dir /srv/souk")]
    Init(InitArgs),
    /// Run the node
    #[command(
        after_help = "Examples:\n  souk up                    in the foreground, until Ctrl-C\n  \
                      souk up -d                 in the background; souk down stops it\n  \
                      souk up --host             also rent this machine out\n  \
                      souk up --bootstrap /ip4/203.0.113.7/tcp/7843/p2p/12D3KooW…"
    )]
    Up(UpArgs),
    /// Stop the running node; instances on this machine keep their disks
    #[command(after_help = "Examples:\n  souk down\n  souk down --dir /srv/souk")]
    Down,
    /// How the node is
    #[command(after_help = "Examples:\n  souk status\n  souk status --json | jq .peers")]
    Status,
    /// Other nodes it is connected to
    #[command(after_help = "Examples:\n  souk peers\n  souk peers --json | jq -r '.[].address'")]
    Peers,
    /// Look for machines to rent
    #[command(
        after_help = "Conditions are FIELD OP VALUE, with < <= = != >= > in notin; all must hold, or use `or`, `not` and ( ).\n\n\
                      Examples:\n  souk search\n  souk search 'gpu_name=RTX_4090 num_gpus>=2' -o dph\n  \
                      souk search 'cpu_cores>=8 cpu_ram>=32' --storage 100\n  \
                      souk search 'gpu_ram>=80' --explain        why there is nothing"
    )]
    Search(SearchArgs),
    /// Rent a machine and run an image on it
    #[command(
        after_help = "Examples:\n  souk rent 1 --image debian:12 -- sleep 1h\n  \
                      souk rent 3fa9c1 --image pytorch/pytorch --disk 50 --for 3h --max-spend 2 --label train -- python train.py\n  \
                      souk rent 1 --image debian:12 --price 0.20 --max-price 0.25 -d -y -- ./job"
    )]
    Rent(Box<RentArgs>),
    /// List leases, as renter and as host
    #[command(
        after_help = "Examples:\n  souk ps\n  souk ps -a\n  souk ps --watch\n  souk ps --json | jq -r '.[].lease'"
    )]
    Ps(PsArgs),
    /// All about one lease
    #[command(after_help = "Examples:\n  souk show 1\n  souk show train\n  souk show 3fa9 --json")]
    Show(LeaseArg),
    /// An instance's output
    #[command(
        after_help = "Examples:\n  souk logs 1\n  souk logs -f --tail 100 train\n  souk logs --since 10m --timestamps 1"
    )]
    Logs(LogsArgs),
    /// Run a further command in an instance
    #[command(
        after_help = "Examples:\n  souk exec 1 -- nvidia-smi\n  souk exec -it 1 -- bash\n  tar c . | souk exec -i 1 -- tar x -C /workspace"
    )]
    Exec(ExecArgs),
    /// What happened to a lease, and who caused it
    #[command(after_help = "Examples:\n  souk events 1\n  souk events train --json")]
    Events(LeaseArg),
    /// End an instance's processes; its disk is kept, and billed
    #[command(after_help = "Examples:\n  souk stop 1\n  souk stop train 3fa9")]
    Stop(LeaseArgs),
    /// Run a stopped instance's command again
    #[command(after_help = "Examples:\n  souk start 1\n  souk start train")]
    Start(LeaseArgs),
    /// End leases; their disks are gone for good
    #[command(after_help = "Examples:\n  souk destroy 1\n  souk destroy -y 1 2 train")]
    Destroy(DestroyArgs),
    /// Name a lease
    #[command(
        after_help = "Examples:\n  souk label 1 train\n  souk label train ''       takes the name away"
    )]
    Label(LabelArgs),
    /// What was used, and what both sides agree is owed
    #[command(after_help = "Examples:\n  souk receipts\n  souk receipts 1 --json")]
    Receipts(ReceiptsArgs),
    /// The record of everything signed
    #[command(
        subcommand,
        after_help = "Examples:\n  souk ledger check\n  souk ledger export ledger.souk"
    )]
    Ledger(LedgerCommand),
    /// Rent this machine out
    #[command(
        subcommand,
        after_help = "Examples:\n  souk host list --price 0.35\n  souk host accept anyone\n  souk host show"
    )]
    Host(HostCommand),
    /// The whole story on loopback in about a minute, with real nodes and a real workload
    #[command(after_help = "Examples:\n  souk demo\n  souk demo --keep")]
    Demo(DemoArgs),
    /// The configuration in force
    #[command(
        subcommand,
        after_help = "Examples:\n  souk config show\n  $EDITOR \"$(souk config path)\""
    )]
    Config(ConfigCommand),
    /// Print a shell's completions
    #[command(
        after_help = "Examples:\n  souk completions bash > /etc/bash_completion.d/souk\n  souk completions zsh > ~/.zfunc/_souk"
    )]
    Completions(CompletionsArgs),
    /// Print the version
    #[command(after_help = "Examples:\n  souk version\n  souk version --json")]
    Version,
}

/// `souk init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The network to join
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
}

/// `souk up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Rent this machine out too
    #[arg(long)]
    pub host: bool,
    /// Run in the background; the log goes to souk.log in the data directory
    #[arg(short, long)]
    pub detach: bool,
    /// Listen here instead of the configured addresses (repeatable)
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Begin with these peers, beside the configured ones (repeatable)
    #[arg(long, value_name = "MULTIADDR")]
    pub bootstrap: Vec<String>,
    /// The network to join
    #[arg(long, value_name = "NAME")]
    pub network: Option<String>,
    /// As a host: time between two receipts, where the renter asks for no other
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
    /// Serve the API on a loopback address too
    #[arg(long, value_name = "ADDR:PORT")]
    pub api_tcp: Option<SocketAddr>,
    /// This is the background process.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// `souk search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Conditions, such as 'gpu_name=RTX_4090 num_gpus>=2'
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// Sort by this field; a - at its end puts the largest first
    #[arg(short, long, value_name = "FIELD", allow_hyphen_values = true)]
    pub order: Option<String>,
    /// How it is to be rented
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub rental: Option<RentalArg>,
    /// Disk to include in the price, in GB
    #[arg(long, value_name = "GB")]
    pub storage: Option<u64>,
    /// Show at most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Say what each condition excludes
    #[arg(long)]
    pub explain: bool,
    /// Also what can't be rented now
    #[arg(long)]
    pub all: bool,
}

/// How slots are rented.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RentalArg {
    /// At the host's price, until the contract's end
    OnDemand,
    /// By a bid
    Bid,
}

impl From<RentalArg> for RentalKind {
    fn from(arg: RentalArg) -> Self {
        match arg {
            RentalArg::OnDemand => Self::OnDemand,
            RentalArg::Bid => Self::Bid,
        }
    }
}

/// `souk rent`.
#[derive(Debug, Args)]
pub struct RentArgs {
    /// The ask: a row of the last search, or the first digits of its id
    pub ask: String,
    /// The image to run
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// The price to propose, per hour for the whole instance [default: the host's]
    #[arg(long, visible_alias = "bid", value_name = "AMOUNT")]
    pub price: Option<Amount>,
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
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// What it may reach [default: the most the host grants]
    #[arg(long, value_name = "EGRESS", value_enum)]
    pub egress: Option<EgressArg>,
    /// How long the contract shall run, such as 3h [default: as long as the host grants]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub term: Option<Millis>,
    /// What the lease may cost at most, all in all
    #[arg(long, value_name = "AMOUNT")]
    pub max_spend: Option<Amount>,
    /// A name for it
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Time between two receipts, such as 60s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
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
    /// Nothing
    None,
}

impl From<EgressArg> for souk_protocol::resources::Egress {
    fn from(arg: EgressArg) -> Self {
        match arg {
            EgressArg::Internet => Self::Internet,
            EgressArg::None => Self::None,
        }
    }
}

/// `souk ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Ended leases too
    #[arg(short, long)]
    pub all: bool,
    /// Keep showing, as it changes
    #[arg(long)]
    pub watch: bool,
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
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

/// `souk receipts`.
#[derive(Debug, Args)]
pub struct ReceiptsArgs {
    /// Of this lease only
    pub id: Option<String>,
}

/// `souk ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Check this node's ledger as a stranger would
    #[command(after_help = "Examples:\n  souk ledger check\n  souk ledger check --json")]
    Check,
    /// Write it to a file that anyone can verify
    #[command(
        after_help = "Examples:\n  souk ledger export ledger.souk\n  souk ledger export --lease train train.souk\n  souk ledger export - | sha256sum"
    )]
    Export(ExportArgs),
}

/// `souk ledger export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file, which must not exist; - for standard output
    pub file: PathBuf,
    /// Only what concerns this lease
    #[arg(long, value_name = "ID")]
    pub lease: Option<String>,
}

/// `souk host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// What this machine offers, to whom, and who is on it
    #[command(after_help = "Examples:\n  souk host show\n  souk host show --json | jq .problems")]
    Show,
    /// Offer this machine, or change its prices; running leases keep theirs
    #[command(
        after_help = "Examples:\n  souk host list --gpu-price 0.35 --min-bid 0.12\n  souk host list --price 0.02 --slots 4 --storage-price 0.10"
    )]
    List(ListArgs),
    /// Take the offer back; running leases go on
    #[command(after_help = "Examples:\n  souk host unlist")]
    Unlist,
    /// Let a peer rent here, or anyone
    #[command(after_help = "Examples:\n  souk host accept 12D3KooW…\n  souk host accept anyone")]
    Accept(WhoArg),
    /// Let a peer rent here no more, or only those named
    #[command(after_help = "Examples:\n  souk host refuse 12D3KooW…\n  souk host refuse anyone")]
    Refuse(WhoArg),
}

/// `souk host list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One slot for one hour: one GPU, or a machine's share without GPUs
    #[arg(long, visible_alias = "gpu-price", value_name = "AMOUNT")]
    pub price: Option<Amount>,
    /// The lowest bid for one slot for one hour
    #[arg(long, value_name = "AMOUNT")]
    pub min_bid: Option<Amount>,
    /// Disk per GB and month
    #[arg(long, value_name = "AMOUNT")]
    pub storage_price: Option<Amount>,
    /// Traffic out of an instance, per GB
    #[arg(long, value_name = "AMOUNT")]
    pub up_price: Option<Amount>,
    /// Traffic into an instance, per GB
    #[arg(long, value_name = "AMOUNT")]
    pub down_price: Option<Amount>,
    /// The currency of all prices
    #[arg(long, value_name = "CODE", value_parser = currency)]
    pub currency: Option<Currency>,
    /// Slots to cut a machine without GPUs into
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub slots: Option<u16>,
    /// The smallest slice, in slots
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub min_slots: Option<u16>,
}

/// A peer, or anyone.
#[derive(Debug, Args)]
pub struct WhoArg {
    /// A peer id, or `anyone`
    #[arg(value_name = "PEER|anyone", value_parser = who)]
    pub who: Who,
}

/// `souk demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave its nodes and data for a look around
    #[arg(long)]
    pub keep: bool,
}

/// `souk config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting in force
    #[command(
        after_help = "Examples:\n  souk config show\n  SOUK_LOG_LEVEL=debug souk config show --json"
    )]
    Show,
    /// Print where the file is
    #[command(after_help = "Examples:\n  souk config path")]
    Path,
}

/// `souk completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

fn duration(text: &str) -> Result<Millis, String> {
    let length = humantime::parse_duration(text)
        .map_err(|e| format!("{e}; write it like 90s, 3h or \"1day 12h\""))?;
    u64::try_from(length.as_millis())
        .map(Millis)
        .map_err(|_| "that is too long".to_owned())
}

fn currency(text: &str) -> Result<Currency, String> {
    let currency = Currency(text.to_owned());
    currency.check().map_err(|e| e.0)?;
    Ok(currency)
}

fn who(text: &str) -> Result<Who, String> {
    if text == "anyone" {
        return Ok(Who::Anyone);
    }
    text.parse::<NodeId>()
        .map(Who::Peer)
        .map_err(|e| format!("{e}, nor the word anyone"))
}
