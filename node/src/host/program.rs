//! Running a program of the machine's owner: JSON on its standard input, its first bytes of output back, within a time limit.
//!
//! Owns the process and everything it starts in its process group: all of it is killed with SIGKILL when the program ends, fails
//! or runs over its time, and when the future is dropped. Owns no meaning of what it says. What leaves the process group by itself (`setsid`) is the owner's
//! own doing, and is not followed.

use std::{
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

/// How long a program may take, from the question on.
pub const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of its output that are kept; the rest is read and let go.
pub const OUTPUT_BYTES: usize = 4096;
/// Bytes of its standard error that are kept for the log.
const ERROR_BYTES: usize = 512;
/// Programs that run at once. When so many do, the next waits, within its own time limit.
const AT_ONCE: usize = 8;
/// How long output is waited for once the process group is gone: what has left the group may hold the pipe open.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// Runs programs, so many at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Programs {
    places: Arc<Semaphore>,
    limit: Duration,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output, up to [`OUTPUT_BYTES`].
    pub output: Vec<u8>,
    /// Whether it wrote more.
    pub cut: bool,
    /// What it wrote to standard error, in one line, cut.
    pub complaint: String,
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("it can't be started: {0}")]
    Start(std::io::Error),
    /// Its end could not be told.
    #[error("it can't be waited for: {0}")]
    Wait(std::io::Error),
    /// It ran over its time, and was killed.
    #[error("it did not end within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// Others ran for all of its time.
    #[error("{AT_ONCE} others were running")]
    Busy,
}

impl Default for Programs {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), limit: LIMIT }
    }
}

impl Programs {
    /// The same, where each may take so long.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { places: Arc::clone(&self.places), limit }
    }

    /// Runs `command` by `/bin/sh -c` in `/`, with `input` on its standard input and nothing of this process's environment but
    /// `PATH`, `HOME` and `LANG`.
    ///
    /// # Errors
    /// [`ProgramError`]; an exit code other than 0 is none.
    pub async fn run(&self, command: &str, input: Vec<u8>) -> Result<Ended, ProgramError> {
        let end = Instant::now() + self.limit;
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else { return Err(ProgramError::Busy) };
        let mut group = Group::start(command).map_err(ProgramError::Start)?;
        let (stdin, out, err) = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // A program that does not want to know closes its end: its answer counts all the same.
                stdin.write_all(&input).await.ok();
            }
        };
        let (mut output, mut complaint) = (Kept::new(OUTPUT_BYTES), Kept::new(ERROR_BYTES));
        let mut talk = Box::pin(async {
            tokio::join!(feed, output.read(out), complaint.read(err));
        });
        let mut silent = false;
        let ended = loop {
            tokio::select! {
                ended = timeout_at(end, group.ended()) => break ended,
                () = &mut talk, if !silent => silent = true,
            }
        };
        let status = match ended {
            Ok(Ok(())) => group.finish().await,
            Ok(Err(error)) => Err(error),
            Err(_) => return Err(ProgramError::Late(self.limit)),
        };
        if !silent {
            timeout(LAST_OUTPUT, &mut talk).await.ok();
        }
        drop(talk);
        let status: ExitStatus = status.map_err(ProgramError::Wait)?;
        Ok(Ended { code: status.code(), cut: output.cut, output: output.bytes, complaint: line(&complaint.bytes) })
    }
}

/// The first line of a text, without what could play tricks on a terminal or a log, up to 400 bytes.
#[must_use]
pub fn line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let first = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    let hidden = |c: &char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut kept = String::new();
    for c in first.chars().filter(|c| !hidden(c)) {
        if kept.len() + c.len_utf8() > 400 {
            break;
        }
        kept.push(c);
    }
    kept
}

/// The beginning of a stream.
struct Kept {
    bytes: Vec<u8>,
    most: usize,
    cut: bool,
}

impl Kept {
    const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, cut: false }
    }

    /// Reads to the end, and keeps the beginning: a program is not stopped by what it says too much.
    async fn read(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut piece).await {
            let room = self.most - self.bytes.len();
            self.cut |= n > room;
            self.bytes.extend_from_slice(&piece[..n.min(room)]);
        }
    }
}

/// A process and what it starts. The group's number stays taken until its leader is reaped, so the kill comes before that.
struct Group {
    child: Child,
    leader: Option<Pid>,
    end: Option<JoinHandle<()>>,
}

impl Group {
    fn start(command: &str) -> std::io::Result<Self> {
        let mut program = Command::new("/bin/sh");
        program.arg("-c").arg(command).current_dir("/").env_clear();
        for name in ["PATH", "HOME", "LANG"] {
            if let Some(value) = std::env::var_os(name) {
                program.env(name, value);
            }
        }
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let child = program.spawn()?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // On a thread of its own, since it blocks: for as long as the program may run at most.
        let end = leader.map(|pid| {
            tokio::task::spawn_blocking(move || {
                let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                // That somebody else has reaped it tells as much as its end.
                while matches!(waitid(WaitId::Pid(pid), ended), Err(rustix::io::Errno::INTR)) {}
            })
        });
        Ok(Self { child, leader, end })
    }

    /// Waits until the leader has ended; does not reap it.
    async fn ended(&mut self) -> std::io::Result<()> {
        match &mut self.end {
            Some(end) => end.await.map_err(std::io::Error::other),
            None => self.child.wait().await.map(|_| ()),
        }
    }

    /// Kills what is left of the group, and reaps its leader.
    async fn finish(&mut self) -> std::io::Result<ExitStatus> {
        self.kill();
        self.child.wait().await
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader.take() {
            kill_process_group(leader, Signal::KILL).ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Before the child is dropped, which has it reaped.
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{path::Path, time::Duration};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    fn run(command: &str, input: &[u8]) -> Result<Ended, ProgramError> {
        runtime().block_on(Programs::default().run(command, input.to_vec()))
    }

    /// Waits until none of these processes is there.
    fn gone(pids: &str) {
        let alive = |pid: &str| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let state = state.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
            state.is_some_and(|s| s != 'Z' && s != 'X')
        };
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while pids.split_whitespace().any(alive) {
            assert!(std::time::Instant::now() < end, "still there: {pids}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn it_gets_its_input_and_gives_its_code_and_output() {
        let ended = run("read line; echo \"got $line\"; echo oh >&2; exit 3", b"{\"a\":1}\nmore").unwrap();
        assert_eq!((ended.code, ended.cut, ended.complaint.as_str()), (Some(3), false, "oh"));
        assert_eq!(ended.output, b"got {\"a\":1}\n");
        let unread = run("echo 1", &vec![b'x'; 1 << 20]).unwrap();
        assert_eq!((unread.code, unread.output.as_slice()), (Some(0), &b"1\n"[..]));
        let env = run("env | cut -d= -f1 | sort | tr '\\n' ' '", b"").unwrap();
        let env = String::from_utf8(env.output).unwrap();
        assert!(!env.contains("CARGO"), "{env}");
        assert_eq!(run("/nonexistent/program", b"").unwrap().code, Some(127));
    }

    #[test]
    fn too_much_output_is_let_go() {
        let ended = run("head -c 3000000 /dev/zero | tr '\\0' 'a'; echo x >&2", b"").unwrap();
        assert_eq!((ended.code, ended.cut, ended.output.len()), (Some(0), true, OUTPUT_BYTES));
        assert!(matches!(run("yes", b""), Err(ProgramError::Late(_))));
    }

    #[test]
    fn children_that_ignore_signals_die_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let pids = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap();
        let script = |file: &str, end: &str| {
            let path = dir.path().join(file);
            let children = "i=0; while [ $i -lt 20 ]; do (trap '' TERM HUP INT; while :; do sleep 60; done) & \
                            echo $! >> FILE; i=$((i+1)); done; ";
            format!("trap '' TERM; {}{end}", children.replace("FILE", &path.display().to_string()))
        };
        // One that hangs, and one that ends at once and leaves its children behind.
        assert!(matches!(run(&script("hung", "wait"), b""), Err(ProgramError::Late(_))));
        gone(&pids("hung"));
        let ended = run(&script("left", "echo 0.5; exit 0"), b"").unwrap();
        assert_eq!((ended.code, ended.output.as_slice()), (Some(0), &b"0.5\n"[..]));
        gone(&pids("left"));
        assert_eq!(pids("left").split_whitespace().count(), 20);
    }

    #[test]
    fn dropping_the_question_ends_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let command = format!("echo $$ > {}; sleep 60", file.display());
        runtime().block_on(async {
            let programs = Programs::default();
            let running = programs.run(&command, Vec::new());
            let begun = async {
                while std::fs::read_to_string(&file).unwrap_or_default().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! { _ = running => panic!("it ended"), () = begun => {} }
        });
        gone(&std::fs::read_to_string(Path::new(&file)).unwrap());
    }

    #[test]
    fn only_so_many_run_at_once() {
        let found = runtime().block_on(async {
            let programs = Programs { limit: Duration::from_millis(700), ..Programs::default() };
            let all = (0..AT_ONCE + 3).map(|_| {
                let programs = programs.clone();
                tokio::spawn(async move { programs.run("sleep 30", Vec::new()).await })
            });
            futures::future::join_all(all.collect::<Vec<_>>()).await
        });
        let busy = found.iter().filter(|f| matches!(f, Ok(Err(ProgramError::Busy)))).count();
        let late = found.iter().filter(|f| matches!(f, Ok(Err(ProgramError::Late(_))))).count();
        assert_eq!((busy + late, late >= AT_ONCE), (AT_ONCE + 3, true), "{found:?}");
    }

    #[test]
    fn what_it_says_is_one_clean_line() {
        assert_eq!(line(b"\n  no\x1b[2J way \nmore"), "no[2J way");
        assert_eq!(line("a\u{202e}b".as_bytes()), "ab");
        assert_eq!(line("é".repeat(1000).as_bytes()).len(), 400);
        assert_eq!(line(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
