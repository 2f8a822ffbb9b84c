//! What the two sides say: a kind byte, a 32-bit big-endian length, and so many bytes; numbers in them are big-endian.
//!
//! Written by hand rather than with the encoder of the signed documents, because the helper inside instances is to stay small.

use std::io::{self, Read, Write};

use crate::{DIGESTS, EXCLUDES, Error, NAME_BYTES, PATH_BYTES, PIECE, Summary, is_name};

/// Version of this language, the first byte of an [`Open`].
pub const VERSION: u8 = 1;
/// Bytes of a sentence.
const SENTENCE_BYTES: usize = 1024;
/// Bytes of the longest message.
const BODY_BYTES: usize = 13 + 32 * DIGESTS as usize;
/// The kind of [`Message::Data`].
pub(crate) const DATA: u8 = 6;
/// The kind of [`Message::Have`], the only one that may be longer than [`PIECE`].
pub(crate) const HAVE: u8 = 15;
/// Kind and length.
pub(crate) const HEADER: usize = 5;

/// A digest of a chunk of a file.
pub type Digest = [u8; 32];

/// What the asker wants of the other side; the first message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Open {
    /// The asked side is the source; else the sink.
    pub send: bool,
    /// The path at the asked side.
    pub path: Vec<u8>,
    /// For a sink: the name below `path`; empty where `path` itself is the target.
    pub name: Vec<u8>,
    /// For a sink with a name: a file becomes `path` itself where that is no folder.
    pub rename: bool,
    /// For a source: what is left out.
    pub excludes: Vec<Vec<u8>>,
}

/// What a file, folder or link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The nine permission bits.
    pub mode: u16,
    /// Seconds of its last change.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// A message. Names are single components; that of the root is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first.
    Open(Open),
    /// How much there is, once it has been counted.
    Total {
        /// Files, folders, links.
        entries: u64,
        /// Bytes of the files.
        bytes: u64,
    },
    /// What follows is in this folder, until it is left.
    Folder(Meta, Vec<u8>),
    /// The end of a folder.
    Leave,
    /// A file of so many bytes, to be answered.
    File(Meta, u64, Vec<u8>),
    /// A symbolic link: name and target.
    Link(Meta, Vec<u8>, Vec<u8>),
    /// The next bytes of the file at hand.
    Data(Vec<u8>),
    /// So many zero bytes.
    Hole(u64),
    /// The next so many chunks are those of the sink.
    Same(u64),
    /// The file at hand is whole; or was changed while it was read.
    End {
        /// It may be neither the old nor the new state.
        changed: bool,
    },
    /// The file at hand is what the sink has.
    Equal,
    /// The file at hand can't be read.
    Gone(String),
    /// Something isn't copied.
    Problem(String),
    /// The source has nothing more.
    Finished,
    /// The sink has nothing of a file.
    Want,
    /// What the sink has of a file: its length, bytes per digest, and the digests.
    Have(u64, u32, Vec<Digest>),
    /// The sink can't take a file.
    Skip,
    /// The sink has all.
    Done(Summary),
    /// It can't be gone on: the disk is full, or the sentence says why.
    Failed {
        /// No space left.
        full: bool,
        /// For people.
        why: String,
    },
    /// How far a copy is that goes on elsewhere; only whoever passes it on says so.
    Progress(Progressed),
}

/// The counters of a copy; those of [`crate::Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progressed {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes in place.
    pub bytes: u64,
    /// Of these, bytes that were sent.
    pub moved: u64,
    /// Entries there are; 0 while unknown.
    pub total_entries: u64,
    /// Bytes there are; 0 while unknown.
    pub total_bytes: u64,
}

impl Message {
    fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => 0,
            Self::Total { .. } => 1,
            Self::Folder(..) => 2,
            Self::Leave => 3,
            Self::File(..) => 4,
            Self::Link(..) => 5,
            Self::Data(_) => 6,
            Self::Hole(_) => 7,
            Self::Same(_) => 8,
            Self::End { .. } => 9,
            Self::Equal => 10,
            Self::Gone(_) => 11,
            Self::Problem(_) => 12,
            Self::Finished => 13,
            Self::Want => 14,
            Self::Have(..) => 15,
            Self::Skip => 16,
            Self::Done(_) => 17,
            Self::Failed { .. } => 18,
            Self::Progress(_) => 19,
        }
    }

    /// As bytes, header included.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&[self.kind(), 0, 0, 0, 0]);
        match self {
            Self::Open(open) => {
                out.extend_from_slice(&[VERSION, u8::from(open.send), u8::from(open.rename)]);
                put(&mut out, &open.path);
                put(&mut out, &open.name);
                for pattern in &open.excludes {
                    put(&mut out, pattern);
                }
            }
            Self::Total { entries, bytes } => numbers(&mut out, &[*entries, *bytes]),
            Self::Folder(meta, name) => {
                meta.put(&mut out);
                out.extend_from_slice(name);
            }
            Self::File(meta, size, name) => {
                meta.put(&mut out);
                numbers(&mut out, &[*size]);
                out.extend_from_slice(name);
            }
            Self::Link(meta, name, target) => {
                meta.put(&mut out);
                put(&mut out, name);
                out.extend_from_slice(target);
            }
            Self::Data(bytes) => out.extend_from_slice(bytes),
            Self::Hole(n) | Self::Same(n) => numbers(&mut out, &[*n]),
            Self::End { changed } => out.push(u8::from(*changed)),
            Self::Gone(words) | Self::Problem(words) => sentence(&mut out, words),
            Self::Have(length, chunk, digests) => {
                numbers(&mut out, &[*length]);
                out.extend_from_slice(&chunk.to_be_bytes());
                out.extend(digests.iter().flatten());
            }
            Self::Done(s) => numbers(&mut out, &[s.entries, s.unchanged, s.bytes, s.moved, s.problems]),
            Self::Progress(p) => {
                numbers(&mut out, &[p.entries, p.bytes, p.moved, p.total_entries, p.total_bytes]);
            }
            Self::Failed { full, why } => {
                out.push(u8::from(*full));
                sentence(&mut out, why);
            }
            Self::Leave | Self::Equal | Self::Finished | Self::Want | Self::Skip => {}
        }
        let length = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
        out[1..HEADER].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// A message from its kind and content; none for what is no message.
    #[must_use]
    pub fn from_parts(kind: u8, body: Vec<u8>) -> Option<Self> {
        if kind == 6 {
            return (!body.is_empty() && body.len() <= PIECE).then_some(Self::Data(body));
        }
        let mut rest = Cursor(&body);
        let message = match kind {
            0 => rest.open()?,
            1 => Self::Total { entries: rest.u64()?, bytes: rest.u64()? },
            2 => Self::Folder(rest.meta()?, rest.name()?),
            3 => Self::Leave,
            4 => Self::File(rest.meta()?, rest.u64()?, rest.name()?),
            5 => {
                let (meta, name) = (rest.meta()?, rest.text(NAME_BYTES)?);
                let target = rest.all();
                let fine = (name.is_empty() || is_name(&name)) && is_path(&target);
                return fine.then_some(Self::Link(meta, name, target));
            }
            7 => Self::Hole(rest.u64()?),
            8 => Self::Same(rest.u64()?),
            9 => Self::End { changed: rest.flag()? },
            10 => Self::Equal,
            11 => Self::Gone(rest.sentence()?),
            12 => Self::Problem(rest.sentence()?),
            13 => Self::Finished,
            14 => Self::Want,
            15 => {
                let (length, chunk) = (rest.u64()?, rest.u32()?);
                let (digests, tail) = rest.0.as_chunks::<32>();
                let whole = tail.is_empty() && digests.len() <= DIGESTS as usize;
                return whole.then(|| Self::Have(length, chunk, digests.to_vec()));
            }
            16 => Self::Skip,
            17 => {
                let mut next = || rest.u64();
                Self::Done(Summary {
                    entries: next()?,
                    unchanged: next()?,
                    bytes: next()?,
                    moved: next()?,
                    problems: next()?,
                })
            }
            18 => Self::Failed { full: rest.flag()?, why: rest.sentence()? },
            19 => {
                let mut next = || rest.u64();
                Self::Progress(Progressed {
                    entries: next()?,
                    bytes: next()?,
                    moved: next()?,
                    total_entries: next()?,
                    total_bytes: next()?,
                })
            }
            _ => return None,
        };
        rest.0.is_empty().then_some(message)
    }
}

fn is_path(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.len() < PATH_BYTES && !bytes.contains(&0)
}

fn numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// A text with its length before it.
fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

fn sentence(out: &mut Vec<u8>, words: &str) {
    out.extend_from_slice(&words.as_bytes()[..words.floor_char_boundary(SENTENCE_BYTES)]);
}

impl Meta {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.mode.to_be_bytes());
        out.extend_from_slice(&self.seconds.to_be_bytes());
        out.extend_from_slice(&self.nanoseconds.to_be_bytes());
    }
}

/// What is left to read of a message.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.take()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn meta(&mut self) -> Option<Meta> {
        let meta = Meta {
            mode: u16::from_be_bytes(self.take()?),
            seconds: i64::from_be_bytes(self.take()?),
            nanoseconds: self.u32()?,
        };
        (meta.mode <= 0o777 && meta.nanoseconds < 1_000_000_000).then_some(meta)
    }

    fn name(&mut self) -> Option<Vec<u8>> {
        let name = self.all();
        (name.is_empty() || is_name(&name)).then_some(name)
    }

    fn text(&mut self, most: usize) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        if length > most {
            return None;
        }
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text.to_vec())
    }

    fn sentence(&mut self) -> Option<String> {
        let words = self.all();
        (words.len() <= SENTENCE_BYTES).then(|| crate::shown(&words))
    }

    fn open(&mut self) -> Option<Message> {
        if self.take()? != [VERSION] {
            return None;
        }
        let (send, rename) = (self.flag()?, self.flag()?);
        let (path, name) = (self.text(PATH_BYTES)?, self.text(NAME_BYTES)?);
        let mut excludes = Vec::new();
        while !self.0.is_empty() {
            if excludes.len() == EXCLUDES {
                return None;
            }
            excludes.push(self.text(PATH_BYTES)?);
        }
        let fine = is_path(&path) && (name.is_empty() || is_name(&name));
        fine.then_some(Message::Open(Open { send, path, name, rename, excludes }))
    }
}

/// Bytes of what follows a header.
pub(crate) fn body_length(header: [u8; HEADER]) -> Result<usize, Error> {
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > BODY_BYTES || (header[0] != HAVE && length > PIECE) {
        return Err(Error::Violation("a message is too long"));
    }
    Ok(length)
}

/// Reads the next message.
///
/// # Errors
/// [`Error::Cut`] at the end or a fault of the stream, [`Error::Violation`] for what is no message.
pub fn read(from: &mut impl Read) -> Result<Message, Error> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header).map_err(Error::Cut)?;
    let length = body_length(header)?;
    let mut body = vec![0; length];
    from.read_exact(&mut body).map_err(Error::Cut)?;
    Message::from_parts(header[0], body).ok_or(Error::Violation("a message makes no sense"))
}

/// Writes a message.
///
/// # Errors
/// [`Error::Cut`].
pub fn write(to: &mut impl Write, message: &Message) -> Result<(), Error> {
    if let Message::Data(bytes) = message {
        // Not copied once more.
        return data(to, bytes);
    }
    to.write_all(&message.to_bytes()).map_err(Error::Cut)
}

/// Writes bytes of a file, at most [`PIECE`] of them.
///
/// # Errors
/// [`Error::Cut`].
pub fn data(to: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    let header = [6, length[0], length[1], length[2], length[3]];
    to.write_all(&header).and_then(|()| to.write_all(bytes)).map_err(Error::Cut)
}

/// The other side is told why it can't be gone on, if it still listens.
pub fn fail(to: &mut impl Write, error: &Error) {
    if matches!(error, Error::Cut(_) | Error::Other(_)) {
        return;
    }
    let full = matches!(error, Error::Full(_));
    let told = write(to, &Message::Failed { full, why: error.to_string() });
    if told.is_ok() {
        let _: io::Result<()> = to.flush();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn samples() -> Vec<Message> {
        let meta = Meta { mode: 0o755, seconds: -5, nanoseconds: 999_999_999 };
        let open = Open {
            send: true,
            path: b"/a".to_vec(),
            name: b"b".to_vec(),
            rename: true,
            excludes: vec![b"*.o".to_vec(), Vec::new()],
        };
        vec![
            Message::Open(open),
            Message::Total { entries: 1, bytes: u64::MAX },
            Message::Folder(meta, Vec::new()),
            Message::Leave,
            Message::File(meta, 7, b"\xff name".to_vec()),
            Message::Link(meta, b"l".to_vec(), b"../x".to_vec()),
            Message::Data(vec![1; 10]),
            Message::Hole(1 << 40),
            Message::Same(3),
            Message::End { changed: true },
            Message::Equal,
            Message::Gone("no".to_owned()),
            Message::Problem("why".to_owned()),
            Message::Finished,
            Message::Want,
            Message::Have(5, 1 << 20, vec![[7; 32]]),
            Message::Skip,
            Message::Done(Summary { entries: 1, unchanged: 2, bytes: 3, moved: 4, problems: 5 }),
            Message::Failed { full: true, why: "full".to_owned() },
            Message::Progress(Progressed { entries: 1, bytes: 2, moved: 3, total_entries: 4, total_bytes: u64::MAX }),
        ]
    }

    #[test]
    fn messages_pass() {
        let mut bytes = Vec::new();
        for message in samples() {
            write(&mut bytes, &message).unwrap();
        }
        let mut from = bytes.as_slice();
        for message in samples() {
            assert_eq!(read(&mut from).unwrap(), message);
        }
        assert!(matches!(read(&mut from), Err(Error::Cut(_))));
    }

    #[test]
    fn hostile_names_are_no_messages() {
        let meta = Meta::default();
        for name in [&b".."[..], b"a/b", b".", b"/etc/passwd", b"a\0"] {
            for message in [
                Message::Folder(meta, name.to_vec()),
                Message::File(meta, 1, name.to_vec()),
                Message::Link(meta, name.to_vec(), b"x".to_vec()),
            ] {
                let bytes = message.to_bytes();
                assert!(matches!(read(&mut bytes.as_slice()), Err(Error::Violation(_))), "{message:?}");
            }
        }
        let setuid = Message::File(Meta { mode: 0o4755, ..meta }, 1, b"su".to_vec()).to_bytes();
        assert!(matches!(read(&mut setuid.as_slice()), Err(Error::Violation(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(message) = Message::from_parts(kind, body.clone()) {
                let again = message.to_bytes();
                prop_assert_eq!(again[0], kind);
            }
        }
    }
}
