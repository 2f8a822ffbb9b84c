//! The owner of this node and the owner's other machines, as the market task holds them: who is obeyed, who is looked after, and
//! what people see of both.
//!
//! Owns `owner.toml`. The rules are `Orders` and `Sisters` of the protocol crate; what orders do is in `orders`.

use std::{
    collections::{BTreeSet, VecDeque},
    path::PathBuf,
};

use souk_protocol::{
    HostId, MachineId, Millis, NetworkId, NodeId, OwnerId, Signed, Timestamp, Verified,
    machine::{
        book::MachineKey,
        io::{Command as EngineCommand, Input},
        orders::Orders,
        sisters::{SisterEvent, SisterState, Sisters},
    },
    offer::Offer,
    owner::Membership,
};

use super::{
    command::{CommandError, ErrorCode, OwnerCommand},
    commands::answer,
    task::Market,
};
use crate::{
    api::types::{JoinRequest, MachineOffer, MachineView, MembershipView, OwnerView, Problem, RefreshRequest},
    clock::now,
    hooks::{EventKind, Happening},
    owner::{
        key,
        record::{KnownMachine, OwnerRecord},
    },
};

/// Nodes of the same owner that this one stays in touch with, so that it notices when one goes.
const KEPT: usize = 64;
/// News that hooks have not taken.
const UNTOLD: usize = 256;
/// A membership that ends sooner is told of as a problem.
const ENDS_SOON: Millis = Millis::from_hours(30 * 24);

/// What the market task keeps of the owner.
#[derive(Debug)]
pub struct Owned {
    dir: PathBuf,
    network: NetworkId,
    me: NodeId,
    record: OwnerRecord,
    membership: Option<Verified<Membership>>,
    /// The owner whose key is in the data directory.
    key_of: Option<OwnerId>,
    pub(super) orders: Orders,
    sisters: Sisters,
    /// Machines that went, not yet told to hooks; at most [`UNTOLD`], the oldest go.
    untold: VecDeque<(SisterEvent, Timestamp)>,
}

impl Owned {
    /// As the data directory has it.
    ///
    /// # Errors
    /// If `owner.toml` or the owner's key can't be read, or the membership is not this node's in this network.
    pub fn open(dir: PathBuf, network: NetworkId, me: NodeId, offline_after: Millis) -> anyhow::Result<Self> {
        use anyhow::Context;
        let record = OwnerRecord::load(&dir)?;
        let key_of = key::load(&dir)?.map(|key| key::id_of(&key));
        let signed = record.membership().map_err(anyhow::Error::msg)?;
        let membership = signed.map(|signed| signed.verify(&network)).transpose();
        let membership = membership.with_context(|| format!("the membership in {} does not hold", dir.display()))?;
        anyhow::ensure!(
            membership.as_ref().is_none_or(|m| m.node == me),
            "the membership in {} is another node's; remove owner.toml there",
            dir.display()
        );
        let orders = Orders::new(network, me, Timestamp(record.orders_until_ms));
        let sisters = Sisters::new(me, offline_after);
        let mut owned = Self { dir, network, me, record, membership, key_of, orders, sisters, untold: VecDeque::new() };
        owned.settle();
        Ok(owned)
    }

    /// Whose this node is.
    pub(super) fn owner(&self) -> Option<OwnerId> {
        self.key_of.or_else(|| self.membership.as_ref().map(|m| m.owner))
    }

    pub(super) const fn membership(&self) -> Option<&Verified<Membership>> {
        self.membership.as_ref()
    }

    /// Nodes to stay in touch with.
    pub(super) fn kept(&self) -> impl Iterator<Item = NodeId> {
        let nodes: BTreeSet<NodeId> = self.sisters.nodes().collect();
        nodes.into_iter().take(KEPT)
    }

    /// After a change of key or membership: obeys and looks after whom they name.
    fn settle(&mut self) {
        self.orders.obey(self.membership.clone());
        let owner = self.owner();
        if self.sisters.owner() != owner {
            self.sisters.look_after(owner);
        }
        let same = self.record.owner == owner;
        for known in self.record.machines.iter().filter(|_| same) {
            match known.machine {
                Some(machine) => self.sisters.remember((known.node, machine), known.seen_ms),
                None => self.sisters.expect(known.node),
            };
        }
    }

    /// Writes down what is known, durably.
    pub(super) fn save(&mut self) -> Result<(), CommandError> {
        self.record.ticket = self.membership.as_ref().map(|m| m.to_signed().to_ticket());
        self.record.owner = self.owner();
        self.record.orders_until_ms = self.orders.newest().0;
        let known = |(key, sister): (&MachineKey, &souk_protocol::machine::sisters::Sister)| KnownMachine {
            node: key.0,
            machine: Some(key.1),
            seen_ms: sister.seen_at,
        };
        let machines = self.sisters.machines().map(known);
        let nodes = self.sisters.machineless().map(|node| KnownMachine { node, machine: None, seen_ms: None });
        self.record.machines = machines.chain(nodes).collect();
        self.record.save(&self.dir).map_err(|e| {
            CommandError::new(ErrorCode::Internal, format!("the change can't be saved in {}: {e}", self.dir.display()))
        })
    }

    fn key(&self) -> Result<Option<souk_protocol::Keypair>, CommandError> {
        key::load(&self.dir).map_err(|e| CommandError::new(ErrorCode::Unavailable, e.to_string()).hint(e.hint()))
    }

    /// The owner's key, for one signature.
    pub(super) fn signing_key(&self) -> Result<souk_protocol::Keypair, CommandError> {
        self.key()?.ok_or_else(|| {
            let message = "the owner's key is not on this node, so it can give no orders to other machines";
            CommandError::new(ErrorCode::WrongState, message)
                .hint("run this on the owner's own node, or --machine this; souk owner show")
        })
    }

    fn join(&mut self, request: &JoinRequest, machine: Option<MachineId>) -> Result<(), CommandError> {
        let bad = |message: String| CommandError::new(ErrorCode::BadRequest, message);
        let membership = match &request.ticket {
            Some(ticket) => Signed::from_ticket(ticket)
                .map_err(|e| bad(e.to_string()))?
                .verify(&self.network)
                .map_err(|e| bad(e.to_string()).hint("souk owner sign, with the network of this node"))?,
            None => key::sign(&self.signing_key()?, &self.network, self.me, None, key::MEMBERSHIP, now())
                .map_err(|e| bad(e.to_string()))?,
        };
        if membership.node != self.me || machine.is_some_and(|m| !membership.covers(&self.me, &m)) {
            return Err(bad(format!("the ticket is for node {}, not for this machine", membership.node))
                .hint(format!("souk owner sign {}", self.me)));
        }
        if !membership.holds_at(now()) {
            return Err(bad("the ticket has expired, or the clocks of both machines differ".to_owned())
                .hint("let the owner sign a new one"));
        }
        if let Some(owner) = self.owner().filter(|owner| *owner != membership.owner) {
            let message = format!("this node belongs to another owner, {owner}");
            return Err(CommandError::new(ErrorCode::WrongState, message).hint("souk owner leave"));
        }
        let before = self.membership.replace(membership);
        self.settled_and_saved(before)
    }

    fn leave(&mut self) -> Result<(), CommandError> {
        let Some(before) = self.membership.take() else {
            return Err(CommandError::new(ErrorCode::WrongState, "this node is no member of an owner's"));
        };
        self.settled_and_saved(Some(before))
    }

    /// Takes a change of the membership to heart, or back if it can't be saved.
    fn settled_and_saved(&mut self, before: Option<Verified<Membership>>) -> Result<(), CommandError> {
        let record = self.record.clone();
        self.settle();
        self.save().inspect_err(|_| {
            self.membership = before;
            self.record = record;
            self.settle();
        })
    }

    /// Looks again whether the owner's key is here, and takes over who is a member.
    fn refresh(&mut self, request: &RefreshRequest) -> Result<(), CommandError> {
        self.key_of = self.key()?.map(|key| key::id_of(&key));
        self.settle();
        for ticket in request.tickets.iter().take(souk_protocol::limits::SISTERS) {
            let member = Signed::from_ticket(ticket).ok().and_then(|t| t.verify(&self.network).ok());
            if let Some(member) = member.filter(|m| Some(m.owner) == self.owner()) {
                match member.machine {
                    Some(machine) => self.sisters.remember((member.node, machine), None),
                    None => self.sisters.expect(member.node),
                };
            }
        }
        for node in &request.forget {
            self.sisters.forget(node, None);
        }
        self.save()
    }

    /// What is said of the owner.
    pub(super) fn view(&self) -> OwnerView {
        OwnerView {
            node: self.me,
            owner: self.owner(),
            has_key: self.key_of.is_some(),
            membership: self.membership.as_ref().map(|m| MembershipView::of(m)),
        }
    }

    /// All nodes but this one, each with its machines.
    pub(super) fn others(&self) -> Vec<(NodeId, Option<MachineId>)> {
        let machines = self.sisters.machines().map(|((node, machine), _)| (*node, Some(*machine)));
        machines.chain(self.sisters.machineless().map(|node| (node, None))).collect()
    }

    fn news(&mut self, events: impl IntoIterator<Item = SisterEvent>) {
        for event in events {
            let SisterEvent { node, machine, online, .. } = event;
            if online {
                tracing::info!(%node, %machine, "machine_online: a machine of this owner is back");
            } else {
                tracing::warn!(%node, %machine, "machine_offline: a machine of this owner has gone without a word");
            }
            if !online {
                if self.untold.len() >= UNTOLD {
                    self.untold.pop_front();
                }
                self.untold.push_back((event, now()));
            }
        }
    }

    pub(super) fn connected(&mut self, node: NodeId, offered: impl Fn(&MachineKey) -> bool) {
        let events = self.sisters.connected(node, offered, now());
        self.news(events);
    }

    pub(super) fn disconnected(&mut self, node: NodeId) {
        self.sisters.disconnected(node, now());
    }

    pub(super) fn tick(&mut self) {
        let events = self.sisters.tick(now());
        self.news(events);
    }

    /// A machine's place in the book changed.
    pub(super) fn book_changed(&mut self, key: &MachineKey, offer: Option<&Verified<Offer>>, withdrawn: bool) {
        let event = match offer {
            Some(offer) => {
                let (changed, event) = self.sisters.offered(offer);
                if changed && let Err(error) = self.save() {
                    tracing::warn!(%error, "the machines of this owner are not written down");
                }
                event
            }
            None => self.sisters.gone(key, withdrawn),
        };
        self.news(event);
    }
}

impl Market {
    pub(super) fn owner_command(&mut self, command: OwnerCommand) {
        match command {
            OwnerCommand::Show(reply) => answer(reply, Ok(self.owned.view())),
            OwnerCommand::Join { request, reply } => {
                let machine = self.host.as_ref().map(crate::host::HostSide::machine);
                let joined = self.owned.join(&request, machine);
                answer(reply, joined.map(|()| self.owner_changed()));
            }
            OwnerCommand::Leave(reply) => {
                let left = self.owned.leave();
                answer(reply, left.map(|()| self.owner_changed()));
            }
            OwnerCommand::Refresh { request, reply } => {
                let done = self.owned.refresh(&request);
                answer(reply, done.map(|()| self.owner_changed()));
            }
            OwnerCommand::Machines(reply) => answer(reply, self.machines()),
            OwnerCommand::Order { request, reply } => self.order_all(request, reply),
        }
    }

    /// Offers the machine as the owner's from now on, and looks who else is the owner's.
    fn owner_changed(&mut self) -> OwnerView {
        self.offer_machine();
        let offers: Vec<Verified<Offer>> = self.engine.book().offers().cloned().collect();
        for offer in offers {
            self.owned.book_changed(&(offer.host, offer.machine), Some(&offer), false);
        }
        let connected: Vec<NodeId> = self.engine.connected().copied().collect();
        for node in connected {
            let book = self.engine.book();
            self.owned.connected(node, |key| book.offer(key).is_some());
        }
        self.owned.view()
    }

    /// Tells hooks which machines have gone, as far as there is room.
    pub(super) fn tell_machines(&mut self) {
        while let Some((event, at)) = self.owned.untold.front() {
            let SisterEvent { node, machine, seen_at, .. } = *event;
            let told = self.hooks.tell(Happening {
                kind: EventKind::MachineOffline,
                at: *at,
                machine: Some(machine),
                lease: None,
                text: format!("machine {} of this owner has gone without a word", machine.short()),
                data: serde_json::json!({ "node": node, "owner": self.owned.owner(), "seen_ms": seen_at }),
                subject: [node.0.as_slice(), machine.0.as_slice()].concat(),
                number: at.0,
            });
            if !told {
                return;
            }
            self.owned.untold.pop_front();
        }
    }

    pub(super) fn host_id(&self) -> HostId {
        self.owned.owner().map_or_else(|| HostId::Node(self.engine.me()), HostId::Owner)
    }

    fn machines(&self) -> Result<Vec<MachineView>, CommandError> {
        if self.owned.owner().is_none() {
            return Err(CommandError::new(ErrorCode::WrongState, "this node belongs to no owner")
                .hint("souk owner init on the owner's computer, then souk owner sign and souk owner join"));
        }
        let me = self.engine.me();
        let connected: BTreeSet<NodeId> = self.engine.connected().copied().collect();
        let offer_of = |key: &MachineKey| {
            let offer = self.engine.book().offer(key)?;
            Some(MachineOffer {
                gpu: offer.hardware.gpus.first().map(|g| g.model.clone()),
                slots_total: offer.availability.slots_total,
                slots_free: offer.availability.slots_free,
                slot_hour: offer.terms.slot_hour,
                min_bid: offer.terms.min_bid_slot_hour,
                currency: offer.terms.currency.clone(),
                membership: offer.membership_read().map(|m| MembershipView::of(&m)),
            })
        };
        let here = self.host.as_ref().map(|host| {
            let offer = offer_of(&(me, host.machine()));
            MachineView {
                node: me,
                machine: Some(host.machine()),
                here: true,
                state: if offer.is_some() { SisterState::Online } else { SisterState::Unlisted },
                connected: true,
                seen_ms: Some(now()),
                offer,
            }
        });
        let others = self.owned.sisters.machines().map(|(key, sister)| MachineView {
            node: key.0,
            machine: Some(key.1),
            here: false,
            state: sister.state,
            connected: connected.contains(&key.0),
            seen_ms: sister.seen_at,
            offer: offer_of(key),
        });
        let machineless = self.owned.sisters.machineless().map(|node| MachineView {
            node,
            machine: None,
            here: false,
            state: SisterState::Unseen,
            connected: connected.contains(&node),
            seen_ms: None,
            offer: None,
        });
        Ok(here.into_iter().chain(others).chain(machineless).collect())
    }

    /// Tells the engine, again, how the machine is offered: its membership may be another.
    pub(super) fn offer_as_owned(&mut self, mut setup: souk_protocol::machine::policy::HostSetup) {
        let covered = |m: &&Verified<Membership>| m.covers(&self.engine.me(), &setup.machine);
        setup.membership = self.owned.membership().filter(covered).cloned();
        self.input(Input::Command(EngineCommand::Host(Some(Box::new(setup)))));
    }

    pub(super) fn membership_problem(&self) -> Option<Problem> {
        let membership = self.owned.membership()?;
        let left = membership.valid_until.since(now());
        if left > ENDS_SOON {
            return None;
        }
        let sentence = if left.0 == 0 {
            "this node's membership of its owner has ended, so it is offered as its own".to_owned()
        } else {
            format!("this node's membership of its owner ends in {left}")
        };
        let fix = format!("souk owner sign {} on the owner's computer, then souk owner join here", self.engine.me());
        Some(Problem { sentence, fix })
    }
}
