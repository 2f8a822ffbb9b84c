//! Worlds to run souk in: what the tests of the whole share.

pub mod sim;
