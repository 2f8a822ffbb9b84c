//! `nothing-lost`: a process that appends and compacts is killed with SIGKILL, again and again. What it was told is durable
//! must be there, and no number of its chain may ever stand for two entries.
//!
//! `SOUK_TEST_ROUNDS=300` kills so many times.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write, stdout},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use souk_ledger::{
    commit::{Backend, Ledger},
    compacted::Asker,
    export::{Filter, export},
    journal::{RealDisk, Sizes},
    lock::DirectoryLock,
    record::Fact,
    thread::{Event, LedgerThread, Ticket},
    verify::{Verdict, verify},
};
use souk_protocol::{checkpoint::Checkpoint, entry::Body};

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party};

const DIRECTORY: &str = "SOUK_TEST_KILL_DIRECTORY";
/// The child appends so many leases, then asks for a compaction, and does nothing else.
const RESTS: &str = "SOUK_TEST_KILL_RESTS";
/// What the child says of its own death.
const LOG: &str = "child.log";
/// A child is killed after so many at the latest.
const MOST_LINES: u64 = 6_000;
/// Far more than a child takes for its next line on a busy machine; reached only if it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Small segments, so that much is replaced in little time.
const SMALL: Sizes = Sizes { segment: 64 << 10, first: 16 << 10, step: 16 << 10, replace: 256 << 10 };

fn open(directory: &Path) -> Ledger {
    let host = Party::new(1);
    let disk = RealDisk::new(&directory.join("journal")).unwrap();
    let backend = Backend::Sled(directory.join("sled"));
    Ledger::open_with(Arc::new(disk), SMALL, &backend, host.key.node_id(), host.network).unwrap()
}

/// The child: a host with one lease at a time, whose every entry it says once it is durable, under its number.
#[test]
fn child() {
    let Some(directory) = env::var_os(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let _lock = DirectoryLock::acquire(directory).unwrap();
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let ledger = open(directory);
    let view = ledger.view();
    for party in [&mut host, &mut renter] {
        if let Some(head) = view.head(&party.key.node_id()).unwrap() {
            party.seq = head.seq + 1;
            party.prev = Some(head.id);
        }
    }
    if renter.seq == 0 {
        renter.genesis();
    }
    // Entries that are on their way: what to say of each once its ticket is durable.
    let said: Arc<Mutex<BTreeMap<u64, String>>> = Arc::default();
    let wanted: Arc<Mutex<Option<Checkpoint>>> = Arc::default();
    let (done, wants) = (Arc::clone(&said), Arc::clone(&wanted));
    let thread = LedgerThread::spawn(ledger, move |event| match event {
        Event::Durable(ticket) => {
            let mut said = done.lock().unwrap();
            let rest = said.split_off(&(ticket.0 + 1));
            for line in std::mem::replace(&mut *said, rest).into_values() {
                // Past the harness's capture; a parent that is gone ends the child.
                writeln!(stdout(), "{line}").unwrap();
            }
        }
        Event::Checkpoint(checkpoint) => {
            *wants.lock().unwrap() = Some(*checkpoint);
            writeln!(stdout(), "wanted").unwrap();
        }
        Event::Refused(..) | Event::Fork(..) | Event::Failed(_) => panic!("{event:?}"),
    })
    .unwrap();
    let handle = thread.handle();
    let append = |fact: Fact| {
        // Held over the append, so that the ticket is known before it can be durable.
        let mut said = said.lock().unwrap();
        let line = match &fact {
            Fact::Entry(entry) if entry.author == Party::new(1).key.node_id() => {
                Some(format!("durable {} {}", entry.seq, entry.id()))
            }
            Fact::Usage(usage) => Some(format!("usage {} {} {}", usage.lease, usage.n, usage.id())),
            Fact::Entry(_) | Fact::Ack(_) | Fact::Fork(_) | Fact::Private(_) => None,
        };
        let ticket = loop {
            match handle.append(fact.clone()) {
                Ok(ticket) => break ticket,
                Err(souk_ledger::thread::AppendError::Full) => thread::sleep(Duration::from_millis(1)),
                Err(e) => panic!("{e}"),
            }
        };
        said.extend(line.map(|line| (ticket.0, line)));
        ticket
    };
    if host.seq == 0 {
        append(Fact::Entry(host.genesis()));
    }
    let rests: Option<u64> = env::var(RESTS).ok().map(|n| n.parse().unwrap());
    // Bounded, should nobody kill it.
    for n in 0..rests.unwrap_or(2_000) {
        // Another one even if the last process died between the open and its accept.
        let mut deal = Deal::new(&host, &renter, (host.seq << 24) | renter.seq);
        append(Fact::Entry(deal.open(&mut renter, &host)));
        append(Fact::Entry(deal.accept(&mut host, &renter)));
        let mut last = Ticket(0);
        for step in 0..40 {
            append(Fact::Usage(deal.usage(&host)));
            let ack = deal.ack(&renter, 0);
            last = append(Fact::Ack(ack.clone()));
            if step % 4 == 3 {
                let body = Body::Anchor { usage: ack.usage, ack: ack.id(), due: ack.due };
                last = append(Fact::Entry(host.say(Some(deal.id), &renter, body)));
            }
            let checkpoint = wanted.lock().unwrap().take();
            if let Some(checkpoint) = checkpoint {
                append(Fact::Entry(host.say_of_itself(Body::Checkpoint(checkpoint))));
            }
        }
        // A short lead keeps groups, and with them the whole test, small.
        handle.wait(Ticket(last.0 - 20)).unwrap();
        if rests == Some(n + 1) {
            handle.compact(Asker::new(|done| assert!(done.is_ok(), "{done:?}")));
            let end = Instant::now() + 2 * PATIENCE;
            while Instant::now() < end {
                let checkpoint = wanted.lock().unwrap().take();
                if let Some(checkpoint) = checkpoint {
                    append(Fact::Entry(host.say_of_itself(Body::Checkpoint(checkpoint))));
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn spawn(directory: &Path, rests: bool) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    if rests {
        command.env(RESTS, "3");
    }
    command
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(fs::File::create(directory.join(LOG)).unwrap())
        .spawn()
        .unwrap()
}

/// What the children said is durable.
#[derive(Default)]
struct Heard {
    /// The id of each of our entries, by its number.
    entries: BTreeMap<u64, String>,
    /// The id of each of our usages, by lease and number; of the newest lease only.
    usages: BTreeMap<(String, String), String>,
}

impl Heard {
    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [.., "durable", seq, id] => {
                let before = self.entries.insert(seq.parse().unwrap(), (*id).to_owned());
                assert!(before.is_none_or(|before| before == *id), "two entries with number {seq} were acknowledged");
            }
            [.., "usage", lease, n, id] => {
                let before = self.usages.insert(((*lease).to_owned(), (*n).to_owned()), (*id).to_owned());
                assert!(before.is_none_or(|before| before == *id), "two usages with number {n} were acknowledged");
            }
            _ => {}
        }
    }
}

fn newest_base(directory: &Path) -> Option<String> {
    names(&directory.join("journal")).into_iter().filter(|name| name.ends_with(".base")).max()
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_nor_said_twice() {
    let rounds: u64 = env::var("SOUK_TEST_ROUNDS").map_or(9, |n| n.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let own = Party::new(1).key.node_id();
    let mut heard = Heard::default();
    let (mut bases, mut unfinished) = (0, 0);
    for round in 0..rounds {
        // Each sixth child is left in peace until there is a new base: one that is cut off begins anew, and with no end to that the
        // journal would grow faster than it is folded.
        let rests = round % 6 == 5;
        let before = newest_base(directory.path());
        let mut child = spawn(directory.path(), rests);
        let stdout = child.stdout.take().unwrap();
        let (lines, inbox) = mpsc::channel();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        // Killed after a varying number of records, wherever ledger and compaction then are: some rounds soon after the base
        // is wanted, and some once it is there.
        let (mut left, mut waits, mut lines) = (round * 97 % 700, round % 3 == 2, 0);
        let mut more = round * 37 % 500;
        let end = Instant::now() + PATIENCE;
        while rests && newest_base(directory.path()) == before {
            assert!(Instant::now() < end, "round {round}: it is not compacted");
            if let Ok(line) = inbox.recv_timeout(Duration::from_millis(5)) {
                heard.line(&line);
            }
        }
        while !rests && (waits || left > 0) {
            let line = inbox.recv_timeout(PATIENCE).unwrap_or_else(|e| {
                let log = fs::read_to_string(directory.path().join(LOG)).unwrap_or_default();
                panic!("round {round}: {e}: {log}")
            });
            // The larger the base, the longer until the next is wanted.
            lines += 1;
            waits &= line != "wanted" && lines < MOST_LINES;
            left = left.saturating_sub(1) + if line == "wanted" { std::mem::take(&mut more) } else { 0 };
            heard.line(&line);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts.
        inbox.iter().for_each(|line| heard.line(&line));
        reader.join().unwrap();
        unfinished += usize::from(names(&directory.path().join("journal")).iter().any(|n| n.ends_with(".base.new")));

        let ledger = open(directory.path());
        let view = ledger.view();
        let head = view.head(&own).unwrap().map_or(0, |head| head.seq + 1);
        let newest = heard.entries.last_key_value().map_or(0, |(seq, _)| seq + 1);
        assert!(head >= newest, "round {round}: {newest} entries were durable, {head} are there");
        for (seq, id) in heard.entries.range(newest.saturating_sub(60)..) {
            // Anchors may be dropped; what is there must be what was said.
            if let Some(entry) = view.entry(&own, *seq).unwrap() {
                assert_eq!(entry.id(&view.network()).to_string(), *id, "round {round}: entry {seq}");
            }
        }
        for lease in view.leases(souk_ledger::view::Select::All, 2).unwrap() {
            let newest = lease.newest_usage().map_or(0, |usage| usage.value.n);
            let told = heard.usages.keys().filter(|(id, _)| *id == lease.id().to_string());
            let told = told.map(|(_, n)| n.parse::<u64>().unwrap()).max().unwrap_or(0);
            assert!(newest >= told, "round {round}: usage {told} was durable, {newest} is there");
        }
        bases += usize::from(newest_base(directory.path()) != before);
        if round % 10 == 9 || round + 1 == rounds {
            whole(&ledger, directory.path(), round);
            println!("{} kills of {rounds}: all is there", round + 1);
        }
    }
    assert!(heard.entries.len() as u64 > rounds);
    assert!(bases as u64 >= rounds / 6, "{bases} bases in {rounds} rounds");
    println!(
        "{rounds} kills, {} entries and {} usages acknowledged, {bases} rounds with a new base, {unfinished} within its writing",
        heard.entries.len(),
        heard.usages.len()
    );
}

/// What can be asked and checked is what the journal alone makes, and it verifies.
fn whole(ledger: &Ledger, directory: &Path, round: u64) {
    let host = Party::new(1);
    let mut file = Vec::new();
    export(&ledger.view(), Filter::All, &host.key, &mut file).unwrap();
    let report = verify(&file[..]).unwrap();
    assert_eq!(report.verdict, Verdict::Valid, "round {round}");
    assert!(report.forks.is_empty(), "round {round}");
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("journal")).unwrap();
    for name in names(&directory.join("journal")) {
        fs::copy(directory.join("journal").join(&name), copy.path().join("journal").join(&name)).unwrap();
    }
    let anew = open(copy.path());
    assert!(anew.view().all_rows().unwrap() == ledger.view().all_rows().unwrap(), "round {round}: other answers");
}

fn names(directory: &Path) -> Vec<String> {
    // A child may die before it has made it.
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}
