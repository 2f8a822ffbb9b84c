//! Ports of a public address that a host lets its guests have.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use souk_protocol::ports::{PortRange, PublicPorts, check_address};

/// Ports that instances are reached at from outside. None without an address and a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Public {
    /// The address others reach this machine at: an IP address or a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Ports of it that arrive here under the same numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// The address of this machine to listen on.
    pub bind: IpAddr,
}

impl Default for Public {
    fn default() -> Self {
        Self { address: None, ports: None, bind: Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl Public {
    /// What is offered.
    #[must_use]
    pub fn offered(&self) -> Option<PublicPorts> {
        Some(PublicPorts { address: self.address.clone()?, range: self.ports? })
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if let Some(address) = &self.address {
            check_address(address).map_err(|_| {
                let why = "it must be an IP address or a name, like 203.0.113.7 or box.example.net";
                ("host.public.address", why.to_owned())
            })?;
        }
        if self.address.is_some() == self.ports.is_some() {
            return Ok(());
        }
        Err((
            "host.public.ports",
            "host.public.address and host.public.ports go together: set both, or none".to_owned(),
        ))
    }
}
