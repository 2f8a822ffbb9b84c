//! One connection: who gets in, which channels are open, and what their requests mean.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig,
    keys::ssh_key::public::KeyData,
    server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey},
};
use souk_runtime::{ExecSpec, HELPER_IN_INSTANCE};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Access, CHANNELS,
    budget::Budget,
    command::{self, CONTROLS, Control, Ends, Input},
    forward, signal,
};

/// Variables that a client may set for one command, and bytes of them all.
const ENVIRONMENT: (usize, usize) = (64, 16 * 1024);
/// Bytes of a command.
const COMMAND_BYTES: usize = 128 * 1024;
/// Bytes of a terminal's kind.
const TERM_BYTES: usize = 64;
/// The user name that stands for the image's own user.
pub const IMAGE_USER: &str = "souk";

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// SSH itself.
    #[error("the SSH connection failed: {0}")]
    Protocol(#[from] russh::Error),
    /// Input that nobody reads.
    #[error("the client sent more than its commands read")]
    Unread,
}

/// A channel, from its opening to its close.
struct Open {
    write: Arc<ChannelWriteHalf<Msg>>,
    terminal: Option<(String, u16, u16)>,
    env: Vec<(String, String)>,
    /// Taken by what serves the channel.
    waiting: Option<(mpsc::UnboundedReceiver<Input>, mpsc::Receiver<Control>)>,
    input: mpsc::UnboundedSender<Input>,
    ended: bool,
    controls: mpsc::Sender<Control>,
    cancelled: CancellationToken,
    _ends: DropGuard,
}

/// The handler of one connection. Agents, X11 and ports of the client are not asked for: russh refuses them where a handler says nothing.
pub struct Connection {
    access: Access,
    user: Option<String>,
    channels: BTreeMap<ChannelId, Open>,
    budget: Budget,
    proven: Option<KeyData>,
    logged_in: watch::Sender<Option<KeyData>>,
}

impl Connection {
    /// A connection that nobody has logged in to, and what tells by which key somebody has.
    pub fn new(access: Access) -> (Self, watch::Receiver<Option<KeyData>>) {
        let (logged_in, by) = watch::channel(None);
        let (channels, budget) = (BTreeMap::new(), Budget::default());
        (Self { access, user: None, channels, budget, proven: None, logged_in }, by)
    }

    /// Takes a channel in, if there is room.
    fn register(&mut self, channel: Channel<Msg>) -> Option<ChannelId> {
        // What has ended without having been opened has no close.
        self.channels.retain(|_, open| !open.input.is_closed());
        if self.channels.len() >= CHANNELS {
            return None;
        }
        let id = channel.id();
        // Input comes by `data`, where it is bounded; the reading half would hold up the whole connection.
        let (_, write) = channel.split();
        let (input, waiting_input) = mpsc::unbounded_channel();
        let (controls, waiting_controls) = mpsc::channel(CONTROLS);
        let cancelled = CancellationToken::new();
        let open = Open {
            write: Arc::new(write),
            terminal: None,
            env: Vec::new(),
            waiting: Some((waiting_input, waiting_controls)),
            input,
            ended: false,
            controls,
            cancelled: cancelled.clone(),
            _ends: cancelled.drop_guard(),
        };
        self.channels.insert(id, open);
        Some(id)
    }

    fn ends(&mut self, id: ChannelId, session: &Session) -> Option<Ends> {
        let open = self.channels.get_mut(&id)?;
        let (input, controls) = open.waiting.take()?;
        let (write, cancelled) = (Arc::clone(&open.write), open.cancelled.clone());
        Some(Ends { channel: id, write, handle: session.handle(), input, controls, cancelled })
    }

    /// Becomes a shell inside, with a command or interactive.
    fn shell(&mut self, id: ChannelId, command: Option<&str>, session: &mut Session) -> Result<(), ConnectionError> {
        let terminal = self.channels.get(&id).and_then(|open| open.terminal.as_ref());
        let size = terminal.map_or_else(|| "-".to_owned(), |(_, columns, rows)| format!("{rows}x{columns}"));
        let arguments = ["shell".to_owned(), size].into_iter().chain(command.map(str::to_owned)).collect();
        self.start(id, arguments, session)
    }

    /// Starts the helper inside, which becomes a shell or serves files.
    fn start(&mut self, id: ChannelId, arguments: Vec<String>, session: &mut Session) -> Result<(), ConnectionError> {
        let Some(ends) = self.ends(id, session) else { return Ok(session.channel_failure(id)?) };
        let (terminal, mut env) = match self.channels.get_mut(&id) {
            Some(open) => (open.terminal.clone(), std::mem::take(&mut open.env)),
            None => (None, Vec::new()),
        };
        // What programs look at to know that they are reached from afar; the addresses are of no use to them.
        env.push(("SSH_CONNECTION".to_owned(), "127.0.0.1 0 127.0.0.1 22".to_owned()));
        if let Some((term, ..)) = &terminal {
            env.push(("TERM".to_owned(), term.clone()));
        }
        let spec = ExecSpec {
            command: std::iter::once(HELPER_IN_INSTANCE.to_owned()).chain(arguments).collect(),
            terminal: terminal.is_some(),
            size: terminal.map(|(_, columns, rows)| (rows, columns)),
            env,
            user: self.user.clone(),
            workdir: None,
            stdin: true,
        };
        session.channel_success(id)?;
        let Access { runtime, lease, .. } = self.access.clone();
        tokio::spawn(command::run(runtime, lease, spec, ends));
        Ok(())
    }

    fn tell(&self, id: ChannelId, control: Control) {
        if let Some(open) = self.channels.get(&id) {
            // A flood of them helps nobody.
            let _ = open.controls.try_send(control);
        }
    }
}

fn size(columns: u32, rows: u32) -> (u16, u16) {
    let within = |n: u32| u16::try_from(n).unwrap_or(u16::MAX).max(1);
    (within(columns), within(rows))
}

fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Handler for Connection {
    type Error = ConnectionError;

    async fn auth_publickey_offered(&mut self, _user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        let admits = self.access.allowed.borrow().admits(offer.public_key, offer.algorithm);
        Ok(if admits { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let named = user.len() <= TERM_BYTES && !user.chars().any(|c| c.is_control() || c == ':');
        if !self.access.allowed.borrow().admits(key.public_key, key.algorithm) || !named {
            return Ok(Auth::reject());
        }
        self.user = Some(user.to_owned()).filter(|user| user != IMAGE_USER);
        self.proven = Some(key.public_key.key_data().clone());
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        self.logged_in.send_replace(self.proven.clone());
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.register(channel) {
            Some(_) => reply.accept().await,
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let ends = self.register(channel).and_then(|id| self.ends(id, session));
        match ends {
            Some(ends) => {
                let Access { runtime, lease, .. } = self.access.clone();
                tokio::spawn(forward::run(runtime, lease, host.to_owned(), port, reply, ends));
            }
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(open) = self.channels.get_mut(&channel)
            && !std::mem::replace(&mut open.ended, true)
        {
            // What serves the channel may have ended: then it needn't know.
            let _ = open.input.send(Input::End);
        }
        Ok(())
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        let Some(open) = self.channels.get(&channel) else { return Ok(()) };
        let charge = self.budget.charge(data.len()).map_err(|_| ConnectionError::Unread)?;
        // Nobody reads any more: then it needn't be kept.
        let _ = open.input.send(Input::Bytes(Bytes::copy_from_slice(data), charge));
        self.budget.wait().await;
        Ok(())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let fits = term.len() <= TERM_BYTES && term.chars().all(|c| c.is_ascii_graphic() && c != '/');
        match self.channels.get_mut(&channel).filter(|open| fits && open.waiting.is_some()) {
            Some(open) => {
                let (columns, rows) = size(columns, rows);
                open.terminal = Some((term.to_owned(), columns, rows));
                Ok(session.channel_success(channel)?)
            }
            None => Ok(session.channel_failure(channel)?),
        }
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(open) = self.channels.get_mut(&channel) else { return Ok(session.channel_failure(channel)?) };
        let bytes: usize = open.env.iter().map(|(n, v)| n.len() + v.len()).sum();
        let fits = open.env.len() < ENVIRONMENT.0 && bytes + name.len() + value.len() <= ENVIRONMENT.1;
        if !fits || !is_variable(name) || value.contains('\0') {
            return Ok(session.channel_failure(channel)?);
        }
        open.env.push((name.to_owned(), value.to_owned()));
        Ok(session.channel_success(channel)?)
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.shell(channel, None, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // The engine takes text only.
        match std::str::from_utf8(data) {
            Ok(command) if data.len() <= COMMAND_BYTES && !data.contains(&0) => {
                self.shell(channel, Some(command), session)
            }
            Ok(_) | Err(_) => Ok(session.channel_failure(channel)?),
        }
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "sftp" {
            return self.start(channel, vec!["sftp".to_owned()], session);
        }
        Ok(session.channel_failure(channel)?)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (columns, rows) = size(columns, rows);
        self.tell(channel, Control::Resize(columns, rows));
        Ok(())
    }

    async fn signal(&mut self, channel: ChannelId, signal: Sig, _session: &mut Session) -> Result<(), Self::Error> {
        if let Some(number) = signal::number(&signal) {
            self.tell(channel, Control::Signal(number));
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(channel)?)
    }
}
