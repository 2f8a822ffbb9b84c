//! `souk rent`: what it can cost, then each step until it runs.

use futures::{FutureExt as _, future::OptionFuture};
use souk_protocol::{
    Amount,
    lease::{EndReason, LeaseState},
    resources::SlotClass,
};

use super::{
    Context,
    args::{RentArgs, RentalArg, RunArgs},
    error::Failure,
    leases, onstart, orders,
    output::{self, Align, Table, money},
    progress::Display,
    push::Pushed,
    search, ssh_keys, template, terms,
};
use crate::{
    api::{
        client::Client,
        types::{Environment, LeaseView, QuoteView, RentRequest, RentStep, RentalKind, SlicesRequest, SlicesView},
    },
    host::instances::IDENTITY,
    market::{ErrorCode, command::AskSelector},
    template::Template,
};

/// Interrupted, as shells count it.
const INTERRUPTED: u8 = 130;

pub(super) async fn rent(context: &Context, mut args: RentArgs) -> Result<u8, Failure> {
    let template = template::named(context, args.template.as_deref())?;
    if let Some(template) = &template {
        template::aim(&mut args, template);
    }
    if args.ask.is_none() && args.standing.query.is_none() {
        return Err(Failure::usage("which machine is to be rented?")
            .hint("souk rent ASK …, by a row of the last search; or souk rent --query QUERY … for the best match"));
    }
    if let Some(template) = &template {
        template::announce(context, template);
    }
    if args.standing.is_order() {
        if args.image_access.push {
            return Err(Failure::usage(
                "an image can't be pushed for a standing order: nobody may be there to send it",
            )
            .hint("leave --wait and --failover away, or use an image of a registry"));
        }
        return orders::place(context, args, template.as_ref()).await;
    }
    let yes = args.yes;
    let push = args.image_access.push;
    let mut request = request(args, template.as_ref())?;
    if request.image.is_empty() {
        return Err(no_image());
    }
    let pushed = if push { Some(Pushed::find(&request.image).await?) } else { None };
    if let Some(pushed) = &pushed {
        request.image = pushed.reference();
    }
    let client = context.client()?;
    let quote: QuoteView = client.post("quote", &request).await?;
    if !context.json {
        output::note(describe(&quote));
        if request.rental == Some(RentalKind::Bid) {
            output::note(wins(&client, &quote).await);
        }
    }
    if let Some(host) = &quote.avoided {
        output::note(format!("warning: {}", search::avoided_host(host)));
    }
    if !yes && !output::confirm("Rent it?", true, true)? {
        return Err(Failure::new("nothing was rented"));
    }
    follow(context, &client, &request, pushed).await
}

/// Rents it, and shows each step; sends the image that is pushed, if one is.
pub(super) async fn follow(
    context: &Context,
    client: &Client,
    request: &RentRequest,
    pushed: Option<Pushed>,
) -> Result<u8, Failure> {
    let mut steps = client.lines("rent", request).await?;
    let mut display = Display::new();
    let mut accepted = None;
    let mut sending = OptionFuture::from(None);
    let jupyter = request.jupyter && !request.detach;
    loop {
        let step = tokio::select! {
            step = steps.next::<RentStep>() => step?,
            Some(sent) = &mut sending => {
                sent?;
                sending = OptionFuture::from(None);
                continue;
            }
            _ = tokio::signal::ctrl_c() => {
                display.end();
                return Ok(interrupted(accepted));
            }
        };
        let Some(step) = step else {
            display.end();
            if let Some(sent) = sending.await {
                // Its steps ended where the lease was made; the image is still on its way.
                sent?;
            }
            return match (finished(accepted)?, accepted) {
                (_, Some(number)) if jupyter => jupyter_ready(context, client, number).await,
                (code, _) => Ok(code),
            };
        };
        if let RentStep::Accepted { number, lease } = &step {
            accepted = Some(*number);
            let (client, lease) = (client.clone(), lease.to_string());
            let work = pushed.clone().map(|pushed| async move { pushed.to(&client, &lease, |_| {}).await }.boxed());
            sending = OptionFuture::from(work);
        }
        if context.json {
            output::json_line(&step)?;
            end(step)?;
        } else {
            show(&mut display, step)?;
        }
    }
}

/// What a bid has to be to run now, by the host's word.
async fn wins(client: &Client, quote: &QuoteView) -> String {
    let request = SlicesRequest { of: quote.ask.to_string() };
    let told: SlicesView = match client.post("quote/slices", &request).await {
        Ok(told) => told,
        Err(error) => return output::plain(&format!("whether it runs at once is not known: {error}")),
    };
    let price = |amount| money(amount, &quote.currency, 6);
    match told.slices.iter().find(|slice| slice.ask == quote.ask).map(|slice| slice.to_win) {
        Some(Some(least)) if quote.price_hour >= least => format!("runs at once: {}/h wins now", price(least)),
        Some(Some(least)) => format!("waits, without costs but for its disk: {}/h wins now", price(least)),
        Some(None) | None => "waits, without costs but for its disk: no bid wins now".to_owned(),
    }
}

/// Why it waits, and for what.
fn waiting(lease: &LeaseView) -> String {
    match &lease.place {
        Some(place) => terms::place(place, &lease.currency),
        None if lease.note.is_empty() => lease.state.to_string(),
        None => lease.note.clone(),
    }
}

/// Waits for the page that was rented.
async fn jupyter_ready(context: &Context, client: &Client, number: u64) -> Result<u8, Failure> {
    let ready = super::jupyter::ready(context, client, &number.to_string()).await?;
    if context.json {
        output::json_line(&serde_json::json!({ "step": "jupyter", "lease": ready.access.lease }))?;
    } else {
        output::note(format!("Jupyter answers: souk open {number}"));
    }
    Ok(0)
}

fn interrupted(accepted: Option<u64>) -> u8 {
    output::note(match accepted {
        Some(n) => format!("the lease goes on: souk show {n}, souk destroy {n}"),
        None => "stopped before there was a lease, unless it was being signed: souk ps".to_owned(),
    });
    INTERRUPTED
}

fn finished(accepted: Option<u64>) -> Result<u8, Failure> {
    if accepted.is_some() {
        Ok(0)
    } else {
        Err(Failure::new("the node stopped telling how the rental goes").code(ErrorCode::Unreachable).hint("souk ps"))
    }
}

/// Nothing says what is to run.
pub(super) fn no_image() -> Failure {
    Failure::usage("which image is to run?").hint("--image IMAGE, or --template TEMPLATE")
}

/// What the arguments say, completed by a template.
pub(super) fn request(args: RentArgs, template: Option<&Template>) -> Result<RentRequest, Failure> {
    let rental = match (args.rental, args.bid) {
        (Some(RentalArg::OnDemand | RentalArg::Reserved), Some(_)) => {
            return Err(Failure::usage("only a rental of type bid takes a bid").hint("--price AMOUNT proposes a price"));
        }
        (rental, None) => rental.map(RentalKind::from),
        (_, Some(_)) => Some(RentalKind::Bid),
    };
    let mut request = RentRequest {
        ask: AskSelector(args.ask.unwrap_or_default()),
        image: args.image.unwrap_or_default(),
        rental,
        extend_ms: args.extend,
        price_hour: args.bid.or(args.price),
        max_price_hour: args.max_price,
        disk_mb: args.disk.map(|gb| gb.saturating_mul(1000)),
        env: environment(&args.env)?,
        user: args.user,
        entrypoint: args.entrypoint.map(|program| vec![program]),
        workdir: args.workdir,
        egress: args.egress.map(Into::into),
        ports: args.ports,
        term_ms: args.term,
        max_spend: args.max_spend,
        prepay_ms: args.prepay,
        onstart: onstart::script(args.onstart.as_deref(), args.onstart_cmd)?,
        label: args.label,
        ssh_keys: ssh_keys::lines(&args.ssh_key)?,
        tick_ms: args.tick,
        command: Some(args.command).filter(|c| !c.is_empty()),
        like: None,
        login: args.image_access.login()?,
        jupyter: args.jupyter,
        detach: args.detach,
        volume: false,
        volumes: args.volume,
    };
    if let Some(template) = template {
        template::complete(&mut request, template)?;
    }
    Ok(request)
}

/// The rental of a run: an instance that only waits for commands.
pub(super) fn run_request(args: &RunArgs) -> Result<RentRequest, Failure> {
    Ok(RentRequest {
        ask: AskSelector(String::new()),
        image: args.image.clone().unwrap_or_default(),
        rental: None,
        extend_ms: None,
        price_hour: None,
        max_price_hour: args.max_price,
        disk_mb: args.disk.map(|gb| gb.saturating_mul(1000)),
        env: environment(&args.env)?,
        user: args.user.clone(),
        // Neither the image's entrypoint nor its command.
        entrypoint: Some(Vec::new()),
        workdir: args.workdir.clone(),
        egress: args.egress.map(Into::into),
        ports: Vec::new(),
        term_ms: Some(args.term),
        max_spend: args.max_spend,
        prepay_ms: None,
        label: None,
        ssh_keys: Vec::new(),
        tick_ms: None,
        onstart: None,
        command: None,
        like: None,
        login: args.image_access.login()?,
        jupyter: false,
        detach: false,
        volume: false,
        volumes: Vec::new(),
    })
}

/// `K=V`, or `K` for this process's own value.
pub(super) fn environment(given: &[String]) -> Result<Environment, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("`{text}` names no variable"))),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => Ok((text.clone(), value)),
            Err(_) => {
                Err(Failure::usage(format!("the variable {text} is not set here")).hint(format!("--env {text}=VALUE")))
            }
        },
    };
    let pairs: Vec<(String, String)> = given.iter().map(pair).collect::<Result<_, _>>()?;
    if let Some((name, _)) = pairs.iter().find(|(name, _)| IDENTITY.contains(&name.as_str())) {
        return Err(Failure::usage(format!("{name} says which instance it is, and is set by its host")));
    }
    Ok(Environment(pairs))
}

pub(super) fn describe(quote: &QuoteView) -> String {
    let currency = &quote.currency;
    let r = &quote.resources;
    let what = match &r.class {
        SlotClass::Gpu(model) => format!("{model} x{}, ", r.slots),
        SlotClass::Cpu => String::new(),
    };
    let mut lines = vec![format!(
        "{} of {}: {what}{} threads, {} memory, {} disk",
        quote.ask.short(),
        quote.host.short(),
        output::threads(r.cpu_milli),
        output::megabytes(r.ram_mb),
        output::megabytes(r.disk_mb)
    )];
    let mut price = format!("bid {}/h", money(quote.price_hour, currency, 6));
    if quote.listed_hour != quote.price_hour {
        price.push_str(&format!(" (the host asks {})", money(quote.listed_hour, currency, 6)));
    }
    if quote.max_price_hour > quote.price_hour {
        price.push_str(&format!(", counter-offers up to {} taken", money(quote.max_price_hour, currency, 6)));
    }
    lines.push(price);
    let costs = costs(quote);
    let traffic = quote.up_gb > Amount::ZERO || quote.down_gb > Amount::ZERO;
    if traffic {
        lines.push(format!(
            "traffic {}/GB out, {}/GB in",
            money(quote.up_gb, currency, 6),
            money(quote.down_gb, currency, 6)
        ));
    }
    let until = format!("until {} and its disk's last day", output::time(quote.ends_at_ms));
    let mut most = format!("at most {} {until}", money(quote.ceiling, currency, 4));
    if quote.max_spend == Some(quote.ceiling) {
        most.push_str(", the limit in the lease");
    }
    if quote.traffic_extra {
        most.push_str(", plus traffic (--max-spend M sets a limit for all of it)");
    }
    if let Some(after) = quote.ceiling_after_ms {
        let after = humantime::format_duration(std::time::Duration::from_secs(after.0 / 1000));
        most.push_str(&format!("; the limit stops it after {after} of running"));
    }
    lines.push(most);
    let clean: Vec<String> = lines.iter().map(|line| output::plain(line)).collect();
    let (head, rest) = clean.split_at(2);
    format!("{}\n{costs}\n{}", head.join("\n"), rest.join("\n"))
}

/// What each part costs by the hour, by the month and to the end.
fn costs(quote: &QuoteView) -> String {
    let money = |amount, decimals| money(amount, &quote.currency, decimals);
    let none = || "-".to_owned();
    let mut table = Table::new(&[
        ("", Align::Left),
        ("PER HOUR", Align::Right),
        ("PER MONTH", Align::Right),
        ("TO THE END", Align::Right),
    ]);
    let hour = quote.max_price_hour.min(quote.listed_hour.max(quote.price_hour));
    table.row(["compute, at most".to_owned(), money(hour, 6), none(), money(quote.compute, 4)]);
    let disk = format!("disk, {}", output::megabytes(quote.resources.disk_mb));
    table.row([disk, money(quote.storage_hour, 6), money(quote.storage_month, 4), money(quote.storage, 4)]);
    table.row(["disk for 48 h after the end".to_owned(), none(), none(), money(quote.disk_kept, 4)]);
    table.text()
}

fn show(display: &mut Display, step: RentStep) -> Result<(), Failure> {
    match step {
        RentStep::Resolving { host, image, .. } => {
            display.step(&format!("asking {} to run {image}", host.short()));
        }
        RentStep::Proposed { price_hour, currency, .. } => {
            display.step(&format!("proposed {}/h", money(price_hour, &currency, 6)));
        }
        RentStep::Countered { price_hour, currency, .. } => {
            display.step(&format!("host asks for {}/h", money(price_hour, &currency, 6)));
        }
        RentStep::Drafted { lease, price_hour, currency, ends_at_ms, .. } => {
            display.step(&format!(
                "drafted {} at {}/h until {}",
                lease.short(),
                money(price_hour, &currency, 6),
                output::time(ends_at_ms)
            ));
        }
        RentStep::Committed { lease } => {
            display.step(&format!("signed and sent {}", lease.short()));
        }
        RentStep::Accepted { lease, number } => {
            display.step(&format!("accepted: lease {number}"));
            output::line(lease.to_string())?;
        }
        RentStep::Preparing { progress } => display.preparing(progress),
        RentStep::Waiting { lease } => display.step(&format!("waiting: {}", waiting(&lease))),
        RentStep::Running { lease } | RentStep::Exited { lease } => last(display, &lease),
        step @ (RentStep::Ended { .. } | RentStep::Failed { .. }) => {
            display.end();
            return end(step);
        }
    }
    Ok(())
}

/// Fails for a step that says it has failed.
fn end(step: RentStep) -> Result<(), Failure> {
    match step {
        RentStep::Failed { error } => Err(error.into()),
        RentStep::Ended { lease } if lease.state == LeaseState::Ended(EndReason::Unconfirmed) => {
            let why = format!("the host did not take it: {}", lease.note);
            Err(Failure::new(why).code(ErrorCode::Rejected).hint(format!("souk events {}", lease.number)))
        }
        RentStep::Ended { lease } => {
            let mut why = format!("the lease is over: {}", lease.state);
            if !lease.note.is_empty() {
                why.push_str(&format!(", {}", lease.note));
            }
            Err(Failure::new(why).code(ErrorCode::WrongState).hint(format!("souk events {}", lease.number)))
        }
        RentStep::Resolving { .. }
        | RentStep::Proposed { .. }
        | RentStep::Countered { .. }
        | RentStep::Drafted { .. }
        | RentStep::Committed { .. }
        | RentStep::Accepted { .. }
        | RentStep::Preparing { .. }
        | RentStep::Waiting { .. }
        | RentStep::Running { .. }
        | RentStep::Exited { .. } => Ok(()),
    }
}

fn last(display: &mut Display, lease: &LeaseView) {
    if lease.is_volume() {
        let name = lease.label.as_deref().unwrap_or_default();
        return display.step(&format!("kept: attach it with --volume {name}:/path; souk volume delete {name}"));
    }
    display.step(&format!(
        "{}: souk logs {n}, souk exec {n} -- CMD, souk destroy {n}",
        leases::state(lease),
        n = lease.number
    ));
}
