//! The provisioning script, fetched from a real HTTP server by what the image has for that, and run.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

const GUEST: &str = env!("CARGO_BIN_EXE_souk-guest");

/// Serves this text to as many as ask, and gives its address.
fn serve(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    format!("http://{address}/p.sh")
}

fn provision(folder: &Path, script: &str) -> (Output, bool) {
    let (place, done) = (folder.join("provisioning.sh"), folder.join("provisioned"));
    let mut command = Command::new(GUEST);
    command.arg("provision").args([&place, &done]).env("PROVISIONING_SCRIPT", script).env("HERE", folder);
    let output = command.output().unwrap();
    (output, fs::read_to_string(done).is_ok_and(|text| text == script))
}

#[test]
fn a_script_is_fetched_run_and_remembered_only_if_it_went_well() {
    let fetcher = ["curl", "wget"].iter().any(|name| Command::new(name).arg("--version").output().is_ok());
    if !fetcher {
        // As the harness of the scenarios says it, which this crate does not use.
        let _ = writeln!(std::io::stdout(), "skipped: neither curl nor wget is here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let good = serve("#!/bin/sh\necho provisioned\necho x >> $HERE/ran\n");
    let (output, done) = provision(folder.path(), &good);
    assert!(output.status.success() && done, "{output:?}");
    assert_eq!(output.stdout, b"provisioned\n");
    assert_eq!(fs::read_to_string(folder.path().join("ran")).unwrap(), "x\n");

    let bad = serve("#!/bin/sh\nexit 4\n");
    let (output, done) = provision(folder.path(), &bad);
    assert!(output.status.code() == Some(4) && !done, "{output:?}");

    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (output, done) = provision(folder.path(), &format!("http://127.0.0.1:{port}/none.sh"));
    assert!(output.status.code() == Some(1) && !done, "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't be fetched"), "{output:?}");

    let own = folder.path().join("own.sh");
    fs::write(&own, "echo own\n").unwrap();
    let (output, done) = provision(folder.path(), own.to_str().unwrap());
    assert!(output.stdout == b"own\n" && done, "{output:?}");
}
