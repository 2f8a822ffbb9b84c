//! OpenSSH's own programs as clients of an instance.
#![allow(clippy::unwrap_used, reason = "a harness: what does not work fails the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use crate::{
    node::Node,
    program::{Outcome, mortal, run},
};

/// OpenSSH told how to reach one instance by the name `job`.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its configuration.
    pub config: PathBuf,
}

impl Client {
    /// As `souk ssh-config` tells it.
    ///
    /// # Panics
    /// If it tells nothing.
    #[must_use]
    pub fn of(renter: &Node, lease: &str, folder: &Path) -> Self {
        let mut command = renter.command(&["ssh-config", "--name", "job", lease]);
        let shown = run(&mut command, &[]).json();
        let mut text = "Host job\n".to_owned();
        for (name, value) in shown["options"].as_object().unwrap() {
            text.push_str(&format!("    {name} {}\n", value.as_str().unwrap()));
        }
        let config = folder.join("ssh_config");
        fs::write(&config, text).unwrap();
        Self { config }
    }

    fn changed(&self, end: &str, change: impl FnOnce(String) -> String) -> Self {
        let config = self.config.with_extension(end);
        fs::write(&config, change(fs::read_to_string(&self.config).unwrap())).unwrap();
        Self { config }
    }

    /// Its configuration with one option set otherwise.
    #[must_use]
    pub fn with(&self, option: &str, value: &str) -> Self {
        self.changed(option, |text| text.replacen("Host job\n", &format!("Host job\n    {option} {value}\n"), 1))
    }

    /// As somebody who has this private key's file alone.
    ///
    /// # Panics
    /// If it has no name.
    #[must_use]
    pub fn by(&self, key: &str) -> Self {
        self.replaced("IdentityFile", key, Path::new(key).file_name().unwrap().to_str().unwrap())
    }

    /// Its configuration with an option's value replaced.
    #[must_use]
    pub fn replaced(&self, option: &str, value: &str, end: &str) -> Self {
        self.changed(end, |text| {
            let lines = text.lines().map(|line| {
                if line.trim_start().starts_with(option) { format!("    {option} {value}") } else { line.to_owned() }
            });
            lines.collect::<Vec<_>>().join("\n") + "\n"
        })
    }

    /// One of OpenSSH's programs with this configuration.
    #[must_use]
    pub fn program(&self, program: &str) -> Command {
        let mut command = mortal(Path::new(program));
        command.arg("-F").arg(&self.config);
        command
    }

    /// Runs `ssh` to its end.
    #[must_use]
    pub fn ssh(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        run(self.program("ssh").args(arguments), input)
    }
}

/// Ended by its id when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
