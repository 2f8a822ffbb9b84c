//! Showing something once, or again whenever it changes.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Context, error::Failure, output};

/// How often is looked.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Prints what the node answers at `path`; with `again` until Ctrl-C, in place on a terminal, else whenever it has changed.
pub(super) async fn show<T: DeserializeOwned + Serialize + PartialEq>(
    context: &Context,
    again: bool,
    path: &str,
    text: impl Fn(&T) -> String,
) -> Result<u8, Failure> {
    let client = context.client()?;
    let mut shown = None;
    loop {
        let found: T = client.get(path).await?;
        if !again {
            if context.json {
                output::json(&found)?;
            } else {
                output::line(text(&found))?;
            }
            return Ok(0);
        }
        let changed = shown.as_ref() != Some(&found);
        if context.json {
            if changed {
                output::json_line(&found)?;
            }
        } else if std::io::stdout().is_terminal() {
            // Home, the text, and clear what is below.
            let mut out = std::io::stdout().lock();
            let text = text(&found).replace('\n', "\x1b[K\n");
            write!(out, "\x1b[H{text}\x1b[K\n\x1b[J")?;
            out.flush()?;
        } else if changed {
            output::line(text(&found))?;
        }
        shown = Some(found);
        if !pause().await {
            return Ok(0);
        }
    }
}

/// Waits until it is time to look again; false on Ctrl-C.
pub(super) async fn pause() -> bool {
    tokio::select! {
        () = tokio::time::sleep(EVERY) => true,
        _ = tokio::signal::ctrl_c() => false,
    }
}
