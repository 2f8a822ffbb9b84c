//! Renters' registry logins: in memory, from the moment they are given until the image is there.
//!
//! The engine is told a login with each request that needs it, and keeps none. Nothing here is written anywhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::reference::DOCKER_HUB;

/// How long a login is waited for: after a start of this node, the renter's gives it again as soon as the two are connected.
const LOGIN_WITHIN: Duration = Duration::from_secs(300);
/// What Docker's own registry is called in credentials.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";
/// The user name that makes the password an identity token.
const TOKEN_USER: &str = "<token>";

/// A login at a registry. `Debug` leaves the password out.
#[derive(Clone)]
pub struct Login {
    /// The registry, by host name and port; `docker.io` is Docker's own.
    pub registry: String,
    /// The user; `<token>` where the password is an identity token.
    pub user: String,
    /// The password or token.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}@{})", self.user, self.registry)
    }
}

impl Login {
    /// Whether it is for this registry.
    pub(crate) fn is_for(&self, registry: &str) -> bool {
        self.registry.eq_ignore_ascii_case(registry)
    }

    pub(crate) fn credentials(&self) -> DockerCredentials {
        let address = if self.is_for(DOCKER_HUB) { HUB_ADDRESS } else { self.registry.as_str() };
        let mut credentials =
            DockerCredentials { serveraddress: Some(address.to_owned()), ..DockerCredentials::default() };
        if self.user == TOKEN_USER {
            credentials.identitytoken = Some(self.password.to_string());
        } else {
            credentials.username = Some(self.user.clone());
            credentials.password = Some(self.password.to_string());
        }
        credentials
    }
}

/// The logins at hand, by lease.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    kept: Mutex<HashMap<String, Arc<Login>>>,
    changed: Notify,
}

impl Logins {
    pub(crate) fn give(&self, lease: &str, login: Login) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(lease.to_owned(), Arc::new(login));
        self.changed.notify_waiters();
    }

    pub(crate) fn forget(&self, lease: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(lease);
    }

    fn of(&self, lease: &str) -> Option<Arc<Login>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(lease).cloned()
    }

    /// The login of a lease, once it is given; none if it isn't in time.
    pub(crate) async fn wait(&self, lease: &str) -> Option<Arc<Login>> {
        let given = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(login) = self.of(lease) {
                    return login;
                }
                changed.await;
            }
        };
        tokio::time::timeout(LOGIN_WITHIN, given).await.ok()
    }
}
