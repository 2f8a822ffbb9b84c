//! What owners wish, until the world comes to rest.

use souk_protocol::{
    Amount, LeaseId, Millis, Nonce,
    lease::LeaseState,
    machine::{
        io::{Command, Input, InsideWish, Step as Progress},
        renter_lease::Opened,
    },
    message::Action,
};

use super::{super::rule, Event, Held, World, owner};

/// How long something may be amiss when there are no troubles: a notice, a stop, a start.
const STUCK: u64 = 240_000;

impl World {
    pub(super) fn rent(&mut self, node: usize) -> Held {
        let wish = self.nodes[node].engine.as_ref().and_then(|e| owner::wish(&mut self.dice, e, self.settings.bids));
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
        for _ in 0..self.settings.changes {
            self.after(100, kept, Event::Change { node, lease });
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
        self.nodes[node].waiting.insert(token);
        self.feed(node, Input::Command(Command::Control { token, lease, action, nonce }))
    }

    /// A renter wants other terms, or asks for prices.
    pub(super) fn change(&mut self, node: usize, lease: LeaseId) -> Held {
        let now = self.nodes[node].time(self.now);
        let Some(engine) = &self.nodes[node].engine else {
            return Ok(());
        };
        let Some(held) = engine.renter().leases().get(&lease).filter(|l| matches!(l.answer(), Opened::Accepted(_)))
        else {
            return Ok(());
        };
        let change = owner::change(&mut self.dice, held, now);
        let (host, machine, ends_at) = (held.draft().host, held.draft().machine, held.terms().ends_at);
        let token = self.nodes[node].token();
        self.nodes[node].waiting.insert(token);
        let command = match self.dice.range(0, 10) {
            0 => Command::Quote { token, host, machine },
            1 => Command::AskExtension { token, lease, ends_at: ends_at + Millis::from_secs(30) },
            2 => {
                let (action, nonce) = (Action::DeclineExtension, Nonce(self.dice.bytes()));
                Command::Control { token, lease, action, nonce }
            }
            _ => Command::Amend { token, lease, change },
        };
        self.outcome.changes += 1;
        if self.trace {
            super::eprint_line(&format!("wishes {token:?}: {command:?}"));
        }
        self.feed(node, Input::Command(command))
    }

    /// The owner of a machine changes its mind.
    pub(super) fn rethink(&mut self, node: usize) -> Held {
        let now = self.nodes[node].time(self.now);
        let Some((_, setup)) = self.nodes[node].hosting.as_mut().filter(|_| !self.calm) else {
            return Ok(());
        };
        owner::rethink(&mut self.dice, setup, now);
        let setup = Some(Box::new(setup.clone()));
        self.feed(node, Input::Command(Command::Host(setup)))?;
        let hosted = self.nodes[node].engine.iter().flat_map(|e| e.host().leases().values());
        let hosted: Vec<_> = hosted.map(|l| (l.id(), l.terms().ends_at, l.terms().compute_hour)).collect();
        let Some((lease, ends_at, price)) = self.dice.pick(&hosted).copied() else {
            return Ok(());
        };
        if self.dice.permille(60) {
            let wish = match self.dice.range(0, 4) {
                0 => InsideWish::Stop,
                1 => InsideWish::Destroy,
                n => InsideWish::Label(format!("step {n} of {}", self.dice.range(0, 100))),
            };
            let token = self.nodes[node].token();
            self.nodes[node].waiting.insert(token);
            return self.feed(node, Input::Command(Command::FromInside { token, lease, wish }));
        }
        let token = self.nodes[node].token();
        self.nodes[node].waiting.insert(token);
        let compute_hour = Amount((price.0 / 100).saturating_mul(self.dice.range(50, 200)));
        let ends_at = ends_at + Millis::from_secs(self.dice.range(0, 200));
        self.feed(node, Input::Command(Command::OfferExtension { token, lease, ends_at, compute_hour }))
    }

    /// A node hears which of its machine's slots other nodes hold.
    pub(super) fn tell_foreign(&mut self, node: usize) -> Held {
        let Some((machine, _)) = &self.nodes[node].hosting else {
            return Ok(());
        };
        let slots = machine.locks.iter().filter(|(_, holder)| holder.is_none()).map(|(slot, _)| *slot).collect();
        self.feed(node, Input::Foreign { slots })
    }

    /// Looks whether everything is as the rule says, or has been amiss for too long.
    pub(super) fn look(&mut self) -> Held {
        for node in 0..self.nodes.len() {
            let now = self.now;
            let n = &mut self.nodes[node];
            let Some(shares) = rule::shares(n) else {
                continue;
            };
            let Some(engine) = &n.engine else {
                continue;
            };
            let state = |id: &LeaseId| engine.host().leases().get(id).map(|l| l.state());
            let mut amiss = std::collections::BTreeMap::new();
            for (id, runs) in shares.supposed() {
                let running = state(&id) == Some(LeaseState::Running);
                if running != runs {
                    amiss.insert(id, n.amiss.get(&id).copied().unwrap_or(now));
                }
            }
            n.amiss = amiss;
            if let Some((id, since)) = n.amiss.iter().find(|(_, since)| now - **since > STUCK) {
                return Err(format!(
                    "progress: {} is {:?} for {} ms, and should not be",
                    id.short(),
                    state(id),
                    now - since
                ));
            }
        }
        self.outcome.looks += 1;
        if !self.resting {
            self.at(self.now + 5_000, Event::Look);
        }
        Ok(())
    }

    /// Troubles are over, trade is not.
    pub(super) fn calm_down(&mut self) -> Held {
        self.calm = true;
        self.net.loss = 0;
        self.net.repeat = 0;
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.start(node)?;
            self.engine_up(node)?;
            let run = self.nodes[node].run;
            if let Some((machine, _)) = &mut self.nodes[node].hosting {
                machine.failing = 0;
                machine.locks.retain(|_, holder| holder.is_some());
                self.after(100, 3_000, Event::TellForeign { node, run });
            }
        }
        for (a, b) in self.net.wanted.clone() {
            self.after(1, 5_000, Event::LinkUp(a, b));
        }
        self.after(60_000, 61_000, Event::Look);
        Ok(())
    }

    /// Troubles are over: everything comes back, and owners destroy what they still have.
    pub(super) fn rest(&mut self) -> Held {
        self.resting = true;
        self.calm = true;
        self.net.loss = 0;
        self.net.repeat = 0;
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.start(node)?;
            self.engine_up(node)?;
            if let Some((machine, _)) = &mut self.nodes[node].hosting {
                machine.failing = 0;
                machine.locks.retain(|_, holder| holder.is_some());
                let run = self.nodes[node].run;
                self.after(1, 3_000, Event::TellForeign { node, run });
            }
            let rented = self.nodes[node].engine.iter().flat_map(|e| e.renter().leases().values());
            for (lease, volume) in rented.map(|l| (l.id(), l.draft().is_volume())).collect::<Vec<_>>() {
                // A volume can't be destroyed while an instance has it attached.
                let at = if volume { (60_000, 90_000) } else { (1, 20_000) };
                self.after(at.0, at.1, Event::Act { node, lease, action: Action::Destroy });
            }
        }
        for (a, b) in self.net.wanted.clone() {
            self.after(1, 5_000, Event::LinkUp(a, b));
        }
        self.after(120_000, 121_000, Event::Rest);
        Ok(())
    }
}
