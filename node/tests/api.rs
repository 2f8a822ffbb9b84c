//! The API and its client, with the program as client and a market that follows a script.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod script;

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use script::Scripted;
use souk::api::{Server, ServerError, TOKEN_FILE};

fn souk(node: &Scripted, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SOUK_") {
            command.env_remove(name);
        }
    }
    command.arg("--dir").arg(node.dir()).args(args).stdin(Stdio::null());
    command
}

fn run(node: &Scripted, args: &[&str]) -> Output {
    souk(node, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn every_answer_is_printed_and_parses_as_json() {
    let node = Scripted::start();
    let words: [(&[&str], &str); 32] = [
        (&["status"], "12D3KooW"),
        (&["peers"], "/ip4/127.0.0.1/tcp/1"),
        (&["metrics"], "souk_peers 1"),
        (&["ledger", "compact"], "500"),
        (&["search", "num_gpus>=1", "--explain"], "RTX 4090"),
        (&["ps", "-a"], "paused(stopped)"),
        (&["show", "1"], "sha256:"),
        (&["events", "1"], "renter"),
        (&["stop", "1"], "paused(stopped)"),
        (&["label", "1", "train"], "train"),
        (&["events"], "tr?ain"),
        (&["events", "--limit", "1", "1"], "paused(stopped)"),
        (&["receipts"], "$0.35"),
        (&["host", "earnings", "--days", "30"], "2025-12-31"),
        (&["host", "show"], "nobody yet"),
        (&["host", "list", "--gpu-price", "0.35"], "offered"),
        (&["host", "accept", "anyone"], "anyone"),
        (&["quote", "cafe"], "$0.31"),
        (&["bid", "1", "0.25"], "2 bids ahead, $0.31/h would run now"),
        (&["extend", "1", "12h", "--max-price", "0.45"], "$0.45/h from 2026-01-02T00:00:00Z on"),
        (&["extend", "1", "--accept", "-y"], "$0.45/h from"),
        (&["extend", "1", "--decline"], "ends as agreed"),
        (&["extend", "1", "--auto", "48h"], "until 2026-01-04T00:00:00Z"),
        (&["extend", "1", "--auto", "off"], "is not extended"),
        (&["max-spend", "1", "20"], "$20.00 at most"),
        (&["host", "hold", "2"], "2 slots are held"),
        (&["host", "maintenance", "add", "2026-11-23T10:00Z", "30min"], "2026-11-23T10:30:00Z"),
        (&["host", "maintenance", "remove", "1"], "no maintenance"),
        (&["host", "extend", "1", "24h", "--price", "0.45"], "its renter is asked for $0.45/h"),
        (&["host", "idle-job", "set", "debian:12"], "running"),
        (&["host", "idle-job", "show"], "nothing runs on free slots"),
        (&["host", "idle-job", "clear"], "nothing runs on free slots"),
    ];
    for (args, word) in words {
        let plain = done(&run(&node, args));
        assert!(plain.contains(word), "{args:?} printed: {plain}");
        assert!(!plain.contains('\u{1b}'), "{args:?} let an escape through");
        let json = done(&run(&node, &[args, &["--json"]].concat()));
        let value: serde_json::Value = serde_json::from_str(&json).expect(&json);
        assert!(value.is_object() || value.is_array());
    }
    let json = done(&run(&node, &["show", "1", "--json"]));
    let lease: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(lease["state"], "paused");
    assert_eq!(lease["reason"], "stopped");
    assert_eq!(lease["price_hour"], "0.35");
    assert_eq!(lease["events"][0]["state"], "running");
}

#[test]
fn a_host_sees_slots_leases_bids_and_its_offer() {
    let node = Scripted::start();
    let shown = done(&run(&node, &["host", "list", "--gpu-price", "0.35"]));
    for words in [
        "number 7, 1 of 2 slots free, sold as 1x 2x, 30 GB of 50 GB left for volumes, valid until 2026-01-01T00:30:00Z",
        "1 abababab",
        "another node of this machine",
        "nobody (not sold any more)",
        "on-demand",
        "RANK",
        "0.175",
    ] {
        assert!(shown.contains(words), "`{words}` is not in:\n{shown}");
    }
}

#[test]
fn earnings_are_a_table_with_bars_or_values_for_a_spreadsheet() {
    let node = Scripted::start();
    let shown = done(&run(&node, &["host", "earnings"]));
    assert!(shown.is_ascii(), "no terminal, so nothing but ASCII: {shown}");
    assert!(shown.contains("$0.30") && !shown.contains("0.300000001"), "rounded down: {shown}");
    let bars: Vec<&str> = shown.lines().filter(|l| l.starts_with("202") && !l.contains("h 0 min")).collect();
    assert_eq!(bars.len(), 3, "one a day, the empty one between too: {shown}");
    assert!(bars[0].contains("#.") && !bars[1].contains('#'), "{shown}");

    let csv = done(&run(&node, &["host", "earnings", "--csv"]));
    let rows: Vec<Vec<&str>> = csv.lines().map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    let compute = rows[0].iter().position(|c| *c == "acknowledged_compute").unwrap();
    assert_eq!(rows[1][compute], "0.300000001", "exact");

    let bad = run(&node, &["host", "earnings", "--from", "yesterday"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(text(&bad.stderr).contains("`yesterday` is not a day like 2026-11-22"), "{}", text(&bad.stderr));
}

#[test]
fn a_refusal_says_what_and_what_next() {
    let node = Scripted::start();
    let output = run(&node, &["show", "nope"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(errors.starts_with("error: no lease has the number, label or id `nope`\n  try: "), "{errors}");
    // One that fails does not keep the others from being done.
    let output = run(&node, &["stop", "nope", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("paused(stopped)"));
    // Names go through a path unharmed.
    let output = run(&node, &["show", "../shutdown?x=1#é"]);
    assert!(text(&output.stderr).contains("`../shutdown?x=1#é`"), "{}", text(&output.stderr));
    // A dearer contract is agreed to, not slipped into.
    for args in
        [&["extend", "1", "12h"][..], &["extend", "1", "12h", "--max-price", "0.44"], &["extend", "1", "--accept"]]
    {
        let output = run(&node, args);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("the host wants $0.45/h for a later end"), "{}", text(&output.stderr));
    }
    let output = run(&node, &["host", "maintenance", "remove", "2"]);
    assert!(text(&output.stderr).contains("no window of number 2"), "{}", text(&output.stderr));
    // Destroying asks; with nobody to ask it is bad usage.
    let output = run(&node, &["destroy", "1"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn renting_shows_its_cost_and_streams_its_steps() {
    let node = Scripted::start();
    let rent = ["rent", "#1", "--image", "debian:12", "--", "sleep", "1h"];
    let early = run(&node, &rent);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("has searched nothing yet"), "{}", text(&early.stderr));

    done(&run(&node, &["search"]));
    let output = run(&node, &rent);
    let id = done(&output);
    assert_eq!(id.trim().len(), 64, "the lease's id, alone, for scripts: {id}");
    let steps = text(&output.stderr);
    let mut at = 0;
    for word in [
        "at most $8.52",
        "asking",
        "proposed $0.30/h",
        "host asks for $0.35/h",
        "drafted",
        "signed and sent",
        "accepted: lease 1",
        "preparing",
        "running",
    ] {
        at += steps[at..].find(word).unwrap_or_else(|| panic!("no `{word}` after {at} in: {steps}"));
    }
    let secret = node.last_rent().unwrap();
    assert_eq!(secret.command, Some(vec!["sleep".to_owned(), "1h".to_owned()]));
    assert_eq!(secret.ask.0.len(), 16, "the row number became an id");

    let json = done(&run(&node, &["--json", "rent", "#1", "--image", "debian:12"]));
    let steps: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps.first().unwrap()["step"], "resolving");
    assert_eq!(steps.last().unwrap()["step"], "running");
    assert_eq!(steps.last().unwrap()["lease"]["number"], 1);

    // Who bids is told what wins; waiting is no failure.
    let output = run(&node, &["rent", "#1", "--image", "outbid", "--bid", "0.20"]);
    done(&output);
    let told = text(&output.stderr);
    assert!(
        told.contains("$0.31/h wins now") && told.contains("waiting: 2 bids ahead, $0.31/h would run now"),
        "{told}"
    );
    assert_eq!(node.last_rent().unwrap().rental, Some(souk::api::types::RentalKind::Bid));
    let clash = run(&node, &["rent", "#1", "--image", "x", "--type", "reserved", "--bid", "0.20"]);
    assert_eq!(clash.status.code(), Some(2), "{}", text(&clash.stderr));

    let detached = run(&node, &["rent", "#1", "--image", "debian:12", "-d"]);
    done(&detached);
    assert!(!text(&detached.stderr).contains("preparing"));

    let failed = run(&node, &["rent", "#1", "--image", "too-dear"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).contains("error: the host takes no less than $9.00/h\n  try: "),
        "{}",
        text(&failed.stderr)
    );
    let ended = run(&node, &["rent", "#1", "--image", "broken"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(text(&ended.stderr).contains("ended(image_failed)"), "{}", text(&ended.stderr));
    assert!(text(&run(&node, &["rent", "#9", "--image", "x"]).stderr).contains("none of number #9"));
}

#[test]
fn exec_passes_bytes_both_ways_and_the_exit_code() {
    let node = Scripted::start();
    let output = run(&node, &["exec", "1", "--", "exit", "7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(text(&output.stderr), "leaving\n");
    assert_eq!(run(&node, &["exec", "1", "exit", "--", "137"]).status.code(), Some(137));

    // More than every buffer on the way holds, echoed while it is still being sent.
    let sent: Vec<u8> = (0..8_000_003u32).map(|i| (i % 251) as u8).collect();
    let mut child =
        souk(&node, &["exec", "-i", "1", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = sent.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut received = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    for (command, word) in [
        ("refuse", "there is no such program"),
        ("vanish", "the connection ended before the command did"),
        ("cut", "the connection to the host was lost"),
    ] {
        let output = run(&node, &["exec", "1", "--", command]);
        assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
    let request = node.last_exec().unwrap();
    assert!(!request.tty && request.size.is_none());
}

#[test]
fn logs_keep_their_streams_apart() {
    let node = Scripted::start();
    let output = run(&node, &["logs", "--tail", "5", "1"]);
    assert_eq!(done(&output), "one\ntwo\n");
    let errors = text(&output.stderr);
    assert!(errors.contains("oops\n") && errors.contains("souk: all there is\n"), "{errors}");
    let json = done(&run(&node, &["logs", "--json", "1"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["stream"], "stdout");
}

#[test]
fn an_export_is_whole_or_not_there() {
    let node = Scripted::start();
    let file = node.dir().join("ledger.souk");
    let name = file.display().to_string();
    done(&run(&node, &["ledger", "export", &name]));
    assert_eq!(std::fs::read(&file).unwrap(), b"first second");
    let again = run(&node, &["ledger", "export", &name]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("is there already"));
    assert_eq!(done(&run(&node, &["ledger", "export", "-"])), "first second");

    let cut = node.dir().join("cut.souk");
    let output = run(&node, &["ledger", "export", "--lease", "cut", &cut.display().to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!cut.exists());

    let check = run(&node, &["ledger", "check"]);
    assert_eq!(check.status.code(), Some(1), "a fault was found");
    assert!(text(&check.stdout).contains("1 fault"));
}

/// Sends bytes as they are and reads until the connection ends.
fn raw(mut stream: impl Read + Write, request: &str) -> String {
    // A request may be refused before all of it is sent; and a reset after that is an end too.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}

#[test]
fn the_socket_is_its_owners_and_odd_requests_are_refused() {
    let node = Scripted::start();
    let socket = node.dir().join("api.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |request: &str| raw(std::os::unix::net::UnixStream::connect(&socket).unwrap(), request);
    let close = "Host: x\r\nConnection: close\r\n";

    let answer = ask(&format!("GET /v1/nothing HTTP/1.1\r\n{close}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("\"code\":\"not_found\""), "{answer}");
    let answer = ask(&format!("POST /v1/leases/1/exec HTTP/1.1\r\n{close}Content-Length: 2\r\n\r\n{{}}"));
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("upgrade"), "{answer}");
    let answer = ask(&format!("POST /v1/search HTTP/1.1\r\n{close}Content-Length: 9\r\n\r\n{{\"no\": 1}}"));
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = "x".repeat(600 * 1024);
    let answer = ask(&format!("POST /v1/search HTTP/1.1\r\n{close}Content-Length: {}\r\n\r\n{long}", long.len()));
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
    let many = "X-Y: z\r\n".repeat(100);
    let answer = ask(&format!("GET /v1/status HTTP/1.1\r\n{close}{many}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = ask("\u{0}\u{1}junk\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    done(&run(&node, &["status"]));
}

#[test]
fn on_loopback_only_the_token_opens() {
    let node = Scripted::start_with_tcp();
    let token = std::fs::read_to_string(node.dir().join(TOKEN_FILE)).unwrap();
    let mode = std::fs::metadata(node.dir().join(TOKEN_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let ask = |header: &str| {
        let stream = std::net::TcpStream::connect(node.tcp().unwrap()).unwrap();
        raw(stream, &format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n"))
    };
    let token = token.trim();
    assert!(ask(&format!("Authorization: Bearer {token}\r\n")).starts_with("HTTP/1.1 200"));
    for wrong in [
        String::new(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {token}0\r\n"),
        format!("Authorization: Basic {token}\r\n"),
    ] {
        let answer = ask(&wrong);
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(!answer.contains(token));
    }
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = souk::config::Api::default();
    let first = Server::bind(&config, dir.path()).await.unwrap();
    let second = Server::bind(&config, dir.path()).await;
    assert!(matches!(second, Err(ServerError::Running { .. })));
    // Dropped without being served: the file stays behind, as after a crash.
    drop(first);
    assert!(dir.path().join("api.sock").exists());
    drop(Server::bind(&config, dir.path()).await.unwrap());

    std::fs::remove_file(dir.path().join("api.sock")).unwrap();
    std::fs::write(dir.path().join("api.sock"), "mine").unwrap();
    let third = Server::bind(&config, dir.path()).await;
    assert!(matches!(third, Err(ServerError::NotASocket { .. })));

    let deep = dir.path().join("x".repeat(120));
    let long = Server::bind(&config, &deep).await;
    assert!(matches!(long, Err(ServerError::TooLong { .. })));
}

#[test]
fn shutdown_ends_the_server_and_removes_its_socket() {
    let node = Scripted::start();
    let socket = node.dir().join("api.sock");
    let answer = raw(
        std::os::unix::net::UnixStream::connect(&socket).unwrap(),
        "POST /v1/shutdown HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    );
    assert!(answer.contains("\"pid\""), "{answer}");
    let deadline = Instant::now() + Duration::from_secs(20);
    while socket.exists() {
        assert!(Instant::now() < deadline, "the socket is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = run(&node, &["status"]);
    assert!(text(&output.stderr).contains("no node is running"));
}
