//! Usages and acknowledgements: cumulative, so the newest pair is all that is kept.

use souk_protocol::receipt::{Ack, Usage};

use super::{Applied, FoldError, Refusal, State};
use crate::{
    chain::{ForkProof, ForkRow},
    lease::{Lease, RECENT_USAGES, Receipt},
    record::Held,
};

impl State {
    pub(super) fn usage(&mut self, usage: Held<Usage>) -> Result<Applied, FoldError> {
        let own = self.own;
        let (id, value) = (usage.value.lease, &usage.value);
        let lease = self.lease(&id)?.ok_or(Refusal::UnknownLease(id))?;
        if value.host != lease.host() {
            return Err(Refusal::NotItsAuthors.into());
        }
        if let Some(held) = held(lease, value.n) {
            if held.id == usage.id {
                return Ok(Applied::Known);
            }
            if value.host == own {
                return Err(Refusal::WouldFork("this usage's number is taken").into());
            }
            let proof = ForkProof::Usages(held.signed.clone(), usage.signed.clone());
            return self.keep_fork(&usage.value.host, &ForkRow::Proof(proof));
        }
        check_usage(lease, value)?;
        if lease.newest_usage().is_some_and(|u| value.n != u.value.n + 1) && value.host == own {
            return Err(Refusal::Receipt("our usages leave out a number").into());
        }
        if usage.value.host == own {
            self.earn(&id, &usage.value)?;
        }
        self.change(&id, true, |lease| {
            let recent = &mut lease.receipts.recent;
            if recent.len() == RECENT_USAGES {
                recent.remove(0);
            }
            recent.push(usage);
        })?;
        Ok(Applied::New)
    }

    pub(super) fn ack(&mut self, ack: Held<Ack>) -> Result<Applied, FoldError> {
        let own = self.own;
        let (id, value) = (ack.value.lease, &ack.value);
        let lease = self.lease(&id)?.ok_or(Refusal::UnknownLease(id))?;
        if value.renter != lease.renter() {
            return Err(Refusal::NotItsAuthors.into());
        }
        if let Some(agreed) = &lease.receipts.agreed {
            let last = &agreed.ack;
            if last.id == ack.id {
                return Ok(Applied::Known);
            }
            if value.n > last.value.n && value.due < last.value.due && value.renter != own {
                let proof = ForkProof::Acks(last.signed.clone(), ack.signed.clone());
                return self.keep_fork(&ack.value.renter, &ForkRow::Proof(proof));
            }
            if value.n < last.value.n || value.due < last.value.due {
                return Err(Refusal::Receipt("a newer acknowledgement is held").into());
            }
        }
        let usage = held(lease, value.n)
            .filter(|usage| usage.id == value.usage)
            .ok_or(Refusal::Receipt("it answers a usage that is not held"))?;
        check_ack(&usage.value, value)?;
        let usage = usage.clone();
        self.change(&id, true, |lease| {
            lease.receipts.recent.retain(|u| u.value.n > usage.value.n);
            let terms = usage.value.terms;
            let newest = lease.terms().n;
            let needed = |n: u32| n >= terms || n == newest;
            lease.amended.retain(|e| e.value.body.amended().is_none_or(|a| needed(a.terms.n)));
            lease.receipts.agreed = Some(Receipt { usage, ack });
        })?;
        Ok(Applied::New)
    }
}

/// The usage with a number, if it is still held.
fn held(lease: &Lease, n: u64) -> Option<&Held<Usage>> {
    let agreed = lease.receipts.agreed.as_ref().map(|r| &r.usage);
    lease.receipts.recent.iter().chain(agreed).find(|usage| usage.value.n == n)
}

/// What every usage must be, against the lease's terms and the usage before it.
fn check_usage(lease: &Lease, usage: &Usage) -> Result<(), Refusal> {
    if !lease.is_accepted() {
        return Err(Refusal::Lease("it is not accepted"));
    }
    if lease.host_close.is_some() {
        return Err(Refusal::Lease("its host has closed it"));
    }
    let terms = lease.terms_numbered(usage.terms).ok_or(Refusal::Receipt("its terms are not held"))?;
    if !usage.counters.covers(&terms.counted) {
        return Err(Refusal::Receipt("it counts less than its terms began with"));
    }
    let due = terms.due_in(&lease.draft.value, &usage.counters, usage.state).map_err(Refusal::Overflow)?;
    if due != usage.due {
        return Err(Refusal::Receipt("its sum is not what the rates make of its counts"));
    }
    if terms.max_spend.is_some_and(|most| usage.due > most) {
        return Err(Refusal::Receipt("it is above the lease's ceiling"));
    }
    let Some(last) = lease.newest_usage() else {
        return Ok(());
    };
    if usage.n < last.value.n {
        return Err(Refusal::Receipt("a newer usage is held"));
    }
    if usage.n == last.value.n + 1 && usage.prev != Some(last.id) {
        return Err(Refusal::Receipt("it does not name the usage before it"));
    }
    if usage.terms < last.value.terms {
        return Err(Refusal::Receipt("it goes back to terms that were amended"));
    }
    if !usage.counters.covers(&last.value.counters) {
        return Err(Refusal::Receipt("a count has shrunk"));
    }
    if usage.time < last.value.time {
        return Err(Refusal::Receipt("it is dated before the usage before it"));
    }
    Ok(())
}

/// What every acknowledgement must be, against the usage it answers.
pub(crate) fn check_ack(usage: &Usage, ack: &Ack) -> Result<(), Refusal> {
    if ack.due > usage.due {
        return Err(Refusal::Receipt("it agrees to more than is claimed"));
    }
    if (ack.due < usage.due) != ack.partial.is_some() {
        return Err(Refusal::Receipt("it gives a reason for no difference, or none for one"));
    }
    Ok(())
}
