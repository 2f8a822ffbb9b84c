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
#[expect(clippy::print_stdout, reason = "figures of a long run")]
fn a_damaged_store_is_made_anew_with_the_same_answers() {
    let (host, _, facts, _) = story(12, 60);
    let original = tempfile::tempdir().unwrap();
    let mut ledger = on_disk(original.path(), &host).unwrap();
    tell(&mut ledger, &facts, &mut Dice(5));
    let expected = rows(&ledger);
    drop(ledger);
    let mut rebuilt = 0;
    let rounds = rounds(40);
    for seed in 0..rounds {
        let mut dice = Dice(seed);
        let copy = tempfile::tempdir().unwrap();
        copy_tree(original.path(), copy.path());
        damage(&copy.path().join("sled"), &mut dice);
        let ledger = on_disk(copy.path(), &host).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(rows(&ledger) == expected, "seed {seed}");
        rebuilt += u64::from(
            fs::read_dir(copy.path()).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains(".bad-")),
        );
    }
    println!("{rebuilt} of {rounds} damaged stores were made anew, the others healed or caught up");
    assert!(rebuilt * 4 >= rounds, "the damage was not noticed: {rebuilt}");
}

/// Rounds of what takes long: `SOUK_TEST_ROUNDS`, or so many.
fn rounds(usual: u64) -> u64 {
    std::env::var("SOUK_TEST_ROUNDS").map_or(usual, |n| n.parse().unwrap())
}

/// A power cut on journal and sled together. The journal's disk is simulated: what was not flushed survives by chance. Sled
/// flushes nothing, so any sector of its files may be as old as the directory: each is taken from one of several moments.
#[test]
#[expect(clippy::print_stdout, reason = "figures of a long run")]
fn power_cuts_on_journal_and_sled_lose_nothing_and_fork_nothing() {
    let (host, _, facts, _) = story(21, 40);
    let (own, network) = (host.key.node_id(), host.network);
    let (mut anew, mut mixed) = (0, 0);
    for seed in 0..rounds(24) {
        let mut dice = Dice(seed ^ 0xdead);
        let directory = tempfile::tempdir().unwrap();
        let backend = Backend::Sled(directory.path().join("sled"));
        let mut disk = SimulatedDisk::default();
        let mut committed = 0;
        for generation in 0..3 {
            let mut ledger = Ledger::open_with(Arc::new(disk.clone()), SMALL, &backend, own, network)
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let mut done = check_prefix(&ledger, &facts, seed);
            assert!(done >= committed, "seed {seed}, generation {generation}: lost records");
            let anew_rows = {
                let ledger = Ledger::open_with(Arc::new(disk.copy()), SMALL, &Backend::Memory, own, network).unwrap();
                rows(&ledger)
            };
            assert!(rows(&ledger) == anew_rows, "seed {seed}, generation {generation}: other answers");
            // The next number is the one after what is there: the same story goes on, and any other would be refused.
            let moments = tempfile::tempdir().unwrap();
            disk.cut_after(20 + dice.below(60));
            let mut moment = 0;
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
                    if dice.below(2) == 0 {
                        drop(ledger.flush_store());
                        copy_tree(&directory.path().join("sled"), &moments.path().join(moment.to_string()));
                        moment += 1;
                    }
                }
            }
            drop(ledger);
            copy_tree(&directory.path().join("sled"), &moments.path().join(moment.to_string()));
            mixed += mix(moments.path(), moment + 1, &directory.path().join("sled"), seed % 2 == 0, &mut dice);
            disk = disk.reboot(&mut dice, seed % 2 == 0);
        }
        let ledger = Ledger::open_with(Arc::new(disk), SMALL, &backend, own, network).unwrap();
        assert!(check_prefix(&ledger, &facts, seed) >= committed, "seed {seed}: lost records");
        let aside = names(directory.path()).iter().any(|name| name.contains(".bad-"));
        anew += u64::from(aside);
    }
    // Sled goes on from the last state that is whole; the ledger catches up from there, or makes the store anew.
    println!("{mixed} files came back other than they were, {anew} stores were made anew");
    assert!(mixed > 0, "the cuts missed the store");
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Makes each file of a store from its states at some moments: sector by sector, or as it was at one of them.
fn mix(moments: &Path, count: usize, store: &Path, reorder: bool, dice: &mut Dice) -> u64 {
    let mut changed = 0;
    let one = dice.below(count);
    for file in names(store) {
        let states: Vec<Vec<u8>> =
            (0..count).filter_map(|n| fs::read(moments.join(n.to_string()).join(&file)).ok()).collect();
        if states.is_empty() || !store.join(&file).is_file() {
            continue;
        }
        let newest = states.last().unwrap();
        let mut bytes = newest.clone();
        if !reorder {
            bytes.clone_from(states.get(one.min(states.len() - 1)).unwrap());
        } else if dice.below(3) > 0 {
            for (n, sector) in bytes.chunks_mut(512).enumerate() {
                let state = &states[dice.below(states.len())];
                match (dice.below(4), state.get(n * 512..n * 512 + sector.len())) {
                    (0, Some(old)) => sector.copy_from_slice(old),
                    // The length came through, the data did not.
                    (1, None) => sector.fill(0),
                    _ => {}
                }
            }
        }
        changed += u64::from(bytes != *newest);
        fs::write(store.join(&file), bytes).unwrap();
    }
    changed
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

fn files_of(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_of(&path, files) } else { files.push(path) }
    }
}

fn damage(sled: &Path, dice: &mut Dice) {
    let mut files = Vec::new();
    files_of(sled, &mut files);
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
