//! `--push` and `souk push`: an image of the user's own Docker, sent to the host of a lease that waits for it.
//!
//! Goes on after a lost connection as long as the lease waits.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;
use souk_protocol::{
    lease::LeaseState,
    message::Progress,
    negotiation::{SENT, is_sent},
};
use souk_runtime::{
    FailureCode, PullProgress,
    handover::{HandoverError, LocalEngine, LocalImage, Sent},
};

use super::{Context, args::PushArgs, error::Failure, output, progress::Display};
use crate::{
    api::{
        client::{Client, ClientError, escape},
        types::{LeaseDetail, TunnelRequest},
    },
    market::ErrorCode,
};

/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);
/// How long nothing may work.
const GIVE_UP: Duration = Duration::from_secs(300);

/// An image to send.
#[derive(Debug, Clone)]
pub(super) struct Pushed {
    name: String,
    image: LocalImage,
}

impl Pushed {
    /// The image of this name in the user's own engine.
    ///
    /// # Errors
    /// Where there is no engine, or no such image.
    pub(super) async fn find(name: &str) -> Result<Self, Failure> {
        let engine = LocalEngine::connect().await.map_err(|why| {
            Failure::new(why).code(ErrorCode::Unavailable).hint("start Docker, or name its engine with DOCKER_HOST")
        })?;
        let image = engine.image(name).await.map_err(|error| {
            if error.code() == FailureCode::ImageNotFound {
                return Failure::new(format!("your Docker has no image {name}"))
                    .code(ErrorCode::NotFound)
                    .hint("docker image ls; without --push the host fetches it from a registry");
            }
            Failure::new(format!("the image can't be read from your Docker: {error}"))
        })?;
        Ok(Self { name: name.to_owned(), image })
    }

    /// What it is called in a lease.
    pub(super) fn reference(&self) -> String {
        let plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b));
        let name = if plain && self.name.len() <= 200 { self.name.as_str() } else { "image" };
        format!("{SENT}{name}@{}", self.image.digest)
    }

    /// Sends it for this lease, and comes back when the host has it.
    ///
    /// # Errors
    /// The host's refusal, or what fails here.
    pub(super) async fn to(
        &self,
        client: &Client,
        lease: &str,
        mut progress: impl FnMut(PullProgress),
    ) -> Result<Sent, Failure> {
        let spool = spool();
        let mut worked = Instant::now();
        loop {
            let path = format!("leases/{}/tunnel", escape(lease));
            let why = match client.upgrade(&path, &TunnelRequest::Push).await {
                Ok(mut stream) => {
                    let sent = self.image.send(&mut stream, &spool, |now| {
                        worked = Instant::now();
                        progress(now);
                    });
                    match sent.await {
                        Ok(sent) => return Ok(sent),
                        Err(error) if error.is_cut() => error.to_string(),
                        Err(HandoverError::Refused {
                            code: FailureCode::ImageNotWanted | FailureCode::ImageBusy,
                            sentence,
                        }) => sentence,
                        Err(error) => return Err(failed(&error, lease)),
                    }
                }
                Err(ClientError::Refused(error))
                    if matches!(error.code, ErrorCode::Rejected | ErrorCode::Unreachable | ErrorCode::Timeout) =>
                {
                    error.message
                }
                Err(error) => return Err(error.into()),
            };
            let detail: LeaseDetail = client.get(&format!("leases/{}", escape(lease))).await?;
            match detail.view.state {
                LeaseState::Preparing | LeaseState::Paused(_) if worked.elapsed() < GIVE_UP => {}
                LeaseState::Running | LeaseState::Kept => return Ok(Sent::default()),
                LeaseState::Preparing | LeaseState::Paused(_) => {
                    return Err(Failure::new(format!("the image could not be sent: {why}"))
                        .code(ErrorCode::Unreachable)
                        .hint(format!("souk push {lease}")));
                }
                LeaseState::Ended(_) => {
                    let why = if detail.view.note.is_empty() { why } else { detail.view.note };
                    return Err(Failure::new(format!("the lease is over: {why}")).code(ErrorCode::WrongState));
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn failed(error: &HandoverError, lease: &str) -> Failure {
    let failure = Failure::new(format!("the image was not sent: {error}"));
    match error {
        HandoverError::Refused { .. } => failure.code(ErrorCode::Rejected).hint(format!("souk show {lease}")),
        HandoverError::Files(_) => failure.hint("TMPDIR names a folder with room for the largest layer"),
        HandoverError::Stream(_)
        | HandoverError::Protocol(_)
        | HandoverError::Failed(_)
        | HandoverError::Archive(_) => failure.hint(format!("souk push {lease} tries again")),
    }
}

/// Where one layer may lie for a while: not in memory, where there is a choice.
pub(super) fn spool() -> PathBuf {
    let large = PathBuf::from("/var/tmp");
    if std::env::var_os("TMPDIR").is_none() && large.is_dir() { large } else { std::env::temp_dir() }
}

/// As steps of a rental show it.
pub(super) fn shown(progress: PullProgress) -> Progress {
    Progress {
        layers_done: progress.layers_done,
        layers: progress.layers,
        bytes_done: progress.bytes_done,
        bytes: progress.bytes,
    }
}

pub(super) async fn push(context: &Context, args: PushArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let detail: LeaseDetail = client.get(&format!("leases/{}", escape(&args.id))).await?;
    let wanted = &detail.view.image;
    if !is_sent(wanted) {
        return Err(Failure::new(format!("this lease's image comes from a registry: {wanted}"))
            .code(ErrorCode::WrongState)
            .hint("souk rent ASK --image IMAGE --push"));
    }
    let (name, digest) = wanted.trim_start_matches(SENT).rsplit_once('@').unwrap_or((wanted.as_str(), ""));
    let pushed = match &args.image {
        Some(image) => Pushed::find(image).await?,
        None => match Pushed::find(digest).await {
            Ok(pushed) => pushed,
            Err(_) => Pushed::find(name).await?,
        },
    };
    if pushed.image.digest != detail.image_digest {
        return Err(Failure::new("this is another image than the one that the lease names")
            .code(ErrorCode::WrongState)
            .hint(format!("the lease is for {}, and this is {}", detail.image_digest, pushed.image.digest)));
    }
    let mut display = Display::new();
    let quiet = args.quiet || context.json;
    let sending = pushed.to(&client, &args.id, |progress| {
        if !quiet {
            display.preparing(Some(shown(progress)));
        }
    });
    let sent = tokio::select! {
        sent = sending => sent,
        _ = tokio::signal::ctrl_c() => {
            output::note("interrupted; the same command goes on where this one stopped");
            return Ok(130);
        }
    };
    display.end();
    let sent = sent?;
    if context.json {
        output::json_line(
            &json!({ "layers": sent.layers, "sent": sent.sent, "bytes": sent.bytes, "packed_bytes": sent.packed }),
        )?;
    } else if !quiet {
        let there = sent.layers - sent.sent;
        let (bytes, packed) = (output::bytes(sent.bytes), output::bytes(sent.packed));
        output::note(format!(
            "the host has it: {} layers sent, {there} were there; {bytes}, {packed} over the wire",
            sent.sent
        ));
    }
    Ok(0)
}
