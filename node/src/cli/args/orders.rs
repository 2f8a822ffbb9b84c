//! Options of standing orders.

use clap::{Args, Subcommand};
use souk_protocol::Millis;

use super::values::duration;

/// Of `souk rent`: what makes it a standing order.
#[derive(Debug, Clone, Default, Args)]
pub struct StandingArgs {
    /// Rent the best match of these conditions, instead of a certain ask
    #[arg(long, value_name = "QUERY", conflicts_with = "ask")]
    pub query: Option<String>,
    /// Which match goes first, as in `souk search -o`
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    pub order: Option<String>,
    /// Wait until a match comes, also while this terminal is closed
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "wait")]
    pub wait_for: Option<Millis>,
    /// Rent a match again, with the same workload, when the host ends the lease or is lost
    #[arg(long)]
    pub failover: bool,
    /// How long a host may be gone before it counts as lost [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "failover")]
    pub patience: Option<Millis>,
}

impl StandingArgs {
    /// Whether the rental is a standing order.
    #[must_use]
    pub const fn is_order(&self) -> bool {
        self.query.is_some() || self.wait || self.failover
    }
}

/// `souk order`.
#[derive(Debug, Subcommand)]
pub enum OrderCommand {
    /// Standing orders, and those done of late
    #[command(after_help = "Examples:\n  souk order list\n  souk order list --json")]
    List,
    /// Take an order back; a lease it has goes on
    #[command(after_help = "Examples:\n  souk order cancel 3")]
    Cancel {
        /// Its number
        number: u32,
    },
}
