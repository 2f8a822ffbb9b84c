//! A node worked from elsewhere: `SOUK_HOST` over a real OpenSSH, on loopback.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program::{Outcome, mortal, run, souk},
    ssh::Running,
    sshd::Sshd,
    wait::{PATIENCE, until},
    world::{World, lease_of},
};

const IDLE: &str = "echo begun; while :; do sleep 1; done";
/// Where the system's programs are.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Somebody's computer, with no node of its own.
struct Laptop {
    dir: PathBuf,
    path: String,
    at: String,
}

impl Laptop {
    fn new(world: &World, ssh: &Path, at: &str) -> Self {
        let dir = world.path().join("laptop");
        fs::create_dir_all(&dir).unwrap();
        Self { dir, path: format!("{}:{SYSTEM}", ssh.display()), at: at.to_owned() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.plain(&["--json"]);
        command.args(arguments);
        command
    }

    /// Without JSON.
    fn plain(&self, arguments: &[&str]) -> Command {
        let mut command = mortal(souk());
        command.arg("--dir").arg(&self.dir).args(arguments).env_clear();
        command.env("PATH", &self.path).env("HOME", &self.dir).env("SOUK_HOST", &self.at).current_dir(&self.dir);
        command
    }

    fn souk(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        run(&mut self.command(arguments), input)
    }
}

/// The path of an sshd's sessions in which souk is found.
fn with_souk() -> String {
    format!("{}:{SYSTEM}", souk().parent().unwrap().display())
}

/// The address of a node's data directory on `box`.
fn at(node: &Node) -> String {
    format!("ssh://box{}", node.dir().display())
}

/// Sends everything, ends its own direction, and reads to the end; less comes back where nobody answers yet.
fn echoed(address: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    let Ok(mut stream) = TcpStream::connect(address) else { return back };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let sent = data.to_vec();
    let writer = std::thread::spawn(move || {
        let sent = writing.write_all(&sent);
        sent.and_then(|()| writing.shutdown(Shutdown::Write)).ok();
    });
    stream.read_to_end(&mut back).ok();
    writer.join().unwrap();
    back
}

#[test]
fn a_node_elsewhere_is_worked_as_if_it_were_here() {
    if !have("docker") || !have("ssh") || !Sshd::there() {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let ask = renter.ask_of(&host, 1);
    // A login shell that greets, as people's do.
    let sshd = Sshd::start(&world.path().join("sshd"), &with_souk(), "");
    let laptop =
        Laptop::new(&world, &sshd.client("    LocalForward 1 localhost:1\n    RequestTTY force\n"), &at(&renter));

    let status = laptop.souk(&["status"], &[]).json();
    assert_eq!(
        (&status["node"], &status["dir"]),
        (&renter.id.clone().into(), &renter.dir().display().to_string().into())
    );
    let rented = laptop.souk(
        &[
            "rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--label", "job", "--tick", "1s", "--", "sh", "-c",
            IDLE,
        ],
        &[],
    );
    assert_eq!(rented.code, 0, "{}{}", rented.out, rented.err);
    let lease = lease_of(&rented.lines());
    let listed = laptop.souk(&["ps"], &[]).json();
    assert_eq!(listed[0]["lease"], lease.as_str());

    // Output that goes on.
    let mut logs = laptop.plain(&["logs", "-f", "job"]);
    let mut logs = Running(logs.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap());
    let mut first = [0; 6];
    logs.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"begun\n");
    drop(logs);

    // Commands: codes, both outputs, input to its end and more than any buffer on the way, terminals.
    let outcome = laptop.souk(&["exec", "job", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "out\n"), "{}", outcome.err);
    assert!(outcome.err.contains("err\n"), "{}", outcome.err);
    let data: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let outcome = laptop.souk(&["exec", "-i", "job", "--", "sha256sum"], &data);
    let file = world.path().join("data");
    fs::write(&file, &data).unwrap();
    let sum = souk_tests::program::must("sha256sum", &[file.to_str().unwrap()]);
    assert_eq!(outcome.ok().split(' ').next(), sum.split(' ').next());
    let line = format!(
        "stty rows 33 cols 101; {} --dir {} exec -it job -- sh -c 'until s=$(stty size 2>/dev/null) && [ -n \"$s\" ]; do :; done; echo $s; tty >/dev/null && echo a terminal'",
        souk().display(),
        laptop.dir.display()
    );
    let mut script = mortal(Path::new("script"));
    script.args(["-qec", &line, "/dev/null"]).env("PATH", &laptop.path).env("SOUK_HOST", &laptop.at);
    let shown = run(&mut script, &[]);
    assert!(shown.out.contains("33 101") && shown.out.contains("a terminal"), "{}{}", shown.out, shown.err);

    // SSH into the instance, through the node there: the keys come here, and the proxy goes there.
    let outcome = laptop.souk(&["ssh", "job", "--", "echo $USER; exit 3"], &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (3, "root\n"), "{}", outcome.err);
    let config = laptop.souk(&["ssh-config", "job"], &[]).json();
    let proxy = config["options"]["ProxyCommand"].as_str().unwrap();
    assert!(proxy.contains(&format!("--at {}", laptop.at)), "{proxy}");

    // Files of this computer.
    fs::create_dir_all(laptop.dir.join("tree/sub")).unwrap();
    fs::write(laptop.dir.join("tree/sub/x"), &data).unwrap();
    let copied = laptop.souk(&["copy", "tree", "job:/tmp"], &[]);
    assert_eq!(copied.code, 0, "{}{}", copied.out, copied.err);
    let copied = laptop.souk(&["copy", "job:/tmp/tree/", "back"], &[]);
    assert_eq!(copied.code, 0, "{}{}", copied.out, copied.err);
    assert!(fs::read(laptop.dir.join("back/sub/x")).unwrap() == data);

    // Ports, with more connections at once than an sshd lets log in, or one login may open.
    let serve = "nc -ll -p 7011 -e cat";
    let before = sshd.clients().len();
    let mut server = laptop.command(&["exec", "job", "--", "sh", "-c", serve]);
    let _server = Running(server.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    until("its ssh", || (sshd.clients().len() > before).then_some(()));
    let log = world.path().join("forward");
    let mut forward = laptop.command(&["forward", "job", "0:7011"]);
    let forward = forward.stdin(Stdio::null()).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let forward = Running(forward);
    let address: SocketAddr = until("a listener", || {
        let line: serde_json::Value = serde_json::from_str(fs::read_to_string(&log).ok()?.lines().next()?).ok()?;
        line["local"].as_str()?.parse().ok()
    });
    until("the port answers", || (echoed(address, b"there") == b"there").then_some(()));
    let logins = sshd.clients().len();
    let piece = &data[..400_000];
    std::thread::scope(|scope| {
        let connections: Vec<_> = (0..24)
            .map(|_| {
                // Busybox takes two at a time, and turns others away: those come again.
                scope.spawn(move || until("an echo", || Some(echoed(address, piece)).filter(|back| !back.is_empty())))
            })
            .collect();
        assert!(connections.into_iter().all(|connection| connection.join().unwrap() == piece));
    });
    assert_eq!(sshd.clients().len(), logins, "one login carries them all");
    // ssh is lost: the next connection finds another way.
    let newest = *sshd.clients().last().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(newest).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("the port answers again", || (echoed(address, b"again") == b"again").then_some(()));
    assert_eq!(sshd.clients().len(), logins + 1);
    drop(forward);

    // A whole run, with files both ways.
    fs::write(laptop.dir.join("six"), "6").unwrap();
    let outcome = laptop.souk(
        &[
            "run",
            "-q",
            "-Q",
            "num_gpus=0",
            "--disk",
            "1",
            "--wait",
            "90s",
            "--in",
            "six:/tmp/six",
            "--out",
            "/tmp/y:y",
            BUSYBOX,
            "--",
            "sh",
            "-c",
            "echo $(( $(cat /tmp/six) * 7 )) > /tmp/y; exit 5",
        ],
        &[],
    );
    assert_eq!(outcome.code, 5, "{}{}", outcome.out, outcome.err);
    assert_eq!(fs::read_to_string(laptop.dir.join("y")).unwrap(), "42\n");

    let events = laptop.souk(&["events", "job"], &[]).json();
    assert_eq!(events[0]["state"], "running", "{events}");
    assert_eq!(laptop.souk(&["destroy", "-y", "job"], &[]).code, 0);
    let export = laptop.dir.join("export");
    assert_eq!(laptop.souk(&["ledger", "export", export.to_str().unwrap()], &[]).code, 0);
    assert_eq!(laptop.souk(&["verify", export.to_str().unwrap()], &[]).code, 0);
}

#[test]
fn what_is_wrong_on_the_way_is_told_with_what_helps() {
    if !have("ssh") || !Sshd::there() {
        return;
    }
    let world = World::new();
    let mut node = world.node("node").start();
    let sshd = Sshd::start(&world.path().join("sshd"), &with_souk(), "");
    let bin = sshd.client("");
    let told = |laptop: &Laptop, arguments: &[&str]| {
        let outcome = laptop.souk(arguments, &[]);
        assert_ne!(outcome.code, 0, "{}", outcome.out);
        assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
        let line = outcome.err.lines().last().unwrap();
        let error: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {}", outcome.err));
        let text = |key: &str| error["error"][key].as_str().unwrap_or_default().to_owned();
        (text("message"), text("hint"))
    };
    let laptop = Laptop::new(&world, &bin, &at(&node));
    assert_eq!(laptop.souk(&["status"], &[]).json()["node"], node.id.as_str());
    // The socket itself, and a path from the home directory, as sshd's session begins there.
    for place in
        [format!("ssh://box{}/api.sock", node.dir().display()), format!("ssh://root@box{}", node.dir().display())]
    {
        assert_eq!(Laptop { at: place, ..Laptop::new(&world, &bin, "") }.souk(&["status"], &[]).code, 0);
    }
    // The option goes before the environment.
    let astray = Laptop { at: "ssh://nowhere.invalid".to_owned(), ..Laptop::new(&world, &bin, "") };
    assert_eq!(astray.souk(&["--at", &at(&node), "status"], &[]).code, 0);

    // Nothing of this machine's node is done while another is meant.
    for command in [&["init"][..], &["up"], &["config", "show"], &["config", "path"], &["owner", "init"]] {
        let (why, hint) = told(&laptop, command);
        assert!(why.contains("of this machine") && hint.contains("ssh box souk"), "{why} {hint}");
    }
    assert!(!laptop.dir.join("node.key").exists());

    // The port of loopback, by its token.
    let token = Laptop::new(&world, &bin, "http://127.0.0.1:9");
    assert!(told(&token, &["status"]).0.contains("SOUK_TOKEN"));
    let mut nobody = token.command(&["status"]);
    let nobody = run(nobody.env("SOUK_TOKEN", "x"), &[]);
    assert!(nobody.err.contains("no node answers at http://127.0.0.1:9"), "{}", nobody.err);

    // No node there.
    node.stop();
    let (why, hint) = told(&laptop, &["ps"]);
    assert!(why.starts_with("on box: no node is running for") && hint == "ssh box souk up -d", "{why} {hint}");

    // No souk there, another one, and something that is none.
    let elsewhere = |name: &str, script: Option<&str>| {
        let folder = world.path().join(name);
        fs::create_dir_all(folder.join("bin")).unwrap();
        if let Some(script) = script {
            fs::write(folder.join("bin/souk"), script).unwrap();
            fs::set_permissions(folder.join("bin/souk"), fs::Permissions::from_mode(0o755)).unwrap();
        }
        // Without the system's own folders for local programs, where a souk may be.
        let sshd = Sshd::start(&folder, &format!("{}:/usr/bin:/bin", folder.join("bin").display()), "");
        (Laptop { at: "ssh://box/nowhere".to_owned(), ..Laptop::new(&world, &sshd.client(""), "") }, sshd)
    };
    if !Path::new("/usr/local/bin/souk").exists() {
        let (none, _sshd) = elsewhere("none", None);
        let (why, hint) = told(&none, &["ps"]);
        assert!(why.contains("there is no souk on box") && hint.contains("install it"), "{why} {hint}");
    }
    let (other, _sshd) = elsewhere(
        "other",
        Some("#!/bin/sh\necho Welcome\necho '{\"souk_dial\":1,\"version\":\"99.1.0\"}'\ncat >/dev/null\n"),
    );
    let (why, hint) = told(&other, &["ps"]);
    assert!(why.contains("the souk on box is 99.1.0, this one is") && hint.contains("same souk"), "{why} {hint}");
    let (old, _sshd) = elsewhere("old", Some("#!/bin/sh\necho \"error: unrecognized subcommand '$1'\" >&2\nexit 2\n"));
    let (why, hint) = told(&old, &["ps"]);
    assert!(why.contains("unrecognized subcommand") && hint.contains("same souk"), "{why} {hint}");

    // No way there, and no ssh to go it.
    let (why, hint) = told(&astray, &["ps"]);
    assert!(
        why.contains("nowhere.invalid can't be reached over ssh: ") && hint.starts_with("ssh nowhere.invalid true"),
        "{why} {hint}"
    );
    let refused = Laptop { at: "ssh://127.0.0.1:1".to_owned(), ..Laptop::new(&world, &bin, "") };
    let (why, hint) = told(&refused, &["ps"]);
    assert!(why.contains("refused") && hint.starts_with("ssh -p 1 127.0.0.1 true"), "{why} {hint}");
    let mut without = laptop.command(&["ps"]);
    let without = run(without.env("PATH", "/nonexistent"), &[]);
    assert!(
        without.err.contains("ssh can't be started here") && without.err.contains("openssh-client"),
        "{}",
        without.err
    );

    // An address that is none.
    for wrong in ["ssh://-oProxyCommand=id", "tcp://box", "ssh://me:secret@box", "http://192.0.2.1:80"] {
        let outcome = Laptop { at: wrong.to_owned(), ..Laptop::new(&world, &bin, "") }.souk(&["ps"], &[]);
        assert_eq!(outcome.code, 2, "{wrong}: {}", outcome.err);
        assert!(outcome.err.contains("no node's address"), "{}", outcome.err);
    }
}

#[test]
fn a_node_elsewhere_is_stopped_and_a_loopback_port_is_one_more_way() {
    if !have("ssh") || !Sshd::there() {
        return;
    }
    let world = World::new();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut node = world.node("node").config(&format!("[api]\ntcp = \"127.0.0.1:{port}\"\n")).start();
    let sshd = Sshd::start(&world.path().join("sshd"), &with_souk(), "");
    let laptop = Laptop::new(&world, &sshd.client(""), &at(&node));
    let here = |at: String| Laptop { at, ..Laptop::new(&world, Path::new("/"), "") };
    for place in [node.dir().to_owned(), node.dir().join("api.sock")] {
        let local = here(format!("unix://{}", place.display()));
        assert_eq!(local.souk(&["status"], &[]).json()["node"], node.id.as_str());
    }
    let token = fs::read_to_string(node.dir().join("api.token")).unwrap();
    let loopback = here(format!("http://localhost:{port}"));
    let shown = run(loopback.command(&["status"]).env("SOUK_TOKEN", token.trim()), &[]);
    assert_eq!(shown.json()["node"], node.id.as_str());
    let wrong = run(loopback.command(&["status"]).env("SOUK_TOKEN", "wrong"), &[]);
    assert_eq!(wrong.error().0, "unauthorized");
    // A copy of its token where this computer's own would be does as well.
    fs::write(loopback.dir.join("api.token"), &token).unwrap();
    assert_eq!(loopback.souk(&["status"], &[]).code, 0);

    let stopped = laptop.souk(&["down"], &[]);
    assert_eq!(stopped.code, 0, "{}{}", stopped.out, stopped.err);
    assert_eq!(node.ended().0, 0);
    assert!(laptop.souk(&["status"], &[]).err.contains("no node is running"));
}
