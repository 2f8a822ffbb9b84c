//! A folder's entries as the deterministic mode lists them: by name, without inodes.

use wasmtime_wasi::p1::wasi_snapshot_preview1 as wasi;
use wasmtime_wasi::runtime::in_tokio;
use wiggle::GuestMemory;

use super::guest::Guest;
use super::shims::place;

/// Bytes of an entry before its name.
const HEAD: usize = 24;
/// What a first try has room for.
const FIRST: usize = 64 * 1024;
/// Most bytes of one folder's list.
const MOST: usize = 32 << 20;
/// `errno::fault`, `errno::nomem`.
const FAULT: i32 = 21;
const NOMEM: i32 = 48;

struct Entry {
    kind: u8,
    name: Vec<u8>,
}

/// As `fd_readdir`. The whole folder is read each time, as Wasmtime itself does.
pub(super) fn sorted(
    guest: &mut Guest,
    memory: &mut GuestMemory<'_>,
    fd: i32,
    to: i32,
    len: i32,
    cookie: i64,
    used: i32,
) -> wasmtime::Result<i32> {
    let mut room = FIRST;
    let mut entries = loop {
        let mut own = vec![0_u8; room + 8];
        let length = i32::try_from(room).unwrap_or(i32::MAX);
        let errno =
            in_tokio(wasi::fd_readdir(&mut guest.wasi, &mut GuestMemory::Unshared(&mut own), fd, 8, length, 0, 0))?;
        if errno != 0 {
            return Ok(errno);
        }
        let got = own.first_chunk::<4>().map_or(0, |count| place(i32::from_le_bytes(*count)));
        if got < room {
            break parse(own.get(8..8 + got).unwrap_or_default());
        }
        if room >= MOST {
            return Ok(NOMEM);
        }
        room *= 2;
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let list = list(&entries, cookie.cast_unsigned(), place(len));
    let GuestMemory::Unshared(bytes) = memory else { return Ok(FAULT) };
    let (at, count_at) = (place(to), place(used));
    let Some(target) = at.checked_add(list.len()).and_then(|end| bytes.get_mut(at..end)) else { return Ok(FAULT) };
    target.copy_from_slice(&list);
    let count = u32::try_from(list.len()).unwrap_or(u32::MAX).to_le_bytes();
    let Some(target) = count_at.checked_add(4).and_then(|end| bytes.get_mut(count_at..end)) else { return Ok(FAULT) };
    target.copy_from_slice(&count);
    Ok(0)
}

fn parse(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(HEAD) {
        let length = head.get(16..20).and_then(|n| n.try_into().ok()).map_or(0, |n| place(i32::from_le_bytes(n)));
        let Some((name, rest)) = rest.split_at_checked(length) else { break };
        entries.push(Entry { kind: head.get(20).copied().unwrap_or(0), name: name.to_vec() });
        bytes = rest;
    }
    entries
}

/// Entries from a cookie on, cut at the room there is: a list that fills it says that there are more.
fn list(entries: &[Entry], cookie: u64, room: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for (next, entry) in (1_u64..).zip(entries).skip(usize::try_from(cookie).unwrap_or(usize::MAX)) {
        list.extend_from_slice(&next.to_le_bytes());
        list.extend_from_slice(&[0; 8]);
        list.extend_from_slice(&u32::try_from(entry.name.len()).unwrap_or(0).to_le_bytes());
        list.extend_from_slice(&[entry.kind, 0, 0, 0]);
        list.extend_from_slice(&entry.name);
        if list.len() >= room {
            break;
        }
    }
    list.truncate(room);
    list
}
