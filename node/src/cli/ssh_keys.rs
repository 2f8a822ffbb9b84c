//! `souk ssh-key`, and the keys that a rental is given.

use super::{
    Context,
    args::{SshKeyArgs, SshKeyCommand},
    error::Failure,
    output::{self, Align, Table},
};
use crate::{
    access::key_files,
    api::{
        client::escape,
        types::{SshKeysRequest, SshKeysView},
    },
};

/// Keys, or files of them, as lines of OpenSSH.
pub(super) fn lines(given: &[String]) -> Result<Vec<String>, Failure> {
    key_files::lines(given).map_err(|e| {
        Failure::usage(e.to_string()).hint("--ssh-key ~/.ssh/id_ed25519.pub, or 'ssh-ed25519 AAAA… me' as one word")
    })
}

/// Shows the keys of an instance, after a change if one is asked for.
pub(super) async fn ssh_key(context: &Context, args: SshKeyArgs) -> Result<u8, Failure> {
    let (id, request) = match args.command {
        SshKeyCommand::List { id } => (id, SshKeysRequest::default()),
        SshKeyCommand::Add { id, keys } => {
            let add = key_files::lines(&keys).map_err(|e| Failure::usage(e.to_string()))?;
            (id, SshKeysRequest { add, remove: Vec::new() })
        }
        SshKeyCommand::Remove { id, keys } => {
            // What is no key and no file is a fingerprint or a comment.
            let named = |key: &String| match key_files::read(key) {
                Ok(keys) => keys.iter().map(souk_ssh::keys::AuthorizedKey::line).collect(),
                Err(_) => vec![key.clone()],
            };
            (id, SshKeysRequest { add: Vec::new(), remove: keys.iter().flat_map(named).collect() })
        }
    };
    let (client, path) = (context.client()?, format!("leases/{}/ssh/keys", escape(&id)));
    let view: SshKeysView = if request == SshKeysRequest::default() {
        client.get(&path).await?
    } else {
        client.post(&path, &request).await?
    };
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    let mut table =
        Table::new(&[("KIND", Align::Left), ("FINGERPRINT", Align::Left), ("COMMENT", Align::Left), ("", Align::Left)]);
    for key in &view.keys {
        let own = if key.own { "the rental's own" } else { "" };
        table.row([key.kind.clone(), key.fingerprint.clone(), output::plain(&key.comment), own.to_owned()]);
    }
    output::line(table.text().trim_end())?;
    Ok(0)
}
