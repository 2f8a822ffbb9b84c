//! What parent and worker say to each other: frames of JSON over one Unix socket, which is the worker's standard input.
//!
//! A frame is four bytes of length, little-endian, and the text. Descriptors travel with the length. The worker opens no path of the
//! host: module, workspace and notices come to it as descriptors. Both sides bound what they read; the parent trusts nothing a worker says.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::report::{Confinement, End, Usage};
use crate::spec::{Limits, Mode};

/// Most bytes of what a worker is told: arguments, environment, and a little.
pub(crate) const MAX_ORDER: usize = 2 << 20;
/// Most bytes of what a worker says.
pub(crate) const MAX_WORD: usize = 16 * 1024;
/// Most descriptors in one frame.
const MAX_FDS: usize = 4;

/// What a worker is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// First of all: who to be.
    Hello {
        /// User and group.
        user: Option<(u32, u32)>,
    },
    /// Descriptors: the compiled module, then the workspace and the notices where there are any.
    Run(Box<RunOrder>),
    /// Descriptors: the module, the file to write to.
    Compile(CompileOrder),
    /// End the guest.
    Stop,
}

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunOrder {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    pub(crate) mode: Mode,
    pub(crate) workspace: bool,
    pub(crate) notices: bool,
}

/// A compilation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct CompileOrder {
    pub(crate) flavour: crate::engine::Flavour,
    pub(crate) memory_bytes: u64,
    pub(crate) cpu_seconds: u64,
    pub(crate) output_bytes: u64,
    pub(crate) module_bytes: u64,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Ready(Confinement),
    Started,
    Usage(Usage),
    Ended { end: End, usage: Usage },
    Compiled,
    Invalid { reason: String },
}

pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(io::Error::other)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

pub(crate) fn header(body: &[u8]) -> io::Result<[u8; 4]> {
    u32::try_from(body.len()).map(u32::to_le_bytes).map_err(io::Error::other)
}

/// Sends the head of a frame, and descriptors with it. So few bytes always fit.
pub(crate) fn send_header(socket: BorrowedFd<'_>, header: [u8; 4], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = sendmsg(socket, &[IoSlice::new(&header)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == header.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The worker's side of the socket.
#[derive(Debug)]
pub(crate) struct Line {
    socket: std::fs::File,
}

impl Line {
    /// Takes standard input, which must be the socket.
    pub(crate) fn of_stdin() -> io::Result<Self> {
        Ok(Self { socket: io::stdin().as_fd().try_clone_to_owned()?.into() })
    }

    /// Another handle of the same socket.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// The next order with its descriptors; none when the parent has gone.
    pub(crate) fn receive(&mut self) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
        let mut head = [0_u8; 4];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut head)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if got.bytes == 0 {
            return Ok(None);
        }
        if got.bytes < head.len() {
            self.socket.read_exact(head.get_mut(got.bytes..).unwrap_or_default())?;
        }
        Ok(Some((decode(&self.body(head)?)?, fds)))
    }

    /// The next order, read by plain `read`, as the filter for system calls allows no more.
    pub(crate) fn receive_plain(&mut self) -> io::Result<Option<Order>> {
        let mut head = [0_u8; 4];
        match self.socket.read_exact(&mut head) {
            Ok(()) => decode(&self.body(head)?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn body(&mut self, head: [u8; 4]) -> io::Result<Vec<u8>> {
        let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
        if length > MAX_ORDER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body)?;
        Ok(body)
    }

    /// Says a word, in one write.
    pub(crate) fn say(&mut self, word: &Word) -> io::Result<()> {
        let body = encode(word)?;
        let mut frame = header(&body)?.to_vec();
        frame.extend_from_slice(&body);
        self.socket.write_all(&frame)
    }
}
