//! An invoice as a page: one file without anything from elsewhere, to print and to send.

use std::fmt::Write as _;

use souk_protocol::{Amount, Currency};

use super::{
    invoice::exact,
    output::{self, plain},
};
use crate::api::types::{InvoiceLine, InvoicePayment, InvoiceView};

const STYLE: &str = "body{font:14px/1.45 system-ui,sans-serif;color:#111;margin:2.5rem auto;max-width:60rem;padding:0 1rem}\
h1{font-size:1.5rem;margin:0 0 1.5rem}h2{font-size:1rem;margin:1.8rem 0 .4rem}\
.parties{display:flex;gap:3rem}.parties div{flex:1;white-space:pre-line}.id{font:11px ui-monospace,monospace;color:#555;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid #ddd;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;padding-right:0;padding-left:.6rem;white-space:nowrap}\
tr.total td{font-weight:600;border-bottom:2px solid #111}.sum td{border:0}.note{color:#555;font-size:12px;margin-top:2rem}\
section+section{break-before:page;margin-top:4rem}tr{break-inside:avoid}@media print{body{margin:0;max-width:none}}";

/// Text that a page shows as it is.
fn text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c => out.push_str(&plain(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out
}

/// The page of some invoices, each on sheets of its own. `to` is who the peer is.
pub(super) fn page(views: &[InvoiceView], to: Option<&str>) -> String {
    let title = views.first().map(|v| v.month.clone()).unwrap_or_default();
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>Invoice {}</title><style>{STYLE}</style></head><body>\n",
        text(&title)
    );
    for view in views {
        section(&mut page, view, to);
    }
    page.push_str("</body></html>\n");
    page
}

fn section(page: &mut String, v: &InvoiceView, to: Option<&str>) {
    let c = &v.currency;
    let so_far = if v.so_far { " (so far)" } else { "" };
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "<section><h1>{} {}{so_far}</h1><div class=\"parties\"><div>{}\n<span class=\"id\">{}</span></div>\
         <div>{}\n<span class=\"id\">{}</span></div></div>\n",
        if v.bought.is_empty() { "Invoice" } else { "Statement of account" },
        text(&v.month),
        text(v.name.as_deref().unwrap_or("This node")),
        v.node,
        text(to.unwrap_or("To")),
        v.peer,
    );
    lines(page, "Provided", &v.sold, v.sold_total, c);
    lines(page, "Obtained", &v.bought, v.bought_total, c);
    payments(page, "Received", &v.received, v.received_total, c);
    payments(page, "Paid", &v.paid, v.paid_total, c);
    let side = |to_us: bool, amount: Amount| match (amount, to_us) {
        (Amount::ZERO, _) => "",
        (_, true) => " owed by the recipient",
        (_, false) => " owed to the recipient",
    };
    let _ = writeln!(
        page,
        "<h2>Balance</h2><table class=\"sum\"><tr><td>On {}{}</td><td class=\"n\">{}</td></tr>\
         <tr class=\"total\"><td>On {}{}</td><td class=\"n\">{}</td></tr></table>\
         <p class=\"note\">Amounts in {}. Each line is the difference of two sums that both parties have signed; the receipt named \
         in it is the document with the second one, in both parties' ledgers. Months are of UTC.</p></section>",
        &output::time(v.from_ms)[..10],
        side(v.opening_owed_to_us, v.opening),
        exact(v.opening, c),
        if v.so_far { output::time(output::now())[..10].to_owned() } else { output::time(v.to_ms)[..10].to_owned() },
        side(v.closing_owed_to_us, v.closing),
        exact(v.closing, c),
        text(&c.to_string()),
    );
}

fn lines(page: &mut String, title: &str, lines: &[InvoiceLine], total: Amount, c: &Currency) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{title}</h2><table><tr><th>Lease</th><th>Agreed on</th><th class=\"n\">Before</th><th class=\"n\">After</th>\
         <th class=\"n\">Amount</th></tr>"
    );
    for l in lines {
        let name = l.label.as_ref().map_or_else(|| l.image.clone(), |label| format!("{label} ({})", l.image));
        let _ = write!(
            page,
            "<tr><td>{}<br><span class=\"id\">lease {}<br>receipt {}</span></td><td>{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            text(&name),
            l.lease,
            l.receipt,
            &output::time(l.at_ms)[..10],
            exact(l.before, c),
            exact(l.after, c),
            exact(l.amount, c),
        );
    }
    let _ = writeln!(
        page,
        "<tr class=\"total\"><td colspan=\"4\">Total</td><td class=\"n\">{}</td></tr></table>",
        exact(total, c)
    );
}

fn payments(page: &mut String, title: &str, payments: &[InvoicePayment], total: Amount, c: &Currency) {
    if payments.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>{title}</h2><table><tr><th>Payment</th><th>Confirmed on</th><th class=\"n\">Paid</th><th class=\"n\">Arrived</th></tr>"
    );
    for p in payments {
        let _ = write!(
            page,
            "<tr><td>{}, {}<br><span class=\"id\">{}</span></td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            text(&p.method),
            text(&p.reference),
            p.settle,
            &output::time(p.at_ms)[..10],
            exact(p.amount, c),
            exact(p.arrived, c),
        );
    }
    let _ = writeln!(
        page,
        "<tr class=\"total\"><td colspan=\"3\">Total</td><td class=\"n\">{}</td></tr></table>",
        exact(total, c)
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_protocol::{DocumentId, LeaseId, NodeId, Timestamp};

    use super::*;

    fn view() -> InvoiceView {
        InvoiceView {
            month: "2026-11".to_owned(),
            from_ms: Timestamp(1_793_491_200_000),
            to_ms: Timestamp(1_796_083_200_000),
            so_far: false,
            node: NodeId([1; 32]),
            name: Some("Souk & Sons <script>".to_owned()),
            peer: NodeId([2; 32]),
            currency: Currency::usd(),
            opening_owed_to_us: false,
            opening: Amount(2_000_000_000),
            sold: vec![InvoiceLine {
                lease: LeaseId([3; 32]),
                number: 1,
                label: Some("\"><img src=http://evil onerror=alert(1)>\u{202e}".to_owned()),
                image: "debian:12".to_owned(),
                opened_ms: Timestamp(0),
                before: Amount(1_000_000_001),
                after: Amount(3_000_000_002),
                amount: Amount(2_000_000_001),
                receipt: DocumentId([4; 32]),
                usage: None,
                usage_n: None,
                at_ms: Timestamp(1_795_000_000_000),
            }],
            sold_total: Amount(2_000_000_001),
            bought: Vec::new(),
            bought_total: Amount::ZERO,
            received: Vec::new(),
            received_total: Amount::ZERO,
            paid: Vec::new(),
            paid_total: Amount::ZERO,
            closing_owed_to_us: true,
            closing: Amount(1),
        }
    }

    #[test]
    fn what_others_wrote_is_text_and_no_amount_is_rounded() {
        let page = page(&[view()], Some("<b>Peer</b>"));
        assert!(
            !page.contains("<script>") && !page.contains("<img") && !page.contains("<b>") && !page.contains('\u{202e}')
        );
        assert!(page.contains("Souk &amp; Sons &lt;script&gt;") && page.contains("&lt;b&gt;Peer"));
        for amount in ["$2.000000001", "$1.000000001", "$3.000000002", "$0.000000001"] {
            assert!(page.contains(amount), "{amount}");
        }
        for id in [LeaseId([3; 32]).to_string(), DocumentId([4; 32]).to_string(), NodeId([2; 32]).to_string()] {
            assert!(page.contains(&id), "{id}");
        }
        assert!(
            page.contains("On 2026-12-01 owed by the recipient")
                && page.contains("On 2026-11-01 owed to the recipient")
        );
        assert!(!page.contains("http://") || page.contains("src=http://evil onerror"), "nothing is loaded");
    }
}
