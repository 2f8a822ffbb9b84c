//! Payment programs: what they are asked, and what their answers mean.
//!
//! Owns the JSON both ways ([`Question`], and how an answer is read). The processes, their time limits and their ends are
//! [`crate::host::program`]'s; when a program is asked, and what follows, [`souk_protocol::machine::payments`]'s. An answer that
//! is not exactly one of those below says nothing about the money, whatever its exit code.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, Millis, NodeId, Timestamp,
    machine::payments::{Answer, Claim, Found, Payout},
};

use crate::{
    api::types::decimal,
    config::PaymentProgram,
    host::program::{Ended, Programs, line},
};

/// What a program is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Pay, unless this reference was paid before; and say how it stands.
    Pay,
    /// Say whether a payment has arrived.
    Check,
}

/// What a program is asked, as JSON on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What it is to do.
    pub action: Action,
    /// The method's name.
    pub method: String,
    /// Names the payment: the same one, however often it is asked.
    pub reference: String,
    /// This node.
    pub node: NodeId,
    /// The other one: to whom is paid, or who has paid.
    pub peer: NodeId,
    /// Of the amount.
    pub currency: Currency,
    /// How much, as decimal text.
    #[serde(with = "decimal")]
    pub amount: Amount,
    /// The same in 10⁻⁹ of the currency.
    pub amount_nano: u64,
    /// When it was wanted, or signed by its payer.
    pub at_ms: Timestamp,
}

/// How a payment stands, as a program says it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
enum Said {
    Paid {
        #[serde(default)]
        receipt: String,
    },
    Arrived {
        #[serde(default, with = "decimal::option")]
        amount: Option<Amount>,
    },
    Pending {
        #[serde(default)]
        after_s: Option<u32>,
    },
    Failed {
        #[serde(default)]
        why: String,
    },
}

/// The programs of a node, by method. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Methods {
    programs: Programs,
    methods: BTreeMap<String, (String, Duration)>,
}

impl Methods {
    /// Those of the configuration.
    #[must_use]
    pub fn of(programs: &[PaymentProgram]) -> Self {
        let methods = programs.iter().map(|p| (p.method.clone(), (p.command.clone(), p.timeout.to_std()))).collect();
        Self { programs: Programs::default(), methods }
    }

    /// Whether a method has a program.
    #[must_use]
    pub fn has(&self, method: &str) -> bool {
        self.methods.contains_key(method)
    }

    /// The methods that have one.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// Has a payment made, or asks how it stands.
    pub async fn pay(&self, node: NodeId, payout: &Payout) -> Answer {
        let question = Question {
            action: Action::Pay,
            method: payout.method.clone(),
            reference: payout.reference.clone(),
            node,
            peer: payout.peer,
            currency: payout.currency.clone(),
            amount: payout.amount,
            amount_nano: payout.amount.0,
            at_ms: payout.at,
        };
        match self.ask(&question).await {
            Ok(Said::Paid { receipt }) => Answer::Paid { receipt: line(receipt.as_bytes()) },
            Ok(Said::Pending { after_s }) => Answer::Pending { after: after(after_s) },
            Ok(Said::Failed { why }) => Answer::Failed { why: reason(&why) },
            Ok(Said::Arrived { .. }) => Answer::Unknown { why: "it answered `arrived` to `pay`".to_owned() },
            Err(why) => Answer::Unknown { why },
        }
    }

    /// Asks whether a payment has arrived.
    pub async fn check(&self, node: NodeId, claim: &Claim) -> Found {
        let question = Question {
            action: Action::Check,
            method: claim.said.method.clone(),
            reference: claim.said.reference.clone(),
            node,
            peer: claim.peer,
            currency: claim.said.currency.clone(),
            amount: claim.said.amount,
            amount_nano: claim.said.amount.0,
            at_ms: claim.time,
        };
        match self.ask(&question).await {
            Ok(Said::Arrived { amount }) => Found::Arrived { amount },
            Ok(Said::Pending { after_s }) => Found::Pending { after: after(after_s) },
            Ok(Said::Failed { why }) => Found::Nothing { why: reason(&why) },
            Ok(Said::Paid { .. }) => Found::Unknown { why: "it answered `paid` to `check`".to_owned() },
            Err(why) => Found::Unknown { why },
        }
    }

    async fn ask(&self, question: &Question) -> Result<Said, String> {
        let Some((command, limit)) = self.methods.get(&question.method) else {
            return Err(format!("no program pays by `{}`: add it under [[payment.programs]]", question.method));
        };
        let input = serde_json::to_vec(question).map_err(|e| e.to_string())?;
        let ended = self.programs.within(*limit).run(command, input).await;
        read(&ended.map_err(|e| format!("the program {e}"))?)
    }
}

fn after(seconds: Option<u32>) -> Option<Millis> {
    seconds.map(|s| Millis::from_secs(u64::from(s)))
}

fn reason(why: &str) -> String {
    let why = line(why.as_bytes());
    if why.is_empty() { "the program gives no reason".to_owned() } else { why }
}

/// What a program that has ended said.
fn read(ended: &Ended) -> Result<Said, String> {
    let complaint = if ended.complaint.is_empty() { String::new() } else { format!(": {}", ended.complaint) };
    match ended.code {
        Some(0) => {}
        Some(code) => return Err(format!("the program ended with code {code}{complaint}")),
        None => return Err(format!("the program was ended by a signal{complaint}")),
    }
    if ended.cut {
        return Err("the program said more than 4096 bytes".to_owned());
    }
    serde_json::from_slice(&ended.output).map_err(|e| format!("the program's answer is none: {e}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_protocol::{
        DocumentId,
        machine::payments::{By, Stage},
        settlement::Settle,
    };

    use super::*;

    fn methods(command: &str) -> Methods {
        Methods::of(&[PaymentProgram {
            method: "bank".to_owned(),
            command: command.to_owned(),
            timeout: Millis::from_secs(1),
        }])
    }

    fn payout() -> Payout {
        Payout {
            reference: "r'$(touch /nowhere)".to_owned(),
            peer: NodeId([2; 32]),
            currency: Currency::usd(),
            amount: Amount(1_500_000_000),
            method: "bank".to_owned(),
            by: By::Person,
            at: Timestamp(7),
            stage: Stage::Intended,
            pending: false,
        }
    }

    fn claim() -> Claim {
        let p = payout();
        Claim {
            settle: DocumentId([1; 32]),
            peer: p.peer,
            said: Settle {
                n: 1,
                currency: p.currency,
                amount: p.amount,
                total: p.amount,
                method: p.method,
                reference: p.reference,
            },
            time: p.at,
            until: None,
        }
    }

    async fn pay(command: &str) -> Answer {
        methods(command).pay(NodeId([1; 32]), &payout()).await
    }

    async fn check(command: &str) -> Found {
        methods(command).check(NodeId([1; 32]), &claim()).await
    }

    #[tokio::test]
    async fn the_question_is_the_payment_and_no_shell_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("question");
        let command = format!("cat > {}; echo '{{\"state\":\"paid\",\"receipt\":\"tx 7\"}}'", file.display());
        assert_eq!(pay(&command).await, Answer::Paid { receipt: "tx 7".to_owned() });
        let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!((&asked["action"], &asked["amount"]), (&"pay".into(), &"1.50".into()));
        assert_eq!(
            (&asked["amount_nano"], &asked["reference"]),
            (&1_500_000_000u64.into(), &"r'$(touch /nowhere)".into())
        );
    }

    #[tokio::test]
    async fn answers_are_read() {
        let said = |json: &str| format!("cat >/dev/null; echo '{json}'");
        assert_eq!(
            pay(&said(r#"{"state":"pending","after_s":9}"#)).await,
            Answer::Pending { after: Some(Millis(9000)) }
        );
        assert_eq!(
            pay(&said(r#"{"state":"failed"}"#)).await,
            Answer::Failed { why: "the program gives no reason".into() }
        );
        assert_eq!(check(&said(r#"{"state":"arrived"}"#)).await, Found::Arrived { amount: None });
        assert_eq!(
            check(&said(r#"{"state":"arrived","amount":"0.5"}"#)).await,
            Found::Arrived { amount: Some(Amount(500_000_000)) }
        );
        assert_eq!(
            check(&said(r#"{"state":"failed","why":"never \u001b[2Jseen"}"#)).await,
            Found::Nothing { why: "never [2Jseen".into() }
        );
    }

    #[tokio::test]
    async fn whatever_else_it_does_says_nothing_about_the_money() {
        for command in [
            "true",
            "echo paid",
            "echo '{}'",
            r#"echo '{"state":"arrived"}'"#,
            r#"echo '{"state":"paid"} {"state":"paid"}'"#,
            r#"echo '{"state":"paid"}'; exit 1"#,
            r#"echo '{"state":"paid"}'; kill -9 $$"#,
            "sleep 100",
            "sleep 100 & wait",
            "head -c 1000000000 /dev/zero",
            "yes '{\"state\":\"paid\"}'",
            "/nowhere/at-all",
            "exec >&-; exec 2>&-; sleep 100",
        ] {
            assert!(matches!(pay(command).await, Answer::Unknown { .. }), "{command}");
        }
        for command in [
            r#"echo '{"state":"paid"}'"#,
            r#"echo '{"state":"arrived","amount":-1}'"#,
            r#"echo '{"state":"arrived","amount":"1e9"}'"#,
        ] {
            assert!(matches!(check(command).await, Found::Unknown { .. }), "{command}");
        }
        let other = Payout { method: "other".to_owned(), ..payout() };
        assert!(matches!(methods("true").pay(NodeId([1; 32]), &other).await, Answer::Unknown { .. }));
    }
}
