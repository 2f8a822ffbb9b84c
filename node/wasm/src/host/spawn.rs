//! Starting a worker process: with a socket as its standard input, two pipes, and nothing else of ours.
//!
//! All are started by one thread that never ends: a worker asks the kernel to be killed with the thread that started it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};

use tokio::sync::oneshot;

use crate::message::{Order, encode, header, send_header};

/// Processes that wait to be started. When full whoever asks waits.
const WAITING: usize = 64;

/// How a worker is started: a program whose `main` is [`crate::worker::main`], by these arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program; absolute.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// A worker that waits for its order.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) child: Child,
    pub(super) socket: UnixStream,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Drop for Worker {
    /// One that got no order, or whose order was done.
    fn drop(&mut self) {
        // Both fail only where it has ended and was seen to.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Start {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

static STARTER: OnceLock<mpsc::SyncSender<Start>> = OnceLock::new();

fn starter() -> &'static mpsc::SyncSender<Start> {
    STARTER.get_or_init(|| {
        let (sender, starts) = mpsc::sync_channel::<Start>(WAITING);
        // Without the thread each start is answered by an error.
        let _ = std::thread::Builder::new().name(String::from("wasm-starter")).spawn(move || {
            for Start { mut command, answer } in starts {
                if let Err(Ok(mut child)) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        sender
    })
}

/// Starts one and greets it.
pub(super) async fn start(program: &Program, user: Option<(u32, u32)>) -> io::Result<Worker> {
    let (socket, its) = UnixStream::pair()?;
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (answer, started) = oneshot::channel();
    let closed = || io::Error::other("the thread that starts workers has ended");
    let start = Start { command, answer };
    let sent = tokio::task::spawn_blocking(move || starter().send(start).is_ok()).await;
    if !sent.is_ok_and(|sent| sent) {
        return Err(closed());
    }
    let mut child = started.await.map_err(|_| closed())??;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(closed());
    };
    let mut worker = Worker { child, socket, stdout: stdout.into(), stderr: stderr.into() };
    let hello = encode(&Order::Hello { user })?;
    send_header(worker.socket.as_fd(), header(&hello)?, &[])?;
    // So few bytes always fit.
    io::Write::write_all(&mut worker.socket, &hello)?;
    worker.socket.set_nonblocking(true)?;
    Ok(worker)
}
