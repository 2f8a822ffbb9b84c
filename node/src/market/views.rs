//! Leases as the API shows them: the ledger's row, with what the engine knows better while the lease is open.

use souk_protocol::{
    Amount, Currency, LeaseId, Millis, NodeId, Timestamp,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    machine::{engine::Engine, record::LeaseRow, renter_lease::Opened},
    message::{Eviction, Extension, LeaseEvent, Progress, Rank},
    money::Counters,
    receipt::{Ack, Usage},
    signed::{Document, Signed},
    terms::{Change, LeaseTerms},
    workload::Workload,
};

use crate::api::types::{
    CountersView, EventView, ExtensionView, LeaseDetail, LeaseView, RatesView, ReceiptView, Role, TermsView,
};

/// What is known of a lease by its number, label and command, whichever side holds it.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// Its row number.
    pub number: u64,
    /// The renter's name for it.
    pub label: Option<String>,
    /// Its command, joined for people.
    pub command: String,
}

/// A command as one line for people.
#[must_use]
pub fn command_line(workload: &Workload) -> String {
    if super::jupyter::is_asked(workload) {
        return "the image's Jupyter (--jupyter)".to_owned();
    }
    let words = workload.entrypoint.iter().flatten().chain(workload.command.iter().flatten());
    let quoted = words.map(|w| {
        let plain = !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { w.clone() } else { format!("'{}'", w.replace('\'', "'\\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ").chars().filter(|c| !c.is_control()).take(512).collect()
}

/// A lease's parts, from the engine or from a row.
struct Parts<'a> {
    draft: &'a LeaseDraft,
    lease: LeaseId,
    state: LeaseState,
    since: Timestamp,
    counters: Counters,
    due: Amount,
    acked: Amount,
    events: &'a [LeaseEvent],
    progress: Option<Progress>,
    reachable: bool,
    terms: LeaseTerms,
    rank: Option<Rank>,
    eviction: Option<Eviction>,
}

fn view(me: NodeId, meta: &Meta, parts: &Parts<'_>) -> LeaseView {
    let host = parts.draft.host == me;
    let exit_code = parts.events.iter().rev().find_map(|e| e.exit_code);
    LeaseView {
        number: meta.number,
        lease: parts.lease,
        role: if host { Role::Host } else { Role::Renter },
        peer: if host { parts.draft.renter } else { parts.draft.host },
        label: meta.label.clone(),
        label_inside: LeaseEvent::label_of(parts.events).map(str::to_owned),
        state: parts.state,
        since_ms: parts.since,
        image: parts.draft.image.reference.clone(),
        command: meta.command.clone(),
        resources: parts.draft.resources.clone(),
        rental: parts.draft.rental,
        price_hour: parts.terms.compute_hour,
        due: parts.due,
        acked: parts.acked,
        currency: parts.draft.currency.clone(),
        uptime_ms: parts.counters.active,
        ends_at_ms: parts.terms.ends_at,
        exit_code,
        progress: parts.progress,
        note: LeaseEvent::last_step(parts.events).map_or_else(String::new, |e| e.note.clone()),
        reachable: parts.reachable,
        relayed: false,
        public: parts.draft.public.clone(),
        place: parts.rank.map(Into::into),
        eviction: parts.eviction.map(Into::into),
    }
}

/// An open lease, live; none if the engine does not hold it.
#[must_use]
pub fn live(engine: &Engine, meta: &Meta, lease: LeaseId, now: Timestamp) -> Option<LeaseView> {
    let connected = |peer: &NodeId| engine.connected().any(|p| p == peer);
    if let Some(held) = engine.host().leases().get(&lease) {
        let (counters, due) = held.count(now);
        let parts = Parts {
            draft: held.draft(),
            lease,
            state: held.state(),
            since: held.since(),
            counters,
            due,
            acked: held.acked(),
            events: held.events(),
            progress: held.progress(),
            reachable: connected(&held.draft().renter),
            terms: *held.terms(),
            rank: held.rank(),
            eviction: held.eviction(),
        };
        return Some(view(engine.me(), meta, &parts));
    }
    let held = engine.renter().leases().get(&lease)?;
    let reachable = connected(&held.host());
    let counters = running(held.draft(), held.usage().map(|u| &**u), held.state(), held.since(), reachable, now);
    let parts = Parts {
        draft: held.draft(),
        lease,
        state: held.state(),
        since: held.since(),
        counters,
        due: held.terms().due(held.draft(), &counters).unwrap_or_default(),
        acked: held.acked(),
        events: held.events(),
        progress: held.progress(),
        reachable,
        terms: *held.terms(),
        rank: held.rank(),
        eviction: held.eviction(),
    };
    let mut shown = view(engine.me(), meta, &parts);
    match held.answer() {
        Opened::Waiting => shown.note = "waiting for the host's answer".to_owned(),
        Opened::GivenUp => {
            shown.state = LeaseState::Ended(EndReason::Unconfirmed);
            shown.note = "the host did not answer in time; nothing is owed".to_owned();
        }
        Opened::Void(_, sentence) => {
            shown.state = LeaseState::Ended(EndReason::Unconfirmed);
            shown.note.clone_from(sentence);
        }
        Opened::Accepted(_) => {}
    }
    Some(shown)
}

/// The renter's estimate between two receipts: what the last one says, and what has passed since while it ran in sight.
fn running(
    draft: &LeaseDraft,
    usage: Option<&Usage>,
    state: LeaseState,
    since: Timestamp,
    reachable: bool,
    now: Timestamp,
) -> Counters {
    let mut counters = usage.map_or_else(Counters::default, |u| u.counters);
    let counted_to = usage.map_or(since, |u| u.time.max(since));
    if state == LeaseState::Running && reachable {
        let passed = now.since(counted_to).min(Millis(draft.tick.0.saturating_mul(2)));
        counters.active.0 = counters.active.0.saturating_add(passed.0);
        counters.storage.0 = counters.storage.0.saturating_add(passed.0);
    }
    counters
}

/// Reads a document of our own ledger, which was verified when it was written.
fn read<T: Document>(signed: &Signed<T>) -> Option<T> {
    souk_protocol::encode::from_bytes(signed.payload(), T::MAX_BYTES).ok()
}

fn optional<T: Document>(signed: Option<&Signed<T>>) -> Option<T> {
    read(signed?)
}

/// The terms in a row.
#[must_use]
pub fn draft_of(row: &LeaseRow) -> Option<LeaseDraft> {
    let open: Entry = read(&row.open)?;
    read(open.body.draft()?)
}

/// The terms in force, by a row.
fn terms_of(draft: &LeaseDraft, row: &LeaseRow) -> LeaseTerms {
    let last = row.amended.last().and_then(|signed| read::<Entry>(signed)?.body.amended().map(|a| a.terms));
    last.unwrap_or_else(|| LeaseTerms::drafted(draft))
}

/// What a row says of number, label and command.
#[must_use]
pub fn meta_of(row: &LeaseRow) -> Meta {
    let command = Workload::from_bytes(&row.workload).map_or_else(|_| String::new(), |w| command_line(&w));
    Meta { number: row.number, label: row.label.clone(), command }
}

/// A lease as the ledger alone tells it: one that is over.
#[must_use]
pub fn past(me: NodeId, row: &LeaseRow) -> Option<LeaseView> {
    let draft = draft_of(row)?;
    let usage: Option<Usage> = optional(row.usage.as_ref());
    let ack: Option<Ack> = optional(row.ack.as_ref());
    let last = row.events.last();
    let answer: Option<Entry> = optional(row.answer.as_ref());
    let close: Option<Entry> = optional(row.close.as_ref());
    let mut state = last.map_or(LeaseState::Preparing, |e| e.state);
    if let Some(Body::Close { reason, .. }) = close.as_ref().map(|c| &c.body) {
        state = LeaseState::Ended(*reason);
    }
    let mut note = None;
    if answer.is_none() && crate::clock::now() > draft.confirm_by {
        state = LeaseState::Ended(EndReason::Unconfirmed);
        note = Some("the host did not answer; nothing is owed".to_owned());
    }
    if let Some(Body::Void { sentence, .. }) = answer.as_ref().map(|a| &a.body) {
        state = LeaseState::Ended(EndReason::Unconfirmed);
        note = Some(sentence.clone());
    }
    let parts = Parts {
        lease: row.lease,
        state,
        since: LeaseEvent::last_step(&row.events).map_or(draft.drafted_at, |e| e.at),
        counters: usage.as_ref().map_or_else(Counters::default, |u| u.counters),
        due: usage.as_ref().map_or(Amount::ZERO, |u| u.due),
        acked: ack.as_ref().map_or(Amount::ZERO, |a| a.due),
        events: &row.events,
        progress: None,
        reachable: false,
        terms: terms_of(&draft, row),
        rank: None,
        eviction: None,
        draft: &draft,
    };
    let mut shown = view(me, &meta_of(row), &parts);
    if let Some(note) = note {
        shown.note = note;
    }
    Some(shown)
}

/// The newest receipt of a row.
#[must_use]
pub fn receipt(me: NodeId, network: &souk_protocol::NetworkId, row: &LeaseRow) -> Option<ReceiptView> {
    let draft = draft_of(row)?;
    let signed = row.usage.as_ref()?;
    let usage: Usage = read(signed)?;
    let ack: Option<Ack> = optional(row.ack.as_ref());
    let host = draft.host == me;
    Some(ReceiptView {
        number: row.number,
        lease: row.lease,
        role: if host { Role::Host } else { Role::Renter },
        peer: if host { draft.renter } else { draft.host },
        n: usage.n,
        time_ms: usage.time,
        counters: CountersView::from(usage.counters),
        due: usage.due,
        acked: ack.as_ref().map_or(Amount::ZERO, |a| a.due),
        currency: draft.currency,
        partial: ack.as_ref().and_then(|a| a.partial),
        usage: signed.id(network),
        ack: row.ack.as_ref().map(|a| a.id(network)),
        acked_n: ack.as_ref().map(|a| a.n),
        closed: row.close.is_some(),
    })
}

/// What only the engine knows of an open lease's terms.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    terms: Option<LeaseTerms>,
    pending: Option<Change>,
    asked: Option<Extension>,
    silent: Option<Millis>,
}

impl Standing {
    /// As the engine has it; empty for a lease that is over.
    #[must_use]
    pub fn of(engine: &Engine, lease: LeaseId) -> Self {
        if let Some(held) = engine.host().leases().get(&lease) {
            return Self { terms: Some(*held.terms()), asked: held.asked(), ..Self::default() };
        }
        engine.renter().leases().get(&lease).map_or_else(Self::default, |held| Self {
            terms: Some(*held.terms()),
            pending: held.pending_change(),
            silent: Some(held.silent()),
            asked: held.asked(),
        })
    }
}

/// All about a lease: its view, and what its row adds.
#[must_use]
pub fn detail(
    me: NodeId,
    network: &souk_protocol::NetworkId,
    view: LeaseView,
    row: &LeaseRow,
    standing: Standing,
) -> Option<LeaseDetail> {
    let draft = draft_of(row)?;
    let terms = standing.terms.unwrap_or_else(|| terms_of(&draft, row));
    let placement: Option<Entry> = optional(row.placement.as_ref());
    let (starts, slots, devices) = match placement.map(|p| p.body) {
        Some(Body::Placement { start, slots, devices }) => (start, slots, devices),
        Some(_) | None => (0, Vec::new(), Vec::new()),
    };
    Some(LeaseDetail {
        view,
        machine: draft.machine,
        ask: draft.ask,
        offer: draft.offer,
        image_digest: draft.image.digest.clone(),
        egress: draft.egress,
        rates: RatesView::from(terms.rates(&draft)),
        terms: TermsView::of(&draft, &terms),
        pending: standing.pending.map(Into::into),
        asked: standing.asked.map(|asked| ExtensionView::of(asked, &terms)),
        credit: draft.credit,
        max_spend: terms.max_spend,
        tick_ms: draft.tick,
        drafted_at_ms: draft.drafted_at,
        slots,
        devices,
        starts,
        receipt: receipt(me, network, row),
        silent_ms: standing.silent,
        events: row.events.iter().map(EventView::from).collect(),
    })
}

/// The currency amounts are shown in when nothing says another.
#[must_use]
pub fn default_currency() -> Currency {
    Currency::usd()
}
