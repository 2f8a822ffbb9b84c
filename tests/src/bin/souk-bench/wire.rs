//! Requests between two nodes' network layers beside a bare TCP socket, on loopback.

use std::time::{Duration, Instant};

use souk_network::{Multiaddr, NetworkConfig, NetworkEvent, NetworkHandle, spawn};
use souk_protocol::{Keypair, NetworkId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{median, quantiles, row};

const ROUNDS: usize = 3000;
const PIPELINED: usize = 2000;
const BODY: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bare = bare().await;
        row("bare TCP round trip", &quantiles(&mut bare));
        for (name, listen) in [("QUIC", "/ip4/127.0.0.1/udp/0/quic-v1"), ("TCP", "/ip4/127.0.0.1/tcp/0")] {
            ours(name, listen, median(&mut bare)).await;
        }
    });
}

async fn bare() -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.set_nodelay(true).unwrap();
        let mut buffer = [0; BODY];
        while peer.read_exact(&mut buffer).await.is_ok() && peer.write_all(&buffer).await.is_ok() {}
    });
    socket.set_nodelay(true).unwrap();
    let mut buffer = [0; BODY];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        socket.write_all(&buffer).await.unwrap();
        socket.read_exact(&mut buffer).await.unwrap();
        times.push(start.elapsed());
    }
    times
}

fn node(seed: u8, listen: &Multiaddr, stop: &CancellationToken) -> NetworkHandle {
    let key = Keypair::from_seed(&[seed; 32]);
    let config = NetworkConfig { listen: vec![listen.clone()], ..NetworkConfig::new(key, NetworkId::of_name("bench")) };
    let (handle, mut events) = spawn(config, stop.clone()).unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let NetworkEvent::Request { body, reply, .. } = event {
                reply.send(body).ok();
            }
        }
    });
    handle
}

async fn ours(name: &str, listen: &str, bare: f64) {
    let stop = CancellationToken::new();
    let listen: Multiaddr = listen.parse().unwrap();
    let (a, b) = (node(1, &listen, &stop), node(2, &listen, &stop));
    while b.listen_addrs().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let peer = a.dial(b.listen_addrs()[0].clone()).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        a.request(peer, vec![0; BODY], PATIENCE).await.unwrap();
        times.push(start.elapsed());
    }
    let over = median(&mut times) - bare;
    row(&format!("request round trip, {name}"), &format!("{}; {over:.2} ms over bare", quantiles(&mut times)));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..PIPELINED {
        let a = a.clone();
        tasks.spawn(async move { a.request(peer, vec![0; BODY], PATIENCE).await.is_ok() });
    }
    let answered = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    let took = start.elapsed().as_secs_f64() * 1e3;
    row(&format!("{PIPELINED} pipelined requests, {name}"), &format!("{answered} answered in {took:.0} ms"));
    stop.cancel();
}
