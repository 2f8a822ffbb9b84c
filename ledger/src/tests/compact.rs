//! Old records go, and everything that can be asked or checked stays as it was.

use std::{path::Path, sync::Arc};

use souk_protocol::{
    Amount, Currency, DocumentId, Timestamp, Verified,
    entry::Body,
    opinion::{Attestation, Observation, UPTIME_WINDOW},
    receipt::Usage,
    settlement::Settle,
};

use super::{SMALL, on_disk};
use crate::{
    commit::{Backend, Ledger, OpenError},
    compact::Stop,
    export::{Filter, export},
    fixture::{Deal, Party, START},
    journal::{
        Disk, JournalError,
        simulated::{Dice, SimulatedDisk},
    },
    record::{Fact, Private},
    state::Applied,
    verify::{Report, Verdict, verify_on},
};

/// A host that lives on: its leases, and what it says of time that passes.
struct Life {
    host: Party,
    renter: Party,
    deals: Vec<Deal>,
    dice: Dice,
    paid: u32,
}

impl Life {
    fn new(seed: u64) -> (Self, Vec<Fact>) {
        let (mut host, mut renter) = (Party::new(1), Party::new(2));
        let facts = vec![Fact::Entry(host.genesis())];
        // Names nobody, so it is not the host's to hold.
        renter.genesis();
        (Self { host, renter, deals: Vec::new(), dice: Dice(seed), paid: 0 }, facts)
    }

    /// What happens next: some facts in the order in which the host learns of them.
    fn next(&mut self) -> Vec<Fact> {
        match self.dice.below(12) {
            0 if self.deals.len() < 8 => self.open(),
            1 => vec![self.observe()],
            2 => vec![self.attest()],
            3 => vec![self.pay()],
            4 => vec![Fact::Private(Private::Row {
                key: format!("row/{}", self.dice.below(5)).into_bytes(),
                value: Some(vec![3; self.dice.below(200)].into()),
            })],
            _ if self.deals.is_empty() => self.open(),
            5 if self.deals.len() > 2 => {
                let n = self.dice.below(self.deals.len());
                let deal = self.deals.remove(n);
                let close = deal.close(&mut self.renter, &self.host);
                let ack = deal.close_ack(&close, &mut self.host, &self.renter);
                vec![Fact::Entry(close), Fact::Entry(ack)]
            }
            _ => self.use_some(),
        }
    }

    fn open(&mut self) -> Vec<Fact> {
        let mut deal = Deal::new(&self.host, &self.renter, self.host.seq << 16 | self.renter.seq);
        let open = deal.open(&mut self.renter, &self.host);
        let accept = deal.accept(&mut self.host, &self.renter);
        self.deals.push(deal);
        vec![Fact::Entry(open), Fact::Entry(accept)]
    }

    fn use_some(&mut self) -> Vec<Fact> {
        let n = self.dice.below(self.deals.len());
        let mut facts = Vec::new();
        let deal = &mut self.deals[n];
        for _ in 0..=self.dice.below(5) {
            facts.push(Fact::Usage(deal.usage(&self.host)));
            if self.dice.below(4) > 0 {
                let ack = deal.ack(&self.renter, 0);
                facts.push(Fact::Ack(ack.clone()));
                if self.dice.below(2) == 0 {
                    let body = Body::Anchor { usage: ack.usage, ack: ack.id(), due: ack.due };
                    facts.push(Fact::Entry(self.host.say(Some(deal.id), &self.renter, body)));
                }
            }
        }
        facts
    }

    /// An entry about the renter and no lease.
    fn about(&mut self, body: Body) -> Fact {
        Fact::Entry(self.host.say(None, &self.renter, body))
    }

    fn observe(&mut self) -> Fact {
        let from = Timestamp(START - START % UPTIME_WINDOW.0);
        self.about(Body::Probe(Observation::Uptime { from, up_permille: 990 }))
    }

    fn attest(&mut self) -> Fact {
        let claim = ["datacenter", "verified"][self.dice.below(2)].to_owned();
        self.about(Body::Attestation(Attestation { claim, until: None, withdrawn: false }))
    }

    fn pay(&mut self) -> Fact {
        self.paid += 1;
        self.about(Body::Settle(Settle {
            n: self.paid,
            currency: Currency::usd(),
            amount: Amount(7),
            total: Amount(u64::from(self.paid) * 7),
            method: "manual".to_owned(),
            reference: String::new(),
        }))
    }

    fn live(&mut self, ledger: &mut Ledger, turns: usize) {
        for _ in 0..turns {
            for fact in self.next() {
                assert_eq!(ledger.stage(&fact).unwrap(), Applied::New);
            }
            if self.dice.below(3) == 0 {
                ledger.commit().unwrap();
            }
        }
        ledger.commit().unwrap();
    }

    /// Compacts everything there is, as the thread and the node do.
    fn compact(&mut self, ledger: &mut Ledger) -> (u64, u64) {
        let prepared = ledger.plan(true).unwrap().unwrap().prepare(&Stop::default()).unwrap().unwrap();
        let counts = prepared.records();
        // Life goes on meanwhile.
        self.live(ledger, 5);
        let entry = self.host.say_of_itself(Body::Checkpoint(prepared.checkpoint().clone()));
        ledger.stage(&Fact::Entry(entry)).unwrap();
        ledger.commit().unwrap();
        assert_eq!(ledger.checkpoint().unwrap().as_ref(), Some(prepared.checkpoint()));
        self.live(ledger, 5);
        let built = prepared.build(&Stop::default(), ledger.durable_end()).unwrap();
        self.live(ledger, 5);
        ledger.install(built).unwrap();
        while ledger.sweep() {}
        counts
    }
}

fn open(disk: &SimulatedDisk, of: &Party) -> Result<Ledger, OpenError> {
    let (own, network) = (of.key.node_id(), of.network);
    Ledger::open_with(Arc::new(disk.clone()), SMALL, &Backend::Memory, own, network)
}

fn exported(ledger: &Ledger, filter: Filter) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(&ledger.view(), filter, &Party::new(1).key, &mut bytes).unwrap();
    bytes
}

fn checked(bytes: &[u8]) -> Report {
    verify_on(bytes, 1).unwrap()
}

/// The rows that must not change: all but the store's own, those of entries that are dropped, and the heads.
fn answers(ledger: &Ledger) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = ledger.view().all_rows().unwrap();
    rows.into_iter().filter(|(key, _)| !b"!eh".contains(&key[0])).collect()
}

#[test]
fn old_records_go_and_every_answer_stays() {
    for seed in 0..6 {
        let disk = SimulatedDisk::default();
        let (mut life, begin) = Life::new(seed);
        let mut ledger = open(&disk, &life.host).unwrap();
        for fact in &begin {
            ledger.stage(fact).unwrap();
        }
        for round in 0..3 {
            life.live(&mut ledger, 90);
            let (records, kept) = life.compact(&mut ledger);
            assert!(kept * 4 < records * 3, "seed {seed}, round {round}: {kept} of {records} are kept");
            let report = checked(&exported(&ledger, Filter::All));
            assert_eq!(report.verdict, Verdict::Valid, "seed {seed}, round {round}");
            assert!(report.left_out > 0, "seed {seed}, round {round}");
            for deal in &life.deals {
                let report = checked(&exported(&ledger, Filter::Lease(deal.id)));
                assert_eq!(report.verdict, Verdict::Valid, "seed {seed}, round {round}");
            }
            // What was built beside is what a start makes of the base.
            let again = open(&disk.copy(), &life.host).unwrap();
            assert!(
                again.view().all_rows().unwrap() == ledger.view().all_rows().unwrap(),
                "seed {seed}, round {round}"
            );
        }
        assert!(disk.list().unwrap().len() <= 3, "{:?}", disk.list().unwrap());
    }
}

#[test]
fn answers_after_compaction_are_those_of_the_whole_journal() {
    for seed in 20..26 {
        let disk = SimulatedDisk::default();
        let (mut life, begin) = Life::new(seed);
        let mut ledger = open(&disk, &life.host).unwrap();
        for fact in &begin {
            ledger.stage(fact).unwrap();
        }
        life.live(&mut ledger, 200);
        let plan = ledger.plan(true).unwrap().unwrap();
        let prepared = plan.prepare(&Stop::default()).unwrap().unwrap();
        let entry = life.host.say_of_itself(Body::Checkpoint(prepared.checkpoint().clone()));
        ledger.stage(&Fact::Entry(entry)).unwrap();
        ledger.commit().unwrap();
        let before = (answers(&ledger), checked(&exported(&ledger, Filter::All)));
        assert_eq!(before.1.verdict, Verdict::Valid);
        let head = ledger.view().head(&life.host.key.node_id()).unwrap();
        let built = prepared.build(&Stop::default(), ledger.durable_end()).unwrap();
        ledger.install(built).unwrap();
        assert!(answers(&ledger) == before.0, "seed {seed}");
        let after = checked(&exported(&ledger, Filter::All));
        assert_eq!((after.agreed, after.leases, after.forks), (before.1.agreed, before.1.leases, before.1.forks));
        assert_eq!(ledger.view().head(&life.host.key.node_id()).unwrap(), head);

        // Nothing that is gone lets us sign a number twice.
        let mut second = Party { seq: 3, prev: Some(DocumentId([9; 32])), ..life.host.clone() };
        let fork = life.deals.first().map(|deal| Fact::Entry(deal.close(&mut second, &life.renter)));
        assert!(fork.is_none_or(|fork| ledger.stage(&fork).is_err()), "seed {seed}");
        for deal in &life.deals {
            let old = Usage { prev: None, ..deal.usage_value(1, &life.host) };
            let old = Verified::sign(old, &life.host.key, &life.host.network).unwrap();
            let told = ledger.stage(&Fact::Usage(old));
            assert!(deal.n == 0 || !matches!(told, Ok(Applied::New)), "seed {seed}");
        }
    }
}

#[test]
fn nothing_can_be_hidden_before_a_cut() {
    let disk = SimulatedDisk::default();
    let (mut life, begin) = Life::new(7);
    let mut ledger = open(&disk, &life.host).unwrap();
    for fact in &begin {
        ledger.stage(fact).unwrap();
    }
    life.live(&mut ledger, 90);
    life.compact(&mut ledger);
    let whole = frames(&exported(&ledger, Filter::All));
    assert_eq!(checked(&joined(&whole, &life.host)).verdict, Verdict::Valid);
    let cut = whole.iter().position(|frame| frame == b"\x63cut").unwrap();
    let is_entry = |frame: &[u8]| frame.starts_with(b"\xa1\x65entry");
    // An author can always keep its newest entry to itself; nothing rests on it yet.
    let newest = whole.iter().rposition(|frame| is_entry(frame)).unwrap();
    let mut faults = [0, 0];
    // Each frame left out in turn, with a trailer that its author signs over what is left.
    for leave_out in (1..whole.len() - 1).filter(|n| *n != newest) {
        let mut frames = whole.clone();
        let gone = frames.remove(leave_out);
        let report = checked(&joined(&frames, &life.host));
        let invalid = matches!(report.verdict, Verdict::Invalid(_));
        // A receipt that another one repeats, a close above all, may be missing.
        assert!(invalid || !is_entry(&gone), "entry {leave_out} of {} can be left out before {cut}", whole.len());
        faults[usize::from(leave_out > cut)] += usize::from(invalid && !is_entry(&gone));
    }
    assert!(faults[0] > 0 && faults[1] > 0, "no receipt was missed: {faults:?}");
    // With the cut elsewhere.
    for to in [2, whole.len() - 3] {
        let mut frames = whole.clone();
        let moved = frames.remove(cut);
        frames.insert(to, moved);
        assert!(matches!(checked(&joined(&frames, &life.host)).verdict, Verdict::Invalid(_)), "cut at {to}");
    }
}

fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk() {
        let (frame, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

/// A file of these frames, the last of which is replaced by a right trailer.
fn joined(frames: &[Vec<u8>], by: &Party) -> Vec<u8> {
    crate::export::sealed(frames, &by.key, by.network)
}

#[test]
fn power_cuts_while_compacting_lose_nothing() {
    let rounds = std::env::var("SOUK_TEST_ROUNDS").map_or(16, |n| n.parse().unwrap());
    let (mut installed, mut cuts) = (0, 0);
    for seed in 0..rounds {
        let mut dice = Dice(seed ^ 0x5eed);
        let mut disk = SimulatedDisk::default();
        let (mut life, begin) = Life::new(seed);
        let mut ledger = open(&disk, &life.host).unwrap();
        for fact in &begin {
            ledger.stage(fact).unwrap();
        }
        life.live(&mut ledger, 60);
        for _ in 0..3 {
            let expected = answers(&ledger);
            disk.cut_after(dice.below(30));
            let done = try_compact(&mut life, &mut ledger);
            let acknowledged = life.host.seq;
            installed += usize::from(done);
            cuts += usize::from(!done);
            drop(ledger);
            disk = disk.reboot(&mut dice, seed % 2 == 0);
            ledger = open(&disk, &life.host).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(answers(&ledger) == expected, "seed {seed}");
            let head = ledger.view().head(&life.host.key.node_id()).unwrap().unwrap();
            assert!(head.seq + 1 >= acknowledged, "seed {seed}: an acknowledged entry is lost");
            life.host.seq = head.seq + 1;
            life.host.prev = Some(head.id);
            assert_eq!(checked(&exported(&ledger, Filter::All)).verdict, Verdict::Valid, "seed {seed}");
            life.live(&mut ledger, 10);
        }
    }
    assert!(installed > 2 && cuts > 5, "{installed} were installed, {cuts} cut");
}

/// Compacts on a disk whose power may go. The host's chain is left as it was acknowledged.
fn try_compact(life: &mut Life, ledger: &mut Ledger) -> bool {
    let Ok(Some(plan)) = ledger.plan(true) else { return false };
    let Ok(Some(prepared)) = plan.prepare(&Stop::default()) else { return false };
    let mut host = life.host.clone();
    let entry = host.say_of_itself(Body::Checkpoint(prepared.checkpoint().clone()));
    if ledger.stage(&Fact::Entry(entry)).is_err() || ledger.commit().is_err() {
        return false;
    }
    life.host = host;
    let Ok(built) = prepared.build(&Stop::default(), ledger.durable_end()) else { return false };
    let done = ledger.install(built).is_ok();
    while ledger.sweep() {}
    done
}

#[test]
fn a_base_that_is_damaged_is_named_and_nothing_is_removed() {
    let disk = SimulatedDisk::default();
    let (mut life, begin) = Life::new(3);
    let mut ledger = open(&disk, &life.host).unwrap();
    for fact in &begin {
        ledger.stage(fact).unwrap();
    }
    life.live(&mut ledger, 100);
    life.compact(&mut ledger);
    drop(ledger);
    let name = disk.list().unwrap().into_iter().find(|name| name.contains(".base")).unwrap();
    let len = disk.open(&name, false).unwrap().len().unwrap() as usize;
    let mut dice = Dice(1);
    for _ in 0..100 {
        let bad = disk.copy();
        let at = dice.below(len);
        bad.edit(&name, |bytes| bytes[at] ^= 1 << dice.below(8));
        let before = bad.list().unwrap();
        match open(&bad, &life.host) {
            // Kept records are read only when somebody asks for them.
            Ok(ledger) => {
                let mut reader = ledger.view().records();
                let mut damaged = false;
                loop {
                    match reader.next_item() {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(e) => {
                            damaged = matches!(e, JournalError::Corrupt { .. });
                            break;
                        }
                    }
                }
                // The magic word and the index are not read on the way.
                let unread = at < 40 || at + 96 + 16 * 200 > len;
                assert!(damaged || unread, "byte {at} of {len}");
            }
            Err(OpenError::Journal(e @ JournalError::Corrupt { .. })) => {
                assert!(e.to_string().contains(&name), "{e}");
            }
            Err(e) => panic!("byte {at}: {e}"),
        }
        assert_eq!(bad.list().unwrap(), before);
    }
    // Gone altogether.
    disk.remove(&name).unwrap();
    let error = open(&disk, &life.host).unwrap_err();
    assert!(matches!(error, OpenError::Journal(JournalError::Missing { .. })), "{error}");
}

#[test]
fn on_a_real_disk_the_store_is_made_beside_and_the_old_one_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (mut life, begin) = Life::new(5);
    let mut ledger = on_disk(directory.path(), &life.host).unwrap();
    for fact in &begin {
        ledger.stage(fact).unwrap();
    }
    life.live(&mut ledger, 300);
    let view = ledger.view();
    // A reader that began before reads on.
    let mut reader = view.records();
    let first = reader.next_item().unwrap().unwrap().record.to_vec();
    life.compact(&mut ledger);
    assert!(names(&directory.path().join("journal")).len() > 3, "a reader's files were removed");
    let mut read = 1;
    while reader.next_item().unwrap().is_some() {
        read += 1;
    }
    assert!(read > 500, "{read}");
    drop(reader);
    while ledger.sweep() {}
    let files = names(&directory.path().join("journal"));
    assert_eq!(files.iter().filter(|name| name.ends_with(".base")).count(), 1, "{files:?}");
    assert!(files.len() <= 3, "{files:?}");
    let stores: Vec<_> = names(directory.path()).into_iter().filter(|name| name.starts_with("sled")).collect();
    assert_eq!(stores.len(), 1, "{stores:?}");
    assert!(stores[0].starts_with("sled-"), "{stores:?}");
    assert_eq!(view.records().next_item().unwrap().unwrap().record, first);
    let rows = view.all_rows().unwrap();
    let last = view.entry(&life.host.key.node_id(), life.host.seq - 1).unwrap();
    assert!(last.is_some());
    drop((view, ledger));
    let again = on_disk(directory.path(), &life.host).unwrap();
    assert!(again.view().all_rows().unwrap() == rows);
    drop(again);
    std::fs::remove_dir_all(directory.path().join(&stores[0])).unwrap();
    let anew = on_disk(directory.path(), &life.host).unwrap();
    assert!(anew.view().all_rows().unwrap() == rows);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
