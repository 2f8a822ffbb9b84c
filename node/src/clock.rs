//! The node's clock: the only place that asks the system for the time.
//!
//! The system's clock may be set wrong while the node runs, and contracts and disks end by it. So a jump ahead is not believed at
//! once: the node's time goes on at the pace of the time since boot, until the system's clock agrees with it again or has stayed
//! where it jumped to for ten minutes. A clock that is set back ends nothing early, and is followed at once.

use std::{
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use souk_protocol::{Millis, Timestamp, limits};

/// How long the system's clock must keep a jump ahead before it is followed.
const BELIEVED_AFTER: Duration = Duration::from_mins(10);

static STEADY: Mutex<Steady> = Mutex::new(Steady { anchor: None, jumped: None });

/// Now, in milliseconds since the Unix epoch.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp(millis(since).0);
    let mut steady = STEADY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = steady.jumped.is_some();
    let now = steady.tell(wall, since_boot());
    match (before, steady.jumped) {
        (false, Some(_)) => tracing::warn!(
            "the system's clock jumped ahead by {}: leases go on by the time before, for {} minutes unless it is set right; \
             if the new time is right, restart the node",
            wall.since(now),
            BELIEVED_AFTER.as_secs() / 60
        ),
        (true, None) => tracing::warn!("the system's clock is followed again"),
        (true, Some(_)) | (false, None) => {}
    }
    now
}

/// Time since the machine's start, that in which it slept included: nobody sets it.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}

/// Follows the system's clock, but not when it jumps ahead.
#[derive(Debug)]
struct Steady {
    /// What the system's clock said when it was followed last, and when since boot.
    anchor: Option<(Timestamp, Duration)>,
    /// When since boot the system's clock jumped ahead, while it is not followed.
    jumped: Option<Duration>,
}

impl Steady {
    fn tell(&mut self, wall: Timestamp, boot: Duration) -> Timestamp {
        let own = self.anchor.map_or(wall, |(said, at)| said + millis(boot.saturating_sub(at)));
        let ahead = wall.since(own) > limits::CLOCK_SKEW;
        let since = self.jumped.unwrap_or(boot);
        let held = ahead && boot.saturating_sub(since) < BELIEVED_AFTER;
        self.jumped = held.then_some(since);
        if held {
            return own;
        }
        self.anchor = Some((wall, boot));
        wall
    }
}

fn millis(time: Duration) -> Millis {
    Millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Time since the machine's start, that in which it slept included, for what the system's clock must not disturb.
#[must_use]
pub fn since_start() -> Millis {
    millis(since_boot())
}

/// Fresh randomness from the system.
///
/// # Errors
/// If the system has none to give.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;

    /// What is told when the system says so many seconds after the start, so many seconds after boot.
    fn told(steady: &mut Steady, wall: u64, boot: u64) -> u64 {
        (steady.tell(Timestamp(START + wall * 1000), Duration::from_secs(boot)).0 - START) / 1000
    }

    #[test]
    fn a_jump_ahead_is_believed_only_if_it_stays_and_one_back_at_once() {
        let steady = &mut Steady { anchor: None, jumped: None };
        assert_eq!(told(steady, 0, 5000), 0);
        assert_eq!(told(steady, 70, 5010), 70, "within what clocks differ by");
        assert_eq!(told(steady, 90_070, 5011), 71, "a day ahead: time goes on as before");
        assert_eq!(told(steady, 90_370, 5311), 371);
        assert_eq!(told(steady, 380, 5320), 380, "set right: nothing has happened");
        assert_eq!(told(steady, 90_390, 5330), 390, "the next jump begins anew");
        assert_eq!(told(steady, 90_390 + 599, 5330 + 599), 390 + 599);
        assert_eq!(told(steady, 90_390 + 600, 5330 + 600), 90_390 + 600, "it has stayed");
        assert_eq!(told(steady, 90_991, 5931), 90_991);
        assert_eq!(told(steady, 50_000, 5932), 50_000, "set back");
        assert_eq!(told(steady, 50_000 + 4000, 5932 + 4000), 54_000, "the machine slept");
    }
}
