//! `souk run`: a machine for one command. Rents the best match, copies in, runs, copies out, and gives the machine back in every case.
//!
//! The lease hangs on this program's connection to its node (`POST run`): where this program dies, the node ends it.

mod machines;
mod stream;

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
use souk_protocol::Amount;
use tokio::signal::unix::{SignalKind, signal};

use self::machines::{Machines, Rented};
use super::{
    Context,
    args::RunArgs,
    copy::{self, Job, Place},
    copy_display::Display,
    error::{Failure, SOUKS_OWN},
    output::{self, money},
    rent, template,
};
use crate::{
    api::{
        client::{Client, escape},
        types::{Environment, ExecRequest, LeaseView},
    },
    market::ErrorCode,
};

/// How long giving back may take before it is left to the node.
const RELEASE_WITHIN: Duration = Duration::from_secs(15);

/// What came of one of the runs.
struct Ran {
    rank: u32,
    code: u8,
    lease: Option<LeaseView>,
    seconds: f64,
}

pub(super) async fn run(context: &Context, args: RunArgs) -> Result<u8, Failure> {
    all(context, args).await.map_err(|failure| if failure.exit == 2 { failure } else { failure.exit(SOUKS_OWN) })
}

async fn all(context: &Context, mut args: RunArgs) -> Result<u8, Failure> {
    if let Some(found) = template::named(context, args.template.as_deref())? {
        if !args.quiet {
            template::announce(context, &found);
        }
        template::complete_run(&mut args, found)?;
    }
    let client = context.client()?;
    let request = rent::run_request(&args)?;
    for input in &args.inputs {
        let (path, _) = split(input);
        if !path.exists() {
            return Err(Failure::usage(format!("{}: there is nothing to copy in", path.display())));
        }
    }
    let machines = Machines::find(&client, &args, request).await?;
    let ranks = 0..args.count;
    let runs = ranks.map(|rank| one(context, &client, &args, &machines, rank));
    let runs = futures::future::join_all(runs).await;
    summary(context, &args, &runs)
}

/// Ctrl-C, or whoever ends this program in order.
async fn interrupted() -> u8 {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 130,
        () = wait(SignalKind::terminate()) => 143,
        () = wait(SignalKind::hangup()) => 129,
    }
}

/// One run from renting to giving back.
async fn one(context: &Context, client: &Client, args: &RunArgs, machines: &Machines, rank: u32) -> Ran {
    let begun = Instant::now();
    let say = |text: String| {
        if !args.quiet && !context.json {
            output::note(if args.count > 1 {
                format!("[{rank}] {}", output::plain(&text))
            } else {
                output::plain(&text)
            });
        }
    };
    let mut rented: Option<Rented> = None;
    let code = {
        let work = async {
            // Kept where an interruption finds it.
            let rented = rented.insert(machines.rent(client, &say).await?);
            let id = rented.lease.lease.to_string();
            inside(context, client, args, &id, rank).await
        };
        tokio::select! {
            worked = work => match worked {
                Ok(code) => code,
                Err(failure) => {
                    if let Some(text) = failure.text(context.json) {
                        output::note(if args.count > 1 { format!("[{rank}] {text}") } else { text });
                    }
                    if failure.exit == 2 { 2 } else { SOUKS_OWN }
                }
            },
            code = interrupted() => code,
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut lease = None;
    if let Some(rented) = rented {
        let path = format!("leases/{}/destroy", escape(&rented.lease.lease.to_string()));
        let given_back = tokio::time::timeout(RELEASE_WITHIN, client.post::<LeaseView>(&path, &json!({}))).await;
        // Where that did not work, the node goes on trying once the steps are dropped.
        lease = Some(given_back.ok().and_then(Result::ok).unwrap_or_else(|| (*rented.lease).clone()));
    }
    Ran { rank, code, lease, seconds }
}

/// What happens in the instance: in, command, out.
async fn inside(context: &Context, client: &Client, args: &RunArgs, id: &str, rank: u32) -> Result<u8, Failure> {
    let there = |path: Vec<u8>| Place::There { id: id.to_owned(), path };
    let display = || Display::new(args.quiet || context.json || args.count > 1);
    for input in &args.inputs {
        let (path, target) = split(input);
        let from = Place::Here(path.as_os_str().as_bytes().to_vec());
        let (to, name) = match target {
            Some(target) if !target.as_os_str().as_bytes().ends_with(b"/") => {
                (target.into_os_string().into_vec(), Vec::new())
            }
            into => {
                let folder = into.unwrap_or_else(|| PathBuf::from(args.workdir.as_deref().unwrap_or(".")));
                (folder.into_os_string().into_vec(), copy::name_of(&from)?)
            }
        };
        let job = Job { from, to: there(to), name, excludes: Vec::new(), user: args.user.clone() };
        whole(copy::run(client, job, display()).await?, "in")?;
    }
    let code = command(context, client, args, id, rank).await?;
    for output in &args.outputs {
        let (path, target) = split(output);
        let from = there(path.into_os_string().into_vec());
        let of_rank =
            |folder: &Path| if args.count > 1 { folder.join(format!("rank-{rank}")) } else { folder.to_owned() };
        let (to, name) = match target {
            Some(target) if !target.as_os_str().as_bytes().ends_with(b"/") => (of_rank(&target), Vec::new()),
            into => (of_rank(&into.unwrap_or_else(|| PathBuf::from("."))), copy::name_of(&from)?),
        };
        if !name.is_empty() {
            std::fs::create_dir_all(&to).map_err(|e| Failure::new(format!("{}: {e}", to.display())))?;
        }
        let to = Place::Here(to.into_os_string().into_vec());
        let job = Job { from, to, name, excludes: Vec::new(), user: args.user.clone() };
        match copy::run(client, job, display()).await.and_then(|copied| whole(copied, "out")) {
            Ok(()) => {}
            // A command that failed has often not written what it should have: its code says more.
            Err(failure) if code != 0 => output::note(failure.text(context.json).unwrap_or_default()),
            Err(failure) => return Err(failure),
        }
    }
    Ok(code)
}

fn whole(copied: souk_transfer::Summary, way: &str) -> Result<(), Failure> {
    match copied.problems {
        0 => Ok(()),
        n => Err(Failure::new(format!("{n} files could not be copied {way}"))),
    }
}

async fn command(context: &Context, client: &Client, args: &RunArgs, id: &str, rank: u32) -> Result<u8, Failure> {
    let mut env = rent::environment(&args.env)?.0;
    env.push(("SOUK_RANK".to_owned(), rank.to_string()));
    env.push(("SOUK_COUNT".to_owned(), args.count.to_string()));
    let request = ExecRequest {
        command: args.command.clone(),
        tty: false,
        env: Environment(env),
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        size: None,
    };
    let stream = client.upgrade(&format!("leases/{}/exec", escape(id)), &request).await?;
    let prefix = (args.count > 1).then(|| format!("[{rank}] "));
    stream::run(stream, args.interactive, prefix, context.json.then_some(rank)).await
}

/// `PATH[:DEST]`.
fn split(text: &OsString) -> (PathBuf, Option<PathBuf>) {
    let bytes = text.as_bytes();
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    match bytes.iter().position(|b| *b == b':').filter(|at| *at > 0 && *at + 1 < bytes.len()) {
        Some(at) => (path(&bytes[..at]), Some(path(&bytes[at + 1..]))),
        None => (path(bytes.strip_suffix(b":").unwrap_or(bytes)), None),
    }
}

fn summary(context: &Context, args: &RunArgs, runs: &[Ran]) -> Result<u8, Failure> {
    if context.json {
        let run = |ran: &Ran| {
            json!({
                "rank": ran.rank,
                "exit_code": ran.code,
                "seconds": ran.seconds,
                "lease": ran.lease.as_ref().map(|l| l.lease),
                "host": ran.lease.as_ref().map(|l| l.peer),
                "due": ran.lease.as_ref().map(|l| l.due.to_string()),
            })
        };
        output::json_line(&json!({ "runs": runs.iter().map(run).collect::<Vec<_>>() }))?;
    } else if args.count > 1 && !args.quiet {
        for ran in runs {
            let how = if ran.code == 0 { "done".to_owned() } else { format!("exit code {}", ran.code) };
            let (host, cost) = match &ran.lease {
                Some(l) if l.due > Amount::ZERO => (l.peer.short(), format!(", {}", money(l.due, &l.currency, 6))),
                Some(l) => (l.peer.short(), String::new()),
                None => ("no machine".to_owned(), String::new()),
            };
            output::note(format!("[{}] {how} after {:.1} s on {host}{cost}", ran.rank, ran.seconds));
        }
    }
    Ok(runs.iter().map(|ran| ran.code).find(|code| *code != 0).unwrap_or(0))
}

/// There is no machine left to try.
fn no_machine(last: Option<Failure>) -> Failure {
    let hint = "souk search QUERY --explain says what each condition excludes";
    last.unwrap_or_else(|| Failure::new("no machine matches").code(ErrorCode::NotFound).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_paths() {
        let pair = |text: &str| split(&OsString::from(text));
        assert_eq!(pair("data:/data"), ("data".into(), Some("/data".into())));
        assert_eq!(pair("data"), ("data".into(), None));
        assert_eq!(pair("data:"), ("data".into(), None));
    }
}
