//! Modules by their digests, and the code compiled from them.
//!
//! Compiled code is run as it is, so each file of it is bound by a keyed digest to its module and engine: the key is made here, and lies
//! beside it in a folder that only this user can open. Code that doesn't fit its digest is as good as none. It is never taken from elsewhere.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::error::WasmError;
use crate::engine::{self, Flavour};

/// The digest of a module (BLAKE3): its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId([u8; 32]);

impl ModuleId {
    /// Of these bytes.
    #[must_use]
    pub fn of(module: &[u8]) -> Self {
        Self(*blake3::hash(module).as_bytes())
    }

    /// From the digest itself.
    #[must_use]
    pub fn new(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&hex::encode(self.0))
    }
}

impl FromStr for ModuleId {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest)?;
        Ok(Self(digest))
    }
}

/// Files of code that are kept open, their digests checked. Beyond, all are closed and checked anew.
const OPEN: usize = 64;
const CODE: &str = "code";
const DIGEST: &str = "digest";

type Opened = HashMap<(ModuleId, Flavour), Arc<File>>;

#[derive(Debug)]
pub(super) struct Store {
    modules: PathBuf,
    compiled: PathBuf,
    secret: [u8; 32],
    most: u64,
    opened: Mutex<Opened>,
    /// Of the engines used so far; to make one takes a while.
    keys: Mutex<HashMap<Flavour, String>>,
}

/// Where a compiler writes to, before it has a name.
#[derive(Debug)]
pub(super) struct Target(NamedTempFile);

impl Target {
    pub(super) fn as_file(&self) -> &File {
        self.0.as_file()
    }
}

impl Store {
    pub(super) fn open(folder: &Path, most: u64) -> Result<Self, WasmError> {
        let (modules, compiled) = (folder.join("modules"), folder.join("compiled"));
        for place in [folder, &modules, &compiled] {
            close_to_others(place).map_err(|error| WasmError::io(place, error))?;
        }
        let file = folder.join("key");
        let secret = secret(&file).map_err(|error| WasmError::io(&file, error))?;
        Ok(Self { modules, compiled, secret, most, opened: Mutex::default(), keys: Mutex::default() })
    }

    pub(super) fn put(&self, module: &[u8]) -> Result<ModuleId, WasmError> {
        let id = ModuleId::of(module);
        if !self.has(&id) {
            write(&self.modules, &self.path(&id), module)?;
        }
        Ok(id)
    }

    pub(super) fn has(&self, module: &ModuleId) -> bool {
        self.path(module).is_file()
    }

    pub(super) fn remove(&self, module: &ModuleId) -> Result<(), WasmError> {
        self.opened().retain(|(id, _), _| id != module);
        let prefix = format!("{module}-");
        let listed = fs::read_dir(&self.compiled).map_err(|error| WasmError::io(&self.compiled, error))?;
        let codes = listed.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        for path in codes.map(|entry| entry.path()).chain([self.path(module)]) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(WasmError::io(&path, error)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// A module as it was put; one that was changed since is missing.
    pub(super) fn module(&self, module: &ModuleId) -> Result<File, WasmError> {
        let path = self.path(module);
        let read = || -> io::Result<_> {
            let mut file = File::open(&path)?;
            let digest = blake3::Hasher::new().update_reader(&mut file)?.finalize();
            file.rewind()?;
            Ok((file, digest))
        };
        match read() {
            Ok((file, digest)) if *digest.as_bytes() == module.0 => Ok(file),
            Ok(_) => {
                // So that it can be put again.
                let _ = fs::remove_file(&path);
                Err(WasmError::Missing { module: *module })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(WasmError::Missing { module: *module }),
            Err(error) => Err(WasmError::io(&path, error)),
        }
    }

    pub(super) fn target(&self) -> Result<Target, WasmError> {
        NamedTempFile::new_in(&self.compiled).map(Target).map_err(|error| WasmError::io(&self.compiled, error))
    }

    /// Takes what a compiler has written, which can't write any more.
    pub(super) fn keep(&self, module: &ModuleId, flavour: Flavour, target: Target) -> Result<Arc<File>, WasmError> {
        let (code, digest) = self.names(module, flavour)?;
        let failed = |error| WasmError::io(&code, error);
        let written = self.digest(&code, File::open(target.0.path()).map_err(failed)?).map_err(failed)?;
        target.0.persist(&code).map_err(|error| failed(error.error))?;
        write(&self.compiled, &digest, written.as_bytes())?;
        self.trim(&code);
        self.find(module, flavour)?.ok_or_else(|| failed(io::Error::other("it was changed as it was written")))
    }

    /// Code that was checked before, in this process.
    pub(super) fn known(&self, module: &ModuleId, flavour: Flavour) -> Option<Arc<File>> {
        self.opened().get(&(*module, flavour)).cloned()
    }

    /// Code whose digest is right, opened to be read.
    pub(super) fn find(&self, module: &ModuleId, flavour: Flavour) -> Result<Option<Arc<File>>, WasmError> {
        if !self.has(module) {
            return Err(WasmError::Missing { module: *module });
        }
        let (code, digest) = self.names(module, flavour)?;
        let read = || -> io::Result<Option<File>> {
            let mut expected = [0; 32];
            File::open(&digest)?.read_exact(&mut expected)?;
            let file = File::open(&code)?;
            // Compared in constant time.
            if self.digest(&code, file.try_clone()?)? != blake3::Hash::from_bytes(expected) {
                return Ok(None);
            }
            let _ = file.set_modified(SystemTime::now());
            Ok(Some(file))
        };
        match read() {
            Ok(Some(file)) => {
                let file = Arc::new(file);
                let mut opened = self.opened();
                if opened.len() >= OPEN {
                    opened.clear();
                }
                opened.insert((*module, flavour), Arc::clone(&file));
                Ok(Some(file))
            }
            Ok(None) => {
                tracing::warn!(%module, "compiled code was changed from outside, and is made anew");
                Ok(None)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(None),
            Err(error) => Err(WasmError::io(&code, error)),
        }
    }

    /// Over the name, which holds module and engine, and the code.
    fn digest(&self, code: &Path, file: File) -> io::Result<blake3::Hash> {
        let name = code.file_name().unwrap_or_default().as_encoded_bytes();
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(&u64::try_from(name.len()).unwrap_or(0).to_le_bytes()).update(name);
        Ok(hasher.update_reader(file)?.finalize())
    }

    fn names(&self, module: &ModuleId, flavour: Flavour) -> Result<(PathBuf, PathBuf), WasmError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = match keys.get(&flavour) {
            Some(key) => key.clone(),
            None => {
                let key = engine::key(flavour).map_err(|error| WasmError::Engine { reason: error.to_string() })?;
                keys.insert(flavour, key.clone());
                key
            }
        };
        let name = self.compiled.join(format!("{module}-{key}"));
        Ok((name.with_extension(CODE), name.with_extension(DIGEST)))
    }

    /// Removes what was used longest ago, as far as there is no room; never what was just written.
    fn trim(&self, but: &Path) {
        let Ok(listed) = fs::read_dir(&self.compiled) else { return };
        let mut codes: Vec<(SystemTime, u64, PathBuf)> = listed
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|end| end == CODE))
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                Some((about.modified().ok()?, about.len(), entry.path()))
            })
            .collect();
        codes.sort();
        let mut sum: u64 = codes.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in codes.iter().filter(|(_, _, path)| path != but) {
            if sum <= self.most {
                return;
            }
            sum = sum.saturating_sub(*bytes);
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension(DIGEST));
            self.opened().clear();
        }
    }

    fn path(&self, module: &ModuleId) -> PathBuf {
        self.modules.join(format!("{module}.wasm"))
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(folder: &Path, path: &Path, bytes: &[u8]) -> Result<(), WasmError> {
    let write = || -> io::Result<()> {
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(|error| WasmError::io(path, error))
}

fn close_to_others(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let about = fs::symlink_metadata(folder)?;
    if !about.is_dir() || about.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it must be a folder of the user that runs this program"));
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// The key of this machine's digests, made at the first start. One that can't be read whole makes all code unusable, and a new one.
fn secret(path: &Path) -> io::Result<[u8; 32]> {
    let mut secret = [0; 32];
    match File::open(path).and_then(|mut file| file.read_exact(&mut secret)) {
        Ok(()) => return Ok(secret),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
        Err(error) => return Err(error),
    }
    getrandom::fill(&mut secret).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}
