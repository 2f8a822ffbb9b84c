//! What two nodes say about money paid between them.
//!
//! Cumulative, as everything about money here: the newest settlement says all that was ever paid, so a lost one costs nothing
//! and there is nothing to replay. Owns the documents' form and bounds; that they follow from each other is the ledger's.

use serde::{Deserialize, Serialize};

use crate::{
    id::DocumentId,
    money::{Amount, Currency},
    signed::Invalid,
};

/// Bytes of a payment method's name.
pub const METHOD_BYTES: usize = 32;
/// Bytes of a payment's reference.
pub const REFERENCE_BYTES: usize = 128;

/// By the payer: it has paid this, outside of souk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settle {
    /// 1, 2, 3 … over all payments to this peer in this currency.
    pub n: u32,
    /// Of both amounts.
    pub currency: Currency,
    /// This payment.
    pub amount: Amount,
    /// All payments to this peer in this currency, this one included.
    pub total: Amount,
    /// How: `manual`, or the name of the program both sides use.
    pub method: String,
    /// What the payee finds the money by.
    pub reference: String,
}

impl Settle {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.n > 0, "payments are counted from 1")?;
        self.currency.check()?;
        Invalid::unless(self.amount > Amount::ZERO, "a payment is of more than nothing")?;
        Invalid::unless(self.total >= self.amount, "the sum of all payments is less than one of them")?;
        let first = self.n > 1 || self.total == self.amount;
        Invalid::unless(first, "the first payment is the sum of all of them")?;
        method(&self.method)?;
        Invalid::text(&self.reference, REFERENCE_BYTES, "the payment's reference")
    }
}

/// Checks the name of a payment method: 1 to [`METHOD_BYTES`] of `a-z`, `0-9` and `-`.
///
/// # Errors
/// [`Invalid`].
pub fn method(name: &str) -> Result<(), Invalid> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    Invalid::unless(plain && (1..=METHOD_BYTES).contains(&name.len()), "a payment method is up to 32 of a-z, 0-9 and -")
}

/// By the payee: so much of all that the payer says to have paid has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettleAck {
    /// The settlement it answers …
    pub settle: DocumentId,
    /// … and that one's number.
    pub n: u32,
    /// The currency.
    pub currency: Currency,
    /// All that has arrived from this peer in this currency; never less than acknowledged before, never more than settled.
    pub total: Amount,
}

impl SettleAck {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.n > 0, "payments are counted from 1")?;
        self.currency.check()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settle() -> Settle {
        Settle {
            n: 1,
            currency: Currency::usd(),
            amount: Amount(5),
            total: Amount(5),
            method: "manual".to_owned(),
            reference: "INV-7".to_owned(),
        }
    }

    #[test]
    fn bounds() {
        settle().check().unwrap();
        let bad = [
            Settle { n: 0, ..settle() },
            Settle { amount: Amount::ZERO, total: Amount::ZERO, ..settle() },
            Settle { total: Amount(4), ..settle() },
            Settle { total: Amount(6), ..settle() },
            Settle { method: String::new(), ..settle() },
            Settle { method: "Manual".to_owned(), ..settle() },
            Settle { method: "m".repeat(33), ..settle() },
            Settle { reference: "r".repeat(129), ..settle() },
            Settle { reference: "a\nb".to_owned(), ..settle() },
            Settle { currency: Currency("usd".to_owned()), ..settle() },
        ];
        for settle in bad {
            settle.check().unwrap_err();
        }
        Settle { n: 2, total: Amount(6), ..settle() }.check().unwrap();
    }
}
