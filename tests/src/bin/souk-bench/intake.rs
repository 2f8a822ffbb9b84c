//! Offers taken in beside the bare signature check that each needs, on one core.

use std::{hint::black_box, time::Instant};

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use souk_protocol::{
    Keypair, MachineId, NetworkId, Verified, encode, limits,
    machine::{
        book::{Book, Intake},
        search::AskIndex,
    },
    offer::{Notice, Offer},
};

use crate::row;

#[allow(dead_code, reason = "shared with the search's own rates")]
#[path = "../../../../protocol/examples/search_rates/market.rs"]
mod market;

const HOSTS: u64 = 500;
const MACHINES: u64 = 40;

pub fn run() {
    let network = NetworkId::of_name("bench");
    let mut dice = market::Dice(7);
    let mut notices = Vec::new();
    for host in 0..HOSTS {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&host.to_be_bytes());
        let key = Keypair::from_seed(&seed);
        for machine in 0..MACHINES {
            let mut offer = market::offer(&mut dice, key.node_id());
            offer.machine = MachineId((u128::from(host) << 64 | u128::from(machine)).to_be_bytes());
            let offer = Verified::sign(offer, &key, &network).unwrap();
            notices.push(encode::to_bytes(&Notice::Offer(offer.to_signed())));
        }
    }
    let bytes: usize = notices.iter().map(Vec::len).sum();

    // The bare check, with every key ready.
    let checks: Vec<(VerifyingKey, [u8; 32], ed25519_dalek::Signature)> = (0..notices.len())
        .map(|n| {
            let key = SigningKey::from_bytes(&[(n % 251) as u8 + 1; 32]);
            let digest = *blake3::hash(&n.to_be_bytes()).as_bytes();
            let signature = key.sign(&digest);
            (key.verifying_key(), digest, signature)
        })
        .collect();

    let mut book = Book::new(network, limits::BOOK_OFFERS);
    let mut index = AskIndex::default();
    let mut take = |data: &[u8]| {
        let notice: Notice = encode::from_bytes(data, 2 * limits::OFFER_BYTES).unwrap();
        let intake = book.take(&notice, false, market::NOW);
        if let Intake::New(key) = &intake
            && let Some(offer) = book.offer(key)
        {
            index.insert(offer.id(), offer);
        }
        intake
    };
    // In turns of a tenth, so that both see the same machine.
    let (mut ours, mut bare) = (0.0, 0.0);
    let turn = notices.len() / 10;
    for (notices, checks) in notices.chunks(turn).zip(checks.chunks(turn)) {
        let start = Instant::now();
        for data in notices {
            assert!(matches!(take(data), Intake::New(_)));
        }
        ours += start.elapsed().as_secs_f64();
        let start = Instant::now();
        for (key, digest, signature) in checks {
            black_box(key.verify_strict(black_box(digest), signature)).unwrap();
        }
        bare += start.elapsed().as_secs_f64();
    }
    let start = Instant::now();
    for data in &notices {
        assert!(matches!(take(data), Intake::Known));
    }
    let again = start.elapsed().as_secs_f64();
    let count = notices.len() as f64;
    let size = bytes / notices.len();
    row("offer intake: decode, verify, index", &format!("{:.0}/s of {size} bytes on one core", count / ours));
    row("  beside bare verify_strict", &format!("{:.0}/s; ours is {:.0} % of it", count / bare, 100.0 * bare / ours));
    // Where the rest goes.
    let each = |start: Instant| 1e6 * start.elapsed().as_secs_f64() / count;
    let start = Instant::now();
    let decoded: Vec<Notice> =
        notices.iter().map(|data| encode::from_bytes(data, 2 * limits::OFFER_BYTES).unwrap()).collect();
    let outer = each(start);
    let start = Instant::now();
    for notice in &decoded {
        let Notice::Offer(offer) = notice else { panic!("not an offer") };
        black_box(encode::from_bytes::<Offer>(offer.payload(), limits::OFFER_BYTES)).unwrap();
    }
    let inner = each(start);
    let (ours, bare) = (1e6 * ours / count, 1e6 * bare / count);
    let rest = ours - bare - outer - inner;
    let parts = format!(
        "{ours:.1} µs = {bare:.1} signature + {inner:.1} decoding + {outer:.1} envelope + {rest:.1} book and index"
    );
    row("  one offer", &parts);
    row("duplicate offers", &format!("{:.0}/s, {:.1} × bare verify_strict", count / again, bare * count / 1e6 / again));
}
