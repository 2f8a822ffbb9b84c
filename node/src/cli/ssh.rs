//! `souk ssh`, `ssh-config` and `ssh-proxy`: the user's own OpenSSH, told the keys of both sides and how to get there.
//!
//! Owns the files that OpenSSH reads, `ssh/LEASE/{key,known_hosts}` in the data directory; they hold nothing that the node couldn't
//! write again.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Context,
    args::{SshArgs, SshConfigArgs},
    error::{Failure, SOUKS_OWN},
    exec, output,
};
use crate::api::{
    client::escape,
    types::{SshView, TunnelRequest},
};

/// Bytes copied at once.
const PIECE: usize = 64 * 1024;
/// What ssh itself returns when it can't connect.
const SSH_FAILED: u8 = 255;

/// The options that a client needs, by their names in ssh_config(5).
struct Settings {
    /// What the host is called where nobody chose a name.
    alias: String,
    options: Vec<(&'static str, String)>,
}

async fn settings(context: &Context, id: &str, identity: Option<&Path>) -> Result<(SshView, Settings), Failure> {
    let view: SshView = context.client()?.get(&format!("leases/{}/ssh", escape(id))).await?;
    let alias = format!("souk-{}", view.lease.short());
    let folder = context.dir.join("ssh").join(view.lease.short());
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|e| cant("make", &folder, &e))?;
    let key = match identity {
        Some(own) => std::path::absolute(own).map_err(|e| cant("find", own, &e))?,
        None => write(&folder, "key", &view.private_key)?,
    };
    if identity.is_some() {
        fs::metadata(&key).map_err(|e| cant("read", &key, &e))?;
    }
    let known = write(&folder, "known_hosts", &format!("{alias} {}\n", view.host_key))?;
    let program = std::env::current_exe()?;
    let lease = view.lease.to_string();
    let mut words = vec![program.to_str(), Some("--dir"), context.dir.to_str()];
    // A configuration that is kept must lead to the same node, whatever the environment says then.
    let at = context.at.as_ref().map(ToString::to_string);
    if let Some(at) = &at {
        words.extend([Some("--at"), Some(at.as_str())]);
    }
    words.extend([Some("ssh-proxy"), Some(lease.as_str())]);
    let quoted_word = |word: Option<&str>| {
        let word = word.and_then(|word| shlex::try_quote(word).ok());
        let told = || Failure::new("a path that is not UTF-8 can't be told to ssh");
        word.map(|word| word.replace('%', "%%")).ok_or_else(told)
    };
    let proxy = words.into_iter().map(quoted_word).collect::<Result<Vec<_>, _>>()?.join(" ");
    let options = vec![
        ("User", view.user.clone()),
        ("HostName", alias.clone()),
        ("HostKeyAlias", alias.clone()),
        ("ProxyCommand", proxy),
        ("IdentityFile", quoted(&key)),
        ("IdentitiesOnly", "yes".to_owned()),
        ("UserKnownHostsFile", quoted(&known)),
        ("GlobalKnownHostsFile", "/dev/null".to_owned()),
        ("StrictHostKeyChecking", "yes".to_owned()),
        ("PreferredAuthentications", "publickey".to_owned()),
        ("UpdateHostKeys", "no".to_owned()),
        ("ForwardAgent", "no".to_owned()),
        ("ForwardX11", "no".to_owned()),
        ("LogLevel", "ERROR".to_owned()),
    ];
    Ok((view, Settings { alias, options }))
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

fn cant(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("can't {what} {}: {error}", path.display()))
        .hint("souk --dir DIR, with a directory of your own")
}

/// Writes a file that only its owner may read, whole or not at all.
fn write(folder: &Path, name: &str, content: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    if fs::read(&path).is_ok_and(|there| there == content.as_bytes()) {
        return Ok(path);
    }
    let write = || -> io::Result<()> {
        let private = fs::Permissions::from_mode(0o600);
        let mut file = tempfile::Builder::new().permissions(private).tempfile_in(folder)?;
        file.write_all(content.as_bytes())?;
        file.persist(&path).map_err(|e| e.error)?;
        Ok(())
    };
    write().map_err(|e| cant("write", &path, &e))?;
    Ok(path)
}

/// Becomes the user's own ssh.
pub(super) async fn ssh(context: &Context, args: SshArgs) -> Result<u8, Failure> {
    let own = |failure: Failure| if failure.exit == 2 { failure } else { failure.exit(SOUKS_OWN) };
    let (_, settings) = settings(context, &args.id, args.identity.as_deref()).await.map_err(own)?;
    let mut command = Command::new("ssh");
    // No configuration of the user's own host names may change what is meant here, but for the options given.
    for option in &args.option {
        command.arg("-o").arg(option);
    }
    if let Some(login) = &args.login {
        command.arg("-l").arg(login);
    }
    for (name, value) in settings.options.iter().filter(|(name, _)| *name != "HostName") {
        command.arg("-o").arg(format!("{name}={value}"));
    }
    for (flag, values) in [("-L", &args.local), ("-D", &args.dynamic)] {
        for value in values {
            command.arg(flag).arg(value);
        }
    }
    for (flag, _) in [("-N", args.no_command), ("-t", args.terminal)].into_iter().filter(|(_, set)| *set) {
        command.arg(flag);
    }
    command.arg("--").arg(&settings.alias).args(args.command.iter().map(OsString::from));
    let error = command.exec();
    Err(own(Failure::new(format!("ssh can't be started: {error}"))
        .hint("install OpenSSH's client (apt install openssh-client), or use souk exec -it ID -- sh")))
}

/// Prints a block for ssh's configuration.
pub(super) async fn ssh_config(context: &Context, args: SshConfigArgs) -> Result<u8, Failure> {
    let (view, settings) = settings(context, &args.id, args.identity.as_deref()).await?;
    let usable =
        |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "*?!\"#,".contains(c));
    let name = args.name.or_else(|| view.label.clone().filter(usable)).unwrap_or_else(|| settings.alias.clone());
    if !usable(&name) {
        return Err(Failure::usage(format!("`{name}` can't be a host's name in ssh's configuration")));
    }
    if context.json {
        let options: serde_json::Map<String, serde_json::Value> =
            settings.options.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        output::json(
            &json!({ "host": name, "lease": view.lease, "fingerprint": view.fingerprint, "options": options }),
        )?;
        return Ok(0);
    }
    output::line(format!("Host {name}"))?;
    for (option, value) in &settings.options {
        output::line(format!("    {option} {value}"))?;
    }
    Ok(0)
}

/// Pipes standard input and output to an instance's SSH server.
pub(super) async fn ssh_proxy(context: &Context, id: &str) -> Result<u8, Failure> {
    let path = format!("leases/{}/tunnel", escape(id));
    let stream = context.client()?.upgrade(&path, &TunnelRequest::Ssh).await;
    let stream = stream.map_err(|e| Failure::from(e).exit(SSH_FAILED))?;
    let (mut from, mut to) = tokio::io::split(stream);
    let up = async {
        let (mut input, mut piece) = (exec::file(io::stdin())?, vec![0; PIECE]);
        loop {
            let read = input.read(&mut piece).await?;
            if read == 0 {
                to.shutdown().await?;
                return Ok::<(), Failure>(());
            }
            to.write_all(&piece[..read]).await?;
            to.flush().await?;
        }
    };
    let down = async {
        let (mut out, mut piece) = (exec::file(io::stdout())?, vec![0; PIECE]);
        loop {
            let read = from.read(&mut piece).await?;
            if read == 0 {
                return Ok::<(), Failure>(());
            }
            out.write_all(&piece[..read]).await?;
            out.flush().await?;
        }
    };
    tokio::pin!(up, down);
    // ssh closes its end when it is done; the host's end decides otherwise.
    tokio::select! {
        ended = &mut down => ended?,
        ended = &mut up => {
            ended?;
            down.await?;
        }
    }
    Ok(0)
}
