//! Where peers can be reached: a bounded address book, and the rule of which addresses to believe.
//!
//! Pure: it dials nobody. An address is hearsay until a connection over it shows who is there.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::limits::{MAX_ADDRESSES, MAX_KNOWN_PEERS};

/// From how far an address can be reached; the narrowest is smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// This machine.
    Loopback,
    /// One network of somebody's.
    Private,
    /// Everywhere.
    Global,
}

fn scope_of_v4(ip: Ipv4Addr) -> Option<Scope> {
    if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() {
        None
    } else if ip.is_private() || ip.is_link_local() || is_shared(ip) {
        Some(Scope::Private)
    } else {
        Some(Scope::Global)
    }
}

/// 100.64.0.0/10: behind a carrier's NAT, and the addresses of overlay VPNs.
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

fn scope_of_v6(ip: Ipv6Addr) -> Option<Scope> {
    if let Some(v4) = ip.to_ipv4_mapped() {
        scope_of_v4(v4)
    } else if ip.is_loopback() {
        Some(Scope::Loopback)
    } else if ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Some(Scope::Private)
    } else {
        Some(Scope::Global)
    }
}

/// The scope of an IP address; none if nobody can be dialled there.
pub(crate) fn scope_of_ip(ip: IpAddr) -> Option<Scope> {
    match ip {
        IpAddr::V4(ip) => scope_of_v4(ip),
        IpAddr::V6(ip) => scope_of_v6(ip),
    }
}

/// The scope of an address that this node can dial; none for any other: unknown transports, ports of zero, a relay's relay.
///
/// A relayed address (`RELAY/p2p/ID/p2p-circuit`, perhaps with `/p2p/…` after it) reaches as far as the relay's.
pub(crate) fn scope(address: &Multiaddr) -> Option<Scope> {
    let parts: Vec<Protocol<'_>> = address.iter().take(MAX_PARTS + 1).collect();
    match parts.iter().position(|p| matches!(p, Protocol::P2pCircuit)) {
        None => direct_scope(&parts),
        Some(at) => {
            let (relay, after) = parts.split_at(at);
            let named = matches!(relay.last(), Some(Protocol::P2p(_)));
            let ends = matches!(after, [_] | [_, Protocol::P2p(_)]);
            direct_scope(relay).filter(|_| named && ends)
        }
    }
}

/// Parts of the longest address that is dialled: IP, UDP, QUIC and peer of a relay, the circuit, and the peer behind it.
const MAX_PARTS: usize = 6;

#[allow(clippy::wildcard_enum_match_arm, reason = "multiaddr knows some forty protocols; two transports are ours")]
fn direct_scope(parts: &[Protocol<'_>]) -> Option<Scope> {
    let (first, rest) = parts.split_first()?;
    let scope = match first {
        Protocol::Ip4(ip) => scope_of_ip((*ip).into())?,
        Protocol::Ip6(ip) => scope_of_ip((*ip).into())?,
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) => Scope::Global,
        _ => return None,
    };
    match rest {
        [Protocol::Tcp(port)] | [Protocol::Tcp(port), Protocol::P2p(_)] if *port != 0 => Some(scope),
        [Protocol::Udp(port), Protocol::QuicV1] | [Protocol::Udp(port), Protocol::QuicV1, Protocol::P2p(_)]
            if *port != 0 =>
        {
            Some(scope)
        }
        _ => None,
    }
}

/// Whether an address is dialled over QUIC, which runs over UDP.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// Whether an address, or the remote end of a connection, leads through a relay.
pub(crate) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|p| matches!(p, Protocol::P2pCircuit))
}

/// The TCP or UDP port of an address.
#[allow(clippy::wildcard_enum_match_arm, reason = "multiaddr knows some forty protocols; two of them have ports")]
pub(crate) fn port_of(address: &Multiaddr) -> Option<u16> {
    address.iter().find_map(|part| match part {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some(port),
        _ => None,
    })
}

/// The IP address with which an address begins.
#[allow(clippy::wildcard_enum_match_arm, reason = "multiaddr knows some forty protocols; two of them are IP addresses")]
pub(crate) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    }
}

/// Whether to believe `address`, told by a peer over a connection to or from `over`: only if it reaches at least as far as that
/// connection. So nobody on the internet makes us dial our own machine or our neighbours, while nodes of one machine or one
/// network find each other.
pub(crate) fn is_credible(address: &Multiaddr, over: &Multiaddr) -> bool {
    let over = connection_scope(over);
    scope(address).is_some_and(|scope| scope >= over)
}

/// The scope of the remote end of a connection, whatever its port.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "multiaddr knows some forty protocols; only IP addresses have a scope"
)]
fn connection_scope(remote: &Multiaddr) -> Scope {
    let scope = match remote.iter().next() {
        Some(Protocol::Ip4(ip)) => scope_of_ip(ip.into()),
        Some(Protocol::Ip6(ip)) => scope_of_ip(ip.into()),
        _ => None,
    };
    scope.unwrap_or(Scope::Global)
}

/// `address` without the `/p2p/…` at its end.
pub(crate) fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[derive(Debug, Default)]
struct Known {
    /// The newest last.
    addresses: Vec<Multiaddr>,
    used: u64,
    pinned: bool,
    /// This node has dialled it, and found it there.
    met: bool,
}

/// Addresses of one peer that are kept over a restart.
const KEPT_ADDRESSES: usize = 4;

/// Addresses of peers: at most [`MAX_ADDRESSES`] each, of at most [`MAX_KNOWN_PEERS`] that are not pinned.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    peers: HashMap<PeerId, Known>,
    clock: u64,
}

impl AddressBook {
    fn touch(&mut self, peer: PeerId) -> &mut Known {
        self.clock += 1;
        let known = self.peers.entry(peer).or_default();
        known.used = self.clock;
        known
    }

    /// Notes an address of `peer`; the newest is tried first.
    pub(crate) fn add(&mut self, peer: PeerId, address: Multiaddr) {
        let address = without_peer(address);
        let known = self.touch(peer);
        known.addresses.retain(|other| *other != address);
        known.addresses.push(address);
        if known.addresses.len() > MAX_ADDRESSES {
            known.addresses.remove(0);
        }
        self.shrink();
    }

    /// Notes that `peer` answered where it was dialled.
    pub(crate) fn met(&mut self, peer: PeerId, address: Multiaddr) {
        self.add(peer, address);
        self.touch(peer).met = true;
    }

    /// The peers that answered where they were dialled, at most so many, those of late first, each with its direct addresses.
    pub(crate) fn worth_keeping(&self, most: usize) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut met: Vec<(&PeerId, &Known)> = self.peers.iter().filter(|(_, known)| known.met).collect();
        met.sort_unstable_by_key(|(_, known)| std::cmp::Reverse(known.used));
        let direct = |known: &Known| -> Vec<Multiaddr> {
            known.addresses.iter().rev().filter(|a| !is_relayed(a)).take(KEPT_ADDRESSES).cloned().collect()
        };
        let all = met.into_iter().map(|(peer, known)| (*peer, direct(known)));
        all.filter(|(_, addresses)| !addresses.is_empty()).take(most).collect()
    }

    /// The addresses of `peer`, newest first, relayed ones last.
    pub(crate) fn of(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        if self.peers.contains_key(peer) {
            let mut addresses: Vec<Multiaddr> = self.touch(*peer).addresses.iter().rev().cloned().collect();
            addresses.sort_by_key(is_relayed);
            addresses
        } else {
            Vec::new()
        }
    }

    /// A pinned peer is never forgotten to make room.
    pub(crate) fn pin(&mut self, peer: PeerId, pinned: bool) {
        if pinned || self.peers.contains_key(&peer) {
            self.touch(peer).pinned = pinned;
            self.shrink();
        }
    }

    /// Forgets the quarter used longest ago when there are too many, so that a flood costs a scan only now and then.
    fn shrink(&mut self) {
        if self.peers.len() <= MAX_KNOWN_PEERS {
            return;
        }
        let mut ages: Vec<u64> = self.peers.values().filter(|known| !known.pinned).map(|known| known.used).collect();
        ages.sort_unstable();
        if let Some(limit) = ages.get(ages.len() / 4).copied() {
            self.peers.retain(|_, known| known.pinned || known.used > limit);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_what_can_be_dialled_has_a_scope() {
        for (text, expected) in [
            ("/ip4/127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/ip4/10.1.2.3/udp/9/quic-v1", Some(Scope::Private)),
            ("/ip4/100.100.0.1/tcp/1", Some(Scope::Private)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::Global)),
            ("/ip6/fd00::1/tcp/1", Some(Scope::Private)),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Some(Scope::Loopback)),
            ("/dns4/example.org/tcp/4001", Some(Scope::Global)),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip4/8.8.8.8/tcp/0", None),
            ("/ip4/8.8.8.8/udp/1", None),
            ("/ip4/8.8.8.8/tcp/1/ws", None),
            ("/memory/7", None),
            ("/ip4/8.8.8.8/tcp/1/p2p-circuit", None),
            ("/p2p-circuit", None),
        ] {
            assert_eq!(scope(&at(text)), expected, "{text}");
        }
    }

    #[test]
    fn a_relayed_address_reaches_as_far_as_its_relay() {
        let (relay, node) = (PeerId::random(), PeerId::random());
        let via = |before: &str, after: &str| at(&format!("{before}/p2p/{relay}/p2p-circuit{after}"));
        let quic = "/ip4/8.8.8.8/udp/1/quic-v1";
        assert_eq!(scope(&via(quic, "")), Some(Scope::Global));
        assert_eq!(scope(&via(quic, &format!("/p2p/{node}"))), Some(Scope::Global));
        assert_eq!(scope(&via("/ip4/10.0.0.1/tcp/7", "")), Some(Scope::Private));
        assert_eq!(scope(&via(quic, &format!("/p2p/{node}/p2p-circuit"))), None);
        assert_eq!(scope(&via(quic, "/tcp/1")), None);
        assert!(!is_credible(&via("/ip4/10.0.0.1/tcp/7", ""), &at("/ip4/8.8.8.8/tcp/1")));
    }

    #[test]
    fn a_stranger_cannot_send_us_to_our_own_machine() {
        let loopback = at("/ip4/127.0.0.1/tcp/22");
        let lan = at("/ip4/192.168.1.1/tcp/80");
        let global = at("/ip4/9.9.9.9/tcp/4001");
        let far = at("/ip4/8.8.8.8/udp/5/quic-v1");
        assert!(!is_credible(&loopback, &far));
        assert!(!is_credible(&lan, &far));
        assert!(is_credible(&global, &far));
        let near = at("/ip4/192.168.1.7/tcp/5");
        assert!(!is_credible(&loopback, &near));
        assert!(is_credible(&lan, &near));
        assert!(is_credible(&loopback, &at("/ip4/127.0.0.1/tcp/5")));
    }

    #[test]
    fn those_who_answered_are_worth_keeping_and_relayed_addresses_are_not() {
        let mut book = AddressBook::default();
        let (met, heard_of, behind) = (PeerId::random(), PeerId::random(), PeerId::random());
        let direct = at("/ip4/8.8.8.8/tcp/1");
        book.add(heard_of, direct.clone());
        book.met(behind, at(&format!("/ip4/8.8.8.8/tcp/1/p2p/{met}/p2p-circuit")));
        book.met(met, direct.clone());
        assert_eq!(book.worth_keeping(9), [(met, vec![direct])]);
        assert!(book.worth_keeping(0).is_empty());
    }

    #[test]
    fn the_book_is_bounded_and_keeps_what_is_pinned() {
        let mut book = AddressBook::default();
        let kept = PeerId::random();
        book.add(kept, at("/ip4/127.0.0.1/tcp/1"));
        book.pin(kept, true);
        for _ in 0..2 * MAX_KNOWN_PEERS {
            book.add(PeerId::random(), at("/ip4/127.0.0.1/tcp/1"));
        }
        assert!(book.peers.len() <= MAX_KNOWN_PEERS);
        for port in 1..=100 {
            book.add(kept, at(&format!("/ip4/127.0.0.1/tcp/{port}")));
        }
        let addresses = book.of(&kept);
        assert_eq!(addresses.len(), MAX_ADDRESSES);
        assert_eq!(addresses[0], at("/ip4/127.0.0.1/tcp/100"));
    }
}
