//! The grammar of the ways into an instance.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// `souk ssh`.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// Log in as this user of the image, in place of its own
    #[arg(short = 'l', long, value_name = "USER")]
    pub login: Option<String>,
    /// Forward a port of this machine into the instance, as ssh -L does (repeatable)
    #[arg(short = 'L', value_name = "[BIND:]PORT:HOST:PORT")]
    pub local: Vec<String>,
    /// Be a SOCKS proxy that connects from inside the instance, as ssh -D does
    #[arg(short = 'D', value_name = "[BIND:]PORT")]
    pub dynamic: Vec<String>,
    /// Run no command: only forward
    #[arg(short = 'N')]
    pub no_command: bool,
    /// Give the command a terminal
    #[arg(short = 't')]
    pub terminal: bool,
    /// Prove this key in place of the rental's own: a private key's file, or a public one's with the private one in ssh-agent
    #[arg(short = 'i', long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// An option of ssh_config(5) (repeatable)
    #[arg(short = 'o', value_name = "OPTION")]
    pub option: Vec<String>,
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// A command in place of a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `souk ssh-config`.
#[derive(Debug, Args)]
pub struct SshConfigArgs {
    /// The name to give it in ssh's configuration [default: its label, else souk-ID]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Prove this key in place of the rental's own: a private key's file, or a public one's with the private one in ssh-agent
    #[arg(short = 'i', long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
}

/// `souk ssh-key`.
#[derive(Debug, Args)]
pub struct SshKeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SshKeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum SshKeyCommand {
    /// Let keys in
    #[command(after_help = "Examples:\n  souk ssh-key add 1 ~/.ssh/id_ed25519.pub\n  \
                      souk ssh-key add train 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me'")]
    Add {
        /// The lease: its number, its label, or the first digits of its id
        id: String,
        /// Public keys: lines of OpenSSH, or files of them
        #[arg(required = true, value_name = "KEY|FILE")]
        keys: Vec<String>,
    },
    /// Show which keys get in
    #[command(
        after_help = "Examples:\n  souk ssh-key list train\n  souk ssh-key list train --json | jq -r '.keys[].fingerprint'"
    )]
    List {
        /// The lease: its number, its label, or the first digits of its id
        id: String,
    },
    /// Keep keys out, and cut what they have open
    #[command(
        after_help = "Examples:\n  souk ssh-key remove train ~/.ssh/id_ed25519.pub\n  souk ssh-key remove train me@laptop"
    )]
    Remove {
        /// The lease: its number, its label, or the first digits of its id
        id: String,
        /// Keys: their fingerprints or comments, lines of OpenSSH, or files of them
        #[arg(required = true, value_name = "KEY|FILE")]
        keys: Vec<String>,
    },
}

/// `souk ssh-proxy`.
#[derive(Debug, Args)]
pub struct SshProxyArgs {
    /// The lease.
    pub id: String,
}

/// `souk dial-stdio`.
#[derive(Debug, Args)]
pub struct DialStdioArgs {
    /// The node's data directory, or its API's socket.
    pub path: Option<PathBuf>,
}

/// `souk forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Listen on this address of this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub bind: IpAddr,
    /// Forward datagrams, not connections
    #[arg(long)]
    pub udp: bool,
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// Ports of the instance, each with the port here before it if that is another; 0 takes any
    #[arg(required = true, value_name = "[LOCAL:]PORT", value_parser = port_pair)]
    pub ports: Vec<PortPair>,
}

/// `souk open`.
#[derive(Debug, Args)]
pub struct OpenArgs {
    /// Listen on this port of this machine's loopback [default: any that is free]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Print the address with its token, and open no browser
    #[arg(long)]
    pub print: bool,
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
}

/// A port here and one there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// Here; 0 for any.
    pub local: u16,
    /// In the instance.
    pub remote: u16,
}

fn port_pair(text: &str) -> Result<PortPair, String> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let wrong = || format!("`{text}` is no port, nor LOCAL:PORT");
    let pair = PortPair { local: local.parse().map_err(|_| wrong())?, remote: remote.parse().map_err(|_| wrong())? };
    if pair.remote == 0 { Err(wrong()) } else { Ok(pair) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{PortPair, port_pair};

    #[test]
    fn ports_are_read() {
        assert_eq!(port_pair("8888").unwrap(), PortPair { local: 8888, remote: 8888 });
        assert_eq!(port_pair("0:80").unwrap(), PortPair { local: 0, remote: 80 });
        for wrong in ["", "0", "80:0", "80:", "a:1", "70000", "1:2:3"] {
            assert!(port_pair(wrong).is_err(), "{wrong}");
        }
    }
}
