//! Requests in both directions, once their peer is connected.

use std::{io, time::Instant};

use bytes::Bytes;
use futures::FutureExt;
use libp2p::{
    PeerId,
    request_response::{Message, OutboundFailure, ResponseChannel},
};

use super::Task;
use crate::{
    error::{RequestError, is_unsupported},
    event::{NetworkEvent, Reply},
    exchange::{Answer, Event, Question},
    handle::Outgoing,
    limits::{MAX_ANSWER, MAX_REPLIES, MAX_REQUEST, REQUEST_TIMEOUT},
    names,
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
                    Message::Request { request, channel, .. } => self.on_request(peer, request, channel),
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
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request to us failed");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(&mut self, peer: PeerId, question: Question, channel: ResponseChannel<Answer>) {
        let (body, held) = match question {
            Question::Body(body, held) => (body, held),
            Question::TooLarge => return self.on_reply(&peer, channel, Answer::RequestTooLarge),
            Question::NoRoom => return self.busy(&peer, channel),
        };
        self.table.received(&peer, body.len());
        let in_rate = self.table.get_mut(&peer).is_some_and(|peer| peer.requests.take(Instant::now()));
        let Some(from) = names::node_id(&peer) else {
            return self.busy(&peer, channel);
        };
        if !in_rate || self.replies.len() >= MAX_REPLIES {
            return self.busy(&peer, channel);
        }
        let (reply, answer) = Reply::new(held, MAX_ANSWER);
        let event = NetworkEvent::Request { from, body: Bytes::from(body), reply };
        if self.outbox.send(event).is_err() {
            return self.busy(&peer, channel);
        }
        self.counters.requests_received.one();
        let answered = answer.map(move |answer| (peer, channel, answer.unwrap_or(Answer::None)));
        self.replies.push(answered.boxed());
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
