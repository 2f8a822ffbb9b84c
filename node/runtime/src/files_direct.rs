//! The way of a copy's bytes past the engine.
//!
//! An engine passes the standard streams of a command on through two processes of its own, which costs more than everything else
//! in a copy. So the helper listens inside the instance, for one connection of whoever knows what the host has said to its standard
//! input; the host connects from inside the instance's network, as it does for forwarded ports. Where that can't be had, the
//! copy goes on over the standard streams.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_util::io::ReaderStream;

use crate::{
    error::RuntimeError,
    exec::{ExecInput, ExecOutput, ExecSession},
    instance::Instance,
    logs::OutputStream,
    report::FailureCode,
    shared::Shared,
};

/// The argument of `guest files` that asks for it.
pub(crate) const ARGUMENT: &str = "direct";
/// How long the helper may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);
/// How long a connection may take that goes nowhere but into the next namespace.
const CONNECTS_WITHIN: Duration = Duration::from_secs(2);
/// Bytes read at once.
const PIECE: usize = 128 * 1024;

/// Takes a session of a helper that was started with [`ARGUMENT`], and gives it the shortest way that there is.
pub(crate) async fn shorten(
    shared: &Arc<Shared>,
    instance: &Instance,
    mut session: ExecSession,
) -> Result<ExecSession, RuntimeError> {
    let gone = |_| RuntimeError::Engine(FailureCode::InstanceGone);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| RuntimeError::Engine(FailureCode::InstanceGone))?;
    session.input.write(&secret).await.map_err(gone)?;
    let Ok(Some((port, early))) = timeout(LISTENS_WITHIN, port(&mut session.output)).await else {
        return Err(RuntimeError::Engine(FailureCode::InstanceGone));
    };
    let connection = if port == 0 { None } else { connect(shared, instance, port, &secret).await };
    session.input.write(&[u8::from(connection.is_some())]).await.map_err(gone)?;
    let ExecSession { output, input, control } = session;
    let words = Box::pin(futures::stream::iter(early).chain(output));
    let Some(connection) = connection else {
        return Ok(ExecSession { output: words, input, control });
    };
    let (read, write) = connection.into_split();
    let content = ReaderStream::with_capacity(read, PIECE).map(|piece| Ok((OutputStream::Stdout, piece?)));
    // What else the helper has to say comes by the engine still, and the end of both is the end.
    let words = words.filter(|piece| future::ready(!matches!(piece, Ok((OutputStream::Stdout, _)))));
    let output: ExecOutput = Box::pin(futures::stream::select(content, words));
    Ok(ExecSession { output, input: ExecInput::direct(write, input), control })
}

type Piece = std::io::Result<(OutputStream, bytes::Bytes)>;

/// The port that the helper listens at, zero for none, and what else came with it; none if it ended.
async fn port(output: &mut ExecOutput) -> Option<(u16, Vec<Piece>)> {
    let (mut early, mut read) = (Vec::new(), Vec::new());
    while read.len() < 2 {
        match output.next().await? {
            Ok((OutputStream::Stdout, bytes)) => read.extend_from_slice(&bytes),
            piece if early.len() < 16 => early.push(piece),
            _ => return None,
        }
    }
    Some((u16::from_be_bytes([read[0], read[1]]), early))
}

async fn connect(shared: &Arc<Shared>, instance: &Instance, port: u16, secret: &[u8]) -> Option<TcpStream> {
    let dialled = timeout(CONNECTS_WITHIN, crate::dial::tcp(shared, instance, "127.0.0.1", port)).await;
    let mut connection = dialled.ok()?.ok()?;
    connection.set_nodelay(true).ok()?;
    timeout(CONNECTS_WITHIN, connection.write_all(secret)).await.ok()?.ok()?;
    Some(connection)
}
