//! The attacks. Each runs until a deadline, from one address, with as many identities as it likes, and says how far it came.
//!
//! Owns what is said; whether the victim bears it, the test finds out meanwhile.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use souk_protocol::{NetworkId, message::Request};
use tokio::time::sleep;

use super::{Manners, Raw, frame, knock, line, rpc};

/// Whom it is about.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where it listens over TCP, as seen from the attacker.
    pub address: SocketAddr,
    /// What its protocols' names begin with.
    base: String,
}

/// How far an attack came.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Connections that stood.
    pub connections: u64,
    /// Connections refused, or lost before they stood.
    pub refused: u64,
    /// Messages, requests or streams sent.
    pub sent: u64,
    /// Connections that the victim had closed by the end.
    pub cut: u64,
    /// Who it was.
    pub peers: Vec<PeerId>,
}

impl Outcome {
    fn end(mut self, held: &[Raw]) -> Self {
        self.cut += held.iter().filter(|raw| raw.is_cut()).count() as u64;
        self.peers.extend(held.iter().map(|raw| raw.id));
        self
    }
}

/// Says the parts in turn, again and again, until the deadline or the victim hangs up: how many got through.
async fn flood(raw: &Raw, protocol: &str, hello: &[u8], parts: &[Vec<u8>], end: Instant) -> u64 {
    let mut sent = 0;
    while Instant::now() < end && !raw.is_cut() {
        // A stream that the victim has reset is followed by the next.
        let Ok(stream) = raw.open(protocol, hello).await else { continue };
        for part in parts.iter().cycle() {
            if Instant::now() >= end || raw.say(stream, part).await.is_err() {
                break;
            }
            sent += 1;
        }
        sleep(Duration::from_millis(10)).await;
    }
    sent
}

impl Target {
    /// A node of a network.
    #[must_use]
    pub fn new(address: SocketAddr, network: &NetworkId) -> Self {
        Self { address, base: format!("/souk/{}", &network.to_string()[..16]) }
    }

    fn protocol(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    fn mesh(&self) -> String {
        self.protocol("mesh/1.1.0")
    }

    fn offers(&self) -> String {
        self.protocol("offers/1")
    }

    /// The subscriptions of a peer that looks like any other.
    fn hello(&self) -> Vec<u8> {
        let topics = [self.offers(), self.protocol("proofs/1")];
        rpc::framed(&topics.map(|topic| rpc::subscription(&topic, true)).concat())
    }

    /// As many identities as it gets connections for, of so many wanted.
    async fn crowd(&self, wanted: usize, manners: Manners, outcome: &mut Outcome) -> Vec<Raw> {
        let dials = (0..wanted).map(|_| Raw::dial(self.address, manners));
        let mut held = Vec::new();
        for dialled in futures::future::join_all(dials).await {
            match dialled {
                Ok(raw) => held.push(raw),
                Err(_) => outcome.refused += 1,
            }
        }
        outcome.connections += held.len() as u64;
        held
    }

    /// Each of these lists of messages from an identity of its own, as fast as the victim reads.
    pub async fn messages(&self, senders: Vec<Vec<Vec<u8>>>, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let held = self.crowd(senders.len(), Manners::Reads, &mut outcome).await;
        let floods = held.iter().zip(&senders).map(|(raw, messages)| {
            let parts: Vec<Vec<u8>> =
                messages.iter().map(|data| rpc::framed(&rpc::publication(&self.offers(), data))).collect();
            async move { flood(raw, &self.mesh(), &self.hello(), &parts, end).await }
        });
        outcome.sent = futures::future::join_all(floods).await.iter().sum();
        outcome.end(&held)
    }

    /// Connections that never get anywhere, each at another step, and requests that never end.
    pub async fn slow(&self, sockets: usize, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let mut held = Vec::new();
        let half: [&[u8]; 3] =
            [&[], &line("/multistream/1.0.0")[..9], &[line("/multistream/1.0.0"), line("/noise")].concat()];
        while Instant::now() < end {
            for n in 0..sockets.saturating_sub(held.len()) {
                match knock(self.address).await {
                    Ok(mut socket) => {
                        futures::AsyncWriteExt::write_all(&mut socket, half[n % half.len()]).await.ok();
                        held.push(socket);
                        outcome.sent += 1;
                    }
                    Err(_) => outcome.refused += 1,
                }
            }
            // Those that the victim has closed make room for more.
            held.retain(|socket| {
                socket.get_ref().try_read(&mut [0; 64]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            });
            sleep(Duration::from_millis(50)).await;
        }
        outcome.cut = outcome.sent - held.len() as u64;
        outcome
    }

    /// Requests of the largest size, each half sent and left there.
    pub async fn half_requests(&self, identities: usize, each: usize, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let held = self.crowd(identities, Manners::Reads, &mut outcome).await;
        let announced = u32::try_from(souk_network::limits::MAX_REQUEST).unwrap().to_be_bytes();
        for raw in &held {
            for _ in 0..each {
                outcome.sent += u64::from(raw.open(&self.protocol("exchange/1"), &announced).await.is_ok());
            }
        }
        rest(end).await;
        outcome.end(&held)
    }

    /// Asks for the largest answers on every stream it gets and reads none; opens more streams than any node may have; and pushes what nobody reads.
    pub async fn exhaust(&self, identities: usize, manners: Manners, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let held = self.crowd(identities, manners, &mut outcome).await;
        let ask = Request::BookPage { after: None }.to_bytes();
        let ask = [u32::try_from(ask.len()).unwrap().to_be_bytes().to_vec(), ask].concat();
        let work = held.iter().map(|raw| async {
            let mut sent = 0;
            let mut streams = Vec::new();
            for _ in 0..250 {
                match raw.open(&self.protocol("exchange/1"), &ask).await {
                    Ok(stream) => streams.push(stream),
                    Err(_) => break,
                }
                sent += 1;
            }
            for stream in &streams {
                // Up to the window, on a stream that has been read to its end.
                for _ in 0..15 {
                    if Instant::now() >= end || raw.say(*stream, &[0x5a; 16 * 1024]).await.is_err() {
                        break;
                    }
                }
            }
            for name in ["stream/1", "exchange/1", "kad/1", "mesh/1.1.0"].iter().cycle().take(2000) {
                if Instant::now() >= end || raw.open(&self.protocol(name), &[]).await.is_err() {
                    break;
                }
                sent += 1;
            }
            sent
        });
        outcome.sent = futures::future::join_all(work).await.iter().sum();
        rest(end).await;
        outcome.end(&held)
    }

    /// Thousands of topics, in and out of the mesh, and lists of messages that nobody has.
    pub async fn control(&self, identities: usize, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let held = self.crowd(identities, Manners::Reads, &mut outcome).await;
        let work = held.iter().enumerate().map(|(who, raw)| {
            let parts: Vec<Vec<u8>> = (0..200u64).map(|n| rpc::framed(&self.control_message(who, n))).collect();
            async move { flood(raw, &self.mesh(), &self.hello(), &parts, end).await }
        });
        outcome.sent = futures::future::join_all(work).await.iter().sum();
        outcome.end(&held)
    }

    fn control_message(&self, who: usize, n: u64) -> Vec<u8> {
        let id = |k: u64| *blake3::hash(&[n.to_be_bytes(), k.to_be_bytes()].concat()).as_bytes();
        let ids: Vec<[u8; 32]> = (0..190).map(id).collect();
        match who % 5 {
            0 => (0..150).flat_map(|k| rpc::subscription(&format!("/junk/{n}/{k}"), true)).collect(),
            1 => [rpc::graft(&self.offers()), rpc::prune(&self.offers(), u64::MAX)].concat(),
            2 => rpc::ihave(&self.offers(), &ids),
            3 => rpc::iwant(&ids),
            _ => [rpc::subscription(&self.offers(), n.is_multiple_of(2)), rpc::graft("/junk"), rpc::prune("/junk", 0)]
                .concat(),
        }
    }

    /// So many identities that behave, to take the places of others.
    pub async fn eclipse(&self, identities: usize, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let mut held: Vec<Raw> = Vec::new();
        while Instant::now() < end {
            held.retain(|raw| {
                outcome.cut += u64::from(raw.is_cut());
                !raw.is_cut()
            });
            let wanted = identities.saturating_sub(held.len());
            let new = self.crowd(wanted, Manners::Reads, &mut outcome).await;
            for raw in &new {
                let hello = [self.hello(), rpc::framed(&rpc::graft(&self.offers()))].concat();
                outcome.sent += u64::from(raw.open(&self.mesh(), &hello).await.is_ok());
            }
            held.extend(new);
            sleep(Duration::from_millis(300)).await;
        }
        outcome.end(&held)
    }

    /// Bytes without sense on every protocol a node speaks.
    pub async fn junk(&self, end: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        let own = ["exchange/1", "stream/1", "reach/1", "kad/1", "mesh/1.1.0"].map(|name| self.protocol(name));
        let common = [
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
            "/libp2p/circuit/relay/0.2.0/hop",
            "/libp2p/circuit/relay/0.2.0/stop",
            "/libp2p/dcutr",
            "/nobody/speaks/this/1",
        ];
        let protocols: Vec<String> = own.into_iter().chain(common.map(str::to_owned)).collect();
        let mut seed = 0u64;
        while Instant::now() < end {
            let held = self.crowd(4, Manners::Reads, &mut outcome).await;
            for (raw, protocol) in held.iter().cycle().zip(protocols.iter().cycle()).take(48) {
                seed += 1;
                let mut bytes = vec![0; [1, 100, 5_000, 100_000][(seed % 4) as usize]];
                blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut bytes);
                outcome.sent += u64::from(raw.open(protocol, &bytes).await.is_ok());
            }
            for (n, raw) in held.iter().enumerate() {
                // And below the protocols: frames that yamux does not know.
                raw.bytes(frame(7 + u8::try_from(n).unwrap(), 0xffff, u32::MAX, u32::MAX, &[0xff; 100])).await.ok();
            }
            sleep(Duration::from_millis(20)).await;
            outcome = outcome.end(&held);
        }
        outcome
    }
}

async fn rest(end: Instant) {
    sleep(end.saturating_duration_since(Instant::now())).await;
}
