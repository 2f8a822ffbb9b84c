//! Where log lines go, and how they look: standard error, as text or JSON.
//!
//! Nothing that is logged holds a key, a token, an environment's value or a command: the types that carry them say so in their
//! `Debug`.

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// A filter that is not one.
#[derive(Debug, thiserror::Error)]
#[error("`{filter}` is not a log level or filter")]
pub struct BadFilter {
    /// What was given.
    filter: String,
    /// Why not.
    source: tracing_subscriber::filter::ParseError,
}

/// Starts logging for the whole process. `SOUK_LOG`, where set, goes before the configured level. A second call changes nothing.
///
/// # Errors
/// [`BadFilter`].
pub fn init(log: &Log) -> Result<(), BadFilter> {
    let filter = std::env::var("SOUK_LOG").unwrap_or_else(|_| log.level.clone());
    // At a plain level the network library would tell of every peer's bootstrap, of each interface, and, by one line each, of every
    // message and stream that a peer should not have sent, which fills a disk. Who wants that names it in a filter.
    let plain = filter.bytes().all(|b| b.is_ascii_alphabetic());
    let filter = if plain {
        format!("{filter},libp2p_swarm=warn,libp2p_kad=error,libp2p_yamux=error,libp2p_gossipsub=off,libp2p_mdns=warn")
    } else {
        filter
    };
    let env = EnvFilter::builder().parse(&filter).map_err(|source| BadFilter { filter, source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(env).with_writer(std::io::stderr);
    // A subscriber may be there already, in tests; then that one stays.
    let _ = match log.format {
        LogFormat::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
