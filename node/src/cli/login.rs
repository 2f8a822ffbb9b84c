//! `--login`: where a registry login comes from. Never from the command line, which every user of the machine can read.
//!
//! Standard input, `SOUK_REGISTRY_PASSWORD`, Docker's own configuration with its credential helpers, or a question without echo: in
//! this order.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::engine::general_purpose::STANDARD;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Deserialize;
use souk_protocol::{
    limits,
    login::{RegistryLogin, TOKEN_USER},
};
use souk_runtime::reference::DOCKER_HUB;
use zeroize::Zeroizing;

use super::{error::Failure, output};

/// The variable that may hold the password.
pub(super) const VARIABLE: &str = "SOUK_REGISTRY_PASSWORD";
/// What Docker's configuration calls its own registry.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Bytes of Docker's configuration, or of a credential helper's answer.
const CONFIG_BYTES: u64 = 1 << 20;

/// The login that `[USER@]REGISTRY` names.
///
/// # Errors
/// Where no user or password is to be had.
pub(super) fn find(wanted: &str, from_stdin: bool) -> Result<RegistryLogin, Failure> {
    let (user, registry) = match wanted.rsplit_once('@') {
        Some((user, registry)) => (Some(user), registry),
        None => (None, wanted),
    };
    let registry = registry.trim_end_matches('/').to_lowercase();
    if registry.is_empty() || registry.contains('/') || user == Some("") {
        return Err(Failure::usage(format!("`{wanted}` is no login")).hint("--login USER@ghcr.io"));
    }
    let given = if from_stdin { Some(from_input()?) } else { std::env::var(VARIABLE).ok().filter(|p| !p.is_empty()) };
    let login = match (given, user) {
        (Some(password), Some(user)) => RegistryLogin { registry, user: user.to_owned(), password },
        (Some(_), None) => {
            return Err(Failure::usage("whose password this is was not said").hint(format!("--login USER@{registry}")));
        }
        (None, user) => match docker::login(&registry)?.filter(|login| user.is_none_or(|user| login.user == user)) {
            Some(login) => login,
            None => RegistryLogin {
                user: user.ok_or_else(|| unknown(&registry))?.to_owned(),
                password: ask(&registry)?,
                registry,
            },
        },
    };
    login.check().map_err(|error| Failure::usage(error.0.to_string()))?;
    Ok(login)
}

fn unknown(registry: &str) -> Failure {
    Failure::usage(format!("Docker's configuration has no login for {registry}"))
        .hint(format!("docker login {registry}, or --login USER@{registry}"))
}

/// The first line of standard input.
fn from_input() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin().lock().take(limits::LOGIN_PASSWORD_BYTES as u64 + 2).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Asks on the terminal, without echo.
fn ask(registry: &str) -> Result<String, Failure> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(Failure::usage(format!("there is no password for {registry}")).hint(format!(
            "set {VARIABLE}, or give it on standard input with --password-stdin, or docker login {registry}"
        )));
    }
    let usual = tcgetattr(&input).map_err(io::Error::from)?;
    let mut silent = usual.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&input, OptionalActions::Now, &silent).map_err(io::Error::from)?;
    let mut error = io::stderr();
    let line = write!(error, "Password for {registry}: ")
        .and_then(|()| error.flush())
        .map_err(Failure::from)
        .and_then(|()| from_input());
    tcsetattr(&input, OptionalActions::Now, &usual).map_err(io::Error::from)?;
    line
}

/// Docker's own configuration.
mod docker {
    use base64::Engine as _;

    use super::{
        BTreeMap, CONFIG_BYTES, Command, DOCKER_HUB, Deserialize, Failure, HUB_KEY, PathBuf, Read, RegistryLogin,
        STANDARD, Stdio, TOKEN_USER, Write, Zeroizing, io, output,
    };

    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Config {
        auths: BTreeMap<String, Auth>,
        creds_store: String,
        cred_helpers: BTreeMap<String, String>,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Auth {
        auth: String,
        identitytoken: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }

    /// What Docker would log in with; none where it wouldn't.
    pub(super) fn login(registry: &str) -> Result<Option<RegistryLogin>, Failure> {
        let folder = std::env::var_os("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(None) };
        let mut text = Zeroizing::new(String::new());
        match std::fs::File::open(&path) {
            Ok(file) => file.take(CONFIG_BYTES).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("{} can't be read: {error}", path.display()))),
        };
        let config: Config = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{} is not Docker's configuration: {error}", path.display())))?;
        let keys = keys(registry);
        let helper = keys.iter().find_map(|key| config.cred_helpers.get(key)).unwrap_or(&config.creds_store);
        if !helper.is_empty() {
            for key in &keys {
                if let Some(answer) = ask_helper(helper, key)? {
                    let (user, password) = (answer.username, answer.secret);
                    return Ok(Some(RegistryLogin { registry: registry.to_owned(), user, password }));
                }
            }
        }
        let Some(auth) = keys.iter().find_map(|key| config.auths.get(key)) else { return Ok(None) };
        Ok(from_auth(registry, auth))
    }

    /// The names under which a registry may stand there.
    fn keys(registry: &str) -> Vec<String> {
        let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v2/")];
        if registry == DOCKER_HUB {
            keys.insert(0, HUB_KEY.to_owned());
        }
        keys
    }

    fn from_auth(registry: &str, auth: &Auth) -> Option<RegistryLogin> {
        let registry = registry.to_owned();
        if !auth.identitytoken.is_empty() {
            let (user, password) = (TOKEN_USER.to_owned(), auth.identitytoken.clone());
            return Some(RegistryLogin { registry, user, password });
        }
        let pair = Zeroizing::new(String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?);
        let (user, password) = pair.split_once(':')?;
        Some(RegistryLogin { registry, user: user.to_owned(), password: password.to_owned() })
    }

    /// Asks a credential helper; none where it knows no login.
    fn ask_helper(name: &str, key: &str) -> Result<Option<Answer>, Failure> {
        let program = format!("docker-credential-{name}");
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let failed = |why: String| {
            Failure::new(format!("Docker's credential helper {} failed: {why}", output::plain(&program)))
                .hint("docker login, or --password-stdin")
        };
        if !plain {
            return Err(failed("it has no name of a program".to_owned()));
        }
        let mut helper = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        if let Some(mut input) = helper.stdin.take() {
            input.write_all(key.as_bytes()).ok();
        }
        let mut told = Zeroizing::new(Vec::new());
        if let Some(output) = helper.stdout.take() {
            output.take(CONFIG_BYTES).read_to_end(&mut told)?;
        }
        if !helper.wait()?.success() {
            return Ok(None);
        }
        serde_json::from_slice(&told).map(Some).map_err(|_| failed("its answer is none".to_owned()))
    }

    #[cfg(test)]
    mod tests {
        #![allow(clippy::unwrap_used)]
        use super::*;

        #[test]
        fn docker_s_own_form_is_understood() {
            let text = format!(
                r#"{{"auths":{{"{HUB_KEY}":{{"auth":"{}"}},"r.example":{{"identitytoken":"tok"}}}},"credsStore":""}}"#,
                STANDARD.encode("me:pass:word")
            );
            let config: Config = serde_json::from_str(&text).unwrap();
            let of = |registry: &str| {
                let auth =
                    keys(registry).iter().find_map(|key| config.auths.get(key)).map(|auth| from_auth(registry, auth));
                auth.flatten().map(|login| (login.user.clone(), login.password.clone()))
            };
            assert_eq!(of(DOCKER_HUB), Some(("me".into(), "pass:word".into())));
            assert_eq!(of("r.example"), Some((TOKEN_USER.into(), "tok".into())));
            assert_eq!(of("other.example"), None);
        }
    }
}

impl super::args::ImageArgs {
    /// The login asked for.
    ///
    /// # Errors
    /// As [`find`].
    pub(super) fn login(&self) -> Result<Option<RegistryLogin>, Failure> {
        self.login.as_deref().map(|wanted| find(wanted, self.password_stdin)).transpose()
    }
}
