//! A real Jupyter, rented with `--jupyter` and opened through the tunnel, in a real browser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod browser;
mod image;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use self::browser::{Browser, ENTER, SHIFT_ENTER};
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::{have, have_all},
    program::{Outcome, run, wait},
    wait::{PATIENCE, until, within},
    world::{World, lease_of},
};

/// Ended by its id when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// How long a Jupyter may take to answer on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(240);

/// `souk rent --jupyter`, to its end.
fn rent(renter: &Node, host: &Node, image: &str, options: &[&str]) -> Outcome {
    let ask = renter.ask_of(host, 1);
    let arguments = [&["rent", &ask, "--image", image, "--disk", "1", "-y", "--jupyter"], options].concat();
    let path = |name: &str| renter.dir().with_extension(name);
    let file = |name: &str| fs::File::create(path(name)).unwrap();
    let mut command = renter.command(&arguments);
    let mut renting =
        Running(command.stdin(Stdio::null()).stdout(file("rent")).stderr(file("errors")).spawn().unwrap());
    let code = wait(&mut renting.0, STARTS_WITHIN).expect("it ends");
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    Outcome { code, out: read("rent"), err: read("errors") }
}

/// `souk open`, and the address it gives.
fn opened(renter: &Node, lease: &str, log: &Path) -> (Running, String) {
    let mut command = renter.command(&["open", lease]);
    let child = command.stdin(Stdio::null()).stdout(fs::File::create(log).unwrap()).spawn().unwrap();
    let url = within(STARTS_WITHIN, "an address", || {
        let line: serde_json::Value = serde_json::from_str(fs::read_to_string(log).ok()?.lines().next()?).ok()?;
        Some(line["url"].as_str()?.to_owned())
    });
    (Running(child), url)
}

/// What a page answers to a plain request: its first line and headers.
fn answer(address: SocketAddr, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

/// Whether any process of this machine has a text among its arguments.
fn among_arguments(text: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let shown = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    shown.into_iter().any(|line| String::from_utf8_lossy(&line).contains(text))
}

#[test]
fn a_cell_and_a_terminal_work_in_a_browser_and_nobody_gets_in_without_the_token() {
    if !have_all(&["docker", "debootstrap", "chromium", "chromedriver"]) {
        return;
    }
    let world = World::with_docker();
    let Some(image) = image::jupyter(world.docker()) else { return };
    let (host, renter) = world.pair(1);
    let outcome = rent(&renter, &host, &image, &["--label", "lab"]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    assert!(outcome.lines().iter().any(|step| step["step"] == "jupyter"), "{}", outcome.out);
    let lease = lease_of(&outcome.lines());
    let (_open, url) = opened(&renter, "lab", &world.path().join("open.out"));
    let (page, token) = url.split_once("/?token=").unwrap();
    let address: SocketAddr = page.strip_prefix("http://").unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && token.len() == 64, "{url}");

    // A cell, over a websocket to its kernel.
    let browser = Browser::start(world.path());
    browser.go(&url);
    browser.click("//div[contains(@class,'jp-LauncherCard') and @data-category='Notebook']");
    until("a kernel that waits for work", || browser.find("//*[contains(text(), '| Idle')]"));
    let cell = "(//div[contains(@class,'jp-CodeCell')])[1]";
    let editor = format!("{cell}//div[contains(@class,'cm-content')]");
    browser.click(&editor);
    browser.keys(&editor, &format!("print('answer', 6 * 7){SHIFT_ENTER}"));
    until("the cell's output", || {
        let output = browser.text(&format!("{cell}//div[contains(@class,'jp-OutputArea-output')]//pre"));
        if output.is_some_and(|text| text.trim() == "answer 42") {
            return Some(());
        }
        // What is run before the kernel is connected is not run at all: as people do, again.
        let prompt = browser.text(&format!("{cell}//div[contains(@class,'jp-InputPrompt')]"));
        if prompt.is_some_and(|text| text.trim() == "[ ]:") {
            browser.keys(&editor, SHIFT_ENTER);
        }
        std::thread::sleep(Duration::from_millis(500));
        None
    });

    // A terminal, on a page that only the cookie lets in.
    browser.go(&format!("{page}/lab/workspaces/second"));
    assert!(!browser.url().contains("login"), "{}", browser.url());
    browser.click("//div[contains(@class,'jp-LauncherCard') and .//p[text()='Terminal']]");
    let screen = "//div[contains(@class,'jp-Terminal')]//textarea[contains(@class,'xterm-helper-textarea')]";
    until("what the terminal has written", || {
        browser.keys(screen, &format!("echo $((6 * 7)) $0 > /root/written{ENTER}"));
        let there = renter.souk(&["exec", &lease, "--", "cat", "/root/written"], &[]);
        (there.code == 0 && there.out.contains("42 ")).then(|| assert!(there.out.contains("bash"), "{}", there.out))
    });
    drop(browser);

    // Without the token, under another name, and for other users of this machine.
    assert!(answer(address, "/lab", &address.to_string()).contains("/login"));
    for (path, name) in [("/api/contents", address.to_string()), ("/api/status", "evil.example".to_owned())] {
        assert!(answer(address, path, &name).starts_with("HTTP/1.1 403"), "{path} of {name}");
    }
    assert!(!among_arguments(token));
    assert!(!renter.souk(&["logs", &lease], &[]).out.contains(token));
    // From the host itself: it listens in the instance's network alone, and there on its loopback.
    let network = world.docker().inspect(&world.docker().container(&host.id))["NetworkSettings"]["Networks"].clone();
    for network in network.as_object().into_iter().flatten().map(|(_, network)| network) {
        let Ok(ip) = network["IPAddress"].as_str().unwrap_or_default().parse::<std::net::IpAddr>() else { continue };
        assert!(TcpStream::connect_timeout(&SocketAddr::new(ip, 8888), Duration::from_secs(3)).is_err());
    }
    let (code, _) = host.refused(&["open", &lease]);
    assert_eq!(code, "wrong_state");

    // Ended and begun again: the same token, the same files.
    let _ = renter.json(&["stop", &lease]);
    let (_, sentence) = renter.refused(&["open", &lease]);
    assert!(sentence.contains("isn't running"), "{sentence}");
    let _ = renter.json(&["start", &lease]);
    let (_again, again) = opened(&renter, &lease, &world.path().join("again.out"));
    assert!(again.ends_with(token), "{again}");
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn another_user_of_the_image_has_a_jupyter_too_and_the_browser_is_led_there_by_a_private_file() {
    if !have_all(&["docker", "debootstrap"]) {
        return;
    }
    let world = World::with_docker();
    let Some(image) = image::jupyter(world.docker()) else { return };
    let (host, renter) = world.pair(1);
    // One without a home, and at another port.
    let outcome = rent(&renter, &host, &image, &["--user", "4242:4242", "--env", "JUPYTER_PORT=9001"]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = lease_of(&outcome.lines());
    let of_root =
        renter.souk(&["exec", &lease, "--", "sh", "-c", "cat /proc/[0-9]*/status | grep ^Uid: | grep -wc 0"], &[]);
    assert_eq!(of_root.out.trim(), "0", "something runs as root there: {}", of_root.err);

    // What the desktop's opener is given, and what that leads to.
    let tools = world.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let seen = world.path().join("seen");
    let opener =
        format!("#!/bin/sh\nstat -c %a \"$1\" > {0}.mode && cp \"$1\" {0}.new && mv {0}.new {0}\n", seen.display());
    fs::write(tools.join("xdg-open"), opener).unwrap();
    fs::set_permissions(tools.join("xdg-open"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(souk_tests::program::souk());
    command.arg("--dir").arg(renter.dir()).args(["open", &lease]).stdin(Stdio::null());
    command.env("PATH", path).env("DISPLAY", ":0").env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
    let open = Running(command.stdout(Stdio::null()).spawn().unwrap());
    let leads = until("the browser's file", || fs::read_to_string(&seen).ok());
    let (_, rest) = leads.split_once("url=http://").unwrap();
    let (address, token) = rest.split_once('"').unwrap().0.split_once("/?token=").unwrap();
    assert_eq!(fs::read_to_string(seen.with_extension("mode")).unwrap().trim(), "600");
    assert!(!among_arguments(token));
    let address: SocketAddr = address.parse().unwrap();
    assert!(answer(address, &format!("/api/status?token={token}"), &address.to_string()).starts_with("HTTP/1.1 200"));
    drop(open);
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn an_image_without_jupyter_says_so_and_costs_nothing_more() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let outcome = rent(&renter, &host, BUSYBOX, &[]);
    let (code, sentence) = outcome.error();
    assert!(code == "wrong_state" && sentence.contains("this image has no Jupyter"), "{code}: {sentence}");
    let lease = lease_of(&outcome.out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<_>>());
    let shown = renter.json(&["show", &lease]);
    assert_eq!((shown["reason"].as_str(), shown["exit_code"].as_i64()), (Some("exited"), Some(127)), "{shown:#}");
    assert!(shown["note"].as_str().unwrap().contains("not found in the image"), "{shown:#}");
    assert!(renter.souk(&["logs", &lease], &[]).out.contains("no Jupyter"));
    let (_, again) = renter.refused(&["open", &lease]);
    assert!(again.contains("this image has no Jupyter"), "{again}");
    let _ = renter.json(&["destroy", "-y", &lease]);

    // Nor is there a page where none was asked for, or Jupyter beside a command.
    let other = souk_tests::world::rent(&renter, &host, 1, "while :; do sleep 1; done", &[]);
    let (code, sentence) = renter.refused(&["open", &other]);
    assert!(code == "wrong_state" && sentence.contains("without --jupyter"), "{code}: {sentence}");
    let ask = "0000000000";
    let both = run(&mut renter.command(&["rent", ask, "--image", BUSYBOX, "--jupyter", "--", "true"]), &[]);
    assert_eq!(both.code, 2, "{}", both.err);
    let _ = renter.json(&["destroy", "-y", &other]);
}
