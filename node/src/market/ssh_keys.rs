//! Which keys get into what this node rents: the ones it is rented with, and changes while it runs.
//!
//! The host keeps the newest list; this node signs each. A host that shows another's list, or none of what was rented, is not
//! believed.

use std::time::Duration;

use souk_network::NetworkHandle;
use souk_protocol::{
    Keypair, LeaseId, NetworkId, NodeId, Nonce, Signed, Verified, encode, limits,
    message::{Frame, StreamOpen},
    ssh::SshKeyList,
    workload::Workload,
};
use souk_ssh::keys::{AuthorizedKey, KeyError};
use tokio::io::AsyncReadExt;

use super::{
    command::{CommandError, ErrorCode, LeaseSelector, Reply},
    commands::{self, answer},
    task::Market,
};
use crate::{
    access,
    api::types::{SshKeyView, SshKeysRequest, SshKeysView},
};

/// How long a host may take for its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

impl Market {
    /// The keys of a new rental: its own, and the ones asked for, or else the configured ones.
    ///
    /// # Errors
    /// The first that can't get in, or that there are too many.
    pub(super) fn rented_keys(&self, nonce: &Nonce, asked: &[String]) -> Result<Vec<String>, CommandError> {
        let own = self.about.ssh.rental_key(nonce);
        let mut keys = Keys(vec![read(&souk_ssh::keys::public_line(&own.public(), "souk"))?]);
        for line in if asked.is_empty() { &self.about.ssh_keys } else { asked } {
            keys.add(read(line)?)?;
        }
        Ok(keys.lines())
    }

    /// Asks the host which keys get in, and changes them.
    pub(super) fn ssh_keys(&self, id: &LeaseSelector, request: SshKeysRequest, reply: Reply<SshKeysView>) {
        let begun = self.find(id).and_then(|lease| {
            let host = self.host_of(lease)?;
            let held = self.engine.renter().leases().get(&lease).map(|held| held.draft().nonce);
            let own = self.about.ssh.rental_key(&held.unwrap_or(Nonce([0; 16])));
            let workload = self.ledger.row(&lease).map(|row| row.workload).unwrap_or_default();
            let rented = Workload::from_bytes(&workload).map(|w| w.ssh_keys).unwrap_or_default();
            Ok(Asking {
                network: self.network.clone(),
                net: *self.engine.network(),
                signer: self.about.ssh.signer(),
                lease,
                host,
                own: read(&souk_ssh::keys::public_line(&own.public(), "souk"))?,
                rented,
            })
        });
        match begun {
            Ok(asking) => {
                tokio::spawn(async move {
                    let done = tokio::time::timeout(ANSWER_WITHIN, asking.change(request)).await;
                    let late = || CommandError::new(ErrorCode::Timeout, "the host did not answer in time");
                    answer(reply, done.unwrap_or_else(|_| Err(late().hint("souk ssh-key list ID"))));
                });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }
}

/// What one question needs.
struct Asking {
    network: NetworkHandle,
    net: NetworkId,
    signer: Keypair,
    lease: LeaseId,
    host: NodeId,
    own: AuthorizedKey,
    rented: Vec<String>,
}

impl Asking {
    async fn change(&self, request: SshKeysRequest) -> Result<SshKeysView, CommandError> {
        let newest = self.ask(None).await?;
        let (revision, lines) = match &newest {
            Some(list) => (list.revision, &list.keys),
            None => (0, &self.rented),
        };
        let mut keys = Keys(lines.iter().map(|line| read(line)).collect::<Result<_, _>>()?);
        if request == SshKeysRequest::default() {
            return Ok(self.view(revision, &keys));
        }
        let before = keys.lines();
        for name in &request.remove {
            keys.remove(name, &self.own)?;
        }
        for line in &request.add {
            keys.add(read(line)?)?;
        }
        if keys.lines() == before {
            return Ok(self.view(revision, &keys));
        }
        let revision = revision.saturating_add(1);
        let renter = self.signer.node_id();
        let list = SshKeyList { renter, lease: self.lease, revision, keys: keys.lines() };
        let internal = |e: souk_protocol::VerifyError| CommandError::new(ErrorCode::Internal, e.to_string());
        let signed = Verified::sign(list, &self.signer, &self.net).map_err(internal)?;
        self.ask(Some(signed.to_signed())).await?;
        Ok(self.view(revision, &keys))
    }

    /// Shows the host a new list, or none, and returns the newest it has.
    async fn ask(&self, replace: Option<Signed<SshKeyList>>) -> Result<Option<Verified<SshKeyList>>, CommandError> {
        let open = StreamOpen::SshKeys { lease: self.lease, replace };
        let mut stream = commands::open_stream(&self.network, self.host, &open).await?;
        let broken = |what: String| CommandError::new(ErrorCode::Unreachable, what);
        match access::read_frame(&mut stream).await {
            Ok(Some(Frame::Ready)) => {}
            Ok(Some(Frame::Error(sentence))) => return Err(CommandError::new(ErrorCode::Rejected, sentence)),
            Ok(_) => return Err(broken("the host's node ended the stream before its answer".to_owned())),
            Err(error) => return Err(broken(format!("the stream to the host broke: {error}"))),
        }
        let mut bytes = Vec::new();
        let most = access::keys::LIST_BYTES as u64 + 1;
        let read = (&mut stream).take(most).read_to_end(&mut bytes).await;
        read.map_err(|error| broken(format!("the stream to the host broke: {error}")))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let list = encode::from_bytes::<Signed<SshKeyList>>(&bytes, access::keys::LIST_BYTES)
            .ok()
            .and_then(|signed| signed.verify(&self.net).ok())
            .filter(|list| list.renter == self.signer.node_id() && list.lease == self.lease);
        let sentence = "the host shows a list of SSH keys that this node has not signed for this lease";
        list.map(Some).ok_or_else(|| CommandError::new(ErrorCode::Rejected, sentence))
    }

    fn view(&self, revision: u64, keys: &Keys) -> SshKeysView {
        let view = |key: &AuthorizedKey| SshKeyView {
            kind: key.kind(),
            fingerprint: key.fingerprint(),
            comment: key.comment().to_owned(),
            key: key.line(),
            own: key.is(&self.own),
        };
        SshKeysView { lease: self.lease, revision, keys: keys.0.iter().map(view).collect() }
    }
}

/// A list under change.
#[derive(Debug)]
struct Keys(Vec<AuthorizedKey>);

impl Keys {
    fn lines(&self) -> Vec<String> {
        self.0.iter().map(AuthorizedKey::line).collect()
    }

    /// Lets a key in, once.
    fn add(&mut self, key: AuthorizedKey) -> Result<(), CommandError> {
        if self.0.iter().any(|known| known.is(&key)) {
            return Ok(());
        }
        if key.line().len() > limits::SSH_KEY_BYTES {
            let message = format!("the key {} is too long", key.fingerprint());
            return Err(CommandError::new(ErrorCode::BadRequest, message).hint("shorten its comment"));
        }
        if self.0.len() >= limits::SSH_KEYS {
            let message = format!("at most {} SSH keys get into an instance, with the rental's own", limits::SSH_KEYS);
            return Err(CommandError::new(ErrorCode::TooLarge, message).hint("souk ssh-key remove ID KEY"));
        }
        self.0.push(key);
        Ok(())
    }

    /// Takes out the key of this line, fingerprint or comment.
    fn remove(&mut self, name: &str, own: &AuthorizedKey) -> Result<(), CommandError> {
        let named = AuthorizedKey::read(name).ok();
        let is = |key: &AuthorizedKey| match &named {
            Some(named) => key.is(named),
            None => key.fingerprint() == name || (!name.is_empty() && key.comment() == name),
        };
        let hint = "souk ssh-key list ID shows them, with their fingerprints";
        match self.0.iter().filter(|key| is(key)).count() {
            0 => Err(CommandError::new(ErrorCode::NotFound, "no such key gets in").hint(hint)),
            1 if own.is(self.0.iter().find(|key| is(key)).unwrap_or(own)) => {
                let message = "that is the rental's own key, by which souk ssh gets in; it stays";
                Err(CommandError::new(ErrorCode::BadRequest, message))
            }
            1 => {
                self.0.retain(|key| !is(key));
                Ok(())
            }
            n => {
                let message = format!("{n} keys have that comment: name one by its fingerprint");
                Err(CommandError::new(ErrorCode::Ambiguous, message).hint(hint))
            }
        }
    }
}

fn read(line: &str) -> Result<AuthorizedKey, CommandError> {
    AuthorizedKey::read(line).map_err(|e: KeyError| CommandError::new(ErrorCode::BadRequest, e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn key(n: u8, comment: &str) -> AuthorizedKey {
        read(&souk_ssh::keys::public_line(&souk_ssh::keys::HostKey::of_node(&[n; 32]).public(), comment)).unwrap()
    }

    #[test]
    fn keys_are_named_by_what_people_see_and_the_rentals_own_stays() {
        let own = key(0, "souk");
        let mut keys = Keys(vec![own.clone()]);
        for n in 1..=3 {
            keys.add(key(n, if n < 3 { "laptop" } else { "desk" })).unwrap();
            keys.add(key(n, "again")).unwrap();
        }
        assert_eq!(keys.0.len(), 4);
        assert_eq!(keys.remove("laptop", &own).unwrap_err().code, ErrorCode::Ambiguous);
        assert_eq!(keys.remove("nobody", &own).unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(keys.remove("", &own).unwrap_err().code, ErrorCode::NotFound);
        for name in ["souk".to_owned(), own.fingerprint(), own.line()] {
            assert_eq!(keys.remove(&name, &own).unwrap_err().code, ErrorCode::BadRequest, "{name}");
        }
        keys.remove(&key(1, "").fingerprint(), &own).unwrap();
        keys.remove(&key(2, "other").line(), &own).unwrap();
        keys.remove("desk", &own).unwrap();
        assert_eq!(keys.lines(), vec![own.line()]);
        for n in 1..16 {
            keys.add(key(n, "")).unwrap();
        }
        assert_eq!(keys.add(key(16, "")).unwrap_err().code, ErrorCode::TooLarge);
    }
}
