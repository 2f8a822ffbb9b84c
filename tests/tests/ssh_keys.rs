//! Renters' own SSH keys: named when renting, attached and removed while the instance runs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path, process::Stdio};

use souk_tests::{
    part::have,
    program::{must, run},
    ssh::{Client, Running},
    wait::until,
    world::{World, rent},
};

const IDLE: &str = "while :; do sleep 1; done";

/// A key of a kind, as a private file with its public one beside it.
fn keygen(folder: &Path, name: &str, kind: &[&str]) -> String {
    let file = folder.join(name).display().to_string();
    must("ssh-keygen", &[&["-q", "-N", "", "-C", name, "-f", &file], kind].concat());
    file
}

#[test]
fn only_keys_that_the_renter_names_get_in() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(1, "1.00").start());
    let configured = keygen(world.path(), "configured", &["-t", "ed25519"]);
    let keys = format!("[\"{configured}.pub\"]");
    let renter = world.node("renter").knows(&host.listen[0]).env("SOUK_RENTER_SSH_KEYS", &keys).start();
    renter.meets(&host);

    // Every kind, as a file or as text.
    let kinds: [(&str, &[&str]); 5] = [
        ("ed25519", &["-t", "ed25519"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("p521", &["-t", "ecdsa", "-b", "521"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ];
    let files: Vec<String> = kinds.iter().map(|(name, kind)| keygen(world.path(), name, kind)).collect();
    let text = fs::read_to_string(format!("{}.pub", files[0])).unwrap();
    let mut options = vec!["--ssh-key", text.trim()];
    let public: Vec<String> = files[1..].iter().map(|file| format!("{file}.pub")).collect();
    options.extend(public.iter().flat_map(|file| ["--ssh-key", file]));
    let lease = rent(&renter, &host, 1, IDLE, &options);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.ssh(&["job", "true"], &[]).code, 0, "the rental's own key");
    for file in &files {
        let outcome = client.by(file).ssh(&["job", "echo in"], &[]);
        assert_eq!((outcome.code, outcome.out.as_str()), (0, "in\n"), "{file}: {}", outcome.err);
    }
    // RSA signs with SHA-2 only.
    let old = client.by(&files[4]).with("PubkeyAcceptedAlgorithms", "ssh-rsa").ssh(&["job", "true"], &[]);
    assert_eq!(old.code, 255, "{}", old.err);

    // Named keys take the configured ones' place.
    let refused = client.by(&configured).ssh(&["job", "true"], &[]);
    assert!(refused.code == 255 && refused.err.contains("Permission denied"), "{}", refused.err);

    // What is no key that gets in is refused before anything is rented.
    let small = keygen(world.path(), "small", &["-t", "rsa", "-b", "1024"]);
    let private = world.path().join("alone");
    fs::copy(&files[0], &private).unwrap();
    for (given, says) in [
        (format!("{small}.pub").as_str(), "2048"),
        (
            "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= me",
            "not taken",
        ),
        ("ssh-dss AAAAB3NzaC1kc3MAAAA me", "no public key"),
        (private.to_str().unwrap(), "private key"),
        ("/nowhere.pub", "can't be read"),
    ] {
        let arguments = ["rent", "whatever", "--image", "any", "-y", "--ssh-key", given];
        let (_, sentence) = renter.refused(&arguments);
        assert!(sentence.contains(says), "{given}: {sentence}");
        let (_, sentence) = renter.refused(&["ssh-key", "add", &lease, given]);
        assert!(sentence.contains(says), "{given}: {sentence}");
    }
    let _ = renter.json(&["destroy", "-y", &lease]);

    // Without any named, the configured ones.
    let lease = rent(&renter, &host, 1, IDLE, &[]);
    let client = Client::of(&renter, &lease, world.path());
    assert_eq!(client.by(&configured).ssh(&["job", "true"], &[]).code, 0);
    assert_eq!(client.by(&files[0]).ssh(&["job", "true"], &[]).code, 255);
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn keys_come_and_go_while_it_runs_and_outlive_a_crash_of_the_host() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, IDLE, &[]);
    let client = Client::of(&renter, &lease, world.path());
    let (mine, other) =
        (keygen(world.path(), "mine", &["-t", "ed25519"]), keygen(world.path(), "other", &["-t", "rsa"]));
    let gets_in = |file: &str| client.by(file).ssh(&["job", "true"], &[]).code == 0;
    assert!(!gets_in(&mine));

    // Attached: with the client's own identity, also by the block that the user writes into the configuration.
    let shown = renter.json(&["ssh-key", "add", &lease, &format!("{mine}.pub"), &format!("{other}.pub")]);
    assert_eq!((shown["revision"].as_u64(), shown["keys"].as_array().unwrap().len()), (Some(1), 3), "{shown:#}");
    assert!(gets_in(&mine) && gets_in(&other));
    let block =
        run(renter.command(&["ssh-config", "--name", "job", "-i", &mine, &lease]).env("HOME", world.path()), &[]);
    let block = block.json();
    assert_eq!(block["options"]["IdentityFile"].as_str().unwrap().trim_matches('"'), mine);
    let outcome = run(renter.command(&["ssh", "-i", &mine, &lease, "echo", "in"]).env("HOME", world.path()), &[]);
    assert_eq!(outcome.out, "in\n", "{}", outcome.err);
    // The same again changes nothing.
    let again = renter.json(&["ssh-key", "add", &lease, &format!("{mine}.pub")]);
    assert_eq!(again["revision"], 1);

    // Nothing of it is lost in a crash.
    host.kill();
    host.start();
    renter.meets(&host);
    until("the host serves SSH again", || (client.ssh(&["job", "true"], &[]).code == 0).then_some(()));
    assert!(gets_in(&mine) && gets_in(&other));

    // Removed: what it has open is cut, what others have open is not.
    let session = |client: &Client, says: &str| {
        let out = world.path().join(says);
        let line = format!("echo {says}; while sleep 1; do :; done");
        let mut command = client.program("ssh");
        command.args(["job", &line]).stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap());
        let running = Running(command.spawn().unwrap());
        until("the session", || fs::read_to_string(&out).unwrap().contains(says).then_some(()));
        running
    };
    let (mut cut, mut stays) = (session(&client.by(&mine), "cut"), session(&client.by(&other), "stays"));
    let shown = renter.json(&["ssh-key", "remove", &lease, "mine"]);
    assert_eq!(shown["keys"].as_array().unwrap().len(), 2, "{shown:#}");
    let code = until("its session is cut", || cut.0.try_wait().unwrap());
    assert_eq!(code.code(), Some(255));
    assert!(!gets_in(&mine) && gets_in(&other));
    assert!(stays.0.try_wait().unwrap().is_none());
    host.kill();
    host.start();
    renter.meets(&host);
    until("the host serves SSH again", || (client.ssh(&["job", "true"], &[]).code == 0).then_some(()));
    assert!(!gets_in(&mine) && gets_in(&other));

    // Neither the rental's own nor one that isn't there is removed; nobody else changes anything.
    let own = shown["keys"].as_array().unwrap().iter().find(|k| k["own"] == true).unwrap()["fingerprint"].clone();
    assert_eq!(renter.refused(&["ssh-key", "remove", &lease, own.as_str().unwrap()]).0, "bad_request");
    assert_eq!(renter.refused(&["ssh-key", "remove", &lease, "mine"]).0, "not_found");
    assert_eq!(host.refused(&["ssh-key", "list", &lease]).0, "wrong_state");

    // The end of the lease is the end of its list.
    let list = host.dir().join("ssh-keys").join(&lease);
    assert!(list.exists());
    let _ = renter.json(&["destroy", "-y", &lease]);
    until("the list is gone", || (!list.exists()).then_some(()));
    assert_eq!(renter.refused(&["ssh-key", "list", &lease]).0, "wrong_state");
}
