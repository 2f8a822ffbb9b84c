//! A token bucket. Pure: time is an argument.

use std::time::Instant;

/// Lets `rate` a second through on average, and `burst` at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate: rate.into(), burst: burst.into(), tokens: burst.into(), at: now }
    }

    /// A full bucket that lets `rate` a minute through.
    pub(crate) fn per_minute(rate: u32, burst: u32, now: Instant) -> Self {
        Self { rate: f64::from(rate) / 60.0, ..Self::new(rate, burst, now) }
    }

    /// Whether it is as one that was never used.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        elapsed.mul_add(self.rate, self.tokens) >= self.burst
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = elapsed.mul_add(self.rate, self.tokens).min(self.burst);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, 20, now);
        assert_eq!((0..100).filter(|_| bucket.take(now)).count(), 20);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 10);
        let idle = now + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(idle)).count(), 20);
    }
}
