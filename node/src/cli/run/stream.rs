//! The command's streams: as they are, with the rank before each line, or as JSON.

use std::io;

use serde_json::json;
use souk_protocol::message::Frame;
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::{
    api::frames,
    cli::{error::Failure, exec, output},
    market::{ErrorCode, command::ByteStream},
};

/// Bytes of a line before it is printed without its end.
const LINE: usize = 64 * 1024;

/// Pumps until the command has ended, and gives its exit code.
pub(super) async fn run(
    stream: ByteStream,
    interactive: bool,
    prefix: Option<String>,
    json: Option<u32>,
) -> Result<u8, Failure> {
    let (mut from, to) = tokio::io::split(stream);
    let receiving = async {
        let mut outputs =
            [Output::new(exec::file(io::stdout())?, "stdout"), Output::new(exec::file(io::stderr())?, "stderr")];
        let code = loop {
            let (at, bytes) = match frames::read(&mut from).await.map_err(exec::lost)? {
                Some(Frame::Stdout(bytes)) => (0, bytes),
                Some(Frame::Stderr(bytes)) => (1, bytes),
                Some(Frame::Exit(code)) => break exec::exit_code(code),
                Some(Frame::Error(sentence)) => return Err(Failure::new(sentence)),
                Some(
                    Frame::Open(_)
                    | Frame::Stdin(_)
                    | Frame::StdinEnd
                    | Frame::Resize(..)
                    | Frame::Ready
                    | Frame::Log(_)
                    | Frame::Note(_)
                    | Frame::Place(_),
                ) => continue,
                None => {
                    return Err(
                        Failure::new("the connection ended before the command did").code(ErrorCode::Unreachable)
                    );
                }
            };
            outputs[at].put(&bytes, prefix.as_deref(), json).await?;
        };
        for output in &mut outputs {
            output.end(prefix.as_deref()).await;
        }
        Ok(code)
    };
    tokio::select! {
        code = receiving => code,
        failure = exec::send(to, interactive, false) => Err(failure),
    }
}

struct Output {
    file: File,
    name: &'static str,
    rest: Vec<u8>,
    /// Its reader may go before the command does.
    open: bool,
}

impl Output {
    fn new(file: File, name: &'static str) -> Self {
        Self { file, name, rest: Vec::new(), open: true }
    }

    async fn put(&mut self, bytes: &[u8], prefix: Option<&str>, json: Option<u32>) -> Result<(), Failure> {
        if let Some(rank) = json {
            return output::json_line(
                &json!({ "rank": rank, "stream": self.name, "text": String::from_utf8_lossy(bytes) }),
            );
        }
        let Some(prefix) = prefix else {
            self.write(bytes).await;
            return Ok(());
        };
        self.rest.extend_from_slice(bytes);
        let whole = match self.rest.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            None if self.rest.len() >= LINE => self.rest.len(),
            None => return Ok(()),
        };
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        self.lines(&lines, prefix).await;
        Ok(())
    }

    /// Whole lines in one write, so that those of several runs don't mix.
    async fn lines(&mut self, lines: &[u8], prefix: &str) {
        let mut text = Vec::with_capacity(lines.len() + 64);
        for line in lines.split_inclusive(|b| *b == b'\n') {
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(line);
        }
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        self.write(&text).await;
    }

    async fn end(&mut self, prefix: Option<&str>) {
        let rest = std::mem::take(&mut self.rest);
        if let (Some(prefix), false) = (prefix, rest.is_empty()) {
            self.lines(&rest, prefix).await;
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.open = self.open && self.file.write_all(bytes).await.is_ok() && self.file.flush().await.is_ok();
    }
}
