//! A visitor of an echo server somewhere behind souk.
#![allow(clippy::unwrap_used, clippy::panic, reason = "an answer that is cut off has failed its test")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use crate::wait::PATIENCE;

/// Sends everything, ends its own direction, and reads to the end. Busybox's server has room for two that wait: who finds none is
/// turned away with nothing, and may come again.
///
/// # Errors
/// If it was turned away.
///
/// # Panics
/// If the answer was cut off.
pub fn echoed(address: SocketAddr, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut writing, sent) = (stream.try_clone()?, data.to_vec());
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent)?;
        writing.shutdown(Shutdown::Write)
    });
    let mut back = Vec::new();
    let read = stream.read_to_end(&mut back);
    let outcome = writer.join().unwrap().and(read);
    if back.is_empty() && !data.is_empty() {
        return Err(outcome.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    }
    assert!(outcome.is_ok(), "cut after {} bytes: {outcome:?}", back.len());
    Ok(back)
}
