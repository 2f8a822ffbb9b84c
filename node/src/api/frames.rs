//! Frames of log and exec streams over any byte stream.

use std::io;

use souk_protocol::message::Frame;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads one frame; none at a clean end.
///
/// # Errors
/// The stream's, `UnexpectedEof` if it ends inside a frame, `InvalidData` for what is no frame.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Frame>> {
    let mut header = [0; Frame::HEADER];
    let first = stream.read(&mut header[..1]).await?;
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..]).await?;
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    let mut content = vec![0; Frame::content_len(&header).map_err(invalid)?];
    stream.read_exact(&mut content).await?;
    Frame::from_parts(header[0], content).map(Some).map_err(invalid)
}

/// Writes one frame.
///
/// # Errors
/// The stream's.
pub async fn write<W: AsyncWrite + Unpin>(stream: &mut W, frame: &Frame) -> io::Result<()> {
    stream.write_all(&frame.to_bytes()).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn frames_pass_and_cut_ones_are_noticed() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        write(&mut near, &Frame::Stdout(b"hello".to_vec())).await.unwrap();
        write(&mut near, &Frame::Exit(7)).await.unwrap();
        near.write_all(&[3, 0, 0]).await.unwrap();
        drop(near);
        assert_eq!(read(&mut far).await.unwrap(), Some(Frame::Stdout(b"hello".to_vec())));
        assert_eq!(read(&mut far).await.unwrap(), Some(Frame::Exit(7)));
        assert_eq!(read(&mut far).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
