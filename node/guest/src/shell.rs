//! The shell behind an SSH session: finds one in the image, and becomes it.
//!
//! Owns the choice of the shell and the environment that a login has. The image's own variables stay, its `PATH` above all, so the shell
//! is no login shell, whose profile would replace them.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::{process, say};

/// Where shells are, the nicest first.
const SHELLS: [&str; 6] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash", "/bin/busybox"];
/// Bytes of `/etc/passwd` that are read.
const PASSWD_BYTES: u64 = 1 << 20;
/// As a shell says that there is no such command.
const NOT_FOUND: u8 = 127;

/// A line of `/etc/passwd`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    name: String,
    home: String,
    shell: String,
}

/// Becomes a shell, with `command` or interactive, in a terminal of `size` (`ROWSxCOLUMNS`) where there is one: an engine sizes it only after
/// its first program has begun, which would see none. Returns only if that is impossible, with the exit code.
pub fn run(size: Option<OsString>, command: Option<OsString>) -> u8 {
    let size = size.as_ref().and_then(|size| size.to_str()?.split_once('x'));
    if let Some((Ok(rows), Ok(columns))) = size.map(|(rows, columns)| (rows.parse(), columns.parse())) {
        process::size_terminal(rows, columns);
    }
    let account = account();
    let home =
        std::env::var_os("HOME").filter(|h| !h.is_empty()).or_else(|| account.as_ref().map(|a| a.home.clone().into()));
    if let Some(home) = &home {
        // Without it, wherever the image begins.
        let _ = std::env::set_current_dir(home);
    }
    let Some(shell) = find(account.as_ref()) else { return without_a_shell(command) };
    let mut program = Command::new(&shell);
    if shell.ends_with("busybox") {
        program.arg("sh");
    }
    if let Some(command) = command {
        program.arg("-c").arg(command);
    }
    program.env("SHELL", &shell);
    if let Some(home) = home {
        program.env("HOME", home);
    }
    if let Some(account) = account.filter(|a| !a.name.is_empty()) {
        program.env("USER", &account.name).env("LOGNAME", &account.name);
    }
    let error = program.exec();
    say(&format!("{shell}: can't be executed: {error}"));
    126
}

/// The home folder of this user, where it has one.
pub fn home() -> Option<std::path::PathBuf> {
    let set = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute());
    set.or_else(|| account().map(|account| account.home.into())).map(Into::into)
}

/// The first shell there is.
pub fn any() -> Option<String> {
    find(None)
}

/// The shell of the user this runs as, or any that the image has.
pub fn of_user() -> Option<String> {
    find(account().as_ref())
}

/// The account's shell, unless it is one that lets nobody in, else the first one there is.
fn find(account: Option<&Account>) -> Option<String> {
    let own = account.map(|a| a.shell.as_str()).filter(|s| !s.ends_with("/nologin") && !s.ends_with("/false"));
    own.into_iter().chain(SHELLS).find(|path| is_executable(path)).map(str::to_owned)
}

pub fn is_executable(path: &str) -> bool {
    Path::new(path).is_absolute()
        && fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Without a shell a plain command can still be run, word by word; anything that needs a shell can't.
fn without_a_shell(command: Option<OsString>) -> u8 {
    let Some(command) = command else {
        say(
            "this image has no shell, so there is nothing to log in to; souk exec ID -- PROGRAM runs a program of it, and files and \
             ports work as ever",
        );
        return NOT_FOUND;
    };
    let text = command.to_string_lossy();
    if text.contains(|c: char| "|&;<>()$`\\\"'*?[]#~=%!{}\n".contains(c)) {
        say(
            "this image has no shell to read that command; without quotes, pipes and variables it would be run directly",
        );
        return NOT_FOUND;
    }
    let mut words = text.split_whitespace();
    let Some(program) = words.next() else { return 0 };
    let error = Command::new(program).args(words).exec();
    if error.kind() == ErrorKind::NotFound {
        say(&format!("{program}: not found, and this image has no shell"));
        return NOT_FOUND;
    }
    say(&format!("{program}: can't be executed: {error}"));
    126
}

/// Who this is, as the image knows it.
fn account() -> Option<Account> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs::File::open("/etc/passwd").ok()?.take(PASSWD_BYTES).read_to_end(&mut text).ok()?;
    find_account(&String::from_utf8_lossy(&text), process::user())
}

fn find_account(passwd: &str, user: u32) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, _, home, shell] = fields.as_slice() else { return None };
        (id.parse() == Ok(user)).then(|| Account {
            name: (*name).to_owned(),
            home: (*home).to_owned(),
            shell: (*shell).to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{Account, find_account};

    #[test]
    fn accounts_are_found_by_number() {
        let text = "root:x:0:0:root:/root:/bin/bash\nbroken\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n";
        let root = Account { name: "root".to_owned(), home: "/root".to_owned(), shell: "/bin/bash".to_owned() };
        assert_eq!(find_account(text, 0), Some(root));
        assert_eq!(find_account(text, 1), None);
    }
}
