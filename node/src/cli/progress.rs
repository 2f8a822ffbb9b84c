//! Steps of a rental as a person sees them: a bar on a terminal, plain lines elsewhere, at most one a second.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use souk_protocol::message::Progress;

use super::output;

/// Between two plain lines of progress.
const EVERY: Duration = Duration::from_secs(1);

/// Shows how a rental goes, on standard error.
pub(super) struct Display {
    terminal: bool,
    bar: Option<ProgressBar>,
    last: Option<Instant>,
    shown: Option<Progress>,
}

impl Display {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), bar: None, last: None, shown: None }
    }

    /// A step that is told once.
    pub(super) fn step(&mut self, text: &str) {
        self.end();
        output::note(output::plain(text));
    }

    /// How far preparing is.
    pub(super) fn preparing(&mut self, progress: Option<Progress>) {
        if self.terminal {
            self.draw(progress);
            return;
        }
        let news = progress.filter(|p| self.shown != Some(*p));
        let first = self.last.is_none();
        if first || (news.is_some() && self.last.is_some_and(|at| at.elapsed() >= EVERY)) {
            self.last = Some(Instant::now());
            self.shown = progress;
            output::note(match progress {
                Some(p) => format!(
                    "preparing: {} of {} layers, {} of {}",
                    p.layers_done,
                    p.layers,
                    output::bytes(p.bytes_done),
                    output::bytes(p.bytes)
                ),
                None => "preparing".to_owned(),
            });
        }
    }

    fn draw(&mut self, progress: Option<Progress>) {
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner().with_message("preparing");
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let Some(p) = progress.filter(|p| p.bytes > 0) else {
            return;
        };
        if bar.length().is_none() {
            let style = "pulling {bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left, {msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
        }
        bar.set_length(p.bytes);
        bar.set_position(p.bytes_done.min(p.bytes));
        bar.set_message(format!("{} of {} layers", p.layers_done, p.layers));
    }

    /// Takes the bar away.
    pub(super) fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
