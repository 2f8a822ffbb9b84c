//! The instance's side of a copy: source or sink over standard input and output, as the user that the engine has chosen.
//!
//! What may be read and written is what that user may, in this container; nothing of it is decided here. Asked for it, the bytes take
//! a connection from the host in place of the standard streams: see the host's side of it for why.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use souk_transfer::{Error, Progress, sink, source, wire};

/// Bytes that only the host and this helper know.
const SECRET: usize = 32;
/// Strangers in the instance that are heard before the host is given up on.
const STRANGERS: usize = 64;
/// How long whoever connects may take to say the secret: the host has said it before we accept.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// Serves one copy, and gives the exit code. Errors have been told to the other side.
pub fn run(direct: bool) -> u8 {
    match serve(direct) {
        Ok(()) => 0,
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn serve(direct: bool) -> Result<(), Error> {
    let (mut input, mut output) = (stream(io::stdin())?, stream(io::stdout())?);
    if direct && let Some(connection) = connection(&mut input, &mut output).map_err(Error::Cut)? {
        let both = connection.try_clone().map_err(Error::Cut)?;
        (input, output) = (File::from(OwnedFd::from(connection)), File::from(OwnedFd::from(both)));
    }
    let wire::Message::Open(open) = wire::read(&mut input)? else {
        return Err(Error::Violation("a copy begins with what is wanted"));
    };
    let progress = Arc::new(Progress::default());
    if open.send {
        source::run(input, output, &open.path, &open.excludes, &progress).map(drop)
    } else {
        sink::run(input, output, sink::Target::from(&open), &progress)
    }
}

/// The host's connection; none if it stays with the standard streams.
fn connection(input: &mut File, output: &mut File) -> io::Result<Option<TcpStream>> {
    let mut secret = [0; SECRET];
    input.read_exact(&mut secret)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok();
    let port = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(0, |at| at.port());
    output.write_all(&port.to_be_bytes())?;
    let mut direct = [0];
    input.read_exact(&mut direct)?;
    let Some(listener) = listener.filter(|_| direct == [1]) else {
        return Ok(None);
    };
    for _ in 0..STRANGERS {
        let (mut connection, _) = listener.accept()?;
        let mut said = [0; SECRET];
        connection.set_read_timeout(Some(SAID_WITHIN))?;
        if connection.read_exact(&mut said).is_ok() && said == secret {
            connection.set_read_timeout(None)?;
            connection.set_nodelay(true)?;
            return Ok(Some(connection));
        }
    }
    Err(io::Error::other("others in this instance keep the host from connecting"))
}

/// A standard stream without the standard library's buffer.
fn stream(stream: impl AsFd) -> Result<File, Error> {
    Ok(File::from(stream.as_fd().try_clone_to_owned().map_err(Error::Cut)?))
}
