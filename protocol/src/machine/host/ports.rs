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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]
    use super::*;
    use crate::{
        Amount, Digest, Nonce, Verified,
        entry::{Body, Entry, VoidCode},
        machine::{
            book::Book,
            chain::Chain,
            context::Context,
            io::{Output, Token},
            policy::HostSetup,
            testkit::{NOW, context, key, network, outputs, proposal, setup},
        },
        message::Response,
        negotiation::ImagePin,
        ports::{PortRange, PortRequest},
        signed::Signed,
        workload::Workload,
    };

    struct Bench {
        cx: Context,
        host: Host,
        ask: Proposal,
        workload: (Vec<u8>, Digest),
    }

    /// Four slots, three ports.
    fn bench() -> Bench {
        let (mut cx, mut book) = (context(), Book::new(network(), 10));
        let mut host = Host::new(0, None, NOW);
        let range = PortRange::new(40_000, 40_002).unwrap();
        let public = Some(PublicPorts { address: "203.0.113.7".to_owned(), range });
        host.configure(&mut cx, &mut book, Some(HostSetup { public, ..setup() }), NOW);
        host.hold_restored(&mut cx, NOW);
        host.runtime(&mut cx, true, NOW);
        host.publish(&mut cx, &mut book, NOW);
        outputs(&mut cx);
        let workload = Workload::default().to_bytes();
        let offer = host.offer().unwrap();
        let ask = Proposal { offer: offer.id(), workload: workload.1, ..proposal(Amount(1_000_000_000), 0) };
        Bench { cx, host, ask, workload }
    }

    fn reply(cx: &mut Context) -> Response {
        let replies = outputs(cx).into_iter().filter_map(|output| match output {
            Output::Reply { response, .. } => Some(*response),
            _ => None,
        });
        replies.last().unwrap()
    }

    impl Bench {
        fn propose(&mut self, nonce: u8, ports: &[&str]) -> Result<Signed<LeaseDraft>, Reject> {
            let ports: Vec<PortRequest> = ports.iter().map(|p| p.parse().unwrap()).collect();
            let ask = Proposal { nonce: Nonce([nonce; 16]), ports, ..self.ask.clone() };
            let (from, at) = (key(2).node_id(), NOW + crate::Millis(5));
            self.host.propose(&mut self.cx, from, Token(1), ask.clone(), at);
            if self.host.resolving.contains_key(&Token(1)) {
                let pin = ImagePin { reference: ask.image, digest: format!("sha256:{}", "a".repeat(64)) };
                self.host.image(&mut self.cx, Token(1), Ok(pin), at);
            }
            match reply(&mut self.cx) {
                Response::Drafted(draft) => Ok(draft),
                Response::Rejected(reject) => Err(reject),
                other => panic!("{other:?}"),
            }
        }

        /// Opens a draft; the answer once the slots' locks are ours.
        fn open(&mut self, renter: &mut Chain, draft: &Signed<LeaseDraft>) -> Option<Signed<Entry>> {
            let lease = draft.id(&network()).into();
            let body = Body::LeaseOpen { draft: draft.clone() };
            let open = renter.append(lease, self.cx.me(), body, NOW + crate::Millis(9)).unwrap();
            let at = NOW + crate::Millis(10);
            let bytes = self.workload.0.clone();
            self.host.commit(&mut self.cx, key(2).node_id(), Token(2), (&open.to_signed(), None), bytes, at);
            self.host.locked(&mut self.cx, lease, true, at);
            match reply(&mut self.cx) {
                Response::Answered(entry) => Some(entry),
                _ => None,
            }
        }
    }

    fn granted(draft: &Signed<LeaseDraft>) -> Vec<u16> {
        let draft: Verified<LeaseDraft> = draft.verify(&network()).unwrap();
        numbers(&draft).collect()
    }

    fn code(refused: Result<Signed<LeaseDraft>, Reject>) -> (RejectCode, bool) {
        let reject = refused.unwrap_err();
        (reject.code, reject.is_final)
    }

    #[test]
    fn a_port_has_one_lease_and_the_first_that_is_accepted_has_it() {
        let mut bench = bench();
        let mut renter = Chain::new(key(2), network(), None);
        renter.begin(NOW).unwrap();
        let first = bench.propose(1, &["40001:80", "53/udp"]).unwrap();
        // Nothing is reserved by a draft: another one may have the same, and only one of them becomes a lease.
        let second = bench.propose(2, &["40001:80"]).unwrap();
        let ports = granted(&first);
        assert!(ports[0] == 40_001 && ports[1] != 40_001 && (40_000..=40_002).contains(&ports[1]), "{ports:?}");
        assert_eq!((granted(&second), bench.host.ports_free()), (vec![40_001], 3));
        let entry = bench.open(&mut renter, &first).unwrap().verify(&network()).unwrap();
        assert!(matches!(entry.body, Body::LeaseAccept { .. }), "{entry:?}");
        let entry = bench.open(&mut renter, &second).unwrap().verify(&network()).unwrap();
        assert!(matches!(entry.body, Body::Void { code: VoidCode::Taken, .. }), "{entry:?}");

        // One is left, and whoever asks for any gets that one.
        assert_eq!(bench.host.ports_free(), 1);
        let left = (40_000..=40_002).find(|p| !ports.contains(p)).unwrap();
        for nonce in 3..20 {
            assert_eq!(granted(&bench.propose(nonce, &["80"]).unwrap()), vec![left]);
        }
        assert_eq!(code(bench.propose(20, &["80", "81"])), (RejectCode::Ports, false));
        assert_eq!(code(bench.propose(21, &["40001:80"])), (RejectCode::Ports, false));
        assert_eq!(code(bench.propose(22, &["40003:80"])), (RejectCode::Ports, true));
        assert_eq!(code(bench.propose(23, &["80", "40000:80"])), (RejectCode::Malformed, true));
    }

    #[test]
    fn a_host_without_ports_grants_none() {
        let mut bench = bench();
        let setup = HostSetup { public: None, ..bench.host.setup.clone().unwrap() };
        bench.host.configure(&mut bench.cx, &mut Book::new(network(), 10), Some(setup), NOW);
        outputs(&mut bench.cx);
        assert_eq!(code(bench.propose(1, &["80"])), (RejectCode::Ports, true));
        assert!(bench.propose(2, &[]).is_ok());
    }
}
