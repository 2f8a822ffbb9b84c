//! The commented file that `souk init` writes: every setting with its meaning and its default.

/// The file's text for a network.
#[must_use]
pub fn text(network: &str) -> String {
    let default = "# name = \"main\"";
    if network == "main" { TEMPLATE.to_owned() } else { TEMPLATE.replacen(default, &format!("name = {network:?}"), 1) }
}

const TEMPLATE: &str = r#"# souk's configuration. A line that begins with `# ` and a name shows a default.
# Variables go before this file (SOUK_NETWORK_NAME is network.name), flags before variables.

[network]
# Part of every signature: nodes of different networks never meet. Changing it makes a new node of this one.
# name = "main"
# Where to listen, as multiaddresses.
# listen = ["/ip4/0.0.0.0/udp/7843/quic-v1", "/ip4/0.0.0.0/tcp/7843"]
# Peers to begin with, as multiaddresses that end in /p2p/12D3KooW…
# bootstrap = []
# Where others reach this node, if it can't find out itself (a forwarded port, say).
# external = []
# Whether this node, when others can dial it, relays for peers that nobody can dial: at most 128 circuits of 64 GB and a day each.
# relay = true
# Whether a router at home is asked (UPnP) to let others through to this node. What it gives is given back when the node stops.
# port_mapping = true

[host]
# Whether `souk up` rents this machine out, as with --host.
# enabled = false
# Slots of a machine without GPUs; without this, one a core. With GPUs, each is a slot.
#? slots = 4
# The smallest slice rented, in slots.
# min_slots = 1
# What guests may be granted to reach: "internet" is public addresses only, never this machine or its LAN; "full" is the LAN, too.
# egress = ["none", "internet"]
# Whether strangers may rent (with accept.anyone) though this machine can't enforce disk limits, only watch them: a guest could
# then fill the machine's disk. Without this, only the peers named in accept.peers may.
# allow_soft_disk = false
# Registries images may come from.
# registries = ["docker.io", "ghcr.io", "quay.io", "nvcr.io"]
# Images of this machine's engine that renters may use without a registry, by name; * stands for anything.
# local_images = []
# The longest contract.
# max_term = "30days"
# Disk kept for volumes, in GB: 0 keeps none. If not set, a tenth of what is free. Volumes need root and a loop device.
#? volumes = 100
# No contract runs past this, in UTC.
#? latest_end = "2026-12-24T00:00:00Z"
# Warning before an instance that was rented by bid is stopped for a higher bid, a fixed price or your own work.
# eviction_notice = "1m"
# A run of such an instance that others cut shorter than this is free.
# quantum = "10m"
# Slots kept for your own work, as with `souk host hold`.
# hold = 0
# How many hours of its price a renter may owe before its instance stops.
# credit_hours = 24
# Time between two receipts, unless the renter asks for another.
# tick = "60s"

[host.prices]
# One slot for one hour. Nothing is offered until this is set, here or by `souk host list --price 0.35`.
#? slot_hour = "0.35"
# The lowest bid for one slot for one hour; without this, the full price.
#? min_bid = "0.12"
# Disk per GB and month of 30 days.
# storage_gb_month = "0.10"
# Traffic out of and into an instance, per GB.
# up_gb = "0.00"
# down_gb = "0.00"
# currency = "USD"
# What a reserved term is cheaper by, in thousandths of the price.
# reserved_discount = 0

[host.pricing]
# How the price of an on-demand rental comes about: "fixed" is the listed price; "floor" comes down to the lowest bid for free
# slots; "command" asks a program about each proposal; "market" follows the median of comparable offers within bounds.
# strategy = "fixed"
# For "command", run by /bin/sh -c: reads the proposal and the market as JSON, prints the price of one slot for an hour, has two
# seconds. If it fails, the listed price holds. Never above the listed price.
#? command = "/usr/local/bin/my-price"
# For "market": bounds for one slot and hour, of how many other hosts offers are needed, and the time between two looks.
#? min = "0.20"
#? max = "0.60"
# hosts = 3
# every = "5m"

[host.accept]
# Whether anybody may rent; otherwise only the peers named, and those below.
# anyone = false
# peers = []
# Renters for whom one of these nodes attests, or who are trusted at least so many thousandths; `souk trust` and
# the peers named pass in any case.
# attested_by = []
#? min_trust = 500
# A program asked about each proposal that fits everything else, run by /bin/sh -c with the proposal as JSON on its standard
# input: exit code 0 takes it, any other refuses it with the first line it printed. It has two seconds.
#? command = "/usr/local/bin/my-check"
# What holds where it gives no answer: "refuse" or "accept".
# command_fails = "refuse"

[host.payment]
# Methods of payment that are taken, the preferred one first: "manual" (people pay outside of souk, and say so), or those with a
# program under [[payment.programs]]. Without any, balances are kept and nobody is asked for money.
# methods = []
# When strangers pay, and when the peers in accept.peers and those with a line of credit do: "before" (a slice ahead), "after"
# (when a slice is used), or "never" (nobody is stopped for it).
# strangers = "before"
# known = "after"
# How much use the first slice is worth, and at most how much money; slices double with what is settled.
# slice = "5m"
#? slice_most = "1.00"
# Unpaid use that all strangers together get in a day, in minutes of one slot.
# pot_minutes = 30
# How long what is stopped for money is kept.
# keep = "2days"
# What becomes of a difference that a renter does not acknowledge for a day: "waive" it, or "close" the lease.
# disputed = "waive"

[host.images]
# Which images renters may use, by name; * stands for anything. Without "allow" all of the registries above; "deny" in no case.
# allow = []
# deny = []
# Whether renters may send images of their own (souk rent --push), which have no name for a rule to be about.
# sent = true
# Room for images that no instance needs any more; those used longest ago go first.
# cache_gb = 100

[host.reserve]
# What is kept for you: hardware threads, memory and disk.
# cpu = 0
# ram_mb = 1024
# disk_mb = 10000

[host.idle_job]
# What runs on slots that nobody rents: a container a slot, killed at once when a rental comes, and back after. Also set by
# `souk host idle-job set IMAGE -- COMMAND`.
#? image = "debian:12"
#? command = ["sh", "-c", "while :; do :; done"]
# Disk for each slot's container, in MB.
# disk_mb = 10000

[host.public]
# Ports that instances can be reached at from outside (souk rent -p): the address others reach this machine at, an IP address or a
# name, and which of its ports arrive here under the same numbers.
#? address = "203.0.113.7"
#? ports = "40000-40100"
# The address of this machine to listen on.
# bind = "0.0.0.0"

# GPUs that nothing can measure, by device path: a list of paths for each.
#? [[host.declared_gpus]]
#? model = "RTX 4090"
#? devices = [["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"]]
#? vram_mib = 24564

[runtime]
# docker_socket = "/var/run/docker.sock"
# Where guests' networks come from; avoid your LAN's range.
# subnet_pool = "10.213.0.0/16"
# How GPUs are handed to containers: "auto", "device_request", or the name of an OCI runtime.
# nvidia = "auto"
# Where slots are locked against other nodes of this machine; the same for all of them.
# lock_dir = "/run/lock/souk"
# Whether each instance gets a file system in a file as its disk, where the engine's storage driver has no limits of its own;
# and whether its whole space is set aside when it is made, so that what was rented is there.
# loop_disks = true
# preallocate_disks = true

[renter]
# Take counter-offers up to this unasked, per hour for the whole instance; without this, up to the listed price.
#? max_price = "1.00"
# currency = "USD"
# Public SSH keys that get into what you rent, beside each rental's own: lines of OpenSSH, or files, as in ["~/.ssh/id_ed25519.pub"].
# Read when the node starts; --ssh-key KEY names others for one rental.
# ssh_keys = []

[trust]
# Nodes whose attestations count (souk attest), beside those that `souk trust` names.
# attesters = []
# Nodes from which trust begins for you beside those you have dealt with, such as a list your community hands out. Whoever is on it
# can praise whom it likes.
# listed = []
# Whether other nodes are shown your leases when they ask: what both parties have signed, the image's name included. Without it this
# node stays a stranger to whoever it has not dealt with.
# show_leases = true
[renter.payment]
# What this node may pay by itself in any 24 hours, by programs, when hosts ask for it. Without this, nothing: you are told.
#? daily_limit = "20.00"
# The most that is paid ahead to one host; without this, a slice.
#? ahead_most = "5.00"

[payment]
# Who you are, on invoices: name and address.
#? name = "Example Ltd, 1 Example Street, Exampletown"
# Programs that pay by a method and say what has arrived by it: JSON in, JSON out. docs/operations.md tells what they are asked.
#? [[payment.programs]]
#? method = "lightning"
#? command = "/usr/local/bin/souk-lightning"
#? timeout = "30s"

[owner]
# Another machine of the same owner is offline when its connection has been gone for so long, without a word.
# offline_after = "90s"

[cluster]
# For a node of a private cluster. Whether it looks for members on the local network, and shows itself there, by mDNS.
# mdns = true
# What becomes of the leases of a member that is put out: "ends" at once, or "runs_out" at the contract's end.
# on_removal = "ends"

[api]
# The local API's socket; without this, api.sock beside this file.
#? socket = "/run/souk/api.sock"
# Serve it at a loopback address too; the bearer token is in api.token beside this file.
#? tcp = "127.0.0.1:7844"

[log]
# error, warn, info, debug, trace, or a filter such as "info,souk=debug".
# level = "info"
# "text" or "json".
# format = "text"
"#;

/// The template with every setting in force, examples too.
#[cfg(test)]
pub(super) fn uncommented() -> String {
    strip(&["# ", "#? "])
}

#[cfg(test)]
fn strip(marks: &[&str]) -> String {
    let is_setting = |line: &str| {
        line.starts_with("[[")
            || line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    TEMPLATE
        .lines()
        .map(|line| {
            let bare = marks.iter().find_map(|m| line.strip_prefix(m));
            bare.filter(|b| is_setting(b)).unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_defaults_it_shows_are_the_defaults() {
        assert_eq!(toml::from_str::<Config>(TEMPLATE).unwrap(), Config::default());
        let shown: Config = toml::from_str(&strip(&["# "])).unwrap();
        assert_eq!(shown, Config::default());
        // And each is shown: what the defaults hold, the uncommented file holds.
        let full: Config = toml::from_str(&uncommented()).unwrap();
        assert!(full.check().is_ok());
    }

    #[test]
    fn another_network_is_written_down() {
        let config: Config = toml::from_str(&text("test")).unwrap();
        assert_eq!(config.network.name, "test");
    }
}
