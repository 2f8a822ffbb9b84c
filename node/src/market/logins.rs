//! Registry logins, on both sides of a rental: a renter's for its own rentals, sealed on its disk until the instance runs; and what
//! renters gave this host, in memory until the image is there.
//!
//! A login is for one rental, which is told by the digest of its workload: proposal and lease name the same.

use std::{collections::BTreeMap, fs, io, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use souk_network::Reply as PeerReply;
use souk_protocol::{
    LeaseId, Millis, NodeId, Timestamp,
    id::Digest,
    lease::{LeaseState, PauseReason},
    login::{LoginFor, RegistryLogin},
    machine::io::{Command as EngineCommand, Input, Refusal, Step, Token, Wish},
    message::{LeaseEvent, Request, Response},
    negotiation::{Reject, RejectCode},
};
use souk_runtime::{Login, reference::Reference};
use zeroize::Zeroizing;

use super::{
    command::{CommandError, ErrorCode},
    patience,
    task::{Internal, Market},
};
use crate::{clock::now, seal::Seal};

/// Logins of renters that a host holds at once, and of one renter. More are told to come back.
const KEPT: usize = 512;
const KEPT_PER_RENTER: usize = 16;
/// A login whose rental has come to no lease by then is forgotten.
const UNUSED: Millis = Millis::from_mins(10);
/// How long a host has to take a login.
const GIVE_WITHIN: Duration = Duration::from_secs(10);
/// How long a host that has just started has for it.
const GIVE_AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of a sealed login.
const SEALED_BYTES: u64 = 64 * 1024;
/// Where a renter keeps its own.
const FOLDER: &str = "logins";

/// Of whom, and for which workload.
type Key = (NodeId, Digest);

/// What a host holds for a renter.
#[derive(Debug)]
struct Given {
    login: RegistryLogin,
    since: Timestamp,
}

/// A renter's own.
#[derive(Debug)]
struct Own {
    login: RegistryLogin,
    since: Timestamp,
    /// The negotiation, while this node has run since.
    token: Option<Token>,
}

/// All logins.
#[derive(Debug)]
pub struct Logins {
    given: BTreeMap<Key, Given>,
    own: BTreeMap<Digest, Own>,
    dir: PathBuf,
    seal: Arc<Seal>,
}

impl Logins {
    /// Reads a renter's own; what can't be read is removed: the rental asks for it again.
    #[must_use]
    pub fn open(dir: &std::path::Path, seal: Seal) -> Self {
        let mut logins =
            Self { given: BTreeMap::new(), own: BTreeMap::new(), dir: dir.join(FOLDER), seal: Arc::new(seal) };
        let files = fs::read_dir(&logins.dir).into_iter().flatten().flatten().take(4096);
        for path in files.map(|entry| entry.path()) {
            match logins.read(&path) {
                Some((workload, login)) => {
                    logins.own.insert(workload, Own { login, since: now(), token: None });
                }
                None => {
                    fs::remove_file(&path).ok();
                }
            }
        }
        logins
    }

    fn read(&self, path: &std::path::Path) -> Option<(Digest, RegistryLogin)> {
        let workload: Digest = path.file_name()?.to_str()?.parse().ok()?;
        fs::metadata(path).ok().filter(|about| about.is_file() && about.len() <= SEALED_BYTES)?;
        let plain = Zeroizing::new(self.seal.open(&LeaseId(workload.0), &fs::read(path).ok()?)?);
        Some((workload, serde_json::from_slice(&plain).ok()?))
    }

    /// Writes a renter's own down, on a thread that may wait.
    fn keep(
        &mut self,
        token: Token,
        workload: Digest,
        login: RegistryLogin,
    ) -> impl FnOnce() -> anyhow::Result<()> + Send + 'static {
        let (dir, seal, sealed) = (self.dir.clone(), Arc::clone(&self.seal), login.clone());
        self.own.insert(workload, Own { login, since: now(), token: Some(token) });
        move || {
            fs::create_dir_all(&dir)?;
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
            let plain = Zeroizing::new(serde_json::to_vec(&sealed)?);
            let bytes = seal.close(&LeaseId(workload.0), &plain)?;
            let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(&dir)?;
            io::Write::write_all(&mut file, &bytes)?;
            file.as_file().sync_all()?;
            file.persist(dir.join(workload.to_string()))?;
            Ok(())
        }
    }

    /// A negotiation has come to nothing.
    pub(super) fn failed(&mut self, token: Token) {
        let found = self.own.iter().find(|(_, own)| own.token == Some(token)).map(|(workload, _)| *workload);
        if let Some(workload) = found {
            self.drop_own(&workload);
        }
    }

    fn drop_own(&mut self, workload: &Digest) {
        if self.own.remove(workload).is_some() {
            fs::remove_file(self.dir.join(workload.to_string())).ok();
        }
    }

    /// What a renter gave for a rental.
    pub(super) fn given(&self, renter: NodeId, workload: Digest) -> Option<Login> {
        self.given.get(&(renter, workload)).map(|given| for_runtime(&given.login))
    }
}

/// As the runtime takes it.
fn for_runtime(login: &RegistryLogin) -> Login {
    Login {
        registry: login.registry.clone(),
        user: login.user.clone(),
        password: Zeroizing::new(login.password.clone()),
    }
}

/// A negotiation that begins once its host has the login.
pub(super) struct Waiting {
    pub(super) token: Token,
    pub(super) wish: Box<Wish>,
    workload: Digest,
}

impl Market {
    /// Renter: gives the host the login, and negotiates once it has it.
    pub(super) fn rent_with(&mut self, token: Token, wish: Wish, host: NodeId, login: RegistryLogin) {
        let (_, workload) = wish.workload.to_bytes();
        let request = Request::Login(Box::new(LoginFor { workload, login: login.clone() })).to_bytes();
        let write = self.logins.keep(token, workload, login);
        let (network, internal) = (self.network.clone(), self.internal.clone());
        let waiting = Waiting { token, wish: Box::new(wish), workload };
        tokio::spawn(async move {
            let kept = tokio::task::spawn_blocking(write).await.map_err(anyhow::Error::from).and_then(|kept| kept);
            let result = match kept {
                Err(error) => Err(Refusal::Malformed(format!("the login can't be kept on this node's disk: {error}"))),
                Ok(()) => match patience::ask(&network, host, request, GIVE_WITHIN).await {
                    Ok(Response::LoginTaken) => Ok(()),
                    Ok(Response::Rejected(reject)) => Err(Refusal::Host(reject)),
                    Ok(_) => Err(Refusal::NoAnswer("its answer is no answer to a login".to_owned())),
                    Err(error) => Err(Refusal::NoAnswer(error)),
                },
            };
            internal.send(Internal::LoginGiven(waiting, result)).await.ok();
        });
    }

    pub(super) fn login_given(&mut self, waiting: Waiting, result: Result<(), Refusal>) {
        let Waiting { token, wish, workload } = waiting;
        match result {
            Ok(()) => self.input(Input::Command(EngineCommand::Rent { token, wish })),
            Err(why) => {
                self.logins.drop_own(&workload);
                if let Some(host) = self.rentals.attempt(token) {
                    self.attempt_failed(host, &why);
                }
                self.rentals.step(token, Step::Failed { why }, |_| 0);
            }
        }
    }

    /// Renter: a host is reached (again). What it is to pull with a login it may have lost.
    pub(super) fn give_logins(&self, host: NodeId) {
        for lease in self.engine.renter().leases().values().filter(|lease| lease.host() == host) {
            let workload = lease.draft().workload;
            let Some(own) = self.logins.own.get(&workload) else { continue };
            let request = Request::Login(Box::new(LoginFor { workload, login: own.login.clone() })).to_bytes();
            let network = self.network.clone();
            tokio::spawn(async move {
                // It may have started this moment, and take nothing until it knows that its key is its own.
                match patience::ask(&network, host, request, GIVE_AGAIN_WITHIN).await {
                    Ok(Response::LoginTaken) => {}
                    Ok(Response::Rejected(why)) => tracing::debug!(%why, peer = %host, "a login is not taken again"),
                    Ok(_) => tracing::debug!(peer = %host, "a login was not given again: the host is busy"),
                    Err(error) => tracing::debug!(%error, peer = %host, "a login was not given again"),
                }
            });
        }
    }

    /// Host: a renter gives a login for what it proposes, or has rented.
    pub(super) fn login_came(&mut self, from: NodeId, given: LoginFor, reply: PeerReply) {
        let answer = match self.take_login(from, given) {
            Ok(()) => Response::LoginTaken,
            Err(reject) => Response::Rejected(reject),
        };
        reply.send(answer.to_bytes()).ok();
    }

    fn take_login(&mut self, from: NodeId, given: LoginFor) -> Result<(), Reject> {
        let LoginFor { workload, login } = given;
        let leases = self.engine.host().leases();
        let rented: Vec<LeaseId> = leases
            .iter()
            .filter(|(_, lease)| lease.draft().renter == from && lease.draft().workload == workload)
            .map(|(id, _)| *id)
            .collect();
        let welcome = self.engine.host().setup().is_some_and(|setup| setup.accept.takes(&from));
        if rented.is_empty() && !welcome {
            return Err(Reject::lasting(RejectCode::NotAccepted, "this host does not rent to you"));
        }
        let registries = self.host.as_ref().map(|host| host.config().host.registries.clone()).unwrap_or_default();
        if !registries.iter().any(|known| known.eq_ignore_ascii_case(&login.registry)) {
            let sentence = format!(
                "this host doesn't fetch images from {}; it accepts {}",
                login.registry,
                if registries.is_empty() { "none".to_owned() } else { registries.join(", ") }
            );
            return Err(Reject::lasting(RejectCode::Image, sentence));
        }
        let known = self.logins.given.contains_key(&(from, workload));
        let own = self.logins.given.keys().filter(|(renter, _)| *renter == from).count();
        if !known && (self.logins.given.len() >= KEPT || own >= KEPT_PER_RENTER) {
            return Err(Reject::passing(RejectCode::Limit, "this host holds too many logins; wait a minute"));
        }
        if let Some(runtime) = &self.runtime {
            for lease in &rented {
                runtime.give_login(&lease.to_string(), for_runtime(&login));
            }
        }
        self.logins.given.insert((from, workload), Given { login, since: now() });
        Ok(())
    }

    /// Forgets logins that have done their work, or came to nothing.
    pub(super) fn forget_logins(&mut self) {
        let now = now();
        let unused = |since: Timestamp| now.since(since) > UNUSED;
        let hosted = self.engine.host().leases();
        let waits: BTreeMap<Key, bool> = hosted
            .values()
            .map(|lease| ((lease.draft().renter, lease.draft().workload), has_not_run(lease.state(), lease.events())))
            .collect();
        self.logins.given.retain(|key, given| waits.get(key).copied().unwrap_or_else(|| !unused(given.since)));
        let rented = self.engine.renter().leases().values();
        let rented: BTreeMap<Digest, bool> =
            rented.map(|lease| (lease.draft().workload, has_not_run(lease.state(), lease.events()))).collect();
        let over: Vec<Digest> = self
            .logins
            .own
            .iter()
            .filter(|(workload, own)| match rented.get(workload) {
                Some(waits) => !waits,
                None => unused(own.since),
            })
            .map(|(workload, _)| *workload)
            .collect();
        for workload in over {
            self.logins.drop_own(&workload);
        }
    }
}

/// Whether a lease in this state may still have its image to get.
fn has_not_run(state: LeaseState, events: &[LeaseEvent]) -> bool {
    let ran = events.iter().any(|event| event.state == LeaseState::Running);
    match state {
        LeaseState::Preparing
        | LeaseState::Paused(
            PauseReason::Outbid
            | PauseReason::Maintenance
            | PauseReason::HostRestart
            | PauseReason::EngineRestart
            | PauseReason::NoCredit,
        ) => !ran,
        LeaseState::Paused(
            PauseReason::Stopped
            | PauseReason::Exited
            | PauseReason::MaxSpend
            | PauseReason::Expired
            | PauseReason::DiskFull
            | PauseReason::VolumeEnded
            | PauseReason::QuotaUsed,
        )
        | LeaseState::Running
        | LeaseState::Kept
        | LeaseState::Ended(_) => false,
    }
}

/// Refuses a login that is none, or for another registry than the image's: no host is told what it doesn't need.
pub(super) fn check(login: &RegistryLogin, image: &str) -> Result<(), CommandError> {
    let bad = |why: String| CommandError::new(ErrorCode::BadRequest, why);
    login.check().map_err(|error| bad(error.0.to_string()))?;
    let image = Reference::parse(image).map_err(|error| bad(error.to_string()))?;
    if login.registry.eq_ignore_ascii_case(&image.registry) {
        return Ok(());
    }
    Err(bad(format!("the image is {}'s, and the login is for {}", image.registry, login.registry))
        .hint(format!("--login USER@{}", image.registry)))
}
