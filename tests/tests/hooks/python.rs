//! The receiver that `docs/hooks.md` shows, run as it stands there.

use std::{fs, net::TcpListener, path::Path, process::Stdio};

use souk_tests::{
    part::have,
    program::{mortal, run},
    wait::until,
    world::World,
};

#[test]
fn the_documented_receiver_takes_ours_and_no_others() {
    if !have("python3") {
        return;
    }
    let mut probe = std::process::Command::new("python3");
    if run(probe.args(["-c", "import cryptography"]), &[]).code != 0 {
        println!("skipped: python3's cryptography is absent");
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hooks.md");
    let text = fs::read_to_string(docs).unwrap();
    let code = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let world = World::new();
    let script = world.path().join("receiver.py");
    fs::write(&script, code).unwrap();
    let node = world.node("node").start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |key: &str, port: u16| {
        let mut command = mortal(Path::new("/usr/bin/env"));
        command.args(["python3", script.to_str().unwrap(), key, &port.to_string()]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        child
    };
    let key = node.json(&["hook", "list"])["public_key"].as_str().unwrap().to_owned();
    let mut ours = start(&key, port);
    let _ = node.json(&["hook", "add", "all", &format!("http://127.0.0.1:{port}/"), "--name", "python"]);
    assert_eq!(node.json(&["hook", "test", "python"])["code"], 204);
    ours.kill().unwrap();
    ours.wait().unwrap();

    // One that waits for another node's events.
    let stranger = world.node("stranger").start();
    let key = stranger.json(&["hook", "list"])["public_key"].as_str().unwrap().to_owned();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut theirs = start(&key, port);
    let _ = node.json(&["hook", "add", "all", &format!("http://127.0.0.1:{port}/"), "--name", "stranger"]);
    let told = node.souk(&["hook", "test", "stranger"], &[]);
    theirs.kill().unwrap();
    theirs.wait().unwrap();
    assert!(told.code == 1 && told.out.contains("answered 401"), "{}", told.out);
}
