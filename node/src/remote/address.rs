//! Where a node is, as people write it: `ssh://[user@]host[:port][/path]`, `unix:///path`, `http://127.0.0.1:port`.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use url::{Host, Url};

/// Bytes of an address.
const ADDRESS_BYTES: usize = 1024;

/// Why a text is no node's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is none of the three kinds.
    #[error(
        "`{0}` is no node's address: they are ssh://[user@]host[:port][/path], unix:///path and http://127.0.0.1:port"
    )]
    Unknown(String),
    /// A part of it can't be.
    #[error("`{address}` is no node's address: {why}")]
    Part {
        /// The text.
        address: String,
        /// What of it, and why.
        why: &'static str,
    },
}

/// A machine that ssh reaches, and where its node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// Logged in as; else what ssh's configuration says.
    pub user: Option<String>,
    /// A host's name, also one that only ssh's configuration knows.
    pub host: String,
    /// Its port; else what ssh's configuration says.
    pub port: Option<u16>,
    /// The node's data directory or its API's socket; else what `souk` there would take. Relative to the home directory.
    pub path: Option<String>,
}

impl SshAddress {
    /// `user@host`, for messages and for ssh.
    #[must_use]
    pub fn destination(&self) -> String {
        match &self.user {
            Some(user) => format!("{user}@{}", self.host),
            None => self.host.clone(),
        }
    }

    /// The command that shows by itself whether ssh gets there.
    #[must_use]
    pub fn by_hand(&self, command: &str) -> String {
        let port = self.port.map(|port| format!("-p {port} ")).unwrap_or_default();
        format!("ssh {port}{} {command}", self.destination())
    }
}

/// A node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAddress {
    /// A socket of this machine, or the data directory it is in.
    Unix(PathBuf),
    /// A loopback port of this machine: `api.tcp`, or one forwarded to it.
    Loopback(SocketAddr),
    /// A machine elsewhere.
    Ssh(SshAddress),
}

impl FromStr for NodeAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let part = |why| AddressError::Part { address: text.to_owned(), why };
        let unknown = || AddressError::Unknown(text.chars().take(ADDRESS_BYTES).collect());
        if text.len() > ADDRESS_BYTES || text.chars().any(char::is_control) {
            return Err(unknown());
        }
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(part("its path has to begin with `/`")) };
        }
        let url = Url::parse(text).map_err(|_| unknown())?;
        if url.password().is_some() {
            return Err(part("a password in it could be read by everybody on this machine; ssh asks for it"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(part("it has a `?` or `#`"));
        }
        match url.scheme() {
            "ssh" => ssh(&url).map(Self::Ssh).map_err(part),
            "http" => loopback(&url, text).map(Self::Loopback).map_err(part),
            _ => Err(unknown()),
        }
    }
}

fn ssh(url: &Url) -> Result<SshAddress, &'static str> {
    let plain = |text: &str| decoded(text).ok_or("it is not UTF-8, or has control characters");
    let host = match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Domain(name)) => plain(name)?,
        None => String::new(),
    };
    // ssh must take it for nothing but a host, and its configuration's `%h` for nothing but a word.
    let usable = |c: char| c.is_alphanumeric() || "-_.:%".contains(c);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(usable) {
        return Err("it names no host that ssh could take");
    }
    let user = Some(url.username()).filter(|user| !user.is_empty()).map(plain).transpose()?;
    if user
        .as_ref()
        .is_some_and(|user| user.starts_with('-') || user.contains(|c: char| " '\"`$\\;&<>|(){}".contains(c)))
    {
        return Err("it names no user that ssh could take");
    }
    let path = plain(url.path())?;
    let path = match path.strip_prefix("/~/") {
        Some(at_home) => at_home.to_owned(),
        None => path,
    };
    Ok(SshAddress { user, host, port: url.port(), path: Some(path).filter(|path| !path.is_empty() && path != "/") })
}

/// Over plain HTTP goes the token that opens the node: never out of this machine.
fn loopback(url: &Url, text: &str) -> Result<SocketAddr, &'static str> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => std::net::IpAddr::from(address),
        Some(Host::Domain("localhost")) => std::net::Ipv4Addr::LOCALHOST.into(),
        Some(Host::Domain(_)) | None => {
            return Err("its host has to be 127.0.0.1, [::1] or localhost: use ssh:// for another");
        }
    };
    if !address.is_loopback() {
        return Err(
            "http goes to this machine's loopback only, for its token is not encrypted: use ssh:// for another machine",
        );
    }
    if !url.username().is_empty() || !matches!(url.path(), "" | "/") {
        return Err("after its port there is nothing to be said");
    }
    // A URL forgets the port that is its scheme's own.
    let said = || text.trim_end_matches('/').ends_with(":80").then_some(80);
    let port = url.port().or_else(said).ok_or("its port is missing")?;
    Ok(SocketAddr::new(address, port))
}

/// With `%41` and the like taken for what they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).ok()?;
                bytes.extend(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Loopback(address) => write!(f, "http://{address}"),
            Self::Ssh(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for SshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = |text: &str, kept: &str| {
            let escape = |byte: u8| match byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) {
                true => char::from(byte).to_string(),
                false => format!("%{byte:02X}"),
            };
            text.bytes().map(escape).collect::<String>()
        };
        write!(f, "ssh://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", escaped(user, "-_.+"))?;
        }
        match self.host.parse::<std::net::Ipv6Addr>() {
            Ok(address) => write!(f, "[{address}]")?,
            Err(_) => write!(f, "{}", escaped(&self.host, "-_."))?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match &self.path {
            Some(path) if path.starts_with('/') => write!(f, "{}", escaped(path, "-_.~/+,=@:")),
            Some(path) => write!(f, "/~/{}", escaped(path, "-_.~/+,=@:")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn ssh(text: &str) -> SshAddress {
        match text.parse() {
            Ok(NodeAddress::Ssh(address)) => address,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn addresses_are_read_and_said_again() {
        let plain = ssh("ssh://box");
        assert_eq!(plain, SshAddress { user: None, host: "box".to_owned(), port: None, path: None });
        assert_eq!(ssh("ssh://box/"), plain);
        let full = ssh("ssh://me@203.0.113.7:2222/srv/my%20souk/api.sock");
        assert_eq!(full.destination(), "me@203.0.113.7");
        assert_eq!((full.port, full.path.as_deref()), (Some(2222), Some("/srv/my souk/api.sock")));
        assert_eq!(ssh("ssh://box/~/souk").path.as_deref(), Some("souk"));
        assert_eq!(ssh("ssh://me@[2001:db8::1]:22/x").host, "2001:db8::1");
        for text in [
            "ssh://box",
            "ssh://me@box:2222",
            "ssh://me@box/srv/my%20souk",
            "ssh://box/~/a",
            "ssh://[2001:db8::1]:22",
            "unix:///run/souk/api.sock",
            "http://127.0.0.1:7844",
            "http://[::1]:7844",
        ] {
            let address: NodeAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.to_string().parse::<NodeAddress>().unwrap(), address);
        }
        assert_eq!("http://localhost:80/".parse::<NodeAddress>().unwrap().to_string(), "http://127.0.0.1:80");
    }

    #[test]
    fn what_ssh_could_take_for_an_option_or_a_shell_for_a_command_is_refused() {
        for wrong in [
            "",
            "box",
            "me@box",
            "ssh://",
            "ssh:///path",
            "ssh://-oProxyCommand=id",
            "ssh://%2DoProxyCommand=id",
            "ssh://-l@box",
            "ssh://%2Doa@box",
            "ssh://a%3Bb@box",
            "ssh://box%0Aevil",
            "ssh://bo%20x",
            "ssh://$(id)",
            "ssh://me:secret@box",
            "ssh://box?x",
            "ssh://box/a#b",
            "ssh://box/a%00b",
            "unix://relative",
            "unix:/x",
            "http://127.0.0.1",
            "http://192.0.2.1:80",
            "http://example.org:80",
            "http://127.0.0.1.example.org:80",
            "http://me@127.0.0.1:80",
            "http://127.0.0.1:80/v1",
            "https://127.0.0.1:80",
            "tcp://127.0.0.1:80",
            "12D3KooWA1b2",
        ] {
            assert!(wrong.parse::<NodeAddress>().is_err(), "{wrong}");
        }
        assert!("x".repeat(2000).parse::<NodeAddress>().unwrap_err().to_string().len() < 1400);
    }
}
