//! What runs in an instance. Goes to the host alone, over the encrypted stream; the lease carries only its digest.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    encode::{self, DecodeError},
    id::{Digest, LeaseId, Nonce},
    limits,
    signed::Invalid,
};

/// A command with its surroundings. Unset fields are the image's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Added to the image's environment.
    pub env: Vec<(String, String)>,
    /// User or uid, with an optional group.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Keeps the instance up without a command of its own.
    pub keep_alive: bool,
    /// Volumes of the same renter on the same machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Attachment>,
    /// A script that is run at each start, before the command; or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onstart: Option<String>,
    /// The image is pulled with the renter's own login, which the host is given apart from everything that is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login: bool,
    /// Public keys that get in over SSH, as OpenSSH writes them, at most [`limits::SSH_KEYS`]; until the renter signs another list
    /// ([`crate::ssh::SshKeyList`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ssh_keys: Vec<String>,
    /// Makes the digest say nothing about guessable contents, secrets in the environment for one.
    pub salt: Nonce,
}

/// A volume in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The volume's lease.
    pub volume: LeaseId,
    /// Where the instance sees it: an absolute path.
    pub path: String,
    /// Whether the instance can only read it.
    pub read_only: bool,
}

/// Where no volume can be: the kernel's own, the helper's, and what the engine writes itself.
const NO_VOLUMES: [&str; 8] =
    ["/proc", "/sys", "/dev", "/.souk", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/souk"];

impl Attachment {
    /// Checks a volume's place in an instance.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), Invalid> {
        let path = &self.path;
        Invalid::text(path, limits::VOLUME_PATH_BYTES, "the path of a volume")?;
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        let whole = path.len() > 1 && path.starts_with('/') && path.split('/').skip(1).all(plain);
        Invalid::unless(whole, "a volume's path is absolute and plain, such as /data")?;
        let within = |place: &str| path == place || path.strip_prefix(place).is_some_and(|r| r.starts_with('/'));
        Invalid::unless(!NO_VOLUMES.iter().any(|p| within(p)), "a volume can't be attached at that path")
    }

    fn check_all(all: &[Self]) -> Result<(), Invalid> {
        Invalid::unless(all.len() <= limits::VOLUMES, "more than 16 volumes are attached")?;
        all.iter().try_for_each(Self::check)?;
        let paths: BTreeSet<&str> = all.iter().map(|a| a.path.as_str()).collect();
        Invalid::unless(paths.len() == all.len(), "two volumes are attached at one path")
    }
}

impl Workload {
    /// The bytes that are sent, and their digest that the lease names.
    #[must_use]
    pub fn to_bytes(&self) -> (Vec<u8>, Digest) {
        let bytes = encode::to_bytes(self);
        let digest = Digest::of(&bytes);
        (bytes, digest)
    }

    /// Reads and checks a workload.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are too long, malformed, or break a bound.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let workload: Self = encode::from_bytes(bytes, limits::WORKLOAD_BYTES)?;
        workload.check().map_err(|e| DecodeError::Malformed(e.0))?;
        Ok(workload)
    }

    /// Checks every text and list.
    ///
    /// # Errors
    /// Says what is out of bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        let items = |list: &Option<Vec<String>>| list.as_ref().map_or(0, Vec::len);
        let few = items(&self.command) <= limits::WORKLOAD_ITEMS
            && items(&self.entrypoint) <= limits::WORKLOAD_ITEMS
            && self.env.len() <= limits::ENVIRONMENT_ITEMS;
        Invalid::unless(few, "the command or the environment has too many items")?;
        let lists = [&self.command, &self.entrypoint].into_iter().flatten().flatten();
        let no_nul = lists.chain(self.env.iter().map(|(_, v)| v)).all(|s| !s.contains('\0'));
        Invalid::unless(no_nul, "the command or the environment has a NUL character")?;
        let names = self.env.iter().all(|(name, _)| !name.is_empty() && !name.contains(['=', '\0']));
        Invalid::unless(names, "an environment variable has a name that is empty or has `=` in it")?;
        let onstart = self.onstart.as_deref().unwrap_or_default();
        Invalid::unless(onstart.len() <= limits::ONSTART_BYTES, "the onstart script is over 32 KiB")?;
        Invalid::unless(!onstart.contains('\0'), "the onstart script has a NUL character")?;
        Invalid::unless(encode::to_bytes(self).len() <= limits::WORKLOAD_BYTES, "the workload is over 64 KiB")?;
        crate::ssh::check_keys(&self.ssh_keys)?;
        Invalid::text(self.user.as_deref().unwrap_or_default(), limits::NAME_BYTES, "the user")?;
        Attachment::check_all(&self.volumes)?;
        let absolute = self.workdir.as_ref().is_none_or(|dir| dir.starts_with('/'));
        Invalid::unless(absolute, "the working directory is not an absolute path")?;
        Invalid::text(self.workdir.as_deref().unwrap_or_default(), 4096, "the working directory")
    }
}
