//! The program as a person meets it, with no node running.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

fn souk(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SOUK_") {
            command.env_remove(name);
        }
    }
    command.arg("--dir").arg(dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    souk(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for word in words {
        assert!(errors.contains(word), "`{word}` is not in: {errors}");
    }
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn init_twice_changes_nothing() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("deep/er");
    let first = run(&dir, &["init", "--network", "test"]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let files = ["node.key", "machine.id", "config.toml"];
    let read = || files.map(|f| fs::read(dir.join(f)).unwrap());
    let before = read();
    assert_eq!(before[0].len(), 32);

    let second = run(&dir, &["init", "--json"]);
    assert!(second.status.success());
    assert_eq!(read(), before);
    let json: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(json["created"], false);
    assert_eq!(json["network"], "test");
    assert!(text(&first.stdout).contains(json["node"].as_str().unwrap()));

    let other = run(&dir, &["init", "--network", "main"]);
    fails(&other, 1, &["of the network `test` already", "try: "]);
    fails(&run(&dir, &["init", "--network", "No Net"]), 2, &["network.name"]);
    assert_eq!(read(), before);
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_command_that_helps() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    assert!(run(&dir, &["init"]).status.success());
    let mode = |name: &str| {
        let meta = fs::metadata(dir.join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    assert_eq!((mode(""), mode("node.key"), mode("config.toml")), (0o700, 0o600, 0o600));

    let key = dir.join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let chmod = format!("try: chmod 600 {}", key.display());
    for command in ["init", "up"] {
        fails(&run(&dir, &[command]), 1, &["others may read", "0644", &chmod]);
    }
}

#[test]
fn a_damaged_key_is_refused_and_kept() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    assert!(run(&dir, &["init"]).status.success());
    let key = dir.join("node.key");
    fs::write(&key, b"short").unwrap();
    fails(&run(&dir, &["up"]), 1, &["node.key is damaged: it has 5 bytes", "try: "]);
    fails(&run(&dir, &["init"]), 1, &["damaged"]);
    assert_eq!(fs::read(&key).unwrap(), b"short");
}

#[test]
fn a_wrong_configuration_is_named_by_file_and_line() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    assert!(run(&dir, &["init"]).status.success());
    let config = dir.join("config.toml");
    fs::write(&config, "[network]\nname = \"main\"\nbootstrapp = []\n").unwrap();
    let place = format!("{}:3", config.display());
    for args in [&["up"][..], &["status"], &["config", "show"]] {
        fails(&run(&dir, args), 1, &[&place, "did you mean `bootstrap`?"]);
    }
    fs::write(&config, "[network\n").unwrap();
    fails(&run(&dir, &["up"]), 1, &["config.toml:1", "try: "]);

    fs::remove_file(&config).unwrap();
    let wrong = souk(&dir).env("SOUK_HOST_TIK", "1s").args(["config", "show"]).output();
    fails(&wrong.unwrap(), 1, &["SOUK_HOST_TIK", "did you mean SOUK_HOST_TICK?"]);
}

#[test]
fn with_no_node_every_client_command_says_so_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 26] = [
        &["status"],
        &["peers"],
        &["metrics"],
        &["search", "num_gpus>=1"],
        &["rent", "1", "--image", "debian:12"],
        &["ps"],
        &["show", "1"],
        &["events", "1"],
        &["logs", "1"],
        &["stop", "1"],
        &["destroy", "-y", "1"],
        &["receipts"],
        &["ledger", "check"],
        &["ledger", "compact"],
        &["host", "show"],
        &["quote", "1"],
        &["bid", "1", "0.2"],
        &["extend", "1", "3h"],
        &["max-spend", "1", "none"],
        &["host", "hold", "1"],
        &["host", "maintenance", "list"],
        &["host", "price", "--price", "0"],
        &["market", "RTX 4090"],
        &["open", "--print", "1"],
        &["template", "new", "x", "--from", "1"],
        &["down"],
    ];
    for args in commands {
        fails(&run(dir.path(), args), 1, &["error: no node is running for", "try: souk up -d"]);
        let json = run(dir.path(), &[args, &["--json"]].concat());
        assert_eq!(json.status.code(), Some(1));
        let error: serde_json::Value = serde_json::from_slice(&json.stderr).unwrap();
        assert_eq!(error["error"]["code"], "unavailable", "{args:?}");
        assert!(json.stdout.is_empty());
    }
    // The code is the command's own there, so souk's failure has one apart.
    fails(&run(dir.path(), &["exec", "1", "--", "true"]), 125, &["no node is running"]);
}

#[test]
fn bad_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &["--frobnicate"][..],
        &["serach"],
        &["rent", "1"],
        &["rent", "1", "--image", "x", "--price", "cheap"],
        &["rent", "1", "--image", "x", "--for", "forever"],
        &["rent", "1", "--image", "x", "--env", "=v"],
        &["rent", "1", "--image", "x", "--env", "SURELY_UNSET_HERE"],
        &["exec", "1"],
        &["exec", "--env", "=v", "1", "true"],
        &["logs", "--since", "yesterday", "1"],
        &["host", "accept", "somebody"],
        &["host", "list", "--slots", "0"],
        &["host", "list", "--until", "christmas"],
        &["host", "hold", "999"],
        &["host", "maintenance", "add", "soon", "1h"],
        &["extend", "1"],
        &["extend", "1", "3h", "--accept"],
        &["extend", "1", "--auto", "maybe"],
        &["max-spend", "1", "lots"],
        &["rent", "1", "--image", "x", "--bid", "1", "--price", "1"],
        &["host", "price", "--strategy", "greedy"],
        &["host", "price", "--price", "99999999999999999999"],
        &["host", "price", "--reserved-discount", "101"],
        &["host", "earnings", "--days", "3", "--from", "2026-11-01"],
        &["host", "earnings", "--days", "0"],
        &["ps", "--before", "7"],
        &["events", "--limit", "0"],
        &["completions", "tcsh"],
    ] {
        fails(&run(dir.path(), args), 2, &["error: "]);
    }
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "and leaves nothing behind");
}

#[test]
fn every_command_has_help_with_an_example_that_parses_as_itself() {
    fn walk(path: &str, command: &clap::Command) {
        let examples = command.get_after_help().map(ToString::to_string);
        let examples = examples.unwrap_or_default();
        assert!(examples.contains("Examples:\n") && examples.contains(path), "{path} has no example");
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!(!about.is_empty(), "{path} does not say what it does");
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{path} {} has no help", argument.get_id());
        }
        for sub in command.get_subcommands() {
            walk(&format!("{path} {}", sub.get_name()), sub);
        }
    }
    let grammar = souk::cli::grammar();
    grammar.clone().debug_assert();
    walk("souk", &grammar);

    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), &["rent", "--help"]);
    assert!(help.status.success());
    assert!(text(&help.stdout).contains("--max-spend"));
}

#[test]
fn what_needs_no_node_prints_json_too() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["version"][..], &["config", "show"], &["config", "path"], &["init"]] {
        let output = run(&dir.path().join("n"), &[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(value.is_object());
    }
    let shown = run(dir.path(), &["config", "show"]);
    let config: souk::config::Config = toml::from_str(&text(&shown.stdout)).unwrap();
    assert_eq!(config, souk::config::Config::default());
}

#[test]
fn completions_are_printed_and_a_reader_that_leaves_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(dir.path(), &["completions", shell]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("souk"));
    }
    let mut child =
        souk(dir.path()).args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_directory_comes_from_the_flag_then_the_variable_then_the_home() {
    let home = tempfile::tempdir().unwrap();
    let path = |command: &mut Command| {
        let output = command.args(["config", "path"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let bare = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
        command.env_clear().env("HOME", home.path());
        command
    };
    let at = |p: &str| home.path().join(p).join("config.toml").display().to_string();
    assert_eq!(path(&mut bare()), at(".local/share/souk"));
    assert_eq!(path(bare().env("XDG_DATA_HOME", home.path().join("x"))), at("x/souk"));
    assert_eq!(path(bare().env("SOUK_DIR", home.path().join("v"))), at("v"));
    let mut flag = bare();
    flag.env("SOUK_DIR", home.path().join("v"));
    assert_eq!(path(flag.arg("--dir").arg(home.path().join("f"))), at("f"));
}

#[test]
fn a_second_node_on_one_directory_is_refused() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    assert!(run(&dir, &["init"]).status.success());
    let lock = souk_ledger::lock::DirectoryLock::acquire(&dir).unwrap();
    let holder = format!("process {}", std::process::id());
    fails(&run(&dir, &["up"]), 1, &["another node is running in", &holder, "try: "]);
    // In the background too: its last words come from the log.
    fails(&run(&dir, &["up", "-d"]), 1, &["another node is running in", "try: "]);
    drop(lock);
}

#[test]
fn verify_tells_valid_from_cut_from_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x");
    let name = file.display().to_string();
    fails(&run(dir.path(), &["verify", &name]), 2, &["can't read"]);
    fs::write(&file, b"").unwrap();
    let cut = run(dir.path(), &["verify", &name, "--json"]);
    assert_eq!(cut.status.code(), Some(6));
    let json: serde_json::Value = serde_json::from_slice(&cut.stdout).unwrap();
    assert_eq!(json["verdict"], "incomplete");
    fs::write(&file, [0xff; 64]).unwrap();
    let wrong = run(dir.path(), &["verify", &name]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stdout).starts_with("invalid: "), "{}", text(&wrong.stdout));
}
