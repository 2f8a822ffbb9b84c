//! A guest that tries each forbidden thing, in a real container as the node makes it. Every attempt has a name; where it can do no
//! harm the same attempt is made by a privileged container too, and must succeed there: what it shows is the containment, and not
//! that the attempt is a bad one.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use souk_runtime::{Egress, InstanceSpec, Runtime};
use support::{SOCKET, World, have, import, run};

const IMAGE: &str = "souk-test/tries:1";

/// An attempt: its exit code is 0 exactly if it succeeded.
struct Attempt {
    name: &'static str,
    line: String,
    /// Whether a privileged container may make it, too.
    control: bool,
}

fn attempt(name: &'static str, line: &str) -> Attempt {
    Attempt { name, line: line.to_owned(), control: true }
}

fn dangerous(name: &'static str, line: &str) -> Attempt {
    Attempt { control: false, ..attempt(name, line) }
}

/// A system call with arguments that do nothing where it is let through: refused means EPERM or ENOSYS.
fn call(name: &'static str, number: u32, arguments: &str, control: bool) -> Attempt {
    let line = format!("perl -e '$! = 0; syscall({number}{arguments}); exit(($! == 1 || $! == 38) ? 1 : 0)'");
    Attempt { name, line, control }
}

/// Busybox, and the machine's own perl with its libraries: a language that can make any system call.
fn root_fs() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let archive = folder.path().join("base.tar");
    std::fs::write(&archive, support::root_fs(true)).unwrap();
    run("tar", &["-C", root.to_str().unwrap(), "-xf", archive.to_str().unwrap()]);
    std::fs::remove_file(&archive).unwrap();
    let libraries = run("ldd", &["/usr/bin/perl"]);
    let mut files: Vec<&str> =
        libraries.split_whitespace().filter(|word| word.starts_with('/') && Path::new(word).exists()).collect();
    files.push("/usr/bin/perl");
    for file in files {
        let to = root.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, &to).unwrap();
    }
    std::fs::create_dir_all(root.join("mnt")).unwrap();
    let output = Command::new("tar").args(["-C", root.to_str().unwrap(), "-c", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn parts() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| have("docker") && have("perl") && cfg!(target_arch = "x86_64"))
}

async fn guest(world: &World, name: &str) -> InstanceSpec {
    import(SOCKET, IMAGE, root_fs(), &["ENV PATH=/bin:/usr/bin"]).await;
    let mut spec = world.spec(name, &["sleep", "1000"]).await;
    spec.image = world.runtime.resolve_image(IMAGE).await.unwrap().pin;
    spec
}

/// Capabilities by their numbers.
const NAMES: [&str; 38] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];

/// What this process, and with it most likely the engine, may give away.
fn own_capabilities() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bits = u64::from_str_radix(bits.trim(), 16).unwrap();
    NAMES.into_iter().enumerate().filter(|(number, _)| bits >> number & 1 == 1).map(|(_, name)| name).collect()
}

/// Makes the attempts in the guest, where all must fail, and then in a privileged container, where those must succeed that may.
async fn all_fail(world: &World, lease: &str, attempts: &[Attempt]) {
    let mut wrong = Vec::new();
    for Attempt { name, line, .. } in attempts {
        let (code, out, err) = world.shell(lease, line).await;
        println!("{name}: {}", if code == 0 { "SUCCEEDED" } else { "refused" });
        if code == 0 {
            wrong.push(format!("a guest {name}: {out}{err}"));
        }
        // An attempt that can't be made shows nothing.
        if err.contains("not found") || err.contains("syntax error") {
            wrong.push(format!("{name} was not tried: {err}"));
        }
    }
    let mut script = String::new();
    for Attempt { name, line, .. } in attempts.iter().filter(|attempt| attempt.control) {
        script.push_str(&format!("( {line} ) >/dev/null 2>&1 || echo \"{name}\"\n"));
    }
    let all = own_capabilities();
    let mut words = vec!["run", "--rm", "--pid", "host", "--entrypoint", "/bin/sh"];
    if all.len() == NAMES.len() {
        words.push("--privileged");
    } else {
        // A machine that has not all of root's powers itself: as much as it can give.
        words.extend(["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"]);
        words.extend(all.iter().flat_map(|name| ["--cap-add", *name]));
    }
    words.extend([IMAGE, "-c", &script]);
    let out = run("docker", &words);
    let unproven: Vec<&str> = out.lines().collect();
    println!("not possible for a privileged container here: {unproven:?}");
    if all.len() == NAMES.len() {
        wrong.extend(unproven.iter().map(|name| format!("an attempt that can't succeed anywhere: {name}")));
    } else {
        let controls = attempts.iter().filter(|attempt| attempt.control).count();
        assert!(unproven.len() * 2 <= controls, "most attempts must succeed where they may: {unproven:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_tries_the_kernel_is_refused() {
    if !parts() {
        return;
    }
    let mut world = World::new().await;
    let spec = guest(&world, "kernel").await;
    world.start(&spec).await;
    let attempts = [
        attempt("makes a device node", "mknod /tmp/disk b 7 0"),
        attempt("finds a block device", "find /dev -type b | grep -q ."),
        attempt("finds the machine's memory or log", "ls /dev/kmsg /dev/mem /dev/port | grep -q ."),
        attempt("reads the kernel's log", "dmesg | grep -q ."),
        attempt("reads the machine's memory", "head -c 1 /proc/kcore | grep -q ."),
        attempt("mounts a file system", "mount -t tmpfs none /mnt"),
        attempt("mounts the machine's proc", "mount -t proc none /mnt"),
        attempt(
            "mounts cgroups, with their release agent",
            "mount -t cgroup2 none /mnt || mount -t cgroup -o pids none /mnt",
        ),
        attempt("makes /sys writable", "mount -o remount,rw /sys"),
        attempt("binds over another path", "mount --bind /tmp /mnt"),
        attempt("unmounts what hides things", "umount /dev/shm"),
        attempt("makes a user namespace", "unshare -U true"),
        attempt("makes a mount namespace", "unshare -m true"),
        attempt("makes a network namespace", "unshare -n true"),
        attempt("enters the first process's namespaces", "nsenter -t 1 -m -n true"),
        attempt("sees the machine's processes", "grep -al '[d]ockerd' /proc/[0-9]*/cmdline | grep -q ."),
        attempt("writes /proc/sys", "cat /proc/sys/kernel/panic > /proc/sys/kernel/panic"),
        attempt(
            "sets the core pattern",
            "v=$(cat /proc/sys/kernel/core_pattern); echo \"$v\" > /proc/sys/kernel/core_pattern",
        ),
        attempt(
            "writes /sys",
            "f=/sys/kernel/mm/transparent_hugepage/khugepaged/defrag; [ -e $f ] || f=/sys/kernel/profiling; v=$(cat $f); echo $v > $f",
        ),
        attempt(
            "joins another cgroup",
            "f=$(find /sys/fs/cgroup -name cgroup.procs | head -n 1); sleep 1 & echo $! > $f",
        ),
        attempt("sets a host name", "hostname other"),
        dangerous("asks the kernel for a reset by /proc/sysrq-trigger", "echo h > /proc/sysrq-trigger"),
        dangerous("sets the clock", "perl -e 'exit(syscall(227, 0, pack(\"qq\", time, 0)) == 0 ? 0 : 1)'"),
        call("reboots", 169, ", 0, 0, 0, 0", true),
        call("loads a kernel module", 175, ", \"x\", 1, \"\"", true),
        call("loads a kernel module from a file", 313, ", -1, \"\", 0", true),
        call("removes a kernel module", 176, ", \"souk-none\", 0", true),
        call("loads another kernel", 246, ", 0, 0, 0, 0xffff", true),
        call("sets the time by system call", 227, ", 99, 0", true),
        call("sets the time of day", 164, ", 0, 1", true),
        call("makes swap of a file", 167, ", \"/none\", 0", true),
        call("sets a disk quota", 179, ", 0xffffff, \"/none\", 0, 0", true),
        call("turns accounting on", 163, ", \"/none\"", true),
        call("opens files by handle", 304, ", -1, 0, 0", true),
        call("loads a BPF program", 321, ", 0xffff, 0, 0", true),
        call("watches the machine's performance", 298, ", 0, 0, -1, -1, 0", true),
        call("reaches I/O ports", 172, ", 3", true),
        call("reaches ports one by one", 173, ", 0x80, 1, 1", true),
        call("reads the keyring", 250, ", 0, -1, 0, 0, 0", false),
        call("adds a key", 248, ", 0, 0, 0, 0, 0", false),
        call("asks for a key", 249, ", 0, 0, 0, 0", false),
        call("handles page faults of the kernel", 323, ", 0x7fffffff", false),
        call("opens a file system context", 430, ", \"none\", 0", true),
        call("moves a mount", 429, ", -1, \"\", -1, \"\", 0", true),
        call("enters a namespace", 308, ", -1, 0x40000000", true),
        call("changes the root by pivot", 155, ", \"/none\", \"/none\"", true),
        call("hangs the terminal up", 153, "", false),
    ];
    all_fail(&world, &spec.lease, &attempts).await;

    // What it has of root's powers is what the node says, and no program brings more.
    let (_, status, _) =
        world.shell(&spec.lease, "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/self/status").await;
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    let count = u64::from_str_radix(bits, 16).unwrap().count_ones() as usize;
    assert_eq!(count, souk_runtime::CAPABILITIES.len(), "{status}");
    let line = "cp /usr/bin/perl /tmp/suid && chmod 4755 /tmp/suid && su guest -s /bin/sh -c '/tmp/suid -e \"exit(\\$> == 0 ? 0 : 1)\"'";
    all_fail(&world, &spec.lease, &[attempt("gains root by a setuid program", line)]).await;

    // Of the machine there is nothing to open: no socket of the engine, no folder of its, no mount but the node's own.
    let (_, found, _) =
        world.shell(&spec.lease, "find / -xdev -type s; ls /var/run/docker.sock /run/containerd 2>/dev/null").await;
    assert_eq!(found, "");
    let (_, mounts, _) = world.shell(&spec.lease, "awk '{ print $5, $6 }' /proc/self/mountinfo").await;
    for line in mounts.lines() {
        let (at, options) = line.split_once(' ').unwrap();
        let known = at == "/"
            || ["/proc", "/dev", "/sys"].iter().any(|folder| Path::new(at).starts_with(folder))
            || ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].contains(&at);
        let helper = at.starts_with("/.souk/") && options.starts_with("ro");
        assert!(known || helper, "{line}");
    }
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_tries_the_network_is_refused() {
    if !parts() || !have("nft") {
        return;
    }
    let mut world = World::new().await;
    let mut spec = guest(&world, "network").await;
    spec.egress = Egress::Internet;
    world.start(&spec).await;
    let attempts = [
        attempt("opens a raw IP socket", "perl -e 'exit(socket(S, 2, 3, 1) ? 0 : 1)'"),
        attempt("opens a packet socket, for ARP", "perl -e 'exit(socket(S, 17, 3, 0x0300) ? 0 : 1)'"),
        attempt(
            "takes another hardware address",
            "ip link set eth0 down && ip link set eth0 address 02:00:00:00:00:01",
        ),
        attempt("takes another address", "ip addr add 10.99.99.99/24 dev eth0"),
        attempt("sets a route", "ip route add 10.98.0.0/16 dev lo"),
        attempt("answers for another by ARP", "ip neigh add 10.98.0.1 lladdr 02:00:00:00:00:01 dev lo"),
        attempt("makes a tunnel device", "ip link add name br9 type bridge || ip link add name du9 type dummy"),
        attempt(
            "spoofs its source",
            "perl -e 'socket(S, 2, 2, 17); exit(setsockopt(S, 0, 19, pack(\"i\", 1)) ? 0 : 1)'",
        ),
        attempt("forwards for others", "cat /proc/sys/net/ipv4/ip_forward > /proc/sys/net/ipv4/ip_forward"),
    ];
    all_fail(&world, &spec.lease, &attempts).await;

    // The host listens on every address, by both protocols, and hears nothing of the guest.
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let udp = std::net::UdpSocket::bind(("0.0.0.0", port)).unwrap();
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let own = run("ip", &["-4", "-o", "addr", "show"]);
    let addresses: Vec<&str> =
        own.lines().filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()).collect();
    assert!(addresses.len() > 2, "{own}");
    for address in &addresses {
        if address.starts_with("127.") {
            continue;
        }
        // Ports of interest to nobody, and that of names.
        let line = format!(
            "echo x | nc -u -w 1 {address} {port}; echo x | nc -w 1 {address} {port}; echo x | nc -u -w 1 {address} 53"
        );
        world.shell(&spec.lease, &line).await;
    }
    let mut piece = [0_u8; 8];
    assert!(udp.recv_from(&mut piece).is_err(), "a datagram of the guest reached the host");
    assert!(tcp.accept().is_err(), "a connection of the guest reached the host");
    let control = addresses.iter().find(|address| !address.starts_with("127.")).unwrap();
    udp.send_to(b"x", (*control, port)).unwrap();
    udp.set_nonblocking(false).unwrap();
    udp.set_read_timeout(Some(support::DEADLINE)).unwrap();
    assert!(udp.recv_from(&mut piece).is_ok(), "the host listens");

    let closed = [
        ("a cloud's metadata", "nc -w 2 169.254.169.254 80"),
        ("a private neighbour", "nc -w 2 192.168.0.1 80"),
        ("a carrier's network", "nc -w 2 100.64.0.1 80"),
        ("the engine's TCP port", "nc -w 2 $(ip route | awk '/default/ { print $3 }') 2375"),
        ("a mail server", "nc -w 2 9.9.9.9 25"),
        (
            "IPv6",
            "perl -e 'socket(S, 10, 1, 6) && connect(S, pack(\"SnNa16N\", 10, 53, 0, \"\\x26\\x06\\x47\\x00\" . \"\\0\" x 12, 0)) && exit 0; exit 1'",
        ),
    ];
    for (what, line) in closed {
        let (code, out, err) = world.shell(&spec.lease, &format!("{line} </dev/null")).await;
        assert!(code != 0 && !err.contains("not found"), "a guest reaches {what}: {out}{err}");
    }
    let (_, six, _) = world.shell(&spec.lease, "ip -6 addr show dev eth0; ip -6 route").await;
    assert!(!six.contains("inet6"), "{six}");
    let (_, resolvers, _) = world.shell(&spec.lease, "cat /etc/resolv.conf").await;
    let asked: Vec<&str> = resolvers.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
    assert!(asked.iter().all(|address| ["1.1.1.1", "8.8.8.8", "127.0.0.11"].contains(address)), "{resolvers}");
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_takes_all_it_can_gets_its_share() {
    if !parts() {
        return;
    }
    let mut world = World::new().await;
    let mut spec = guest(&world, "bombs").await;
    spec.memory_mb = 256;
    // A flood of output, of more than is kept.
    spec.command = Some(
        ["sh", "-c", "yes 0123456789012345678901234567890123456789 | head -c 50000000; echo end; sleep 1000"]
            .map(String::from)
            .to_vec(),
    );
    world.config.log = souk_runtime::LogLimit { file_mb: 1, files: 2 };
    world.reconnect().await;
    world.start(&spec).await;
    let lease = spec.lease.as_str();
    world.log_has(lease, "end\n").await;
    let path = run("docker", &["inspect", "-f", "{{.LogPath}}", &world.container(lease)]);
    let folder = Path::new(path.trim()).parent().unwrap();
    let kept: u64 = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("-json.log"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(kept > 100_000 && kept < 3 << 20, "{kept} bytes of log are kept");

    for (place, most_kib) in [("/dev/shm", 16 * 1024), ("/dev", 65 * 1024)] {
        let line = format!("dd if=/dev/zero of={place}/fill bs=64k count=4096; du -k {place}/fill; rm -f {place}/fill");
        let (_, out, err) = world.shell(lease, &line).await;
        let kib = out.split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        // Memory of the instance is the other bound.
        assert!(kib.is_none_or(|kib| kib <= most_kib), "{place}: {out}{err}");
    }
    let line = "perl -e 'my @f; while (open(my $f, \"<\", \"/dev/null\")) { push @f, $f; last if @f > 1100000 } print scalar @f, \" $!\"'";
    let (_, out, err) = world.shell(lease, line).await;
    assert!(out.contains("Too many open files") || out.is_empty(), "{out}{err}");

    world.destroy(lease).await;

    // A fork bomb: it gets its processes and no more, the machine goes on, and the instance ends when told.
    let mut spec = guest(&world, "fork").await;
    // Not a shell's: one that can't fork ends, and the instance with it.
    spec.command = Some(["perl", "-e", "for (;;) { defined(fork) or sleep 1 }"].map(String::from).to_vec());
    world.start(&spec).await;
    let lease = spec.lease.as_str();
    let id = run("docker", &["inspect", "-f", "{{.Id}}", &world.container(lease)]);
    let find = ["/sys/fs/cgroup", "-path", &format!("*{}*/pids.max", id.trim())];
    let limit = run("find", &find);
    assert_eq!(std::fs::read_to_string(limit.trim()).unwrap().trim(), spec.pids.to_string());
    let current = limit.trim().replace("pids.max", "pids.current");
    // The kernel's count of refused forks.
    let refused = limit.trim().replace("pids.max", "pids.events");
    let end = std::time::Instant::now() + support::DEADLINE;
    loop {
        let count: u32 = std::fs::read_to_string(&current).unwrap().trim().parse().unwrap();
        assert!(count <= spec.pids, "{count} processes");
        let refused = std::fs::read_to_string(&refused).unwrap();
        let refused = refused.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok());
        if count + 4 >= spec.pids || refused.unwrap() > 0 {
            break;
        }
        assert!(std::time::Instant::now() < end, "the bomb never filled its {} processes: {count}", spec.pids);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    world.runtime.kill(lease).unwrap();
    world.exited(lease).await;
    world.destroy(lease).await;
}
