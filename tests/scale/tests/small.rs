//! A small world: everybody comes to know everything, whatever is lost, and the same seed gives the same world.
#![allow(clippy::unwrap_used)]

use souk_protocol::resources::SlotClass;
use souk_scale::{Figures, Plan, run, topic_of};

fn small() -> Plan {
    Plan { nodes: 60, hosts: 60, seconds: 120, observers: 4, seed: 3, ..Plan::default() }
}

fn everybody_knows(figures: &Figures) {
    assert!(figures.equal_after.is_some(), "{figures:#?}");
    assert_eq!(figures.verdicts[2], 0, "{figures:#?}");
    assert!(figures.joiner.seconds.is_some() && figures.cut_off.seconds.is_some(), "{figures:#?}");
}

#[test]
fn everybody_has_the_whole_book_and_the_same_seed_gives_the_same_world() {
    let figures = run(&small()).unwrap();
    everybody_knows(&figures);
    assert_eq!(figures.missed_per_million, 0.0);
    assert!(figures.verdicts[0] > 50 && figures.verdicts[1] == 0, "{figures:#?}");
    assert_eq!(run(&small()).unwrap(), figures);
    assert_ne!(run(&Plan { seed: 4, ..small() }).unwrap(), figures);
}

#[test]
fn a_fifth_of_all_lost_changes_nothing_in_the_end() {
    let figures = run(&Plan { loss_permille: 200, ..small() }).unwrap();
    everybody_knows(&figures);
}

#[test]
fn what_half_of_all_lost_keeps_from_nodes_comparing_books_brings() {
    let figures = run(&Plan { loss_permille: 500, ..small() }).unwrap();
    everybody_knows(&figures);
    assert!(figures.missed_per_million > 0.0, "{figures:#?}");
}

#[test]
fn who_joins_asks_for_each_offer_once() {
    let figures = run(&small()).unwrap();
    assert!(figures.joiner.fetched >= 60 && figures.joiner.fetched_twice == 0, "{figures:#?}");
    assert!(figures.cut_off.fetched < 60 && figures.cut_off.fetched_twice == 0, "{figures:#?}");
}

#[test]
fn topics_hold_what_is_searched_and_a_class_has_one() {
    let class = SlotClass::Gpu("RTX 4090".to_owned());
    assert!((0..50).all(|_| topic_of(&class, 20) == topic_of(&class, 20)));
    assert_eq!(topic_of(&SlotClass::Cpu, 1), 0);
    let one = run(&small()).unwrap();
    let many = run(&Plan { topics: 20, ..small() }).unwrap();
    everybody_knows(&many);
    assert!(many.received.p50 < one.received.p50, "{many:#?}");
}
