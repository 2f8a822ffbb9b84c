//! Who waits for what: people at the other end of a rent or control command.
//!
//! Owns the waiters and turns the engine's steps into those of the API. Bounded by the engine's limits on negotiations and by
//! the command queue.

use std::collections::BTreeMap;

use souk_protocol::{
    AskId, Currency, LeaseId, NodeId, Timestamp,
    lease::{LeaseState, PauseReason},
    machine::io::{Refusal, Step, Token},
    message::{Action, Progress, Rank},
    terms::BadChange,
};

use super::command::{CommandError, ErrorCode, Reply, StepSender};
use crate::{
    api::types::{LeaseView, RentStep},
    clock::now,
};

/// One rent command under way.
#[derive(Debug)]
struct Rental {
    host: NodeId,
    steps: StepSender,
    currency: Currency,
    detach: bool,
    lease: Option<LeaseId>,
    told: Option<Progress>,
    /// The place among the bids that was told, once waiting was told.
    waits: Option<Option<Rank>>,
    round: u32,
}

/// All waiters.
#[derive(Debug, Default)]
pub struct Rentals {
    rentals: BTreeMap<Token, Rental>,
    controls: BTreeMap<Token, Control>,
}

/// One stop, start or destroy under way.
#[derive(Debug)]
struct Control {
    lease: LeaseId,
    action: Action,
    /// The host has taken it: now its effect is waited for.
    taken: bool,
    since: Timestamp,
    /// Events the lease had then.
    events: u32,
    reply: Reply<LeaseView>,
}

impl Control {
    /// Whether a lease in this state, with so many events, shows the effect.
    fn shows(&self, state: LeaseState, events: u32) -> bool {
        match self.action {
            Action::Stop => !matches!(state, LeaseState::Running | LeaseState::Preparing | LeaseState::Kept),
            // A command that ends at once is never seen running.
            Action::Start => state == LeaseState::Running || (events > self.events && state != LeaseState::Preparing),
            Action::Destroy => state.is_ended(),
            Action::DeclineExtension => true,
        }
    }
}

impl Rentals {
    /// A rent command begins.
    pub fn begin(&mut self, token: Token, host: NodeId, steps: StepSender, currency: Currency, detach: bool) {
        let rental = Rental { host, steps, currency, detach, lease: None, told: None, waits: None, round: 0 };
        self.rentals.insert(token, rental);
    }

    /// The host of a rental in which nothing is signed yet.
    pub fn attempt(&self, token: Token) -> Option<NodeId> {
        self.rentals.get(&token).filter(|r| r.lease.is_none()).map(|r| r.host)
    }

    /// A control command begins.
    pub fn control(&mut self, token: Token, lease: LeaseId, action: Action, events: u32, reply: Reply<LeaseView>) {
        self.controls.insert(token, Control { lease, action, taken: false, since: now(), events, reply });
    }

    /// The host has taken a control command: its effect is waited for. False if nobody waits.
    pub fn taken(&mut self, token: Token) -> Option<LeaseId> {
        let control = self.controls.get_mut(&token)?;
        control.taken = true;
        Some(control.lease)
    }

    /// A control command that was refused: whom to tell.
    pub fn refused(&mut self, token: Token) -> Option<Reply<LeaseView>> {
        self.controls.remove(&token).map(|c| c.reply)
    }

    /// Waiters for an effect that shows in this state, or all who have waited since before `overdue`.
    pub fn controlled(
        &mut self,
        lease: Option<(LeaseId, LeaseState, u32)>,
        overdue: Timestamp,
    ) -> Vec<(LeaseId, Reply<LeaseView>)> {
        let done = |c: &Control| {
            c.taken
                && (c.since < overdue
                    || lease.is_some_and(|(id, state, events)| c.lease == id && c.shows(state, events)))
        };
        let tokens: Vec<Token> = self.controls.iter().filter(|(_, c)| done(c)).map(|(token, _)| *token).collect();
        tokens.into_iter().filter_map(|t| self.controls.remove(&t)).map(|c| (c.lease, c.reply)).collect()
    }

    /// A negotiation went on. `number` gives a lease its row number.
    /// Whether somebody still waits for it, or it is over.
    pub fn step(&mut self, token: Token, step: Step, number: impl FnOnce(LeaseId) -> u64) -> bool {
        let Some(rental) = self.rentals.get_mut(&token) else { return true };
        let currency = rental.currency.clone();
        let (told, over) = match step {
            Step::Proposed { round, price_hour } => {
                rental.round = u32::from(round);
                (RentStep::Proposed { round: rental.round, price_hour, currency }, false)
            }
            Step::Countered { price_hour } => {
                (RentStep::Countered { round: rental.round, price_hour, currency }, false)
            }
            Step::Drafted { draft } => {
                let lease = draft.id().into();
                let step = RentStep::Drafted {
                    lease,
                    price_hour: draft.rates.compute_hour,
                    currency,
                    ends_at_ms: draft.ends_at,
                    image_digest: draft.image.digest.clone(),
                };
                (step, false)
            }
            Step::Committed { lease } => {
                rental.lease = Some(lease);
                (RentStep::Committed { lease }, false)
            }
            Step::Accepted { lease } => {
                rental.lease = Some(lease);
                (RentStep::Accepted { lease, number: number(lease) }, rental.detach)
            }
            Step::Failed { why } => (RentStep::Failed { error: refused(&why) }, true),
        };
        let heard = rental.steps.send(told);
        if !heard || over {
            self.rentals.remove(&token);
        }
        heard || over
    }

    /// A lease changed: tells whoever waits for it to run. `view` shows it.
    pub fn changed(
        &mut self,
        lease: LeaseId,
        state: LeaseState,
        (progress, rank): (Option<Progress>, Option<Rank>),
        view: impl Fn() -> Option<LeaseView>,
    ) {
        let waiting: Vec<Token> =
            self.rentals.iter().filter(|(_, r)| r.lease == Some(lease)).map(|(token, _)| *token).collect();
        for token in waiting {
            let Some(rental) = self.rentals.get_mut(&token) else { continue };
            let shown = || view().map(Box::new);
            let step = match state {
                LeaseState::Preparing if progress == rental.told => continue,
                LeaseState::Preparing => {
                    rental.told = progress;
                    Some(RentStep::Preparing { progress })
                }
                LeaseState::Running | LeaseState::Kept => shown().map(|lease| RentStep::Running { lease }),
                LeaseState::Paused(PauseReason::Exited) => shown().map(|lease| RentStep::Exited { lease }),
                LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance) if rental.waits == Some(rank) => {
                    continue;
                }
                LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance) => {
                    rental.waits = Some(rank);
                    shown().map(|lease| RentStep::Waiting { lease })
                }
                LeaseState::Paused(_) => continue,
                LeaseState::Ended(_) => shown().map(|lease| RentStep::Ended { lease }),
            };
            let Some(step) = step else { continue };
            let over = !matches!(step, RentStep::Preparing { .. } | RentStep::Waiting { .. });
            if !rental.steps.send(step) || over {
                self.rentals.remove(&token);
            }
        }
    }
}

/// A refusal as the API tells it.
#[must_use]
pub fn refused(why: &Refusal) -> CommandError {
    let error = |code| CommandError::new(code, why.to_string());
    match why {
        Refusal::UnknownAsk(ask) => unknown_ask(ask),
        Refusal::Forked(_) => error(ErrorCode::Rejected).hint("souk search leaves it out; take another"),
        Refusal::Host(_) => error(ErrorCode::Rejected),
        Refusal::Price { host_wants, .. } => {
            error(ErrorCode::Price).hint(format!("agree to it with: --max-price {host_wants}"))
        }
        Refusal::BadDraft(_) => {
            error(ErrorCode::Rejected).hint("rent from another host; nothing was signed, and nothing is owed")
        }
        Refusal::NoAnswer(_) => {
            error(ErrorCode::Unreachable).hint("souk peers shows who is connected; try again, or another host")
        }
        Refusal::Void(_) => error(ErrorCode::Rejected).hint("nothing is owed; search again and take another"),
        Refusal::TooMany => error(ErrorCode::Busy),
        Refusal::Payment(_) => {
            error(ErrorCode::Rejected).hint("nothing is owed; souk account shows what was paid ahead")
        }
        Refusal::PaysTooLittleAhead { slice, .. } => error(ErrorCode::Rejected)
            .hint(format!("nothing is owed; in config.toml, [renter.payment] ahead_most = \"{slice}\"")),
        Refusal::NotHosted(_) => error(ErrorCode::NotFound).hint("souk host show lists the leases of this machine"),
        Refusal::UnknownLease(_) => error(ErrorCode::NotFound).hint("souk ps -a lists all leases"),
        Refusal::Change(BadChange::RaiseTooSmall) => {
            error(ErrorCode::BadRequest).hint("souk bid takes any lower price, or one at least 5 % higher")
        }
        Refusal::Malformed(_) | Refusal::Change(_) | Refusal::Inside(_) => error(ErrorCode::BadRequest),
        Refusal::Pending => error(ErrorCode::Busy).hint("souk show tells what waits for the host's answer"),
    }
}

/// No ask of that id.
#[must_use]
pub fn unknown_ask(ask: &AskId) -> CommandError {
    CommandError::new(ErrorCode::NotFound, format!("no ask {ask} is on the market (any more)"))
        .hint("souk search lists what is")
}
