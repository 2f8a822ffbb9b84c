//! Accounts with other nodes, payments, and invoices.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Currency, DocumentId, LeaseId, NodeId, Timestamp};

use super::decimal;

/// What is between this node and all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountsView {
    /// One for each peer and currency.
    pub accounts: Vec<AccountView>,
    /// What strangers may use unpaid in a day, all together, in minutes of one slot.
    pub pot_minutes: u64,
    /// What of it is taken today.
    pub pot_taken_minutes: u64,
    /// What this node may pay by itself in 24 hours; none for nothing.
    #[serde(with = "decimal::option")]
    pub daily_limit: Option<Amount>,
    /// What of it is paid, or on its way.
    #[serde(with = "decimal")]
    pub daily_spent: Amount,
    /// The limit's currency.
    pub currency: Currency,
    /// Methods this node pays by with a program.
    pub programs: Vec<String>,
}

/// What is between this node and another, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// The other node.
    pub peer: NodeId,
    /// Of all amounts.
    pub currency: Currency,
    /// What the peer owes, by what both have signed. Zero if this node owes, or nobody.
    #[serde(with = "decimal")]
    pub owes_us: Amount,
    /// What the peer has used here and refused to sign for: it counts in what it owes now, until it is paid on top or forgiven.
    #[serde(with = "decimal")]
    pub refused: Amount,
    /// What this node owes, by what both have signed.
    #[serde(with = "decimal")]
    pub we_owe: Amount,
    /// What the peer owes as of now, with what it uses at the moment.
    #[serde(with = "decimal")]
    pub owes_us_now: Amount,
    /// What the peer has signed for as a renter here.
    #[serde(with = "decimal")]
    pub earned: Amount,
    /// What this node has signed for as a renter there.
    #[serde(with = "decimal")]
    pub spent: Amount,
    /// What the peer says to have paid.
    #[serde(with = "decimal")]
    pub received_claimed: Amount,
    /// What of it has arrived.
    #[serde(with = "decimal")]
    pub received: Amount,
    /// What this node has paid.
    #[serde(with = "decimal")]
    pub paid: Amount,
    /// What of it has arrived, by the peer's word.
    #[serde(with = "decimal")]
    pub paid_acked: Amount,
    /// What of it this node's owner has written off, and the peer has not confirmed since: it is owed again.
    #[serde(with = "decimal")]
    pub lost: Amount,
    /// When the peer pays for its use: `before`, `after` or `never`.
    pub pays: String,
    /// How far the peer may be unpaid, or pays ahead: its slice, or its line of credit.
    #[serde(with = "decimal")]
    pub slice: Amount,
    /// Since when the peer's instances are stopped for what is unpaid.
    pub stopped_since_ms: Option<Timestamp>,
    /// Payments of the peer that a person is to confirm.
    pub to_confirm: usize,
    /// Whether the peer is connected.
    pub connected: bool,
}

/// All about one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetail {
    /// Which.
    pub peer: NodeId,
    /// One for each currency.
    pub accounts: Vec<AccountView>,
    /// Leases with it, newest first, at most 1000.
    pub leases: Vec<AccountLease>,
    /// Payments both ways that are in a chain, newest first, at most 1000 each way and currency.
    pub settlements: Vec<SettlementView>,
    /// Payments to it that are under way here, or were lately.
    pub payments: Vec<PaymentView>,
    /// Its payments that nobody has answered yet.
    pub claims: Vec<ClaimView>,
}

/// A lease, as an account has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLease {
    /// Which.
    pub lease: LeaseId,
    /// Its row number here.
    pub number: u64,
    /// Its name here.
    pub label: Option<String>,
    /// Whether this node is its host.
    pub hosted: bool,
    /// How far it has come.
    pub status: String,
    /// Of both amounts.
    pub currency: Currency,
    /// What the renter has signed for.
    #[serde(with = "decimal")]
    pub agreed: Amount,
    /// What the host claims.
    #[serde(with = "decimal")]
    pub claimed: Amount,
}

/// A payment that is in its payer's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlementView {
    /// Whether this node paid.
    pub by_us: bool,
    /// Its number in this direction and currency.
    pub n: u32,
    /// The payer's entry.
    pub settle: DocumentId,
    /// When it was signed.
    pub at_ms: Timestamp,
    /// Of both amounts.
    pub currency: Currency,
    /// This payment.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// All payments up to it.
    #[serde(with = "decimal")]
    pub total: Amount,
    /// How.
    pub method: String,
    /// What the payee finds it by.
    pub reference: String,
    /// All that has arrived, by the payee's newest answer to it; none while there is none.
    #[serde(with = "decimal::option")]
    pub arrived_total: Option<Amount>,
    /// The payee's entry.
    pub ack: Option<DocumentId>,
    /// When that was signed.
    pub ack_at_ms: Option<Timestamp>,
}

/// A payment of this node's, from the intention on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentView {
    /// Its name everywhere.
    pub reference: String,
    /// To whom.
    pub peer: NodeId,
    /// In what.
    pub currency: Currency,
    /// How much.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// How.
    pub method: String,
    /// `person`, or `node` for what was paid without asking.
    pub by: String,
    /// When it was intended.
    pub at_ms: Timestamp,
    /// `intended`, `paid`, `settled` (in our chain) or `failed`.
    pub state: String,
    /// The program's proof.
    pub receipt: Option<String>,
    /// Why it failed, or what went wrong when it was last tried.
    pub problem: Option<String>,
}

/// A payment of a peer that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimView {
    /// The peer's entry.
    pub settle: DocumentId,
    /// When it was signed.
    pub at_ms: Timestamp,
    /// Of the amount.
    pub currency: Currency,
    /// How much.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// How.
    pub method: String,
    /// What to look for.
    pub reference: String,
    /// `program` or `person`: who says whether it has arrived.
    pub looked_for_by: String,
    /// What went wrong when the program was last asked.
    pub problem: Option<String>,
}

/// A payment to make, or that was made by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayRequest {
    /// How much.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// In what; none for the renter's currency.
    #[serde(default)]
    pub currency: Option<Currency>,
    /// How: a method with a program, or `manual`, which says that it was paid outside. None for what the host's leases name.
    #[serde(default)]
    pub method: Option<String>,
    /// What the payee finds it by; the same one again is the same payment. None for one that nobody has.
    #[serde(default)]
    pub reference: Option<String>,
}

/// What has arrived of a peer's payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceivedRequest {
    /// How much of it.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// Which payment, if several wait.
    #[serde(default)]
    pub reference: Option<String>,
}

/// What to let go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgiveRequest {
    /// Waive what its renter has not signed for of this lease, instead of forgetting what it has refused before.
    #[serde(default)]
    pub lease: Option<String>,
    /// The reference of a payment of this node's that the peer has not confirmed, to hold for lost: it is owed again, and a payment
    /// program pays it again within its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// The reference of a payment of this node's that was not made, and is not to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
}

/// Which month, with whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceRequest {
    /// `2026-11`, in UTC.
    pub month: String,
    /// A peer id, or its first or last characters; none for everybody.
    #[serde(default)]
    pub peer: Option<String>,
}

/// A month with one peer in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceView {
    /// `2026-11`.
    pub month: String,
    /// The month's first moment.
    pub from_ms: Timestamp,
    /// The first moment after it.
    pub to_ms: Timestamp,
    /// Whether the month is not over yet.
    pub so_far: bool,
    /// This node.
    pub node: NodeId,
    /// Who that is, by `payment.name` in its configuration.
    pub name: Option<String>,
    /// The other node.
    pub peer: NodeId,
    /// Of all amounts.
    pub currency: Currency,
    /// Whether the peer owed `opening`; otherwise this node did.
    pub opening_owed_to_us: bool,
    /// What was owed when the month began.
    #[serde(with = "decimal")]
    pub opening: Amount,
    /// What the peer used of this node's.
    pub sold: Vec<InvoiceLine>,
    /// All of that.
    #[serde(with = "decimal")]
    pub sold_total: Amount,
    /// What this node used of the peer's.
    pub bought: Vec<InvoiceLine>,
    /// All of that.
    #[serde(with = "decimal")]
    pub bought_total: Amount,
    /// What the peer paid, as far as it has arrived.
    pub received: Vec<InvoicePayment>,
    /// All of that.
    #[serde(with = "decimal")]
    pub received_total: Amount,
    /// What this node paid, as far as it has arrived.
    pub paid: Vec<InvoicePayment>,
    /// All of that.
    #[serde(with = "decimal")]
    pub paid_total: Amount,
    /// Whether the peer owes `closing`; otherwise this node does.
    pub closing_owed_to_us: bool,
    /// What is owed at the month's end.
    #[serde(with = "decimal")]
    pub closing: Amount,
}

/// What a lease cost in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceLine {
    /// Which.
    pub lease: LeaseId,
    /// Its row number here.
    pub number: u64,
    /// Its name here.
    pub label: Option<String>,
    /// The image, or `volume`.
    pub image: String,
    /// When it was opened.
    pub opened_ms: Timestamp,
    /// What had been agreed to before the month.
    #[serde(with = "decimal")]
    pub before: Amount,
    /// What was agreed to at its end.
    #[serde(with = "decimal")]
    pub after: Amount,
    /// The difference.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// The document in which the renter has signed for it.
    pub receipt: DocumentId,
    /// The host's usage that this answers.
    pub usage: Option<DocumentId>,
    /// That one's number.
    pub usage_n: Option<u64>,
    /// When it was signed.
    pub at_ms: Timestamp,
}

/// A payment that arrived in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoicePayment {
    /// The payer's entry.
    pub settle: DocumentId,
    /// The payee's entry.
    pub ack: Option<DocumentId>,
    /// When the payee signed that it has arrived.
    pub at_ms: Timestamp,
    /// How.
    pub method: String,
    /// What it was found by.
    pub reference: String,
    /// What was paid.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// What of it has arrived.
    #[serde(with = "decimal")]
    pub arrived: Amount,
}
