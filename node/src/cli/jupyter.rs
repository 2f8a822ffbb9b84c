//! Waiting until a rented Jupyter answers, and whether it asks for its token.

use std::time::{Duration, Instant};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use souk_protocol::{
    lease::{LeaseState, PauseReason},
    message::Frame,
};
use tokio::time::timeout;

use super::{Context, error::Failure, forward::Way, leases, output};
use crate::{
    api::{
        client::{Client, escape},
        frames,
        types::{JupyterView, LeaseDetail, LeaseView},
    },
    market::ErrorCode,
};

/// How long a Jupyter may take until it answers, once its instance runs; an onstart script may have to install it first.
const START_WITHIN: Duration = Duration::from_secs(300);
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Said to a person who waits for longer.
const LONG: Duration = Duration::from_secs(1);
/// Of an instance's output, where it has ended.
const LAST_LINES: u32 = 20;
const LAST_BYTES: usize = 64 * 1024;
const LAST_WITHIN: Duration = Duration::from_secs(10);
/// Begins what the helper inside says.
const HELPER: &str = "souk-guest: ";

/// A Jupyter that answers, and lets in whoever has its token and nobody else.
pub(super) struct Ready {
    pub(super) access: JupyterView,
    pub(super) way: Way,
}

/// Waits for a lease's Jupyter.
pub(super) async fn ready(context: &Context, client: &Client, id: &str) -> Result<Ready, Failure> {
    // Says why not, where it was rented without.
    let access: JupyterView = client.get(&format!("leases/{}/jupyter", escape(id))).await?;
    let lease = access.lease.to_string();
    let way = Way::to(client.clone(), &lease, access.port);
    let mut told = context.json;
    let mut runs_since: Option<Instant> = None;
    let began = Instant::now();
    loop {
        let LeaseDetail { view, .. } = client.get(&format!("leases/{lease}")).await?;
        let why_not = match view.state {
            LeaseState::Running => {
                let since = *runs_since.get_or_insert_with(Instant::now);
                let why_not = match asked(&way, &access.token).await {
                    Ok(()) => return Ok(Ready { access, way }),
                    Err(Asked::Refused(failure)) => return Err(failure),
                    Err(Asked::NotYet(why_not)) => why_not,
                };
                if since.elapsed() > START_WITHIN {
                    let message = format!("Jupyter has not answered for {} s: {why_not}", START_WITHIN.as_secs());
                    return Err(Failure::new(message)
                        .code(ErrorCode::Unavailable)
                        .hint(format!("souk logs {} shows what it does", view.number)));
                }
                "Jupyter is starting"
            }
            LeaseState::Preparing => "the instance is being prepared",
            LeaseState::Kept | LeaseState::Paused(_) | LeaseState::Ended(_) => {
                return Err(not_running(client, &view).await);
            }
        };
        if !told && began.elapsed() > LONG {
            told = true;
            output::note(format!("{why_not} …"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Why there is no page yet, or never.
enum Asked {
    NotYet(String),
    Refused(Failure),
}

/// Asks once with the token and once without.
async fn asked(way: &Way, token: &str) -> Result<(), Asked> {
    let with = status(way, Some(token)).await?;
    if with == StatusCode::UNAUTHORIZED || with == StatusCode::FORBIDDEN {
        let message = "Jupyter does not take the rental's token; the image's own configuration of Jupyter sets another token or a password";
        return Err(Asked::Refused(Failure::new(message).code(ErrorCode::Rejected).hint(
            "change that configuration (c.ServerApp.token, c.IdentityProvider.token, …password), or rent another image",
        )));
    }
    if !with.is_success() {
        return Err(Asked::NotYet(format!("it answers {with}")));
    }
    if status(way, None).await?.is_success() {
        let message = "this Jupyter asks nobody for a token, as the image's own configuration says: opened here, every user of this computer could use it";
        return Err(Asked::Refused(
            Failure::new(message)
                .code(ErrorCode::Rejected)
                .hint("take the empty token out of the image's configuration, or rent another image"),
        ));
    }
    Ok(())
}

/// What Jupyter answers to a question that is for those who are let in.
async fn status(way: &Way, token: Option<&str>) -> Result<StatusCode, Asked> {
    let ask = async {
        let stream = way.open().await.map_err(|failure| failure.error.message)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // Ends with the sender.
        tokio::spawn(connection);
        let mut request = Request::get("/api/status").header(header::HOST, format!("127.0.0.1:{}", way.port()));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("token {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
        sender.send_request(request).await.map(|response| response.status()).map_err(|e| e.to_string())
    };
    match timeout(ANSWER_WITHIN, ask).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(why)) => Err(Asked::NotYet(why)),
        Err(_) => Err(Asked::NotYet("no answer".to_owned())),
    }
}

/// Why nothing runs there, with the last that was said.
async fn not_running(client: &Client, view: &LeaseView) -> Failure {
    let state = leases::state(view);
    if view.state != LeaseState::Paused(PauseReason::Exited) {
        let failure = Failure::new(format!("the instance isn't running: {state}")).code(ErrorCode::WrongState);
        let stopped = view.state == LeaseState::Paused(PauseReason::Stopped);
        return failure.hint(format!("souk {} {}", if stopped { "start" } else { "events" }, view.number));
    }
    let message = match timeout(LAST_WITHIN, last_words(client, &view.lease.to_string())).await {
        Ok(Some(words)) => format!("Jupyter has ended ({state}): {words}"),
        Ok(None) | Err(_) => format!("Jupyter has ended: {state}"),
    };
    Failure::new(message).code(ErrorCode::WrongState).hint(format!(
        "souk logs {n} shows the rest, souk start {n} tries again, souk destroy {n} ends the lease",
        n = view.number
    ))
}

/// The helper's last line, where it has said anything but that it starts something; else the last of all.
async fn last_words(client: &Client, lease: &str) -> Option<String> {
    let path = format!("leases/{lease}/logs?follow=false&tail={LAST_LINES}");
    let mut stream = client.stream(&path).await.ok()?.into_reader();
    let mut text = Vec::new();
    while let Ok(Some(frame)) = frames::read(&mut stream).await {
        match frame {
            Frame::Stdout(bytes) | Frame::Stderr(bytes) if text.len() + bytes.len() <= LAST_BYTES => text.extend(bytes),
            Frame::Exit(_) | Frame::Error(_) => break,
            Frame::Stdout(_)
            | Frame::Stderr(_)
            | Frame::Open(_)
            | Frame::Stdin(_)
            | Frame::StdinEnd
            | Frame::Resize(..)
            | Frame::Log(_)
            | Frame::Note(_)
            | Frame::Place(_)
            | Frame::Ready => {}
        }
    }
    choose(&String::from_utf8_lossy(&text)).map(str::to_owned)
}

fn choose(text: &str) -> Option<&str> {
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let helpers = lines().filter_map(|line| line.strip_prefix(HELPER)).find(|line| !line.starts_with("starting "));
    helpers.or_else(|| lines().next())
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_helpers_word_comes_first() {
        assert_eq!(choose("a\nsouk-guest: no Jupyter\nb\n\n"), Some("no Jupyter"));
        assert_eq!(choose("souk-guest: starting JupyterLab\nImportError: x\n"), Some("ImportError: x"));
        assert_eq!(choose("\n"), None);
    }
}
