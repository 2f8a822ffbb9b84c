//! Whom the owner of this node trusts, with how much, and whom it blocks: private rows, never exported.
//!
//! A row's key is `trust/` or `block/` and the id as people write it, of a node or of an owner of many; its value is canonical
//! CBOR. Owns both encodings. What follows from a row is decided where it is used: searches, credit, reputation.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Currency, HostId, NodeId, Timestamp, encode};

use crate::{
    record::Private,
    state::decode,
    view::{QueryError, View},
};

const TRUST: &str = "trust/";
const BLOCK: &str = "block/";
/// The most nodes and owners that are trusted, and that are blocked.
pub const REGARDED: usize = 4096;

/// A node or owner that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trusted {
    /// Since when.
    pub trusted_at: Timestamp,
    /// How much may be owed to us, at most once a currency; in other currencies as for anybody.
    pub credit: Vec<(Currency, Amount)>,
}

/// A node or owner that is blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocked {
    /// Since when.
    pub blocked_at: Timestamp,
}

fn key(prefix: &str, who: &HostId) -> Vec<u8> {
    format!("{prefix}{who}").into_bytes()
}

/// The row that says so; none takes it back.
#[must_use]
pub fn trust_row(who: &HostId, trusted: Option<&Trusted>) -> Private {
    Private::Row { key: key(TRUST, who), value: trusted.map(|t| encode::to_bytes(t).into()) }
}

/// The row that says so; none takes it back.
#[must_use]
pub fn block_row(who: &HostId, blocked: Option<&Blocked>) -> Private {
    Private::Row { key: key(BLOCK, who), value: blocked.map(|b| encode::to_bytes(b).into()) }
}

impl View {
    /// Everybody who is trusted.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails, or a row is none of ours.
    pub fn trusted(&self) -> Result<Vec<(HostId, Trusted)>, QueryError> {
        self.regarded(TRUST)
    }

    /// Everybody who is blocked.
    ///
    /// # Errors
    /// As [`View::trusted`].
    pub fn blocked(&self) -> Result<Vec<(HostId, Blocked)>, QueryError> {
        self.regarded(BLOCK)
    }

    /// How much a node may owe us in a currency, if its owner has been told; none as for anybody.
    ///
    /// # Errors
    /// As [`View::trusted`].
    pub fn credit_line(&self, node: &NodeId, currency: &Currency) -> Result<Option<Amount>, QueryError> {
        let row = self.private(&key(TRUST, &HostId::Node(*node)))?;
        let trusted = row.map(|bytes| decode::<Trusted>(&bytes, "trust")).transpose()?;
        let lines = trusted.map(|t| t.credit).unwrap_or_default();
        Ok(lines.into_iter().find(|(of, _)| of == currency).map(|(_, amount)| amount))
    }

    fn regarded<T: serde::de::DeserializeOwned>(&self, prefix: &'static str) -> Result<Vec<(HostId, T)>, QueryError> {
        let rows = self.private_rows(prefix.as_bytes())?;
        let read = rows.into_iter().filter_map(|(key, value)| {
            let who = std::str::from_utf8(key.get(prefix.len()..)?).ok()?.parse().ok()?;
            Some(decode(&value, "regard").map(|row| (who, row)).map_err(QueryError::from))
        });
        read.collect()
    }
}
