//! An internet in network namespaces: a core that routes, public machines, and homes behind routers with NAT, each on a cable with
//! delay and loss.
//!
//! Owns the namespaces and the cables' processes; both are gone when it is dropped. Its addresses are of a range for
//! documentation, which nobody has, and which nodes take for the internet's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness: what does not work fails the test"
)]

mod upnp;

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

pub use upnp::Upnp;

use crate::{
    netns::within,
    part::have_all,
    program::{mortal, must, run},
};

/// What they need.
pub const PARTS: [&str; 4] = ["netns", "nft", "python3", "nsenter"];

/// How a router hands out outside ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// One for a machine's port, whoever is spoken to: most homes. Holes can be punched.
    Cone,
    /// Another for each who is spoken to: some offices and carriers. Nobody can know it beforehand.
    Symmetric,
}

/// A machine somewhere.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its namespace.
    pub namespace: String,
    /// Its address, or its router's, on the internet.
    pub address: Ipv4Addr,
    /// The namespace at the end of its cable.
    end: String,
    cable: usize,
}

#[derive(Debug)]
struct Cable {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Cable {
    fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("a cable");
        commands.write_all(format!("{command}\n").as_bytes()).expect("the cable is there");
        self.answer("done");
    }

    fn end(&mut self) {
        drop(self.commands.take());
        self.process.kill().ok();
        self.process.wait().ok();
    }

    fn answer(&mut self, expected: &str) {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the cable answers");
        assert_eq!(line.trim(), expected, "the cable is broken");
    }
}

/// See the module.
#[derive(Debug)]
pub struct Internet {
    tag: String,
    namespaces: Vec<String>,
    cables: Vec<Cable>,
    delay_ms: u32,
    lost_per_mille: u32,
    /// Its addresses begin here.
    range: Ipv4Addr,
}

impl Internet {
    /// One whose cables take so long each way, and lose so many of a thousand packets; none where this machine can't make it.
    #[must_use]
    pub fn new(delay_ms: u32, lost_per_mille: u32) -> Option<Self> {
        Self::at(Ipv4Addr::new(203, 0, 113, 0), delay_ms, lost_per_mille)
    }

    /// One with addresses of this range of 256.
    #[must_use]
    pub fn at(range: Ipv4Addr, delay_ms: u32, lost_per_mille: u32) -> Option<Self> {
        static MADE: AtomicU16 = AtomicU16::new(0);
        if !have_all(&PARTS) {
            return None;
        }
        let tag = format!("sk{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut made = Self { tag, namespaces: Vec::new(), cables: Vec::new(), delay_ms, lost_per_mille, range };
        let core = made.namespace("core");
        forwards(&core);
        (crate::part::present("tun", has_tun(&core)) && crate::part::present("masquerade", has_nat(&core)))
            .then_some(made)
    }

    fn namespace(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.tag);
        must("ip", &["netns", "add", &name]);
        self.namespaces.push(name.clone());
        ip(&name, "link set lo up");
        name
    }

    /// Lays a cable from a namespace to the core: the address at its end.
    fn cable(&mut self, to: &str) -> (usize, Ipv4Addr) {
        let n = self.cables.len();
        let base = u8::try_from(n * 4).expect("at most 64 cables");
        let [a, b, c, _] = self.range.octets();
        let (near, far) = (Ipv4Addr::new(a, b, c, base + 1), Ipv4Addr::new(a, b, c, base + 2));
        let (core, device) = (format!("{}core", self.tag), format!("c{n}"));
        let mut command = mortal(Path::new("python3"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/homes/cable.py"));
        command.args([&core, &device, to, "wan", &self.delay_ms.to_string(), &self.lost_per_mille.to_string()]);
        command.arg(n.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 runs");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        let mut cable = Cable { commands: process.stdin.take(), process, answers };
        cable.answer("ready");
        self.cables.push(cable);
        ip(&core, &format!("addr add {near}/30 dev {device}"));
        ip(&core, &format!("link set {device} up"));
        ip(to, &format!("addr add {far}/30 dev wan"));
        ip(to, "link set wan up");
        ip(to, &format!("route add default via {near}"));
        (n, far)
    }

    /// A machine with an address of its own.
    #[must_use]
    pub fn public(&mut self, name: &str) -> Place {
        let namespace = self.namespace(name);
        let (cable, address) = self.cable(&namespace);
        Place { end: namespace.clone(), namespace, address, cable }
    }

    /// A machine behind a router that lets nobody in.
    #[must_use]
    pub fn home(&mut self, name: &str, nat: Nat) -> Place {
        let (router, machine) = (self.namespace(&format!("{name}r")), self.namespace(name));
        let (cable, address) = self.cable(&router);
        forwards(&router);
        must("ip", &["-n", &router, "link", "add", "lan", "type", "veth", "peer", "name", "eth", "netns", &machine]);
        ip(&router, "addr add 192.168.1.1/24 dev lan");
        ip(&router, "link set lan up");
        ip(&machine, "addr add 192.168.1.2/24 dev eth");
        ip(&machine, "link set eth up");
        ip(&machine, "route add default via 192.168.1.1");
        let how = match nat {
            Nat::Cone => "",
            Nat::Symmetric => "random,fully-random",
        };
        // Dropped, not refused: a refusal would leave a trace that takes the port from the hole.
        let rules = format!(
            "table ip home {{
                chain out {{ type nat hook postrouting priority srcnat; oifname wan masquerade {how}; }}
                chain in {{ type filter hook input priority filter; iifname wan ct state new drop; }}
                chain through {{
                    type filter hook forward priority filter;
                    iifname wan ct state new ct status dnat accept
                    iifname wan ct state new drop
                }}
            }}"
        );
        let outcome = run(inside(&router, Path::new("nft")).args(["-f", "-"]), rules.as_bytes());
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        Place { namespace: machine, address, end: router, cable }
    }

    /// Gives a place another address, as a provider does overnight.
    pub fn moves(&mut self, place: &mut Place) {
        // Its end takes the devices along.
        self.cables[place.cable].end();
        (place.cable, place.address) = self.cable(&place.end);
    }

    /// Cuts a place off, or mends its cable.
    pub fn cut(&mut self, place: &Place, cut: bool) {
        self.cables[place.cable].tell(if cut { "cut" } else { "mend" });
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for cable in &mut self.cables {
            cable.end();
        }
        for namespace in &self.namespaces {
            Command::new("ip").args(["netns", "del", namespace]).output().ok();
        }
    }
}

/// Whether devices whose packets a program carries can be made there.
fn has_tun(namespace: &str) -> bool {
    let make = |verb: &str| {
        let mut command = Command::new("ip");
        command.args(["-n", namespace, "tuntap", verb, "dev", "probe", "mode", "tun"]);
        run(&mut command, &[]).code == 0
    };
    make("add") && make("del")
}

/// Whether the kernel has address translation in both kinds.
fn has_nat(namespace: &str) -> bool {
    let rules = "table ip probe {
            chain out { type nat hook postrouting priority srcnat; oifname a masquerade; oifname b masquerade random,fully-random; }
        }
        delete table ip probe";
    run(inside(namespace, Path::new("nft")).args(["-f", "-"]), rules.as_bytes()).code == 0
}

fn ip(namespace: &str, line: &str) {
    let words: Vec<&str> = ["-n", namespace].into_iter().chain(line.split(' ')).collect();
    must("ip", &words);
}

fn forwards(namespace: &str) {
    within(&format!("/var/run/netns/{namespace}"), || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap());
}

/// A program run in a namespace: nothing but its network is another.
#[must_use]
pub fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = mortal(Path::new("nsenter"));
    command.arg(format!("--net=/var/run/netns/{namespace}")).arg("--").arg(program);
    command
}
