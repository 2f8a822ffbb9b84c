//! The near end of a link: the user's own `ssh`, with everything that its configuration says (agent, jump hosts, `ControlMaster`),
//! running `souk dial-stdio` on the other machine.
//!
//! Started by the first request, and again by the first one after it broke. Ends with its input, so with this program.

use std::{
    fmt, io,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::future::poll_fn;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::timeout,
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

use super::{
    address::{NodeAddress, SshAddress},
    greeting::{Greeting, VERSION},
    settings,
};
use crate::market::CommandError;

/// Requests that wait for a stream. When full, further ones wait for a place.
const WAITING: usize = 64;
/// Lines of ssh's own words that are kept, the last ones, and bytes of each.
const WORDS: usize = 8;
const WORD_BYTES: usize = 512;
/// How long ssh may take to end after its output has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// How long its last words may take: a `ControlPersist` master keeps its standard error open for as long as it lives.
const WORDS_WITHIN: Duration = Duration::from_millis(300);
/// What a POSIX shell there does: finds souk also where shells that nobody logs in to often don't look, and becomes it.
const FIND: &str = r#"PATH="$PATH:/usr/local/bin:$HOME/.local/bin:$HOME/.cargo/bin"; exec souk dial-stdio -- "$@""#;
/// Exit codes: ssh's own failure, and a shell's for a program that is not there.
const SSH_FAILED: i32 = 255;
const NOT_FOUND: i32 = 127;

/// A stream to the API of a node elsewhere.
pub type LinkStream = Compat<yamux::Stream>;

/// Why there is no link.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// This machine has no ssh, or can't start it.
    #[error("ssh can't be started here: {0}")]
    NoSsh(String),
    /// ssh did not get there, or was not let in.
    #[error("{destination} can't be reached over ssh: {why}")]
    Unreachable {
        /// User and host.
        destination: String,
        /// ssh's last words.
        why: String,
        /// The command that shows it by itself.
        by_hand: String,
    },
    /// There is no souk on that machine.
    #[error("there is no souk on {destination}, or not where a shell without a login finds it")]
    NoSouk {
        /// User and host.
        destination: String,
    },
    /// What answers is not a souk's far end.
    #[error("{destination} does not answer as a souk does: {why}")]
    NotSouk {
        /// User and host.
        destination: String,
        /// What it said last.
        why: String,
    },
    /// It is of a version that this one may not understand.
    #[error("the souk on {destination} is {there}, this one is {here}: they may not understand each other", here = env!("CARGO_PKG_VERSION"))]
    Version {
        /// User and host.
        destination: String,
        /// Its version.
        there: String,
    },
    /// souk is there, but not its node.
    #[error("on {destination}: {}", error.message)]
    Node {
        /// User and host.
        destination: String,
        /// What it says.
        error: CommandError,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It was there and broke.
    #[error("the connection to {destination} was lost: {why}")]
    Lost {
        /// User and host.
        destination: String,
        /// ssh's last words.
        why: String,
    },
}

impl LinkError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSsh(_) => Some("install OpenSSH's client (apt install openssh-client)".to_owned()),
            Self::Unreachable { by_hand, .. } => Some(format!("{by_hand}, which has to work first")),
            Self::NoSouk { .. } => Some("install it there, in /usr/local/bin or ~/.local/bin".to_owned()),
            Self::NotSouk { .. } | Self::Version { .. } => Some("install the same souk on both machines".to_owned()),
            Self::Node { hint, .. } => hint.clone(),
            Self::Lost { .. } => Some("the same command again".to_owned()),
        }
    }
}

type Opened = Result<yamux::Stream, String>;

/// A link that lives.
#[derive(Clone)]
struct Live(mpsc::Sender<oneshot::Sender<Opened>>);

/// A link to one machine.
pub struct SshLink {
    address: SshAddress,
    live: AsyncMutex<Option<Live>>,
    /// Whether it has been there before: then what fails may pass.
    was: AtomicBool,
}

impl fmt::Debug for SshLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SshLink").field(&NodeAddress::Ssh(self.address.clone()).to_string()).finish()
    }
}

impl SshLink {
    /// A link that the first request will start.
    #[must_use]
    pub fn to(address: SshAddress) -> Self {
        Self { address, live: AsyncMutex::new(None), was: false.into() }
    }

    /// Whether there has been a link: then one that fails was lost, and may come back.
    #[must_use]
    pub fn was_there(&self) -> bool {
        self.was.load(Ordering::Relaxed)
    }

    /// A stream of its own to the node's API.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open(&self) -> Result<LinkStream, LinkError> {
        let mut live = self.live.lock().await;
        if let Some(there) = live.clone() {
            if let Ok(stream) = there.stream().await {
                return Ok(stream.compat());
            }
            // It broke since the last request.
            *live = None;
        }
        let there = connect(&self.address).await?;
        self.was.store(true, Ordering::Relaxed);
        let opened = there.stream().await;
        *live = Some(there);
        drop(live);
        let destination = self.address.destination();
        opened.map(FuturesAsyncReadCompatExt::compat).map_err(|why| LinkError::Lost { destination, why })
    }
}

impl Live {
    async fn stream(&self) -> Opened {
        let gone = || "ssh has ended".to_owned();
        let (reply, told) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }
}

/// The arguments of ssh.
fn arguments(address: &SshAddress) -> Vec<String> {
    let mut arguments: Vec<String> = [
        // No terminal, nothing forwarded, no command of the configuration's: input and output are the link's alone.
        "-T",
        "-a",
        "-x",
        "-oClearAllForwardings=yes",
        "-oRemoteCommand=none",
        "-oConnectTimeout=30",
        "-oServerAliveInterval=30",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(user) = &address.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if let Some(port) = address.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    // A path that begins with a dash is a path all the same: `--` is before it.
    let path = address.path.as_deref().and_then(|path| shlex::try_quote(path).ok());
    let command = format!("exec sh -c '{FIND}' souk{}", path.map(|path| format!(" {path}")).unwrap_or_default());
    arguments.extend(["--".to_owned(), address.host.clone(), command]);
    arguments
}

async fn connect(address: &SshAddress) -> Result<Live, LinkError> {
    let mut command = Command::new("ssh");
    command.args(arguments(address)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| LinkError::NoSsh(no_ssh(&e)))?;
    let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(LinkError::NoSsh("it has no pipes".to_owned()));
    };
    let words = Words::listen(errors);
    let mut output = BufReader::new(output);
    let destination = address.destination();
    let greeting = match Greeting::read(&mut output).await {
        Ok(Some(greeting)) => greeting,
        Ok(None) | Err(_) => {
            drop((input, output));
            let code = ended(&mut child).await.and_then(|status| status.code());
            return Err(failed(address, code, words.last().await));
        }
    };
    if let Some(error) = greeting.error {
        let souk = |hint: &String| hint.starts_with("souk ");
        let hint = error.hint.clone().map(|hint| if souk(&hint) { address.by_hand(&hint) } else { hint });
        return Err(LinkError::Node { destination, error, hint });
    }
    if !greeting.fits() {
        let there = if greeting.souk_dial == VERSION {
            greeting.version
        } else {
            format!("{} (of another kind)", greeting.version)
        };
        return Err(LinkError::Version { destination, there });
    }
    let connection = yamux::Connection::new(tokio::io::join(output, input).compat(), settings(), yamux::Mode::Client);
    let (wanted, asked) = mpsc::channel(WAITING);
    tokio::spawn(drive(connection, asked, child, words));
    Ok(Live(wanted))
}

fn no_ssh(error: &io::Error) -> String {
    match error.kind() == io::ErrorKind::NotFound {
        true => "there is no such program on this machine".to_owned(),
        false => error.to_string(),
    }
}

async fn ended(child: &mut Child) -> Option<ExitStatus> {
    match timeout(ENDS_WITHIN, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            child.start_kill().ok();
            child.wait().await.ok()
        }
    }
}

fn failed(address: &SshAddress, code: Option<i32>, words: String) -> LinkError {
    let destination = address.destination();
    let why = || if words.is_empty() { "it said nothing".to_owned() } else { words.clone() };
    match code {
        Some(NOT_FOUND) => LinkError::NoSouk { destination },
        Some(SSH_FAILED) => LinkError::Unreachable { destination, why: why(), by_hand: address.by_hand("true") },
        Some(code) => LinkError::NotSouk { destination, why: format!("{} (exit code {code})", why()) },
        None => LinkError::NotSouk { destination, why: why() },
    }
}

/// What a link's task wakes up for.
enum Event {
    /// A stream from there, or the link's end: there are none from there.
    Inbound(bool),
    Asked(Option<oneshot::Sender<Opened>>),
    Opened(Opened),
}

/// Sole owner of a link's connection and its ssh.
async fn drive<T: futures::AsyncRead + futures::AsyncWrite + Unpin>(
    mut connection: yamux::Connection<T>,
    mut asked: mpsc::Receiver<oneshot::Sender<Opened>>,
    mut child: Child,
    words: Words,
) {
    let mut next: Option<oneshot::Sender<Opened>> = None;
    let mut wanted = true;
    loop {
        let event = poll_fn(|cx| {
            // This is also what moves the bytes of all streams.
            if let Poll::Ready(inbound) = connection.poll_next_inbound(cx) {
                return Poll::Ready(Event::Inbound(matches!(inbound, Some(Ok(_)))));
            }
            if next.is_some() {
                connection.poll_new_outbound(cx).map(|opened| Event::Opened(opened.map_err(|error| error.to_string())))
            } else if wanted {
                asked.poll_recv(cx).map(Event::Asked)
            } else {
                Poll::Pending
            }
        });
        match event.await {
            Event::Inbound(true) => {}
            Event::Inbound(false) => break,
            // Where nobody can ask any more, streams may still be read.
            Event::Asked(reply) => {
                wanted = reply.is_some();
                next = reply;
            }
            Event::Opened(opened) => {
                let broken = opened.is_err();
                if let Some(reply) = next.take() {
                    reply.send(opened).ok();
                }
                if broken {
                    break;
                }
            }
        }
    }
    drop(connection);
    let (status, words) = (ended(&mut child).await, words.last().await);
    tracing::debug!(?status, words, "the link's ssh has ended");
}

/// What ssh says on its standard error: read as it comes, so that it never waits, and the last of it kept.
struct Words {
    kept: Arc<Mutex<Vec<String>>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Words {
    fn listen(errors: ChildStderr) -> Self {
        let kept: Arc<Mutex<Vec<String>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let listening = tokio::spawn(async move {
            let mut errors = BufReader::with_capacity(WORD_BYTES, errors);
            loop {
                // A line, or as much of it as is kept of one.
                let (taken, line) = match errors.fill_buf().await {
                    Ok([]) | Err(_) => return,
                    Ok(piece) => {
                        let end = piece.iter().position(|b| *b == b'\n').map_or(piece.len(), |at| at + 1);
                        (end, String::from_utf8_lossy(&piece[..end]).trim().to_owned())
                    }
                };
                errors.consume(taken);
                if line.is_empty() {
                    continue;
                }
                let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
                if keep.len() == WORDS {
                    keep.remove(0);
                }
                keep.push(line);
            }
        });
        Self { kept, listening }
    }

    /// The last line that is no notice of ssh's own.
    async fn last(mut self) -> String {
        timeout(WORDS_WITHIN, &mut self.listening).await.ok();
        self.listening.abort();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let telling = |line: &&String| !line.starts_with("Warning: ") && !line.starts_with("** ");
        kept.iter().rev().find(telling).or(kept.last()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> SshAddress {
        match text.parse().unwrap() {
            NodeAddress::Ssh(address) => address,
            NodeAddress::Unix(_) | NodeAddress::Loopback(_) => unreachable!(),
        }
    }

    #[test]
    fn ssh_is_told_user_port_host_and_a_quoted_path() {
        let told = arguments(&address("ssh://me@box:2222/srv/it's%20here"));
        let host = told.iter().position(|word| word == "--").unwrap();
        assert_eq!(told[host - 4..host], ["-l", "me", "-p", "2222"]);
        assert_eq!(told[host + 1], "box");
        let words = shlex::split(&told[host + 2]).unwrap();
        assert_eq!(words, ["exec", "sh", "-c", FIND, "souk", "/srv/it's here"]);
        let plain = arguments(&address("ssh://box"));
        assert!(!plain.contains(&"-l".to_owned()) && !plain.contains(&"-p".to_owned()));
        assert!(plain.last().unwrap().ends_with("' souk"));
    }

    #[test]
    fn a_failure_says_whose_it_is() {
        let address = address("ssh://me@box:2222");
        let told = |code, words: &str| failed(&address, code, words.to_owned());
        let unreachable = told(Some(255), "Connection refused");
        assert_eq!(unreachable.to_string(), "me@box can't be reached over ssh: Connection refused");
        assert_eq!(unreachable.hint().unwrap(), "ssh -p 2222 me@box true, which has to work first");
        assert!(matches!(told(Some(127), "sh: 1: exec: souk: not found"), LinkError::NoSouk { .. }));
        let old = told(Some(2), "error: unrecognized subcommand 'dial-stdio'");
        assert!(old.to_string().contains("unrecognized subcommand"), "{old}");
        assert!(old.hint().unwrap().contains("same souk"));
        assert!(told(None, "").to_string().contains("it said nothing"));
    }
}
