//! `souk forward` under load: many connections, readers that stall, and nodes that die and come back.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use souk_tests::{
    netns::within,
    node::{Node, state_of},
    part::have_all,
    wait::{PATIENCE, until},
    world::{World, rent},
};

/// Ended by its id when dropped.
struct Forward {
    child: Child,
    address: SocketAddr,
}

impl Forward {
    fn start(renter: &Node, arguments: &[&str], log: &Path) -> Self {
        let mut command = renter.command(&[&["forward"], arguments].concat());
        let child = command.stdin(Stdio::null()).stdout(fs::File::create(log).unwrap()).spawn().unwrap();
        let address = until("a listener", || {
            let line: serde_json::Value = serde_json::from_str(fs::read_to_string(log).ok()?.lines().next()?).ok()?;
            line["local"].as_str()?.parse().ok()
        });
        Self { child, address }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn namespace(world: &World, host: &Node) -> String {
    let container = world.docker().inspect(&world.docker().container(&host.id));
    format!("/proc/{}/ns/net", container["State"]["Pid"])
}

/// Inside a host's only instance: says how many bytes it got, once the client has ended its direction; or, asked with `!`,
/// sends for ever.
fn serve(world: &World, host: &Node, port: u16) {
    let listener = within(&namespace(world, host), move || TcpListener::bind(("127.0.0.1", port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut block = [0; 64 * 1024];
                let mut count = stream.read(&mut block)?;
                if block[0] == b'!' {
                    while stream.write_all(&block).is_ok() {}
                    return Ok(());
                }
                loop {
                    match stream.read(&mut block)? {
                        0 => return stream.write_all(count.to_string().as_bytes()),
                        more => count += more,
                    }
                }
            });
        }
    });
}

/// Sends so many bytes, ends its direction, and reads the answer.
fn counted(address: SocketAddr, length: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&vec![b'x'; length])?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn resident_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn many_connections_stalled_readers_and_nodes_that_die() {
    if !have_all(&["docker", "netns"]) {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "while :; do sleep 1; done", &["--egress", "none"]);
    serve(&world, &host, 7300);
    let forward = Forward::start(&renter, &[&lease, "0:7300"], &world.path().join("tcp.out"));
    let address = forward.address;
    assert_eq!(counted(address, 3_000_000).unwrap(), "3000000");

    // Twice as many at once as are carried at once: all are answered, each with its own.
    let threads: Vec<_> = (1..=200)
        .map(|n| std::thread::spawn(move || assert_eq!(counted(address, 1000 * n).unwrap(), (1000 * n).to_string())))
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());

    // Who doesn't read is sent no more than windows and buffers hold, and disturbs nobody.
    let pids = [host.pid(), renter.pid(), forward.child.id()];
    let before = pids.map(resident_mb);
    let stalled: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"!").unwrap();
            // It has begun, and is read no more.
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(counted(address, 1_000_000).unwrap(), "1000000");
    }
    for (pid, before) in pids.into_iter().zip(before) {
        let now = resident_mb(pid);
        assert!(now < before + 80, "{pid} has grown from {before} to {now} MB for 8 stalled readers");
    }
    drop(stalled);

    // The host's node dies with connections open, which end; new ones work once it is back.
    let mut open = TcpStream::connect(address).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    open.write_all(b"!").unwrap();
    open.read_exact(&mut [0]).unwrap();
    host.kill();
    let ended = std::io::copy(&mut open, &mut std::io::sink());
    assert!(ended.as_ref().err().is_none_or(|e| e.kind() != std::io::ErrorKind::WouldBlock), "{ended:?}");
    host.start();
    renter.finds(&lease, "running again", |l| state_of(l) == "running" && l["reachable"] == true);
    until("a connection after the host's death", || (counted(address, 5000).ok()? == "5000").then_some(()));

    // So it is with datagrams, and after the death of the renter's own node.
    let socket = within(&namespace(&world, &host), || UdpSocket::bind("127.0.0.1:7301").unwrap());
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            socket.send_to(&datagram[..length], from).ok();
        }
    });
    let datagrams = Forward::start(&renter, &["--udp", &lease, "0:7301"], &world.path().join("udp.out"));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.connect(datagrams.address).unwrap();
    let echo = |word: &[u8]| {
        until("a datagram back", || {
            client.send(word).ok()?;
            let mut back = [0; 64];
            let length = client.recv(&mut back).ok()?;
            (&back[..length] == word).then_some(())
        });
    };
    echo(b"one");
    renter.kill();
    renter.start();
    renter.meets(&host);
    until("a connection after the renter's node's death", || (counted(address, 6000).ok()? == "6000").then_some(()));
    echo(b"two");
    let _ = renter.json(&["destroy", "-y", &lease]);
}
