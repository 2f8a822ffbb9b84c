//! The ticket: one line of text with all that a node needs to find a cluster's keeper and be let in. It holds secrets.
//!
//! `soukcluster` and, in base58, a byte for the version, the canonical CBOR, and the first four bytes of the BLAKE3 digest of
//! both. The last four bytes are that in every version to come, so a damaged ticket is not taken for a newer one.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::{Zeroize, Zeroizing};

use super::{
    founding::Founding,
    secret::{PreSharedKey, Token},
};
use crate::{encode, limits, signed::Invalid, time::Timestamp};

/// What every ticket begins with.
const PREFIX: &str = "soukcluster";
/// How the bytes are to be read.
const VERSION: u8 = 1;
/// Bytes by which a mistyped character is noticed: one in four billion gets through.
const CHECK: usize = 4;

/// An invitation into a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which cluster, and who is asked to let one in.
    pub founding: Founding,
    /// The key of its transport; none if it uses none.
    pub key: Option<PreSharedKey>,
    /// What admits.
    pub token: Token,
    /// It admits nobody from then on.
    pub expires: Timestamp,
    /// Where the keeper is reached: multiaddresses, 1 to [`limits::TICKET_ADDRESSES`].
    pub addresses: Vec<String>,
}

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    /// Something else.
    #[error(
        "this is not a cluster's ticket: one begins with `{PREFIX}` and is printed by `souk cluster invite` on the keeper's node"
    )]
    NotATicket,
    /// It was cut or mistyped.
    #[error(
        "the ticket is damaged, a character of it is missing or wrong: copy the whole line again, or ask for a new ticket"
    )]
    Damaged,
    /// This program can't read it.
    #[error("the ticket is of a newer souk than this one: update souk, then join")]
    Newer,
    /// It came whole, and says what no ticket says.
    #[error("the ticket makes no sense, whoever made it: {0}")]
    Invalid(#[from] Invalid),
}

/// A ticket is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ticket has expired: ask the cluster's keeper for a new one (souk cluster invite)")]
pub struct Expired;

/// What is in the text. Private, so that a ticket is written in no other form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    founding: Founding,
    key: Option<ByteArray<32>>,
    token: ByteArray<16>,
    expires: Timestamp,
    addresses: Vec<String>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.token.as_mut().zeroize();
        if let Some(key) = &mut self.key {
            key.as_mut().zeroize();
        }
    }
}

impl Ticket {
    /// The line of text. Who has it gets in: it is shown to nobody but who is meant.
    ///
    /// # Errors
    /// Says what is out of bounds; all addresses together are bounded, too.
    pub fn to_line(&self) -> Result<Zeroizing<String>, Invalid> {
        self.check()?;
        let wire = Wire {
            founding: self.founding.clone(),
            key: self.key.as_ref().map(|key| ByteArray::new(*key.as_bytes())),
            token: ByteArray::new(*self.token.as_bytes()),
            expires: self.expires,
            addresses: self.addresses.clone(),
        };
        let body = Zeroizing::new(encode::to_bytes(&wire));
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + body.len() + CHECK));
        bytes.push(VERSION);
        bytes.extend_from_slice(&body);
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        Invalid::unless(
            bytes.len() <= limits::TICKET_BYTES,
            "its addresses are too long together: name fewer of them",
        )?;
        let text = Zeroizing::new(bs58::encode(&*bytes).into_string());
        Ok(Zeroizing::new(format!("{PREFIX}{}", *text)))
    }

    /// Checks names and addresses.
    ///
    /// # Errors
    /// Says what is out of bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        self.founding.check()?;
        let some = (1..=limits::TICKET_ADDRESSES).contains(&self.addresses.len());
        Invalid::unless(some, "it needs 1 to 8 addresses of the keeper")?;
        let plain = |a: &String| {
            (1..=limits::TICKET_ADDRESS_BYTES).contains(&a.len())
                && !a.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        Invalid::unless(self.addresses.iter().all(plain), "one of its addresses is none")
    }

    /// Whether it may still admit, by this node's clock.
    ///
    /// # Errors
    /// [`Expired`] if not.
    pub fn fresh(&self, now: Timestamp) -> Result<(), Expired> {
        if now < self.expires { Ok(()) } else { Err(Expired) }
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(BadTicket::NotATicket)?;
        if text.len() > limits::TICKET_CHARS {
            return Err(BadTicket::Damaged);
        }
        let bytes = Zeroizing::new(bs58::decode(body).into_vec().map_err(|_| BadTicket::Damaged)?);
        let (said, check) = bytes.split_last_chunk::<CHECK>().ok_or(BadTicket::Damaged)?;
        if checksum(said) != *check {
            return Err(BadTicket::Damaged);
        }
        let wire = match said.split_first() {
            Some((&VERSION, wire)) => wire,
            Some(_) => return Err(BadTicket::Newer),
            None => return Err(BadTicket::Damaged),
        };
        let wire: Wire =
            encode::from_bytes(wire, limits::TICKET_BYTES).map_err(|e| BadTicket::Invalid(Invalid(e.to_string())))?;
        let ticket = Self {
            founding: wire.founding.clone(),
            key: wire.key.as_ref().map(|key| PreSharedKey::new(**key)),
            token: Token::new(*wire.token),
            expires: wire.expires,
            addresses: wire.addresses.clone(),
        };
        ticket.check()?;
        Ok(ticket)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    let digest = blake3::hash(bytes);
    std::array::from_fn(|i| digest.as_bytes()[i])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::list::tests::founding;

    fn ticket() -> Ticket {
        Ticket {
            founding: founding(),
            key: Some(PreSharedKey::new([0x5a; 32])),
            token: Token::new([0x5b; 16]),
            expires: Timestamp(5_000),
            addresses: vec!["/ip4/192.0.2.7/tcp/4100".to_owned(), "/ip4/192.0.2.7/udp/4100/quic-v1".to_owned()],
        }
    }

    fn line() -> String {
        ticket().to_line().unwrap().to_string()
    }

    #[test]
    fn a_ticket_is_one_short_line_and_comes_back() {
        let line = line();
        assert!(line.starts_with("soukcluster") && line.len() < 450, "{}", line.len());
        assert!(line.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_eq!(format!(" \t{line}\r\n").parse::<Ticket>().unwrap(), ticket());
        let open = Ticket { key: None, ..ticket() };
        assert_eq!(open.to_line().unwrap().parse::<Ticket>().unwrap(), open);
        let shown = format!("{:?}", ticket());
        assert!(!shown.contains("5a5a") && !shown.contains("90, 90") && !shown.contains("91, 91"), "{shown}");
    }

    #[test]
    fn it_says_what_is_wrong() {
        let parse = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(parse(""), BadTicket::NotATicket);
        assert_eq!(parse("soukmember123"), BadTicket::NotATicket);
        assert_eq!(parse("soukcluster"), BadTicket::Damaged);
        assert_eq!(parse(&format!("soukcluster{}", "1".repeat(10_000))), BadTicket::Damaged);
        let newer = [&[2, 0xa0][..], &checksum(&[2, 0xa0])].concat();
        assert_eq!(parse(&format!("soukcluster{}", bs58::encode(newer).into_string())), BadTicket::Newer);
        let junk = [&[1, 0xa0][..], &checksum(&[1, 0xa0])].concat();
        let junk = parse(&format!("soukcluster{}", bs58::encode(junk).into_string()));
        assert!(matches!(junk, BadTicket::Invalid(_)));
        assert_eq!((ticket().fresh(Timestamp(4_999)), ticket().fresh(Timestamp(5_000))), (Ok(()), Err(Expired)));
    }

    #[test]
    fn no_ticket_is_made_that_could_not_be_read() {
        let with = |addresses: Vec<String>| Ticket { addresses, ..ticket() }.to_line();
        let long = |n: usize| "x".repeat(n);
        assert!(with(vec![]).is_err() && with(vec![String::new()]).is_err() && with(vec!["a b".to_owned()]).is_err());
        assert!(with(vec![long(257)]).is_err() && with(vec![long(9); 9]).is_err());
        assert!(with(vec![long(256); 8]).is_err(), "too long together");
        let most = with(vec![long(140); 8]).unwrap();
        assert!(most.len() <= limits::TICKET_CHARS && most.parse::<Ticket>().is_ok(), "{}", most.len());
        let full = bs58::encode([0xff; limits::TICKET_BYTES]).into_string();
        assert!(PREFIX.len() + full.len() <= limits::TICKET_CHARS, "{}", full.len());
    }

    #[test]
    fn a_cut_ticket_is_refused_wherever_it_was_cut() {
        let line = line();
        for at in 0..line.len() {
            assert!(line[..at].parse::<Ticket>().is_err(), "{at}");
            let gap = format!("{}{}", &line[..at], &line[at + 1..]);
            assert!(gap.parse::<Ticket>().is_err(), "without character {at}");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let line = line().into_bytes();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut wrong = line.clone();
                wrong[at] ^= 1 << bit;
                if let Ok(text) = std::str::from_utf8(&wrong) {
                    assert!(text.parse::<Ticket>().is_err(), "bit {bit} of character {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn junk_is_no_ticket_and_never_panics(text in "(soukcluster)?[ -~]{0,600}") {
            prop_assert!(text.parse::<Ticket>().is_err());
        }

        #[test]
        fn wrong_characters_are_noticed(at in 11usize..300, with in "[1-9A-HJ-NP-Za-km-z]{1,3}") {
            let line = line();
            let at = at.min(line.len() - with.len());
            let wrong = format!("{}{with}{}", &line[..at], &line[at + with.len()..]);
            prop_assume!(wrong != line);
            prop_assert_eq!(wrong.parse::<Ticket>().unwrap_err(), BadTicket::Damaged);
        }

        #[test]
        fn any_ticket_comes_back(
            key in any::<Option<[u8; 32]>>(), token in any::<[u8; 16]>(), expires in any::<u64>(), salt in any::<[u8; 16]>(),
            addresses in proptest::collection::vec("[!-~]{1,100}", 1..=8),
        ) {
            let founding = Founding { salt, ..founding() };
            let key = key.map(PreSharedKey::new);
            let ticket = Ticket { founding, key, token: Token::new(token), expires: Timestamp(expires), addresses };
            prop_assert_eq!(ticket.to_line().unwrap().parse::<Ticket>().unwrap(), ticket);
        }
    }
}
