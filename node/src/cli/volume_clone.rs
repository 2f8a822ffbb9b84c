//! `souk volume clone`: another volume with the same files, on any machine.
//!
//! Owns no state: a clone that was cut off is found again by its name, and the copy goes on from what is there.

use serde_json::json;
use souk_protocol::lease::LeaseState;

use super::{
    Context,
    args::{CloneVolumeArgs, CreateVolumeArgs},
    copy::{self, Job, Place},
    copy_display::Display,
    error::Failure,
    output, rent, volume,
};
use crate::{
    api::{
        client::{Client, escape},
        types::{LeaseDetail, LeaseView, QuoteView},
    },
    market::ErrorCode,
};

pub(super) async fn clone(context: &Context, args: CloneVolumeArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let source = volume::detail(context, &args.volume).await?.view;
    if source.state.is_ended() {
        let why = format!("{} is over: there is nothing left to clone", output::plain(&args.volume));
        return Err(Failure::new(why).code(ErrorCode::WrongState));
    }
    let least = source.resources.disk_mb;
    if args.size.is_some_and(|size| size < least) {
        let has = output::megabytes(least);
        return Err(Failure::usage(format!("a clone can't be smaller than its volume, which has {has}")));
    }
    let name = args.name.clone().unwrap_or_else(|| format!("{}-clone", source.label.as_deref().unwrap_or("volume")));
    let target = match existing(&client, &name).await? {
        Some(found) => going_on(found, &source, args.size.unwrap_or(least), &args)?,
        None => match create(context, &client, &args, &name, least).await? {
            0 => client.get::<LeaseDetail>(&format!("leases/{}", escape(&name))).await?.view,
            code => return Ok(code),
        },
    };
    fill(context, &client, &source, &target, args.quiet).await
}

/// The open volume of this name.
async fn existing(client: &Client, name: &str) -> Result<Option<LeaseView>, Failure> {
    let leases: Vec<LeaseView> = client.get("leases?all=false").await?;
    Ok(leases.into_iter().find(|lease| lease.label.as_deref() == Some(name) && !lease.state.is_ended()))
}

/// Whether a volume that is there is to be filled, as after a copy that was cut off.
fn going_on(found: LeaseView, source: &LeaseView, size: u64, args: &CloneVolumeArgs) -> Result<LeaseView, Failure> {
    let name = output::plain(found.label.as_deref().unwrap_or_default());
    let other = "take another name for the clone with --name";
    let wrong = |why: String| Err(Failure::new(why).code(ErrorCode::WrongState).hint(other));
    if found.lease == source.lease || !found.is_volume() {
        return wrong(format!("there is a lease named {name} already"));
    }
    if found.state != LeaseState::Kept {
        return wrong(format!("there is a volume named {name} already, and it is {}", found.state));
    }
    if found.resources.disk_mb < size {
        let has = output::megabytes(found.resources.disk_mb);
        return wrong(format!("there is a volume named {name} already, and with {has} it is too small"));
    }
    output::note(format!("there is a volume {name} at {} already; the files are completed there", found.peer.short()));
    if !args.yes && !output::confirm("Write to it?", true, true)? {
        return Err(Failure::new("nothing was copied"));
    }
    Ok(found)
}

async fn create(
    context: &Context,
    client: &Client,
    args: &CloneVolumeArgs,
    name: &str,
    least: u64,
) -> Result<u8, Failure> {
    let request = volume::request(CreateVolumeArgs {
        name: name.to_owned(),
        ask: args.ask.clone(),
        size: args.size.unwrap_or(least),
        term: args.term,
        extend: args.extend,
        max_spend: args.max_spend,
        tick: args.tick,
        yes: args.yes,
    });
    let quote: QuoteView = client.post("quote", &request).await?;
    if !context.json {
        output::note(volume::describe(&quote));
    }
    if !args.yes && !output::confirm("Create it and copy the files?", true, true)? {
        return Err(Failure::new("no volume was created"));
    }
    rent::follow(context, client, &request, None).await
}

/// Copies all files; a second run only what the first did not bring over.
async fn fill(
    context: &Context,
    client: &Client,
    source: &LeaseView,
    target: &LeaseView,
    quiet: bool,
) -> Result<u8, Failure> {
    let whole = |lease: &LeaseView| Place::There { id: lease.lease.to_string(), path: b"/".to_vec() };
    let job = Job {
        from: whole(source),
        to: whole(target),
        name: Vec::new(),
        excludes: Vec::new(),
        user: None,
        limits: copy::LIMITS,
    };
    let copied = tokio::select! {
        copied = copy::run(client, job, Display::new(quiet || context.json)) => copied?,
        _ = tokio::signal::ctrl_c() => {
            output::note("interrupted; the same command goes on where this one stopped");
            return Ok(130);
        }
    };
    if context.json {
        output::json_line(&json!({
            "lease": target.lease,
            "number": target.number,
            "entries": copied.entries,
            "unchanged": copied.unchanged,
            "bytes": copied.bytes,
            "moved_bytes": copied.moved,
            "problems": copied.problems,
        }))?;
    }
    Ok(u8::from(copied.problems > 0))
}
