//! Options of the host's commands, and of the ledger's.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use souk_protocol::{Amount, Currency, Millis};

use super::{
    HoldArgs, HostExtendArgs, MachineArg, MaintenanceCommand,
    values::{currency, duration, permille, until, who},
};
use crate::{
    api::types::{Until, Who},
    config::Strategy,
};

/// `souk receipts`.
#[derive(Debug, Args)]
pub struct ReceiptsArgs {
    /// Of this lease only
    pub id: Option<String>,
    /// Of so many leases, the newest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 100)]
    pub limit: u32,
    /// Only of leases with numbers below this
    #[arg(long, value_name = "NUMBER")]
    pub before: Option<u64>,
}

/// `souk ledger`.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Check this node's ledger as a stranger would
    #[command(after_help = "Examples:\n  souk ledger check\n  souk ledger check --json")]
    Check,
    /// Drop receipts and entries that later ones have replaced, and give their space back
    #[command(after_help = "The node does this by itself when there is enough to gain; it works on meanwhile.\n\
                      What is dropped is gone: take an export first if every single receipt matters.\n\n\
                      Examples:\n  souk ledger compact\n  souk ledger compact --json | jq .bytes_after\n  \
                      souk ledger export all.souk && souk ledger compact")]
    Compact,
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

/// `souk verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The file; - for standard input
    pub file: PathBuf,
}

/// `souk host`.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// What this machine offers, to whom, and who is on it
    #[command(
        after_help = "Examples:\n  souk host show\n  souk host show -w\n  souk host show --json | jq .problems\n  souk host show --machine all"
    )]
    Show(HostShowArgs),
    /// What this node earned as a host, by day and machine (days are of UTC)
    #[command(
        after_help = "Acknowledged is what renters have signed for; the rest is claimed and not signed for yet.\n\
                      The table rounds down to a millionth; --json and --csv are exact.\n\n\
                      Examples:\n  souk host earnings\n  souk host earnings --days 7\n  \
                      souk host earnings --from 2026-11-01 --to 2026-11-30 --csv > november.csv"
    )]
    Earnings(EarningsArgs),
    /// All machines of the same owner, and how they are
    #[command(
        after_help = "Examples:\n  souk host machines\n  souk host machines --json | jq '.[] | select(.state == \"offline\")'"
    )]
    Machines,
    /// Offer this machine, or change its prices; running leases keep theirs
    #[command(
        after_help = "Examples:\n  souk host list --gpu-price 0.35 --min-bid 0.12\n  souk host list --price 0.02 --slots 4 --storage-price 0.10\n  souk host list --until 2026-12-24T00:00Z --for 7days --notice 2min\n  souk host list --price 0.40 --machine all"
    )]
    List(ListArgs),
    /// Keep slots for your own work: bids give way with notice, signed contracts at a fixed price do not
    #[command(after_help = "Examples:\n  souk host hold 2\n  souk host hold 0                 gives them back")]
    Hold(HoldArgs),
    /// Say when the machine is maintained
    #[command(
        subcommand,
        after_help = "Examples:\n  souk host maintenance add 2026-11-23T10:00Z 2h\n  souk host maintenance list\n  souk host maintenance remove 1"
    )]
    Maintenance(MaintenanceCommand),
    /// Ask the renter of a lease for a longer contract, at the same price or another
    #[command(after_help = "Examples:\n  souk host extend 3 24h\n  souk host extend 3 7days --price 0.45")]
    Extend(HostExtendArgs),
    /// Show this machine's prices, or change them at once; signed leases keep theirs
    #[command(
        after_help = "Strategies: fixed is the listed price; floor comes down to the lowest bid while slots are free; command asks \
                      a program about each proposal (JSON in, the price of one slot-hour out, two seconds, else the listed price); \
                      market lets the listed price follow the median of comparable offers, between --min and --max.\n\n\
                      Examples:\n  souk host price\n  souk host price --gpu-price 0.35 --min-bid 0.12\n  \
                      souk host price --strategy market --min 0.20 --max 0.60\n  \
                      souk host price --gpu-price 0.40 --machine all\n  souk host price --strategy command --command /usr/local/bin/my-price"
    )]
    Price(Box<PriceArgs>),
    /// Take the offer back; running leases go on
    #[command(after_help = "Examples:\n  souk host unlist\n  souk host unlist --machine 3fa9c1")]
    Unlist(MachineArg),
    /// Let a peer rent here, or anyone
    #[command(after_help = "Examples:\n  souk host accept 12D3KooW…\n  souk host accept anyone")]
    Accept(WhoArg),
    /// Let a peer rent here no more, or only those named
    #[command(after_help = "Examples:\n  souk host refuse 12D3KooW…\n  souk host refuse anyone")]
    Refuse(WhoArg),
    /// Your own work on slots that nobody rents, gone the moment a rental comes, and back after
    #[command(
        subcommand,
        after_help = "Examples:\n  souk host idle-job set ghcr.io/me/miner:2\n  souk host idle-job clear"
    )]
    IdleJob(IdleJobCommand),
}

/// `souk host idle-job`.
#[derive(Debug, Subcommand)]
pub enum IdleJobCommand {
    /// Run this image on every slot that nobody rents: one container a slot
    #[command(
        after_help = "Examples:\n  souk host idle-job set ghcr.io/me/miner:2\n  souk host idle-job set debian:12 -- sh -c 'nice work --slot $SOUK_IDLE_SLOT'"
    )]
    Set(IdleJobArgs),
    /// Run nothing on free slots any more, and remove what ran
    #[command(after_help = "Examples:\n  souk host idle-job clear")]
    Clear,
    /// What runs on free slots, and how it does
    #[command(after_help = "Examples:\n  souk host idle-job show\n  souk host idle-job show --json | jq .slots")]
    Show,
}

/// `souk host idle-job set`.
#[derive(Debug, Args)]
pub struct IdleJobArgs {
    /// The image, from the registries that renters may use, too
    pub image: String,
    /// What it runs, in place of the image's own
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `souk host show`.
#[derive(Debug, Args)]
pub struct HostShowArgs {
    /// Keep showing, as it changes
    #[arg(short, long)]
    pub watch: bool,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// `souk host earnings`.
#[derive(Debug, Args)]
pub struct EarningsArgs {
    /// So many days up to the last [default: 30]
    #[arg(long, value_name = "N", conflicts_with = "from", value_parser = clap::value_parser!(u32).range(1..=3660))]
    pub days: Option<u32>,
    /// The first day, as 2026-11-22
    #[arg(long, value_name = "DAY")]
    pub from: Option<String>,
    /// The last day [default: today]
    #[arg(long, value_name = "DAY")]
    pub to: Option<String>,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
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
    /// No contract runs past this: 2026-12-24T00:00Z, 'in 90days', or `none`
    #[arg(long, value_name = "WHEN", value_parser = until)]
    pub until: Option<Until>,
    /// The longest contract, such as 30days
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub max_term: Option<Millis>,
    /// Warning before an instance that was rented by bid is stopped for others
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub notice: Option<Millis>,
    /// A run of such an instance that others cut shorter than this is free
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub quantum: Option<Millis>,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// `souk host price`.
#[derive(Debug, Args)]
pub struct PriceArgs {
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
    /// What a reserved term is cheaper by, such as 20 or 12.5
    #[arg(long, value_name = "PERCENT", value_parser = permille)]
    pub reserved_discount: Option<u16>,
    /// How the price of a rental comes about
    #[arg(long, value_name = "STRATEGY", value_enum)]
    pub strategy: Option<StrategyArg>,
    /// For the strategy command: what to run, by /bin/sh -c
    #[arg(long, value_name = "CMD")]
    pub command: Option<String>,
    /// For the strategy market: never below, for one slot and hour
    #[arg(long, value_name = "AMOUNT")]
    pub min: Option<Amount>,
    /// For the strategy market: never above
    #[arg(long, value_name = "AMOUNT")]
    pub max: Option<Amount>,
    /// For the strategy market: of how many other hosts offers are needed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub hosts: Option<u16>,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// How the price of a rental comes about.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StrategyArg {
    /// The listed price, and no other
    Fixed,
    /// Down to the lowest bid while slots are free
    Floor,
    /// A program says
    Command,
    /// The listed price follows the market
    Market,
}

impl From<StrategyArg> for Strategy {
    fn from(arg: StrategyArg) -> Self {
        match arg {
            StrategyArg::Fixed => Self::Fixed,
            StrategyArg::Floor => Self::Floor,
            StrategyArg::Command => Self::Command,
            StrategyArg::Market => Self::Market,
        }
    }
}

/// A peer, or anyone.
#[derive(Debug, Args)]
pub struct WhoArg {
    /// A peer id, or `anyone`
    #[arg(value_name = "PEER|anyone", value_parser = who)]
    pub who: Who,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}
