//! Image names: parsed as the engine parses them, and held against the host's policy.
//!
//! The registry decides which server the engine will contact on a renter's behalf, so it is read here by the same rules, and
//! only a name in canonical form is ever handed on.

use crate::error::ImageError;

/// Docker's own registry, by the name people know.
pub const DOCKER_HUB: &str = "docker.io";
/// Longest image name, in bytes.
const MAX_REFERENCE: usize = 512;

/// A parsed image name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host name and perhaps port of the registry.
    pub registry: String,
    /// Path of the repository within it.
    pub repository: String,
    /// The tag, `latest` when neither tag nor digest is given.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses `[registry/]repository[:tag][@sha256:digest]`.
    ///
    /// # Errors
    /// [`ImageError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let malformed = || ImageError::Malformed { reference: text.chars().take(200).collect() };
        if text.is_empty() || text.len() > MAX_REFERENCE || !text.is_ascii() {
            return Err(malformed());
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(malformed()),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            Some(_) | None => (rest, None),
        };
        // As Docker does: a first part is a registry when it holds a dot or a colon, or is `localhost`.
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => {
                (first.to_lowercase(), path.to_owned())
            }
            Some(_) | None => (DOCKER_HUB.to_owned(), name.to_owned()),
        };
        let registry = if registry == "index.docker.io" || registry == "registry-1.docker.io" {
            DOCKER_HUB.to_owned()
        } else {
            registry
        };
        let repository = if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path };
        let tag = match (tag, &digest) {
            (None, None) => Some(String::from("latest")),
            (tag, _) => tag,
        };
        let fits = is_registry(&registry) && is_repository(&repository) && tag.as_deref().is_none_or(is_tag);
        if !fits {
            return Err(malformed());
        }
        Ok(Self { registry, repository, tag, digest })
    }

    /// The name without tag or digest, as the engine takes it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The whole name in canonical form.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = self.name();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }

    /// Checks the registry against the allow-list.
    ///
    /// # Errors
    /// [`ImageError::RegistryRefused`], naming what is accepted.
    pub fn check_registry(&self, allowed: &[String]) -> Result<(), ImageError> {
        if allowed.iter().any(|registry| registry.eq_ignore_ascii_case(&self.registry)) {
            return Ok(());
        }
        Err(ImageError::RegistryRefused {
            registry: self.registry.clone(),
            accepted: if allowed.is_empty() { String::from("none") } else { allowed.join(", ") },
        })
    }
}

/// Whether a name matches a pattern in which `*` stands for any run of characters.
#[must_use]
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether a text is `sha256:` and 64 lower-case hex digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
            && part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.ends_with(|last: char| last.is_ascii_alphanumeric())
    };
    text.len() <= 255 && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Reference, matches_pattern};

    #[test]
    fn names_are_read_as_docker_reads_them() {
        let cases = [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("owner/image", "docker.io/owner/image:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("ghcr.io/a/b/c:1", "ghcr.io/a/b/c:1"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("localhost/x:y", "localhost/x:y"),
            ("GHCR.io/a/b", "ghcr.io/a/b:latest"),
        ];
        for (text, canonical) in cases {
            assert_eq!(Reference::parse(text).unwrap().canonical(), canonical);
        }
        for text in
            ["", "UPPER", "a//b", "../x", "a b", "x@sha256:12", "a:b:c/d e", "ghcr.io/", "h:99999/x", "x:-t", "-a.io/x"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_listed_registries_are_contacted() {
        let allowed = [String::from("docker.io")];
        assert!(Reference::parse("debian").unwrap().check_registry(&allowed).is_ok());
        for text in ["192.168.1.1/x", "localhost/x", "localhost:80/x", "evil.docker.io/x", "docker.io.evil.example/x"] {
            assert!(Reference::parse(text).unwrap().check_registry(&allowed).is_err(), "{text}");
        }
    }

    #[test]
    fn patterns() {
        assert!(matches_pattern("souk-test/*", "souk-test/a:1"));
        assert!(matches_pattern("a*c*e", "abcde"));
        assert!(!matches_pattern("a*c", "abcd"));
        assert!(!matches_pattern("a", "ab"));
        assert!(matches_pattern("*", "anything"));
        assert!(!matches_pattern("ab*ba", "aba"));
    }
}
