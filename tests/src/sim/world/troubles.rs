//! What befalls nodes and their container engines.

use souk_protocol::{
    LeaseId, NetworkId,
    machine::{
        engine::Engine,
        io::{Command, Input, RuntimeOrder, Ticket},
    },
};

use super::{super::machine::Placed, Event, Held, Step, World, money};

impl World {
    pub(super) fn crash(&mut self, node: usize) -> Held {
        if self.calm || self.nodes[node].engine.take().is_none() {
            return Ok(());
        }
        self.outcome.crashes += 1;
        let n = &mut self.nodes[node];
        let kept = usize::try_from(self.dice.range(0, n.store.waiting() as u64 + 1)).unwrap_or(0);
        n.store.crash(kept)?;
        n.outbox.clear();
        n.inbound.clear();
        n.gossip.clear();
        n.seen.clear();
        n.waiting.clear();
        n.adopting.clear();
        n.idle.clear();
        n.told_up = false;
        n.flushing = false;
        n.wake = None;
        if let Some((machine, _)) = &mut n.hosting {
            machine.node_died();
        }
        for other in self.net.neighbours(node) {
            self.link_down(node, other)?;
        }
        self.after(100, 60_000, Event::Start(node));
        Ok(())
    }

    pub(super) fn start(&mut self, node: usize) -> Held {
        if self.nodes[node].engine.is_some() {
            return Ok(());
        }
        let network = NetworkId::of_name("simulated");
        let time = self.nodes[node].time(self.now);
        let n = &mut self.nodes[node];
        n.run += 1;
        // Until they are found, nobody knows what their containers do.
        n.adopting = n.store.hosted().map(|(lease, ..)| *lease).collect();
        n.newest = Ticket(0);
        n.durable = Ticket(0);
        let engine = Engine::new(n.key.clone(), network, n.store.restore(time), time);
        n.engine = Some(engine.map_err(|e| format!("nothing-lost: {e}"))?);
        let run = n.run;
        self.drain(node)?;
        // As the shell does: the offer and the runtime's news come in either order.
        let runtime_first = self.dice.permille(500);
        let setup = self.nodes[node].hosting.as_ref().map(|(_, setup)| Box::new(setup.clone()));
        let up = self.nodes[node].hosting.as_ref().is_some_and(|(m, _)| m.up);
        if runtime_first {
            self.feed(node, Input::RuntimeUp(up))?;
        } else {
            self.after(10, 3_000, Event::TellEngine { node, run });
        }
        let policy = money::policy(&self.nodes[node].id, self.settings.paid);
        self.feed(node, Input::Command(Command::Accounts(Box::new(policy))))?;
        self.tell_unsaid(node)?;
        self.feed(node, Input::Command(Command::Host(setup)))?;
        self.after(1, 2_000, Event::TellForeign { node, run });
        for (a, b) in self.net.wanted.clone() {
            if a == node || b == node {
                self.after(1, 4_000, Event::LinkUp(a, b));
            }
        }
        Ok(())
    }

    pub(super) fn order(&mut self, node: usize, lease: LeaseId, order: Box<RuntimeOrder>) {
        let run = self.nodes[node].run;
        if matches!(*order, RuntimeOrder::Adopt { .. }) {
            self.nodes[node].adopting.insert(lease);
        }
        let takes = match &*order {
            RuntimeOrder::Prepare { .. } => self.dice.range(10, 20_000),
            RuntimeOrder::Start { .. } => self.dice.range(5, 800),
            RuntimeOrder::Notice(_) => self.dice.range(1, 50),
            RuntimeOrder::CreateVolume { .. } => self.dice.range(10, 2_000),
            RuntimeOrder::AdoptVolume => self.dice.range(1, 200),
            RuntimeOrder::DestroyVolume => self.dice.range(5, 3_000),
            RuntimeOrder::Stop(_) | RuntimeOrder::Destroy => self.dice.range(5, 9_000),
            RuntimeOrder::Adopt { .. } => self.dice.range(1, 200),
        };
        if let Some((machine, _)) = &mut self.nodes[node].hosting {
            let free = machine.busy_until.get(&lease).copied().unwrap_or(0).max(self.now);
            let at = free + takes;
            machine.busy_until.insert(lease, at);
            self.at(at, Event::Step { node, run: Some(run), lease, step: Step::Order(order) });
        }
    }

    pub(super) fn step(&mut self, node: usize, run: Option<u64>, lease: LeaseId, step: Step) -> Held {
        // What a dead node had ordered may have got through to the container engine, or not.
        let orphaned = run.is_some_and(|run| !self.is_run(node, run));
        if orphaned && self.dice.permille(500) {
            return Ok(());
        }
        let (now, current) = (self.now, self.nodes[node].run);
        let placed = self.nodes[node].store.fold_of(&lease).and_then(|f| f.placed.clone()).filter(|_| !orphaned);
        let placed = placed.map(|(slots, devices)| Placed { slots, devices });
        let Some((machine, setup)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if let Some(placed) = &placed {
            let of = |slot: &u16| setup.slots.get(usize::from(*slot)).cloned().flatten();
            if placed.slots.iter().filter_map(of).ne(placed.devices.iter().cloned()) {
                return Err(format!("one-slot-one-lease: {} is placed on devices of other slots", lease.short()));
            }
        }
        if !machine.up {
            if !orphaned {
                machine.deferred.push((lease, step, current));
            }
            return Ok(());
        }
        let (report, ends) = machine.step(lease, step, placed.as_ref(), &mut self.dice, now)?;
        if let Some((start, after)) = ends {
            self.at(now.saturating_add(after), Event::Step { node, run: None, lease, step: Step::Exit(start) });
        }
        if let Some(report) = report.filter(|_| !orphaned && self.nodes[node].engine.is_some()) {
            self.at(now + 1, Event::Report { node, run: current, lease, report });
        }
        Ok(())
    }

    pub(super) fn engine_down(&mut self, node: usize) -> Held {
        let now = self.now;
        let run = self.nodes[node].run;
        let Some((machine, _)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if !machine.up || self.calm {
            return Ok(());
        }
        machine.up = false;
        if self.dice.permille(600) {
            machine.kill_all(now);
        }
        self.after(1, 1_000, Event::TellEngine { node, run });
        self.after(2_000, 90_000, Event::EngineUp(node));
        Ok(())
    }

    pub(super) fn engine_up(&mut self, node: usize) -> Held {
        let run = self.nodes[node].run;
        let Some((machine, _)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if machine.up {
            return Ok(());
        }
        machine.up = true;
        let deferred = std::mem::take(&mut machine.deferred);
        self.after(1, 500, Event::TellEngine { node, run });
        for (lease, step, of) in deferred {
            self.at(self.now, Event::Step { node, run: Some(of), lease, step });
        }
        Ok(())
    }
}
