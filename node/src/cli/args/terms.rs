//! Options of the commands about leases' terms: bids, extensions, ceilings; and of what a host keeps from renters.

use clap::{Args, Subcommand};
use souk_protocol::{Amount, Millis, Timestamp};

use super::{
    MachineArg,
    values::{amount_or_none, duration, length_or_off, moment},
};

/// `souk quote`.
#[derive(Debug, Args)]
pub struct QuoteArgs {
    /// An ask (a row of the last search, or the first digits of its id), or the first digits of a machine's id
    #[arg(value_name = "ASK|MACHINE")]
    pub of: String,
}

/// `souk bid`.
#[derive(Debug, Args)]
pub struct BidArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// The bid per hour, for the whole instance; a raise is at least 5 %
    pub price: Amount,
}

/// `souk extend`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["by", "accept", "decline", "auto"]))]
pub struct ExtendArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// By how much beyond its present end, such as 12h
    #[arg(value_name = "TIME", value_parser = duration)]
    pub by: Option<Millis>,
    /// Take the longer contract that the host asks for
    #[arg(long)]
    pub accept: bool,
    /// Tell the host that you don't
    #[arg(long)]
    pub decline: bool,
    /// Let the host extend it by itself, at the same price or a lower one, by up to this beyond the present end; or `off`
    #[arg(long, value_name = "TIME|off", value_parser = length_or_off)]
    pub auto: Option<AutoExtend>,
    /// Take a higher price up to this, per hour for the whole instance, from the present end on
    #[arg(long, value_name = "AMOUNT", conflicts_with_all = ["decline", "auto"])]
    pub max_price: Option<Amount>,
    /// Don't ask, and take the host's price whatever it is, up to --max-price
    #[arg(short, long)]
    pub yes: bool,
}

/// By how much a host may extend a lease by itself; none for not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoExtend(pub Option<Millis>);

/// What a lease may cost; none for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ceiling(pub Option<Amount>);

/// `souk max-spend`.
#[derive(Debug, Args)]
pub struct MaxSpendArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// What the lease may cost at most, all in all; or `none`
    #[arg(value_name = "AMOUNT|none", value_parser = amount_or_none)]
    pub most: Ceiling,
}

/// `souk host hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// How many slots; 0 for none
    #[arg(value_parser = clap::value_parser!(u16).range(0..=256))]
    pub slots: u16,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// `souk host maintenance`.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Announce maintenance: no new contract crosses it, renters are told, and nothing runs in it
    #[command(
        after_help = "Examples:\n  souk host maintenance add 'in 3h' 30min\n  souk host maintenance add 2026-11-23T10:00Z 2h\n  souk host maintenance add 'in 3h' 30min --machine all"
    )]
    Add(MaintenanceArgs),
    /// What is announced
    #[command(
        after_help = "Examples:\n  souk host maintenance list\n  souk host maintenance list --json | jq .maintenance"
    )]
    List(MachineArg),
    /// Take an announcement back
    #[command(after_help = "Examples:\n  souk host maintenance remove 1")]
    Remove(WindowArg),
}

/// `souk host maintenance add`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// From when: 2026-11-23T10:00Z, or 'in 3h'
    #[arg(value_parser = moment)]
    pub from: Timestamp,
    /// For how long, such as 30min
    #[arg(value_name = "TIME", value_parser = duration)]
    pub lasts: Millis,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// A window.
#[derive(Debug, Args)]
pub struct WindowArg {
    /// Its number in the list
    #[arg(value_name = "N")]
    pub number: usize,
    /// Where.
    #[command(flatten)]
    pub on: MachineArg,
}

/// `souk host extend`.
#[derive(Debug, Args)]
pub struct HostExtendArgs {
    /// The lease: its number, or the first digits of its id
    pub id: String,
    /// By how much beyond its present end, such as 24h
    #[arg(value_name = "TIME", value_parser = duration)]
    pub by: Millis,
    /// The price from the present end on, per hour for the whole instance [default: the present one]
    #[arg(long, value_name = "AMOUNT")]
    pub price: Option<Amount>,
}
