//! Settings of a node in a private cluster, and what other settings are there unless the owner says otherwise.
//!
//! Members trust each other: every one may rent, for nothing, also where disk limits can't be enforced.

use serde::{Deserialize, Serialize};
use souk_protocol::machine::policy;
use toml::{Table, Value};

/// How this node is in its private cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Whether members are looked for, and this node shows itself, on the local network by mDNS.
    pub mdns: bool,
    /// What becomes of a renter's leases here when it is put out of the cluster.
    pub on_removal: OnRemoval,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { mdns: true, on_removal: OnRemoval::Ends }
    }
}

/// What becomes of the leases of who is no member any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRemoval {
    /// They end at once.
    #[default]
    Ends,
    /// They run to their contract's end. Nobody reaches the instances any more.
    RunsOut,
}

impl From<OnRemoval> for policy::OnRemoval {
    fn from(setting: OnRemoval) -> Self {
        match setting {
            OnRemoval::Ends => Self::Ends,
            OnRemoval::RunsOut => Self::RunsOut,
        }
    }
}

/// Settings that mean something else in a cluster, where the owner has not set them.
const DEFAULTS: [(&str, &str, DefaultValue); 4] = [
    ("host.prices", "slot_hour", DefaultValue::Text("0")),
    ("host.prices", "storage_gb_month", DefaultValue::Text("0")),
    ("host.accept", "anyone", DefaultValue::Yes),
    ("host", "allow_soft_disk", DefaultValue::Yes),
];

#[derive(Clone, Copy)]
enum DefaultValue {
    Text(&'static str),
    Yes,
}

/// Puts the cluster's defaults where `table` has nothing.
pub(super) fn default_in(table: &mut Table) {
    for (section, key, value) in DEFAULTS {
        let mut at = &mut *table;
        for part in section.split('.') {
            let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
            // What is no table there is refused by name when it is read.
            let Value::Table(inner) = entry else { return };
            at = inner;
        }
        at.entry(key).or_insert_with(|| match value {
            DefaultValue::Text(text) => Value::String(text.to_owned()),
            DefaultValue::Yes => Value::Boolean(true),
        });
    }
}
