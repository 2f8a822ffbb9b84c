//! Guests' bridges taken down while the firewall isn't in force, and the kernel's word that some rule has changed.
//!
//! Knows bridges by the beginning of their names, and nothing of what the rules are.

use std::fs;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;

/// Netlink's multicast group of changes to nftables (`NFNLGRP_NFTABLES`), as a bit of the mask.
const GROUP: u32 = 1 << (7 - 1);
/// Pieces of news read at once; what they say is of no interest.
const PIECE: usize = 8192;
/// The flag of an interface that is up.
const UP: u64 = 1;
const IP_WITHIN: Duration = Duration::from_secs(10);

/// News of changes to the machine's nftables.
#[derive(Debug)]
pub(crate) struct RulesWatch(UnixDatagram);

impl RulesWatch {
    /// Begins to listen. Needs a tokio runtime with I/O.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        // Datagrams of another family, received by the same call.
        Ok(Self(UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))?))
    }

    /// Returns when something has changed, of any table. News that did not fit the kernel's buffer is news as well.
    pub(crate) async fn changed(&self) {
        let mut piece = [0_u8; PIECE];
        if let Err(error) = self.0.recv(&mut piece).await {
            tracing::debug!(%error, "news of the firewall was lost");
        }
        // Of one change there are many pieces.
        while self.0.try_recv(&mut piece).is_ok() {}
    }
}

/// Takes the bridges whose names begin so down, or up again; those that are so already stay untouched.
pub(crate) async fn set_bridges(prefix: &str, up: bool) {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return;
    };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if !name.starts_with(prefix) || is_up(&name).is_none_or(|now| now == up) {
            continue;
        }
        tracing::warn!(bridge = %name, up, "a guest's network is switched");
        let state = if up { "up" } else { "down" };
        let mut command = tokio::process::Command::new("ip");
        command
            .args(["link", "set", "dev", &name, state])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        match tokio::time::timeout(IP_WITHIN, command.status()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => tracing::error!(bridge = %name, %status, "a guest's network could not be switched"),
            Ok(Err(error)) => tracing::error!(bridge = %name, %error, "ip can't be run; install iproute2"),
            Err(_) => tracing::error!(bridge = %name, "ip did not end in time"),
        }
    }
}

/// Whether an interface is up; `None` where it is gone.
fn is_up(name: &str) -> Option<bool> {
    let flags = fs::read_to_string(format!("/sys/class/net/{name}/flags")).ok()?;
    let flags = u64::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok()?;
    Some(flags & UP == UP)
}
