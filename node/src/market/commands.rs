//! What people want of the node, carried out: each command of the local API against the engine, the ledger and the host's side.

use souk_network::NetworkHandle;
use souk_protocol::{
    LeaseId, Millis, NodeId, Nonce, Timestamp,
    logs::LogPosition,
    machine::io::{Command as EngineCommand, Input, Refusal, Token, Wish},
    message::{Action, StreamOpen},
    negotiation::RentalType,
    workload::Workload,
};

use super::{
    command::{ByteStream, Command, CommandError, ErrorCode, LeaseSelector, Reply, StepSender},
    rentals::{refused, unknown_ask},
    search::{currency_of, disk_of, egress_of},
    task::Market,
    views,
};
use crate::{
    access,
    api::types::{
        ExecRequest, HostRole, HostView, LeaseDetail, LeaseView, ListRequest, LogsRequest, PeerView, RentRequest,
        RentStep, StatusView,
    },
    clock::{now, random},
};

/// How long a stop, start or destroy is waited for before the lease is shown as it is.
const CONTROL_WITHIN: Millis = Millis::from_secs(20);
/// How long opening a stream to a host may take.
const STREAM_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

impl Market {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => answer(reply, Ok(self.status())),
            Command::Peers(reply) => self.peers(reply),
            Command::Metrics(reply) => answer(reply, Ok(self.metrics())),
            Command::Search { request, reply } => answer(reply, self.search(&request)),
            Command::Quote { request, reply } => answer(reply, self.quote(&request)),
            Command::Rent { request, steps } => match random() {
                Ok(nonce) => self.rent(*request, Nonce(nonce), &steps),
                Err(error) => {
                    steps.send(RentStep::Failed { error: CommandError::new(ErrorCode::Internal, error.to_string()) });
                }
            },
            Command::RentAs { request, nonce, steps } => self.rent(*request, nonce, &steps),
            Command::LeaseOf { nonce, reply } => answer(reply, Ok(self.lease_of(nonce))),
            Command::Leases { request, reply } => answer(reply, Ok(self.leases(&request))),
            Command::Lease { id, reply } => answer(reply, self.find(&id).and_then(|lease| self.detail(lease))),
            Command::Control { id, action, reply } => self.control(&id, action, reply),
            Command::Terms(command) => self.terms_command(command),
            Command::Label { id, text, reply } => self.label(&id, text, reply),
            Command::Logs { id, request, from, reply } => self.logs(&id, request, from, reply),
            Command::Exec { id, request, reply } => self.exec(&id, request, reply),
            Command::SshAccess { id, reply } => answer(reply, self.ssh_access(&id)),
            Command::Files { id, request, reply } => self.files(&id, request, reply),
            Command::SshKeys { id, request, reply } => self.ssh_keys(&id, request, reply),
            Command::LeaseTemplate { id, reply } => answer(reply, self.lease_template(&id)),
            Command::JupyterAccess { id, reply } => answer(reply, self.jupyter_access(&id)),
            Command::Tunnel { id, request, reply } => self.tunnel(&id, request, reply),
            Command::Receipts { request, reply } => answer(reply, self.receipts(&request)),
            Command::Events { request, reply } => self.ledger.happened(request, reply),
            Command::HostEarnings { request, reply } => self.ledger.earnings(request, reply),
            Command::LedgerCheck(reply) => self.ledger.check(reply),
            Command::LedgerCompact(reply) => self.ledger.compact(reply),
            Command::LedgerExport { id, reply } => match id.map(|id| self.find(&id)).transpose() {
                Ok(lease) => self.ledger.export(lease, reply),
                Err(error) => answer(reply, Err(error)),
            },
            Command::HostShow(reply) => answer(reply, self.host_view()),
            Command::HostList { request, reply } => answer(reply, self.list(&request)),
            Command::HostPrice { request, reply } => answer(reply, self.price(&request)),
            Command::Market { request, reply } => answer(reply, self.market_view(&request)),
            Command::HostUnlist(reply) => answer(reply, self.unlist()),
            Command::HostSchedule { request, reply } => answer(reply, self.schedule(request)),
            Command::HostIdleJob { request, reply } => answer(reply, self.idle_job(request)),
            Command::HostAccept { request, reply } => {
                let changed = self.change_host(|host| host.accept(&request));
                answer(reply, changed.and_then(|()| self.host_view()));
            }
            Command::Owner(command) => self.owner_command(command),
            Command::Cluster(command) => self.cluster_command(command),
            Command::Trust(command) => self.trust_command(command),
            Command::Money(command) => self.money_command(command),
        }
    }

    fn status(&self) -> StatusView {
        let open = |l: &&souk_protocol::machine::renter_lease::RenterLease| !l.state().is_ended();
        StatusView {
            node: self.engine.me(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.about.started,
            network: self.about.network_name.clone(),
            network_id: *self.engine.network(),
            dir: self.about.dir.clone(),
            listen: self.network.listen_addrs().iter().map(|a| format!("{a}/p2p/{}", self.engine.me())).collect(),
            external: self.about.external.clone(),
            reachability: super::reach::view(&self.network.reachability(), &self.about.mapping.borrow()),
            peers: self.engine.connected().count() as u64,
            offers: self.engine.book().offers().count() as u64,
            host: match (&self.host, self.engine.host().offer()) {
                (None, _) => HostRole::Off,
                (Some(_), None) => HostRole::Unlisted,
                (Some(_), Some(_)) => HostRole::Listed,
            },
            renting: self.engine.renter().leases().values().filter(open).count() as u64,
            hosting: self.engine.host().leases().values().filter(|l| !l.state().is_ended()).count() as u64,
            problems: self.problems(),
        }
    }

    fn peers(&self, reply: Reply<Vec<PeerView>>) {
        let network = self.network.clone();
        let mut machines = std::collections::BTreeMap::new();
        for offer in self.engine.book().offers() {
            *machines.entry(offer.host).or_insert(0) += 1;
        }
        let forked: std::collections::BTreeSet<NodeId> =
            self.engine.connected().filter(|peer| self.engine.is_forked(peer)).copied().collect();
        tokio::spawn(async move {
            let peers = network.peers().await;
            let view = |p: souk_network::PeerInfo| PeerView {
                forked: forked.contains(&p.id),
                node: p.id,
                address: p.addresses.first().map(ToString::to_string).unwrap_or_default(),
                outbound: p.direction == souk_network::Direction::Outbound,
                relayed: p.relayed,
                since_ms: p
                    .connected_since
                    .duration_since(std::time::UNIX_EPOCH)
                    .ok()
                    .and_then(|d| u64::try_from(d.as_millis()).ok())
                    .map(souk_protocol::Timestamp),
                rtt_us: p.rtt.and_then(|d| u64::try_from(d.as_micros()).ok()),
                agent: p.agent.unwrap_or_default(),
                score: (p.score * 100.0).round() / 100.0,
                received_bytes: p.received,
                sent_bytes: p.sent,
                machines: machines.get(&p.id).copied().unwrap_or(0),
            };
            answer(reply, Ok(peers.into_iter().map(view).collect()));
        });
    }

    /// The lease whose negotiation had this nonce, and whether its host has answered.
    fn lease_of(&self, nonce: Nonce) -> Option<(LeaseView, bool)> {
        let open = self.engine.renter().leases().values().find(|l| l.draft().nonce == nonce);
        if let Some(held) = open {
            let answered = !matches!(held.answer(), souk_protocol::machine::renter_lease::Opened::Waiting);
            return Some((self.view(held.id())?, answered));
        }
        Some((self.view(self.ledger.negotiated(&nonce)?)?, true))
    }

    fn rent(&mut self, request: RentRequest, nonce: Nonce, steps: &StepSender) {
        if let Err(error) = self.begin_rent(request, nonce, steps) {
            steps.send(RentStep::Failed { error });
        }
    }

    fn begin_rent(&mut self, mut request: RentRequest, nonce: Nonce, steps: &StepSender) -> Result<(), CommandError> {
        request = self.like(request)?;
        super::jupyter::prepare(&mut request)?;
        let ask = self.find_ask(&request.ask)?;
        let (offer, slots) = self.engine.book().find_ask(&ask).ok_or_else(|| unknown_ask(&ask))?;
        self.check_blocked(&offer.host)?;
        if request.volume {
            self.check_volume(&request, offer)?;
        }
        let volumes = self.attachments(&request, &offer.host, &offer.machine)?;
        let internal = |e: anyhow::Error| CommandError::new(ErrorCode::Internal, e.to_string());
        if let Some(login) = &request.login {
            super::logins::check(login, &request.image)?;
        }
        let wish = Wish {
            ask,
            nonce,
            rental: request.rental.map_or(RentalType::OnDemand, Into::into),
            extend: request.extend_ms,
            bid: request.price_hour,
            max_price: request.max_price_hour.or(self.about.max_price),
            term: request.term_ms,
            disk_mb: disk_of(&request, offer, slots),
            egress: egress_of(&request, offer),
            ports: request.ports,
            image_digest: request.image.split_once('@').map(|(_, digest)| digest.to_owned()),
            workload: Workload {
                command: request.command,
                entrypoint: request.entrypoint,
                env: request.env.0,
                user: request.user,
                workdir: request.workdir,
                keep_alive: false,
                volumes,
                onstart: request.onstart,
                login: request.login.is_some(),
                ssh_keys: self.rented_keys(&nonce, &request.ssh_keys)?,
                salt: Nonce(random().map_err(internal)?),
            },
            max_spend: request.max_spend,
            prepay: request.prepay_ms,
            tick: request.tick_ms,
            label: request.label,
            image: request.image,
            volume: request.volume,
        };
        let (host, currency) = (offer.host, currency_of(offer));
        steps.send(RentStep::Resolving { ask, host, image: wish.image.clone() });
        let token = self.token();
        self.rentals.begin(token, host, steps.clone(), currency, request.detach);
        match request.login {
            Some(login) => self.rent_with(token, wish, host, login),
            None => self.input(Input::Command(EngineCommand::Rent { token, wish: Box::new(wish) })),
        }
        Ok(())
    }

    /// Fills in what another lease of this node's runs.
    fn like(&self, request: RentRequest) -> Result<RentRequest, CommandError> {
        let Some(like) = &request.like else { return Ok(request) };
        let lease = self.find(&LeaseSelector(like.clone()))?;
        let gone = || CommandError::new(ErrorCode::WrongState, "this node does not rent that lease (any more)");
        let held = self.engine.renter().leases().get(&lease).ok_or_else(gone)?;
        let row = self.ledger.row(&lease).ok_or_else(gone)?;
        let workload = Workload::from_bytes(&row.workload)
            .map_err(|e| CommandError::new(ErrorCode::Internal, format!("the lease's workload can't be read: {e}")))?;
        let mut env = workload.env;
        env.retain(|(name, _)| !request.env.0.iter().any(|(given, _)| given == name));
        env.extend(request.env.0);
        Ok(RentRequest {
            command: request.command.or(workload.command),
            entrypoint: request.entrypoint.or(workload.entrypoint),
            env: crate::api::types::Environment(env),
            user: request.user.or(workload.user),
            workdir: request.workdir.or(workload.workdir),
            onstart: request.onstart.or(workload.onstart),
            ssh_keys: if request.ssh_keys.is_empty() { workload.ssh_keys } else { request.ssh_keys },
            disk_mb: request.disk_mb.or(Some(held.draft().resources.disk_mb)),
            egress: request.egress.or(Some(held.draft().egress)),
            ..request
        })
    }

    pub(super) fn view(&self, lease: LeaseId) -> Option<LeaseView> {
        self.live(lease).or_else(|| views::past(self.engine.me(), &self.ledger.row(&lease)?))
    }

    pub(super) fn live(&self, lease: LeaseId) -> Option<LeaseView> {
        let meta = self.meta.get(&lease).cloned().unwrap_or_default();
        let mut view = views::live(&self.engine, &meta, lease, now())?;
        view.relayed = self.network.is_relayed(&view.peer);
        Some(view)
    }

    pub(super) fn detail(&self, lease: LeaseId) -> Result<LeaseDetail, CommandError> {
        let missing = || CommandError::new(ErrorCode::NotFound, "the ledger has no such lease").hint("souk ps -a");
        let mut row = self.ledger.row(&lease).ok_or_else(missing)?;
        let view = self.view(lease).ok_or_else(missing)?;
        // The newest events may not be durable yet; the state that is shown is theirs.
        let hosted = self.engine.host().leases().get(&lease).map(|l| l.events());
        let live = hosted.or_else(|| self.engine.renter().leases().get(&lease).map(|l| l.events())).unwrap_or_default();
        let known = row.events.last().map_or(0, |e| e.n);
        row.events.extend(live.iter().filter(|e| e.n > known).cloned());
        let standing = views::Standing::of(&self.engine, lease);
        views::detail(self.engine.me(), self.engine.network(), view, &row, standing).ok_or_else(missing)
    }

    fn control(&mut self, id: &LeaseSelector, action: Action, reply: Reply<LeaseView>) {
        let begun = self.find(id).and_then(|lease| {
            if self.engine.host().leases().contains_key(&lease) {
                return self.control_hosted(lease, action).map(|()| None);
            }
            let nonce = random().map_err(|e| CommandError::new(ErrorCode::Internal, e.to_string()))?;
            Ok(Some((lease, Nonce(nonce))))
        });
        match begun {
            Ok(Some((lease, nonce))) => {
                let token = self.token();
                let events = self.engine.renter().leases().get(&lease).map_or(0, |l| l.events_seen());
                self.rentals.control(token, lease, action, events, reply);
                self.input(Input::Command(EngineCommand::Control { token, lease, action, nonce }));
            }
            Ok(None) => answer(reply, self.find(id).and_then(|lease| self.shown(lease))),
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// A host may only take its machine back: stopping and starting are the renter's.
    fn control_hosted(&mut self, lease: LeaseId, action: Action) -> Result<(), CommandError> {
        if action != Action::Destroy {
            let message = "this machine is rented out by that lease; only its renter stops and starts it";
            return Err(CommandError::new(ErrorCode::WrongState, message)
                .hint("souk destroy takes the machine back, which counts against this host"));
        }
        self.input(Input::Command(EngineCommand::Abort { lease }));
        Ok(())
    }

    /// The host's answer to a control command. Taken is not done: people wait for the effect, as far as it comes soon.
    pub(super) fn control_done(&mut self, token: Token, result: Result<(), Refusal>) {
        let taken = self.opinion_done(token, &result)
            || self.change_done(token, &result)
            || self.inside_done(token, &result)
            || self.payment_signed(token, &result);
        if taken {
            return;
        }
        match result {
            Ok(()) => {
                if let Some(lease) = self.rentals.taken(token) {
                    self.lease_changed(lease);
                }
            }
            Err(why) => {
                if let Some(reply) = self.rentals.refused(token) {
                    answer(reply, Err(refused(&why)));
                }
            }
        }
    }

    /// Answers those who have waited for an effect long enough, with the lease as it is.
    pub(super) fn controls_overdue(&mut self) {
        let overdue = Timestamp(now().0.saturating_sub(CONTROL_WITHIN.0));
        for (lease, reply) in self.rentals.controlled(None, overdue) {
            answer(reply, self.shown(lease));
        }
    }

    fn shown(&self, lease: LeaseId) -> Result<LeaseView, CommandError> {
        self.view(lease).ok_or_else(|| CommandError::new(ErrorCode::NotFound, "the ledger has no such lease"))
    }

    fn label(&mut self, id: &LeaseSelector, text: String, reply: Reply<LeaseView>) {
        let labelled = self.find(id).and_then(|lease| {
            if text.len() > souk_protocol::limits::NAME_BYTES || text.chars().any(char::is_control) {
                let message = "a label is at most 64 bytes, without control characters";
                return Err(CommandError::new(ErrorCode::BadRequest, message));
            }
            self.input(Input::Command(EngineCommand::Label { lease, text: text.clone() }));
            let label = Some(text).filter(|t| !t.is_empty());
            // The record is on its way; what is shown is what it says.
            self.shown(lease).map(|view| LeaseView { label, ..view })
        });
        answer(reply, labelled);
    }

    fn logs(&self, id: &LeaseSelector, request: LogsRequest, from: Option<LogPosition>, reply: Reply<ByteStream>) {
        match self.find(id) {
            Ok(lease) => {
                let LogsRequest { follow, tail, since_ms, .. } = request;
                self.open(lease, StreamOpen::Logs { lease, follow, tail, since: since_ms, from }, reply);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn exec(&self, id: &LeaseSelector, request: ExecRequest, reply: Reply<ByteStream>) {
        match self.find(id) {
            Ok(lease) => {
                let ExecRequest { command, tty, env, user, workdir, size } = request;
                let open = StreamOpen::Exec { lease, command, tty, env: env.0, user, workdir, size };
                self.open(lease, open, reply);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    /// The host of a lease that this node rents.
    pub(super) fn host_of(&self, lease: LeaseId) -> Result<NodeId, CommandError> {
        let wrong = |message: &str| Err(CommandError::new(ErrorCode::WrongState, message));
        match self.engine.renter().leases().get(&lease) {
            Some(held) if !held.state().is_ended() => Ok(held.host()),
            None if self.engine.host().leases().contains_key(&lease) => {
                wrong("this machine is rented out by that lease; what runs in it is its renter's alone")
            }
            Some(_) | None => wrong("the lease is over, and its instance is gone"),
        }
    }

    /// Opens a stream to a lease's host and says what it is for.
    pub(super) fn open(&self, lease: LeaseId, open: StreamOpen, reply: Reply<ByteStream>) {
        let host = match self.host_of(lease) {
            Ok(host) => host,
            Err(error) => return answer(reply, Err(error)),
        };
        let network = self.network.clone();
        tokio::spawn(async move { answer(reply, open_stream(&network, host, &open).await) });
    }

    pub(super) fn lease_changed(&mut self, lease: LeaseId) {
        self.hooks.mark(lease);
        self.ask_pulse(lease);
        let hosted = self.engine.host().leases().get(&lease).map(|l| (l.state(), l.progress(), l.rank(), 0));
        let rented =
            self.engine.renter().leases().get(&lease).map(|l| (l.state(), l.progress(), l.rank(), l.events_seen()));
        self.want_public_ports();
        if let Some(server) = &self.server
            && hosted.is_none_or(|(state, ..)| state.is_ended())
        {
            server.end(&lease);
        }
        if hosted.is_none() && rented.is_none() {
            // The engine has let go of it: what the ledger says counts, once its last records are in.
            self.settling.insert(lease);
        }
        let past = || self.view(lease).map(|v| (v.state, None, None, u32::MAX));
        let Some((state, progress, rank, events)) = hosted.or(rented).or_else(past) else { return };
        if state.is_ended() {
            self.lease_tells();
        }
        let mut rentals = std::mem::take(&mut self.rentals);
        rentals.changed(lease, state, (progress, rank), || self.view(lease));
        self.rentals = rentals;
        for (lease, reply) in self.rentals.controlled(Some((lease, state, events)), Timestamp(0)) {
            answer(reply, self.shown(lease));
        }
        self.terms_changed(lease);
    }

    fn list(&mut self, request: &ListRequest) -> Result<HostView, CommandError> {
        self.change_host(|host| host.list(request))?;
        self.host_view()
    }

    fn unlist(&mut self) -> Result<HostView, CommandError> {
        self.change_host(crate::host::HostSide::unlist)?;
        self.host_view()
    }
}

/// Opens a stream to a host and says what it is for.
pub(super) async fn open_stream(
    network: &NetworkHandle,
    host: NodeId,
    open: &StreamOpen,
) -> Result<ByteStream, CommandError> {
    let mut stream = network.open_stream(host, STREAM_WITHIN).await.map_err(|e| {
        CommandError::new(ErrorCode::Unreachable, format!("the host can't be reached: {e}"))
            .hint("the instance runs on; souk peers shows who is connected")
    })?;
    let first = souk_protocol::message::Frame::Open(souk_protocol::encode::to_bytes(open));
    access::write_frame(&mut stream, &first)
        .await
        .map_err(|e| CommandError::new(ErrorCode::Unreachable, format!("the stream to the host broke: {e}")))?;
    Ok(Box::new(stream) as ByteStream)
}

pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, CommandError>) {
    // Whoever asked may be gone: then nobody minds.
    reply.send(result).ok();
}
