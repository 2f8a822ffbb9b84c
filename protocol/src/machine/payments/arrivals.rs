//! Payments of peers: whether they have arrived, by the word of a program or of a person.
//!
//! A method with a program is looked for by it, as long as it says that nothing can be said yet. What has no program waits for
//! a person. One piece of money counts once: a reference under which something has arrived is used up, for whoever claims it
//! again. Nothing of this is on disk but the used references: what is not answered is claimed again after a restart, by the
//! engine.

use std::collections::{BTreeMap, VecDeque};

use super::{AGAIN, longer, wait};
use crate::{
    id::{DocumentId, NodeId},
    money::Amount,
    settlement::Settle,
    time::{Millis, Timestamp},
};

/// While an open waits for its first payment, it is looked for so often.
const URGENT: Millis = Millis::from_secs(1);
/// Used references that are remembered here; older ones are on disk by then.
const USED: usize = 4096;

/// A payment that a peer says to have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The peer's `settle`.
    pub settle: DocumentId,
    /// Who.
    pub peer: NodeId,
    /// What it says.
    pub said: Settle,
    /// When it was signed.
    pub time: Timestamp,
    /// Something waits for it until then.
    pub until: Option<Timestamp>,
}

/// Who says whether it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowFound {
    /// A program of this node's owner.
    Program,
    /// A person.
    Person,
}

/// What a program said about a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is there.
    Arrived {
        /// So much of it; none for all.
        amount: Option<Amount>,
    },
    /// It can't be said yet.
    Pending {
        /// Ask again after this.
        after: Option<Millis>,
    },
    /// It has not arrived, and will not.
    Nothing {
        /// Why.
        why: String,
    },
    /// Nothing that can be understood.
    Unknown {
        /// What happened instead.
        why: String,
    },
}

/// What is to be done next, by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Ask the program, and bring its answer to [`Arrivals::found`].
    Ask(Claim),
    /// A person is to look: [`Arrivals::confirm`].
    Tell(Claim),
    /// Write down that this claim has used its reference up; then …
    Use(Claim),
    /// … tell the engine what has arrived, or why nothing has.
    Done(Claim, Result<Amount, String>),
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    how: HowFound,
    /// When the program is asked; none while it is.
    at: Option<Timestamp>,
    retry: Millis,
    problem: Option<String>,
}

/// All claims that are not answered.
#[derive(Debug, Default)]
pub struct Arrivals {
    waiting: BTreeMap<DocumentId, Waiting>,
    used: BTreeMap<(String, String), DocumentId>,
    order: VecDeque<(String, String)>,
    steps: VecDeque<Look>,
}

fn key(claim: &Claim) -> (String, String) {
    (claim.said.method.clone(), claim.said.reference.clone())
}

impl Arrivals {
    /// A peer says to have paid. `used_by` is what the disk has of the reference. Their number is bounded by the engine.
    pub fn claimed(&mut self, claim: Claim, how: HowFound, used_by: Option<DocumentId>) {
        if let Some(known) = self.waiting.get_mut(&claim.settle) {
            known.claim.until = known.claim.until.max(claim.until);
            return;
        }
        if let (HowFound::Program, Some(_)) = (how, self.user(&claim, used_by)) {
            self.steps.push_back(Look::Done(claim, Err("its reference was used by another payment".to_owned())));
            return;
        }
        let step = match how {
            HowFound::Program => Look::Ask(claim.clone()),
            HowFound::Person => Look::Tell(claim.clone()),
        };
        self.steps.push_back(step);
        let waiting = Waiting { claim, how, at: None, retry: AGAIN.0, problem: None };
        self.waiting.insert(waiting.claim.settle, waiting);
    }

    /// Another claim that has used the reference of this one up.
    fn user(&self, claim: &Claim, on_disk: Option<DocumentId>) -> Option<DocumentId> {
        let here = self.used.get(&key(claim)).copied();
        [here, on_disk].into_iter().flatten().find(|by| *by != claim.settle)
    }

    /// The program has answered, or has not. `used_by` is what the disk has of the reference.
    pub fn found(&mut self, settle: &DocumentId, found: Found, used_by: Option<DocumentId>, now: Timestamp) {
        let Some(waiting) = self.waiting.get_mut(settle) else { return };
        let urgent = waiting.claim.until.is_some_and(|until| now < until);
        let again = |waiting: &mut Waiting, after: Option<Millis>| {
            let pause = if urgent { URGENT } else { wait(after, waiting.retry) };
            waiting.at = Some(now + pause);
            if !urgent {
                waiting.retry = longer(waiting.retry);
            }
        };
        match found {
            Found::Pending { after } => {
                waiting.problem = None;
                again(waiting, after);
            }
            Found::Unknown { why } => {
                waiting.problem = Some(why);
                again(waiting, None);
            }
            Found::Nothing { why } => self.over(settle, Err(why)),
            Found::Arrived { amount } => {
                let claim = waiting.claim.clone();
                if self.user(&claim, used_by).is_some() {
                    self.over(settle, Err("its reference was used by another payment".to_owned()));
                    return;
                }
                let arrived = amount.unwrap_or(claim.said.amount).min(claim.said.amount);
                if arrived > Amount::ZERO {
                    self.use_up(&claim);
                }
                self.over(settle, Ok(arrived));
            }
        }
    }

    fn use_up(&mut self, claim: &Claim) {
        if self.used.insert(key(claim), claim.settle).is_none() {
            self.order.push_back(key(claim));
        }
        if self.order.len() > USED
            && let Some(oldest) = self.order.pop_front()
        {
            self.used.remove(&oldest);
        }
        self.steps.push_back(Look::Use(claim.clone()));
    }

    fn over(&mut self, settle: &DocumentId, result: Result<Amount, String>) {
        if let Some(waiting) = self.waiting.remove(settle) {
            self.steps.push_back(Look::Done(waiting.claim, result));
        }
    }

    /// A person says what has arrived of a claim, whoever was to look for it: more than was claimed is not taken. None if there is
    /// no such claim.
    pub fn confirm(&mut self, settle: &DocumentId, arrived: Amount) -> Option<Amount> {
        let claim = self.waiting.get(settle)?.claim.clone();
        let arrived = arrived.min(claim.said.amount);
        if arrived > Amount::ZERO {
            self.use_up(&claim);
        }
        self.over(settle, Ok(arrived));
        Some(arrived)
    }

    /// Claims that wait, with who looks for them and what went wrong last.
    pub fn iter(&self) -> impl Iterator<Item = (&Claim, HowFound, Option<&str>)> {
        self.waiting.values().map(|w| (&w.claim, w.how, w.problem.as_deref()))
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Timestamp) {
        for waiting in self.waiting.values_mut() {
            // A clock that was set back makes nobody wait longer than was meant.
            waiting.at = waiting.at.map(|at| at.min(now + super::LATER_MOST));
            if waiting.at.is_some_and(|at| at <= now) {
                waiting.at = None;
                self.steps.push_back(Look::Ask(waiting.claim.clone()));
            }
        }
    }

    /// When to call [`Self::tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.waiting.values().filter_map(|w| w.at).min()
    }

    /// What is to be done next, in order.
    pub fn poll(&mut self) -> Option<Look> {
        self.steps.pop_front()
    }
}

#[cfg(test)]
#[path = "arrivals_tests.rs"]
mod tests;
