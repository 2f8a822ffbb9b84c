//! What the market shows to the owner's hooks: each lease that changed, and all of them now and then, for what no change tells.
//!
//! Owns nothing: what of it is news is for [`crate::hooks`] to say.

use souk_protocol::LeaseId;

use super::{task::Market, views};
use crate::hooks::{Machine, Sight};

impl Market {
    /// Marks every open lease and the machine: time passes, and peers come and go.
    pub(super) fn mark_all(&mut self) {
        if !self.hooks.wanted() {
            return;
        }
        let hosted = self.engine.host().leases().keys();
        let leases: Vec<LeaseId> = hosted.chain(self.engine.renter().leases().keys()).copied().collect();
        for lease in leases {
            self.hooks.mark(lease);
        }
        self.hooks.mark_machine();
    }

    /// Shows what is marked, as far as there is room. Never waits.
    pub(super) fn show_marked(&mut self) {
        if !self.hooks.is_marked() {
            return;
        }
        if self.hooks.take_machine() {
            let machine = self.machine_seen();
            self.hooks.show_machine(machine);
        }
        let mut missing = Vec::new();
        while let Some(lease) = self.hooks.take() {
            match self.sight(lease) {
                Some(sight) => self.hooks.show(sight),
                // Its first records are still on their way to the disk.
                None => missing.push(lease),
            }
        }
        for lease in missing {
            if self.settling.contains(&lease) {
                self.hooks.mark(lease);
            }
        }
    }

    fn machine_seen(&self) -> Option<Machine> {
        let host = self.host.as_ref()?;
        let slots = self.engine.host().slots().all();
        let gpus = host.devices().into_iter().enumerate().filter_map(|(n, (device, _))| {
            let lease = slots.get(n).and_then(|slot| slot.lease);
            device.map(|device| (device, lease))
        });
        let engine = match (&self.runtime, &self.runtime_problem) {
            (_, Some(_)) => Some(false),
            (Some(_), None) => Some(true),
            (None, None) => None,
        };
        let data_root = self.runtime.as_ref().map(|r| souk_runtime::Runtime::info(&**r).data_root);
        Some(Machine { id: host.machine(), engine, gpus: gpus.collect(), data_root })
    }

    fn sight(&self, lease: LeaseId) -> Option<Sight> {
        let mut view = self.view(lease)?;
        let (draft, terms, events, held) = if let Some(l) = self.engine.host().leases().get(&lease) {
            ((**l.draft()).clone(), Some(*l.terms()), l.events().to_vec(), true)
        } else if let Some(l) = self.engine.renter().leases().get(&lease) {
            ((**l.draft()).clone(), Some(*l.terms()), l.events().to_vec(), true)
        } else {
            let row = self.ledger.row(&lease)?;
            (views::draft_of(&row)?, None, row.events, self.settling.contains(&lease))
        };
        if let Some(terms) = terms {
            (view.ends_at_ms, view.price_hour) = (terms.ends_at, terms.compute_hour);
        }
        Some(Sight {
            machine: draft.machine,
            drafted_at: draft.drafted_at,
            credit: draft.credit,
            max_spend: terms.map_or(draft.max_spend, |t| t.max_spend),
            disk: self.hooks.disk_of(&lease),
            events,
            held,
            view,
        })
    }
}
