//! Metering facts: bytes a guest has sent and received, never shrinking; and the engine's times as numbers.
//!
//! The counters are those of the guest's own bridge, which lives as long as its network does. When the kernel starts them
//! anew (a reboot, a bridge made again) what was counted before is kept as a base, in a small file of the lease. What comes and
//! goes through the node (SSH, further commands, forwarded ports) never touches that bridge, and is counted by [`TunnelMeter`].

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01 UTC.
pub type UnixNanos = u64;

/// Bytes over the guest's network interface, since the instance was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Received by the guest.
    pub rx_bytes: u64,
    /// Sent by the guest.
    pub tx_bytes: u64,
}

/// Counts bytes that pass between a renter and an instance through the node. Shared by all streams to the instance; the lease's
/// meter takes what has come together each time it is read, so a crash loses what passed since.
#[derive(Debug, Default)]
pub struct TunnelMeter {
    rx: AtomicU64,
    tx: AtomicU64,
}

impl TunnelMeter {
    /// So many bytes went into the instance.
    pub fn received(&self, bytes: usize) {
        self.rx.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// So many bytes came out of it.
    pub fn sent(&self, bytes: usize) {
        self.tx.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn take(&self) -> Usage {
        Usage { rx_bytes: self.rx.swap(0, Ordering::Relaxed), tx_bytes: self.tx.swap(0, Ordering::Relaxed) }
    }
}

/// The record of one lease's meter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Which counters these are: the boot and the interface's index.
    epoch: String,
    /// Counted in earlier epochs.
    base: Usage,
    /// Last seen in this epoch.
    last: Usage,
    /// Through the node.
    #[serde(default)]
    tunnels: Usage,
}

impl Record {
    /// Takes a reading of an epoch, and gives the sum.
    fn read(&mut self, epoch: &str, now: Usage) -> Usage {
        let restarted = self.epoch != epoch || now.rx_bytes < self.last.rx_bytes || now.tx_bytes < self.last.tx_bytes;
        if restarted {
            self.base = self.sum();
            epoch.clone_into(&mut self.epoch);
        }
        self.last = now;
        self.sum()
    }

    fn sum(&self) -> Usage {
        Usage {
            rx_bytes: self.base.rx_bytes.saturating_add(self.last.rx_bytes),
            tx_bytes: self.base.tx_bytes.saturating_add(self.last.tx_bytes),
        }
    }

    fn pass(&mut self, tunnelled: Usage) {
        self.tunnels.rx_bytes = self.tunnels.rx_bytes.saturating_add(tunnelled.rx_bytes);
        self.tunnels.tx_bytes = self.tunnels.tx_bytes.saturating_add(tunnelled.tx_bytes);
    }

    /// Over the network and through the node.
    fn total(&self) -> Usage {
        let own = self.sum();
        Usage {
            rx_bytes: own.rx_bytes.saturating_add(self.tunnels.rx_bytes),
            tx_bytes: own.tx_bytes.saturating_add(self.tunnels.tx_bytes),
        }
    }
}

/// The meter of one lease. Not to be used from two places at once; the worker owns it.
#[derive(Debug)]
pub(crate) struct Meter {
    file: PathBuf,
    bridge: String,
    record: Record,
    tunnel: Arc<TunnelMeter>,
}

impl Meter {
    /// Opens the meter, with what its file remembers.
    pub(crate) fn open(data_dir: &Path, short: &str, bridge: &str, tunnel: Arc<TunnelMeter>) -> Self {
        let file = data_dir.join("meter").join(format!("{short}.json"));
        let record = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, bridge: bridge.to_owned(), record, tunnel }
    }

    /// Reads the counters and remembers them. Without an interface the last sum holds.
    pub(crate) fn read(&mut self) -> Usage {
        let before = self.record.clone();
        if let Some((epoch, now)) = counters(&self.bridge) {
            self.record.read(&epoch, now);
        }
        self.record.pass(self.tunnel.take());
        if before != self.record
            && let Err(error) = self.save()
        {
            tracing::warn!(%error, file = %self.file.display(), "the traffic meter can't be saved");
        }
        self.record.total()
    }

    /// Forgets the lease.
    pub(crate) fn remove(&mut self) {
        self.record = Record::default();
        let _ = fs::remove_file(&self.file);
    }

    fn save(&self) -> std::io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        let temporary = self.file.with_extension("new");
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.record).unwrap_or_default())?;
        file.sync_data()?;
        fs::rename(&temporary, &self.file)
    }
}

/// The bridge's counters as the guest sees them: what the bridge receives the guest has sent.
fn counters(bridge: &str) -> Option<(String, Usage)> {
    let folder = Path::new("/sys/class/net").join(bridge);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let epoch = format!("{}/{}", boot.trim(), read("ifindex")?.trim());
    let usage = Usage { rx_bytes: number("statistics/tx_bytes")?, tx_bytes: number("statistics/rx_bytes")? };
    Some((epoch, usage))
}

/// Reads the engine's times, `2026-11-22T15:18:00.123456789Z` (or with an offset). The engine's zero time gives `None`.
pub(crate) fn parse_time(text: &str) -> Option<UnixNanos> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("", rest),
    };
    let mut nanos: i64 = 0;
    for place in 0..9 {
        let digit = fraction.as_bytes().get(place).map_or(0, |digit| i64::from(digit - b'0'));
        nanos = nanos * 10 + digit;
    }
    let offset = match zone.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digits = [h1, h2, m1, m2].map(|digit| i64::from(digit.wrapping_sub(b'0')));
            let minutes = (digits[0] * 10 + digits[1]) * 60 + digits[2] * 10 + digits[3];
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    // Days from the civil calendar (Howard Hinnant's algorithm), March-based.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset) * 60 + second;
    let total = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    u64::try_from(total).ok()
}

/// Now, by this machine's clock.
pub(crate) fn now() -> UnixNanos {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Record, Usage, parse_time};

    #[test]
    fn engine_times() {
        assert_eq!(parse_time("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(parse_time("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000_000));
        assert_eq!(parse_time("2026-11-22T15:18:00.123456789+01:00"), Some(1_795_357_080_123_456_789));
        for text in ["0001-01-01T00:00:00Z", "", "x", "2026-11-22", "2026-11-22T15:18:00.1"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_meter_never_shrinks() {
        let usage = |rx_bytes, tx_bytes| Usage { rx_bytes, tx_bytes };
        let mut record = Record::default();
        assert_eq!(record.read("a", usage(10, 20)), usage(10, 20));
        assert_eq!(record.read("a", usage(15, 20)), usage(15, 20));
        // Counters of a bridge made anew, larger already than those of the old one.
        assert_eq!(record.read("b", usage(30, 30)), usage(45, 50));
        assert_eq!(record.read("b", usage(1, 1)), usage(46, 51));
        record.pass(usage(4, 9));
        assert_eq!(record.total(), usage(50, 60));
        // A bridge made anew touches nothing of that.
        record.read("c", usage(0, 0));
        assert_eq!(record.total(), usage(50, 60));
    }
}
