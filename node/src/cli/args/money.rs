//! Options of accounts, payments and invoices.

use std::path::PathBuf;

use clap::Args;
use souk_protocol::{Amount, Currency};

/// `souk account`.
#[derive(Debug, Args)]
pub struct AccountArgs {
    /// A peer id, or its first or last characters; none for all
    pub peer: Option<String>,
    /// Say what has arrived of the peer's payment: all of it, a part, or 0
    #[arg(long, value_name = "AMOUNT", requires = "peer")]
    pub received: Option<Amount>,
    /// Which of its payments, if several wait
    #[arg(long, value_name = "REFERENCE", requires = "received")]
    pub reference: Option<String>,
    /// Forget what the peer has used and refused to sign for: it counts no more in how far it is lent to
    #[arg(long, requires = "peer", conflicts_with = "received")]
    pub forgive: bool,
    /// Waive what the peer, as its renter, has not signed for of a lease: it runs on, or closes, without it
    #[arg(long, value_name = "LEASE", requires = "peer", conflicts_with_all = ["received", "forgive"])]
    pub waive: Option<String>,
    /// Hold a payment of yours for lost that the peer has not confirmed for ten minutes: you owe the sum again, and a payment
    /// program pays it again, within its limits. If the peer confirms it after all, it is paid ahead there
    #[arg(long, value_name = "REFERENCE", requires = "peer", conflicts_with_all = ["received", "forgive", "waive"])]
    pub lost: Option<String>,
    /// Say that a payment which its program can't tell of was not made, and is not to be
    #[arg(long, value_name = "REFERENCE", requires = "peer", conflicts_with_all = ["received", "forgive", "waive", "lost"])]
    pub cancel: Option<String>,
}

/// `souk pay`.
#[derive(Debug, Args)]
pub struct PayArgs {
    /// A peer id, or its first or last characters
    pub peer: String,
    /// How much
    pub amount: Amount,
    /// In what [default: renter.currency]
    #[arg(long, value_name = "CODE", value_parser = currency)]
    pub currency: Option<Currency>,
    /// A method with a program, or `manual`: you have paid outside of souk [default: what the host's leases name]
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// What the payee finds the money by; the same one again is the same payment [default: a new one]
    #[arg(long, value_name = "TEXT")]
    pub reference: Option<String>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Don't wait for the program
    #[arg(short, long)]
    pub detach: bool,
}

/// `souk invoice`.
#[derive(Debug, Args)]
pub struct InvoiceArgs {
    /// The month, as 2026-11, in UTC
    #[arg(long, value_name = "MONTH")]
    pub month: String,
    /// With whom: a peer id, or its first or last characters [default: everybody]
    #[arg(long, value_name = "PEER")]
    pub peer: Option<String>,
    /// Print comma-separated values
    #[arg(long, conflicts_with_all = ["json", "html"])]
    pub csv: bool,
    /// Write a page to print and to send
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub html: Option<PathBuf>,
    /// Who the peer is, on that page: name and address
    #[arg(long, value_name = "TEXT", requires = "html")]
    pub to: Option<String>,
}

fn currency(text: &str) -> Result<Currency, String> {
    let currency = Currency(text.to_owned());
    currency.check().map_err(|e| e.0)?;
    Ok(currency)
}
