//! What people ask of the cluster: who is in, tickets, changes of members, a new key.

use souk_network::Multiaddr;
use souk_protocol::{
    Timestamp,
    cluster::{NotFound, PreSharedKey, Ticket, Token, Unchanged},
};

use super::{
    clustered::Clustered,
    command::{ClusterCommand, CommandError, ErrorCode},
    commands::answer,
    task::Market,
};
use crate::{
    api::types::{ClusterView, InviteRequest, InviteView, MemberChange, MemberRequest, MemberView, TicketView},
    clock::{now, random},
};

fn wrong(message: impl ToString) -> CommandError {
    CommandError::new(ErrorCode::WrongState, message.to_string())
}

fn none() -> CommandError {
    wrong("this node is in no private cluster").hint("souk cluster new NAME, or souk cluster join TICKET")
}

fn not_here(cluster: &Clustered) -> CommandError {
    let list = cluster.roster.list();
    let keeper = list.member(&list.founding.keeper).map_or("keeper", |m| m.name.as_str());
    wrong(format!("only the keeper of a cluster changes its members, and that is {keeper}, {}", list.founding.keeper))
        .hint("run this on the keeper's node")
}

fn unchanged(why: Unchanged) -> CommandError {
    let code = match &why {
        Unchanged::NotMember(_) => ErrorCode::NotFound,
        Unchanged::Name(_) | Unchanged::Life | Unchanged::Uses => ErrorCode::BadRequest,
        Unchanged::NameTaken(_)
        | Unchanged::Full
        | Unchanged::Member(_)
        | Unchanged::Keeper
        | Unchanged::Token
        | Unchanged::Tickets
        | Unchanged::SameKey
        | Unchanged::Overtaken => ErrorCode::WrongState,
    };
    CommandError::new(code, why.to_string())
}

fn not_found(why: NotFound) -> CommandError {
    CommandError::new(ErrorCode::NotFound, why.to_string()).hint("souk cluster members")
}

fn not_saved(why: String) -> CommandError {
    CommandError::new(ErrorCode::Internal, format!("the change can't be saved: {why}"))
}

impl Market {
    pub(super) fn cluster_command(&mut self, command: ClusterCommand) {
        match command {
            ClusterCommand::Show(reply) => answer(reply, self.cluster_view()),
            ClusterCommand::Invite { request, reply } => {
                let made = self.invite(request);
                answer(reply, made);
            }
            ClusterCommand::Member { request, reply } => {
                let changed = self.change_member(&request);
                answer(reply, changed.and_then(|()| self.cluster_view()));
            }
            ClusterCommand::Rotate(reply) => {
                let changed = self.rotate();
                answer(reply, changed.and_then(|()| self.cluster_view()));
            }
        }
    }

    fn cluster_view(&self) -> Result<ClusterView, CommandError> {
        let cluster = self.cluster.as_ref().ok_or_else(none)?;
        let list = cluster.roster.list();
        let mut members: Vec<MemberView> = list
            .members
            .iter()
            .map(|m| MemberView {
                node: m.node,
                name: m.name.clone(),
                here: m.node == cluster.me,
                connected: self.network.is_connected(&m.node),
                quota: m.quota,
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let tickets = cluster.keeper.iter().flat_map(|keeper| keeper.open_tickets(now()));
        Ok(ClusterView {
            name: list.founding.name.clone(),
            network_id: list.founding.network(),
            keeper: list.founding.keeper,
            keeper_here: cluster.keeper.is_some(),
            has_key: list.fence.is_some(),
            list: list.seq,
            issued_at_ms: list.issued_at,
            members,
            tickets: tickets.map(|t| TicketView { uses_left: t.uses_left, expires_at_ms: t.expires }).collect(),
        })
    }

    /// Where a ticket says that this node is: what its owner says, else where it listens that others can reach.
    fn own_addresses(&self, asked: &[String]) -> Result<Vec<String>, CommandError> {
        let bad = |text: &String| {
            CommandError::new(ErrorCode::BadRequest, format!("`{text}` is not a multiaddress"))
                .hint("--address /ip4/192.0.2.1/tcp/7843")
        };
        if !asked.is_empty() {
            for text in asked {
                text.parse::<Multiaddr>().map_err(|_| bad(text))?;
            }
            return Ok(asked.to_vec());
        }
        let mut all = self.about.external.clone();
        let listen = self.network.listen_addrs();
        let loopback = |a: &Multiaddr| a.to_string().starts_with("/ip4/127.") || a.to_string().starts_with("/ip6/::1/");
        let beyond: Vec<&Multiaddr> = listen.iter().filter(|a| !loopback(a)).collect();
        // A node that listens on loopback alone is for others on this machine.
        let listen: Vec<String> = if beyond.is_empty() {
            listen.iter().map(ToString::to_string).collect()
        } else {
            beyond.into_iter().map(ToString::to_string).collect()
        };
        all.extend(listen);
        all.dedup();
        all.truncate(souk_protocol::limits::TICKET_ADDRESSES);
        if all.is_empty() {
            return Err(wrong("this node listens nowhere, so a ticket could not say where it is")
                .hint("souk cluster invite --address MULTIADDR"));
        }
        Ok(all)
    }

    fn invite(&mut self, request: InviteRequest) -> Result<InviteView, CommandError> {
        let addresses = self.own_addresses(&request.addresses)?;
        let cluster = self.cluster.as_mut().ok_or_else(none)?;
        let elsewhere = not_here(cluster);
        let at = now();
        let expires: Timestamp = at + request.valid_ms;
        let failed = |e: anyhow::Error| CommandError::new(ErrorCode::Internal, format!("{e:#}"));
        let token = random().map_err(failed)?;
        let key = cluster.newest_key().cloned();
        let keeper = cluster.keeper.as_mut().ok_or(elsewhere)?;
        let founding = keeper.list().founding.clone();
        let ticket = Ticket { founding, key, token: Token::new(token), expires, addresses: addresses.clone() };
        let line = ticket
            .to_line()
            .map_err(|e| CommandError::new(ErrorCode::BadRequest, format!("no ticket can be made: {e}")))?;
        let before = keeper.clone();
        keeper.invite(ticket.token, request.uses, expires, at).map_err(unchanged)?;
        if let Err(why) = cluster.save_tickets() {
            cluster.keeper = Some(before);
            return Err(not_saved(why));
        }
        self.mind_the_door();
        Ok(InviteView { ticket: line.to_string(), uses: request.uses, expires_at_ms: expires, addresses })
    }

    fn change_member(&mut self, request: &MemberRequest) -> Result<(), CommandError> {
        let cluster = self.cluster.as_ref().ok_or_else(none)?;
        let keeper = cluster.keeper.as_ref().ok_or_else(|| not_here(cluster))?;
        let member = || cluster.roster.find(&request.member).map(|m| m.node).map_err(not_found);
        let next = match &request.change {
            MemberChange::Admit { name, quota } => {
                let node = request.member.trim().parse().map_err(|e: souk_protocol::id::ParseIdError| {
                    CommandError::new(ErrorCode::BadRequest, e.to_string())
                        .hint("souk status on that machine shows its node")
                })?;
                keeper.admit(node, name.as_deref(), *quota, now())
            }
            MemberChange::Remove => keeper.remove(&member()?, now()),
            MemberChange::Quota(quota) => keeper.set_quota(&member()?, *quota, now()),
        };
        let next = next.map_err(unchanged)?;
        self.proclaim(next, None).map_err(not_saved)
    }

    fn rotate(&mut self) -> Result<(), CommandError> {
        let cluster = self.cluster.as_ref().ok_or_else(none)?;
        let keeper = cluster.keeper.as_ref().ok_or_else(|| not_here(cluster))?;
        if keeper.list().fence.is_none() {
            return Err(wrong("this cluster has no key: its list alone keeps others out")
                .hint("souk cluster remove MEMBER is all that it takes"));
        }
        let drawn: [u8; 32] = random().map_err(|e| CommandError::new(ErrorCode::Internal, format!("{e:#}")))?;
        let key = PreSharedKey::new(drawn);
        let next = keeper.rotate(&key, now()).map_err(unchanged)?;
        self.proclaim(next, Some(key)).map_err(not_saved)
    }
}
