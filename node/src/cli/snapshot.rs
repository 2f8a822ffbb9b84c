//! `souk snapshot` and `souk clone`: an instance's disk as an image, kept, brought home, or handed on to another host.

use std::path::Path;

use futures::StreamExt as _;
use serde_json::json;
use souk_protocol::negotiation::SENT;
use souk_runtime::handover::{HandoverError, LocalEngine, Message, Receiving, archive, read, receive, write};
use tokio::io::AsyncWriteExt as _;

use super::{
    Context,
    args::{CloneArgs, SnapshotArgs},
    error::Failure,
    leases, output,
    progress::Display,
    push::{shown, spool},
    rent,
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Environment, LeaseView, QuoteView, RentRequest, RentStep, TunnelRequest},
    },
    market::{
        ErrorCode,
        command::{AskSelector, ByteStream},
    },
};

/// Most bytes of an image that is brought home: as many as a host may take.
const MOST: u64 = 1 << 40;
/// Bytes copied at once between two hosts.
const PIECE: usize = 256 * 1024;

fn failed(error: &HandoverError) -> Failure {
    Failure::new(format!("there is no snapshot: {error}")).code(ErrorCode::Rejected)
}

/// Asks for a snapshot: its name, and the stream on which it follows.
async fn begin(client: &Client, id: &str, keep: bool) -> Result<(String, ByteStream), Failure> {
    let path = format!("leases/{}/tunnel", escape(id));
    let mut stream = client.upgrade(&path, &TunnelRequest::Snapshot { keep }).await?;
    match read(&mut stream).await.map_err(|e| failed(&e))? {
        Message::Named(digest) => Ok((digest, stream)),
        Message::Refused(code, sentence) => Err(failed(&HandoverError::Refused { code, sentence })),
        Message::Offer(_)
        | Message::Want(_)
        | Message::Layer(_)
        | Message::Raw(_)
        | Message::Deflated(_)
        | Message::Config(_)
        | Message::Got(_)
        | Message::Loading
        | Message::Done => Err(failed(&HandoverError::Protocol("it has no name"))),
    }
}

pub(super) async fn snapshot(context: &Context, args: SnapshotArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let keep = args.out.is_none() && !args.load;
    let (digest, mut stream) = begin(&client, &args.id, keep).await?;
    let reference = format!("{SENT}snapshot@{digest}");
    if keep {
        if read(&mut stream).await.map_err(|e| failed(&e))? != Message::Done {
            return Err(failed(&HandoverError::Protocol("it was not kept")));
        }
        return told(context, &reference, &digest, None);
    }
    let folder = tempfile::Builder::new().prefix("souk-snapshot-").tempdir_in(spool())?;
    let what = Receiving {
        folder: folder.path().to_owned(),
        digest: digest.clone(),
        most: MOST,
        room: None,
        architecture: None,
    };
    let mut display = Display::new();
    let progress = |now| {
        if !context.json {
            display.preparing(Some(shown(now)));
        }
    };
    let image = receive(&mut stream, &what, async |_: &[String]| 0, progress).await.map_err(|e| failed(&e))?;
    display.end();
    let place = match &args.out {
        Some(file) => {
            save(file, archive(folder.path().to_owned(), &image, Some("souk-snapshot:latest"))).await?;
            file.display().to_string()
        }
        None => {
            let name = args.name.unwrap_or_else(|| "souk-snapshot".to_owned());
            let name = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
                name
            } else {
                format!("{name}:latest")
            };
            let engine = LocalEngine::connect().await.map_err(|why| Failure::new(why).code(ErrorCode::Unavailable))?;
            let loaded = engine.load(folder.path(), &image, &name).await;
            loaded.map_err(|code| Failure::new(format!("your Docker did not take it: {}", code.sentence())))?;
            name
        }
    };
    write(&mut stream, &Message::Done).await.ok();
    told(context, &reference, &digest, Some(&place))
}

fn told(context: &Context, reference: &str, digest: &str, place: Option<&str>) -> Result<u8, Failure> {
    if context.json {
        output::json_line(&json!({ "image": reference, "digest": digest, "place": place }))?;
    } else {
        output::line(place.unwrap_or(reference))?;
    }
    Ok(0)
}

/// Writes a file whole, or not at all.
async fn save(
    file: &Path,
    mut pieces: impl futures::Stream<Item = std::io::Result<bytes::Bytes>> + Unpin,
) -> Result<(), Failure> {
    let cant = |e: std::io::Error| Failure::new(format!("{} can't be written: {e}", file.display()));
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let made = tempfile::NamedTempFile::new_in(folder).map_err(cant)?;
    let mut to = tokio::fs::File::from_std(made.reopen().map_err(cant)?);
    while let Some(piece) = pieces.next().await {
        to.write_all(&piece.map_err(cant)?).await.map_err(cant)?;
    }
    to.sync_all().await.map_err(cant)?;
    made.persist(file).map_err(|e| cant(e.error))?;
    Ok(())
}

pub(super) async fn clone(context: &Context, args: CloneArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let (digest, from) = begin(&client, &args.id, false).await?;
    let request = RentRequest {
        ports: Vec::new(),
        volume: false,
        volumes: Vec::new(),
        ask: AskSelector(args.ask.clone()),
        image: format!("{SENT}snapshot@{digest}"),
        rental: None,
        extend_ms: None,
        price_hour: None,
        max_price_hour: None,
        disk_mb: None,
        env: Environment::default(),
        user: None,
        entrypoint: None,
        workdir: None,
        egress: None,
        term_ms: None,
        max_spend: None,
        prepay_ms: None,
        label: args.label.clone(),
        tick_ms: None,
        command: None,
        onstart: None,
        ssh_keys: Vec::new(),
        jupyter: false,
        like: Some(args.id.clone()),
        login: None,
        detach: false,
    };
    let quote: QuoteView = client.post("quote", &request).await?;
    if !context.json {
        output::note(rent::describe(&quote));
    }
    if !args.yes && !output::confirm("Rent it?", true, true)? {
        return Err(Failure::new("nothing was rented"));
    }
    let mut steps = client.lines("rent", &request).await?;
    let mut display = Display::new();
    let mut from = Some(from);
    let mut pair: Option<(ByteStream, ByteStream)> = None;
    let lease = loop {
        let step = match &mut pair {
            // What either side says goes to the other as it is; each checks it.
            Some((from, to)) => tokio::select! {
                step = steps.next::<RentStep>() => step?,
                ended = tokio::io::copy_bidirectional_with_sizes(from, to, PIECE, PIECE) => {
                    if let Err(error) = ended {
                        display.step(&format!("the way between the two hosts was cut: {error}"));
                    }
                    // The clone's state tells what came of it.
                    pair = None;
                    continue;
                }
            },
            None => steps.next::<RentStep>().await?,
        };
        match step {
            Some(RentStep::Accepted { lease, number }) => {
                if !context.json {
                    display.step(&format!("accepted: lease {number}"));
                }
                let path = format!("leases/{}/tunnel", escape(&lease.to_string()));
                let to = client.upgrade(&path, &TunnelRequest::Push).await?;
                pair = from.take().map(|from| (from, to));
            }
            Some(RentStep::Preparing { progress }) if !context.json => display.preparing(progress),
            Some(RentStep::Running { lease } | RentStep::Exited { lease }) => break lease,
            Some(RentStep::Ended { lease }) => {
                display.end();
                let why = format!("the clone's lease is over: {} {}", lease.state, lease.note);
                return Err(Failure::new(why.trim_end().to_owned()).code(ErrorCode::WrongState));
            }
            Some(RentStep::Failed { error }) => {
                display.end();
                return Err(error.into());
            }
            Some(_) => {}
            None => return Err(Failure::new("the node stopped telling how the rental goes").hint("souk ps")),
        }
    };
    display.end();
    if args.moves {
        let path = format!("leases/{}/destroy", escape(&args.id));
        let _: LeaseView = client.post(&path, &json!({})).await?;
    }
    if context.json {
        output::json_line(
            &json!({ "lease": lease.lease, "number": lease.number, "image": lease.image, "moved": args.moves }),
        )?;
    } else {
        output::line(format!("{}", lease.lease))?;
        output::note(leases::state(&lease));
    }
    Ok(0)
}
