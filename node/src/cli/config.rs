//! `souk config`, `completions`, `version`.

use std::io::Write;

use clap_complete::Shell;

use super::{Context, args::ConfigCommand, error::Failure, output};
use crate::config::FILE;

pub(super) fn config(context: &Context, command: &ConfigCommand) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Show => {
            let config = context.config()?;
            if context.json {
                output::json(&config)?;
            } else {
                let text = toml::to_string_pretty(&config).map_err(|e| Failure::new(e.to_string()))?;
                output::line(text.trim_end())?;
            }
        }
        ConfigCommand::Path => {
            context.here()?;
            let path = context.dir.join(FILE);
            if context.json {
                output::json(&serde_json::json!({ "path": path }))?;
            } else {
                output::line(path.display().to_string())?;
            }
        }
    }
    Ok(0)
}

pub(super) fn completions(shell: Shell) -> Result<u8, Failure> {
    // Whole first: a reader that has gone must not be a panic.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::grammar(), "souk", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(0)
}

pub(super) fn version(context: &Context) -> Result<u8, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if context.json {
        output::json(&serde_json::json!({ "version": version }))?;
    } else {
        output::line(format!("souk {version}"))?;
    }
    Ok(0)
}
