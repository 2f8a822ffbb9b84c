//! The helper inside every instance: one static program, mounted read-only at `/.souk/guest`, that needs nothing of the
//! image, not even a libc or a shell.
//!
//! `guest init [--] [COMMAND [ARGUMENT…]]` is PID 1 of the instance. It owns three duties:
//! - it starts COMMAND as a child (without one it only keeps the instance alive) and ends with the child's exit code,
//!   128 + n for a signal n, 127 for a command that is not there, 126 for one that can't be executed;
//! - it hands SIGTERM, SIGINT and SIGHUP to **every** process of the instance, where the engine would tell PID 1 alone,
//!   and then lets them finish until the engine's own grace period runs out;
//! - it reaps orphans.
//!
//! `guest notice [TEXT]` writes what the host has to say to `/run/souk/notice.json`, or removes that file.
//!
//! Before the command, `init` runs the provisioning script at the first start and the renter's onstart script at each one.
//! `guest provision PLACE DONE` fetches and runs the former, `guest script FILE` becomes the interpreter of a script.
//!
//! `guest self [show | notice | stop | destroy | label TEXT]` asks the instance's own endpoint, for images without curl.
//!
//! `guest jupyter` becomes the Jupyter of the image, and `guest files [direct]` is the instance's side of a copy.
//!
//! `guest shell ROWSxCOLUMNS|- [COMMAND]` becomes the image's shell, `guest sftp` serves files over its standard streams, and `guest resolve NAME`
//! prints a name's addresses, all as the user it is run as.
//!
//! `guest pulse` answers the renter's meter.
//!
//! `guest demo` is the workload of `souk demo`.
//!
//! It doesn't choose users, limits or networks: the engine has set those before it runs.

mod demo;
mod files;
mod init;
mod jupyter;
mod notice;
mod onstart;
mod own;
mod process;
mod pulse;
mod resolve;
mod sftp;
mod shell;

use std::io::Write as _;
use std::process::ExitCode;

/// Exit code for wrong usage of the helper itself.
const USAGE: u8 = 125;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(verb) if verb == "init" => {
            let mut command: Vec<_> = arguments.collect();
            if command.first().is_some_and(|first| first == "--") {
                command.remove(0);
            }
            ExitCode::from(init::run(&command))
        }
        Some(verb) if verb == "demo" => ExitCode::from(demo::run(arguments.next().as_deref().and_then(|s| s.to_str()))),
        Some(verb) if verb == "notice" => {
            let done = match arguments.next() {
                Some(text) => notice::write(text.as_encoded_bytes()),
                None => notice::remove(),
            };
            match done {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    say(&format!("{}: {error}", notice::FILE));
                    ExitCode::FAILURE
                }
            }
        }
        Some(verb) if verb == "jupyter" => ExitCode::from(jupyter::run()),
        Some(verb) if verb == "pulse" => ExitCode::from(pulse::run()),
        Some(verb) if verb == "files" => {
            ExitCode::from(files::run(arguments.next().is_some_and(|way| way == "direct")))
        }
        Some(verb) if verb == "shell" => ExitCode::from(shell::run(arguments.next(), arguments.next())),
        Some(verb) if verb == "self" => ExitCode::from(own::run(&arguments.collect::<Vec<_>>())),
        Some(verb) if verb == "provision" => match (arguments.next(), arguments.next()) {
            (Some(place), Some(done)) => ExitCode::from(onstart::provision(&place, &done)),
            (_, _) => ExitCode::from(USAGE),
        },
        Some(verb) if verb == "script" => match arguments.next() {
            Some(path) => ExitCode::from(onstart::script(&path)),
            None => ExitCode::from(USAGE),
        },
        Some(verb) if verb == "sftp" => ExitCode::from(sftp::run()),
        Some(verb) if verb == "resolve" => match arguments.next().as_deref().and_then(|s| s.to_str()) {
            Some(name) => ExitCode::from(resolve::run(name)),
            None => ExitCode::from(USAGE),
        },
        Some(verb) if verb == "version" => {
            let _ = writeln!(std::io::stdout(), "souk-guest {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            say(
                "usage: guest init [--] [COMMAND [ARGUMENT...]] | guest notice [TEXT] | guest demo [SECONDS] | guest jupyter | guest files | guest pulse | \
                 guest self [show | notice | stop | destroy | label TEXT] | guest script FILE | guest shell SIZE|- [COMMAND] | guest sftp | guest resolve NAME | guest version",
            );
            ExitCode::from(USAGE)
        }
    }
}

/// One line on stderr; where stderr is closed there is nobody to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "souk-guest: {line}");
}
