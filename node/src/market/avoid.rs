//! Which hosts have failed this node: its own leases, as the back-off of the protocol crate takes them.
//!
//! Owns nothing of the rule. At the start the newest leases of the ledger are looked at; from then on each lease counts when it
//! ends, and each attempt that came to nothing by the host's doing.

use souk_protocol::{
    LeaseId, NodeId, Timestamp, encode,
    entry::Entry,
    lease::LeaseState,
    limits,
    machine::{
        backoff::{Failure, Outcome, Verdict},
        io::Refusal,
        record::LeaseRow,
        renter_lease::{Opened, RenterLease},
        search::PeerFacts,
    },
    message::LeaseEvent,
    signed::Signed,
};

use super::{task::Market, views};
use crate::{api::types::AvoidedHost, clock::now};

/// Leases looked at when the node starts: more than anybody ends in the days that count.
const LOOKED_AT: usize = 1000;

impl Market {
    /// Takes up what the ledger tells of hosts that failed.
    pub(super) fn remember_failures(&mut self) {
        for row in self.ledger.newest(LOOKED_AT) {
            if let Some((host, outcome)) = past(self.engine.me(), &row, now()) {
                self.backoff.note(host, outcome);
            }
        }
        let avoided: Vec<NodeId> = self.backoff.all(now()).map(|(host, _)| host).collect();
        avoided.into_iter().for_each(|host| self.show_avoided(host));
    }

    /// A lease changed: if it is over, it says something of its host.
    pub(super) fn judge(&mut self, lease: LeaseId) {
        let found = match self.engine.renter().leases().get(&lease) {
            Some(held) => {
                verdict(held).map(|verdict| (held.host(), Outcome { at: now(), lease: Some(lease), verdict }))
            }
            None if self.engine.host().leases().contains_key(&lease) => None,
            None => {
                let past = self.ledger.row(&lease).and_then(|row| past(self.engine.me(), &row, now()));
                past.map(|(host, outcome)| (host, Outcome { at: now(), ..outcome }))
            }
        };
        if let Some((host, outcome)) = found {
            self.note_outcome(host, outcome);
        }
    }

    /// An attempt to rent came to nothing before anything was signed.
    pub(super) fn attempt_failed(&mut self, host: NodeId, why: &Refusal) {
        let failure = match why {
            // With nobody connected it is our own network that fails.
            Refusal::NoAnswer(_) if self.engine.connected().next().is_some() => Failure::NoAnswer,
            Refusal::BadDraft(_) => Failure::BadDraft,
            Refusal::NoAnswer(_)
            | Refusal::UnknownAsk(_)
            | Refusal::Forked(_)
            | Refusal::Host(_)
            | Refusal::Price { .. }
            | Refusal::Void(_)
            | Refusal::TooMany
            | Refusal::UnknownLease(_)
            | Refusal::Change(_)
            | Refusal::Pending
            | Refusal::Inside(_)
            | Refusal::Payment(_)
            | Refusal::PaysTooLittleAhead { .. }
            | Refusal::NotHosted(_)
            | Refusal::Malformed(_) => return,
        };
        self.note_outcome(host, Outcome { at: now(), lease: None, verdict: Verdict::Failed(failure) });
    }

    fn note_outcome(&mut self, host: NodeId, outcome: Outcome) {
        if self.backoff.note(host, outcome) {
            if let Verdict::Failed(failure) = outcome.verdict {
                tracing::info!(%host, %failure, "a host failed; searches leave it out for a while");
            }
            self.show_avoided(host);
        }
    }

    /// Has searches know of it.
    fn show_avoided(&mut self, host: NodeId) {
        let avoided_until = self.backoff.avoided(&host, now()).map_or(Timestamp(0), |a| a.until_ms);
        self.index.set_facts(host, PeerFacts { avoided_until, ..self.index.facts(&host) });
    }

    /// A host that is avoided now, for people.
    pub(super) fn avoided(&self, host: &NodeId) -> Option<AvoidedHost> {
        self.backoff.avoided(host, now()).map(|avoided| AvoidedHost { host_id: *host, avoided })
    }

    /// The avoided hosts that offer something, soonest back first.
    pub(super) fn avoided_hosts(&self) -> Vec<AvoidedHost> {
        let all = self.backoff.all(now()).map(|(host_id, avoided)| AvoidedHost { host_id, avoided });
        let mut hosts: Vec<AvoidedHost> =
            all.filter(|avoided| self.engine.book().offers_any_of(&avoided.host_id)).collect();
        hosts.sort_by_key(|host| (host.avoided.until_ms, host.host_id));
        hosts
    }
}

fn ran(events: &[LeaseEvent]) -> bool {
    events.iter().any(|event| event.state == LeaseState::Running)
}

/// What a lease that the engine holds says of its host, once it is over.
fn verdict(held: &RenterLease) -> Option<Verdict> {
    match (held.answer(), held.state()) {
        (Opened::GivenUp, _) => Some(Verdict::Failed(Failure::NoAnswer)),
        (Opened::Void(code, _), _) => Failure::of_void(*code).map(Verdict::Failed),
        (Opened::Accepted(_), LeaseState::Ended(reason)) => Verdict::of_end(reason, ran(held.events())),
        (Opened::Accepted(_) | Opened::Waiting, _) => None,
    }
}

fn read(signed: Option<&Signed<Entry>>) -> Option<Entry> {
    encode::from_bytes(signed?.payload(), limits::ENTRY_BYTES).ok()
}

/// What a lease in the ledger says of its host, if we rented it and it is over. Its time is that of our own entries: a host
/// can't date its failure back, nor before our open.
fn past(me: NodeId, row: &LeaseRow, now: Timestamp) -> Option<(NodeId, Outcome)> {
    let draft = views::draft_of(row).filter(|draft| draft.renter == me)?;
    let open = read(Some(&row.open))?;
    let (answer, close, close_ack) =
        (read(row.answer.as_ref()), read(row.close.as_ref()), read(row.close_ack.as_ref()));
    let given_up_at = open.time + draft.confirm_by.since(draft.drafted_at);
    let end = close.as_ref().and_then(|entry| entry.body.closing()).map(|(reason, ..)| reason);
    let last = row.events.last();
    let (verdict, at) = match (&answer, end, last.map(|event| event.state)) {
        (None, ..) if now > given_up_at => (Some(Verdict::Failed(Failure::NoAnswer)), given_up_at),
        (None, ..) => return None,
        // The host's last word may be on disk before the close that seals it.
        (Some(_), Some(reason), _) | (Some(_), None, Some(LeaseState::Ended(reason))) => {
            let entries = [close.as_ref(), close_ack.as_ref()];
            let ours = entries.into_iter().flatten().find(|entry| entry.author == me).map(|entry| entry.time);
            (Verdict::of_end(reason, ran(&row.events)), ours.or(last.map(|event| event.at)).unwrap_or(now))
        }
        (Some(entry), None, _) => {
            let failure = entry.body.voided().and_then(|(code, _)| Failure::of_void(code));
            (failure.map(Verdict::Failed), entry.time)
        }
    };
    let at = at.clamp(open.time, now.max(open.time));
    Some((draft.host, Outcome { at, lease: Some(row.lease), verdict: verdict? }))
}
