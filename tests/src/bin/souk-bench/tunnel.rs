//! One connection through `souk forward`, beside a bare stream between two network layers and `ssh -L` through a real sshd.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use souk_network::{Multiaddr, NetworkConfig, NetworkEvent, NetworkHandle, spawn};
use souk_protocol::{Keypair, NetworkId};
use souk_tests::{
    part::have,
    world::{World, rent},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::{
    peers::{Sshd, Way, forwarded, listen_inside, rate, serve},
    row,
};

/// Rounds, in each of which every way is measured once, so that all see the same machine.
const ROUNDS: usize = 7;
const LENGTH: u64 = 256 << 20;
const BLOCK: usize = 64 * 1024;
const PORT: u16 = 7100;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run() {
    if !have("docker") {
        return;
    }
    for (name, quic) in [("QUIC", true), ("TCP", false)] {
        over(name, quic);
    }
}

fn over(name: &str, quic: bool) {
    let world = World::with_docker();
    let transport = |setup: souk_tests::node::Setup| if quic { setup.quic() } else { setup.tcp() };
    let host = world.watch(transport(world.node("host").host(1, "1.00")).start());
    let renter = transport(world.node("renter").knows(&host.listen[0])).start();
    renter.meets(&host);
    let lease = rent(&renter, &host, 1, "while :; do sleep 1; done", &["--egress", "none"]);
    serve(listen_inside(world.docker(), &host, PORT));
    let here = TcpListener::bind("127.0.0.1:0").unwrap();
    let (direct, port) = (here.local_addr().unwrap(), here.local_addr().unwrap().port());
    serve(here);
    let (_forward, ours) = forwarded(&renter, &lease, PORT, world.path());
    let sshd = Sshd::start(world.path());
    let ssh = sshd.as_ref().map(|sshd| sshd.forward(port));
    let bare = Bare::start(quic);

    let mut rates: [Vec<f64>; 6] = Default::default();
    // The first round warms everything up.
    for round in 0..=ROUNDS {
        let mut measured = [
            rate(ours, Way::Up, LENGTH),
            bare.rate(),
            ssh.as_ref().map_or(0.0, |(_, at)| rate(*at, Way::Up, LENGTH)),
            rate(ours, Way::Down, LENGTH),
            ssh.as_ref().map_or(0.0, |(_, at)| rate(*at, Way::Down, LENGTH)),
            0.0,
        ];
        measured[5] = rate(direct, Way::Up, LENGTH);
        if round > 0 {
            rates.iter_mut().zip(measured).for_each(|(all, one)| all.push(one));
        }
    }
    let [up, bare, ssh_up, down, ssh_down, direct] = rates.map(middle);
    row(&format!("tunnel, one stream up, {name}"), &format!("{up:.0} MB/s"));
    row("  beside a bare stream", &format!("{bare:.0} MB/s: {:.0} % of it", 100.0 * up / bare));
    if ssh_up > 0.0 {
        row("  beside ssh -L", &format!("{ssh_up:.0} MB/s: {:.2} ×", up / ssh_up));
    }
    row(
        &format!("tunnel, one stream down, {name}"),
        &format!("{down:.0} MB/s: {:.0} % of a bare stream", 100.0 * down / bare),
    );
    if ssh_down > 0.0 {
        row("  beside ssh -L", &format!("{ssh_down:.0} MB/s: {:.2} ×", down / ssh_down));
    }
    row("  a loopback socket, unencrypted", &format!("{direct:.0} MB/s"));
    let _ = renter.json(&["destroy", "-y", &lease]);
}

/// The median.
pub fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// Two network layers in this process, as connected as two nodes.
struct Bare {
    runtime: tokio::runtime::Runtime,
    near: NetworkHandle,
    peer: souk_protocol::NodeId,
    stop: CancellationToken,
}

impl Bare {
    fn start(quic: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let listen: Multiaddr =
            if quic { "/ip4/127.0.0.1/udp/0/quic-v1" } else { "/ip4/127.0.0.1/tcp/0" }.parse().unwrap();
        let (near, peer) = runtime.block_on(async {
            let (near, far) = (Self::node(3, &listen, &stop), Self::node(4, &listen, &stop));
            while far.listen_addrs().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let peer = near.dial(far.listen_addrs()[0].clone()).await.unwrap();
            (near, peer)
        });
        Self { runtime, near, peer, stop }
    }

    fn node(seed: u8, listen: &Multiaddr, stop: &CancellationToken) -> NetworkHandle {
        let key = Keypair::from_seed(&[seed; 32]);
        let config =
            NetworkConfig { listen: vec![listen.clone()], ..NetworkConfig::new(key, NetworkId::of_name("bench")) };
        let (handle, mut events) = spawn(config, stop.clone()).unwrap();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if let NetworkEvent::Stream { mut stream, .. } = event {
                    tokio::spawn(async move {
                        let mut block = vec![0; BLOCK];
                        while stream.read(&mut block).await.is_ok_and(|read| read > 0) {}
                        stream.write_all(&[1]).await.ok();
                        stream.shutdown().await.ok();
                    });
                }
            }
        });
        handle
    }

    fn rate(&self) -> f64 {
        self.runtime.block_on(async {
            let mut stream = self.near.open_stream(self.peer, PATIENCE).await.unwrap();
            let block = vec![7; BLOCK];
            let began = Instant::now();
            for _ in 0..LENGTH / BLOCK as u64 {
                stream.write_all(&block).await.unwrap();
            }
            stream.shutdown().await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            LENGTH as f64 / began.elapsed().as_secs_f64() / 1e6
        })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
