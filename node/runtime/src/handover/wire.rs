//! The messages of a handover: one byte of kind, a 32-bit big-endian length, and so many bytes.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{HandoverError, MAX_CONFIG, MAX_LAYERS, PIECE};
use crate::reference::is_digest;
use crate::report::FailureCode;

/// Bytes of a message that is no piece and no configuration.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of a sentence.
const MAX_SENTENCE: usize = 512;

/// A layer that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its place in the offer.
    pub index: usize,
    /// The first byte that is missing.
    pub from: u64,
}

/// What is wanted of an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Want {
    /// Layers, each digest once.
    pub layers: Vec<Wanted>,
}

/// The head of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerHead {
    /// Its place in the offer.
    pub index: usize,
    /// The first byte that follows.
    pub from: u64,
    /// Bytes of the whole layer, unpacked.
    pub bytes: u64,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    code: FailureCode,
    sentence: String,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Digests of the unpacked layers, lowest first.
    Offer(Vec<String>),
    /// What is wanted of them.
    Want(Want),
    /// A layer follows.
    Layer(LayerHead),
    /// Bytes of it.
    Raw(Vec<u8>),
    /// Bytes of it, compressed (raw deflate), at most [`PIECE`] unpacked.
    Deflated(Vec<u8>),
    /// The image's configuration.
    Config(Vec<u8>),
    /// A layer is whole.
    Got(usize),
    /// All is there; the engine works on it. Comes again from time to time.
    Loading,
    /// The image is there.
    Done,
    /// No.
    Refused(FailureCode, String),
}

impl Message {
    /// The answer to an offer.
    pub(super) fn want(self) -> Result<Want, HandoverError> {
        if let Self::Want(want) = self {
            return Ok(want);
        }
        if let Self::Refused(code, sentence) = self {
            return Err(HandoverError::Refused { code, sentence });
        }
        Err(HandoverError::Protocol("an offer was not answered"))
    }

    /// The length of a piece, and whether it is compressed.
    pub(super) const fn piece(&self) -> (usize, bool) {
        if let Self::Deflated(bytes) = self {
            return (bytes.len(), true);
        }
        if let Self::Raw(bytes) = self { (bytes.len(), false) } else { (0, false) }
    }
}

fn text<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain structs in memory always serialise; an empty text would be refused by the other side.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Writes a message.
///
/// # Errors
/// [`HandoverError::Stream`].
pub async fn write<W: AsyncWrite + Unpin>(to: &mut W, message: &Message) -> Result<(), HandoverError> {
    let built;
    let (kind, body): (u8, &[u8]) = match message {
        Message::Offer(layers) => {
            built = text(layers);
            (1, &built)
        }
        Message::Want(want) => {
            built = text(want);
            (2, &built)
        }
        Message::Layer(head) => {
            built = text(head);
            (3, &built)
        }
        Message::Raw(bytes) => (4, bytes),
        Message::Deflated(bytes) => (5, bytes),
        Message::Config(bytes) => (6, bytes),
        Message::Got(index) => {
            built = text(index);
            (7, &built)
        }
        Message::Loading => (8, &[]),
        Message::Done => (9, &[]),
        Message::Refused(code, sentence) => {
            built = text(&Refusal { code: *code, sentence: sentence.chars().take(MAX_SENTENCE / 4).collect() });
            (10, &built)
        }
    };
    let mut head = [kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    let sent = async {
        to.write_all(&head).await?;
        to.write_all(body).await?;
        to.flush().await
    };
    sent.await.map_err(HandoverError::Stream)
}

/// Reads a message.
///
/// # Errors
/// [`HandoverError::Stream`], also at the end of the stream; [`HandoverError::Protocol`] for what is none.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> Result<Message, HandoverError> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await.map_err(HandoverError::Stream)?;
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    let most = match kind {
        4 | 5 => PIECE,
        6 => MAX_CONFIG,
        _ => MAX_TEXT,
    };
    if length > most {
        return Err(HandoverError::Protocol("a message is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await.map_err(HandoverError::Stream)?;
    parse(kind, body)
}

fn parse(kind: u8, body: Vec<u8>) -> Result<Message, HandoverError> {
    let malformed = || HandoverError::Protocol("a message is malformed");
    fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, HandoverError> {
        serde_json::from_slice(body).map_err(|_| HandoverError::Protocol("a message is malformed"))
    }
    Ok(match kind {
        1 => {
            let layers: Vec<String> = json(&body)?;
            if layers.is_empty() || layers.len() > MAX_LAYERS || !layers.iter().all(|digest| is_digest(digest)) {
                return Err(HandoverError::Protocol("an image has 1 to 127 layers, each named by a digest"));
            }
            Message::Offer(layers)
        }
        2 => {
            let want: Want = json(&body)?;
            if want.layers.len() > MAX_LAYERS {
                return Err(malformed());
            }
            Message::Want(want)
        }
        3 => Message::Layer(json(&body)?),
        4 => Message::Raw(body),
        5 => Message::Deflated(body),
        6 => Message::Config(body),
        7 => Message::Got(json(&body)?),
        8 if body.is_empty() => Message::Loading,
        9 if body.is_empty() => Message::Done,
        10 => {
            let refusal: Refusal = json(&body)?;
            let plain = refusal.sentence.chars().filter(|c| !c.is_control()).take(MAX_SENTENCE / 4).collect();
            Message::Refused(refusal.code, plain)
        }
        _ => return Err(malformed()),
    })
}

/// What a closed stream is.
pub(super) fn ended() -> HandoverError {
    HandoverError::Stream(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn messages_come_back_and_bounds_hold() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let all = [
            Message::Offer(vec![digest.clone()]),
            Message::Want(Want { layers: vec![Wanted { index: 0, from: 7 }] }),
            Message::Layer(LayerHead { index: 0, from: 7, bytes: 9 }),
            Message::Raw(vec![1; PIECE]),
            Message::Deflated(vec![2]),
            Message::Config(vec![3; 4]),
            Message::Got(0),
            Message::Loading,
            Message::Done,
            Message::Refused(FailureCode::ImageTooLarge, "no".to_owned()),
        ];
        let mut bytes = Vec::new();
        for message in &all {
            write(&mut bytes, message).await.unwrap();
        }
        let mut from = bytes.as_slice();
        for message in &all {
            assert_eq!(read(&mut from).await.unwrap(), *message);
        }
        assert!(matches!(read(&mut from).await, Err(HandoverError::Stream(_))));
        let offer = |layers: Vec<String>| parse(1, text(&layers));
        assert!(offer(vec![]).is_err() && offer(vec![digest; MAX_LAYERS + 1]).is_err());
        assert!(offer(vec!["../../etc".to_owned()]).is_err());
        for head in [[4, 0, 4, 0, 1], [1, 0, 1, 0, 1], [6, 0, 16, 0, 1], [99, 0, 0, 0, 0]] {
            assert!(matches!(read(&mut head.as_slice()).await, Err(HandoverError::Protocol(_))), "{head:?}");
        }
    }
}
