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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::{
        Currency, NodeId,
        lease::{EndReason, LeaseState, PauseReason},
        message::{Cause, EventCode},
        resources::{Resources, SlotClass},
    };

    const HOUR: u64 = 3_600_000;

    fn sight(role: Role) -> Sight {
        let class = SlotClass::Cpu;
        let resources = Resources { slots: 1, class, cpu_milli: 1000, ram_mb: 1, disk_mb: 1, shm_mb: 1, pids: 1 };
        let view = LeaseView {
            number: 3,
            lease: LeaseId([1; 32]),
            role,
            peer: NodeId([2; 32]),
            label: Some("job\u{1b}".to_owned()),
            state: LeaseState::Running,
            since_ms: Timestamp(0),
            image: "debian".to_owned(),
            command: String::new(),
            resources,
            price_hour: Amount(1),
            due: Amount(0),
            acked: Amount(0),
            currency: Currency::usd(),
            uptime_ms: Millis(0),
            ends_at_ms: Timestamp(100 * HOUR),
            exit_code: None,
            progress: None,
            note: String::new(),
            reachable: true,
        };
        Sight {
            view,
            machine: MachineId::default(),
            drafted_at: Timestamp(10),
            credit: Amount(1000),
            max_spend: Some(Amount(100)),
            events: Vec::new(),
            disk: None,
            held: true,
        }
    }

    fn step(sight: &mut Sight, at: u64, state: LeaseState) {
        let n = u32::try_from(sight.events.len()).unwrap() + 1;
        let (note, what) = ("a\nnote".to_owned(), EventCode::State);
        sight.events.push(LeaseEvent { n, at: Timestamp(at), state, what, by: Cause::Host, exit_code: None, note });
        sight.view.state = state;
    }

    fn kinds(watch: &mut Watch, sight: &Sight, at: u64) -> Vec<&'static str> {
        watch.lease(sight, Timestamp(at)).into_iter().map(|h| h.kind.name()).collect()
    }

    #[test]
    fn each_step_is_told_once_also_after_a_crash() {
        let mut watch = Watch::since(Timestamp(5));
        let mut seen = sight(Role::Renter);
        step(&mut seen, 11, LeaseState::Preparing);
        assert!(kinds(&mut watch, &seen, 12).is_empty());
        let kept = serde_json::to_string(&watch).unwrap();
        step(&mut seen, 13, LeaseState::Running);
        step(&mut seen, 14, LeaseState::Paused(PauseReason::Stopped));
        step(&mut seen, 14, LeaseState::Paused(PauseReason::Stopped));
        step(&mut seen, 15, LeaseState::Running);
        let first = watch.lease(&seen, Timestamp(16));
        assert!(watch.lease(&seen, Timestamp(16)).is_empty());
        // The node forgot that it told: the same events, with the same numbers.
        let mut again: Watch = serde_json::from_str(&kept).unwrap();
        let second = again.lease(&seen, Timestamp(99));
        let node = NodeId([9; 32]);
        let ids =
            |news: Vec<Happening>| news.into_iter().map(|h| super::super::Event::of(node, h).id).collect::<Vec<_>>();
        assert_eq!(
            first.iter().map(|h| h.kind.name()).collect::<Vec<_>>(),
            ["lease_started", "lease_stopped", "resumed"]
        );
        assert!(first[1].text.contains("stopped, a note") && first[1].data["by"] == "host", "{:?}", first[1]);
        assert_eq!(first[1].data["label"], "job ");
        assert_eq!(ids(first), ids(second));
        step(&mut seen, 20, LeaseState::Ended(EndReason::Destroyed));
        seen.held = false;
        assert_eq!(kinds(&mut watch, &seen, 21), ["lease_ended"]);
        assert_eq!(watch.leases().count(), 0, "what is over is forgotten");
    }

    #[test]
    fn what_was_before_the_first_hook_is_nobodys_news() {
        let mut watch = Watch::since(Timestamp(50));
        let mut seen = sight(Role::Host);
        step(&mut seen, 11, LeaseState::Running);
        assert!(kinds(&mut watch, &seen, 60).is_empty());
        step(&mut seen, 61, LeaseState::Paused(PauseReason::Stopped));
        step(&mut seen, 62, LeaseState::Running);
        assert_eq!(kinds(&mut watch, &seen, 63), ["lease_stopped", "resumed"]);
        let mut young = sight(Role::Host);
        young.view.lease = LeaseId([7; 32]);
        young.drafted_at = Timestamp(70);
        assert_eq!(kinds(&mut watch, &young, 71), ["rented"]);
    }

    #[test]
    fn ends_that_come_near_or_move_are_told_once() {
        let mut watch = Watch::since(Timestamp(0));
        let mut seen = sight(Role::Renter);
        assert!(kinds(&mut watch, &seen, 70 * HOUR).is_empty());
        assert_eq!(kinds(&mut watch, &seen, 77 * HOUR), ["expiring_soon"]);
        assert!(kinds(&mut watch, &seen, 78 * HOUR).is_empty());
        seen.view.ends_at_ms = Timestamp(200 * HOUR);
        assert_eq!(kinds(&mut watch, &seen, 79 * HOUR), ["contract_extended"]);
        assert_eq!(kinds(&mut watch, &seen, 177 * HOUR), ["expiring_soon"]);
        assert!(kinds(&mut watch, &seen, 201 * HOUR).is_empty());
        // Its host says so too: that is no news.
        let mut told = sight(Role::Renter);
        told.view.lease = LeaseId([9; 32]);
        assert_eq!(kinds(&mut watch, &told, 77 * HOUR), ["expiring_soon"]);
        step(&mut told, 78 * HOUR, LeaseState::Running);
        told.events[0].what = EventCode::ExpiringSoon;
        assert!(kinds(&mut watch, &told, 78 * HOUR).is_empty());
        // A short contract: in its last quarter.
        let mut short = sight(Role::Renter);
        short.view.lease = LeaseId([8; 32]);
        short.view.ends_at_ms = Timestamp(10 + 4 * HOUR);
        assert!(kinds(&mut watch, &short, 2 * HOUR).is_empty());
        assert_eq!(kinds(&mut watch, &short, 11 + 3 * HOUR), ["expiring_soon"]);
    }

    #[test]
    fn low_credit_is_told_again_only_after_it_has_eased() {
        let mut watch = Watch::since(Timestamp(0));
        let mut seen = sight(Role::Renter);
        let mut at = |due: u64, acked: u64, ceiling: Option<u64>| {
            (seen.view.due, seen.view.acked, seen.max_spend) = (Amount(due), Amount(acked), ceiling.map(Amount));
            kinds(&mut watch, &seen, 100)
        };
        assert!(at(79, 79, Some(100)).is_empty());
        assert_eq!(at(80, 80, Some(100)), ["low_credit"]);
        assert!(at(100, 100, Some(100)).is_empty());
        assert!(at(100, 100, Some(1000)).is_empty(), "eased");
        assert_eq!(at(900, 100, None), ["low_credit"], "of what the host lends");
        assert!(at(u64::MAX, 0, Some(0)).is_empty(), "no ceiling of zero, and no overflow");
    }

    #[test]
    fn a_host_is_offline_once_it_is_long_out_of_reach_or_says_so() {
        let mut watch = Watch::since(Timestamp(0));
        let mut seen = sight(Role::Renter);
        step(&mut seen, 11, LeaseState::Running);
        assert_eq!(kinds(&mut watch, &seen, 1000), ["lease_started"]);
        seen.view.reachable = false;
        assert!(kinds(&mut watch, &seen, 2000).is_empty() && kinds(&mut watch, &seen, 31_999).is_empty());
        assert_eq!(kinds(&mut watch, &seen, 32_000), ["offline"]);
        let mut after_a_crash: Watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
        seen.view.reachable = true;
        step(&mut seen, 40_000, LeaseState::Paused(PauseReason::HostRestart));
        assert!(kinds(&mut watch, &seen, 40_001).is_empty(), "it still is");
        step(&mut seen, 41_000, LeaseState::Running);
        assert_eq!(kinds(&mut watch, &seen, 41_001), ["back_online"]);
        assert_eq!(kinds(&mut after_a_crash, &seen, 41_001), ["back_online"]);
        step(&mut seen, 50_000, LeaseState::Paused(PauseReason::EngineRestart));
        assert_eq!(kinds(&mut watch, &seen, 50_001), ["offline"]);
    }

    #[test]
    fn disks_and_engines_are_told_as_they_change() {
        let mut watch = Watch::since(Timestamp(0));
        let mut seen = sight(Role::Host);
        assert_eq!(kinds(&mut watch, &seen, 20), ["rented"]);
        let mut at = |used| {
            seen.disk = Some((used, 100));
            kinds(&mut watch, &seen, 30).len()
        };
        assert_eq!([at(89), at(90), at(99), at(85), at(90), at(79), at(95)], [0, 1, 0, 0, 0, 0, 1]);
        let machine = MachineId::default();
        let mut engine = |up| watch.engine(machine, up, Timestamp(1)).map(|h| (h.kind.name(), h.number));
        assert_eq!(engine(true), None);
        assert_eq!(engine(false), Some(("engine_down", 1)));
        assert_eq!(engine(false), None);
        assert_eq!(engine(true), Some(("engine_up", 1)));
        assert_eq!(engine(false), Some(("engine_down", 2)));
    }
}
