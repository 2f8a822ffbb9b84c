//! The instance's side of the renter's meter: says again and again that it is there, and for how long it has been awake.
//!
//! Owns the count. It is of the time in which this process was scheduled, not of a clock: a clock goes on while the instance is
//! frozen, this doesn't. A question is a line of sixteen hexadecimal digits; the answer repeats them, and adds this process' number,
//! how long it has been awake and for how long the instance's first process has been there, both in milliseconds.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, BufRead as _, Read as _, Write as _},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that comes later than this is not late because others were busy: nothing ran here.
const STOOD_STILL: Duration = Duration::from_secs(5);
/// Bytes of a question, its end included.
const QUESTION_BYTES: u64 = 64;
/// What the kernel counts the start of a process in, by its interface: hundredths of a second, whatever its own clock.
const TICKS_A_SECOND: u64 = 100;

/// How long this process has been awake.
struct Awake {
    counted: Duration,
    looked: Instant,
}

impl Awake {
    fn look(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        self.counted += if passed > STOOD_STILL { LOOK_EVERY } else { passed };
        self.looked = now;
        self.counted
    }
}

/// Answers until the input ends.
pub fn run() -> u8 {
    let awake = Arc::new(Mutex::new(Awake { counted: Duration::ZERO, looked: Instant::now() }));
    let counts = Arc::clone(&awake);
    let look = move || {
        loop {
            thread::sleep(LOOK_EVERY);
            counts.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now());
        }
    };
    if let Err(error) = thread::Builder::new().stack_size(64 * 1024).spawn(look) {
        crate::say(&format!("the count can't be kept: {error}"));
        return 1;
    }
    // Other processes get another: a fresh key of the system's randomness.
    let process = RandomState::new().build_hasher().finish();
    let mut questions = io::stdin().lock();
    let mut line = String::new();
    loop {
        line.clear();
        match questions.by_ref().take(QUESTION_BYTES).read_line(&mut line) {
            Ok(0) | Err(_) => return 0,
            Ok(_) => {}
        }
        let asked = line.trim_end();
        if asked.len() != 16 || !asked.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return 1;
        }
        let counted = awake.lock().unwrap_or_else(PoisonError::into_inner).look(Instant::now());
        let answer = format!("{asked} {process:016x} {} {}\n", counted.as_millis(), up_ms());
        let mut out = io::stdout().lock();
        if out.write_all(answer.as_bytes()).and_then(|()| out.flush()).is_err() {
            return 0;
        }
    }
}

/// How long the instance's first process has been there; nothing where that can't be read.
fn up_ms() -> u64 {
    let read = |path: &str| fs::read_to_string(path).ok();
    read("/proc/1/stat").zip(read("/proc/uptime")).and_then(|(stat, uptime)| since(&stat, &uptime)).unwrap_or(0)
}

/// From the kernel's lines on a process and on itself, see proc(5).
fn since(stat: &str, uptime: &str) -> Option<u64> {
    // The name is in brackets and may hold anything, brackets too. The start is the 22nd field, the state after the name the third.
    let (_, fields) = stat.rsplit_once(')')?;
    let started: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let (seconds, rest) = uptime.split_whitespace().next()?.split_once('.')?;
    let hundredths: u64 = rest.get(..2)?.parse().ok()?;
    let now = seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(hundredths * 10)?;
    Some(now.saturating_sub(started.checked_mul(1000 / TICKS_A_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stood_still_is_not_counted() {
        let begin = Instant::now();
        let mut awake = Awake { counted: Duration::ZERO, looked: begin };
        for second in 1..=10 {
            awake.look(begin + Duration::from_secs(second));
        }
        assert_eq!(awake.look(begin + Duration::from_secs(14)), Duration::from_secs(14), "a busy machine");
        assert_eq!(awake.look(begin + Duration::from_secs(74)), Duration::from_secs(15), "a frozen one");
        assert_eq!(awake.look(begin), Duration::from_secs(15), "a clock that goes back");
    }

    #[test]
    fn the_age_of_the_first_process_is_read_past_its_name() {
        let stat = "1 (a) b (c)) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 4096 100 1";
        assert_eq!(since(stat, "200.51 300.00\n"), Some(200_510 - 123_450));
        assert_eq!(since(stat, "1.00 1.00"), Some(0));
        assert_eq!(since("1 (x) S 0", "1.00 1.00"), None);
        assert_eq!(since(stat, "nonsense"), None);
        assert!(up_ms() > 0);
    }
}
