//! A port of an instance, as bytes or datagrams.

use std::{io, time::Duration};

use souk_protocol::{limits, message::Frame};
use souk_runtime::Runtime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UdpSocket,
    time::{Instant, sleep_until},
};

use super::send;

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// Datagrams to nobody: how long one sender's way stays open without any.
pub const UDP_IDLE: Duration = Duration::from_secs(120);
/// Bytes of one datagram.
pub const DATAGRAM: usize = u16::MAX as usize;

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an address, as the instance sees it.
    pub host: String,
    /// Which port.
    pub port: u16,
    /// Datagrams, not a connection.
    pub udp: bool,
}

/// Connects from inside the instance and pumps until both directions have ended.
///
/// # Errors
/// A sentence for the asker, if there is no connection to be had.
pub async fn serve<S>(runtime: &dyn Runtime, lease: &str, target: &Target, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Target { host, port, udp } = target;
    if *port == 0 || host.is_empty() || host.len() > limits::HOST_NAME_BYTES {
        return Err("that is no host and port to connect to".to_owned());
    }
    if *udp {
        let socket = runtime.dial_udp(lease, host, *port).await.map_err(|e| e.to_string())?;
        send(stream, &Frame::Ready).await?;
        datagrams(&socket, stream).await.ok();
        return Ok(());
    }
    let mut connected = runtime.dial(lease, host, *port).await.map_err(|e| e.to_string())?;
    send(stream, &Frame::Ready).await?;
    // Ended by either side, in whatever way: after `Ready` there are no sentences any more.
    tokio::io::copy_bidirectional_with_sizes(stream, &mut connected, PIECE, PIECE).await.ok();
    Ok(())
}

/// Pumps datagrams between a socket and a stream until the stream ends or nothing has come for a while.
///
/// # Errors
/// The stream's.
pub async fn datagrams<S: AsyncRead + AsyncWrite + Unpin>(socket: &UdpSocket, stream: &mut S) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let last = std::sync::Mutex::new(Instant::now());
    let touch = || *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    let up = async {
        while let Some(datagram) = read_datagram(&mut from).await? {
            touch();
            // A port that nobody listens on, or a datagram too large for the way: lost, as datagrams are.
            socket.send(&datagram).await.ok();
        }
        Ok::<(), io::Error>(())
    };
    let down = async {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            // A refusal of an earlier datagram comes as an error here, and is over with it.
            let Ok(length) = socket.recv(&mut buffer).await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            touch();
            write_datagram(&mut to, &buffer[..length]).await?;
        }
    };
    let idle = async {
        loop {
            let until = *last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + UDP_IDLE;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
        () = idle => Ok(()),
    }
}

/// The next datagram of a stream; none at its end.
///
/// # Errors
/// The stream's.
pub async fn read_datagram<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 2];
    if from.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[1..]).await?;
    let mut datagram = vec![0; usize::from(u16::from_be_bytes(header))];
    from.read_exact(&mut datagram).await?;
    Ok(Some(datagram))
}

/// Writes one datagram of at most [`DATAGRAM`] bytes.
///
/// # Errors
/// The stream's; `InvalidInput` for one too long.
pub async fn write_datagram<W: AsyncWrite + Unpin>(to: &mut W, datagram: &[u8]) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + datagram.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(datagram);
    to.write_all(&framed).await?;
    to.flush().await
}
