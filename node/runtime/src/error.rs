//! The errors of the runtime, and the one place where the engine's words become typed codes.
//!
//! What the engine says may hold host paths and addresses: it goes to the local log, never into a report.

use thiserror::Error;

use crate::report::{Failure, FailureCode, Step};
use crate::spec::SpecError;

/// Why the runtime can't be set up, or a command isn't taken.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The configuration contradicts itself.
    #[error("the runtime's configuration is wrong: {reason}")]
    Config {
        /// What is wrong.
        reason: String,
    },
    /// A file of the runtime can't be written or read.
    #[error("can't use {path}; check that the data directory is writable")]
    Files {
        /// Which file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A spec is refused before anything is done.
    #[error("the instance can't be made from this description")]
    Spec(#[from] SpecError),
    /// Too many commands wait for this lease.
    #[error("the instance is busy with earlier commands; try again in a moment")]
    Busy,
    /// The runtime has shut down.
    #[error("the runtime has shut down")]
    Closed,
    /// A question to the engine failed.
    #[error("{}", .0.sentence())]
    Engine(FailureCode),
}

/// Why an image can't be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ImageError {
    /// Not an image name.
    #[error("{reference:?} is not an image name; write it like `debian:12` or `ghcr.io/owner/image:tag`")]
    Malformed {
        /// What was given (cut to 200 characters).
        reference: String,
    },
    /// A registry that this host doesn't fetch from.
    #[error("this host doesn't fetch images from {registry}; it accepts {accepted}")]
    RegistryRefused {
        /// The registry asked for.
        registry: String,
        /// The registries allowed, as text.
        accepted: String,
    },
    /// The registry or the engine said no.
    #[error("{}", .0.sentence())]
    Unavailable(FailureCode),
}

impl ImageError {
    /// The code that a report carries.
    #[must_use]
    pub fn code(&self) -> FailureCode {
        match self {
            Self::Malformed { .. } => FailureCode::SpecInvalid,
            Self::RegistryRefused { .. } => FailureCode::ImageRefused,
            Self::Unavailable(code) => *code,
        }
    }
}

impl FailureCode {
    /// What happened and what to do next, for people.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::SpecInvalid => "the description of the instance is out of bounds; correct it and try again",
            Self::ImageNotFound => "the registry has no such image or tag; check the name",
            Self::ImageRefused => "this host doesn't accept images from that registry; choose another host or registry",
            Self::ImageDenied => {
                "the registry wants a login for this image, or it doesn't exist there; check the name, or give a login (--login USER@REGISTRY)"
            }
            Self::LoginRefused => {
                "the registry doesn't take this login for this image; check user, password and the name of the image"
            }
            Self::LoginMissing => {
                "the login for the image's registry was not given again in time; rent again with the login"
            }
            Self::ImageBusy => "the image is being sent already; wait for the other command, or end it",
            Self::ImageNotSent => {
                "the image was not sent to the host in time; rent again and keep the sending command running"
            }
            Self::ImageCorrupt => "what was sent to the host is not the image that the lease names; send it again",
            Self::ImageIncompatible => {
                "the image is not made for this machine's processor or system; choose one that is"
            }
            Self::ImageTooLarge => "the image is larger than this host accepts; use a smaller one or another host",
            Self::RegistryUnreachable => {
                "the registry can't be reached from the host; try again later or use another host"
            }
            Self::RegistryBusy => "the registry limits this host's pulls for now; try again later or use another host",
            Self::HostDiskFull => "the host's disk is full; use another host",
            Self::UserUnknown => "the image has no such user or group; give a numeric one or another name",
            Self::WorkdirInvalid => "the working directory can't be used in this image; choose another",
            Self::DeviceUnavailable => {
                "a GPU or device of this instance can't be handed to the container; the host must look at its driver"
            }
            Self::FirewallUnavailable => {
                "the host's firewall is not in force, so it gives out no network; rent without network or use another host"
            }
            Self::NetworkExhausted => "the host has no free network left; try again later",
            Self::InstanceGone => "the instance's container is not there (any more); prepare it again",
            Self::EngineDown => "the host's container engine is not running; it is being watched for",
            Self::EngineTimeout => "the host's container engine did not answer in time; try again",
            Self::EngineRefused => {
                "the host's container engine refused; its operator finds the reason in the node's log"
            }
            Self::Cancelled => "a later command overtook this one",
        }
    }

    /// The failure report of a step.
    #[must_use]
    pub fn at(self, step: Step) -> Failure {
        Failure { step, code: self, sentence: self.sentence().to_owned() }
    }
}

/// Whether the engine answered that the thing asked about doesn't exist.
pub(crate) fn is_missing(error: &bollard::errors::Error) -> bool {
    status(error) == Some(404)
}

/// The HTTP status the engine answered with, if it answered.
pub(crate) fn status(error: &bollard::errors::Error) -> Option<u16> {
    if let bollard::errors::Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// Classes an engine error, and leaves the engine's words in the local log.
pub(crate) fn classify(error: &bollard::errors::Error) -> FailureCode {
    use bollard::errors::Error as Engine;
    let code = if let Engine::DockerResponseServerError { status_code, message } = error {
        classify_text(message).unwrap_or(match status_code {
            404 => FailureCode::InstanceGone,
            _ => FailureCode::EngineRefused,
        })
    } else if let Engine::DockerStreamError { error } = error {
        classify_text(error).unwrap_or(FailureCode::EngineRefused)
    } else if matches!(error, Engine::RequestTimeoutError) {
        FailureCode::EngineTimeout
    } else if matches!(
        error,
        Engine::IOError { .. }
            | Engine::HyperResponseError { .. }
            | Engine::HyperLegacyError { .. }
            | Engine::SocketNotFoundError(_)
    ) {
        FailureCode::EngineDown
    } else {
        FailureCode::EngineRefused
    };
    if code == FailureCode::EngineRefused {
        tracing::warn!(%error, "the engine refused");
    } else {
        tracing::debug!(%error, ?code, "engine error");
    }
    code
}

/// Phrases of the engine (20.10 to 29), its registry client and runc. The first that matches counts.
const PHRASES: &[(&str, FailureCode)] = &[
    ("no space left on device", FailureCode::HostDiskFull),
    ("disk quota exceeded", FailureCode::HostDiskFull),
    ("toomanyrequests", FailureCode::RegistryBusy),
    ("too many requests", FailureCode::RegistryBusy),
    ("no matching manifest", FailureCode::ImageIncompatible),
    ("exec format error", FailureCode::ImageIncompatible),
    ("does not match the specified platform", FailureCode::ImageIncompatible),
    ("manifest unknown", FailureCode::ImageNotFound),
    ("manifest for", FailureCode::ImageNotFound),
    ("name unknown", FailureCode::ImageNotFound),
    ("no such image", FailureCode::ImageNotFound),
    ("pull access denied", FailureCode::ImageDenied),
    ("unauthorized", FailureCode::ImageDenied),
    ("authentication required", FailureCode::ImageDenied),
    ("no basic auth credentials", FailureCode::ImageDenied),
    ("403 forbidden", FailureCode::ImageDenied),
    ("denied: requested access", FailureCode::ImageDenied),
    ("unable to find user", FailureCode::UserUnknown),
    ("unable to find group", FailureCode::UserUnknown),
    ("no matching entries in passwd", FailureCode::UserUnknown),
    ("no matching entries in group", FailureCode::UserUnknown),
    ("invalid working directory", FailureCode::WorkdirInvalid),
    ("chdir to cwd", FailureCode::WorkdirInvalid),
    ("mkdir workdir", FailureCode::WorkdirInvalid),
    ("could not select device driver", FailureCode::DeviceUnavailable),
    ("gathering device information", FailureCode::DeviceUnavailable),
    ("nvidia-container", FailureCode::DeviceUnavailable),
    ("unknown runtime", FailureCode::DeviceUnavailable),
    ("unknown or invalid runtime", FailureCode::DeviceUnavailable),
    ("unknown device", FailureCode::DeviceUnavailable),
    ("dial tcp", FailureCode::RegistryUnreachable),
    ("no such host", FailureCode::RegistryUnreachable),
    ("i/o timeout", FailureCode::RegistryUnreachable),
    ("tls handshake", FailureCode::RegistryUnreachable),
    ("x509", FailureCode::RegistryUnreachable),
    ("server gave http response", FailureCode::RegistryUnreachable),
    ("client.timeout exceeded", FailureCode::RegistryUnreachable),
    ("no such container", FailureCode::InstanceGone),
];

fn classify_text(text: &str) -> Option<FailureCode> {
    let text = text.to_lowercase();
    PHRASES.iter().find(|(phrase, _)| text.contains(phrase)).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::{FailureCode, classify_text};

    #[test]
    fn engine_phrases_become_codes() {
        let cases = [
            ("manifest for x:1 not found: manifest unknown: manifest unknown", FailureCode::ImageNotFound),
            (
                "pull access denied for x, repository does not exist or may require 'docker login': denied",
                FailureCode::ImageDenied,
            ),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
                FailureCode::RegistryUnreachable,
            ),
            ("could not select device driver \"nvidia\" with capabilities: [[gpu]]", FailureCode::DeviceUnavailable),
            ("failed to register layer: write /x: no space left on device", FailureCode::HostDiskFull),
        ];
        for (text, code) in cases {
            assert_eq!(classify_text(text), Some(code), "{text}");
        }
        assert_eq!(classify_text("something else"), None);
    }
}
