//! Where a hook's events go: a URL, or a program of this machine.
//!
//! Owns what is taken as one, and what of it may be shown: URLs and arguments hold secrets.

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};
use url::Url;

/// Bytes of a URL, and of a program with its arguments.
pub const TARGET_BYTES: usize = 4096;
/// Words of a program's command line.
const WORDS: usize = 64;

/// A URL whose path, query and user may be secret. Its `Debug` and [`fmt::Display`] show where it leads, and no more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretUrl(Url);

impl TryFrom<String> for SecretUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Url::parse(&text).map(Self).map_err(|_| "not a URL")
    }
}

impl From<SecretUrl> for String {
    fn from(url: SecretUrl) -> Self {
        url.0.into()
    }
}

impl SecretUrl {
    /// The whole of it, for whoever connects.
    pub(super) const fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}://", url.scheme())?;
        if !url.username().is_empty() || url.password().is_some() {
            f.write_str("…@")?;
        }
        f.write_str(url.host_str().unwrap_or_default())?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        let bare = url.path() == "/" && url.query().is_none();
        f.write_str(if bare { "/" } else { "/…" })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where events go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Posted there, signed.
    Url(SecretUrl),
    /// Handed to this program on its standard input: its name and arguments. No shell looks at them.
    Program(Vec<String>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => fmt::Display::fmt(url, f),
            Self::Program(words) => {
                f.write_str(words.first().map_or("", String::as_str))?;
                f.write_str(if words.len() > 1 { " …" } else { "" })
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why something is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not a URL.
    #[error("that is not a URL: {0}; a webhook is https://HOST/PATH")]
    Url(String),
    /// A URL of another kind.
    #[error("events are posted over https or http, not {0}")]
    Scheme(String),
    /// The quotes don't match.
    #[error("the command's quotes or backslashes don't match; give the program and its arguments after --")]
    Quotes,
    /// Nothing is there.
    #[error("no program is named")]
    Empty,
    /// It holds what no command line may.
    #[error("a program's name and arguments hold no zero bytes")]
    Zero,
    /// Too much of it.
    #[error("that is too long: {TARGET_BYTES} bytes and {WORDS} words are the most")]
    TooLong,
    /// A path that depends on where one stands.
    #[error("`{0}` is a path relative to where you are, and the node is elsewhere; give it whole")]
    Relative(String),
    /// No such program.
    #[error("there is no program `{0}` that the node could run")]
    Missing(String),
}

impl Target {
    /// A URL where the text begins as one; else a command line, split into words as a shell would, without a shell.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn of_text(text: &str) -> Result<Self, BadTarget> {
        if text.len() > TARGET_BYTES {
            return Err(BadTarget::TooLong);
        }
        let text = text.trim();
        if !text.contains("://") || text.starts_with(['/', '.']) || text.contains(char::is_whitespace) {
            return Self::of_words(shlex::split(text).ok_or(BadTarget::Quotes)?);
        }
        let url = Url::parse(text).map_err(|e| BadTarget::Url(e.to_string()))?;
        match url.scheme() {
            "https" | "http" if url.host_str().is_some_and(|h| !h.is_empty()) => Ok(Self::Url(SecretUrl(url))),
            "https" | "http" => Err(BadTarget::Url("it names no host".to_owned())),
            other => Err(BadTarget::Scheme(other.chars().take(16).collect())),
        }
    }

    /// A program and its arguments, as they are.
    ///
    /// # Errors
    /// [`BadTarget`], also if this process would find no such program.
    pub fn of_words(words: Vec<String>) -> Result<Self, BadTarget> {
        let program = words.first().filter(|p| !p.is_empty()).ok_or(BadTarget::Empty)?;
        if words.iter().any(|w| w.contains('\0')) {
            return Err(BadTarget::Zero);
        }
        if words.len() > WORDS || words.iter().map(String::len).sum::<usize>() > TARGET_BYTES {
            return Err(BadTarget::TooLong);
        }
        let path = Path::new(program);
        if program.contains('/') && !path.is_absolute() {
            return Err(BadTarget::Relative(program.clone()));
        }
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = if path.is_absolute() {
            runs(path)
        } else {
            std::env::split_paths(&paths)
                .filter(|folder| folder.is_absolute())
                .any(|folder| runs(&folder.join(program)))
        };
        if found { Ok(Self::Program(words)) } else { Err(BadTarget::Missing(program.clone())) }
    }
}

fn runs(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let url = Target::of_text("https://me:pass@hooks.example:8443/T0/secret?token=x").unwrap();
        for shown in [url.to_string(), format!("{url:?}"), format!("{:?}", Some(&url))] {
            assert!(!shown.contains("secret") && !shown.contains("pass") && !shown.contains("token"), "{shown}");
            assert!(shown.contains("hooks.example:8443"), "{shown}");
        }
        let program = Target::of_text("/bin/sh -c 'echo token'").unwrap();
        assert_eq!(program.to_string(), "/bin/sh …");
        assert_eq!(program, Target::Program(vec!["/bin/sh".into(), "-c".into(), "echo token".into()]));
        let back: Target = serde_json::from_str(&serde_json::to_string(&url).unwrap()).unwrap();
        assert_eq!(back, url, "what is kept is whole");
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_reason() {
        for (text, word) in [
            ("ftp://x/", "not ftp"),
            ("https://", "not a URL"),
            ("'unmatched", "quotes"),
            ("", "no program"),
            ("./hook.sh", "relative"),
            ("/nowhere/at-all", "no program `/nowhere/at-all`"),
            ("surely-no-such-program-here", "no program"),
            ("/etc/passwd", "no program"),
        ] {
            let error = Target::of_text(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(Target::of_text(&"x".repeat(5000)), Err(BadTarget::TooLong));
        assert_eq!(Target::of_words(vec!["/bin/sh".into(), "a\0b".into()]), Err(BadTarget::Zero));
    }
}
