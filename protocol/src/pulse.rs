//! What the renter's meter asks a program in the instance, and what that answers: lines of text over a stream of the host's node.
//!
//! Owns the two lines. What follows from an answer is [`crate::machine::renter_lease::heartbeat`]'s.

use std::str::FromStr;

use crate::{machine::renter_lease::heartbeat::Pulse, time::Millis};

/// Bytes that a line may have, its end included.
pub const LINE_BYTES: usize = 128;

/// A question of this number: sixteen hexadecimal digits.
#[must_use]
pub fn question(number: u64) -> String {
    format!("{number:016x}\n")
}

/// The answer to a question: its number, the number of the process that answers, and for how many milliseconds that has been awake and
/// the instance's first process has been there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which question.
    pub number: u64,
    /// What it says.
    pub pulse: Pulse,
}

/// A line that is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what came from the instance is no answer to a question of its renter's meter")]
pub struct NotAnAnswer;

impl FromStr for Answer {
    type Err = NotAnAnswer;

    fn from_str(line: &str) -> Result<Self, NotAnAnswer> {
        let words: Vec<&str> = line.split(' ').take(5).collect();
        let [number, process, awake, up] = words.as_slice() else { return Err(NotAnAnswer) };
        let hex = |word: &str| {
            let fits = word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
            u64::from_str_radix(word, 16).ok().filter(|_| fits).ok_or(NotAnAnswer)
        };
        let time = |word: &str| {
            let fits = word.bytes().all(|b| b.is_ascii_digit());
            word.parse().ok().filter(|_| fits).map(Millis).ok_or(NotAnAnswer)
        };
        Ok(Self { number: hex(number)?, pulse: Pulse { process: hex(process)?, awake: time(awake)?, up: time(up)? } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_nothing_else_is() {
        assert_eq!(question(255), "00000000000000ff\n");
        let answer: Result<Answer, _> = "00000000000000ff 0123456789abcdef 30000 61000".parse();
        let pulse = Pulse { process: 0x0123_4567_89ab_cdef, awake: Millis(30_000), up: Millis(61_000) };
        assert_eq!(answer, Ok(Answer { number: 255, pulse }));
        for wrong in [
            "",
            "00000000000000ff",
            "ff 0123456789abcdef 1 2",
            "00000000000000ff 0123456789abcdef 1 -2",
            "00000000000000ff 0123456789abcdef 1 +2",
            "00000000000000ff 0123456789abcdef  2",
            "00000000000000ff 0123456789abcdef 1 99999999999999999999",
            "00000000000000ff 0123456789abcdef 1 2 3",
            "+0000000000000ff 0123456789abcdef 1 2",
        ] {
            assert_eq!(wrong.parse::<Answer>(), Err(NotAnAnswer), "{wrong}");
        }
    }
}
