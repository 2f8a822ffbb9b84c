//! Requests and answers.

use std::{collections::HashSet, time::Duration};

use souk_network::{
    Limits, NetworkConfig, NetworkEvent, RequestError,
    limits::{MAX_ANSWER, MAX_REQUEST},
};
use souk_protocol::NetworkId;

use crate::node::{DEADLINE, Node, Over, config, key, pair, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered() {
    for over in Over::BOTH {
        let (a, b) = pair(over).await;
        for size in [0, 1, 5_000, MAX_REQUEST] {
            let body = vec![7; size];
            let answer = a.handle.request(b.handle.local_id(), body.clone(), DEADLINE).await;
            assert_eq!(answer, Ok(body), "{over:?} {size}");
        }
        assert_eq!(a.handle.status().requests_answered, 4);
        assert_eq!(b.handle.status().requests_received, 4);
        let bytes = 5_001 + MAX_REQUEST as u64;
        for side in [&a.handle, &b.handle] {
            let peer = side.peers().await.remove(0);
            assert_eq!((peer.received, peer.sent), (bytes, bytes));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_pipelined_requests_give_two_thousand_answers() {
    for over in Over::BOTH {
        let (a, b) = pair(over).await;
        let peer = b.handle.local_id();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..2_000u32 {
            let handle = a.handle.clone();
            tasks.spawn(async move {
                let body = n.to_be_bytes().repeat(64);
                let answer = handle.request(peer, body.clone(), DEADLINE).await;
                assert_eq!(answer, Ok(body));
                n
            });
        }
        let answered: HashSet<u32> = within("all answers", tasks.join_all()).await.into_iter().collect();
        assert_eq!(answered.len(), 2_000, "{over:?}");
        assert_eq!(b.handle.status().requests_busy, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_on_both_sides() {
    let a = Node::start(config(1, Over::Quic)).await;
    let mut b = Node::start(config(2, Over::Quic)).await;
    a.connect(&b).await;
    let refused = a.handle.request(b.id(), vec![0; MAX_REQUEST + 1], DEADLINE).await;
    assert_eq!(refused, Err(RequestError::TooLarge { size: MAX_REQUEST + 1, limit: MAX_REQUEST }));
    let handle = a.handle.clone();
    let id = b.id();
    let asking = tokio::spawn(async move { handle.request(id, vec![1], DEADLINE).await });
    let reply = b.next("a request", request).await;
    let error = reply.send(vec![0; MAX_ANSWER + 1]).unwrap_err();
    assert_eq!(error.size, MAX_ANSWER + 1);
    assert_eq!(asking.await.unwrap(), Err(RequestError::AnswerTooLarge));

    let handle = a.handle.clone();
    let asking = tokio::spawn(async move { handle.request(id, vec![1], DEADLINE).await });
    let reply = b.next("a request", request).await;
    reply.send(vec![3; MAX_ANSWER]).unwrap();
    assert_eq!(asking.await.unwrap().unwrap().len(), MAX_ANSWER);
}

fn request(event: NetworkEvent) -> Option<souk_network::Reply> {
    if let NetworkEvent::Request { reply, .. } = event { Some(reply) } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_reply_a_busy_one_and_a_late_one_are_told_apart() {
    for over in Over::BOTH {
        let a = Node::start(config(1, over)).await;
        let mut b = Node::start(config(2, over)).await;
        a.connect(&b).await;
        let id = b.id();
        let ask = |timeout| {
            let handle = a.handle.clone();
            tokio::spawn(async move { handle.request(id, b"?".to_vec(), timeout).await })
        };
        let asking = ask(DEADLINE);
        drop(b.next("a request", request).await);
        assert_eq!(asking.await.unwrap(), Err(RequestError::NoAnswer));

        let asking = ask(DEADLINE);
        let retry_after = Duration::from_millis(1234);
        b.next("a request", request).await.busy(retry_after);
        assert_eq!(asking.await.unwrap(), Err(RequestError::Busy { retry_after }));

        let patience = Duration::from_millis(300);
        let asking = ask(patience);
        let held = b.next("a request", request).await;
        assert_eq!(asking.await.unwrap(), Err(RequestError::Timeout(patience)), "{over:?}");
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_busy_and_loses_no_connection_event() {
    let a = Node::start(config(1, Over::Quic)).await;
    let mut b =
        Node::start(NetworkConfig { limits: Limits { events: 4, ..Limits::default() }, ..config(2, Over::Quic) }).await;
    a.connect(&b).await;
    let id = b.id();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let handle = a.handle.clone();
        tasks.spawn(async move { handle.request(id, vec![1], DEADLINE).await });
    }
    until("most are turned away", || b.handle.status().requests_busy >= 16).await;
    let c = Node::start(config(3, Over::Quic)).await;
    c.connect(&b).await;
    let mut met = HashSet::new();
    let mut held = Vec::new();
    while !met.contains(&c.id()) {
        let event = within("an event", b.events.recv()).await.unwrap();
        match event {
            NetworkEvent::Connected(node) => {
                met.insert(node);
            }
            NetworkEvent::Request { reply, .. } => held.push(reply),
            NetworkEvent::Listening(_)
            | NetworkEvent::Disconnected(_)
            | NetworkEvent::Gossip { .. }
            | NetworkEvent::Knock { .. }
            | NetworkEvent::Stream { .. } => {}
        }
    }
    assert!(met.contains(&a.id()));
    assert!(held.len() <= 4);
    for reply in held {
        reply.send(vec![2]).unwrap();
    }
    let outcomes = within("all outcomes", tasks.join_all()).await;
    let answered = outcomes.iter().filter(|o| o.is_ok()).count();
    let busy = outcomes.iter().filter(|o| matches!(o, Err(RequestError::Busy { .. }))).count();
    assert_eq!(answered + busy, 20, "{outcomes:?}");
    assert!(busy >= 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_stops_mid_request_is_an_error() {
    for over in Over::BOTH {
        let a = Node::start(config(1, over)).await;
        let mut b = Node::start(config(2, over)).await;
        a.connect(&b).await;
        let (handle, id) = (a.handle.clone(), b.id());
        let asking = tokio::spawn(async move { handle.request(id, vec![1], DEADLINE).await });
        let held = b.next("a request", request).await;
        drop(b);
        let outcome = within("an outcome", asking).await.unwrap();
        assert_eq!(outcome, Err(RequestError::Disconnected), "{over:?}");
        drop(held);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_known_by_address_is_dialled_and_others_fail_with_a_reason() {
    let a = Node::start(config(1, Over::Tcp)).await;
    let b = Node::start(config(2, Over::Tcp)).await;
    let id = b.id();
    let nobody = key(9).node_id();
    a.handle.add_address(id, b.address()).await.unwrap();
    let b = b.echo();
    let answer = within("an answer", a.handle.request(id, vec![5], DEADLINE)).await;
    assert_eq!(answer, Ok(vec![5]));
    assert_eq!(within("a refusal", a.handle.request(nobody, vec![], DEADLINE)).await, Err(RequestError::NotConnected));
    // Port 1 is closed: nothing here listens on it.
    let closed = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    a.handle.add_address(nobody, closed).await.unwrap();
    let refused = within("a refusal", a.handle.request(nobody, vec![], DEADLINE)).await;
    let Err(RequestError::Unreachable(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("127.0.0.1/tcp/1"), "{why}");
    drop(b.stop);
    within("the end", b.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_network_gets_nothing() {
    for over in Over::BOTH {
        let a = Node::start(config(1, over)).await;
        let mut b = Node::start(NetworkConfig { network: NetworkId::of_name("another"), ..config(2, over) }).await;
        assert!(within("a refusal", a.handle.dial(b.address())).await.is_err());
        a.handle.add_address(b.id(), b.address()).await.unwrap();
        let refused = within("a refusal", a.handle.request(b.id(), vec![1], DEADLINE)).await;
        assert!(matches!(refused, Err(RequestError::Unsupported | RequestError::Disconnected)), "{refused:?}");
        assert!(a.handle.connected().is_empty());
        assert!(b.handle.connected().is_empty());
        while let Ok(event) = b.events.try_recv() {
            assert!(matches!(event, NetworkEvent::Listening(_)), "{event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_end_everything_is_closed() {
    let (a, b) = pair(Over::Quic).await;
    let Node { handle, mut events, stop } = a;
    drop(stop);
    within("the end", async { while events.recv().await.is_some() {} }).await;
    let id = b.handle.local_id();
    assert_eq!(handle.request(id, vec![], DEADLINE).await, Err(RequestError::Closed));
    assert_eq!(handle.open_stream(id, DEADLINE).await.unwrap_err(), souk_network::StreamError::Closed);
    assert!(handle.keep(id).await.is_err());
    until("the peer noticed", || b.handle.connected().is_empty()).await;
}
