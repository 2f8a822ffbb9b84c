//! The workload of `souk demo`: counts primes for some seconds and says how far it has come. A stand-in for a job of a user's own,
//! that needs nothing of the image.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// The longest it counts.
const LONGEST: Duration = Duration::from_secs(600);

/// Counts for `seconds` (10 if that is no number), with a line a second, and gives the exit code.
pub fn run(seconds: Option<&str>) -> u8 {
    let whole = seconds.and_then(|s| s.parse().ok()).map_or(Duration::from_secs(10), Duration::from_secs).min(LONGEST);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    say(&format!("hello from inside {}: counting primes for {} s", host.trim(), whole.as_secs()));
    let begun = Instant::now();
    let (mut number, mut primes, mut told) = (2u64, 0u64, 0);
    while begun.elapsed() < whole {
        if is_prime(number) {
            primes += 1;
        }
        number += 1;
        let second = begun.elapsed().as_secs();
        if second > told {
            told = second;
            say(&format!("{second:>3} s: {primes} primes below {number}"));
        }
    }
    say(&format!("done: {primes} primes below {number}"));
    0
}

fn is_prime(n: u64) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// One line; where nobody reads there is nobody to tell.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes_are_counted_right() {
        assert_eq!((0..100).filter(|n| is_prime(*n)).count(), 25);
    }
}
