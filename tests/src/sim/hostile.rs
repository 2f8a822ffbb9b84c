//! Peers who lie.
