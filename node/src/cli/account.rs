//! `souk account` and `souk pay`: what is owed, and paying it.

use std::{io::IsTerminal, time::Duration};

use souk_protocol::{Amount, Currency};
use tokio::time::Instant;

use super::{
    Context,
    args::{AccountArgs, PayArgs},
    error::Failure,
    output::{self, Align, Table},
};
use crate::{
    api::{
        client::{Client, escape},
        types::{
            AccountDetail, AccountView, AccountsView, ClaimView, ForgiveRequest, PayRequest, PaymentView,
            ReceivedRequest, SettlementView,
        },
    },
    config::MANUAL,
    market::ErrorCode,
};

/// Decimals of the tables.
const DECIMALS: u32 = 6;
/// How long `souk pay` waits for a program.
const WAIT: Duration = Duration::from_secs(120);
/// Between two looks at a payment.
const LOOK: Duration = Duration::from_millis(250);

fn money(amount: Amount, currency: &Currency) -> String {
    output::money(amount, currency, DECIMALS)
}

pub(super) async fn account(context: &Context, args: &AccountArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let Some(peer) = &args.peer else {
        let view: AccountsView = client.get("accounts").await?;
        if context.json {
            output::json(&view)?;
        } else {
            output::line(accounts(&view))?;
        }
        return Ok(0);
    };
    let path = format!("accounts/{}", escape(peer));
    if let Some(amount) = args.received {
        let request = ReceivedRequest { amount, reference: args.reference.clone() };
        let claim: ClaimView = client.post(&format!("{path}/received"), &request).await?;
        if context.json {
            output::json(&claim)?;
        } else {
            let of = money(claim.amount, &claim.currency);
            output::line(output::plain(&format!(
                "{} of {of} received, reference {}",
                money(amount, &claim.currency),
                claim.reference
            )))?;
        }
        return Ok(0);
    }
    let letting_go = args.forgive || args.waive.is_some() || args.lost.is_some() || args.cancel.is_some();
    let detail: AccountDetail = if letting_go {
        let request =
            ForgiveRequest { lease: args.waive.clone(), lost: args.lost.clone(), cancel: args.cancel.clone() };
        client.post(&format!("{path}/forgive"), &request).await?
    } else {
        client.get(&path).await?
    };
    if context.json {
        output::json(&detail)?;
    } else {
        if args.lost.is_some() {
            output::line(
                "written off: the sum is owed again, and a payment program pays it again within its limits\n",
            )?;
        }
        output::line(one(&detail))?;
    }
    Ok(0)
}

fn accounts(view: &AccountsView) -> String {
    let mut parts = Vec::new();
    if view.accounts.is_empty() {
        parts.push("there are no accounts yet: nothing was rented, either way".to_owned());
    } else {
        let mut table = Table::new(&[
            ("PEER", Align::Left),
            ("OWES YOU", Align::Right),
            ("NOW", Align::Right),
            ("YOU OWE", Align::Right),
            ("RECEIVED", Align::Right),
            ("PAID", Align::Right),
            ("CONFIRMED", Align::Right),
            ("PAYS", Align::Left),
            ("SLICE", Align::Right),
            ("", Align::Left),
        ]);
        for a in &view.accounts {
            let m = |amount| money(amount, &a.currency);
            table.row([
                a.peer.to_string(),
                m(a.owes_us),
                m(a.owes_us_now),
                m(a.we_owe),
                m(a.received),
                m(a.paid),
                m(a.paid_acked),
                a.pays.clone(),
                m(a.slice),
                state(a),
            ]);
        }
        parts.push(table.text());
    }
    if let Some(limit) = view.daily_limit {
        let (spent, limit) = (money(view.daily_spent, &view.currency), money(limit, &view.currency));
        parts.push(format!("{spent} of {limit} were paid without asking in the last 24 hours"));
    }
    if view.pot_taken_minutes > 0 {
        parts.push(format!(
            "strangers use {} of {} unpaid slot-minutes today",
            view.pot_taken_minutes, view.pot_minutes
        ));
    }
    parts.join("\n\n")
}

fn state(a: &AccountView) -> String {
    let mut words = Vec::new();
    if a.to_confirm > 0 {
        words.push(format!("{} to confirm", a.to_confirm));
    }
    if let Some(since) = a.stopped_since_ms {
        words.push(format!("stopped {} ago", output::ago(since)));
    }
    words.join(", ")
}

fn one(detail: &AccountDetail) -> String {
    let mut parts = vec![format!("peer {}", detail.peer)];
    for a in &detail.accounts {
        let m = |amount| money(amount, &a.currency);
        let stopped = a.stopped_since_ms.map(output::time).unwrap_or_default();
        parts.push(output::pairs(&[
            ("owes you", m(a.owes_us)),
            ("owes you now", m(a.owes_us_now)),
            ("of which refused", if a.refused == Amount::ZERO { String::new() } else { m(a.refused) }),
            ("you owe", m(a.we_owe)),
            ("it has used", m(a.earned)),
            ("received", format!("{} of {} it says to have paid", m(a.received), m(a.received_claimed))),
            ("you have used", m(a.spent)),
            ("paid", format!("{}, of which it has confirmed {}", m(a.paid), m(a.paid_acked))),
            ("of which lost", if a.lost == Amount::ZERO { String::new() } else { m(a.lost) }),
            ("pays", a.pays.clone()),
            ("slice", m(a.slice)),
            ("stopped since", stopped),
        ]));
    }
    if !detail.claims.is_empty() {
        let mut table = claims_table();
        for c in &detail.claims {
            let by = if c.looked_for_by == "person" { "you".to_owned() } else { c.looked_for_by.clone() };
            table.row([
                output::time(c.at_ms),
                money(c.amount, &c.currency),
                c.method.clone(),
                c.reference.clone(),
                by,
                c.problem.clone().unwrap_or_default(),
            ]);
        }
        parts.push(format!("it says to have paid; confirm with --received AMOUNT:\n{}", table.text()));
    }
    if !detail.payments.is_empty() {
        let columns = [
            ("PAID ON", Align::Left),
            ("AMOUNT", Align::Right),
            ("BY", Align::Left),
            ("REFERENCE", Align::Left),
            ("STATE", Align::Left),
            ("", Align::Left),
        ];
        let mut table = Table::new(&columns);
        for p in &detail.payments {
            table.row([
                output::time(p.at_ms),
                money(p.amount, &p.currency),
                p.method.clone(),
                p.reference.clone(),
                p.state.clone(),
                p.problem.clone().unwrap_or_default(),
            ]);
        }
        parts.push(table.text());
    }
    if !detail.settlements.is_empty() {
        parts.push(settlements(&detail.settlements));
    }
    if !detail.leases.is_empty() {
        let columns = [
            ("LEASE", Align::Right),
            ("NAME", Align::Left),
            ("ROLE", Align::Left),
            ("STATUS", Align::Left),
            ("AGREED", Align::Right),
            ("CLAIMED", Align::Right),
        ];
        let mut table = Table::new(&columns);
        for l in &detail.leases {
            let role = if l.hosted { "host" } else { "renter" };
            table.row([
                l.number.to_string(),
                l.label.clone().unwrap_or_default(),
                role.to_owned(),
                l.status.clone(),
                money(l.agreed, &l.currency),
                money(l.claimed, &l.currency),
            ]);
        }
        parts.push(table.text());
    }
    parts.join("\n\n")
}

fn claims_table() -> Table {
    Table::new(&[
        ("SAID ON", Align::Left),
        ("AMOUNT", Align::Right),
        ("BY", Align::Left),
        ("REFERENCE", Align::Left),
        ("WHO LOOKS", Align::Left),
        ("", Align::Left),
    ])
}

fn settlements(rows: &[SettlementView]) -> String {
    let columns = [
        ("SIGNED", Align::Left),
        ("WHO", Align::Left),
        ("AMOUNT", Align::Right),
        ("BY", Align::Left),
        ("REFERENCE", Align::Left),
        ("ALL", Align::Right),
        ("ARRIVED IN ALL", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for s in rows {
        let who = if s.by_us { "you" } else { "peer" };
        let arrived = s
            .arrived_total
            .map_or_else(|| format!("not confirmed for {}", output::ago(s.at_ms)), |a| money(a, &s.currency));
        table.row([
            output::time(s.at_ms),
            who.to_owned(),
            money(s.amount, &s.currency),
            s.method.clone(),
            s.reference.clone(),
            money(s.total, &s.currency),
            arrived,
        ]);
    }
    table.text()
}

pub(super) async fn pay(context: &Context, args: PayArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let path = format!("accounts/{}", escape(&args.peer));
    let by_hand = args.method.as_deref() == Some(MANUAL);
    if !args.yes {
        let currency = args.currency.clone().unwrap_or(context.config()?.renter.currency);
        let amount = money(args.amount, &currency);
        let how = args.method.as_deref().unwrap_or("the host's method");
        let what = if by_hand {
            format!("Have you paid {amount} to {}?", args.peer)
        } else {
            format!("Pay {amount} to {} by {how}?", args.peer)
        };
        // Where nobody can be asked, a command is meant as it is said.
        if !output::confirm(&what, false, !std::io::stdin().is_terminal())? {
            return Err(Failure::new("nothing was paid").code(ErrorCode::Rejected));
        }
    }
    let request =
        PayRequest { amount: args.amount, currency: args.currency, method: args.method, reference: args.reference };
    let mut payment: PaymentView = client.post(&format!("{path}/pay"), &request).await?;
    if !args.detach {
        payment = follow(&client, payment).await?;
    }
    if context.json {
        output::json(&payment)?;
    } else {
        output::line(output::plain(&told(&payment)))?;
    }
    Ok(u8::from(payment.state == "failed"))
}

/// Waits until the program has paid, or will not; telling what it is waiting for.
async fn follow(client: &Client, mut payment: PaymentView) -> Result<PaymentView, Failure> {
    let (end, mut shown) = (Instant::now() + WAIT, None);
    let path = format!("payments/{}", escape(&payment.reference));
    while !matches!(payment.state.as_str(), "settled" | "failed") && Instant::now() < end {
        if shown != Some(payment.problem.clone()) {
            let problem = payment.problem.as_ref().map(|p| format!(": {p}; it is asked again")).unwrap_or_default();
            output::note(output::plain(&format!("waiting for the program of {}{problem}", payment.method)));
            shown = Some(payment.problem.clone());
        }
        tokio::time::sleep(LOOK).await;
        payment = client.get(&path).await?;
    }
    Ok(payment)
}

fn told(payment: &PaymentView) -> String {
    let PaymentView { reference, peer, currency, amount, method, problem, .. } = payment;
    let amount = money(*amount, currency);
    match payment.state.as_str() {
        "settled" if method == MANUAL => {
            format!(
                "signed: {amount} paid to {peer}, reference {reference}; its owner confirms what arrives: souk account {peer}"
            )
        }
        "settled" => format!("paid {amount} to {peer} by {method}, reference {reference}"),
        "failed" => format!("not paid: {}", problem.as_deref().unwrap_or("the program gives no reason")),
        _ => format!("{amount} to {peer} are on their way, reference {reference}; see: souk account {peer}"),
    }
}
