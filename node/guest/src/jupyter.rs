//! `guest jupyter`: finds the Jupyter of the image and becomes it.
//!
//! Owns the choice of the program, and the options that make it reachable through the instance's loopback alone. The token comes in
//! `JUPYTER_TOKEN`, which Jupyter itself reads: it is in no argument, where `ps` would show it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{process, say, shell};

/// Names the port; without it, Jupyter's own default.
const PORT: &str = "JUPYTER_PORT";
const DEFAULT_PORT: u16 = 8888;
const TOKEN: &str = "JUPYTER_TOKEN";
/// What may be there, the nicest first.
const PROGRAMS: [(&str, &str); 3] =
    [("jupyter-lab", "JupyterLab"), ("jupyter-notebook", "Jupyter Notebook"), ("jupyter-server", "Jupyter Server")];
/// Modules that can be run where no program of theirs is in any folder.
const MODULES: [(&str, &str); 3] =
    [("jupyterlab", "JupyterLab"), ("notebook", "Jupyter Notebook"), ("jupyter_server", "Jupyter Server")];
const PYTHONS: [&str; 2] = ["python3", "python"];
/// Prints the first of its arguments that is a module.
const PROBE: &str =
    "import importlib.util as u, sys\nprint(next((m for m in sys.argv[1:] if u.find_spec(m)), ''), end='')";
/// Where images have Jupyter beside what their `PATH` names.
const FOLDERS: [&str; 8] = [
    "/opt/conda/bin",
    "/opt/venv/bin",
    "/opt/jupyter/bin",
    "/venv/main/bin",
    "/venv/bin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
];
/// As a shell says that there is no such command.
const NOT_FOUND: u8 = 127;
/// It is there, and can't be started.
const NOT_EXECUTABLE: u8 = 126;

/// A way to start Jupyter.
#[derive(Debug)]
struct Found {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Its folder is none of the `PATH`.
    beside: bool,
}

/// Becomes Jupyter. Returns only if that is impossible, with the exit code.
pub fn run() -> u8 {
    if std::env::var_os(TOKEN).is_none_or(|token| token.is_empty()) {
        say("Jupyter is not started: there is no JUPYTER_TOKEN, and without one anybody in this instance could use it");
        return NOT_EXECUTABLE;
    }
    let port = match std::env::var(PORT).map(|text| text.parse()) {
        Err(_) => DEFAULT_PORT,
        Ok(Ok(port)) if port != 0 => port,
        Ok(_) => {
            say("Jupyter is not started: JUPYTER_PORT is no port");
            return NOT_EXECUTABLE;
        }
    };
    let home = home();
    let mut code = NOT_FOUND;
    for found in candidates(home.as_deref()) {
        say(&format!("starting {} ({}) on 127.0.0.1:{port}; souk open shows it", found.name, found.program.display()));
        let error = start(&found, port, home.as_deref());
        say(&format!("{}: can't be executed: {error}", found.program.display()));
        code = NOT_EXECUTABLE;
    }
    if code == NOT_FOUND {
        say(
            "this image has no Jupyter: looked for jupyter-lab, jupyter-notebook and jupyter-server in PATH and where images \
             commonly have them, and for Python's modules jupyterlab, notebook and jupyter_server; rent with an image that has \
             one of them, such as one made with: pip install jupyterlab",
        );
    }
    code
}

/// Replaces this process; comes back with why not.
fn start(found: &Found, port: u16, home: Option<&Path>) -> std::io::Error {
    let mut command = Command::new(&found.program);
    command.args(&found.arguments);
    command.args(["--ip=127.0.0.1", "--port-retries=0", "--no-browser", "--allow-root", "--ServerApp.base_url=/"]);
    command.arg(format!("--port={port}"));
    if let Some(home) = home {
        command.env("HOME", home);
        // An image without a working directory begins at the root, where there is nothing to work on.
        if std::env::current_dir().is_ok_and(|here| here == Path::new("/")) {
            command.current_dir(home);
        }
    }
    if std::env::var_os("SHELL").is_none_or(|shell| shell.is_empty())
        && let Some(shell) = shell::of_user()
    {
        command.env("SHELL", shell);
    }
    if found.beside
        && let Some(folder) = found.program.parent()
    {
        // `pip` in a terminal is then the kernel's.
        let folders = std::iter::once(folder.to_owned()).chain(path());
        if let Ok(joined) = std::env::join_paths(folders) {
            command.env("PATH", joined);
        }
    }
    command.exec()
}

/// A home folder that can be written: the user's, else one of its own.
fn home() -> Option<PathBuf> {
    let own = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    if let Some(own) = own
        && process::may_write(&own)
    {
        return Some(own);
    }
    let made = PathBuf::from(format!("/tmp/jupyter-{}", process::user()));
    // It may be there from an earlier start.
    let _ = DirBuilder::new().mode(0o700).create(&made);
    let sound = fs::symlink_metadata(&made).is_ok_and(|meta| meta.is_dir()) && process::may_write(&made);
    sound.then_some(made)
}

fn path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// What there is, the best first.
fn candidates(home: Option<&Path>) -> Vec<Found> {
    let named = path();
    let further = FOLDERS.iter().map(PathBuf::from).chain(home.map(|home| home.join(".local/bin")));
    let folders: Vec<(PathBuf, bool)> = named
        .iter()
        .map(|folder| (folder.clone(), false))
        .chain(further.filter(|folder| !named.contains(folder)).map(|folder| (folder, true)))
        .filter(|(folder, _)| folder.is_absolute())
        .collect();
    let programs = PROGRAMS.iter().flat_map(|(file, name)| {
        let found = folders.iter().find(|(folder, _)| is_executable(&folder.join(file)));
        found.map(|(folder, beside)| Found { name, program: folder.join(file), arguments: Vec::new(), beside: *beside })
    });
    let pythons = folders.iter().flat_map(|(folder, beside)| PYTHONS.map(|python| (folder.join(python), *beside)));
    let modules = pythons.filter(|(python, _)| is_executable(python)).filter_map(|(python, beside)| {
        let name = module(&python)?;
        let (module, name) = MODULES.iter().find(|(module, _)| *module == name)?;
        Some(Found { name, program: python, arguments: vec!["-m".into(), module.into()], beside })
    });
    let mut found: Vec<Found> = programs.collect();
    if found.is_empty() {
        found.extend(modules.take(1));
    }
    found
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The first of the modules that an interpreter has.
fn module(python: &Path) -> Option<String> {
    let mut probe = Command::new(python);
    probe.args(["-c", PROBE]).args(MODULES.map(|(module, _)| module)).stdin(Stdio::null()).stderr(Stdio::null());
    let asked = probe.output().ok()?;
    String::from_utf8(asked.stdout).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_program_in_the_home_folder_is_found() {
        let home = std::env::temp_dir().join(format!("guest-jupyter-{}", std::process::id()));
        let folder = home.join(".local/bin");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("jupyter-lab");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let found = || candidates(Some(&home)).into_iter().any(|found| found.program == file);
        assert!(!found(), "a file that can't be executed is no program");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let is_there = found();
        fs::remove_dir_all(&home).unwrap();
        assert!(is_there);
    }

    #[test]
    fn an_interpreter_that_is_none_has_no_modules() {
        assert_eq!(module(Path::new("/bin/false")), None);
        assert_eq!(module(Path::new("/nonexistent")), None);
    }
}
