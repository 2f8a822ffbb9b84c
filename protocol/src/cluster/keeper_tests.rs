//! Tests of the keeper: tickets redeemed once, removals that hold, lists that go forward only.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::{
    Millis,
    cluster::{
        knock::Proof,
        list::tests::{list, node, sign},
    },
};

const NOW: Timestamp = Timestamp(1_790_000_000_000);
const NONCE: Nonce = Nonce([0x77; 32]);

fn keeper() -> Keeper {
    Keeper::new(sign(list(1, &[])), Tickets::default())
}

fn token(n: u8) -> Token {
    Token::new([n; 16])
}

fn day() -> Millis {
    Millis::from_hours(24)
}

impl Keeper {
    fn comes(&mut self, seed: u8, token: &Token, name: Option<&str>, now: Timestamp) -> Result<Outcome, Refusal> {
        let given = self.knocked(&Knock { token_id: token.id() }, NONCE.0);
        let proof = Proof::of(token, &given, &node(1), &node(seed), name.map(str::to_owned));
        self.prove(node(seed), token.id(), &given, &proof.mac, proof.name.as_deref(), now)
    }

    /// Comes, and is on the list.
    fn enters(&mut self, seed: u8, token: &Token, now: Timestamp) -> Result<(), Refusal> {
        match self.comes(seed, token, None, now)? {
            Outcome::Member(_) => Ok(()),
            Outcome::Admit(next) => {
                self.adopt(sign(next)).unwrap();
                assert!(self.list().member(&node(seed)).is_some());
                Ok(())
            }
        }
    }
}

#[test]
fn a_ticket_for_one_admits_one_and_that_one_again() {
    let mut keeper = keeper();
    keeper.invite(token(1), 1, NOW + day(), NOW).unwrap();
    assert_eq!(keeper.open_tickets(NOW).map(|t| t.uses_left).collect::<Vec<_>>(), [1]);
    keeper.enters(2, &token(1), NOW).unwrap();
    assert_eq!(keeper.enters(3, &token(1), NOW), Err(Refusal::Used));
    let before = keeper.tickets().clone();
    assert!(matches!(keeper.comes(2, &token(1), None, NOW + day()), Ok(Outcome::Member(list)) if list.seq == 2));
    assert_eq!((keeper.tickets(), keeper.open_tickets(NOW).count()), (&before, 0));
}

#[test]
fn of_two_that_come_at_once_one_gets_in() {
    let mut keeper = keeper();
    keeper.invite(token(1), 1, NOW + day(), NOW).unwrap();
    let Outcome::Admit(first) = keeper.comes(2, &token(1), None, NOW).unwrap() else { panic!() };
    let Outcome::Admit(second) = keeper.comes(3, &token(1), None, NOW).unwrap() else { panic!() };
    keeper.adopt(sign(second)).unwrap();
    assert_eq!(keeper.adopt(sign(first)), Err(Unchanged::Overtaken));
    assert_eq!(keeper.enters(2, &token(1), NOW), Err(Refusal::Used));
    assert!(keeper.list().member(&node(3)).is_some() && keeper.list().member(&node(2)).is_none());
}

#[test]
fn who_has_not_proved_the_token_learns_nothing() {
    let mut keeper = keeper();
    keeper.invite(token(1), 1, NOW + day(), NOW).unwrap();
    keeper.enters(2, &token(1), NOW).unwrap();
    // The ticket is used: a wrong proof for it, no ticket at all, and another's proof are all the same.
    let id = token(1).id();
    let good = *token(1).mac(&NONCE.0, &node(1), &node(3)).as_bytes();
    assert_eq!(keeper.prove(node(3), id, &NONCE, &good, None, NOW), Err(Refusal::Used));
    assert_eq!(keeper.prove(node(3), id, &NONCE, &[0; 32], None, NOW), Err(Refusal::Nothing));
    assert_eq!(keeper.prove(node(4), id, &NONCE, &good, None, NOW), Err(Refusal::Nothing));
    assert_eq!(keeper.prove(node(3), id, &Nonce([1; 32]), &good, None, NOW), Err(Refusal::Nothing));
    assert_eq!(keeper.comes(3, &token(9), None, NOW), Err(Refusal::Nothing));
    assert_eq!(keeper.prove(node(2), id, &NONCE, &[0; 32], None, NOW), Err(Refusal::Nothing), "a member neither");
    let nobodys = *Token::new([0; 16]).mac(&NONCE.0, &node(1), &node(3)).as_bytes();
    assert_eq!(keeper.prove(node(3), TokenId([0; 8]), &NONCE, &nobodys, None, NOW), Err(Refusal::Nothing));
    for bit in 0..256 {
        let mut wrong = good;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(keeper.prove(node(3), id, &NONCE, &wrong, None, NOW), Err(Refusal::Nothing));
    }
}

#[test]
fn an_expired_ticket_says_so_for_a_month() {
    let mut keeper = keeper();
    keeper.invite(token(1), 5, NOW + day(), NOW).unwrap();
    assert!(keeper.comes(2, &token(1), None, NOW + day()).is_err());
    assert_eq!(keeper.enters(2, &token(1), NOW + day()), Err(Refusal::Expired));
    let last = NOW + day() + limits::TICKET_REMEMBERED;
    assert_eq!(keeper.enters(2, &token(1), Timestamp(last.0 - 1)), Err(Refusal::Expired));
    assert_eq!(keeper.enters(2, &token(1), last), Err(Refusal::Nothing));
    assert_eq!(*keeper.tickets(), Tickets::default());
}

#[test]
fn a_removed_node_comes_back_by_the_keepers_word_alone() {
    let mut keeper = keeper();
    keeper.invite(token(1), 5, NOW + day(), NOW).unwrap();
    keeper.enters(2, &token(1), NOW).unwrap();
    let without = keeper.remove(&node(2), NOW).unwrap();
    assert!(keeper.list().member(&node(2)).is_some(), "nothing changes before it is signed");
    keeper.adopt(sign(without)).unwrap();
    assert_eq!(keeper.remove(&node(2), NOW), Err(Unchanged::NotMember(node(2))));
    assert_eq!(keeper.enters(2, &token(1), NOW), Err(Refusal::Removed));
    keeper.invite(token(2), 1, NOW + day(), NOW).unwrap();
    assert_eq!(keeper.enters(2, &token(2), NOW), Err(Refusal::Removed));
    let json = serde_json::to_string(keeper.tickets()).unwrap();
    let mut keeper = Keeper::new(keeper.list().clone(), serde_json::from_str(&json).unwrap());
    assert_eq!(keeper.enters(2, &token(1), NOW), Err(Refusal::Removed), "a restart forgets nothing");
    let quota = Quota { slots_at_once: Some(1), slot_hours: None };
    let with = keeper.admit(node(2), Some("back"), quota, NOW).unwrap();
    keeper.adopt(sign(with)).unwrap();
    assert_eq!(keeper.list().member(&node(2)).unwrap().quota, quota);
    keeper.enters(2, &token(2), NOW).unwrap();
    assert_eq!(keeper.open_tickets(NOW).map(|t| t.uses_left).collect::<Vec<_>>(), [4, 1], "that used nothing up");
    assert_eq!(keeper.remove(&node(1), NOW), Err(Unchanged::Keeper));
}

#[test]
fn names_are_unique_and_given_where_none_is_asked_for() {
    let mut keeper = keeper();
    keeper.invite(token(1), 9, NOW + day(), NOW).unwrap();
    for bad in ["keeper", "No", ""] {
        assert_eq!(keeper.comes(2, &token(1), Some(bad), NOW), Err(Refusal::NameTaken), "{bad}");
    }
    let id = node(2).to_string().to_ascii_lowercase();
    let given = format!("node-{}", &id[id.len() - 6..]);
    // Somebody has that name.
    let with = keeper.admit(node(3), Some(&given), Quota::default(), NOW).unwrap();
    keeper.adopt(sign(with)).unwrap();
    assert_eq!(keeper.admit(node(4), Some(&given), Quota::default(), NOW), Err(Unchanged::NameTaken(given.clone())));
    assert_eq!(keeper.admit(node(3), None, Quota::default(), NOW), Err(Unchanged::Member(node(3))));
    keeper.enters(2, &token(1), NOW).unwrap();
    assert_eq!(keeper.list().member(&node(2)).unwrap().name, format!("{given}-2"));
}

#[test]
fn a_full_list_takes_nobody() {
    let mut full = list(1, &[]);
    let rest = limits::CLUSTER_MEMBERS - 1;
    full.members.extend((0..rest).map(|n| Member {
        node: NodeId(*blake3::hash(&n.to_be_bytes()).as_bytes()),
        name: format!("n{n}"),
        quota: Quota::default(),
    }));
    full.members.sort_by_key(|m| m.node);
    let mut keeper = Keeper::new(sign(full), Tickets::default());
    keeper.invite(token(1), 1, NOW + day(), NOW).unwrap();
    assert_eq!(keeper.comes(2, &token(1), None, NOW), Err(Refusal::Full));
    assert_eq!(keeper.admit(node(2), None, Quota::default(), NOW), Err(Unchanged::Full));
}

#[test]
fn another_key_ends_the_tickets_that_hold_the_old_one() {
    let mut keeper = keeper();
    let key = PreSharedKey::new([1; 32]);
    keeper.invite(token(1), 1, NOW + day(), NOW).unwrap();
    let next = keeper.rotate(&key, NOW).unwrap();
    keeper.adopt(sign(next)).unwrap();
    assert_eq!(keeper.rotate(&key, NOW), Err(Unchanged::SameKey));
    assert_eq!(keeper.enters(2, &token(1), NOW), Err(Refusal::Expired));
    keeper.invite(token(2), 1, NOW + day(), NOW).unwrap();
    keeper.enters(2, &token(2), NOW).unwrap();
}

#[test]
fn lists_go_forward_one_by_one_even_if_the_clock_goes_back() {
    let mut keeper = keeper();
    let next = keeper.admit(node(2), None, Quota::default(), NOW).unwrap();
    keeper.adopt(sign(next)).unwrap();
    let quota = Quota { slots_at_once: Some(3), slot_hours: Some(10) };
    let next = keeper.set_quota(&node(2), quota, Timestamp(5)).unwrap();
    assert_eq!((next.seq, next.issued_at), (3, NOW));
    assert_eq!(keeper.set_quota(&node(3), quota, NOW), Err(Unchanged::NotMember(node(3))));
    keeper.adopt(sign(next)).unwrap();
    assert_eq!(keeper.adopt(sign(list(3, &[]))), Err(Unchanged::Overtaken));
    assert_eq!(keeper.adopt(sign(list(5, &[]))), Err(Unchanged::Overtaken));
    let mut other = list(4, &[]);
    other.founding.salt = [0; 16];
    assert_eq!(keeper.adopt(sign(other)), Err(Unchanged::Overtaken));
}

#[test]
fn tickets_are_bounded() {
    let mut keeper = keeper();
    let number = |n: usize| Token::new(*(n as u128 + 1).to_be_bytes().first_chunk().unwrap());
    assert_eq!(keeper.invite(token(1), 0, NOW + day(), NOW), Err(Unchanged::Uses));
    assert_eq!(keeper.invite(token(1), 1025, NOW + day(), NOW), Err(Unchanged::Uses));
    assert_eq!(keeper.invite(token(1), 1, NOW, NOW), Err(Unchanged::Life));
    assert_eq!(keeper.invite(token(1), 1, NOW + limits::TICKET_LIFE + Millis(1), NOW), Err(Unchanged::Life));
    for n in 0..limits::TICKETS_OPEN {
        keeper.invite(number(n), 1, NOW + Millis(n as u64 + 1), NOW).unwrap();
    }
    assert_eq!(keeper.invite(number(0), 1, NOW + day(), NOW), Err(Unchanged::Token));
    assert_eq!(keeper.invite(token(1), 1, NOW + day(), NOW), Err(Unchanged::Tickets));
    // All have expired, and as many are made again: the oldest are forgotten.
    let later = NOW + day();
    for n in 0..limits::TICKETS_PAST {
        keeper.invite(number(1000 + n), 1, later + Millis(1), later).unwrap();
    }
    let last = later + Millis(1);
    assert_eq!(keeper.comes(2, &number(0), None, last), Err(Refusal::Nothing));
    assert_eq!(keeper.comes(2, &number(1000), None, last), Err(Refusal::Expired));
}

proptest! {
    /// Whatever comes in whatever order: no ticket admits more than it was made for, and each list can be signed.
    #[test]
    fn no_ticket_admits_more_than_it_was_made_for(
        uses in 1u32..4,
        deeds in proptest::collection::vec((0u8..4, 2u8..8, 0u64..40), 0..40),
    ) {
        let mut keeper = keeper();
        keeper.invite(token(1), uses, NOW + day(), NOW).unwrap();
        let mut admitted = BTreeSet::new();
        for (deed, seed, hours) in deeds {
            let now = NOW + Millis::from_hours(hours);
            match deed {
                0 | 1 => {
                    let before = keeper.list().member(&node(seed)).is_some();
                    let came = keeper.enters(seed, &token(1), now);
                    if came.is_ok() && !before {
                        prop_assert!(now < NOW + day());
                        prop_assert!(admitted.insert(seed), "a removed one was let in by a ticket");
                    }
                }
                2 => if let Ok(next) = keeper.remove(&node(seed), now) {
                    keeper.adopt(sign(next)).unwrap();
                },
                // Proves, and does not stay until it is on the list.
                _ => drop(keeper.comes(seed, &token(1), None, now)),
            }
            prop_assert!(admitted.len() <= uses as usize);
        }
    }
}
