//! Two verifiers, one verdict: `souk verify`'s own, and `tests/verifier/souk_verify.py`, which was written from
//! `docs/protocol.md` and shares no code with it. Both judge exports made at random, most of them spoilt.
//!
//! `SOUK_TEST_EXPORTS` sets how many (4,000), `SOUK_TEST_SEED` repeats a run whose seed a failure has printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a test, which speaks to who runs it")]

mod cbor;
mod dice;
mod spoil;
mod steps;
mod world;

use std::{
    collections::BTreeMap,
    env, fs,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use proptest::{
    prelude::Rng,
    test_runner::{RngAlgorithm, TestRng},
};
use souk_ledger::verify::{self, Verdict};

use dice::Dice;
use spoil::WAYS;
use world::World;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

fn generator(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/verifier/souk_verify.py")
}

/// Whether Python is there; where it is required it must be.
fn have_python() -> bool {
    let there = Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    let required = env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
    assert!(there || !required.split(',').any(|part| part.trim() == "python3"), "python3 is required and absent");
    if !there {
        println!("skipped: python3 is absent");
    }
    there
}

/// The second verifier's words for each export: code, frame and a sentence.
fn second_opinions(exports: &[Vec<u8>]) -> Vec<String> {
    let mut child = Command::new("python3")
        .args([program().as_os_str(), "--batch".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers = thread::scope(|scope| {
        scope.spawn(move || {
            for bytes in exports {
                input.write_all(&u32::try_from(bytes.len()).unwrap().to_le_bytes()).unwrap();
                input.write_all(bytes).unwrap();
            }
        });
        output.lines().map(Result::unwrap).collect()
    });
    assert!(child.wait().unwrap().success(), "the second verifier failed");
    answers
}

fn said(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Valid => "valid".to_owned(),
        Verdict::Invalid(fault) | Verdict::Incomplete(fault) => format!("frame {}: {}", fault.record, fault.what),
    }
}

#[test]
fn two_verifiers_agree() {
    if !have_python() {
        return;
    }
    let seed = number("SOUK_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let wanted = usize::try_from(number("SOUK_TEST_EXPORTS").unwrap_or(4000)).unwrap();
    println!("SOUK_TEST_SEED={seed}");
    let mut rng = generator(seed);
    let (mut exports, mut ways) = (Vec::new(), Vec::new());
    let mut held = BTreeMap::<String, u32>::new();
    while exports.len() < wanted {
        let steps = 20 + rng.below(160);
        let world = World::new(generator(rng.next_u64()), steps);
        let whole = spoil::Parts::of(&world, None).sealed(&world);
        let report = verify::verify_on(&whole[..], 1).unwrap();
        assert_eq!(report.verdict, Verdict::Valid, "what the fold takes is valid; SOUK_TEST_SEED={seed}");
        world.records.iter().for_each(|record| *held.entry(record.what()).or_default() += 1);
        world.done.iter().for_each(|done| *held.entry((*done).to_owned()).or_default() += 1);
        *held.entry("fork".to_owned()).or_default() += u32::try_from(report.forks.len()).unwrap();
        if let Some(cut) = spoil::Parts::behind_cut(&world) {
            let left_out = verify::verify_on(&cut.sealed(&world)[..], 1).unwrap();
            *held.entry("left out".to_owned()).or_default() += u32::from(left_out.left_out > 0);
        }
        for way in WAYS {
            exports.push(spoil::spoilt(&world, &mut rng, way));
            ways.push(way);
        }
    }
    let (ours, theirs) = thread::scope(|scope| {
        let theirs = scope.spawn(|| second_opinions(&exports));
        let ours = exports.iter().map(|bytes| verify::verify_on(&bytes[..], 1).unwrap().verdict);
        (ours.collect::<Vec<Verdict>>(), theirs.join().unwrap())
    });
    assert_eq!(theirs.len(), ours.len());

    let (mut table, mut faults) = (BTreeMap::<(&str, u8), u32>::new(), BTreeMap::<String, u32>::new());
    let mut apart = Vec::new();
    for (case, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        let code = our.exit_code();
        *table.entry((ways[case], code)).or_default() += 1;
        if let Verdict::Invalid(fault) = our {
            let kind = fault.what.split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
            *faults.entry(kind.to_owned()).or_default() += 1;
        }
        if !their.starts_with(&format!("{code} ")) {
            let file = env::temp_dir().join(format!("souk-apart-{seed}-{case}.souk"));
            fs::write(&file, &exports[case]).unwrap();
            apart.push(format!("{} ({}): ours {code} {}; theirs {their}", file.display(), ways[case], said(our)));
        }
    }
    for ((way, code), count) in &table {
        println!("{way:14} {code} {count:6}");
    }
    println!("{} different faults; what was valid: {held:?}", faults.len());
    if env::var_os("SOUK_TEST_FAULTS").is_some() {
        faults.iter().for_each(|(what, count)| println!("{count:6} {what}"));
    }
    let list = apart[..apart.len().min(10)].join("\n");
    assert!(
        apart.is_empty(),
        "SOUK_TEST_SEED={seed}: {} of {} are judged differently:\n{list}",
        apart.len(),
        ours.len()
    );

    held.insert("restored".to_owned(), table.get(&("restored", 0)).copied().unwrap_or_default());
    // A generator that has lost its wits would agree, too.
    let share = |code| ours.iter().filter(|v| v.exit_code() == code).count() * 100 / ours.len();
    assert!(share(0) >= 8 && share(6) >= 3 && share(1) >= 40, "the verdicts are one-sided: {table:?}");
    for kind in spoil::KINDS {
        assert!(held.get(kind).is_some_and(|n| *n > 0) || wanted < 4000, "not one valid {kind}: {held:?}");
    }
    assert!(faults.len() >= 60 || wanted < 4000, "only {} kinds of faults: {faults:?}", faults.len());
}
