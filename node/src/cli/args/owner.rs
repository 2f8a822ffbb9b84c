//! Options of the commands about the owner of a node, and about the owner's machines.

use clap::{Args, Subcommand};
use souk_protocol::{MachineId, Millis, NodeId};

use super::values::duration;

/// `souk owner`.
#[derive(Debug, Subcommand)]
pub enum OwnerCommand {
    /// Make an owner's key on this computer; never overwrites
    #[command(
        after_help = "The key signs for all your machines: keep a backup of owner.key where only you can read it.\n\n\
                      Examples:\n  souk owner init"
    )]
    Init,
    /// Whose this node is, and whether the owner's key is here
    #[command(after_help = "Examples:\n  souk owner show\n  souk owner show --json | jq .membership")]
    Show,
    /// Make a node yours: prints the ticket that it joins with
    #[command(after_help = "Run where the owner's key is; needs no node and no network.\n\n\
                      Examples:\n  souk owner sign 12D3KooW…\n  souk owner sign 12D3KooW… --for 90days\n  \
                      ssh box souk owner join \"$(souk owner sign 12D3KooW…)\"")]
    Sign(SignArgs),
    /// Belong to the owner who signed this ticket
    #[command(
        after_help = "Examples:\n  souk owner join soukmember…\n  souk owner join        with the key on this very node"
    )]
    Join(JoinArgs),
    /// Belong to nobody else any more
    #[command(after_help = "Examples:\n  souk owner leave")]
    Leave,
    /// Sign anew for all machines on the market, and send them their memberships
    #[command(after_help = "Run where the owner's key is, with the node up.\n\n\
                      Examples:\n  souk owner renew\n  souk owner renew --for 90days")]
    Renew(RenewArgs),
    /// Tell a node that it is yours no more, and forget it
    #[command(after_help = "A node that can't be reached keeps its membership until that ends.\n\n\
                      Examples:\n  souk owner dismiss 12D3KooW…")]
    Dismiss(NodeArg),
}

/// `souk owner sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The node: `souk status` there shows it
    #[arg(value_name = "NODE")]
    pub node: NodeId,
    /// Only this machine of the node
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<MachineId>,
    /// How long it holds, at most five years [default: 366days]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub life: Option<Millis>,
}

/// `souk owner renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// How long the new ones hold, at most five years [default: 366days]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub life: Option<Millis>,
}

/// `souk owner join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// What `souk owner sign` printed; none to sign with the key on this node
    pub ticket: Option<String>,
}

/// A node.
#[derive(Debug, Args)]
pub struct NodeArg {
    /// The node
    #[arg(value_name = "NODE")]
    pub node: NodeId,
}

/// `--machine`, on commands that a host's owner may give for other machines.
#[derive(Debug, Clone, Args)]
pub struct MachineArg {
    /// On this machine of the same owner, or on all [default: this]
    #[arg(long, value_name = "ID|all")]
    pub machine: Option<String>,
}
