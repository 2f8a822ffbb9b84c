//! One run as its owner sees it: a task that owns the process, tells what happens to it, and ends it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::listen::listen;
use super::output::{self, Chunk};
use super::process::Process;
use super::spawn::Worker;
use crate::message::{Order, RunOrder, Word, encode, header, send_header};
use crate::report::{End, Event, Usage, reason};
use crate::spec::{MAX_NOTICE_BYTES, NOTICE_FILE};

/// Commands that wait for one run. When full whoever commands waits.
const COMMANDS: usize = 8;
/// Events of one run: there are no more than three, so none waits.
const EVENTS: usize = 4;
/// How long a worker may take to confine itself.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long a worker may take to end its guest by itself.
const STOP_WITHIN: Duration = Duration::from_millis(600);
/// What the kernel's count of processor time may lack, in microseconds: a tick at each of its two readings.
const CPU_GRAIN_US: u64 = 20_000;

/// A run that has begun. Dropping the last [`Handle`] kills it.
#[derive(Debug)]
pub struct Running {
    /// What happens, the end last. It need not be read at once.
    pub events: mpsc::Receiver<Event>,
    /// What the guest says; it must be read, or dropped, for the guest to go on. It ends with the guest, and may have more when
    /// [`Event::Ended`] has come.
    pub output: mpsc::Receiver<Chunk>,
    /// By which it is told.
    pub handle: Handle,
}

/// Tells a run what to do. After its end nothing is done.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Pause(oneshot::Sender<Usage>),
    Resume(oneshot::Sender<Usage>),
    Usage(oneshot::Sender<Usage>),
    Notice(Option<String>, oneshot::Sender<io::Result<()>>),
    Stop,
    Kill,
}

impl Handle {
    /// Lets it stand: no thread of it runs when this comes back. Gives what it has used; none where it has ended.
    pub async fn pause(&self) -> Option<Usage> {
        self.ask(Command::Pause).await
    }

    /// Lets it go on. Clocks of the guest have gone on meanwhile.
    pub async fn resume(&self) -> Option<Usage> {
        self.ask(Command::Resume).await
    }

    /// What it has used so far: the processor time as the kernel counts it, the rest as last told.
    pub async fn usage(&self) -> Option<Usage> {
        self.ask(Command::Usage).await
    }

    /// Writes the notice that the guest finds as `/run/souk/notice.json`, or removes it. Does nothing where it has no such folder.
    ///
    /// # Errors
    /// A text that is too long, a file that can't be written.
    pub async fn notice(&self, text: Option<String>) -> io::Result<()> {
        if text.as_ref().is_some_and(|text| text.len() > MAX_NOTICE_BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the notice is too long"));
        }
        self.ask(|answer| Command::Notice(text, answer)).await.unwrap_or(Ok(()))
    }

    /// Ends it: the guest is interrupted, and killed where that doesn't do within less than a second. A module has no signals: it learns
    /// of an end beforehand by its notice alone.
    pub async fn stop(&self) {
        let _ = self.commands.send(Command::Stop).await;
    }

    /// Kills it now.
    pub async fn kill(&self) {
        let _ = self.commands.send(Command::Kill).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}

struct Actor {
    process: Process,
    socket: OwnedWriteHalf,
    events: mpsc::Sender<Event>,
    notices: Option<OwnedFd>,
    usage: Usage,
    /// The process's time when the guest began, by the kernel.
    began_us: Option<u64>,
    said: Option<End>,
    ready: bool,
    paused: bool,
    /// It was told to end; when patience ends, it is killed.
    told: bool,
    kill_at: Option<Instant>,
}

/// Hands a worker its order.
pub(super) fn start(
    mut worker: Worker,
    order: RunOrder,
    fds: &[BorrowedFd<'_>],
    log_bytes: u64,
    notices: Option<&OwnedFd>,
) -> io::Result<Running> {
    let body = encode(&Order::Run(Box::new(order)))?;
    send_header(worker.socket.as_fd(), header(&body)?, fds)?;
    let null = || File::open("/dev/null").map(OwnedFd::from);
    let stdout = std::mem::replace(&mut worker.stdout, null()?);
    let stderr = std::mem::replace(&mut worker.stderr, null()?);
    let output = output::read(stdout, stderr, log_bytes)?;
    let (read, socket) = UnixStream::from_std(worker.socket.try_clone()?)?.into_split();
    let (commands, received) = mpsc::channel(COMMANDS);
    let (events, told) = mpsc::channel(EVENTS);
    let actor = Actor {
        process: Process::hold(worker)?,
        socket,
        events,
        notices: notices.map(OwnedFd::try_clone).transpose()?,
        usage: Usage::default(),
        began_us: None,
        said: None,
        ready: false,
        paused: false,
        told: false,
        kill_at: Some(Instant::now() + READY_WITHIN),
    };
    tokio::spawn(actor.live(body, listen(read), received));
    Ok(Running { events: told, output, handle: Handle { commands } })
}

impl Actor {
    async fn live(
        mut self,
        body: Vec<u8>,
        mut words: mpsc::Receiver<io::Result<Word>>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        match tokio::time::timeout(READY_WITHIN, self.socket.write_all(&body)).await {
            Ok(Ok(())) => {}
            // What it said last is better than this.
            Ok(Err(_)) | Err(_) => self.process.signal(Signal::KILL),
        }
        let mut untold = false;
        loop {
            let kill_at = self.kill_at;
            let patience = async {
                match kill_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                word = words.recv() => match word {
                    Some(word) => self.hear(word),
                    // Its end of the socket is closed: it has ended, or is to.
                    None => break,
                },
                command = commands.recv(), if !untold => match command {
                    Some(command) => self.carry_out(command).await,
                    None => {
                        untold = true;
                        self.kill();
                    }
                },
                () = patience => {
                    self.kill_at = None;
                    if !self.told {
                        self.said = Some(End::Failed { reason: String::from("the worker did not get ready in time") });
                    }
                    self.process.signal(Signal::KILL);
                }
            }
        }
        self.finish().await;
    }

    fn hear(&mut self, word: io::Result<Word>) {
        match word {
            Ok(Word::Ready(confinement)) => {
                self.ready = true;
                if !self.told {
                    self.kill_at = None;
                }
                // There is room for each event once; a worker that says one twice is not heard.
                let _ = self.events.try_send(Event::Ready(confinement));
            }
            Ok(Word::Started) => {
                if self.began_us.is_none() {
                    self.began_us = self.process.cpu_us();
                    let _ = self.events.try_send(Event::Started);
                }
            }
            Ok(Word::Usage(usage)) => self.take(usage),
            Ok(Word::Ended { end, usage }) => {
                self.take(usage);
                self.said.get_or_insert(end);
            }
            Ok(Word::Compiled | Word::Invalid { .. }) => self.distrust("it was asked to run, not to compile"),
            Err(error) => self.distrust(&error.to_string()),
        }
    }

    /// Takes a sample, but no more processor time than the kernel has seen.
    fn take(&mut self, mut usage: Usage) {
        let seen = self.process.cpu_us().zip(self.began_us).map(|(now, began)| now.saturating_sub(began));
        usage.cpu_us = usage.cpu_us.min(seen.unwrap_or(0).saturating_add(CPU_GRAIN_US));
        self.usage.advance(&usage);
    }

    /// What a worker says can't be understood: the guest may have it.
    fn distrust(&mut self, why: &str) {
        self.said = Some(End::Failed { reason: reason(&format!("the worker can't be understood: {why}")) });
        self.process.signal(Signal::KILL);
    }

    async fn carry_out(&mut self, command: Command) {
        match command {
            Command::Pause(answer) => {
                if !self.told {
                    self.process.stand().await;
                    self.paused = true;
                    // Standing, it can't get ready.
                    self.kill_at = None;
                }
                let _ = answer.send(self.used());
            }
            Command::Resume(answer) => {
                self.process.signal(Signal::CONT);
                self.paused = false;
                if !self.ready && !self.told {
                    self.kill_at = Some(Instant::now() + READY_WITHIN);
                }
                let _ = answer.send(self.used());
            }
            Command::Usage(answer) => {
                let _ = answer.send(self.used());
            }
            Command::Notice(text, answer) => {
                let _ = answer.send(self.notice(text.as_deref()));
            }
            Command::Stop => self.stop(),
            Command::Kill => self.kill(),
        }
    }

    /// As told and as the kernel counts, whichever is more.
    fn used(&mut self) -> Usage {
        if let (Some(now), Some(began)) = (self.process.cpu_us(), self.began_us) {
            self.usage.cpu_us = self.usage.cpu_us.max(now.saturating_sub(began));
        }
        self.usage
    }

    fn stop(&mut self) {
        if self.told {
            return;
        }
        let frame = encode(&Order::Stop).and_then(|body| Ok([&header(&body)?, body.as_slice()].concat()));
        let sent = frame.and_then(|frame| Ok(self.socket.try_write(&frame)? == frame.len()));
        if self.paused || !sent.unwrap_or(false) {
            return self.kill();
        }
        self.told = true;
        self.kill_at = Some(Instant::now() + STOP_WITHIN);
    }

    fn kill(&mut self) {
        self.told = true;
        self.process.signal(Signal::KILL);
    }

    /// By a new file in the place of the old one, so that a guest reads a whole one.
    fn notice(&self, text: Option<&str>) -> io::Result<()> {
        let Some(folder) = &self.notices else { return Ok(()) };
        let Some(text) = text else {
            return match rustix::fs::unlinkat(folder, NOTICE_FILE, AtFlags::empty()) {
                Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            };
        };
        let new = format!("{NOTICE_FILE}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, &new, flags, Mode::from_raw_mode(0o644))?);
        io::Write::write_all(&mut file, text.as_bytes())?;
        rustix::fs::renameat(folder, &new, folder, NOTICE_FILE)?;
        Ok(())
    }

    /// All was heard. The process can still be asked for its times.
    async fn finish(mut self) {
        self.process.end().await;
        let usage = self.used();
        let status = self.process.reap();
        let end = match (self.said.take(), status) {
            (Some(end), _) => end,
            (None, _) if self.told => End::Stopped,
            (None, Ok(status)) => match status.signal() {
                Some(signal) if signal == Signal::XCPU.as_raw() => End::CpuSpent,
                Some(signal) => End::Killed { signal },
                None => End::Failed { reason: reason(&format!("the worker ended without a word: {status}")) },
            },
            (None, Err(error)) => End::Failed { reason: reason(&error.to_string()) },
        };
        // Whoever doesn't hear has no need to.
        let _ = self.events.send(Event::Ended { end, usage }).await;
    }
}
