//! A client of the instance's own endpoint, for images without one.
//!
//! Owns nothing: says what is wanted with the key of this instance, and prints the answer.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::say;

/// Where the endpoint is, unless the variable says otherwise.
const SOCKET: &str = "/.souk/self/api.sock";
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER: u64 = 64 * 1024;
/// Wrong usage.
const USAGE: u8 = 2;

/// Asks, prints, and gives 0, or 1 if it was refused.
pub fn run(arguments: &[OsString]) -> u8 {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let (method, path, body) = match words.as_slice() {
        [] | ["show"] => ("GET", "/v1/self", String::new()),
        ["notice"] => ("GET", "/v1/self/notice", String::new()),
        ["stop"] => ("POST", "/v1/self/stop", String::new()),
        ["destroy"] => ("POST", "/v1/self/destroy", String::new()),
        ["label", text] => ("POST", "/v1/self/label", format!("{{\"label\":\"{}\"}}", escaped(text))),
        _ => {
            say("usage: guest self [show | notice | stop | destroy | label TEXT]");
            return USAGE;
        }
    };
    match ask(method, path, &body) {
        Ok((ok, answer)) => {
            let line = answer.trim_end();
            if ok {
                let _ = writeln!(std::io::stdout(), "{line}");
                return 0;
            }
            let _ = writeln!(std::io::stderr(), "{line}");
            1
        }
        Err(why) => {
            say(&why);
            1
        }
    }
}

fn ask(method: &str, path: &str, body: &str) -> Result<(bool, String), String> {
    let socket = std::env::var("SOUK_API_SOCKET").unwrap_or_else(|_| SOCKET.to_owned());
    let key = std::env::var("CONTAINER_API_KEY").map_err(
        |_| "CONTAINER_API_KEY is not set: this is no process of a rented instance, or it lost its variables",
    )?;
    let gone = |error: std::io::Error| {
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            "the host's node does not run right now; try again in a moment".to_owned()
        } else {
            format!("{socket}: {error}")
        }
    };
    let mut stream = UnixStream::connect(&socket).map_err(gone)?;
    stream.set_read_timeout(Some(WITHIN)).and_then(|()| stream.set_write_timeout(Some(WITHIN))).map_err(gone)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: self\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(gone)?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).map_err(gone)?;
    read(&answer).ok_or_else(|| "the endpoint's answer makes no sense".to_owned())
}

/// Whether the status is a good one, and the body. The endpoint sends bodies whole and closes after them.
fn read(answer: &[u8]) -> Option<(bool, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    Some((status < 300, body.to_owned()))
}

/// A text inside a JSON string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{escaped, read};

    #[test]
    fn answers_are_read_and_texts_escaped() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{}\n"), Some((true, "{}\n".to_owned())));
        assert_eq!(read(b"HTTP/1.1 403 Forbidden\r\n\r\nno"), Some((false, "no".to_owned())));
        assert_eq!(read(b"nonsense"), None);
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\u000a");
    }
}
