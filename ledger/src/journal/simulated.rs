//! A disk that loses what was not synced, in the ways real ones do. For tests.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Splitmix64: seeded, good enough to choose what a cut destroys.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    name_is_durable: bool,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Content>,
    /// Writes since the last sync of their file, in order over all files.
    unsynced: Vec<(String, usize, Vec<u8>)>,
    /// What takes back each change of names since the last sync of them, in order.
    undo: Vec<Undo>,
    /// Operations until the power goes.
    fuse: Option<usize>,
}

/// What a name held before it was removed, or replaced by another.
#[derive(Debug, Clone)]
enum Undo {
    Removed(String, Content),
    Renamed { from: String, to: String, replaced: Option<Content> },
}

impl State {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// The disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes after so many more writes and syncs.
    pub(crate) fn cut_after(&self, operations: usize) {
        self.state().fuse = Some(operations);
    }

    /// What the next boot finds. With `reorder`, every sector that was not synced survives or not by itself; without, a prefix
    /// of the writes survives, the last one torn anywhere.
    pub(crate) fn reboot(&self, dice: &mut Dice, reorder: bool) -> Self {
        let state = self.state();
        let mut names = state.files.clone();
        // A file system keeps the order of such changes.
        let kept = dice.below(state.undo.len() + 1);
        for undo in state.undo[kept..].iter().rev().cloned() {
            match undo {
                Undo::Removed(name, content) => {
                    names.insert(name, content);
                }
                Undo::Renamed { from, to, replaced } => {
                    if let Some(content) = names.remove(&to) {
                        names.insert(from, content);
                    }
                    names.extend(replaced.map(|content| (to, content)));
                }
            }
        }
        let mut files: BTreeMap<String, Content> = names
            .iter()
            .filter(|(_, c)| c.name_is_durable || dice.below(2) == 0)
            .map(|(name, c)| (name.clone(), c.clone()))
            .collect();
        for content in files.values_mut() {
            content.now = content.durable.clone();
            content.name_is_durable = true;
        }
        let survivors = dice.below(state.unsynced.len() + 1);
        for (i, (name, offset, bytes)) in state.unsynced.iter().enumerate() {
            let Some(content) = files.get_mut(name) else {
                continue;
            };
            if reorder {
                for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                    match dice.below(3) {
                        0 => put(&mut content.now, offset + n * SECTOR, sector),
                        // The length came through, the data did not.
                        1 => put(&mut content.now, offset + n * SECTOR + sector.len(), &[]),
                        _ => {}
                    }
                }
            } else if i < survivors {
                put(&mut content.now, *offset, bytes);
            } else if i == survivors {
                put(&mut content.now, *offset, &bytes[..dice.below(bytes.len() + 1)]);
            }
        }
        for content in files.values_mut() {
            content.durable = content.now.clone();
        }
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// All bytes of a file, to damage them.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.state().files.get_mut(name) {
            change(&mut content.now);
            content.durable = content.now.clone();
        }
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(State { files: self.state().files.clone(), ..State::default() })))
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if bytes.len() < offset + new.len() {
        bytes.resize(offset + new.len(), 0);
    }
    bytes[offset..offset + new.len()].copy_from_slice(new);
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.spend()?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), Content::default());
        Ok(Box::new(SimulatedFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Box<dyn DiskFile>> {
        if !self.state().files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(SimulatedFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let content = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.undo.push(Undo::Removed(name.to_owned(), content));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let content = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        for (name, ..) in &mut state.unsynced {
            if name == from {
                to.clone_into(name);
            }
        }
        let replaced = state.files.insert(to.to_owned(), content);
        state.undo.push(Undo::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.undo.clear();
        for content in state.files.values_mut() {
            content.name_is_durable = true;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("simulated").join(name)
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    name: String,
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(state.files.get(&self.name).map_or(0, |c| c.now.len()) as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let now = state.files.get(&self.name).map_or(&[][..], |c| &c.now);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(now.len());
        let n = buffer.len().min(now.len() - from);
        buffer[..n].copy_from_slice(&now[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        state.unsynced.push((self.name.clone(), offset, bytes.to_vec()));
        if let Some(content) = state.files.get_mut(&self.name) {
            put(&mut content.now, offset, bytes);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.spend()?;
        state.unsynced.retain(|(name, ..)| *name != self.name);
        if let Some(content) = state.files.get_mut(&self.name) {
            content.durable = content.now.clone();
        }
        Ok(())
    }
}
