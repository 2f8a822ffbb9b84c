//! Compactions that somebody asks for: what they are told, while records come and the checkpoint is signed elsewhere.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use souk_protocol::{checkpoint::Checkpoint, entry::Body};

use crate::{
    commit::Ledger,
    compacted::{Asker, Compacted, NotCompacted},
    export::{Filter, export},
    fixture::{Deal, Party},
    record::Fact,
    thread::{Event, LedgerHandle, LedgerThread},
    verify::{Verdict, verify},
    view::View,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// In the sizes of a node: nothing begins by itself here.
fn open(directory: &Path, of: &Party) -> Ledger {
    Ledger::open(directory, of.key.node_id(), of.network).unwrap()
}

/// A host with one lease that runs, its ledger's thread, and what that wants signed.
struct Running {
    host: Party,
    renter: Party,
    deal: Deal,
    thread: LedgerThread,
    wanted: Receiver<Checkpoint>,
}

impl Running {
    fn begin(directory: &Path) -> Self {
        let (mut host, mut renter) = (Party::new(1), Party::new(2));
        let (thread, wanted) = spawn(open(directory, &host));
        let handle = thread.handle();
        handle.append_blocking(Fact::Entry(host.genesis())).unwrap();
        renter.genesis();
        let mut deal = Deal::new(&host, &renter, 1);
        handle.append_blocking(Fact::Entry(deal.open(&mut renter, &host))).unwrap();
        handle.append_blocking(Fact::Entry(deal.accept(&mut host, &renter))).unwrap();
        Self { host, renter, deal, thread, wanted }
    }

    /// So many receipts, with an anchor of each fourth, durable.
    fn live(&mut self, receipts: u64) {
        let handle = self.thread.handle();
        for n in 0..receipts {
            handle.append_blocking(Fact::Usage(self.deal.usage(&self.host))).unwrap();
            let ack = self.deal.ack(&self.renter, 0);
            let mut last = handle.append_blocking(Fact::Ack(ack.clone())).unwrap();
            if n % 4 == 3 {
                let body = Body::Anchor { usage: ack.usage, ack: ack.id(), due: ack.due };
                let anchor = self.host.say(Some(self.deal.id), &self.renter, body);
                last = handle.append_blocking(Fact::Entry(anchor)).unwrap();
            }
            if n + 1 == receipts {
                handle.wait(last).unwrap();
            }
        }
    }

    fn sign(&mut self, checkpoint: Checkpoint) {
        let entry = self.host.say_of_itself(Body::Checkpoint(checkpoint));
        self.thread.handle().append_blocking(Fact::Entry(entry)).unwrap();
    }

    /// Asks, and signs what is wanted for it.
    fn compact(&mut self) -> Result<Compacted, NotCompacted> {
        let answer = ask(&self.thread.handle());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Ok(checkpoint) = self.wanted.try_recv() {
                self.sign(checkpoint);
            }
            if let Ok(answer) = answer.recv_timeout(Duration::from_millis(10)) {
                return answer;
            }
        }
        panic!("no answer");
    }
}

fn spawn(ledger: Ledger) -> (LedgerThread, Receiver<Checkpoint>) {
    let (want, wanted) = mpsc::channel();
    let thread = LedgerThread::spawn(ledger, move |event| match event {
        Event::Checkpoint(checkpoint) => want.send(*checkpoint).unwrap(),
        Event::Refused(_, why) => panic!("{why}"),
        Event::Failed(failure) => panic!("{failure}"),
        Event::Durable(_) | Event::Fork(..) => {}
    });
    (thread.unwrap(), wanted)
}

fn ask(handle: &LedgerHandle) -> Receiver<Result<Compacted, NotCompacted>> {
    let (tell, answer) = mpsc::channel();
    handle.compact(Asker::new(move |what| tell.send(what).unwrap()));
    answer
}

fn bytes(path: &Path) -> u64 {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().map(|entry| bytes(&entry.unwrap().path())).sum()
    } else {
        std::fs::metadata(path).unwrap().len()
    }
}

fn is_valid(view: &View, host: &Party) {
    let mut file = Vec::new();
    export(view, Filter::All, &host.key, &mut file).unwrap();
    assert_eq!(verify(&file[..]).unwrap().verdict, Verdict::Valid);
}

#[test]
fn who_asks_is_told_what_went_and_the_answers_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::begin(directory.path());
    running.live(6_000);
    let handle = running.thread.handle();
    let last = handle.append_blocking(Fact::Usage(running.deal.usage(&running.host))).unwrap();
    handle.wait(last).unwrap();
    let (before, lease) = (bytes(directory.path()), handle.view().lease(&running.deal.id).unwrap());
    let entries = running.host.seq;

    let done = running.compact().unwrap();
    assert!(!done.still_read);
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    assert!(bytes(directory.path().join("journal").as_path()) < before / 2, "it is what the disk says, too");
    // Each receipt but the newest, with its answer, and each anchor but the newest.
    assert!(done.dropped > 12_000, "{done:?}");
    assert!(done.records > done.dropped);
    assert_eq!((done.checkpoint, done.up_to), (entries, entries - 1));
    assert!(done.entries_kept < 10, "{done:?}");
    assert_eq!(handle.view().lease(&running.deal.id).unwrap(), lease);
    is_valid(handle.view(), &running.host);

    // Receipts go on, and the same is there after a start.
    let ack = running.deal.ack(&running.renter, 0);
    handle.append_blocking(Fact::Ack(ack)).unwrap();
    running.live(20);
    is_valid(handle.view(), &running.host);
    let Running { host, thread, .. } = running;
    let rows = |view: &View| view.all_rows().unwrap();
    thread.shutdown().unwrap();
    let expected = rows(handle.view());
    drop(handle);
    let again = open(directory.path(), &host);
    assert!(rows(&again.view()) == expected);
}

#[test]
fn what_has_been_replaced_by_nothing_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::begin(directory.path());
    // An open, its answer, and what both have signed for: all of it matters.
    running.live(1);
    let files = || {
        let names = std::fs::read_dir(directory.path().join("journal")).unwrap();
        names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(running.compact(), Err(NotCompacted::Nothing));
        assert!(!files().iter().any(|name| name.contains(".base")), "{:?}", files());
        assert!(files().len() <= 2, "asking again and again makes no files: {:?}", files());
    }
    // The last one's anchor is the chain's newest entry, and of the receipts that both have signed: it stays.
    running.live(12);
    assert!(running.compact().unwrap().dropped > 0);
    // Its own checkpoint is no reason to begin anew.
    assert_eq!(running.compact(), Err(NotCompacted::Nothing));
    is_valid(running.thread.handle().view(), &running.host);
}

#[test]
fn a_second_asker_is_sent_away_and_the_end_of_the_ledger_is_no_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::begin(directory.path());
    running.live(100);
    let handle = running.thread.handle();
    let first = ask(&handle);
    // It waits for a signature.
    let checkpoint = running.wanted.recv_timeout(PATIENCE).unwrap();
    assert_eq!(ask(&handle).recv_timeout(PATIENCE).unwrap(), Err(NotCompacted::Asked));
    assert!(first.try_recv().is_err());
    running.sign(checkpoint);
    assert!(first.recv_timeout(PATIENCE).unwrap().unwrap().dropped > 0);

    running.live(100);
    let unsigned = ask(&handle);
    running.wanted.recv_timeout(PATIENCE).unwrap();
    let Running { host, thread, .. } = running;
    thread.shutdown().unwrap();
    assert_eq!(unsigned.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    assert_eq!(ask(&handle).recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
    drop(handle);
    is_valid(&open(directory.path(), &host).view(), &host);
}

#[test]
fn one_that_asks_under_load_is_not_kept_waiting_for_a_quiet_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::begin(directory.path());
    running.live(200);
    let handle = running.thread.handle();
    let answer = ask(&handle);
    // The queue is never empty for long: a record comes before each look.
    let end = Instant::now() + PATIENCE;
    let compacted = loop {
        assert!(Instant::now() < end, "no answer while records come");
        running.live(4);
        if let Ok(checkpoint) = running.wanted.try_recv() {
            running.sign(checkpoint);
        }
        if let Ok(answer) = answer.try_recv() {
            break answer.unwrap();
        }
        thread::yield_now();
    };
    assert!(compacted.dropped > 0);
    running.live(10);
    is_valid(handle.view(), &running.host);
}
