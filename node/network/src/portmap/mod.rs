//! Asking the router for ports (UPnP), so that others reach this node directly.
//!
//! Owns the conversation with one router, and the ports it has given: they are asked for again at half their time, and given back at
//! the end. What is asked for is decided in `policy`. That the router says yes proves nothing: its address becomes a candidate, and
//! counts once peers have dialled back to it, like any other.

mod policy;
mod router;

use std::{net::IpAddr, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    policy::{Backoff, Port, wanted},
    router::{Given, Router},
};
use crate::{
    handle::NetworkHandle,
    peers::{Scope, scope_of_ip},
};

/// For how long a port is asked for.
const LEASE: Duration = Duration::from_secs(3600);
/// Between two looks at where the node listens, while there is nothing to ask for.
const LOOK: Duration = Duration::from_secs(5);
/// How long giving ports back may take.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// What the router does for this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PortMapping {
    /// It is not asked.
    #[default]
    Off,
    /// No router has answered.
    NoRouter,
    /// It lets these ports of its own address through: address, and how many.
    Mapped {
        /// The router's address outside.
        outside: IpAddr,
        /// Ports given.
        ports: usize,
    },
    /// Its own address outside is not the internet's: there is another router before it, or the provider's.
    Nested {
        /// That address.
        outside: IpAddr,
    },
    /// It says no.
    Refused {
        /// What it said.
        why: String,
    },
}

/// Keeps ports of the router for this node until `stop`, and gives them back then. What it has come to shows in `told`.
pub async fn keep(network: NetworkHandle, told: watch::Sender<PortMapping>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut held: Vec<(Router, Given)> = Vec::new();
    loop {
        let asked = stop.run_until_cancelled(ask(&network, &mut held)).await;
        let Some((state, again)) = asked.map(|state| {
            let again = match &state {
                PortMapping::Off => LOOK,
                PortMapping::Mapped { .. } => {
                    backoff = Backoff::default();
                    LEASE / 2
                }
                PortMapping::NoRouter | PortMapping::Nested { .. } | PortMapping::Refused { .. } => backoff.next(),
            };
            (state, again)
        }) else {
            break;
        };
        if *told.borrow() != state {
            match &state {
                PortMapping::Off => {}
                PortMapping::NoRouter => tracing::debug!("no router answers to UPnP"),
                PortMapping::Mapped { outside, ports } => {
                    tracing::info!(%outside, ports, "the router maps ports to this node")
                }
                PortMapping::Nested { outside } => {
                    tracing::info!(%outside, "the router is behind another one, so its ports help nobody")
                }
                PortMapping::Refused { why } => tracing::info!(why, "the router maps no ports"),
            }
            told.send_replace(state);
        }
        let before = network.listen_addrs();
        let end = tokio::time::Instant::now() + again;
        // Sooner if the node listens elsewhere now.
        while !stop.is_cancelled() && tokio::time::Instant::now() < end && network.listen_addrs() == before {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK.min(again)) => {}
            }
        }
        if stop.is_cancelled() {
            break;
        }
    }
    let give_back = async {
        for (router, given) in &held {
            router.unmap(given).await;
        }
    };
    if !held.is_empty() && tokio::time::timeout(GIVE_BACK, give_back).await.is_err() {
        tracing::debug!("the router is slow; the ports it gave end by themselves");
    }
    told.send_replace(PortMapping::Off);
}

/// One round: finds the router, and asks it for every port that others could use.
async fn ask(network: &NetworkHandle, held: &mut Vec<(Router, Given)>) -> PortMapping {
    let listening = network.listen_addrs();
    if !policy::is_at_home(&listening) {
        return PortMapping::Off;
    }
    let router = match Router::find().await {
        Ok(router) => router,
        Err(error) => {
            tracing::debug!(%error, "asked for a router");
            return PortMapping::NoRouter;
        }
    };
    let ports: Vec<Port> = wanted(&listening, router.inside());
    if ports.is_empty() {
        return PortMapping::Off;
    }
    let outside = match router.outside().await {
        Ok(outside) => outside,
        Err(error) => return PortMapping::Refused { why: error.to_string() },
    };
    if scope_of_ip(outside) != Some(Scope::Global) {
        return PortMapping::Nested { outside };
    }
    let (mut count, mut refusal) = (0, None);
    for port in ports {
        let before = held.iter().find(|(_, given)| given.port == port).map(|(_, given)| given.outside);
        match router.map(port, before, LEASE).await {
            Ok(given) => {
                network.add_candidate(given.address(outside)).await.ok();
                held.retain(|(_, old)| old.port != port);
                held.push((router.clone(), given));
                count += 1;
            }
            Err(error) => refusal = Some(error),
        }
    }
    match (count, refusal) {
        (0, Some(error)) => PortMapping::Refused { why: error.to_string() },
        (ports, _) => PortMapping::Mapped { outside, ports },
    }
}

/// Whether an address is of a network at home.
fn is_private(ip: IpAddr) -> bool {
    ip.is_ipv4() && scope_of_ip(ip) == Some(Scope::Private)
}
