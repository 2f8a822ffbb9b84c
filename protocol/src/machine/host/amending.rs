//! Renters' changes of their leases' terms, and questions for prices: what the owner's settings say to them.

use super::{Host, cluster::Cluster, control::NOT_YOURS, reject};
use crate::{
    Amount, LeaseId, MachineId, NodeId, Timestamp,
    entry::Entry,
    limits,
    machine::{
        context::Context,
        host_lease::HostLease,
        io::{Output, Refusal, Token},
        policy,
    },
    message::{Extension, Response},
    negotiation::{Reject, RejectCode},
    signed::Signed,
};

impl Host {
    /// A renter's `amend`. The same one always gets the same answer, once there is one.
    pub(super) fn amend(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        entry: &Signed<Entry>,
        now: Timestamp,
    ) {
        if let Some(reject) = self.too_many(from, now) {
            return cx.reply(token, Response::Rejected(reject), None);
        }
        let verified = cx.verify(from, entry).filter(|e| e.author == from && e.peer == Some(cx.me()));
        let Some((entry, lease)) = verified.and_then(|e| e.lease.map(|lease| (e, lease))) else {
            return reject(cx, token, RejectCode::Malformed, "the entry is not its sender's word to this node");
        };
        let now = self.latest.max(now);
        let (setup, maintenance) = (self.setup.as_ref(), self.next_maintenance(now));
        let Some(held) = self.leases.get_mut(&lease).filter(|l| l.draft().renter == from) else {
            return reject(cx, token, RejectCode::Malformed, NOT_YOURS);
        };
        held.confirm();
        if let Some(answer) = held.answer_to(&entry) {
            return cx.reply(token, Response::Answered(answer.to_signed()), held.durable());
        }
        if held.was_refused(&entry) {
            let sentence = "this change, or one after it, was refused before; look again";
            return cx.reply(token, Response::Rejected(Reject::passing(RejectCode::Stale, sentence)), None);
        }
        if held.amends_too_often(now) {
            let sentence = format!("a lease takes {} changes a minute; wait a moment", limits::AMENDS_PER_MINUTE);
            return cx.reply(token, Response::Rejected(Reject::passing(RejectCode::Limit, sentence)), None);
        }
        let agreed = match entry.body.amend() {
            Some(_) if cx.forked.contains(&from) => Err(Reject::lasting(RejectCode::Forked, super::FORKED)),
            Some((_, change, _)) => {
                policy::agree(setup, maintenance, held.draft(), held.terms(), held.asked(), &change, now)
            }
            None => Err(Reject::lasting(RejectCode::Malformed, "the entry is no change of a lease")),
        };
        let result = agreed.and_then(|()| held.amend(cx, &entry, now));
        if result.is_err() {
            held.refuse(&entry);
        }
        let answer = held.answer_to(&entry).map(|e| e.to_signed());
        let durable = held.durable();
        match (result, answer) {
            (Ok(()), Some(answer)) => cx.reply(token, Response::Answered(answer), durable),
            (Ok(()), None) => cx.reply(token, Response::Busy { retry_after_ms: 500 }, None),
            (Err(reject), _) => cx.reply(token, Response::Rejected(reject), None),
        }
        self.dirty = true;
    }

    /// What it takes to win slots now.
    pub(super) fn quote(&mut self, cx: &mut Context, from: NodeId, token: Token, machine: MachineId, now: Timestamp) {
        if let Some(reject) = self.too_many(from, now) {
            return cx.reply(token, Response::Rejected(reject), None);
        }
        let accepts = self.setup.as_ref().is_some_and(|s| s.accept.takes(&from));
        match self.offer.as_ref().filter(|offer| accepts && offer.machine == machine) {
            Some(offer) => {
                let slices = self.slice_quotes(offer);
                cx.reply(token, Response::Quoted { slices }, None);
            }
            None => reject(cx, token, RejectCode::Stale, "this machine is not offered to you (any more)"),
        }
    }

    /// What a later end of a lease costs.
    pub(super) fn asked_extension(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        (lease, ends_at): (LeaseId, Timestamp),
        now: Timestamp,
    ) {
        if let Some(reject) = self.too_many(from, now) {
            return cx.reply(token, Response::Rejected(reject), None);
        }
        let maintenance = self.next_maintenance(now);
        let Some(held) = self.leases.get_mut(&lease).filter(|l| l.draft().renter == from) else {
            return reject(cx, token, RejectCode::Malformed, NOT_YOURS);
        };
        held.confirm();
        match policy::extension_price(self.setup.as_ref(), maintenance, held.draft(), held.terms(), ends_at, now) {
            Ok(compute_hour) => {
                let extension = Extension { ends_at, compute_hour, valid_until: now + limits::COUNTER_LIFE };
                cx.reply(token, Response::Extension(extension), None);
            }
            Err(reject) => cx.reply(token, Response::Rejected(reject), None),
        }
    }

    /// Extends leases whose renters allow it, and asks those whose price would rise.
    pub(super) fn extend_leases(&mut self, cx: &mut Context, now: Timestamp) {
        let maintenance = self.next_maintenance(now);
        let roster = self.cluster.as_ref().map(Cluster::roster);
        let strange = |lease: &HostLease| roster.is_some_and(|r| !r.is_member(&lease.draft().renter));
        for lease in self.leases.values_mut() {
            let Some(ends_at) = lease.wants_extension(now) else { continue };
            let price =
                policy::extension_price(self.setup.as_ref(), maintenance, lease.draft(), lease.terms(), ends_at, now);
            match price {
                Ok(_) if cx.forked.contains(&lease.draft().renter) || strange(lease) => lease.not_extended(now),
                Ok(price) if price <= lease.terms().last_price() => lease.extend_alone(cx, ends_at, price, now),
                Ok(compute_hour) => {
                    let valid_until = lease.terms().ends_at;
                    lease.ask_extension(cx, Extension { ends_at, compute_hour, valid_until }, now);
                    lease.not_extended(now);
                }
                Err(_) => lease.not_extended(now),
            }
        }
    }

    /// The owner asks the renter of a lease for a longer contract.
    pub(in super::super) fn offer_extension(
        &mut self,
        cx: &mut Context,
        token: Token,
        lease: LeaseId,
        (ends_at, compute_hour): (Timestamp, Amount),
        now: Timestamp,
    ) {
        let open = |l: &&mut HostLease| l.wants_slots() || !l.state().is_ended();
        let result = match self.leases.get_mut(&lease).filter(open) {
            Some(held) if ends_at <= held.terms().ends_at => {
                Err(Refusal::Malformed("the new end is not after the present one".to_owned()))
            }
            Some(held) => {
                let valid_until = held.terms().ends_at.max(now + limits::COUNTER_LIFE);
                held.ask_extension_anew(cx, Extension { ends_at, compute_hour, valid_until }, now);
                Ok(())
            }
            None => Err(Refusal::UnknownLease(lease)),
        };
        cx.out(Output::Done { token, result });
    }
}
