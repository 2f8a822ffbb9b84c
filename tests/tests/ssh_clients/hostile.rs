//! Clients that mean harm: too many streams, readers that read nothing, writers that nobody reads.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use souk_network::{Multiaddr, NetworkConfig, spawn};
use souk_protocol::{
    Keypair, LeaseId, NetworkId, NodeId, encode,
    message::{Frame, StreamOpen},
};
use souk_tests::{
    node::Node,
    part::have,
    ssh::{Client, Running},
    wait::{PATIENCE, until},
    world::{World, rent},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::direct::{Direct, read};

/// Sessions and connections of one SSH connection, streams of one renter, SSH connections of one instance.
const BOUNDS: (usize, usize, usize) = (128, 128, 16);

/// Resident memory of a node, in KiB.
fn resident(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A host of two, one slot for each.
fn neighbours(world: &World) -> (Node, [(Node, String); 2]) {
    let host = world.watch(world.node("host").host(2, "1.00").start());
    let renters = ["renter", "neighbour"].map(|name| {
        let renter = world.node(name).knows(&host.listen[0]).start();
        renter.meets(&host);
        let lease = rent(&renter, &host, 1, super::IDLE, &[]);
        (renter, lease)
    });
    (host, renters)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_and_hurts_nobody_else() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, [(mut renter, lease), (neighbour, other)]) = neighbours(&world);
    let client = Client::of(&renter, &lease, world.path());

    // Two hundred sessions on one connection.
    let direct = Direct::to(&renter, &lease, &client).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..200 {
        match direct.session.channel_open_session().await {
            Ok(channel) => open.push(channel),
            Err(russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::ResourceShortage)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((open.len(), refused), (BOUNDS.0, 200 - BOUNDS.0));
    let mut last = open.pop().unwrap();
    last.exec(true, "echo in").await.unwrap();
    assert_eq!(read(&mut last, None).await.out, "in\n");
    assert_eq!(neighbour.souk(&["exec", &other, "--", "echo", "in"], &[]).out, "in\n");
    drop((open, last, direct));

    // More SSH connections than an instance has.
    let mut some = Vec::new();
    for _ in 0..BOUNDS.2 {
        some.push(Direct::to(&renter, &lease, &client).await);
    }
    let more = client.ssh(&["job", "true"], &[]);
    assert!(more.code == 255 && more.err.contains("too many SSH connections"), "{}: {}", more.code, more.err);
    drop(some);
    until("there is room again", || (client.ssh(&["job", "true"], &[]).code == 0).then_some(()));

    // Two hundred streams at once, by a node that keeps to no bounds of its own: the renter's key in other hands.
    renter.stop();
    let seed: [u8; 32] = fs::read(renter.dir().join("node.key")).unwrap().try_into().unwrap();
    let (key, stop) = (Keypair::from_seed(&seed), CancellationToken::new());
    let _ends = stop.clone().drop_guard();
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
    let config = NetworkConfig { listen, ..NetworkConfig::new(key, NetworkId::of_name("scenario")) };
    let (network, mut events) = spawn(config, stop).unwrap();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    network.dial(host.listen[0].parse::<Multiaddr>().unwrap()).await.unwrap();
    let to: NodeId = host.id.parse().unwrap();
    let lease_id: LeaseId = lease.parse().unwrap();
    let opened = (0..200).map(|_| {
        let network = network.clone();
        async move {
            let mut stream = network.open_stream(to, PATIENCE).await.unwrap();
            let logs = StreamOpen::Logs { lease: lease_id, follow: true, tail: None, since: None, from: None };
            // One that is refused may be closed by now, with its reason to be read.
            stream.write_all(&Frame::Open(encode::to_bytes(&logs)).to_bytes()).await.ok();
            let mut first = [0; Frame::HEADER];
            // A stream that is served begins with its place in an output that says nothing.
            let told = tokio::time::timeout(PATIENCE, stream.read_exact(&mut first)).await;
            let sentence = match told {
                Ok(_) if first[0] == 11 => None,
                Ok(_) => {
                    assert_eq!(first[0], 7, "an error is told");
                    let mut text = vec![0; usize::from(first[4]) | usize::from(first[3]) << 8];
                    stream.read_exact(&mut text).await.unwrap();
                    Some(String::from_utf8(text).unwrap())
                }
                Err(_) => panic!("neither served nor refused"),
            };
            (stream, sentence)
        }
    });
    let opened = futures::future::join_all(opened).await;
    let refused: Vec<&String> = opened.iter().filter_map(|(_, sentence)| sentence.as_ref()).collect();
    assert_eq!(refused.len(), 200 - BOUNDS.1, "{refused:?}");
    assert!(refused.iter().all(|sentence| sentence.contains("too many streams")), "{refused:?}");
    assert_eq!(neighbour.souk(&["exec", &other, "--", "echo", "in"], &[]).out, "in\n");
    assert_eq!(neighbour.souk(&["ssh", &other, "echo", "in"], &[]).out, "in\n");
    // What is refused leaves room for what is closed.
    drop(opened);
    drop(_ends);
    renter.start();
    renter.meets(&host);
    until("its own node gets in again", || (client.ssh(&["job", "true"], &[]).code == 0).then_some(()));
    for (node, lease) in [(&renter, &lease), (&neighbour, &other)] {
        let _ = node.json(&["destroy", "-y", lease]);
    }
}

#[test]
fn a_stalled_reader_and_a_flooding_writer_cost_the_host_little() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, [(renter, lease), (neighbour, other)]) = neighbours(&world);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 0);
    let before = resident(&host);

    let (zero, stall) = ("cat /dev/zero", "exec sleep 600");
    let mut clients: Vec<Running> = Vec::new();
    for n in 0..12 {
        let mut command = client.program("ssh");
        // Half of them never read what comes, half send what nobody reads.
        if n % 2 == 0 {
            command.args(["job", zero]).stdin(Stdio::null()).stdout(Stdio::piped());
        } else {
            command.args(["job", stall]).stdin(fs::File::open("/dev/zero").unwrap()).stdout(Stdio::null());
        }
        clients.push(Running(command.stderr(Stdio::null()).spawn().unwrap()));
    }
    let (began, mut most, mut looks) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(8) {
        most = most.max(resident(&host));
        looks += 1;
        // Others are served as ever.
        assert_eq!(neighbour.souk(&["exec", &other, "--", "echo", "in"], &[]).out, "in\n");
        assert_eq!(client.ssh(&["job", "echo in"], &[]).out, "in\n");
    }
    assert!(looks > 3, "it looked {looks} times");
    let grown = most.saturating_sub(before) / 1024;
    println!("the host's memory: {} MiB before, {} MiB at most with 12 such clients", before / 1024, most / 1024);
    // Each may hold up 8 MiB of input, and some hundred KiB of output and buffers.
    assert!(grown < 12 * 8, "the host grew by {grown} MiB");
    drop(clients);
    for (node, lease) in [(&renter, &lease), (&neighbour, &other)] {
        let _ = node.json(&["destroy", "-y", lease]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_beneath_wide_windows_costs_the_host_little() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, [(renter, lease), (neighbour, other)]) = neighbours(&world);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 0);
    let before = resident(&host);

    // Leave for gigabytes on each of many channels, and then nothing is read, not even the stream beneath them.
    let (mut stalled, mut channels) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let wide = russh::client::Config { window_size: 1 << 30, ..russh::client::Config::default() };
        let direct = Direct::with(wide, &renter, &lease, &client).await;
        let mut waiting = Vec::new();
        for _ in 0..8 {
            let mut channel = direct.session().await;
            channel.exec(true, "echo begun; read go; cat /dev/zero").await.unwrap();
            read(&mut channel, Some("begun")).await;
            waiting.push(channel);
        }
        for channel in &waiting {
            channel.data(&b"\n"[..]).await.unwrap();
        }
        read(&mut waiting[0], Some("\0")).await;
        channels.extend(waiting);
        direct.stall();
        stalled.push(direct);
    }
    let (began, mut most, mut looks) = (Instant::now(), 0, 0);
    while began.elapsed() < Duration::from_secs(8) {
        most = most.max(resident(&host));
        looks += 1;
        assert_eq!(neighbour.souk(&["exec", &other, "--", "echo", "in"], &[]).out, "in\n");
        assert_eq!(client.ssh(&["job", "echo in"], &[]).out, "in\n");
    }
    assert!(looks > 3, "it looked {looks} times");
    let grown = most.saturating_sub(before) / 1024;
    println!("the host's memory: {} MiB before, {} MiB at most with 32 stalled channels", before / 1024, most / 1024);
    // Some packets and buffers for each connection and channel, not what the windows allow: 32 GiB.
    assert!(grown < 128, "the host grew by {grown} MiB");
    drop((channels, stalled));
    for (node, lease) in [(&renter, &lease), (&neighbour, &other)] {
        let _ = node.json(&["destroy", "-y", lease]);
    }
}
