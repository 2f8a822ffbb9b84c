//! How soon an instance that runs has an SSH prompt, and where the time goes.

use std::{
    fs,
    io::Read,
    process::Stdio,
    time::{Duration, Instant},
};

use souk_tests::{
    part::have,
    program,
    ssh::{Client, Running},
    wait::until,
    world::{World, rent},
};

use crate::{median, peers::Sshd, quantiles, row};

/// Prompts of each kind.
const PROMPTS: usize = 21;

/// From starting a program to its first output, of which there is a prompt in a terminal.
fn first_byte(mut command: std::process::Command) -> Duration {
    let began = Instant::now();
    let mut child =
        Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut byte = [0; 1];
    child.0.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    began.elapsed()
}

/// A prompt by `souk ssh`, by OpenSSH, over a connection that stands already, by `docker exec`, and of this machine's own sshd, in turns.
pub fn run() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let client = Client::of(&renter, &lease, world.path());
    let socket = world.path().join("master");
    let shared = client.with("ControlPath", socket.to_str().unwrap());
    let _master = Running(shared.program("ssh").args(["-M", "-N", "job"]).stdin(Stdio::null()).spawn().unwrap());
    until("a master", || fs::exists(&socket).unwrap().then_some(()));
    let container = world.docker().container(&host.id);
    let sshd = Sshd::start(world.path());
    let [mut ours, mut plain, mut standing, mut docker, mut proxy, mut own]: [Vec<Duration>; 6] = Default::default();
    for _ in 0..PROMPTS {
        let mut command = renter.command(&["ssh", "-o", "RequestTTY=force", &lease]);
        command.env("HOME", world.path());
        ours.push(first_byte(command));
        let mut command = client.program("ssh");
        command.args(["-tt", "job"]);
        plain.push(first_byte(command));
        let mut command = shared.program("ssh");
        command.args(["-tt", "job"]);
        standing.push(first_byte(command));
        // `docker exec -t` wants a terminal of its own, which `script` gives it.
        let mut command = program::mortal("script".as_ref());
        command.args(["-qec", &format!("docker exec -it {container} sh"), "/dev/null"]);
        docker.push(first_byte(command));
        // The host's SSH greeting: as far as the stream between the nodes goes, before any SSH.
        let command = renter.command(&["ssh-proxy", &lease]);
        proxy.push(first_byte(command));
        if let Some(sshd) = &sshd {
            let mut command = program::mortal("ssh".as_ref());
            // The same shell there, so that no profile of this machine's user counts.
            command.args(sshd.options()).args(["-tt", "127.0.0.1", "busybox", "sh"]);
            own.push(first_byte(command));
        }
    }
    let exec = median(&mut docker);
    row("souk ssh → prompt", &quantiles(&mut ours));
    row("ssh → prompt, by souk ssh-config", &quantiles(&mut plain));
    row("  the same over a connection that stands", &quantiles(&mut standing));
    row(
        "  beside docker exec -it",
        &format!("{}; a standing one is {:.2} ms more", quantiles(&mut docker), median(&mut standing) - exec),
    );
    if !own.is_empty() {
        row("  beside this machine's own sshd", &quantiles(&mut own));
    }
    row("  souk ssh-proxy → the server's greeting", &quantiles(&mut proxy));
    let _ = renter.json(&["destroy", "-y", &lease]);
}
