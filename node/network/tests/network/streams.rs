//! Byte streams.

use std::time::Duration;

use souk_network::{NetworkEvent, StreamError, limits::STREAMS_PER_CONNECTION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{DEADLINE, Node, Over, config, key, pair, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_come_back_and_each_side_closes_its_own() {
    const TOTAL: usize = 64 << 20;
    for over in Over::BOTH {
        let (a, b) = pair(over).await;
        let stream = a.handle.open_stream(b.handle.local_id(), DEADLINE).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        let writer = tokio::spawn(async move {
            let block: Vec<u8> = (0..1 << 16).map(|n: u32| (n % 251) as u8).collect();
            for _ in 0..TOTAL / block.len() {
                write.write_all(&block).await.unwrap();
            }
            write.shutdown().await.unwrap();
            write
        });
        let mut hash = blake3::Hasher::new();
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        within("the echo's end", async {
            loop {
                let n = read.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
                total += n;
            }
        })
        .await;
        assert_eq!(total, TOTAL, "{over:?}");
        let mut expected = blake3::Hasher::new();
        let block: Vec<u8> = (0..1 << 16).map(|n: u32| (n % 251) as u8).collect();
        for _ in 0..TOTAL / block.len() {
            expected.update(&block);
        }
        assert_eq!(hash.finalize(), expected.finalize());
        writer.await.unwrap();
        // Both sides count it by peer, to the byte: there was nothing but this stream.
        for side in [&a.handle, &b.handle] {
            let peer = side.peers().await.remove(0);
            assert_eq!((peer.received, peer.sent), (TOTAL as u64, TOTAL as u64));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once() {
    for over in Over::BOTH {
        let (a, b) = pair(over).await;
        let peer = b.handle.local_id();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..200u32 {
            let handle = a.handle.clone();
            tasks.spawn(async move {
                let mut stream = handle.open_stream(peer, DEADLINE).await.unwrap();
                let sent = n.to_be_bytes().repeat(1_000);
                stream.write_all(&sent).await.unwrap();
                stream.shutdown().await.unwrap();
                let mut back = Vec::new();
                stream.read_to_end(&mut back).await.unwrap();
                assert_eq!(back, sent);
            });
        }
        within("all streams", tasks.join_all()).await;
        assert_eq!(b.handle.status().streams_accepted, 200, "{over:?}");
        assert_eq!(b.handle.status().streams_refused, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_bound_streams_are_refused_until_there_is_room() {
    for over in Over::BOTH {
        let a = Node::start(config(1, over)).await;
        let mut b = Node::start(config(2, over)).await;
        a.connect(&b).await;
        let mut open = Vec::new();
        for _ in 0..STREAMS_PER_CONNECTION {
            open.push(a.handle.open_stream(b.id(), DEADLINE).await.unwrap());
        }
        let refused = a.handle.open_stream(b.id(), DEADLINE).await;
        assert_eq!(refused.unwrap_err(), StreamError::Busy, "{over:?}");
        // Requests have their own places.
        let (handle, id) = (a.handle.clone(), b.id());
        let asking = tokio::spawn(async move { handle.request(id, vec![], DEADLINE).await });
        let mut taken = Vec::new();
        b.next("the request behind all streams", |event| match event {
            NetworkEvent::Stream { stream, .. } => {
                taken.push(stream);
                None
            }
            NetworkEvent::Request { reply, .. } => {
                reply.send(vec![]).unwrap();
                Some(())
            }
            NetworkEvent::Listening(_)
            | NetworkEvent::Connected(_)
            | NetworkEvent::Disconnected(_)
            | NetworkEvent::Knock { .. }
            | NetworkEvent::Gossip { .. } => None,
        })
        .await;
        within("the answer", asking).await.unwrap().unwrap();
        assert_eq!(taken.len(), STREAMS_PER_CONNECTION);
        taken.pop();
        open.pop();
        a.handle.open_stream(b.id(), DEADLINE).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_do_not_dial() {
    let a = Node::start(config(1, Over::Quic)).await;
    let b = Node::start(config(2, Over::Quic)).await;
    a.handle.add_address(b.id(), b.address()).await.unwrap();
    for peer in [b.id(), key(9).node_id()] {
        assert_eq!(a.handle.open_stream(peer, DEADLINE).await.unwrap_err(), StreamError::NotConnected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_peer() {
    for over in Over::BOTH {
        let (a, b) = pair(over).await;
        let mut stream = a.handle.open_stream(b.handle.local_id(), DEADLINE).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        within("the echo", stream.read_exact(&mut back)).await.unwrap();
        drop(b.stop);
        let end = within("the end", stream.read(&mut back)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        until("the peer is gone", || a.handle.connected().is_empty()).await;
        let refused = a.handle.open_stream(b.handle.local_id(), Duration::from_secs(1));
        assert_eq!(refused.await.unwrap_err(), StreamError::NotConnected);
    }
}
