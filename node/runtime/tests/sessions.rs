//! Logs and execs: order, times, codes, terminals, and that nothing outlives its session.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use futures::StreamExt as _;
use souk_runtime::{ExecSpec, FailureCode, LogOptions, Runtime, RuntimeError};
use support::{DEADLINE, World, have};

fn exec(words: &[&str]) -> ExecSpec {
    ExecSpec { command: words.iter().map(|word| (*word).to_owned()).collect(), ..ExecSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_continue_without_gap_or_repeat() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let script = "for i in 1 2 3; do echo line $i; done; until [ -e /data/go ]; do sleep 0.05; done; echo line 4; echo line 5 >&2";
    let spec = world.spec("logs", &["sh", "-c", script]).await;
    world.start(&spec).await;
    world.log_has(&spec.lease, "line 3").await;
    let tail = LogOptions { tail: Some(1), ..LogOptions::default() };
    assert_eq!(world.logs(&spec.lease, tail).await.0, "line 3\n");
    let mut last = 0;
    let mut first = world.runtime.logs(&spec.lease, LogOptions::default()).await.unwrap();
    while let Some(chunk) = first.next().await {
        let at = chunk.unwrap().at;
        assert!(at >= last);
        last = at;
    }
    let follow = LogOptions { follow: true, since: Some(last), tail: None };
    let stream = world.runtime.logs(&spec.lease, follow).await.unwrap();
    world.shell(&spec.lease, "touch /data/go").await;
    let rest: Vec<_> = tokio::time::timeout(DEADLINE, stream.collect::<Vec<_>>()).await.unwrap();
    let text: Vec<String> =
        rest.into_iter().map(|chunk| String::from_utf8_lossy(&chunk.unwrap().bytes).into_owned()).collect();
    let mut text = text;
    text.sort();
    assert_eq!(text, ["line 4\n", "line 5\n"]);
    world.exited(&spec.lease).await;
    assert!(matches!(
        world.runtime.exec(&spec.lease, exec(&["true"])).await,
        Err(RuntimeError::Engine(FailureCode::InstanceGone))
    ));
    world.destroy(&spec.lease).await;
    assert!(world.runtime.logs(&spec.lease, LogOptions::default()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execs_pass_input_output_and_codes() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let spec = world.spec("exec", &["sleep", "1000"]).await;
    world.start(&spec).await;
    for (line, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("no-such-thing", 127)]
    {
        assert_eq!(world.shell(&spec.lease, line).await.0, code, "{line}");
    }
    let (_, out, err) = world.shell(&spec.lease, "echo a; echo b >&2").await;
    assert_eq!((out.as_str(), err.as_str()), ("a\n", "b\n"));

    // More input than any buffer on the way holds, and the end of it.
    let mut session = world.runtime.exec(&spec.lease, ExecSpec { stdin: true, ..exec(&["md5sum"]) }).await.unwrap();
    let block = vec![b'z'; 1 << 20];
    for _ in 0..8 {
        session.input.write(&block).await.unwrap();
    }
    session.input.close().await.unwrap();
    let mut out = Vec::new();
    while let Some(item) = session.output.next().await {
        out.extend_from_slice(&item.unwrap().1);
    }
    assert_eq!(String::from_utf8_lossy(&out), format!("{}  -\n", md5(8 << 20)));
    assert_eq!(session.control.exit_code().await.unwrap(), 0);

    // A terminal: its size, its bytes as they are.
    let spec_of = ExecSpec {
        terminal: true,
        size: Some((31, 97)),
        env: vec![("GREETING".into(), "hi".into())],
        user: Some("guest".into()),
        workdir: Some("/tmp".into()),
        stdin: true,
        ..exec(&[
            "sh",
            "-c",
            "read x; stty size; id -un; echo $GREETING; pwd; printf '\\001\\000\\000\\000\\377\\377\\377\\377end'",
        ])
    };
    let mut session = world.runtime.exec(&spec.lease, spec_of).await.unwrap();
    session.input.write(b"\n").await.unwrap();
    let mut out = Vec::new();
    let read = async {
        while let Some(item) = session.output.next().await {
            out.extend_from_slice(&item.unwrap().1);
        }
    };
    tokio::time::timeout(DEADLINE, read).await.unwrap();
    let text = String::from_utf8_lossy(&out).replace('\r', "");
    assert!(text.contains("31 97\nguest\nhi\n/tmp\n"), "{text:?}");
    assert!(out.ends_with(b"\x01\0\0\0\xff\xff\xff\xffend"), "{out:?}");
    world.destroy(&spec.lease).await;
}

fn md5(length: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, vec![b'z'; length]).unwrap();
    support::run("md5sum", &[file.to_str().unwrap()]).split(' ').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_ends_with_its_session() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let spec = world.spec("leave", &["sleep", "1000"]).await;
    world.start(&spec).await;
    let stubborn = "(trap '' HUP; exec sleep 4444) & trap 'echo no' HUP; sleep 3333; sleep 2222";
    let session = world.runtime.exec(&spec.lease, exec(&["sh", "-c", stubborn])).await.unwrap();
    let until = |wanted: bool, what: &str| {
        let world = &world;
        let (lease, what) = (spec.lease.clone(), what.to_owned());
        async move {
            let end = std::time::Instant::now() + DEADLINE;
            loop {
                let (_, out, _) = world.shell(&lease, "ps -o args").await;
                if out.lines().any(|line| line.trim() == what) == wanted {
                    return out;
                }
                assert!(std::time::Instant::now() < end, "{what} {wanted}: {out}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    };
    until(true, "sleep 3333").await;
    until(true, "sleep 4444").await;
    drop(session);
    until(false, "sleep 3333").await;
    until(false, "sleep 2222").await;
    let left = until(false, &format!("sh -c {stubborn}")).await;
    // What was told to outlive its session does.
    assert!(left.contains("sleep 4444"), "{left}");
    world.destroy(&spec.lease).await;
}
