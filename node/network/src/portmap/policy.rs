//! Which ports are worth asking for, and when to ask again. Pure.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use libp2p::Multiaddr;

use super::is_private;
use crate::peers::{Scope, ip_of, is_quic, port_of, scope};

/// Ports asked of one router.
const PORTS: usize = 8;
/// Before a router that did not answer, or said no, is asked again: the first time, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(3600));

/// A port at which this node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    /// UDP, for QUIC; else TCP.
    pub(super) udp: bool,
    /// This machine's address on the router's network.
    pub(super) ip: Ipv4Addr,
    pub(super) number: u16,
}

/// Whether the node is behind something that could be a router: it listens on an address of a private network, and on none of the
/// internet's.
pub(super) fn is_at_home(listening: &[Multiaddr]) -> bool {
    let any = |wanted: Scope| listening.iter().any(|a| scope(a) == Some(wanted));
    any(Scope::Private) && !any(Scope::Global)
}

/// The ports that the router at whose network this machine has the address `inside` could let through.
pub(super) fn wanted(listening: &[Multiaddr], inside: Ipv4Addr) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for address in listening {
        let number =
            port_of(address).filter(|_| ip_of(address) == Some(IpAddr::V4(inside)) && is_private(inside.into()));
        let port = number.map(|number| Port { udp: is_quic(address), ip: inside, number });
        if let Some(port) = port.filter(|port| !ports.contains(port) && ports.len() < PORTS) {
            ports.push(port);
        }
    }
    ports
}

/// Waits that double.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = AGAIN.0.saturating_mul(1 << self.0.min(8)).min(AGAIN.1);
        self.0 = self.0.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn all(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn a_router_is_asked_at_home_and_nowhere_else() {
        assert!(is_at_home(&all(&["/ip4/127.0.0.1/tcp/7", "/ip4/192.168.1.2/tcp/7"])));
        for elsewhere in [
            &["/ip4/127.0.0.1/udp/7/quic-v1"][..],
            &["/ip4/192.168.1.2/tcp/7", "/ip4/8.8.4.4/tcp/7"],
            &["/ip6/::1/tcp/7"],
            &[],
        ] {
            assert!(!is_at_home(&all(elsewhere)), "{elsewhere:?}");
        }
    }

    #[test]
    fn ports_of_the_routers_network_are_asked_for_once_each() {
        let listening = all(&[
            "/ip4/127.0.0.1/tcp/7843",
            "/ip4/172.17.0.1/tcp/7843",
            "/ip4/192.168.1.2/tcp/7843",
            "/ip4/192.168.1.2/tcp/7843",
            "/ip4/192.168.1.2/udp/7843/quic-v1",
        ]);
        let inside = Ipv4Addr::new(192, 168, 1, 2);
        let port = |udp| Port { udp, ip: inside, number: 7843 };
        assert_eq!(wanted(&listening, inside), [port(false), port(true)]);
        assert!(wanted(&listening, Ipv4Addr::new(192, 168, 1, 9)).is_empty());
        // A router that says this machine is on the internet, or is itself the machine.
        assert!(wanted(&all(&["/ip4/127.0.0.1/tcp/7"]), Ipv4Addr::LOCALHOST).is_empty());
        let many: Vec<Multiaddr> = (1..100).map(|p| format!("/ip4/192.168.1.2/tcp/{p}").parse().unwrap()).collect();
        assert_eq!(wanted(&many, inside).len(), PORTS);
    }

    #[test]
    fn silence_is_waited_out_longer_and_longer() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..40).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(waits[..5], [300, 600, 1200, 2400, 3600]);
        assert!(waits[5..].iter().all(|w| *w == 3600));
    }
}
