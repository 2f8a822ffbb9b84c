//! Images of other kinds than busybox, made on this machine and kept by its engine: a full Debian, one with musl, one for a plain user, one
//! with a single program in it.
#![allow(clippy::unwrap_used, reason = "a harness: what does not work fails the test")]

use std::{fs, fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};

use crate::{
    docker::{BUSYBOX, Docker},
    program::{must, run},
};

/// Debian with bash, python3, rsync.
pub const DEBIAN: &str = "souk-scenario/debian:1";
/// Busybox whose `/bin/told` is linked against musl.
pub const MUSL: &str = "souk-scenario/musl:1";
/// Busybox that runs as its user `guest`.
pub const GUEST: &str = "souk-scenario/guest:1";
/// Two programs without any libraries, and nothing else: no shell.
pub const BARE: &str = "souk-scenario/bare:1";

/// Says who it is and what it sees, and ends with the code that it is told.
const TOLD: &str = r#"
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "wait")) { for (;;) pause(); }
    struct passwd *user = getpwuid(getuid());
    printf("%s %s %s\n", user ? user->pw_name : "nobody", isatty(1) ? "terminal" : "pipe", getenv("LANG") ? getenv("LANG") : "-");
    return count > 1 ? atoi(words[1]) : 0;
}
"#;

impl Docker {
    /// Makes an image, unless the engine has it. One process at a time.
    fn made(&self, image: &str, make: impl FnOnce(&Path)) {
        let lock = File::create(std::env::temp_dir().join("souk-scenario-images.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        if self.cli(&["image", "inspect", image]).code != 0 {
            let folder = tempfile::tempdir().unwrap();
            make(folder.path());
        }
    }

    fn import(&self, image: &str, tar: &Path, changes: &[&str]) {
        let changes = changes.iter().flat_map(|change| ["--change", change]);
        let arguments = ["import"].into_iter().chain(changes).chain([tar.to_str().unwrap(), image]);
        let _ = self.cli(&arguments.collect::<Vec<_>>()).ok();
    }

    fn built(&self, folder: &Path, image: &str, dockerfile: &str) {
        fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
        let _ = self.cli(&["build", "-q", "-t", image, folder.to_str().unwrap()]).ok();
    }

    /// [`DEBIAN`], from the packages of this machine's own release and mirror: a minute or two, once a machine.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn debian(&self) {
        self.made(DEBIAN, |folder| {
            let tar = folder.join("root.tar");
            let release = fs::read_to_string("/etc/os-release").unwrap();
            let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap().to_owned();
            let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
            let mirror = sources.into_iter().find(|path| Path::new(path).exists()).unwrap();
            let mut command = std::process::Command::new("mmdebstrap");
            command
                .args(["--quiet", "--variant=minbase", "--include=rsync,python3,procps", &suite])
                .arg(&tar)
                .arg(mirror);
            let status = command.stdin(std::process::Stdio::null()).status().unwrap();
            assert!(status.success(), "mmdebstrap made no Debian");
            let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            self.import(DEBIAN, &tar, &[path, r#"CMD ["/bin/bash"]"#]);
        });
    }

    /// [`MUSL`].
    ///
    /// # Panics
    /// If it can't be made.
    pub fn musl(&self) {
        self.made(MUSL, |folder| {
            fs::write(folder.join("told.c"), TOLD).unwrap();
            let told = folder.join("told").display().to_string();
            must("musl-gcc", &["-O", "-o", &told, &format!("{told}.c")]);
            fs::copy("/lib/ld-musl-x86_64.so.1", folder.join("ld")).unwrap();
            let copies = "COPY ld /lib/ld-musl-x86_64.so.1\nCOPY told /bin/told\n";
            self.built(folder, MUSL, &format!("FROM {BUSYBOX}\n{copies}"));
        });
    }

    /// [`GUEST`].
    ///
    /// # Panics
    /// If it can't be made.
    pub fn guest(&self) {
        self.made(GUEST, |folder| self.built(folder, GUEST, &format!("FROM {BUSYBOX}\nUSER guest\n")));
    }

    /// [`BARE`].
    ///
    /// # Panics
    /// If it can't be made.
    pub fn bare(&self) {
        self.made(BARE, |folder| {
            fs::write(folder.join("told.c"), TOLD).unwrap();
            let told = folder.join("told").display().to_string();
            must("musl-gcc", &["-O", "-static", "-o", &told, &format!("{told}.c")]);
            let tar = folder.join("root.tar");
            let names = ["-C", folder.to_str().unwrap(), "-cf", tar.to_str().unwrap(), "told"];
            assert_eq!(run(std::process::Command::new("tar").args(names), &[]).code, 0);
            self.import(BARE, &tar, &[r#"CMD ["/told","wait"]"#]);
        });
    }
}
