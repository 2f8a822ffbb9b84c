//! The rules of the market as state machines without I/O.
//!
//! Each takes inputs with a time and yields outputs in order; a shell around it (the node, or a simulator) carries the outputs
//! out. None of them reads a clock, draws randomness, signs before its record is asked to be stored, or panics on any input.

pub mod record;
pub mod search;
