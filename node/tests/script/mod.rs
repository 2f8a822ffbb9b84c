//! A served API whose market follows a script.

mod views;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use bytes::Bytes;
use souk::{
    api::{
        Server, frames,
        types::{ExecRequest, RentRequest, RentStep},
    },
    config::Api,
    market::{
        Command, CommandError, ErrorCode, MarketHandle,
        command::{ByteStream, ClusterCommand, EXPORT_PIECES, LeaseSelector, OwnerCommand, StepSender},
        select,
        terms::TermsCommand,
    },
};
use souk_protocol::{
    Currency, LeaseId,
    lease::*,
    logs::{LogPiece, LogPosition},
    message::Frame,
    message::Progress,
};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Seen {
    rent: Option<RentRequest>,
    exec: Option<ExecRequest>,
}

/// A running API in a directory of its own; stopped when dropped.
pub struct Scripted {
    dir: tempfile::TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    tcp: Option<SocketAddr>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Scripted {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn start_with_tcp() -> Self {
        Self::with(Some(([127, 0, 0, 1], 0).into()))
    }

    fn with(tcp: Option<SocketAddr>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (bound, is_bound) = std::sync::mpsc::channel();
        let path = dir.path().to_owned();
        let (token, shared) = (stop.clone(), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let config = Api { socket: None, tcp };
                let server = Server::bind(&config, &path).await.unwrap();
                let (market, commands) = MarketHandle::channel();
                let following = tokio::spawn(follow(commands, shared));
                bound.send(server.tcp()).unwrap();
                let seal = souk::seal::Seal::of(&souk_protocol::Keypair::from_seed(&[7; 32]));
                let orders = souk::orders::spawn(&path, seal, market.clone(), token.clone()).unwrap();
                server.serve(market, orders, token).await;
                following.abort();
            });
        });
        let tcp = is_bound.recv().unwrap();
        Self { dir, stop, thread: Some(thread), seen, tcp }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    pub fn last_rent(&self) -> Option<RentRequest> {
        self.seen.lock().unwrap().rent.clone()
    }

    pub fn last_exec(&self) -> Option<ExecRequest> {
        self.seen.lock().unwrap().exec.clone()
    }
}

async fn follow(mut commands: mpsc::Receiver<Command>, seen: Arc<Mutex<Seen>>) {
    while let Some(command) = commands.recv().await {
        // An asker that has gone is no concern of the market's.
        match command {
            Command::Status(reply) => answer(reply, Ok(views::status())),
            Command::Peers(reply) => answer(reply, Ok(vec![views::peer()])),
            Command::Metrics(reply) => answer(reply, Ok(vec![views::metric()])),
            Command::Search { request, reply } => answer(reply, views::search(&request)),
            Command::Quote { reply, .. } => answer(reply, Ok(views::quote())),
            Command::Rent { request, steps } => {
                let image = request.image.clone();
                seen.lock().unwrap().rent = Some(*request);
                rent(&image, &steps);
            }
            Command::RentAs { request, steps, .. } => rent(&request.image, &steps),
            Command::LeaseOf { reply, .. } => answer(reply, Ok(Some((views::lease(), true)))),
            Command::Leases { reply, .. } => answer(reply, Ok(vec![views::lease()])),
            Command::Lease { id, reply } => {
                answer(reply, find(&id).map(|()| views::detail()));
            }
            Command::Control { id, reply, .. } => {
                answer(reply, find(&id).map(|()| views::lease()));
            }
            Command::Terms(command) => terms(command),
            Command::HostSchedule { request, reply } => answer(reply, Ok(views::schedule(request))),
            Command::Label { text, reply, .. } => {
                let mut lease = views::lease();
                lease.label = Some(text);
                answer(reply, Ok(lease));
            }
            Command::Logs { reply, .. } => answer(reply, Ok(logs())),
            Command::Exec { request, reply, .. } => {
                let command = request.command.clone();
                seen.lock().unwrap().exec = Some(request);
                let (near, far) = tokio::io::duplex(16 * 1024);
                tokio::spawn(exec(far, command));
                answer(reply, Ok(Box::new(near) as ByteStream));
            }
            // Shown with real nodes and the machine's own OpenSSH.
            Command::SshAccess { .. }
            | Command::SshKeys { .. }
            | Command::LeaseTemplate { .. }
            | Command::JupyterAccess { .. }
            | Command::Files { .. }
            | Command::Trust(_)
            | Command::Money(_)
            | Command::Tunnel { .. } => {}
            Command::Receipts { reply, .. } => answer(reply, Ok(vec![views::receipt()])),
            Command::Events { request, reply } => answer(reply, Ok(views::happened(&request))),
            Command::HostEarnings { request, reply } => {
                answer(reply, request.span(views::at(0)).map(|_| views::earnings()));
            }
            Command::LedgerCheck(reply) => answer(reply, Ok(views::check())),
            Command::LedgerCompact(reply) => answer(reply, Ok(views::compacted())),
            Command::LedgerExport { id, reply } => answer(reply, Ok(export(id))),
            Command::HostShow(reply) => answer(reply, Ok(views::host(false, false))),
            Command::HostList { reply, .. } => answer(reply, Ok(views::host(true, false))),
            Command::HostUnlist(reply) => answer(reply, Ok(views::host(false, false))),
            Command::HostPrice { reply, .. } => answer(reply, Ok(views::host(true, false))),
            Command::Market { reply, .. } => answer(reply, Ok(views::market())),
            Command::HostAccept { reply, .. } => answer(reply, Ok(views::host(true, true))),
            Command::Owner(command) => owner(command),
            Command::Cluster(command) => cluster(command),
            Command::HostIdleJob { request, reply } => answer(reply, Ok(views::idle_job(request))),
        }
    }
}

fn terms(command: TermsCommand) {
    match command {
        TermsCommand::Slices { reply, .. } => answer(reply, Ok(views::slices())),
        TermsCommand::Extension { id, request, reply } => {
            answer(reply, find(&id).map(|()| views::extension(request.by_ms)));
        }
        TermsCommand::Change { id, change, reply } => answer(reply, find(&id).map(|()| views::changed(change))),
        TermsCommand::OfferExtension { id, reply, .. } => answer(reply, find(&id).map(|()| views::detail())),
    }
}

fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

fn find(id: &LeaseSelector) -> Result<(), CommandError> {
    let view = views::lease();
    let only = select::Candidate { lease: view.lease, number: view.number, label: view.label.as_deref(), ended: false };
    select::resolve(&id.0, [only]).map(|_| ())
}

fn rent(image: &str, steps: &StepSender) {
    let usd = Currency::usd;
    let lease = views::lease().lease;
    let say = |step| assert!(steps.send(step));
    say(RentStep::Resolving { ask: views::ask(), host: views::host_id(), image: image.to_owned() });
    say(RentStep::Proposed { round: 1, price_hour: "0.30".parse().unwrap(), currency: usd() });
    if image == "too-dear" {
        let error = CommandError::new(ErrorCode::Price, "the host takes no less than $9.00/h");
        say(RentStep::Failed { error: error.hint("--max-price 9") });
        return;
    }
    say(RentStep::Countered { round: 1, price_hour: "0.35".parse().unwrap(), currency: usd() });
    say(RentStep::Drafted {
        lease,
        price_hour: "0.35".parse().unwrap(),
        currency: usd(),
        ends_at_ms: views::at(3600),
        image_digest: views::detail().image_digest,
    });
    say(RentStep::Committed { lease });
    say(RentStep::Accepted { lease, number: 1 });
    // More than the queue holds: progress is skipped, nothing else is.
    for i in 0..1000 {
        steps.send(RentStep::Preparing {
            progress: Some(Progress { layers_done: 1, layers: 3, bytes_done: i, bytes: 1000 }),
        });
    }
    let mut view = views::lease();
    if image == "broken" {
        view.state = LeaseState::Ended(EndReason::ImageFailed);
        say(RentStep::Ended { lease: Box::new(view) });
        return;
    }
    if image == "outbid" {
        view.state = LeaseState::Paused(PauseReason::Outbid);
        view.place = Some(views::place());
        say(RentStep::Waiting { lease: Box::new(view.clone()) });
        view.place = None;
    }
    view.state = LeaseState::Running;
    say(RentStep::Running { lease: Box::new(view) });
}

fn logs() -> ByteStream {
    let (near, mut far) = tokio::io::duplex(1024);
    tokio::spawn(async move {
        frames::write(&mut far, &Frame::Place(LogPosition::default())).await.unwrap();
        for (stderr, at, text) in [(false, 1, "one\n"), (true, 2, "oops\n"), (false, 3, "two\n")] {
            let piece = LogPiece { stderr, at, nth: 0, bytes: text.as_bytes().to_vec() };
            frames::write(&mut far, &Frame::Log(piece)).await.unwrap();
        }
        frames::write(&mut far, &Frame::Note("all there is".to_owned())).await.unwrap();
        frames::write(&mut far, &Frame::Exit(0)).await.unwrap();
    });
    Box::new(near)
}

/// Echoes its input, or does what its name says.
async fn exec(mut stream: tokio::io::DuplexStream, command: Vec<String>) {
    let last = match command[0].as_str() {
        "exit" => {
            frames::write(&mut stream, &Frame::Stderr(b"leaving\n".to_vec())).await.unwrap();
            // `exec 1 exit -- 137` passes the dashes on, as a shell would.
            let code = command.last().unwrap().parse().unwrap();
            Frame::Exit(code)
        }
        "refuse" => Frame::Error("there is no such program".to_owned()),
        "vanish" => return,
        "cut" => {
            stream.write_all(&[3, 0, 0, 0, 9, b'x']).await.unwrap();
            return;
        }
        _ => {
            while let Some(Frame::Stdin(bytes)) = frames::read(&mut stream).await.unwrap() {
                frames::write(&mut stream, &Frame::Stdout(bytes)).await.unwrap();
            }
            Frame::Exit(0)
        }
    };
    frames::write(&mut stream, &last).await.unwrap();
}

fn export(id: Option<LeaseSelector>) -> mpsc::Receiver<Result<Bytes, CommandError>> {
    let (pieces, receiver) = mpsc::channel(EXPORT_PIECES);
    let last = match id {
        Some(_) => Err(CommandError::new(ErrorCode::Internal, "the disk failed")),
        None => Ok(Bytes::from_static(b"second")),
    };
    tokio::spawn(async move {
        let _ = pieces.send(Ok(Bytes::from_static(b"first "))).await;
        let _ = pieces.send(last).await;
    });
    receiver
}

/// The id that all views share.
pub fn lease_id() -> LeaseId {
    LeaseId([0xab; 32])
}

fn cluster(command: ClusterCommand) {
    let none = || CommandError::new(ErrorCode::WrongState, "this node is in no cluster");
    match command {
        ClusterCommand::Show(reply) | ClusterCommand::Member { reply, .. } | ClusterCommand::Rotate(reply) => {
            answer(reply, Err(none()));
        }
        ClusterCommand::Invite { reply, .. } => answer(reply, Err(none())),
    }
}

fn owner(command: OwnerCommand) {
    let nobody = || CommandError::new(ErrorCode::WrongState, "this node belongs to no owner");
    match command {
        OwnerCommand::Show(reply) | OwnerCommand::Leave(reply) => answer(reply, Err(nobody())),
        OwnerCommand::Join { reply, .. } | OwnerCommand::Refresh { reply, .. } => answer(reply, Err(nobody())),
        OwnerCommand::Machines(reply) => answer(reply, Err(nobody())),
        OwnerCommand::Order { reply, .. } => answer(reply, Err(nobody())),
    }
}
