//! Options of the host's commands, and of the ledger's.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use souk_protocol::{Amount, Currency, Millis};

use super::{
    HoldArgs, HostExtendArgs, MaintenanceCommand,
    values::{currency, duration, until, who},
};
use crate::api::types::{Until, Who};

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
    #[command(after_help = "Examples:\n  souk host show\n  souk host show --json | jq .problems")]
    Show,
    /// Offer this machine, or change its prices; running leases keep theirs
    #[command(
        after_help = "Examples:\n  souk host list --gpu-price 0.35 --min-bid 0.12\n  souk host list --price 0.02 --slots 4 --storage-price 0.10\n  souk host list --until 2026-12-24T00:00Z --for 7days --notice 2min"
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
}

/// A peer, or anyone.
#[derive(Debug, Args)]
pub struct WhoArg {
    /// A peer id, or `anyone`
    #[arg(value_name = "PEER|anyone", value_parser = who)]
    pub who: Who,
}
