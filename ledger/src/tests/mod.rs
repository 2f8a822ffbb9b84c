//! The whole ledger: what was acknowledged is there, whatever happens to the files, and the same records make the same rows.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use souk_protocol::{
    Timestamp,
    lease::LeaseState,
    message::{Cause, EventCode, LeaseEvent},
};

mod asked;
mod compact;
mod damage;
mod names;

use crate::{
    chain::ForkProof,
    check::{both_sides_agree, money_conserved},
    commit::{Backend, Ledger, OpenError, StageError, StoreFailure},
    fixture::{Deal, Party},
    journal::{
        RealDisk, Sizes,
        simulated::{Dice, SimulatedDisk},
    },
    lease::Status,
    record::{Fact, Private},
    state::Applied,
    thread::{AppendError, Event, LedgerThread, Ticket, WaitError},
    view::Select,
};

const SMALL: Sizes = Sizes { segment: 64 << 10, first: 4 << 10, step: 16 << 10, replace: 128 << 10 };

/// What a host's and a renter's ledgers are told in some leases, in order. Private rows are each side's own.
fn story(seed: u64, leases: u64) -> (Party, Party, Vec<Fact>, Vec<Fact>) {
    let mut dice = Dice(seed);
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let (mut left, mut right) = (vec![Fact::Entry(host.genesis())], vec![Fact::Entry(renter.genesis())]);
    for number in 0..leases {
        let mut deal = Deal::new(&host, &renter, number);
        let mut both = |fact: Fact| {
            left.push(fact.clone());
            right.push(fact);
        };
        both(Fact::Entry(deal.open(&mut renter, &host)));
        if dice.below(8) == 0 {
            continue;
        }
        both(Fact::Entry(deal.accept(&mut host, &renter)));
        for _ in 0..dice.below(6) {
            both(Fact::Usage(deal.usage(&host)));
            if dice.below(3) > 0 {
                both(Fact::Ack(deal.ack(&renter, (dice.below(2) * 3) as u64)));
            }
        }
        both(Fact::Private(Private::Event { lease: deal.id, event: event(1, number) }));
        let text = if dice.below(3) == 0 { "train".to_owned() } else { format!("job-{number}") };
        both(Fact::Private(Private::Label { lease: deal.id, text }));
        if dice.below(2) == 0 {
            let close = deal.close(&mut renter, &host);
            both(Fact::Entry(close.clone()));
            both(Fact::Entry(deal.close_ack(&close, &mut host, &renter)));
        }
        left.push(Fact::Private(Private::Row {
            key: format!("bid/{number}").into_bytes(),
            value: Some(vec![7; dice.below(300)].into()),
        }));
    }
    (host, renter, left, right)
}

fn event(n: u32, at: u64) -> LeaseEvent {
    LeaseEvent {
        n,
        at: Timestamp(at),
        state: LeaseState::Running,
        what: EventCode::State,
        by: Cause::Host,
        exit_code: None,
        note: "running".to_owned(),
    }
}

fn tell(ledger: &mut Ledger, facts: &[Fact], dice: &mut Dice) {
    for fact in facts {
        assert_eq!(ledger.stage(fact).unwrap(), Applied::New);
        if dice.below(4) == 0 {
            ledger.commit().unwrap();
        }
    }
    ledger.commit().unwrap();
}

fn in_memory(of: &Party) -> Ledger {
    let disk = Arc::new(SimulatedDisk::default());
    let (own, network) = (of.key.node_id(), of.network);
    Ledger::open_with(disk, SMALL, &Backend::Memory, own, network).unwrap()
}

fn on_disk(directory: &Path, of: &Party) -> Result<Ledger, OpenError> {
    let disk = RealDisk::new(&directory.join("journal")).unwrap();
    let backend = Backend::Sled(directory.join("sled"));
    Ledger::open_with(Arc::new(disk), SMALL, &backend, of.key.node_id(), of.network)
}

fn rows(ledger: &Ledger) -> Vec<(Vec<u8>, Vec<u8>)> {
    ledger.view().all_rows().unwrap()
}

#[test]
fn both_sides_of_a_story_agree_and_money_is_conserved() {
    for seed in 0..5 {
        let (host, renter, left, right) = story(seed, 30);
        let (mut a, mut b) = (in_memory(&host), in_memory(&renter));
        tell(&mut a, &left, &mut Dice(1));
        tell(&mut b, &right, &mut Dice(2));
        both_sides_agree(&a.view(), &b.view()).unwrap();
        money_conserved(&a.view(), &b.view()).unwrap();
        let view = a.view();
        let all = view.leases(Select::All, 1000).unwrap();
        assert_eq!(all.len(), 30);
        let by_status: usize = Status::ALL.iter().map(|s| view.leases(Select::Status(*s), 1000).unwrap().len()).sum();
        assert_eq!(by_status, 30);
        assert!(all.windows(2).all(|w| w[0].opened_at() >= w[1].opened_at()));
        assert_eq!(view.leases(Select::Renter(renter.key.node_id()), 7).unwrap().len(), 7);
        assert!(view.leases(Select::Host(renter.key.node_id()), 7).unwrap().is_empty());
        assert_eq!(view.head(&host.key.node_id()).unwrap().unwrap().seq, host.seq - 1);
        assert_eq!(
            view.private(b"bid/29").unwrap().is_some(),
            left.iter().any(|f| matches!(f, Fact::Private(Private::Row { key, .. }) if key == b"bid/29"))
        );
    }
}

#[test]
fn a_missing_receipt_is_seen_as_a_disagreement() {
    let (host, renter, left, right) = story(3, 10);
    let (mut a, mut b) = (in_memory(&host), in_memory(&renter));
    tell(&mut a, &left, &mut Dice(1));
    let last_ack = right.iter().rposition(|f| matches!(f, Fact::Ack(_))).unwrap();
    for (i, fact) in right.iter().enumerate() {
        if i != last_ack {
            // What built on the missing one is refused in turn.
            drop(b.stage(fact));
        }
    }
    b.commit().unwrap();
    assert!(both_sides_agree(&a.view(), &b.view()).is_err() || money_conserved(&a.view(), &b.view()).is_err());
}

#[test]
fn the_same_records_make_the_same_rows_in_sled_in_memory_and_after_replay() {
    let (host, _, facts, _) = story(11, 40);
    let mut memory = in_memory(&host);
    tell(&mut memory, &facts, &mut Dice(5));
    let directory = tempfile::tempdir().unwrap();
    let mut sled = on_disk(directory.path(), &host).unwrap();
    // The same groups, or the mark of the last would differ only by chance.
    tell(&mut sled, &facts, &mut Dice(5));
    assert_eq!(rows(&memory), rows(&sled));
    drop(sled);
    let again = on_disk(directory.path(), &host).unwrap();
    assert_eq!(rows(&memory), rows(&again));
    drop(again);
    fs::remove_dir_all(directory.path().join("sled")).unwrap();
    let replayed = on_disk(directory.path(), &host).unwrap();
    assert_eq!(rows(&memory), rows(&replayed));
}

#[test]
fn whatever_order_records_come_in_what_was_taken_replays_to_the_same_rows() {
    let mut taken = 0;
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let (host, renter, left, right) = story(seed, 6);
        let mut facts = [left, right].concat();
        for _ in 0..dice.below(20) {
            let (a, b) = (dice.below(facts.len()), dice.below(facts.len()));
            facts.swap(a, b);
        }
        for of in [&host, &renter] {
            let disk = SimulatedDisk::default();
            let (own, network) = (of.key.node_id(), of.network);
            let open = || {
                let disk = Arc::new(disk.clone());
                Ledger::open_with(disk, SMALL, &Backend::Memory, own, network).unwrap()
            };
            let mut ledger = open();
            for fact in &facts {
                match ledger.stage(fact) {
                    Ok(_) => taken += 1,
                    Err(StageError::Refused(_)) => {}
                    Err(StageError::Failed(failure)) => panic!("seed {seed}: {failure}"),
                }
                if dice.below(5) == 0 {
                    ledger.commit().unwrap();
                }
            }
            ledger.commit().unwrap();
            assert_eq!(rows(&open()), rows(&ledger), "seed {seed}");
        }
    }
    assert!(taken > 1000, "{taken}");
}

fn count(ledger: &Ledger) -> u64 {
    let mut reader = ledger.view().records();
    let mut count = 0;
    while reader.next_item().unwrap().is_some() {
        count += 1;
    }
    count
}

#[test]
fn another_nodes_journal_is_refused() {
    let (host, renter, facts, _) = story(16, 3);
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(directory.path(), &host).unwrap();
    tell(&mut ledger, &facts, &mut Dice(5));
    drop(ledger);
    let error = on_disk(directory.path(), &renter).unwrap_err();
    assert!(matches!(error, OpenError::Refused { index: 0, .. }), "{error}");
}

#[test]
fn a_thread_acknowledges_in_order_and_reports_refusals_and_forks() {
    let (host, renter, facts, _) = story(17, 20);
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let thread = LedgerThread::spawn(in_memory(&host), move |event| {
        sink.lock().unwrap().push(event);
    })
    .unwrap();
    let handle = thread.handle();
    let mut last = Ticket(0);
    for fact in &facts {
        last = handle.append_blocking(fact.clone()).unwrap();
    }
    assert_eq!(last, Ticket(facts.len() as u64));
    handle.wait(last).unwrap();
    assert_eq!(handle.view().lease_ids().unwrap().len(), 20);

    // A gap in our own chain is refused, a counterparty's fork is kept.
    let mut ahead = host.clone();
    ahead.seq += 1;
    let mut deal = Deal::new(&host, &renter, 99);
    deal.open = Some(souk_protocol::DocumentId([1; 32]));
    let gap = handle.append(Fact::Entry(deal.accept(&mut ahead, &renter))).unwrap();
    assert!(matches!(handle.wait(gap), Err(WaitError::Refused(_))));
    let mut forked = renter.clone();
    forked.seq = 1;
    forked.prev = Some(souk_protocol::DocumentId([5; 32]));
    let fork = handle.append(Fact::Entry(deal.open(&mut forked, &host))).unwrap();
    handle.wait(fork).unwrap();
    let proof = handle.view().fork(&renter.key.node_id()).unwrap().unwrap();
    assert!(matches!(proof, ForkProof::Entries(..)));
    assert_eq!(proof.verify(&host.network), Ok(renter.key.node_id()));

    thread.shutdown().unwrap();
    assert_eq!(handle.append(facts[0].clone()), Err(AppendError::Closed));
    let events = events.lock().unwrap();
    let mut durable = 0;
    for event in events.iter() {
        match event {
            Event::Durable(ticket) => {
                assert!(ticket.0 > durable);
                durable = ticket.0;
            }
            Event::Refused(ticket, _) => assert_eq!(*ticket, gap),
            Event::Fork(ticket, _) => assert_eq!(*ticket, fork),
            Event::Checkpoint(_) => panic!("there is nothing to compact"),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
    assert_eq!(durable, fork.0);
}

#[test]
fn after_a_failed_flush_nothing_is_acknowledged() {
    let (host, _, facts, _) = story(18, 20);
    let disk = SimulatedDisk::default();
    let (own, network) = (host.key.node_id(), host.network);
    let ledger = Ledger::open_with(Arc::new(disk.clone()), SMALL, &Backend::Memory, own, network).unwrap();
    let failed = Arc::new(Mutex::new(0));
    let sink = Arc::clone(&failed);
    let thread = LedgerThread::spawn(ledger, move |event| {
        if matches!(event, Event::Failed(_)) {
            *sink.lock().unwrap() += 1;
        }
    })
    .unwrap();
    let handle = thread.handle();
    handle.wait(handle.append(facts[0].clone()).unwrap()).unwrap();
    disk.cut_after(0);
    let lost = handle.append(facts[1].clone()).unwrap();
    assert!(matches!(handle.wait(lost), Err(WaitError::Failed(_))));
    assert!(thread.shutdown().is_err());
    assert_eq!(*failed.lock().unwrap(), 1);
    assert_eq!(handle.append(facts[2].clone()), Err(AppendError::Closed));
}

#[test]
fn a_refused_record_leaves_the_group_as_it_was() {
    let (host, _, facts, _) = story(19, 5);
    let mut ledger = in_memory(&host);
    ledger.stage(&facts[0]).unwrap();
    let pending = ledger.pending_bytes();
    assert_eq!(ledger.stage(&facts[0]).unwrap(), Applied::Known);
    let long = Fact::Private(Private::Row { key: vec![1], value: Some(vec![0; crate::journal::RECORD_BYTES].into()) });
    for bad in [&facts[2], &long] {
        assert!(matches!(ledger.stage(bad), Err(StageError::Refused(_))));
    }
    assert_eq!(ledger.pending_bytes(), pending);
    ledger.commit().unwrap();
    assert_eq!(count(&ledger), 1);
    let _: Result<(), StoreFailure> = ledger.commit();
}
