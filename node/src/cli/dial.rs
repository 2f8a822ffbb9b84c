//! Which node a command asks, and `souk dial-stdio`, the far end of `SOUK_HOST=ssh://…`.

use std::{io, path::PathBuf};

use souk_protocol::NodeId;
use zeroize::Zeroizing;

use super::{
    Context,
    args::DialStdioArgs,
    error::{FAILED, Failure},
    exec,
};
use crate::{
    api::{TOKEN_FILE, client::Client},
    config::Config,
    remote::{self, Greeting, NodeAddress, SshLink},
};

/// The variable that names the node to ask.
const VARIABLE: &str = "SOUK_HOST";
/// The variable that may hold the bearer token of a loopback port.
const TOKEN: &str = "SOUK_TOKEN";

/// Where the node is, by the option or else the environment.
pub(super) fn address(given: Option<String>) -> Result<Option<NodeAddress>, Failure> {
    let named = || std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    // Instances have the host's peer id in this variable: that is no way to a node.
    let not_an_id = |value: &String| value.parse::<NodeId>().is_err();
    let address = given.or_else(|| named().filter(not_an_id));
    Ok(address.map(|text| text.parse()).transpose()?)
}

/// A client of the node that is meant.
pub(super) fn client(context: &Context) -> Result<Client, Failure> {
    match &context.at {
        None => {
            let socket = context.config()?.api.socket_in(&context.dir);
            Ok(Client::new(&context.dir, socket))
        }
        Some(NodeAddress::Unix(path)) => {
            let (dir, socket) = place(path.clone())?;
            Ok(Client::new(&dir, socket))
        }
        Some(NodeAddress::Loopback(address)) => Ok(Client::loopback(*address, token(context)?)),
        Some(NodeAddress::Ssh(address)) => Ok(Client::over(SshLink::to(address.clone()))),
    }
}

fn token(context: &Context) -> Result<Zeroizing<String>, Failure> {
    if let Some(token) = std::env::var(TOKEN).ok().filter(|token| !token.is_empty()) {
        return Ok(Zeroizing::new(token));
    }
    let path = context.dir.join(TOKEN_FILE);
    let text = std::fs::read_to_string(&path).map(Zeroizing::new);
    let text = text.map_err(|e| {
        Failure::new(format!("the token of that port is neither in {TOKEN} nor in {}: {e}", path.display()))
            .hint(format!("{TOKEN}=$(cat {TOKEN_FILE} of the node's data directory)"))
    })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// A data directory and its socket, by either of the two.
fn place(path: PathBuf) -> Result<(PathBuf, PathBuf), Failure> {
    if path.is_dir() {
        let socket = loaded(&path)?.api.socket_in(&path);
        return Ok((path, socket));
    }
    let dir = path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
    Ok((dir, path))
}

fn loaded(dir: &std::path::Path) -> Result<Config, Failure> {
    Ok(crate::config::load(dir, std::env::vars_os())?)
}

/// Passes a link's streams to the API of a node of this machine. What is wrong goes over the link, to be said by the near end.
pub(super) async fn dial_stdio(context: &Context, args: DialStdioArgs) -> Result<u8, Failure> {
    let found = match args.path {
        Some(path) => std::path::absolute(path).map_err(Failure::from).and_then(place),
        None => loaded(&context.dir).map(|config| (context.dir.clone(), config.api.socket_in(&context.dir))),
    };
    let (dir, socket) = match found {
        Ok(found) => found,
        Err(failure) => {
            use std::io::Write;
            let line = Greeting::ours(Some(failure.error)).line();
            io::stdout().lock().write_all(&line)?;
            return Ok(FAILED);
        }
    };
    let answered = remote::serve(&dir, &socket, exec::file(io::stdin())?, exec::file(io::stdout())?).await?;
    Ok(if answered { 0 } else { FAILED })
}
