//! The renter's meter between nodes: the host's side starts the helper that answers in the instance, the renter's asks it.
//!
//! Owns the questions that are out. What an answer says of the lease is decided by
//! [`souk_protocol::machine::renter_lease::heartbeat`].

use std::{collections::VecDeque, io, time::Duration};

use futures::StreamExt;
use souk_protocol::{
    Millis,
    machine::renter_lease::heartbeat::{Beat, Pulse},
    message::Frame,
    pulse::{Answer, LINE_BYTES, question},
};
use souk_runtime::{ExecSpec, HELPER_IN_INSTANCE, Runtime};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::codec::FramedRead;

use super::{FrameDecoder, exec, write_frame};
use crate::{clock, market::command::ByteStream};

/// Questions without an answer that are remembered, and so are out at most: a frozen instance must not have its pipe filled.
const OUT: usize = 32;
/// How long a question may take to be written.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// The host's side: the helper in the instance answers until the renter goes.
///
/// # Errors
/// A sentence for the renter.
pub async fn serve<S>(runtime: &dyn Runtime, lease: &str, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let command = vec![HELPER_IN_INSTANCE.to_owned(), "pulse".to_owned()];
    exec::serve(runtime, lease, ExecSpec { command, stdin: true, ..ExecSpec::default() }, stream).await
}

/// A question that is out.
#[derive(Debug, Clone, Copy)]
struct Out {
    number: u64,
    asked: Millis,
}

/// What came of asking: of which question, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// When it was asked, since this machine's start.
    pub asked: Millis,
    /// What came of it.
    pub beat: Beat,
}

/// Why nothing more comes over a stream.
#[derive(Debug)]
enum Over {
    /// The host's node ended it, or said why it can't be.
    Ended,
    /// The way to the host broke.
    Lost,
}

/// The renter's side: one way to the helper in one instance.
pub struct Asker {
    frames: FramedRead<ReadHalf<ByteStream>, FrameDecoder>,
    to: WriteHalf<ByteStream>,
    out: VecDeque<Out>,
    text: Vec<u8>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("out", &self.out.len()).finish_non_exhaustive()
    }
}

impl Asker {
    /// Asks over this stream, which begins with [`souk_protocol::message::StreamOpen::Pulse`].
    #[must_use]
    pub fn over(stream: ByteStream) -> Self {
        let (from, to) = tokio::io::split(stream);
        Self { frames: FramedRead::new(from, FrameDecoder), to, out: VecDeque::new(), text: Vec::new() }
    }

    /// Asks once, and waits for an answer: to this question, or to an earlier one. None for the way where it can't be used any more.
    pub async fn ask(mut self, within: Duration) -> (Option<Self>, Heard) {
        let asked = clock::since_start();
        let deadline = Instant::now() + within;
        if self.out.len() < OUT {
            let number = u64::from_le_bytes(clock::random().unwrap_or_default());
            let frame = Frame::Stdin(question(number).into_bytes());
            self.out.push_back(Out { number, asked });
            match timeout(WRITE_WITHIN, write_frame(&mut self.to, &frame)).await {
                Ok(Ok(())) => {}
                // What the host has said before counts; half a question must not be followed by another.
                Ok(Err(_)) | Err(_) => {
                    let over = timeout_at(deadline, self.answer()).await;
                    return (None, heard(asked, over.unwrap_or(Err(Over::Lost))));
                }
            }
        }
        match timeout_at(deadline, self.answer()).await {
            Ok(Ok(answer)) => (Some(self), heard(asked, Ok(answer))),
            Ok(Err(over)) => (None, heard(asked, Err(over))),
            Err(_) => (Some(self), Heard { asked, beat: Beat::Silent }),
        }
    }

    /// Waits until the way ends, or an answer comes that is late: to be heard between two questions.
    pub async fn late(&mut self) -> Option<Heard> {
        self.answer().await.ok().map(|(asked, pulse)| Heard { asked, beat: Beat::Answered(pulse) })
    }

    /// The next answer to a question that is out. Losing interest in it loses nothing.
    async fn answer(&mut self) -> Result<(Millis, Pulse), Over> {
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let answer = std::str::from_utf8(&line).ok().and_then(|line| line.trim_end().parse::<Answer>().ok());
                let Some(Answer { number, pulse }) = answer else { return Err(Over::Ended) };
                if let Some(at) = self.out.iter().position(|out| out.number == number) {
                    // Answers come in order: what was asked before has none any more.
                    let asked = self.out[at].asked;
                    self.out.drain(..=at);
                    return Ok((asked, pulse));
                }
            }
            if self.text.len() > LINE_BYTES {
                return Err(Over::Ended);
            }
            match self.frames.next().await {
                Some(Ok(Frame::Stdout(bytes))) => self.text.extend(bytes),
                Some(Ok(Frame::Stderr(_))) => {}
                Some(Err(error)) if error.kind() != io::ErrorKind::InvalidData => return Err(Over::Lost),
                // An error, an exit, the end, or what has no place here.
                Some(Ok(_) | Err(_)) | None => return Err(Over::Ended),
            }
        }
    }
}

const fn heard(asked: Millis, outcome: Result<(Millis, Pulse), Over>) -> Heard {
    match outcome {
        Ok((asked, pulse)) => Heard { asked, beat: Beat::Answered(pulse) },
        Err(Over::Ended) => Heard { asked, beat: Beat::Silent },
        Err(Over::Lost) => Heard { asked, beat: Beat::Unheard },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::access::read_frame;

    const SOON: Duration = Duration::from_secs(5);

    fn way() -> (Asker, DuplexStream) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        (Asker::over(Box::new(near)), far)
    }

    async fn number(far: &mut DuplexStream) -> String {
        match read_frame(far).await.unwrap() {
            Some(Frame::Stdin(bytes)) => String::from_utf8(bytes).unwrap().trim_end().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    async fn says(far: &mut DuplexStream, text: String) {
        write_frame(far, &Frame::Stdout(text.into_bytes())).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_heard_in_pieces_and_late() {
        let (asker, mut far) = way();
        let helper = tokio::spawn(async move {
            let first = number(&mut far).await;
            says(&mut far, first).await;
            says(&mut far, " 00000000000000aa 7 9\n".to_owned()).await;
            (number(&mut far).await, far)
        });
        let (asker, first) = asker.ask(SOON).await;
        let pulse = |awake| Beat::Answered(Pulse { process: 0xaa, awake: Millis(awake), up: Millis(9) });
        assert_eq!(first.beat, pulse(7));
        let (asker, second) = asker.unwrap().ask(Duration::from_millis(50)).await;
        assert_eq!(second.beat, Beat::Silent);
        let (number, mut far) = helper.await.unwrap();
        says(&mut far, format!("{number} 00000000000000aa 8 9\n")).await;
        let late = asker.unwrap().late().await.unwrap();
        assert_eq!(late, Heard { asked: second.asked, beat: pulse(8) });
    }

    #[tokio::test]
    async fn refusals_nonsense_and_lost_ways_are_told_apart() {
        for (said, meant) in [
            (Some(Frame::Error("the instance isn't running".to_owned())), Beat::Silent),
            (Some(Frame::Exit(137)), Beat::Silent),
            (Some(Frame::Stdout(b"hello\n".to_vec())), Beat::Silent),
            (Some(Frame::Stdout(vec![b'x'; 4096])), Beat::Silent),
            (None, Beat::Silent),
        ] {
            let (asker, mut far) = way();
            if let Some(frame) = &said {
                write_frame(&mut far, frame).await.unwrap();
            }
            far.shutdown().await.unwrap();
            let (way, heard) = asker.ask(SOON).await;
            assert_eq!((way.is_none(), heard.beat), (true, meant), "{said:?}");
        }
        let (asker, far) = way();
        drop(far);
        assert_eq!(asker.ask(SOON).await.1.beat, Beat::Silent, "an end is the host's word, as long as it is connected");
    }

    #[tokio::test]
    async fn a_frozen_instance_does_not_get_more_questions_than_are_remembered() {
        let (mut asker, mut far) = way();
        for _ in 0..OUT + 20 {
            let (again, heard) = asker.ask(Duration::from_millis(1)).await;
            assert_eq!(heard.beat, Beat::Silent);
            asker = again.unwrap();
        }
        assert_eq!(asker.out.len(), OUT);
        let mut numbers = Vec::new();
        for _ in 0..OUT {
            numbers.push(number(&mut far).await);
        }
        says(&mut far, format!("{} 00000000000000aa 8 9\n", numbers[OUT - 1])).await;
        assert!(asker.late().await.is_some() && asker.out.is_empty());
    }
}
