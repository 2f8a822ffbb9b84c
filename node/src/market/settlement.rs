//! Payments that the engine wants made or found, where no program does that: people pay, and say what has arrived.

use souk_protocol::machine::io::{ClaimedPayment, Command, DuePayment, DueReason, Input};

use super::task::Market;

impl Market {
    /// Something is to be paid to a host.
    pub(super) fn settlement_due(&mut self, due: &DuePayment) {
        let DuePayment { peer, currency, amount, methods, why, .. } = due;
        let methods = methods.join(", ");
        tracing::info!(%peer, "{amount} {currency} are to be paid by one of: {methods}");
        if *why == DueReason::First {
            let why = format!(
                "the host wants {amount} {currency} first, by one of: {methods}; this node can't pay by itself"
            );
            self.input(Input::Command(Command::CannotSettle { peer: *peer, currency: currency.clone(), why }));
        }
    }

    /// A peer says to have paid: the owner of this node says whether it has arrived.
    pub(super) fn settlement_claimed(payment: &ClaimedPayment) {
        let said = &payment.said;
        tracing::info!(peer = %payment.peer, "{} {} are said to be paid by {}, reference {}", said.amount, said.currency, said.method, said.reference);
    }
}
