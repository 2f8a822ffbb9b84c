//! Which public ports leases have: the sole owner of the host's range.
//!
//! A port is granted by number in the draft and held by the lease that was made of it, from its accept until it has ended and has no
//! processes any more. So the allocation is what both parties signed, and survives whatever the lease does. A draft reserves nothing:
//! of two with the same port, the first that is accepted has it.

use std::collections::BTreeSet;

use super::Host;
use crate::{
    lease::LeaseDraft,
    negotiation::{Proposal, Reject, RejectCode},
    ports::{PublicAccess, PublicPort, PublicPorts},
};

fn numbers(draft: &LeaseDraft) -> impl Iterator<Item = u16> {
    draft.public.iter().flat_map(|access| access.ports.iter().map(|p| p.public))
}

impl Host {
    /// Public ports of leases, and of opens that wait for their locks.
    fn ports_held(&self) -> BTreeSet<u16> {
        let leases = self.leases.values().filter(|l| l.holds_ports()).flat_map(|l| numbers(l.draft()));
        leases.chain(self.locking.values().flat_map(|waiting| numbers(waiting.draft()))).collect()
    }

    /// Public ports that nobody has.
    #[must_use]
    pub fn ports_free(&self) -> u16 {
        let Some(public) = self.setup.as_ref().and_then(|s| s.public.as_ref()) else { return 0 };
        let held = self.ports_held().into_iter().filter(|port| public.range.contains(*port)).count();
        public.range.count().saturating_sub(u16::try_from(held).unwrap_or(u16::MAX))
    }

    /// Whether a draft's ports are still nobody's.
    pub(super) fn ports_are_free(&self, draft: &LeaseDraft) -> bool {
        let held = self.ports_held();
        numbers(draft).all(|port| !held.contains(&port))
    }

    /// The public ports for a proposal; none where it asks for none. Nothing is taken yet.
    ///
    /// # Errors
    /// Why it can't have them.
    pub(super) fn grant_ports(&self, proposal: &Proposal) -> Result<Option<PublicAccess>, Reject> {
        if proposal.ports.is_empty() {
            return Ok(None);
        }
        let Some(PublicPorts { address, range }) = self.setup.as_ref().and_then(|s| s.public.clone()) else {
            return Err(Reject::lasting(RejectCode::Ports, "this host offers no public ports"));
        };
        let mut held = self.ports_held();
        for wanted in proposal.ports.iter().filter_map(|p| p.public) {
            if !range.contains(wanted) {
                let sentence = format!("public port {wanted} is none of this host's, which are {range}");
                return Err(Reject::lasting(RejectCode::Ports, sentence));
            }
            if !held.insert(wanted) {
                let sentence = format!("public port {wanted} belongs to another instance");
                return Err(Reject::passing(RejectCode::Ports, sentence));
            }
        }
        // From another place for each negotiation, so that two of them at once seldom meet.
        let seed = u64::from_be_bytes(proposal.nonce.0.first_chunk().copied().unwrap_or_default());
        let mut free = range.from_nth(seed).filter(|port| !held.contains(port));
        let ports = proposal.ports.iter().map(|asked| {
            let public = asked.public.or_else(|| free.next())?;
            Some(PublicPort { public, port: asked.port, udp: asked.udp })
        });
        match ports.collect::<Option<Vec<_>>>() {
            Some(ports) => Ok(Some(PublicAccess { address, ports })),
            None => {
                let (asked, free) = (proposal.ports.len(), self.ports_free());
                let sentence = format!("{asked} public ports are asked for, and this host has {free} left");
                Err(Reject::passing(RejectCode::Ports, sentence))
            }
        }
    }
}
