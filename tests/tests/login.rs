//! Images from a registry behind a password, with the renter's own login: real nodes, a real registry, a real engine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::Node,
    part::have_all,
    program::Outcome,
    registry::{PASSWORD, Registry, USER},
    wait::until,
    world::{World, lease_of},
};

/// `souk rent` of an image, with these further options and variables.
fn rent(renter: &Node, ask: &str, image: &str, options: &[&str], variables: &[(&str, &str)], input: &str) -> Outcome {
    let fixed = ["rent", ask, "--image", image, "--disk", "1", "-y", "--egress", "none"];
    let mut command = renter.command(&[&fixed, options, &["--", "sh", "-c", "exec sleep 600"]].concat());
    command.env_remove("SOUK_REGISTRY_PASSWORD").env("DOCKER_CONFIG", "/nonexistent");
    command.envs(variables.iter().copied());
    souk_tests::program::run(&mut command, input.as_bytes())
}

/// Files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(holding(&path, text));
        } else if fs::read(&path).unwrap_or_default().windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_private_image_is_pulled_with_the_renters_login_which_the_host_keeps_nowhere() {
    if !have_all(&["docker", "docker-registry"]) {
        return;
    }
    let registry = Registry::with_password();
    let world = World::with_docker();
    let image = registry.push(world.docker(), BUSYBOX, "secret/image:1");
    let node =
        world.node("host").host(2, "1.00").env("SOUK_HOST_REGISTRIES", &registry.name).env("SOUK_LOG_LEVEL", "trace");
    let host = world.watch(node.start());
    let renter = world.node("renter").knows(&host.listen[0]).env("SOUK_LOG_LEVEL", "trace").start();
    let stranger = world.node("stranger").knows(&host.listen[0]).start();
    renter.meets(&host);
    stranger.meets(&host);
    let ask = renter.ask_of(&host, 1);
    let login = format!("{USER}@{}", registry.name);

    // Nobody gets it without, or with a wrong one; and no login goes to a registry that isn't the image's.
    let (code, sentence) = rent(&renter, &ask, &image, &[], &[], "").error();
    assert!(code == "rejected" && sentence.contains("wants a login"), "{code}: {sentence}");
    let wrong = rent(&renter, &ask, &image, &["--login", &login], &[("SOUK_REGISTRY_PASSWORD", "falsch")], "");
    let (code, sentence) = wrong.error();
    assert!(code == "rejected" && sentence.contains("doesn't take this login"), "{code}: {sentence}");
    let elsewhere = format!("{USER}@ghcr.io");
    let other = rent(&renter, &ask, &image, &["--login", &elsewhere, "--password-stdin"], &[], PASSWORD);
    assert_eq!(other.error().0, "bad_request");
    let (code, sentence) = rent(&renter, &ask, &image, &["--login", &login], &[], "").error();
    assert!(sentence.contains("no password"), "{code}: {sentence}");

    // By the variable, by standard input, and by what `docker login` keeps.
    let config = registry.docker_config();
    type Way<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let ways: [Way<'_>; 3] = [
        (&["--login", &login], &[("SOUK_REGISTRY_PASSWORD", PASSWORD)], ""),
        (&["--login", &login, "--password-stdin"], &[], PASSWORD),
        (&["--login", &registry.name], &[("DOCKER_CONFIG", &config)], ""),
    ];
    let mut digest = String::new();
    for (options, variables, input) in ways {
        let outcome = rent(&renter, &renter.ask_of(&host, 1), &image, options, variables, input);
        assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
        let lease = lease_of(&outcome.lines());
        renter.reaches(&lease, "running");
        digest = renter.show(&lease)["image_digest"].as_str().unwrap().to_owned();
        // The engine has it now. It is still the registry's to say who gets it: no digest opens it to another.
        let pinned = format!("{image}@{digest}");
        let (_, sentence) = rent(&stranger, &stranger.ask_of(&host, 1), &pinned, &[], &[], "").error();
        assert!(sentence.contains("wants a login"), "{sentence}");
        until("the renter's own copy is gone once it runs", || {
            fs::read_dir(renter.dir().join("logins")).unwrap().next().is_none().then_some(())
        });
        let _ = renter.json(&["destroy", "-y", &lease]);
        renter.reaches(&lease, "ended destroyed");
    }

    // Neither side has the password in any file, nor the host in its log at the highest level.
    for node in [&host, &renter] {
        assert_eq!(holding(node.dir(), PASSWORD), Vec::<std::path::PathBuf>::new());
        assert!(!node.log().contains(PASSWORD), "the log has the password");
        let encoded = base64(format!("{USER}:{PASSWORD}").as_bytes());
        assert!(!node.log().contains(&encoded));
    }
    let engine_s = Path::new("/root/.docker/config.json");
    assert!(!fs::read_to_string(engine_s).unwrap_or_default().contains(&registry.name));
    nothing_left(world.docker(), &host);
    let name = image.rsplit_once(':').unwrap().0;
    let _ = world.docker().cli(&["rmi", &format!("{name}@{digest}")]);
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32, shift: u32| char::from(LETTERS[(bits >> shift & 63) as usize]);
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part.iter().chain([0, 0].iter()).take(3).fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let all = [digit(bits, 18), digit(bits, 12), digit(bits, 6), digit(bits, 0)];
        text.extend(&all[..=part.len()]);
        text.extend(std::iter::repeat_n('=', 3 - part.len()));
    }
    text
}

#[test]
fn a_host_that_restarts_while_it_pulls_is_given_the_login_again() {
    if !have_all(&["docker", "docker-registry"]) {
        return;
    }
    let registry = Registry::with_password();
    let world = World::with_docker();
    let image = registry.push(world.docker(), BUSYBOX, "secret/again:1");
    let node = world.node("host").host(1, "1.00").env("SOUK_HOST_REGISTRIES", &registry.name);
    let mut host = world.watch(node.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    // Its registry hangs: the host dies in the middle of preparing, and has forgotten the login when it comes back.
    let login = format!("{USER}@{}", registry.name);
    let ask = renter.ask_of(&host, 1);
    let outcome = rent(&renter, &ask, &image, &["--login", &login, "-d"], &[("SOUK_REGISTRY_PASSWORD", PASSWORD)], "");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = lease_of(&outcome.lines());
    host.kill();
    let made = world.docker().containers(&host.id).len();
    host.start();
    renter.meets(&host);
    renter.finds(&lease, "it runs", |l| souk_tests::node::state_of(l) == "running");
    assert!(made <= 1);
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
}
