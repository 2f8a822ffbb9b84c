//! What the command line says when something can't be done, and its exit code.

use std::{fmt::Write as _, io};

use crate::{
    api::client::ClientError,
    config::ConfigError,
    identity::IdentityError,
    market::{CommandError, ErrorCode},
    remote::{AddressError, LinkError},
};

/// Failed.
pub(super) const FAILED: u8 = 1;
/// Souk's own failure, where the exit code otherwise is a command's.
pub(super) const SOUKS_OWN: u8 = 125;

/// Why a command ends early.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: u8,
    pub(super) error: CommandError,
    /// Nothing is to be said: the reader of our output has gone.
    silent: bool,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::from(CommandError::new(ErrorCode::Internal, message))
    }

    pub(super) fn code(mut self, code: ErrorCode) -> Self {
        self.error.code = code;
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hint = Some(hint.into());
        self
    }

    /// The same with another exit code.
    pub(super) fn exit(mut self, exit: u8) -> Self {
        if !self.silent {
            self.exit = exit;
        }
        self
    }

    /// Bad usage that the grammar alone can't see.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::from(CommandError::new(ErrorCode::BadRequest, message)).exit(2)
    }

    /// An error with its causes in one sentence.
    pub(super) fn chain(error: &anyhow::Error) -> Self {
        if let Some(known) = error.downcast_ref::<CommandError>() {
            return Self::from(known.clone());
        }
        Self::new(format!("{error:#}"))
    }

    /// As it is printed.
    pub(super) fn text(&self, json: bool) -> Option<String> {
        if self.silent {
            return None;
        }
        if json {
            return serde_json::to_string(&serde_json::json!({ "error": self.error })).ok();
        }
        let mut text = format!("error: {}", super::output::plain(&self.error.message));
        if let Some(hint) = &self.error.hint {
            let _ = write!(text, "\n  try: {}", super::output::plain(hint));
        }
        Some(text)
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        Self { exit: FAILED, error, silent: false }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Refused(refusal) => return Self::from(refusal.clone()),
            ClientError::NotRunning { .. }
            | ClientError::Forbidden { .. }
            | ClientError::NoAnswer { .. }
            | ClientError::Link(LinkError::Node { .. } | LinkError::NoSsh(_) | LinkError::NoSouk { .. }) => {
                ErrorCode::Unavailable
            }
            ClientError::Link(LinkError::NotSouk { .. } | LinkError::Version { .. }) => ErrorCode::Internal,
            ClientError::Link(LinkError::Unreachable { .. } | LinkError::Lost { .. }) | ClientError::Lost(_) => {
                ErrorCode::Unreachable
            }
            ClientError::Mismatch(_) => ErrorCode::Internal,
        };
        let mut known = CommandError::new(code, error.to_string());
        known.hint = error.hint();
        Self::from(known)
    }
}

/// An error with what lies beneath it.
fn with_source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::usage(error.to_string()).hint("souk --at ssh://me@box ps, or SOUK_HOST=ssh://me@box")
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(with_source(&error)).code(ErrorCode::BadRequest).hint(error.hint())
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::new(with_source(&error)).code(ErrorCode::Unavailable).hint(error.hint())
    }
}

impl From<crate::cluster::ClusterError> for Failure {
    fn from(error: crate::cluster::ClusterError) -> Self {
        Self::new(with_source(&error)).code(ErrorCode::Unavailable).hint(error.hint())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let silent = error.kind() == io::ErrorKind::BrokenPipe;
        Self {
            exit: if silent { 0 } else { FAILED },
            error: CommandError::new(ErrorCode::Internal, error.to_string()),
            silent,
        }
    }
}
