//! `souk dial-stdio`: the far end of a link. Standard input and output are a yamux connection; each of its streams is a connection
//! to the API's socket.

use std::{io, path::Path};

use futures::future::poll_fn;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::{greeting::Greeting, settings};
use crate::{
    api::client::{Client, ClientError},
    market::{CommandError, ErrorCode},
};

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;

/// Greets, and serves streams until the input ends. True if the node answered.
///
/// # Errors
/// The output's, when nobody reads it.
pub async fn serve(
    dir: &Path,
    socket: &Path,
    input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<bool> {
    let connected = UnixStream::connect(socket).await;
    let error = connected.err().map(|error| told(&Client::not_connected(dir, socket, &error)));
    let answers = error.is_none();
    output.write_all(&Greeting::ours(error).line()).await?;
    output.flush().await?;
    if answers {
        streams(socket, tokio::io::join(input, output)).await;
    }
    Ok(answers)
}

fn told(error: &ClientError) -> CommandError {
    let mut told = CommandError::new(ErrorCode::Unavailable, error.to_string());
    told.hint = error.hint();
    told
}

async fn streams(socket: &Path, link: impl AsyncRead + AsyncWrite + Unpin) {
    let mut connection = yamux::Connection::new(link.compat(), settings(), yamux::Mode::Server);
    let mut running = JoinSet::new();
    loop {
        let inbound = tokio::select! {
            inbound = poll_fn(|cx| connection.poll_next_inbound(cx)) => inbound,
            Some(_) = running.join_next() => continue,
        };
        let Some(Ok(stream)) = inbound else { return };
        let socket = socket.to_owned();
        running.spawn(async move {
            // A node that has gone is told by the stream's end.
            let Ok(mut api) = UnixStream::connect(socket).await else { return };
            let mut stream = stream.compat();
            tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut api, PIECE, PIECE).await.ok();
        });
    }
}
