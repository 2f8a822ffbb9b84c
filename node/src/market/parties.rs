//! The other sides of open leases: who may reach an instance, and with whom the node stays in touch.

use std::collections::BTreeSet;

use souk_protocol::{
    NodeId,
    machine::{account::Account, io::Input},
};

use super::task::Market;
use crate::access::{Permission, keys::Granted};

/// Peers that the node stays in touch with only for a payment that one of both has not answered.
const PAID: usize = 256;

impl Market {
    /// Only the renter of an open lease reaches its instance.
    pub(super) fn permit(&mut self, permission: Permission) {
        let Permission { peer, lease, answer } = permission;
        let held = self.engine.host().leases().get(&lease).filter(|l| l.draft().renter == peer);
        let verdict = match held {
            None => Err("this host has no open lease of yours by that id".to_owned()),
            Some(l) if l.state().is_ended() => Err("the lease is over".to_owned()),
            Some(l) => Ok(Granted { renter: peer, keys: l.workload().ssh_keys.clone() }),
        };
        let reached = verdict.is_ok();
        answer.send(verdict).ok();
        if reached {
            // Who has used it can't say later that it never was.
            self.input(Input::Reached { lease });
        }
    }

    /// Stays in touch with the other sides of open leases, and with the owner's other nodes.
    pub(super) fn keep_peers(&mut self) {
        let me = self.engine.me();
        let renters = self.engine.host().leases().values().map(|l| l.draft().renter);
        let hosts = self.engine.renter().leases().values().map(|l| l.host());
        // Who has not answered a payment, either way, is to be reached, too.
        let unanswered = |a: &&Account| {
            let flows = a.flows();
            flows.paid > flows.paid_acked || flows.received_claimed > flows.received
        };
        let paid = self.engine.accounts().iter().filter(unanswered).map(Account::peer).take(PAID);
        let parties = renters.chain(hosts).chain(paid);
        let wanted: BTreeSet<NodeId> = parties.chain(self.owned.kept()).filter(|p| *p != me).collect();
        if wanted == self.kept {
            return;
        }
        let changes: Vec<(NodeId, bool)> = wanted
            .difference(&self.kept)
            .map(|p| (*p, true))
            .chain(self.kept.difference(&wanted).map(|p| (*p, false)))
            .collect();
        self.kept = wanted;
        let network = self.network.clone();
        tokio::spawn(async move {
            for (peer, keep) in changes {
                let done = if keep { network.keep(peer).await } else { network.unkeep(peer).await };
                if done.is_err() {
                    return;
                }
            }
        });
    }
}
