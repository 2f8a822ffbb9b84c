//! Hooks of real nodes: events reach receivers and programs, signed, through failures and kills, and rogue receivers harm nobody.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod hostile;
mod life;
mod python;
mod receiver;
mod tls;

use std::{fs, net::TcpListener, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, VerifyingKey};
use receiver::{Received, Receiver};
use serde_json::Value;
use souk_protocol::NodeId;
use souk_tests::{node::Node, wait::until, world::World};

/// A host whose container engine is not there: a real event, without containers.
fn engineless(world: &World) -> Node {
    let socket = world.path().join("no-engine.sock");
    world.node("host").host(1, "1.00").env("SOUK_RUNTIME_DOCKER_SOCKET", socket.to_str().unwrap()).start()
}

/// Checks a webhook as a receiver does, with nothing but the node's peer id.
fn signed_by(node: &Node, got: &Received) -> bool {
    let key: NodeId = node.id.parse().unwrap();
    let key = VerifyingKey::from_bytes(&key.0).unwrap();
    let signature = got.header("webhook-signature").strip_prefix("v1a,").unwrap();
    let signature = Signature::from_slice(&STANDARD.decode(signature).unwrap()).unwrap();
    let mut content = format!("{}.{}.", got.header("webhook-id"), got.header("webhook-timestamp")).into_bytes();
    content.extend_from_slice(&got.body);
    key.verify_strict(&content, &signature).is_ok()
}

fn hook(node: &Node, name: &str) -> Value {
    let list = node.json(&["hook", "list"]);
    let hooks = list["hooks"].as_array().unwrap();
    hooks.iter().find(|h| h["name"] == name).unwrap_or_else(|| panic!("no hook {name}: {list:#}")).clone()
}

fn waiting(dir: &Path) -> Vec<Value> {
    let files = fs::read_dir(dir.join("hooks/queue")).into_iter().flatten().flatten();
    files.filter_map(|f| serde_json::from_slice(&fs::read(f.path()).ok()?).ok()).collect()
}

#[test]
fn an_event_is_sent_until_it_is_taken_and_its_signature_holds() {
    let world = World::new();
    let node = engineless(&world);
    let receiver = Receiver::start(&[500, 503]);
    let url = format!("http://me:s3cret-pass@{}/s3cret-path?s3cret=query", receiver.address);
    let added = node.json(&["hook", "add", "engine_down", &url, "--name", "pager"]);
    assert_eq!((&added["name"], &added["kind"]), (&Value::from("pager"), &Value::from("webhook")));

    let got = until("it was taken", || Some(receiver.got()).filter(|got| got.len() >= 3));
    let taken = until("the node knows", || Some(hook(&node, "pager")).filter(|h| h["delivered"] == 1));
    assert_eq!(receiver.got().len(), 3, "taken is taken");
    let first = got[0].json();
    assert_eq!((first["event"].as_str(), first["node"].as_str()), (Some("engine_down"), Some(node.id.as_str())));
    assert!(first["time"].as_str().unwrap().ends_with('Z') && first["machine"].is_string(), "{first:#}");
    for one in &got {
        assert!(signed_by(&node, one), "{one:?}");
        assert_eq!((&one.body, one.header("webhook-id")), (&got[0].body, first["id"].as_str().unwrap()));
        assert_eq!(one.path, "/s3cret-path?s3cret=query");
        let pair = one.header("authorization").strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(pair).unwrap(), b"me:s3cret-pass");
    }
    let mut forged = got[2].clone();
    forged.body[10] ^= 1;
    assert!(!signed_by(&node, &forged));
    let key: NodeId = node.id.parse().unwrap();
    assert_eq!(node.json(&["hook", "list"])["public_key"], format!("whpk_{}", STANDARD.encode(key.0)));

    // What became of it is kept; where it went is nobody's business.
    let log = node.json(&["hook", "log", "pager"]);
    let codes: Vec<_> = log.as_array().unwrap().iter().map(|l| l["code"].as_u64().unwrap()).collect();
    assert_eq!(codes, [500, 503, 200], "{log:#}");
    assert_eq!(log[2]["output"], "thank you");
    let logged = fs::read_to_string(node.dir().join("hooks/log.jsonl")).unwrap();
    for (what, text) in
        [("list", taken.to_string()), ("added", added.to_string()), ("log", logged), ("node", node.log())]
    {
        assert!(!text.contains("s3cret"), "the {what} shows it: {text}");
    }
    assert!(waiting(node.dir()).is_empty());
}

#[test]
fn a_kill_loses_no_event_and_its_id_stays() {
    let world = World::new();
    let mut node = engineless(&world);
    // Nobody listens there yet.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _ = node.json(&["hook", "add", "all", &format!("http://{address}/")]);
    let kept = until("an event waits", || waiting(node.dir()).pop());
    assert!(
        until("it was tried", || (hook(&node, "hook1")["last"]["outcome"].as_str()).map(str::to_owned))
            .contains("connect")
    );
    node.kill();
    let receiver = Receiver::on(address, &[], None);
    node.start();
    let got = until("it was delivered", || receiver.got().pop());
    assert_eq!(got.header("webhook-id"), kept["event"].as_str().unwrap());
    assert_eq!(got.body, kept["body"].as_str().unwrap().as_bytes());
    assert!(signed_by(&node, &got));
    until("nothing waits any more", || waiting(node.dir()).is_empty().then_some(()));

    // A second kill finds nothing to tell again: the engine is as it was.
    node.kill();
    node.start();
    let _ = node.json(&["hook", "test", "hook1"]);
    assert_eq!(receiver.events().iter().filter(|e| *e == "engine_down").count(), 1, "{:?}", receiver.events());
}

#[test]
fn a_program_gets_the_event_and_what_it_says_is_kept() {
    let world = World::new();
    let node = engineless(&world);
    let file = world.path().join("event");
    let line = format!("cat > {0}.new; mv {0}.new {0}; echo \"$SOUK_EVENT $SOUK_NODE\"; exit 7", file.display());
    let _ = node.json(&["hook", "add", "engine_down", "--name", "script", "--", "/bin/sh", "-c", &line]);
    let text = until("it has run", || fs::read_to_string(&file).ok());
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["event"], "engine_down");
    let last =
        until("it is known to have ended", || Some(hook(&node, "script")["last"].clone()).filter(|l| l.is_object()));
    assert_eq!((last["code"].as_u64(), last["delivered"].as_bool()), (Some(7), Some(false)), "{last:#}");
    assert_eq!(last["output"], format!("engine_down {}\n", node.id));
    assert!(last["next_ms"].is_null(), "a program that has run is not run again");

    // A test shows its answer; a shell's words are split, and no shell looks at them.
    let _ = node.json(&["hook", "add", "rented", "/bin/echo 'two  words' $HOME", "--name", "echo"]);
    let told = node.json(&["hook", "test", "echo"]);
    assert_eq!((told["event"].as_str(), told["output"].as_str()), (Some("test"), Some("two  words $HOME\n")));
    let failed = node.souk(&["hook", "test", "script"], &[]);
    assert_eq!(failed.code, 1, "{}", failed.out);

    let removed = node.json(&["hook", "remove", "script", "echo"]);
    assert_eq!(removed.as_array().unwrap().len(), 2);
    assert_eq!(node.json(&["hook", "list"])["hooks"], serde_json::json!([]));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason() {
    let world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = world.node("node").env("SOUK_API_TCP", &port.to_string()).start();
    for (arguments, word) in [
        (&["hook", "add", "all", "ftp://example/"][..], "https or http"),
        (&["hook", "add", "all", "./script"], "relative"),
        (&["hook", "add", "all", "no-such-program-anywhere"], "no program"),
        (&["hook", "add", "all", "http://127.0.0.1:1/", "--name", "A b"], "a-z"),
        (&["hook", "remove", "nobody"], "no hook `nobody`"),
        (&["hook", "test", "nobody"], "no hook `nobody`"),
        (&["hook", "log", "nobody"], "no hook `nobody`"),
    ] {
        let (_, message) = node.refused(arguments);
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
    let misspelt = node.souk(&["hook", "add", "outbit", "http://127.0.0.1:1/"], &[]);
    assert_eq!(misspelt.code, 2);
    assert!(misspelt.err.contains("did you mean outbid?"), "{}", misspelt.err);
    let _ = node.json(&["hook", "add", "all", "http://127.0.0.1:1/", "--name", "one"]);
    assert!(node.refused(&["hook", "add", "all", "http://127.0.0.1:1/", "--name", "one"]).1.contains("already"));
    for n in 1..32 {
        let _ = node.json(&["hook", "add", "outbid", "http://127.0.0.1:1/", "--name", &format!("n{n}")]);
    }
    assert!(node.refused(&["hook", "add", "all", "http://127.0.0.1:1/"]).1.contains("the most"));

    // Who has the API's token may use the node, and not run programs on it.
    let _ = node.json(&["hook", "remove", "one"]);
    let token = fs::read_to_string(node.dir().join("api.token")).unwrap();
    let ask = |body: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(port).unwrap();
        let (token, length) = (token.trim(), body.len());
        write!(stream, "POST /v1/hooks HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let program = ask(r#"{"events":[],"program":["/bin/true"]}"#);
    assert!(program.starts_with("HTTP/1.1 401") && program.contains("only over the node's socket"), "{program}");
    assert!(ask(r#"{"events":[],"target":"http://127.0.0.1:1/"}"#).starts_with("HTTP/1.1 200"));
}
