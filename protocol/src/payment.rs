//! What a lease says about being paid, and what a host asks of a renter whose account runs low.
//!
//! Owns the documents' form and bounds. When a host asks, and when it stops, is the account's: [`crate::machine::account`].

use serde::{Deserialize, Serialize};

use crate::{money::Amount, settlement, signed::Invalid};

/// Payment methods a draft may name.
pub const METHODS: usize = 8;

/// When use is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayWhen {
    /// After it: the account may be unpaid by a slice, and a quarter more before compute stops.
    After,
    /// Before it: compute runs while something paid ahead is left.
    Before,
}

/// How a lease is paid, in its draft. A lease without it keeps the account, and nobody is stopped for what is unpaid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentTerms {
    /// When.
    pub when: PayWhen,
    /// How: methods the host takes, the one it prefers first.
    pub methods: Vec<String>,
    /// The slice of the account at the time of the draft: how far it may be unpaid, or is to be paid ahead.
    pub slice: Amount,
    /// To be paid with the open, on top of what is paid ahead already. Zero for nothing.
    pub first: Amount,
}

impl PaymentTerms {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::unless((1..=METHODS).contains(&self.methods.len()), "it is paid by no method, or by too many")?;
        self.methods.iter().try_for_each(|name| settlement::method(name))?;
        let first = self.when == PayWhen::Before || self.first == Amount::ZERO;
        Invalid::unless(first, "what is paid after use has no first payment")
    }
}

/// How far an account is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayLevel {
    /// Half of the slice is used: a payment is asked for.
    Asked,
    /// All of it is, or, of what was paid ahead, three quarters: compute stops soon.
    Warned,
    /// Compute has stopped until a payment has arrived.
    Stopped,
}

impl PayLevel {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Warned => "warned",
            Self::Stopped => "stopped",
        }
    }
}

/// A host's word to a renter whose account runs low. Binds nobody: the renter pays by its own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentAsk {
    /// How far it is used up.
    pub level: PayLevel,
    /// When use is paid.
    pub when: PayWhen,
    /// What is owed over all leases of the two, by the host's count; zero if something is paid ahead.
    pub owed: Amount,
    /// What is left of what was paid ahead; zero if something is owed.
    pub ahead: Amount,
    /// The slice.
    pub slice: Amount,
    /// What to pay now.
    pub pay: Amount,
    /// What has arrived from the renter, in all.
    pub received: Amount,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds() {
        let good = PaymentTerms {
            when: PayWhen::Before,
            methods: vec!["manual".to_owned()],
            slice: Amount(5),
            first: Amount(5),
        };
        good.check().unwrap();
        PaymentTerms { when: PayWhen::After, first: Amount::ZERO, ..good.clone() }.check().unwrap();
        let bad = [
            PaymentTerms { methods: Vec::new(), ..good.clone() },
            PaymentTerms { methods: vec!["m".to_owned(); METHODS + 1], ..good.clone() },
            PaymentTerms { methods: vec!["Bank".to_owned()], ..good.clone() },
            PaymentTerms { when: PayWhen::After, ..good },
        ];
        for terms in bad {
            terms.check().unwrap_err();
        }
    }
}
