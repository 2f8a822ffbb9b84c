//! Handing an event to a program: on its standard input, with the main words in its environment. No shell is involved.
//!
//! The program has thirty seconds. Then, and when it has ended by itself, its whole process group is killed, so that nothing of
//! it stays behind. One that has run is not run again for the same event, whatever its exit code.

use std::{collections::VecDeque, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::Instant,
};

use super::{Attempt, KEPT, Verdict};
use crate::hooks::event::Event;

/// How long a program may run.
pub const WITHIN: Duration = Duration::from_secs(30);
/// How long its output is still read once it has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// Kills a process group when it goes out of scope.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // None is left, or none is ours to kill: both are well.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last bytes of something.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let over = self.0.len().saturating_sub(KEPT);
        self.0.drain(..over);
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&Vec::from(self.0)).into_owned()
    }
}

/// Runs a program for an event. `dir` is the node's data directory: where it runs, and whom `souk` in it asks.
pub async fn run(words: &[String], event: &Event, body: &str, dir: &Path) -> Attempt {
    run_within(words, event, body, dir, WITHIN).await
}

async fn run_within(words: &[String], event: &Event, body: &str, dir: &Path, within: Duration) -> Attempt {
    let Some((program, arguments)) = words.split_first() else {
        return Attempt { verdict: Verdict::Never, ..Attempt::failed("no program is named") };
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("SOUK_EVENT", event.event.name()).env("SOUK_EVENT_ID", event.id.to_string());
    command.env("SOUK_EVENT_TIME", &event.time).env("SOUK_EVENT_TEXT", &event.text);
    command.env("SOUK_NODE", event.node.to_string()).env("SOUK_DIR", dir);
    command.env("SOUK_LEASE", event.lease.map_or_else(String::new, |l| l.to_string()));
    command.env("SOUK_MACHINE", event.machine.map_or_else(String::new, |m| m.to_string()));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Attempt::failed(format!("it can't be run: {error}")),
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Who does not read it needs not.
            let _ = stdin.write_all(body.as_bytes()).await;
        }
    };
    tokio::pin!(feed);
    let (mut fed, mut ended, mut late) = (false, None, false);
    let mut deadline = Instant::now() + within;
    let (mut from_out, mut from_err) = ([0; 4096], [0; 4096]);
    let mut tail = Tail::default();
    while ended.is_none() || out.is_some() || err.is_some() {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline) => {
                late = ended.is_none();
                break;
            }
            status = child.wait(), if ended.is_none() => {
                ended = Some(status);
                group.kill();
                deadline = deadline.min(Instant::now() + DRAIN);
            }
            read = next(&mut out, &mut from_out), if out.is_some() => keep(&mut tail, &mut out, &from_out, read),
            read = next(&mut err, &mut from_err), if err.is_some() => keep(&mut tail, &mut err, &from_err, read),
            () = &mut feed, if !fed => fed = true,
        }
    }
    group.kill();
    let (outcome, code, verdict) = match ended {
        _ if late => (format!("killed after {} s", within.as_secs()), None, Verdict::Never),
        Some(Ok(status)) if status.success() => ("ended well".to_owned(), Some(0), Verdict::Delivered),
        Some(Ok(status)) => match status.code() {
            Some(code) => (format!("ended with code {code}"), Some(code), Verdict::Never),
            None => ("ended by a signal".to_owned(), None, Verdict::Never),
        },
        Some(Err(error)) => (format!("it can't be waited for: {error}"), None, Verdict::Never),
        None => ("it is not known to have ended".to_owned(), None, Verdict::Never),
    };
    if late {
        // Killed above: leaves no zombie.
        let _ = tokio::time::timeout(DRAIN, child.wait()).await;
    }
    Attempt { verdict, outcome, code, output: tail.text() }
}

async fn next(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

fn keep<T>(tail: &mut Tail, pipe: &mut Option<T>, buffer: &[u8], read: usize) {
    tail.push(&buffer[..read]);
    if read == 0 {
        *pipe = None;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::hooks::event::{EventKind, Happening};
    use souk_protocol::{NodeId, Timestamp};

    fn event() -> Event {
        let happening = Happening {
            kind: EventKind::Outbid,
            at: Timestamp(1),
            machine: None,
            lease: None,
            text: "a \u{7}text".to_owned(),
            data: serde_json::json!({}),
            subject: Vec::new(),
            number: 1,
        };
        Event::of(NodeId([1; 32]), happening)
    }

    async fn sh(line: &str, within: Duration) -> Attempt {
        let dir = tempfile::tempdir().unwrap();
        let words = ["/bin/sh", "-c", line].map(str::to_owned);
        run_within(&words, &event(), &event().body(), dir.path(), within).await
    }

    #[tokio::test]
    async fn it_gets_the_event_twice_over_and_its_words_are_kept() {
        let took = sh("echo $SOUK_EVENT; cat; echo bad >&2", WITHIN).await;
        assert_eq!((took.verdict, took.code), (Verdict::Delivered, Some(0)), "{took:?}");
        assert!(took.output.contains("outbid\n{\"id\":\"evt_") && took.output.contains("bad"), "{took:?}");
        assert!(took.output.contains("a  text"), "{took:?}");
        assert_eq!(sh("exit 3", WITHIN).await.outcome, "ended with code 3");
        assert_eq!(sh("kill -9 $$", WITHIN).await.outcome, "ended by a signal");
        let words = ["/nowhere/at-all".to_owned()];
        let missing = run(&words, &event(), "", "/".as_ref()).await;
        assert_eq!(missing.verdict, Verdict::Again(None), "it may be installed later");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let line = format!("sleep 1000 & echo $! > {}; yes; wait", file.display());
        let took = sh(&line, Duration::from_secs(1)).await;
        assert_eq!(took.outcome, "killed after 1 s");
        assert_eq!(took.output.len(), KEPT, "an endless output is cut");
        let pid: i32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..200 {
            if gone() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(gone(), "its child lives on");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_holds_nothing_up() {
        let began = Instant::now();
        let took = sh("sleep 20 & echo done", WITHIN).await;
        assert_eq!((took.outcome.as_str(), took.output.as_str()), ("ended well", "done\n"));
        assert!(began.elapsed() < Duration::from_secs(15), "it waited for a child in the background");
    }
}
