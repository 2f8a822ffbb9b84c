//! Printing: lines, tables, JSON, and how amounts, sizes and times look.
//!
//! Whatever comes from another node passes [`plain`] before it reaches a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;
use souk_protocol::{Amount, Currency, Millis, Timestamp};

use super::error::Failure;

/// Text without control characters, which could move a terminal's cursor or hide what is printed.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

/// Prints a line.
pub(super) fn line(text: impl AsRef<str>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    out.flush()?;
    Ok(())
}

/// Prints a line beside the output: progress, questions, hints.
pub(super) fn note(text: impl AsRef<str>) {
    // If standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(e.to_string()))?;
    line(text)
}

/// Prints a value as one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::new(e.to_string()))?;
    line(text)
}

/// Asks a yes-or-no question on the terminal. Where there is none, the answer is `unasked`.
pub(super) fn confirm(question: &str, default: bool, unasked: bool) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(unasked);
    }
    let choices = if default { "[Y/n]" } else { "[y/N]" };
    write!(io::stderr().lock(), "{question} {choices} ")?;
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer)? == 0 {
        return Ok(false);
    }
    Ok(match answer.trim().to_ascii_lowercase().as_str() {
        "" => default,
        "y" | "yes" => true,
        _ => false,
    })
}

/// Characters in a line of standard output; none where it is no terminal.
pub(super) fn width() -> Option<usize> {
    let out = io::stdout();
    let size = out.is_terminal().then(|| rustix::termios::tcgetwinsize(&out).ok())??;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// How a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A plain table: two spaces between columns, as wide as its widest cells.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|c| plain(&c)).collect());
    }

    /// As text, without a last newline.
    pub(super) fn text(&self) -> String {
        let width = |i: usize| {
            let head = self.columns[i].0.chars().count();
            self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).fold(head, usize::max)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let render = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for ((cell, width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                let space = " ".repeat(width - cell.chars().count());
                if !text.is_empty() {
                    text.push_str("  ");
                }
                match align {
                    Align::Left => text.extend([cell, &space]),
                    Align::Right => text.extend([&space, cell]),
                }
            }
            text.trim_end().to_owned()
        };
        let mut lines = vec![render(&mut self.columns.iter().map(|(head, _)| *head))];
        lines.extend(self.rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
        lines.join("\n")
    }
}

/// Names and values, one pair a line, values in one column. Pairs with an empty value are left out.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0);
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name:<width$}  {}", plain(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// An amount with at most `decimals` decimals (rounded up, so that nothing looks cheaper than it is), at least two.
pub(super) fn amount(amount: Amount, decimals: u32) -> String {
    let unit = 10u64.pow(9 - decimals.min(9));
    let rounded = amount.0.div_ceil(unit).saturating_mul(unit);
    Amount(rounded).to_string()
}

/// An amount with its currency: `$0.35`, `0.35 EUR`.
pub(super) fn money(value: Amount, currency: &Currency, decimals: u32) -> String {
    let text = amount(value, decimals);
    if *currency == Currency::usd() { format!("${text}") } else { format!("{text} {currency}") }
}

/// Megabytes as people say them.
pub(super) fn megabytes(mb: u64) -> String {
    match mb {
        0..1000 => format!("{mb} MB"),
        1000..10_000 => format!("{}.{} GB", mb / 1000, mb % 1000 / 100),
        10_000..10_000_000 => format!("{} GB", mb / 1000),
        _ => format!("{} TB", mb / 1_000_000),
    }
}

/// Bytes as people say them.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{} kB", bytes / 1000),
        1_000_000..1_000_000_000 => {
            format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
        }
        _ => format!("{}.{:02} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 10_000_000),
    }
}

/// Thousandths of hardware threads as threads.
pub(super) fn threads(milli: u32) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{}.{}", milli / 1000, milli % 1000 / 100)
    }
}

/// The last millisecond of the year 9999: what others claim may be beyond it, and can't be printed as a date.
const LAST: u64 = 253_402_300_799_999;

/// A point in time as RFC 3339, in UTC, to the second.
pub(super) fn time(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at.0.min(LAST));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The machine's clock.
pub(super) fn now() -> Timestamp {
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// How long ago, or how long until then.
pub(super) fn ago(at: Timestamp) -> Millis {
    Millis(now().0.abs_diff(at.0) / 1000 * 1000)
}

/// Text cut to so many characters.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(max.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tables_line_up_and_let_no_escape_through() {
        let mut table = Table::new(&[("#", Align::Right), ("NAME", Align::Left), ("$/h", Align::Right)]);
        table.row(["1".into(), "a\u{1b}[2Jb".into(), "0.35".into()]);
        table.row(["10".into(), "c".into(), "12.00".into()]);
        assert_eq!(table.text(), " #  NAME      $/h\n 1  a?[2Jb   0.35\n10  c       12.00");
    }

    #[test]
    fn amounts_never_look_cheaper_than_they_are() {
        assert_eq!(amount(Amount(350_000_000), 4), "0.35");
        assert_eq!(amount(Amount(350_000_001), 4), "0.3501");
        assert_eq!(amount(Amount(1), 9), "0.000000001");
        assert_eq!(money(Amount(1), &Currency("EUR".into()), 2), "0.01 EUR");
    }

    #[test]
    fn times_of_liars_are_printed_too() {
        assert_eq!(time(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert!(time(Timestamp(u64::MAX)).starts_with("9999-12-31"));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(megabytes(512), "512 MB");
        assert_eq!(megabytes(1536), "1.5 GB");
        assert_eq!(megabytes(64_000), "64 GB");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(threads(2500), "2.5");
    }
}
