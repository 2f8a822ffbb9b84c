//! A client in Rust, which can do what OpenSSH's can't be told to: send signals, and read nothing.

use std::{fs, process::Stdio, sync::Arc, time::Duration};

use russh::{
    Channel, ChannelMsg, Sig, client,
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate},
};
use souk_tests::{
    node::Node,
    part::have,
    ssh::Client,
    wait::PATIENCE,
    world::{World, rent},
};
use tokio::process::{Child, Command};

/// Takes the host at the word of the lease, which OpenSSH checks elsewhere.
pub struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

/// A connection to an instance, and the program that carries it.
pub struct Direct {
    pub session: client::Handle<Trusting>,
    _proxy: Child,
}

impl Direct {
    pub async fn to(renter: &Node, lease: &str, client: &Client) -> Self {
        let mut command = Command::from(renter.command(&["ssh-proxy", lease]));
        let mut proxy = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let stream = tokio::io::join(proxy.stdout.take().unwrap(), proxy.stdin.take().unwrap());
        let mut session = client::connect_stream(Arc::new(client::Config::default()), stream, Trusting).await.unwrap();
        let config = fs::read_to_string(&client.config).unwrap();
        let key = config.lines().find_map(|line| line.trim().strip_prefix("IdentityFile ")).unwrap().trim_matches('"');
        let key = PrivateKey::from_openssh(fs::read_to_string(key).unwrap()).unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        assert!(session.authenticate_publickey("souk", key).await.unwrap().success());
        Self { session, _proxy: proxy }
    }

    pub async fn session(&self) -> Channel<client::Msg> {
        self.session.channel_open_session().await.unwrap()
    }
}

/// What a command left behind.
#[derive(Debug, Default)]
pub struct Left {
    pub out: String,
    pub code: Option<u32>,
    pub signal: Option<String>,
}

/// Reads until a text has come, or to the end without one.
pub async fn read(channel: &mut Channel<client::Msg>, until: Option<&str>) -> Left {
    let mut left = Left::default();
    let reading = async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => left.out.push_str(&String::from_utf8_lossy(&data)),
                ChannelMsg::ExitStatus { exit_status } => left.code = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => left.signal = Some(format!("{signal_name:?}")),
                _ => {}
            }
            if until.is_some_and(|text| left.out.contains(text)) {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "waited in vain for {until:?}: {left:?}");
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_command_and_its_end_tells_of_them() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, super::IDLE, &[]);
    let client = Client::of(&renter, &lease, world.path());
    let direct = Direct::to(&renter, &lease, &client).await;

    for (signal, name, code) in [(Sig::TERM, "TERM", 143), (Sig::INT, "INT", 130), (Sig::KILL, "KILL", 137)] {
        // To a program that takes no care of it.
        let mut channel = direct.session().await;
        channel.exec(true, "echo ready; exec sleep 600").await.unwrap();
        read(&mut channel, Some("ready")).await;
        channel.signal(signal.clone()).await.unwrap();
        let left = read(&mut channel, None).await;
        assert_eq!((left.code, left.signal.as_deref()), (Some(code), Some(name)), "{left:?}");
        if name == "KILL" {
            continue;
        }
        // To one that does.
        let mut channel = direct.session().await;
        let line = format!("trap 'echo heard {name}; exit 3' {name}; echo ready; while :; do sleep 0.1; done");
        channel.exec(true, line).await.unwrap();
        read(&mut channel, Some("ready")).await;
        channel.signal(signal).await.unwrap();
        let left = read(&mut channel, None).await;
        assert!(left.out.contains(&format!("heard {name}")), "{left:?}");
        assert_eq!((left.code, left.signal), (Some(3), None));
    }
    // A shell's own 143 is no signal.
    let mut channel = direct.session().await;
    channel.exec(true, "exit 143").await.unwrap();
    let left = read(&mut channel, None).await;
    assert_eq!((left.code, left.signal), (Some(143), None));

    // A terminal: an interactive shell, its size from the first moment and after a change, colours, control characters.
    let mut channel = direct.session().await;
    channel.request_pty(true, "xterm-256color", 101, 33, 0, 0, &[]).await.unwrap();
    channel.request_shell(true).await.unwrap();
    let type_in = async |text: &str| channel.data(text.as_bytes()).await.unwrap();
    type_in("stty size; echo [$TERM]\n").await;
    let mut seen = read(&mut channel, Some("[xterm-256color]")).await.out;
    assert!(seen.contains("33 101"), "{seen}");
    channel.window_change(132, 50, 0, 0).await.unwrap();
    for _ in 0..100 {
        channel.data(&b"echo $(stty size)\n"[..]).await.unwrap();
        seen = read(&mut channel, Some("\n")).await.out;
        seen.push_str(&read(&mut channel, Some("\n")).await.out);
        if seen.contains("50 132") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seen.contains("50 132"), "{seen}");
    channel.data(&b"printf '\\033[31mred\\033[0m\\n'\n"[..]).await.unwrap();
    read(&mut channel, Some("\u{1b}[31mred\u{1b}[0m")).await;
    channel.data(&b"sleep 600\n"[..]).await.unwrap();
    read(&mut channel, Some("sleep 600")).await;
    // Ctrl-C ends the program, not the shell; Ctrl-D the shell.
    channel.data(&b"\x03"[..]).await.unwrap();
    channel.data(&b"echo still-$((40+2))\n"[..]).await.unwrap();
    read(&mut channel, Some("still-42")).await;
    channel.data(&b"exit 5\n"[..]).await.unwrap();
    assert_eq!(read(&mut channel, None).await.code, Some(5));
    let _ = renter.json(&["destroy", "-y", &lease]);
}
