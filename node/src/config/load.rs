//! Reading the configuration, with errors that say where and what to do.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use super::{Config, FILE, env};
use crate::cluster::{ClusterError, ClusterFiles};

/// The longest configuration file, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but can't be read.
    #[error("can't read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not a configuration.
    #[error("{}:{line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A variable that names no setting, or a value that does not fit it.
    #[error("the variable {name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The cluster that the data directory is of can't be made out.
    #[error("the cluster of this node")]
    Cluster(#[source] ClusterError),
    /// A value out of its bounds.
    #[error("{key}: {message}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl ConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Read { path, .. } => format!("ls -l {}", path.display()),
            Self::Malformed { hint, .. } | Self::Variable { hint, .. } => hint.clone(),
            Self::Cluster(error) => error.hint(),
            Self::Value { key, .. } => {
                format!("set {key} in {FILE}; `souk config show` prints what is in force")
            }
        }
    }
}

/// Reads the configuration of a data directory; defaults where there is no file. `variables` are the process's environment.
///
/// # Errors
/// [`ConfigError`], for the first thing that is wrong.
pub fn load(dir: &Path, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Config, ConfigError> {
    let path = dir.join(FILE);
    let text = read(&path)?;
    let mut table = toml::Table::new();
    if let Some(text) = &text {
        // Typed first: its errors know their line.
        toml::from_str::<Config>(text).map_err(|e| malformed(&path, text, &e))?;
        table = toml::from_str(text).map_err(|e| malformed(&path, text, &e))?;
    }
    for (name, value) in env::settings(variables)? {
        env::overlay(&mut table, &name, &value)?;
    }
    let founding = ClusterFiles::load(dir).map_err(ConfigError::Cluster)?.map(|files| files.list.founding.clone());
    if founding.is_some() {
        super::cluster::default_in(&mut table);
    }
    let mut config: Config = table.try_into().map_err(|e: toml::de::Error| ConfigError::Malformed {
        path: path.clone(),
        line: 1,
        message: e.message().to_owned(),
        hint: repair(&path),
    })?;
    if let Some(founding) = &founding {
        config.network.name.clone_from(&founding.name);
    }
    config.network.founding = founding;
    check(&config)?;
    Ok(config)
}

/// Checks a configuration that flags have changed.
///
/// # Errors
/// [`ConfigError::Value`].
pub fn check(config: &Config) -> Result<(), ConfigError> {
    config.check().map_err(|(key, message)| ConfigError::Value { key, message })
}

fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(meta) if meta.len() > MAX_BYTES => {
            return Err(failed(io::Error::other("it is longer than 1 MiB")));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

fn malformed(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map_or(1, |span| {
        let before = text.get(..span.start).unwrap_or(text);
        before.bytes().filter(|b| *b == b'\n').count() + 1
    });
    let (message, hint) = explain(error.message());
    ConfigError::Malformed { path: path.to_owned(), line, message, hint: hint.unwrap_or_else(|| repair(path)) }
}

fn repair(path: &Path) -> String {
    let path = path.display();
    format!("correct that line, or start afresh: mv {path} {path}.old && souk init")
}

/// Turns serde's "unknown field `x`, expected one of `a`, `b`" into a sentence that names the nearest field.
pub(super) fn explain(message: &str) -> (String, Option<String>) {
    let message = message.trim().replace('\n', ": ");
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return (message, None);
    };
    let mut quoted = rest.split('`');
    let field = quoted.next().unwrap_or_default().to_owned();
    // What is left alternates between text and names.
    let known: Vec<&str> = quoted.skip(1).step_by(2).collect();
    let hint = nearest(&field, known.iter().copied()).map_or_else(
        || format!("the settings here are: {}", known.join(", ")),
        |name| format!("did you mean `{name}`?"),
    );
    (format!("there is no setting `{field}` here"), Some(hint))
}

/// The name most like `text`, if any is.
pub(crate) fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(text, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::{Amount, Millis, resources::Egress};

    fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let variables = variables.iter().map(|(k, v)| (k.into(), v.into()));
        load(dir.path(), variables.collect::<Vec<_>>())
    }

    #[test]
    fn variables_go_before_the_file_and_the_file_before_defaults() {
        let config = load_with(
            "[network]\nname = \"test\"\n[host]\ntick = \"5s\"\n[host.prices]\nslot_hour = \"0.35\"\n",
            &[
                ("SOUK_HOST_TICK", "2s"),
                ("SOUK_HOST_SLOTS", "4"),
                ("SOUK_HOST_LOCAL_IMAGES", "[\"a:*\"]"),
                ("SOUK_HOST_EGRESS", "none"),
                ("SOUK_HOST_PRICES_MIN_BID", "0.1"),
                ("SOUK_NETWORK_BOOTSTRAP", "/ip4/1.2.3.4/tcp/1,/ip4/5.6.7.8/tcp/2"),
                ("SOUK_DIR", "/elsewhere"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.network.name, "test");
        assert_eq!(config.host.tick, Millis::from_secs(2));
        assert_eq!(config.host.slots, Some(4));
        assert_eq!(config.host.local_images, vec!["a:*".to_owned()]);
        assert_eq!(config.host.egress, vec![Egress::None]);
        assert_eq!(config.host.prices.slot_hour, Some(Amount(350_000_000)));
        assert_eq!(config.host.prices.min_bid, Some(Amount(100_000_000)));
        assert_eq!(config.network.bootstrap.len(), 2);
        assert_eq!(config.host.credit_hours, 24);
    }

    #[test]
    fn an_unknown_setting_is_refused_with_its_line_and_the_nearest_name() {
        let error = load_with("[network]\n\nlissten = []\n", &[]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(":3: there is no setting `lissten`"), "{text}");
        assert_eq!(error.hint(), "did you mean `listen`?");

        let error = load_with("", &[("SOUK_HOST_SLOTTS", "3")]).unwrap_err();
        assert!(error.to_string().contains("SOUK_HOST_SLOTTS"), "{error}");
        assert!(error.hint().contains("SOUK_HOST_SLOTS"), "{}", error.hint());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (text, what) in [
            ("[network]\nname = \"Main Net\"\n", "network.name"),
            ("[host]\ntick = \"2h\"\n", "host.tick"),
            ("[host]\nslots = 0\n", "host.slots"),
            ("[host.prices]\nmin_bid = \"1\"\nslot_hour = \"0.5\"\n", "min_bid"),
            ("[host.prices]\nslot_hour = 0.35\n", ":2:"),
            ("[api]\ntcp = \"0.0.0.0:80\"\n", "api.tcp"),
            ("[host\n", ":1:"),
        ] {
            let error = load_with(text, &[]).unwrap_err();
            assert!(error.to_string().contains(what), "{text:?}: {error}");
        }
        let error = load_with("", &[("SOUK_HOST_SLOTS", "many")]).unwrap_err();
        assert!(error.to_string().contains("SOUK_HOST_SLOTS"), "{error}");
    }

    #[test]
    fn no_file_is_all_defaults() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path(), []).unwrap(), Config::default());
    }
}
