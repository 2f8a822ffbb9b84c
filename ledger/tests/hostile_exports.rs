//! `bounded`: files made to exhaust whoever checks them. Each is read no further than it must be, and in memory that does not
//! grow with it; whatever the bytes, checking them ends in a verdict.
//!
//! `SOUK_TEST_JUNK=10000000` and `SOUK_TEST_MEGABYTES=10000` make the streams as long as an attacker would, and print what they cost.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a test, which speaks to who runs it")]

use std::{
    env, fs,
    io::{self, Read},
    time::Instant,
};

use proptest::prelude::*;
use serde::Serialize;
use souk_ledger::{
    export::{FORMAT, Filter, Header, Trailer, VERSION},
    verify::{Report, Verdict, verify, verify_on},
};
use souk_protocol::{
    Digest, Document, DocumentId, Signed, Verified, encode,
    entry::{Body, Entry},
    opinion::Attestation,
};

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party};

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Item<E: Document> {
    Entry(Signed<E>),
    Trailer(Signed<E>),
}

fn frame(out: &mut Vec<u8>, value: &impl Serialize) {
    let body = encode::to_bytes(value);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&body);
}

fn header(author: &Party) -> Vec<u8> {
    let mut out = Vec::new();
    let (network, author) = (author.network, author.key.node_id());
    frame(
        &mut out,
        &Header { format: FORMAT.to_owned(), version: VERSION, network, author, filter: Filter::All, cut: false },
    );
    out
}

/// A file that is made while it is read, frame by frame.
struct Stream<F> {
    next: F,
    buffer: Vec<u8>,
    at: usize,
    read: u64,
    hasher: blake3::Hasher,
}

impl<F: FnMut(&blake3::Hasher) -> Option<Vec<u8>>> Stream<F> {
    fn new(next: F) -> Self {
        Self { next, buffer: Vec::new(), at: 0, read: 0, hasher: blake3::Hasher::new() }
    }
}

impl<F: FnMut(&blake3::Hasher) -> Option<Vec<u8>>> Read for Stream<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() {
            match (self.next)(&self.hasher) {
                None => return Ok(0),
                Some(bytes) => {
                    self.hasher.update(&bytes);
                    (self.buffer, self.at) = (bytes, 0);
                }
            }
        }
        let n = into.len().min(self.buffer.len() - self.at);
        into[..n].copy_from_slice(&self.buffer[self.at..self.at + n]);
        self.at += n;
        self.read += n as u64;
        Ok(n)
    }
}

/// The most memory this process has had, in MB.
fn peak_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1000
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn fault(report: Report) -> (u64, String) {
    match report.verdict {
        Verdict::Invalid(fault) => (fault.record, fault.what),
        other @ (Verdict::Valid | Verdict::Incomplete(_)) => panic!("{other:?}"),
    }
}

/// Read no more than this of a file whose second frame is wrong: what the threads take at once.
const EARLY: u64 = 16 << 20;

#[test]
fn endless_junk_is_given_up_on_at_once() {
    let author = Party::new(1);
    let junk: [(&str, Vec<u8>); 5] = [
        ("zeros", vec![0; 4096]),
        ("one enormous length", u32::MAX.to_le_bytes().to_vec()),
        ("frames of nothing known", [&4100u32.to_le_bytes()[..], &[0xf6; 4100]].concat()),
        ("frames of lists in lists", [&8192u32.to_le_bytes()[..], &[0x81; 8192]].concat()),
        (
            "frames that promise more than they hold",
            [&9u32.to_le_bytes()[..], &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]].concat(),
        ),
    ];
    for (what, bytes) in junk {
        for begun in [true, false] {
            let mut first = begun.then(|| header(&author));
            let mut stream = Stream::new(|_: &blake3::Hasher| Some(first.take().unwrap_or_else(|| bytes.clone())));
            let (record, why) = fault(verify_on(&mut stream, 2).unwrap());
            assert_eq!(record, u64::from(begun), "{what}: {why}");
            assert!(stream.read < EARLY, "{what}: {} bytes were read", stream.read);
        }
    }
}

#[test]
fn endless_forged_entries_are_given_up_on_at_once() {
    let (author, other) = (Party::new(1), Party::new(2));
    let mut forger = Party::new(3);
    forger.genesis();
    let said = forger.say(None, &author, claim());
    // The right form, but by another than it says.
    let payload = encode::to_bytes(&Entry { author: other.key.node_id(), ..(*said).clone() });
    let signature = *encode::to_bytes(&said.to_signed()).last_chunk::<64>().unwrap();
    let signed = (serde_bytes::Bytes::new(&payload), serde_bytes::Bytes::new(&signature));
    let mut bytes = Vec::new();
    frame(&mut bytes, &std::collections::BTreeMap::from([("entry", signed)]));
    let mut first = Some(header(&author));
    let mut stream = Stream::new(|_: &blake3::Hasher| Some(first.take().unwrap_or_else(|| bytes.clone())));
    let (record, why) = fault(verify_on(&mut stream, 2).unwrap());
    assert_eq!((record, why.as_str()), (1, "entry: the signature is not its author's in this network"));
    assert!(stream.read < EARLY, "{} bytes were read", stream.read);
}

fn claim() -> Body {
    Body::Attestation(Attestation { claim: "datacenter".to_owned(), until: None, withdrawn: false })
}

/// Checks a valid file of so many entries, none of them held at one time, and says what it took.
fn stream_of(author: &Party, many: u64, what: &str, mut entry: impl FnMut(u64) -> Verified<Entry>) -> Report {
    let before = peak_mb();
    let began = Instant::now();
    let mut said = 0;
    let mut head: Option<DocumentId> = None;
    let mut stream = Stream::new(|hasher: &blake3::Hasher| {
        let mut bytes = if said == 0 { header(author) } else { Vec::new() };
        if said < many {
            let entry = entry(said);
            head = if entry.author == author.key.node_id() { Some(entry.id()) } else { head };
            frame(&mut bytes, &Item::Entry(entry.to_signed()));
        } else if said == many {
            let digest = Digest(*hasher.finalize().as_bytes());
            let trailer = Trailer { author: author.key.node_id(), count: many, head, digest };
            let trailer = Verified::sign(trailer, &author.key, &author.network).unwrap();
            frame(&mut bytes, &Item::Trailer(trailer.to_signed()));
        } else {
            return None;
        }
        said += 1;
        Some(bytes)
    });
    let report = verify(&mut stream).unwrap();
    let (secs, megabytes) = (began.elapsed().as_secs_f64(), stream.read as f64 / 1e6);
    let grown = peak_mb().saturating_sub(before);
    println!(
        "{what}: {many} entries, {megabytes:.0} MB in {secs:.1} s: {:.0} entries/s and {:.1} MB/s, signing them included; {grown} MB of memory",
        many as f64 / secs,
        megabytes / secs
    );
    // What is remembered of entries fills up at 262,144 of them, at some 300 bytes.
    assert!(grown < 400, "{what}: {grown} MB of memory");
    report
}

#[test]
fn a_chain_of_junk_takes_bounded_memory() {
    let (author, mut peer) = (Party::new(1), Party::new(2));
    peer.genesis();
    let many = number("SOUK_TEST_JUNK", 3000);
    let report = stream_of(&author, many, "junk by a peer", |_| peer.say(None, &author, claim()));
    assert_eq!((&report.verdict, report.records), (&Verdict::Valid, many));
}

#[test]
fn a_file_of_gigabytes_takes_bounded_memory() {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let me = host.clone();
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    let many = number("SOUK_TEST_MEGABYTES", 10) * 1_000_000 / 5_900;
    let devices: Vec<String> = (0..256).map(|n| format!("GPU-{n:03}-{}", "0".repeat(12))).collect();
    let report = stream_of(&me, many.max(4), "large entries", |n| match n {
        0 => host.genesis(),
        1 => deal.open(&mut renter, &me),
        2 => deal.accept(&mut host, &renter),
        _ => {
            let body = Body::Placement { start: u32::try_from(n).unwrap(), slots: vec![0], devices: devices.clone() };
            host.say(Some(deal.id), &renter, body)
        }
    });
    assert_eq!((&report.verdict, report.leases), (&Verdict::Valid, 1));
}

fn sample() -> Vec<u8> {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let mut bytes = header(&host);
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    for entry in [host.genesis(), deal.open(&mut renter, &host), deal.accept(&mut host, &renter)] {
        frame(&mut bytes, &Item::Entry(entry.to_signed()));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes, there is a verdict.
    #[test]
    fn any_bytes_have_a_verdict(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8)) {
        let mut bytes = header(&Party::new(1));
        for body in frames {
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&body);
        }
        let report = verify_on(&bytes[..], 1).unwrap();
        prop_assert!(report.verdict.exit_code() != 0);
    }

    /// Bytes written over, removed or added anywhere: never a panic, never valid.
    #[test]
    fn spoilt_bytes_have_a_verdict(edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<u8>()), 1..12)) {
        let whole = sample();
        let mut bytes = whole.clone();
        for (at, how, byte) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        prop_assume!(bytes != whole);
        let report = verify_on(&bytes[..], 1).unwrap();
        prop_assert!(report.verdict.exit_code() != 0);
    }
}
