//! Names as the instance knows them: its hosts file and its resolvers.
//!
//! Prints addresses, one a line, so that the host's node never asks its own resolver for a guest.

use std::io::Write as _;
use std::net::ToSocketAddrs as _;

use crate::say;

/// Addresses printed at most.
const MOST: usize = 8;

/// Prints a name's addresses, and gives the exit code.
pub fn run(name: &str) -> u8 {
    match (name, 0).to_socket_addrs() {
        Ok(found) => {
            let mut out = std::io::stdout();
            for address in found.take(MOST) {
                let _ = writeln!(out, "{}", address.ip());
            }
            0
        }
        Err(error) => {
            say(&format!("{name}: {error}"));
            1
        }
    }
}
