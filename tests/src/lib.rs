//! Worlds to run the crates in.
//!
//! [`sim`] runs the pure engine, hundreds of nodes to a process, in virtual time over a network that loses and reorders.
//! [`world`] runs real `souk` processes over real sockets with a real container engine: [`node`] owns one process, [`docker`]
//! the engines, [`images`] what they run, [`registry`] an image registry, [`ssh`] OpenSSH's programs, [`sshd`] its server, [`program`] finds and runs
//! programs, [`netns`] visitors from elsewhere, [`homes`] an internet of machines behind NATs, [`lan`] a local network without one, [`attack`] a peer that keeps to no rule, [`echo`] who visits servers, [`part`] says what this machine lacks, [`watch`] counts what runs, [`wait`] waits
//! with an end. They
//! panic where something does not work, since that is how a test fails.

pub mod attack;
pub mod docker;
pub mod echo;
pub mod export;
pub mod homes;
pub mod images;
pub mod lan;
pub mod netns;
pub mod node;
pub mod part;
pub mod program;
pub mod registry;
pub mod sim;
pub mod ssh;
pub mod sshd;
pub mod wait;
pub mod watch;
pub mod world;
