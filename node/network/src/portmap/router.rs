//! One router, and what is said to it.
//!
//! The only part that speaks to it. Every byte from there may be an attack by somebody on the local network: answers are bounded in
//! size and time by the library, addresses in them must be those of the device that answered, and here that device must be on a
//! private network. What it says of the outside is a claim that peers test.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use igd_next::{AddPortError, PortMappingProtocol, SearchOptions, aio};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::{net::UdpSocket, time::timeout};

use super::{is_private, policy::Port};

/// How long a router may take to show itself, and to answer.
const FIND: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// What a router shows its owner beside the port.
const DESCRIPTION: &str = "souk";
/// Ports tried where one is another machine's.
const TRIES: u16 = 4;

type Gateway = aio::Gateway<aio::tokio::Tokio>;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(super) enum RouterError {
    /// Nobody answered, or nobody that is one.
    #[error("no router answers: {0}")]
    Silent(String),
    /// What answered is not on a private network.
    #[error("what answers at {0} is no router of this network")]
    Foreign(SocketAddr),
    /// It says no.
    #[error("the router says no: {0}")]
    Refused(String),
}

/// A router that has answered.
#[derive(Debug, Clone)]
pub(super) struct Router {
    gateway: Gateway,
    inside: Ipv4Addr,
}

/// A port that it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) port: Port,
    /// Its number outside.
    pub(super) outside: u16,
}

impl Given {
    /// Where others would reach this node, if it is as the router says.
    pub(super) fn address(&self, outside: IpAddr) -> Multiaddr {
        let address = Multiaddr::from(outside);
        if self.port.udp {
            address.with(Protocol::Udp(self.outside)).with(Protocol::QuicV1)
        } else {
            address.with(Protocol::Tcp(self.outside))
        }
    }
}

async fn in_time<T, E: std::fmt::Display>(asked: impl Future<Output = Result<T, E>>) -> Result<T, RouterError> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(RouterError::Refused(error.to_string())),
        Err(_) => Err(RouterError::Silent("it takes too long".to_owned())),
    }
}

impl Router {
    /// Asks the local network for one.
    pub(super) async fn find() -> Result<Self, RouterError> {
        let mut options = SearchOptions::default();
        options.timeout = Some(FIND);
        options.single_search_timeout = Some(FIND);
        let found = timeout(FIND + ANSWER, aio::tokio::search_gateway(options)).await;
        let gateway = found
            .map_err(|_| RouterError::Silent("it takes too long".to_owned()))?
            .map_err(|e| RouterError::Silent(e.to_string()))?;
        if !is_private(gateway.addr.ip()) {
            return Err(RouterError::Foreign(gateway.addr));
        }
        // Nothing is sent: this is how the system says which address of ours that router sees.
        let towards = async {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect(gateway.addr).await?;
            socket.local_addr()
        };
        match towards.await {
            Ok(SocketAddr::V4(at)) if is_private((*at.ip()).into()) => Ok(Self { inside: *at.ip(), gateway }),
            Ok(at) => Err(RouterError::Foreign(at)),
            Err(error) => Err(RouterError::Silent(error.to_string())),
        }
    }

    /// This machine's address on the router's network.
    pub(super) const fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// The router's own address outside, as it says.
    pub(super) async fn outside(&self) -> Result<IpAddr, RouterError> {
        in_time(self.gateway.get_external_ip()).await
    }

    /// Asks for a port, by the number outside that it had before, or its own; by another where that is somebody else's.
    pub(super) async fn map(&self, port: Port, before: Option<u16>, lease: Duration) -> Result<Given, RouterError> {
        let first = before.unwrap_or(port.number);
        let mut seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let mut outside = first;
        let mut refusal = None;
        // One more for a router that knows no ends.
        for _ in 0..=TRIES {
            let local = SocketAddr::from((port.ip, port.number));
            let asked = self.gateway.add_port(protocol(port), outside, local, seconds, DESCRIPTION);
            let answer =
                timeout(ANSWER, asked).await.map_err(|_| RouterError::Silent("it takes too long".to_owned()))?;
            match answer {
                Ok(()) => return Ok(Given { port, outside }),
                // Given back at the end; lost to nobody after a crash, since the next start asks for the same.
                Err(AddPortError::OnlyPermanentLeasesSupported) => seconds = 0,
                Err(error @ AddPortError::PortInUse) => {
                    outside = outside.checked_add(1).unwrap_or(1024);
                    refusal = Some(error.to_string());
                }
                Err(error) => return Err(RouterError::Refused(error.to_string())),
            }
        }
        Err(RouterError::Refused(refusal.unwrap_or_else(|| "it wants something else each time".to_owned())))
    }

    /// Gives a port back.
    pub(super) async fn unmap(&self, given: &Given) {
        let done = in_time(self.gateway.remove_port(protocol(given.port), given.outside)).await;
        if let Err(error) = done {
            tracing::debug!(%error, port = given.outside, "a port is not given back; it ends by itself");
        }
    }
}

const fn protocol(port: Port) -> PortMappingProtocol {
    if port.udp { PortMappingProtocol::UDP } else { PortMappingProtocol::TCP }
}
