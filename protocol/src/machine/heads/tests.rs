//! Two starts of one key, honest restarts, and lies about heads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use super::{
    super::{
        context::Context,
        forks::Concern,
        io::{Output, OwnKey, Token},
        testkit::{NOW, context, key, network, outputs},
    },
    Heads, Instance, LookedUp, Origin,
    peers::WITNESSED,
};
use crate::{
    DocumentId, Keypair, LeaseId, Millis, NodeId, Nonce, Timestamp, Verified, encode,
    entry::{Body, Entry, VoidCode},
    fork::{ForkProof, ForksAsked, ForksTold},
    heads::{ChainHead, HeadReport, Meet, Met},
    limits,
    machine::{chain::Chain, record::Record},
    message::{Request, Response},
    signed::Signed,
};

/// A node as a meeting sees it: its key, the start it is in, and its chain.
struct Told {
    key: Keypair,
    own: Instance,
    signing: bool,
    chain: Vec<ChainHead>,
}

impl Told {
    fn new(seed: u8, instance: u8, length: u64, branch: u8) -> Self {
        // Up to 3 entries are the same in every branch: that is where the key was copied.
        let id = |seq: u64| DocumentId([if seq < 3 { 0 } else { branch }; 32]);
        let chain = (0..length).map(|seq| ChainHead { seq, id: DocumentId(id(seq).0.map(|b| b ^ (seq as u8))) });
        let own = Instance { nonce: Nonce([instance; 16]), started: NOW + Millis(u64::from(instance)) };
        Self { key: key(seed), own, signing: true, chain: chain.collect() }
    }

    fn id(&self) -> NodeId {
        self.key.node_id()
    }

    fn report(&self, at: Option<u64>, heard: &[Nonce]) -> Verified<HeadReport> {
        let head = at.map_or(self.chain.last(), |seq| self.chain.iter().find(|h| h.seq == seq)).copied();
        super::report(&self.key, &network(), (self.own, self.signing), head, heard.to_vec(), NOW).unwrap()
    }

    fn meet(&self) -> Meet {
        Meet {
            report: self.report(None, &[]).to_signed(),
            known: vec![],
            at: vec![],
            yours: vec![],
            forks: ForksAsked::default(),
        }
    }

    /// Its honest answer to a meeting.
    fn answer(&self, meet: &Meet, witness: &Verified<HeadReport>) -> Met {
        let at = meet.at.iter().filter(|seq| self.chain.iter().any(|h| h.seq == **seq));
        Met {
            report: self.report(None, &meet.known).to_signed(),
            at: at.map(|seq| self.report(Some(*seq), &meet.known).to_signed()).collect(),
            seen: super::countersign(&self.key, &network(), witness, NOW).unwrap().to_signed(),
            yours: vec![],
            newest: None,
            doubt: false,
            forks: ForksTold::default(),
        }
    }
}

/// A witness: key 1.
struct Witness {
    cx: Context,
    heads: Heads,
    now: Timestamp,
}

impl Witness {
    fn new() -> Self {
        let own = Instance { nonce: Nonce([200; 16]), started: NOW };
        let mut witness = Self { cx: context(), heads: Heads::new(own, Vec::new(), NOW), now: NOW };
        outputs(&mut witness.cx);
        witness
    }

    fn meets(&mut self, told: &Told) -> Met {
        self.meeting(told.id(), &told.meet(), LookedUp::default())
    }

    fn meeting(&mut self, from: NodeId, meet: &Meet, looked_up: LookedUp) -> Met {
        match self.ask(from, meet, looked_up) {
            Response::Met(met) => *met,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&mut self, from: NodeId, meet: &Meet, looked_up: LookedUp) -> Response {
        let token = Token(9_000_000);
        self.heads.meeting(&mut self.cx, from, token, meet, looked_up, self.now);
        let mut rest = Vec::new();
        let mut found = None;
        while let Some(output) = self.cx.poll() {
            match output {
                Output::Reply { token: t, response, .. } if t == token => found = Some(*response),
                other => rest.push(other),
            }
        }
        rest.into_iter().for_each(|o| self.cx.out(o));
        found.unwrap()
    }

    /// Its own questions to a peer that wait.
    fn questions(&mut self, to: NodeId) -> Vec<Meet> {
        let mut rest = Vec::new();
        let mut found = Vec::new();
        while let Some(output) = self.cx.poll() {
            match output {
                Output::Send { to: t, request, .. } if t == to => match *request {
                    Request::Meet(meet) => found.push(*meet),
                    other => panic!("{other:?}"),
                },
                other => rest.push(other),
            }
        }
        rest.into_iter().for_each(|o| self.cx.out(o));
        found
    }

    fn after(&mut self, millis: u64) {
        self.now = self.now + Millis(millis);
        self.heads.tick(&mut self.cx, self.now);
    }

    fn hears(&mut self, from: &Told, meet: &Meet) {
        let own = meet.report.verify(&network()).unwrap();
        let met = from.answer(meet, &own);
        self.heads.met(&mut self.cx, from.id(), Some(Response::Met(Box::new(met))), &BTreeMap::new(), self.now);
    }

    fn proofs(&mut self) -> Vec<ForkProof> {
        let all = outputs(&mut self.cx).into_iter();
        all.filter_map(|o| match o {
            Output::Forked { proof, .. } => Some(*proof),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn two_copies_of_a_key_are_found_out_within_three_exchanges() {
    for (one, other) in [(6, 6), (5, 9), (9, 5), (4, 20)] {
        let (a, b) = (Told::new(7, 1, one, 1), Told::new(7, 2, other, 2));
        let mut witness = Witness::new();
        let mut exchanges = 2;
        witness.meets(&a);
        witness.meets(&b);
        // What it asks now reaches either of the two.
        let questions = witness.questions(a.id());
        let mut proofs = witness.proofs();
        if proofs.is_empty() {
            exchanges += 1;
            let question = questions.first().expect("it asks");
            let longer = if a.chain.len() > b.chain.len() { &a } else { &b };
            witness.hears(longer, question);
            proofs = witness.proofs();
        }
        assert_eq!((proofs.len(), exchanges <= 3), (1, true), "{one} {other}");
        let bytes = crate::encode::to_bytes(&proofs[0]);
        assert!(bytes.len() < 1024, "{}", bytes.len());
        assert_eq!(proofs[0].verify(&network()), Ok(a.id()));
        // Once is enough, however often they are met.
        witness.meets(&a);
        witness.meets(&b);
        assert_eq!(witness.proofs(), []);
        assert!(witness.cx.forked.contains(&a.id()));
    }
}

#[test]
fn an_honest_restart_is_nobodys_fork_and_leaves_no_doubt_once_the_old_start_is_gone() {
    let mut witness = Witness::new();
    let before = Told::new(7, 1, 5, 1);
    assert!(!witness.meets(&before).doubt);
    // Killed, and up again before its connection has timed out.
    let after = Told::new(7, 2, 8, 1);
    assert!(witness.meets(&after).doubt, "the first start may still be there");
    for _ in 0..6 {
        let questions = witness.questions(after.id());
        questions.iter().for_each(|q| witness.hears(&after, q));
        witness.after(1_000);
    }
    let met = witness.meets(&after);
    assert!(!met.doubt && met.yours.is_empty(), "{met:?}");
    assert_eq!(witness.proofs(), []);
    // The connection went first: there is no doubt at all.
    witness.heads.disconnected(after.id(), witness.now);
    let third = Told::new(7, 3, 8, 1);
    assert!(!witness.meets(&third).doubt);
    // A third start without news, over another address, and the same one again.
    assert!(!witness.meets(&third).doubt);
    assert_eq!(witness.proofs(), []);
}

#[test]
fn each_of_two_live_starts_gets_the_others_word_that_it_lives() {
    let mut witness = Witness::new();
    let (old, mut new) = (Told::new(7, 1, 5, 1), Told::new(7, 2, 5, 1));
    new.signing = false;
    witness.meets(&old);
    assert!(witness.meets(&new).doubt);
    let questions = witness.questions(old.id());
    assert!(questions.iter().all(|q| q.known.contains(&new.own.nonce)), "{questions:?}");
    witness.hears(&old, &questions[0]);
    witness.hears(&new, &questions[1]);
    let word = witness.meets(&new).yours;
    let word = word.iter().map(|s| s.verify(&network()).unwrap()).find(|r| r.instance == old.own.nonce).unwrap();
    assert!(word.heard.contains(&new.own.nonce) && word.signing);
    assert!(super::goes_first(&word, false, new.own));
    let back = witness.meets(&old).yours;
    let back = back.iter().map(|s| s.verify(&network()).unwrap()).find(|r| r.instance == new.own.nonce).unwrap();
    assert!(!super::goes_first(&back, true, old.own), "the one that signs stays");
    assert_eq!(witness.proofs(), [], "and neither has contradicted itself");
}

/// Key 1's own node, and a head of it told by another start.
fn examined(other: &Told, heard: &[Nonce], started_later: bool) -> (Vec<Output>, bool) {
    let mut witness = Witness::new();
    let mut other = Told { key: key(1), own: other.own, signing: other.signing, chain: other.chain.clone() };
    let (earlier, later) = (Timestamp(NOW.0 - 1), NOW + Millis(1));
    other.own.started = if started_later { later } else { earlier };
    let teller = Told::new(9, 9, 2, 1);
    let mut meet = teller.meet();
    meet.yours = vec![other.report(None, heard).to_signed()];
    witness.ask(teller.id(), &meet, LookedUp::default());
    let halted = witness.cx.chain.is_halted();
    (outputs(&mut witness.cx), halted)
}

fn stopped(outputs: &[Output]) -> Option<OwnKey> {
    outputs.iter().find_map(|o| if let Output::Halted(why) = o { Some(*why) } else { None })
}

#[test]
fn only_a_live_earlier_start_or_a_longer_chain_stops_a_node() {
    let own = Nonce([200; 16]);
    let genesis = context().chain.head().unwrap();
    let mut same = Told::new(1, 3, 0, 1);
    same.chain = vec![ChainHead { seq: 0, id: genesis.id }];
    // A word from before our start, told again and again: it has not heard of us.
    assert!(!examined(&same, &[Nonce([4; 16])], false).1);
    assert!(!examined(&same, &[], false).1);
    assert!(examined(&same, &[own], false).1);
    assert!(!examined(&same, &[own], true).1, "it started later, and is the one to stop");
    same.signing = false;
    assert!(!examined(&same, &[own], false).1, "it has signed nothing, and is the one to stop");
    let longer = Told::new(1, 3, 4, 1);
    let (outputs, halted) = examined(&longer, &[], true);
    assert!(halted);
    assert!(matches!(stopped(&outputs), Some(OwnKey::Behind { length: 1, known: 4, .. })), "{outputs:?}");
}

#[test]
fn what_is_not_our_own_signature_stops_nobody() {
    let mut witness = Witness::new();
    let liar = Told::new(9, 9, 2, 1);
    // A head of somebody else's, and one whose signature is by another key.
    let mut meet = liar.meet();
    meet.yours = vec![Told::new(8, 3, 40, 1).report(None, &[Nonce([200; 16])]).to_signed()];
    witness.ask(liar.id(), &meet, LookedUp::default());
    // A head told for another: the connection names the one who asks.
    let stolen = Told::new(8, 3, 4, 1).meet();
    assert!(matches!(witness.ask(liar.id(), &stolen, LookedUp::default()), Response::Rejected(_)));
    assert!(!witness.cx.chain.is_halted());
    assert_eq!(witness.proofs(), []);
    // Nor does a made-up newest entry of ours.
    let theirs = Told::new(9, 9, 2, 1);
    let mut met = theirs.answer(&theirs.meet(), &Told::new(1, 200, 1, 1).report(None, &[]));
    let mut chain = Chain::new(key(9), network(), None);
    met.newest = Some(chain.begin(NOW).unwrap().unwrap().to_signed());
    witness.heads.met(&mut witness.cx, theirs.id(), Some(Response::Met(Box::new(met))), &BTreeMap::new(), NOW);
    assert!(!witness.cx.chain.is_halted());
}

#[test]
fn our_own_words_told_back_to_us_say_nothing_and_hide_nothing() {
    let (own, rival) = (Told::new(1, 200, 40, 1), Told::new(1, 3, 40, 2));
    // Under our own name and start, and signed by nobody: 40 entries that would stop us if they were believed.
    let mut forged = encode::to_bytes(&own.report(None, &[]).to_signed());
    *forged.last_mut().unwrap() ^= 1;
    let forged: Signed<HeadReport> = encode::from_bytes(&forged, 1024).unwrap();
    assert!(forged.verify(&network()).is_err());
    let teller = Told::new(9, 9, 2, 1);
    for (told, stops) in [(vec![forged.clone()], false), (vec![forged, rival.report(None, &[]).to_signed()], true)] {
        let mut witness = Witness::new();
        let meet = Meet { yours: told, ..teller.meet() };
        witness.ask(teller.id(), &meet, LookedUp::default());
        assert_eq!(witness.cx.chain.is_halted(), stops);
    }
}

#[test]
fn who_is_asked_about_its_newest_entry_answers_with_one_report() {
    let mut witness = Witness::new();
    let newest = super::head_of(&witness.cx).unwrap();
    let other = ChainHead { seq: newest.seq + 7, id: DocumentId([9; 32]) };
    let asker = Told::new(9, 9, 2, 1);
    let meet = Meet { at: vec![newest.seq, other.seq], known: vec![Nonce([9; 16])], ..asker.meet() };
    let looked_up = LookedUp { own: vec![newest, other], ..LookedUp::default() };
    let met = witness.meeting(asker.id(), &meet, looked_up);
    let [first, second] = &met.at[..] else { panic!("{met:?}") };
    assert_eq!(*first, met.report);
    assert_eq!(first.verify(&network()).unwrap().head, Some(newest));
    let second = second.verify(&network()).unwrap();
    assert_eq!((second.head, &second.heard), (Some(other), &meet.known));
}

#[test]
fn a_halted_node_signs_nothing_and_spins_not() {
    let mut witness = Witness::new();
    super::halt(&mut witness.cx, OwnKey::Behind { length: 1, known: 2, told_by: key(9).node_id() });
    outputs(&mut witness.cx);
    let body = Body::Void { open: DocumentId::default(), code: VoidCode::Late, sentence: String::new() };
    assert!(witness.cx.append(LeaseId([1; 32]), key(2).node_id(), body, NOW).is_none());
    assert!(matches!(
        witness.ask(key(9).node_id(), &Told::new(9, 9, 2, 1).meet(), LookedUp::default()),
        Response::Busy { .. }
    ));
    witness.cx.connected.insert(key(9).node_id());
    witness.after(100_000);
    assert_eq!(outputs(&mut witness.cx).len(), 0);
    assert_eq!(witness.heads.deadline(&witness.cx), None);
}

#[test]
fn an_entry_that_is_held_convicts_a_head_that_names_another() {
    let mut witness = Witness::new();
    let mut chain = Chain::new(key(7), network(), None);
    let genesis: Verified<Entry> = chain.begin(NOW).unwrap().unwrap();
    let told = Told::new(7, 1, 1, 9);
    let clash = LookedUp { clash: Some(genesis.to_signed()), ..LookedUp::default() };
    witness.meeting(told.id(), &told.meet(), clash);
    let proofs = witness.proofs();
    assert!(matches!(&proofs[..], [ForkProof::Head(..)]), "{proofs:?}");
    // Nothing is believed that does not prove itself.
    let mut witness = Witness::new();
    let mut same = Told::new(7, 1, 1, 9);
    same.chain = vec![ChainHead { seq: 0, id: genesis.id() }];
    let clash = LookedUp { clash: Some(genesis.to_signed()), ..LookedUp::default() };
    witness.meeting(same.id(), &same.meet(), clash);
    assert_eq!(witness.proofs(), []);
}

#[test]
fn floods_of_keys_and_starts_take_no_memory_and_a_peer_has_its_share() {
    let mut witness = Witness::new();
    for n in 0..200u8 {
        witness.now = witness.now + Millis::from_secs(2);
        let told = Told::new(7, n, 5, 1);
        witness.meets(&told);
    }
    let (peers, starts) = witness.heads.peers.remembered();
    assert!(peers <= 2 && starts <= 2 * limits::INSTANCES, "{peers} {starts}");
    let mut seed = [0u8; 32];
    for n in 0..WITNESSED as u32 + 100 {
        seed[..4].copy_from_slice(&n.to_be_bytes());
        let mut told = Told::new(7, 1, 1, 1);
        told.key = Keypair::from_seed(&seed);
        witness.meets(&told);
    }
    assert!(witness.heads.peers.remembered().0 <= WITNESSED);
    assert!(witness.heads.catching.remembered().0 <= WITNESSED);
    // Nor do lists of names that nobody asked for.
    let told = Told::new(7, 1, 5, 1);
    for n in 0..100u32 {
        let name = |m: u32| NodeId(crate::Digest::of(&[n.to_be_bytes(), m.to_be_bytes()].concat()).0);
        let names = (0..crate::fork::FORKS_PAGE as u32).map(name).collect();
        let forks = ForksTold { names, upto: Some(u64::from(n)), more: true, proofs: Vec::new() };
        let mut met = told.answer(&told.meet(), &Told::new(1, 200, 1, 1).report(None, &[]));
        met.forks = forks;
        let answer = Some(Response::Met(Box::new(met)));
        witness.heads.met(&mut witness.cx, told.id(), answer, &BTreeMap::new(), witness.now);
    }
    let (_, wanted) = witness.heads.catching.remembered();
    assert!((1..2 * crate::fork::FORKS_PAGE).contains(&wanted), "{wanted}");
    witness.heads.disconnected(told.id(), witness.now);
    assert_eq!(witness.heads.catching.remembered().1, 0);
    // The hundredth question of a minute is put off.
    let eager = Told::new(8, 1, 1, 1);
    let busy = (0..100)
        .filter(|_| matches!(witness.ask(eager.id(), &eager.meet(), LookedUp::default()), Response::Busy { .. }));
    assert_eq!(busy.count(), 100 - limits::MEETINGS_PER_MINUTE as usize);
    outputs(&mut witness.cx);
}

#[test]
fn proofs_are_written_down_once() {
    let mut witness = Witness::new();
    let (a, b) = (Told::new(7, 1, 5, 1), Told::new(7, 2, 5, 2));
    let proof = ForkProof::Heads(a.report(None, &[]).to_signed(), b.report(None, &[]).to_signed());
    assert!(super::forked(&mut witness.cx, proof.clone(), Concern::Seen, Origin::Found));
    assert!(!super::forked(&mut witness.cx, proof, Concern::Dealt, Origin::Found));
    let consistent = ForkProof::Heads(a.report(None, &[]).to_signed(), a.report(None, &[]).to_signed());
    assert!(!super::forked(&mut witness.cx, consistent, Concern::Dealt, Origin::Found));
    let records = outputs(&mut witness.cx).into_iter().filter(|o| match o {
        Output::Persist { record, .. } => matches!(**record, Record::Fork(_)),
        _ => false,
    });
    assert_eq!(records.count(), 1);
}

#[test]
fn a_partys_head_is_written_down_once_a_minute_and_numbers_nobody_asked_for_are_not_taken() {
    let kept = |witness: &mut Witness| {
        let head = |o: Output| match o {
            Output::Persist { record, .. } => match *record {
                Record::Private(crate::machine::record::Private::Head(head)) => Some(head),
                _ => None,
            },
            _ => None,
        };
        let heads: Vec<_> = outputs(&mut witness.cx).into_iter().filter_map(head).collect();
        heads.iter().map(|h| h.verify(&network()).unwrap().length()).collect::<Vec<_>>()
    };
    let mut witness = Witness::new();
    let party = |length| Told::new(7, 1, length, 1);
    witness.heads.set_party(party(1).id(), true);
    for length in 1..9 {
        witness.meets(&party(length));
    }
    assert_eq!(kept(&mut witness), [1]);
    witness.after(60_000);
    assert_eq!(kept(&mut witness), [8], "the newest one that was held back");
    // An answer about numbers ahead of any it has told.
    let longer = party(20);
    let meet = Meet { at: (9..14).collect(), ..party(8).meet() };
    let own = party(8).report(None, &[]);
    let met = Met { report: own.to_signed(), ..longer.answer(&meet, &Told::new(1, 200, 2, 1).report(None, &[])) };
    witness.after(120_000);
    outputs(&mut witness.cx);
    witness.heads.met(&mut witness.cx, longer.id(), Some(Response::Met(Box::new(met))), &BTreeMap::new(), witness.now);
    assert_eq!(kept(&mut witness), [] as [u64; 0]);
}
