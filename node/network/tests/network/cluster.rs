//! Private clusters: the key, the members, the door, and what is behind it.

use std::time::Duration;

use souk_network::{
    Admission, FenceKey, Multiaddr, NetworkConfig, NetworkEvent, Reply, RequestError, StreamError, Topic, Transport,
    limits::{KNOCK_TIMEOUT, KNOCKS_PER_MINUTE, MAX_KNOCK, MAX_KNOCK_ANSWER, STRANGERS_PER_SOURCE},
};
use souk_protocol::{NetworkId, NodeId};
use tokio::io::AsyncReadExt;

use crate::{
    node::{DEADLINE, Node, Over, config, key, until, within},
    raw::RawPeer,
};

const FENCE: [u8; 32] = [7; 32];

fn fenced(seed: u8, members: &[u8], fence: [u8; 32]) -> NetworkConfig {
    NetworkConfig { fence: Some(FenceKey::new(fence)), ..cluster(seed, Over::Tcp, members) }
}

fn cluster(seed: u8, over: Over, members: &[u8]) -> NetworkConfig {
    let members: Vec<NodeId> = members.iter().map(|n| key(*n).node_id()).collect();
    NetworkConfig { admission: Admission::Members(members), ..config(seed, over) }
}

fn protocol(name: &str) -> String {
    format!("/souk/{}/{name}", &NetworkId::of_name("test").to_string()[..16])
}

/// All that a member gets.
fn inside() -> Vec<String> {
    let mut all: Vec<String> =
        ["exchange/1", "stream/1", "reach/1", "kad/1", "mesh/1.1.0"].into_iter().map(protocol).collect();
    let others = ["/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0", "/ipfs/ping/1.0.0", "/libp2p/circuit/relay/0.2.0/stop"];
    all.extend(others.map(str::to_owned));
    all
}

fn knock(event: NetworkEvent) -> Option<(NodeId, Multiaddr, Vec<u8>, Reply)> {
    if let NetworkEvent::Knock { peer, address, body, reply } = event {
        Some((peer, address, body.to_vec(), reply))
    } else {
        None
    }
}

fn gossip(event: NetworkEvent) -> Option<Vec<u8>> {
    if let NetworkEvent::Gossip { data, verdict, .. } = event {
        verdict.accept();
        Some(data.to_vec())
    } else {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_key_its_holders_meet_over_tcp_and_nobody_else_gets_a_handshake() {
    let quic = Over::Quic.listen();
    let mut a = fenced(1, &[2, 3, 4], FENCE);
    a.listen.push(quic);
    let a = Node::start(a).await;
    let b = Node::start(fenced(2, &[1], FENCE)).await;
    b.connect(&a).await;
    assert_eq!(b.handle.peers().await[0].transport, Transport::Tcp);
    assert!(a.handle.listen_addrs().iter().all(|at| at.to_string().contains("/tcp/")), "{:?}", a.handle.listen_addrs());
    let (address, id, a) = (a.address(), a.id(), a.echo());
    assert_eq!(b.handle.request(id, vec![5; 200_000], DEADLINE).await, Ok(vec![5; 200_000]));
    drop(b.handle.open_stream(id, DEADLINE).await.unwrap());

    let another = Node::start(fenced(3, &[1], [8; 32])).await;
    let none = Node::start(cluster(4, Over::Tcp, &[1])).await;
    let before = a.handle.status().connections_established;
    for outsider in [&another, &none] {
        let refused = within("a refusal", outsider.handle.dial(address.clone())).await;
        assert!(refused.is_err(), "{refused:?}");
        let refused = within("a refusal", b.handle.dial(outsider.address())).await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(outsider.handle.status().connections_established, 0);
    }
    assert_eq!(a.handle.status().connections_established, before);
    assert_eq!(a.handle.connected(), [b.id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_members_are_who_the_list_says_over_both_transports() {
    for over in Over::BOTH {
        let (b, c) = (key(2).node_id(), key(3).node_id());
        let a = Node::start(cluster(1, over, &[2])).await;
        let member = Node::start(cluster(2, over, &[1, 3])).await;
        let other = Node::start(cluster(3, over, &[1])).await;
        member.connect(&a).await;
        let refused = within("a refusal", other.handle.dial(a.address())).await;
        assert!(refused.is_err(), "{refused:?}");
        let refused = within("a refusal", a.handle.dial(other.address())).await;
        assert!(refused.unwrap_err().to_string().contains("no member"));
        assert_eq!(a.handle.connected(), [b]);

        let mut stream = a.handle.open_stream(b, DEADLINE).await.unwrap();
        a.handle.members(vec![c]).await.unwrap();
        let end = within("the end of the former member's stream", stream.read(&mut [0])).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        until("the former member is gone", || !a.handle.is_connected(&b) && member.handle.connected().is_empty()).await;
        other.connect(&a).await;
        assert!(within("a refusal", member.handle.dial(a.address())).await.is_err());

        a.handle.allow(b).await.unwrap();
        a.handle.disallow(c).await.unwrap();
        until("the other is gone", || a.handle.connected().is_empty() && other.handle.connected().is_empty()).await;
        assert!(within("a refusal", other.handle.dial(a.address())).await.is_err());
        member.connect(&a).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_closed_door_a_stranger_gets_nothing() {
    let a = Node::start(cluster(1, Over::Tcp, &[])).await;
    for protocol in inside().into_iter().chain([protocol("knock/1")]) {
        let stranger = RawPeer::dial(a.address()).await;
        assert!(stranger.open(&protocol).await.is_none(), "{protocol}");
    }
    let joiner = Node::start(cluster(2, Over::Tcp, &[1])).await;
    let refused = joiner.handle.knock(a.id(), vec![a.address()], vec![1]).await;
    assert!(matches!(refused, Err(RequestError::Disconnected | RequestError::Unsupported)), "{refused:?}");
    assert_eq!(a.handle.status().connections_established, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_an_open_door_a_stranger_may_knock_and_gets_nothing_else() {
    for over in Over::BOTH {
        let mut a = Node::start(cluster(1, over, &[])).await;
        a.handle.open_door(true).await.unwrap();
        let stranger = Node::start(config(2, over)).await;
        let asking = tokio::spawn({
            let (handle, id, address) = (stranger.handle.clone(), a.id(), a.address());
            async move { handle.knock(id, vec![address], vec![3; MAX_KNOCK]).await }
        });
        let (peer, address, body, reply) = a.next("a knock", knock).await;
        assert_eq!((peer, body), (stranger.id(), vec![3; MAX_KNOCK]));
        assert!(address.to_string().starts_with("/ip4/127.0.0.1/"), "{address}");
        assert!(reply.send(vec![0; MAX_KNOCK_ANSWER + 1]).is_err());
        assert_eq!(within("an answer", asking).await.unwrap(), Err(RequestError::AnswerTooLarge));
        let asking = tokio::spawn({
            let (handle, id, address) = (stranger.handle.clone(), a.id(), a.address());
            async move { handle.knock(id, vec![address], vec![]).await }
        });
        let (_, _, _, reply) = a.next("a knock", knock).await;
        reply.send(vec![4; MAX_KNOCK_ANSWER]).unwrap();
        assert_eq!(within("an answer", asking).await.unwrap(), Ok(vec![4; MAX_KNOCK_ANSWER]));
        let too_large = stranger.handle.knock(a.id(), vec![], vec![3; MAX_KNOCK + 1]).await;
        assert!(matches!(too_large, Err(RequestError::TooLarge { .. })));

        // As a node that takes the keeper for one of its network: connected, and nothing comes of it.
        stranger.handle.add_address(a.id(), a.address()).await.unwrap();
        stranger.handle.keep(a.id()).await.unwrap();
        until("it is connected", || stranger.handle.status().connections_established == 3).await;
        stranger.handle.publish(Topic::Offers, b"from a stranger".to_vec()).await.unwrap();
        a.handle.publish(Topic::Offers, b"for members".to_vec()).await.unwrap();
        let refused = stranger.handle.request(a.id(), vec![1], DEADLINE).await;
        assert_eq!(refused, Err(RequestError::Unsupported));
        let refused = stranger.handle.open_stream(a.id(), DEADLINE).await;
        assert_eq!(refused.unwrap_err(), StreamError::Unsupported);
        assert!(stranger.handle.connected().is_empty() && a.handle.connected().is_empty());
        assert!(a.handle.peers().await.is_empty());
        let refused = within("a refusal", a.handle.request(stranger.id(), vec![1], DEADLINE)).await.unwrap_err();
        assert!(refused.to_string().contains("no member"), "{refused}");
        assert_eq!((a.handle.status().gossip_published, a.handle.status().gossip_received), (0, 0));
        assert_eq!((stranger.handle.status().gossip_published, stranger.handle.status().gossip_received), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_connection_speaks_one_protocol_for_a_short_while_and_few_are_let_in() {
    let mut a = Node::start(cluster(1, Over::Tcp, &[2])).await;
    a.handle.open_door(true).await.unwrap();
    let stranger = RawPeer::dial(a.address()).await;
    for protocol in inside() {
        assert!(stranger.open(&protocol).await.is_none(), "{protocol}");
    }
    let knocker = protocol("knock/1");
    let mut asking = Vec::new();
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let peer = RawPeer::dial(a.address()).await;
        asking.extend(peer.open(&knocker).await);
        crowd.push(peer);
    }
    assert_eq!(asking.len(), STRANGERS_PER_SOURCE - 1);
    // Nor do those who say nothing at all.
    let mut silent = Vec::new();
    let port: u16 = a.handle.listen_addrs()[0].to_string().rsplit('/').next().unwrap().parse().unwrap();
    for _ in 0..40 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let member = Node::start(cluster(2, Over::Tcp, &[1])).await;
    member.connect(&a).await;
    // A member may knock, too.
    let asking = tokio::spawn({
        let (handle, id) = (member.handle.clone(), a.id());
        async move { handle.knock(id, vec![], b"what is new?".to_vec()).await }
    });
    let (peer, _, body, reply) = a.next("a knock", knock).await;
    assert_eq!((peer, body.as_slice()), (member.id(), &b"what is new?"[..]));
    reply.send(b"nothing".to_vec()).unwrap();
    assert_eq!(within("an answer", asking).await.unwrap(), Ok(b"nothing".to_vec()));

    tokio::time::sleep(KNOCK_TIMEOUT).await;
    within("their time is over", async {
        while stranger.open(&knocker).await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(RawPeer::dial(a.address()).await.open(&knocker).await.is_some(), "there is room again");
    assert_eq!(a.handle.connected(), [member.id()]);
    a.handle.open_door(false).await.unwrap();
    until("they are shown out", || a.handle.connected() == [member.id()]).await;
    assert!(RawPeer::dial(a.address()).await.open(&knocker).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_admitted_connects_anew_and_is_a_member_like_any_other() {
    let mut a = Node::start(fenced(1, &[], FENCE)).await;
    a.handle.open_door(true).await.unwrap();
    let mut joiner = Node::start(fenced(2, &[1], FENCE)).await;
    let asking = tokio::spawn({
        let (handle, id, address) = (joiner.handle.clone(), a.id(), a.address());
        async move { handle.knock(id, vec![address], b"let me in".to_vec()).await }
    });
    let (peer, _, _, reply) = a.next("a knock", knock).await;
    // A member before the answer is on its way: it gets it all the same.
    a.handle.allow(peer).await.unwrap();
    a.handle.open_door(false).await.unwrap();
    reply.send(vec![9; MAX_KNOCK_ANSWER]).unwrap();
    assert_eq!(within("an answer", asking).await.unwrap(), Ok(vec![9; MAX_KNOCK_ANSWER]));
    joiner.connect(&a).await;
    let handles = (joiner.handle.clone(), a.handle.clone());
    for (from, to) in [(handles.0, &mut a), (handles.1, &mut joiner)] {
        let said = from.local_id().to_string().into_bytes();
        from.publish(Topic::Offers, said.clone()).await.unwrap();
        assert_eq!(to.next("gossip", gossip).await, said);
    }
    let id = a.id();
    let a = a.echo();
    assert_eq!(joiner.handle.request(id, vec![1], DEADLINE).await, Ok(vec![1]));
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_stays_connected_is_let_go_when_it_is_admitted_and_comes_back_as_a_member() {
    for over in Over::BOTH {
        let mut a = Node::start(cluster(1, over, &[])).await;
        a.handle.open_door(true).await.unwrap();
        let joiner = Node::start(cluster(2, over, &[1])).await;
        joiner.handle.add_address(a.id(), a.address()).await.unwrap();
        joiner.handle.keep(a.id()).await.unwrap();
        until("it is at the door", || a.handle.status().connections_established == 1).await;
        assert!(a.handle.connected().is_empty() && joiner.handle.connected().is_empty());
        a.handle.members(vec![joiner.id()]).await.unwrap();
        until("it is in", || a.handle.is_connected(&joiner.id()) && joiner.handle.is_connected(&a.id())).await;
        joiner.handle.publish(Topic::Offers, b"here".to_vec()).await.unwrap();
        assert_eq!(a.next("gossip", gossip).await, b"here");
        let (id, a) = (a.id(), a.echo());
        assert_eq!(joiner.handle.request(id, vec![1], DEADLINE).await, Ok(vec![1]), "{over:?}");
        drop(a);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knocks_too_often_is_told_to_wait() {
    let a = Node::start(cluster(1, Over::Tcp, &[])).await;
    a.handle.open_door(true).await.unwrap();
    let joiner = Node::start(cluster(2, Over::Tcp, &[1])).await;
    let (id, address) = (a.id(), a.address());
    let handle = a.handle.clone();
    let answering = tokio::spawn({
        let mut a = Box::new(a);
        async move {
            let a = &mut *a;
            while let Some(event) = a.events.recv().await {
                if let Some((_, _, body, reply)) = knock(event) {
                    reply.send(body).unwrap();
                }
            }
        }
    });
    let mut busy = 0;
    for _ in 0..KNOCKS_PER_MINUTE + 10 {
        match joiner.handle.knock(id, vec![address.clone()], vec![1]).await {
            Ok(answer) => assert_eq!(answer, [1]),
            Err(RequestError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0);
    assert_eq!(handle.status().knocks_busy, busy);
    answering.abort();
}

/// An address of this machine in a network, if it is in one.
async fn own_address() -> Option<std::net::Ipv4Addr> {
    let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.ok()?;
    // Nothing is sent: the system says from where it would be.
    socket.connect("192.0.2.1:9").await.ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
        std::net::IpAddr::V4(_) | std::net::IpAddr::V6(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_on_the_local_network_and_strangers_are_left_alone() {
    let Some(ip) = own_address().await else {
        skipped("this machine is in no network");
        return;
    };
    let listen: Vec<Multiaddr> = vec![format!("/ip4/{ip}/tcp/0").parse().unwrap()];
    let start = |config: NetworkConfig| Node::start(NetworkConfig { listen: listen.clone(), mdns: true, ..config });
    let a = start(fenced(21, &[22], FENCE)).await;
    // Of another cluster with the same key and network, were it so: no member.
    let stranger = start(fenced(23, &[], FENCE)).await;
    let b = start(fenced(22, &[21], FENCE)).await;
    until("they meet", || a.handle.is_connected(&b.id()) && b.handle.is_connected(&a.id())).await;
    assert!(stranger.handle.connected().is_empty());
    assert_eq!(stranger.handle.status().connections_established, 0);
    // A member that is lost is dialled again.
    a.handle.disconnect(b.id()).await.unwrap();
    until("they part", || a.handle.status().connections_established >= 1 && !a.handle.is_connected(&b.id())).await;
    until("they meet again", || a.handle.is_connected(&b.id())).await;
}

#[allow(clippy::print_stderr, reason = "what a test left out is to be seen")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
