//! IPv4 ranges, and the choice of a free /29 for an instance's network.
//!
//! Owns no state: what is taken is read from the kernel's routes and the engine's networks each time, so two nodes on one
//! machine stay out of each other's way.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Addresses of an instance's network: network, gateway, guest, broadcast and room for none.
const INSTANCE_PREFIX: u8 = 29;

/// An IPv4 range, its host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    first: u32,
    prefix: u8,
}

/// Not a range like `10.231.0.0/16`.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{0:?} is not an IPv4 range; write it like 10.231.0.0/16")]
pub struct CidrError(String);

impl Cidr {
    /// The range of so many leading bits that holds an address; a prefix over 32 counts as 32.
    #[must_use]
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = if prefix > 32 { 32 } else { prefix };
        Self { first: u32::from_be_bytes(address.octets()) & mask(prefix), prefix }
    }

    /// Leading bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its first address.
    #[must_use]
    pub const fn first(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first)
    }

    /// Whether an address lies in it.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        u32::from_be_bytes(address.octets()) & mask(self.prefix) == self.first
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        let shorter = if self.prefix < other.prefix { self.prefix } else { other.prefix };
        self.first & mask(shorter) == other.first & mask(shorter)
    }

    /// The gateway of an instance's network: its first usable address.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.wrapping_add(1))
    }

    /// The instance's own address in its network: the one after the gateway.
    #[must_use]
    pub const fn guest(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.wrapping_add(2))
    }
}

const fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CidrError(text.chars().take(64).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        let range = Self::new(address, prefix);
        if prefix > 32 || range.first() != address {
            return Err(error());
        }
        Ok(range)
    }
}

impl TryFrom<String> for Cidr {
    type Error = CidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

/// A /29 of the pool that overlaps nothing in use, looking from a place that depends on the lease; `None` when the pool is full.
#[must_use]
pub fn choose(pool: Cidr, seed: u64, used: &[Cidr]) -> Option<Cidr> {
    let count = 1_u64 << INSTANCE_PREFIX.checked_sub(pool.prefix)?;
    let size = 1_u32 << (32 - INSTANCE_PREFIX);
    (0..count)
        .filter_map(|step| {
            let index = u32::try_from((seed % count + step) % count).ok()?;
            let first = pool.first.checked_add(index.checked_mul(size)?)?;
            Some(Cidr { first, prefix: INSTANCE_PREFIX })
        })
        .find(|candidate| !used.iter().any(|range| range.overlaps(*candidate)))
}

/// A route of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: Cidr,
    /// The interface.
    pub interface: String,
    /// Whether its addresses are neighbours, reached without a gateway.
    pub attached: bool,
}

/// The kernel's IPv4 routes of the main table; the default route is left out.
#[must_use]
pub fn routes() -> Vec<Route> {
    std::fs::read_to_string("/proc/net/route").map_or_else(|_| Vec::new(), |text| parse_routes(&text))
}

fn parse_routes(text: &str) -> Vec<Route> {
    let address = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::from_be);
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let interface = fields.next()?.to_owned();
            let to = address(fields.next()?)?;
            let gateway = address(fields.next()?)?;
            let mask = address(fields.nth(4)?)?;
            let prefix = u8::try_from(mask.count_ones()).ok()?;
            (prefix > 0).then(|| Route {
                to: Cidr::new(Ipv4Addr::from_bits(to), prefix),
                interface,
                attached: gateway == 0,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Cidr, choose, parse_routes};

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges() {
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.231.4.0/29")));
        assert!(!cidr("10.231.0.0/29").overlaps(cidr("10.231.0.8/29")));
        assert!(cidr("0.0.0.0/0").contains("9.9.9.9".parse().unwrap()));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0", "x/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_full_pool_says_so_and_taken_ranges_are_avoided() {
        let pool = cidr("10.231.0.0/27");
        let mut used = vec![cidr("10.231.0.8/30")];
        let mut got = Vec::new();
        while let Some(range) = choose(pool, 2, &used) {
            used.push(range);
            got.push(range);
        }
        assert_eq!(got, [cidr("10.231.0.16/29"), cidr("10.231.0.24/29"), cidr("10.231.0.0/29")]);
    }

    #[test]
    fn the_kernels_table_is_read() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    veth\t09090909\t020012C6\t0007\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        let routes = parse_routes(text);
        assert_eq!(routes.len(), 2);
        assert_eq!(routes[0].to, cidr("192.0.2.0/24"));
        assert!(routes[0].attached);
        assert_eq!(routes[1].to, cidr("9.9.9.9/32"));
        assert!(!routes[1].attached);
    }
}
