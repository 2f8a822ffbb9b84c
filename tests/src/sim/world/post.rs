//! What the network does with requests, answers, gossip and connections.

use std::sync::Arc;

use souk_protocol::{
    NodeId,
    machine::io::{Input, NoAnswer, Token},
    message::{Request, Response},
};

use super::{Event, Held, Message, REQUEST_TIMEOUT, Told, World, pair};

impl World {
    pub(super) fn send(&mut self, from: usize, token: Token, to: NodeId, request: Box<Request>) {
        let message = self.next_message;
        self.next_message += 1;
        self.messages.insert(message, Message { from, run: self.nodes[from].run, token });
        let no_answer = Box::new(Err(NoAnswer { why: "the peer did not answer in time".to_owned() }));
        self.at(self.now + REQUEST_TIMEOUT, Event::Response { message, result: no_answer });
        let Some(to) = self.index.get(&to).copied() else {
            return;
        };
        let alive = self.nodes[to].engine.is_some() && self.net.reaches(from, to);
        if alive && !self.net.links.contains(&pair(from, to)) {
            self.net.wanted.insert(pair(from, to));
            self.after(1, 40, Event::LinkUp(from, to));
        }
        if let Some(delay) = self.net.delay(&mut self.dice).filter(|_| alive) {
            let at = self.now + delay;
            if matches!(*request, Request::Commit { settle: Some(_), .. }) {
                self.outcome.firsts += 1;
            }
            if matches!(*request, Request::Commit { .. }) && self.dice.permille(self.settings.cuts) {
                // The open arrives, its answer does not, and nothing else does for a while.
                self.at(at + 1, Event::Cut(from, to, true));
                let joined = at + self.dice.range(20_000, 240_000);
                self.at(joined, Event::Cut(from, to, false));
            }
            if self.dice.permille(self.net.repeat) {
                let much_later = self.dice.permille(300);
                let later = at + self.dice.range(1, if much_later { 600_000 } else { 3_000 });
                let again = Event::Request { to, from, message: 0, request: request.clone() };
                self.at(later, again);
            }
            self.at(at, Event::Request { to, from, message, request });
        }
    }

    pub(super) fn request(&mut self, to: usize, from: usize, message: u64, request: Request) -> Held {
        if self.nodes[to].engine.is_none() || !self.net.reaches(from, to) {
            return Ok(());
        }
        let n = &mut self.nodes[to];
        let token = n.token();
        n.inbound.insert(token, (from, message));
        let from = self.nodes[from].id;
        if let Request::Meet(meet) = request {
            let looked_up = Box::new(self.nodes[to].store.looked_up(&meet));
            return self.feed(to, Input::Meeting { from, token, meet, looked_up });
        }
        self.feed(to, Input::Request { from, token, request })
    }

    pub(super) fn reply(&mut self, node: usize, token: Token, response: Response) -> Held {
        if !self.nodes[node].store.has_answered(&response) {
            return Err(format!("nothing-lost: answered before it was on disk: {response:?}"));
        }
        let asked = self.nodes[node].inbound.remove(&token);
        let (to, message) = asked.ok_or("every request gets exactly one reply: a second one")?;
        if message == 0 || !self.net.reaches(node, to) {
            return Ok(());
        }
        if let Some(delay) = self.net.delay(&mut self.dice) {
            self.at(self.now + delay, Event::Response { message, result: Box::new(Ok(response)) });
        }
        Ok(())
    }

    pub(super) fn spread(&mut self, from: usize, data: Vec<u8>) {
        let told = Arc::new(Told { id: *souk_protocol::Digest::of(&data).as_bytes(), data });
        self.nodes[from].seen.insert(told.id);
        for to in self.net.neighbours(from) {
            if let Some(delay) = self.net.delay(&mut self.dice) {
                self.at(self.now + delay, Event::Gossip { to, from, data: Arc::clone(&told) });
            }
        }
    }

    pub(super) fn gossip(&mut self, to: usize, from: usize, told: &Told) -> Held {
        if self.nodes[to].engine.is_none() || !self.net.reaches(from, to) || !self.nodes[to].seen.insert(told.id) {
            return Ok(());
        }
        let (token, data) = (self.nodes[to].token(), told.data.clone());
        self.nodes[to].gossip.insert(token, data.clone());
        let from = self.nodes[from].id;
        self.feed(to, Input::Gossip { token, from, data })
    }

    pub(super) fn link_up(&mut self, a: usize, b: usize) -> Held {
        let alive = self.nodes[a].engine.is_some() && self.nodes[b].engine.is_some();
        if alive && self.net.reaches(a, b) && self.net.link(a, b) {
            let (id_a, id_b) = (self.nodes[a].id, self.nodes[b].id);
            self.feed(a, Input::Connected(id_b))?;
            self.feed(b, Input::Connected(id_a))?;
        }
        Ok(())
    }

    pub(super) fn link_down(&mut self, a: usize, b: usize) -> Held {
        if self.net.unlink(a, b) {
            let (id_a, id_b) = (self.nodes[a].id, self.nodes[b].id);
            self.feed(a, Input::Disconnected(id_b))?;
            self.feed(b, Input::Disconnected(id_a))?;
        }
        Ok(())
    }
}
