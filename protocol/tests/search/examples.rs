//! Results worked out by hand.

use souk_protocol::{
    Currency, DocumentId, Millis, Timestamp,
    machine::search::{AskIndex, Datum, Options, PeerFacts, Pricing, performance},
    offer::Offer,
    query::Field,
};

use crate::{
    index_of,
    market::{self, Dice, NOW},
    run,
};

/// A machine with four RTX 4090, two of them free, of a host known to be good.
fn four_4090() -> (DocumentId, Offer) {
    let mut dice = Dice(7);
    let host = souk_protocol::Keypair::from_seed(&[3; 32]).node_id();
    let mut offer = loop {
        let offer = market::offer(&mut dice, host);
        if offer.availability.slots_total == 4 && offer.class() == gpu("RTX 4090") {
            break offer;
        }
    };
    offer.hardware.gpus[0].driver = "550.54.15".to_owned();
    offer.hardware.disk_mb = 400_000;
    offer.hardware.cpu.cores = 64;
    offer.availability.slots_free = 2;
    offer.valid_until = NOW + Millis::from_mins(20);
    offer.terms.currency = Currency::usd();
    offer.terms.min_slots = 1;
    offer.terms.slot_hour = "0.35".parse().unwrap();
    offer.terms.min_bid_slot_hour = "0.12".parse().unwrap();
    offer.terms.storage_gb_month = "0.072".parse().unwrap();
    offer.terms.reserved_discount = 200;
    offer.terms.latest_end = Some(NOW + Millis::from_hours(36));
    (DocumentId([9; 32]), offer)
}

fn gpu(model: &str) -> souk_protocol::resources::SlotClass {
    souk_protocol::resources::SlotClass::Gpu(model.to_owned())
}

#[test]
fn an_ask_shows_its_share_in_the_units_people_know() {
    let index = index_of(&[four_4090()]);
    let options = Options { storage_gb: 100.0, ..Options::at(NOW) };
    let found = run(&index, "num_gpus=2 gpu_ram>=24 gpu_name=RTX_4090", &options);
    assert_eq!(found.matched, 1);
    let ask = &found.rows[0];
    let number = |field: Field| ask.number(field).unwrap();
    assert_eq!(number(Field::GpuRam), 24.564);
    assert_eq!(number(Field::GpuTotalRam), 49.128);
    assert_eq!(number(Field::GpuFrac), 0.5);
    assert_eq!(number(Field::CpuCoresEffective), 32.0);
    assert_eq!(number(Field::DiskSpace), 200.0);
    assert_eq!(number(Field::MinBid), 0.24);
    assert_eq!(number(Field::Duration), 1.5);
    // Two GPUs at 0.35, and 100 GB at 0.072 for 720 hours a month.
    assert!((number(Field::Dph) - 0.71).abs() < 1e-12);
    assert!((number(Field::Dlperf) - 2.0 * performance::reference("RTX 4090").unwrap().dlperf).abs() < 1e-9);
    assert_eq!(ask.text(Field::DriverVersion), Some("550.54.15"));
    assert_eq!(ask.summary(), "2x RTX 4090 24 GB at $0.71/h");
    let priced = |pricing| {
        let options = Options { pricing, storage_gb: 0.0, ..Options::at(NOW) };
        run(&index, "num_gpus=2", &options).rows[0].number(Field::Dph).unwrap()
    };
    assert!((priced(Pricing::Bid) - 0.24).abs() < 1e-12);
    assert!((priced(Pricing::Reserved) - 0.56).abs() < 1e-12);
}

#[test]
fn what_is_rented_is_hidden_and_said() {
    let index = index_of(&[four_4090()]);
    let found = run(&index, "gpu_name=rtx-4090", &Options::at(NOW));
    assert_eq!(found.matched, 2, "one and two GPUs are free, four are not");
    assert_eq!(found.hidden_by_default.len(), 1);
    assert_eq!(found.hidden_by_default[0].condition, "rentable=true");
    assert_eq!(found.hidden_by_default[0].reason, "is rented");
    assert_eq!(run(&index, "rentable=any", &Options::at(NOW)).matched, 3);
    assert_eq!(run(&index, "rented=true rentable=any", &Options::at(NOW)).matched, 1);
    let disk = Options { storage_gb: 150.0, ..Options::at(NOW) };
    let found = run(&index, "", &disk);
    assert_eq!((found.matched, found.hidden_by_default.len()), (1, 2));
}

#[test]
fn a_reserved_term_is_searched_where_there_is_a_discount() {
    let (id, mut offer) = four_4090();
    offer.terms.reserved_discount = 0;
    let index = index_of(&[(id, offer)]);
    let reserved = Options { pricing: Pricing::Reserved, ..Options::at(NOW) };
    for all in [false, true] {
        let found = run(&index, "num_gpus=1", &Options { all, ..reserved.clone() });
        assert_eq!((found.matched, found.hidden_by_default.len()), (0, 1));
        assert_eq!(found.hidden_by_default[0].reason, "has no discount for a reserved term");
        assert!(!found.hidden_by_default[0].lifted_by_all);
    }
    assert_eq!(run(&index, "num_gpus=1 reserved_discount=any", &reserved).matched, 1);
    let index = index_of(&[four_4090()]);
    assert_eq!(run(&index, "num_gpus=1 reserved_discount=0.2", &reserved).matched, 1);
}

#[test]
fn a_host_that_failed_is_left_out_until_its_time_is_over() {
    let (id, offer) = four_4090();
    let mut index = index_of(&[(id, offer.clone())]);
    let until = NOW + Millis::from_mins(5);
    index.set_facts(offer.host, PeerFacts { avoided_until: until, ..PeerFacts::default() });
    let found = run(&index, "num_gpus=1", &Options::at(NOW));
    assert_eq!((found.matched, found.hidden_by_default[0].condition.as_str()), (0, "avoided=false"));
    assert_eq!(found.hidden_by_default[0].reason, "is of a host that failed you lately");
    for query in
        ["avoided=any", "avoided=true", &format!("host_id={}", offer.host), &format!("machine_id={}", offer.machine)]
    {
        assert_eq!(run(&index, &format!("num_gpus=1 {query}"), &Options::at(NOW)).matched, 1, "{query}");
    }
    assert_eq!(run(&index, "num_gpus=1", &Options { all: true, ..Options::at(NOW) }).matched, 1);
    // A new offer changes nothing of it; time does.
    index.insert(DocumentId([8; 32]), &offer);
    assert_eq!(run(&index, "num_gpus=1", &Options::at(Timestamp(until.0 - 1))).matched, 0);
    assert_eq!(run(&index, "num_gpus=1", &Options::at(until)).matched, 1);
}

#[test]
fn nothing_found_is_explained_in_a_sentence() {
    let index = index_of(&[four_4090()]);
    let explain = run(&index, "gpu_ram>=80", &Options::at(NOW)).explain.unwrap();
    assert_eq!(
        explain.sentence,
        "no offer matches: 3 offers, 3 lack gpu_ram>=80; nearest: 1x RTX 4090 24 GB at $0.35/h"
    );
    let miss = &explain.nearest[0].fails[0];
    assert_eq!(miss.condition, "gpu_ram>=80");
    assert_eq!(miss.have, Some(Datum::Number(24.564)));
    assert!((miss.off_by.unwrap() - 55.436).abs() < 1e-9);
    let explain = run(&index, "num_gpus=4", &Options::at(NOW)).explain.unwrap();
    assert_eq!(
        explain.sentence,
        "no offer matches: 3 offers, 2 lack num_gpus=4, 1 is rented; nearest: 2x RTX 4090 24 GB at $0.70/h"
    );
    let explain = run(&AskIndex::new(), "", &Options::at(NOW)).explain.unwrap();
    assert_eq!(explain.sentence, "no offer matches: no offers are known");
}

#[test]
fn expired_offers_and_other_currencies_are_left_out() {
    let index = index_of(&[four_4090()]);
    let later = Timestamp(NOW.0 + Millis::from_mins(20).0);
    assert_eq!(run(&index, "", &Options::at(later)).matched, 0);
    let euros = Options { currency: Currency("EUR".to_owned()), ..Options::at(NOW) };
    let found = run(&index, "num_gpus>=1", &euros);
    assert_eq!((found.matched, found.other_currency), (0, 2));
    assert!(found.explain.unwrap().sentence.contains("2 that would match are in other currencies"));
}

#[test]
fn a_price_at_the_median_by_a_stranger_scores_what_the_formula_says() {
    let (id, offer) = four_4090();
    let mut index = AskIndex::new();
    index.insert(id, &offer);
    let score = |index: &AskIndex| {
        let options = Options { storage_gb: 0.0, ..Options::at(NOW) };
        run(index, "num_gpus=1", &options).rows[0].number(Field::Score).unwrap()
    };
    let reached = match offer.availability.reachability {
        souk_protocol::offer::Reachability::Direct => 1.0,
        souk_protocol::offer::Reachability::Relayed => 0.8,
        souk_protocol::offer::Reachability::Unknown => 0.5,
    };
    assert!((score(&index) - 0.5 * reached * 0.13).abs() < 1e-12);
    index.set_facts(offer.host, PeerFacts { trust: 0.8, reliability: f64::NAN, ..PeerFacts::default() });
    assert!((score(&index) - 0.5 * reached * 0.8).abs() < 1e-12);
    // Proven to do twice the table's: the only machine of its class is still its median.
    let twice = 2.0 * performance::reference("RTX 4090").unwrap().dlperf;
    index.set_proven(offer.host, offer.machine, Some(twice), Some(&offer));
    assert!((score(&index) - 0.5 * reached * 0.8).abs() < 1e-12);
    // Beside two dearer ones it is worth more, up to four times.
    for n in 1..=2 {
        let mut dear = offer.clone();
        dear.machine.0[0] ^= n;
        dear.terms.slot_hour.0 *= 100;
        index.insert(DocumentId([n; 32]), &dear);
    }
    let best = Options { storage_gb: 0.0, limit: 1, ..Options::at(NOW) };
    let best = &run(&index, "num_gpus=1", &best).rows[0];
    assert_eq!(best.machine, offer.machine);
    assert!((best.number(Field::Score).unwrap() - 4.0 * 0.5 * reached * 0.8).abs() < 1e-12);
}

#[test]
fn a_slice_of_more_gpus_than_the_offer_lists_is_no_ask() {
    let (id, mut offer) = four_4090();
    offer.hardware.gpus[0].uuid_hashes.truncate(1);
    let index = index_of(&[(id, offer)]);
    assert_eq!(index.len(), 1);
}
