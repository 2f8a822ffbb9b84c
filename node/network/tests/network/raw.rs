//! A peer that speaks libp2p's lower layers and says on any protocol what it likes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn};
use libp2p::{
    PeerId, Transport,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox},
        transport::{DialOpts, PortUse, upgrade::Version},
    },
    identity, noise, tcp, yamux,
};
use souk_network::Multiaddr;
use tokio::sync::{mpsc, oneshot};

use crate::node::within;

/// One connection, kept going by a task of its own.
pub(crate) struct RawPeer {
    open: mpsc::Sender<oneshot::Sender<SubstreamBox>>,
    pub(crate) id: PeerId,
}

impl RawPeer {
    pub(crate) async fn dial(address: Multiaddr) -> Self {
        let key = identity::Keypair::generate_ed25519();
        let mut transport = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&key).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let options = DialOpts { role: libp2p::core::Endpoint::Dialer, port_use: PortUse::New };
        let dial = transport.dial(address, options).unwrap();
        let (_, mut muxer) = within("dialling", dial).await.unwrap();
        let (open, mut wanted) = mpsc::channel::<oneshot::Sender<SubstreamBox>>(16);
        tokio::spawn(async move {
            let mut waiting: Option<oneshot::Sender<SubstreamBox>> = None;
            // Streams that the node opens to us are held and never answered.
            let mut held = Vec::new();
            poll_fn(|cx| turn(&mut muxer, &mut wanted, &mut waiting, &mut held, cx)).await;
        });
        Self { open, id: key.public().to_peer_id() }
    }

    /// Opens a stream of `protocol`; none if the node does not speak it or is gone.
    pub(crate) async fn open(&self, protocol: &str) -> Option<SubstreamBox> {
        let (tx, rx) = oneshot::channel();
        self.open.send(tx).await.ok()?;
        let mut stream = rx.await.ok()?;
        let line = |text: &str| {
            let mut bytes = vec![u8::try_from(text.len() + 1).unwrap()];
            bytes.extend(text.bytes());
            bytes.push(b'\n');
            bytes
        };
        let said = [line("/multistream/1.0.0"), line(protocol)].concat();
        stream.write_all(&said).await.ok()?;
        stream.flush().await.ok()?;
        for expected in ["/multistream/1.0.0\n", &format!("{protocol}\n")] {
            let mut length = [0];
            stream.read_exact(&mut length).await.ok()?;
            let mut heard = vec![0; length[0].into()];
            stream.read_exact(&mut heard).await.ok()?;
            if heard != expected.as_bytes() {
                return None;
            }
        }
        Some(stream)
    }

    /// Says `bytes` on a new stream of `protocol` and gives back what the node says until it closes or is silent for a while.
    pub(crate) async fn say(&self, protocol: &str, bytes: &[u8], close: bool) -> Option<Vec<u8>> {
        let mut stream = self.open(protocol).await?;
        stream.write_all(bytes).await.ok()?;
        stream.flush().await.ok()?;
        if close {
            stream.close().await.ok();
        }
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await
            && n > 0
            && answer.len() < 1 << 22
        {
            answer.extend(&buffer[..n]);
        }
        Some(answer)
    }
}

fn turn(
    muxer: &mut StreamMuxerBox,
    wanted: &mut mpsc::Receiver<oneshot::Sender<SubstreamBox>>,
    waiting: &mut Option<oneshot::Sender<SubstreamBox>>,
    held: &mut Vec<SubstreamBox>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut muxer = Pin::new(muxer);
    loop {
        if waiting.is_none() {
            match wanted.poll_recv(cx) {
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Ready(Some(reply)) => *waiting = Some(reply),
                Poll::Pending => {}
            }
        }
        if waiting.is_some()
            && let Poll::Ready(opened) = muxer.as_mut().poll_outbound(cx)
        {
            let Ok(stream) = opened else {
                return Poll::Ready(());
            };
            if let Some(reply) = waiting.take() {
                reply.send(stream).ok();
            }
            continue;
        }
        match muxer.as_mut().poll_inbound(cx) {
            Poll::Ready(Ok(stream)) => {
                held.push(stream);
                continue;
            }
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => {}
        }
        match muxer.as_mut().poll(cx) {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}
