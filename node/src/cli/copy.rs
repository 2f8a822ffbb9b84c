//! `souk copy`: files between here and instances or volumes, or between those.
//!
//! The helper inside the instance is the other side. It runs there as a further command, so that neither the host's node nor this program
//! ever opens a path that a guest can shape; what is said is checked here as if it came from a stranger, which it does.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixStream as Blocking},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use souk_protocol::{limits, message::Frame};
use souk_transfer::{
    Error, Limits, Progress, Summary, Target,
    relay::{self, Tap},
    shown, sink, source,
    wire::{Message, Open},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use super::{Context, args::CopyArgs, copy_display::Display, error::Failure, output};
use crate::{
    api::{
        client::{Client, escape},
        frames,
        types::{FilesRequest, LeaseView},
    },
    market::{ErrorCode, command::ByteStream},
};

/// Bytes of the helper's own words that are kept.
const WORDS: usize = 2048;
/// The exit code of what was killed.
const KILLED: i32 = 137;
/// How often a copy is looked at to tell how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A path here.
    Here(Vec<u8>),
    /// A path in an instance.
    There {
        /// The lease.
        id: String,
        /// The path.
        path: Vec<u8>,
    },
}

impl Place {
    /// `ID:PATH`, or a local path. A path with a `/` before its first `:` is local.
    fn parse(text: &OsStr) -> Result<Self, Failure> {
        let bytes = text.as_bytes();
        let split = bytes.iter().position(|b| *b == b':').filter(|at| !bytes[..*at].contains(&b'/'));
        let Some(at) = split else {
            if bytes.is_empty() {
                return Err(Failure::usage("a path is empty"));
            }
            return Ok(Self::Here(bytes.to_vec()));
        };
        let id = std::str::from_utf8(&bytes[..at]).ok().filter(|id| !id.is_empty());
        let id =
            id.ok_or_else(|| Failure::usage("there is no lease before the `:`").hint("souk copy FILE ID:/PATH"))?;
        // As with scp: without a path it is where the instance's commands run.
        let path = if at + 1 == bytes.len() { b".".to_vec() } else { bytes[at + 1..].to_vec() };
        Ok(Self::There { id: id.to_owned(), path })
    }

    /// The same place as its host knows it: what is in a volume is below the folder where its helper has it.
    async fn located(self, client: &Client) -> Result<Self, Failure> {
        let Self::There { id, path } = self else { return Ok(self) };
        let lease: LeaseView = client.get(&format!("leases/{}", escape(&id))).await?;
        let path = if lease.is_volume() { in_volume(&path) } else { path };
        Ok(Self::There { id, path })
    }

    fn path(&self) -> &[u8] {
        match self {
            Self::Here(path) | Self::There { path, .. } => path,
        }
    }
}

/// Where the helper beside a volume finds a path of it.
fn in_volume(path: &[u8]) -> Vec<u8> {
    let below = path.strip_prefix(b"/").unwrap_or(path);
    [souk_runtime::VOLUME_IN_COPY.as_bytes(), b"/", below].concat()
}

/// What is to be copied.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) from: Place,
    pub(super) to: Place,
    /// The name below the target; empty where the target itself is meant.
    pub(super) name: Vec<u8>,
    pub(super) excludes: Vec<Vec<u8>>,
    pub(super) user: Option<String>,
    /// What is taken from an instance at most.
    pub(super) limits: Limits,
}

/// What a copy to this machine takes unless told otherwise.
pub(super) const LIMITS: Limits = Limits { entries: 10_000_000, bytes: u64::MAX, reserve: true };

/// The name that a source has below a target; none where its content is meant: after `/`, for `.` and for `/`.
pub(super) fn name_of(from: &Place) -> Result<Vec<u8>, Failure> {
    let path = from.path();
    if path.ends_with(b"/") || path == b"." || path.ends_with(b"/.") {
        return Ok(Vec::new());
    }
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    if souk_transfer::is_name(&name) {
        return Ok(name);
    }
    Err(Failure::usage(format!("{}: it has no name of its own", shown(path)))
        .hint("write / after it to copy its content"))
}

pub(super) async fn copy(context: &Context, args: CopyArgs) -> Result<u8, Failure> {
    let (from, to) = (Place::parse(&args.source)?, Place::parse(&args.target)?);
    if let (Place::Here(_), Place::Here(_)) = (&from, &to) {
        return Err(Failure::usage("both paths are local").hint("souk copy ./data ID:/data"));
    }
    let job = Job {
        name: name_of(&from)?,
        from,
        to,
        excludes: args.exclude.into_iter().map(OsString::into_encoded_bytes).collect(),
        user: args.user,
        limits: Limits { entries: args.max_files, bytes: args.max_size.unwrap_or(u64::MAX), ..LIMITS },
    };
    let client = context.client()?;
    let display = Display::new(args.quiet || context.json);
    let copied = tokio::select! {
        copied = run(&client, job, display) => copied,
        _ = tokio::signal::ctrl_c() => {
            output::note("interrupted; the same command goes on where this one stopped");
            return Ok(130);
        }
    };
    let summary = copied?;
    if context.json {
        output::json_line(&json!({
            "entries": summary.entries,
            "unchanged": summary.unchanged,
            "bytes": summary.bytes,
            "moved_bytes": summary.moved,
            "problems": summary.problems,
        }))?;
    }
    Ok(u8::from(summary.problems > 0))
}

/// Does a job, telling how far it is.
///
/// # Errors
/// What ended it early; a second run goes on from there.
pub(super) async fn run(client: &Client, job: Job, mut display: Display) -> Result<Summary, Failure> {
    raise_open_files();
    let progress = Arc::new(Progress::default());
    let work = {
        let progress = Arc::clone(&progress);
        async move {
            match (job.from.clone().located(client).await?, job.to.clone().located(client).await?) {
                (Place::Here(path), Place::There { id, path: target }) => {
                    let open = open_sink(&job, target);
                    let there = There::open(client, &id, job.user.clone(), &open).await?;
                    there.with(move |stream| up(stream, &path, &job.excludes, &progress)).await
                }
                (Place::There { id, path }, Place::Here(target)) => {
                    let open = open_source(&job, path);
                    let there = There::open(client, &id, job.user.clone(), &open).await?;
                    let target = Target::from(&open_sink(&job, target)).limited(job.limits);
                    there.with(move |stream| down(stream, target, &progress)).await
                }
                (Place::There { id: one, path }, Place::There { id: two, path: target }) => {
                    let (send, take) = (open_source(&job, path), open_sink(&job, target));
                    if on_one_host(client, &one, &two).await? {
                        let there = There::on_one_host(client, &one, two, job.user.clone(), [&send, &take]).await?;
                        return there.with(move |stream| relay::follow(stream, &progress)).await;
                    }
                    let one = There::open(client, &one, job.user.clone(), &send).await?;
                    let two = There::open(client, &two, job.user.clone(), &take).await?;
                    between(one, two, progress).await
                }
                (Place::Here(_), Place::Here(_)) => Err(Failure::usage("both paths are local")),
            }
        }
    };
    let mut work = Box::pin(work);
    let mut tick = tokio::time::interval(LOOK_EVERY);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = tick.tick() => display.look(&progress),
        }
    };
    display.end(&progress, done.as_ref().ok());
    done
}

fn open_sink(job: &Job, path: Vec<u8>) -> Open {
    Open { send: false, path, name: job.name.clone(), rename: true, excludes: Vec::new() }
}

fn open_source(job: &Job, path: Vec<u8>) -> Open {
    Open { send: true, path, excludes: job.excludes.clone(), ..Open::default() }
}

fn up(stream: Blocking, path: &[u8], excludes: &[Vec<u8>], progress: &Arc<Progress>) -> Result<Summary, Error> {
    let from = stream.try_clone().map_err(Error::Cut)?;
    let summary = source::run(from, stream, path, excludes, progress)?;
    Ok(Summary { problems: summary.problems.max(progress.summary().problems), ..summary })
}

fn down(stream: Blocking, target: Target, progress: &Progress) -> Result<Summary, Error> {
    let from = stream.try_clone().map_err(Error::Cut)?;
    sink::run(from, stream, target, progress)?;
    Ok(progress.summary())
}

/// Whether one host has both, so that the bytes need not leave it.
async fn on_one_host(client: &Client, one: &str, two: &str) -> Result<bool, Failure> {
    let one: LeaseView = client.get(&format!("leases/{}", escape(one))).await?;
    let two: LeaseView = client.get(&format!("leases/{}", escape(two))).await?;
    Ok(one.peer == two.peer)
}

async fn between(one: There, two: There, progress: Arc<Progress>) -> Result<Summary, Failure> {
    let (source, sink) = (one.stream.try_clone()?, two.stream.try_clone()?);
    let (back, onward) = (two.stream.try_clone()?, one.stream.try_clone()?);
    let counted = Arc::clone(&progress);
    let forward = one.with(move |_| relay::pass(source, sink, Tap::default(), &counted).map(|_| Summary::default()));
    let answers = two.with(move |_| {
        let summary = relay::pass(back, onward, Tap::of_sink(), &progress)?;
        summary.ok_or(Error::Violation("the sink ended like a source"))
    });
    // Whatever ends one ends the other.
    let (_, summary) = tokio::try_join!(forward, answers)?;
    Ok(summary)
}

/// A limit of open files that deep trees can need.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = match limit.maximum {
        Some(most) => Some(most.min(65_536)),
        None => Some(65_536),
    };
    // Without it copies of very deep trees fail, which is told then.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The helper in an instance, as a blocking stream.
struct There {
    stream: Blocking,
    pump: tokio::task::JoinHandle<()>,
    /// Why the stream ended, if it was not the copy's end.
    why: Arc<Mutex<Option<String>>>,
}

impl There {
    async fn open(client: &Client, id: &str, user: Option<String>, open: &Open) -> Result<Self, Failure> {
        Self::begin(client, id, FilesRequest { user, onward: None }, &[open]).await
    }

    /// Both sides of a copy within a host, which says how it goes.
    async fn on_one_host(
        client: &Client,
        from: &str,
        to: String,
        user: Option<String>,
        sides: [&Open; 2],
    ) -> Result<Self, Failure> {
        Self::begin(client, from, FilesRequest { user, onward: Some(to) }, &sides).await
    }

    async fn begin(client: &Client, id: &str, request: FilesRequest, first: &[&Open]) -> Result<Self, Failure> {
        let mut host = client.upgrade(&format!("leases/{}/files", escape(id)), &request).await?;
        for open in first {
            let words = Frame::Stdin(Message::Open((*open).clone()).to_bytes());
            frames::write(&mut host, &words).await?;
        }
        let (near, far) = Blocking::pair()?;
        far.set_nonblocking(true)?;
        let far = UnixStream::from_std(far)?;
        let why = Arc::default();
        let pump = tokio::spawn(pump(host, far, Arc::clone(&why)));
        Ok(Self { stream: near, pump, why })
    }

    /// Does blocking work with the stream.
    async fn with<T: Send + 'static>(
        self,
        work: impl FnOnce(Blocking) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let Self { stream, pump, why } = self;
        // Held until the work has ended: dropped in the middle, the pump goes, and the work fails at its next read.
        let pump = AbortOnDrop(pump);
        let done = tokio::task::spawn_blocking(move || work(stream)).await;
        let done = done.map_err(|e| Failure::new(format!("the copy ended by itself: {e}")))?;
        if matches!(done, Err(Error::Cut(_))) {
            // What the host says of it comes with the stream's end.
            let mut pump = pump;
            let _ = tokio::time::timeout(Duration::from_secs(2), &mut pump.0).await;
        }
        let told = why.lock().unwrap_or_else(PoisonError::into_inner).take();
        done.map_err(|error| failure(error, told))
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn failure(error: Error, told: Option<String>) -> Failure {
    match (error, told) {
        (Error::Cut(error), told) => {
            let words = told.unwrap_or_else(|| error.to_string());
            Failure::new(format!("the copy was cut off: {}", words.trim()))
                .code(ErrorCode::Unreachable)
                .hint("run the same command again: it goes on where this one stopped")
        }
        (error @ Error::Full(_), _) => Failure::new(error.to_string()).hint(
            "in an instance or a volume the lease's disk is the limit (souk show ID): remove files there, or rent more",
        ),
        (error, _) => Failure::new(error.to_string()),
    }
}

/// Frames on one side, bytes on the other, until either ends.
async fn pump(host: ByteStream, near: UnixStream, why: Arc<Mutex<Option<String>>>) {
    let (mut from_host, mut to_host) = tokio::io::split(host);
    let (mut from_near, mut to_near) = near.into_split();
    let up = async {
        let mut piece = vec![0; limits::FRAME_BYTES];
        while let Ok(n @ 1..) = from_near.read(&mut piece).await {
            if frames::write(&mut to_host, &Frame::Stdin(piece[..n].to_vec())).await.is_err() {
                break;
            }
        }
        // The host's last word decides.
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut words = Vec::new();
        let told = loop {
            match frames::read(&mut from_host).await {
                Ok(Some(Frame::Stdout(bytes))) => {
                    if to_near.write_all(&bytes).await.is_err() {
                        break None;
                    }
                }
                Ok(Some(Frame::Stderr(bytes))) => {
                    words.extend(bytes.iter().take(WORDS.saturating_sub(words.len())));
                }
                Ok(Some(Frame::Exit(KILLED))) if words.is_empty() => {
                    break Some(
                        "the instance was stopped or started meanwhile, or its disk is over its limit".to_owned(),
                    );
                }
                Ok(Some(Frame::Exit(code))) if words.is_empty() => {
                    break Some(format!("the helper in the instance ended with {code}"));
                }
                Ok(Some(Frame::Exit(_))) => break Some(shown(words.trim_ascii())),
                Ok(Some(Frame::Error(sentence))) => break Some(sentence),
                Ok(Some(
                    Frame::Open(_)
                    | Frame::Stdin(_)
                    | Frame::StdinEnd
                    | Frame::Resize(..)
                    | Frame::Ready
                    | Frame::Log(_)
                    | Frame::Note(_)
                    | Frame::Place(_),
                )) => {}
                Ok(None) => break Some("the connection to the host ended".to_owned()),
                Err(error) => break Some(error.to_string()),
            }
        };
        *why.lock().unwrap_or_else(PoisonError::into_inner) = told;
        let _: io::Result<()> = to_near.shutdown().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn there(id: &str, path: &str) -> Place {
        Place::There { id: id.to_owned(), path: path.as_bytes().to_vec() }
    }

    #[test]
    fn places_are_read_as_scp_reads_them() {
        assert_eq!(Place::parse(OsStr::new("1:/data")).unwrap(), there("1", "/data"));
        assert_eq!(Place::parse(OsStr::new("train:")).unwrap(), there("train", "."));
        assert_eq!(Place::parse(OsStr::new("./a:b")).unwrap(), Place::Here(b"./a:b".to_vec()));
        assert!(Place::parse(OsStr::new(":/x")).is_err());
        assert!(Place::parse(OsStr::new("")).is_err());
    }

    #[test]
    fn what_is_in_a_volume_is_below_its_folder() {
        assert_eq!(in_volume(b"/"), b"/volume/");
        assert_eq!(in_volume(b"/a/b"), b"/volume/a/b");
        assert_eq!(in_volume(b"."), b"/volume/.");
    }

    #[test]
    fn a_target_is_below_the_name_that_was_asked_for() {
        assert_eq!(name_of(&there("1", "/a/b")).unwrap(), b"b");
        assert_eq!(name_of(&there("1", "/a/b/")).unwrap(), b"");
        assert_eq!(name_of(&there("1", "/")).unwrap(), b"");
        assert!(name_of(&there("1", "/a/..")).is_err());
    }
}
