//! Where templates are kept: `templates/NAME.json` in the data directory, each as its canonical text.
//!
//! Owns names, and finding a template by name, file or the beginning of its id. Files are read within bounds whatever they are.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{FILE_BYTES, Template, TemplateError};

const FOLDER: &str = "templates";
const END: &str = ".json";
/// Characters of a name.
const NAME: usize = 64;
/// Templates that are looked at: more than anybody keeps.
const KEPT: usize = 10_000;
/// Digits of an id, at the least, that stand for it.
const DIGITS: usize = 4;

/// Why a template can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error("there is no template `{0}`")]
    Missing(String),
    /// The beginning of more than one id.
    #[error("`{0}` is the beginning of the ids of several templates: {1}")]
    Ambiguous(String, String),
    /// Another one has this name.
    #[error("there is another template named {0} already")]
    Taken(String),
    /// That is no name.
    #[error(
        "`{0}` can't be a template's name: 1 to {NAME} letters, digits, dots, dashes and underscores, no dot or dash first"
    )]
    Name(String),
    /// A file holds none.
    #[error("{}: {source}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TemplateError,
    },
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A template with its name.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// What it says, or why it can't be read.
    pub template: Result<Template, String>,
}

/// The templates of a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Of a data directory.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self { folder: dir.join(FOLDER) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{END}"))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// [`StoreError::File`] if the folder can't be read.
    pub fn list(&self) -> Result<Vec<Kept>, StoreError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(StoreError::File { path: self.folder.clone(), source }),
        };
        let names = entries.flatten().filter_map(|entry| {
            let file = entry.file_name();
            file.to_str()?.strip_suffix(END).filter(|name| is_name(name)).map(str::to_owned)
        });
        let mut names: Vec<String> = names.take(KEPT).collect();
        names.sort();
        let kept = |name: String| {
            let template = read(&self.path(&name)).map_err(|error| error.to_string());
            Kept { name, template }
        };
        Ok(names.into_iter().map(kept).collect())
    }

    /// The template that a person means: a file's path, `-` for standard input, a name, or the beginning of an id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(&self, what: &str) -> Result<Template, StoreError> {
        if is_file(what) {
            return read(Path::new(what));
        }
        if is_name(what) && self.path(what).exists() {
            return read(&self.path(what));
        }
        let hex = what.len() >= DIGITS && what.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex {
            return Err(StoreError::Missing(what.to_owned()));
        }
        let mut found: Option<Template> = None;
        let mut names = Vec::new();
        for kept in self.list()? {
            if let Ok(template) = kept.template
                && template.id().to_string().starts_with(what)
            {
                names.push(kept.name);
                if found.as_ref().is_some_and(|known| *known != template) {
                    return Err(StoreError::Ambiguous(what.to_owned(), names.join(", ")));
                }
                found = Some(template);
            }
        }
        found.ok_or_else(|| StoreError::Missing(what.to_owned()))
    }

    /// Keeps a template under a name, for this user alone: variables may hold what others shouldn't read.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Taken`] for a name that stands for another, unless that is to be replaced.
    pub fn keep(&self, name: &str, template: &Template, replace: bool) -> Result<PathBuf, StoreError> {
        if !is_name(name) {
            return Err(StoreError::Name(name.to_owned()));
        }
        let path = self.path(name);
        if !replace && path.exists() && read(&path).ok().as_ref() != Some(template) {
            return Err(StoreError::Taken(name.to_owned()));
        }
        let failed = |source| StoreError::File { path: self.folder.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        write(&path, template)?;
        Ok(path)
    }

    /// Forgets one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(name);
        if !is_name(name) || !path.exists() {
            return Err(StoreError::Missing(name.to_owned()));
        }
        fs::remove_file(&path).map_err(|source| StoreError::File { path, source })
    }
}

/// Whether a text means a file, and no name.
#[must_use]
pub fn is_file(what: &str) -> bool {
    what == "-" || what.contains('/') || what.ends_with(END)
}

/// Whether a template can have this name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=NAME).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with(['.', '-']) && !text.ends_with(END)
}

/// The template in a file; `-` is standard input.
///
/// # Errors
/// [`StoreError`].
pub fn read(path: &Path) -> Result<Template, StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let most = FILE_BYTES as u64 + 1;
    if path == Path::new("-") {
        io::stdin().lock().take(most).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        // A pipe or a device might never end.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")));
        }
        File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    }
    Template::read(&bytes).map_err(|source| StoreError::Template { path: path.to_owned(), source })
}

/// Writes a template to a file, whole or not at all.
///
/// # Errors
/// [`StoreError::File`].
pub fn write(path: &Path, template: &Template) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new().permissions(private).tempfile_in(folder).map_err(failed)?;
    file.write_all(&template.canonical()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
