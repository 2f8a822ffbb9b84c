//! The instance's side of a copy: source or sink over standard input and output, as the user that the engine has chosen.
//!
//! What may be read and written is what that user may, in this container; nothing of it is decided here.

use std::{fs::File, io, os::fd::AsFd, sync::Arc};

use souk_transfer::{Error, Progress, sink, source, wire};

/// Serves one copy, and gives the exit code. Errors have been told to the other side.
pub fn run() -> u8 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            crate::say(&error.to_string());
            1
        }
    }
}

fn serve() -> Result<(), Error> {
    let mut input = stream(io::stdin())?;
    let output = stream(io::stdout())?;
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

/// A standard stream without the standard library's buffer.
fn stream(stream: impl AsFd) -> Result<File, Error> {
    Ok(File::from(stream.as_fd().try_clone_to_owned().map_err(Error::Cut)?))
}
