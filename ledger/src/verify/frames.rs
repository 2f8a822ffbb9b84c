//! Cutting an export into frames, and hashing it on the way.

use std::io::{self, BufReader};

use souk_protocol::Digest;

use super::Fault;
use crate::export::FRAME_BYTES;

/// One frame's content and where it was.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) record: u64,
    pub(super) body: Vec<u8>,
}

/// A one-entry CBOR map whose key is `trailer`.
const TRAILER: &[u8] = b"\xa1\x67trailer";

impl Frame {
    pub(super) fn is_trailer(&self) -> bool {
        self.body.starts_with(TRAILER)
    }

    pub(super) fn fault(&self, what: impl Into<String>) -> Fault {
        Fault { offset: self.offset, record: self.record, what: what.into() }
    }
}

/// What comes next.
pub(super) enum Read {
    Frame(Frame),
    /// The file ends between two frames.
    End,
    /// The file ends within a frame.
    Cut,
    /// The next frame is empty, or longer than any may be.
    TooLong,
}

/// Frames of a file.
pub(super) struct Frames<R> {
    reader: BufReader<R>,
    hasher: blake3::Hasher,
    /// Hash of everything before the last frame read.
    before: blake3::Hasher,
    offset: u64,
    record: u64,
}

impl<R: io::Read> Frames<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: BufReader::with_capacity(256 << 10, reader),
            hasher: blake3::Hasher::new(),
            before: blake3::Hasher::new(),
            offset: 0,
            record: 0,
        }
    }

    pub(super) fn next_frame(&mut self) -> io::Result<Read> {
        let mut len = [0; 4];
        match self.fill(&mut len)? {
            0 => return Ok(Read::End),
            4 => {}
            _ => return Ok(Read::Cut),
        }
        let size = u32::from_le_bytes(len) as usize;
        if size == 0 || size > FRAME_BYTES {
            return Ok(Read::TooLong);
        }
        let mut body = vec![0; size];
        if self.fill(&mut body)? < size {
            return Ok(Read::Cut);
        }
        let frame = Frame { offset: self.offset, record: self.record, body };
        if frame.is_trailer() {
            self.before = self.hasher.clone();
        }
        self.hasher.update(&len).update(&frame.body);
        self.offset += 4 + size as u64;
        self.record += 1;
        Ok(Read::Frame(frame))
    }

    /// Whether nothing follows.
    pub(super) fn at_end(&mut self) -> io::Result<bool> {
        Ok(self.fill(&mut [0])? == 0)
    }

    /// Hash of everything before the trailer, once that was read.
    pub(super) fn digest(&self) -> Digest {
        Digest(*self.before.finalize().as_bytes())
    }

    /// Something wrong at the place of the next frame.
    pub(super) fn fault(&self, what: &str) -> Fault {
        Fault { offset: self.offset, record: self.record, what: what.to_owned() }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match io::Read::read(&mut self.reader, &mut buffer[read..]) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(read)
    }
}
