//! Whose payments a host takes, in which currencies and by which methods: a payment that nobody could owe is not looked for.

use super::Host;
use crate::{
    Currency, NodeId,
    lease::LeaseDraft,
    machine::{context::Context, settling::Dealing},
    settlement::Settle,
};

impl Host {
    /// What a payment of this peer is to us. `draft` is the one of ours that it comes with an open for.
    pub(in super::super) fn dealing(
        &self,
        cx: &Context,
        peer: &NodeId,
        settle: &Settle,
        draft: Option<&LeaseDraft>,
    ) -> Dealing {
        let currency = &settle.currency;
        let mut drafts = self.leases.values().map(|l| l.draft()).filter(|d| d.renter == *peer);
        let leased = drafts.any(|d| d.currency == *currency && names(d, &settle.method));
        if leased || draft.is_some_and(|d| d.currency == *currency && names(d, &settle.method)) {
            return Dealing { deals: self.deals_with(cx, peer), fits: true, drafted: draft.is_some() };
        }
        let methods = &cx.accounts.policy().lending.methods;
        let method = methods.is_empty() || methods.contains(&settle.method);
        let fits = method && (self.trades_in(cx, currency) || cx.has_account(peer, currency));
        Dealing { deals: self.deals_with(cx, peer), fits, drafted: false }
    }

    /// Whether a currency is this node's own, or it offers in it, or has earned in it before.
    fn trades_in(&self, cx: &Context, currency: &Currency) -> bool {
        cx.accounts.policy().lending.currencies.contains(currency)
            || self.setup.as_ref().is_some_and(|setup| setup.terms.currency == *currency)
            || self.leases.values().any(|l| l.draft().currency == *currency)
            || cx.accounts.iter().any(|a| a.currency() == currency && a.flows().earned > crate::Amount::ZERO)
    }
}

/// Whether a lease may be paid by a method: one that asks for no payment names none, and takes any.
fn names(draft: &LeaseDraft, method: &str) -> bool {
    draft.payment.as_ref().is_none_or(|p| p.methods.is_empty() || p.methods.iter().any(|m| m == method))
}
