//! What owners wish, until the world comes to rest.

use souk_protocol::{
    LeaseId, Nonce,
    lease::LeaseState,
    machine::{
        io::{Command, Input, Step as Progress},
        renter_lease::Opened,
    },
    message::Action,
};

use super::{Event, Held, World, owner};

impl World {
    pub(super) fn rent(&mut self, node: usize) -> Held {
        let wish = self.nodes[node].engine.as_ref().and_then(|e| owner::wish(&mut self.dice, e));
        let Some(wish) = wish.filter(|_| !self.resting) else {
            return Ok(());
        };
        let token = self.nodes[node].token();
        self.feed(node, Input::Command(Command::Rent { token, wish: Box::new(wish) }))
    }

    /// An owner hears of a negotiation, and makes plans for the instance.
    pub(super) fn progressed(&mut self, node: usize, step: Progress) {
        let Progress::Accepted { lease } = step else {
            return;
        };
        let kept = self.settings.kept;
        for action in [Action::Stop, Action::Start, Action::Start] {
            if self.dice.permille(400) {
                self.after(100, kept, Event::Act { node, lease, action });
            }
        }
        self.after(kept / 4, kept, Event::Act { node, lease, action: Action::Destroy });
    }

    pub(super) fn act(&mut self, node: usize, lease: LeaseId, action: Action) -> Held {
        let open =
            self.nodes[node].engine.as_ref().and_then(|e| e.renter().leases().get(&lease)).is_some_and(|l| {
                matches!(l.answer(), Opened::Accepted(_)) && !matches!(l.state(), LeaseState::Ended(_))
            });
        if !open {
            return Ok(());
        }
        let (token, nonce) = (self.nodes[node].token(), Nonce(self.dice.bytes()));
        self.feed(node, Input::Command(Command::Control { token, lease, action, nonce }))
    }

    /// Troubles are over: everything comes back, and owners destroy what they still have.
    pub(super) fn rest(&mut self) -> Held {
        self.resting = true;
        self.net.loss = 0;
        self.net.repeat = 0;
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.start(node)?;
            self.engine_up(node)?;
            if let Some((machine, _)) = &mut self.nodes[node].hosting {
                machine.failing = 0;
                machine.locks.retain(|_, holder| holder.is_some());
            }
            let rented = self.nodes[node].engine.iter().flat_map(|e| e.renter().leases().keys().copied());
            for lease in rented.collect::<Vec<_>>() {
                self.after(1, 20_000, Event::Act { node, lease, action: Action::Destroy });
            }
        }
        for (a, b) in self.net.wanted.clone() {
            self.after(1, 5_000, Event::LinkUp(a, b));
        }
        self.after(60_000, 61_000, Event::Rest);
        Ok(())
    }
}
