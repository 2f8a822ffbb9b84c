//! `souk cluster`: a private cluster of machines that trust each other.
//!
//! Founding one and joining one happen before there is a node, in its data directory; everything else is asked of the running node.

use std::io::Read;

use serde_json::json;
use souk_ledger::lock::DirectoryLock;
use souk_network::Multiaddr;
use souk_protocol::{
    Millis, Verified,
    cluster::{BadTicket, Founding, MemberList, PreSharedKey, Proof, Quota, Ticket, Tickets},
};

use super::{
    Context,
    args::{ClusterCommand, InviteArgs, JoinClusterArgs, NewClusterArgs, QuotaArgs, RemoveArgs},
    error::Failure,
    node,
    output::{self, Align, Table},
};
use crate::{
    acquaintances,
    api::types::{ClusterView, InviteRequest, InviteView, MemberChange, MemberRequest},
    clock::{now, random},
    cluster::{ClusterFiles, files, joining},
    market::ErrorCode,
};

/// How long a ticket holds unless it is said.
const EXPIRES: Millis = Millis::from_hours(24);
/// A ticket is at most so many bytes of standard input.
const TICKET_BYTES: u64 = 8 * 1024;
/// What the founder is called unless it is said.
const KEEPER: &str = "keeper";

pub(super) async fn cluster(context: &Context, command: ClusterCommand) -> Result<u8, Failure> {
    match command {
        ClusterCommand::New(args) => new(context, args),
        ClusterCommand::Join(args) => join(context, args).await,
        ClusterCommand::Invite(args) => invite(context, args).await,
        ClusterCommand::Members => shown(context, &context.client()?.get("cluster").await?),
        ClusterCommand::Admit(args) => {
            let quota = changed(Quota::default(), &args.quota);
            change(context, args.node, MemberChange::Admit { name: args.name, quota }).await
        }
        ClusterCommand::Remove(args) => remove(context, args).await,
        ClusterCommand::Quota(args) => {
            let view: ClusterView = context.client()?.get("cluster").await?;
            let named = |m: &&crate::api::types::MemberView| m.name == args.member || m.node.to_string() == args.member;
            let before = view.members.iter().find(named).map_or_else(Quota::default, |m| m.quota);
            change(context, args.member, MemberChange::Quota(changed(before, &args.quota))).await
        }
        ClusterCommand::Rotate(args) => {
            let question = "Make a new key for all members? Those that are away need a new ticket.";
            if !args.yes && !output::confirm(question, false, false)? {
                return Err(Failure::new("nothing was changed").hint("souk cluster rotate -y"));
            }
            shown(context, &context.client()?.post("cluster/rotate", &json!({})).await?)
        }
    }
}

fn changed(before: Quota, args: &QuotaArgs) -> Quota {
    Quota {
        slots_at_once: args.slots.map_or(before.slots_at_once, |bound| bound.0),
        slot_hours: args.slot_hours.map_or(before.slot_hours, |bound| bound.0),
    }
}

/// A data directory is of one network for good: what was signed in it names that.
fn fresh(context: &Context, of: Option<&Founding>) -> Result<(), Failure> {
    let already = ClusterFiles::load(&context.dir)?;
    if let Some(files) = already {
        if of == Some(&files.list.founding) {
            return Ok(());
        }
        let message = format!("{} is of the cluster `{}` already", context.dir.display(), files.list.founding.name);
        return Err(Failure::new(message).code(ErrorCode::WrongState).hint(ANOTHER));
    }
    let ledger = context.dir.join("ledger");
    if ledger.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} has a ledger of another network already", context.dir.display());
        return Err(Failure::new(message).code(ErrorCode::WrongState).hint(ANOTHER));
    }
    Ok(())
}

const ANOTHER: &str = "one directory a network: souk --dir ANOTHER cluster …";

fn locked(context: &Context) -> Result<DirectoryLock, Failure> {
    DirectoryLock::acquire(&context.dir).map_err(|error| {
        Failure::new(format!("the node here runs, and its network is about to be another: {error}"))
            .code(ErrorCode::WrongState)
            .hint("souk down, and again")
    })
}

fn new(context: &Context, args: NewClusterArgs) -> Result<u8, Failure> {
    let (identity, _) = node::prepare(context, None)?;
    let _lock = locked(context)?;
    if ClusterFiles::load(&context.dir)?.is_some() {
        let message = format!("{} is of a cluster already", context.dir.display());
        return Err(Failure::new(message).code(ErrorCode::WrongState).hint(ANOTHER));
    }
    fresh(context, None)?;
    let keeper = identity.keypair.node_id();
    let founding = Founding { name: args.name, keeper, salt: drawn()? };
    let key = if args.no_key { None } else { Some(PreSharedKey::new(drawn()?)) };
    let name = args.member.unwrap_or_else(|| KEEPER.to_owned());
    let list = MemberList::first(founding.clone(), name, key.as_ref().map(PreSharedKey::fence), now());
    let list = Verified::sign(list, &identity.keypair, &founding.network())
        .map_err(|e| Failure::usage(e.to_string()).hint("names have 1 to 32 lower-case letters, digits and hyphens"))?;
    ClusterFiles { list, key }.save(&context.dir)?;
    files::save_tickets(&context.dir, &Tickets::default())?;
    if context.json {
        output::json(&json!({
            "cluster": founding.name,
            "network_id": founding.network(),
            "keeper": keeper,
            "has_key": !args.no_key,
            "dir": context.dir,
        }))?;
        return Ok(0);
    }
    output::line(output::pairs(&[
        ("cluster", founding.name.clone()),
        ("network", founding.network().to_string()),
        ("keeper", format!("{keeper}, this node")),
        ("data", context.dir.display().to_string()),
    ]))?;
    output::note("next: souk up -d (with --host to share this machine), then souk cluster invite");
    Ok(0)
}

fn drawn<const N: usize>() -> Result<[u8; N], Failure> {
    random().map_err(|e| Failure::chain(&e))
}

async fn join(context: &Context, args: JoinClusterArgs) -> Result<u8, Failure> {
    let text = if args.ticket == "-" {
        let mut text = String::new();
        std::io::stdin().take(TICKET_BYTES).read_to_string(&mut text)?;
        text
    } else {
        args.ticket
    };
    let ticket: Ticket = text.parse().map_err(|e: BadTicket| Failure::usage(e.to_string()))?;
    ticket.fresh(now()).map_err(|e| Failure::new(e.to_string()).code(ErrorCode::WrongState))?;
    Proof { mac: [0; 32], name: args.name.clone() }.check().map_err(|e| Failure::usage(e.to_string()))?;
    let (identity, made) = node::prepare(context, None)?;
    let _lock = locked(context)?;
    fresh(context, Some(&ticket.founding))?;
    if identity.keypair.node_id() == ticket.founding.keeper {
        return Err(Failure::new("this node is the keeper of that cluster").code(ErrorCode::WrongState));
    }
    if made {
        output::note(format!("made a new node in {}", context.dir.display()));
    }
    output::note(format!("asking the keeper of `{}` to be let in …", ticket.founding.name));
    let joined = joining::redeem(&identity.keypair, &ticket, args.name).await;
    let list = joined.map_err(|e| {
        let code = match &e {
            joining::JoinError::Refused(_) => ErrorCode::Rejected,
            joining::JoinError::Unreachable { .. } => ErrorCode::Unreachable,
            joining::JoinError::Nonsense(_) | joining::JoinError::Network(_) => ErrorCode::Internal,
        };
        let failure = Failure::new(e.to_string()).code(code);
        match e.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let addresses: Vec<Multiaddr> = ticket.addresses.iter().filter_map(|a| a.parse().ok()).collect();
    acquaintances::add(&context.dir, ticket.founding.keeper, addresses)?;
    let name = list.member(&identity.keypair.node_id()).map(|m| m.name.clone()).unwrap_or_default();
    let members = list.members.len();
    ClusterFiles { list, key: ticket.key.clone() }.save(&context.dir)?;
    if context.json {
        output::json(&json!({
            "cluster": ticket.founding.name,
            "network_id": ticket.founding.network(),
            "node": identity.keypair.node_id(),
            "name": name,
            "members": members,
            "dir": context.dir,
        }))?;
        return Ok(0);
    }
    output::line(format!("joined `{}` as {name}; {members} members", ticket.founding.name))?;
    output::note("next: souk up -d (with --host to share this machine)");
    Ok(0)
}

async fn invite(context: &Context, args: InviteArgs) -> Result<u8, Failure> {
    let request = InviteRequest { uses: args.uses, valid_ms: args.expires.unwrap_or(EXPIRES), addresses: args.address };
    let made: InviteView = context.client()?.post("cluster/invite", &request).await?;
    if context.json {
        output::json(&made)?;
        return Ok(0);
    }
    output::line(&made.ticket)?;
    let nodes = if made.uses == 1 { "one node".to_owned() } else { format!("{} nodes", made.uses) };
    output::note(format!(
        "lets in {nodes}, until {}; there: souk cluster join TICKET",
        output::time(made.expires_at_ms)
    ));
    output::note(format!("it names this node at {}", made.addresses.join(", ")));
    Ok(0)
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<u8, Failure> {
    let question =
        format!("Put {} out of the cluster? Its connections and leases end now.", output::plain(&args.member));
    if !args.yes && !output::confirm(&question, false, false)? {
        return Err(Failure::new("nobody was removed").hint("souk cluster remove MEMBER -y"));
    }
    change(context, args.member, MemberChange::Remove).await
}

async fn change(context: &Context, member: String, change: MemberChange) -> Result<u8, Failure> {
    let request = MemberRequest { member, change };
    shown(context, &context.client()?.post("cluster/member", &request).await?)
}

fn shown(context: &Context, view: &ClusterView) -> Result<u8, Failure> {
    if context.json {
        output::json(view)?;
        return Ok(0);
    }
    let bound = |bound: Option<u32>| bound.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let columns = [
        ("NAME", Align::Left),
        ("NODE", Align::Left),
        ("IS", Align::Left),
        ("SLOTS", Align::Right),
        ("SLOT-HOURS", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for member in &view.members {
        let is = match (member.here, member.node == view.keeper, member.connected) {
            (true, true, _) => "this node, keeper",
            (true, false, _) => "this node",
            (false, true, true) => "keeper, connected",
            (false, true, false) => "keeper, away",
            (false, false, true) => "connected",
            (false, false, false) => "away",
        };
        table.row([
            member.name.clone(),
            member.node.to_string(),
            is.to_owned(),
            bound(member.quota.slots_at_once),
            bound(member.quota.slot_hours),
        ]);
    }
    output::line(table.text())?;
    let key = if view.has_key { "a shared key and the list" } else { "the list alone" };
    output::note(format!(
        "cluster `{}`, guarded by {key}; list {} of {}",
        view.name,
        view.list,
        output::time(view.issued_at_ms)
    ));
    for ticket in &view.tickets {
        output::note(format!(
            "a ticket is out: {} more, until {}",
            ticket.uses_left,
            output::time(ticket.expires_at_ms)
        ));
    }
    Ok(0)
}
