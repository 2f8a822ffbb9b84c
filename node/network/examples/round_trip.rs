//! How fast the network layer is beside bare sockets, in one process, on loopback.
//!
//! ```text
//! cargo run --release -p souk-network --example round_trip
//! ```
//! Prints, for QUIC and TCP: the round trip of a request, 2,000 pipelined requests, opening a stream, and a stream's throughput;
//! and the same of a bare TCP socket.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a person to read")]

use std::time::{Duration, Instant};

use souk_network::{Multiaddr, NetworkConfig, NetworkEvent, NetworkHandle, spawn};
use souk_protocol::{Keypair, NetworkId};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5_000;
const PIPELINED: usize = 2_000;
const OPENS: usize = 500;
const BODY: usize = 256;
const THROUGHPUT: usize = 512 << 20;
const BLOCK: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |q: usize| times[times.len() * q / 100].as_secs_f64() * 1e3;
    format!("p50 {:.3} ms, p99 {:.3} ms", at(50), at(99))
}

async fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; BLOCK];
                while let Ok(n) = socket.read(&mut buffer).await
                    && n > 0
                    && socket.write_all(&buffer[..n]).await.is_ok()
                {}
            });
        }
    });
    address
}

async fn sink_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(sink(socket));
        }
    });
    address
}

/// Reads to the end, then says one byte.
async fn sink(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; BLOCK];
    while let Ok(n) = stream.read(&mut buffer).await
        && n > 0
    {}
    // A stream that was only opened, to time that, is gone by now.
    if stream.write_all(&[1]).await.is_ok() {
        stream.shutdown().await.ok();
    }
}

async fn throughput(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let block = vec![7; BLOCK];
    let start = Instant::now();
    for _ in 0..THROUGHPUT / BLOCK {
        stream.write_all(&block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    let rate = THROUGHPUT as f64 / start.elapsed().as_secs_f64() / 1e6;
    format!("{rate:.0} MB/s")
}

async fn bare() {
    let mut socket = TcpStream::connect(echo_server().await).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut buffer = [0; BODY];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        socket.write_all(&buffer).await.unwrap();
        socket.read_exact(&mut buffer).await.unwrap();
        times.push(start.elapsed());
    }
    println!("bare TCP   round trip   {}", quantiles(times));
    let socket = TcpStream::connect(sink_server().await).await.unwrap();
    println!("bare TCP   throughput   {}", throughput(socket).await);
}

fn node(seed: u8, listen: &Multiaddr, stop: &CancellationToken) -> NetworkHandle {
    let config = NetworkConfig {
        listen: vec![listen.clone()],
        ..NetworkConfig::new(Keypair::from_seed(&[seed; 32]), NetworkId::of_name("example"))
    };
    let (handle, mut events) = spawn(config, stop.clone()).unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                NetworkEvent::Request { body, reply, .. } => reply.send(body).unwrap(),
                NetworkEvent::Stream { stream, .. } => {
                    tokio::spawn(sink(stream));
                }
                NetworkEvent::Listening(_)
                | NetworkEvent::Connected(_)
                | NetworkEvent::Disconnected(_)
                | NetworkEvent::Knock { .. }
                | NetworkEvent::Gossip { .. } => {}
            }
        }
    });
    handle
}

async fn ours(name: &str, listen: &str) {
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
    println!("{name}  round trip   {}", quantiles(times));

    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..PIPELINED {
        let a = a.clone();
        tasks.spawn(async move { a.request(peer, vec![0; BODY], PATIENCE).await.is_ok() });
    }
    let answered = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    println!(
        "{name}  pipelined    {answered} of {PIPELINED} answered in {:.0} ms",
        start.elapsed().as_secs_f64() * 1e3
    );

    let mut times = Vec::new();
    for _ in 0..OPENS {
        let start = Instant::now();
        let stream = a.open_stream(peer, PATIENCE).await.unwrap();
        times.push(start.elapsed());
        drop(stream);
    }
    println!("{name}  stream open  {}", quantiles(times));
    let stream = a.open_stream(peer, PATIENCE).await.unwrap();
    println!("{name}  throughput   {}", throughput(stream).await);
    stop.cancel();
}

#[tokio::main]
async fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    bare().await;
    ours("souk QUIC", "/ip4/127.0.0.1/udp/0/quic-v1").await;
    ours("souk TCP ", "/ip4/127.0.0.1/tcp/0").await;
}
