//! What is measured, put together when somebody asks. The list with its meanings is `docs/metrics.md`; a test compares the two.

use std::collections::BTreeMap;

use souk_network::{PortMapping, Reachability};
use souk_protocol::lease::LeaseState;

use super::task::Market;
use crate::{
    api::types::{MetricKind, MetricView},
    clock::now,
};

impl Market {
    /// Every figure of this node.
    pub(super) fn metrics(&self) -> Vec<MetricView> {
        let gauge = |name: &str, help: &str, value: f64| MetricView::one(name, help, MetricKind::Gauge, value);
        let truth = |is: bool| if is { 1.0 } else { 0.0 };
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("network", self.about.network_name.clone()),
            ("node", self.engine.me().to_string()),
        ];
        let mut all = vec![
            MetricView::many("souk_info", "This node; always 1.", MetricKind::Gauge, vec![(labels, 1.0)]),
            gauge("souk_up_seconds", "How long the node has run.", now().since(self.about.started).0 as f64 / 1000.0),
            gauge("souk_peers", "Peers connected.", self.engine.connected().count() as f64),
            self.reachability(),
            gauge(
                "souk_mapped_ports",
                "Ports that the router at home lets through to this node.",
                match &*self.about.mapping.borrow() {
                    PortMapping::Mapped { ports, .. } => *ports as f64,
                    PortMapping::Off
                    | PortMapping::NoRouter
                    | PortMapping::Nested { .. }
                    | PortMapping::Refused { .. } => 0.0,
                },
            ),
            gauge("souk_offers", "Offers in the book.", self.engine.book().offers().count() as f64),
            self.leases_by_state(),
            gauge("souk_problems", "What is not as it should be; souk status names it.", self.problems().len() as f64),
        ];
        if self.host.is_some() {
            let offer = self.engine.host().offer();
            let slots = |f: fn(&souk_protocol::offer::Availability) -> u16| {
                offer.map_or(0.0, |offer| f64::from(f(&offer.availability)))
            };
            all.extend([
                gauge("souk_host_listed", "Whether this machine is offered.", truth(offer.is_some())),
                gauge("souk_host_slots", "Slots of this machine's offer.", slots(|a| a.slots_total)),
                gauge("souk_host_slots_free", "Slots to be had at the fixed price.", slots(|a| a.slots_free)),
                gauge(
                    "souk_engine_up",
                    "Whether the container engine answers.",
                    truth(self.runtime.is_some() && self.runtime_problem.is_none()),
                ),
            ]);
        }
        for (name, help, value) in self.network.status().counters() {
            let (name, kind) = (format!("souk_network_{name}_total"), MetricKind::Counter);
            all.push(MetricView::one(&name, help, kind, value as f64));
        }
        all.extend(process());
        all
    }

    fn reachability(&self) -> MetricView {
        let now = self.network.reachability();
        let is = |state: &str, holds: bool| (vec![("state", state.to_owned())], if holds { 1.0 } else { 0.0 });
        let relayed = matches!(&now, Reachability::Private { relays } if !relays.is_empty());
        let alone = matches!(&now, Reachability::Private { relays } if relays.is_empty());
        let values = vec![
            is("direct", now == Reachability::Public),
            is("relayed", relayed),
            is("none", alone),
            is("unknown", now == Reachability::Unknown),
        ];
        MetricView::many(
            "souk_reachability",
            "How others reach this node: 1 for what holds.",
            MetricKind::Gauge,
            values,
        )
    }

    fn leases_by_state(&self) -> MetricView {
        let mut count: BTreeMap<(&str, &str), f64> = BTreeMap::new();
        for role in ["host", "renter"] {
            for state in ["preparing", "running", "paused", "kept"] {
                count.insert((role, state), 0.0);
            }
        }
        let word = |state: LeaseState| match state {
            LeaseState::Preparing => Some("preparing"),
            LeaseState::Running => Some("running"),
            LeaseState::Paused(_) => Some("paused"),
            LeaseState::Kept => Some("kept"),
            LeaseState::Ended(_) => None,
        };
        let hosted = self.engine.host().leases().values().map(|l| ("host", l.state()));
        let rented = self.engine.renter().leases().values().map(|l| ("renter", l.state()));
        for (role, state) in hosted.chain(rented) {
            if let Some(state) = word(state) {
                *count.entry((role, state)).or_default() += 1.0;
            }
        }
        let labelled =
            |((role, state), n): ((&str, &str), f64)| (vec![("role", role.to_owned()), ("state", state.to_owned())], n);
        let values = count.into_iter().map(|((role, state), n)| labelled(((role, state), n))).collect();
        MetricView::many("souk_leases", "Leases that are not over.", MetricKind::Gauge, values)
    }
}

/// What the system says of this process, under the names that Prometheus' own clients use. What it does not say is left out.
fn process() -> Vec<MetricView> {
    let mut all = Vec::new();
    // Everything after the name in parentheses, which may hold anything: state is the first.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    // Linux tells times in hundredths of a second, whatever the kernel's own tick.
    if let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) {
        let help = "Processor time used.";
        all.push(MetricView::one("process_cpu_seconds_total", help, MetricKind::Counter, (user + system) / 100.0));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    if let Some(kib) = resident.and_then(|kib| kib.parse::<f64>().ok()) {
        all.push(MetricView::one("process_resident_memory_bytes", "Memory in use.", MetricKind::Gauge, kib * 1024.0));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let open = files.count() as f64;
        all.push(MetricView::one("process_open_fds", "Files and sockets open.", MetricKind::Gauge, open));
    }
    all
}
