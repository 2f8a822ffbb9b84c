//! Request and answer: the bytes of one exchange, and what bounds them.
//!
//! Owns the codec and the budget of inbound bodies. Which peer may ask what, and what the answer is, belongs to the consumer.
//!
//! ```text
//! request:  length u32 BE | body                        at most MAX_REQUEST; a knock MAX_KNOCK
//! answer:   0 | length u32 BE | body                    at most MAX_ANSWER; to a knock MAX_KNOCK_ANSWER
//!           1 | milliseconds u32 BE                     busy, ask again after that
//!           2                                           the request was read and given up
//!           3                                           the request is too large, it was not read
//!           4                                           the answer would be too large
//! ```
//! One exchange a stream; both sides close it after their part. Numbers are big-endian.

use std::{io, sync::Arc, time::Duration};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{
    StreamProtocol,
    request_response::{self, ProtocolSupport},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    limits::{
        CONNECTION_INTAKE_KIB, DIAL_BACK_TIMEOUT, DIAL_BACKS, EXCHANGE_STREAMS, INTAKE_KIB, KNOCK_INTAKE_KIB,
        KNOCK_STREAMS, KNOCK_TIMEOUT, MAX_ANSWER, MAX_KNOCK, MAX_KNOCK_ANSWER, MAX_REQUEST, REQUEST_TIMEOUT,
        RETRY_AFTER,
    },
    names::Names,
    status::Counters,
};

const BODY: u8 = 0;
const BUSY: u8 = 1;
const NO_ANSWER: u8 = 2;
const REQUEST_TOO_LARGE: u8 = 3;
const ANSWER_TOO_LARGE: u8 = 4;

/// A body grows by this much at a time as it arrives, so that a length alone reserves no memory.
const CHUNK: usize = 64 * 1024;

/// The shares of the intake budgets, of all and of its connection, that one inbound request holds until its reply.
#[derive(Debug)]
pub(crate) struct IntakePermit {
    _all: OwnedSemaphorePermit,
    _connection: OwnedSemaphorePermit,
}

/// A request, as it goes out or came in.
#[derive(Debug)]
pub(crate) enum Question {
    /// Its body, and for an inbound one its share of the intake budget.
    Body(Vec<u8>, Option<IntakePermit>),
    /// An inbound one that was not read, being too large.
    TooLarge,
    /// An inbound one that was not read, the intake budget being spent.
    NoRoom,
}

/// An answer, as it goes out or came in.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its body.
    Body(Vec<u8>),
    /// Ask again after this.
    Busy(Duration),
    /// The request was given up.
    None,
    /// The request is too large.
    RequestTooLarge,
    /// The answer would be too large.
    TooLarge,
}

/// The libp2p behaviour of the exchange.
pub(crate) type Behaviour = request_response::Behaviour<Codec>;
/// Its events.
pub(crate) type Event = request_response::Event<Question, Answer>;

/// The most that is read of one body, in bytes, and written.
#[derive(Debug, Clone, Copy)]
struct Caps {
    request: usize,
    answer: usize,
}

impl Caps {
    const ORDINARY: Self = Self { request: MAX_REQUEST, answer: MAX_ANSWER };
    const KNOCK: Self = Self { request: MAX_KNOCK, answer: MAX_KNOCK_ANSWER };
}

/// The exchange of a network.
pub(crate) fn behaviour(names: &Names, counters: Arc<Counters>) -> Behaviour {
    let codec = Codec::new(Caps::ORDINARY, (INTAKE_KIB, CONNECTION_INTAKE_KIB), counters);
    exchange(codec, names.exchange.clone(), ProtocolSupport::Full, REQUEST_TIMEOUT, EXCHANGE_STREAMS)
}

/// The exchange by which nodes ask one another to dial back.
pub(crate) fn dial_back(names: &Names, counters: Arc<Counters>) -> Behaviour {
    let codec = Codec::new(Caps::ORDINARY, (DIAL_BACKS, DIAL_BACKS), counters);
    exchange(codec, names.reach.clone(), ProtocolSupport::Full, DIAL_BACK_TIMEOUT, DIAL_BACKS)
}

/// The exchange by which strangers ask to become members. A public network has no door to knock at.
pub(crate) fn knock(names: &Names, is_cluster: bool, counters: Arc<Counters>) -> Behaviour {
    let codec = Codec::new(Caps::KNOCK, (KNOCK_INTAKE_KIB, KNOCK_INTAKE_KIB), counters);
    let support = if is_cluster { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    exchange(codec, names.knock.clone(), support, KNOCK_TIMEOUT, KNOCK_STREAMS)
}

fn exchange(
    codec: Codec,
    protocol: StreamProtocol,
    support: ProtocolSupport,
    timeout: Duration,
    streams: usize,
) -> Behaviour {
    let config = request_response::Config::default().with_request_timeout(timeout).with_max_concurrent_streams(streams);
    Behaviour::with_codec(codec, [(protocol, support)], config)
}

/// Reads and writes exchanges.
#[derive(Debug)]
pub(crate) struct Codec {
    caps: Caps,
    /// The budget of inbound bodies, over all connections.
    intake: Arc<Semaphore>,
    /// That of this connection; none in the behaviour's own, which reads nothing.
    share: Option<Arc<Semaphore>>,
    connection_kib: usize,
    counters: Arc<Counters>,
}

impl Codec {
    fn new(caps: Caps, (intake_kib, connection_kib): (usize, usize), counters: Arc<Counters>) -> Self {
        Self { caps, intake: Arc::new(Semaphore::new(intake_kib)), share: None, connection_kib, counters }
    }

    fn room(&self, kib: u32) -> Option<IntakePermit> {
        let connection = Arc::clone(self.share.as_ref()?).try_acquire_many_owned(kib).ok()?;
        let all = Arc::clone(&self.intake).try_acquire_many_owned(kib).ok()?;
        Some(IntakePermit { _all: all, _connection: connection })
    }
}

/// The behaviour clones its codec for each connection, which gets a share of its own, and a connection its own for each stream.
impl Clone for Codec {
    fn clone(&self) -> Self {
        let share = self.share.clone().unwrap_or_else(|| Arc::new(Semaphore::new(self.connection_kib)));
        Self {
            caps: self.caps,
            intake: Arc::clone(&self.intake),
            share: Some(share),
            connection_kib: self.connection_kib,
            counters: Arc::clone(&self.counters),
        }
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Question;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Question>
    where
        T: AsyncRead + Unpin + Send,
    {
        let length = read_u32(io).await? as usize;
        if length > self.caps.request {
            return Ok(Question::TooLarge);
        }
        // Every request holds a KiB at least, which also bounds how many there are.
        let share = u32::try_from(length / 1024 + 1).unwrap_or(u32::MAX);
        let Some(permit) = self.room(share) else {
            return Ok(Question::NoRoom);
        };
        let body = read_body(io, length).await?;
        self.counters.bytes_in.add(length);
        Ok(Question::Body(body, Some(permit)))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut status = [0];
        io.read_exact(&mut status).await?;
        match status[0] {
            BODY => {
                let length = read_u32(io).await? as usize;
                if length > self.caps.answer {
                    let limit = self.caps.answer;
                    return Err(malformed(format!("it announces {length} bytes, over the limit of {limit}")));
                }
                let body = read_body(io, length).await?;
                self.counters.bytes_in.add(length);
                Ok(Answer::Body(body))
            }
            BUSY => {
                let wait = Duration::from_millis(u64::from(read_u32(io).await?));
                Ok(Answer::Busy(wait.min(REQUEST_TIMEOUT)))
            }
            NO_ANSWER => Ok(Answer::None),
            REQUEST_TOO_LARGE => Ok(Answer::RequestTooLarge),
            ANSWER_TOO_LARGE => Ok(Answer::TooLarge),
            other => Err(malformed(format!("unknown status {other}"))),
        }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Question) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Question::Body(body, _) = request else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        write_body(io, &[], &body, self.caps.request).await?;
        self.counters.bytes_out.add(body.len());
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match answer {
            Answer::Body(body) => {
                write_body(io, &[BODY], &body, self.caps.answer).await?;
                self.counters.bytes_out.add(body.len());
            }
            Answer::Busy(wait) => {
                let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                let mut bytes = vec![BUSY];
                bytes.extend(millis.to_be_bytes());
                io.write_all(&bytes).await?;
            }
            Answer::None => io.write_all(&[NO_ANSWER]).await?,
            Answer::RequestTooLarge => io.write_all(&[REQUEST_TOO_LARGE]).await?,
            Answer::TooLarge => io.write_all(&[ANSWER_TOO_LARGE]).await?,
        }
        io.flush().await
    }
}

impl Answer {
    /// Busy for as long as a full queue takes to drain.
    pub(crate) const fn busy() -> Self {
        Self::Busy(RETRY_AFTER)
    }
}

fn malformed(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

async fn read_u32<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<u32> {
    let mut bytes = [0; 4];
    io.read_exact(&mut bytes).await?;
    Ok(u32::from_be_bytes(bytes))
}

async fn read_body<T: AsyncRead + Unpin>(io: &mut T, length: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(length.min(CHUNK));
    while body.len() < length {
        let start = body.len();
        body.resize(length.min(start + CHUNK), 0);
        io.read_exact(&mut body[start..]).await?;
    }
    Ok(body)
}

/// Head, length and body in one write: a second small write would cost a second packet.
async fn write_body<T: AsyncWrite + Unpin>(io: &mut T, head: &[u8], body: &[u8], limit: usize) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= limit).ok_or(io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(head.len() + 4 + body.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    io.write_all(&bytes).await?;
    io.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;

    use super::*;

    fn codec(kib: usize) -> Codec {
        Codec::new(Caps::ORDINARY, (kib, kib), Arc::default()).clone()
    }

    #[tokio::test]
    async fn a_connection_has_a_share_and_its_streams_have_one_together() {
        let all = Codec::new(Caps::ORDINARY, (10, 2), Arc::default());
        let bytes = [&1_500u32.to_be_bytes()[..], &[1; 1_500]].concat();
        let (one, other) = (all.clone(), all.clone());
        let first = question(&mut one.clone(), &bytes).await.unwrap();
        assert!(matches!(first, Question::Body(_, Some(_))));
        assert!(matches!(question(&mut one.clone(), &bytes).await.unwrap(), Question::NoRoom));
        assert!(matches!(question(&mut other.clone(), &bytes).await.unwrap(), Question::Body(_, Some(_))));
        assert_eq!(all.intake.available_permits(), 8, "what is refused takes nothing from others");
    }

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test/1");

    async fn question(codec: &mut Codec, bytes: &[u8]) -> io::Result<Question> {
        codec.read_request(&PROTOCOL, &mut Cursor::new(bytes)).await
    }

    #[tokio::test]
    async fn an_answer_comes_back_as_it_was_sent() {
        let mut codec = codec(10);
        for (answer, length) in [
            (Answer::Body(vec![7; 100_000]), 100_005),
            (Answer::Busy(Duration::from_millis(30)), 5),
            (Answer::None, 1),
            (Answer::RequestTooLarge, 1),
            (Answer::TooLarge, 1),
        ] {
            let said = format!("{answer:?}");
            let mut wire = Cursor::new(Vec::new());
            codec.write_response(&PROTOCOL, &mut wire, answer).await.unwrap();
            let wire = wire.into_inner();
            assert_eq!(wire.len(), length);
            let read = codec.read_response(&PROTOCOL, &mut Cursor::new(wire)).await.unwrap();
            assert_eq!(format!("{read:?}"), said);
        }
    }

    #[tokio::test]
    async fn lengths_beyond_the_limits_are_refused_unread() {
        let mut codec = codec(10_000);
        let length = u32::try_from(MAX_REQUEST).unwrap() + 1;
        let read = question(&mut codec, &length.to_be_bytes()).await.unwrap();
        assert!(matches!(read, Question::TooLarge));

        let mut answer = vec![BODY];
        answer.extend((u32::try_from(MAX_ANSWER).unwrap() + 1).to_be_bytes());
        let read = codec.read_response(&PROTOCOL, &mut Cursor::new(answer)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_cut_request_is_an_error_and_frees_its_share() {
        let mut codec = codec(10);
        let mut bytes = 5_000u32.to_be_bytes().to_vec();
        bytes.extend([0; 100]);
        assert!(question(&mut codec, &bytes).await.is_err());
        assert_eq!(codec.intake.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_spent_budget_is_said_and_comes_back_with_the_reply() {
        let mut codec = codec(2);
        let bytes = [&1_500u32.to_be_bytes()[..], &[1; 1_500]].concat();
        let first = question(&mut codec, &bytes).await.unwrap();
        assert!(matches!(first, Question::Body(_, Some(_))));
        let second = question(&mut codec, &bytes).await.unwrap();
        assert!(matches!(second, Question::NoRoom));
        drop(first);
        let third = question(&mut codec, &bytes).await.unwrap();
        assert!(matches!(third, Question::Body(_, Some(_))));
    }
}
