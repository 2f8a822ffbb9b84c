//! Hearing a worker: its words, bounded in length and number. Rubbish is an error, and the end of the run.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

use crate::message::{MAX_WORD, Word, decode};

/// Words that wait. When full the worker isn't heard until there is room.
const WORDS: usize = 16;
/// Words that may come at once, and each second in the long run.
const AT_ONCE: u64 = 64;
const A_SECOND: u64 = 20;

/// Hears until the worker has gone or said what no worker says.
pub(super) fn listen(mut socket: OwnedReadHalf) -> mpsc::Receiver<io::Result<Word>> {
    let (sender, words) = mpsc::channel(WORDS);
    tokio::spawn(async move {
        let began = Instant::now();
        for count in 0.. {
            let word = match next(&mut socket).await {
                Ok(None) => return,
                Ok(Some(_)) if too_many(count, began.elapsed()) => Err(io::Error::other("it says too much")),
                Ok(Some(word)) => Ok(word),
                Err(error) => Err(error),
            };
            let last = word.is_err();
            if sender.send(word).await.is_err() || last {
                return;
            }
        }
    });
    words
}

fn too_many(count: u64, passed: Duration) -> bool {
    count > AT_ONCE.saturating_add(passed.as_secs().saturating_mul(A_SECOND))
}

async fn next(socket: &mut OwnedReadHalf) -> io::Result<Option<Word>> {
    let mut head = [0_u8; 4];
    match socket.read_exact(&mut head).await {
        Ok(_) => {}
        // Its end, in an orderly way or not.
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX_WORD {
        return Err(io::Error::other("it says words that are too long"));
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    decode(&body).map(Some)
}
