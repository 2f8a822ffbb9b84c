//! Names of what belongs to a lease in the engine and the kernel: derived from node and lease, so that they need no record.
//!
//! Hashes, not prefixes: ids of leases may begin alike, and interface names have room for fifteen bytes.

/// The label with the lease id.
pub const LABEL_LEASE: &str = "souk.lease";
/// The label with the node id.
pub const LABEL_NODE: &str = "souk.node";
/// The label with the digest of the spec.
pub const LABEL_SPEC: &str = "souk.spec";
/// The label with the granted disk, in MiB.
pub const LABEL_DISK: &str = "souk.disk_mb";
/// The label of an instance whose disk is a file system in a file.
pub const LABEL_LOOP: &str = "souk.loop_disk";
/// The label of what isn't rented: the host's own idle job.
pub const LABEL_IDLE: &str = "souk.idle";
/// The label with the id of the image rented.
pub const LABEL_IMAGE: &str = "souk.image";
/// The label of a network whose guest may reach this host's neighbours.
pub const LABEL_FULL: &str = "souk.full";
/// The label with the size of the image rented, in bytes.
pub const LABEL_IMAGE_BYTES: &str = "souk.image_bytes";
/// The label with what the guest wrote before its last move to other devices, in bytes: it is below the writable layer now.
pub const LABEL_CARRIED: &str = "souk.carried_bytes";

/// The part of a node in names: four hex digits.
#[must_use]
pub fn node_tag(node_id: &str) -> String {
    short_hash(node_id.as_bytes(), 2)
}

/// The prefix of this node's bridges, as the firewall matches it.
#[must_use]
pub fn bridge_prefix(node_id: &str) -> String {
    format!("sk{}", node_tag(node_id))
}

/// The names of one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Container and network.
    pub container: String,
    /// The bridge: `sk`, the node's four digits, eight of the lease.
    pub bridge: String,
    /// The host name inside, and files.
    pub short: String,
}

impl Names {
    /// Names for a lease of a node.
    #[must_use]
    pub fn new(node_id: &str, lease: &str) -> Self {
        let full = short_hash(format!("{node_id}\0{lease}").as_bytes(), 8);
        let bridge = full.get(..8).unwrap_or(&full);
        Self { container: format!("souk-{full}"), bridge: format!("{}{bridge}", bridge_prefix(node_id)), short: full }
    }

    /// The container that is to take this one's place.
    #[must_use]
    pub fn successor(&self) -> String {
        format!("{}-next", self.container)
    }

    /// The container whose place was taken.
    #[must_use]
    pub fn predecessor(&self) -> String {
        format!("{}-old", self.container)
    }

    /// A volume, by the place of its path among the image's.
    #[must_use]
    pub fn volume(&self, place: usize) -> String {
        format!("{}-v{place}", self.container)
    }
}

fn short_hash(bytes: &[u8], length: usize) -> String {
    let hash = blake3::hash(bytes);
    hex::encode(hash.as_bytes().get(..length).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Names, bridge_prefix};

    #[test]
    fn interface_names_fit_the_kernel() {
        let names = Names::new("a-node", "a-lease");
        assert!(names.bridge.len() <= 15, "{}", names.bridge);
        assert!(names.bridge.starts_with(&bridge_prefix("a-node")));
        assert_ne!(names, Names::new("a-node", "b-lease"));
        assert_ne!(names.bridge, Names::new("b-node", "a-lease").bridge);
    }
}
