//! The whole story on loopback: two hosts and a renter as separate processes, a negotiation, a container, receipts, and their
//! verification from files alone.
//!
//! It does only what a person could type: every step is the `souk` program itself, and the commands are shown. It owns a
//! directory of its own and the processes it starts, and leaves neither behind.

use std::{
    ffi::OsStr,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use souk_runtime::blank;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::config::Config;

/// The image's name: made here, removed at the end.
const IMAGE: &str = "souk-demo";
/// How the renter looks for a machine: no more disk than the workload is rented with.
const SEARCH: [&str; 5] = ["search", "-o", "dph", "--storage", "1"];
/// How long the workload counts, in seconds.
const SECONDS: u64 = 8;
/// How long a node may take to start, and an offer to arrive.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What a demonstration is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Keep its data directory and nodes for a look around.
    pub keep: bool,
    /// Print JSON.
    pub json: bool,
}

/// What came of it, for scripts.
#[derive(Debug, Serialize)]
struct Outcome {
    runtime: &'static str,
    lease: String,
    asked_hour: String,
    agreed_hour: String,
    exit_code: i64,
    due: String,
    acked: String,
    host_export: &'static str,
    renter_export: &'static str,
    forged_export: &'static str,
    seconds: f64,
}

/// Runs the demonstration.
///
/// # Errors
/// The step that failed, and why.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let socket = Config::default().runtime.docker_socket;
    let image = format!("{IMAGE}-{}", std::process::id());
    if let Err(error) = blank::import(&socket, &image, "1").await {
        tracing::debug!("{:#}", anyhow::Error::from(error));
        bail!(
            "the demonstration runs a container, and no Docker engine answers at {} (or it is not this user's to use); \
             install one (apt install docker.io), start it (systemctl start docker), and run souk demo again as root",
            socket.display()
        );
    }
    let dir = tempfile::Builder::new().prefix("souk-demo-").tempdir().context("no temporary directory")?;
    let began = Instant::now();
    let mut demo = Demo { dir: dir.path().to_owned(), nodes: Vec::new(), options, began };
    let told = tokio::select! {
        told = demo.tell(&image) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if options.keep && told.is_ok() {
        let kept = dir.keep();
        demo.say(&format!(
            "Kept, and running on: look around with  souk --dir {0}/renter ps -a . To end it: souk --dir {0}/NODE down, \
             for renter, host-a and host-b.",
            kept.display()
        ));
    } else {
        demo.clean_up().await;
        blank::remove(&socket, &image, "1").await.ok();
        let left = dir.close();
        demo.say(if left.is_ok() { "Nothing is left behind." } else { "A temporary directory could not be removed." });
    }
    let outcome = told?;
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&outcome)?)?;
    }
    Ok(())
}

struct Node {
    name: &'static str,
    child: Child,
    id: String,
}

struct Demo {
    dir: PathBuf,
    nodes: Vec<Node>,
    options: Options,
    began: Instant,
}

impl Demo {
    async fn tell(&mut self, image: &str) -> anyhow::Result<Outcome> {
        self.head("Three nodes: two hosts and a renter, each a process with a key of its own, on loopback");
        let local = format!("[\"{image}:*\"]");
        let host = |price: &str, floor: &str| {
            let settings = [
                ("SOUK_HOST_PRICES_SLOT_HOUR", price),
                ("SOUK_HOST_PRICES_MIN_BID", floor),
                ("SOUK_HOST_PRICING_STRATEGY", "floor"),
                ("SOUK_HOST_LOCAL_IMAGES", &local),
                ("SOUK_HOST_SLOTS", "2"),
                // Small workloads for half a minute: also a machine whose disk is nearly full can show them.
                ("SOUK_HOST_RESERVE_DISK_MB", "0"),
            ];
            settings.map(|(k, v)| (k, v.to_owned())).to_vec()
        };
        let first = self.start("host-a", &["--host"], host("0.10", "0.08"), None).await?;
        self.start("host-b", &["--host"], host("0.25", "0.25"), Some(&first)).await?;
        self.start("renter", &[], Vec::new(), Some(&first)).await?;
        let renter = self.node("renter").id.clone();
        self.head("A new host rents to nobody until its owner says to whom");
        self.show("host-a", ["host", "accept", &renter]).await?;

        self.head("The hosts' signed offers have reached the renter's own copy of the market");
        let ask = self.wait_for_offers().await?;
        self.show("renter", SEARCH).await?;

        self.head("The renter bids below the price; the two nodes settle it face to face, and both sign the lease");
        let seconds = SECONDS.to_string();
        #[rustfmt::skip]
        let rent = [
            "rent", &ask[..12], "--image", &format!("{image}:1"), "--price", "0.05", "--max-price", "0.10", "--tick", "1s",
            "--disk", "1", "--egress", "none", "--label", "demo", "-y", "--", "/.souk/guest", "demo", &seconds,
        ];
        self.show("renter", rent).await?;

        self.head("The workload's output, straight from the container");
        self.show("renter", ["logs", "-f", "demo"]).await?;
        let lease = self.wait_for_exit().await?;
        self.show("renter", ["ps", "-a"]).await?;
        let exit_code = lease["exit_code"].as_i64().unwrap_or(-1);
        ensure!(exit_code == 0, "the workload ended with code {exit_code}");

        self.head(
            "The renter destroys the instance: the last usage is counted, the lease closed, and both sides sign that",
        );
        self.show("renter", ["destroy", "-y", "demo"]).await?;
        let (hosts, renters) = self.wait_for_close().await?;
        self.show("renter", ["receipts"]).await?;
        self.show("host-a", ["receipts"]).await?;
        ensure!(
            hosts["due"] == renters["acked"],
            "the host claims {} and the renter owes {}",
            hosts["due"],
            renters["acked"]
        );

        self.head("Anyone can check that from a file, without a node, a network or a database");
        let host_export = self.export("host-a").await?;
        let renter_export = self.export("renter").await?;
        let forged_export = self.forge().await?;

        let id = lease["lease"].as_str().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let outcome = Outcome {
            runtime: "docker",
            lease: id.to_owned(),
            asked_hour: "0.05".to_owned(),
            agreed_hour: text(&lease["price_hour"]),
            exit_code,
            due: text(&hosts["due"]),
            acked: text(&renters["acked"]),
            host_export,
            renter_export,
            forged_export,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        self.head(&format!(
            "Done in {:.0} s: offer, bid, lease, container, receipts by both, checked. What was used cost ${}.",
            outcome.seconds, outcome.due
        ));
        Ok(outcome)
    }

    /// Starts a node as a person would, and returns its address.
    async fn start(
        &mut self,
        name: &'static str,
        flags: &[&str],
        settings: Vec<(&'static str, String)>,
        bootstrap: Option<&str>,
    ) -> anyhow::Result<String> {
        let dir = self.dir.join(name);
        let mut command = self.souk(name);
        command.args(["up", "--network", "demo", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        command.args(["--listen", "/ip4/127.0.0.1/tcp/0"]).args(flags);
        if let Some(address) = bootstrap {
            command.args(["--bootstrap", address]);
        }
        self.tell_command(name, &command);
        // Each node is a machine of its own here, so each has slots of its own.
        command.env("SOUK_RUNTIME_LOCK_DIR", dir.join("slots")).envs(settings);
        std::fs::create_dir(&dir).with_context(|| format!("can't create {}", dir.display()))?;
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let log = std::fs::File::create(dir.join("souk.log"))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(!self.options.keep)
            .process_group(0);
        let mut child = command.spawn().context("can't start a node")?;
        let output = child.stdout.take().context("a node has no output")?;
        let started = timeout(START_WITHIN, read_ready(BufReader::new(output).lines())).await;
        let (id, address) = match started {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => {
                let log = std::fs::read_to_string(dir.join("souk.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                self.nodes.push(Node { name, child, id: String::new() });
                bail!("{name} did not start:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        };
        self.say(&format!("  {name} is {id}"));
        self.nodes.push(Node { name, child, id });
        Ok(address)
    }

    fn node(&self, name: &str) -> &Node {
        // Only names of nodes that `tell` has started come here.
        self.nodes.iter().find(|n| n.name == name).unwrap_or(&self.nodes[0])
    }

    fn souk(&self, node: &str) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("souk"));
        let mut command = Command::new(program);
        // The person's own settings and node must not reach into this.
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("SOUK_")) {
            command.env_remove(name);
        }
        command.arg("--dir").arg(self.dir.join(node));
        command
    }

    /// Runs a command and shows it with its output.
    async fn show<I, S>(&self, node: &str, args: I) -> anyhow::Result<()>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.souk(node);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        self.tell_command(node, &command);
        if self.options.json {
            command.stdout(Stdio::null());
        }
        let status = command.status().await?;
        ensure!(status.success(), "that command failed ({status})");
        Ok(())
    }

    /// Runs a command for its JSON.
    async fn ask(&self, node: &str, args: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.souk(node);
        let output = command.arg("--json").args(args).stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "souk {} failed: {}", args.join(" "), text.trim());
        serde_json::from_slice(&output.stdout).context("a command printed no JSON")
    }

    /// Waits until the renter sees both hosts; the cheapest ask of one slot.
    async fn wait_for_offers(&self) -> anyhow::Result<String> {
        let a = self.node("host-a").id.clone();
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let found = self.ask("renter", &SEARCH).await?;
            let rows = found["rows"].as_array().cloned().unwrap_or_default();
            let hosts: std::collections::BTreeSet<_> = rows.iter().filter_map(|r| r["host_id"].as_str()).collect();
            let ask = rows.iter().find(|r| r["host_id"] == a.as_str() && r["slots"] == 1);
            if let (2, Some(ask)) = (hosts.len(), ask.and_then(|r| r["id"].as_str())) {
                return Ok(ask.to_owned());
            }
            if Instant::now() >= deadline {
                // Whatever leaves them out is said by the search itself.
                self.show("renter", SEARCH.into_iter().chain(["--explain"])).await?;
                bail!("the renter found no offer of both hosts to rent; its log: {}", self.log("renter"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wait_for_exit(&self) -> anyhow::Result<Value> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let lease = self.ask("renter", &["show", "demo"]).await?;
            if lease["state"] != "running" && lease["state"] != "preparing" {
                return Ok(lease);
            }
            ensure!(Instant::now() < deadline, "the workload did not end; the host's log: {}", self.log("host-a"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The last receipt on both sides, once both hold the close and the same number.
    async fn wait_for_close(&self) -> anyhow::Result<(Value, Value)> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let (a, b) = (self.ask("host-a", &["receipts"]).await?, self.ask("renter", &["receipts"]).await?);
            let (host, renter) = (a[0].clone(), b[0].clone());
            let closed = host["closed"] == true && renter["closed"] == true;
            if closed && host["n"] == renter["n"] && host["acked_n"] == host["n"] {
                return Ok((host, renter));
            }
            ensure!(Instant::now() < deadline, "the two ledgers did not come to agree: {host} and {renter}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn file(&self, node: &str) -> PathBuf {
        self.dir.join(format!("{node}.ledger"))
    }

    async fn export(&self, node: &'static str) -> anyhow::Result<&'static str> {
        let file = self.file(node);
        self.show(node, [OsStr::new("ledger"), OsStr::new("export"), file.as_os_str()]).await?;
        self.show(node, [OsStr::new("verify"), file.as_os_str()]).await?;
        Ok("valid")
    }

    /// Flips one byte of the renter's export: that must show.
    async fn forge(&self) -> anyhow::Result<&'static str> {
        let mut bytes = std::fs::read(self.file("renter"))?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let forged = self.file("forged");
        std::fs::write(&forged, bytes)?;
        self.say(&format!("Now with one bit of the renter's file flipped, at byte {middle}:"));
        let mut command = self.souk("renter");
        command.arg("verify").arg(&forged).stdin(Stdio::null());
        self.tell_command("renter", &command);
        if self.options.json {
            command.stdout(Stdio::null());
        }
        ensure!(!command.status().await?.success(), "a forged ledger passed the check");
        Ok("invalid")
    }

    /// Ends what still runs, instances first.
    async fn clean_up(&mut self) {
        if self.nodes.iter().any(|n| n.name == "renter") {
            let open = self.ask("renter", &["ps"]).await.ok();
            for lease in open.iter().filter_map(Value::as_array).flatten() {
                let id = lease["lease"].as_str().unwrap_or_default().to_owned();
                self.ask("renter", &["destroy", "-y", &id]).await.ok();
            }
        }
        for node in self.nodes.iter_mut().rev() {
            let Some(pid) = node.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) else {
                continue;
            };
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
            if timeout(Duration::from_secs(8), node.child.wait()).await.is_err() {
                node.child.kill().await.ok();
            }
        }
    }

    fn log(&self, node: &str) -> String {
        self.dir.join(node).join("souk.log").display().to_string()
    }

    /// A step's headline.
    fn head(&self, line: &str) {
        let bold = std::io::stderr().is_terminal();
        self.say(&if bold { format!("\n\u{1b}[1m{line}\u{1b}[0m") } else { format!("\n== {line}") });
    }

    fn say(&self, line: &str) {
        // Narration goes beside the commands' output; where nobody reads it nobody misses it.
        writeln!(std::io::stderr(), "{line}").ok();
    }

    /// Shows a command as a person would type it on that node's machine.
    fn tell_command(&self, node: &str, command: &Command) {
        let own = self.dir.join(node);
        let words = command.as_std().get_args().map(|a| a.to_string_lossy().into_owned());
        let shown: Vec<String> = words.filter(|w| w != "--dir" && Path::new(w) != own).collect();
        self.say(&format!("{node}$ souk {}", shown.join(" ")));
    }
}

/// Reads a node's lines until it is ready: its id and its QUIC address.
async fn read_ready(mut lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>) -> Option<(String, String)> {
    let (mut id, mut address) = (None, None);
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ') {
            Some(("node", rest)) => id = Some(rest.trim().to_owned()),
            Some(("listening", rest)) if rest.contains("/quic-v1") => address = Some(rest.trim().to_owned()),
            _ if line.trim() == "ready" => {
                // Whatever it prints later must not stop it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Some((id?, address?));
            }
            Some(_) | None => {}
        }
    }
    None
}
