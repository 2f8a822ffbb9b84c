//! First payments: an open whose draft asks for one waits until it is known that it has arrived, and holds no slots meanwhile.

use super::{Host, WAITING, reject};
use crate::{
    Amount, DocumentId, LeaseId, Timestamp, Verified,
    entry::{Entry, VoidCode},
    lease::LeaseDraft,
    limits,
    machine::{context::Context, io::Token, settling::Told},
    message::Response,
    negotiation::RejectCode,
    payment::PayWhen,
    signed::Signed,
    workload::Workload,
};

/// Opens waiting for their first payment.
pub(super) const PAYING: usize = 64;

/// An open that waits for its first payment.
#[derive(Debug)]
pub(super) struct Paying {
    tokens: Vec<Token>,
    open: Verified<Entry>,
    draft: Verified<LeaseDraft>,
    workload: (Workload, Vec<u8>),
    settle: DocumentId,
    until: Timestamp,
}

impl Paying {
    pub(super) fn draft(&self) -> &LeaseDraft {
        &self.draft
    }
}

impl Host {
    /// Takes an open that may be taken, once its first payment is there, if it needs one.
    #[allow(clippy::too_many_arguments)] // the open, what is in it and what came with it
    pub(super) fn open_with_payment(
        &mut self,
        cx: &mut Context,
        token: Token,
        open: Verified<Entry>,
        draft: Verified<LeaseDraft>,
        workload: (Workload, Vec<u8>),
        settle: Option<&Signed<Entry>>,
        now: Timestamp,
    ) {
        let from = draft.renter;
        // A payment that has come is kept whatever becomes of the open.
        let until = Some(now + limits::PAYMENT_WITHIN);
        let told = settle.map(|signed| {
            cx.take_settle(from, signed, |cx, settle| self.dealing(cx, &from, settle, Some(&draft)), until, now)
        });
        let arrived = if let Some(Ok((Told::Answered(arrived), _))) = told { arrived } else { Amount::ZERO };
        if self.has_paid(cx, &draft, arrived, now) {
            return self.take_open(cx, vec![token], open, draft, workload, now);
        }
        let why = match told {
            Some(Ok((Told::Waits, settle))) if self.paying.len() < PAYING => {
                let until = now + limits::PAYMENT_WITHIN;
                let paying = Paying { tokens: vec![token], open, draft: draft.clone(), workload, settle, until };
                self.paying.insert(draft.id().into(), paying);
                return;
            }
            Some(Ok((Told::Waits | Told::Early, _))) => {
                return cx.reply(token, Response::Busy { retry_after_ms: 1000 }, None);
            }
            Some(Ok((Told::Answered(_), _))) => "its first payment has not arrived, or is used up",
            Some(Err(why)) => why,
            None => "this host takes an open of yours only with its first payment",
        };
        self.void(cx, vec![token], &open, &draft, VoidCode::Unpaid, why, now);
    }

    /// Whether this open waits for its payment already. One that comes again is answered with the first.
    pub(super) fn is_paying(&mut self, cx: &mut Context, token: Token, open: &Verified<Entry>, lease: LeaseId) -> bool {
        let Some(waiting) = self.paying.get_mut(&lease) else { return false };
        if waiting.open.id() != open.id() {
            reject(cx, token, RejectCode::Taken, "this draft was opened before, by another open");
        } else if waiting.tokens.len() < WAITING {
            waiting.tokens.push(token);
        } else {
            cx.reply(token, Response::Busy { retry_after_ms: 200 }, None);
        }
        true
    }

    /// Whether there is anything between us and this peer but what it says itself.
    pub(in super::super) fn deals_with(&self, cx: &Context, peer: &crate::NodeId) -> bool {
        self.leases.values().any(|l| l.draft().renter == *peer)
            || cx
                .accounts
                .iter()
                .any(|a| a.peer() == *peer && (a.flows().earned > Amount::ZERO || a.note().refused > Amount::ZERO))
    }

    /// Whether what is paid before use is there: a whole slice is paid ahead; or the first payment has arrived and is not used up
    /// by other leases, or by what was refused, but for a quarter at most. What arrived counts for nothing by itself: of an old
    /// payment nothing may be left.
    fn has_paid(&self, cx: &Context, draft: &LeaseDraft, arrived: Amount, now: Timestamp) -> bool {
        let Some(payment) = draft.payment.as_ref().filter(|p| p.when == PayWhen::Before) else { return true };
        let ahead = -self.owed_by(cx, &(draft.renter, draft.currency.clone()), now);
        let covers = ahead > 0 && ahead >= i128::from(payment.first.0 - payment.first.0 / 4);
        (arrived >= payment.first && covers) || ahead >= i128::from(payment.slice.0)
    }

    /// A payment has arrived, or has not: opens that wait for it are taken or void.
    pub(in super::super) fn payment_verified(
        &mut self,
        cx: &mut Context,
        settle: DocumentId,
        arrived: &Result<Amount, String>,
        now: Timestamp,
    ) {
        let waiting: Vec<LeaseId> = self.paying.iter().filter(|(_, p)| p.settle == settle).map(|(id, _)| *id).collect();
        for lease in waiting {
            let Some(paying) = self.paying.remove(&lease) else { continue };
            let Paying { tokens, open, draft, workload, .. } = paying;
            let amount = arrived.as_ref().map_or(Amount::ZERO, |amount| *amount);
            if self.has_paid(cx, &draft, amount, now) {
                self.take_open(cx, tokens, open, draft, workload, now);
            } else {
                let why = match arrived {
                    Ok(amount) if draft.payment.as_ref().is_some_and(|p| *amount >= p.first) => {
                        "its first payment has arrived, and is used up already".to_owned()
                    }
                    Ok(amount) => format!("only {amount} {} of its first payment have arrived", draft.currency),
                    Err(_) => "its first payment has not arrived".to_owned(),
                };
                self.void(cx, tokens, &open, &draft, VoidCode::Unpaid, &why, now);
            }
        }
    }

    /// Opens whose payment is not there in time are void. What arrives later is the renter's all the same: it is paid ahead.
    pub(super) fn give_up_paying(&mut self, cx: &mut Context, now: Timestamp) {
        let late: Vec<LeaseId> = self.paying.iter().filter(|(_, p)| p.until <= now).map(|(id, _)| *id).collect();
        for lease in late {
            if let Some(Paying { tokens, open, draft, .. }) = self.paying.remove(&lease) {
                let why = format!("its first payment did not arrive within {}", limits::PAYMENT_WITHIN);
                self.void(cx, tokens, &open, &draft, VoidCode::Unpaid, &why, now);
            }
        }
    }

    pub(super) fn paying_until(&self) -> Option<Timestamp> {
        self.paying.values().map(|p| p.until).min()
    }

    pub(super) fn paying_clock_went_back(&mut self, now: Timestamp) {
        for paying in self.paying.values_mut() {
            paying.until = paying.until.min(now + limits::PAYMENT_WITHIN);
        }
    }
}
