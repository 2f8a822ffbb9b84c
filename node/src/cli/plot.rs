//! Bars of text: in eighths of a cell where the terminal takes Unicode, else in plain characters.

use std::io::IsTerminal;

/// Cells of the longest bar.
const WIDTH: u128 = 40;

/// A bar: what is sure, and what comes on top.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    /// Before it.
    pub label: String,
    /// Its solid part.
    pub solid: u64,
    /// Its light part.
    pub light: u64,
    /// After it.
    pub value: String,
}

/// Whether standard output is a terminal that shows Unicode, by what the environment says of it.
pub(super) fn unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    std::io::stdout().is_terminal() && (locale.contains("utf-8") || locale.contains("utf8"))
}

/// Bars below each other, to one scale: the longest is [`WIDTH`] cells. What is more than nothing is never shown as nothing.
pub(super) fn bars(bars: &[Bar], unicode: bool) -> String {
    let most = bars.iter().map(|b| u128::from(b.solid) + u128::from(b.light)).max().unwrap_or(0).max(1);
    let label = bars.iter().map(|b| b.label.chars().count()).max().unwrap_or(0);
    let lines = bars.iter().map(|b| {
        let bar = if unicode { eighths(b, most) } else { ascii(b, most) };
        format!("{:<label$}  {bar:<cells$}  {}", b.label, b.value, cells = WIDTH as usize).trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Cells of a part of a bar, in units of which a cell has `fine`: rounded, and at least one for anything.
fn length(amount: u128, most: u128, fine: u128) -> usize {
    let units = (amount * WIDTH * fine + most / 2) / most;
    usize::try_from(units.max(u128::from(amount > 0))).unwrap_or(0)
}

fn eighths(bar: &Bar, most: u128) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let all = length(u128::from(bar.solid) + u128::from(bar.light), most, 8);
    let solid = length(bar.solid.into(), most, 8).min(all);
    let mut text = "█".repeat(solid / 8);
    if !solid.is_multiple_of(8) {
        text.push(PARTS[solid % 8]);
    }
    let light = if bar.light > 0 { all.div_ceil(8).saturating_sub(solid.div_ceil(8)).max(1) } else { 0 };
    text.push_str(&"░".repeat(light));
    text
}

fn ascii(bar: &Bar, most: u128) -> String {
    let all = length(u128::from(bar.solid) + u128::from(bar.light), most, 1);
    let solid = length(bar.solid.into(), most, 1).min(all);
    let light = if bar.light > 0 { all.saturating_sub(solid).max(1) } else { 0 };
    format!("{}{}", "#".repeat(solid), ".".repeat(light))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(solid: u64, light: u64) -> Bar {
        Bar { label: "d".to_owned(), solid, light, value: "v".to_owned() }
    }

    #[test]
    fn bars_are_to_scale_and_never_vanish() {
        let text = bars(&[bar(400, 0), bar(200, 100), bar(1, 0), bar(0, 0), bar(0, 1)], false);
        let lengths: Vec<(usize, usize)> =
            text.lines().map(|l| (l.matches('#').count(), l.matches('.').count())).collect();
        assert_eq!(lengths, [(40, 0), (20, 10), (1, 0), (0, 0), (0, 1)]);
        assert!(text.is_ascii());
        let text = bars(&[bar(320, 0), bar(9, 0), bar(4, 4)], true);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].matches('█').count(), 40);
        assert!(lines[1].contains("█▏") && lines[2].contains("▌░"), "{text}");
        assert_eq!(bars(&[bar(u64::MAX, u64::MAX), bar(0, 0)], false).lines().count(), 2, "no overflow");
        assert_eq!(bars(&[], true), "");
    }
}
