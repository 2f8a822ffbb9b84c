//! What this node earned as a host, read from the day rows of the fold.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::{ControlFlow, RangeInclusive},
};

use souk_protocol::{Amount, Currency, LeaseId, MachineId};

use super::{QueryError, View};
use crate::{
    earnings::{Day, Earned, Earnings},
    keys,
    state::decode,
};

/// What all days of a lease have in common.
struct Whole {
    machine: MachineId,
    currency: Currency,
    claimed: Amount,
    agreed: Amount,
}

impl View {
    /// What was earned in these days. Memory is bounded by the leases that were there in them.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn earnings(&self, days: RangeInclusive<u32>) -> Result<Earnings, QueryError> {
        let mut earnings = Earnings::default();
        let mut leases = BTreeMap::new();
        let mut failed = None;
        self.kv.scan(keys::EARNED, &keys::earned_from(*days.start()), &mut |key, row| {
            let Some(day) = keys::day_of(key).filter(|day| day <= days.end()) else {
                return ControlFlow::Break(());
            };
            match keys::lease_of(key).map_or(Ok(()), |id| self.add(&mut earnings, &mut leases, day, id, row)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(earnings), Err)
    }

    fn add(
        &self,
        earnings: &mut Earnings,
        leases: &mut BTreeMap<LeaseId, Whole>,
        day: u32,
        id: LeaseId,
        row: &[u8],
    ) -> Result<(), QueryError> {
        let row: Day = decode(row, "earnings")?;
        let whole = match leases.entry(id) {
            Entry::Occupied(whole) => whole.into_mut(),
            Entry::Vacant(place) => {
                let Some(lease) = self.lease(&id)? else { return Ok(()) };
                place.insert(Whole {
                    machine: lease.draft.value.machine,
                    currency: lease.currency().clone(),
                    claimed: lease.claimed(),
                    agreed: lease.agreed(),
                })
            }
        };
        let earned = Earned::of(&row, whole.claimed, whole.agreed);
        earnings.days.entry((day, whole.machine, whole.currency.clone())).or_default().join(&earned);
        Ok(())
    }
}
