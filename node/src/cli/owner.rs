//! `souk owner`: the owner's key, and which nodes belong to it.
//!
//! Making the key and signing need no running node; one that runs is told.

use serde_json::json;
use souk_protocol::{Keypair, Millis, Signed, owner::Membership};

use super::{
    Context,
    args::{OwnerCommand, SignArgs},
    error::Failure,
    output,
};
use crate::{
    api::{
        client::ClientError,
        types::{HostOrder, JoinRequest, MachineOrder, MachineResult, MachineView, OwnerView, RefreshRequest},
    },
    clock::now,
    market::ErrorCode,
    owner::{key, record::OwnerRecord},
};

pub(super) async fn owner(context: &Context, command: OwnerCommand) -> Result<u8, Failure> {
    match command {
        OwnerCommand::Init => init(context).await,
        OwnerCommand::Sign(args) => sign(context, &args).await,
        OwnerCommand::Show => shown(context, &context.client()?.get("owner").await?),
        OwnerCommand::Join(args) => {
            let request = JoinRequest { ticket: args.ticket };
            shown(context, &context.client()?.post("owner/join", &request).await?)
        }
        OwnerCommand::Leave => shown(context, &context.client()?.post("owner/leave", &json!({})).await?),
        OwnerCommand::Renew(args) => renew(context, args.life).await,
        OwnerCommand::Dismiss(args) => {
            let client = context.client()?;
            let request = MachineOrder { machine: args.node.to_string(), order: HostOrder::Leave };
            let results: Vec<MachineResult> = client.post("host/machines/order", &request).await?;
            let refresh = RefreshRequest { forget: vec![args.node], ..RefreshRequest::default() };
            let _: OwnerView = client.post("owner/refresh", &refresh).await?;
            super::machines::finished(context, &results)
        }
    }
}

/// A running node reads the key and the members again; there need not be one.
async fn tell(context: &Context, request: &RefreshRequest) -> Result<(), Failure> {
    match context.client()?.post::<OwnerView>("owner/refresh", request).await {
        Ok(_) | Err(ClientError::NotRunning { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn init(context: &Context) -> Result<u8, Failure> {
    super::node::prepare(context, None)?;
    let belongs = OwnerRecord::load(&context.dir)?.membership().ok().flatten();
    if key::load(&context.dir)?.is_none()
        && let Some(membership) = belongs
    {
        let network = context.config()?.network.id();
        let owner = membership.verify(&network).map(|m| m.owner.to_string()).unwrap_or_default();
        let message = format!("this node belongs to an owner whose key is elsewhere: {owner}");
        return Err(Failure::new(message).code(ErrorCode::WrongState).hint("souk owner leave"));
    }
    let (key, new) = key::create(&context.dir)?;
    tell(context, &RefreshRequest::default()).await?;
    let path = context.dir.join(key::FILE);
    if context.json {
        output::json(&json!({ "created": new, "owner": key::id_of(&key), "key": path }))?;
        return Ok(0);
    }
    if !new {
        output::note("there is an owner's key here already; nothing was overwritten");
    }
    output::line(output::pairs(&[("owner", key::id_of(&key).to_string()), ("key", path.display().to_string())]))?;
    Ok(0)
}

async fn sign(context: &Context, args: &SignArgs) -> Result<u8, Failure> {
    let key = key_here(context)?;
    let network = context.config()?.network.id();
    let life = args.life.unwrap_or(key::MEMBERSHIP);
    let member = key::sign(&key, &network, args.node, args.machine, life, now())
        .map_err(|e| Failure::usage(format!("that can't be signed: {e}")))?;
    let signed: Signed<Membership> = member.to_signed();
    let ticket = signed.to_ticket();
    tell(context, &RefreshRequest { tickets: vec![ticket.clone()], ..RefreshRequest::default() }).await?;
    if context.json {
        output::json(&json!({
            "ticket": ticket,
            "owner": member.owner,
            "node": member.node,
            "machine": member.machine,
            "valid_until_ms": member.valid_until,
        }))?;
        return Ok(0);
    }
    output::line(ticket)?;
    Ok(0)
}

fn key_here(context: &Context) -> Result<Keypair, Failure> {
    key::load(&context.dir)?.ok_or_else(|| {
        Failure::new(format!("there is no owner's key in {}", context.dir.display()))
            .code(ErrorCode::Unavailable)
            .hint("souk owner init, or run this where the key is")
    })
}

/// Each membership keeps its scope; so only those are renewed that are seen, in offers.
async fn renew(context: &Context, life: Option<Millis>) -> Result<u8, Failure> {
    let key = key_here(context)?;
    let network = context.config()?.network.id();
    let client = context.client()?;
    let machines: Vec<MachineView> = client.get("host/machines").await?;
    let mut results = Vec::new();
    for held in machines.iter().filter_map(|m| m.offer.as_ref()?.membership.as_ref()) {
        let life = life.unwrap_or(key::MEMBERSHIP);
        let renewed = key::sign(&key, &network, held.node, held.machine, life, now())
            .map_err(|e| Failure::usage(format!("that can't be signed: {e}")))?;
        let order = HostOrder::Join(JoinRequest { ticket: Some(renewed.to_signed().to_ticket()) });
        let request = MachineOrder { machine: held.node.to_string(), order };
        let answered: Vec<MachineResult> = client.post("host/machines/order", &request).await?;
        results.extend(answered);
    }
    if results.is_empty() {
        return Err(Failure::new("no machine of this owner is on the market, so none was renewed")
            .code(ErrorCode::NotFound)
            .hint("souk host machines; souk owner sign NODE"));
    }
    super::machines::finished(context, &results)
}

fn shown(context: &Context, view: &OwnerView) -> Result<u8, Failure> {
    if context.json {
        output::json(view)?;
        return Ok(0);
    }
    let owner = match (&view.owner, view.has_key) {
        (None, _) => "this node itself".to_owned(),
        (Some(owner), true) => format!("{owner}, whose key is here"),
        (Some(owner), false) => owner.to_string(),
    };
    let member = view.membership.as_ref().map_or_else(
        || "none; its offers are this node's own".to_owned(),
        |m| {
            let of = if m.machine.is_some() { "this machine" } else { "all machines of this node" };
            format!("{of}, until {}", output::time(m.valid_until_ms))
        },
    );
    output::line(output::pairs(&[("node", view.node.to_string()), ("owner", owner), ("membership", member)]))?;
    Ok(0)
}
