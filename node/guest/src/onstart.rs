//! What runs before the command at a start: the provisioning script, once, and the renter's onstart script, each time.
//!
//! Owns where these scripts lie in the instance and which of them are due. PID 1 runs what is due, one after the other.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::{say, shell};

/// The renter's script, as the node left it.
const SOURCE: &str = "/.souk/self/onstart.sh";
/// The helper itself, which finds a script's interpreter.
const HELPER: &str = "/.souk/guest";
/// Names the provisioning script: a URL, or a path.
const PROVISIONING: &str = "PROVISIONING_SCRIPT";
/// Images that have one of these run the provisioning script themselves.
const PROVISIONED_BY_IMAGE: [&str; 2] = ["/opt/ai-dock", "/opt/instance-tools"];
/// Where the work is to be, by a variable of this name.
const DATA: &str = "DATA_DIRECTORY";

/// Fetches `$PROVISIONING_SCRIPT` to `$1` and runs it by `$3`; `$2` remembers that it has been done.
const FETCH: &str = r#"
s=$PROVISIONING_SCRIPT f=$1
case $s in
http://*|https://*)
    rm -f "$f.new"
    if command -v curl >/dev/null 2>&1; then curl -fsSL --retry 3 --connect-timeout 20 -o "$f.new" "$s"
    elif command -v wget >/dev/null 2>&1; then wget -q -O "$f.new" "$s"
    else echo "souk-guest: this image has neither curl nor wget to fetch PROVISIONING_SCRIPT with" >&2; exit 127
    fi || { echo "souk-guest: PROVISIONING_SCRIPT can't be fetched from $s; the next start tries again" >&2; exit 1; }
    mv "$f.new" "$f" && chmod 755 "$f" || exit 1 ;;
*)
    f=$s
    [ -f "$f" ] || { echo "souk-guest: PROVISIONING_SCRIPT is neither a URL nor a file of this image: $s" >&2; exit 1; } ;;
esac
"$3" script "$f" && printf %s "$s" > "$2"
"#;

/// Something to run before the command.
pub struct Stage {
    /// What it is called in the log.
    pub name: &'static str,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What is due at this start, in order.
pub fn stages() -> Vec<Stage> {
    if let Some(data) = std::env::var_os(DATA).filter(|path| Path::new(path).is_absolute()) {
        // Where this user may not make it, the image decides where work is kept.
        let _ = fs::create_dir_all(data);
    }
    let home = shell::home().unwrap_or_else(|| PathBuf::from("/tmp"));
    [provisioning(&home), onstart(&home)].into_iter().flatten().collect()
}

fn provisioning(home: &Path) -> Option<Stage> {
    let wanted = std::env::var(PROVISIONING).ok().filter(|text| !text.is_empty())?;
    if PROVISIONED_BY_IMAGE.iter().any(|path| Path::new(path).exists()) {
        return None;
    }
    let done = kept(home, "provisioned");
    if fs::read_to_string(&done).is_ok_and(|text| text == wanted) {
        return None;
    }
    let place = writable(home).join("provisioning.sh");
    let arguments = vec!["provision".into(), place.into(), done.into()];
    Some(Stage { name: "the provisioning script", program: HELPER.into(), arguments })
}

/// Becomes the shell that fetches the provisioning script to `place` and runs it, and notes in `done` that it went well. Returns
/// only if there is no shell, with the exit code.
pub fn provision(place: &OsString, done: &OsString) -> u8 {
    use std::os::unix::process::CommandExt as _;
    let Some(shell) = shell::any() else {
        say("PROVISIONING_SCRIPT is not run: this image has no shell");
        return 127;
    };
    let mut command = std::process::Command::new(&shell);
    if shell.ends_with("busybox") {
        command.arg("sh");
    }
    let helper = std::env::current_exe().unwrap_or_else(|_| PathBuf::from(HELPER));
    let error = command.args(["-c", FETCH, "souk-guest"]).arg(place).arg(done).arg(helper).exec();
    say(&format!("{shell}: can't be run: {error}"));
    126
}

fn onstart(home: &Path) -> Option<Stage> {
    let text = fs::read(SOURCE).ok()?;
    let own = home.join("onstart.sh");
    let laid = kept(home, "onstart");
    // What the user has made of it since the first start stays.
    let script = if laid.exists() && own.exists() {
        own
    } else {
        match lay(&own, &text) {
            Ok(()) => {
                let _ = fs::write(&laid, b"");
                own
            }
            Err(error) => {
                say(&format!("{}: {error}; the script is run from where it is", own.display()));
                PathBuf::from(SOURCE)
            }
        }
    };
    Some(Stage { name: "onstart.sh", program: HELPER.into(), arguments: vec!["script".into(), script.into()] })
}

/// Writes the script where people look for it.
fn lay(place: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = place.with_extension("sh.new");
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&new)?;
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    fs::rename(new, place)
}

/// A file that outlasts this run, beside the scripts.
fn kept(home: &Path, name: &str) -> PathBuf {
    let folder = writable(home).join(".souk");
    let _ = fs::create_dir_all(&folder);
    folder.join(name)
}

/// The home folder, or a place that every image lets its users write to.
fn writable(home: &Path) -> PathBuf {
    let probe = home.join(format!(".souk-probe-{}", std::process::id()));
    let can = fs::OpenOptions::new().write(true).create_new(true).open(&probe).is_ok();
    let _ = fs::remove_file(&probe);
    if can { home.to_owned() } else { PathBuf::from("/tmp") }
}

/// The interpreter that a script's first line names, with its argument; none if it names none.
fn interpreter(text: &[u8]) -> Option<(String, Option<String>)> {
    let line = text.strip_prefix(b"#!")?;
    let line = line.get(..line.iter().position(|b| *b == b'\n').unwrap_or(line.len()))?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (program, argument) = line.split_once([' ', '\t']).map_or((line, ""), |(p, a)| (p, a.trim()));
    (!program.is_empty()).then(|| (program.to_owned(), Some(argument.to_owned()).filter(|a| !a.is_empty())))
}

/// Becomes the interpreter of a script: the one it names, else a shell. Returns only if there is none, with the exit code.
pub fn script(path: &OsString) -> u8 {
    use std::os::unix::process::CommandExt as _;
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) => {
            say(&format!("{}: can't be read: {error}", path.to_string_lossy()));
            return 126;
        }
    };
    let named = interpreter(&text).filter(|(program, _)| shell::is_executable(program));
    let mut command = match (named, shell::any()) {
        (Some((program, argument)), _) => {
            let mut command = std::process::Command::new(program);
            command.args(argument);
            command
        }
        (None, Some(shell)) => {
            if let Some((wanted, _)) = interpreter(&text) {
                say(&format!("{}: this image has no {wanted}; it is run by {shell}", path.to_string_lossy()));
            }
            let mut command = std::process::Command::new(&shell);
            if shell.ends_with("busybox") {
                command.arg("sh");
            }
            command
        }
        (None, None) => {
            say(&format!("{} is not run: this image has no shell", path.to_string_lossy()));
            return 127;
        }
    };
    let error = command.arg(path).exec();
    say(&format!("{}: can't be run: {error}", path.to_string_lossy()));
    126
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn the_first_line_names_the_interpreter() {
        let named = |text: &str| interpreter(text.as_bytes());
        assert_eq!(named("#!/bin/bash\necho"), Some(("/bin/bash".to_owned(), None)));
        assert_eq!(
            named("#! /usr/bin/env  python3 -u \n"),
            Some(("/usr/bin/env".to_owned(), Some("python3 -u".to_owned())))
        );
        assert_eq!(named("#!/bin/sh"), Some(("/bin/sh".to_owned(), None)));
        assert_eq!(named("#!\n"), None);
        assert_eq!(named("echo hi\n"), None);
        assert_eq!(interpreter(b"#!\xff\n"), None);
    }
}
