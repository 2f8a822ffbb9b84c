//! What SFTP requests do to files. Decides nothing about who may: the kernel does, by the user this runs as.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{self as unix, DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::wire::{Attributes, Status};

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;
/// Permission bits that a client may set.
const MODE_BITS: u32 = 0o7777;

/// Opens a file as asked. Also whether writes go to its end.
pub fn open(path: &OsStr, flags: u32, wanted: &Attributes) -> io::Result<(File, bool)> {
    let has = |flag: u32| flags & flag != 0;
    let (write, append) = (has(WRITE), has(APPEND));
    let mut options = OpenOptions::new();
    options.read(has(READ) || !write && !append).write(write && !append).append(append);
    if write || append {
        options
            .create(has(CREATE) && !has(EXCLUSIVE))
            .create_new(has(CREATE) && has(EXCLUSIVE))
            .truncate(has(TRUNCATE) && !append);
    }
    // A terminal or a pipe in there mustn't hold this program up.
    options.mode(wanted.mode.unwrap_or(0o666) & MODE_BITS).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let file = options.open(path)?;
    if append && has(TRUNCATE) {
        file.set_len(0)?;
    }
    Ok((file, append))
}

/// Changes a file, through a link.
pub fn change(path: &OsStr, wanted: &Attributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path)?.set_len(size)?;
    }
    if let Some(times) = wanted.times {
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?.set_times(times_of(times))?;
    }
    if let Some((user, group)) = wanted.owner {
        unix::chown(path, Some(user), Some(group))?;
    }
    // Last: a change of owner takes bits away.
    if let Some(mode) = wanted.mode {
        fs::set_permissions(path, Permissions::from_mode(mode & MODE_BITS))?;
    }
    Ok(())
}

/// Changes an open file.
pub fn change_open(file: &File, wanted: &Attributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some((user, group)) = wanted.owner {
        unix::fchown(file, Some(user), Some(group))?;
    }
    if let Some(mode) = wanted.mode {
        file.set_permissions(Permissions::from_mode(mode & MODE_BITS))?;
    }
    if let Some(times) = wanted.times {
        file.set_times(times_of(times))?;
    }
    Ok(())
}

/// Changes a link itself, as far as links can be.
pub fn change_link(path: &OsStr, wanted: &Attributes) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_symlink() {
        return change(path, wanted);
    }
    if let Some((user, group)) = wanted.owner {
        unix::lchown(path, Some(user), Some(group))?;
    }
    Ok(())
}

fn times_of((read, changed): (u32, u32)) -> FileTimes {
    let at = |seconds: u32| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(seconds));
    FileTimes::new().set_accessed(at(read)).set_modified(at(changed))
}

/// Makes a folder.
pub fn make_folder(path: &OsStr, mode: Option<u32>) -> io::Result<()> {
    DirBuilder::new().mode(mode.unwrap_or(0o777) & MODE_BITS).create(path)
}

/// Renames, unless there is something of the new name already.
pub fn rename_new(from: &OsStr, to: &OsStr) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

/// The absolute path without links; its last part needn't exist.
pub fn real_path(path: &OsStr) -> io::Result<OsString> {
    let path = std::path::absolute(path)?;
    match fs::canonicalize(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let (Some(parent), Some(Component::Normal(last))) = (path.parent(), path.components().next_back()) else {
                return Err(error);
            };
            Ok(fs::canonicalize(parent)?.join(last).into_os_string())
        }
        other => other.map(PathBuf::into_os_string),
    }
}

/// As [`real_path`], with a leading `~` or `~/` for the home folder.
pub fn expand(path: &OsStr) -> io::Result<OsString> {
    let home = || std::env::var_os("HOME").unwrap_or_else(|| OsString::from("/"));
    match path.as_bytes() {
        b"~" => real_path(&home()),
        [b'~', b'/', rest @ ..] => real_path(Path::new(&home()).join(OsString::from_vec(rest.to_vec())).as_os_str()),
        _ => real_path(path),
    }
}

/// What is told of a file.
pub fn attributes(meta: &Metadata) -> Attributes {
    let seconds = |time: i64| u32::try_from(time.max(0)).unwrap_or(u32::MAX);
    Attributes {
        size: Some(meta.len()),
        owner: Some((meta.uid(), meta.gid())),
        mode: Some(meta.mode()),
        times: Some((seconds(meta.atime()), seconds(meta.mtime()))),
    }
}

/// A line as `ls -l` prints it.
pub fn long_name(name: &OsStr, meta: &Metadata) -> OsString {
    let (year, month, day) = date(meta.mtime());
    let mut line = OsString::from(format!(
        "{} {:>3} {:<8} {:<8} {:>8} {year}-{month:02}-{day:02} ",
        mode_text(meta.mode()),
        meta.nlink(),
        meta.uid(),
        meta.gid(),
        meta.len(),
    ));
    line.push(name);
    line
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let bits = (0..9).rev().zip("rwxrwxrwx".chars());
    std::iter::once(kind).chain(bits.map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' })).collect()
}

/// Year, month and day (UTC) of a Unix time, by Howard Hinnant's arithmetic over eras of 400 years.
fn date(seconds: i64) -> (i64, i64, i64) {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The code for what the kernel said.
pub fn status_of(error: &io::Error) -> Status {
    let kind = error.kind();
    if matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory) {
        Status::NoSuchFile
    } else if matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        Status::Denied
    } else {
        Status::Failure
    }
}

#[cfg(test)]
mod tests {
    use super::{date, mode_text};

    #[test]
    fn dates_and_modes_read_as_ls_prints_them() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(951_782_400), (2000, 2, 29));
        assert_eq!(date(1_795_305_600), (2026, 11, 22));
        assert_eq!(mode_text(0o100_755), "-rwxr-xr-x");
        assert_eq!(mode_text(0o040_700), "drwx------");
    }
}
