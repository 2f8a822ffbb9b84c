//! The node's own nftables table: what guests may reach, by the names of their bridges.
//!
//! One table `inet souk_<node>` holds for every bridge whose name begins with this node's prefix, so a guest is covered from the
//! moment its bridge exists, and nothing can be left over. Only bridges of guests that were granted more are named in it, and
//! forgetting one of them closes it. It hooks before the engine's own chains; what it drops stays dropped whatever they say, and
//! what it lets pass they still judge.
//!
//! It is loaded in one transaction, read back and compared before any network is made, and compared again from time to time,
//! because a reload of the host's own firewall may flush it. Neither leases nor the engine are known here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;

use crate::config::RuntimeConfig;
use crate::name::{bridge_prefix, node_tag};
use crate::subnet::{Cidr, routes};

/// How long one run of `nft` may take.
const NFT_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the engine's chains, which are at 0.
const PRIORITY: i64 = -10;

/// Ranges that are nobody's public host: RFC 6890 and its successors, private, shared, link-local, documentation, benchmarks,
/// multicast and reserved.
const NOT_PUBLIC: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Whether an address may belong to a host of the public internet.
#[must_use]
pub fn is_public(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC.iter().any(|(first, prefix)| Cidr::new(*first, *prefix).contains(address))
}

/// Why the firewall isn't in force.
#[derive(Debug, Error)]
pub enum FirewallError {
    /// The program can't be run.
    #[error("can't run {program}; install nftables and run the node as root")]
    Program {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It did not end in time.
    #[error("nft did not answer in time")]
    Timeout,
    /// It refused the rules.
    #[error("nft refused the rules: {message}")]
    Refused {
        /// What it said, cut to a few lines.
        message: String,
    },
    /// What the kernel holds is not what was loaded.
    #[error("the rules in force are not the ones this node loaded: {difference}")]
    Different {
        /// What differs.
        difference: &'static str,
    },
}

/// The node's table.
#[derive(Debug, Clone)]
pub struct Firewall {
    nft: PathBuf,
    table: String,
    prefix: String,
    closed: Vec<Cidr>,
    pool: Cidr,
    per_second: u32,
    burst: u32,
    /// Bridges of guests that may reach this host's neighbours.
    full: Arc<RwLock<BTreeSet<String>>>,
}

impl Firewall {
    /// The table of a node; nothing is loaded yet.
    #[must_use]
    pub fn new(config: &RuntimeConfig) -> Self {
        let mut closed: Vec<Cidr> = NOT_PUBLIC.iter().map(|(first, prefix)| Cidr::new(*first, *prefix)).collect();
        closed.push(config.subnet_pool);
        closed.extend(&config.denied);
        Self {
            nft: config.nft.clone(),
            table: format!("souk_{}", node_tag(&config.node_id)),
            prefix: bridge_prefix(&config.node_id),
            closed,
            pool: config.subnet_pool,
            per_second: config.new_connections.per_second,
            burst: config.new_connections.burst,
            full: Arc::default(),
        }
    }

    /// The table's name, in family `inet`.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Says which bridges are of guests that may reach this host's neighbours, and loads the table if that is new.
    ///
    /// # Errors
    /// As [`Firewall::load`].
    pub async fn grant_full(&self, change: impl FnOnce(&mut BTreeSet<String>)) -> Result<(), FirewallError> {
        let changed = {
            let mut full = self.full.write().unwrap_or_else(PoisonError::into_inner);
            let before = full.clone();
            change(&mut full);
            *full != before
        };
        if changed { self.load().await } else { Ok(()) }
    }

    fn full(&self) -> BTreeSet<String> {
        self.full.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the table, replacing any older one in the same transaction, and compares it with what the kernel then holds.
    ///
    /// # Errors
    /// Anything that leaves it unsure whether the rules are in force.
    pub async fn load(&self) -> Result<(), FirewallError> {
        let attached = self.attached();
        self.run(&["-f", "-"], &self.ruleset(&attached)).await?;
        self.verify().await
    }

    /// Compares the table in the kernel with the one this node would load now.
    ///
    /// # Errors
    /// [`FirewallError::Different`] where it is gone or changed.
    pub async fn verify(&self) -> Result<(), FirewallError> {
        let listing =
            self.run(&["-j", "list", "table", "inet", &self.table], "").await.map_err(|error| match error {
                FirewallError::Refused { .. } => FirewallError::Different { difference: "the table is gone" },
                other @ (FirewallError::Program { .. } | FirewallError::Timeout | FirewallError::Different { .. }) => {
                    other
                }
            })?;
        self.compare(&listing, &self.attached())
    }

    /// Verifies, and loads again where something is different.
    ///
    /// # Errors
    /// As [`Firewall::load`].
    pub async fn ensure(&self) -> Result<(), FirewallError> {
        match self.verify().await {
            Ok(()) => Ok(()),
            Err(FirewallError::Different { difference }) => {
                tracing::warn!(table = %self.table, difference, "loading the firewall again");
                self.load().await
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the table, where it exists.
    ///
    /// # Errors
    /// Where `nft` can't be run.
    pub async fn unload(&self) -> Result<(), FirewallError> {
        let table = &self.table;
        self.run(&["-f", "-"], &format!("add table inet {table}\ndelete table inet {table}\n")).await?;
        Ok(())
    }

    /// Networks that this host is attached to, its LAN among them, by public addresses too.
    fn attached(&self) -> Vec<Cidr> {
        let mut ranges: Vec<Cidr> = routes()
            .into_iter()
            .filter(|route| route.attached && !route.interface.starts_with(&self.prefix))
            .map(|route| route.to)
            // Half-internet routes of a VPN interface are no neighbourhood.
            .filter(|range| range.prefix() >= 8)
            .filter(|range| {
                !self.closed.iter().any(|closed| closed.prefix() <= range.prefix() && closed.contains(range.first()))
            })
            .collect();
        ranges.sort_unstable();
        ranges.dedup();
        ranges
    }

    /// The chains and rules, each rule tagged with its place and a digest of the whole, by which it is known again.
    fn chains(&self, attached: &[Cidr]) -> Vec<(&'static str, Option<&'static str>, Vec<String>)> {
        let prefix = &self.prefix;
        let (per_second, burst) = (self.per_second, self.burst);
        let mut chains = vec![
            (
                "from_guest",
                None,
                vec![
                    "meta nfproto != ipv4 drop".to_owned(),
                    "ct state established accept".to_owned(),
                    "ct state related meta l4proto icmp accept".to_owned(),
                    "ct state != new drop".to_owned(),
                    "ip daddr @closed drop".to_owned(),
                    "ip daddr @attached drop".to_owned(),
                    "meta l4proto != { tcp, udp, icmp } drop".to_owned(),
                    "tcp dport 25 drop".to_owned(),
                    format!(
                        "update @pace {{ iifname limit rate over {per_second}/second burst {burst} packets }} drop"
                    ),
                    "accept".to_owned(),
                ],
            ),
            (
                "from_full_guest",
                None,
                vec![
                    "meta nfproto != ipv4 drop".to_owned(),
                    "ct state established accept".to_owned(),
                    "ct state related meta l4proto icmp accept".to_owned(),
                    "ct state != new drop".to_owned(),
                    format!("ip daddr {} drop", self.pool),
                    format!(
                        "update @pace {{ iifname limit rate over {per_second}/second burst {burst} packets }} drop"
                    ),
                    "accept".to_owned(),
                ],
            ),
            (
                "to_guest",
                None,
                vec![
                    "meta nfproto != ipv4 drop".to_owned(),
                    "ct state established accept".to_owned(),
                    "ct state related meta l4proto icmp accept".to_owned(),
                    "drop".to_owned(),
                ],
            ),
            ("input", Some("input"), vec![format!("iifname \"{prefix}*\" drop")]),
            (
                "forward",
                Some("forward"),
                vec![
                    format!("iifname \"{prefix}*\" oifname \"{prefix}*\" drop"),
                    "iifname @full jump from_full_guest".to_owned(),
                    format!("iifname \"{prefix}*\" jump from_guest"),
                    format!("oifname \"{prefix}*\" jump to_guest"),
                ],
            ),
        ];
        let digest =
            blake3::hash(format!("{chains:?}{:?}{attached:?}{:?}", self.closed, self.full()).as_bytes()).to_hex();
        let digest = digest.get(..12).unwrap_or_default().to_owned();
        for (chain, _, rules) in &mut chains {
            for (place, rule) in rules.iter_mut().enumerate() {
                let _ = write!(rule, " comment \"{}\"", tag(chain, place, &digest));
            }
        }
        chains
    }

    fn ruleset(&self, attached: &[Cidr]) -> String {
        let table = &self.table;
        let mut text = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
        text.push_str("set pace { type ifname; size 65535; flags dynamic; timeout 10m; }\n");
        let full: Vec<String> = self.full().iter().map(|bridge| format!("\"{bridge}\"")).collect();
        let full = if full.is_empty() { String::new() } else { format!("elements = {{ {} }};", full.join(", ")) };
        let _ = writeln!(text, "set full {{ type ifname; {full} }}");
        for (name, ranges) in [("closed", self.closed.as_slice()), ("attached", attached)] {
            let elements: Vec<String> = ranges.iter().map(Cidr::to_string).collect();
            let elements =
                if elements.is_empty() { String::new() } else { format!("elements = {{ {} }};", elements.join(", ")) };
            let _ = writeln!(text, "set {name} {{ type ipv4_addr; flags interval; auto-merge; {elements} }}");
        }
        for (chain, hook, rules) in self.chains(attached) {
            let _ = writeln!(text, "chain {chain} {{");
            if let Some(hook) = hook {
                let _ = writeln!(text, "type filter hook {hook} priority {PRIORITY}; policy accept;");
            }
            for rule in rules {
                let _ = writeln!(text, "{rule}");
            }
            text.push_str("}\n");
        }
        text.push_str("}\n");
        text
    }

    fn compare(&self, listing: &str, attached: &[Cidr]) -> Result<(), FirewallError> {
        let different = |difference| FirewallError::Different { difference };
        let listing: Value = serde_json::from_str(listing).map_err(|_| different("nft's answer can't be read"))?;
        let objects =
            listing.get("nftables").and_then(Value::as_array).ok_or_else(|| different("nft's answer can't be read"))?;
        let kind = |name: &'static str| objects.iter().filter_map(move |object| object.get(name));
        let text = |object: &Value, key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);

        let mut wanted = Vec::new();
        for (chain, hook, rules) in self.chains(attached) {
            let found = kind("chain").find(|object| text(object, "name").as_deref() == Some(chain));
            let found = found.ok_or_else(|| different("a chain is gone"))?;
            let right = text(found, "hook").as_deref() == hook
                && (hook.is_none() || found.get("prio").and_then(Value::as_i64) == Some(PRIORITY));
            if !right {
                return Err(different("a chain hangs elsewhere"));
            }
            wanted.extend(rules.iter().filter_map(|rule| comment_of(rule)));
        }
        for name in ["pace", "full", "closed", "attached"] {
            let set = kind("set").find(|object| text(object, "name").as_deref() == Some(name));
            let set = set.ok_or_else(|| different("a set is gone"))?;
            let filled = set.get("elem").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
            let must_be_filled = match name {
                "closed" => true,
                "full" => !self.full().is_empty(),
                "attached" => !attached.is_empty(),
                _ => false,
            };
            if must_be_filled && !filled {
                return Err(different("a set was emptied"));
            }
        }
        let mut found: Vec<String> = kind("rule").filter_map(|rule| text(rule, "comment")).collect();
        let rules = kind("rule").count();
        wanted.sort_unstable();
        found.sort_unstable();
        if found != wanted || rules != wanted.len() {
            return Err(different("a rule is gone, changed or new"));
        }
        Ok(())
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
        let failed = |source| FirewallError::Program { program: self.nft.display().to_string(), source };
        let mut child = tokio::process::Command::new(&self.nft)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let mut stdin = child.stdin.take();
        let work = async {
            if let Some(stdin) = &mut stdin {
                // A program that ends without reading says why by its status.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
            drop(stdin.take());
            child.wait_with_output().await
        };
        let output =
            tokio::time::timeout(NFT_TIMEOUT, work).await.map_err(|_| FirewallError::Timeout)?.map_err(failed)?;
        if !output.status.success() {
            return Err(FirewallError::Refused {
                message: String::from_utf8_lossy(&output.stderr).chars().take(500).collect(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn tag(chain: &str, place: usize, digest: &str) -> String {
    format!("souk {digest} {chain} {place}")
}

fn comment_of(rule: &str) -> Option<String> {
    let (_, comment) = rule.rsplit_once(" comment \"")?;
    comment.strip_suffix('"').map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::is_public;
    use std::net::Ipv4Addr;

    #[test]
    fn public_and_not() {
        for address in [[1, 1, 1, 1], [9, 9, 9, 9], [172, 32, 0, 1], [192, 167, 1, 1], [100, 128, 0, 1]] {
            assert!(is_public(Ipv4Addr::from(address)), "{address:?}");
        }
        for address in [
            [10, 0, 0, 1],
            [169, 254, 169, 254],
            [127, 0, 0, 1],
            [100, 64, 0, 1],
            [255, 255, 255, 255],
            [224, 0, 0, 251],
        ] {
            assert!(!is_public(Ipv4Addr::from(address)), "{address:?}");
        }
    }
}
