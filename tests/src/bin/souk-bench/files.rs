//! `souk copy` and `souk run`, beside what people use for the same: scp and rsync over a real sshd, and `docker run`.

use std::{fs, path::Path, process::Command, time::Instant};

use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program::{must, run as outcome_of, souk},
    world::World,
};

use crate::{
    median,
    peers::{Sshd, Way, forwarded, listen_inside, rate, serve, timed},
    quantiles, row,
    tunnel::middle,
};

const ROUNDS: usize = 3;
const BIG: u64 = 256 << 20;
const SMALL: usize = 20_000;
const SMALL_BYTES: usize = 1024;
const PORT: u16 = 7200;
const RUNS: usize = 11;

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
