//! Finding peers, staying in touch with them, and keeping others out.

use std::time::Duration;

use souk_network::{Admission, Multiaddr, NetworkConfig, NetworkEvent, Transport};

use crate::node::{DEADLINE, Node, Over, config, key, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_find_each_other_by_one_address() {
    for over in Over::BOTH {
        let a = Node::start(config(1, over)).await;
        // Without `/p2p/…`: an address is enough.
        let bootstrap = a.handle.listen_addrs();
        let join = |n| Node::start(NetworkConfig { bootstrap: bootstrap.clone(), ..config(n, over) });
        let (b, c) = tokio::join!(join(2), join(3));
        for node in [&a, &b, &c] {
            until("everybody knows everybody", || node.handle.connected().len() == 2).await;
        }
        let peers = b.handle.peers().await;
        assert_eq!(peers.len(), 2);
        for peer in &peers {
            assert!(peer.agent.as_ref().unwrap().starts_with("souk/"));
            let expected = match over {
                Over::Quic => Transport::Quic,
                Over::Tcp => Transport::Tcp,
            };
            assert_eq!(peer.transport, expected);
            assert!(!peer.kept);
        }
        within("pings are answered", async {
            while b.handle.peers().await.iter().any(|p| p.rtt.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_node_that_comes_late_is_found() {
    // A port that was free a moment ago.
    let free = Node::start(config(9, Over::Tcp)).await;
    let address = free.handle.listen_addrs()[0].clone();
    stop(free).await;
    let b = Node::start(NetworkConfig { bootstrap: vec![address.clone()], ..config(2, Over::Tcp) }).await;
    let a =
        Node::start(NetworkConfig { listen: vec![address.clone()], bootstrap: vec![address], ..config(1, Over::Tcp) })
            .await;
    until("they meet", || b.handle.is_connected(&a.id())).await;
}

async fn stop(node: Node) {
    let Node { mut events, stop, .. } = node;
    drop(stop);
    within("the end", async { while events.recv().await.is_some() {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_peer_is_met_again_after_its_restart() {
    for over in Over::BOTH {
        let mut a = Node::start(config(1, over)).await;
        let b = Node::start(config(2, over)).await;
        let (id, at): (_, Multiaddr) = (b.id(), b.handle.listen_addrs()[0].clone());
        a.handle.add_address(id, b.address()).await.unwrap();
        a.handle.keep(id).await.unwrap();
        let connection = |event| match event {
            NetworkEvent::Connected(node) => Some((node, true)),
            NetworkEvent::Disconnected(node) => Some((node, false)),
            NetworkEvent::Listening(_)
            | NetworkEvent::Gossip { .. }
            | NetworkEvent::Request { .. }
            | NetworkEvent::Knock { .. }
            | NetworkEvent::Stream { .. } => None,
        };
        assert_eq!(a.next("meeting", connection).await, (id, true));
        stop(b).await;
        assert_eq!(a.next("parting", connection).await, (id, false));
        let b = Node::start(NetworkConfig { listen: vec![at], ..config(2, over) }).await;
        assert_eq!(a.next("meeting again", connection).await, (id, true));
        assert!(a.handle.peers().await[0].kept);
        let b = b.echo();
        assert_eq!(a.handle.request(id, vec![1], DEADLINE).await, Ok(vec![1]), "{over:?}");
        drop(b);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_unknown_address_is_looked_up() {
    let limits = souk_network::Limits { min_peers: 0, ..souk_network::Limits::default() };
    let a = Node::start(config(1, Over::Quic)).await;
    let b = Node::start(NetworkConfig { limits, ..config(2, Over::Quic) }).await;
    let c = Node::start(NetworkConfig { limits, ..config(3, Over::Quic) }).await;
    b.connect(&a).await;
    c.connect(&a).await;
    let (id, c) = (c.id(), c.echo());
    // Whether the directory connected them already or the request does: it is answered.
    let answer = within("an answer", async {
        loop {
            match b.handle.request(id, vec![4], DEADLINE).await {
                // The bootstrap node may not have identified the other yet.
                Err(souk_network::RequestError::NotConnected) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    })
    .await;
    assert_eq!(answer, Ok(vec![4]));
    drop(c);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_peer_stays_out_until_it_is_let_in_again() {
    let a = Node::start(config(1, Over::Quic)).await;
    let b = Node::start(config(2, Over::Quic)).await;
    a.connect(&b).await;
    a.handle.block(b.id()).await.unwrap();
    until("it is gone", || a.handle.connected().is_empty() && b.handle.connected().is_empty()).await;
    let refused = within("a refusal", b.handle.dial(a.address())).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(a.handle.connected().is_empty());
    a.handle.unblock(b.id()).await.unwrap();
    a.handle.peers().await;
    b.connect(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_cluster_lets_in_members_only() {
    let (b, c) = (key(2).node_id(), key(3).node_id());
    let a = Node::start(NetworkConfig { admission: Admission::Members(vec![b]), ..config(1, Over::Tcp) }).await;
    let member = Node::start(config(2, Over::Tcp)).await;
    let other = Node::start(config(3, Over::Tcp)).await;
    member.connect(&a).await;
    let refused = within("a refusal", other.handle.dial(a.address())).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(a.handle.connected(), [b]);
    a.handle.allow(c).await.unwrap();
    a.handle.disallow(b).await.unwrap();
    until("the former member is gone", || !a.handle.is_connected(&b)).await;
    other.connect(&a).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dialling_ourselves_or_nobody_fails_with_a_reason() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let own = a.handle.listen_addrs()[0].clone();
    let refused = within("a refusal", a.handle.dial(own)).await.unwrap_err();
    assert!(refused.to_string().contains("own"), "{refused}");
    let closed: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let refused = within("a refusal", a.handle.dial(closed)).await;
    assert!(refused.unwrap_err().to_string().contains("refused"));
}
