//! Gossip: who gets what, and what verdicts do.

use bytes::Bytes;
use souk_network::{NetworkConfig, NetworkEvent, PublishError, Topic, limits::MAX_GOSSIP};
use souk_protocol::NodeId;

use crate::node::{Node, Over, config, until, within};

fn gossip(event: NetworkEvent) -> Option<(Topic, NodeId, Bytes, souk_network::GossipVerdict)> {
    if let NetworkEvent::Gossip { topic, from, data, verdict } = event {
        Some((topic, from, data, verdict))
    } else {
        None
    }
}

/// Three nodes in a row: the ends know the middle only.
async fn row(over: Over) -> [Node; 3] {
    let limits = souk_network::Limits { min_peers: 0, ..souk_network::Limits::default() };
    let node = |n| Node::start(NetworkConfig { limits, ..config(n, over) });
    let (a, b, c) = (node(1).await, node(2).await, node(3).await);
    a.handle.block(c.id()).await.unwrap();
    c.handle.block(a.id()).await.unwrap();
    a.connect(&b).await;
    c.connect(&b).await;
    [a, b, c]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_message_goes_on_and_others_do_not() {
    for over in Over::BOTH {
        let [a, mut b, mut c] = row(over).await;
        // What is accepted goes to who is known to read the topic. That comes before the first message of its own.
        c.handle.publish(Topic::Offers, b"here".to_vec()).await.unwrap();
        let (_, from, data, verdict) = b.next("a word of the third", gossip).await;
        assert_eq!((from, &data[..]), (c.id(), &b"here"[..]));
        verdict.ignore();
        // Published at once, with no mesh formed and perhaps no subscription known yet.
        for text in ["bad", "useless", "dropped", "good"] {
            a.handle.publish(Topic::Offers, text.into()).await.unwrap();
        }
        for _ in 0..4 {
            let (topic, from, data, verdict) = b.next("four messages", gossip).await;
            assert_eq!((topic, from), (Topic::Offers, a.id()));
            match &data[..] {
                b"bad" => verdict.reject(),
                b"useless" => verdict.ignore(),
                b"dropped" => drop(verdict),
                b"good" => verdict.accept(),
                other => panic!("{other:?}"),
            }
        }
        let (_, from, data, verdict) = c.next("the good one", gossip).await;
        assert_eq!((from, &data[..]), (b.id(), &b"good"[..]));
        verdict.accept();
        a.handle.publish(Topic::Proofs, b"last".to_vec()).await.unwrap();
        let (topic, _, data, verdict) = b.next("a proof", gossip).await;
        assert_eq!((topic, &data[..]), (Topic::Proofs, &b"last"[..]));
        verdict.accept();
        let (_, _, data, _verdict) = c.next("the proof and nothing before it", gossip).await;
        assert_eq!(&data[..], b"last");

        let status = b.handle.status();
        assert_eq!((status.gossip_accepted, status.gossip_ignored, status.gossip_rejected), (2, 3, 1));
        let peers = b.handle.peers().await;
        let score = |id| peers.iter().find(|p| p.id == id).unwrap().score;
        assert!(score(a.id()) < -5.0, "one rejected message shows");
        assert!(score(c.id()) >= 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_published_alone_reaches_the_first_to_come() {
    let a = Node::start(config(1, Over::Quic)).await;
    a.handle.publish(Topic::Offers, b"early".to_vec()).await.unwrap();
    let mut b = Node::start(config(2, Over::Quic)).await;
    b.connect(&a).await;
    let (_, _, data, verdict) = b.next("the message", gossip).await;
    assert_eq!(&data[..], b"early");
    verdict.accept();
    until("it counts as published", || a.handle.status().gossip_published == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_bad_messages_and_a_peer_is_no_longer_heard() {
    let a = Node::start(config(1, Over::Quic)).await;
    let mut b = Node::start(config(2, Over::Quic)).await;
    a.connect(&b).await;
    for n in 0..3 {
        a.handle.publish(Topic::Offers, vec![n]).await.unwrap();
        b.next("a message", gossip).await.3.reject();
    }
    until("all are judged", || b.handle.status().gossip_rejected == 3).await;
    let score = b.handle.peers().await[0].score;
    assert!(score < -80.0, "{score}");
    a.handle.publish(Topic::Offers, vec![9]).await.unwrap();
    until("it is sent", || a.handle.status().gossip_published == 4).await;
    // Requests still work: a proof of having heard everything sent before.
    let (handle, id) = (a.handle.clone(), b.id());
    let asking = tokio::spawn(async move { handle.request(id, vec![], crate::node::DEADLINE).await });
    let first = b
        .next("the request before any gossip", |event| match event {
            NetworkEvent::Request { reply, .. } => {
                reply.send(vec![]).unwrap();
                Some(true)
            }
            NetworkEvent::Gossip { .. } => Some(false),
            NetworkEvent::Listening(_)
            | NetworkEvent::Connected(_)
            | NetworkEvent::Disconnected(_)
            | NetworkEvent::Knock { .. }
            | NetworkEvent::Stream { .. } => None,
        })
        .await;
    assert!(first);
    within("the answer", asking).await.unwrap().unwrap();
    assert_eq!(b.handle.status().gossip_received, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_refused_and_the_largest_arrives() {
    let a = Node::start(config(1, Over::Quic)).await;
    let mut b = Node::start(config(2, Over::Quic)).await;
    a.connect(&b).await;
    assert_eq!(
        a.handle.publish(Topic::Offers, vec![0; MAX_GOSSIP + 1]).await,
        Err(PublishError::TooLarge { size: MAX_GOSSIP + 1, limit: MAX_GOSSIP })
    );
    a.handle.publish(Topic::Offers, vec![0; MAX_GOSSIP]).await.unwrap();
    let (_, _, data, _) = b.next("the message", gossip).await;
    assert_eq!(data.len(), MAX_GOSSIP);
}
