//! Worlds to run the crates in.
//!
//! [`world`] runs real `souk` processes over real sockets with a real container engine: [`node`] owns one process, [`docker`]
//! the engines, [`program`] finds and runs programs, [`part`] says what this machine lacks, [`wait`] waits with an end. They
//! panic where something does not work, since that is how a test fails.

pub mod docker;
pub mod export;
pub mod node;
pub mod part;
pub mod program;
pub mod wait;
pub mod world;
