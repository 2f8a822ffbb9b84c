//! How far a copy is: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere.

use std::{
    io::IsTerminal as _,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use souk_transfer::{Progress, Summary};

use super::output;

/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// Shows one copy on standard error.
pub(super) struct Display {
    quiet: bool,
    bar: Option<ProgressBar>,
    begun: Instant,
    told: Instant,
}

impl Display {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { quiet, bar, begun: Instant::now(), told: Instant::now() }
    }

    /// Tells how far it is, if it is time to.
    pub(super) fn look(&mut self, progress: &Progress) {
        self.problems(progress);
        let (bytes, entries) = (progress.bytes.load(Relaxed), progress.entries.load(Relaxed));
        let (total, all) = (progress.total_bytes.load(Relaxed), progress.total_entries.load(Relaxed));
        if let Some(bar) = &self.bar {
            if bar.length().is_none() && total > 0 {
                let style = "{bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left, {msg}";
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style);
                }
                bar.set_length(total);
            }
            bar.set_position(bytes);
            bar.set_message(if all > 0 { format!("{entries} of {all} files") } else { format!("{entries} files") });
        } else if !self.quiet && self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let seconds = self.begun.elapsed().as_secs().max(1);
            let rate = (bytes / seconds).max(1);
            let mut line = format!("{entries} files, {}, {}/s", output::bytes(bytes), output::bytes(rate));
            if total > bytes {
                let left = Duration::from_secs((total - bytes) / rate);
                line.push_str(&format!(", {} left", humantime::format_duration(left)));
            }
            output::note(line);
        }
    }

    /// What could not be copied is told in any case: it is why the exit code is not 0.
    fn problems(&self, progress: &Progress) {
        for words in progress.take_problems() {
            let line = output::plain(&words);
            match &self.bar {
                Some(bar) => bar.suspend(|| output::note(format!("not copied: {line}"))),
                None => output::note(format!("not copied: {line}")),
            }
        }
    }

    /// Takes the bar away and says what was done.
    pub(super) fn end(&mut self, progress: &Progress, summary: Option<&Summary>) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.problems(progress);
        if let Some(summary) = summary.filter(|_| !self.quiet) {
            let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let rate = (summary.moved as f64 / seconds) as u64;
            let mut line = format!("{} files, {}", summary.entries, output::bytes(summary.bytes));
            if summary.unchanged > 0 {
                line.push_str(&format!(", {} unchanged", summary.unchanged));
            }
            line.push_str(&format!(
                ", {} moved in {seconds:.1} s, {}/s",
                output::bytes(summary.moved),
                output::bytes(rate)
            ));
            if summary.problems > 0 {
                line.push_str(&format!(", {} not copied", summary.problems));
            }
            output::note(line);
        }
    }
}
