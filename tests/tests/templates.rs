//! Templates between two real nodes: made, shared, rented with, and made of a lease.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, process::Command};

use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program::{Outcome, run, souk},
    wait::until,
    world::{World, lease_of},
};

const IDLE: &str = "echo $GREETING $SECRET; while :; do sleep 1; done";

/// A command as a person sees it, without JSON.
fn plainly(node: &Node, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(souk());
    command.arg("--dir").arg(node.dir()).args(arguments).env("SOUK_NETWORK_NAME", node.variable("SOUK_NETWORK_NAME"));
    // A variable of the shell that a template might name.
    run(command.env("SECRET", "of the shell"), &[])
}

fn logs(node: &Node, lease: &str, words: &str) {
    until(&format!("`{words}` in the logs"), || node.souk(&["logs", lease], &[]).out.contains(words).then_some(()));
}

#[test]
fn a_shared_template_rents_what_it_says_and_what_its_renter_says() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let maker = world.node("maker").stopped();
    let made = maker.json(&[
        "template",
        "new",
        "greet",
        "--image",
        BUSYBOX,
        "--disk",
        "1",
        "--query",
        "num_gpus=0",
        "--user",
        "guest",
        "-e",
        "GREETING=hello",
        "-e",
        "SECRET",
        "--description",
        "says hello",
        "--",
        "sh",
        "-c",
        IDLE,
    ]);
    let file = world.path().join("greet.json").display().to_string();
    let exported = maker.json(&["template", "export", "greet", &file]);
    assert_eq!((&exported["id"], made["name"].as_str()), (&made["id"], Some("greet")));
    let id = blake3::hash(&fs::read(&file).unwrap()).to_hex().to_string();
    assert_eq!(made["id"], id.as_str());

    // Whoever gets it sees what it does, and nothing of the maker's shell.
    let shown = plainly(&renter, &["template", "show", &file]).ok();
    for words in [&id, "says hello", IDLE, "GREETING=hello", "asks for", "SECRET", "num_gpus=0", "1.0 GB"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains("of the shell"), "{shown}");
    assert_eq!(renter.json(&["template", "import", "--name", "hello", &file])["id"], id.as_str());
    assert_eq!(renter.json(&["template", "list"])[0]["name"], "hello");

    // Its conditions find machines; what isn't supplied isn't taken from the shell.
    let ask = renter.ask_of(&host, 1);
    let found = renter.json(&["search", "--all", "--template", "hello", "dph<100"]);
    assert!(found["rows"].as_array().unwrap().iter().any(|row| row["id"] == ask.as_str()), "{found:#}");
    assert!(renter.json(&["search", "--template", "hello", "dph>100"])["rows"].as_array().unwrap().is_empty());
    let missing = plainly(&renter, &["rent", &ask, "--template", "hello", "-y"]);
    assert!(missing.code == 2 && missing.err.contains("-e SECRET=VALUE"), "{}{}", missing.out, missing.err);

    // By its id, at a certain machine, with a value for this rental and another label.
    let arguments = ["rent", &ask, "--template", &id[..8], "-y", "-e", "SECRET=42", "--label", "first"];
    let outcome = renter.souk(&arguments, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = lease_of(&outcome.lines());
    logs(&renter, &lease, "hello 42");
    assert_eq!(renter.souk(&["exec", &lease, "--", "id", "-u"], &[]).out.trim(), "1000");

    // The best match, in a run of another command; what the renter says goes before.
    let options =
        ["run", "--template", "hello", "--wait", "90s", "-e", "SECRET=x", "-e", "GREETING=bye", "-q", "--", "sh", "-c"];
    let ran = plainly(&renter, &[options.as_slice(), &["echo $GREETING $SECRET; exit 7"]].concat());
    assert_eq!((ran.code, ran.out.as_str()), (7, "bye x\n"), "{}", ran.err);

    // What a lease runs, without the values of its variables.
    let _ = renter.json(&["template", "new", "again", "--from", "first", "--query", "num_gpus=0"]);
    let again = renter.json(&["template", "show", "again"])["template"].clone();
    assert_eq!((again["image"].as_str(), again["user"].as_str()), (Some(BUSYBOX), Some("guest")));
    assert_eq!(again["command"][2], IDLE);
    assert!(again["env"]["SECRET"].is_null() && again["env"]["GREETING"].is_null(), "{again:#}");
    let kept = renter.dir().join("templates/again.json");
    assert!(!fs::read_to_string(kept).unwrap().contains("42"));
    let (code, _) = host.refused(&["template", "new", "stolen", "--from", &lease]);
    assert!(["wrong_state", "not_found"].contains(&code.as_str()), "{code}");
    let _ = renter.json(&["destroy", "-y", &lease]);

    // By its conditions alone.
    let outcome = renter.souk(&["rent", "--template", "again", "-y", "-e", "SECRET=1", "-e", "GREETING=found"], &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = outcome.json()["lease"].as_str().unwrap().to_owned();
    logs(&renter, &lease, "found 1");
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn a_foreign_template_is_refused_or_harmless() {
    let world = World::new();
    let node = world.node("node").stopped();
    let file = world.path().join("foreign.json");
    let place = file.display().to_string();
    let refused = [
        "{}",
        "[1]",
        "\u{1b}[2J",
        r#"{"souk_template":2,"image":"debian:12"}"#,
        r#"{"souk_template":1,"image":"debian:12","max_spend":"1000"}"#,
        r#"{"souk_template":1,"image":"../../etc"}"#,
        r#"{"souk_template":1,"image":"debian:12","query":"rm -rf /"}"#,
    ];
    for text in refused {
        fs::write(&file, text).unwrap();
        let (code, sentence) = node.refused(&["template", "import", &place]);
        assert!(code == "bad_request" && sentence.contains("foreign.json"), "{text}: {code} {sentence}");
        let shown = plainly(&node, &["template", "show", &place]);
        assert!(shown.code != 0 && !shown.err.contains('\u{1b}'), "{}", shown.err);
    }
    fs::write(&file, vec![b' '; 10_000_000]).unwrap();
    let (_, sentence) = node.refused(&["template", "show", &place]);
    assert!(sentence.contains("256 KiB"), "{sentence}");
    let (_, sentence) = node.refused(&["template", "show", "/dev/zero"]);
    assert!(sentence.contains("no file"), "{sentence}");
    for name in ["/etc/passwd/x", "nothing", "0123abcd"] {
        let _ = node.refused(&["template", "show", name]);
    }
    fs::write(&file, r#"{"souk_template":1,"image":"debian:12","command":["sh","-c","\u001b[1Aecho \u202egnp.exe"]}"#)
        .unwrap();
    let shown = plainly(&node, &["template", "show", &place]).ok();
    assert!(shown.contains("?[1Aecho ?gnp.exe"), "{shown}");

    // What is each renter's own to say is refused by name, and money is not made a template of.
    for given in [&["--max-spend", "5"][..], &["--label", "x"], &["--bid", "1"], &["--wait"], &["-y"]] {
        let arguments = [&["template", "new", "mine", "--image", "debian:12"], given].concat();
        let outcome = node.souk(&arguments, &[]);
        assert!(outcome.code == 2 && outcome.err.contains("a template holds no"), "{given:?}: {}", outcome.err);
    }
    let _ = node.json(&["template", "new", "mine", "--image", "debian:12"]);
    let (code, _) = node.refused(&["template", "new", "mine", "--image", "debian:13"]);
    assert_eq!(code, "wrong_state");
    let _ = node.json(&["template", "rm", "mine"]);
    assert!(node.json(&["template", "list"]).as_array().unwrap().is_empty());
}
