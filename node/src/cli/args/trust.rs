//! Options of the commands about trust and reputation.

use clap::Args;
use souk_protocol::{Amount, Currency, Timestamp, opinion::DisputeCode};

use super::values::{currency, moment};

/// `souk trust`.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// A node's or owner's id, or its last characters; none to list who is trusted
    pub peer: Option<String>,
    /// How much it may owe you before it must pay
    #[arg(long, value_name = "AMOUNT", requires = "peer", conflicts_with = "remove")]
    pub credit: Option<Amount>,
    /// The currency of that [default: renter.currency]
    #[arg(long, value_parser = currency, requires = "credit")]
    pub currency: Option<Currency>,
    /// Take it back
    #[arg(long, requires = "peer")]
    pub remove: bool,
}

/// `souk block`.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// A node's or owner's id, or its last characters; none to list who is blocked
    pub peer: Option<String>,
    /// Take it back
    #[arg(long, requires = "peer")]
    pub remove: bool,
}

/// `souk attest`.
#[derive(Debug, Args)]
pub struct AttestArgs {
    /// A node's id, or its last characters; none to list what is vouched for
    #[arg(requires = "claim")]
    pub peer: Option<String>,
    /// What is so: `datacenter`, `verified`, or any word of a-z, 0-9, _ and -
    pub claim: Option<String>,
    /// Until when, like 2027-01-31 or 'in 90days' [default: until withdrawn]
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "withdraw", requires = "claim")]
    pub until: Option<Timestamp>,
    /// Take it back
    #[arg(long, requires = "claim")]
    pub withdraw: bool,
}

/// `souk report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Row number, label, or the first digits of the id
    pub id: String,
    /// What of: over_metered, not_acknowledged, not_delivered, performance, bait, unpaid, payment_ignored, abuse, other
    #[arg(value_name = "CODE", value_parser = code)]
    pub code: DisputeCode,
    /// In your words
    #[arg(default_value = "")]
    pub sentence: String,
}

/// `souk reputation`.
#[derive(Debug, Args)]
pub struct ReputationArgs {
    /// A node's or owner's id, or its last characters; none for everybody known
    pub peer: Option<String>,
    /// Name the receipts that made it
    #[arg(long, requires = "peer")]
    pub explain: bool,
}

fn code(text: &str) -> Result<DisputeCode, String> {
    let found = DisputeCode::ALL.into_iter().find(|code| code.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = DisputeCode::ALL.iter().map(|code| code.name()).collect();
        format!("it is one of: {}", names.join(", "))
    })
}
