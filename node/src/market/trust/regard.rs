//! Trusting and blocking: rows of the ledger, and what follows from them at once.

use souk_ledger::regard::{Blocked, REGARDED, Trusted, block_row, trust_row};
use souk_protocol::{
    HostId, NodeId,
    machine::{
        io::{Command as EngineCommand, Input},
        regard::Regard,
        search::PeerFacts,
    },
    owner::OwnerId,
};

use super::Market;
use crate::{
    api::types::{BlockRequest, BlockView, TrustRequest, TrustView},
    clock::now,
    market::{
        command::{CommandError, ErrorCode, Reply},
        commands::answer,
    },
};

impl Market {
    pub(super) fn trust_changed(&mut self, request: Option<TrustRequest>, reply: Reply<Vec<TrustView>>) {
        let row = match request.map(|request| self.trust_somebody(&request)).transpose() {
            Ok(row) => row,
            Err(error) => return answer(reply, Err(error)),
        };
        let all = self.trust.trusted.iter().map(|(peer, trusted)| TrustView {
            peer: *peer,
            named_by: "you".to_owned(),
            trusted_at_ms: Some(trusted.trusted_at),
            credit: trusted.credit.iter().map(|(currency, amount)| (currency.clone(), amount.to_string())).collect(),
        });
        let config = &self.trust.config;
        let configured = [("trust.attesters", &config.attesters), ("trust.listed", &config.listed)];
        let configured = configured.into_iter().flat_map(|(setting, nodes)| {
            nodes.iter().map(|node| TrustView {
                peer: HostId::Node(*node),
                named_by: setting.to_owned(),
                trusted_at_ms: None,
                credit: std::collections::BTreeMap::new(),
            })
        });
        let all: Vec<TrustView> = all.chain(configured).collect();
        match row {
            Some(row) => {
                self.regard_changed();
                self.ledger.keep_row(row, move || answer(reply, Ok(all)));
            }
            None => answer(reply, Ok(all)),
        }
    }

    fn trust_somebody(&mut self, request: &TrustRequest) -> Result<souk_ledger::record::Private, CommandError> {
        let who = self.find_peer(&request.peer)?;
        self.not_us(&who)?;
        if request.remove {
            if self.trust.trusted.remove(&who).is_none() {
                return Err(CommandError::new(ErrorCode::NotFound, format!("{who} is not trusted"))
                    .hint("souk trust lists who is"));
            }
            return Ok(trust_row(&who, None));
        }
        if self.trust.blocked.contains_key(&who) {
            return Err(CommandError::new(ErrorCode::WrongState, format!("{who} is blocked"))
                .hint(format!("souk block {who} --remove")));
        }
        room(self.trust.trusted.len(), self.trust.trusted.contains_key(&who))?;
        let new = Trusted { trusted_at: now(), credit: Vec::new() };
        let trusted = self.trust.trusted.entry(who).or_insert(new);
        if let Some(credit) = request.credit {
            let currency = request.currency.clone().unwrap_or_else(|| self.about.currency.clone());
            trusted.credit.retain(|(of, _)| *of != currency);
            trusted.credit.push((currency, credit));
            trusted.credit.sort();
        }
        Ok(trust_row(&who, Some(trusted)))
    }

    pub(super) fn block_changed(&mut self, request: Option<BlockRequest>, reply: Reply<Vec<BlockView>>) {
        let row = match request.map(|request| self.block_somebody(&request)).transpose() {
            Ok(row) => row,
            Err(error) => return answer(reply, Err(error)),
        };
        let all = self.trust.blocked.iter().map(|(peer, b)| BlockView { peer: *peer, blocked_at_ms: b.blocked_at });
        let all: Vec<BlockView> = all.collect();
        match row {
            Some(row) => {
                self.regard_changed();
                self.ledger.keep_row(row, move || answer(reply, Ok(all)));
            }
            None => answer(reply, Ok(all)),
        }
    }

    fn block_somebody(&mut self, request: &BlockRequest) -> Result<souk_ledger::record::Private, CommandError> {
        let who = self.find_peer(&request.peer)?;
        self.not_us(&who)?;
        if request.remove {
            if self.trust.blocked.remove(&who).is_none() {
                return Err(CommandError::new(ErrorCode::NotFound, format!("{who} is not blocked"))
                    .hint("souk block lists who is"));
            }
            return Ok(block_row(&who, None));
        }
        if self.trust.trusted.contains_key(&who) {
            return Err(CommandError::new(ErrorCode::WrongState, format!("{who} is trusted"))
                .hint(format!("souk trust {who} --remove")));
        }
        room(self.trust.blocked.len(), self.trust.blocked.contains_key(&who))?;
        let blocked = *self.trust.blocked.entry(who).or_insert(Blocked { blocked_at: now() });
        Ok(block_row(&who, Some(&blocked)))
    }

    fn not_us(&self, who: &HostId) -> Result<(), CommandError> {
        if *who == HostId::Node(self.engine.me()) || *who == self.host_id() {
            return Err(CommandError::new(ErrorCode::BadRequest, "that is this node, or its owner"));
        }
        Ok(())
    }

    /// Engine and search learn who is blocked now; scores are computed again.
    pub(super) fn regard_changed(&mut self) {
        let regard = Regard::new(self.trust.blocked.keys().copied());
        self.input(Input::Command(EngineCommand::Regard(regard)));
        let hosts: std::collections::BTreeSet<NodeId> = self.engine.book().offers().map(|o| o.host).collect();
        hosts.into_iter().for_each(|host| self.show_blocked(host));
        self.trust.dirty = true;
        self.trust.next_at = souk_protocol::Timestamp(0);
    }

    /// Searches know whether a host is blocked.
    pub(in crate::market) fn show_blocked(&mut self, host: NodeId) {
        let blocked = self.engine.regard().blocks(&host, self.engine.book());
        let facts = self.index.facts(&host);
        if facts.blocked != blocked {
            self.index.set_facts(host, PeerFacts { blocked, ..facts });
        }
    }

    /// Refuses to rent from somebody blocked.
    pub(in crate::market) fn check_blocked(&self, host: &NodeId) -> Result<(), CommandError> {
        if !self.engine.regard().blocks(host, self.engine.book()) {
            return Ok(());
        }
        let message = format!("you have blocked {host}, or its owner");
        Err(CommandError::new(ErrorCode::Rejected, message).hint(format!("souk block {host} --remove")))
    }

    /// Whether an owner's orders and logins come from somebody blocked.
    pub(in crate::market) fn blocks_peer(&self, peer: &NodeId, owner: Option<OwnerId>) -> bool {
        let of_owner = owner.is_some_and(|owner| self.trust.blocked.contains_key(&HostId::Owner(owner)));
        of_owner || self.engine.regard().blocks(peer, self.engine.book())
    }
}

fn room(held: usize, known: bool) -> Result<(), CommandError> {
    if known || held < REGARDED {
        return Ok(());
    }
    Err(CommandError::new(ErrorCode::TooLarge, format!("{REGARDED} is the most; remove some first")))
}
