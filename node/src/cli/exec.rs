//! `souk logs` and `exec`: frames from and to an instance.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    os::fd::AsFd,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::termios::{self, OptionalActions, Termios};
use serde_json::json;
use souk_protocol::{Timestamp, limits, message::Frame};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    signal::unix::{SignalKind, signal},
};

use super::{
    Context,
    args::{ExecArgs, LogsArgs},
    error::{Failure, SOUKS_OWN},
    output, rent,
};
use crate::{
    api::{client::escape, frames, types::ExecRequest},
    market::{ErrorCode, command::ByteStream},
};

/// Bytes of input sent at once.
const PIECE: usize = 16 * 1024;
const _: () = assert!(PIECE <= limits::FRAME_BYTES);

pub(super) async fn logs(context: &Context, args: LogsArgs) -> Result<u8, Failure> {
    let mut path = format!("leases/{}/logs?follow={}", escape(&args.id), args.follow);
    if let Some(tail) = args.tail {
        let _ = write!(path, "&tail={tail}");
    }
    if let Some(since) = &args.since {
        let _ = write!(path, "&since_ms={}", since_time(since)?.0);
    }
    if args.timestamps {
        path.push_str("&timestamps=true");
    }
    let mut stream = context.client()?.stream(&path).await?.into_reader();
    let (mut out, mut err) = (file(io::stdout())?, file(io::stderr())?);
    while let Some(frame) = frames::read(&mut stream).await.map_err(lost)? {
        let (name, bytes) = match frame {
            Frame::Stdout(bytes) => ("stdout", bytes),
            Frame::Stderr(bytes) => ("stderr", bytes),
            Frame::Exit(_) => break,
            Frame::Error(sentence) => return Err(Failure::new(sentence)),
            Frame::Note(sentence) if context.json => {
                output::json_line(&json!({ "notice": sentence }))?;
                continue;
            }
            Frame::Note(sentence) => {
                output::note(output::plain(&format!("souk: {sentence}")));
                continue;
            }
            Frame::Open(_)
            | Frame::Stdin(_)
            | Frame::StdinEnd
            | Frame::Resize(..)
            | Frame::Ready
            | Frame::Log(_)
            | Frame::Place(_) => continue,
        };
        if context.json {
            let text = String::from_utf8_lossy(&bytes);
            output::json_line(&json!({ "stream": name, "text": text }))?;
        } else if name == "stdout" {
            out.write_all(&bytes).await?;
            out.flush().await?;
        } else {
            err.write_all(&bytes).await?;
            err.flush().await?;
        }
    }
    Ok(0)
}

/// A standard stream without the buffers and line rules of the standard library.
pub(super) fn file(stream: impl AsFd) -> Result<File, Failure> {
    let own = stream.as_fd().try_clone_to_owned()?;
    Ok(File::from_std(std::fs::File::from(own)))
}

pub(super) fn lost(error: io::Error) -> Failure {
    Failure::new(format!("the stream was lost: {error}")).code(ErrorCode::Unreachable)
}

/// `10m` ago, or a point in time.
fn since_time(text: &str) -> Result<Timestamp, Failure> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => SystemTime::now().checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let at = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    at.and_then(|since: Duration| u64::try_from(since.as_millis()).ok()).map(Timestamp).ok_or_else(|| {
        Failure::usage(format!("`{text}` is neither a length of time nor a point in time"))
            .hint("--since 10m, or --since 2026-11-02T10:00:00Z")
    })
}

pub(super) async fn exec(context: &Context, args: ExecArgs) -> Result<u8, Failure> {
    run(context, args).await.map_err(|failure| if failure.exit == 2 { failure } else { failure.exit(SOUKS_OWN) })
}

async fn run(context: &Context, args: ExecArgs) -> Result<u8, Failure> {
    let request = ExecRequest {
        command: args.command,
        tty: args.tty,
        env: rent::environment(&args.env)?,
        user: args.user,
        workdir: args.workdir,
        size: args.tty.then(size).flatten(),
    };
    let path = format!("leases/{}/exec", escape(&args.id));
    let stream: ByteStream = context.client()?.upgrade(&path, &request).await?;
    // From here on the terminal is raw; dropped, and so restored, before anything else is printed.
    let _raw = if args.tty && args.interactive { Raw::enter()? } else { None };
    let (from, to) = tokio::io::split(stream);
    let sending = send(to, args.interactive, args.tty);
    let receiving = receive(from);
    tokio::select! {
        code = receiving => code,
        failure = sending => Err(failure),
    }
}

/// The exit code as a shell knows it.
pub(super) fn exit_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

async fn receive(mut from: ReadHalf<ByteStream>) -> Result<u8, Failure> {
    let (mut out, mut err) = (file(io::stdout())?, file(io::stderr())?);
    // A reader of our output may go before the command does: its exit code counts all the same.
    let (mut out_open, mut err_open) = (true, true);
    while let Some(frame) = frames::read(&mut from).await.map_err(lost)? {
        match frame {
            Frame::Stdout(bytes) if out_open => {
                out_open = put(&mut out, &bytes).await;
            }
            Frame::Stderr(bytes) if err_open => {
                err_open = put(&mut err, &bytes).await;
            }
            Frame::Exit(code) => return Ok(exit_code(code)),
            Frame::Error(sentence) => return Err(Failure::new(sentence)),
            Frame::Stdout(_)
            | Frame::Stderr(_)
            | Frame::Open(_)
            | Frame::Stdin(_)
            | Frame::StdinEnd
            | Frame::Resize(..)
            | Frame::Ready
            | Frame::Log(_)
            | Frame::Note(_)
            | Frame::Place(_) => {}
        }
    }
    Err(Failure::new("the connection ended before the command did")
        .code(ErrorCode::Unreachable)
        .hint("souk events ID says what became of the instance"))
}

async fn put(to: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    to.write_all(bytes).await.is_ok() && to.flush().await.is_ok()
}

/// Passes input and window changes on. Returns only if that fails on this side.
pub(super) async fn send(mut to: WriteHalf<ByteStream>, interactive: bool, tty: bool) -> Failure {
    match send_all(&mut to, interactive, tty).await {
        // The other side has gone: what it said last is still to be read.
        Ok(()) => std::future::pending().await,
        Err(failure) => failure,
    }
}

async fn send_all(to: &mut WriteHalf<ByteStream>, interactive: bool, tty: bool) -> Result<(), Failure> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut input = file(io::stdin())?;
    let mut buffer = vec![0; PIECE];
    let mut open = interactive;
    if !interactive && frames::write(to, &Frame::StdinEnd).await.is_err() {
        return Ok(());
    }
    loop {
        let frame = tokio::select! {
            read = input.read(&mut buffer), if open => match read? {
                0 => {
                    open = false;
                    Frame::StdinEnd
                }
                n => Frame::Stdin(buffer[..n].to_vec()),
            },
            Some(()) = resized.recv(), if tty => match size() {
                Some((columns, rows)) => Frame::Resize(columns, rows),
                None => continue,
            },
            else => return Ok(()),
        };
        if frames::write(to, &frame).await.is_err() {
            return Ok(());
        }
    }
}

/// Columns and rows of the terminal.
fn size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin())).ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// The terminal in raw mode, until dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Result<Option<Self>, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin).map_err(io::Error::from)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(io::Error::from)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(exit_code(0), 0);
        assert_eq!(exit_code(137), 137);
        assert_eq!(exit_code(-1), 255);
        assert_eq!(exit_code(256 + 3), 3);
    }

    #[test]
    fn since_takes_lengths_and_points() {
        assert_eq!(since_time("1970-01-01T00:00:01Z").unwrap(), Timestamp(1000));
        let ago = since_time("10m").unwrap();
        assert!(output::now().since(ago).0 >= 600_000);
        assert_eq!(since_time("yesterday").unwrap_err().exit, 2);
    }
}
