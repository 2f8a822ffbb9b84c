//! What the ledger keeps and tells about payments and accounts.

use serde::{Deserialize, Serialize};
use souk_ledger::{
    lease::Lease,
    months::Month,
    pair::{Settlement, SettlementKey},
    record::{Fact, Private as PrivateRow},
    statement::{Line, PaidLine, Statement},
    thread::AppendError,
    view::{QueryError, Select, View},
};
use souk_protocol::{Amount, Currency, NodeId, Timestamp, encode};

use super::{Ledger, asked::unreadable, logged};
use crate::{
    api::types::{
        AccountDetail, AccountLease, InvoiceLine, InvoicePayment, InvoiceRequest, InvoiceView, SettlementView,
    },
    clock::now,
    market::{
        CommandError,
        command::{ErrorCode, Reply},
    },
};

/// Leases of an account that are shown, and its payments of each direction and currency.
const SHOWN: usize = 1000;
/// Payments looked through for one of a reference: a million, at 1 KB each, would be read in seconds.
const SEARCHED: usize = 1_000_000;
/// Peers in one answer.
const PEERS: usize = 10_000;

/// Rows of whom the owner trusts, by peer id, as `souk trust` writes them.
const TRUST: &str = "trust/";
/// Bytes of such a row.
const TRUST_BYTES: usize = 64 * 1024;

/// Such a row.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    trusted_at: Timestamp,
    credit: Vec<(Currency, Amount)>,
}

impl Ledger {
    /// Peers that the owner trusts, and how much each may owe.
    #[must_use]
    pub fn trusted_peers(&self) -> Vec<(NodeId, Vec<(Currency, Amount)>)> {
        let row = |(key, value): (Vec<u8>, Vec<u8>)| {
            let peer = std::str::from_utf8(key.get(TRUST.len()..)?).ok()?.parse().ok()?;
            let trusted = encode::from_bytes::<Trusted>(&value, TRUST_BYTES).ok()?;
            Some((peer, trusted.credit))
        };
        self.rows(TRUST.as_bytes()).into_iter().filter_map(row).collect()
    }

    /// Writes a row of the node's own, or removes it. Waits while the disk is hopelessly behind. The ledger's ticket; none if its
    /// thread has ended, which its progress tells.
    pub async fn keep(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<u64> {
        let fact = Fact::Private(PrivateRow::Row { key, value: value.map(Into::into) });
        loop {
            match self.hand_over(fact.clone()) {
                Ok(ticket) => return Some(ticket.0),
                Err(AppendError::Full) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                Err(AppendError::Closed) => return None,
            }
        }
    }

    /// A row of the node's own.
    #[must_use]
    pub fn kept(&self, key: &[u8]) -> Option<Vec<u8>> {
        logged(self.view().private(key)).flatten()
    }

    /// All rows of the node's own whose keys begin so.
    #[must_use]
    pub fn rows(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        logged(self.view().private_rows(prefix)).unwrap_or_default()
    }

    /// A payment of ours with this reference that is in our chain.
    #[must_use]
    pub fn paid_as(&self, peer: &NodeId, currency: &Currency, reference: &str) -> Option<Settlement> {
        let of = SettlementKey { peer: *peer, currency: currency.clone(), by_us: true };
        let rows = logged(self.view().settlements(&of, SEARCHED)).unwrap_or_default();
        rows.into_iter().find(|row| row.reference == reference)
    }

    /// Completes what is asked about one account with what the ledger has.
    pub fn account(&self, detail: AccountDetail, reply: Reply<AccountDetail>) {
        self.beside(reply, move |view| fill(view, detail).map_err(|e| unreadable(&e)));
    }

    /// A month with one peer, or with all.
    pub fn invoices(
        &self,
        request: InvoiceRequest,
        peer: Option<NodeId>,
        name: Option<String>,
        reply: Reply<Vec<InvoiceView>>,
    ) {
        self.beside(reply, move |view| {
            let month: Month = request.month.parse().map_err(|e: souk_ledger::months::NotAMonth| {
                CommandError::new(ErrorCode::BadRequest, e.to_string()).hint("souk invoice --month 2026-11")
            })?;
            invoices(view, month, peer, name.as_deref()).map_err(|e| unreadable(&e))
        });
    }
}

fn fill(view: &View, mut detail: AccountDetail) -> Result<AccountDetail, QueryError> {
    let peer = detail.peer;
    let mut leases = view.leases(Select::Renter(peer), SHOWN)?;
    leases.extend(view.leases(Select::Host(peer), SHOWN)?);
    leases.sort_by_key(|lease| std::cmp::Reverse(lease.number));
    leases.truncate(SHOWN);
    detail.leases = leases.iter().map(|lease| lease_view(lease, view.own())).collect();
    for key in view.settled(Some(&peer))? {
        let rows = view.settlements(&key, SHOWN)?;
        detail.settlements.extend(rows.into_iter().map(|row| settlement_view(&key, row)));
    }
    detail.settlements.sort_by_key(|row| std::cmp::Reverse(row.at_ms));
    Ok(detail)
}

fn lease_view(lease: &Lease, own: NodeId) -> AccountLease {
    AccountLease {
        lease: lease.id(),
        number: lease.number,
        label: lease.label.clone(),
        hosted: lease.host() == own,
        status: lease.status().name().to_owned(),
        currency: lease.currency().clone(),
        agreed: lease.agreed(),
        claimed: lease.claimed(),
    }
}

fn settlement_view(key: &SettlementKey, row: Settlement) -> SettlementView {
    SettlementView {
        by_us: key.by_us,
        n: row.n,
        settle: row.id,
        at_ms: row.time,
        currency: key.currency.clone(),
        amount: row.amount,
        total: row.total,
        method: row.method,
        reference: row.reference,
        arrived_total: row.ack.map(|ack| ack.total),
        ack: row.ack.map(|ack| ack.id),
        ack_at_ms: row.ack.map(|ack| ack.time),
    }
}

fn invoices(
    view: &View,
    month: Month,
    peer: Option<NodeId>,
    name: Option<&str>,
) -> Result<Vec<InvoiceView>, QueryError> {
    let peers = match peer {
        Some(peer) => vec![peer],
        None => {
            let all: std::collections::BTreeSet<NodeId> =
                view.balances(None)?.into_iter().map(|(peer, ..)| peer).collect();
            all.into_iter().take(PEERS).collect()
        }
    };
    let mut found = Vec::new();
    for peer in peers {
        let statements = view.statements(&peer, month)?.into_iter().filter(|s| !s.is_empty());
        found.extend(statements.map(|s| invoice_view(view.own(), name, s, now())));
    }
    Ok(found)
}

fn magnitude(amount: i128) -> Amount {
    Amount(u64::try_from(amount.unsigned_abs()).unwrap_or(u64::MAX))
}

fn total(amounts: impl Iterator<Item = Amount>) -> Amount {
    amounts.fold(Amount::ZERO, Amount::saturating_add)
}

fn invoice_view(node: NodeId, name: Option<&str>, s: Statement, now: Timestamp) -> InvoiceView {
    let lines = |lines: Vec<Line>| lines.into_iter().map(invoice_line).collect::<Vec<_>>();
    let paid = |lines: Vec<PaidLine>| lines.into_iter().map(invoice_payment).collect::<Vec<_>>();
    let (sold, bought, received, paid) = (lines(s.sold), lines(s.bought), paid(s.received), paid(s.paid));
    InvoiceView {
        month: s.month.to_string(),
        from_ms: s.month.start(),
        to_ms: s.month.next().start(),
        so_far: now < s.month.next().start(),
        node,
        name: name.map(str::to_owned),
        peer: s.peer,
        currency: s.currency,
        opening_owed_to_us: s.opening >= 0,
        opening: magnitude(s.opening),
        sold_total: total(sold.iter().map(|l| l.amount)),
        sold,
        bought_total: total(bought.iter().map(|l| l.amount)),
        bought,
        received_total: total(received.iter().map(|p| p.arrived)),
        received,
        paid_total: total(paid.iter().map(|p| p.arrived)),
        paid,
        closing_owed_to_us: s.closing >= 0,
        closing: magnitude(s.closing),
    }
}

fn invoice_line(line: Line) -> InvoiceLine {
    InvoiceLine {
        amount: line.amount(),
        lease: line.lease,
        number: line.number,
        label: line.label,
        image: line.image,
        opened_ms: line.opened_at,
        before: line.before,
        after: line.agreed.due,
        receipt: line.agreed.document,
        usage: line.agreed.usage.map(|(id, _)| id),
        usage_n: line.agreed.usage.map(|(_, n)| n),
        at_ms: line.agreed.time,
    }
}

fn invoice_payment(line: PaidLine) -> InvoicePayment {
    let PaidLine { payment, arrived } = line;
    InvoicePayment {
        settle: payment.id,
        ack: payment.ack.map(|ack| ack.id),
        at_ms: payment.ack.map_or(payment.time, |ack| ack.time),
        method: payment.method,
        reference: payment.reference,
        amount: payment.amount,
        arrived,
    }
}
