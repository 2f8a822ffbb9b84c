//! Money: the programs that pay and look for payments, how a host is paid, and what a renter pays by itself.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Millis, machine::account, payment, settlement};

use super::values;

/// The method that needs no program: people pay, and say so.
pub const MANUAL: &str = "manual";
/// How long a program may take at most.
const TIMEOUT: (Millis, Millis) = (Millis::from_secs(1), Millis::from_mins(10));
/// Programs at most.
const PROGRAMS: usize = 16;
/// Bytes of a name on invoices.
const NAME_BYTES: usize = 400;

/// How money is paid and found, and what invoices say.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Payment {
    /// Who this is, on invoices: name and address, lines divided by `\n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Programs, one for each method.
    pub programs: Vec<PaymentProgram>,
}

/// A program that pays by a method, and says what has arrived by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentProgram {
    /// The method's name: up to 32 of `a-z`, `0-9` and `-`, not `manual`.
    pub method: String,
    /// Run by `/bin/sh -c`, with the question as JSON on its standard input.
    pub command: String,
    /// How long it may take; then it is killed, and asked again later.
    #[serde(default = "timeout", with = "values::duration")]
    pub timeout: Millis,
}

const fn timeout() -> Millis {
    Millis::from_secs(30)
}

/// When a renter pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayWhen {
    /// Before use, a slice ahead.
    Before,
    /// After use, when a slice is used.
    After,
    /// When it likes: nobody is stopped for what is unpaid.
    Never,
}

impl PayWhen {
    const fn rule(self) -> Option<payment::PayWhen> {
        match self {
            Self::Before => Some(payment::PayWhen::Before),
            Self::After => Some(payment::PayWhen::After),
            Self::Never => None,
        }
    }
}

/// What becomes of a difference that a renter does not acknowledge for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disputed {
    /// It is waived, and the lease goes on.
    Waive,
    /// The lease ends.
    Close,
}

/// How a host is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostPayment {
    /// Methods it takes, the one it prefers first. Empty: nobody is asked for payment.
    pub methods: Vec<String>,
    /// When strangers pay.
    pub strangers: PayWhen,
    /// When the peers in `host.accept.peers`, and those with a line of credit, pay.
    pub known: PayWhen,
    /// How much use, at a lease's price, its first slice is worth.
    #[serde(with = "values::duration")]
    pub slice: Millis,
    /// The most that a first slice is; none for no cap.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub slice_most: Option<Amount>,
    /// Unpaid use that all strangers together get in a day, in minutes of one slot.
    pub pot_minutes: u32,
    /// How long what is stopped for money is kept.
    #[serde(with = "values::duration")]
    pub keep: Millis,
    /// What becomes of a difference that a renter does not acknowledge for a day.
    pub disputed: Disputed,
}

impl Default for HostPayment {
    fn default() -> Self {
        let rules = account::Lending::default();
        Self {
            methods: Vec::new(),
            strangers: PayWhen::Before,
            known: PayWhen::After,
            slice: rules.slice,
            slice_most: None,
            pot_minutes: 30,
            keep: rules.keep,
            disputed: Disputed::Waive,
        }
    }
}

impl HostPayment {
    /// As the accounts' rules have it. Peers and lines are not in the configuration alone: the caller adds them.
    #[must_use]
    pub fn rules(&self) -> account::Lending {
        account::Lending {
            methods: self.methods.clone(),
            strangers: self.strangers.rule(),
            known: self.known.rule(),
            slice: self.slice,
            slice_most: self.slice_most,
            pot: u64::from(self.pot_minutes) * 60_000,
            keep: self.keep,
            disputed: match self.disputed {
                Disputed::Waive => account::Disputed::Waive,
                Disputed::Close => account::Disputed::Close,
            },
            ..account::Lending::default()
        }
    }
}

/// What a renter pays by itself, in `renter.currency`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RenterPayment {
    /// What this node may pay by itself in any 24 hours; none for nothing.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub daily_limit: Option<Amount>,
    /// The most that is paid ahead to one host; none for what it has earned trust for, a slice.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub ahead_most: Option<Amount>,
}

type Wrong = (&'static str, String);

fn unless(ok: bool, key: &'static str, why: &str) -> Result<(), Wrong> {
    if ok { Ok(()) } else { Err((key, why.to_owned())) }
}

impl Payment {
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let name = self.name.as_deref().unwrap_or_default();
        let plain = name.len() <= NAME_BYTES && name.chars().all(|c| c == '\n' || !c.is_control());
        unless(plain, "payment.name", "it must be at most 400 bytes, without control characters")?;
        unless(self.programs.len() <= PROGRAMS, "payment.programs", "there are more than 16")?;
        for (n, program) in self.programs.iter().enumerate() {
            settlement::method(&program.method).map_err(|e| ("payment.programs", e.0))?;
            unless(program.method != MANUAL, "payment.programs", "`manual` needs no program; give it another name")?;
            let first = self.programs[..n].iter().all(|p| p.method != program.method);
            unless(first, "payment.programs", "two programs have one method")?;
            unless(!program.command.trim().is_empty(), "payment.programs", "a program needs a command")?;
            let takes = (TIMEOUT.0..=TIMEOUT.1).contains(&program.timeout);
            unless(takes, "payment.programs", "a program's timeout must be between 1s and 10min")?;
        }
        Ok(())
    }
}

impl HostPayment {
    pub(super) fn check(&self, programs: &[PaymentProgram]) -> Result<(), Wrong> {
        let key = "host.payment.methods";
        unless(self.methods.len() <= payment::METHODS, key, "it must name at most 8 methods, so that a lease can")?;
        for (n, method) in self.methods.iter().enumerate() {
            settlement::method(method).map_err(|e| (key, e.0))?;
            unless(!self.methods[..n].contains(method), key, "it names a method twice")?;
            let known = method == MANUAL || programs.iter().any(|p| p.method == *method);
            unless(
                known,
                key,
                &format!("`{method}` has no program: add [[payment.programs]] with method = \"{method}\""),
            )?;
        }
        let slice = (Millis::from_mins(1)..=Millis::from_hours(24)).contains(&self.slice);
        unless(slice, "host.payment.slice", "it must be between 1min and 24h")?;
        unless(self.keep <= Millis::from_hours(366 * 24), "host.payment.keep", "it must be at most 366days")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::config::Config;

    fn check(text: &str) -> Result<(), String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|(key, why)| format!("{key}: {why}"))
    }

    const BANK: &str = "[[payment.programs]]\nmethod = \"bank\"\ncommand = \"pay\"\n";

    #[test]
    fn a_method_needs_its_program() {
        check(&format!("[host.payment]\nmethods = [\"bank\", \"manual\"]\n{BANK}")).unwrap();
        for (text, what) in [
            ("[host.payment]\nmethods = [\"bank\"]\n".to_owned(), "has no program"),
            ("[host.payment]\nmethods = [\"manual\", \"manual\"]\n".to_owned(), "twice"),
            ("[host.payment]\nslice = \"2days\"\n".to_owned(), "host.payment.slice"),
            ("[host.payment]\nstrangers = \"later\"\n".to_owned(), "later"),
            (format!("{BANK}{BANK}"), "two programs"),
            (BANK.replace("bank", "manual"), "needs no program"),
            (BANK.replace("bank", "Bank"), "payment.programs"),
            (BANK.replace("\"pay\"", "\" \""), "needs a command"),
            (format!("{BANK}timeout = \"1h\"\n"), "timeout"),
            ("[payment]\nname = \"a\\u001b[2J\"\n".to_owned(), "payment.name"),
        ] {
            let error = check(&text).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
