//! Settings from the environment: `SOUK_NETWORK_NAME` is `network.name`, `SOUK_HOST_PRICES_SLOT_HOUR` is
//! `host.prices.slot_hour`.

use std::ffi::OsString;

use serde::Deserialize;
use toml::{Table, Value};

use super::{
    Config, ConfigError,
    load::{explain, nearest},
};

/// Names that begin like a section but are something else.
const OTHERS: [&str; 3] = ["SOUK_HOST", "SOUK_LOG", "SOUK_API"];

/// Every setting that a variable can hold.
const SETTINGS: [&str; 83] = [
    "network.name",
    "network.listen",
    "network.bootstrap",
    "network.external",
    "network.relay",
    "network.port_mapping",
    "host.enabled",
    "host.prices.slot_hour",
    "host.prices.min_bid",
    "host.prices.storage_gb_month",
    "host.prices.up_gb",
    "host.prices.down_gb",
    "host.prices.currency",
    "host.prices.reserved_discount",
    "host.pricing.strategy",
    "host.pricing.command",
    "host.pricing.min",
    "host.pricing.max",
    "host.pricing.hosts",
    "host.pricing.every",
    "host.slots",
    "host.min_slots",
    "host.allow_soft_disk",
    "trust.attesters",
    "trust.listed",
    "trust.show_leases",
    "host.accept.anyone",
    "host.accept.peers",
    "host.accept.attested_by",
    "host.accept.min_trust",
    "host.accept.command",
    "host.accept.command_fails",
    "host.payment.methods",
    "host.payment.strangers",
    "host.payment.known",
    "host.payment.slice",
    "host.payment.slice_most",
    "host.payment.pot_minutes",
    "host.payment.keep",
    "host.payment.disputed",
    "host.egress",
    "host.registries",
    "host.local_images",
    "host.images.allow",
    "host.images.deny",
    "host.images.sent",
    "host.images.cache_gb",
    "host.max_term",
    "host.volumes",
    "host.latest_end",
    "host.eviction_notice",
    "host.quantum",
    "host.hold",
    "host.credit_hours",
    "host.tick",
    "host.reserve.cpu",
    "host.reserve.ram_mb",
    "host.reserve.disk_mb",
    "host.idle_job.image",
    "host.idle_job.command",
    "host.idle_job.disk_mb",
    "host.public.address",
    "host.public.ports",
    "host.public.bind",
    "runtime.docker_socket",
    "runtime.subnet_pool",
    "runtime.nvidia",
    "runtime.lock_dir",
    "runtime.loop_disks",
    "runtime.preallocate_disks",
    "renter.max_price",
    "renter.currency",
    "renter.ssh_keys",
    "renter.payment.daily_limit",
    "renter.payment.ahead_most",
    "payment.name",
    "owner.offline_after",
    "cluster.mdns",
    "cluster.on_removal",
    "api.socket",
    "api.tcp",
    "log.level",
    "log.format",
];

fn variable(setting: &str) -> String {
    format!("SOUK_{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// The variables that are settings, by name, in a fixed order.
pub(super) fn settings(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let sections = ["NETWORK", "HOST", "RUNTIME", "RENTER", "PAYMENT", "OWNER", "TRUST", "CLUSTER", "API", "LOG"];
    let mut found = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().map(str::to_owned) else {
            continue;
        };
        let is_ours = name.strip_prefix("SOUK_").is_some_and(|rest| {
            sections.iter().any(|s| rest.strip_prefix(s).is_some_and(|r| r.is_empty() || r.starts_with('_')))
        });
        if !is_ours || OTHERS.contains(&name.as_str()) {
            continue;
        }
        let value = value.into_string().map_err(|_| ConfigError::Variable {
            name: name.clone(),
            message: "its value is not UTF-8".to_owned(),
            hint: format!("unset {name}"),
        })?;
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

/// Puts one variable into the table. Its text is tried as it is, then as a TOML value, then as a list divided by commas.
pub(super) fn overlay(table: &mut Table, name: &str, text: &str) -> Result<(), ConfigError> {
    let Some(setting) = SETTINGS.iter().find(|s| variable(s) == name) else {
        let names: Vec<String> = SETTINGS.iter().map(|s| variable(s)).collect();
        let hint = nearest(name, names.iter().map(String::as_str))
            .map_or_else(|| format!("unset {name}"), |near| format!("did you mean {near}?"));
        return Err(ConfigError::Variable {
            name: name.to_owned(),
            message: "there is no such setting".to_owned(),
            hint,
        });
    };
    let list = text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| Value::String(s.to_owned())).collect();
    let parsed = toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut t| t.remove("v"));
    let candidates = [Some(Value::String(text.to_owned())), parsed, Some(Value::Array(list))];
    let mut why = String::new();
    for value in candidates.into_iter().flatten() {
        let mut alone = Table::new();
        put(&mut alone, setting, value.clone());
        match Config::deserialize(Value::Table(alone)) {
            Ok(_) => {
                put(table, setting, value);
                return Ok(());
            }
            Err(e) if why.is_empty() => why = explain(e.message()).0,
            Err(_) => {}
        }
    }
    Err(ConfigError::Variable { name: name.to_owned(), message: why, hint: format!("correct it, or unset {name}") })
}

fn put(table: &mut Table, setting: &str, value: Value) {
    match setting.split_once('.') {
        None => {
            table.insert(setting.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_setting_of_the_configuration_has_a_variable() {
        fn walk(prefix: &str, table: &Table, into: &mut Vec<String>) {
            for (key, value) in table {
                let path = format!("{prefix}{key}");
                match value.as_table() {
                    Some(inner) => walk(&format!("{path}."), inner, into),
                    None => into.push(path),
                }
            }
        }
        let full = super::super::template::uncommented();
        let mut names = Vec::new();
        walk("", &toml::from_str(&full).unwrap(), &mut names);
        names.retain(|n| n != "host.declared_gpus" && n != "payment.programs");
        names.sort();
        let mut settings: Vec<&str> = SETTINGS.to_vec();
        settings.sort_unstable();
        assert_eq!(names, settings);
    }
}
