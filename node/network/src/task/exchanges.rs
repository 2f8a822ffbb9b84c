//! Requests in both directions, once their peer is connected.

use std::{io, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::{
    PeerId,
    request_response::{InboundRequestId, Message, OutboundFailure, ResponseChannel},
};

use super::Task;
use crate::{
    error::{RequestError, is_unsupported},
    event::{NetworkEvent, Reply},
    exchange::{Answer, Event, Question},
    handle::Outgoing,
    limits::{MAX_ANSWER, MAX_REPLIES, MAX_REQUEST, REQUEST_TIMEOUT},
    names,
    turns::Asked,
};

impl Task {
    pub(super) fn send_request(&mut self, peer: PeerId, mut outgoing: Outgoing) {
        self.table.sent(&peer, outgoing.body.len());
        let question = Question::Body(std::mem::take(&mut outgoing.body), None);
        let id = self.swarm.behaviour_mut().exchange.send_request(&peer, question);
        self.counters.requests_sent.one();
        self.asked.insert(id, outgoing);
    }

    pub(super) fn on_exchange(&mut self, event: Event) {
        match event {
            Event::Message { peer, message, .. } => {
                self.admit(peer);
                match message {
                    Message::Request { request_id, request, channel } => {
                        self.on_request(peer, request_id, request, channel)
                    }
                    Message::Response { request_id, response } => {
                        if let Answer::Body(body) = &response {
                            self.table.received(&peer, body.len());
                        }
                        if let Some(outgoing) = self.asked.remove(&request_id) {
                            outgoing.reply.send(outcome(response)).ok();
                        }
                    }
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(outgoing) = self.asked.remove(&request_id) {
                    outgoing.reply.send(Err(failure(&error))).ok();
                }
            }
            Event::InboundFailure { peer, request_id, error, .. } => {
                self.taken(&request_id);
                tracing::debug!(%peer, %error, "a request to us failed");
            }
            Event::ResponseSent { request_id, .. } => self.taken(&request_id),
        }
    }

    fn on_request(&mut self, peer: PeerId, id: InboundRequestId, question: Question, channel: ResponseChannel<Answer>) {
        let (body, held) = match question {
            Question::Body(body, held) => (body, held),
            Question::TooLarge => return self.on_reply(&peer, channel, Answer::RequestTooLarge),
            Question::NoRoom => return self.busy(&peer, channel),
        };
        self.table.received(&peer, body.len());
        let spent = self.answers.is_full(&peer);
        let Some(entry) = self.table.get_mut(&peer) else {
            return self.busy(&peer, channel);
        };
        let in_rate = entry.requests.take(Instant::now());
        let place = Arc::clone(&entry.places).try_acquire_owned().ok().filter(|_| in_rate && !spent);
        let Some(place) = place else {
            return self.busy(&peer, channel);
        };
        match entry.turn.wait(Asked { id, body, held, channel, place }) {
            Ok(()) => self.hand_on(peer),
            Err(asked) => self.busy(&peer, asked.channel),
        }
    }

    /// Hands a peer's requests to the consumer, as many as it may have there at once.
    fn hand_on(&mut self, peer: PeerId) {
        while let Some(Asked { id, body, held, channel, place }) =
            self.table.get_mut(&peer).and_then(|entry| entry.turn.next())
        {
            let (reply, answer) = Reply::new(held, MAX_ANSWER);
            let event =
                names::node_id(&peer).map(|from| NetworkEvent::Request { from, body: Bytes::from(body), reply });
            let room = self.replies.len() < MAX_REPLIES;
            let sent = event.filter(|_| room).is_some_and(|event| self.outbox.send(event).is_ok());
            if !sent {
                if let Some(entry) = self.table.get_mut(&peer) {
                    entry.turn.done();
                }
                self.busy(&peer, channel);
                continue;
            }
            self.counters.requests_received.one();
            let answered = answer.map(move |answer| {
                drop(place);
                (peer, id, channel, answer.unwrap_or(Answer::None))
            });
            self.replies.push(answered.boxed());
        }
    }

    /// The consumer has answered.
    pub(super) fn on_answer(
        &mut self,
        peer: PeerId,
        id: InboundRequestId,
        channel: ResponseChannel<Answer>,
        answer: Answer,
    ) {
        if let Some(entry) = self.table.get_mut(&peer) {
            entry.turn.done();
        }
        let fits = match &answer {
            // Who has gone is told nothing.
            Answer::Body(body) => !channel.is_open() || self.answers.give(peer, id, body.len()),
            Answer::Busy(_) | Answer::None | Answer::RequestTooLarge | Answer::TooLarge => true,
        };
        if fits {
            self.on_reply(&peer, channel, answer);
        } else {
            self.busy(&peer, channel);
        }
        self.hand_on(peer);
    }

    /// The asker has its answer, or will never have it.
    fn taken(&mut self, id: &InboundRequestId) {
        self.answers.taken(id);
    }

    fn busy(&mut self, peer: &PeerId, channel: ResponseChannel<Answer>) {
        self.counters.requests_busy.one();
        self.on_reply(peer, channel, Answer::busy());
    }

    pub(super) fn on_reply(&mut self, peer: &PeerId, channel: ResponseChannel<Answer>, answer: Answer) {
        if let Answer::Body(body) = &answer {
            self.table.sent(peer, body.len());
        }
        // It fails only if the asker is gone, or has waited too long.
        self.swarm.behaviour_mut().exchange.send_response(channel, answer).ok();
    }
}

pub(super) fn outcome(answer: Answer) -> Result<Vec<u8>, RequestError> {
    match answer {
        Answer::Body(body) => Ok(body),
        Answer::Busy(retry_after) => Err(RequestError::Busy { retry_after }),
        Answer::None => Err(RequestError::NoAnswer),
        // Only a peer with lower limits than the protocol's says so: larger requests never leave this node.
        Answer::RequestTooLarge => Err(RequestError::TooLarge { size: MAX_REQUEST, limit: MAX_REQUEST }),
        Answer::TooLarge => Err(RequestError::AnswerTooLarge),
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "every other kind of I/O error means that the stream was lost")]
pub(super) fn failure(error: &OutboundFailure) -> RequestError {
    match error {
        OutboundFailure::DialFailure => RequestError::Unreachable("its last connection has just gone".to_owned()),
        OutboundFailure::Timeout => RequestError::Timeout(REQUEST_TIMEOUT),
        OutboundFailure::ConnectionClosed => RequestError::Disconnected,
        OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
        OutboundFailure::Io(e) if is_unsupported(e) => RequestError::Unsupported,
        OutboundFailure::Io(e) => match e.kind() {
            io::ErrorKind::InvalidData => RequestError::Malformed(e.to_string()),
            io::ErrorKind::UnexpectedEof => RequestError::NoAnswer,
            _ => RequestError::Disconnected,
        },
    }
}
