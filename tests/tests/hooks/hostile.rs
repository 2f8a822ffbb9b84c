//! Receivers that mean harm: they get an event, a few seconds and a few kilobytes, and no more.

use std::io::Write;

use serde_json::Value;
use souk_tests::{node::Node, wait::until, world::World};

use crate::{
    engineless, hook,
    receiver::{Receiver, rogue},
};

fn forever(out: &mut dyn Write, head: &str, piece: &[u8]) {
    let mut alive = out.write_all(head.as_bytes()).is_ok();
    while alive {
        alive = out.write_all(piece).is_ok();
    }
}

fn endless_body(out: &mut dyn Write) {
    forever(out, "HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 8192]);
}

fn endless_head(out: &mut dyn Write) {
    forever(out, "HTTP/1.1 200 OK\r\n", b"x-more: and more and more and more\r\n");
}

fn slow_head(out: &mut dyn Write) {
    let mut alive = out.write_all(b"HTTP/1.1 200 OK\r\nx-slow: ").is_ok();
    while alive {
        std::thread::sleep(std::time::Duration::from_millis(200));
        alive = out.write_all(b"z").and_then(|()| out.flush()).is_ok();
    }
}

fn nonsense(out: &mut dyn Write) {
    let _ = out.write_all(b"SSH-2.0-OpenSSH_9\r\n\r\n\0\0\0");
}

fn escapes(out: &mut dyn Write) {
    let _ = out.write_all(b"HTTP/1.1 400 Bad\r\ncontent-length: 12\r\n\r\n\x1b[2Jhello\x07\r\n");
}

fn test(node: &Node, name: &str, url: &str) -> Value {
    let _ = node.json(&["hook", "add", "rented", url, "--name", name]);
    let outcome = node.souk(&["hook", "test", name], &[]);
    serde_json::from_str(&outcome.out).unwrap_or_else(|e| panic!("{e}: {}{}", outcome.out, outcome.err))
}

#[test]
fn rogue_receivers_are_cut_off_and_hold_up_nobody() {
    let world = World::new();
    let node = world.node("node").start();
    let url = |address| format!("http://{address}/");

    let told = test(&node, "endless-body", &url(rogue(endless_body)));
    assert_eq!((told["delivered"].as_bool(), told["output"].as_str().unwrap().len()), (Some(true), 4096));
    let told = test(&node, "endless-head", &url(rogue(endless_head)));
    assert!(told["outcome"].as_str().unwrap().contains("head is too large"), "{told:#}");
    let told = test(&node, "nonsense", &url(rogue(nonsense)));
    assert!(told["outcome"].as_str().unwrap().contains("not HTTP"), "{told:#}");
    let told = test(&node, "silent", &url(rogue(|_| {})));
    assert!(told["outcome"].as_str().unwrap().contains("without an answer"), "{told:#}");

    // Slow in the head: ten seconds, while others are served.
    let _ = node.json(&["hook", "add", "rented", &url(rogue(slow_head)), "--name", "slow"]);
    let good = Receiver::start(&[]);
    let slow = node.command(&["hook", "test", "slow"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    assert_eq!(test(&node, "good", &url(good.address))["code"], 200);
    let told: Value = serde_json::from_slice(&slow.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(told["outcome"], "no answer within 10 s", "{told:#}");

    // A redirect leads nowhere.
    let moved = rogue_redirect(good.address);
    let before = good.got().len();
    let told = test(&node, "moved", &url(moved));
    assert!(told["outcome"].as_str().unwrap().contains("redirects are not followed"), "{told:#}");
    assert_eq!(good.got().len(), before);

    // What it says can't move a terminal's cursor.
    let _ = test(&node, "escapes", &url(rogue(escapes)));
    let mut command = std::process::Command::new(souk_tests::program::souk());
    command.arg("--dir").arg(node.dir()).args(["hook", "log", "escapes"]);
    let shown = souk_tests::program::run(&mut command, &[]).ok();
    assert!(shown.contains("hello") && !shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown:?}");
}

fn rogue_redirect(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut some = [0; 1024];
            let _ = std::io::Read::read(&mut stream, &mut some);
            let _ = write!(stream, "HTTP/1.1 307 Moved\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn one_that_says_it_is_gone_is_left_alone_until_it_takes_a_test() {
    let world = World::new();
    let node = engineless(&world);
    let receiver = Receiver::start(&[410]);
    let _ = node.json(&["hook", "add", "engine_down", &format!("http://{}/", receiver.address), "--name", "gone"]);
    let off = until("it is off", || Some(hook(&node, "gone")).filter(|h| h["disabled"].is_string()));
    assert_eq!((off["waiting"].as_u64(), receiver.got().len()), (Some(0), 1));
    assert_eq!(node.json(&["hook", "test", "gone"])["code"], 200);
    assert!(hook(&node, "gone")["disabled"].is_null());
}
