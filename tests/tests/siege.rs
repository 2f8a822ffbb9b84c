//! A siege: one address with as many identities as it likes does to a real node what it can, while others trade through that node.
//!
//! The victim is a host. A second host is reachable for the victim alone; a renter, on a machine of its own, knows nobody but the
//! victim: what it sees of the second host's prices has come through the besieged one. The attacker has a machine of its own, too,
//! so it has an address that is nobody else's.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it speaks to the person who runs the tests"
)]

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use souk_network::{Multiaddr, NetworkConfig, NetworkHandle, spawn};
use souk_protocol::{
    Keypair, MachineId, NetworkId, NodeId, Signed, Timestamp, Verified, encode,
    message::{Request, Response},
    offer::{Notice, Offer},
};
use souk_tests::{
    attack::{
        Manners,
        storm::{Outcome, Target},
    },
    docker::BUSYBOX,
    netns::Elsewhere,
    node::Node,
    part::have_all,
    wait::{poll, until},
    world::{World, lease_of},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long each attack lasts.
const ATTACK: Duration = Duration::from_secs(4);
/// Seen later than this, a price did not come by gossip: what gossip loses is found by asking, within a minute or two.
const BY_GOSSIP: Duration = Duration::from_secs(20);
/// A node that has nothing to do takes no more of a core than this, in a debug build on a busy machine.
const IDLE: f64 = 0.25;
/// How often the attack comes that takes the most memory: what each time were lost would add up.
const ROUNDS: usize = 4;
/// What all of it may leave, in MiB, a minute later: the offers of 3,000 keys, which are in its book for half an hour, and what the
/// allocator can't give back.
const LEFT_MB: u64 = 128;
/// What it may hold meanwhile, at most: the shares of requests (64 MiB) and answers (64 MiB) of all peers, a window of 256 KiB for
/// each of the streams that 48 connections keep from being read, and as much as the allocator takes for it.
const PEAK_MB: u64 = 512;

fn network() -> NetworkId {
    NetworkId::of_name("scenario")
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// Somebody honest who asks the victim again and again.
struct Asker {
    runtime: Runtime,
    handle: NetworkHandle,
    to: NodeId,
    stop: CancellationToken,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Asker {
    fn meet(node: &Node) -> Self {
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let address: Multiaddr = node.address("/ip4/127.0.0.1/udp").parse().unwrap();
        let handle = runtime.block_on(async {
            let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
            let config = NetworkConfig { listen, ..NetworkConfig::new(Keypair::from_seed(&[77; 32]), network()) };
            let (handle, mut events) = spawn(config, stop.clone()).unwrap();
            tokio::spawn(async move { while events.recv().await.is_some() {} });
            handle.dial(address).await.unwrap();
            handle
        });
        Self { runtime, handle, to: node.id.parse().unwrap(), stop }
    }

    fn ask(&self, request: &Request) -> Option<Response> {
        let asked = self.handle.request(self.to, request.to_bytes(), Duration::from_secs(20));
        let answer = Response::from_bytes(&self.runtime.block_on(asked).ok()?).ok()?;
        (!matches!(answer, Response::Busy { .. })).then_some(answer)
    }

    /// The victim's own offer.
    fn offer(&self) -> Offer {
        until("its offer is in its book", || {
            let Response::BookPage { items, .. } = self.ask(&Request::BookPage { after: None })? else { return None };
            let ids = items.iter().map(|i| i.id).collect();
            let Response::BookNotices { notices } = self.ask(&Request::BookFetch { ids })? else { return None };
            let offers = notices.iter().filter_map(|n| match n {
                Notice::Offer(offer) => offer.verify(&network()).ok(),
                Notice::Withdrawal(_) => None,
            });
            offers.into_iter().find(|o| o.host == self.to).map(|o| (*o).clone())
        })
    }

    /// How long each of the questions took that were asked until something is over, and how many had no answer.
    fn round_trips(&self, over: &AtomicBool) -> (Vec<Duration>, u64) {
        let (mut took, mut lost) = (Vec::new(), 0);
        while !over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            match self.ask(&Request::BookSummary) {
                Some(_) => took.push(begun.elapsed()),
                None => lost += 1,
            }
            thread::sleep(Duration::from_millis(40));
        }
        took.sort_unstable();
        (took, lost)
    }
}

/// What a process takes.
struct Process(u32);

impl Process {
    fn memory(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = text.lines().find(|l| l.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// MiB resident.
    fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Seconds of a core, ever.
    fn cpu(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        ticks as f64 / 100.0
    }

    /// The share of a core it takes now.
    fn load(&self) -> f64 {
        let (cpu, begun) = (self.cpu(), Instant::now());
        thread::sleep(Duration::from_secs(1));
        (self.cpu() - cpu) / begun.elapsed().as_secs_f64()
    }
}

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Siege<'a> {
    victim: &'a Node,
    host: &'a Node,
    renter: &'a Node,
    asker: &'a Asker,
    process: Process,
    price: u32,
    changed: Instant,
    rows: Vec<String>,
    wrong: Vec<String>,
}

impl Siege<'_> {
    /// Changes the second host's price, and waits until the renter's search has it.
    fn price_seen(&mut self) -> Duration {
        // As often as a machine's offers are taken in.
        thread::sleep(Duration::from_millis(2500).saturating_sub(self.changed.elapsed()));
        self.changed = Instant::now();
        self.price += 1;
        let price = format!("{}.{:02}", self.price / 100, self.price % 100);
        let wanted: f64 = price.parse().unwrap();
        let _ = self.host.json(&["host", "price", "--price", &price]);
        let begun = Instant::now();
        let seen = poll(BY_GOSSIP, || {
            let found = self.renter.json(&["search", &format!("host_id={}", self.host.id)]);
            let ask = found["rows"].as_array()?.iter().find(|a| a["slots"] == 1)?;
            (ask["dph"].as_f64() == Some(wanted)).then_some(())
        });
        if seen.is_none() {
            for node in [self.victim, self.renter] {
                println!("{}", node.souk(&["status"], &[]).out);
            }
        }
        assert!(seen.is_some(), "the price {price} is not seen through the besieged node");
        begun.elapsed()
    }

    fn peers(&self) -> Vec<Value> {
        self.victim.json(&["peers"]).as_array().cloned().unwrap_or_default()
    }

    /// Runs an attack beside honest trade, and looks at what it did.
    fn stage(&mut self, name: &str, attack: impl FnOnce(Instant) -> Outcome + Send) -> Outcome {
        let (before, cpu) = (self.process.resident(), self.process.cpu());
        let over = AtomicBool::new(false);
        let asker = self.asker;
        let (outcome, prices, (took, lost), most) = thread::scope(|scope| {
            // A check that fails ends what runs beside it, too.
            let ended = Ended(&over);
            let asking = scope.spawn(|| asker.round_trips(&over));
            let (over, pid) = (&over, self.process.0);
            let watching = scope.spawn(move || {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(Process(pid).resident());
                    thread::sleep(Duration::from_millis(20));
                }
                most
            });
            let end = Instant::now() + ATTACK;
            let attacking = scope.spawn(move || attack(end));
            thread::sleep(Duration::from_millis(500));
            let mut prices = vec![self.price_seen()];
            while self.changed + Duration::from_secs(3) < end {
                prices.push(self.price_seen());
            }
            let outcome = attacking.join().unwrap();
            drop(ended);
            (outcome, prices, asking.join().unwrap(), watching.join().unwrap())
        });
        let used = self.process.cpu() - cpu;
        let calm = poll(Duration::from_secs(15), || (self.process.load() < IDLE).then_some(()));
        let after = self.process.resident();
        let at = |part: usize| {
            took.get((took.len() * part / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
        };
        self.rows.push(format!(
            "| {name} | {} | {} | {} | {} | {before} → {most} → {after} MiB | {used:.1} s | {:.2} s of {} | {:.1}, {:.1} ms of {} | {lost} |",
            outcome.connections,
            outcome.refused,
            outcome.sent,
            outcome.cut,
            prices.iter().max().unwrap().as_secs_f64(),
            prices.len(),
            at(50).as_secs_f64() * 1e3,
            at(99).as_secs_f64() * 1e3,
            took.len(),
        ));
        println!("{}", self.rows.last().unwrap());
        // All attacks are seen to their end; what was wrong is said then.
        let mut check = |holds: bool, what: String| {
            if !holds {
                self.wrong.push(format!("{name}: {what}"));
            }
        };
        check(calm.is_some(), "the node does not come to rest".to_owned());
        check(most < before + PEAK_MB, format!("{before} MiB before, {most} at most"));
        check(!took.is_empty(), "nobody else had an answer".to_owned());
        let peers = self.peers();
        for honest in [&self.host.id, &self.renter.id] {
            let peer = peers.iter().find(|p| p["node"] == honest.as_str());
            let peer = peer.unwrap_or_else(|| panic!("{name}: an honest peer has lost its place: {peers:#?}"));
            assert!(peer["score"].as_f64().unwrap() >= 0.0, "{name}: an honest peer's score fell: {peer:#}");
        }
        outcome
    }

    /// None of these is listened to: gone, or with a score below what the node listens to.
    fn silenced(&self, who: &Outcome) {
        let peers = self.peers();
        for id in &who.peers {
            let id = id.to_string();
            if let Some(peer) = peers.iter().find(|p| p["node"] == id.as_str()) {
                assert!(peer["score"].as_f64().unwrap() < -80.0, "it is still listened to: {peer:#}");
            }
        }
    }
}

/// Offers as an attacker makes them.
struct Forge {
    sample: Offer,
    made: u64,
}

impl Forge {
    fn offer(&mut self) -> (Keypair, Offer) {
        self.made += 1;
        let seed = *blake3::hash(&[b"siege".as_slice(), &self.made.to_be_bytes()].concat()).as_bytes();
        let key = Keypair::from_seed(&seed);
        let offer = Offer {
            host: key.node_id(),
            machine: MachineId(seed[..16].try_into().unwrap()),
            issued_at: now(),
            valid_until: Timestamp(now().0 + 20 * 60_000),
            membership: None,
            ..self.sample.clone()
        };
        (key, offer)
    }

    fn signed(&mut self, network: NetworkId, change: impl Fn(&mut Offer)) -> Signed<Offer> {
        let (key, mut offer) = self.offer();
        change(&mut offer);
        Verified::sign(offer, &key, &network).unwrap().to_signed()
    }

    fn notices(&mut self, count: u64, network: NetworkId, change: impl Fn(&mut Offer)) -> Vec<Vec<u8>> {
        (0..count).map(|_| encode::to_bytes(&Notice::Offer(self.signed(network, &change)))).collect()
    }

    /// Good offers with one bit of the signature wrong.
    fn forged(&mut self, count: u64) -> Vec<Vec<u8>> {
        let mut all = self.notices(count, network(), |_| ());
        for bytes in &mut all {
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
        }
        all
    }

    /// Many offers of one machine, the newest first.
    fn replayed(&mut self, count: u64) -> Vec<Vec<u8>> {
        let (key, offer) = self.offer();
        let at = |seq| {
            let offer = Offer { seq, ..offer.clone() };
            encode::to_bytes(&Notice::Offer(Verified::sign(offer, &key, &network()).unwrap().to_signed()))
        };
        (0..count).map(|n| at(1_000_000 - n)).collect()
    }
}

#[test]
fn a_node_under_siege_serves_those_who_trade() {
    if !have_all(&["docker", "netns", "nsenter"]) {
        return;
    }
    let (field, home) = (Elsewhere::new(), Elsewhere::new());
    let world = World::with_docker();
    let victim = world.watch(world.node("victim").everywhere().host(1, "1.00").start());
    let reached = |place: &Elsewhere| victim.address(&format!("/ip4/{}/tcp", place.host)).to_owned();
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0");
    let host = world.watch(host.knows(victim.address("/ip4/127.0.0.1/udp")).start());
    let renter = world.node("renter").elsewhere(&home).knows(&reached(&home)).start();
    host.meets(&victim);
    renter.meets(&victim);
    let (_, ask) = (renter.ask_of(&host, 1), renter.ask_of(&victim, 1));
    let asker = Asker::meet(&victim);
    let mut forge = Forge { sample: asker.offer(), made: 0 };

    let address = reached(&field);
    let port: u16 = address.split('/').nth(4).unwrap().parse().unwrap();
    let target = Arc::new(Target::new(SocketAddr::new(field.host.into(), port), &network()));
    // Each attack has a runtime of its own, whose threads are in the attacker's namespace.
    macro_rules! attack {
        ($name:ident, $end:ident => $what:expr) => {{
            let $name = Arc::clone(&target);
            let field = &field;
            move |$end: Instant| {
                field.run(move || {
                    let mut builder = tokio::runtime::Builder::new_multi_thread();
                    builder.worker_threads(2).enable_all().build().unwrap().block_on($what)
                })
            }
        }};
    }

    let mut siege = Siege {
        victim: &victim,
        host: &host,
        renter: &renter,
        asker: &asker,
        process: Process(victim.pid()),
        price: 100,
        changed: Instant::now(),
        rows: Vec::new(),
        wrong: Vec::new(),
    };
    let at_first = siege.process.resident();
    let _ = siege.stage("nothing", |end| {
        thread::sleep(end.saturating_duration_since(Instant::now()));
        Outcome::default()
    });

    let fine = vec![forge.notices(1500, network(), |_| ()), forge.notices(1500, network(), |_| ())];
    let futile = vec![
        forge.replayed(200),
        forge.notices(200, network(), |o| {
            o.issued_at = Timestamp(o.issued_at.0 + 3_600_000);
            o.valid_until = Timestamp(o.valid_until.0 + 3_600_000);
        }),
    ];
    let _ = siege.stage("offers of 3,000 fresh keys, replays, a clock ahead", {
        let lists: Vec<_> = fine.into_iter().chain(futile).collect();
        attack!(to, end => async move { to.messages(lists, end).await })
    });
    let bad = vec![
        forge.forged(200),
        forge.notices(200, NetworkId::of_name("elsewhere"), |_| ()),
        vec![vec![0xa1; 13_500]; 4],
        vec![vec![0x5a; 5_000], vec![0; 300], b"junk".to_vec()],
    ];
    let out = siege.stage("forged, another network's, oversized, no offers at all", {
        attack!(to, end => async move { to.messages(bad, end).await })
    });
    siege.silenced(&out);

    let _ = siege.stage("300 half-open handshakes", attack!(to, end => async move { to.slow(300, end).await }));
    let _ = siege
        .stage("12 × 250 half-sent requests", attack!(to, end => async move { to.half_requests(12, 250, end).await }));
    for (name, manners) in
        [("streams without end, windows never opened", Manners::Stalls), ("the same, nothing read", Manners::Deaf)]
    {
        let _ = siege.stage(name, attack!(to, end => async move { to.exhaust(16, manners, end).await }));
    }
    for round in 2..=ROUNDS {
        let name = format!("nothing read, round {round}");
        let _ = siege.stage(&name, attack!(to, end => async move { to.exhaust(16, Manners::Deaf, end).await }));
    }
    let _ = siege.stage(
        "subscriptions, GRAFT, PRUNE, IHAVE, IWANT",
        attack!(to, end => async move { to.control(10, end).await }),
    );
    let _ = siege.stage("junk on every protocol", attack!(to, end => async move { to.junk(end).await }));
    let out = thread::scope(|scope| {
        let renting = scope.spawn(|| {
            let begun = Instant::now();
            let rental = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--tick", "1s", "--", "sleep", "600"];
            let outcome = renter.souk(&rental, &[]);
            assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
            let lease = lease_of(&outcome.lines());
            (lease, begun.elapsed())
        });
        let out = siege.stage("100 identities", attack!(to, end => async move { to.eclipse(100, end).await }));
        let (lease, took) = renting.join().unwrap();
        siege.rows.push(format!(
            "rented from the besieged node in {:.2} s, its command and its container's start included",
            took.as_secs_f64()
        ));
        let _ = renter.json(&["destroy", "-y", &lease]);
        renter.reaches(&lease, "ended destroyed");
        out
    });
    assert!(
        out.refused > 0 && out.connections - out.cut <= 48,
        "a crowd found more places than one address has: {out:?}"
    );
    let _ = siege.stage("nothing any more", |end| {
        thread::sleep(end.saturating_duration_since(Instant::now()));
        Outcome::default()
    });

    let left = poll(Duration::from_secs(60), || (siege.process.resident() < at_first + LEFT_MB).then_some(()));
    let row = format!("{at_first} MiB resident at first, {} in the end", siege.process.resident());
    if left.is_none() {
        siege.wrong.push(row.clone());
    }
    siege.rows.push(row);
    println!(
        "\n| attack | connections | refused | sent | cut | resident before → most → after | CPU | a price seen, worst | asked p50, p99 | unanswered |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for row in &siege.rows {
        println!("{row}");
    }
    assert!(siege.wrong.is_empty(), "{:#?}", siege.wrong);
}
