//! Standing orders on disk: one sealed file, replaced as a whole, so that a crash leaves the old or the new list.
//!
//! Sealed like workloads, since orders hold environments; a file rather than the ledger, since nothing in it is evidence.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use souk_protocol::{Digest, LeaseId, Millis, NodeId, Nonce, Timestamp};

use crate::{api::types::OrderRequest, seal::Seal};

/// The file in a data directory.
pub const FILE: &str = "orders.sealed";
/// Bytes of the file: as many orders as there may be, each with the largest workload.
const LIMIT: u64 = 16 * 1024 * 1024;

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No match has come.
    Waiting,
    /// A match is being rented, under this nonce: whatever comes of it has it.
    Renting {
        /// The negotiation's.
        nonce: Nonce,
    },
    /// It has a lease, and replaces it if the host is lost.
    Guarding {
        /// The lease.
        lease: LeaseId,
    },
    /// It has its lease.
    Done {
        /// The lease.
        lease: LeaseId,
    },
    /// Its time was up.
    Expired,
}

impl State {
    /// Whether nothing more is to be done.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Expired)
    }
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Counts this node's orders.
    pub number: u32,
    /// What is wanted.
    pub request: OrderRequest,
    /// When it was given.
    pub created: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Leases of lost hosts, to be ended as soon as these are back.
    pub replaced: Vec<(LeaseId, NodeId)>,
    /// The last thing that happened, for people.
    pub note: String,
}

impl Order {
    /// How long a host may be gone before its lease is replaced.
    #[must_use]
    pub fn patience(&self) -> Millis {
        self.request.patience_ms.unwrap_or(super::PATIENCE)
    }
}

/// All orders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The number the next one gets, less one.
    pub last: u32,
    /// By number.
    pub orders: Vec<Order>,
}

/// The file.
pub struct Store {
    path: PathBuf,
    seal: Seal,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// The orders of a data directory.
    #[must_use]
    pub fn new(dir: &Path, seal: Seal) -> Self {
        Self { path: dir.join(FILE), seal }
    }

    /// Reads it; no file is no orders.
    ///
    /// # Errors
    /// If it can't be read, or not opened with this node's key.
    pub fn load(&self) -> anyhow::Result<Orders> {
        let sealed = match fs::metadata(&self.path) {
            Ok(about) if about.len() > LIMIT => anyhow::bail!("{} is too large", self.path.display()),
            Ok(_) => fs::read(&self.path).with_context(|| format!("{} can't be read", self.path.display()))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Orders::default()),
            Err(e) => return Err(e).with_context(|| format!("{} can't be read", self.path.display())),
        };
        let damaged =
            || format!("{} is damaged, or another node's; move it away to go on without it", self.path.display());
        let plain = self.seal.open(&binding(), &sealed).with_context(damaged)?;
        serde_json::from_slice(&plain).with_context(damaged)
    }

    /// Replaces it. On return the orders are on disk.
    ///
    /// # Errors
    /// If they can't be written.
    pub fn save(&self, orders: &Orders) -> anyhow::Result<()> {
        let sealed = self.seal.close(&binding(), &serde_json::to_vec(orders)?)?;
        let dir = self.path.parent().context("the data directory has no path")?;
        let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.write_all(&sealed)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    }
}

/// What the seal is bound to: orders are never taken for a lease's workload.
fn binding() -> LeaseId {
    LeaseId(Digest::of(b"souk 2026-11 standing orders").0)
}
