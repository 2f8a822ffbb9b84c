//! An SFTP server (version 3, with OpenSSH's extensions that clients use) over standard input and output.
//!
//! It runs inside the instance as the instance's user, so whatever a client asks for, the kernel decides as for any other program in
//! there. Owns the open handles, at most [`HANDLES`]; the packets are `wire`'s, what is done with files is `files`'.

mod files;
mod wire;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, ReadDir};
use std::io::{self, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use crate::say;
use wire::{Answer, Attributes, Fields, Short, Status};

/// Files and folders open at once.
const HANDLES: usize = 256;
/// Bytes read or written by one request: a packet less what stands around them.
const PIECE: usize = wire::PACKET - 1024;
/// Entries of a folder in one answer.
const ENTRIES: usize = 100;
/// Bytes of such an answer at which no more are added; one entry is below 2 KiB.
const ENTRIES_BYTES: usize = wire::PACKET - 8 * 1024;
/// SFTP's version.
const VERSION: u32 = 3;

const KIND_VERSION: u8 = 2;
const KIND_STATUS: u8 = 101;
const KIND_HANDLE: u8 = 102;
const KIND_DATA: u8 = 103;
const KIND_NAME: u8 = 104;
const KIND_ATTRIBUTES: u8 = 105;
const KIND_EXTENDED: u8 = 201;

/// Serves until the input ends, and gives the exit code.
pub fn run() -> u8 {
    if let Some(home) = std::env::var_os("HOME").filter(|h| !h.is_empty()) {
        let _ = std::env::set_current_dir(home);
    }
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("sftp: {error}"));
            1
        }
    }
}

fn serve() -> io::Result<()> {
    let mut input = BufReader::with_capacity(wire::PACKET, io::stdin().lock());
    let mut output = io::stdout().lock();
    let mut server = Server::default();
    let mut answers = Vec::new();
    while let Some(packet) = wire::read_packet(&mut input)? {
        answers.extend(server.answer(&packet));
        // Several requests that came together are answered together.
        if input.buffer().is_empty() || answers.len() >= wire::PACKET {
            output.write_all(&answers)?;
            output.flush()?;
            answers.clear();
        }
    }
    output.write_all(&answers)?;
    output.flush()
}

enum Open {
    File { file: File, append: bool },
    Folder { path: PathBuf, entries: ReadDir },
}

#[derive(Default)]
struct Server {
    open: BTreeMap<u32, Open>,
    next: u32,
}

/// Why a request isn't done.
enum Refusal {
    Status(Status, &'static str),
    Io(io::Error),
}

impl From<Short> for Refusal {
    fn from(_: Short) -> Self {
        Self::Status(Status::BadMessage, "the packet ends too early")
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Server {
    fn answer(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut fields = Fields(packet);
        let Ok(kind) = fields.byte() else { return Vec::new() };
        if kind == 1 {
            return greeting();
        }
        let Ok(request) = fields.u32() else { return Vec::new() };
        let answer = self.act(kind, request, &mut fields).unwrap_or_else(|refusal| match refusal {
            Refusal::Status(code, why) => status(request, code, why),
            Refusal::Io(error) => status(request, files::status_of(&error), &error.to_string()),
        });
        answer.finish()
    }

    fn act(&mut self, kind: u8, request: u32, fields: &mut Fields<'_>) -> Result<Answer, Refusal> {
        let done = |()| status(request, Status::Ok, "");
        let attributes = |a: Attributes| Answer::new(KIND_ATTRIBUTES, request).attributes(&a);
        Ok(match kind {
            3 => {
                let (path, flags, wanted) = (fields.path()?, fields.u32()?, fields.attributes()?);
                self.room()?;
                let (file, append) = files::open(&path, flags, &wanted)?;
                self.keep(request, Open::File { file, append })
            }
            4 => {
                let handle = handle_of(fields)?;
                self.open.remove(&handle).ok_or(UNKNOWN)?;
                done(())
            }
            5 => {
                let (handle, offset, length) = (handle_of(fields)?, fields.u64()?, fields.u32()?);
                let (file, _) = self.file(handle)?;
                let mut piece = vec![0; usize::try_from(length).unwrap_or(PIECE).min(PIECE)];
                let read = read_full(file, &mut piece, offset)?;
                if read == 0 && length > 0 {
                    return Err(Refusal::Status(Status::End, "the end"));
                }
                Answer::new(KIND_DATA, request).bytes(&piece[..read])
            }
            6 => {
                let (handle, offset, bytes) = (handle_of(fields)?, fields.u64()?, fields.bytes()?);
                match self.file(handle)? {
                    (mut file, true) => file.write_all(bytes)?,
                    (file, false) => file.write_all_at(bytes, offset)?,
                }
                done(())
            }
            7 => attributes(files::attributes(&std::fs::symlink_metadata(fields.path()?)?)),
            8 => attributes(files::attributes(&self.file_or_folder(handle_of(fields)?)?)),
            9 => {
                let (path, wanted) = (fields.path()?, fields.attributes()?);
                done(files::change(&path, &wanted)?)
            }
            10 => {
                let (handle, wanted) = (handle_of(fields)?, fields.attributes()?);
                match self.open.get(&handle).ok_or(UNKNOWN)? {
                    Open::File { file, .. } => files::change_open(file, &wanted)?,
                    Open::Folder { path, .. } => files::change(path.as_os_str(), &wanted)?,
                }
                done(())
            }
            11 => {
                let path = PathBuf::from(fields.path()?);
                self.room()?;
                let entries = std::fs::read_dir(&path)?;
                self.keep(request, Open::Folder { path, entries })
            }
            12 => self.entries(request, handle_of(fields)?)?,
            13 => done(std::fs::remove_file(fields.path()?)?),
            14 => {
                let (path, wanted) = (fields.path()?, fields.attributes()?);
                done(files::make_folder(&path, wanted.mode)?)
            }
            15 => done(std::fs::remove_dir(fields.path()?)?),
            16 => name(request, &files::real_path(&fields.path()?)?),
            17 => attributes(files::attributes(&std::fs::metadata(fields.path()?)?)),
            18 => {
                let (from, to) = (fields.path()?, fields.path()?);
                done(files::rename_new(&from, &to)?)
            }
            19 => name(request, std::fs::read_link(fields.path()?)?.as_os_str()),
            20 => {
                // OpenSSH has the two the other way round than the draft, and everybody follows it.
                let (target, link) = (fields.path()?, fields.path()?);
                done(std::os::unix::fs::symlink(target, link)?)
            }
            200 => self.extended(request, fields)?,
            _ => return Err(Refusal::Status(Status::Unsupported, "there is no such request")),
        })
    }

    fn extended(&mut self, request: u32, fields: &mut Fields<'_>) -> Result<Answer, Refusal> {
        let done = |()| status(request, Status::Ok, "");
        Ok(match fields.bytes()? {
            b"posix-rename@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                done(std::fs::rename(from, to)?)
            }
            b"hardlink@openssh.com" => {
                let (from, to) = (fields.path()?, fields.path()?);
                done(std::fs::hard_link(from, to)?)
            }
            b"fsync@openssh.com" => done(self.file(handle_of(fields)?)?.0.sync_all()?),
            b"lsetstat@openssh.com" => {
                let (path, wanted) = (fields.path()?, fields.attributes()?);
                done(files::change_link(&path, &wanted)?)
            }
            b"limits@openssh.com" => {
                let piece = u64::try_from(PIECE).unwrap_or(u64::MAX);
                let handles = u64::try_from(HANDLES).unwrap_or(u64::MAX);
                Answer::new(KIND_EXTENDED, request)
                    .u64(u64::try_from(wire::PACKET).unwrap_or(u64::MAX))
                    .u64(piece)
                    .u64(piece)
                    .u64(handles)
            }
            b"expand-path@openssh.com" => name(request, &files::expand(&fields.path()?)?),
            _ => return Err(Refusal::Status(Status::Unsupported, "there is no such extension")),
        })
    }

    fn entries(&mut self, request: u32, handle: u32) -> Result<Answer, Refusal> {
        let Open::Folder { entries, .. } = self.open.get_mut(&handle).ok_or(UNKNOWN)? else { return Err(UNKNOWN) };
        let mut listed = Answer::bare(0);
        let mut count = 0;
        for entry in entries.by_ref() {
            let entry = entry?;
            // What is gone meanwhile isn't listed.
            let Ok(meta) = entry.metadata() else { continue };
            let found = entry.file_name();
            listed = listed.text(&found).text(&files::long_name(&found, &meta)).attributes(&files::attributes(&meta));
            count += 1;
            if usize::try_from(count).unwrap_or(ENTRIES) >= ENTRIES || listed.len() >= ENTRIES_BYTES {
                break;
            }
        }
        if count == 0 {
            return Err(Refusal::Status(Status::End, "the end"));
        }
        Ok(Answer::new(KIND_NAME, request).u32(count).raw(&listed))
    }

    fn room(&self) -> Result<(), Refusal> {
        let room = self.open.len() < HANDLES;
        if room { Ok(()) } else { Err(Refusal::Status(Status::Failure, "too many files are open")) }
    }

    fn keep(&mut self, request: u32, open: Open) -> Answer {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        Answer::new(KIND_HANDLE, request).bytes(&handle.to_be_bytes())
    }

    fn file(&self, handle: u32) -> Result<(&File, bool), Refusal> {
        match self.open.get(&handle) {
            Some(Open::File { file, append }) => Ok((file, *append)),
            Some(Open::Folder { .. }) | None => Err(UNKNOWN),
        }
    }

    fn file_or_folder(&self, handle: u32) -> Result<std::fs::Metadata, Refusal> {
        match self.open.get(&handle).ok_or(UNKNOWN)? {
            Open::File { file, .. } => Ok(file.metadata()?),
            Open::Folder { path, .. } => Ok(std::fs::metadata(path)?),
        }
    }
}

const UNKNOWN: Refusal = Refusal::Status(Status::Failure, "that handle isn't open");

fn handle_of(fields: &mut Fields<'_>) -> Result<u32, Refusal> {
    fields.bytes()?.try_into().map(u32::from_be_bytes).map_err(|_| UNKNOWN)
}

/// As much as there is, up to the buffer's length.
fn read_full(file: &File, piece: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < piece.len() {
        let at = offset.checked_add(u64::try_from(read).unwrap_or(u64::MAX)).ok_or(io::ErrorKind::InvalidInput)?;
        match file.read_at(&mut piece[read..], at) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if read > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn greeting() -> Vec<u8> {
    let known = [
        ("posix-rename@openssh.com", "1"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("limits@openssh.com", "1"),
        ("expand-path@openssh.com", "1"),
    ];
    let hello = Answer::bare(KIND_VERSION).u32(VERSION);
    known
        .into_iter()
        .fold(hello, |hello, (extension, version)| hello.bytes(extension.as_bytes()).bytes(version.as_bytes()))
        .finish()
}

fn status(request: u32, code: Status, why: &str) -> Answer {
    // The enum's numbers are the protocol's.
    Answer::new(KIND_STATUS, request).u32(code as u32).bytes(why.as_bytes()).bytes(b"en")
}

fn name(request: u32, path: &std::ffi::OsStr) -> Answer {
    let none = Attributes::default();
    Answer::new(KIND_NAME, request).u32(1).text(path).text(&OsString::from(path)).attributes(&none)
}
