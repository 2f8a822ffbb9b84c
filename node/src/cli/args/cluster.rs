//! Options of the commands about private clusters.

use clap::{Args, Subcommand};
use souk_protocol::Millis;

use super::values::duration;

/// `souk cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Found a cluster: this node keeps its list of members
    #[command(
        after_help = "Needs a data directory without a ledger: one network a directory. Then: souk up -d --host && souk cluster invite\n\n\
                      Examples:\n  souk cluster new lab\n  souk cluster new lab --no-key      QUIC too, guarded by the list alone\n  \
                      souk --dir ~/lab cluster new lab   beside a node of the public network"
    )]
    New(NewClusterArgs),
    /// Print a ticket that lets a node in; run on the keeper's node, while it is up
    #[command(after_help = "The ticket is a secret until it is used or has expired: whoever has it gets in.\n\n\
                      Examples:\n  souk cluster invite\n  souk cluster invite --uses 20 --expires 2h\n  \
                      souk cluster invite --address /ip4/203.0.113.7/tcp/7843")]
    Invite(InviteArgs),
    /// Become a member by a ticket
    #[command(
        after_help = "Makes a node here if there is none. Then: souk up -d, or souk up -d --host to share this machine.\n\n\
                      Examples:\n  souk cluster join soukcluster… --name alice && souk up -d --host"
    )]
    Join(JoinClusterArgs),
    /// Who is in, and what each may use
    #[command(
        after_help = "Examples:\n  souk cluster members\n  souk cluster members --json | jq -r '.members[].node'"
    )]
    Members,
    /// Make a node a member without a ticket, also one that was removed
    #[command(
        after_help = "The node needs a ticket all the same to know where to find the cluster, if it has never been in it.\n\n\
                      Examples:\n  souk cluster admit 12D3KooW… --name bob --slots 2"
    )]
    Admit(AdmitArgs),
    /// Put a member out, at once: its connections and its leases end
    #[command(after_help = "The key that members share stays; souk cluster rotate makes a new one.\n\n\
                      Examples:\n  souk cluster remove bob\n  souk cluster remove 12D3KooW… -y")]
    Remove(RemoveArgs),
    /// What each host lets a member use
    #[command(after_help = "Kept by each host for itself. Without a limit: off.\n\n\
                      Examples:\n  souk cluster quota bob --slots 4 --slot-hours 500\n  souk cluster quota bob --slots off --slot-hours off")]
    Quota(QuotaCommandArgs),
    /// Make a new key for all members, so that who was removed can't even shake hands
    #[command(after_help = "Members that are connected have it at once; one that is away needs a new ticket.\n\n\
                      Examples:\n  souk cluster rotate -y")]
    Rotate(RotateArgs),
}

/// `souk cluster new`.
#[derive(Debug, Args)]
pub struct NewClusterArgs {
    /// Its name: 1 to 32 lower-case letters, digits and hyphens
    #[arg(value_name = "NAME")]
    pub name: String,
    /// No shared key: members are told apart by the list alone, and QUIC works, which needs it to get through some routers
    #[arg(long)]
    pub no_key: bool,
    /// This node's name in it [default: keeper]
    #[arg(long = "as", value_name = "NAME")]
    pub member: Option<String>,
}

/// `souk cluster invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// How many nodes it lets in
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub uses: u32,
    /// For how long [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expires: Option<Millis>,
    /// Where this node is reached (repeatable) [default: where it listens]
    #[arg(long, value_name = "MULTIADDR")]
    pub address: Vec<String>,
}

/// `souk cluster join`.
#[derive(Debug, Args)]
pub struct JoinClusterArgs {
    /// What `souk cluster invite` printed; `-` reads it from standard input, so that no list of processes shows it
    #[arg(value_name = "TICKET")]
    pub ticket: String,
    /// This node's name in the cluster [default: made up]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
}

/// What a member may use of each host.
#[derive(Debug, Args)]
pub struct QuotaArgs {
    /// Slots at once, or off
    #[arg(long, value_name = "N|off", value_parser = bound)]
    pub slots: Option<Bound>,
    /// Slot-hours in 30 days, or off
    #[arg(long, value_name = "N|off", value_parser = bound)]
    pub slot_hours: Option<Bound>,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound(pub Option<u32>);

fn bound(text: &str) -> Result<Bound, String> {
    if text == "off" {
        return Ok(Bound(None));
    }
    text.parse().map(|n| Bound(Some(n))).map_err(|_| "a number, or off".to_owned())
}

/// `souk cluster admit`.
#[derive(Debug, Args)]
pub struct AdmitArgs {
    /// The node: `souk status` there shows it
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Its name in the cluster [default: made up]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What it may use.
    #[command(flatten)]
    pub quota: QuotaArgs,
}

/// `souk cluster remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The member: its name, or its node
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `souk cluster quota`.
#[derive(Debug, Args)]
pub struct QuotaCommandArgs {
    /// The member: its name, or its node
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// What it may use.
    #[command(flatten)]
    pub quota: QuotaArgs,
}

/// `souk cluster rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}
