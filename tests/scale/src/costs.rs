//! What things cost: bytes around a message, and processor time of each step, as [`measure`] found it on one machine.
//!
//! The figures are constants, so that the same seed gives the same page anywhere; `souk-scale costs` prints them anew.

use std::{hint::black_box, time::Instant};

use souk_protocol::{
    Digest, DocumentId, Keypair, MachineId, NetworkId, NodeId, Timestamp, Verified, encode, limits,
    machine::book::{Book, Intake},
    message::{BookItem, Response},
    offer::Notice,
};

use crate::market;

/// Around one gossiped message: topic and framing of gossipsub, and a packet's headers of QUIC, UDP and IP.
pub(crate) const GOSSIP_BYTES: u64 = 110;
/// One id in an `IHAVE`.
pub(crate) const ID_BYTES: u64 = 34;
/// Around one small message: `IHAVE`, `IWANT`, `IDONTWANT`.
pub(crate) const NOTE_BYTES: u64 = 80;
/// Around a request or an answer: a stream opened and closed, and headers. Long ones: 5 % more for the headers of their packets.
pub(crate) const EXCHANGE_BYTES: u64 = 150;
/// The line that a node sends on, in bits a millisecond: 20 Mbit/s.
const UP: usize = 20_000;
/// The line that it receives on: 100 Mbit/s.
const DOWN: usize = 100_000;

/// A first copy: decode, verify, book, search index, as `docs/performance.md` has it. In nanoseconds, as all below.
pub(crate) const INTAKE_NS: u64 = 55_000;
/// Another copy: gossipsub knows it by the hash of its bytes.
pub(crate) const DUPLICATE_NS: u64 = 1_500;
/// One line of an index, for who shows it (encode) and for who reads it (decode, look up).
pub(crate) const LINE_NS: (u64, u64) = (450, 1_500);
/// Encryption, system calls and bookkeeping of one message, sent or received. Not measured here, where no libp2p is: assumed.
pub(crate) const MESSAGE_NS: u64 = 10_000;

/// How long a node sends so many bytes, in milliseconds.
pub(crate) const fn line_ms(bytes: usize) -> u32 {
    (bytes * 8 / UP) as u32
}

/// How long a node receives so many bytes, in milliseconds.
pub(crate) const fn receive_ms(bytes: u64) -> u64 {
    bytes * 8 / DOWN as u64
}

/// An exchange's bytes with what is around them.
pub(crate) const fn exchanged(bytes: u64) -> u64 {
    EXCHANGE_BYTES + bytes + bytes / 20
}

/// One step's cost here and now.
#[derive(Debug)]
pub struct Measured {
    /// What.
    pub what: &'static str,
    /// In nanoseconds.
    pub ns: u64,
    /// What the simulator counts for it.
    pub counted: u64,
}

/// Measures the steps anew, on one core.
///
/// # Errors
/// If an offer made here is not taken, which is a fault of this program.
pub fn measure() -> anyhow::Result<Vec<Measured>> {
    let network = NetworkId::of_name("scale");
    let mut dice = market::Dice(5);
    let mut notices = Vec::new();
    for n in 0..4000u64 {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(n / 20).to_be_bytes());
        let key = Keypair::from_seed(&seed);
        let offer = market::offer(&mut dice, key.node_id());
        let offer = Verified::sign(offer, &key, &network)?;
        notices.push(encode::to_bytes(&Notice::Offer(offer.to_signed())));
    }
    let each = |start: Instant| start.elapsed().as_nanos() as u64 / notices.len() as u64;
    let mut book = Book::new(network, limits::BOOK_OFFERS);
    let start = Instant::now();
    for data in &notices {
        let notice: Notice = encode::from_bytes(data, 2 * limits::OFFER_BYTES)?;
        let intake = book.take(&notice, false, market::NOW);
        anyhow::ensure!(matches!(intake, Intake::New(_)), "an offer of our own was not taken: {intake:?}");
    }
    let intake = each(start);
    let start = Instant::now();
    for data in &notices {
        black_box(Digest::of(black_box(data)));
    }
    let duplicate = each(start);
    let start = Instant::now();
    let (items, more) = book.page(None);
    let page = Response::BookPage { items, more }.to_bytes();
    let shown = each(start);
    let start = Instant::now();
    if let Response::BookPage { items, .. } = Response::from_bytes(&page)? {
        black_box(items.iter().filter(|i| book.lacks(i)).count());
    }
    let read = each(start);
    let row = |what, ns, counted| Measured { what, ns, counted };
    Ok(vec![
        row("a first copy: decode, verify, book", intake, INTAKE_NS),
        row("another copy: its hash", duplicate, DUPLICATE_NS),
        row("a line of an index, shown", shown, LINE_NS.0),
        row("a line of an index, read", read, LINE_NS.1),
    ])
}

/// Bytes of a page of an index: those of the first line's place, and of each line.
pub(crate) fn page_bytes() -> (u64, u64) {
    let (host, machine, id) = (NodeId([200; 32]), MachineId([200; 16]), DocumentId([200; 32]));
    let item = BookItem { host, machine, seq: Timestamp(1000).0, id };
    let bytes = |n: usize| Response::BookPage { items: vec![item.clone(); n], more: true }.to_bytes().len() as u64;
    (bytes(1), (bytes(1001) - bytes(1)) / 1000)
}
