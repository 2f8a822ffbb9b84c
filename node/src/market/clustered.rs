//! The private cluster of this node, as the market task holds it: who is a member, who is let in, and which key they share.
//!
//! Owns the cluster's files while the node runs. The rules are `Roster` and `Keeper` of the protocol crate. A list is on disk before
//! anybody hears of it; the network and the engine follow it at once. What people ask is in `cluster_commands`.

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use souk_network::{FenceKey, NetworkHandle, Reply as PeerReply, RequestError};
use souk_protocol::{
    Keypair, Millis, NodeId, Timestamp, Verified,
    cluster::{
        Adoption, Answer, ClusterAnswer, ClusterRequest, Keeper, MemberList, Outcome, PreSharedKey, Refusal, Roster,
        SharedKey, TokenId, Unchanged, knock::Nonce,
    },
    limits,
    machine::io::{Command as EngineCommand, Input},
};

use tokio::sync::mpsc::Sender;

use super::task::{End, Internal, Market};
use crate::{
    api::types::Problem,
    clock::{now, random},
    cluster::{ClusterError, ClusterFiles, files},
};

/// Nonces given out and not answered; the oldest goes.
const NONCES: usize = 256;
/// How long a nonce is good for.
const NONCE_LIFE: Millis = Millis::from_secs(30);
/// How long members go on with the old key, once they have the new one: others get it from them meanwhile.
const PASS_ON: Millis = Millis::from_secs(5);

/// How often a member that is busy is asked, and how long it is waited for it in between at most.
const TRIES: usize = 5;
const WAIT_MOST: Duration = Duration::from_secs(2);
/// Between two comparisons of lists with everybody connected: what was lost on the way is made up for.
const COMPARE_EVERY: Millis = Millis::from_mins(1);

/// A knock that was answered with a nonce.
#[derive(Debug)]
struct Knocked {
    peer: NodeId,
    token: TokenId,
    nonce: Nonce,
    at: Timestamp,
}

/// What the market task keeps of the cluster.
#[derive(Debug)]
pub struct Clustered {
    dir: PathBuf,
    pub(super) me: NodeId,
    signing: Keypair,
    pub(super) roster: Roster,
    /// What this node's connections are sealed with.
    key: Option<PreSharedKey>,
    /// The one that the newest list names, where it is another: in force from the next start on.
    next_key: Option<PreSharedKey>,
    /// When that start is due.
    anew_at: Option<Timestamp>,
    /// At the keeper alone.
    pub(super) keeper: Option<Keeper>,
    knocked: VecDeque<Knocked>,
    /// Whether strangers may knock, as the network was told.
    door: bool,
    compare_at: Timestamp,
}

impl Clustered {
    /// As the data directory has it; none if it is of no cluster.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn open(dir: PathBuf, signing: Keypair) -> Result<Option<Self>, ClusterError> {
        let Some(files) = ClusterFiles::load(&dir)? else { return Ok(None) };
        files.forget_old_keys(&dir)?;
        let me = signing.node_id();
        let keeper = if files.list.founding.keeper == me {
            Some(Keeper::new(files.list.clone(), files::load_tickets(&dir)?))
        } else {
            None
        };
        Ok(Some(Self {
            dir,
            me,
            signing,
            roster: Roster::new(files.list),
            key: files.key,
            next_key: None,
            anew_at: None,
            keeper,
            knocked: VecDeque::new(),
            door: false,
            compare_at: now() + COMPARE_EVERY,
        }))
    }

    /// All members but this node.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        self.roster.list().members.iter().map(|m| m.node).filter(|node| *node != self.me).collect()
    }

    /// What connections are sealed with.
    #[must_use]
    pub fn fence(&self) -> Option<FenceKey> {
        self.key.as_ref().map(|key| FenceKey::new(*key.as_bytes()))
    }

    /// The key that new members need.
    pub(super) fn newest_key(&self) -> Option<&PreSharedKey> {
        self.next_key.as_ref().or(self.key.as_ref())
    }

    /// Signs what the keeper wants, writes it down, and has the keeper follow it. With a new key, which is written first.
    pub(super) fn seal(&mut self, next: MemberList, key: Option<PreSharedKey>) -> Result<Verified<MemberList>, String> {
        let network = next.founding.network();
        let list = Verified::sign(next, &self.signing, &network).map_err(|e| e.to_string())?;
        let Some(keeper) = &self.keeper else { return Err(Unchanged::Overtaken.to_string()) };
        let mut after = keeper.clone();
        after.adopt(list.clone()).map_err(|e| e.to_string())?;
        let keys = key.as_ref().map_or(Ok(()), |key| self.save_key(key));
        let wrote = keys
            .and_then(|()| files::save_tickets(&self.dir, after.tickets()))
            .and_then(|()| files::save_list(&self.dir, &list));
        wrote.map_err(|e| e.to_string())?;
        self.keeper = Some(after);
        if let Some(key) = key {
            self.use_soon(key);
        }
        Ok(list)
    }

    fn save_key(&self, key: &PreSharedKey) -> Result<(), ClusterError> {
        let keys: Vec<&PreSharedKey> = self.key.iter().chain([key]).collect();
        files::save_keys(&self.dir, &keys)
    }

    /// A new key is on disk: in force from the next start on.
    fn use_soon(&mut self, key: PreSharedKey) {
        self.next_key = Some(key);
        self.anew_at = Some(now() + PASS_ON);
    }

    /// Writes down the keeper's tickets.
    pub(super) fn save_tickets(&self) -> Result<(), String> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        files::save_tickets(&self.dir, keeper.tickets()).map_err(|e| e.to_string())
    }

    /// The key of this fence, for another member.
    fn key_of(&self, fence: &souk_protocol::cluster::Fence) -> Option<PreSharedKey> {
        [self.next_key.as_ref(), self.key.as_ref()].into_iter().flatten().find(|key| key.fence() == *fence).cloned()
    }

    /// Whether the newest list names a key that this node has not.
    fn lacks_key(&self) -> bool {
        let wanted = self.roster.list().fence;
        wanted.is_some() && self.newest_key().map(PreSharedKey::fence) != wanted
    }

    fn remember(&mut self, peer: NodeId, token: TokenId, nonce: Nonce) {
        self.knocked.retain(|k| k.peer != peer);
        if self.knocked.len() >= NONCES {
            self.knocked.pop_front();
        }
        self.knocked.push_back(Knocked { peer, token, nonce, at: now() });
    }

    /// What a peer was given, once.
    fn take(&mut self, peer: &NodeId) -> Option<Knocked> {
        let at = self.knocked.iter().position(|k| k.peer == *peer)?;
        self.knocked.remove(at).filter(|k| now().since(k.at) < NONCE_LIFE)
    }
}

/// Asks a member about the cluster, one question after the other, and brings its answers to the task. A member that is busy is asked
/// again; one that gives no answer is met again, or asked with the next comparison.
fn ask(network: &NetworkHandle, internal: &Sender<Internal>, peer: NodeId, requests: Vec<ClusterRequest>) {
    let (network, internal) = (network.clone(), internal.clone());
    tokio::spawn(async move {
        for request in requests {
            for _ in 0..TRIES {
                match network.knock(peer, Vec::new(), request.to_bytes()).await {
                    Ok(bytes) => {
                        if let Ok(answer) = ClusterAnswer::from_bytes(&bytes) {
                            internal.send(Internal::Listed(peer, Box::new(answer))).await.ok();
                        }
                        break;
                    }
                    Err(RequestError::Busy { retry_after }) => tokio::time::sleep(retry_after.min(WAIT_MOST)).await,
                    Err(_) => break,
                }
            }
        }
    });
}

impl Market {
    /// The engine and the network begin with the list that is on disk.
    pub(super) fn begin_cluster(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        let list = cluster.roster.list().clone();
        self.follow(&list);
        self.remember_quotas();
        self.mind_the_door();
    }

    /// Strangers may knock while a ticket is out, and at no other time.
    pub(super) fn mind_the_door(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let at = now();
        let open = cluster.keeper.as_ref().is_some_and(|keeper| keeper.is_awaiting(at));
        if open != cluster.door {
            cluster.door = open;
            let network = self.network.clone();
            tokio::spawn(async move { network.open_door(open).await.ok() });
        }
        let compare = cluster.compare_at <= at;
        if compare {
            cluster.compare_at = at + COMPARE_EVERY;
        }
        if cluster.anew_at.is_some_and(|due| due <= at) {
            cluster.anew_at = None;
            self.halt(End::Rekeyed);
        }
        if compare {
            self.tell_list();
        }
    }

    /// What members had used here before this start counts for their quotas.
    fn remember_quotas(&mut self) {
        for (node, slot_ms, at) in self.ledger.used_here(Timestamp(now().0.saturating_sub(limits::QUOTA_WINDOW.0))) {
            self.input(Input::Command(EngineCommand::RememberUse { node, slot_ms, at }));
        }
    }

    /// The cluster's name, if the node is in one.
    pub(super) fn cluster_name(&self) -> Option<String> {
        self.cluster.as_ref().map(|c| c.roster.list().founding.name.clone())
    }

    /// What is wrong with this node's place in its cluster.
    pub(super) fn cluster_problem(&self) -> Option<Problem> {
        let cluster = self.cluster.as_ref()?;
        let invite = "ask the cluster's keeper: souk cluster admit, and a new ticket (souk cluster invite)";
        let alone = self.engine.connected().next().is_none() && cluster.roster.list().members.len() > 1;
        let sentence = if !cluster.roster.is_member(&cluster.me) {
            "this node was put out of its cluster, so its members have nothing to do with it"
        } else if cluster.lacks_key() {
            "the cluster's key was changed while this node was away, so it reaches nobody"
        } else if alone {
            let fix = "are their nodes up, and on the same network as this one? souk cluster members";
            return Some(Problem {
                sentence: "no other member of the cluster is connected".to_owned(),
                fix: fix.to_owned(),
            });
        } else {
            return None;
        };
        Some(Problem { sentence: sentence.to_owned(), fix: invite.to_owned() })
    }

    /// The network lets in who is on it, and the engine deals with nobody else.
    fn follow(&mut self, list: &Verified<MemberList>) {
        let members: Vec<NodeId> = list.members.iter().map(|m| m.node).filter(|n| *n != self.engine.me()).collect();
        let network = self.network.clone();
        tokio::spawn(async move { network.members(members).await.ok() });
        let on_removal = self.about.on_removal;
        self.input(Input::Command(EngineCommand::Members { list: list.clone(), on_removal }));
    }

    /// A list that is newer, by the keeper's signature: it is on disk already where this node is the keeper.
    fn adopt(&mut self, list: Verified<MemberList>) -> Result<(), String> {
        let Some(cluster) = &mut self.cluster else { return Ok(()) };
        let mut after = cluster.roster.clone();
        let Ok(Adoption::Adopted { joined, left, rekeyed }) = after.adopt(list.clone()) else { return Ok(()) };
        if cluster.keeper.is_none() {
            files::save_list(&cluster.dir, &list).map_err(|e| e.to_string())?;
        }
        cluster.roster = after;
        let name = |node: &NodeId| list.member(node).map_or_else(|| node.short(), |m| m.name.clone());
        for node in &joined {
            tracing::info!(%node, "{} is a member of the cluster now", name(node));
        }
        for node in &left {
            tracing::warn!(%node, "a member was put out of the cluster");
        }
        if rekeyed {
            tracing::info!("the cluster has another key");
        }
        self.follow(&list);
        self.tell_list();
        Ok(())
    }

    /// Everybody connected hears that there is a newer list: they ask back.
    fn tell_list(&self) {
        for peer in self.network.connected() {
            self.compare_lists(peer);
        }
    }

    /// Asks a member whether it has a newer list; one that has an older one asks back.
    pub(super) fn compare_lists(&self, peer: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        let have = cluster.roster.list().seq;
        if cluster.roster.is_member(&peer) {
            ask(&self.network, &self.internal, peer, vec![ClusterRequest::Newest { have }]);
        }
    }

    fn want_key(&self, peer: NodeId) {
        if let Some(cluster) = self.cluster.as_ref().filter(|c| c.lacks_key())
            && let Some(fence) = cluster.roster.list().fence
        {
            ask(&self.network, &self.internal, peer, vec![ClusterRequest::Key { fence }]);
        }
    }

    /// What a member has answered.
    pub(super) fn listed(&mut self, peer: NodeId, answer: ClusterAnswer) {
        let Some(cluster) = &mut self.cluster else { return };
        match answer {
            ClusterAnswer::Newest { list: Some(list), .. } => {
                match list.verify(&cluster.roster.list().founding.network()) {
                    Ok(list) if cluster.keeper.is_some() => self.own_list_came(list),
                    Ok(list) => {
                        if let Err(why) = self.adopt(list) {
                            tracing::error!("a newer list of members can't be written down: {why}");
                        }
                    }
                    Err(error) => tracing::warn!(%peer, %error, "a member's list of members does not hold"),
                }
                self.want_key(peer);
            }
            ClusterAnswer::Key(Some(SharedKey(key))) => {
                if cluster.lacks_key() && cluster.roster.list().fence == Some(key.fence()) {
                    match cluster.save_key(&key) {
                        Ok(()) => {
                            tracing::info!("the cluster's new key is here; the node starts anew with it in a moment");
                            cluster.use_soon(key);
                        }
                        Err(error) => tracing::error!(%error, "the cluster's new key can't be written down"),
                    }
                }
            }
            ClusterAnswer::Newest { list: None, .. }
            | ClusterAnswer::Key(None)
            | ClusterAnswer::Nonce(_)
            | ClusterAnswer::Answer(_) => {}
        }
    }

    /// A keeper whose files were restored from a copy hears of lists that it has signed since: it goes on after them.
    fn own_list_came(&mut self, list: Verified<MemberList>) {
        let Some(cluster) = &mut self.cluster else { return };
        if list.seq <= cluster.roster.list().seq {
            return;
        }
        tracing::warn!(list = list.seq, "this keeper's list was older than a member's, and is that one now");
        let tickets = cluster.keeper.as_ref().map(|keeper| keeper.tickets().clone()).unwrap_or_default();
        let written = files::save_list(&cluster.dir, &list).map_err(|e| e.to_string());
        cluster.keeper = Some(Keeper::new(list.clone(), tickets));
        if let Err(why) = written.and_then(|()| self.adopt(list)) {
            tracing::error!("a newer list of members can't be written down: {why}");
        }
    }

    /// Signs and spreads the keeper's next list, with a new key where there is one.
    pub(super) fn proclaim(&mut self, next: MemberList, key: Option<PreSharedKey>) -> Result<(), String> {
        let Some(cluster) = &mut self.cluster else { return Err("this node is in no cluster".to_owned()) };
        let list = cluster.seal(next, key)?;
        self.adopt(list)?;
        self.mind_the_door();
        Ok(())
    }

    /// Somebody knocks, or a member asks.
    pub(super) fn knocked(&mut self, peer: NodeId, body: &[u8], reply: PeerReply) {
        let Ok(request) = ClusterRequest::from_bytes(body) else { return };
        let Some(answer) = self.cluster_answer(peer, request) else { return };
        if let Err(error) = reply.send(answer.to_bytes()) {
            tracing::warn!(%error, "an answer about the cluster was too large");
        }
    }

    fn cluster_answer(&mut self, peer: NodeId, request: ClusterRequest) -> Option<ClusterAnswer> {
        let cluster = self.cluster.as_mut()?;
        let member = cluster.roster.is_member(&peer);
        match request {
            ClusterRequest::Knock(knock) => {
                let keeper = cluster.keeper.as_ref()?;
                let nonce = keeper.knocked(&knock, random().ok()?);
                cluster.remember(peer, knock.token_id, nonce);
                Some(ClusterAnswer::Nonce(nonce))
            }
            ClusterRequest::Proof(proof) => {
                let asked = cluster.take(&peer);
                let keeper = cluster.keeper.as_mut()?;
                let outcome = match asked {
                    Some(Knocked { token, nonce, .. }) => {
                        keeper.prove(peer, token, &nonce, &proof.mac, proof.name.as_deref(), now())
                    }
                    None => Err(Refusal::Nothing),
                };
                Some(ClusterAnswer::Answer(match outcome {
                    Ok(Outcome::Member(list)) => Answer::Admitted { list: list.to_signed() },
                    Ok(Outcome::Admit(next)) => match self.proclaim(next, None) {
                        Ok(()) => Answer::Admitted { list: self.cluster.as_ref()?.roster.list().to_signed() },
                        Err(why) => {
                            tracing::error!("a new member can't be written down: {why}");
                            return None;
                        }
                    },
                    Err(refusal) => {
                        tracing::info!(%peer, "a node that knocked was not let in: {refusal}");
                        Answer::Refused(refusal)
                    }
                }))
            }
            ClusterRequest::Newest { have } if member => {
                let list = cluster.roster.list();
                let newer = (list.seq > have).then(|| Box::new(list.to_signed()));
                let answer = ClusterAnswer::Newest { have: list.seq, list: newer };
                if have > list.seq {
                    self.compare_lists(peer);
                }
                Some(answer)
            }
            ClusterRequest::Key { fence } if member => Some(ClusterAnswer::Key(cluster.key_of(&fence).map(SharedKey))),
            ClusterRequest::Newest { .. } | ClusterRequest::Key { .. } => None,
        }
    }
}
