//! The whole node: its parts started, wired and stopped in order.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use souk_ledger::lock::DirectoryLock;
use souk_network::{Admission, Multiaddr, NetworkConfig, PortMapping};
use souk_protocol::{NodeId, machine::engine::Engine};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    acquaintances, api,
    clock::now,
    config::Config,
    hooks,
    host::{HostSide, locks::SlotLocks},
    identity::Identity,
    ledger::Ledger,
    market::{
        About, MarketHandle,
        clustered::Clustered,
        guard,
        logins::Logins,
        owned::Owned,
        settlement::Money,
        task::{self, End},
        trust::Trust,
        views,
    },
    orders,
    seal::Seal,
};

/// For so long no address must have been added, for the list to be whole.
const LISTEN_SETTLES: Duration = Duration::from_millis(50);
/// How long the first address may take to be listened on.
const LISTEN_WITHIN: Duration = Duration::from_secs(10);
/// Between two runs in one process: the first one's sockets are closed by then.
const ANEW: Duration = Duration::from_secs(2);
/// What a node says that may not sign with its key.
const REFUSED: &str = "this node was not started, and has signed nothing; stop the other one, or give this machine an identity of \
                       its own (souk init --dir ANOTHER)";

/// What a node needs to know beside its configuration.
#[derive(Debug)]
pub struct Options {
    /// Where its data is. Its identity has been made.
    pub dir: PathBuf,
    /// Told once, when the node serves its API and listens.
    pub ready: oneshot::Sender<Ready>,
    /// The data directory's lock, held as long as the node runs.
    pub lock: DirectoryLock,
}

/// A node that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Its key, as a peer id.
    pub node: NodeId,
    /// Where it listens, as multiaddresses with its peer id.
    pub listen: Vec<String>,
    /// Its API's socket.
    pub socket: PathBuf,
}

/// Runs a node until `stop` is cancelled, by a signal or over its API.
///
/// # Errors
/// What kept it from starting, or brought it down; the context chain reads as one sentence.
pub async fn run(config: Config, options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let Options { dir, ready, lock: _lock } = options;
    let mut ready = Some(ready);
    loop {
        match once(&config, &dir, &mut ready, stop.child_token()).await? {
            End::Stopped => return Ok(()),
            End::Anew(why) => {
                tracing::warn!("{why}; starting anew");
                tokio::time::sleep(ANEW).await;
            }
            End::Rekeyed => {
                tracing::info!("the cluster has a new key; starting anew with it");
                tokio::time::sleep(ANEW).await;
            }
        }
    }
}

/// Runs a node from opening its ledger to closing it.
async fn once(
    config: &Config,
    dir: &Path,
    ready: &mut Option<oneshot::Sender<Ready>>,
    stop: CancellationToken,
) -> anyhow::Result<End> {
    let dir = dir.to_owned();
    let identity = Identity::load(&dir)?;
    let network_id = config.network.id();
    let ssh_keys = crate::access::key_files::lines(&config.renter.ssh_keys).context("renter.ssh_keys")?;
    let me = identity.keypair.node_id();

    let (ledger, restore, progress) = {
        let (dir, key) = (dir.clone(), identity.keypair.clone());
        tokio::task::spawn_blocking(move || Ledger::open(&dir, key, network_id, now())).await??
    };
    let network_stop = CancellationToken::new();
    let _network_ends = network_stop.clone().drop_guard();
    let known = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || acquaintances::load(&dir)).await?
    };
    let cluster = {
        let (dir, key) = (dir.clone(), identity.keypair.clone());
        tokio::task::spawn_blocking(move || Clustered::open(dir, key)).await??
    };
    let mut network_config = network_config(config, &identity, cluster.as_ref())?;
    network_config.known.clone_from(&known);
    let (network, mut events) = souk_network::spawn(network_config, network_stop)?;
    // The list is taken before the network ends: its own end comes after this one's.
    let keep_until = stop.child_token();
    let keeping = tokio::spawn(acquaintances::keep(dir.clone(), network.clone(), known, keep_until));
    let (mapped, mapping) = watch::channel(PortMapping::default());
    let mapping_ports = (config.network.port_mapping)
        .then(|| tokio::spawn(souk_network::map_ports(network.clone(), mapped, stop.child_token())));
    tokio::spawn(crate::memory::keep_small(stop.child_token()));
    let (market, mut commands) = MarketHandle::channel();
    let (hooks, feed, hooks_task) = {
        let (dir, key) = (dir.clone(), identity.keypair.clone());
        tokio::task::spawn_blocking(move || hooks::open(&dir, key)).await?.context("the hooks can't be read")?
    };
    let about = About {
        started: now(),
        network_name: config.network.name.clone(),
        dir: dir.clone(),
        on_removal: config.cluster.on_removal.into(),
        external: config.network.external.clone(),
        has_bootstrap: !config.network.bootstrap.is_empty(),
        mapping,
        currency: config.renter.currency.clone(),
        max_price: config.renter.max_price,
        ssh: crate::access::ssh::SshSeed::of(&identity.keypair),
        api: crate::inside::ApiSeed::of(&identity.keypair),
        ssh_keys,
    };
    let owned = Owned::open(dir.clone(), network_id, me, config.owner.offline_after)?;
    let logins = {
        let (dir, seal) = (dir.clone(), Seal::of(&identity.keypair));
        tokio::task::spawn_blocking(move || Logins::open(&dir, seal)).await?
    };
    let trust = {
        let (dir, seal, config) = (dir.clone(), Seal::of(&identity.keypair), config.trust.clone());
        tokio::task::spawn_blocking(move || {
            let trust = Trust::open(config, &ledger, &dir, seal);
            trust.map(|trust| (ledger, trust))
        })
        .await?
    };
    let (ledger, trust) = trust.context("the ledger can't be read")?;
    let locks = SlotLocks::new(&config.runtime.lock_dir);
    let server = api::Server::bind(&config.api, &dir).await?.with_hooks(hooks);
    let socket = server.socket().to_owned();
    let orders = orders::spawn(&dir, Seal::of(&identity.keypair), market.clone(), stop.child_token())?;
    let server = tokio::spawn(server.serve(market, orders, stop.clone()));
    let listen = listening(&network, me).await;
    if let Some(ready) = ready.take() {
        ready.send(Ready { node: me, listen, socket }).ok();
    }

    // Nothing is signed before this has passed.
    let post = guard::Post {
        key: &identity.keypair,
        network_id,
        ledger: &ledger,
        restore,
        network: &network,
        events: &mut events,
        commands: &mut commands,
        about: &about,
    };
    let passed = guard::pass(post, &stop).await;
    let passed = match passed {
        Ok(guard::Outcome::Passed(passed)) => *passed,
        outcome => {
            stop.cancel();
            server.await.ok();
            return match outcome? {
                guard::Outcome::Refused(why) => Err(anyhow::Error::new(why).context(REFUSED)),
                guard::Outcome::Stopped | guard::Outcome::Passed(_) => Ok(End::Stopped),
            };
        }
    };
    let guard::Passed { restore, connected, waiting, early } = passed;
    let meta = restore.leases.iter().map(|row| (row.lease, views::meta_of(row))).collect();
    let engine = Engine::new(identity.keypair.clone(), network_id, restore, now())?;

    // Leases that are open are served to their end, also by a node that hosts no more.
    let host = if config.host.enabled || !engine.host().leases().is_empty() {
        let (dir, machine, config) = (dir.clone(), identity.machine, config.clone());
        Some(tokio::task::spawn_blocking(move || HostSide::new(&dir, me.to_string(), machine, config)).await??)
    } else {
        None
    };
    let parts = task::Parts {
        engine,
        ledger,
        meta,
        progress,
        network: network.clone(),
        events,
        commands,
        host,
        locks,
        owned,
        cluster,
        about,
        hooks: feed,
        logins,
        trust,
        connected,
        waiting,
        early,
        money: Money::of(config),
    };
    // The market stops first, while the network can still carry its last answers.
    let market_stop = stop.child_token();
    let running = tokio::spawn(task::run(parts, market_stop));
    // Hooks hear of what the market does while it stops.
    let hooks_stop = CancellationToken::new();
    let _hooks_end = hooks_stop.clone().drop_guard();
    let telling = tokio::spawn(hooks_task.run(hooks_stop.clone()));

    let result = running.await.context("the market task broke")?;
    stop.cancel();
    keeping.await.ok();
    if let Some(task) = mapping_ports {
        task.await.ok();
    }
    server.await.ok();
    hooks_stop.cancel();
    telling.await.ok();
    result
}

/// Where it listens, once nothing was added for a moment: an address for all interfaces becomes one after the other.
async fn listening(network: &souk_network::NetworkHandle, me: NodeId) -> Vec<String> {
    let began = Instant::now();
    let (mut known, mut since) = (Vec::new(), began);
    while began.elapsed() < LISTEN_WITHIN && (known.is_empty() || since.elapsed() < LISTEN_SETTLES) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now: Vec<Multiaddr> = network.listen_addrs();
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    known.iter().map(|a| format!("{a}/p2p/{me}")).collect()
}

fn network_config(config: &Config, identity: &Identity, cluster: Option<&Clustered>) -> anyhow::Result<NetworkConfig> {
    let addresses = |what: &str, list: &[String]| {
        let parse = |text: &String| {
            text.parse::<Multiaddr>().with_context(|| {
                format!("{what}: `{text}` is not a multiaddress, like /ip4/192.0.2.1/udp/7843/quic-v1")
            })
        };
        list.iter().map(parse).collect::<anyhow::Result<Vec<_>>>()
    };
    let mut network = NetworkConfig::new(identity.keypair.clone(), config.network.id());
    network.name.clone_from(&config.network.name);
    network.listen = addresses("network.listen", &config.network.listen)?;
    network.bootstrap = addresses("network.bootstrap", &config.network.bootstrap)?;
    network.external = addresses("network.external", &config.network.external)?;
    network.relay = config.network.relay;
    if let Some(cluster) = cluster {
        network.admission = Admission::Members(cluster.members());
        network.fence = cluster.fence();
        network.mdns = config.cluster.mdns;
    }
    Ok(network)
}
