//! Where the store of a base lies, and what is left of others.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

/// The directory of the store that is made from the base up to a segment; zero for none.
#[must_use]
pub fn of_base(directory: &Path, base: u64) -> PathBuf {
    if base == 0 {
        return directory.to_owned();
    }
    with(directory, &format!("-{base}"))
}

/// Where the rows of the next base are made.
#[must_use]
pub fn of_work(directory: &Path, base: u64) -> PathBuf {
    with(directory, &format!("-{base}.work"))
}

/// Removes the stores of other bases, and what was left of making one.
///
/// # Errors
/// What the system says.
pub fn remove_others(directory: &Path, base: u64) -> io::Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Ok(());
    };
    let name = name.to_string_lossy();
    let current = of_base(directory, base).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let keeps = |found: &str| {
        found == current || found.strip_prefix(&current).is_some_and(|rest| rest.starts_with('.') && rest != ".work")
    };
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let ours = found.strip_prefix(&*name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']));
        if ours && !keeps(&found) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a store, or the note about one; one that is not there is no error.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn with(directory: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(directory);
    path.push(suffix);
    path.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_current_store_stays() {
        let parent = tempfile::tempdir().unwrap();
        let store = parent.path().join("sled");
        let all = [
            "sled",
            "sled.bad-7",
            "sled-4",
            "sled-42",
            "sled-42.bad-9",
            "sled-42.work",
            "sled-43",
            "journal",
            "sledge",
        ];
        for name in all {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        fs::write(parent.path().join("sled.condemned"), b"").unwrap();
        fs::write(parent.path().join("sled-42.condemned"), b"").unwrap();
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(parent.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        remove_others(&store, 42).unwrap();
        assert_eq!(left(), ["journal", "sled-42", "sled-42.bad-9", "sled-42.condemned", "sledge"]);
        assert_eq!(of_base(&store, 42), parent.path().join("sled-42"));
        remove_others(&store, 0).unwrap();
        assert_eq!(left(), ["journal", "sledge"]);
        assert_eq!(of_base(&store, 0), store);
    }
}
