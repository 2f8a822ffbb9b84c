#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    simulated::{Dice, SimulatedDisk},
    *,
};

const SMALL: Sizes = Sizes { segment: 8 << 10, first: 1 << 10, step: 2 << 10, replace: 32 << 10 };

fn open(disk: &SimulatedDisk) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.clone()), SMALL, None).map(|(journal, _)| journal)
}

fn read_all(journal: &Journal) -> Result<Vec<Vec<u8>>, JournalError> {
    let mut reader = Reader::from_first(journal.disk(), journal.generation(), journal.end());
    let mut records = Vec::new();
    while let Some(item) = reader.next_item()? {
        assert_eq!(item.mark.at.index, records.len() as u64);
        records.push(item.record.to_vec());
    }
    Ok(records)
}

/// A record that names its index, of some length, sometimes looking like frames itself.
fn record(index: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = (index as u64).to_le_bytes().to_vec();
    let filler = [0x00, 0x80, 0xff, 0x01][dice.below(4)];
    bytes.resize(8 + dice.below(900), filler);
    bytes
}

/// Appends groups until the disk fails or `groups` are done; returns how many records are known to be durable.
fn append_groups(
    journal: &mut Journal,
    written: &mut Vec<Vec<u8>>,
    dice: &mut Dice,
    groups: usize,
) -> (usize, Result<(), JournalError>) {
    let mut durable = written.len();
    for _ in 0..groups {
        for _ in 0..=dice.below(6) {
            let bytes = record(written.len(), dice);
            written.push(bytes.clone());
            if let Err(e) = journal.append(&bytes) {
                return (durable, Err(e));
            }
        }
        if let Err(e) = journal.sync() {
            return (durable, Err(e));
        }
        durable = written.len();
    }
    (durable, Ok(()))
}

#[test]
fn records_come_back_in_order_over_many_segments() {
    let disk = SimulatedDisk::default();
    let mut dice = Dice(1);
    let mut written = Vec::new();
    for _ in 0..3 {
        let mut journal = open(&disk).unwrap();
        assert_eq!(read_all(&journal).unwrap(), written);
        append_groups(&mut journal, &mut written, &mut dice, 20).1.unwrap();
        assert_eq!(read_all(&journal).unwrap(), written);
    }
    assert!(disk.list().unwrap().len() > 5);
}

#[test]
fn no_acknowledged_record_is_lost_in_power_cuts() {
    let rounds = std::env::var("SOUK_TEST_ROUNDS").map_or(600, |n| n.parse().unwrap());
    let mut cuts = 0;
    for seed in 0..rounds {
        let mut dice = Dice(seed);
        let mut disk = SimulatedDisk::default();
        let mut written: Vec<Vec<u8>> = Vec::new();
        let mut durable = 0;
        for generation in 0..4 {
            let reorder = (seed + generation) % 2 == 0;
            disk.cut_after(dice.below(60));
            let outcome = open(&disk);
            if let Ok(mut journal) = outcome {
                let found = read_all(&journal).unwrap();
                assert!(found.len() >= durable, "seed {seed}: lost records");
                assert_eq!(found, written[..found.len()], "seed {seed}");
                written = found;
                let (kept, result) = append_groups(&mut journal, &mut written, &mut dice, 30);
                durable = kept;
                cuts += usize::from(result.is_err());
            } else {
                // The cut came while opening; anything but the failing disk is a bug.
                assert!(matches!(outcome, Err(JournalError::Io { .. })), "seed {seed}: {outcome:?}");
            }
            disk = disk.reboot(&mut dice, reorder);
        }
        let journal = open(&disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let found = read_all(&journal).unwrap();
        assert!(found.len() >= durable, "seed {seed}: lost records");
        assert_eq!(found, written[..found.len()], "seed {seed}");
    }
    assert!(cuts > 100, "the cuts missed the journal: {cuts}");
}

/// A journal of some groups over three segments, with where its last group begins.
fn sample() -> (SimulatedDisk, Vec<Vec<u8>>, Position) {
    let disk = SimulatedDisk::default();
    let mut journal = open(&disk).unwrap();
    let (mut written, mut dice) = (Vec::new(), Dice(7));
    append_groups(&mut journal, &mut written, &mut dice, 16).1.unwrap();
    let last_group = journal.end();
    append_groups(&mut journal, &mut written, &mut dice, 1).1.unwrap();
    (disk, written, last_group)
}

fn outcome(disk: &SimulatedDisk) -> Result<Vec<Vec<u8>>, JournalError> {
    open(disk).and_then(|journal| read_all(&journal))
}

#[test]
fn a_changed_byte_is_an_error_unless_it_could_be_a_torn_end() {
    let (disk, written, last_group) = sample();
    for name in disk.list().unwrap() {
        let len = usize::try_from(disk.open(&name, false).unwrap().len().unwrap()).unwrap();
        for at in (0..len).step_by(3) {
            let damaged = disk.copy();
            damaged.edit(&name, |bytes| bytes[at] ^= 0x41);
            match outcome(&damaged) {
                Ok(found) => {
                    assert!(found.len() as u64 >= last_group.index, "{name} byte {at}");
                    assert_eq!(found, written[..found.len()]);
                }
                Err(JournalError::Corrupt { file, .. }) => {
                    assert!(file.ends_with(&name), "{name} byte {at}: {}", file.display());
                }
                Err(e) => panic!("{name} byte {at}: {e}"),
            }
        }
    }
}

#[test]
fn a_segment_cut_short_or_gone_is_an_error() {
    let (disk, ..) = sample();
    let names = disk.list().unwrap();
    let cut = disk.copy();
    cut.edit(&names[0], |bytes| bytes.truncate(3000));
    assert!(matches!(outcome(&cut), Err(JournalError::Corrupt { .. })));
    // Zeros where a segment's last record was look like its end, but the next segment knows how many there were.
    let zeroed = disk.copy();
    zeroed.edit(&names[0], |bytes| bytes[7000..].fill(0));
    let error = outcome(&zeroed).unwrap_err();
    assert!(error.to_string().contains("000000000001.journal is damaged at byte"), "{error}");
    let gone = disk.copy();
    gone.remove(&names[1]).unwrap();
    assert!(matches!(outcome(&gone), Err(JournalError::Missing { .. })));
}

#[test]
fn a_mark_skips_what_lies_before_it_and_knows_its_own_journal() {
    let disk = SimulatedDisk::default();
    let mut journal = open(&disk).unwrap();
    let mark = journal.append(b"one").unwrap();
    let after = journal.end();
    journal.append(b"two").unwrap();
    journal.sync().unwrap();
    let end = journal.end();

    let arc = || Arc::new(disk.clone());
    let (journal, start) = Journal::open(arc(), SMALL, Some(mark)).unwrap();
    assert_eq!((start, journal.end()), (Start::After(after), end));

    let foreign = Mark { crc: !mark.crc, ..mark };
    let (_, start) = Journal::open(arc(), SMALL, Some(foreign)).unwrap();
    assert_eq!(start, Start::Beginning);

    let ahead = Mark { at: end, crc: 1 };
    assert!(matches!(Journal::open(arc(), SMALL, Some(ahead)), Err(JournalError::Behind { .. })));
}

#[test]
fn sizes_outside_the_limits_are_refused_and_harmless() {
    let disk = SimulatedDisk::default();
    let mut journal = open(&disk).unwrap();
    assert!(matches!(journal.append(&[]), Err(JournalError::Size { .. })));
    assert!(matches!(journal.append(&vec![1; RECORD_BYTES + 1]), Err(JournalError::Size { .. })));
    // A record longer than a segment has one to itself.
    let long = vec![3; RECORD_BYTES];
    for record in [&b"a"[..], &long, b"b"] {
        journal.append(record).unwrap();
    }
    journal.sync().unwrap();
    assert_eq!(outcome(&disk).unwrap(), [b"a".to_vec(), long, b"b".to_vec()]);
}

#[test]
fn after_a_failed_flush_nothing_more_is_taken() {
    let disk = SimulatedDisk::default();
    let mut journal = open(&disk).unwrap();
    disk.cut_after(0);
    journal.append(b"x").unwrap();
    assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
    assert!(matches!(journal.sync(), Err(JournalError::Poisoned)));
    assert!(matches!(journal.append(b"y"), Err(JournalError::Poisoned)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn whatever_is_overwritten_the_answer_is_a_prefix_or_an_error(
        file in 0usize..3,
        at in 0usize..9000,
        junk in prop::collection::vec(any::<u8>(), 0..600),
        cut in proptest::option::of(0usize..9000),
    ) {
        let (disk, written, last_group) = sample();
        let names = disk.list().unwrap();
        let name = &names[file.min(names.len() - 1)];
        disk.edit(name, |bytes| {
            let from = at.min(bytes.len());
            let to = (from + junk.len()).min(bytes.len());
            bytes[from..to].copy_from_slice(&junk[..to - from]);
            if let Some(cut) = cut {
                bytes.truncate(cut);
            }
        });
        if let Ok(found) = outcome(&disk) {
            prop_assert_eq!(&found[..], &written[..found.len()]);
            // Only a cut file, or junk that reaches into the last group, hides that more was there.
            let last = name == &segment::name(last_group.segment);
            let hidden = cut.is_some() || (last && (at + junk.len()) as u64 > last_group.offset);
            prop_assert!(hidden || found.len() as u64 >= last_group.index);
        }
    }
}
