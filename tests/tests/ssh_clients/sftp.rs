//! Random and mutated packets against an instance's SFTP server: it answers or ends, and never breaks or grows.

use std::process::Stdio;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use souk_tests::{
    part::have,
    program::run,
    ssh::{Client, Running},
    wait::until,
    world::{World, rent},
};

/// Streams of packets that are tried.
const ROUNDS: usize = 150;

fn text(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A packet that means something, about a few files.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        Just(b"a".to_vec()),
        Just(b"d/b".to_vec()),
        Just(b"/tmp/fuzz".to_vec()),
        Just(b"..".to_vec()),
        Just(b"/proc/self/mem".to_vec()),
        Just(b"/dev/zero".to_vec()),
        Just(Vec::new()),
        Just(vec![b'x'; 5000]),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    let kind = prop_oneof![3u8..=20, Just(200u8), any::<u8>()];
    let name = prop_oneof![
        Just("posix-rename@openssh.com"),
        Just("hardlink@openssh.com"),
        Just("fsync@openssh.com"),
        Just("lsetstat@openssh.com"),
        Just("limits@openssh.com"),
        Just("expand-path@openssh.com"),
        Just("what@nowhere"),
    ];
    let rest = proptest::collection::vec(any::<u8>(), 0..60);
    (kind, any::<u32>(), path.clone(), path, name, 0u32..6, any::<u64>(), any::<u32>(), rest).prop_map(
        |(kind, request, first, second, name, handle, offset, length, rest)| {
            let mut body = vec![kind];
            body.extend(request.to_be_bytes());
            if kind == 200 {
                body.extend(text(name.as_bytes()));
            }
            match kind {
                // By handle: mostly one that is open.
                4..=6 | 8 | 10 | 12 => {
                    body.extend(text(&handle.to_be_bytes()));
                    body.extend(offset.to_be_bytes());
                    if kind == 6 { body.extend(text(&rest)) } else { body.extend(length.to_be_bytes()) }
                }
                _ => {
                    body.extend(text(&first));
                    if kind == 3 {
                        body.extend((length & 0x3f).to_be_bytes());
                        body.extend([0; 4]);
                    }
                    body.extend(text(&second));
                    body.extend(rest);
                }
            }
            text(&body)
        },
    )
}

/// A stream of packets, some of them changed, cut or nonsense.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let changed = (sound(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut packet, at, byte)| {
        let at = at.index(packet.len());
        packet[at] = byte;
        packet
    });
    let junk = proptest::collection::vec(any::<u8>(), 1..200).prop_map(|bytes| text(&bytes));
    let raw = proptest::collection::vec(any::<u8>(), 1..50);
    let packet = prop_oneof![12 => sound(), 3 => changed, 2 => junk, 1 => raw];
    proptest::collection::vec(packet, 1..60).prop_map(|packets| {
        let hello = text(&[1, 0, 0, 0, 3]);
        [hello, packets.concat()].concat()
    })
}

#[test]
fn no_packets_break_the_sftp_server() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    // As a user without rights, in a folder of its own: what it may destroy is its own.
    let lease =
        rent(&renter, &host, 1, "mkdir -p d; while :; do sleep 1; done", &["--user", "guest", "--workdir", "/tmp"]);
    let socket = world.path().join("master");
    let client = Client::of(&renter, &lease, world.path()).with("ControlPath", socket.to_str().unwrap());
    let mut master = client.program("ssh");
    let _master = Running(master.args(["-M", "-N", "job"]).stdin(Stdio::null()).spawn().unwrap());
    until("a master", || socket.exists().then_some(()));

    let seed = *blake3::hash(b"sftp").as_bytes();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let streams = stream();
    let (mut answered, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let bytes = streams.new_tree(&mut runner).unwrap().current();
        let outcome = run(client.program("ssh").args(["-s", "job", "sftp"]), &bytes);
        // Either all was answered, or it said what was wrong with a packet.
        let said = &outcome.err;
        assert!(!said.contains("panicked") && !said.contains("memory"), "round {round}: {said}: {bytes:02x?}");
        match outcome.code {
            0 => answered += 1,
            1 => {
                assert!(said.contains("sftp:"), "round {round}: {said}: {bytes:02x?}");
                refused += 1;
            }
            code => panic!("round {round}: ended with {code}: {said}: {bytes:02x?}"),
        }
    }
    println!("{ROUNDS} streams of packets: {answered} answered to the end, {refused} refused");
    assert!(answered > ROUNDS / 10 && refused > ROUNDS / 20, "{answered} and {refused}: they tell little");

    // A thousand pieces of endless files asked for at once, and a thousand handles: no more than a few MB, and 256 handles.
    let mut flood = text(&[1, 0, 0, 0, 3]);
    let request = |kind: u8, rest: &[u8]| text(&[&[kind, 0, 0, 0, 9][..], rest].concat());
    for _ in 0..1000 {
        let open = [text(b"/dev/zero"), 1u32.to_be_bytes().to_vec(), vec![0; 4]].concat();
        flood.extend(request(3, &open));
    }
    for _ in 0..1000 {
        let piece = [text(&0u32.to_be_bytes()), vec![0; 8], u32::MAX.to_be_bytes().to_vec()].concat();
        flood.extend(request(5, &piece));
    }
    let counted =
        format!("ssh -F {} -s job sftp | tee {} | wc -c", client.config.display(), world.path().join("told").display());
    let outcome = run(souk_tests::program::mortal("sh".as_ref()).args(["-c", &counted]), &flood);
    let bytes: usize = outcome.out.trim().parse().unwrap();
    assert!(bytes > 200_000_000, "{bytes} bytes: {}", outcome.err);
    let told = std::fs::read(world.path().join("told")).unwrap();
    let said = b"too many files are open";
    assert!(told.windows(said.len()).take(1 << 20).any(|window| window == said));
    // It is there for others as ever.
    assert_eq!(run(client.program("sftp").args(["-q", "-b", "-", "job"]), b"ls /\n").code, 0);
    let _ = renter.json(&["destroy", "-y", &lease]);
}
