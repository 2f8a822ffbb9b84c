//! One attempt to deliver one event: posted to a URL, or handed to a program.
//!
//! Owns what an attempt may take and what its end means. When to try again, and what waits, is [`super::task`]'s.

pub mod program;
pub mod webhook;

use std::time::Duration;

/// Bytes kept of what a receiver or program says: the first of a response, the last of a program's output.
pub const KEPT: usize = 4096;

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Delivered,
    /// It is tried again; not before this, if the receiver asked for time.
    Again(Option<Duration>),
    /// It is not tried again.
    Never,
    /// The receiver wants nothing any more.
    Gone,
}

/// An attempt that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What follows.
    pub verdict: Verdict,
    /// What became of it, for people; nothing secret.
    pub outcome: String,
    /// HTTP status or exit code.
    pub code: Option<i32>,
    /// What was said.
    pub output: String,
}

impl Attempt {
    fn failed(outcome: impl Into<String>) -> Self {
        Self { verdict: Verdict::Again(None), outcome: outcome.into(), code: None, output: String::new() }
    }
}
