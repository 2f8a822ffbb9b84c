//! What a node tells its peers of itself when that changes: whether it relays, and where it is reached.
//!
//! Identify's push says the same, and is lost over QUIC: its sender closes the stream at once, which stops the other side's
//! confirmation of the protocol. This goes as a request.
//!
//! ```text
//! relays u8 (0 or 1) | (length u16 BE | address)*
//! ```
//! Owns the bytes. Which of the addresses are believed is decided as with those that identify tells.

use libp2p::Multiaddr;

use crate::limits::MAX_ADDRESSES;

/// Bytes of the longest address that is told or taken.
pub(crate) const MAX_ADDRESS: usize = 256;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) relays: bool,
    /// At most [`MAX_ADDRESSES`].
    pub(crate) addresses: Vec<Multiaddr>,
}

impl News {
    /// Whether a request is news: its first byte begins no address, as one asks for a dial-back with.
    pub(crate) fn is_meant(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|first| *first <= 1)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.relays)];
        for address in self.addresses.iter().filter(|a| a.len() <= MAX_ADDRESS).take(MAX_ADDRESSES) {
            let length = u16::try_from(address.len()).unwrap_or_default();
            bytes.extend(length.to_be_bytes());
            bytes.extend(address.as_ref());
        }
        bytes
    }

    /// None for what is not wholly in order.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (relays, mut rest) = match bytes.split_first()? {
            (0, rest) => (false, rest),
            (1, rest) => (true, rest),
            _ => return None,
        };
        let mut addresses = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 || length > MAX_ADDRESS || addresses.len() == MAX_ADDRESSES {
                return None;
            }
            let (address, after) = after.split_at_checked(length)?;
            addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
            rest = after;
        }
        rest.is_empty().then_some(Self { relays, addresses })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn news() -> News {
        let addresses = ["/ip4/8.8.4.4/udp/9/quic-v1", "/ip6/2001:4860::1/tcp/1/p2p-circuit"];
        News { relays: true, addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() }
    }

    #[test]
    fn it_comes_back_and_is_no_address() {
        for news in [news(), News { relays: false, addresses: Vec::new() }] {
            let bytes = news.to_bytes();
            assert!(News::is_meant(&bytes));
            assert_eq!(News::from_bytes(&bytes), Some(news));
        }
        for address in ["/ip4/1.2.3.4/tcp/1", "/ip6/::1/udp/1", "/dns/example.com/tcp/1"] {
            assert!(!News::is_meant(&address.parse::<Multiaddr>().unwrap().to_vec()));
        }
    }

    #[test]
    fn what_is_cut_off_too_many_or_no_address_is_none() {
        let bytes = news().to_bytes();
        for length in 0..bytes.len() {
            let whole = length == 1 || length == 1 + 2 + news().addresses[0].len();
            assert_eq!(News::from_bytes(&bytes[..length]).is_some(), whole, "{length}");
        }
        assert_eq!(News::from_bytes(&[1, 0, 2, 0xff, 0xff]), None);
        assert_eq!(News::from_bytes(&[1, 0, 0]), None);
        let many = News { relays: true, addresses: vec![news().addresses.remove(0); MAX_ADDRESSES + 1] };
        assert_eq!(News::from_bytes(&many.to_bytes()).unwrap().addresses.len(), MAX_ADDRESSES);
        let one = &many.to_bytes()[1..1 + 2 + many.addresses[0].len()];
        assert_eq!(News::from_bytes(&[&many.to_bytes()[..], one].concat()), None);
    }
}
