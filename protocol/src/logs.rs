//! Places in an instance's output, so that a reader who lost its stream goes on where it was.
//!
//! A piece of output is named by which output it is of, the engine's time of it in nanoseconds, and how many pieces of that output
//! came before it at that very time. The host numbers them anew whenever it reads, so it remembers nothing of its readers.

use serde::{Deserialize, Serialize};

use crate::{encode::DecodeError, limits};

/// From where on one output is wanted: what has this time and at least this number, and everything later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPoint {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// How many pieces of this time are not wanted.
    pub next: u32,
}

impl LogPoint {
    /// Everything from this time on.
    #[must_use]
    pub const fn from_time(at: u64) -> Self {
        Self { at, next: 0 }
    }

    /// Whether a piece is wanted.
    #[must_use]
    pub const fn wants(self, at: u64, nth: u32) -> bool {
        at > self.at || (at == self.at && nth >= self.next)
    }

    /// What is wanted once this piece has been read.
    #[must_use]
    pub const fn after(at: u64, nth: u32) -> Self {
        Self { at, next: nth.saturating_add(1) }
    }

    /// Whether this is the piece read last before this point.
    #[must_use]
    pub const fn follows(self, at: u64, nth: u32) -> bool {
        self.next > 0 && at == self.at && nth == self.next - 1
    }
}

/// From where on both outputs are wanted. They are written by two threads, so only within each of them time does not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogPosition {
    /// Standard output.
    pub stdout: LogPoint,
    /// Standard error.
    pub stderr: LogPoint,
}

impl LogPosition {
    /// Of one output.
    #[must_use]
    pub const fn of(&self, stderr: bool) -> LogPoint {
        if stderr { self.stderr } else { self.stdout }
    }

    /// The same, to be moved.
    pub const fn of_mut(&mut self, stderr: bool) -> &mut LogPoint {
        if stderr { &mut self.stderr } else { &mut self.stdout }
    }

    /// The earliest time at which anything is wanted.
    #[must_use]
    pub fn earliest(&self) -> u64 {
        self.stdout.at.min(self.stderr.at)
    }

    /// As the content of a frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let point = |p: LogPoint| [p.at.to_be_bytes().as_slice(), &p.next.to_be_bytes()].concat();
        [point(self.stdout), point(self.stderr)].concat()
    }

    /// From the content of a frame; none if it is not one.
    #[must_use]
    pub fn from_bytes(content: &[u8]) -> Option<Self> {
        fn point(bytes: &[u8]) -> Option<(LogPoint, &[u8])> {
            let (at, rest) = bytes.split_first_chunk::<8>()?;
            let (next, rest) = rest.split_first_chunk::<4>()?;
            Some((LogPoint { at: u64::from_be_bytes(*at), next: u32::from_be_bytes(*next) }, rest))
        }
        let (stdout, rest) = point(content)?;
        let (stderr, rest) = point(rest)?;
        rest.is_empty().then_some(Self { stdout, stderr })
    }

    /// Where both want no more than either does.
    #[must_use]
    pub fn later_of(self, other: Self) -> Self {
        Self { stdout: self.stdout.max(other.stdout), stderr: self.stderr.max(other.stderr) }
    }
}

/// A piece of output with its place: a line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// Of standard error, not standard output.
    pub stderr: bool,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// How many pieces of the same output and time came before it.
    pub nth: u32,
    /// The bytes, the line's end with them.
    pub bytes: Vec<u8>,
}

impl LogPiece {
    /// Bytes before the output's own.
    const HEAD: usize = 13;
    /// Bytes of output in one piece at most.
    pub const BYTES: usize = limits::FRAME_BYTES - Self::HEAD;

    /// As the content of a frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEAD + self.bytes.len());
        bytes.push(u8::from(self.stderr));
        bytes.extend_from_slice(&self.at.to_be_bytes());
        bytes.extend_from_slice(&self.nth.to_be_bytes());
        bytes.extend_from_slice(&self.bytes);
        bytes
    }

    /// From the content of a frame.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] if it is none.
    pub fn from_bytes(mut content: Vec<u8>) -> Result<Self, DecodeError> {
        let malformed = || DecodeError::Malformed("a piece of output without its place".to_owned());
        let (stderr, rest) = content.split_first().ok_or_else(malformed)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let nth = rest.first_chunk::<4>().ok_or_else(malformed)?;
        if *stderr > 1 {
            return Err(malformed());
        }
        let (stderr, at, nth) = (*stderr == 1, u64::from_be_bytes(*at), u32::from_be_bytes(*nth));
        Ok(Self { stderr, at, nth, bytes: content.split_off(Self::HEAD) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often a reader is cut off, and wherever, it gets every piece once, in order.
        #[test]
        fn a_cut_reader_goes_on_without_gap_or_repeat(
            steps in proptest::collection::vec((any::<bool>(), 0u64..3), 1..60),
            cuts in proptest::collection::vec(1usize..20, 0..12),
        ) {
            let mut clock = [1000u64, 1000];
            let log: Vec<(bool, u64)> = steps.iter().map(|(stderr, passed)| {
                let at = &mut clock[usize::from(*stderr)];
                *at += passed;
                (*stderr, *at)
            }).collect();
            let (mut position, mut read) = (LogPosition::default(), Vec::new());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let mut last = [(0, 0); 2];
                let mut got = 0;
                for (index, (stderr, at)) in log.iter().enumerate() {
                    let (known, nth) = &mut last[usize::from(*stderr)];
                    *nth = if *known == *at { *nth + 1 } else { 0 };
                    *known = *at;
                    if got < cut && position.of(*stderr).wants(*at, *nth) {
                        *position.of_mut(*stderr) = LogPoint::after(*at, *nth);
                        prop_assert!(position.of(*stderr).follows(*at, *nth));
                        read.push(index);
                        got += 1;
                    }
                }
            }
            prop_assert_eq!(read, (0..log.len()).collect::<Vec<_>>());
        }

        #[test]
        fn pieces_come_back_and_junk_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(piece) = LogPiece::from_bytes(bytes.clone()) {
                prop_assert_eq!(piece.to_bytes(), bytes);
            }
        }
    }
}
