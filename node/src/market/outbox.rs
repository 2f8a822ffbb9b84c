//! Outputs that wait for a record to be durable.
//!
//! Owns the order: what waits for the same or an earlier record leaves in the order it came. Bounded by what the engine can have
//! under way, which its own limits bound.

use std::collections::VecDeque;

use souk_protocol::machine::io::{Output, Ticket};

/// The waiting outputs.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<(Ticket, Output)>,
    newest: Option<Ticket>,
    durable: u64,
}

impl Outbox {
    /// Gives an output back if it may be carried out now; else keeps it.
    pub fn admit(&mut self, output: Output) -> Option<Output> {
        let after = match &output {
            Output::Send { after, .. }
            | Output::Reply { after, .. }
            | Output::Publish { after, .. }
            | Output::Runtime { after, .. } => *after,
            Output::Forked { after, .. } => Some(*after),
            // The ledger knows all that was decided before it is asked.
            Output::Recall { .. } => self.newest,
            Output::Persist { ticket, .. } => {
                self.newest = Some(*ticket);
                None
            }
            Output::Verdict { .. }
            | Output::ResolveImage { .. }
            | Output::AskOwner { .. }
            | Output::LockSlots { .. }
            | Output::UnlockSlots { .. }
            | Output::Idle { .. }
            | Output::Quoted { .. }
            | Output::Step { .. }
            | Output::Done { .. }
            | Output::SettlementDue(_)
            | Output::VerifySettlement(_)
            | Output::Changed { .. }
            | Output::BookChanged { .. }
            | Output::Halted(_)
            | Output::Violation(_) => None,
        };
        match after {
            Some(ticket) if ticket.0 > self.durable => {
                self.waiting.push_back((ticket, output));
                None
            }
            Some(_) | None => Some(output),
        }
    }

    /// Everything up to `ticket` is durable: the next output that may leave, until there is none.
    pub fn release(&mut self, ticket: Ticket) -> Option<Output> {
        self.durable = self.durable.max(ticket.0);
        let durable = self.durable;
        let ready = self.waiting.iter().position(|(after, _)| after.0 <= durable)?;
        self.waiting.remove(ready).map(|(_, output)| output)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use souk_protocol::{
        LeaseId,
        machine::io::{RuntimeOrder, Token},
        message::Response,
    };

    use super::*;

    fn order(after: u64) -> Output {
        let order = Box::new(RuntimeOrder::Start { devices: Vec::new() });
        Output::Runtime { lease: LeaseId([after as u8; 32]), order, after: Some(Ticket(after)) }
    }

    #[test]
    fn nothing_leaves_before_its_record_and_order_is_kept() {
        let mut outbox = Outbox::default();
        assert!(outbox.admit(order(2)).is_none());
        assert!(outbox.admit(order(1)).is_none());
        let reply =
            Output::Reply { token: Token(1), response: Box::new(Response::Busy { retry_after_ms: 1 }), after: None };
        assert!(outbox.admit(reply).is_some());
        assert!(matches!(outbox.release(Ticket(1)), Some(Output::Runtime { after: Some(Ticket(1)), .. })));
        assert!(outbox.release(Ticket(1)).is_none());
        assert!(matches!(outbox.release(Ticket(2)), Some(Output::Runtime { after: Some(Ticket(2)), .. })));
        assert!(outbox.is_empty());
        assert!(outbox.admit(order(2)).is_some(), "durable already");
    }
}
