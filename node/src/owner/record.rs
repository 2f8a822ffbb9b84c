//! What a node keeps of its owner across restarts: the membership, up to when orders were carried out, and the machines seen.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use souk_protocol::{MachineId, NodeId, OwnerId, Signed, Timestamp, limits, owner::Membership};

/// The file in a data directory.
pub const FILE: &str = "owner.toml";
/// Bytes of it that are read: all machines with room to spare.
const FILE_BYTES: u64 = 1024 * 1024;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerRecord {
    /// The membership of this node, as a ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// When the newest order that was carried out was given. An order from then or before is not carried out after a restart.
    pub orders_until_ms: u64,
    /// Whose the machines are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerId>,
    /// Machines of that owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<KnownMachine>,
}

/// A machine of the same owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownMachine {
    /// Its node.
    pub node: NodeId,
    /// The machine; none if only its node is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// When it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ms: Option<Timestamp>,
}

impl OwnerRecord {
    /// Reads it; empty if there is none.
    ///
    /// # Errors
    /// If the file can't be read or is malformed.
    pub fn load(dir: &Path) -> io::Result<Self> {
        use std::io::Read;
        let path = dir.join(FILE);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        let malformed =
            |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{} is malformed: {why}", path.display()));
        let mut text = String::new();
        file.take(FILE_BYTES).read_to_string(&mut text)?;
        let mut record: Self = toml::from_str(&text).map_err(|e| malformed(e.message().to_owned()))?;
        record.machines.truncate(limits::SISTERS);
        record.membership().map_err(malformed)?;
        Ok(record)
    }

    /// The membership in it. Its signature is yet to be checked.
    ///
    /// # Errors
    /// What is wrong with the ticket.
    pub fn membership(&self) -> Result<Option<Signed<Membership>>, String> {
        self.ticket.as_deref().map(|t| Signed::from_ticket(t).map_err(|e| e.to_string())).transpose()
    }

    /// Writes it, whole or not at all, and durably.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(dir.join(FILE)).map_err(|e| e.error)?;
        std::fs::File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::{Keypair, NetworkId};

    #[test]
    fn it_comes_back_and_a_malformed_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(OwnerRecord::load(dir.path()).unwrap(), OwnerRecord::default());
        let key = Keypair::from_seed(&[9; 32]);
        let node = Keypair::from_seed(&[1; 32]).node_id();
        let life = crate::owner::key::MEMBERSHIP;
        let network = NetworkId::of_name("tests");
        let membership = crate::owner::key::sign(&key, &network, node, None, life, Timestamp(7)).unwrap();
        let record = OwnerRecord {
            ticket: Some(membership.to_signed().to_ticket()),
            orders_until_ms: 12,
            owner: Some(crate::owner::key::id_of(&key)),
            machines: vec![
                KnownMachine { node, machine: Some(MachineId([3; 16])), seen_ms: Some(Timestamp(5)) },
                KnownMachine { node, machine: None, seen_ms: None },
            ],
        };
        record.save(dir.path()).unwrap();
        let back = OwnerRecord::load(dir.path()).unwrap();
        assert_eq!(back, record);
        assert_eq!(back.membership().unwrap(), Some(membership.to_signed()));
        for bad in ["ticket = \"nonsense\"", "machines = 7", "unknown = 1"] {
            std::fs::write(dir.path().join(FILE), bad).unwrap();
            let error = OwnerRecord::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE), "{error}");
        }
    }
}
