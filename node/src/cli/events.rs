//! `souk events`: what happened to a lease, or to all, and who caused it.

use serde::de::DeserializeOwned;
use souk_protocol::message::{Cause, EventCode};

use super::{
    Context,
    args::EventsArgs,
    error::Failure,
    output::{self, Align, Table},
    watch,
};
use crate::api::{
    client::{Client, escape},
    types::{EventView, HappenedView, LeaseDetail},
};

pub(super) async fn events(context: &Context, args: &EventsArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    match &args.id {
        Some(id) => of_one(context, &client, id, args).await,
        None => of_all(context, &client, args).await,
    }
}

async fn of_one(context: &Context, client: &Client, id: &str, args: &EventsArgs) -> Result<u8, Failure> {
    let path = format!("leases/{}/events", escape(id));
    let mut events: Vec<EventView> = client.get(&path).await?;
    let all = events.len();
    events.drain(..all.saturating_sub(args.limit as usize));
    if !args.follow {
        if context.json {
            output::json(&events)?;
        } else if events.is_empty() {
            output::line("nothing has happened yet")?;
        } else {
            output::line(table(&events))?;
        }
        return Ok(0);
    }
    if !context.json {
        output::line(one_line(["TIME", "STATE", "WHAT", "BY", "CODE", "NOTE"]))?;
    }
    // By its id from here on: a label may be given to another.
    let detail: LeaseDetail = client.get(&format!("leases/{}", escape(id))).await?;
    let path = format!("leases/{}/events", detail.view.lease);
    let mut seen = 0;
    loop {
        for event in events.iter().filter(|e| e.n > seen) {
            print(context, event, line)?;
        }
        seen = events.last().map_or(seen, |e| e.n.max(seen));
        let over = events.last().is_some_and(|e| e.state.is_ended());
        if over || !watch::pause().await {
            return Ok(0);
        }
        let Some(next) = again(client, &path).await? else { return Ok(0) };
        events = next;
    }
}

async fn of_all(context: &Context, client: &Client, args: &EventsArgs) -> Result<u8, Failure> {
    let mut events: Vec<HappenedView> = client.get(&format!("events?limit={}", args.limit)).await?;
    if !args.follow {
        if context.json {
            output::json(&events)?;
        } else if events.is_empty() {
            output::line("nothing has happened yet")?;
        } else {
            output::line(table_of_all(&events))?;
        }
        return Ok(0);
    }
    let with_lease = |lease: &str, rest: String| format!("{lease:<8}  {rest}");
    if !context.json {
        output::line(with_lease("LEASE", one_line(["TIME", "STATE", "WHAT", "BY", "CODE", "NOTE"])))?;
    }
    let mut seen = 0;
    loop {
        for event in &events {
            print(context, event, |e| with_lease(&e.number.to_string(), line(&e.event)))?;
        }
        seen = events.last().map_or(seen, |e| e.record.max(seen));
        if !watch::pause().await {
            return Ok(0);
        }
        let Some(next) = again(client, &format!("events?after={seen}&limit=1000")).await? else { return Ok(0) };
        events = next;
    }
}

/// Asks the node until it answers: what is asked for says where to go on, so its restarts lose nothing. None on Ctrl-C.
async fn again<T: DeserializeOwned>(client: &Client, path: &str) -> Result<Option<T>, Failure> {
    let mut told = false;
    loop {
        match client.get(path).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if error.passes() => {
                if !std::mem::replace(&mut told, true) {
                    output::note(output::plain(&format!("souk: {error}; waiting for it")));
                }
            }
            Err(error) => return Err(error.into()),
        }
        if !watch::pause().await {
            return Ok(None);
        }
    }
}

fn print<T: serde::Serialize>(context: &Context, event: &T, text: impl Fn(&T) -> String) -> Result<(), Failure> {
    if context.json { output::json_line(event) } else { output::line(output::plain(&text(event))) }
}

/// One lease's events.
pub(super) fn table(events: &[EventView]) -> String {
    let mut table = Table::new(&[
        ("#", Align::Right),
        ("TIME", Align::Left),
        ("STATE", Align::Left),
        ("WHAT", Align::Left),
        ("BY", Align::Left),
        ("CODE", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for event in events {
        let [time, state, what, by, code, note] = cells(event);
        table.row([event.n.to_string(), time, state, what, by, code, note]);
    }
    table.text()
}

fn table_of_all(events: &[HappenedView]) -> String {
    let mut table = Table::new(&[
        ("LEASE", Align::Right),
        ("LABEL", Align::Left),
        ("TIME", Align::Left),
        ("STATE", Align::Left),
        ("WHAT", Align::Left),
        ("BY", Align::Left),
        ("CODE", Align::Right),
        ("NOTE", Align::Left),
    ]);
    for event in events {
        let [time, state, what, by, code, note] = cells(&event.event);
        let label = output::cut(event.label.as_deref().unwrap_or("-"), 20);
        table.row([event.number.to_string(), label, time, state, what, by, code, note]);
    }
    table.text()
}

fn line(event: &EventView) -> String {
    one_line(cells(event).each_ref().map(String::as_str))
}

/// Columns of fixed width: those of later lines are not known.
fn one_line([time, state, what, by, code, note]: [&str; 6]) -> String {
    format!("{time:<20}  {state:<22}  {what:<16}  {by:<6}  {code:>4}  {note}").trim_end().to_owned()
}

fn cells(event: &EventView) -> [String; 6] {
    [
        output::time(event.at_ms),
        event.state.to_string(),
        // A change of state says so by itself.
        if event.what == EventCode::State { "-" } else { event.what.name() }.to_owned(),
        by(event.by).to_owned(),
        event.exit_code.map_or("-".to_owned(), |c| c.to_string()),
        event.note.clone(),
    ]
}

/// Who or what caused it, in a word.
const fn by(cause: Cause) -> &'static str {
    match cause {
        Cause::Host => "host",
        Cause::Renter => "renter",
        Cause::Guest => "guest",
        Cause::Engine => "engine",
        Cause::Market => "market",
        Cause::Clock => "clock",
    }
}
