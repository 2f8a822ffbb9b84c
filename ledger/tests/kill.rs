//! `nothing-lost`: a process that appends is killed with SIGKILL, again and again; what it was told is durable must be there.
#![allow(clippy::unwrap_used)]

use std::{
    env,
    io::{BufRead, BufReader, Write, stdout},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use souk_ledger::{
    commit::Ledger,
    lock::DirectoryLock,
    record::Fact,
    thread::{Event, LedgerThread, Ticket},
};

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party};

const DIRECTORY: &str = "SOUK_TEST_KILL_DIRECTORY";
/// Far more than a round takes on a busy machine; reached only if the child hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The child: opens leases, one entry each, as fast as the ledger takes them, and says which are durable.
#[test]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let _lock = DirectoryLock::acquire(directory).unwrap();
    let (host, mut renter) = (Party::new(1), Party::new(2));
    let ledger = Ledger::open(directory, renter.key.node_id(), renter.network).unwrap();
    if let Some(head) = ledger.view().head(&renter.key.node_id()).unwrap() {
        renter.seq = head.seq + 1;
        renter.prev = Some(head.id);
    }
    let base = renter.seq;
    let thread = LedgerThread::spawn(ledger, move |event| match event {
        Event::Durable(ticket) => {
            // Past the harness's capture; a parent that is gone ends the child.
            writeln!(stdout(), "durable {}", base + ticket.0).unwrap();
        }
        Event::Refused(..) | Event::Fork(..) | Event::Failed(_) => panic!("{event:?}"),
    })
    .unwrap();
    let handle = thread.handle();
    // Bounded, should nobody kill it.
    for _ in 0..100_000 {
        let entry = if renter.seq == 0 {
            renter.genesis()
        } else {
            Deal::new(&host, &renter, renter.seq).open(&mut renter, &host)
        };
        let ticket = handle.append_blocking(Fact::Entry(entry)).unwrap();
        // A short lead keeps groups, and with them the whole test, small.
        if ticket.0.is_multiple_of(32) {
            handle.wait(Ticket(ticket.0 - 16)).unwrap();
        }
    }
}

fn spawn(directory: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine() {
    let rounds = env::var("SOUK_TEST_ROUNDS").map_or(20, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let renter = Party::new(2).key.node_id();
    let network = Party::new(2).network;
    let mut durable = 0;
    for round in 0..rounds {
        let mut child = spawn(directory.path());
        let stdout = child.stdout.take().unwrap();
        let (lines, inbox) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let number = line.rsplit_once("durable ").and_then(|(_, n)| n.parse().ok());
                if let Some(number) = number
                    && lines.send(number).is_err()
                {
                    break;
                }
            }
        });
        // Killed after a varying number of groups, wherever the next one then is.
        for _ in 0..=round * 7 % 23 {
            durable = inbox.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("round {round}: {e}"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts.
        durable = inbox.iter().last().unwrap_or(durable);
        reader.join().unwrap();

        let ledger = Ledger::open(directory.path(), renter, network).unwrap();
        let view = ledger.view();
        let head = view.head(&renter).unwrap().unwrap();
        assert!(head.seq + 1 >= durable, "round {round}: {durable} entries were durable, {} are there", head.seq + 1);
        for seq in (durable.saturating_sub(50))..durable {
            assert!(view.entry(&renter, seq).unwrap().is_some(), "round {round}: entry {seq}");
        }
        assert_eq!(view.lease_ids().unwrap().len() as u64, head.seq, "round {round}");
    }
    assert!(durable > rounds);
}
