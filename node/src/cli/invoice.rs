//! `souk invoice`: a month of accounts as tables, comma-separated values, JSON, or a page to print and to send.

use souk_protocol::{Amount, Currency};

use super::{
    Context,
    args::InvoiceArgs,
    error::Failure,
    invoice_page,
    output::{self, Align, Table},
};
use crate::{
    api::{
        client::escape,
        types::{InvoiceLine, InvoicePayment, InvoiceView},
    },
    market::ErrorCode,
};

pub(super) async fn invoice(context: &Context, args: &InvoiceArgs) -> Result<u8, Failure> {
    let peer = args.peer.as_ref().map(|peer| format!("&peer={}", escape(peer))).unwrap_or_default();
    let path = format!("invoices?month={}{peer}", escape(&args.month));
    let views: Vec<InvoiceView> = context.client()?.get(&path).await?;
    if let Some(file) = &args.html {
        if views.is_empty() {
            return Err(Failure::new(format!("there was nothing in {}", args.month)).code(ErrorCode::NoMatch));
        }
        let page = invoice_page::page(&views, args.to.as_deref());
        std::fs::write(file, page).map_err(|e| {
            Failure::new(format!("can't write {}: {e}", file.display())).hint("give another file: --html FILE")
        })?;
        output::note(format!("wrote {}", file.display()));
    } else if context.json {
        output::json(&views)?;
    } else if args.csv {
        output::line(csv(&views))?;
    } else if views.is_empty() {
        output::line(format!("there was nothing in {}", output::plain(&args.month)))?;
    } else {
        output::line(views.iter().map(text).collect::<Vec<_>>().join("\n\n\n"))?;
    }
    Ok(0)
}

/// An amount to the unit: an invoice rounds nothing.
pub(super) fn exact(amount: Amount, currency: &Currency) -> String {
    output::money(amount, currency, 9)
}

/// What is owed, and by whom.
pub(super) fn owed(amount: Amount, to_us: bool, currency: &Currency) -> String {
    let who = match (amount, to_us) {
        (Amount::ZERO, _) => return exact(amount, currency),
        (_, true) => "owed to you",
        (_, false) => "owed by you",
    };
    format!("{} {who}", exact(amount, currency))
}

fn text(view: &InvoiceView) -> String {
    let c = &view.currency;
    let so_far = if view.so_far { " so far" } else { "" };
    let mut parts = vec![format!("{}{so_far}: {} with {}", view.month, c, view.peer)];
    for (title, lines, total) in
        [("used by the peer", &view.sold, view.sold_total), ("used by you", &view.bought, view.bought_total)]
    {
        if !lines.is_empty() {
            let mut table = Table::new(&[
                ("LEASE", Align::Left),
                ("WHAT", Align::Left),
                ("BEFORE", Align::Right),
                ("AFTER", Align::Right),
                ("AMOUNT", Align::Right),
                ("RECEIPT", Align::Left),
            ]);
            for l in lines {
                let name = l.label.clone().unwrap_or_else(|| l.image.clone());
                table.row([
                    l.lease.to_string(),
                    output::cut(&name, 30),
                    exact(l.before, c),
                    exact(l.after, c),
                    exact(l.amount, c),
                    l.receipt.to_string(),
                ]);
            }
            table.row([title.to_owned(), String::new(), String::new(), String::new(), exact(total, c), String::new()]);
            parts.push(table.text());
        }
    }
    for (title, payments, total) in
        [("received", &view.received, view.received_total), ("paid", &view.paid, view.paid_total)]
    {
        if !payments.is_empty() {
            let mut table = Table::new(&[
                ("CONFIRMED", Align::Left),
                ("METHOD", Align::Left),
                ("REFERENCE", Align::Left),
                ("AMOUNT", Align::Right),
                ("ARRIVED", Align::Right),
            ]);
            for p in payments {
                table.row([
                    output::time(p.at_ms),
                    p.method.clone(),
                    p.reference.clone(),
                    exact(p.amount, c),
                    exact(p.arrived, c),
                ]);
            }
            table.row([title.to_owned(), String::new(), String::new(), String::new(), exact(total, c)]);
            parts.push(table.text());
        }
    }
    parts.push(output::pairs(&[
        ("at the beginning", owed(view.opening, view.opening_owed_to_us, c)),
        ("at the end", owed(view.closing, view.closing_owed_to_us, c)),
    ]));
    parts.join("\n\n")
}

/// A cell: quoted where it must be, and never a formula to the programs that read such files.
fn cell(text: &str) -> String {
    let text = output::plain(text);
    let number = text.parse::<f64>().is_ok();
    let text = if !number && text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text };
    if text.contains(['"', ',']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn csv(views: &[InvoiceView]) -> String {
    let mut rows =
        vec!["month,peer,currency,kind,lease,name,reference,document,usage,at,before,after,amount".to_owned()];
    for v in views {
        let mut row = |kind: &str, cells: [String; 9]| {
            let head = [v.month.clone(), v.peer.to_string(), v.currency.to_string(), kind.to_owned()];
            rows.push(head.into_iter().chain(cells.iter().map(|c| cell(c))).collect::<Vec<_>>().join(","));
        };
        let none = String::new;
        let balance = |amount: Amount, to_us: bool| {
            let sign = if to_us || amount == Amount::ZERO { "" } else { "-" };
            format!("{sign}{amount}")
        };
        let blank = || [(); 8].map(|()| String::new());
        let with = |last: String| {
            let [a, b, c, d, e, f, g, h] = blank();
            [a, b, c, d, e, f, g, h, last]
        };
        row("opening_owed_to_us", with(balance(v.opening, v.opening_owed_to_us)));
        for (kind, lines) in [("sold", &v.sold), ("bought", &v.bought)] {
            for l in lines {
                let InvoiceLine { lease, label, image, receipt, usage, at_ms, before, after, amount, .. } = l;
                row(
                    kind,
                    [
                        lease.to_string(),
                        label.clone().unwrap_or_else(|| image.clone()),
                        none(),
                        receipt.to_string(),
                        usage.map(|u| u.to_string()).unwrap_or_default(),
                        output::time(*at_ms),
                        before.to_string(),
                        after.to_string(),
                        amount.to_string(),
                    ],
                );
            }
        }
        for (kind, payments) in [("received", &v.received), ("paid", &v.paid)] {
            for p in payments {
                let InvoicePayment { settle, at_ms, method, reference, arrived, .. } = p;
                row(
                    kind,
                    [
                        none(),
                        method.clone(),
                        reference.clone(),
                        settle.to_string(),
                        none(),
                        output::time(*at_ms),
                        none(),
                        none(),
                        arrived.to_string(),
                    ],
                );
            }
        }
        row("closing_owed_to_us", with(balance(v.closing, v.closing_owed_to_us)));
    }
    rows.join("\n")
}
