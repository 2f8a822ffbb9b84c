//! What the access figures are measured against and with: an OpenSSH server of this machine, and a program that moves bytes,
//! listening here or in an instance's network.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use souk_tests::{
    docker::Docker,
    node::Node,
    program::{mortal, must},
    wait::until,
};

/// Bytes written or read at once.
const BLOCK: usize = 256 * 1024;
const SSHD: &str = "/usr/sbin/sshd";

/// Which way the bytes of a measurement go, seen from the client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Ended by its id when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An OpenSSH server of this machine, with one key that gets in.
pub struct Sshd {
    _running: Running,
    port: u16,
    folder: PathBuf,
}

impl Sshd {
    /// Runs one; none where the program is absent.
    pub fn start(folder: &Path) -> Option<Self> {
        if !Path::new(SSHD).exists() {
            println!("skipped: {SSHD} is absent (apt-get install openssh-server)");
            return None;
        }
        let folder = folder.join("sshd");
        fs::create_dir_all(&folder).unwrap();
        // Where privileges are separated; Debian's service makes it at its start.
        fs::create_dir_all("/run/sshd").unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        for key in ["host", "user"] {
            must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]);
        }
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n\
             PrintMotd no\nPrintLastLog no\n",
            file("host"),
            file("user.pub")
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let public = fs::read_to_string(folder.join("host.pub")).unwrap();
        fs::write(folder.join("known"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        let mut server = mortal(Path::new(SSHD));
        server.args(["-D", "-f", &file("sshd_config")]).stderr(Stdio::null());
        let running = Running(server.spawn().unwrap());
        until("sshd", || TcpStream::connect(("127.0.0.1", port)).ok());
        Some(Self { _running: running, port, folder })
    }

    /// Options for `ssh` and `scp` that find it by `127.0.0.1`.
    pub fn options(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut options = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned(), file("user")];
        for option in [
            format!("Port={}", self.port),
            format!("UserKnownHostsFile={}", file("known")),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "LogLevel=ERROR".to_owned(),
        ] {
            options.extend(["-o".to_owned(), option]);
        }
        options
    }

    /// `ssh -L` to a port of this machine, and where it listens.
    pub fn forward(&self, to: u16) -> (Running, SocketAddr) {
        let local = free_port();
        let mut client = mortal(Path::new("ssh"));
        client.args(self.options()).args(["-N", "-L", &format!("127.0.0.1:{local}:127.0.0.1:{to}"), "127.0.0.1"]);
        let running = Running(client.stdin(Stdio::null()).spawn().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], local));
        until("ssh -L", || TcpStream::connect(address).ok());
        (running, address)
    }
}

/// `souk forward` of one port, and where it listens.
pub fn forwarded(renter: &Node, lease: &str, port: u16, folder: &Path) -> (Running, SocketAddr) {
    let log = folder.join("forward.out");
    let mut command = renter.command(&["forward", lease, &format!("0:{port}")]);
    let child = command.stdin(Stdio::null()).stdout(fs::File::create(&log).unwrap()).spawn().unwrap();
    let address = until("souk forward", || {
        let line: serde_json::Value = serde_json::from_str(fs::read_to_string(&log).ok()?.lines().next()?).ok()?;
        line["local"].as_str()?.parse().ok()
    });
    (Running(child), address)
}

/// Listens on a port of loopback inside the container of a host's only instance.
pub fn listen_inside(docker: &Docker, host: &Node, port: u16) -> TcpListener {
    let container = docker.inspect(&docker.container(&host.id));
    let namespace = fs::File::open(format!("/proc/{}/ns/net", container["State"]["Pid"])).unwrap();
    // A socket stays in the namespace of the thread that makes it.
    let made = thread::spawn(move || {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap()
    });
    made.join().unwrap()
}

/// Takes and gives bytes as clients ask, until the program ends.
pub fn serve(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || serve_one(stream));
        }
    });
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u64::from_le_bytes(head[1..].try_into().unwrap_or_default());
    if head[0] == b'u' {
        take(&mut stream, length)?
    } else {
        give(&mut stream, length)?
    }
    stream.write_all(&[1])
}

fn take(stream: &mut TcpStream, mut length: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    while length > 0 {
        let most = BLOCK.min(usize::try_from(length).unwrap_or(BLOCK));
        let read = stream.read(&mut block[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length -= read as u64;
    }
    Ok(())
}

fn give(stream: &mut TcpStream, mut length: u64) -> io::Result<()> {
    let block = vec![7; BLOCK];
    while length > 0 {
        let most = BLOCK.min(usize::try_from(length).unwrap_or(BLOCK));
        stream.write_all(&block[..most])?;
        length -= most as u64;
    }
    Ok(())
}

/// Moves so many bytes over one connection to such a program: MB (10⁶) a second, from the first byte to its confirmation.
pub fn rate(address: SocketAddr, way: Way, length: u64) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut head = vec![if way == Way::Up { b'u' } else { b'd' }];
    head.extend(length.to_le_bytes());
    let began = Instant::now();
    stream.write_all(&head).unwrap();
    if way == Way::Up { give(&mut stream, length) } else { take(&mut stream, length) }.unwrap();
    stream.read_exact(&mut [0]).unwrap();
    length as f64 / began.elapsed().as_secs_f64() / 1e6
}

/// Runs a program to its successful end: the seconds it took.
pub fn timed(command: &mut Command) -> f64 {
    let began = Instant::now();
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    began.elapsed().as_secs_f64()
}
