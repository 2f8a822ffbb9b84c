//! Ways into what this node rents: SSH and ports, opened at the host's node.

use souk_protocol::message::StreamOpen;

use super::{
    command::{ByteStream, CommandError, ErrorCode, LeaseSelector, Reply},
    commands::answer,
    task::Market,
};
use crate::api::types::{SshView, TunnelRequest};

impl Market {
    /// The keys of both sides, for an SSH client.
    pub(super) fn ssh_access(&self, id: &LeaseSelector) -> Result<SshView, CommandError> {
        let lease = self.find(id)?;
        let held = self.engine.renter().leases().get(&lease).filter(|held| !held.state().is_ended());
        let held = held.ok_or_else(|| {
            let mine = self.engine.host().leases().contains_key(&lease);
            let message = if mine {
                "this machine is rented out by that lease; what runs in it is its renter's alone"
            } else {
                "the lease is over, and its instance is gone"
            };
            CommandError::new(ErrorCode::WrongState, message)
        })?;
        let draft = held.draft();
        let key = self.about.ssh.rental_key(&draft.nonce);
        let internal = |e: String| CommandError::new(ErrorCode::Internal, e);
        Ok(SshView {
            lease,
            label: self.meta.get(&lease).and_then(|meta| meta.label.clone()),
            user: souk_ssh::IMAGE_USER.to_owned(),
            host_key: souk_ssh::keys::public_line(&draft.ssh_host_key.0, ""),
            fingerprint: souk_ssh::keys::fingerprint(&draft.ssh_host_key.0),
            public_key: souk_ssh::keys::public_line(&key.public(), &format!("souk-{}", lease.short())),
            private_key: key.private_file().map_err(internal)?.to_string(),
        })
    }

    pub(super) fn tunnel(&self, id: &LeaseSelector, request: TunnelRequest, reply: Reply<ByteStream>) {
        let lease = match self.find(id) {
            Ok(lease) => lease,
            Err(error) => return answer(reply, Err(error)),
        };
        let open = match request {
            TunnelRequest::Ssh => StreamOpen::Ssh { lease },
            TunnelRequest::Port { host, port, udp } => StreamOpen::Forward { lease, host, port, udp },
        };
        self.open(lease, open, reply);
    }
}
