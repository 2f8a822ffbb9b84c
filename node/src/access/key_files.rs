//! Public SSH keys as people name them: a line of OpenSSH, or a file of such lines.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use souk_ssh::keys::{AuthorizedKey, KeyError};

/// Bytes of a file that are read.
const FILE_BYTES: u64 = 256 * 1024;

/// Why no keys were found.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The text is neither.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The file can't be read.
    #[error("`{path}` is no public SSH key, and as a file it can't be read: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line of the file is no key that gets in.
    #[error("{path}, line {line}: {source}")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        source: KeyError,
    },
    /// The file has none.
    #[error("{0} has no public SSH key in it")]
    None(PathBuf),
}

/// Reads a key, or the keys of a file; `~/` is the home directory. A private key's file stands for the public one beside it.
///
/// # Errors
/// [`KeyFileError`].
pub fn read(text: &str) -> Result<Vec<AuthorizedKey>, KeyFileError> {
    if text.trim().contains(char::is_whitespace) && !Path::new(text).exists() {
        return Ok(vec![AuthorizedKey::read(text)?]);
    }
    let path = match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    };
    let content = content(&path).map_err(|source| KeyFileError::File { path: path.clone(), source })?;
    let (path, content) = if content.contains("PRIVATE KEY-----") {
        let mut public = path.clone().into_os_string();
        public.push(".pub");
        let public = PathBuf::from(public);
        let content = self::content(&public).map_err(|_| KeyError::Private)?;
        (public, content)
    } else {
        (path, content)
    };
    let lines = content.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<_> = keys
        .map(|(line, key)| {
            AuthorizedKey::read(key).map_err(|source| KeyFileError::Line { path: path.clone(), line, source })
        })
        .collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(KeyFileError::None(path)) } else { Ok(keys) }
}

/// As [`read`], of several, as lines of OpenSSH.
///
/// # Errors
/// [`KeyFileError`], the first.
pub fn lines(texts: &[String]) -> Result<Vec<String>, KeyFileError> {
    let keys = texts.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(keys.iter().flatten().map(AuthorizedKey::line).collect())
}

fn content(path: &Path) -> io::Result<String> {
    let mut content = String::new();
    File::open(path)?.take(FILE_BYTES).read_to_string(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_is_a_line_or_a_file_and_a_private_one_never_leaves_its_own() {
        let key = souk_ssh::keys::HostKey::of_node(&[1; 32]);
        let line = souk_ssh::keys::public_line(&key.public(), "me");
        assert_eq!(lines(std::slice::from_ref(&line)).unwrap(), vec![line.clone()]);

        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("id");
        std::fs::write(&private, key.private_file().unwrap().as_bytes()).unwrap();
        let name = private.to_str().unwrap().to_owned();
        assert!(matches!(read(&name), Err(KeyFileError::Key(KeyError::Private))));
        std::fs::write(dir.path().join("id.pub"), format!("# mine\n\n{line}\n{line}\n")).unwrap();
        assert_eq!(lines(&[name]).unwrap(), vec![line.clone(), line.clone()]);

        let wrong = dir.path().join("wrong");
        std::fs::write(&wrong, format!("{line}\nnonsense\n")).unwrap();
        let told = read(wrong.to_str().unwrap()).unwrap_err().to_string();
        assert!(told.contains("wrong, line 2"), "{told}");
        std::fs::write(&wrong, "# nothing\n").unwrap();
        assert!(matches!(read(wrong.to_str().unwrap()), Err(KeyFileError::None(_))));
        assert!(matches!(read("/nowhere/at/all"), Err(KeyFileError::File { .. })));
        assert!(matches!(read("hello there"), Err(KeyFileError::Key(KeyError::Malformed))));
    }
}
