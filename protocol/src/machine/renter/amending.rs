//! What a renter asks about its leases, or of hosts it has none with: changes of terms, and prices.

use super::Renter;
use crate::{
    DocumentId, LeaseId, MachineId, NodeId, Timestamp,
    machine::{
        context::{Asked, Context},
        io::{NoAnswer, Output, Quote, Refusal, Token},
        renter_lease::Opened,
    },
    message::{Request, Response},
    terms::Change,
};

impl Renter {
    /// The owner wants a lease's terms changed.
    pub(in super::super) fn amend(
        &mut self,
        cx: &mut Context,
        token: Token,
        lease: LeaseId,
        change: Change,
        now: Timestamp,
    ) {
        let accepted = |l: &&mut super::RenterLease| matches!(l.answer(), Opened::Accepted(_));
        let result = match self.leases.get_mut(&lease).filter(accepted) {
            Some(held) => held.amend(cx, token, change, now),
            None => Err(Refusal::UnknownLease(lease)),
        };
        if let Err(why) = result {
            cx.out(Output::Done { token, result: Err(why) });
        }
    }

    /// The host's answer to a change.
    pub(in super::super) fn amended(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        amend: DocumentId,
        result: Result<Response, NoAnswer>,
        now: Timestamp,
    ) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.amend_answered(cx, amend, result.ok(), now);
        }
    }

    /// Asks a host what it takes to win slots.
    pub(in super::super) fn quote(cx: &mut Context, token: Token, host: NodeId, machine: MachineId) {
        if host == cx.me() {
            let why = Refusal::Malformed("this is a machine of this very node: see `souk host show`".to_owned());
            return cx.out(Output::Quoted { token, result: Err(why) });
        }
        cx.send(host, Request::Quote { machine }, None, Asked::Quote(token));
    }

    /// Asks the host of a lease what it takes for a later end.
    pub(in super::super) fn ask_extension(&self, cx: &mut Context, token: Token, lease: LeaseId, ends_at: Timestamp) {
        match self.leases.get(&lease).filter(|l| matches!(l.answer(), Opened::Accepted(_))) {
            Some(held) => {
                cx.send(held.host(), Request::AskExtension { lease, ends_at }, None, Asked::Quote(token));
            }
            None => cx.out(Output::Quoted { token, result: Err(Refusal::UnknownLease(lease)) }),
        }
    }

    /// A host's word on what it takes.
    pub(in super::super) fn quoted(cx: &mut Context, token: Token, from: NodeId, result: Result<Response, NoAnswer>) {
        let result = match result {
            Ok(Response::Quoted { slices }) => Ok(Quote::Slices(slices)),
            Ok(Response::Extension(extension)) => Ok(Quote::Extension(extension)),
            Ok(Response::Rejected(reject)) => Err(Refusal::Host(reject)),
            Ok(Response::Busy { .. }) => Err(Refusal::NoAnswer("it is busy; try again in a moment".to_owned())),
            Ok(_) => {
                cx.wrong_answer(from, "not an answer to a question for prices");
                Err(Refusal::NoAnswer("its answer made no sense".to_owned()))
            }
            Err(no_answer) => Err(Refusal::NoAnswer(no_answer.why)),
        };
        cx.out(Output::Quoted { token, result });
    }
}
