//! `souk volume`: disk that outlives instances.

use souk_protocol::lease::LeaseState;

use super::{
    Context,
    args::{CreateVolumeArgs, DeleteVolumeArgs, DestroyArgs, VolumeCommand},
    error::Failure,
    leases,
    output::{self, Align, Table, money},
    rent, volume_clone,
};
use crate::{
    api::{
        client::escape,
        types::{Environment, LeaseDetail, LeaseView, QuoteView, RentRequest, RentalKind},
    },
    market::{ErrorCode, command::AskSelector},
};

pub(super) async fn volume(context: &Context, command: VolumeCommand) -> Result<u8, Failure> {
    match command {
        VolumeCommand::Create(args) => create(context, args).await,
        VolumeCommand::List { all } => list(context, all).await,
        VolumeCommand::Show { volume } => {
            detail(context, &volume).await?;
            leases::show(context, &volume).await
        }
        VolumeCommand::Clone(args) => volume_clone::clone(context, args).await,
        VolumeCommand::Delete(args) => delete(context, args).await,
    }
}

pub(super) fn request(args: CreateVolumeArgs) -> RentRequest {
    RentRequest {
        ask: AskSelector(args.ask),
        image: souk_protocol::negotiation::NO_IMAGE.to_owned(),
        rental: Some(RentalKind::OnDemand),
        extend_ms: args.extend,
        price_hour: None,
        max_price_hour: None,
        disk_mb: Some(args.size),
        env: Environment::default(),
        user: None,
        entrypoint: None,
        workdir: None,
        egress: None,
        term_ms: args.term,
        max_spend: args.max_spend,
        prepay_ms: None,
        label: Some(args.name),
        tick_ms: args.tick,
        command: None,
        ports: Vec::new(),
        ssh_keys: Vec::new(),
        onstart: None,
        login: None,
        like: None,
        jupyter: false,
        detach: false,
        volume: true,
        volumes: Vec::new(),
    }
}

async fn create(context: &Context, args: CreateVolumeArgs) -> Result<u8, Failure> {
    let yes = args.yes;
    let request = request(args);
    let client = context.client()?;
    let quote: QuoteView = client.post("quote", &request).await?;
    if !context.json {
        output::note(describe(&quote));
    }
    if !yes && !output::confirm("Create it?", true, true)? {
        return Err(Failure::new("no volume was created"));
    }
    rent::follow(context, &client, &request, None).await
}

/// What it costs, before it is created.
pub(super) fn describe(quote: &QuoteView) -> String {
    let price = |amount, decimals| money(amount, &quote.currency, decimals);
    let mut lines = vec![
        format!("a volume of {} at {}", output::megabytes(quote.resources.disk_mb), quote.host.short()),
        format!("{} per month, {}/h", price(quote.storage_month, 4), price(quote.storage_hour, 6)),
    ];
    let limited = if quote.max_spend == Some(quote.ceiling) { ", the limit in the lease" } else { "" };
    let until = output::time(quote.ends_at_ms);
    lines
        .push(format!("at most {} until {until} and the 48 h it is kept after that{limited}", price(quote.ceiling, 4)));
    lines.iter().map(|line| output::plain(line)).collect::<Vec<_>>().join("\n")
}

async fn list(context: &Context, all: bool) -> Result<u8, Failure> {
    let mut volumes: Vec<LeaseView> = context.client()?.get(&format!("leases?all={all}")).await?;
    volumes.retain(LeaseView::is_volume);
    if context.json {
        output::json(&volumes)?;
        return Ok(0);
    }
    if volumes.is_empty() {
        output::line(if all { "no volumes" } else { "no volumes (-a shows those that are over)" })?;
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("#", Align::Right),
        ("NAME", Align::Left),
        ("LEASE", Align::Left),
        ("ROLE", Align::Left),
        ("PEER", Align::Left),
        ("SIZE", Align::Right),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("ENDS", Align::Left),
        ("DUE", Align::Right),
    ]);
    for volume in &volumes {
        table.row([
            volume.number.to_string(),
            output::cut(volume.label.as_deref().unwrap_or("-"), 20),
            volume.lease.short(),
            leases::role(volume.role).to_owned(),
            volume.peer.short(),
            output::megabytes(volume.resources.disk_mb),
            leases::state(volume),
            output::ago(volume.since_ms).to_string(),
            output::time(volume.ends_at_ms),
            money(volume.due, &volume.currency, 6),
        ]);
    }
    output::line(table.text())?;
    Ok(0)
}

/// A volume; another lease of that name is an error.
pub(super) async fn detail(context: &Context, name: &str) -> Result<LeaseDetail, Failure> {
    let detail: LeaseDetail = context.client()?.get(&format!("leases/{}", escape(name))).await?;
    if detail.view.is_volume() {
        return Ok(detail);
    }
    Err(Failure::new(format!("{} is an instance, not a volume", output::plain(name)))
        .code(ErrorCode::WrongState)
        .hint("souk volume list shows volumes"))
}

async fn delete(context: &Context, args: DeleteVolumeArgs) -> Result<u8, Failure> {
    for name in &args.volumes {
        let found = detail(context, name).await?;
        if let LeaseState::Ended(_) = found.view.state {
            return Err(Failure::new(format!("{} is over already", output::plain(name))).code(ErrorCode::WrongState));
        }
    }
    leases::destroy(context, &DestroyArgs { ids: args.volumes, yes: args.yes }).await
}
