//! What a guest can reach: the public internet where granted, never the host, its LAN, metadata services or other guests.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::net::TcpListener;
use std::process::Command;

use souk_runtime::{Egress, FailureCode, InstanceSpec, Runtime, RuntimeConfig};
use support::{World, config, have, images, run};

/// A "public" server behind this host: a namespace of our own with a public address, one hop away.
struct Public {
    namespace: String,
    link: String,
    servers: Vec<std::process::Child>,
    _site: tempfile::TempDir,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// There is one route to [`PUBLIC`] on a machine, and the tests of this file run side by side.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const PUBLIC: &str = "9.9.9.9";

impl Public {
    async fn new() -> Self {
        let alone = ALONE.lock().await;
        let id = std::process::id();
        let (namespace, link, inner) = (format!("sktest{id}"), format!("vt{id}h"), format!("vt{id}g"));
        let third = (id % 250).to_string();
        let (host, guest) = (format!("198.18.{third}.1"), format!("198.18.{third}.2"));
        run("ip", &["netns", "add", &namespace]);
        run("ip", &["link", "add", &link, "type", "veth", "peer", "name", &inner, "netns", &namespace]);
        run("ip", &["addr", "add", &format!("{host}/30"), "dev", &link]);
        run("ip", &["link", "set", &link, "up"]);
        for command in [
            format!("addr add {guest}/30 dev {inner}"),
            format!("link set {inner} up"),
            "link set lo up".into(),
            format!("addr add {PUBLIC}/32 dev lo"),
            format!("route add default via {host}"),
        ] {
            let mut words = vec!["-n", &namespace];
            words.extend(command.split(' '));
            run("ip", &words);
        }
        run("ip", &["route", "add", &format!("{PUBLIC}/32"), "via", &guest, "dev", &link]);
        let site = tempfile::tempdir().unwrap();
        std::fs::write(site.path().join("index.html"), "hello from afar\n").unwrap();
        std::fs::write(site.path().join("big"), vec![b'x'; 300_000]).unwrap();
        let servers = ["80", "25"]
            .map(|port| {
                Command::new("ip")
                    .args(["netns", "exec", &namespace, "/usr/bin/busybox", "httpd", "-f", "-p", port, "-h"])
                    .arg(site.path())
                    .spawn()
                    .unwrap()
            })
            .into();
        Self { namespace, link, servers, _site: site, _alone: alone }
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = Command::new("ip").args(["link", "del", &self.link]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).output();
    }
}

fn fetch(path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {PUBLIC} 80")
}

async fn networked(world: &mut World, name: &str) -> InstanceSpec {
    with_egress(world, name, Egress::Internet).await
}

async fn with_egress(world: &mut World, name: &str, egress: Egress) -> InstanceSpec {
    let mut spec = world.spec(name, &["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/data"]).await;
    spec.egress = egress;
    world.start(&spec).await;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reaches_the_internet_and_nothing_else() {
    if !have("docker") || !have("nft") || !have("netns") {
        return;
    }
    let mut world = World::new().await;
    let public = Public::new().await;
    let guest = networked(&mut world, "inside").await;
    let other = networked(&mut world, "other").await;

    // Services of the host, on all of its addresses.
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let (_, gateway, _) = world.shell(&guest.lease, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").await;
    let gateway = gateway.trim().to_owned();
    let (_, address, _) =
        world.shell(&other.lease, "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'").await;
    let address = address.trim().to_owned();
    assert!(!gateway.is_empty() && !address.is_empty());
    let own = run("ip", &["-4", "-o", "addr", "show", "scope", "global"]);
    let own: Vec<&str> = own.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()).collect();
    assert!(!own.is_empty());

    let (code, out, err) = world.shell(&guest.lease, &fetch("/")).await;
    assert!(code == 0 && out.ends_with("hello from afar\n"), "{code} {out} {err}");

    let mut closed: Vec<(String, u16)> = own.iter().map(|address| ((*address).to_owned(), port)).collect();
    closed.push((gateway, port));
    closed.push((address, 8080));
    closed.push(("169.254.169.254".into(), 80));
    closed.push((PUBLIC.into(), 25));
    closed.push((format!("198.18.{}.2", std::process::id() % 250), 80));
    for (address, port) in closed {
        let line = format!("nc -w 2 {address} {port} </dev/null");
        let (code, _, err) = world.shell(&guest.lease, &line).await;
        assert!(code == 1 && err.contains("timed out"), "{address}:{port}: {code} {err}");
    }
    let caller = std::thread::spawn(move || host.accept().map(|(_, caller)| caller));
    // That the same attempt gets through from a container of the engine's own making shows that it can.
    let line = format!("nc -w 2 {} {port} </dev/null", own.first().unwrap());
    run("docker", &["run", "--rm", "--entrypoint", "/bin/sh", support::BUSYBOX, "-c", &format!("timeout 10 {line}")]);
    // Nobody came before it.
    assert!(caller.join().unwrap().unwrap().ip().to_string().starts_with("172."));
    let (code, _, _) = world.shell(&guest.lease, "ping -c 1 -W 1 198.18.0.1").await;
    assert_ne!(code, 0);
    let (_, resolvers, _) = world.shell(&guest.lease, "cat /etc/resolv.conf; ip -6 addr show dev eth0").await;
    assert!(!resolvers.contains("inet6"), "{resolvers}");
    let upstream = run("docker", &["inspect", "-f", "{{.HostConfig.Dns}}", &world.container(&guest.lease)]);
    assert_eq!(upstream.trim(), "[1.1.1.1 8.8.8.8]");

    // The firewall is put back when something flushes it.
    let table = format!("souk_{}", souk_runtime::name::node_tag(&world.config.node_id));
    run("nft", &["flush", "table", "inet", &table]);
    let end = std::time::Instant::now() + support::DEADLINE;
    while !run("nft", &["list", "table", "inet", &table]).contains("drop") {
        assert!(std::time::Instant::now() < end, "the firewall stays flushed");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // Traffic is counted, across restarts.
    let before = world.runtime.usage(&guest.lease).await.unwrap();
    world.shell(&guest.lease, &fetch("/big")).await;
    let after = world.runtime.usage(&guest.lease).await.unwrap();
    assert!(after.rx_bytes >= before.rx_bytes + 300_000 && after.tx_bytes > before.tx_bytes, "{before:?} {after:?}");
    world.runtime.stop(&guest.lease, 0).unwrap();
    world.exited(&guest.lease).await;
    world.runtime.start(&guest.lease).unwrap();
    world
        .event(&guest.lease, "started", |event| {
            matches!(event, souk_runtime::InstanceEvent::Started { .. }).then_some(())
        })
        .await;
    let restarted = world.runtime.usage(&guest.lease).await.unwrap();
    assert!(restarted.rx_bytes >= after.rx_bytes && restarted.tx_bytes >= after.tx_bytes);

    world.destroy(&guest.lease).await;
    world.destroy(&other.lease).await;
    assert!(!run("ip", &["link"]).contains(&souk_runtime::name::bridge_prefix(&world.config.node_id)));
    drop(public);
}

/// Waits until a shell line inside ends so.
async fn until(world: &World, lease: &str, line: &str, fits: impl Fn(i64) -> bool) {
    let end = std::time::Instant::now() + support::DEADLINE;
    loop {
        let (code, out, err) = world.shell(lease, line).await;
        if fits(code) {
            return;
        }
        assert!(std::time::Instant::now() < end, "{line}: {code} {out} {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_firewall_is_back_at_once_and_without_one_guests_are_cut_off() {
    if !have("docker") || !have("nft") || !have("netns") {
        return;
    }
    images(support::SOCKET).await;
    let data = tempfile::tempdir().unwrap();
    // The real program, which can be broken.
    let nft = data.path().join("nft");
    let (works, broken) = ("#!/bin/sh\nexec nft \"$@\"\n", "#!/bin/sh\nexit 1\n");
    let install = |text: &str| {
        let new = data.path().join("nft.new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &nft).unwrap();
    };
    install(works);
    // Looked at by the clock only once in an hour: what is seen earlier, the kernel told.
    let config = RuntimeConfig { nft: nft.clone(), check_seconds: 3600, ..config(support::SOCKET, data.path()) };
    let mut world = World::with(config).await;
    let guest = networked(&mut world, "cut").await;
    let table = format!("souk_{}", souk_runtime::name::node_tag(&world.config.node_id));
    let listen = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listen.local_addr().unwrap().port();
    let gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')";
    let knock = format!("nc -w 1 {gateway} {port} </dev/null");
    assert_ne!(world.shell(&guest.lease, &knock).await.0, 0);

    for harm in ["flush", "delete"] {
        run("nft", &[harm, "table", "inet", &table]);
        let end = std::time::Instant::now() + support::DEADLINE;
        while !Command::new("nft")
            .args(["list", "table", "inet", &table])
            .output()
            .is_ok_and(|listed| String::from_utf8_lossy(&listed.stdout).contains("drop"))
        {
            assert!(std::time::Instant::now() < end, "after {harm} the firewall stays away");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    assert_ne!(world.shell(&guest.lease, &knock).await.0, 0);

    // Where it can't be put back, guests reach nothing at all.
    let bridge = souk_runtime::name::Names::new(&world.config.node_id, &guest.lease).bridge;
    let up = || {
        run("ip", &["link", "show", "dev", &bridge]).contains(",UP")
            || run("ip", &["link", "show", "dev", &bridge]).contains("<UP")
    };
    assert!(up());
    install(broken);
    run("nft", &["flush", "table", "inet", &table]);
    let end = std::time::Instant::now() + support::DEADLINE;
    while up() {
        assert!(std::time::Instant::now() < end, "the guest is not cut off");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(world.runtime.info().egress, [Egress::None]);
    assert_ne!(world.shell(&guest.lease, &knock).await.0, 0);
    install(works);
    run("nft", &["add", "table", "inet", &format!("{table}_wake")]);
    run("nft", &["delete", "table", "inet", &format!("{table}_wake")]);
    let end = std::time::Instant::now() + support::DEADLINE;
    while !up() {
        assert!(std::time::Instant::now() < end, "the guest stays cut off");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(run("nft", &["list", "table", "inet", &table]).contains("drop"), "only then");
    until(&world, &guest.lease, "ip route | grep -q default", |code| code == 0).await;
    assert_ne!(world.shell(&guest.lease, &knock).await.0, 0);
    drop(listen);
    world.destroy(&guest.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_egress_is_the_hosts_neighbours_too_and_still_not_the_host() {
    if !have("docker") || !have("nft") || !have("netns") {
        return;
    }
    let mut world = World::new().await;
    let public = Public::new().await;
    let wide = with_egress(&mut world, "wide", Egress::Full).await;
    let other = networked(&mut world, "narrow").await;
    let neighbour = format!("198.18.{}.2", std::process::id() % 250);
    let get = |address: &str| format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80");
    let host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let (_, address, _) =
        world.shell(&other.lease, "ip -4 addr show eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p'").await;

    for again in [false, true] {
        if again {
            // The node's next run knows the guest by its network.
            world.runtime.shutdown().await;
            world.reconnect().await;
            world.runtime.adopt(&[wide.lease.clone(), other.lease.clone()]).await.unwrap();
        }
        for address in [neighbour.as_str(), PUBLIC] {
            let (code, out, err) = world.shell(&wide.lease, &get(address)).await;
            assert!(code == 0 && out.ends_with("hello from afar\n"), "{address}: {code} {out} {err}");
        }
        assert_eq!(world.shell(&wide.lease, &format!("nc -w 5 {PUBLIC} 25 </dev/null")).await.0, 0, "mail, too");
        let gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')";
        for closed in [format!("{gateway} {port}"), format!("{} 8080", address.trim())] {
            let (code, _, err) = world.shell(&wide.lease, &format!("nc -w 2 {closed} </dev/null")).await;
            assert!(code == 1 && err.contains("timed out"), "{closed}: {code} {err}");
        }
        // Nothing of this is the other one's.
        let (code, _, err) = world.shell(&other.lease, &format!("nc -w 2 {neighbour} 80 </dev/null")).await;
        assert!(code == 1 && err.contains("timed out"), "{code} {err}");
    }
    let table = format!("souk_{}", souk_runtime::name::node_tag(&world.config.node_id));
    let bridge = souk_runtime::name::Names::new(&world.config.node_id, &wide.lease).bridge;
    assert!(run("nft", &["list", "set", "inet", &table, "full"]).contains(&bridge));
    world.destroy(&wide.lease).await;
    assert!(!run("nft", &["list", "set", "inet", &table, "full"]).contains(&bridge), "it is forgotten with its guest");
    world.destroy(&other.lease).await;
    drop((public, host));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_firewall_no_network_is_offered() {
    if !have("docker") {
        return;
    }
    images(support::SOCKET).await;
    let data = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { nft: "/nonexistent/nft".into(), ..config(support::SOCKET, data.path()) };
    let mut world = World::with(config).await;
    assert_eq!(world.runtime.info().egress, [Egress::None]);
    let mut spec = world.spec("none", &["true"]).await;
    spec.egress = Egress::Internet;
    world.runtime.prepare(spec.clone()).unwrap();
    assert_eq!(world.failed(&spec.lease).await.code, FailureCode::FirewallUnavailable);
    spec.egress = Egress::None;
    assert_eq!(world.run(&spec).await.0.code, 0);
}
