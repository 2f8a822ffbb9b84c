//! Wishes that come from inside an instance, by the endpoint that its node gives to it alone.

use super::Host;
use crate::{
    LeaseId, Timestamp,
    machine::{
        context::Context,
        io::{InsideWish, Output, Refusal, Token},
    },
};

impl Host {
    /// Carries a wish out, and says whether it was granted once that is written down.
    pub(in super::super) fn asked_inside(
        &mut self,
        cx: &mut Context,
        token: Token,
        lease: LeaseId,
        wish: &InsideWish,
        now: Timestamp,
    ) {
        let result = match self.leases.get_mut(&lease) {
            Some(held) => held.asked_inside(cx, wish, now).map_err(Refusal::Inside),
            None => Err(Refusal::Inside("this instance is being destroyed")),
        };
        cx.out(Output::Done { token, result });
        self.settle_slots(lease);
    }
}
