//! The host's side of the node, as its owner sees and changes it.

use souk_protocol::{entry::Body, machine::host_lease::HostLease};

use super::{
    command::{CommandError, ErrorCode},
    search::accepts,
    task::Market,
};
use crate::{
    api::types::{
        AcceptsView, ConditionsView, EngineView, HostRole, HostView, PricesView, PricingView, Problem, PublicView,
        ScheduleRequest, ScheduleView,
    },
    host::HostSide,
};

impl Market {
    /// Offers the machine as its owner set it, once the container engine has said what it can do; or takes the offer back.
    pub(super) fn offer_machine(&mut self) {
        let (Some(host), Some(runtime)) = (&self.host, &self.runtime) else { return };
        let mut setup = host.setup(&souk_runtime::Runtime::info(&**runtime));
        // A machine cut into fewer slots keeps those that leases hold: none is sold on top of them.
        let held = self.engine.host().leases().values().filter(|l| l.holds_slots()).filter_map(highest_slot).max();
        if let Some(highest) = held
            && setup.slots.iter().all(Option::is_none)
        {
            let least = usize::from(highest) + 1;
            setup.slots.resize(setup.slots.len().max(least), None);
        }
        setup.accept.let_in(&self.trust.let_in);
        setup.reachability = super::reach::offered(&self.network.reachability());
        setup.ssh_host_key = souk_protocol::SshKey(self.about.ssh.host_key().public());
        self.locks.name(&setup.slots);
        self.offer_as_owned(setup);
    }

    pub(super) fn change_host(
        &mut self,
        change: impl FnOnce(&mut HostSide) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let host = self.host.as_mut().ok_or_else(not_a_host)?;
        change(host)?;
        self.offer_machine();
        // Its share of the machine may be another now.
        self.refresh_idle();
        Ok(())
    }

    /// What the owner keeps from renters, once changed.
    pub(super) fn schedule(&mut self, request: Option<ScheduleRequest>) -> Result<ScheduleView, CommandError> {
        if let Some(request) = request {
            self.change_host(|host| host.keep(request))?;
        }
        self.host.as_ref().map(HostSide::schedule).ok_or_else(not_a_host)
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.key_problems();
        problems.extend(self.cluster_problem());
        let mut add = |sentence: String, fix: &str| problems.push(Problem { sentence, fix: fix.to_owned() });
        if self.cluster.is_some() {
            // Who is missing is said already.
        } else if self.engine.connected().next().is_none() && self.about.has_bootstrap {
            add(
                "no peer is connected".to_owned(),
                "check the bootstrap addresses in the configuration and the firewall",
            );
        } else if self.engine.connected().next().is_none() {
            add("no peer is connected, and no bootstrap address is known".to_owned(), "souk up --bootstrap ADDRESS");
        }
        let Some(host) = &self.host else { return problems };
        if let Some(sentence) = super::reach::problem(&self.network.reachability()) {
            add(sentence.to_owned(), super::reach::REMEDY);
        }
        if let Some(problem) = &self.runtime_problem {
            add(problem.clone(), "start the engine (systemctl start docker), or install it (apt install docker.io)");
        }
        if let Some(runtime) = &self.runtime
            && !souk_runtime::Runtime::info(&**runtime).egress.contains(&souk_runtime::Egress::Internet)
        {
            add(
                "guests can't be kept from this host's LAN, so none gets a network".to_owned(),
                "run as root with nftables installed",
            );
        }
        if let Some(runtime) = &self.runtime {
            problems.extend(host.disk_problem(&souk_runtime::Runtime::info(&**runtime)));
        }
        problems.extend(host.problems());
        problems.extend(self.membership_problem());
        problems
    }

    pub(super) fn host_view(&self) -> Result<HostView, CommandError> {
        let host = self.host.as_ref().ok_or_else(not_a_host)?;
        let info = self.runtime.as_ref().map(|r| souk_runtime::Runtime::info(&**r));
        let setup = self.engine.host().setup();
        let leases: Vec<_> = self.engine.host().leases().keys().filter_map(|lease| self.view(*lease)).collect();
        Ok(HostView {
            role: if self.engine.host().offer().is_some() { HostRole::Listed } else { HostRole::Unlisted },
            machine: host.machine(),
            hardware: host.hardware(),
            slots: self.slot_views(host),
            offer: self.offer_view(),
            bids: self.bid_views(),
            min_slots: host.config().host.min_slots,
            prices: prices(host),
            pricing: self.pricing_view(host),
            accepts: AcceptsView { cluster: self.cluster_name(), ..accepts(&host.accept_policy()) },
            conditions: self.conditions_view(host),
            egress: setup.map(|s| s.terms.egress.clone()).unwrap_or_default(),
            registries: host.config().host.registries.clone(),
            public: host.config().host.public.offered().map(|public| PublicView {
                address: public.address,
                ports: public.range,
                free: self.engine.host().ports_free(),
            }),
            schedule: host.schedule(),
            engine: EngineView {
                version: info.as_ref().filter(|_| self.runtime_problem.is_none()).map(|i| i.engine_version.clone()),
                socket: host.config().runtime.docker_socket.display().to_string(),
                gpus: info.as_ref().and_then(|i| i.gpu_runtime.clone()),
                hard_disk_quota: info.as_ref().is_some_and(|i| i.disk_quota == souk_runtime::DiskQuota::Hard),
            },
            leases,
            problems: self.problems(),
        })
    }

    fn pricing_view(&self, host: &HostSide) -> PricingView {
        let pricing = host.config().host.pricing.clone();
        PricingView {
            strategy: pricing.strategy,
            command: pricing.command,
            min: pricing.min,
            max: pricing.max,
            hosts: pricing.hosts,
            seen: self.prices.seen.clone(),
            failure: self.prices.price_failure.clone(),
        }
    }

    fn conditions_view(&self, host: &HostSide) -> ConditionsView {
        let (accept, images) = (host.config().host.accept.clone(), host.config().host.images.clone());
        ConditionsView {
            attested_by: accept.attested_by,
            min_trust: accept.min_trust,
            images_allowed: images.allow,
            images_denied: images.deny,
            command: accept.command,
            command_fails: accept.command_fails,
            failure: self.prices.accept_failure.clone(),
        }
    }
}

fn prices(host: &HostSide) -> Option<PricesView> {
    let prices = &host.config().host.prices;
    let slot_hour = host.slot_hour()?;
    Some(PricesView {
        slot_hour,
        min_bid: host.min_bid().unwrap_or(slot_hour),
        storage_gb_month: prices.storage_gb_month,
        up_gb: prices.up_gb,
        down_gb: prices.down_gb,
        reserved_discount: prices.reserved_discount,
        currency: prices.currency.clone(),
    })
}

fn highest_slot(lease: &HostLease) -> Option<u16> {
    match &lease.placement()?.body {
        Body::Placement { slots, .. } => slots.iter().max().copied(),
        Body::Genesis { .. }
        | Body::LeaseOpen { .. }
        | Body::LeaseAccept { .. }
        | Body::Void { .. }
        | Body::Amend { .. }
        | Body::Amended(_)
        | Body::Anchor { .. }
        | Body::Close { .. }
        | Body::CloseAck { .. }
        | Body::Settle(_)
        | Body::SettleAck(_)
        | Body::Dispute(_)
        | Body::Attestation(_)
        | Body::Probe(_)
        | Body::Checkpoint(_) => None,
    }
}

pub(super) fn not_a_host() -> CommandError {
    CommandError::new(ErrorCode::WrongState, "this node was not started as a host")
        .hint("stop it (souk down) and start it with: souk up --host")
}
