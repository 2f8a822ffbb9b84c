//! Our payments: intended, paid by a program, said in our chain.
//!
//! A payment is named by its reference from the first moment. The intention is on disk before a program hears of it, so that
//! after a crash the same reference is asked for again, and never another one: a program that is idempotent by reference pays
//! once, whatever dies when. An answer that is none (a crash, junk, silence) says nothing about the money: the payment stays
//! where it is, and is asked for again. Only the program's own word ends it.
//!
//! What is paid without being asked is bounded: over any 24 hours the intentions that did not fail are within the limit,
//! counted from the disk, so no restart and no order of events makes it more.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{AGAIN, LATER_MOST, longer, wait};
use crate::{
    id::NodeId,
    money::{Amount, Currency},
    settlement,
    time::{Millis, Timestamp},
};

/// Payments under way at once.
const UNDER_WAY: usize = 256;
/// The time over which a limit holds.
const DAY: Millis = Millis::from_hours(24);
/// How long what is over is remembered, so that the same reference is known again.
const REMEMBERED: Millis = Millis::from_hours(7 * 24);

/// Who wanted a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A person, who knows what is paid.
    Person,
    /// This node, since a host asks for it: within the limit.
    Node,
}

/// How far a payment has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It is to be paid; the program may have been asked, once or often.
    Intended,
    /// The program has paid it.
    Paid {
        /// What the program gave as a proof; may be empty.
        receipt: String,
    },
    /// Our chain says so, and the peer is told until it answers.
    Settled {
        /// What the program gave as a proof; may be empty.
        receipt: String,
    },
    /// The program will not pay it. Nothing was paid.
    Failed {
        /// Why, in its words.
        why: String,
    },
}

impl Stage {
    /// Its word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Paid { .. } => "paid",
            Self::Settled { .. } => "settled",
            Self::Failed { .. } => "failed",
        }
    }

    const fn is_over(&self) -> bool {
        matches!(self, Self::Settled { .. } | Self::Failed { .. })
    }
}

/// A payment of ours, as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    /// Names it, here, at the program and at the peer: at most [`settlement::REFERENCE_BYTES`].
    pub reference: String,
    /// To whom.
    pub peer: NodeId,
    /// In what.
    pub currency: Currency,
    /// How much.
    pub amount: Amount,
    /// By which program.
    pub method: String,
    /// Who wanted it.
    pub by: By,
    /// When it was intended.
    pub at: Timestamp,
    /// How far it has come.
    pub stage: Stage,
    /// Whether its program has said that it is on its way. Rows of before it was kept have not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

impl Payout {
    /// Whether both are the same order, however far each has come.
    fn is(&self, other: &Self) -> bool {
        (self.peer, &self.currency, self.amount, &self.method)
            == (other.peer, &other.currency, other.amount, &other.method)
    }
}

/// What a program said about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is paid.
    Paid {
        /// A proof, if it has one.
        receipt: String,
    },
    /// It is on its way: ask again.
    Pending {
        /// After this, if the program says so.
        after: Option<Millis>,
    },
    /// It was not paid and will not be.
    Failed {
        /// Why.
        why: String,
    },
    /// Nothing that can be understood: whether it was paid is not known.
    Unknown {
        /// What happened instead, for people.
        why: String,
    },
}

/// What is to be done next, by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayoutStep {
    /// Write the row, and say so by [`Payouts::written`] once it is on disk.
    Write(Payout),
    /// Ask the program to pay it, and bring its answer to [`Payouts::answered`].
    Ask(Payout),
    /// Say in our chain that it is paid, and report to [`Payouts::signed`].
    Sign(Payout),
    /// It is over: settled, or failed. People may want to hear of it.
    Over(Payout),
    /// Remove the row of this reference.
    Forget(String),
}

/// What may be paid in 24 hours without asking a person, by currency. Nothing in currencies that are not named.
pub type Limits = BTreeMap<Currency, Amount>;

/// Why a payment is not begun. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOrdered {
    /// The reference names another payment.
    #[error("the reference {0} names another payment; give a new one")]
    Taken(String),
    /// It is no payment.
    #[error("this is no payment: {0}")]
    Malformed(String),
    /// Another one to that peer is under way.
    #[error("another payment to this peer is under way; wait until `souk account PEER` shows it as settled")]
    UnderWay,
    /// It would be more than may be paid without asking.
    #[error("{amount} {currency} more would pass the daily limit: {spent} of {limit} are paid or on their way")]
    Limit {
        /// How much.
        amount: Amount,
        /// In what.
        currency: Currency,
        /// What was paid, or is being paid, in the last 24 hours.
        spent: Amount,
        /// What may be.
        limit: Amount,
    },
    /// Too many at once.
    #[error("{UNDER_WAY} payments are under way; wait until some are over")]
    TooMany,
}

/// Why a payment is not cancelled. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCancelled {
    /// No payment has the reference.
    #[error("no payment has this reference; `souk account PEER` lists those of the last days")]
    Unknown,
    /// Money has moved, or the payment has failed already.
    #[error("this payment is {0}: there is nothing to cancel")]
    Over(&'static str),
    /// The program may be paying it now.
    #[error("the program is being asked to pay it now; try again once it has answered")]
    Asking,
    /// The program says that it is on its way.
    #[error("the program says that this payment is on its way; cancel it there, and it is shown here as failed")]
    OnItsWay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its row is being written.
    Writing,
    /// The program is being asked.
    Asking,
    /// The program is asked (again) then.
    Waiting(Timestamp),
    /// The engine is asked to sign.
    Signing,
    /// Over, and on disk.
    Over,
}

#[derive(Debug)]
struct Kept {
    row: Payout,
    phase: Phase,
    retry: Millis,
    problem: Option<String>,
}

/// All payments of ours that are under way, or were lately.
#[derive(Debug, Default)]
pub struct Payouts {
    limits: Limits,
    kept: BTreeMap<String, Kept>,
    steps: VecDeque<PayoutStep>,
}

impl Payouts {
    /// None yet, with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes back a row from the disk. `signed` says whether our chain has this payment already: the row may be older.
    pub fn restore(&mut self, mut row: Payout, signed: bool, now: Timestamp) {
        let settled = match &row.stage {
            Stage::Paid { receipt } if signed => Some(Stage::Settled { receipt: receipt.clone() }),
            Stage::Intended if signed => Some(Stage::Settled { receipt: String::new() }),
            Stage::Intended | Stage::Paid { .. } | Stage::Settled { .. } | Stage::Failed { .. } => None,
        };
        let phase = match (settled, &row.stage) {
            (Some(settled), _) => {
                row.stage = settled;
                self.steps.push_back(PayoutStep::Write(row.clone()));
                Phase::Writing
            }
            (None, Stage::Intended) => Phase::Waiting(now),
            (None, Stage::Paid { .. }) => {
                self.steps.push_back(PayoutStep::Sign(row.clone()));
                Phase::Signing
            }
            (None, Stage::Settled { .. } | Stage::Failed { .. }) => Phase::Over,
        };
        let kept = Kept { row, phase, retry: AGAIN.0, problem: None };
        self.kept.insert(kept.row.reference.clone(), kept);
    }

    /// Begins a payment; one that a person has made already comes as [`Stage::Paid`]. One that is known by its reference is that one
    /// again, and nothing happens.
    ///
    /// # Errors
    /// [`NotOrdered`].
    pub fn order(&mut self, payout: Payout, now: Timestamp) -> Result<(), NotOrdered> {
        if let Some(kept) = self.kept.get(&payout.reference) {
            if !kept.row.is(&payout) {
                return Err(NotOrdered::Taken(payout.reference));
            }
            self.person_orders(&payout, now);
            return Ok(());
        }
        let begins = match payout.stage {
            Stage::Intended => true,
            Stage::Paid { .. } => payout.by == By::Person,
            Stage::Settled { .. } | Stage::Failed { .. } => false,
        };
        if payout.reference.is_empty() || !begins {
            return Err(NotOrdered::Malformed("it has no reference, or has begun already".to_owned()));
        }
        let form = settlement::Settle {
            n: 1,
            currency: payout.currency.clone(),
            amount: payout.amount,
            total: payout.amount,
            method: payout.method.clone(),
            reference: payout.reference.clone(),
        };
        form.check().map_err(|e| NotOrdered::Malformed(e.0))?;
        if self.kept.values().filter(|k| k.phase != Phase::Over).count() >= UNDER_WAY {
            return Err(NotOrdered::TooMany);
        }
        if payout.by == By::Node {
            if self.is_under_way(&payout.peer, &payout.currency) {
                return Err(NotOrdered::UnderWay);
            }
            let limit = self.limits.get(&payout.currency).copied().unwrap_or(Amount::ZERO);
            let spent = self.spent(&payout.currency, now);
            if spent.checked_add(payout.amount).is_none_or(|sum| sum > limit) {
                let Payout { amount, currency, .. } = payout;
                return Err(NotOrdered::Limit { amount, currency, spent, limit });
            }
        }
        self.person_orders(&payout, now);
        self.steps.push_back(PayoutStep::Write(payout.clone()));
        let kept = Kept { row: payout, phase: Phase::Writing, retry: AGAIN.0, problem: None };
        self.kept.insert(kept.row.reference.clone(), kept);
        Ok(())
    }

    /// A person who pays a peer now does not wait for what is to be tried again later with it: that is tried at once, too.
    fn person_orders(&mut self, ordered: &Payout, now: Timestamp) {
        let theirs = |k: &&mut Kept| ordered.by == By::Person && k.row.peer == ordered.peer;
        for kept in self.kept.values_mut().filter(theirs) {
            if let Phase::Waiting(at) = &mut kept.phase {
                *at = now.min(*at);
                kept.retry = AGAIN.0;
            }
        }
    }

    /// Whether something to this peer is intended or paid, and not in our chain yet.
    #[must_use]
    pub fn is_under_way(&self, peer: &NodeId, currency: &Currency) -> bool {
        self.kept.values().any(|k| !k.row.stage.is_over() && k.row.peer == *peer && k.row.currency == *currency)
    }

    /// What this node has paid by itself in the last 24 hours, or is about to. What was dated in the future counts, too.
    #[must_use]
    pub fn spent(&self, currency: &Currency, now: Timestamp) -> Amount {
        self.kept
            .values()
            .map(|k| &k.row)
            .filter(|row| row.by == By::Node && row.currency == *currency && row.at + DAY > now)
            .filter(|row| !matches!(row.stage, Stage::Failed { .. }))
            .fold(Amount::ZERO, |sum, row| sum.saturating_add(row.amount))
    }

    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// All that are remembered, with what went wrong last.
    pub fn iter(&self) -> impl Iterator<Item = (&Payout, Option<&str>)> {
        self.kept.values().map(|k| (&k.row, k.problem.as_deref()))
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<&Payout> {
        self.kept.get(reference).map(|k| &k.row)
    }

    /// The row is on disk as it was handed out.
    pub fn written(&mut self, reference: &str) {
        let Some(kept) = self.kept.get_mut(reference).filter(|k| k.phase == Phase::Writing) else { return };
        let row = kept.row.clone();
        let (phase, step) = match row.stage {
            Stage::Intended => (Phase::Asking, PayoutStep::Ask(row)),
            Stage::Paid { .. } => (Phase::Signing, PayoutStep::Sign(row)),
            Stage::Settled { .. } | Stage::Failed { .. } => (Phase::Over, PayoutStep::Over(row)),
        };
        kept.phase = phase;
        self.steps.push_back(step);
    }

    /// The program has answered, or has not.
    pub fn answered(&mut self, reference: &str, answer: Answer, now: Timestamp) {
        let Some(kept) = self.kept.get_mut(reference).filter(|k| k.phase == Phase::Asking) else { return };
        let again = |kept: &mut Kept, after: Option<Millis>| {
            kept.phase = Phase::Waiting(now + wait(after, kept.retry));
            kept.retry = longer(kept.retry);
        };
        match answer {
            Answer::Paid { receipt } => {
                kept.problem = None;
                kept.row.stage = Stage::Paid { receipt };
            }
            Answer::Failed { why } => kept.row.stage = Stage::Failed { why },
            Answer::Pending { after } => {
                kept.problem = None;
                again(kept, after);
                // Kept, so that no restart makes it one that may be cancelled. It waits meanwhile: nothing rests on this row.
                if !std::mem::replace(&mut kept.row.pending, true) {
                    self.steps.push_back(PayoutStep::Write(kept.row.clone()));
                }
                return;
            }
            Answer::Unknown { why } => {
                kept.problem = Some(why);
                return again(kept, None);
            }
        }
        kept.phase = Phase::Writing;
        let row = kept.row.clone();
        self.steps.push_back(PayoutStep::Write(row));
    }

    /// The engine has taken the payment into our chain, or why it has not. What is paid is never given up: it is asked again.
    pub fn signed(&mut self, reference: &str, result: Result<(), String>, now: Timestamp) {
        let Some(kept) = self.kept.get_mut(reference).filter(|k| k.phase == Phase::Signing) else { return };
        match (result, &kept.row.stage) {
            (Ok(()), Stage::Paid { receipt }) => {
                kept.row.stage = Stage::Settled { receipt: receipt.clone() };
                kept.phase = Phase::Writing;
                let row = kept.row.clone();
                self.steps.push_back(PayoutStep::Write(row));
            }
            (Ok(()), Stage::Intended | Stage::Settled { .. } | Stage::Failed { .. }) => {}
            (Err(why), _) => {
                kept.problem = Some(why);
                kept.phase = Phase::Waiting(now + kept.retry);
                kept.retry = longer(kept.retry);
            }
        }
    }

    /// The owner says that an intended payment was not made, and is not to be. Only after the program was asked in this run of the
    /// node, and could not say how it stands: what it has ever said to be paid or on its way is never cancelled. It fails, and its reference is
    /// not asked for again.
    ///
    /// # Errors
    /// [`NotCancelled`].
    pub fn cancel(&mut self, reference: &str) -> Result<(), NotCancelled> {
        let kept = self.kept.get_mut(reference).ok_or(NotCancelled::Unknown)?;
        match (&kept.row.stage, kept.phase) {
            (Stage::Intended, _) if kept.row.pending => return Err(NotCancelled::OnItsWay),
            (Stage::Intended, Phase::Waiting(_)) if kept.problem.is_some() => {}
            (Stage::Intended, _) => return Err(NotCancelled::Asking),
            (stage @ (Stage::Paid { .. } | Stage::Settled { .. } | Stage::Failed { .. }), _) => {
                return Err(NotCancelled::Over(stage.name()));
            }
        }
        kept.row.stage = Stage::Failed { why: "its owner has cancelled it".to_owned() };
        kept.phase = Phase::Writing;
        self.steps.push_back(PayoutStep::Write(kept.row.clone()));
        Ok(())
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        for kept in self.kept.values_mut() {
            if let Phase::Waiting(at) = kept.phase {
                // A clock that was set back makes nobody wait longer than was meant.
                let at = at.min(now + LATER_MOST);
                kept.phase = Phase::Waiting(at);
                if at <= now {
                    let row = kept.row.clone();
                    let (phase, step) = match row.stage {
                        Stage::Intended => (Phase::Asking, PayoutStep::Ask(row)),
                        Stage::Paid { .. } => (Phase::Signing, PayoutStep::Sign(row)),
                        Stage::Settled { .. } | Stage::Failed { .. } => continue,
                    };
                    kept.phase = phase;
                    self.steps.push_back(step);
                }
            }
        }
        let old = |k: &Kept| k.phase == Phase::Over && k.row.at + REMEMBERED <= now;
        let gone: Vec<String> = self.kept.values().filter(|k| old(k)).map(|k| k.row.reference.clone()).collect();
        for reference in gone {
            self.kept.remove(&reference);
            self.steps.push_back(PayoutStep::Forget(reference));
        }
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let waits = |k: &Kept| if let Phase::Waiting(at) = k.phase { Some(at) } else { None };
        self.kept.values().filter_map(waits).min()
    }

    /// What is to be done next, in order.
    pub fn poll(&mut self) -> Option<PayoutStep> {
        self.steps.pop_front()
    }
}

#[cfg(test)]
#[path = "payouts_tests.rs"]
mod tests;
