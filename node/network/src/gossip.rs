//! Gossip: how gossipsub is set up, and publications that wait for a first reader.
//!
//! Owns the parameters with their reasons and the waiting queue. What a valid message is, the consumer decides.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use libp2p::gossipsub::{
    self, ConfigBuilder, IdentityTransform, MaxCountSubscriptionFilter, MessageAuthenticity, MessageId,
    PeerScoreParams, PeerScoreThresholds, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};

use crate::{
    error::StartError,
    limits::{MAX_GOSSIP_RPC, MAX_IHAVE, MAX_UNPUBLISHED, UNPUBLISHED_FOR},
    names::{Names, Topic},
};

/// The libp2p behaviour of gossip. Only this network's topics can be subscribed to, so subscriptions take no memory to speak of.
pub(crate) type Behaviour =
    gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>>;

/// Short enough that a mesh of two or three nodes forms while a person starts them.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// An offer is valid for half an hour at most; while it is, it must not come round again.
const DUPLICATES: Duration = Duration::from_secs(35 * 60);

fn config(names: &Names) -> Result<gossipsub::Config, StartError> {
    ConfigBuilder::default()
        .protocol_id_prefix(names.mesh.clone())
        // Messages are signed inside, by their author; who publishes them first is nobody's business.
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| MessageId::from(blake3::hash(&message.data).as_bytes().as_slice()))
        // Forwarded only after the consumer has accepted it.
        .validate_messages()
        // To the mesh only: with thousands of peers flooding each publication would cost the publisher its uplink.
        .flood_publish(false)
        .max_transmit_size(MAX_GOSSIP_RPC)
        .max_control_messages_sent(MAX_IHAVE)
        .max_control_message_size(MAX_GOSSIP_RPC)
        .max_publish_messages(16)
        .duplicate_cache_time(DUPLICATES)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(Duration::from_millis(100))
        // Eight seconds for a verdict: after that a message can't be forwarded any more.
        .history_length(16)
        .history_gossip(3)
        // A restarted or re-meshed peer must not wait the default minute in a network of three.
        .prune_backoff(Duration::from_secs(10))
        .unsubscribe_backoff(Duration::from_secs(2))
        .graft_flood_threshold(Duration::from_secs(2))
        // A mesh of six; of a network of two, one is enough, and being dialled only (no outbound) is no reason to be left out.
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(12)
        .mesh_outbound_min(1)
        // A slow peer's queue: 512 messages of 16 KiB at worst.
        .connection_handler_queue_len(512)
        .build()
        .map_err(|e| StartError::Config(e.to_string()))
}

/// What a topic's traffic does to the score of a peer.
fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        // P1, time in the mesh: at most +6, after ten minutes. Enough to prefer a long-standing peer, too little to buy anything.
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 600.0,
        // P2, first deliveries: at most +10.
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        first_message_deliveries_cap: 100.0,
        // P3 and P3b, too few deliveries: off. Offers are sparse, and a small honest node brings nobody anything first.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // P4, rejected messages: the square of their number times -10, forgotten over an hour. The third one graylists.
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(3600)),
        ..TopicScoreParams::default()
    }
}

fn peer_score(names: &Names) -> PeerScoreParams {
    PeerScoreParams {
        topics: Topic::ALL
            .into_iter()
            .map(|topic| (names.topic(topic).hash(), topic_score()))
            .collect::<HashMap<_, _>>(),
        topic_score_cap: 20.0,
        // P5, what the node thinks of the peer otherwise: clamped, so that it never silences anybody by itself.
        app_specific_weight: 1.0,
        // P6: up to sixteen nodes behind one address (an office, a rack) are normal; twenty-one are graylisted together.
        ip_colocation_factor_weight: -5.0,
        ip_colocation_factor_threshold: 16.0,
        // Nodes of one machine, as in every test, are not a swarm of false identities.
        ip_colocation_factor_whitelist: [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into(),
        // P7, protocol misbehaviour (early grafts, broken promises): the first few happen to honest peers under load.
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: gossipsub::score_parameter_decay(Duration::from_secs(600)),
        // A bad score outlives a reconnection by this much.
        retain_score: Duration::from_secs(1800),
        ..PeerScoreParams::default()
    }
}

/// One rejected message costs a stranger its place in the mesh, two our gossip of what we have, three our ears and publications.
fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -15.0,
        publish_threshold: -40.0,
        graylist_threshold: -80.0,
        ..PeerScoreThresholds::default()
    }
}

/// Gossip on all topics of a network.
pub(crate) fn behaviour(names: &Names) -> Result<Behaviour, StartError> {
    let bad = |e: String| StartError::Config(e);
    let topics = Topic::ALL.map(|topic| names.topic(topic).hash());
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(topics.into()),
        max_subscribed_topics: Topic::ALL.len(),
        max_subscriptions_per_request: 2 * Topic::ALL.len(),
    };
    let mut behaviour = Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config(names)?, filter)
        .map_err(|e| bad(e.to_owned()))?;
    behaviour.with_peer_score(peer_score(names), thresholds()).map_err(bad)?;
    for topic in Topic::ALL {
        behaviour.subscribe(names.topic(topic)).map_err(|e| bad(e.to_string()))?;
    }
    Ok(behaviour)
}

/// Publications that found no subscribed peer yet. Bounded by [`MAX_UNPUBLISHED`] and [`UNPUBLISHED_FOR`].
#[derive(Debug, Default)]
pub(crate) struct Unpublished {
    waiting: VecDeque<(Topic, Vec<u8>, Instant)>,
}

impl Unpublished {
    /// Keeps a publication; gives back how many were lost for it (0 or 1).
    pub(crate) fn push(&mut self, topic: Topic, data: Vec<u8>, now: Instant) -> usize {
        self.waiting.push_back((topic, data, now));
        if self.waiting.len() > MAX_UNPUBLISHED {
            self.waiting.pop_front();
            return 1;
        }
        0
    }

    /// Takes all that are still worth publishing, in order, and how many are not.
    pub(crate) fn take(&mut self, now: Instant) -> (Vec<(Topic, Vec<u8>, Instant)>, usize) {
        let all = self.waiting.len();
        let fresh: Vec<_> = std::mem::take(&mut self.waiting)
            .into_iter()
            .filter(|(_, _, since)| now.saturating_duration_since(*since) < UNPUBLISHED_FOR)
            .collect();
        let lost = all - fresh.len();
        (fresh, lost)
    }

    /// Puts back one that was taken and found no peer again, with its first time.
    pub(crate) fn put_back(&mut self, topic: Topic, data: Vec<u8>, since: Instant) {
        self.waiting.push_back((topic, data, since));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_protocol::NetworkId;

    use super::*;

    #[test]
    fn the_parameters_are_valid() {
        let names = Names::of(&NetworkId::of_name("test")).unwrap();
        behaviour(&names).unwrap();
        peer_score(&names).validate().unwrap();
        thresholds().validate().unwrap();
    }

    #[test]
    fn the_oldest_publication_goes_and_the_stale_are_not_sent() {
        let start = Instant::now();
        let mut queue = Unpublished::default();
        for n in 0..MAX_UNPUBLISHED {
            assert_eq!(queue.push(Topic::Offers, n.to_be_bytes().to_vec(), start), 0);
        }
        assert_eq!(queue.push(Topic::Offers, b"last".to_vec(), start), 1);
        let (fresh, lost) = queue.take(start + Duration::from_secs(1));
        assert_eq!((fresh.len(), lost), (MAX_UNPUBLISHED, 0));
        assert_eq!(fresh[0].1, 1usize.to_be_bytes());
        for (topic, data, since) in fresh {
            queue.put_back(topic, data, since);
        }
        assert_eq!(queue.take(start + UNPUBLISHED_FOR).1, MAX_UNPUBLISHED);
        assert!(queue.is_empty());
    }
}
