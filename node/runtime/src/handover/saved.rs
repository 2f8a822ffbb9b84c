//! An engine's own archive of an image, read as it comes: entries with their names, sizes and content.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};

use super::HandoverError;
use super::tar::{BLOCK, Header, padding};

/// The archive of an engine, as a stream of its bytes.
pub(super) struct Saved<S> {
    stream: S,
    rest: Bytes,
    /// Content and padding of the entry at hand that was not read.
    content: u64,
    padding: u64,
}

fn broken(why: impl std::fmt::Display) -> HandoverError {
    HandoverError::Archive(why.to_string())
}

impl<S: Stream<Item = Result<Bytes, bollard::errors::Error>> + Unpin> Saved<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, rest: Bytes::new(), content: 0, padding: 0 }
    }

    /// At most so many bytes; none at the end.
    async fn some(&mut self, most: u64) -> Result<Bytes, HandoverError> {
        while self.rest.is_empty() {
            match self.stream.next().await {
                Some(piece) => self.rest = piece.map_err(|error| HandoverError::Failed(crate::error::classify(&error)))?,
                None => return Ok(Bytes::new()),
            }
        }
        let part = self.rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        Ok(self.rest.split_to(part))
    }

    /// The next plain file: its name and size. What else there is, is left out.
    pub(super) async fn next_file(&mut self) -> Result<Option<(String, u64)>, HandoverError> {
        let mut long: Option<Vec<u8>> = None;
        loop {
            while self.read().await?.is_some() {}
            let mut left = std::mem::take(&mut self.padding);
            while left > 0 {
                let skipped = self.some(left).await?.len() as u64;
                if skipped == 0 {
                    return Err(broken("it ends too early"));
                }
                left -= skipped;
            }
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                let part = self.some((BLOCK - filled) as u64).await?;
                if part.is_empty() {
                    return if filled == 0 { Ok(None) } else { Err(broken("it ends too early")) };
                }
                block[filled..filled + part.len()].copy_from_slice(&part);
                filled += part.len();
            }
            let Some(header) = Header::parse(&block).map_err(broken)? else {
                // The engine's stream is read to its end, so that it knows that all was taken.
                while !self.some(u64::MAX).await?.is_empty() {}
                return Ok(None);
            };
            (self.content, self.padding) = (header.size, padding(header.size));
            match header.kind {
                b'x' | b'L' => long = self.long_name(header.kind).await?,
                0 | b'0' | b'7' => {
                    let name = long.take().unwrap_or(header.name);
                    return Ok(Some((String::from_utf8_lossy(&name).into_owned(), header.size)));
                }
                _ => long = None,
            }
        }
    }

    /// A name that has no room in a header.
    async fn long_name(&mut self, kind: u8) -> Result<Option<Vec<u8>>, HandoverError> {
        let text = self.whole(1 << 20).await?;
        if kind == b'L' {
            return Ok(text.split(|byte| *byte == 0).next().map(<[u8]>::to_vec));
        }
        let path = text.split(|byte| *byte == b'\n').find_map(|record| {
            let blank = record.iter().position(|byte| *byte == b' ')?;
            record.get(blank + 1..)?.strip_prefix(b"path=").map(<[u8]>::to_vec)
        });
        Ok(path)
    }

    /// Further content of the file at hand.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, HandoverError> {
        if self.content == 0 {
            return Ok(None);
        }
        let part = self.some(self.content).await?;
        if part.is_empty() {
            return Err(broken("it ends too early"));
        }
        self.content -= part.len() as u64;
        Ok(Some(part))
    }

    /// The whole content of a small file.
    pub(super) async fn whole(&mut self, most: u64) -> Result<Vec<u8>, HandoverError> {
        if self.content > most {
            return Err(broken("an entry is too long"));
        }
        let mut all = Vec::new();
        while let Some(part) = self.read().await? {
            all.extend_from_slice(&part);
        }
        Ok(all)
    }
}
