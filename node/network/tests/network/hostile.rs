//! Peers that say what they should not. A node goes on serving others.

use std::time::Duration;

use futures::AsyncWriteExt;
use souk_network::{Limits, NetworkConfig, RequestError, limits::MAX_REQUEST};
use souk_protocol::NetworkId;

use crate::{
    node::{DEADLINE, Node, Over, config, until, within},
    raw::RawPeer,
};

fn protocols() -> Vec<String> {
    let base = format!("/souk/{}", &NetworkId::of_name("test").to_string()[..16]);
    let mut all: Vec<String> =
        ["exchange/1", "stream/1", "kad/1", "mesh/1.1.0"].into_iter().map(|name| format!("{base}/{name}")).collect();
    all.extend(["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0"].map(str::to_owned));
    all
}

/// Deterministic junk.
fn junk(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_on_every_protocol_changes_nothing() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let address = a.address();
    let (id, a) = (a.id(), a.echo());
    let friend = Node::start(config(2, Over::Tcp)).await;
    friend.handle.dial(address.clone()).await.unwrap();
    let mut spoken = 0;
    for (n, protocol) in protocols().iter().enumerate() {
        let seed = u8::try_from(n).unwrap();
        for bytes in [
            Vec::new(),
            vec![0xff; 10],
            vec![0; 100],
            junk(seed, 1_000),
            junk(seed, 100_000),
            // A length prefix of nearly everything, by varint and by u32.
            vec![0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3],
        ] {
            for close in [true, false] {
                let peer = RawPeer::dial(address.clone()).await;
                let said = within("saying it", peer.say(protocol, &bytes, close)).await;
                spoken += usize::from(said.is_some());
            }
        }
    }
    // A node may close the connection over the largest junk before all of it is said.
    assert!(spoken >= protocols().len() * 10, "all protocols are spoken: {spoken}");
    let answer = friend.handle.request(id, vec![9], DEADLINE).await;
    assert_eq!(answer, Ok(vec![9]));
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_announces_too_much_is_told_so_and_not_read() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let peer = RawPeer::dial(a.address()).await;
    let exchange = &protocols()[0];
    let length = u32::try_from(MAX_REQUEST).unwrap() + 1;
    let answer = peer.say(exchange, &length.to_be_bytes(), false).await;
    assert_eq!(answer.unwrap(), [3]);
    assert_eq!(a.handle.status().requests_received, 0);
    assert_eq!(a.handle.status().bytes_in, 0);
    // It spoke a protocol of this network, so it counts as a peer.
    let shown: souk_protocol::NodeId = peer.id.to_string().parse().unwrap();
    until("it is a peer", || a.handle.is_connected(&shown)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_half_sent_requests_take_no_place_of_others() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let (address, id, a) = (a.address(), a.id(), a.echo());
    let exchange = protocols()[0].clone();
    let mut held = Vec::new();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let peer = RawPeer::dial(address.clone()).await;
        for _ in 0..100 {
            if let Some(mut stream) = peer.open(&exchange).await {
                let length = u32::try_from(MAX_REQUEST).unwrap();
                stream.write_all(&length.to_be_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                slow.push(stream);
            }
        }
        held.push(peer);
    }
    assert!(slow.len() > 300, "{}", slow.len());
    let friend = Node::start(config(2, Over::Tcp)).await;
    friend.handle.dial(address).await.unwrap();
    let outcome = friend.handle.request(id, vec![9], DEADLINE).await;
    // The budget of bodies is 64 MiB: 256 announced requests of 256 KiB fill it, and the friend is told to wait, not left waiting.
    assert!(matches!(outcome, Ok(_) | Err(RequestError::Busy { .. })), "{outcome:?}");
    drop(slow);
    drop(held);
    within("room again", async {
        while friend.handle.request(id, vec![9], DEADLINE).await != Ok(vec![9]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_shows_nothing_is_no_peer() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let peer = RawPeer::dial(a.address()).await;
    until("it is connected", || a.handle.status().connections_established == 1).await;
    assert!(a.handle.connected().is_empty());
    assert!(a.handle.peers().await.is_empty());
    assert!(peer.open("/souk/0000000000000000/exchange/1").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_no_ping_is_parted_with() {
    let quick = Duration::from_millis(100);
    let a = Node::start(NetworkConfig {
        limits: Limits { ping_interval: quick, ping_timeout: quick, ..Limits::default() },
        ..config(1, Over::Tcp)
    })
    .await;
    let silent = RawPeer::dial(a.address()).await;
    let friend = Node::start(config(2, Over::Tcp)).await;
    friend.connect(&a).await;
    until("the silent one is gone", || a.handle.status().connections_silent == 1).await;
    assert_eq!(a.handle.connected(), [friend.id()]);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_asks_too_often_is_told_to_wait() {
    let a = Node::start(NetworkConfig {
        limits: Limits { requests_per_second: 1, ..Limits::default() },
        ..config(1, Over::Tcp)
    })
    .await;
    let friend = Node::start(config(2, Over::Tcp)).await;
    friend.connect(&a).await;
    let (id, a) = (a.id(), a.echo());
    let mut busy = 0;
    for _ in 0..20 {
        match friend.handle.request(id, vec![1], DEADLINE).await {
            Ok(_) => {}
            Err(RequestError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0);
    assert_eq!(a.handle.status().requests_busy, busy);
}
