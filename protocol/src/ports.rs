//! Public ports: what a renter asks for, what a host has, and what a lease grants.
//!
//! Owns their words and bounds. Which number a lease gets is the host's ([`crate::machine::host`]); who listens there is the node's.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{limits, signed::Invalid};

/// A port of an instance that shall be reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRequest {
    /// The port inside.
    pub port: u16,
    /// Datagrams, not connections.
    pub udp: bool,
    /// The public port wanted; none for any.
    pub public: Option<u16>,
}

/// Why a text is no [`PortRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is written PORT, HOST_PORT:PORT, or with /udp after it, as in 8080, 40001:80 or 5353/udp")]
pub struct BadPort;

impl FromStr for PortRequest {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let (ports, udp) = match text.split_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err(BadPort),
        };
        let (public, port) = ports.split_once(':').map_or((None, ports), |(public, port)| (Some(public), port));
        Ok(Self { port: number(port)?, udp, public: public.map(number).transpose()? })
    }
}

impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(public) = self.public {
            write!(f, "{public}:")?;
        }
        write!(f, "{}{}", self.port, if self.udp { "/udp" } else { "" })
    }
}

fn number(text: &str) -> Result<u16, BadPort> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0).ok_or(BadPort)
}

/// Checks what a renter asks for.
///
/// # Errors
/// Says what makes no sense in it.
pub fn check_requests(requests: &[PortRequest]) -> Result<(), Invalid> {
    Invalid::unless(requests.len() <= limits::PORTS, "more than 16 public ports are asked for")?;
    Invalid::unless(requests.iter().all(|r| r.port != 0 && r.public != Some(0)), "0 is no port")?;
    let inside = requests.iter().map(|r| (r.port, r.udp)).collect();
    Invalid::unless(all_different(inside), "a port is asked for twice")?;
    let wanted = requests.iter().filter_map(|r| r.public).collect();
    Invalid::unless(all_different(wanted), "the same public port is asked for twice")
}

fn all_different<T: Ord>(mut list: Vec<T>) -> bool {
    list.sort_unstable();
    list.windows(2).all(|pair| pair[0] != pair[1])
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no [`PortRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a range of ports is written 40000-40100, from 1024 on and with at most 4096 ports")]
pub struct BadRange;

impl PortRange {
    /// From the first to the last.
    ///
    /// # Errors
    /// [`BadRange`] if it is empty, too long, or has ports that belong to the system.
    pub const fn new(first: u16, last: u16) -> Result<Self, BadRange> {
        let most = first as u32 + limits::PUBLIC_PORTS as u32;
        if first < 1024 || last < first || last as u32 >= most { Err(BadRange) } else { Ok(Self { first, last }) }
    }

    /// Whether a port is in it.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports it has.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.last - self.first + 1
    }

    /// All of them, from the `n`th on and around.
    pub fn from_nth(self, n: u64) -> impl Iterator<Item = u16> {
        // Below the count, which fits.
        let start = u16::try_from(n % u64::from(self.count())).unwrap_or(0);
        (self.first + start..=self.last).chain(self.first..self.first + start)
    }
}

impl FromStr for PortRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| number(text.trim()).map_err(|_| BadRange);
        Self::new(port(first)?, port(last)?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a host has for its guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicPorts {
    /// The address others reach them at: an IP address or a name.
    pub address: String,
    /// The ports.
    pub range: PortRange,
}

/// A port of an instance, and where it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicPort {
    /// At the host's public address.
    pub public: u16,
    /// The port inside.
    pub port: u16,
    /// Datagrams, not connections.
    pub udp: bool,
}

/// The public ports a lease grants, for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicAccess {
    /// The host's public address.
    pub address: String,
    /// In the order they were asked for.
    pub ports: Vec<PublicPort>,
}

impl PublicAccess {
    /// Checks address and ports.
    ///
    /// # Errors
    /// Says what makes no sense.
    pub fn check(&self) -> Result<(), Invalid> {
        check_address(&self.address)?;
        let some = !self.ports.is_empty() && self.ports.len() <= limits::PORTS;
        Invalid::unless(
            some && self.ports.iter().all(|p| p.port != 0 && p.public != 0),
            "its public ports make no sense",
        )?;
        let public = self.ports.iter().map(|p| p.public).collect();
        Invalid::unless(all_different(public), "it grants one public port twice")
    }

    /// Whether these are the ports asked for.
    #[must_use]
    pub fn grants(&self, requests: &[PortRequest]) -> bool {
        let fits = |(granted, asked): (&PublicPort, &PortRequest)| {
            (granted.port, granted.udp) == (asked.port, asked.udp)
                && asked.public.is_none_or(|wanted| wanted == granted.public)
        };
        self.ports.len() == requests.len() && self.ports.iter().zip(requests).all(fits)
    }
}

/// Checks a public address: an IP address, or a name of letters, digits, dots and dashes.
///
/// # Errors
/// [`Invalid`] for anything else.
pub fn check_address(address: &str) -> Result<(), Invalid> {
    let label =
        |l: &str| !l.is_empty() && !l.starts_with('-') && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let name = address.len() <= limits::HOST_NAME_BYTES && address.split('.').all(label);
    Invalid::unless(address.parse::<IpAddr>().is_ok() || name, "the public address is neither an IP address nor a name")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn requests_are_read_as_they_are_written() {
        for (text, port, udp, public) in [
            ("80", 80, false, None),
            ("40001:80", 80, false, Some(40001)),
            ("53/udp", 53, true, None),
            ("1:2/udp", 2, true, Some(1)),
        ] {
            let read: PortRequest = text.parse().unwrap();
            assert_eq!(read, PortRequest { port, udp, public });
            assert_eq!(read.to_string(), text);
        }
        assert_eq!("80/tcp".parse::<PortRequest>().unwrap().to_string(), "80");
        for text in ["", "0", "65536", "+80", "80:", ":80", "80/sctp", "1:2:3", "80/udp/tcp", "x"] {
            assert_eq!(text.parse::<PortRequest>(), Err(BadPort), "{text}");
        }
        let twice = ["80".parse().unwrap(), "81:80".parse().unwrap()];
        assert!(check_requests(&twice).is_err());
        let both = ["80".parse().unwrap(), "80/udp".parse().unwrap()];
        assert!(check_requests(&both).is_ok());
    }

    #[test]
    fn ranges_are_bounded_and_go_around() {
        let range: PortRange = "40000-40003".parse().unwrap();
        assert_eq!((range.count(), range.contains(40003), range.contains(40004)), (4, true, false));
        assert_eq!(range.from_nth(6).collect::<Vec<_>>(), [40002, 40003, 40000, 40001]);
        assert_eq!(PortRange::new(65535, 65535).unwrap().from_nth(7).collect::<Vec<_>>(), [65535]);
        for text in ["", "80-90", "40003-40000", "1024-65535", "40000", "-"] {
            assert_eq!(text.parse::<PortRange>().is_ok(), text == "40000", "{text}");
        }
    }

    #[test]
    fn addresses_are_addresses_or_names() {
        for good in ["203.0.113.7", "2001:db8::1", "box.example.net", "localhost"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a..b", "-x", "x\n", "http://x", "x:80"] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
