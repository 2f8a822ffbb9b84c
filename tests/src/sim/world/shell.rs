//! What a node's shell does: gives its engine inputs, and carries the outputs out once their records are durable.

use souk_protocol::{
    encode,
    machine::{
        engine::Engine,
        io::{Input, Output, Ticket, Verdict},
    },
};

use super::{Event, Held, World, check, owner};

impl World {
    /// Gives an input to a node's engine, and carries out what comes of it.
    pub(super) fn feed(&mut self, node: usize, input: Input) -> Held {
        let time = self.nodes[node].time(self.now);
        if self.nodes[node].engine.is_none() {
            return Ok(());
        }
        if let Input::RuntimeUp(up) = &input {
            self.nodes[node].told_up = *up;
        }
        if let Input::Runtime { lease, .. } = &input {
            self.nodes[node].adopting.remove(lease);
        }
        self.nodes[node].fed_at = time;
        let Some(engine) = &mut self.nodes[node].engine else {
            return Ok(());
        };
        engine.handle(input, time);
        if let Some((at, why)) = engine.deadline()
            && at <= time
        {
            let leases: Vec<_> = engine
                .host()
                .leases()
                .values()
                .map(|l| (l.id().short(), l.state(), l.terms().ends_at, l.asked(), l.terms().next, l.terms().n))
                .collect();
            let rented: Vec<_> =
                engine.renter().leases().values().map(|l| (l.id().short(), l.state(), l.pending_change())).collect();
            return Err(format!("bounded: the engine would spin at {at:?}, since {why}: {leases:?} {rented:?}"));
        }
        self.drain(node)?;
        check::at_each_step(&mut self.nodes[node], time)
    }

    pub(super) fn drain(&mut self, node: usize) -> Held {
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll_output) {
            let n = &mut self.nodes[node];
            let after = match &output {
                Output::Send { after, .. }
                | Output::Reply { after, .. }
                | Output::Publish { after, .. }
                | Output::Runtime { after, .. } => *after,
                Output::Forked { after, .. } => Some(*after),
                Output::Recall { .. } => Some(n.newest),
                Output::Persist { ticket, record } => {
                    if *ticket <= n.newest {
                        return Err("tickets do not rise".to_owned());
                    }
                    n.newest = *ticket;
                    n.store.append(*ticket, (**record).clone());
                    continue;
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
                Some(ticket) if ticket > n.durable => n.outbox.push_back((ticket, output)),
                Some(_) | None => self.carry_out(node, output)?,
            }
        }
        self.flush(node);
        self.sleep(node);
        Ok(())
    }

    pub(super) fn flush(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(upto) = n.store.newest().filter(|_| !n.flushing) {
            n.flushing = true;
            let run = n.run;
            let slow = self.dice.permille(20);
            self.after(1, if slow { 800 } else { 12 }, Event::Flush { node, run, upto });
        }
    }

    pub(super) fn flushed(&mut self, node: usize, upto: Ticket) -> Held {
        let n = &mut self.nodes[node];
        n.flushing = false;
        n.store.flush(upto)?;
        n.durable = upto;
        while let Some((_, output)) = self.nodes[node].outbox.pop_front_if(|(ticket, _)| *ticket <= upto) {
            self.carry_out(node, output)?;
        }
        self.flush(node);
        super::super::rule::check(&self.nodes[node])
    }

    pub(super) fn sleep(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some((at, _)) = n.engine.as_ref().and_then(Engine::deadline) else {
            n.wake = None;
            return;
        };
        let virtual_at = self.now + at.since(n.time(self.now)).0;
        if n.wake.is_some_and(|(due, _)| due == virtual_at) {
            return;
        }
        let stamp = self.order;
        n.wake = Some((virtual_at, stamp));
        let run = n.run;
        self.at(virtual_at, Event::Wake { node, run, stamp });
    }

    pub(super) fn carry_out(&mut self, node: usize, output: Output) -> Held {
        let run = self.nodes[node].run;
        match output {
            Output::Send { token, to, request, .. } => {
                if !self.nodes[node].store.has_sent(&request) {
                    return Err(format!("nothing-lost: sent before it was on disk: {request:?}"));
                }
                self.send(node, token, to, request);
            }
            Output::Reply { token, response, .. } => self.reply(node, token, *response)?,
            Output::Recall { token, lease, what, otherwise } => {
                let response = self.nodes[node].store.recall(&lease, what, *otherwise);
                self.reply(node, token, response)?;
            }
            Output::Verdict { token, verdict } => {
                let data = self.nodes[node].gossip.remove(&token).ok_or("a verdict on nothing")?;
                match verdict {
                    Verdict::Accept => self.spread(node, data),
                    Verdict::Ignore => {}
                    Verdict::Reject => return Err("an honest node's gossip is rejected".to_owned()),
                }
            }
            Output::Publish { notice, .. } => {
                self.spread(node, encode::to_bytes(&*notice));
            }
            Output::Runtime { lease, order, .. } => self.order(node, lease, order),
            Output::ResolveImage { token, reference, .. } => {
                self.after(1, 300, Event::Image { node, run, token, reference });
            }
            Output::AskOwner { token, question } => {
                let answer = owner::answer(&question);
                // Past what the engine waits for, now and then.
                self.after(1, 6000, Event::Owner { node, run, token, answer });
            }
            Output::LockSlots { lease, slots } => self.after(0, 5, Event::Lock { node, run, lease, slots }),
            Output::UnlockSlots { slots } => {
                if let Some((machine, _)) = &mut self.nodes[node].hosting {
                    machine.unlock(&slots);
                }
            }
            Output::Step { step, .. } => self.progressed(node, *step),
            Output::Violation(violation) => {
                self.outcome.violations += 1;
                return Err(format!("an honest node is blamed: {violation}"));
            }
            Output::Forked { author, .. } => return Err(format!("an honest node is accused of a fork: {author}")),
            Output::Halted(why) => return Err(format!("an honest node is stopped: {why}")),
            Output::Idle { slots, .. } => self.nodes[node].idle = slots,
            Output::SettlementDue(due) => self.settlement_due(node, *due),
            Output::VerifySettlement(payment) => self.settlement_claimed(node, *payment),
            Output::Done { token, .. } | Output::Quoted { token, .. } => {
                if !self.nodes[node].waiting.remove(&token) {
                    return Err("a command that nobody gave, or that was done before, is done".to_owned());
                }
            }
            Output::Changed { .. } | Output::BookChanged { .. } | Output::Persist { .. } => {}
        }
        Ok(())
    }
}
