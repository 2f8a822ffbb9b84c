//! `souk ps`, `show`, `stop`, `start`, `destroy`, `label`.

use std::io::IsTerminal;

use serde_json::json;
use souk_protocol::{
    lease::LeaseState,
    ports::{PublicAccess, PublicPort},
    resources::SlotClass,
};

use super::{
    Context,
    args::{DestroyArgs, LabelArgs, PsArgs},
    error::Failure,
    events,
    output::{self, Align, Table},
    terms, watch,
};
use crate::api::{
    client::escape,
    types::{LabelRequest, LeaseDetail, LeaseView, Role},
};

pub(super) async fn ps(context: &Context, args: &PsArgs) -> Result<u8, Failure> {
    let mut path = format!("leases?all={}", args.all);
    if args.all {
        path.push_str(&format!("&limit={}", args.limit));
        path.extend(args.before.map(|number| format!("&before={number}")));
    }
    watch::show(context, args.watch, &path, |leases: &Vec<LeaseView>| list(leases, args)).await
}

fn list(leases: &[LeaseView], args: &PsArgs) -> String {
    if leases.is_empty() {
        return if args.all { "no leases".to_owned() } else { "no open leases (-a shows ended ones)".to_owned() };
    }
    let mut table = Table::new(&[
        ("#", Align::Right),
        ("LEASE", Align::Left),
        ("LABEL", Align::Left),
        ("ROLE", Align::Left),
        ("TYPE", Align::Left),
        ("PEER", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("IMAGE", Align::Left),
        ("GRANT", Align::Left),
        ("$/h", Align::Right),
        ("DUE", Align::Right),
        ("ACKED", Align::Right),
        ("", Align::Left),
    ]);
    for lease in leases {
        table.row([
            lease.number.to_string(),
            lease.lease.short(),
            output::cut(&name(lease), 20),
            role(lease.role).to_owned(),
            if lease.is_volume() { "volume" } else { lease.rental.name() }.to_owned(),
            lease.peer.short(),
            state(lease),
            output::ago(lease.since_ms).to_string(),
            output::cut(&lease.image, 32),
            grant(lease),
            output::amount(lease.price_hour, 4),
            output::money(lease.due, &lease.currency, 6),
            output::money(lease.acked, &lease.currency, 6),
            remark(lease),
        ]);
    }
    let mut text = table.text();
    let oldest = leases.first().map_or(0, |l| l.number);
    if args.all && leases.len() >= args.limit as usize && oldest > 1 {
        text.push_str(&format!("\nolder ones: souk ps -a --before {oldest}"));
    }
    text
}

/// What a person should know beyond the state.
fn remark(lease: &LeaseView) -> String {
    let mut remarks = Vec::new();
    if let Some(eviction) = &lease.eviction {
        remarks.push(format!("stopped for others in {}", output::ago(eviction.at_ms)));
    }
    if let Some(place) = &lease.place {
        remarks.push(terms::place(place, &lease.currency));
    }
    if !lease.reachable && !lease.state.is_ended() {
        remarks.push("peer away".to_owned());
    }
    remarks.join(", ")
}

pub(super) const fn role(role: Role) -> &'static str {
    match role {
        Role::Renter => "renter",
        Role::Host => "host",
    }
}

/// The state's words, with the exit code or progress where they say more.
pub(super) fn state(lease: &LeaseView) -> String {
    match (lease.state, lease.exit_code, lease.progress) {
        (LeaseState::Preparing, _, Some(p)) if p.bytes > 0 => {
            let percent = u128::from(p.bytes_done.min(p.bytes)) * 100 / u128::from(p.bytes);
            format!("preparing {percent}%")
        }
        (LeaseState::Paused(_) | LeaseState::Ended(_), Some(code), _) => {
            format!("{} code {code}", lease.state)
        }
        _ => lease.state.to_string(),
    }
}

pub(super) fn grant(lease: &LeaseView) -> String {
    if lease.is_volume() {
        return output::megabytes(lease.resources.disk_mb);
    }
    match &lease.resources.class {
        SlotClass::Gpu(model) => format!("{} x{}", output::cut(model, 20), lease.resources.slots),
        SlotClass::Cpu => format!("{} CPU", output::threads(lease.resources.cpu_milli)),
    }
}

pub(super) async fn show(context: &Context, id: &str) -> Result<u8, Failure> {
    let detail: LeaseDetail = context.client()?.get(&format!("leases/{}", escape(id))).await?;
    if context.json {
        output::json(&detail)?;
    } else {
        output::line(describe(&detail))?;
    }
    Ok(0)
}

/// Where its ports are reached from outside.
pub(super) fn public(access: &PublicAccess) -> String {
    let colons = access.address.parse::<std::net::Ipv6Addr>().is_ok();
    let address = if colons { format!("[{}]", access.address) } else { access.address.clone() };
    let port = |p: &PublicPort| format!("{address}:{} -> {}{}", p.public, p.port, if p.udp { "/udp" } else { "" });
    access.ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

fn describe(detail: &LeaseDetail) -> String {
    let view = &detail.view;
    let money = |amount| output::money(amount, &view.currency, 9);
    let r = &view.resources;
    let rates = &detail.rates;
    let link = match (view.reachable, view.relayed, view.state.is_ended()) {
        (_, _, true) => "",
        (false, ..) => " (away)",
        (true, true, _) => " (through a relay)",
        (true, false, _) => " (direct)",
    };
    let mut pairs = vec![
        ("lease", format!("{} (number {})", view.lease, view.number)),
        ("label", view.label.clone().unwrap_or_default()),
        ("calls itself", view.label_inside.clone().unwrap_or_default()),
        ("state", state(view)),
        ("since", since(view.since_ms)),
        ("note", view.note.clone()),
        ("role", role(view.role).to_owned()),
        ("peer", format!("{}{link}", view.peer)),
        ("machine", detail.machine.to_string()),
        ("image", view.image.clone()),
        ("digest", detail.image_digest.clone()),
        ("command", view.command.clone()),
        (
            "granted",
            format!(
                "{}, {} threads, {} memory, {} disk, egress {}",
                grant(view),
                output::threads(r.cpu_milli),
                output::megabytes(r.ram_mb),
                output::megabytes(r.disk_mb),
                match detail.egress {
                    souk_protocol::resources::Egress::None => "none",
                    souk_protocol::resources::Egress::Internet => "internet",
                    souk_protocol::resources::Egress::Full => "full",
                }
            ),
        ),
        ("devices", detail.devices.join(", ")),
        ("public", view.public.as_ref().map(public).unwrap_or_default()),
        ("starts", detail.starts.to_string()),
        ("uptime", view.uptime_ms.to_string()),
        ("drafted", time(detail.drafted_at_ms)),
        ("ends", time(view.ends_at_ms)),
        ("price", format!("{}/h", money(rates.compute_hour))),
        ("disk price", format!("{}/GB/month", money(rates.storage_gb_month))),
        ("traffic", format!("{}/GB out, {}/GB in", money(rates.up_gb), money(rates.down_gb))),
        ("due", money(view.due)),
        ("acknowledged", money(view.acked)),
        ("credit", money(detail.credit)),
        ("at most", detail.max_spend.map(money).unwrap_or_default()),
        ("receipts", format!("every {}", detail.tick_ms)),
    ];
    if let Some(silent) = detail.silent_ms.filter(|silent| silent.0 > 0) {
        pairs.push(("not answered", format!("for {silent} of its running time, by this node's own meter")));
    }
    if let Some(receipt) = &detail.receipt {
        let c = &receipt.counters;
        pairs.push((
            "used",
            format!(
                "{} running, {} paused, {} disk time, {} in, {} out",
                c.active_ms,
                c.paused_ms,
                c.storage_ms,
                output::bytes(c.rx_bytes),
                output::bytes(c.tx_bytes)
            ),
        ));
    }
    pairs.extend(terms::lines(detail));
    let mut text = output::pairs(&pairs);
    if !detail.events.is_empty() {
        text.push_str("\n\n");
        text.push_str(&events::table(&detail.events));
    }
    text
}

fn time(at: souk_protocol::Timestamp) -> String {
    output::time(at)
}

fn since(at: souk_protocol::Timestamp) -> String {
    format!("{} ({} ago)", output::time(at), output::ago(at))
}

/// Does one thing to each; goes on after a failure, and fails if any did.
pub(super) async fn control(context: &Context, ids: &[String], what: &str) -> Result<u8, Failure> {
    let client = context.client()?;
    let mut done = Vec::new();
    let mut failed = None;
    for id in ids {
        let path = format!("leases/{}/{what}", escape(id));
        match client.post::<LeaseView>(&path, &json!({})).await {
            Ok(lease) => {
                if !context.json {
                    let label = lease.label.as_deref().unwrap_or_default();
                    let name = format!("{} {} {label}", lease.number, lease.lease.short());
                    output::line(format!("{}: {}", output::plain(name.trim()), state(&lease)))?;
                }
                done.push(lease);
            }
            Err(error) => {
                let failure = Failure::from(error);
                if let Some(text) = failed.replace(failure).and_then(|f: Failure| f.text(context.json)) {
                    output::note(text);
                }
            }
        }
    }
    if context.json && !(done.is_empty() && failed.is_some()) {
        output::json(&done)?;
    }
    failed.map_or(Ok(0), Err)
}

pub(super) async fn destroy(context: &Context, args: &DestroyArgs) -> Result<u8, Failure> {
    if !args.yes {
        let client = context.client()?;
        for id in &args.ids {
            let detail: LeaseDetail = client.get(&format!("leases/{}", escape(id))).await?;
            let view = &detail.view;
            output::note(output::plain(&format!(
                "{} {} {} {}",
                view.number,
                view.lease.short(),
                view.image,
                state(view)
            )));
        }
        let question = match args.ids.as_slice() {
            [_] => "Destroy it, with its disk?".to_owned(),
            many => format!("Destroy these {}, with their disks?", many.len()),
        };
        let asked = std::io::stdin().is_terminal();
        if !output::confirm(&question, false, false)? {
            return Err(if asked {
                Failure::new("nothing was destroyed")
            } else {
                Failure::usage("destroy asks first, and there is no terminal to ask on").hint("souk destroy -y …")
            });
        }
    }
    control(context, &args.ids, "destroy").await
}

/// The renter's name for it, else what it calls itself, in brackets: that names nothing for commands.
fn name(lease: &LeaseView) -> String {
    match (&lease.label, &lease.label_inside) {
        (Some(label), _) => label.clone(),
        (None, Some(inside)) => format!("({inside})"),
        (None, None) => "-".to_owned(),
    }
}

pub(super) async fn label(context: &Context, args: LabelArgs) -> Result<u8, Failure> {
    let path = format!("leases/{}/label", escape(&args.id));
    let request = LabelRequest { text: args.text };
    let lease: LeaseView = context.client()?.post(&path, &request).await?;
    if context.json {
        output::json(&lease)?;
    } else {
        let label = lease.label.as_deref().unwrap_or("without a label");
        output::line(output::plain(&format!("{} {}: {label}", lease.number, lease.lease.short())))?;
    }
    Ok(0)
}
