//! `souk init`, `up`, `down`, `status`, `peers`, `demo`.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::json;
use souk_ledger::lock::{DirectoryLock, LockError};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    args::{DemoArgs, InitArgs, UpArgs},
    error::Failure,
    output::{self, Align, Table},
};
use crate::{
    api::{
        client::{Client, ClientError},
        types::{HostRole, MetricView, PeerView, ShutdownView, StatusView},
    },
    config::{self, Config},
    identity::Identity,
    market::ErrorCode,
    node::{Options, Ready},
};

/// The background node's log in its data directory.
const LOG: &str = "souk.log";
/// A log longer than this, in bytes, is put aside before a start.
const LOG_BYTES: u64 = 16 * 1024 * 1024;
/// The gossip score below which nothing of a peer is listened to.
const NOT_LISTENED_TO: f64 = -80.0;
/// How long a node may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn init(context: &Context, args: &InitArgs) -> Result<u8, Failure> {
    let (identity, new) = prepare(context, args.network.as_deref())?;
    let config = context.config()?;
    if let Some(name) = args.network.as_ref().filter(|n| **n != config.network.name) {
        return Err(Failure::new(format!(
            "{} is of the network `{}` already, not `{name}`",
            context.dir.display(),
            config.network.name
        ))
        .code(ErrorCode::WrongState)
        .hint(format!("souk init --network {name} --dir ANOTHER, one directory a network")));
    }
    let node = identity.keypair.node_id();
    if context.json {
        output::json(&json!({
            "created": new,
            "node": node,
            "machine": identity.machine,
            "network": config.network.name,
            "dir": context.dir,
        }))?;
        return Ok(0);
    }
    if !new {
        output::note("there is a node here already; nothing was overwritten");
    }
    output::line(output::pairs(&[
        ("node", node.to_string()),
        ("machine", identity.machine.to_string()),
        ("network", config.network.name.clone()),
        ("data", context.dir.display().to_string()),
    ]))?;
    Ok(0)
}

/// Makes identity and configuration where they are missing.
pub(super) fn prepare(context: &Context, network: Option<&str>) -> Result<(Identity, bool), Failure> {
    context.here()?;
    if let Some(name) = network {
        let mut config = Config::default();
        name.clone_into(&mut config.network.name);
        config::load::check(&config).map_err(|e| Failure::from(e).exit(2))?;
    }
    let (identity, new) = Identity::create(&context.dir)?;
    let path = context.dir.join(config::FILE);
    let text = config::template::text(network.unwrap_or("main"));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match file {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(Failure::new(format!("can't write {}: {e}", path.display()))),
    }
    Ok((identity, new))
}

pub(super) async fn up(context: &Context, args: UpArgs) -> Result<u8, Failure> {
    let (_, new) = prepare(context, args.network.as_deref())?;
    let mut config = context.config()?;
    if let (Some(cluster), Some(name)) = (&config.network.founding, &args.network) {
        let message =
            format!("{} is of the cluster `{}`, not of a network `{name}`", context.dir.display(), cluster.name);
        return Err(Failure::new(message)
            .code(ErrorCode::WrongState)
            .hint("leave out --network, or: souk --dir ANOTHER up"));
    }
    apply(&args, &mut config);
    config::load::check(&config)?;
    if new {
        output::note(format!("made a new node in {}", context.dir.display()));
    }
    if args.detach {
        return detach(context, &args, &config).await;
    }
    if args.detached {
        // Fails only for a process that leads a group already, and then there is no terminal to leave.
        let _ = rustix::process::setsid();
    }
    crate::telemetry::init(&config.log)
        .map_err(|e| Failure::new(e.to_string()).hint("set log.level to info, or unset SOUK_LOG"))?;
    let lock = DirectoryLock::acquire(&context.dir).map_err(locked)?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(stop.clone())?);
    let (ready, told) = oneshot::channel();
    let options = Options { dir: context.dir.clone(), lock, ready };
    let json = context.json;
    let announce = tokio::spawn(async move {
        match told.await {
            Ok(ready) => announce(&ready, json),
            Err(_) => Ok(()),
        }
    });
    let ran = crate::node::run(config, options, stop).await;
    let announced = announce.await;
    ran.map_err(|e| Failure::chain(&e))?;
    announced.unwrap_or(Ok(()))?;
    Ok(0)
}

fn locked(error: LockError) -> Failure {
    match error {
        LockError::Held { directory, holder } => {
            Failure::new(format!("another node is running in {} ({holder})", directory.display()))
                .code(ErrorCode::WrongState)
                .hint("souk status, or another directory: souk up --dir DIR")
        }
        LockError::Io { file, source } => Failure::new(format!("can't lock {}: {source}", file.display())),
    }
}

fn apply(args: &UpArgs, config: &mut Config) {
    config.host.enabled |= args.host;
    if !args.listen.is_empty() {
        config.network.listen.clone_from(&args.listen);
    }
    config.network.bootstrap.extend(args.bootstrap.iter().cloned());
    if let Some(name) = &args.network {
        config.network.name.clone_from(name);
    }
    if let Some(tick) = args.tick {
        config.host.tick = tick;
    }
    if args.api_tcp.is_some() {
        config.api.tcp = args.api_tcp;
    }
}

fn announce(ready: &Ready, json: bool) -> Result<(), Failure> {
    if json {
        return output::json_line(&json!({
            "node": ready.node,
            "listen": ready.listen,
            "socket": ready.socket,
            "pid": std::process::id(),
        }));
    }
    output::line(format!("node {}", ready.node))?;
    for address in &ready.listen {
        output::line(format!("listening {}", output::plain(address)))?;
    }
    output::line(format!("api {}", ready.socket.display()))?;
    output::line("ready")
}

/// The first signal stops the node in order, a second one at once.
fn stop_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; once more to stop at once");
        stop.cancel();
        next().await;
        std::process::exit(130);
    })
}

async fn detach(context: &Context, args: &UpArgs, config: &Config) -> Result<u8, Failure> {
    let client = Client::new(&context.dir, config.api.socket_in(&context.dir));
    if let Ok(status) = client.get::<StatusView>("status").await {
        return Err(Failure::new(format!("a node is running here already (pid {})", status.pid))
            .code(ErrorCode::WrongState)
            .hint("souk status"));
    }
    let (log, began) = open_log(&context.dir)?;
    let mut child = spawn(context, args, log)?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Err(died(&context.dir, began, status));
        }
        match client.get::<StatusView>("status").await {
            Ok(status) => {
                return started(context, &status);
            }
            Err(ClientError::NotRunning { .. } | ClientError::Lost(_)) => {}
            Err(ClientError::Refused(error)) if error.code == ErrorCode::Stopping => {}
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::new(format!("the node (pid {}) does not answer after {} s", child.id(), PATIENCE.as_secs()))
        .code(ErrorCode::Timeout)
        .hint(format!("tail {}", context.dir.join(LOG).display())))
}

fn started(context: &Context, status: &StatusView) -> Result<u8, Failure> {
    let log = context.dir.join(LOG);
    if context.json {
        output::json(&json!({ "pid": status.pid, "node": status.node, "log": log }))?;
    } else {
        output::line(output::pairs(&[
            ("node", status.node.to_string()),
            ("pid", status.pid.to_string()),
            ("log", log.display().to_string()),
        ]))?;
    }
    Ok(0)
}

fn open_log(dir: &Path) -> Result<(File, u64), Failure> {
    let path = dir.join(LOG);
    if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES) {
        std::fs::rename(&path, dir.join(format!("{LOG}.1")))?;
    }
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Failure::new(format!("can't write {}: {e}", path.display())))?;
    let began = log.metadata()?.len();
    Ok((log, began))
}

fn spawn(context: &Context, args: &UpArgs, log: File) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(|e| Failure::new(format!("can't find this program again: {e}")))?;
    let mut command = Command::new(program);
    command.arg("--dir").arg(&context.dir).args(["up", "--detached"]);
    if args.host {
        command.arg("--host");
    }
    for address in &args.listen {
        command.args(["--listen", address]);
    }
    for address in &args.bootstrap {
        command.args(["--bootstrap", address]);
    }
    if let Some(name) = &args.network {
        command.args(["--network", name]);
    }
    if let Some(tick) = args.tick {
        command.args(["--tick", &format!("{}ms", tick.0)]);
    }
    if let Some(address) = args.api_tcp {
        command.args(["--api-tcp", &address.to_string()]);
    }
    let errors = log.try_clone()?;
    // Its working directory would keep a file system from being unmounted.
    Ok(command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(errors).spawn()?)
}

/// The background process's own last words, from its log.
fn died(dir: &Path, began: u64, status: std::process::ExitStatus) -> Failure {
    let path = dir.join(LOG);
    let read = || -> std::io::Result<String> {
        let mut file = File::open(&path)?;
        file.seek(SeekFrom::Start(began))?;
        let mut bytes = Vec::new();
        file.take(1024 * 1024).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let word = |prefix| text.lines().rev().find_map(|line: &str| line.strip_prefix(prefix)).map(str::to_owned);
    let failure = match word("error: ") {
        Some(message) => Failure::new(message),
        None => Failure::new(format!("the node ended at once ({status})")),
    };
    failure.hint(word("  try: ").unwrap_or_else(|| format!("tail {}", path.display())))
}

pub(super) async fn down(context: &Context) -> Result<u8, Failure> {
    let client = context.client()?;
    let ShutdownView { pid } = client.post("shutdown", &json!({})).await?;
    let deadline = Instant::now() + PATIENCE;
    while if context.at.is_none() { lives(pid) } else { answers(&client).await } {
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("the node (pid {pid}) is still there after {} s", PATIENCE.as_secs()))
                .code(ErrorCode::Timeout)
                .hint(format!("look at its log; kill {pid} if it does not end")));
        }
        tokio::time::sleep(LOOK).await;
    }
    if context.json {
        output::json(&json!({ "stopped": pid }))?;
    } else {
        output::line(format!("stopped (pid {pid})"))?;
    }
    Ok(0)
}

/// Whether a node whose process is not this machine's still answers.
async fn answers(client: &Client) -> bool {
    !matches!(client.get::<StatusView>("status").await, Err(error) if error.passes())
}

/// Whether a process is there, and not just waiting for its parent to notice that it has ended.
fn lives(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    if rustix::process::test_kill_process(id).is_err_and(|e| e == rustix::io::Errno::SRCH) {
        return false;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    !state.is_some_and(|s| s.starts_with(['Z', 'X']))
}

pub(super) async fn status(context: &Context) -> Result<u8, Failure> {
    let status: StatusView = context.client()?.get("status").await?;
    if context.json {
        output::json(&status)?;
        return Ok(0);
    }
    let host = match status.host {
        HostRole::Off => "no (souk up --host)",
        HostRole::Unlisted => "yes, but this machine is not offered (souk host list --price P)",
        HostRole::Listed => "yes, this machine is offered",
    };
    let elsewhere = context.at.as_ref().map(|at| format!(", at {at}")).unwrap_or_default();
    output::line(output::pairs(&[
        ("node", status.node.to_string()),
        ("network", status.network.clone()),
        ("version", status.version.clone()),
        ("pid", status.pid.to_string()),
        ("up", output::ago(status.started_ms).to_string()),
        ("data", status.dir.display().to_string() + &elsewhere),
        ("listening", status.listen.join(", ")),
        ("external", status.external.join(", ")),
        ("reached", status.reachability.sentence.clone()),
        ("peers", status.peers.to_string()),
        ("offers", status.offers.to_string()),
        ("host", host.to_owned()),
        ("leases", format!("{} rented, {} hosted", status.renting, status.hosting)),
    ]))?;
    problems(&status.problems)
}

/// What is wrong, each with what helps.
pub(super) fn problems(problems: &[crate::api::types::Problem]) -> Result<u8, Failure> {
    for problem in problems {
        output::line(format!("problem: {}\n  try: {}", output::plain(&problem.sentence), output::plain(&problem.fix)))?;
    }
    Ok(0)
}

/// What is measured.
pub(super) async fn metrics(context: &Context) -> Result<u8, Failure> {
    let metrics: Vec<MetricView> = context.client()?.get("metrics.json").await?;
    if context.json {
        output::json(&metrics)?;
    } else {
        for line in
            metrics.iter().map(ToString::to_string).flat_map(|m| m.lines().map(str::to_owned).collect::<Vec<_>>())
        {
            output::line(output::plain(&line))?;
        }
    }
    Ok(0)
}

pub(super) async fn peers(context: &Context) -> Result<u8, Failure> {
    let peers: Vec<PeerView> = context.client()?.get("peers").await?;
    if context.json {
        output::json(&peers)?;
        return Ok(0);
    }
    if peers.is_empty() {
        output::line("no peers (souk up --bootstrap ADDRESS begins with one)")?;
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("PEER", Align::Left),
        ("ADDRESS", Align::Left),
        ("DIALLED BY", Align::Left),
        ("SINCE", Align::Right),
        ("RTT", Align::Right),
        ("MACHINES", Align::Right),
        ("RECEIVED", Align::Right),
        ("SENT", Align::Right),
        ("SCORE", Align::Right),
        ("AGENT", Align::Left),
    ]);
    for peer in &peers {
        let address = if peer.relayed { format!("{} (relayed)", peer.address) } else { peer.address.clone() };
        table.row([
            peer.node.to_string(),
            address,
            if peer.outbound { "us" } else { "them" }.to_owned(),
            peer.since_ms.map_or("-".to_owned(), |at| output::ago(at).to_string()),
            peer.rtt_us.map_or("-".to_owned(), |us| format!("{}.{:02} ms", us / 1000, us % 1000 / 10)),
            peer.machines.to_string(),
            output::bytes(peer.received_bytes),
            output::bytes(peer.sent_bytes),
            format!("{:.1}", peer.score),
            output::cut(&peer.agent, 32),
        ]);
    }
    output::line(table.text())?;
    for peer in peers.iter().filter(|p| p.score < NOT_LISTENED_TO) {
        output::note(format!(
            "{} has sent invalid messages again and again, and is not listened to for now",
            peer.node
        ));
    }
    for peer in peers.iter().filter(|p| p.forked) {
        output::note(format!("{} has signed two contradicting chains: no new leases are made with it", peer.node));
    }
    Ok(0)
}

pub(super) async fn demo(context: &Context, args: &DemoArgs) -> Result<u8, Failure> {
    let options = crate::demo::Options { keep: args.keep, json: context.json };
    crate::demo::run(options).await.map_err(|e| Failure::chain(&e))?;
    Ok(0)
}
