//! Getting into a cluster: a network of its own for a moment, that knows the keeper and nobody else, and asks it to be let in.
//!
//! Owns that conversation and its time limits. What is asked and answered is `souk_protocol::cluster`'s; the ticket proves that the
//! network is the keeper's, and the connection that the peer is the keeper.

use std::time::Duration;

use souk_network::{Admission, FenceKey, Multiaddr, NetworkConfig, NetworkHandle, RequestError};
use souk_protocol::{
    Keypair, Verified,
    cluster::{Answer, ClusterAnswer, ClusterRequest, Knock, MemberList, Proof, Refusal, Ticket},
};
use tokio_util::sync::CancellationToken;

/// How long all of it may take. A keeper behind a slow line answers in a second; an address that is gone takes all of it.
pub const WITHIN: Duration = Duration::from_secs(20);

/// Between two attempts to reach the keeper.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a node was not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The keeper said no.
    #[error("{0}")]
    Refused(Refusal),
    /// Nobody answered at the ticket's addresses.
    #[error("the cluster's keeper was not reached at {addresses}: {why}")]
    Unreachable {
        /// Where it was looked for.
        addresses: String,
        /// What happened there.
        why: String,
    },
    /// What answered made no sense.
    #[error("the cluster's keeper gave an answer that is not one: {0}")]
    Nonsense(String),
    /// This node's side failed.
    #[error("the network can't be used: {0}")]
    Network(String),
}

impl JoinError {
    /// What to do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            // It says so itself.
            Self::Refused(_) => None,
            Self::Unreachable { .. } => Some(
                "is the keeper's node up, and reachable from here? `souk cluster invite --address ADDRESS` there makes a ticket \
                 with another address",
            ),
            Self::Nonsense(_) => Some("both should run the same version: souk version"),
            Self::Network(_) => Some("try again"),
        }
    }
}

/// Redeems a ticket as the node of this key; its name in the list is `name`, or the keeper's choice.
///
/// # Errors
/// [`JoinError`].
pub async fn redeem(key: &Keypair, ticket: &Ticket, name: Option<String>) -> Result<Verified<MemberList>, JoinError> {
    let mut config = NetworkConfig::new(key.clone(), ticket.founding.network());
    config.name.clone_from(&ticket.founding.name);
    config.admission = Admission::Members(vec![ticket.founding.keeper]);
    config.fence = ticket.key.as_ref().map(|key| FenceKey::new(*key.as_bytes()));
    config.relay = false;
    let stop = CancellationToken::new();
    let _ends = stop.clone().drop_guard();
    let (network, mut events) = souk_network::spawn(config, stop).map_err(|e| JoinError::Network(e.to_string()))?;
    // Nothing that happens there is of interest, but the channel must not fill.
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let mut last = unreachable(ticket, "no answer in time");
    let tried = async {
        loop {
            match knock(&network, key, ticket, name.clone()).await {
                // The keeper may have been started a moment ago, or be starting anew with another key.
                Err(error @ JoinError::Unreachable { .. }) => last = error,
                ended => return ended,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let ended = tokio::time::timeout(WITHIN, tried).await;
    ended.unwrap_or(Err(last))
}

fn unreachable(ticket: &Ticket, why: &str) -> JoinError {
    JoinError::Unreachable { addresses: ticket.addresses.join(", "), why: why.to_owned() }
}

async fn knock(
    network: &NetworkHandle,
    key: &Keypair,
    ticket: &Ticket,
    name: Option<String>,
) -> Result<Verified<MemberList>, JoinError> {
    let keeper = ticket.founding.keeper;
    let addresses: Vec<Multiaddr> = ticket.addresses.iter().filter_map(|a| a.parse().ok()).collect();
    let ask = async |request: ClusterRequest| {
        let answer = network.knock(keeper, addresses.clone(), request.to_bytes()).await.map_err(|e| {
            if e == RequestError::Closed {
                JoinError::Network("it has ended".to_owned())
            } else {
                unreachable(ticket, &e.to_string())
            }
        })?;
        ClusterAnswer::from_bytes(&answer).map_err(|e| JoinError::Nonsense(e.to_string()))
    };
    let strange = || JoinError::Nonsense("it answered something else than was asked".to_owned());
    let nonce = match ask(ClusterRequest::Knock(Knock { token_id: ticket.token.id() })).await? {
        ClusterAnswer::Nonce(nonce) => nonce,
        ClusterAnswer::Answer(_) | ClusterAnswer::Newest { .. } | ClusterAnswer::Key(_) => return Err(strange()),
    };
    let proof = Proof::of(&ticket.token, &nonce, &keeper, &key.node_id(), name);
    match ask(ClusterRequest::Proof(proof)).await? {
        ClusterAnswer::Answer(Answer::Admitted { list }) => {
            let list = list.verify(&ticket.founding.network()).map_err(|e| JoinError::Nonsense(e.to_string()))?;
            if list.founding != ticket.founding || list.member(&key.node_id()).is_none() {
                return Err(JoinError::Nonsense("its list is not one that this node is on".to_owned()));
            }
            Ok(list)
        }
        ClusterAnswer::Answer(Answer::Refused(refusal)) => Err(JoinError::Refused(refusal)),
        ClusterAnswer::Nonce(_) | ClusterAnswer::Newest { .. } | ClusterAnswer::Key(_) => Err(strange()),
    }
}
