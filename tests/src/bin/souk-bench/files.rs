//! `souk copy`, `souk run` and the first prompt of SSH, beside what people use for the same: scp and rsync over a real sshd,
//! `docker run`, and ssh to that sshd.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program::{mortal, must, run as outcome_of, souk},
    world::{World, rent},
};

use crate::{
    median,
    peers::{Running, Sshd, Way, forwarded, listen_inside, rate, serve, timed},
    quantiles, row,
    tunnel::middle,
};

const ROUNDS: usize = 3;
const BIG: u64 = 256 << 20;
const SMALL: usize = 20_000;
const SMALL_BYTES: usize = 1024;
const PORT: u16 = 7200;
const RUNS: usize = 11;
const PROMPTS: usize = 15;

/// Bytes that don't repeat.
fn noise(length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn sh(renter: &Node, lease: &str, line: &str) {
    let _ = renter.souk(&["exec", lease, "--", "sh", "-c", line], &[]).ok();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// One big file and many small ones, into an instance and onto this machine.
pub fn copy() {
    if !have("docker") || !have("rsync") {
        return;
    }
    let world = World::with_docker();
    let Some(sshd) = Sshd::start(world.path()) else { return };
    let (host, renter) = world.pair(1);
    let ask = renter.ask_of(&host, 1);
    let arguments = ["rent", &ask, "--image", BUSYBOX, "--disk", "2", "-y", "--egress", "none", "--", "sleep", "3600"];
    let lease = souk_tests::world::lease_of(&renter.souk(&arguments, &[]).lines());
    serve(listen_inside(world.docker(), &host, PORT));
    let (_forward, tunnel) = forwarded(&renter, &lease, PORT, world.path());

    let (big, small, there) = (world.path().join("big"), world.path().join("small"), world.path().join("there"));
    fs::write(&big, noise(BIG)).unwrap();
    let content = noise((SMALL * SMALL_BYTES) as u64);
    for (n, piece) in content.chunks(SMALL_BYTES).enumerate() {
        let folder = small.join(format!("{:02}", n % 20));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(n.to_string()), piece).unwrap();
    }
    let remote_shell = format!("ssh {}", sshd.options().join(" "));
    let souk_copy = |from: &Path| timed(&mut renter.command(&["copy", &text(from), &format!("{lease}:/tmp/to/")]));
    let scp = |from: &Path| {
        timed(
            Command::new("scp")
                .args(["-q", "-r"])
                .args(sshd.options())
                .arg(from)
                .arg(format!("127.0.0.1:{}", text(&there))),
        )
    };
    let rsync = |from: &Path| {
        timed(
            Command::new("rsync")
                .args(["-a", "-W", "-e", &remote_shell])
                .arg(from)
                .arg(format!("127.0.0.1:{}/", text(&there))),
        )
    };
    let fresh_here = || {
        fs::remove_dir_all(&there).ok();
        fs::create_dir_all(&there).unwrap();
    };
    let fresh_inside = || sh(&renter, &lease, "rm -rf /tmp/to; mkdir /tmp/to");
    let each = |from: &Path| {
        fresh_inside();
        let ours = souk_copy(from);
        fresh_here();
        let scp = scp(from);
        fresh_here();
        [ours, scp, rsync(from)]
    };

    let mut rates: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        rates[3].push(rate(tunnel, Way::Up, BIG));
        for (all, took) in rates.iter_mut().zip(each(&big)) {
            all.push(BIG as f64 / took / 1e6);
        }
    }
    let [ours, scp, rsync, tunnel] = rates.map(middle);
    row("copy of one file of 268 MB", &format!("{ours:.0} MB/s"));
    row("  beside the tunnel", &format!("{tunnel:.0} MB/s: {:.0} % of it", 100.0 * ours / tunnel));
    row("  beside scp; rsync", &format!("{scp:.0} MB/s; {rsync:.0} MB/s"));

    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (all, took) in rates.iter_mut().zip(each(&small)) {
            all.push(SMALL as f64 / took);
        }
    }
    let [ours, scp, rsync] = rates.map(middle);
    row(&format!("copy of {SMALL} files of 1 KiB"), &format!("{ours:.0} files/s"));
    row("  beside scp; rsync", &format!("{scp:.0} files/s; {rsync:.0} files/s"));
    let _ = renter.json(&["destroy", "-y", &lease]);
}

/// `souk run` and `docker run` of the same command, image present, to its end.
pub fn run() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let _ = renter.ask_of(&host, 1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        // It takes the machine when the run before has given it back.
        let _ = renter.ask_of(&host, 1);
        let mut command = Command::new(souk());
        command.arg("--dir").arg(renter.dir()).args(["run", "-q", "-Q", "num_gpus=0", "--disk", "1", "--wait", "60s"]);
        command.args([BUSYBOX, "--", "echo", "out"]).env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
        let began = Instant::now();
        let outcome = outcome_of(&mut command, &[]);
        ours.push(began.elapsed());
        assert_eq!((outcome.code, outcome.out.as_str()), (0, "out\n"), "{}", outcome.err);
        let began = Instant::now();
        assert_eq!(must("docker", &["run", "--rm", BUSYBOX, "echo", "out"]), "out\n");
        theirs.push(began.elapsed());
    }
    let over = median(&mut ours) - median(&mut theirs);
    row("souk run, image present, to its end", &quantiles(&mut ours));
    row("  beside docker run --rm", &format!("{}; ours takes {over:.0} ms more", quantiles(&mut theirs)));
}

/// From the command to the first prompt of a shell with a terminal.
fn prompt(mut command: Command) -> Duration {
    let began = Instant::now();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = Running(child);
    let (mut input, mut output) = (child.0.stdin.take().unwrap(), child.0.stdout.take().unwrap());
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    while !seen.windows(2).any(|two| two == b"# " || two == b"$ ") {
        let read = output.read(&mut bytes).unwrap();
        assert!(read > 0, "it ended before its prompt: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&bytes[..read]);
    }
    let took = began.elapsed();
    input.write_all(b"exit\n").ok();
    took
}

/// The first prompt of an instance that runs, and of this machine's own sshd.
pub fn prompts() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let Some(sshd) = Sshd::start(world.path()) else { return };
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "while :; do sleep 1; done", &["--egress", "none"]);
    let shown: Value = renter.json(&["ssh-config", "--name", "job", &lease]);
    let mut config = "Host job\n".to_owned();
    for (name, value) in shown["options"].as_object().unwrap() {
        config.push_str(&format!("    {name} {}\n", value.as_str().unwrap()));
    }
    let file = world.path().join("ssh_config");
    fs::write(&file, config).unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..PROMPTS {
        let mut command = mortal(Path::new("ssh"));
        command.arg("-F").arg(&file).args(["-tt", "job"]);
        ours.push(prompt(command));
        let mut command = mortal(Path::new("ssh"));
        // The same shell there, so that no profile of this machine's user counts.
        command.args(sshd.options()).args(["-tt", "127.0.0.1", "busybox", "sh"]);
        theirs.push(prompt(command));
    }
    row("ssh, first prompt of a running instance", &quantiles(&mut ours));
    let over = median(&mut ours) - median(&mut theirs);
    row("  beside this machine's own sshd", &format!("{}; ours takes {over:.0} ms more", quantiles(&mut theirs)));
    let _ = renter.json(&["destroy", "-y", &lease]);
}
