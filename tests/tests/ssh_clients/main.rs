//! SSH as other people's programs use it: a client in Rust, rsync, SOCKS, VS Code's way, Ansible; in images of every kind; and
//! clients that mean harm.
#![allow(clippy::unwrap_used, clippy::panic)]

mod ansible;
mod debian;
mod direct;
mod hostile;
mod images;
mod sftp;

/// Waits for nothing but its end.
const IDLE: &str = "while :; do sleep 1; done";

/// A port of this machine that nobody listens on.
fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
