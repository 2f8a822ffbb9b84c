//! SSH and ports of an instance between two real nodes, with the OpenSSH of this machine as the client.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    net::{SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::Stdio,
    time::Duration,
};

use souk_tests::{
    echo::echoed,
    node::Node,
    part::have,
    program::{mortal, must, run},
    ssh::{Client, Running},
    wait::until,
    world::{World, rent},
};

/// Waits for nothing but its end.
const IDLE: &str = "while :; do sleep 1; done";

/// Bytes that don't repeat soon.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut counter = 0u64;
    while bytes.len() < length {
        bytes.extend_from_slice(blake3::hash(&counter.to_le_bytes()).as_bytes());
        counter += 1;
    }
    bytes.truncate(length);
    bytes
}

/// `souk forward`, and where it listens.
fn forwarded(renter: &Node, arguments: &[&str], log: &Path) -> (Running, SocketAddr) {
    let mut command = renter.command(&[&["forward"], arguments].concat());
    let child = command.stdin(Stdio::null()).stdout(fs::File::create(log).unwrap()).spawn().unwrap();
    let address = until("a listener", || {
        let line: serde_json::Value = serde_json::from_str(fs::read_to_string(log).ok()?.lines().next()?).ok()?;
        line["local"].as_str()?.parse().ok()
    });
    (Running(child), address)
}

#[test]
fn openssh_finds_in_an_instance_what_it_finds_on_any_server() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, IDLE, &["--label", "job"]);
    let client = Client::of(&renter, &lease, world.path());

    // Codes, both outputs, the home folder, variables.
    let outcome = client.ssh(&["job", "echo out; echo err >&2; pwd; exit 7"], &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "out\n/root\n"), "{}", outcome.err);
    assert!(outcome.err.contains("err"), "{}", outcome.err);
    assert_eq!(client.ssh(&["job", "kill -9 $$"], &[]).code, 137);
    let outcome = client.with("SetEnv", "LANG=souk_TEST").ssh(&["job", "echo $LANG $USER $SHELL"], &[]);
    assert_eq!(outcome.out, "souk_TEST root /bin/sh\n");
    // Another user of the image.
    assert_eq!(client.ssh(&["-l", "guest", "job", "id -u"], &[]).out, "1000\n");

    // Input to its end, more than any buffer on the way, back and amplified.
    let data = noise(6_000_000);
    let counted = client.ssh(&["job", "wc -c"], &data);
    assert_eq!(counted.out.trim(), "6000000", "{}", counted.err);
    let line = "head -c 2000000 /dev/zero | tr '\\0' x; cat >/dev/null; head -c 3000000 /dev/zero | tr '\\0' y | wc -c";
    let outcome = client.ssh(&["job", line], &data);
    assert!(outcome.code == 0 && outcome.out.ends_with("3000000\n"), "{}", outcome.err);

    // A terminal has the kind and size it is given.
    let asked = format!("stty rows 33 cols 101; ssh -F {} -tt job 'stty size; echo $TERM'", client.config.display());
    let mut script = mortal(Path::new("script"));
    let shown = run(script.args(["-qec", &asked, "/dev/null"]).env("TERM", "xterm-256color"), &[]);
    assert!(shown.out.contains("33 101") && shown.out.contains("xterm-256color"), "{}{}", shown.out, shown.err);

    // Files both ways, whole.
    let (big, back) = (world.path().join("big"), world.path().join("back"));
    let content = noise(20_000_000);
    fs::write(&big, &content).unwrap();
    let copied = run(client.program("scp").arg(&big).arg("job:big file"), &[]);
    assert_eq!(copied.code, 0, "{}", copied.err);
    let digest = client.ssh(&["job", "sha256sum 'big file'"], &[]).out;
    assert_eq!(digest.split(' ').next(), must("sha256sum", &[big.to_str().unwrap()]).split(' ').next());
    assert_eq!(run(client.program("scp").arg("-p").arg("job:big file").arg(&back), &[]).code, 0);
    assert!(fs::read(&back).unwrap() == content);
    let batch = "mkdir d\nput big d/x\nrename d/x d/y\nsymlink d/y l\nls -l d\nrm d/y\nrmdir d\n"
        .replace("big", big.to_str().unwrap());
    let listed = run(client.program("sftp").args(["-q", "-b", "-", "job"]), batch.as_bytes());
    assert_eq!(listed.code, 0, "{}{}", listed.out, listed.err);
    assert!(listed.out.contains("-rw"), "{}", listed.out);
    assert_ne!(run(client.program("sftp").args(["-q", "-b", "-", "job"]), b"get /nothing\n").code, 0);

    // One connection for many sessions.
    let socket = world.path().join("master");
    let shared = client.with("ControlPath", socket.to_str().unwrap());
    let _master = Running(shared.program("ssh").args(["-M", "-N", "job"]).stdin(Stdio::null()).spawn().unwrap());
    until("a master", || socket.exists().then_some(()));
    for n in 0..5 {
        assert_eq!(shared.ssh(&["job", &format!("exit {n}")], &[]).code, n);
    }

    // What a closed client leaves behind is hung up.
    drop(Running(client.program("ssh").args(["-tt", "job", "sleep 4321"]).stdin(Stdio::null()).spawn().unwrap()));
    let sleeping = || client.ssh(&["job", "ps | grep -c '[s]leep 4321'"], &[]).out.trim() != "0";
    until("the end of its command", || (!sleeping()).then_some(()));

    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn ports_of_an_instance_are_reached_from_inside_it() {
    if !have("docker") || !have("python3") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let line = "nc -ll -p 7000 -e cat & while :; do sleep 1; done";
    let lease = rent(&renter, &host, 1, line, &[]);
    let client = Client::of(&renter, &lease, world.path());
    let data = noise(3_000_000);

    // Several at once, each direction ended on its own.
    let (_forward, address) = forwarded(&renter, &[&lease, "0:7000"], &world.path().join("forward.out"));
    let serving = || client.ssh(&["job", "netstat -ltn | grep -q :7000"], &[]).code == 0;
    until("the server inside", || serving().then_some(()));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let data = data[..1_000_000 + n].to_vec();
            std::thread::spawn(move || assert!(until("an echo", || echoed(address, &data).ok()) == data))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }

    // Datagrams, to a program that this machine runs in the instance's network.
    let container = world.docker().inspect(&world.docker().container(&host.id));
    let (pid, line) = (
        container["State"]["Pid"].to_string(),
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 7001))\nwhile True: s.sendto(*s.recvfrom(2048))",
    );
    let mut echo = mortal(Path::new("nsenter"));
    let _echo = Running(echo.args(["-t", &pid, "-n", "python3", "-c", line]).spawn().unwrap());
    let (_datagrams, address) = forwarded(&renter, &["--udp", &lease, "0:7001"], &world.path().join("udp.out"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.connect(address).unwrap();
    until("a datagram back", || {
        socket.send(b"ping").unwrap();
        let mut back = [0; 16];
        let length = socket.recv(&mut back).ok()?;
        (&back[..length] == b"ping").then_some(())
    });

    // OpenSSH's own way there.
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let local = format!("127.0.0.1:{port}:localhost:7000");
    let _local = Running(client.program("ssh").args(["-N", "-L", &local, "job"]).stdin(Stdio::null()).spawn().unwrap());
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    until("ssh's listener", || TcpStream::connect(address).ok());
    assert!(until("an echo", || echoed(address, &data).ok()) == data);

    // The host's own ports are none of the instance's.
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = own.local_addr().unwrap().port().to_string();
    let to = format!("localhost:{port}");
    assert_ne!(client.ssh(&["-W", &to, "job"], &[]).code, 0);

    // The end of the lease is the end of its ways.
    let _ = renter.json(&["destroy", "-y", &lease]);
    let (code, _) = renter.refused(&["forward", &lease, "0:7000"]);
    assert!(!code.is_empty());
}

#[test]
fn nobody_else_gets_in() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let stranger = world.node("stranger").knows(&host.listen[0]).start();
    let lease = rent(&renter, &host, 1, IDLE, &[]);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 0);

    // A key that isn't the rental's, a host key that isn't the lease's.
    let key = world.path().join("wrong");
    must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    let refused = client.by(key.to_str().unwrap()).ssh(&["job", "true"], &[]);
    assert!(refused.code == 255 && refused.err.contains("Permission denied"), "{}", refused.err);
    let text = fs::read_to_string(&client.config).unwrap();
    let alias = text.lines().find_map(|line| line.trim().strip_prefix("HostKeyAlias ")).unwrap().to_owned();
    let known = world.path().join("known");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(&known, format!("{alias} {public}")).unwrap();
    let changed = client.replaced("UserKnownHostsFile", known.to_str().unwrap(), "known").ssh(&["job", "true"], &[]);
    assert!(changed.code == 255 && changed.err.contains("IDENTIFICATION HAS CHANGED"), "{}", changed.err);

    // Neither another node nor the host itself.
    for node in [&stranger, &host] {
        let (code, sentence) = node.refused(&["ssh-config", &lease]);
        assert!(["not_found", "wrong_state"].contains(&code.as_str()), "{code}: {sentence}");
    }
    // Agents and X11 stay at home.
    assert_eq!(client.ssh(&["-A", "job", "echo ${SSH_AUTH_SOCK-none}"], &[]).out, "none\n");
    let _ = renter.json(&["destroy", "-y", &lease]);
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 255);
}
