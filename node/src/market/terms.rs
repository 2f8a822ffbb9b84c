//! Changes of leases' terms, and questions to hosts for prices: what people ask, and who waits for which answer.
//!
//! Owns the waiters. Each is answered by the engine, by the news that shows the effect, or once 20 s is over.

use std::collections::BTreeMap;

use souk_protocol::{
    Amount, AskId, LeaseId, MachineId, Millis, NodeId, Timestamp,
    machine::io::{Command as EngineCommand, Input, Quote, Refusal, Token},
    terms::{Change, LeaseTerms},
};

use super::{
    command::{AskSelector, CommandError, ErrorCode, LeaseSelector, Reply},
    commands::answer,
    rentals::refused,
    search::currency_of,
    task::Market,
};
use crate::{
    api::types::{
        ChangeView, ExtensionRequest, ExtensionView, LeaseDetail, OfferExtensionRequest, SliceView, SlicesRequest,
        SlicesView,
    },
    clock::now,
};

/// Questions and changes waited for at once. When full, the next is told that the node is busy.
const WAITERS: usize = 256;
/// How long one is waited for. A change goes on after that: its lease shows it as pending.
const WITHIN: Millis = Millis::from_secs(20);
/// How long the host's news of a change that it has signed is waited for: they tell the lease's new place.
const NEWS_WITHIN: Millis = Millis::from_secs(3);
/// The fewest digits of a machine's id that name it.
const SHORTEST_PREFIX: usize = 4;

/// What may be asked about terms.
#[derive(Debug)]
pub enum TermsCommand {
    /// What it takes to win slots of a machine now.
    Slices {
        /// Which machine.
        request: SlicesRequest,
        /// The answer.
        reply: Reply<SlicesView>,
    },
    /// What the host of a lease takes for a later end.
    Extension {
        /// Which lease.
        id: LeaseSelector,
        /// By how much.
        request: ExtensionRequest,
        /// The answer.
        reply: Reply<ExtensionView>,
    },
    /// Changes the terms of a lease rented by this node; answered once the host has signed them.
    Change {
        /// Which lease.
        id: LeaseSelector,
        /// What.
        change: ChangeView,
        /// The lease after it.
        reply: Reply<LeaseDetail>,
    },
    /// Host's side: asks the renter of a lease for a longer contract.
    OfferExtension {
        /// Which lease.
        id: LeaseSelector,
        /// By how much, at what price.
        request: OfferExtensionRequest,
        /// The lease after it.
        reply: Reply<LeaseDetail>,
    },
}

/// Who waits for what.
#[derive(Debug)]
enum Waiter {
    Slices {
        host: NodeId,
        machine: MachineId,
        reply: Reply<SlicesView>,
    },
    Extension {
        lease: LeaseId,
        reply: Reply<ExtensionView>,
    },
    /// `taken` is when the host has signed it; until more than `events` are known, its news are still on their way.
    Change {
        lease: LeaseId,
        events: u32,
        taken: Option<Timestamp>,
        reply: Reply<LeaseDetail>,
    },
}

/// All waiters.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: BTreeMap<Token, (Timestamp, Waiter)>,
}

impl Waiters {
    fn full(&self) -> Result<(), CommandError> {
        if self.waiting.len() < WAITERS {
            return Ok(());
        }
        Err(CommandError::new(ErrorCode::Busy, "too many questions to hosts wait for their answers")
            .hint("ask again in a few seconds"))
    }

    fn taken(&self) -> impl Iterator<Item = (Token, LeaseId, u32)> {
        self.waiting.iter().filter_map(|(token, (_, waiter))| match waiter {
            Waiter::Change { lease, events, taken: Some(_), .. } => Some((*token, *lease, *events)),
            Waiter::Change { .. } | Waiter::Slices { .. } | Waiter::Extension { .. } => None,
        })
    }
}

fn late(what: &str) -> CommandError {
    CommandError::new(ErrorCode::Timeout, format!("the host has not answered {what} yet"))
}

fn wrong(message: &str) -> CommandError {
    CommandError::new(ErrorCode::WrongState, message)
}

impl Market {
    pub(super) fn terms_command(&mut self, command: TermsCommand) {
        match command {
            TermsCommand::Slices { request, reply } => self.ask_slices(&request, reply),
            TermsCommand::Extension { id, request, reply } => self.ask_extension(&id, request, reply),
            TermsCommand::Change { id, change, reply } => self.change_terms(&id, change, reply),
            TermsCommand::OfferExtension { id, request, reply } => self.offer_extension(&id, request, reply),
        }
    }

    fn ask_slices(&mut self, request: &SlicesRequest, reply: Reply<SlicesView>) {
        let found = self.waiters.full().and_then(|()| self.machine_of(&request.of));
        match found {
            Ok((host, machine)) => {
                let token = self.token();
                self.waiters.waiting.insert(token, (now(), Waiter::Slices { host, machine, reply }));
                self.input(Input::Command(EngineCommand::Quote { token, host, machine }));
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// The machine of an ask, or the one whose id begins so.
    fn machine_of(&self, text: &str) -> Result<(NodeId, MachineId), CommandError> {
        let asked = self.find_ask(&AskSelector(text.to_owned()));
        let of_ask = asked.as_ref().ok().and_then(|ask| self.engine.book().find_ask(ask));
        if let Some((offer, _)) = of_ask {
            return Ok((offer.host, offer.machine));
        }
        let digits = text.trim().to_ascii_lowercase();
        let begins = |machine: &MachineId| digits.len() >= SHORTEST_PREFIX && machine.to_string().starts_with(&digits);
        let mut found = self.engine.book().offers().filter(|o| begins(&o.machine)).map(|o| (o.host, o.machine));
        match (found.next(), found.next(), asked) {
            (Some(one), None, _) => Ok(one),
            (Some(_), Some(_), _) => {
                Err(CommandError::new(ErrorCode::Ambiguous, "more than one machine's id begins so")
                    .hint("give more digits"))
            }
            (None, _, Err(error)) => Err(error),
            (None, _, Ok(ask)) => Err(super::rentals::unknown_ask(&ask)),
        }
    }

    fn ask_extension(&mut self, id: &LeaseSelector, request: ExtensionRequest, reply: Reply<ExtensionView>) {
        let found = self.waiters.full().and_then(|()| self.find(id)).and_then(|lease| {
            let terms = self.rented_terms(&lease)?;
            Ok((lease, later(terms.ends_at, request.by_ms)?))
        });
        match found {
            Ok((lease, ends_at)) => {
                let token = self.token();
                self.waiters.waiting.insert(token, (now(), Waiter::Extension { lease, reply }));
                self.input(Input::Command(EngineCommand::AskExtension { token, lease, ends_at }));
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn rented_terms(&self, lease: &LeaseId) -> Result<LeaseTerms, CommandError> {
        if self.engine.host().leases().contains_key(lease) {
            return Err(wrong("this machine is rented out by that lease; only its renter changes its terms")
                .hint("souk host extend asks the renter for a longer contract"));
        }
        let held = self.engine.renter().leases().get(lease).filter(|l| !l.state().is_ended());
        held.map(|l| *l.terms()).ok_or_else(|| wrong("the lease is over").hint("souk ps lists open leases"))
    }

    fn change_terms(&mut self, id: &LeaseSelector, change: ChangeView, reply: Reply<LeaseDetail>) {
        let found = self.waiters.full().and_then(|()| self.find(id)).and_then(|lease| {
            let terms = self.rented_terms(&lease)?;
            Ok((lease, as_amended(change.into(), &terms)))
        });
        match found {
            Ok((lease, change)) => {
                let events = self.engine.renter().leases().get(&lease).map_or(0, |l| l.events_seen());
                let token = self.token();
                let waiter = Waiter::Change { lease, events, taken: None, reply };
                self.waiters.waiting.insert(token, (now(), waiter));
                self.input(Input::Command(EngineCommand::Amend { token, lease, change }));
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn offer_extension(&mut self, id: &LeaseSelector, request: OfferExtensionRequest, reply: Reply<LeaseDetail>) {
        let found = self.waiters.full().and_then(|()| self.find(id)).and_then(|lease| {
            let held = self.engine.host().leases().get(&lease).filter(|l| !l.state().is_ended());
            let held = held.ok_or_else(|| wrong("no open lease on this machine is meant").hint("souk host show"))?;
            let price: Amount = request.price_hour.unwrap_or(held.terms().compute_hour);
            Ok((lease, later(held.terms().ends_at, request.by_ms)?, price))
        });
        match found {
            Ok((lease, ends_at, compute_hour)) => {
                let token = self.token();
                // Nothing of the other side is waited for: the asking itself is the effect.
                let waiter = Waiter::Change { lease, events: 0, taken: None, reply };
                self.waiters.waiting.insert(token, (now(), waiter));
                self.input(Input::Command(EngineCommand::OfferExtension { token, lease, ends_at, compute_hour }));
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// A host's word on what it takes.
    pub(super) fn quoted(&mut self, token: Token, result: Result<Quote, Refusal>) {
        let Some((_, waiter)) = self.waiters.waiting.remove(&token) else { return };
        let odd = || CommandError::new(ErrorCode::Rejected, "the host's answer makes no sense");
        match (waiter, result) {
            (Waiter::Slices { host, machine, reply }, Ok(Quote::Slices(slices))) => {
                let offer = self.engine.book().offer(&(host, machine));
                let view = |s: &souk_protocol::message::SliceQuote| SliceView {
                    ask: AskId::of(&host, &machine, s.slots),
                    slots: s.slots,
                    to_win: s.to_win,
                    min_bid: s.min_bid,
                    on_demand: s.on_demand,
                    bids: s.bids,
                };
                let slices = slices.iter().map(view).collect();
                let currency = offer.map_or_else(super::views::default_currency, |o| currency_of(o));
                answer(reply, Ok(SlicesView { host, machine, currency, slices }));
            }
            (Waiter::Extension { lease, reply }, Ok(Quote::Extension(extension))) => {
                answer(reply, self.rented_terms(&lease).map(|terms| ExtensionView::of(extension, &terms)));
            }
            (Waiter::Slices { reply, .. }, result) => {
                answer(reply, Err(result.err().map_or_else(odd, |why| refused(&why))));
            }
            (Waiter::Extension { reply, .. }, result) => {
                answer(reply, Err(result.err().map_or_else(odd, |why| refused(&why))));
            }
            (Waiter::Change { reply, .. }, _) => answer(reply, Err(odd())),
        }
    }

    /// The outcome of a change, if the token is one's. True if it was.
    pub(super) fn change_done(&mut self, token: Token, result: &Result<(), Refusal>) -> bool {
        let Some((_, Waiter::Change { taken, lease, .. })) = self.waiters.waiting.get_mut(&token) else {
            return false;
        };
        let lease = *lease;
        match result {
            Ok(()) => {
                *taken = Some(now());
                self.terms_changed(lease);
            }
            Err(why) => {
                if let Some((_, Waiter::Change { reply, .. })) = self.waiters.waiting.remove(&token) {
                    answer(reply, Err(refused(why)));
                }
            }
        }
        true
    }

    /// News of a lease: whoever waits for the effect of a change sees it.
    pub(super) fn terms_changed(&mut self, lease: LeaseId) {
        let seen = self.engine.renter().leases().get(&lease).map_or(u32::MAX, |l| l.events_seen());
        let shown: Vec<Token> =
            self.waiters.taken().filter(|(_, id, events)| *id == lease && seen > *events).map(|(t, ..)| t).collect();
        for token in shown {
            self.change_shown(token);
        }
    }

    fn change_shown(&mut self, token: Token) {
        if let Some((_, Waiter::Change { lease, reply, .. })) = self.waiters.waiting.remove(&token) {
            answer(reply, self.detail(lease));
        }
    }

    /// Answers those who have waited long enough.
    pub(super) fn waiters_overdue(&mut self) {
        let at = now();
        let over = |(since, waiter): &(Timestamp, Waiter)| match waiter {
            Waiter::Change { taken: Some(taken), .. } => at.since(*taken) > NEWS_WITHIN,
            Waiter::Change { .. } | Waiter::Slices { .. } | Waiter::Extension { .. } => at.since(*since) > WITHIN,
        };
        let overdue: Vec<Token> = self.waiters.waiting.iter().filter(|(_, w)| over(w)).map(|(t, _)| *t).collect();
        for token in overdue {
            match self.waiters.waiting.remove(&token) {
                Some((_, Waiter::Change { lease, taken: Some(_), reply, .. })) => answer(reply, self.detail(lease)),
                Some((_, Waiter::Change { reply, .. })) => {
                    let hint = "it may still take it for two minutes; souk show tells whether it has";
                    answer(reply, Err(late("the change").hint(hint)));
                }
                Some((_, Waiter::Slices { reply, .. })) => {
                    answer(reply, Err(late("for its prices").hint("souk peers shows who is connected")));
                }
                Some((_, Waiter::Extension { reply, .. })) => {
                    answer(reply, Err(late("for its price").hint("souk peers shows who is connected")));
                }
                None => {}
            }
        }
    }
}

fn later(end: Timestamp, by: Millis) -> Result<Timestamp, CommandError> {
    if by.0 == 0 || by > souk_protocol::limits::TERM {
        let message = "a lease is extended by more than nothing and at most a year";
        return Err(CommandError::new(ErrorCode::BadRequest, message).hint("souk extend ID 12h"));
    }
    Ok(end + by)
}

/// The same price again is no change of it.
fn as_amended(change: Change, terms: &LeaseTerms) -> Change {
    let later = terms.next.map_or(terms.compute_hour, |next| next.compute_hour);
    match change {
        Change::Extend { ends_at, compute_hour } => {
            Change::Extend { ends_at, compute_hour: compute_hour.filter(|price| *price != later) }
        }
        Change::Bid { .. } | Change::Ceiling { .. } | Change::AutoExtend { .. } => change,
    }
}
