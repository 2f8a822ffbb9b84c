//! One more command in a running instance: a shell, a copy, a health check.
//!
//! The engine leaves such a command running when its client goes away; here the command's processes end with the session.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bollard::query_parameters::InspectContainerOptions;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{broadcast, watch};
use tokio_util::codec::FramedRead;

use crate::error::{RuntimeError, classify};
use crate::files_only::FilesOnly;
use crate::hijack::{Connection, Demultiplexer, start_exec};
use crate::instance::{Instance, ObservedState};
use crate::logs::OutputStream;
use crate::process;
use crate::report::FailureCode;
use crate::shared::{ExecEnd, Shared};
use crate::spec::{check_env, check_text, check_words};
use crate::volume_files;

/// Bytes read at once; what isn't read stays in the engine and holds the command up.
const READ_BUFFER: usize = 64 * 1024;
/// How long the engine may take to tell the process of a command it has started, and the time between two looks.
const PID_WITHIN: Duration = Duration::from_secs(20);
/// See [`PID_WITHIN`].
const PID_LOOK: Duration = Duration::from_millis(10);
/// Times that a terminal's first size is told the engine, with [`PID_LOOK`] between them.
const SIZE_TRIES: usize = 50;
/// Between questions for an exit code, when no event told it.
const POLL: Duration = Duration::from_millis(500);
/// Right after the output ended the code is due at once.
const POLL_AT_END: Duration = Duration::from_millis(5);

/// The command of an exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments; not empty.
    pub command: Vec<String>,
    /// Give it a terminal; its output is then one stream.
    pub terminal: bool,
    /// The terminal's rows and columns at first.
    pub size: Option<(u16, u16)>,
    /// Environment, over the instance's.
    pub env: Vec<(String, String)>,
    /// `user`, `uid` or `uid:gid` in place of the instance's.
    pub user: Option<String>,
    /// Working directory in place of the instance's.
    pub workdir: Option<String>,
    /// Whether it reads input.
    pub stdin: bool,
}

/// The output of an exec, as it comes. An item may be an error once, then the stream ends.
pub type ExecOutput = Pin<Box<dyn Stream<Item = std::io::Result<(OutputStream, Bytes)>> + Send>>;

/// A running exec, in parts that may be used at once. Dropping `control` ends the command's processes.
pub struct ExecSession {
    /// What it prints, until it (and whatever it left with its output) has closed.
    pub output: ExecOutput,
    /// What it reads.
    pub input: ExecInput,
    /// Terminal size, exit code, and its life.
    pub control: ExecControl,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").field("control", &self.control).finish_non_exhaustive()
    }
}

/// The input of an exec.
#[derive(Debug)]
pub struct ExecInput(Way);

#[derive(Debug)]
enum Way {
    Engine(WriteHalf<Connection>),
    /// Past the engine, whose own way stays open beside it.
    Direct {
        connection: OwnedWriteHalf,
        _engine: Box<ExecInput>,
    },
}

impl ExecInput {
    pub(crate) fn direct(connection: OwnedWriteHalf, engine: Self) -> Self {
        Self(Way::Direct { connection, _engine: Box::new(engine) })
    }

    /// Writes all of it; waits while the command doesn't read.
    ///
    /// # Errors
    /// When the command or the engine is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.0 {
            Way::Engine(connection) => {
                connection.write_all(bytes).await?;
                connection.flush().await
            }
            Way::Direct { connection, .. } => connection.write_all(bytes).await,
        }
    }

    /// Ends the input; the output goes on.
    ///
    /// # Errors
    /// When the command or the engine is gone.
    pub async fn close(&mut self) -> std::io::Result<()> {
        match &mut self.0 {
            Way::Engine(connection) => connection.shutdown().await,
            Way::Direct { connection, .. } => connection.shutdown().await,
        }
    }
}

/// Rules over a running exec. Dropping it sends SIGHUP to the command's processes, and a second later SIGKILL to those that neither
/// ended nor chose to ignore hangups (`nohup`).
#[derive(Debug)]
pub struct ExecControl {
    shared: Arc<Shared>,
    exec: String,
    container: String,
    exit: watch::Receiver<Option<i64>>,
    /// Closing it tells the watcher that nobody waits any more.
    _alive: watch::Sender<()>,
    /// Of what runs for its files alone: what keeps it so.
    _needed: Option<Needed>,
}

/// A session's need of a run for files alone: dropping it lets the run end.
#[derive(Debug)]
enum Needed {
    Instance { _run: FilesOnly },
    Volume { _run: volume_files::Needed },
}

impl ExecControl {
    /// The command's exit code: exact, 128 + n for a signal n, 126 and 127 as a shell gives them.
    ///
    /// # Errors
    /// When the engine went away and can't tell.
    pub async fn exit_code(&mut self) -> Result<i64, RuntimeError> {
        let code = self.exit.wait_for(Option::is_some).await;
        match code.map(|code| *code) {
            Ok(Some(code)) => Ok(code),
            Ok(None) | Err(_) => Err(RuntimeError::Engine(FailureCode::EngineDown)),
        }
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// When the engine refuses, as it does once the command has ended.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), RuntimeError> {
        let size = ResizeExecOptions { height: rows, width: columns };
        let answer = self.shared.engine.docker.resize_exec(&self.exec, size).await;
        answer.map_err(|error| RuntimeError::Engine(classify(&error)))
    }

    /// Sends a signal to the command's first process.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal(&self, signal: i32) -> Result<(), RuntimeError> {
        let gone = RuntimeError::Engine(FailureCode::InstanceGone);
        let Some(pid) = running_pid(&self.shared, &self.exec).await else {
            return Err(gone);
        };
        if process::signal(pid, &self.container, signal) { Ok(()) } else { Err(gone) }
    }

    /// Sends a signal to the command's first process and all that it has started.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn signal_all(&self, signal: i32) -> Result<(), RuntimeError> {
        let gone = RuntimeError::Engine(FailureCode::InstanceGone);
        let Some(pid) = running_pid(&self.shared, &self.exec).await else {
            return Err(gone);
        };
        if process::signal_tree(pid, &self.container, signal) { Ok(()) } else { Err(gone) }
    }
}

impl ExecSpec {
    fn check(&self) -> Result<(), RuntimeError> {
        check_words("the command", Some(&self.command))?;
        check_text("the user", self.user.as_deref(), 256)?;
        check_text("the working directory", self.workdir.as_deref(), 4096)?;
        check_env(&self.env)?;
        if self.command.first().is_none_or(String::is_empty) {
            return Err(crate::spec::SpecError::Text { field: "the command" }.into());
        }
        Ok(())
    }
}

/// Runs a command in an instance that runs as its renter wants.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    instance: &Instance,
    spec: ExecSpec,
) -> Result<ExecSession, RuntimeError> {
    refuse_files_only(shared, instance)?;
    let session = open_any(shared, instance, spec, None).await;
    // Looked at again: a run for files alone is known as such before it begins.
    refuse_files_only(shared, instance)?;
    session
}

/// An instance that runs for its files alone does nothing else, nor does what runs for a volume.
pub(crate) fn refuse_files_only(shared: &Shared, instance: &Instance) -> Result<(), RuntimeError> {
    let stands = shared.worker(&instance.lease).is_some_and(|worker| worker.wake.files_only.stands());
    let volume = shared.engine.volumes.exists(&instance.lease);
    if stands || volume { Err(RuntimeError::Engine(FailureCode::InstanceGone)) } else { Ok(()) }
}

/// Runs the helper in an instance that runs for its files alone, which ends with the last session.
pub(crate) async fn open_files_only(
    shared: &Arc<Shared>,
    instance: &Instance,
    spec: ExecSpec,
    needed: FilesOnly,
) -> Result<ExecSession, RuntimeError> {
    open_any(shared, instance, spec, Some(Needed::Instance { _run: needed })).await
}

/// Runs the helper beside a volume, in a container that ends with the last session.
pub(crate) async fn open_volume(
    shared: &Arc<Shared>,
    instance: &Instance,
    spec: ExecSpec,
    needed: volume_files::Needed,
) -> Result<ExecSession, RuntimeError> {
    open_any(shared, instance, spec, Some(Needed::Volume { _run: needed })).await
}

async fn open_any(
    shared: &Arc<Shared>,
    instance: &Instance,
    spec: ExecSpec,
    needed: Option<Needed>,
) -> Result<ExecSession, RuntimeError> {
    spec.check()?;
    let engine_error = |error: bollard::errors::Error| RuntimeError::Engine(classify(&error));
    let found = instance.observe(false).await.map_err(RuntimeError::Engine)?;
    let container = match found {
        Some(found) if matches!(found.state, ObservedState::Running { .. }) => found.id,
        Some(_) | None => return Err(RuntimeError::Engine(FailureCode::InstanceGone)),
    };
    let ends = shared.exec_ends.subscribe();
    let docker = &shared.engine.docker;
    let options = CreateExecOptions {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.terminal),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        cmd: Some(spec.command),
        privileged: Some(false),
        user: spec.user,
        working_dir: spec.workdir,
        detach_keys: None,
    };
    let exec = docker.create_exec(&container, options).await.map_err(engine_error)?.id;
    let version = docker.client_version().to_string();
    shared.has_session(&exec, true);
    let started = start_exec(&shared.engine.config.socket, &version, &exec, spec.terminal).await;
    let connection = started.map_err(|code| {
        shared.has_session(&exec, false);
        RuntimeError::Engine(code)
    })?;
    let (read, write) = tokio::io::split(connection);
    let (exit_sender, exit) = watch::channel(None);
    let (alive, gone) = watch::channel(());
    let (output_ended, ended) = watch::channel(false);
    shared.tasks.spawn(watch_over(Arc::clone(shared), exec.clone(), container.clone(), ends, ended, gone, exit_sender));
    let mut pieces = FramedRead::with_capacity(read, Demultiplexer::new(spec.terminal), READ_BUFFER);
    let output = futures::stream::poll_fn(move |context| {
        let item = pieces.poll_next_unpin(context);
        if matches!(item, std::task::Poll::Ready(None | Some(Err(_)))) {
            output_ended.send_replace(true);
        }
        item
    });
    let control = ExecControl { shared: Arc::clone(shared), exec, container, exit, _alive: alive, _needed: needed };
    if let (true, Some((rows, columns))) = (spec.terminal, spec.size) {
        first_size(&control, rows, columns).await;
    }
    Ok(ExecSession { output: Box::pin(output), input: ExecInput(Way::Engine(write)), control })
}

/// Gives the terminal its first size. The engine has answered before its command has begun, and until then refuses.
async fn first_size(control: &ExecControl, rows: u16, columns: u16) {
    for _ in 0..SIZE_TRIES {
        match control.resize(rows, columns).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "the terminal's first size was refused"),
        }
        if control.exit.borrow().is_some() {
            return;
        }
        tokio::time::sleep(PID_LOOK).await;
    }
}

/// Waits for the exit code, and ends the processes when the session is dropped before.
async fn watch_over(
    shared: Arc<Shared>,
    exec: String,
    container: String,
    mut ends: broadcast::Receiver<ExecEnd>,
    mut output_ended: watch::Receiver<bool>,
    mut gone: watch::Receiver<()>,
    exit: watch::Sender<Option<i64>>,
) {
    let code = tokio::select! {
        code = exit_code(&shared, &exec, &mut ends, &mut output_ended) => code,
        _ = gone.changed() => {
            if let Some(pid) = running_pid(&shared, &exec).await {
                process::end_tree(pid, &container).await;
            }
            None
        }
        () = shared.stop.cancelled() => None,
    };
    shared.has_session(&exec, false);
    if let Some(code) = code {
        exit.send_replace(Some(code));
    }
}

/// Hangs up what runs in a container for sessions of an earlier run of this node: nobody is there for it any more.
pub(crate) async fn hang_up_inherited(shared: Arc<Shared>, name: String) {
    let docker = &shared.engine.docker;
    let Ok(found) = docker.inspect_container(&name, None::<InspectContainerOptions>).await else { return };
    let container = found.id.unwrap_or_default();
    for exec in found.exec_ids.unwrap_or_default() {
        if !shared.is_session(&exec)
            && let Some(pid) = running_pid(&shared, &exec).await
        {
            tracing::info!(container, "hanging up a command whose session an earlier run of this node had");
            process::end_tree(pid, &container).await;
        }
    }
}

async fn exit_code(
    shared: &Shared,
    exec: &str,
    ends: &mut broadcast::Receiver<ExecEnd>,
    output_ended: &mut watch::Receiver<bool>,
) -> Option<i64> {
    let mut wait = POLL;
    loop {
        tokio::select! {
            end = ends.recv() => match end {
                Ok((id, code)) if id == exec => return Some(code),
                Ok(_) => continue,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            },
            // Ended, or nobody reads it any more.
            _ = output_ended.changed(), if wait == POLL => wait = POLL_AT_END,
            () = tokio::time::sleep(wait) => {
                if wait < POLL {
                    wait = (wait * 2).min(POLL / 2);
                }
            }
        }
        match shared.engine.docker.inspect_exec(exec).await {
            Ok(found) if found.running == Some(false) => {
                if let Some(code) = found.exit_code {
                    return Some(code);
                }
            }
            Ok(_) => {}
            Err(error) if crate::error::is_missing(&error) => return None,
            Err(error) => tracing::debug!(%error, "an exec's state is unknown"),
        }
    }
}

/// The first process of a command that was started; none once it has ended. The engine passes output on before it tells the
/// process's number, so one that has only just begun is asked for again.
async fn running_pid(shared: &Shared, exec: &str) -> Option<i32> {
    let until = tokio::time::Instant::now() + PID_WITHIN;
    loop {
        let found = shared.engine.docker.inspect_exec(exec).await.ok()?;
        if found.running != Some(true) && found.exit_code.is_some() {
            return None;
        }
        let pid = found.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        if found.running == Some(true) && pid.is_some() {
            return pid;
        }
        if shared.stop.is_cancelled() || tokio::time::Instant::now() >= until {
            return None;
        }
        tokio::time::sleep(PID_LOOK).await;
    }
}
