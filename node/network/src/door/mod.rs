//! The door of a private cluster: who is a member, and whether strangers may come as far as to knock.
//!
//! Owns the set of members, the strangers that are connected, and the rule of what a connection is. It closes connections; what a
//! knock says and who becomes a member is the consumer's. In a public network there is no door, and everybody is inside.
//!
//! A connection is a stranger's if its peer is no member when it is made, or if this node made it to knock. What is not to be had
//! there is kept behind [`inside`].

mod guests;
mod inside;

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use self::guests::{Guests, TurnedAway};
pub(crate) use self::{
    guests::{Knocks, Source},
    inside::Inside,
};

#[derive(Debug, Default)]
struct Facts {
    /// None in a public network.
    members: Option<HashSet<PeerId>>,
    /// Connections that this node makes to knock, from the dial to the end.
    visits: HashSet<ConnectionId>,
}

/// Who is a member: written by the door, read by what is behind it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<Facts>>);

impl Roster {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection that is being made is a stranger's.
    fn is_stranger(&self, id: ConnectionId, peer: &PeerId) -> bool {
        let facts = self.facts();
        facts.visits.contains(&id) || facts.members.as_ref().is_some_and(|members| !members.contains(peer))
    }

    /// Whether a node is one of this network's: anybody in a public one.
    pub(crate) fn is_member(&self, peer: &PeerId) -> bool {
        self.facts().members.as_ref().is_none_or(|members| members.contains(peer))
    }

    /// A behaviour of which strangers get nothing.
    pub(crate) fn inside<B>(&self, behaviour: B) -> Inside<B> {
        Inside::new(behaviour, self.clone())
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Behaviour {
    roster: Roster,
    open: bool,
    guests: Guests,
    closing: VecDeque<ToSwarm<Infallible, Infallible>>,
}

impl Behaviour {
    /// A closed door with these members behind it; none in a public network.
    pub(crate) fn new(members: Option<HashSet<PeerId>>) -> Self {
        let facts = Facts { members, visits: HashSet::new() };
        Self {
            roster: Roster(Arc::new(Mutex::new(facts))),
            open: false,
            guests: Guests::default(),
            closing: VecDeque::new(),
        }
    }

    pub(crate) fn roster(&self) -> Roster {
        self.roster.clone()
    }

    /// Whether a connection is used for knocking only.
    pub(crate) fn is_strange(&self, id: ConnectionId) -> bool {
        self.guests.has(id) || self.roster.facts().visits.contains(&id)
    }

    /// The task is about to dial for knocking only, whoever is there.
    pub(crate) fn visit(&mut self, id: ConnectionId) {
        self.roster.facts().visits.insert(id);
    }

    /// Opens the door for strangers, or closes it: those before it go, with their answer if they wait for one.
    pub(crate) fn open(&mut self, open: bool, now: Instant) {
        self.open = open;
        if !open {
            self.guests.end(|_| true, now);
        }
    }

    /// Makes a node a member.
    pub(crate) fn allow(&mut self, peer: PeerId, now: Instant) {
        if let Some(members) = &mut self.roster.facts().members {
            members.insert(peer);
        }
        self.guests.end(|guest| *guest == peer, now);
    }

    /// Ends a membership, and all connections.
    pub(crate) fn disallow(&mut self, peer: PeerId) {
        if let Some(members) = &mut self.roster.facts().members {
            members.remove(&peer);
            self.closing.push_back(ToSwarm::CloseConnection { peer_id: peer, connection: CloseConnection::All });
        }
    }

    /// Makes these the members, and no others; gives back who no longer is one.
    pub(crate) fn replace(&mut self, now_members: HashSet<PeerId>, now: Instant) -> Vec<PeerId> {
        let mut facts = self.roster.facts();
        let Some(members) = &mut facts.members else {
            return Vec::new();
        };
        let former: Vec<PeerId> = members.difference(&now_members).copied().collect();
        self.guests.end(|guest| now_members.contains(guest), now);
        *members = now_members;
        drop(facts);
        for peer in &former {
            self.disallow(*peer);
        }
        former
    }

    /// Where the stranger of a connection is seen.
    pub(crate) fn remote(&self, id: ConnectionId) -> Option<&Multiaddr> {
        self.guests.remote(id)
    }

    /// A knock came over a connection.
    pub(crate) fn knocked(&mut self, id: ConnectionId) {
        self.guests.knocked(id);
    }

    /// A knock that came over a connection is over.
    pub(crate) fn answered(&mut self, id: ConnectionId, now: Instant) {
        self.guests.answered(id, now);
    }

    /// When a stranger's time is over next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.guests.deadline()
    }

    /// Shows out those whose time is over.
    pub(crate) fn show_out(&mut self, now: Instant) {
        for (id, peer_id) in self.guests.due(now) {
            self.closing.push_back(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        self.guests.left(id);
        self.roster.facts().visits.remove(&id);
    }

    fn refuse_strangers(&self, id: ConnectionId, peer: &PeerId) -> Result<(), ConnectionDenied> {
        let facts = self.roster.facts();
        let member = facts.members.as_ref().is_none_or(|members| members.contains(peer));
        if member || facts.visits.contains(&id) { Ok(()) } else { Err(ConnectionDenied::new(TurnedAway::Closed)) }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.roster.is_stranger(id, &peer) {
            if !self.open {
                return Err(ConnectionDenied::new(TurnedAway::Closed));
            }
            self.guests.enter(id, peer, remote, Instant::now()).map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if let Some(peer) = peer {
            self.refuse_strangers(id, &peer)?;
        }
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.refuse_strangers(id, &peer)?;
        Ok(dummy::ConnectionHandler)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are many and open-ended; only the ends of connections concern the door"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(e) => self.forget(e.connection_id),
            FromSwarm::DialFailure(e) => self.forget(e.connection_id),
            FromSwarm::ListenFailure(e) => self.forget(e.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The task, which alone adds to it, polls the swarm after whatever it does.
        self.closing.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
