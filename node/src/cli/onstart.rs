//! `--onstart FILE` and `--onstart-cmd C`: the script that an instance runs at each start.

use std::{io::Read, path::Path};

use souk_protocol::limits;

use super::error::Failure;

/// The script, read and checked; none if none was named.
pub(super) fn script(file: Option<&Path>, command: Option<String>) -> Result<Option<String>, Failure> {
    let text = match (file, command) {
        (Some(file), _) => read(file)?,
        (None, Some(command)) => format!("{command}\n"),
        (None, None) => return Ok(None),
    };
    if text.len() > limits::ONSTART_BYTES {
        return Err(Failure::usage("the onstart script is over 32 KiB")
            .hint("put the long part into the image, or fetch it: PROVISIONING_SCRIPT=https://…"));
    }
    if text.contains('\0') {
        return Err(Failure::usage("the onstart script has a NUL character: it is to be a text"));
    }
    Ok(Some(text))
}

fn read(file: &Path) -> Result<String, Failure> {
    let fail = |why: String| Failure::usage(format!("{}: {why}", file.display()));
    let most = u64::try_from(limits::ONSTART_BYTES).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|e| fail(e.to_string()))?;
    opened.take(most).read_to_end(&mut bytes).map_err(|e| fail(e.to_string()))?;
    String::from_utf8(bytes).map_err(|_| fail("is no text in UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scripts_are_bounded_texts() {
        assert_eq!(script(None, None).unwrap(), None);
        assert_eq!(script(None, Some("echo hi".to_owned())).unwrap().unwrap(), "echo hi\n");
        assert!(script(None, Some("a".repeat(32 * 1024))).is_err());
        assert!(script(None, Some("a\0".to_owned())).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        assert_eq!(script(Some(&file), None).unwrap().unwrap(), "#!/bin/sh\n");
        std::fs::write(&file, vec![b'a'; 40_000]).unwrap();
        assert!(script(Some(&file), None).is_err());
        std::fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(script(Some(&file), None).is_err());
        assert!(script(Some(&folder.path().join("none")), None).is_err());
    }
}
