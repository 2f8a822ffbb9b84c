//! What stands before Wasmtime's own WASI calls: the quota at each call that makes or fills a file, and in the deterministic mode a veil
//! over what a file system tells of its machine.
//!
//! The calls are Wasmtime's; these only look at arguments and results. They are reached by the functions that `wiggle` generates,
//! public but not promised: a new Wasmtime is to be tried, not assumed.

use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1 as _};
use wasmtime_wasi::runtime::in_tokio;
use wiggle::GuestMemory;

use super::guest::Guest;
use super::readdir;

const MODULE: &str = "wasi_snapshot_preview1";
/// `errno::fault`, `errno::fbig`, `errno::nospc`.
const FAULT: i32 = 21;
const FBIG: i32 = 22;
const NOSPC: i32 = 51;
/// `oflags::creat`.
const CREATE: i32 = 1;
/// Bytes of a `filestat`, and where in it things are.
const STAT: usize = 64;
const STAT_TYPE: usize = 16;
/// `filetype::directory`, `filetype::regular_file`.
const FOLDER: u8 = 3;
const FILE: u8 = 4;

type Call<'a> = Caller<'a, Guest>;

/// Puts them over Wasmtime's.
pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    add_making(linker)?;
    add_filling(linker)?;
    add_veils(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_making(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "path_open",
        |mut call: Call<'_>,
         fd: i32,
         dir: i32,
         path: i32,
         len: i32,
         open: i32,
         base: i64,
         inherit: i64,
         flags: i32,
         to: i32| {
            with(&mut call, |guest, memory| {
                if open & CREATE != 0 && !guest.quota.take_file() {
                    // One that is there may be opened all the same.
                    let there = wasi::path_open(
                        &mut guest.wasi,
                        memory,
                        fd,
                        dir,
                        path,
                        len,
                        open & !CREATE,
                        base,
                        inherit,
                        flags,
                        to,
                    );
                    let errno = in_tokio(there)?;
                    return Ok(if errno == 0 { 0 } else { no_room(guest) });
                }
                in_tokio(wasi::path_open(&mut guest.wasi, memory, fd, dir, path, len, open, base, inherit, flags, to))
            })
        },
    )?;
    linker.func_wrap(MODULE, "path_create_directory", |mut call: Call<'_>, fd: i32, path: i32, len: i32| {
        with(&mut call, |guest, memory| {
            if !guest.quota.take_file() {
                return Ok(no_room(guest));
            }
            in_tokio(wasi::path_create_directory(&mut guest.wasi, memory, fd, path, len))
        })
    })?;
    linker.func_wrap(
        MODULE,
        "path_symlink",
        |mut call: Call<'_>, old: i32, old_len: i32, fd: i32, new: i32, new_len: i32| {
            with(&mut call, |guest, memory| {
                if !guest.quota.take_file() {
                    return Ok(no_room(guest));
                }
                in_tokio(wasi::path_symlink(&mut guest.wasi, memory, old, old_len, fd, new, new_len))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "path_link",
        |mut call: Call<'_>, old_fd: i32, flags: i32, old: i32, old_len: i32, fd: i32, new: i32, new_len: i32| {
            with(&mut call, |guest, memory| {
                if !guest.quota.take_file() {
                    return Ok(no_room(guest));
                }
                in_tokio(wasi::path_link(&mut guest.wasi, memory, old_fd, flags, old, old_len, fd, new, new_len))
            })
        },
    )?;
    Ok(())
}

fn add_filling(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_write", |mut call: Call<'_>, fd: i32, list: i32, count: i32, to: i32| {
        with(&mut call, |guest, memory| {
            let Some(bytes) = gather(memory, list, count) else { return Ok(FAULT) };
            if let Some(at) = position(guest, fd)?
                && !guest.quota.fits(at.saturating_add(bytes))
            {
                guest.quota.refused();
                return Ok(FBIG);
            }
            if !guest.quota.take_bytes(bytes) && is_file(guest, fd)? {
                return Ok(no_room(guest));
            }
            in_tokio(wasi::fd_write(&mut guest.wasi, memory, fd, list, count, to))
        })
    })?;
    linker.func_wrap(MODULE, "fd_pwrite", |mut call: Call<'_>, fd: i32, list: i32, count: i32, at: i64, to: i32| {
        with(&mut call, |guest, memory| {
            let Some(bytes) = gather(memory, list, count) else { return Ok(FAULT) };
            if !guest.quota.fits(at.cast_unsigned().saturating_add(bytes)) {
                guest.quota.refused();
                return Ok(FBIG);
            }
            if !guest.quota.take_bytes(bytes) {
                return Ok(no_room(guest));
            }
            in_tokio(wasi::fd_pwrite(&mut guest.wasi, memory, fd, list, count, at, to))
        })
    })?;
    linker.func_wrap(MODULE, "fd_filestat_set_size", |mut call: Call<'_>, fd: i32, size: i64| {
        with(&mut call, |guest, memory| {
            if !guest.quota.fits(size.cast_unsigned()) {
                guest.quota.refused();
                return Ok(FBIG);
            }
            if !guest.quota.take_bytes(0) {
                return Ok(no_room(guest));
            }
            in_tokio(wasi::fd_filestat_set_size(&mut guest.wasi, memory, fd, size))
        })
    })?;
    Ok(())
}

fn add_veils(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "fd_filestat_get", |mut call: Call<'_>, fd: i32, to: i32| {
        with(&mut call, |guest, memory| {
            let errno = in_tokio(wasi::fd_filestat_get(&mut guest.wasi, memory, fd, to))?;
            veil(guest, memory, errno, to);
            Ok(errno)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "path_filestat_get",
        |mut call: Call<'_>, fd: i32, flags: i32, path: i32, len: i32, to: i32| {
            with(&mut call, |guest, memory| {
                let errno = in_tokio(wasi::path_filestat_get(&mut guest.wasi, memory, fd, flags, path, len, to))?;
                veil(guest, memory, errno, to);
                Ok(errno)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "fd_readdir",
        |mut call: Call<'_>, fd: i32, to: i32, len: i32, cookie: i64, used: i32| {
            with(&mut call, |guest, memory| {
                if guest.deterministic {
                    return readdir::sorted(guest, memory, fd, to, len, cookie, used);
                }
                in_tokio(wasi::fd_readdir(&mut guest.wasi, memory, fd, to, len, cookie, used))
            })
        },
    )?;
    Ok(())
}

/// Finds the guest's memory and hands both over.
fn with<R>(
    call: &mut Call<'_>,
    then: impl FnOnce(&mut Guest, &mut GuestMemory<'_>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    let Some(Extern::Memory(memory)) = call.get_export("memory") else {
        wasmtime::bail!("the module exports no memory, by which alone its calls can be answered");
    };
    let fuel = call.as_context_mut().hostcall_fuel();
    let (bytes, guest) = memory.data_and_store_mut(&mut *call);
    guest.wasi.set_hostcall_fuel(fuel);
    then(guest, &mut GuestMemory::Unshared(bytes))
}

fn no_room(guest: &Guest) -> i32 {
    guest.quota.refused();
    NOSPC
}

/// Bytes that a write gathers; none where its list lies outside of the memory.
fn gather(memory: &GuestMemory<'_>, list: i32, count: i32) -> Option<u64> {
    let bytes = slice(memory)?;
    let from = place(list);
    let to = from.checked_add(place(count).checked_mul(8)?)?;
    let lengths = bytes.get(from..to)?.chunks_exact(8).filter_map(|buffer| buffer.get(4..8)?.try_into().ok());
    Some(lengths.map(|length| u64::from(u32::from_le_bytes(length))).fold(0, u64::saturating_add))
}

/// Where in its file a descriptor stands; none where it is no file.
fn position(guest: &mut Guest, fd: i32) -> wasmtime::Result<Option<u64>> {
    let mut at = [0_u8; 8];
    let errno = wasi::fd_tell(&mut guest.wasi, &mut GuestMemory::Unshared(&mut at), fd, 0)?;
    Ok((errno == 0).then_some(u64::from_le_bytes(at)))
}

/// Whether a descriptor is a file on disk, rather than an output.
fn is_file(guest: &mut Guest, fd: i32) -> wasmtime::Result<bool> {
    let mut stat = [0_u8; STAT];
    let errno = in_tokio(wasi::fd_filestat_get(&mut guest.wasi, &mut GuestMemory::Unshared(&mut stat), fd, 0))?;
    Ok(errno == 0 && stat.get(STAT_TYPE) == Some(&FILE))
}

/// Takes from a `filestat` what differs between machines: device, inode, times, and of folders size and links.
fn veil(guest: &Guest, memory: &mut GuestMemory<'_>, errno: i32, at: i32) {
    let GuestMemory::Unshared(bytes) = memory else { return };
    let from = place(at);
    let Some(stat) = from.checked_add(STAT).and_then(|to| bytes.get_mut(from..to)) else { return };
    if !guest.deterministic || errno != 0 {
        return;
    }
    let folder = stat.get(STAT_TYPE) == Some(&FOLDER);
    for (offset, byte) in stat.iter_mut().enumerate() {
        let hidden = match offset {
            // Device and inode; the three times.
            0..16 | 40..64 => true,
            // Links and size.
            24..40 => folder,
            _ => false,
        };
        if hidden {
            *byte = 0;
        }
    }
}

pub(super) fn slice<'a>(memory: &'a GuestMemory<'_>) -> Option<&'a [u8]> {
    match memory {
        GuestMemory::Unshared(bytes) => Some(bytes),
        GuestMemory::Shared(_) => None,
    }
}

/// A pointer or length of a guest.
pub(super) fn place(value: i32) -> usize {
    usize::try_from(value.cast_unsigned()).unwrap_or(usize::MAX)
}
