//! Standing orders: `souk rent --wait`, `--failover` and `--query`, and `souk order`.

use std::time::Duration;

use serde_json::json;
use souk_protocol::Timestamp;

use super::{
    Context,
    args::{OrderCommand, RentArgs},
    error::Failure,
    output::{self, Align, Table},
    rent,
};
use crate::{
    api::types::{LeaseDetail, OrderRequest, OrderState, OrderView, QuoteView},
    market::ErrorCode,
    template::Template,
};

/// Between two looks at an order.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long an order without `--wait` may take to rent.
const ONCE_WITHIN: Duration = Duration::from_secs(120);

/// Places an order and follows it until it has a lease.
pub(super) async fn place(context: &Context, args: RentArgs, template: Option<&Template>) -> Result<u8, Failure> {
    let client = context.client()?;
    let (standing, detach, yes) = (args.standing.clone(), args.detach, args.yes);
    let asked = args.ask.clone();
    let mut request = rent::request(args, template)?;
    if request.image.is_empty() {
        return Err(rent::no_image());
    }
    let first = match asked {
        Some(_) => {
            // Also turns a row number of the last search into its ask.
            let quote: QuoteView = client.post("quote", &request).await?;
            if !context.json {
                output::note(rent::describe(&quote));
            }
            if !yes && !output::confirm("Rent it?", true, true)? {
                return Err(Failure::new("nothing was rented"));
            }
            Some(quote.ask)
        }
        None => None,
    };
    request.ask = first.map_or_else(|| crate::market::command::AskSelector(String::new()), Into::into);
    let until = standing.wait_for.map(|time| output::now() + time);
    let order = OrderRequest {
        query: standing.query.unwrap_or_default(),
        order: standing.order,
        rent: request,
        first,
        failover: standing.failover,
        patience_ms: standing.patience,
        until_ms: until,
    };
    let placed: OrderView = client.post("orders", &order).await?;
    if detach && standing.wait {
        return shown(context, &placed);
    }
    if !context.json {
        output::note(format!("order {}: {}", placed.number, output::plain(&placed.note)));
    }
    let follow = follow(context, placed, standing.wait);
    tokio::select! {
        followed = follow => followed,
        _ = tokio::signal::ctrl_c() => {
            output::note("the order stands: souk order list, souk order cancel N");
            Ok(130)
        }
    }
}

async fn follow(context: &Context, placed: OrderView, wait: bool) -> Result<u8, Failure> {
    let client = context.client()?;
    let began = std::time::Instant::now();
    let mut told = placed.note.clone();
    loop {
        let orders: Vec<OrderView> = client.get("orders").await?;
        let Some(order) = orders.into_iter().find(|o| o.number == placed.number) else {
            return Err(Failure::new("the order was cancelled"));
        };
        if order.note != told && !context.json {
            output::note(output::plain(&order.note));
        }
        told.clone_from(&order.note);
        match order.state {
            OrderState::Guarding | OrderState::Done => return leased(context, &order).await,
            OrderState::Expired => return Err(Failure::new(output::plain(&order.note)).code(ErrorCode::NotFound)),
            OrderState::Waiting if !wait && began.elapsed() > Duration::from_secs(3) && !busy(&order, began) => {
                let _: OrderView = client.post(&format!("orders/{}/cancel", order.number), &json!({})).await?;
                let why = format!("nothing was rented: {}", output::plain(&order.note));
                return Err(Failure::new(why).code(ErrorCode::NotFound).hint("souk search --explain; or wait: --wait"));
            }
            OrderState::Waiting | OrderState::Renting => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether an order that is not to wait is still worth waiting for.
fn busy(order: &OrderView, began: std::time::Instant) -> bool {
    order.state == OrderState::Renting && began.elapsed() < ONCE_WITHIN
}

async fn leased(context: &Context, order: &OrderView) -> Result<u8, Failure> {
    let Some(lease) = order.lease else {
        return Err(Failure::new("the order has no lease"));
    };
    let detail: LeaseDetail = context.client()?.get(&format!("leases/{lease}")).await?;
    if context.json {
        output::json(&detail)?;
    } else {
        output::line(lease.to_string())?;
        let n = detail.view.number;
        output::note(format!("lease {n}: souk show {n}, souk logs -f {n}, souk destroy {n}"));
    }
    Ok(0)
}

/// `souk order`.
pub(super) async fn order(context: &Context, command: OrderCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    match command {
        OrderCommand::List => {
            let orders: Vec<OrderView> = client.get("orders").await?;
            if context.json {
                output::json(&orders)?;
            } else if orders.is_empty() {
                output::note(
                    "no standing orders; souk rent --query 'gpu_name=RTX_4090 dph<0.4' --wait --image IMAGE makes one",
                );
            } else {
                output::line(table(&orders))?;
            }
            Ok(0)
        }
        OrderCommand::Cancel { number } => {
            let order: OrderView = client.post(&format!("orders/{number}/cancel"), &json!({})).await?;
            shown(context, &order)
        }
    }
}

fn shown(context: &Context, order: &OrderView) -> Result<u8, Failure> {
    if context.json {
        output::json(order)?;
    } else {
        output::line(table(std::slice::from_ref(order)))?;
    }
    Ok(0)
}

fn table(orders: &[OrderView]) -> String {
    let mut table = Table::new(&[
        ("ORDER", Align::Right),
        ("STATE", Align::Left),
        ("LEASE", Align::Left),
        ("SINCE", Align::Left),
        ("UNTIL", Align::Left),
        ("QUERY", Align::Left),
        ("NOTE", Align::Left),
    ]);
    for order in orders {
        let state = match order.state {
            OrderState::Waiting => "waiting",
            OrderState::Renting => "renting",
            OrderState::Guarding => "guarding",
            OrderState::Done => "done",
            OrderState::Expired => "expired",
        };
        let until = order.until_ms.filter(|at| *at > Timestamp(0)).map_or_else(String::new, output::time);
        table.row([
            order.number.to_string(),
            state.to_owned(),
            order.lease.map_or_else(String::new, |l| l.short()),
            output::time(order.created_ms),
            until,
            output::cut(&output::plain(&order.query), 40),
            output::plain(&order.note),
        ]);
    }
    table.text()
}
