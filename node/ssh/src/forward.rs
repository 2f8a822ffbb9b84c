//! One direct channel: a connection made inside the instance, both ways, each end closed on its own.

use russh::{ChannelOpenFailure, server::ChannelOpenHandle};
use souk_runtime::Runtime;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::command::{Ends, Input};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Connects, answers the client, and pumps until both directions have ended or the channel closes.
pub async fn run(
    runtime: Arc<dyn Runtime>,
    lease: String,
    host: String,
    port: u16,
    reply: ChannelOpenHandle,
    mut ends: Ends,
) {
    let cancelled = ends.cancelled.clone();
    let served = async {
        let connected = match runtime.dial(&lease, &host, port).await {
            Ok(connected) => connected,
            Err(error) => {
                tracing::debug!(%lease, %error, "a forwarded connection");
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
                return;
            }
        };
        reply.accept().await;
        pump(connected, &mut ends).await;
        let _ = ends.handle.close(ends.channel).await;
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = served => {}
    }
}

async fn pump(connected: TcpStream, ends: &mut Ends) {
    let (mut from, mut to) = connected.into_split();
    let up = async {
        while let Some(input) = ends.input.recv().await {
            match input {
                Input::Bytes(bytes, _charge) => {
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Input::End => {
                    let _ = to.shutdown().await;
                    return;
                }
            }
        }
    };
    let down = async {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    if ends.write.data_bytes(bytes::Bytes::copy_from_slice(&piece[..read])).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = ends.handle.eof(ends.channel).await;
    };
    tokio::join!(up, down);
}
