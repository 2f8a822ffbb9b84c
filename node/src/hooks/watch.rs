//! From what is seen of leases and of this machine to what happened: pure, without clock or disk.
//!
//! Owns what has been told of each lease ([`Seen`]), so that nothing is told twice and, because the lease's own numbered steps
//! are counted, nothing is forgotten either: after a crash the steps that came since are found and told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use souk_protocol::{Amount, LeaseId, MachineId, Millis, Timestamp, message::LeaseEvent};

use super::{
    event::{EventKind, Happening, plain, rfc3339},
    words,
};
use crate::api::types::{LeaseView, Role};

/// How long a host may be out of reach before its leases are told to be offline.
const AWAY: Millis = Millis::from_secs(30);
/// The earliest that a contract's end is told ahead; a short contract's, in its last quarter.
const EXPIRING: Millis = Millis::from_hours(24);
/// Parts in a hundred of credit or ceiling from which on it is low, and below which it is not low any more.
const LOW_CREDIT: (u64, u64) = (80, 50);
/// Parts in a hundred of an instance's disk from which on it is nearly full, and below which it is not any more.
pub const NEARLY_FULL: (u64, u64) = (90, 80);

/// One lease, as it is now.
#[derive(Debug, Clone)]
pub struct Sight {
    /// As lists show it.
    pub view: LeaseView,
    /// Its machine.
    pub machine: MachineId,
    /// When it was drafted.
    pub drafted_at: Timestamp,
    /// How far dues may run ahead of acknowledgements.
    pub credit: Amount,
    /// What it may cost at most.
    pub max_spend: Option<Amount>,
    /// Its steps, oldest first.
    pub events: Vec<LeaseEvent>,
    /// Bytes on its disk and bytes granted, where this machine hosts it and looks.
    pub disk: Option<(u64, u64)>,
    /// Whether the engine still holds it: else it is over, and nothing more will happen to it.
    pub held: bool,
}

/// What has been told of one lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The last step.
    n: u32,
    /// Whether it has run.
    ran: bool,
    /// The reason of its last pause.
    word: Option<String>,
    /// As host: that somebody rents.
    rented: bool,
    /// The contract's end, and the end that was told to come soon.
    ends_at: Timestamp,
    expiring: Timestamp,
    /// Whether it is told to be low, offline, nearly full; and how often it was.
    low: Told,
    away: Told,
    disk: Told,
    /// Since when its host is out of reach.
    #[serde(skip)]
    gone_since: Option<Timestamp>,
}

/// Something that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Told {
    now: bool,
    times: u64,
}

impl Told {
    /// Takes its level; true if it has come just now.
    const fn comes(&mut self, comes: bool, goes: bool) -> bool {
        if !self.now && comes {
            self.now = true;
            self.times += 1;
            return true;
        }
        if goes {
            self.now = false;
        }
        false
    }
}

/// All that has been told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// Steps from before this are nobody's news: there was no hook.
    since: Timestamp,
    leases: BTreeMap<LeaseId, Seen>,
    /// Whether the container engine is told to be down, and how often it was.
    engine: Told,
    #[serde(skip)]
    changed: bool,
}

/// Whether `part` is at least so many hundredths of `whole`.
fn reaches(part: u64, whole: u64, hundredths: u64) -> bool {
    u128::from(part) * 100 >= u128::from(whole) * u128::from(hundredths)
}

impl Watch {
    /// One that tells what comes from now on.
    #[must_use]
    pub fn since(since: Timestamp) -> Self {
        Self { since, ..Self::default() }
    }

    /// The leases that may have news after a restart.
    pub fn leases(&self) -> impl Iterator<Item = LeaseId> + '_ {
        self.leases.keys().copied()
    }

    /// Takes over what is seen of a lease, and says what happened to it.
    pub fn lease(&mut self, sight: &Sight, now: Timestamp) -> Vec<Happening> {
        let lease = sight.view.lease;
        let before = self.leases.get(&lease).cloned();
        let news = self.look(sight, now);
        self.changed |= self.leases.get(&lease) != before.as_ref();
        news
    }

    /// Whether there is something new to remember since this was last asked.
    pub const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    fn look(&mut self, sight: &Sight, now: Timestamp) -> Vec<Happening> {
        let lease = sight.view.lease;
        let since = self.since;
        let seen =
            self.leases.entry(lease).or_insert_with(|| Seen { ends_at: sight.view.ends_at_ms, ..Seen::default() });
        let mut news = Vec::new();
        let teller = Teller { sight };
        if sight.view.role == Role::Host && !seen.rented {
            seen.rented = true;
            if sight.drafted_at >= since {
                news.push(teller.tell(EventKind::Rented, now, 0, "", json!({})));
            }
        }
        for event in sight.events.iter().filter(|e| e.n > seen.n).cloned().collect::<Vec<_>>() {
            let before = words::Before { word: seen.word.as_deref(), ran: seen.ran };
            let kind = words::step(sight.view.role, before, &event);
            seen.n = event.n;
            seen.ran |= event.state == souk_protocol::lease::LeaseState::Running;
            seen.word = words::word(event.state);
            // Told already by our own clock.
            let known = kind == Some(EventKind::ExpiringSoon) && seen.expiring == sight.view.ends_at_ms;
            if kind == Some(EventKind::ExpiringSoon) {
                seen.expiring = sight.view.ends_at_ms;
            }
            let kind = kind.filter(|_| !known);
            if let Some(kind) = kind.filter(|_| event.at >= since) {
                news.push(teller.step(kind, &event));
            }
        }
        if sight.view.state.is_ended() {
            if !sight.held {
                self.leases.remove(&lease);
            }
            return news;
        }
        teller.levels(seen, now, &mut news);
        news
    }

    /// Takes over whether the container engine answers.
    pub fn engine(&mut self, machine: MachineId, up: bool, now: Timestamp) -> Option<Happening> {
        let was_down = self.engine.now;
        let (kind, text) = if self.engine.comes(!up, up) {
            (EventKind::EngineDown, "this host's container engine does not answer; its instances are not billed")
        } else if was_down && up {
            (EventKind::EngineUp, "this host's container engine answers again")
        } else {
            return None;
        };
        self.changed = true;
        Some(Happening {
            kind,
            at: now,
            machine: Some(machine),
            lease: None,
            text: text.to_owned(),
            data: json!({ "role": "host" }),
            subject: b"engine".to_vec(),
            number: self.engine.times,
        })
    }
}

/// Puts into words what happened to one lease.
struct Teller<'a> {
    sight: &'a Sight,
}

impl Teller<'_> {
    fn name(&self) -> String {
        let view = &self.sight.view;
        match &view.label {
            Some(label) => format!("lease {} ({label})", view.number),
            None => format!("lease {}", view.number),
        }
    }

    fn tell(&self, kind: EventKind, at: Timestamp, number: u64, more: &str, data: Value) -> Happening {
        let view = &self.sight.view;
        let (name, peer) = (self.name(), view.peer.short());
        let ends = rfc3339(view.ends_at_ms);
        let sentence = match kind {
            EventKind::Rented => format!("{peer} rents here: {name}, {} slots, until {ends}", view.resources.slots),
            EventKind::LeaseStarted => format!("{name} runs"),
            EventKind::Resumed => format!("{name} runs again"),
            EventKind::Outbid => {
                format!("{name} was outbid and is paused; a higher bid brings it back: souk bid {}", view.number)
            }
            EventKind::EvictionNotice => format!("{name} is about to lose its slots"),
            EventKind::NoticeWithdrawn => format!("{name} keeps its slots after all"),
            EventKind::ExtensionAsked => format!("the host of {name} asks for a longer contract at another price"),
            EventKind::Maintenance => format!("maintenance of the host of {name}"),
            EventKind::LowCredit => format!("{name} is short of credit"),
            EventKind::DiskFull => format!("{name} wrote more than its disk and was stopped"),
            EventKind::DiskNearlyFull => format!("the disk of {name} is nearly full"),
            EventKind::LeaseStopped => format!("{name} was stopped"),
            EventKind::LeaseEnded => format!("{name} is over"),
            EventKind::Offline => format!("{name} is offline"),
            EventKind::BackOnline => format!("{name} is back online"),
            EventKind::ExpiringSoon => format!("the contract of {name} ends at {ends}"),
            EventKind::ContractExtended => format!("the contract of {name} was extended to {ends}"),
            EventKind::GpuIdle
            | EventKind::PaymentDue
            | EventKind::PaymentFailed
            | EventKind::PaymentClaimed
            | EventKind::MachineOffline
            | EventKind::EngineDown
            | EventKind::EngineUp
            | EventKind::Test => name,
        };
        let text = if more.is_empty() { sentence } else { format!("{sentence}: {more}") };
        Happening {
            kind,
            at,
            machine: Some(self.sight.machine),
            lease: Some(view.lease),
            text,
            data: self.data(data),
            subject: Vec::new(),
            number,
        }
    }

    /// What programs may want to know of any lease, and what this event adds.
    fn data(&self, more: Value) -> Value {
        let view = &self.sight.view;
        let mut data = Map::new();
        let common = json!({
            "role": view.role,
            "number": view.number,
            "label": view.label.as_deref().map(plain),
            "peer": view.peer,
            "image": plain(&view.image),
            "price_hour": view.price_hour.to_string(),
            "due": view.due.to_string(),
            "acked": view.acked.to_string(),
            "currency": view.currency,
            "ends_at": rfc3339(view.ends_at_ms),
        });
        for part in [common, more] {
            if let Value::Object(part) = part {
                data.extend(part);
            }
        }
        Value::Object(data)
    }

    fn step(&self, kind: EventKind, event: &LeaseEvent) -> Happening {
        let reason = words::word(event.state);
        let mut more: Vec<String> = Vec::new();
        if matches!(kind, EventKind::LeaseStopped | EventKind::LeaseEnded | EventKind::LowCredit) {
            more.extend(reason.clone());
        }
        more.extend(event.exit_code.map(|code| format!("exit code {code}")));
        more.extend(Some(plain(&event.note)).filter(|note| !note.is_empty()));
        let word = event.state.to_string();
        let data = json!({
            "n": event.n,
            "what": event.what,
            "state": word.split('(').next(),
            "reason": reason,
            "by": event.by,
            "exit_code": event.exit_code,
            "note": plain(&event.note),
        });
        self.tell(kind, event.at, u64::from(event.n), &more.join(", "), data)
    }

    /// What no step tells: what comes near a limit, and who can't be reached.
    fn levels(&self, seen: &mut Seen, now: Timestamp, news: &mut Vec<Happening>) {
        let view = &self.sight.view;
        if view.ends_at_ms > seen.ends_at {
            let data = json!({ "ended_at": rfc3339(seen.ends_at) });
            news.push(self.tell(EventKind::ContractExtended, now, view.ends_at_ms.0, "", data));
        }
        seen.ends_at = view.ends_at_ms;
        if let Some((used, granted)) = self.sight.disk
            && seen.disk.comes(reaches(used, granted, NEARLY_FULL.0), !reaches(used, granted, NEARLY_FULL.1))
        {
            let data = json!({ "used_bytes": used, "granted_bytes": granted });
            let more = format!("{} of {} MB", used / 1_000_000, granted / 1_000_000);
            news.push(self.tell(EventKind::DiskNearlyFull, now, seen.disk.times, &more, data));
        }
        if view.role == Role::Renter {
            self.expiry(seen, now, news);
            self.credit(seen, now, news);
            self.reach(seen, now, news);
        }
    }

    fn expiry(&self, seen: &mut Seen, now: Timestamp, news: &mut Vec<Happening>) {
        let end = self.sight.view.ends_at_ms;
        let ahead = EXPIRING.min(Millis(end.since(self.sight.drafted_at).0 / 4));
        if now < end && end.since(now) <= ahead && seen.expiring != end {
            seen.expiring = end;
            let more = format!("in {}", Millis(end.since(now).0 / 1000 * 1000));
            news.push(self.tell(EventKind::ExpiringSoon, now, end.0, &more, json!({})));
        }
    }

    fn credit(&self, seen: &mut Seen, now: Timestamp, news: &mut Vec<Happening>) {
        let view = &self.sight.view;
        let owed = Amount(view.due.0.saturating_sub(view.acked.0));
        let limits = [("max_spend", view.due, self.sight.max_spend), ("credit", owed, Some(self.sight.credit))];
        let known = limits.iter().filter_map(|(what, used, limit)| limit.filter(|l| l.0 > 0).map(|l| (what, used, l)));
        let low = known.clone().find(|(_, used, limit)| reaches(used.0, limit.0, LOW_CREDIT.0));
        let eased = known.clone().all(|(_, used, limit)| !reaches(used.0, limit.0, LOW_CREDIT.1));
        if seen.low.comes(low.is_some(), eased)
            && let Some((what, used, limit)) = low
        {
            let more = match *what {
                "max_spend" => format!("{used} {} of at most {limit} are spent", view.currency),
                _ => format!("{used} {} of {limit} that the host lends are not acknowledged", view.currency),
            };
            let data = json!({ "reason": what, "used": used.to_string(), "limit": limit.to_string() });
            news.push(self.tell(EventKind::LowCredit, now, u64::MAX - seen.low.times, &more, data));
        }
    }

    fn reach(&self, seen: &mut Seen, now: Timestamp, news: &mut Vec<Happening>) {
        let view = &self.sight.view;
        // Nothing runs there yet that could be offline.
        if seen.n == 0 {
            return;
        }
        let restarts = words::host_is_away(view.state);
        if view.reachable {
            seen.gone_since = None;
        }
        let since = if view.reachable { now } else { *seen.gone_since.get_or_insert(now) };
        let away = restarts || now.since(since) >= AWAY;
        let was = seen.away.now;
        if seen.away.comes(away, view.reachable && !restarts) {
            let reason = words::word(view.state).filter(|_| restarts).unwrap_or_else(|| "unreachable".to_owned());
            let more = if restarts { "its host restarts" } else { "its host can't be reached" };
            news.push(self.tell(EventKind::Offline, now, seen.away.times, more, json!({ "reason": reason })));
        } else if was && !seen.away.now {
            let state = view.state.to_string();
            news.push(self.tell(EventKind::BackOnline, now, seen.away.times, &state, json!({ "state": state })));
        }
    }
}

#[cfg(test)]
mod tests;
