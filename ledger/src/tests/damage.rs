//! Files that are damaged, lost, cut off by the power, or in use.

use std::{fs, path::Path, sync::Arc};

use super::{SMALL, on_disk, rows, story, tell};
use crate::{
    commit::{Backend, Ledger, OpenError},
    journal::{
        JournalError,
        simulated::{Dice, SimulatedDisk},
    },
    record::Fact,
};

#[test]
fn a_damaged_store_is_made_anew_with_the_same_answers() {
    let (host, _, facts, _) = story(12, 60);
    let original = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(original.path(), &host).unwrap();
    tell(&mut ledger, &facts, &mut Dice(5));
    let expected = rows(&ledger);
    drop(ledger);
    let mut rebuilt = 0;
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let copy = tempfile::tempdir().unwrap();
        copy_tree(original.path(), copy.path());
        damage(&copy.path().join("sled"), &mut dice);
        let ledger = on_disk(copy.path(), &host).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(rows(&ledger), expected, "seed {seed}");
        rebuilt += usize::from(
            fs::read_dir(copy.path()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains(".bad-")),
        );
    }
    assert!(rebuilt >= 10, "the damage was not noticed: {rebuilt}");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn damage(sled: &Path, dice: &mut Dice) {
    let mut files: Vec<_> = fs::read_dir(sled).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.sort();
    let file = &files[dice.below(files.len())];
    let mut bytes = fs::read(file).unwrap();
    match dice.below(5) {
        0 => fs::remove_file(file).unwrap(),
        1 => {
            bytes.truncate(dice.below(bytes.len()));
            fs::write(file, bytes).unwrap();
        }
        2 => fs::write(sled.join("snap.000000000000ABCD.generating"), b"half").unwrap(),
        3 => {
            let at = dice.below(bytes.len());
            let end = (at + 1 + dice.below(4096)).min(bytes.len());
            bytes[at..end].fill_with(|| dice.next() as u8);
            fs::write(file, bytes).unwrap();
        }
        _ => {
            for _ in 0..200 {
                let at = dice.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = dice.next() as u8;
                }
            }
            fs::write(file, bytes).unwrap();
        }
    }
}

#[test]
fn power_cuts_lose_no_committed_record() {
    let (host, _, facts, _) = story(13, 12);
    for seed in 0..150 {
        let mut dice = Dice(seed);
        let mut disk = SimulatedDisk::default();
        let mut committed = 0;
        for _ in 0..3 {
            disk.cut_after(dice.below(80));
            let (own, network) = (host.key.node_id(), host.network);
            let opened = Ledger::open_with(Arc::new(disk.clone()), SMALL, &Backend::Memory, own, network);
            if let Ok(mut ledger) = opened {
                let mut done = check_prefix(&ledger, &facts, seed);
                assert!(done >= committed, "seed {seed}: lost records");
                for fact in &facts[done..] {
                    if ledger.stage(fact).is_err() {
                        break;
                    }
                    done += 1;
                    if dice.below(3) == 0 {
                        if ledger.commit().is_err() {
                            break;
                        }
                        committed = done;
                    }
                }
            }
            disk = disk.reboot(&mut dice, seed % 2 == 0);
        }
        let (own, network) = (host.key.node_id(), host.network);
        let ledger = Ledger::open_with(Arc::new(disk), SMALL, &Backend::Memory, own, network)
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(check_prefix(&ledger, &facts, seed) >= committed, "seed {seed}: lost records");
    }
}

/// Checks that a ledger holds the first so many facts, and returns how many.
fn check_prefix(ledger: &Ledger, facts: &[Fact], seed: u64) -> usize {
    let mut reader = ledger.view().records();
    let mut held = 0;
    while let Some(item) = reader.next_item().unwrap() {
        assert_eq!(item.record, facts[held].to_record().to_bytes(), "seed {seed}");
        held += 1;
    }
    held
}

#[test]
fn a_damaged_journal_is_named_and_nothing_is_removed() {
    let (host, _, facts, _) = story(14, 60);
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(directory.path(), &host).unwrap();
    tell(&mut ledger, &facts, &mut Dice(5));
    drop(ledger);
    fs::remove_dir_all(directory.path().join("sled")).unwrap();
    let file = directory.path().join("journal/000000000001.journal");
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let error = on_disk(directory.path(), &host).unwrap_err();
    assert!(matches!(error, OpenError::Journal(JournalError::Corrupt { .. })), "{error}");
    assert!(error.to_string().contains("000000000001.journal is damaged at byte"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn a_journal_older_than_its_store_is_refused() {
    let (host, _, facts, _) = story(15, 10);
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(directory.path(), &host).unwrap();
    tell(&mut ledger, &facts[..20], &mut Dice(5));
    drop(ledger);
    let saved = tempfile::tempdir().unwrap();
    copy_tree(&directory.path().join("journal"), saved.path());
    let mut ledger = on_disk(directory.path(), &host).unwrap();
    tell(&mut ledger, &facts[20..], &mut Dice(5));
    ledger.flush_store().unwrap();
    drop(ledger);
    copy_tree(saved.path(), &directory.path().join("journal"));
    let error = on_disk(directory.path(), &host).unwrap_err();
    assert!(matches!(error, OpenError::Journal(JournalError::Behind { .. })), "{error}");
}

#[test]
fn a_store_in_use_is_left_alone() {
    let (host, _, facts, _) = story(20, 3);
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(directory.path(), &host).unwrap();
    tell(&mut ledger, &facts, &mut Dice(5));
    let view = ledger.view();
    drop(ledger);
    let error = on_disk(directory.path(), &host).unwrap_err();
    assert!(error.to_string().contains("still in use"), "{error}");
    drop(view);
    on_disk(directory.path(), &host).unwrap();
    let aside =
        fs::read_dir(directory.path()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains(".bad-"));
    assert!(!aside, "a store in use was moved aside");
}
