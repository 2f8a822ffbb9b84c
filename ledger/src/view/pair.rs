//! Questions about payments and attestations.

use std::ops::ControlFlow;

use souk_protocol::{Currency, NodeId};

use super::{QueryError, View};
use crate::{
    keys,
    pair::{Attested, Settlement, SettlementKey},
    state::decode,
    store::KvError,
};

impl View {
    /// The payments between us and a peer in one currency and direction, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn settlements(&self, of: &SettlementKey, limit: usize) -> Result<Vec<Settlement>, QueryError> {
        let mut rows = Vec::new();
        let mut failed = None;
        self.kv.scan_back(&keys::settlements(&of.peer, &of.currency, of.by_us), None, &mut |_, value| {
            if rows.len() >= limit {
                return ControlFlow::Break(());
            }
            match decode(value, "settlement") {
                Ok(row) => rows.push(row),
                Err(e) => failed = Some(e),
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failed.map_or(Ok(rows), |e| Err(QueryError::Store(e)))
    }

    /// With whom, in what currency and in which direction there are payments; with one peer or with everybody.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn settled(&self, peer: Option<&NodeId>) -> Result<Vec<SettlementKey>, QueryError> {
        let prefix = peer.map_or_else(|| keys::SETTLEMENTS.to_vec(), keys::settlements_with);
        let mut found: Vec<SettlementKey> = Vec::new();
        self.kv.scan(&prefix, b"", &mut |key, _| {
            if let Some(key) = settlement_key(key)
                && found.last() != Some(&key)
            {
                found.push(key);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The newest payment of a direction and currency: what the next one follows.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn newest_settlement(&self, of: &SettlementKey) -> Result<Option<Settlement>, QueryError> {
        let prefix = keys::settlements(&of.peer, &of.currency, of.by_us);
        Ok(self.row(&keys::newest_settlement(&prefix), "settlement")?)
    }

    /// What an author vouches for in its chain, as far as it is held: about whom, the claim, and the newest entry about it.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn attestations_by(&self, author: &NodeId) -> Result<Vec<(NodeId, String, Attested)>, QueryError> {
        let rows = self.rows::<Attested>(&keys::attestations_by(author), "attestation")?;
        let named = rows.into_iter().filter_map(|(key, row)| {
            let (_, subject, claim) = attestation_key(&key)?;
            Some((subject, claim, row))
        });
        Ok(named.collect())
    }

    /// What others vouch for about a node: by whom, the claim, and the newest entry about it.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn attestations_about(&self, subject: &NodeId) -> Result<Vec<(NodeId, String, Attested)>, QueryError> {
        let mut all = Vec::new();
        self.kv.scan(keys::ATTESTATIONS, b"", &mut |key, value| {
            if let Some((author, about, claim)) = attestation_key(key)
                && about == *subject
            {
                all.push(decode(value, "attestation").map(|row| (author, claim, row)));
            }
            ControlFlow::Continue(())
        })?;
        Ok(all.into_iter().collect::<Result<_, KvError>>()?)
    }
}

fn settlement_key(key: &[u8]) -> Option<SettlementKey> {
    let peer = NodeId(*key.get(1..)?.first_chunk()?);
    let rest = key.get(33..)?;
    let end = rest.iter().position(|b| *b == 0)?;
    let currency = Currency(String::from_utf8(rest[..end].to_vec()).ok()?);
    Some(SettlementKey { peer, currency, by_us: *rest.get(end + 1)? == 1 })
}

fn attestation_key(key: &[u8]) -> Option<(NodeId, NodeId, String)> {
    let author = NodeId(*key.get(1..)?.first_chunk()?);
    let subject = NodeId(*key.get(33..)?.first_chunk()?);
    Some((author, subject, String::from_utf8(key.get(65..)?.to_vec()).ok()?))
}
