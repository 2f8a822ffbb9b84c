//! The index of leases by number, label and id, and events over all leases: the same as reading every row, however it was made.

use souk_protocol::LeaseId;

use super::*;
use crate::lease::Lease;

fn told(seed: u64) -> (Ledger, Vec<Lease>) {
    let (host, _, left, _) = story(seed, 60);
    let mut ledger = in_memory(&host);
    tell(&mut ledger, &left, &mut Dice(seed));
    let mut all = ledger.view().leases(Select::All, 1000).unwrap();
    all.sort_by_key(|l| l.number);
    (ledger, all)
}

#[test]
fn every_lease_is_found_by_its_number_its_label_and_its_id() {
    let (ledger, all) = told(3);
    let view = ledger.view();
    assert_eq!(view.lease_count().unwrap(), 60);
    assert!(all.iter().map(|l| l.number).eq(1..=60));
    assert_eq!((view.numbered(0).unwrap(), view.numbered(61).unwrap()), (None, None));
    for lease in &all {
        let id = lease.id();
        assert_eq!(view.numbered(lease.number).unwrap(), Some(id));
        assert_eq!(view.negotiated(&lease.draft.value.nonce).unwrap(), None, "it was the other side's");
        if let Some(label) = &lease.label {
            let mut of_it: Vec<LeaseId> =
                all.iter().filter(|l| l.label.as_ref() == Some(label)).map(Lease::id).collect();
            let mut found = view.labelled(label, 100).unwrap();
            assert_eq!(view.labelled(label, 2).unwrap(), found[..found.len().min(2)]);
            of_it.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, of_it);
        }
        for digits in [1, 2, 3, 7, 64] {
            let start = &id.to_string()[..digits];
            let alike: Vec<LeaseId> = {
                let mut ids: Vec<LeaseId> = all.iter().map(Lease::id).collect();
                ids.retain(|id| id.to_string().starts_with(start));
                ids.sort_unstable();
                ids
            };
            assert_eq!(view.starting_with(&start.to_uppercase(), 100).unwrap(), alike);
        }
    }
    for none in ["", "xyz", "zz00", "é"] {
        assert!(view.starting_with(none, 10).unwrap().is_empty(), "{none}");
    }
    assert_eq!(view.starting_with("0", 0).unwrap(), []);
    assert!(view.labelled("job", 10).unwrap().is_empty(), "part of a label is none");
    assert!(view.labelled("", 10).unwrap().is_empty());
}

#[test]
fn a_renter_finds_what_came_of_a_negotiation() {
    let (_, renter, _, right) = story(7, 20);
    let mut ledger = in_memory(&renter);
    tell(&mut ledger, &right, &mut Dice(7));
    let view = ledger.view();
    for lease in view.leases(Select::All, 100).unwrap() {
        assert_eq!(view.negotiated(&lease.draft.value.nonce).unwrap(), Some(lease.id()));
    }
    assert_eq!(view.negotiated(&souk_protocol::Nonce([0xee; 16])).unwrap(), None);
}

#[test]
fn pages_hold_each_lease_once_newest_first() {
    let (ledger, all) = told(4);
    let view = ledger.view();
    let (mut pages, mut before) = (Vec::new(), None);
    for _ in 0..100 {
        let page = view.page(before, 7).unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        pages.extend(page.iter().map(|l| l.number));
    }
    assert!(pages.into_iter().eq(all.iter().rev().map(|l| l.number)));
}

#[test]
fn a_new_label_replaces_the_old_one() {
    let (mut ledger, all) = told(5);
    let lease = all.iter().find(|l| l.label.is_some()).unwrap();
    let (id, old) = (lease.id(), lease.label.clone().unwrap());
    let mut name = |text: &str| {
        ledger.stage(&Fact::Private(Private::Label { lease: id, text: text.to_owned() })).unwrap();
        ledger.commit().unwrap();
        ledger.view()
    };
    let view = name("other");
    assert!(!view.labelled(&old, 100).unwrap().contains(&id));
    assert_eq!(view.labelled("other", 100).unwrap(), [id]);
    assert_eq!(view.lease(&id).unwrap().unwrap().label.as_deref(), Some("other"));
    let view = name("");
    assert!(view.labelled("other", 100).unwrap().is_empty());
}

#[test]
fn events_of_all_leases_come_in_the_order_they_were_heard_of() {
    let (ledger, all) = told(6);
    let view = ledger.view();
    let events = view.newest_events(None, 1000).unwrap();
    let one_by_one: usize = all.iter().map(|l| view.events(&l.id()).unwrap().len()).sum();
    assert_eq!(events.len(), one_by_one);
    assert!(events.windows(2).all(|w| w[0].record < w[1].record));
    let newest = view.newest_events(None, 5).unwrap();
    assert_eq!(newest, events[events.len() - 5..]);
    let before = view.newest_events(Some(newest[0].record), 3).unwrap();
    assert_eq!(before, events[events.len() - 8..events.len() - 5]);
    assert_eq!(view.events_after(newest[1].record, 2).unwrap(), newest[2..4]);
    assert!(view.events_after(newest[4].record, 10).unwrap().is_empty());
}
