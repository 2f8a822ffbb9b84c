//! A renter's own login at an image registry. Goes to the host alone, over the encrypted stream, for one pull; nothing that is signed,
//! gossiped or kept in a ledger carries it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{id::Digest, limits, signed::Invalid};

/// The user name that makes the password an identity token, as Docker's credential helpers have it.
pub const TOKEN_USER: &str = "<token>";

/// A login. `Debug` leaves the password out; the memory that held it is overwritten.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryLogin {
    /// Host name of the registry, with its port where it has one; `docker.io` is Docker's own.
    pub registry: String,
    /// The user, or [`TOKEN_USER`].
    pub user: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryLogin({}@{})", self.user, self.registry)
    }
}

impl Drop for RegistryLogin {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

impl RegistryLogin {
    /// Checks each text's length and characters.
    ///
    /// # Errors
    /// Says what is out of bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        let plain =
            |text: &str, most: usize| !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
        Invalid::unless(plain(&self.registry, limits::LOGIN_NAME_BYTES), "the registry of a login is no name")?;
        Invalid::unless(plain(&self.user, limits::LOGIN_NAME_BYTES), "the user of a login is no name")?;
        Invalid::unless(plain(&self.password, limits::LOGIN_PASSWORD_BYTES), "the password is empty or too long")
    }
}

/// A login for the image of one rental, which is told by its workload: proposal and lease name the same digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginFor {
    /// Digest of the workload.
    pub workload: Digest,
    /// The login.
    pub login: RegistryLogin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_password() {
        let login = RegistryLogin { registry: "r".into(), user: "u".into(), password: "hush-hush".into() };
        assert_eq!(login.check(), Ok(()));
        let of = LoginFor { workload: Digest::of(b"w"), login };
        let request = crate::message::Request::Login(Box::new(of.clone()));
        assert!(!format!("{of:?} {request:?}").contains("hush"));
        let bad = |change: fn(&mut RegistryLogin)| {
            let mut login = of.login.clone();
            change(&mut login);
            login.check().is_err()
        };
        assert!(bad(|l| l.password = "x".repeat(limits::LOGIN_PASSWORD_BYTES + 1)));
        assert!(bad(|l| l.user.clear()));
        assert!(bad(|l| l.registry = "a\nb".into()));
    }
}
