//! Engines and the post between them: what one asks, another or the model answers.

use souk_protocol::{
    Timestamp, limits,
    machine::io::{Input, NoAnswer, Output, Token, Verdict},
    message::{Request, Response},
    offer::Notice,
};

use super::{BASE, Event, World};
use crate::{books::Doc, costs};

/// Who gets no answer knows after so long.
const TIMEOUT: u64 = 10_000;
/// A packet that is lost is sent again so often.
const TRIES: u64 = 3;

impl World<'_> {
    /// The observers have what everybody has, and their connections.
    pub(super) fn observe(&mut self) {
        let last = self.ids.len() as u32 - 1;
        for node in self.watched..last {
            for (key, _) in self.books.newest() {
                let held = self.index.get(&key.0).and_then(|host| self.machine_of.get(host));
                let doc = held.and_then(|m| self.books.held(node, *m, self.now));
                if let Some(doc) = doc {
                    self.gossiped(node, doc);
                }
            }
            self.connect(node);
        }
        self.verdicts = [0; 3];
        self.books.forget_all(last);
    }

    /// Tells a node of its peers, and those of them that are watched of it.
    pub(super) fn connect(&mut self, node: u32) {
        for (peer, _) in self.net.peers(node).collect::<Vec<_>>() {
            if !self.online[peer as usize] {
                continue;
            }
            self.handle(node, Input::Connected(self.ids[peer as usize]));
            if peer >= self.watched {
                self.handle(peer, Input::Connected(self.ids[node as usize]));
            }
        }
    }

    /// Hands an input to a node's engine and carries out what comes of it.
    pub(super) fn handle(&mut self, node: u32, input: Input) {
        let now = Timestamp(self.now);
        let Some(engine) = self.engines[node as usize].as_mut() else { return };
        engine.handle(input, now);
        let mut outputs = Vec::new();
        while let Some(output) = engine.poll_output() {
            outputs.push(output);
        }
        let deadline = engine.deadline().map(|(at, _)| at.0.max(self.now + 1));
        if let Some(at) = deadline
            && at < self.tick_at[node as usize]
        {
            self.tick_at[node as usize] = at;
            self.plan_at(at, Event::Tick(node));
        }
        for output in outputs {
            // Everything else an engine wants concerns leases, of which there are none here.
            if let Output::Publish { notice, .. } = output {
                self.publish(node, &notice);
            } else if let Output::Send { token, to, request, .. } = output {
                if let Some(to) = self.index.get(&to).copied() {
                    self.send(node, to, token, request);
                }
            } else if let Output::Reply { token, response, .. } = output {
                if let Some((to, theirs)) = self.waiting.remove(&(node, token)) {
                    self.reply(node, to, theirs, *response);
                }
            } else if let Output::Verdict { verdict, .. } = output {
                self.verdicts[match verdict {
                    Verdict::Accept => 0,
                    Verdict::Ignore => 1,
                    Verdict::Reject => 2,
                }] += 1;
            }
        }
    }

    pub(super) fn gossiped(&mut self, to: u32, doc: Doc) {
        if self.online[to as usize] {
            let data = self.books.docs[doc as usize].bytes.clone();
            let from = self.ids[self.net.peers(to).next().map_or(to, |(peer, _)| peer) as usize];
            self.tokens += 1;
            self.handle(to, Input::Gossip { token: Token(self.tokens), from, data });
            self.look(to);
        }
    }

    /// How long something is on its way; none if it does not arrive.
    pub(super) fn way(&mut self, from: u32, to: u32) -> Option<u64> {
        let ms = self.net.latency(from, to);
        let lost = |world: &mut Self| world.dice.below(1000) < world.plan.loss_permille;
        (0..TRIES).find(|_| !lost(self)).map(|n| ms + n * 3 * ms)
    }

    pub(super) fn count_exchange(&mut self, from: u32, to: u32, bytes: u64) {
        let bytes = costs::exchanged(bytes);
        let packets = bytes.div_ceil(1200);
        let sender = &mut self.traffic[from as usize];
        sender.sent += bytes;
        sender.messages += packets;
        let receiver = &mut self.traffic[to as usize];
        receiver.received[2] += bytes;
        receiver.messages += packets;
    }

    fn send(&mut self, from: u32, to: u32, token: Token, request: Box<Request>) {
        let book = matches!(*request, Request::BookSummary | Request::BookPage { .. } | Request::BookFetch { .. });
        if let Request::BookFetch { ids } = &*request {
            self.note_fetch(from, ids);
        }
        if book {
            self.count_exchange(from, to, request.to_bytes().len() as u64);
        }
        match self.way(from, to).filter(|_| book && self.online[to as usize]) {
            Some(ms) => self.plan_at(self.now + ms, Event::Asked { to, from, token, request }),
            // Meetings are no part of this.
            None => self.plan_at(self.now + TIMEOUT, Event::Answered { to: from, token, response: None }),
        }
    }

    pub(super) fn asked(&mut self, to: u32, from: u32, token: Token, request: Request) {
        if !self.online[to as usize] {
            return self.plan_at(self.now + TIMEOUT, Event::Answered { to: from, token, response: None });
        }
        if to >= self.watched {
            self.tokens += 1;
            let mine = Token(self.tokens);
            self.waiting.insert((to, mine), (from, token));
            let from = self.ids[from as usize];
            return self.handle(to, Input::Request { from, token: mine, request });
        }
        let response = if let Request::BookPage { after } = request {
            let (items, more) = self.books.page(to, after, limits::BOOK_PAGE, self.now);
            Response::BookPage { items, more }
        } else if let Request::BookFetch { ids } = request {
            let docs = ids.iter().filter_map(|id| self.books.find(to, id, self.now));
            let bytes = docs.map(|doc| &self.books.docs[doc as usize].bytes);
            let notices = bytes.filter_map(|b| souk_protocol::encode::from_bytes::<Notice>(b, 8192).ok());
            Response::BookNotices { notices: notices.collect() }
        } else {
            // Nothing but these three is sent.
            let (count, root) = self.books.summary(to, self.now);
            Response::BookSummary { count, root }
        };
        self.reply(to, from, token, response);
    }

    fn reply(&mut self, by: u32, to: u32, token: Token, response: Response) {
        let bytes = response.to_bytes().len() as u64;
        self.count_exchange(by, to, bytes);
        if let Response::BookPage { items, .. } = &response {
            self.count_lines(by, to, items.len() as u64);
        }
        let (at, response) = match self.way(by, to) {
            Some(ms) => (self.through_lines(by, to, bytes, ms), Some(Box::new(response))),
            None => (self.now + TIMEOUT, None),
        };
        self.plan_at(at, Event::Answered { to, token, response });
    }

    /// When an answer has come: it waits for those before it, on the line of who sends and on that of who receives.
    fn through_lines(&mut self, by: u32, to: u32, bytes: u64, ms: u64) -> u64 {
        let up = &mut self.busy[by as usize].0;
        *up = self.now.max(*up) + u64::from(costs::line_ms(bytes as usize));
        let there = *up + ms;
        let down = &mut self.busy[to as usize].1;
        *down = there.max(*down) + costs::receive_ms(bytes);
        *down
    }

    pub(super) fn count_lines(&mut self, by: u32, to: u32, lines: u64) {
        self.traffic[by as usize].ns += lines * costs::LINE_NS.0;
        self.traffic[to as usize].ns += lines * costs::LINE_NS.1;
        if let Some(away) = self.away.get_mut(&to).filter(|a| a.found.seconds.is_none()) {
            away.found.lines += lines;
        }
    }

    pub(super) fn answered(&mut self, to: u32, token: Token, response: Option<Response>) {
        if let Some(Response::BookNotices { notices }) = &response {
            self.traffic[to as usize].ns += notices.len() as u64 * costs::INTAKE_NS;
            for notice in notices {
                let id = match notice {
                    Notice::Offer(offer) => offer.id(&self.network),
                    Notice::Withdrawal(withdrawal) => withdrawal.id(&self.network),
                };
                if let Some(doc) = self.books.named(&id) {
                    self.books.learn(to, doc, self.now);
                }
            }
        }
        let result = response.ok_or_else(|| NoAnswer { why: "lost on its way".to_owned() });
        self.handle(to, Input::Response { token, result });
        self.look(to);
    }

    /// Nothing is published any more, until all books are equal: how long that took.
    pub(super) fn quiet(&mut self) -> Option<u64> {
        let agenda = std::mem::take(&mut self.agenda);
        let hosts = |event: &Event| match event {
            Event::Tick(node) | Event::Change(node) | Event::Start(node) => self.machine_of.contains_key(node),
            Event::Compare(_)
            | Event::Gossip { .. }
            | Event::Asked { .. }
            | Event::Answered { .. }
            | Event::Comes(_)
            | Event::Goes(_) => false,
        };
        self.agenda = agenda.into_iter().filter(|e| !hosts(&e.event)).collect();
        let began = BASE + self.plan.seconds * 1000;
        (0..super::QUIET / 1000).map(|s| s * 1000).find(|after| {
            self.run_until(began + after);
            !self.books.flying() && self.books.lagging() == 0 && {
                let truth = self.books.truth();
                let mut observers = self.engines[self.watched as usize..].iter().flatten();
                observers.all(|engine| engine.book().summary() == truth)
            }
        })
    }
}
