//! `souk hook`: who hears of what happens at this node.

use serde_json::json;

use super::{
    Context,
    args::{HookAddArgs, HookCommand, HookLogArgs},
    error::Failure,
    output::{self, Align, Table},
};
use crate::api::{
    client::{Client, escape},
    types::{HookDelivery, HookRequest, HookView, HooksView},
};

pub(super) async fn hook(context: &Context, command: HookCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    match command {
        HookCommand::Add(args) => add(context, &client, args).await,
        HookCommand::List => list(context, &client).await,
        HookCommand::Remove(args) => {
            let mut removed = Vec::new();
            for name in &args.names {
                let view: HookView = client.post(&format!("hooks/{}/remove", escape(name)), &json!({})).await?;
                if !context.json {
                    let waiting = if view.waiting > 0 {
                        format!(", with {} events that waited", view.waiting)
                    } else {
                        String::new()
                    };
                    output::line(format!("removed {}{waiting}", view.name))?;
                }
                removed.push(view);
            }
            if context.json {
                output::json(&removed)?;
            }
            Ok(0)
        }
        HookCommand::Test(args) => {
            let told: HookDelivery = client.post(&format!("hooks/{}/test", escape(&args.name)), &json!({})).await?;
            if context.json {
                output::json(&told)?;
            } else {
                output::line(answer(&told))?;
            }
            Ok(u8::from(!told.delivered))
        }
        HookCommand::Log(args) => log(context, &client, &args).await,
    }
}

async fn add(context: &Context, client: &Client, args: HookAddArgs) -> Result<u8, Failure> {
    let HookAddArgs { events, target, name, program } = args;
    let program = Some(program).filter(|p| !p.is_empty());
    let view: HookView = client.post("hooks", &HookRequest { name, events: events.0, target, program }).await?;
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    output::line(format!("{} hears of {}: {}", view.name, view.events.join(", "), output::plain(&view.target)))?;
    if view.kind == "webhook" {
        let hooks: HooksView = client.get("hooks").await?;
        output::line(format!("its receiver checks signatures with {}", hooks.public_key))?;
    }
    output::note(format!("try it: souk hook test {}", view.name));
    Ok(0)
}

async fn list(context: &Context, client: &Client) -> Result<u8, Failure> {
    let view: HooksView = client.get("hooks").await?;
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    if view.hooks.is_empty() {
        output::line("no hooks (souk hook add EVENT URL|CMD)")?;
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("EVENTS", Align::Left),
        ("TARGET", Align::Left),
        ("WAITING", Align::Right),
        ("DELIVERED", Align::Right),
        ("FAILED", Align::Right),
        ("DROPPED", Align::Right),
        ("LAST", Align::Left),
    ]);
    for hook in &view.hooks {
        let last = hook
            .last
            .as_ref()
            .map_or_else(|| "-".to_owned(), |last| format!("{} {}", output::time(last.at_ms), last.outcome));
        table.row([
            hook.name.clone(),
            output::cut(&hook.events.join(","), 40),
            output::cut(&hook.target, 48),
            hook.waiting.to_string(),
            hook.delivered.to_string(),
            hook.failed.to_string(),
            hook.dropped.to_string(),
            hook.disabled.as_ref().map_or(last, |why| format!("off: {why}")),
        ]);
    }
    output::line(table.text())?;
    output::line(format!("\nsigned with {}", view.public_key))?;
    Ok(0)
}

fn answer(told: &HookDelivery) -> String {
    let mut text = format!("{}: {} after {} ms", told.hook, told.outcome, told.took_ms.0);
    if !told.output.trim().is_empty() {
        text.push('\n');
        let lines = told.output.lines().map(output::plain).collect::<Vec<_>>();
        text.push_str(&lines.join("\n"));
    }
    text
}

async fn log(context: &Context, client: &Client, args: &HookLogArgs) -> Result<u8, Failure> {
    let name = args.name.as_ref().map_or_else(String::new, |name| format!("&name={}", escape(name)));
    let told: Vec<HookDelivery> = client.get(&format!("hooks/log?limit={}{name}", args.limit)).await?;
    if context.json {
        output::json(&told)?;
        return Ok(0);
    }
    if told.is_empty() {
        output::line("nothing was delivered yet")?;
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("HOOK", Align::Left),
        ("EVENT", Align::Left),
        ("TRY", Align::Right),
        ("OUTCOME", Align::Left),
        ("TOOK", Align::Right),
        ("NEXT", Align::Left),
        ("SAID", Align::Left),
    ]);
    for line in told {
        table.row([
            output::time(line.at_ms),
            line.hook,
            line.event,
            line.attempt.to_string(),
            line.outcome,
            format!("{} ms", line.took_ms.0),
            line.next_ms.map_or_else(|| "-".to_owned(), output::time),
            output::cut(line.output.trim(), 60),
        ]);
    }
    output::line(table.text())?;
    Ok(0)
}
