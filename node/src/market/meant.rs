//! From what a person types to the node or owner it means: a whole id, or the first or last characters of one that is known.
//!
//! Owns that rule, the same for every command. Those with whom there is an account or a lease go first: anybody can make a key whose
//! last characters are another's, and nobody gets an account by that.

use std::collections::BTreeSet;

use souk_protocol::{HostId, NodeId, machine::account::Account};

use super::{CommandError, ErrorCode, task::Market};

/// The fewest characters of an id that name it.
const SHORTEST: usize = 4;
/// The most that are listed of those that it may be.
const LISTED: usize = 5;
/// What all ids of a kind begin with: nobody tells them apart by that.
const SAME: [&str; 2] = ["12D3KooW", "owner"];

/// Finds the one that `text` names, among those of the first group in which there is any.
///
/// # Errors
/// `not_found`, or `ambiguous`, naming those it could mean.
pub fn meant(text: &str, groups: &[BTreeSet<HostId>]) -> Result<HostId, CommandError> {
    let text = text.trim().trim_start_matches('…').trim_end_matches('…');
    if let Ok(id) = text.parse::<HostId>() {
        return Ok(id);
    }
    let like = |id: &&HostId| {
        let full = id.to_string();
        let differs = SAME.iter().find_map(|same| full.strip_prefix(same)).unwrap_or(&full);
        text.len() >= SHORTEST
            && (differs.starts_with(text)
                || full.ends_with(text)
                || (full.starts_with(text) && text.len() >= SHORTEST + full.len() - differs.len()))
    };
    let found =
        groups.iter().map(|group| group.iter().filter(like).collect::<Vec<_>>()).find(|found| !found.is_empty());
    let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    match found.as_deref() {
        Some([one]) => Ok(**one),
        Some(several) => {
            let names: Vec<String> = several.iter().take(LISTED).map(ToString::to_string).collect();
            let more = if several.len() > LISTED { ", …" } else { "" };
            let message = format!("`{shown}` may be {} ids: {}{more}", several.len(), names.join(", "));
            Err(CommandError::new(ErrorCode::Ambiguous, message).hint("give more characters, or the whole id"))
        }
        None => Err(CommandError::new(ErrorCode::NotFound, format!("no node or owner `{shown}` is known here"))
            .hint("give the whole id, or four characters of its beginning or end; see: souk account, souk peers, souk search --json")),
    }
}

impl Market {
    /// The node or owner that a person means.
    pub(super) fn find_peer(&self, text: &str) -> Result<HostId, CommandError> {
        let accounts = self.engine.accounts().iter().map(Account::peer);
        let hosts = self.engine.renter().leases().values().map(|l| l.host());
        let renters = self.engine.host().leases().values().map(|l| l.draft().renter);
        let dealt: BTreeSet<HostId> = accounts.chain(hosts).chain(renters).map(HostId::Node).collect();
        let regarded = self.trust.regarded().collect();
        let offered = self.engine.book().offers().flat_map(|o| [HostId::Node(o.host), o.host_id()]);
        let connected = self.engine.connected().map(|peer| HostId::Node(*peer));
        meant(text, &[dealt, regarded, offered.chain(connected).collect()])
    }

    /// The node that a person means. An owner of one node on the market means that one.
    pub(super) fn find_node(&self, text: &str) -> Result<NodeId, CommandError> {
        let who = self.find_peer(text)?;
        match (who, self.nodes_of(&who).as_slice()) {
            (HostId::Node(node), _) => Ok(node),
            (HostId::Owner(_), [node]) => Ok(*node),
            (HostId::Owner(_), []) => {
                Err(CommandError::new(ErrorCode::BadRequest, "that is an owner without a node on the market")
                    .hint("name one of its nodes by its peer id"))
            }
            (HostId::Owner(_), nodes) => {
                let names: Vec<String> = nodes.iter().take(LISTED).map(ToString::to_string).collect();
                let message = format!("that is an owner of {} nodes: {}", nodes.len(), names.join(", "));
                Err(CommandError::new(ErrorCode::Ambiguous, message).hint("name one of them"))
            }
        }
    }

    /// The same, but for this node itself.
    pub(super) fn find_other(&self, text: &str) -> Result<NodeId, CommandError> {
        let node = self.find_node(text)?;
        if node == self.engine.me() {
            return Err(CommandError::new(ErrorCode::BadRequest, "that is this node itself"));
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_protocol::{Keypair, OwnerId};

    use super::*;

    fn node(seed: u8) -> NodeId {
        Keypair::from_seed(&[seed; 32]).node_id()
    }

    fn code(found: Result<HostId, CommandError>) -> ErrorCode {
        found.unwrap_err().code
    }

    #[test]
    fn whole_ids_their_ends_and_their_beginnings_name_nodes_and_owners() {
        let (known, owner) = (HostId::Node(node(1)), HostId::Owner(OwnerId(node(2).0)));
        let groups = [BTreeSet::new(), BTreeSet::from([known, owner, HostId::Node(node(3))])];
        for id in [known, owner] {
            let full = id.to_string();
            let differs = SAME.iter().find_map(|same| full.strip_prefix(same)).unwrap();
            let shown = format!("…{}", id.short());
            for text in [
                &full,
                &id.short(),
                &shown,
                &differs[..8],
                &full[..full.len() - differs.len() + 8],
                &full[full.len() - 4..],
            ] {
                assert_eq!(meant(text, &groups).unwrap(), id, "{text}");
            }
            for text in ["", "abc", &full[..full.len() - differs.len()], &full[full.len() - 3..], "nobody-at-all"] {
                assert_eq!(code(meant(text, &groups)), ErrorCode::NotFound, "{text}");
            }
        }
        let stranger = HostId::Node(node(9));
        assert_eq!(meant(&stranger.to_string(), &groups).unwrap(), stranger, "a whole id need not be known");
    }

    #[test]
    fn what_may_be_several_lists_them_and_who_was_dealt_with_goes_first() {
        let owner = |last: u8| {
            let mut bytes = node(4).0;
            bytes[31] = last;
            HostId::Owner(OwnerId(bytes))
        };
        let both = BTreeSet::from([owner(1), owner(2)]);
        let text = owner(1).to_string()[..16].to_owned();
        let error = meant(&text, std::slice::from_ref(&both)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Ambiguous);
        assert!(both.iter().all(|id| error.message.contains(&id.to_string())), "{}", error.message);
        assert_eq!(meant(&text, &[BTreeSet::from([owner(2)]), both]).unwrap(), owner(2));
    }
}
