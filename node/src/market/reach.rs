//! How others reach this node, in the market's words: in its offers, and for its owner.

use souk_network::{PortMapping, Reachability};
use souk_protocol::offer;

use crate::api::types::ReachabilityView;

/// What helps a host that nobody reaches.
pub(super) const REMEDY: &str = "forward the port of network.listen in the router (UDP and TCP), or begin with more peers (souk up --bootstrap ADDRESS)";

/// What offers say of it.
pub(super) const fn offered(reachability: &Reachability) -> offer::Reachability {
    match reachability {
        Reachability::Unknown => offer::Reachability::Unknown,
        Reachability::Public => offer::Reachability::Direct,
        Reachability::Private { .. } => offer::Reachability::Relayed,
    }
}

/// What the owner of a node is shown.
pub(super) fn view(reachability: &Reachability, mapping: &PortMapping) -> ReachabilityView {
    let (state, relays, sentence) = match reachability {
        Reachability::Unknown => {
            ("unknown", Vec::new(), "not known: no peer has seen this node from the internet yet".to_owned())
        }
        Reachability::Public => ("direct", Vec::new(), "directly: peers have dialled it from the internet".to_owned()),
        Reachability::Private { relays } if relays.is_empty() => {
            let sentence =
                format!("not at all: a router or firewall lets nobody in, and no peer relays for this node; {REMEDY}");
            ("relayed", Vec::new(), sentence)
        }
        Reachability::Private { relays } => {
            let peers =
                if relays.len() == 1 { "a peer relays".to_owned() } else { format!("{} peers relay", relays.len()) };
            let sentence = format!(
                "through a relay: a router or firewall lets nobody in, {peers} for it, and it goes direct where both routers let it"
            );
            ("relayed", relays.clone(), sentence)
        }
    };
    let sentence = match router(mapping) {
        Some(router) => format!("{sentence}; {router}"),
        None => sentence,
    };
    ReachabilityView { state: state.to_owned(), relays, sentence }
}

/// What the router at home has to do with it.
fn router(mapping: &PortMapping) -> Option<String> {
    match mapping {
        PortMapping::Off | PortMapping::NoRouter => None,
        PortMapping::Mapped { outside, ports } => {
            let ports = if *ports == 1 { "a port".to_owned() } else { format!("{ports} ports") };
            Some(format!("the router maps {ports} of {outside} to it (UPnP)"))
        }
        PortMapping::Nested { outside } => Some(format!(
            "the router's own address outside is {outside}, which is not the internet's: another router, or the provider's, is in between"
        )),
        PortMapping::Refused { why } => Some(format!("the router was asked for a port (UPnP) and gives none: {why}")),
    }
}

/// What is wrong, for a host.
pub(super) fn problem(reachability: &Reachability) -> Option<&'static str> {
    match reachability {
        Reachability::Private { relays } if relays.is_empty() => {
            Some("nobody can reach this host: a router or firewall lets nobody in, and no connected peer relays for it")
        }
        Reachability::Private { .. } | Reachability::Public | Reachability::Unknown => None,
    }
}
