//! Peers that don't keep to the rules, by hand-made bytes over a real connection: each gets an answer, and nothing changes.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test, whichever it is")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use souk_network::{Multiaddr, NetworkConfig, NetworkHandle, Topic, spawn};
use souk_protocol::{
    Amount, AskId, Keypair, LeaseId, NetworkId, NodeId, Nonce, Signed, Timestamp, Verified, encode,
    entry::{Body, Entry, VoidCode},
    lease::LeaseDraft,
    message::{Action, Frame, LeaseUpdate, Request, Response, StreamOpen},
    negotiation::{Proposal, RejectCode, RentalType},
    offer::{Notice, Offer},
    resources::Egress,
    workload::Workload,
};
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    export::read_entry,
    node::Node,
    part::have,
    wait::until,
    world::{World, rent},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn network() -> NetworkId {
    NetworkId::of_name("scenario")
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// A peer that says whatever it is told to.
struct Raw {
    runtime: Runtime,
    handle: NetworkHandle,
    key: Keypair,
    to: NodeId,
    stop: CancellationToken,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Raw {
    fn meet(seed: u8, network: NetworkId, node: &Node) -> Option<Self> {
        souk_network_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let key = Keypair::from_seed(&[seed; 32]);
        let stop = CancellationToken::new();
        let to: NodeId = node.id.parse().unwrap();
        let address: Multiaddr = node.listen[0].parse().unwrap();
        let dialled = runtime.block_on(async {
            let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
            let config = NetworkConfig { listen, ..NetworkConfig::new(key.clone(), network) };
            let (handle, mut events) = spawn(config, stop.clone()).unwrap();
            // Whatever it is asked stays without an answer.
            tokio::spawn(async move { while events.recv().await.is_some() {} });
            handle.dial(address).await.map(|_| handle)
        });
        dialled.ok().map(|handle| Self { runtime, handle, key, to, stop })
    }

    fn id(&self) -> NodeId {
        self.key.node_id()
    }

    fn bytes(&self, body: Vec<u8>) -> Response {
        let answer = self.runtime.block_on(self.handle.request(self.to, body, PATIENCE)).unwrap();
        Response::from_bytes(&answer).unwrap()
    }

    /// What it answers once it has started.
    fn ask(&self, request: &Request) -> Response {
        until("it has time for it", || {
            let answer = self.bytes(request.to_bytes());
            (!matches!(answer, Response::Busy { .. })).then_some(answer)
        })
    }

    fn rejected(&self, request: &Request) -> RejectCode {
        match self.ask(request) {
            Response::Rejected(reject) => {
                assert!(!reject.sentence.is_empty());
                reject.code
            }
            other => panic!("not rejected: {other:?}"),
        }
    }

    /// The host's own offer, once it is in its book.
    fn offer(&self) -> Verified<Offer> {
        until("its offer is in its book", || self.find_offer())
    }

    fn find_offer(&self) -> Option<Verified<Offer>> {
        let Response::BookPage { items, .. } = self.ask(&Request::BookPage { after: None }) else { panic!("no page") };
        let ids = items.iter().map(|i| i.id).collect();
        let Response::BookNotices { notices } = self.ask(&Request::BookFetch { ids }) else { panic!("no notices") };
        let offers = notices.iter().filter_map(|n| match n {
            Notice::Offer(offer) => offer.verify(&network()).ok(),
            Notice::Withdrawal(_) => None,
        });
        offers.into_iter().find(|o| o.host == self.to)
    }

    fn proposal(&self, nonce: u8, workload: &Workload) -> Proposal {
        let offer = self.offer();
        Proposal {
            ask: AskId::of(&offer.host, &offer.machine, 1),
            offer: offer.id(),
            nonce: Nonce([nonce; 16]),
            round: 0,
            rental: RentalType::OnDemand,
            price_hour: Amount(1_000_000_000),
            term: None,
            extend: None,
            disk_mb: 1000,
            egress: Egress::None,
            ports: Vec::new(),
            image: BUSYBOX.to_owned(),
            image_digest: None,
            workload: workload.to_bytes().1,
            max_spend: None,
            tick: None,
        }
    }

    fn draft(&self, nonce: u8, workload: &Workload) -> Signed<LeaseDraft> {
        match self.ask(&Request::Propose(Box::new(self.proposal(nonce, workload)))) {
            Response::Drafted(draft) => draft,
            other => panic!("no draft: {other:?}"),
        }
    }

    /// An open of a draft in an own chain, on a network of choice.
    fn open(&self, draft: &Signed<LeaseDraft>, network: NetworkId, at: Timestamp) -> Signed<Entry> {
        let first = Entry {
            author: self.id(),
            seq: 0,
            prev: None,
            time: at,
            lease: None,
            peer: None,
            body: Body::Genesis { network },
        };
        let first = Verified::sign(first, &self.key, &network).unwrap();
        let open = Entry {
            author: self.id(),
            seq: 1,
            prev: Some(first.id()),
            time: at,
            lease: Some(LeaseId::from(draft.id(&self::network()))),
            peer: Some(self.to),
            body: Body::LeaseOpen { draft: draft.clone() },
        };
        Verified::sign(open, &self.key, &network).unwrap().to_signed()
    }

    /// Another open of a draft, the next of the chain after `first`.
    fn open_after(&self, first: &Signed<Entry>, draft: &Signed<LeaseDraft>) -> Signed<Entry> {
        let before = read_entry(first);
        let lease = Some(LeaseId::from(draft.id(&network())));
        let body = Body::LeaseOpen { draft: draft.clone() };
        let next = Entry { seq: before.seq + 1, prev: Some(first.id(&network())), time: now(), lease, body, ..before };
        Verified::sign(next, &self.key, &network()).unwrap().to_signed()
    }
}

fn souk_network_provider() {
    // Only the first of a process takes effect.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}

fn commit(open: &Signed<Entry>, workload: &Workload) -> Request {
    Request::Commit { open: open.clone(), workload: workload.to_bytes().0, settle: None }
}

/// The commit's bytes with one bit of its open's signature or payload flipped.
fn bent(request: &Request, part: &[u8]) -> Vec<u8> {
    let mut bytes = request.to_bytes();
    let at = bytes.windows(part.len()).position(|w| w == part).unwrap();
    bytes[at + part.len() / 2] ^= 1;
    bytes
}

fn sleeper() -> Workload {
    Workload { command: Some(vec!["sleep".to_owned(), "600".to_owned()]), ..Workload::default() }
}

#[test]
fn bad_bytes_get_answers_and_change_nothing() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let _ = renter.ask_of(&host, 1);
    let (mallory, trudy) = (Raw::meet(201, network(), &host).unwrap(), Raw::meet(202, network(), &host).unwrap());

    // Bytes that are no request at all, and requests cut or with something behind them.
    let whole = Request::BookSummary.to_bytes();
    let longer = [whole.as_slice(), &[0]].concat();
    let junk: [&[u8]; 6] = [
        &[],
        &[0xff; 64],
        &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &longer,
        &[0xa1],
        &vec![0x41; 256 * 1024],
    ];
    for bytes in junk {
        match mallory.bytes(bytes.to_vec()) {
            Response::Rejected(reject) => assert_eq!(reject.code, RejectCode::Malformed),
            other => panic!("{} junk bytes were answered with {other:?}", bytes.len()),
        }
    }

    // Leases that are not there, or not theirs.
    let lease = rent(&renter, &host, 1, "sleep 600", &["--tick", "1s"]);
    let id: LeaseId = lease.parse().unwrap();
    for lease in [id, LeaseId([7; 32])] {
        for action in [Action::Stop, Action::Start, Action::Destroy] {
            mallory.rejected(&Request::Control { lease, action, nonce: Nonce([1; 16]) });
        }
        mallory.rejected(&Request::Sync { lease, events_seen: 0 });
        let update = LeaseUpdate {
            lease,
            events: Vec::new(),
            progress: None,
            entries: Vec::new(),
            usage: None,
            eviction: None,
            rank: None,
            asked: None,
            payment: None,
        };
        mallory.rejected(&Request::Update(Box::new(update)));
    }
    // Its instance's output and shell neither.
    for open in [
        StreamOpen::Logs { lease: id, follow: false, tail: None, since: None, from: None },
        StreamOpen::Exec {
            lease: id,
            command: vec!["id".to_owned()],
            tty: false,
            env: Vec::new(),
            user: None,
            workdir: None,
            size: None,
        },
        StreamOpen::Ssh { lease: id },
        StreamOpen::SshKeys { lease: id, replace: None },
        StreamOpen::Forward { lease: id, host: "localhost".to_owned(), port: 22, udp: false },
    ] {
        let told = mallory.runtime.block_on(async {
            let mut stream = mallory.handle.open_stream(mallory.to, PATIENCE).await.unwrap();
            // Who rents nothing there may be hung up on at once.
            stream.write_all(&Frame::Open(encode::to_bytes(&open)).to_bytes()).await.ok();
            let mut told = Vec::new();
            let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await;
            assert!(end.is_ok(), "the stream is held open");
            told
        });
        assert!(matches!(told.first(), None | Some(7)), "more than an error frame: {told:?}");
    }
    let garbled = mallory.runtime.block_on(async {
        let mut stream = mallory.handle.open_stream(mallory.to, PATIENCE).await.unwrap();
        stream.write_all(&[9, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]).await.ok();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await
    });
    assert!(garbled.is_ok(), "a stream of junk is held open");
    let _ = renter.json(&["destroy", "-y", &lease]);
    let _ = renter.ask_of(&host, 1);

    // Opens: forged, of another network, of somebody else's draft, with another workload.
    let work = sleeper();
    let draft = mallory.draft(1, &work);
    let second = mallory.draft(3, &work);
    let open = mallory.open(&draft, network(), now());
    let good = commit(&open, &work);
    for part in [open.payload(), draft.payload()] {
        match mallory.bytes(bent(&good, part)) {
            Response::Rejected(reject) => assert_eq!(reject.code, RejectCode::Malformed),
            other => panic!("a forged open was answered with {other:?}"),
        }
    }
    let elsewhere = mallory.open(&draft, NetworkId::of_name("elsewhere"), now());
    assert_eq!(mallory.rejected(&commit(&elsewhere, &work)), RejectCode::Malformed);
    assert_eq!(trudy.rejected(&good), RejectCode::Malformed, "an open replayed by another peer");
    let stolen = trudy.open(&draft, network(), now());
    assert_eq!(trudy.rejected(&commit(&stolen, &work)), RejectCode::Malformed, "somebody else's draft");
    let other = Workload { user: Some("root".to_owned()), ..sleeper() };
    assert_eq!(mallory.rejected(&commit(&open, &other)), RejectCode::Malformed, "another workload");
    assert!(world.docker().containers(&host.id).is_empty() && host.locks_free());

    // Two drafts of one slot: the first durable accept wins; the same open always gets the same answer.
    let rival = trudy.draft(2, &work);
    let rival_open = trudy.open(&rival, network(), now());
    let answered = |who: &Raw, request: &Request| match who.ask(request) {
        Response::Answered(entry) => entry,
        other => panic!("not answered: {other:?}"),
    };
    let accept = answered(&mallory, &good);
    assert!(matches!(read_entry(&accept).body, Body::LeaseAccept { .. }), "{:?}", read_entry(&accept).body);
    let void = answered(&trudy, &commit(&rival_open, &work));
    let Body::Void { code, sentence, .. } = read_entry(&void).body else { panic!("a second lease on one slot") };
    assert!(code == VoidCode::Taken && !sentence.is_empty(), "{code:?}: {sentence}");
    for _ in 0..3 {
        assert!(answered(&mallory, &good) == accept && answered(&trudy, &commit(&rival_open, &work)) == void);
    }
    let again = mallory.open_after(&open, &draft);
    assert_eq!(mallory.rejected(&commit(&again, &work)), RejectCode::Taken, "another open of the same draft");
    // A chain that contradicts itself, by its number or its time, is believed by nobody: nothing may rest on it.
    let fork = mallory.open(&draft, network(), Timestamp(now().0 + 1));
    assert_eq!(mallory.rejected(&commit(&fork, &work)), RejectCode::Malformed, "two opens of one number");
    let fork = mallory.open(&second, network(), Timestamp(now().0 + 2));
    assert_eq!(
        mallory.rejected(&commit(&fork, &work)),
        RejectCode::Malformed,
        "two opens of one number, of two drafts"
    );
    assert_eq!(host.json(&["ps"]).as_array().unwrap().len(), 1);

    // Who never acknowledges anything still can't be charged, keeps its lease, and may end it.
    let theirs = LeaseId::from(draft.id(&network()));
    until("it runs", || (host.show(&theirs.to_string())["state"] == "running").then_some(()));
    let destroy = Request::Control { lease: theirs, action: Action::Destroy, nonce: Nonce([9; 16]) };
    for _ in 0..2 {
        assert!(matches!(mallory.ask(&destroy), Response::Controlled { .. } | Response::Rejected(_)));
    }
    nothing_left(world.docker(), &host);

    // A draft from before a restart can't be opened after it.
    let late = Raw::meet(204, network(), &host).unwrap().draft(3, &work);
    // A key known to have forked its chain gets none at all.
    let wish = mallory.proposal(4, &work);
    assert_eq!(mallory.rejected(&Request::Propose(Box::new(wish))), RejectCode::Forked);
    host.stop();
    host.start();
    let _ = renter.ask_of(&host, 1);
    let punctual = Raw::meet(204, network(), &host).unwrap();
    let open = punctual.open(&late, network(), now());
    assert_eq!(punctual.rejected(&commit(&open, &work)), RejectCode::Stale);
    // The answers of before are still the answers, and a fork is not forgotten.
    let back = Raw::meet(201, network(), &host).unwrap();
    assert!(answered(&back, &good) == accept);
    until("it is known as forked, once the host's offers are out again", || {
        let wish = back.proposal(5, &work);
        (back.rejected(&Request::Propose(Box::new(wish))) == RejectCode::Forked).then_some(())
    });

    assert!(Raw::meet(203, NetworkId::of_name("elsewhere"), &host).is_none(), "another network's node was let in");
    assert_eq!(host.json(&["ledger", "check"])["faults"], serde_json::json!([]));
    assert!(host.runs());
}

#[test]
fn forged_and_old_offers_move_nobodys_book() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let _ = renter.ask_of(&host, 1);
    let to_host = Raw::meet(211, network(), &host).unwrap();
    let old = to_host.offer();
    let _ = host.json(&["host", "list", "--price", "2.00"]);
    let price = |node: &Node| node.asks().first().map(|a| a["dph"].as_f64().unwrap());
    until("the new price is seen", || (price(&renter) >= Some(2.0)).then_some(()));

    let to_renter = Raw::meet(212, network(), &renter).unwrap();
    let mut cheaper = (*old).clone();
    cheaper.seq += 100;
    cheaper.terms.slot_hour = Amount(1);
    // Signed by somebody else than the host it names: there is no way to make one but by bytes.
    let own = Offer { host: to_renter.id(), ..cheaper.clone() };
    let own = Verified::sign(own, &to_renter.key, &network()).unwrap().to_signed();
    let mut forged = encode::to_bytes(&Notice::Offer(own.clone()));
    let at = forged.windows(32).position(|w| w == to_renter.id().0.as_slice()).unwrap();
    forged[at..at + 32].copy_from_slice(&old.host.0);
    let replayed = encode::to_bytes(&Notice::Offer(old.to_signed()));
    let publish = |raw: &Raw, data: &[u8]| {
        raw.runtime.block_on(raw.handle.publish(Topic::Offers, data.to_vec())).unwrap();
    };
    for data in [forged.as_slice(), &replayed, &[0xff; 4096], &[]] {
        publish(&to_renter, data);
    }
    // One that holds comes last on the same way: when it is seen, the others have been judged.
    let honest = Raw::meet(213, network(), &renter).unwrap();
    let mut offer = (*old).clone();
    offer.host = honest.id();
    offer.issued_at = now();
    offer.valid_until = Timestamp(now().0 + 600_000);
    let offer = Verified::sign(offer, &honest.key, &network()).unwrap().to_signed();
    until("an honest offer by hand is taken", || {
        publish(&honest, &encode::to_bytes(&Notice::Offer(offer.clone())));
        renter.asks().iter().any(|a| a["host_id"] == honest.id().to_string()).then_some(())
    });
    let asks = renter.asks();
    let hosts: Vec<f64> =
        asks.iter().filter(|a| a["host_id"] == host.id.as_str()).map(|a| a["dph"].as_f64().unwrap()).collect();
    assert_eq!(hosts.len(), 1);
    assert!(hosts[0] >= 2.0, "an old or forged offer was taken: {hosts:?}");
}

/// Resident memory of a process in KiB.
fn resident(node: &Node) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn ten_thousand_bids_of_one_peer_keep_nobody_from_renting() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let _ = renter.ask_of(&host, 1);
    let mallory = Raw::meet(221, network(), &host).unwrap();
    let work = sleeper();
    let proposal = mallory.proposal(0, &work);
    let before = resident(&host);
    // As many at once as the connection takes, until the honest one has rented, and ten thousand at least.
    let over = CancellationToken::new();
    let flood = mallory.runtime.spawn({
        let (handle, to, over) = (mallory.handle.clone(), mallory.to, over.clone());
        async move {
            let mut flying = tokio::task::JoinSet::new();
            let (mut sent, mut drafted, mut refused) = (0u64, 0u64, 0u64);
            while sent < 10_000 || !over.is_cancelled() {
                let nonce = Nonce(u128::from(sent).to_be_bytes());
                let bid = Proposal { nonce, rental: RentalType::Interruptible, ..proposal.clone() };
                let body = Request::Propose(Box::new(bid)).to_bytes();
                let handle = handle.clone();
                flying.spawn(async move { handle.request(to, body, PATIENCE).await });
                sent += 1;
                while flying.len() >= 1000 {
                    match flying.join_next().await.unwrap().unwrap().map(|bytes| Response::from_bytes(&bytes)) {
                        Ok(Ok(Response::Drafted(_))) => drafted += 1,
                        _ => refused += 1,
                    }
                }
            }
            (sent, drafted, refused)
        }
    });
    let lease = rent(&renter, &host, 1, "sleep 600", &["--tick", "1s"]);
    renter.finds(&lease, "a receipt", |l| l["receipt"]["acked_n"].as_u64() >= Some(1));
    over.cancel();
    let (sent, drafted, refused) = mallory.runtime.block_on(flood).unwrap();
    assert!(sent >= 10_000 && refused > drafted, "{drafted} drafts and {refused} refusals of {sent} bids");
    let grown = resident(&host).saturating_sub(before);
    assert!(grown < 128 * 1024, "the host has grown by {grown} KiB");
    assert_eq!(host.json(&["ps"]).as_array().unwrap().len(), 1);
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.finds(&lease, "closed", |l| l["receipt"]["closed"] == true);
    nothing_left(world.docker(), &host);
    assert_eq!(host.json(&["ledger", "check"])["faults"], serde_json::json!([]));
    assert!(host.runs());
}
