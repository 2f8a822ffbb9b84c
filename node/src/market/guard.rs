//! The start of a node up to its first signature: peers are asked for its own head, and whether its key is in use elsewhere.
//!
//! Owns nothing beyond that time. What people want meanwhile waits, but for how the node is; peers that ask for anything but a
//! meeting are told to ask again, and their streams wait. The rules are [`souk_protocol::machine::guard`]'s.

use std::{collections::BTreeSet, time::Duration};

use souk_network::{NetworkEvent, NetworkHandle};
use souk_protocol::{
    Keypair, NetworkId, NodeId, Nonce,
    machine::{
        guard::{Guard, Phase, Verdict},
        io::OwnKey,
        record::{LeaseRow, Restore},
    },
    message::{Request, Response},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{About, Command, CommandError, ErrorCode, early::Early};
use crate::{
    api::types::{HostRole, Problem, StatusView},
    clock::{now, random},
    ledger::Ledger,
};

/// Answers under way that the guard has not read. When full, their tasks wait.
const ANSWERS: usize = 256;
/// Commands that wait for the engine; more are answered as by a node that stops.
const WAITING: usize = 256;
/// How long a peer has for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// What a peer is told that asks for anything else.
const ASK_AGAIN_MS: u64 = 500;
/// How often the guard looks at its watch.
const LOOK: Duration = Duration::from_millis(100);
/// A start that takes longer says why.
const QUIET: Duration = Duration::from_secs(2);

/// What the guard works with.
#[derive(Debug)]
pub struct Post<'a> {
    /// The node's key.
    pub key: &'a Keypair,
    /// The network.
    pub network_id: NetworkId,
    /// The ledger.
    pub ledger: &'a Ledger,
    /// What the ledger has.
    pub restore: Restore,
    /// The network.
    pub network: &'a NetworkHandle,
    /// What happens on it.
    pub events: &'a mut mpsc::Receiver<NetworkEvent>,
    /// What people want.
    pub commands: &'a mut mpsc::Receiver<Command>,
    /// What a status tells.
    pub about: &'a About,
}

/// What the engine starts with.
#[derive(Debug)]
pub struct Passed {
    /// The ledger's word, caught up.
    pub restore: Restore,
    /// Peers that are connected.
    pub connected: BTreeSet<NodeId>,
    /// What people have wanted meanwhile.
    pub waiting: Vec<Command>,
    /// Streams that peers have opened meanwhile.
    pub early: Early,
}

/// How the guard ended.
#[derive(Debug)]
pub enum Outcome {
    /// The node may sign.
    Passed(Box<Passed>),
    /// Another node has the key.
    Refused(OwnKey),
    /// The node was told to stop.
    Stopped,
}

fn other_party(row: &LeaseRow, me: NodeId, network: &NetworkId) -> Option<NodeId> {
    let over = row.close.is_some() && row.close_ack.is_some();
    let open = row.open.verify(network).ok().filter(|_| !over)?;
    let draft = open.body.draft()?.verify(network).ok()?;
    Some(if draft.host == me { draft.renter } else { draft.host })
}

/// Waits until the node may sign, and no longer.
///
/// # Errors
/// If the ledger can't be caught up.
pub async fn pass(post: Post<'_>, stop: &CancellationToken) -> anyhow::Result<Outcome> {
    let Post { key, network_id, ledger, mut restore, network, events, commands, about } = post;
    let me = key.node_id();
    let instance = Nonce(random()?);
    restore.instance = instance;
    let parties: BTreeSet<NodeId> = restore.leases.iter().filter_map(|row| other_party(row, me, &network_id)).collect();
    let mut guard =
        Guard::new(key.clone(), network_id, instance, restore.head, parties.clone(), about.has_bootstrap, now());
    for peer in parties {
        network.keep(peer).await.ok();
    }
    let (answers, mut answered) = mpsc::channel(ANSWERS);
    let mut connected: BTreeSet<NodeId> = BTreeSet::new();
    let (mut waiting, mut early) = (Vec::new(), Early::default());
    let (began, mut told) = (tokio::time::Instant::now(), None);
    let mut look = tokio::time::interval(LOOK);
    loop {
        while let Some((to, request)) = guard.poll() {
            let (network, answers) = (network.clone(), answers.clone());
            tokio::spawn(async move {
                let answer = network.request(to, request.to_bytes(), ANSWER_WITHIN).await.ok();
                let response = answer.and_then(|bytes| Response::from_bytes(&bytes).ok());
                answers.send((to, response)).await.ok();
            });
        }
        match guard.verdict(now()) {
            None => {}
            Some(Verdict::Refuse(why)) => return Ok(Outcome::Refused(why)),
            Some(Verdict::Pass { answers, records }) => {
                tracing::info!(answers, "nobody has seen this node's key elsewhere, or newer entries of it");
                if let Some(head) = restore.head.filter(|_| ledger.lacks(&records)) {
                    let (taken, caught_up) = tokio::task::block_in_place(|| ledger.catch_up(head, records, now()))?;
                    tracing::warn!(taken, "this ledger was restored from an older copy; it has its receipts back");
                    restore = Restore { instance, ..caught_up };
                }
                return Ok(Outcome::Passed(Box::new(Passed { restore, connected, waiting, early })));
            }
            Some(Verdict::CatchUp { head, records }) => {
                let known = records.len();
                let (taken, caught_up) = tokio::task::block_in_place(|| ledger.catch_up(head, records, now()))?;
                tracing::warn!(
                    entries = head.seq.saturating_add(1),
                    taken,
                    known,
                    "this ledger was restored from an older copy; it goes on after the newest entry that peers have seen"
                );
                let restore = Restore { instance, ..caught_up };
                return Ok(Outcome::Passed(Box::new(Passed { restore, connected, waiting, early })));
            }
        }
        let phase = guard.phase();
        if began.elapsed() > QUIET && told != Some(phase) {
            tracing::info!("nothing is signed yet: {}", sentence(phase));
            told = Some(phase);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Outcome::Stopped),
            event = events.recv() => match event {
                Some(event) => happened(event, &mut guard, ledger, (&mut connected, &mut early)),
                None if stop.is_cancelled() => return Ok(Outcome::Stopped),
                None => anyhow::bail!("the network's task has ended"),
            },
            Some((from, response)) = answered.recv() => guard.answered(from, response, now()),
            Some(command) = commands.recv() => {
                if let Command::Status(reply) = command {
                    reply.send(Ok(status(about, me, network_id, network, guard.phase()))).ok();
                } else if let Command::LedgerCompact(reply) = command {
                    reply.send(Err(not_compacted(guard.phase()))).ok();
                } else if waiting.len() < WAITING {
                    waiting.push(command);
                }
            },
            _ = look.tick() => guard.tick(now()),
        }
    }
}

fn happened(
    event: NetworkEvent,
    guard: &mut Guard,
    ledger: &Ledger,
    (connected, early): (&mut BTreeSet<NodeId>, &mut Early),
) {
    match event {
        NetworkEvent::Listening(address) => tracing::info!(%address, "listening"),
        NetworkEvent::Connected(peer) => {
            connected.insert(peer);
            guard.connected(peer, now());
        }
        NetworkEvent::Disconnected(peer) => {
            connected.remove(&peer);
            guard.disconnected(&peer);
        }
        // Offers come again with the first comparison of books, proofs with the next node that finds one.
        NetworkEvent::Gossip { verdict, .. } => verdict.ignore(),
        NetworkEvent::Request { from, body, reply } => {
            let response = match Request::from_bytes(&body) {
                Ok(Request::Meet(meet)) => guard.meeting(from, &meet, &ledger.own_at(&meet.at), now()),
                Ok(_) | Err(_) => Response::Busy { retry_after_ms: ASK_AGAIN_MS },
            };
            reply.send(response.to_bytes()).ok();
        }
        // Nobody is let in before the ledger is there.
        NetworkEvent::Knock { reply, .. } => reply.busy(std::time::Duration::from_millis(ASK_AGAIN_MS)),
        NetworkEvent::Stream { from, stream } => early.push(from, stream),
    }
}

fn sentence(phase: Phase) -> String {
    match phase {
        Phase::Asking { answers, missing: 0 } => {
            format!("peers are asked for this node's own head ({answers} answered)")
        }
        Phase::Asking { missing, .. } => {
            format!("the other sides of open leases are asked for this node's own head; {missing} have not answered")
        }
        Phase::Doubting => {
            "a peer has just seen another node with this node's key, and asks whether it is gone".to_owned()
        }
        Phase::CatchingUp { length, known } => format!(
            "this ledger is behind its own chain: it has {length} entries, peers have seen {known}; what they hold is fetched"
        ),
    }
}

/// The checkpoint that has to come first is an entry of our own chain.
fn not_compacted(phase: Phase) -> CommandError {
    let why = format!("the ledger can't be compacted while nothing is signed: {}", sentence(phase));
    CommandError::new(ErrorCode::WrongState, why).hint("wait; `souk status` tells when that is over")
}

fn status(about: &About, node: NodeId, network_id: NetworkId, network: &NetworkHandle, phase: Phase) -> StatusView {
    StatusView {
        node,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_ms: about.started,
        network: about.network_name.clone(),
        network_id,
        dir: about.dir.clone(),
        listen: network.listen_addrs().iter().map(|a| format!("{a}/p2p/{node}")).collect(),
        external: about.external.clone(),
        reachability: super::reach::view(&network.reachability(), &about.mapping.borrow()),
        peers: network.connected().len() as u64,
        offers: 0,
        host: HostRole::Off,
        renting: 0,
        hosting: 0,
        problems: vec![Problem {
            sentence: format!("nothing is signed yet: {}", sentence(phase)),
            fix: "wait; it goes on by itself".to_owned(),
        }],
    }
}
