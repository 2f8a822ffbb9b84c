//! The first line that comes back over ssh: which souk is there, and whether its node answers.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::market::CommandError;

/// How its line begins. What a login shell's own start files may print does not.
const MARK: &str = "{\"souk_dial\":";
/// What is spoken after the greeting.
pub(super) const VERSION: u32 = 1;
/// Bytes that may come before it is over.
const BYTES: u64 = 256 * 1024;

/// What the far end says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// What it speaks after this line.
    pub souk_dial: u32,
    /// The version of the program there.
    pub version: String,
    /// Why nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
}

impl Greeting {
    /// This program's.
    #[must_use]
    pub fn ours(error: Option<CommandError>) -> Self {
        Self { souk_dial: VERSION, version: env!("CARGO_PKG_VERSION").to_owned(), error }
    }

    /// As it is sent.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Reads it, past whatever else is printed there first. None if the stream ends before, or goes on without.
    ///
    /// # Errors
    /// The stream's.
    pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Self>> {
        let mut from = from.take(BYTES);
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.read_until(b'\n', &mut line).await? == 0 {
                return Ok(None);
            }
            let text = String::from_utf8_lossy(&line);
            // What was printed before it may have had no end of line.
            let Some(at) = text.find(MARK) else { continue };
            if let Ok(greeting) = serde_json::from_str(text[at..].trim_end()) {
                return Ok(Some(greeting));
            }
        }
    }

    /// Whether two programs of these versions understand each other: the API may change with the first two numbers.
    #[must_use]
    pub fn fits(&self) -> bool {
        let series = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
        self.souk_dial == VERSION && series(&self.version) == series(env!("CARGO_PKG_VERSION"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn read(bytes: &[u8]) -> (Option<Greeting>, Vec<u8>) {
        let mut from = bytes;
        let greeting = Greeting::read(&mut from).await.unwrap();
        (greeting, from.to_vec())
    }

    #[tokio::test]
    async fn it_is_found_behind_what_a_shell_prints_and_nothing_after_it_is_touched() {
        let ours = Greeting::ours(None);
        let mut bytes = b"Welcome!\n{\"souk_dial\":garbage}\n\xff\xfe no end of line".to_vec();
        bytes.extend(ours.line());
        bytes.extend(b"\x00\x01after\n");
        assert_eq!(read(&bytes).await, (Some(ours.clone()), b"\x00\x01after\n".to_vec()));
        assert!(ours.fits());
        let told = Greeting::ours(Some(CommandError::stopping()));
        assert_eq!(read(&told.line()).await.0, Some(told));
    }

    #[tokio::test]
    async fn other_versions_and_endless_noise_are_told() {
        assert_eq!(read(b"bash: souk: command not found\n").await.0, None);
        assert_eq!(read(&vec![b'x'; 600_000]).await.0, None);
        let other = Greeting { version: "99.0.0".to_owned(), ..Greeting::ours(None) };
        assert!(!read(&other.line()).await.0.unwrap().fits());
        assert!(!Greeting { souk_dial: 2, ..Greeting::ours(None) }.fits());
    }
}
