//! One session channel's command: its input, output, terminal, signals and end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::StreamExt;
use russh::{
    ChannelId, ChannelWriteHalf, Sig,
    server::{Handle, Msg},
};
use souk_runtime::{ExecControl, ExecInput, ExecSpec, OutputStream, Runtime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{budget::Charge, signal};

/// Sizes and signals that a command has not been told yet. When full, further ones are dropped.
pub const CONTROLS: usize = 32;
/// The exit code where souk itself can't do what is asked.
const OWN_FAILURE: u32 = 255;
/// SSH's number for the error output.
const STDERR: u32 = 1;

/// Input on its way to a command or connection. The queue is unbounded because what is in it is charged for.
#[derive(Debug)]
pub enum Input {
    /// Bytes, and what they count.
    Bytes(Bytes, Charge),
    /// There is no more.
    End,
}

/// What a command is told beside its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The terminal has so many columns and rows now.
    Resize(u16, u16),
    /// A signal's number.
    Signal(i32),
}

/// The signals that a client has sent a command. The engine tells a command's end by a number alone, in which 128 + n can be a signal or a
/// shell's own code; where the client has sent that signal, it is one.
#[derive(Debug, Default)]
struct Sent(AtomicU64);

impl Sent {
    fn note(&self, number: i32) {
        let bit = u32::try_from(number).ok().and_then(|number| 1u64.checked_shl(number)).unwrap_or(0);
        self.0.fetch_or(bit, Ordering::Relaxed);
    }

    fn ended_by(&self, code: u32) -> Option<Sig> {
        let number = code.checked_sub(128).filter(|number| (1..64).contains(number))?;
        let sent = self.0.load(Ordering::Relaxed) >> number & 1 == 1;
        if sent { signal::named(i32::try_from(number).ok()?) } else { None }
    }
}

/// A channel's ways in and out.
pub struct Ends {
    pub channel: ChannelId,
    pub write: Arc<ChannelWriteHalf<Msg>>,
    pub handle: Handle,
    pub input: mpsc::UnboundedReceiver<Input>,
    pub controls: mpsc::Receiver<Control>,
    pub cancelled: CancellationToken,
}

/// Runs a command until it ends, the channel closes, or the connection is over; in the latter two its processes are hung up and
/// then killed.
pub async fn run(runtime: Arc<dyn Runtime>, lease: String, spec: ExecSpec, mut ends: Ends) {
    let cancelled = ends.cancelled.clone();
    tokio::select! {
        () = cancelled.cancelled() => {}
        (code, signals) = pump(&*runtime, &lease, spec, &mut ends) => {
            let Ends { channel, handle, .. } = &ends;
            // A client that is gone needs no ending.
            if let Some(signal) = signals.ended_by(code) {
                let _ = handle.exit_signal_request(*channel, signal, false, String::new(), String::new()).await;
            }
            let _ = handle.exit_status_request(*channel, code).await;
            let _ = handle.eof(*channel).await;
            let _ = handle.close(*channel).await;
        }
    }
}

/// The code it ended with, and what it was sent.
async fn pump(runtime: &dyn Runtime, lease: &str, spec: ExecSpec, ends: &mut Ends) -> (u32, Sent) {
    let sent = Sent::default();
    let code = pump_to_the_end(runtime, lease, spec, ends, &sent).await;
    (code, sent)
}

async fn pump_to_the_end(runtime: &dyn Runtime, lease: &str, spec: ExecSpec, ends: &mut Ends, sent: &Sent) -> u32 {
    let terminal = spec.terminal;
    let mut session = match runtime.exec(lease, spec).await {
        Ok(session) => session,
        Err(error) => {
            say(&ends.write, &error.to_string()).await;
            return OWN_FAILURE;
        }
    };
    let write = Arc::clone(&ends.write);
    let output = async {
        while let Some(piece) = session.output.next().await {
            let (from, bytes) = piece.map_err(|e| format!("the command's output broke off: {e}"))?;
            let sent = match from {
                OutputStream::Stdout => write.data_bytes(bytes).await,
                OutputStream::Stderr => write.extended_data_bytes(STDERR, bytes).await,
            };
            sent.map_err(|_| "the client is gone".to_owned())?;
        }
        Ok::<(), String>(())
    };
    let broken = {
        let others = async {
            tokio::join!(
                feed(session.input, &mut ends.input, terminal),
                tell(&session.control, &mut ends.controls, sent)
            );
        };
        tokio::select! {
            done = output => done.err(),
            () = others => None,
        }
    };
    if let Some(sentence) = broken {
        say(&ends.write, &sentence).await;
        return OWN_FAILURE;
    }
    match session.control.exit_code().await {
        Ok(code) => u32::try_from(code).unwrap_or(OWN_FAILURE),
        Err(error) => {
            say(&ends.write, &error.to_string()).await;
            OWN_FAILURE
        }
    }
}

/// Passes input on. Never returns: the output says when the command is done.
async fn feed(mut to: ExecInput, from: &mut mpsc::UnboundedReceiver<Input>, terminal: bool) {
    let mut open = true;
    while let Some(input) = from.recv().await {
        match input {
            Input::Bytes(bytes, _charge) if open => open = to.write(&bytes).await.is_ok(),
            // A terminal has no end of input of its own; closing it would hang it up.
            Input::End if open && !terminal => {
                open = false;
                let _ = to.close().await;
            }
            Input::Bytes(..) | Input::End => {}
        }
    }
    std::future::pending::<()>().await;
}

async fn tell(control: &ExecControl, from: &mut mpsc::Receiver<Control>, sent: &Sent) {
    while let Some(next) = from.recv().await {
        let done = match next {
            Control::Resize(columns, rows) => control.resize(rows, columns).await,
            Control::Signal(number) => {
                sent.note(number);
                control.signal_all(number).await
            }
        };
        if let Err(error) = done {
            tracing::debug!(%error, ?next, "a command can't be told");
        }
    }
    std::future::pending::<()>().await;
}

/// A sentence of souk's own on the error output.
async fn say(write: &ChannelWriteHalf<Msg>, sentence: &str) {
    let _ = write.extended_data_bytes(STDERR, format!("souk: {sentence}\r\n")).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_that_was_sent_ends_a_command() {
        let sent = Sent::default();
        assert!(sent.ended_by(143).is_none());
        for number in [15, -1, 64, 1000] {
            sent.note(number);
        }
        assert!(matches!(sent.ended_by(143), Some(Sig::TERM)));
        for code in [0, 15, 128, 137, 192, 255, u32::MAX] {
            assert!(sent.ended_by(code).is_none(), "{code}");
        }
    }
}
