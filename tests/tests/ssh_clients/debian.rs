//! A full Debian: rsync, a SOCKS proxy, and the way VS Code installs itself.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use souk_tests::{
    images::DEBIAN,
    part::have_all,
    program::{mortal, must, run},
    ssh::{Client, Running},
    wait::until,
    world::{World, rent_image},
};

/// As VS Code's does: told on standard input, it starts a server that outlives it and says where that listens.
const BOOTSTRAP: &str = r#"set -e
echo "c0ffee: running"
mkdir -p ~/.server && cd ~/.server && echo served > index.html
nohup python3 -u -m http.server --bind 127.0.0.1 0 > log 2>&1 < /dev/null &
for n in $(seq 200); do
    port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' log 2>/dev/null)
    [ -n "$port" ] && break
    sleep 0.1
done
echo "listeningOn==$port=="
echo "c0ffee: end"
"#;

#[test]
fn a_full_debian_is_worked_with_as_any_server() {
    if !have_all(&["docker", "mmdebstrap", "rsync", "curl"]) {
        return;
    }
    let world = World::with_docker();
    world.docker().debian();
    let (host, renter) = world.pair(1);
    let lease = rent_image(&renter, &host, 1, DEBIAN, &[], &["bash", "-c", super::IDLE]);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.ssh(&["job", "echo $SHELL; pwd"], &[]).out, "/bin/bash\n/root\n");

    // rsync both ways: names, links, times; only what differs goes again.
    let folder = world.path().join("tree");
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/one two"), "1").unwrap();
    fs::write(folder.join("a/b/big"), vec![7; 3_000_000]).unwrap();
    std::os::unix::fs::symlink("a/one two", folder.join("link")).unwrap();
    let shell = format!("ssh -F {}", client.config.display());
    let (here, back) = (format!("{}/", folder.display()), format!("{}/back/", world.path().display()));
    let rsync = |from: &str, to: &str| {
        run(mortal("rsync".as_ref()).args(["-a", "--delete", "--stats", "-e", &shell, from, to]), &[]).ok()
    };
    rsync(&here, "job:tree/");
    let again = rsync(&here, "job:tree/");
    assert!(again.contains("Number of regular files transferred: 0"), "{again}");
    rsync("job:tree/", &back);
    must("diff", &["-r", "--no-dereference", &here, &back]);

    // VS Code's way: one connection with a SOCKS proxy, a script on bash's standard input, a server that stays.
    let socks = super::free_port();
    let mut command = client.program("ssh");
    command.args(["-T", "-D", &socks.to_string(), "-o", "ConnectTimeout=15", "job", "bash"]);
    let mut child = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut typed = child.0.stdin.take().unwrap();
    typed.write_all(BOOTSTRAP.as_bytes()).unwrap();
    typed.flush().unwrap();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("listeningOn==")).unwrap();
    let port: u16 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
    let fetch = |url: &str| {
        let proxy = format!("127.0.0.1:{socks}");
        run(mortal("curl".as_ref()).args(["-sS", "--max-time", "30", "--socks5-hostname", &proxy, url]), &[])
    };
    for name in ["127.0.0.1", "localhost"] {
        assert_eq!(fetch(&format!("http://{name}:{port}/")).ok(), "served\n");
    }
    // From inside the instance: the host's own loopback is none of its.
    let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = fetch(&format!("http://127.0.0.1:{}/", own.local_addr().unwrap().port()));
    assert_ne!(refused.code, 0, "{}", refused.out);
    // The server outlives the connection that began it.
    drop((typed, lines, child));
    let look =
        format!("python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:{port}/\").read())'");
    assert!(client.ssh(&["job", &look], &[]).out.contains("served"));

    // The end of the lease cuts at once what is open: a shell, and the proxy.
    let mut command = client.program("ssh");
    command.args(["-D", &super::free_port().to_string(), "job", "echo in; sleep 600"]);
    let mut child = Running(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");
    let _ = renter.json(&["destroy", "-y", &lease]);
    assert_eq!(until("it is cut", || child.0.try_wait().unwrap()).code(), Some(255));
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 255);
}
