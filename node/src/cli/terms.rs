//! `souk quote`, `bid`, `extend`, `max-spend`: what hosts take, and changes of what was agreed.

use std::io::IsTerminal;

use serde_json::json;
use souk_protocol::{Amount, Currency, Timestamp, lease::LeaseState, negotiation::RentalType};

use super::{
    Context,
    args::{BidArgs, ExtendArgs, MaxSpendArgs, QuoteArgs},
    error::Failure,
    leases,
    output::{self, Align, Table, money},
};
use crate::{
    api::{
        client::{Client, escape},
        types::{
            ChangeView, ExtensionRequest, ExtensionView, LeaseDetail, LeaseView, PlaceView, SlicesRequest, SlicesView,
        },
    },
    market::ErrorCode,
};

pub(super) async fn quote(context: &Context, args: QuoteArgs) -> Result<u8, Failure> {
    let view: SlicesView = context.client()?.post("quote/slices", &SlicesRequest { of: args.of }).await?;
    if context.json {
        output::json(&view)?;
    } else {
        output::line(slices(&view))?;
    }
    Ok(0)
}

fn slices(view: &SlicesView) -> String {
    let price = |price: Option<Amount>| price.map_or_else(|| "-".to_owned(), |p| money(p, &view.currency, 6));
    let mut table = Table::new(&[
        ("ASK", Align::Left),
        ("SLOTS", Align::Right),
        ("WINS NOW", Align::Right),
        ("LOWEST BID", Align::Right),
        ("ON DEMAND", Align::Right),
        ("BIDS", Align::Right),
    ]);
    for slice in &view.slices {
        table.row([
            slice.ask.short(),
            slice.slots.to_string(),
            price(slice.to_win),
            price(Some(slice.min_bid)),
            price(slice.on_demand),
            slice.bids.to_string(),
        ]);
    }
    format!("machine {} of {}, per hour for all slots of the ask\n\n{}", view.machine, view.host.short(), table.text())
}

fn path(id: &str, what: &str) -> String {
    format!("leases/{}{what}", escape(id))
}

async fn change(client: &Client, id: &str, change: &ChangeView) -> Result<LeaseDetail, Failure> {
    Ok(client.post(&path(id, "/change"), change).await?)
}

pub(super) async fn bid(context: &Context, args: BidArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let detail = change(&client, &args.id, &ChangeView::Bid { price_hour: args.price }).await?;
    done(context, &detail, |view| format!("bids {}/h: {}", money(view.price_hour, &view.currency, 6), standing(view)))
}

/// Prints a lease after a change: JSON, or its name and a sentence.
fn done(context: &Context, detail: &LeaseDetail, text: impl FnOnce(&LeaseView) -> String) -> Result<u8, Failure> {
    if context.json {
        output::json(detail)?;
    } else {
        let view = &detail.view;
        let label = view.label.as_deref().map(|label| format!(" {label}")).unwrap_or_default();
        output::line(output::plain(&format!("{}{label} {}", view.number, text(view))))?;
    }
    Ok(0)
}

/// The state, and where it stands among the bids.
pub(super) fn standing(view: &LeaseView) -> String {
    let mut text = leases::state(view);
    if let Some(place) = &view.place {
        text.push_str(&format!(", {}", self::place(place, &view.currency)));
    }
    if let Some(eviction) = &view.eviction {
        text.push_str(&format!(", stopped at {} for others", output::time(eviction.at_ms)));
    }
    text
}

/// `2 bids ahead, $0.31/h would run now`.
pub(super) fn place(place: &PlaceView, currency: &Currency) -> String {
    let ahead = match place.ahead {
        0 => "no bid ahead".to_owned(),
        1 => "1 bid ahead".to_owned(),
        n => format!("{n} bids ahead"),
    };
    match place.to_win {
        Some(price) => format!("{ahead}, {}/h would run now", money(price, currency, 6)),
        None => format!("{ahead}, no bid would run now"),
    }
}

pub(super) async fn max_spend(context: &Context, args: MaxSpendArgs) -> Result<u8, Failure> {
    let detail = change(&context.client()?, &args.id, &ChangeView::MaxSpend { max_spend: args.most.0 }).await?;
    done(context, &detail, |view| match detail.terms.max_spend {
        Some(most) => format!("costs {} at most", money(most, &view.currency, 6)),
        None => "has no spending limit".to_owned(),
    })
}

pub(super) async fn extend(context: &Context, args: ExtendArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    if args.decline {
        let view: LeaseView = client.post(&path(&args.id, "/extension/decline"), &json!({})).await?;
        if context.json {
            output::json(&view)?;
        } else {
            output::line(format!("{} ends as agreed, at {}", view.number, output::time(view.ends_at_ms)))?;
        }
        return Ok(0);
    }
    if let Some(auto) = args.auto {
        let detail: LeaseDetail = client.get(&path(&args.id, "")).await?;
        let until_ms = auto.0.map(|by| detail.terms.ends_at_ms + by);
        let detail = change(&client, &args.id, &ChangeView::AutoExtend { until_ms }).await?;
        return done(context, &detail, |_| match detail.terms.extend_until_ms {
            Some(until) => format!("may be extended by its host until {}", output::time(until)),
            None => "is not extended by its host".to_owned(),
        });
    }
    let before: LeaseDetail = client.get(&path(&args.id, "")).await?;
    let extension = match args.by {
        Some(by_ms) => client.post(&path(&args.id, "/extension"), &ExtensionRequest { by_ms }).await?,
        None => before.asked.ok_or_else(|| {
            Failure::new("the host asks for no longer contract (any more)")
                .code(ErrorCode::WrongState)
                .hint(format!("souk extend {} 12h asks it for one", args.id))
        })?,
    };
    agree(context, &args, &before.view, &extension)?;
    let agreed = ChangeView::Extend { ends_at_ms: extension.ends_at_ms, price_hour: Some(extension.price_hour) };
    let detail = change(&client, &args.id, &agreed).await?;
    done(context, &detail, |view| {
        let price = money(extension.price_hour, &view.currency, 6);
        let ends = output::time(detail.terms.ends_at_ms);
        match &detail.terms.next {
            Some(next) => format!("ends at {ends}: {price}/h from {} on", output::time(next.from_ms)),
            None => format!("ends at {ends}, at {price}/h as before"),
        }
    })
}

/// The same price or a lower one is taken unasked; a higher one up to what was said, or once the person has agreed.
fn agree(context: &Context, args: &ExtendArgs, view: &LeaseView, extension: &ExtensionView) -> Result<(), Failure> {
    let price = |amount| money(amount, &view.currency, 6);
    if extension.price_hour <= extension.present_hour {
        return Ok(());
    }
    let wants = format!("the host wants {}/h for a later end", price(extension.price_hour));
    if let Some(limit) = args.max_price {
        if extension.price_hour <= limit {
            return Ok(());
        }
        return Err(Failure::new(format!("{wants}, over your limit of {}/h", price(limit))).code(ErrorCode::Price));
    }
    if args.yes {
        return Ok(());
    }
    let hint = format!("agree to it with: --max-price {}", extension.price_hour);
    if context.json || !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("{wants}, and pays {} now", price(extension.present_hour)))
            .code(ErrorCode::Price)
            .hint(hint));
    }
    output::note(describe(extension, &view.currency));
    if output::confirm("Extend it at that price?", false, false)? {
        return Ok(());
    }
    Err(Failure::new("nothing was changed").hint(hint))
}

fn describe(extension: &ExtensionView, currency: &Currency) -> String {
    format!(
        "{}/h from {} on, until {}; {}/h before",
        money(extension.price_hour, currency, 6),
        output::time(extension.from_ms),
        output::time(extension.ends_at_ms),
        money(extension.present_hour, currency, 6)
    )
}

/// The lines of `souk show` about terms, for those that are not as drafted or that something waits for.
pub(super) fn lines(detail: &LeaseDetail) -> Vec<(&'static str, String)> {
    let (view, terms) = (&detail.view, &detail.terms);
    let currency = &view.currency;
    let at = |at: Timestamp| output::time(at);
    let mut rental = view.rental.name().to_owned();
    match view.rental {
        RentalType::OnDemand => {}
        RentalType::Interruptible => rental.push_str(&format!(
            ", stopped for others after {} of warning; a run cut before {} is free",
            terms.notice_ms, terms.quantum_ms
        )),
        RentalType::Reserved => rental.push_str(&format!(
            ", instead of {}/h; who leaves early owes the difference",
            money(terms.listed_hour, currency, 9)
        )),
    }
    let eviction = view.eviction.as_ref().map(|e| {
        let slot = money(e.slot_hour, currency, 9);
        match e.winner {
            Some(lease) => format!("stopped at {}: lease {} pays {slot}/h a slot", at(e.at_ms), lease.short()),
            None => format!("stopped at {}: the host needs the slots itself", at(e.at_ms)),
        }
    });
    let next = terms.next.map(|next| format!("{}/h from {} on", money(next.price_hour, currency, 9), at(next.from_ms)));
    let asked = detail.asked.as_ref().map(|asked| {
        let n = view.number;
        let price = money(asked.price_hour, currency, 9);
        let (end, from) = (at(asked.ends_at_ms), at(asked.from_ms));
        format!("until {end} at {price}/h from {from} on: souk extend {n} --accept, or --decline")
    });
    let ended = view.state.is_ended();
    let auto = terms.extend_until_ms.filter(|until| *until > terms.ends_at_ms && !ended);
    vec![
        ("rented", rental),
        ("place", view.place.as_ref().map(|p| place(p, currency)).unwrap_or_default()),
        ("eviction", eviction.filter(|_| view.state == LeaseState::Running).unwrap_or_default()),
        ("next price", next.unwrap_or_default()),
        ("may extend", auto.map(|until| format!("by itself until {}", at(until))).unwrap_or_default()),
        ("host asks", asked.unwrap_or_default()),
        ("pending", detail.pending.as_ref().map(|change| pending(change, currency)).unwrap_or_default()),
    ]
}

fn pending(change: &ChangeView, currency: &Currency) -> String {
    let what = match change {
        ChangeView::Bid { price_hour } => format!("a bid of {}/h", money(*price_hour, currency, 9)),
        ChangeView::Extend { ends_at_ms, .. } => format!("an end at {}", output::time(*ends_at_ms)),
        ChangeView::MaxSpend { max_spend: Some(most) } => format!("a limit of {}", money(*most, currency, 9)),
        ChangeView::MaxSpend { max_spend: None } => "no spending limit".to_owned(),
        ChangeView::AutoExtend { until_ms: Some(until) } => {
            format!("extension by the host until {}", output::time(*until))
        }
        ChangeView::AutoExtend { until_ms: None } => "no extension by the host".to_owned(),
    };
    format!("{what}: the host has not answered yet")
}
