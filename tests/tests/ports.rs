//! Public ports of instances, reached from another network namespace as from another machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use serde_json::Value;
use souk_tests::{
    docker::BUSYBOX,
    echo::echoed,
    netns::{Elsewhere, within},
    node::{Node, state_of},
    part::have_all,
    wait::until,
    world::{World, rent},
};

/// Echoes each connection until its end, and lives on.
const ECHO: &str = "env | grep -E 'PUBLIC|_PORT_' | sort; nc -ll -p 7000 -e cat & while :; do sleep 1; done";

/// Ports of this test process, below those that the kernel gives out by itself.
fn first_port() -> u16 {
    20_000 + u16::try_from(std::process::id() % 1_400).unwrap() * 8
}

/// Public port by port inside.
fn public(lease: &Value, port: u16) -> u16 {
    let ports = lease["public"]["ports"].as_array().unwrap_or_else(|| panic!("no ports: {lease:#}"));
    let found = ports.iter().find(|p| p["port"] == port).unwrap_or_else(|| panic!("no port {port}: {lease:#}"));
    u16::try_from(found["public"].as_u64().unwrap()).unwrap()
}

/// Answers datagrams inside a host's only instance, as long as its network lives.
fn answer_datagrams(world: &World, host: &Node, port: u16) {
    let container = world.docker().inspect(&world.docker().container(&host.id));
    let namespace = format!("/proc/{}/ns/net", container["State"]["Pid"]);
    let socket = within(&namespace, move || UdpSocket::bind(("127.0.0.1", port)).unwrap());
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            socket.send_to(&datagram[..length], from).ok();
        }
    });
}

fn free_ports(renter: &Node) -> Option<u64> {
    renter.asks().first()?["direct_port_count"].as_f64().map(|n| n as u64)
}

#[test]
fn public_ports_lead_into_the_instance_and_nowhere_else() {
    if !have_all(&["docker", "netns"]) {
        return;
    }
    let world = World::with_docker();
    let visitor = Elsewhere::new();
    let (at, first) = (visitor.host, first_port());
    let range = format!("{first}-{}", first + 3);
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_PUBLIC_ADDRESS", &at.to_string());
    let host = host.env("SOUK_HOST_PUBLIC_PORTS", &range).env("SOUK_HOST_PUBLIC_BIND", &at.to_string());
    let mut host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    until("all four ports in search", || (free_ports(&renter) == Some(4)).then_some(()));

    let udp = format!("{}:7001/udp", first + 1);
    let lease = rent(&renter, &host, 1, ECHO, &["--egress", "none", "-p", "7000", "-p", &udp, "-p", "7002"]);
    let shown = renter.show(&lease);
    assert_eq!(shown["public"]["address"], at.to_string());
    assert_eq!(public(&shown, 7001), first + 1);
    assert_eq!(renter.json(&["ps"])[0]["public"], shown["public"]);
    let (tcp, dead) = (public(&shown, 7000), public(&shown, 7002));
    assert!(tcp != dead && [tcp, dead].iter().all(|p| (first..first + 4).contains(p) && *p != first + 1));
    let told = renter.souk(&["logs", &lease], &[]).ok();
    for line in [
        format!("PUBLIC_IPADDR={at}"),
        format!("SOUK_TCP_PORT_7000={tcp}"),
        format!("VAST_TCP_PORT_7000={tcp}"),
        format!("SOUK_UDP_PORT_7001={}", first + 1),
    ] {
        let text = format!("\"{line}\\n\"");
        assert!(told.contains(&text), "no {text} in {told}");
    }

    // Several at once, each with its own end of each direction.
    let works = |visitor: &Elsewhere| {
        let address = SocketAddr::from((at, tcp));
        until("an answer from inside", || {
            visitor.run(move || echoed(address, b"ping").ok().filter(|back| back == b"ping").map(drop))
        });
    };
    works(&visitor);
    visitor.run(move || {
        // A thread begins in the namespace of the one that starts it.
        let each = |n: usize| {
            std::thread::spawn(move || {
                let data: Vec<u8> = (0..500_000 + n).map(|i| (i * 31 + n) as u8).collect();
                let back = until("an echo", || echoed((at, tcp).into(), &data).ok());
                assert!(back == data);
            })
        };
        (0..12).map(each).collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    });
    answer_datagrams(&world, &host, 7001);
    visitor.run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.connect((at, first + 1)).unwrap();
        until("a datagram back", || {
            socket.send(b"ping").ok()?;
            let mut back = [0; 16];
            let length = socket.recv(&mut back).ok()?;
            (&back[..length] == b"ping").then_some(())
        });
    });

    // Where nobody listens inside, nobody answers, though the host has a program there; what isn't granted isn't listened on.
    let own = TcpListener::bind("127.0.0.1:7002").ok();
    let left = (first..first + 4).find(|p| ![tcp, dead, first + 1].contains(p)).unwrap();
    visitor.run(move || {
        let back = echoed((at, dead).into(), b"who is there?").unwrap_or_default();
        assert!(back.is_empty(), "{}", String::from_utf8_lossy(&back));
        assert!(TcpStream::connect((at, left)).is_err());
        assert!(TcpStream::connect((at, first + 1)).is_err(), "a port for datagrams takes connections");
    });
    if let Some(own) = own {
        own.set_nonblocking(true).unwrap();
        assert!(own.accept().is_err(), "a program of the host was reached");
    }

    // One is left; others are refused in words, before there is a lease.
    until("one port in search", || (free_ports(&renter) == Some(1)).then_some(()));
    let ask = renter.ask_of(&host, 1);
    let tries = |ports: &[&str]| {
        let flags: Vec<&str> = ports.iter().flat_map(|port| ["-p", port]).collect();
        let fixed = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--egress", "none"];
        renter.souk(&[&fixed[..], &flags, &["--", "sleep", "60"]].concat(), &[])
    };
    for (ports, why) in [
        (vec!["80", "81"], "2 public ports are asked for, and this host has 1 left"),
        (vec!["1:80"], "is none of this host's"),
        (vec![&*format!("{tcp}:80")], "belongs to another instance"),
    ] {
        let outcome = tries(&ports);
        assert!(outcome.code != 0 && (outcome.out + &outcome.err).contains(why), "{ports:?}: no word of: {why}");
    }
    let outcome = tries(&["0"]);
    assert!(outcome.code == 2 && outcome.err.contains("a port is written"), "{}", outcome.err);

    // They stay over a stop, and over the death of the host's node.
    let _ = renter.json(&["stop", &lease]);
    renter.reaches(&lease, "paused stopped");
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");
    works(&visitor);
    host.kill();
    visitor.run(move || assert!(TcpStream::connect((at, tcp)).is_err()));
    host.start();
    renter.finds(&lease, "running again", |l| state_of(l) == "running" && public(l, 7000) == tcp);
    works(&visitor);

    // The end of the lease frees them, for whoever asks for the very same.
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    until("the port is closed", || visitor.run(move || TcpStream::connect((at, tcp)).err().map(drop)));
    until("all ports are free", || (free_ports(&renter) == Some(4)).then_some(()));
    let lease = rent(&renter, &host, 1, ECHO, &["--egress", "none", "-p", &format!("{tcp}:7000")]);
    assert_eq!(public(&renter.show(&lease), 7000), tcp);
    works(&visitor);
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn a_host_without_public_ports_says_so() {
    if !have_all(&["docker"]) {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let ask = renter.ask_of(&host, 1);
    let arguments = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "-p", "80", "--", "sleep", "60"];
    let outcome = renter.souk(&arguments, &[]);
    assert!(outcome.code != 0, "{}", outcome.out);
    assert!((outcome.out + &outcome.err).contains("this host offers no public ports"));
    assert!(renter.json(&["ps"]).as_array().unwrap().is_empty());
}
