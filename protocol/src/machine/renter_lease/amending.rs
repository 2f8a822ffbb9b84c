//! Changes of a rented lease's terms: ours, sent until the host has signed or their time is past, and what the host may do alone.

use super::RenterLease;
use crate::{
    DocumentId, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    limits,
    machine::{
        context::{Asked, Context},
        io::{Output, Refusal, Token},
        record::Record,
    },
    message::{Request, Response},
    receipt::Usage,
    terms::{Change, LeaseTerms},
};

/// Between two attempts to have the host answer.
const RETRY: (Millis, Millis) = (Millis(500), Millis::from_secs(10));

/// Changes the host has refused, which it could still take by their signatures.
const REFUSED: usize = 16;

/// A change of ours that the host has not answered.
#[derive(Debug)]
pub(super) struct Amending {
    entry: Verified<Entry>,
    /// Who waits for it; none after a restart.
    token: Option<Token>,
    in_flight: bool,
    again_at: Timestamp,
    retry: Millis,
}

impl Amending {
    /// One from before a restart: asked again, until its time is past.
    pub(super) fn restored(entry: Verified<Entry>) -> Self {
        Self { entry, token: None, in_flight: false, again_at: Timestamp(0), retry: RETRY.0 }
    }

    fn until(&self) -> Timestamp {
        until(&self.entry)
    }
}

/// Past this the host may not take a change any more, and we wait no longer.
fn until(amend: &Entry) -> Timestamp {
    amend.body.amend().map_or(Timestamp(0), |(_, _, until)| until) + limits::CLOCK_SKEW
}

impl RenterLease {
    /// The terms in force.
    #[must_use]
    pub const fn terms(&self) -> &LeaseTerms {
        &self.terms
    }

    /// The change that waits for the host's answer.
    #[must_use]
    pub fn pending_change(&self) -> Option<Change> {
        self.amending.as_ref().and_then(|a| a.entry.body.amend()).map(|(_, change, _)| change)
    }

    /// Signs a change and sends it.
    pub(in super::super) fn amend(
        &mut self,
        cx: &mut Context,
        token: Token,
        change: Change,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if self.amending.is_some() || self.refused.len() >= REFUSED {
            return Err(Refusal::Pending);
        }
        if self.state.is_ended() || self.close.is_some() {
            return Err(Refusal::UnknownLease(self.id()));
        }
        let counters = self.usage.as_ref().map(|u| u.counters).unwrap_or_default();
        let counters = if counters.covers(&self.terms.counted) { counters } else { self.terms.counted };
        self.terms.changed(&self.draft, &change, &counters, now).map_err(Refusal::Change)?;
        let body = Body::Amend { n: self.terms.n + 1, change, valid_until: now + limits::AMEND_WITHIN };
        let full = || Refusal::Malformed("this change can't be signed".to_owned());
        let (entry, ticket) = cx.append(self.id(), self.draft.host, body, now).ok_or_else(full)?;
        self.durable = Some(ticket);
        self.amending = Some(Amending { entry, token: Some(token), in_flight: false, again_at: now, retry: RETRY.0 });
        self.send_amend(cx, now);
        Ok(())
    }

    /// Sends the change (again), or gives it up once its time is past.
    pub(super) fn send_amend(&mut self, cx: &mut Context, now: Timestamp) {
        let Some(amending) = &mut self.amending else { return };
        if now > amending.until() || self.state.is_ended() {
            // Whether the host took it in time shows when it is heard of again: until then no other change has its number.
            let why = Refusal::NoAnswer("it did not answer the change in time; look again when it does".to_owned());
            if let Some(token) = amending.token.take() {
                cx.out(Output::Done { token, result: Err(why) });
            }
            amending.again_at = Timestamp(u64::MAX);
            if self.state.is_ended() {
                self.amending = None;
            }
            return;
        }
        if amending.in_flight || now < amending.again_at || !cx.connected.contains(&self.draft.host) {
            return;
        }
        amending.in_flight = true;
        let id = amending.entry.id();
        let request = Request::Amend { entry: amending.entry.to_signed() };
        let lease = self.draft.id().into();
        cx.send(self.draft.host, request, self.durable, Asked::Amend(lease, id));
    }

    /// When to send it again, or to give it up.
    pub(super) fn amend_due(&self, connected: bool) -> Option<Timestamp> {
        let amending = self.amending.as_ref()?;
        let until = amending.until() + Millis(1);
        let again = (connected && !amending.in_flight).then_some(amending.again_at).filter(|at| *at < until);
        let given_up = amending.token.is_some().then_some(until);
        [again, given_up].into_iter().flatten().min()
    }

    /// The lease is over: a change of it has no answer any more.
    pub(in super::super) fn give_up_amending(&mut self, cx: &mut Context) {
        self.amend_settled(cx, Err(Refusal::UnknownLease(self.id())));
    }

    pub(super) fn amend_settled(&mut self, cx: &mut Context, result: Result<(), Refusal>) {
        if let Some(token) = self.amending.take().and_then(|a| a.token) {
            cx.out(Output::Done { token, result });
        }
    }

    /// The host's answer to a change.
    pub(in super::super) fn amend_answered(
        &mut self,
        cx: &mut Context,
        to: DocumentId,
        response: Option<Response>,
        now: Timestamp,
    ) {
        if self.amending.as_ref().is_none_or(|a| a.entry.id() != to) {
            // Settled by the host's news in the meantime.
            return;
        }
        if let Some(amending) = &mut self.amending {
            amending.in_flight = false;
            amending.again_at = now + amending.retry;
            amending.retry = Millis((amending.retry.0 * 2).min(RETRY.1.0));
        }
        match response {
            Some(Response::Answered(entry)) => {
                if let Some(entry) = cx.verify(self.draft.host, &entry) {
                    self.take_amended(cx, &entry, false, now);
                }
            }
            // Nothing is signed, so until our change's time is past the host may still take it.
            Some(Response::Rejected(reject)) => {
                self.refused.extend(self.amending.as_ref().map(|a| a.entry.clone()));
                self.amend_settled(cx, Err(Refusal::Host(reject)));
            }
            Some(Response::Busy { retry_after_ms }) => {
                if let Some(amending) = &mut self.amending {
                    amending.again_at = now + Millis(retry_after_ms.clamp(50, 10_000));
                }
            }
            None => {}
            Some(_) => cx.wrong_answer(self.draft.host, "not an answer to a change"),
        }
    }

    /// Terms among a host's news, whose events are known.
    pub(super) fn take_terms(&mut self, cx: &mut Context, entry: &Verified<Entry>, now: Timestamp) {
        let known = self.in_force.as_ref().is_some_and(|known| known.id() == entry.id());
        if !known && entry.body.amended().is_some() {
            self.take_amended(cx, entry, true, now);
        }
    }

    /// By a usage of the terms we know, the host did not take a change of ours whose time was past then.
    pub(super) fn not_taken(&mut self, usage: &Usage) {
        self.refused.retain(|e| usage.time <= until(e));
        if self.amending.as_ref().is_some_and(|a| a.token.is_none() && usage.time > a.until()) {
            self.amending = None;
        }
    }

    /// The host's word that these are the terms from now on: right only if they follow from those in force. `told` says whether
    /// all events until then are known.
    fn take_amended(&mut self, cx: &mut Context, entry: &Verified<Entry>, told: bool, now: Timestamp) {
        let host = self.draft.host;
        let Some(amended) = entry.body.amended() else {
            return cx.wrong_answer(host, "not an answer to a change");
        };
        let about = entry.author == host && entry.lease == Some(self.id()) && entry.peer == Some(cx.me());
        if !about {
            return cx.wrong_answer(host, "terms of another lease");
        }
        if self.close.is_some() || amended.terms.n != self.terms.n.saturating_add(1) {
            // It is over, known, or one before it is missing, which comes again with the next news.
            return;
        }
        let asked = self.amending.iter().map(|a| &a.entry).chain(&self.refused);
        let ours = asked.into_iter().find(|e| Some(e.id()) == amended.amend);
        let change = ours.and_then(|e| e.body.amend()).map(|(_, change, _)| change);
        let waited = self.amending.as_ref().is_some_and(|a| Some(a.entry.id()) == amended.amend);
        if amended.amend.is_some() && change.is_none() {
            return cx.false_receipt(host, "an answer to a change that we have not made");
        }
        let late = ours.is_some_and(|e| entry.time > until(e));
        if late || !amended.terms.follows(&self.terms, &self.draft, change.as_ref(), entry.time) {
            return cx.false_receipt(host, "terms that do not follow from those in force");
        }
        if self.usage.as_ref().is_some_and(|known| !amended.terms.counted.covers(&known.counters)) {
            return cx.false_receipt(host, "terms that carry less than was used");
        }
        let believed = self.believes(&amended.terms.counted, entry.time, now);
        if !believed && !told {
            // The news that explain it are on their way, and bring it again.
            return;
        }
        if entry.time > now + limits::CLOCK_SKEW || !believed {
            return cx.false_receipt(host, "terms that carry more than can have been used");
        }
        let terms = amended.terms;
        self.durable = Some(cx.persist(Record::from(entry)));
        self.terms = terms;
        self.in_force = Some(entry.clone());
        self.refused.clear();
        if waited {
            self.amend_settled(cx, Ok(()));
        } else if let Some(stale) = self.amending.take_if(|a| a.entry.body.amend().is_some_and(|(n, ..)| n <= terms.n))
        {
            // The host was faster: ours has a number that is taken, and can't hold any more.
            if let Some(token) = stale.token {
                cx.out(Output::Done { token, result: Err(Refusal::Pending) });
            }
        }
        cx.changed(self.id(), now);
    }
}
