//! `souk verify`: what an exported ledger is worth. Needs no node.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read},
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use souk_ledger::verify::{Fault, Report, Verdict};

use super::{Context, error::Failure, output};

/// The file can't be read, so there is no verdict: 1 and 6 are verdicts.
const UNREADABLE: u8 = 2;
/// What takes no longer is not told.
const AFTER: Duration = Duration::from_secs(1);
/// Between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

pub(super) fn verify(context: &Context, file: &Path) -> Result<u8, Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let failed = |e: io::Error| Failure::new(format!("can't read {name}: {e}")).exit(UNREADABLE);
    let (reader, length): (Box<dyn Read>, u64) = if file == Path::new("-") {
        (Box::new(io::stdin().lock()), 0)
    } else {
        let opened = File::open(file).map_err(failed)?;
        // Of a pipe it is 0.
        let length = opened.metadata().map_or(0, |m| m.len());
        (Box::new(opened), length)
    };
    let mut watched = Watched::new(reader, length);
    let report = souk_ledger::verify::verify(&mut watched);
    watched.end();
    let report = report.map_err(failed)?;
    if context.json {
        output::json(&as_json(&report))?;
    } else {
        output::line(as_text(&report))?;
    }
    Ok(report.verdict.exit_code())
}

/// A file that tells, on standard error, how far it has been read: a bar on a terminal, a plain line elsewhere.
struct Watched {
    reader: Box<dyn Read>,
    /// In all; 0 if nobody knows.
    length: u64,
    read: u64,
    begun: Instant,
    told: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Watched {
    fn new(reader: Box<dyn Read>, length: u64) -> Self {
        let (begun, terminal) = (Instant::now(), io::stderr().is_terminal());
        Self { reader, length, read: 0, begun, told: begun, terminal, bar: None }
    }

    fn tell(&mut self) {
        if self.terminal {
            let (length, begun) = (self.length, self.begun);
            let bar = self.bar.get_or_insert_with(|| {
                let (bar, style) = if length > 0 {
                    (ProgressBar::new(length), "checking {bar:24} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
                } else {
                    (ProgressBar::new_spinner(), "checking {spinner} {bytes} {bytes_per_sec}")
                };
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style);
                }
                bar.with_elapsed(begun.elapsed())
            });
            bar.set_position(self.read);
        } else if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let of = if self.length > 0 { format!(" of {}", output::bytes(self.length)) } else { String::new() };
            output::note(format!("checked {}{of}", output::bytes(self.read)));
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(into)?;
        self.read += n as u64;
        if self.begun.elapsed() >= AFTER {
            self.tell();
        }
        Ok(n)
    }
}

const fn verdict(verdict: &Verdict) -> (&'static str, Option<&Fault>) {
    match verdict {
        Verdict::Valid => ("valid", None),
        Verdict::Invalid(fault) => ("invalid", Some(fault)),
        Verdict::Incomplete(fault) => ("incomplete", Some(fault)),
    }
}

fn as_json(report: &Report) -> serde_json::Value {
    let (word, fault) = verdict(&report.verdict);
    let agreed: serde_json::Map<_, _> =
        report.agreed.iter().map(|(currency, amount)| (currency.0.clone(), json!(amount.to_string()))).collect();
    json!({
        "verdict": word,
        "fault": fault.map(|f| json!({ "record": f.record, "offset": f.offset, "what": f.what })),
        "author": report.header.as_ref().map(|h| h.author),
        "network_id": report.header.as_ref().map(|h| h.network),
        "records": report.records,
        "leases": report.leases,
        "unanswered": report.unanswered,
        "unanswered_leases": report.unanswered_leases,
        "forks": report.forks,
        "agreed": agreed,
    })
}

fn as_text(report: &Report) -> String {
    let (word, fault) = verdict(&report.verdict);
    let mut lines = vec![match fault {
        None => word.to_owned(),
        Some(f) => format!("{word}: record {} at byte {}: {}", f.record, f.offset, output::plain(&f.what)),
    }];
    if matches!(report.verdict, Verdict::Incomplete(_)) && report.records > 0 {
        lines.push("what is there holds; get the whole file, or export it anew".to_owned());
    }
    if let Some(header) = &report.header {
        let agreed: Vec<String> = report.agreed.iter().map(|(c, a)| output::money(*a, c, 9)).collect();
        lines.push(output::pairs(&[
            ("author", header.author.to_string()),
            ("records", report.records.to_string()),
            ("leases", format!("{}, {} never answered", report.leases, report.unanswered)),
            ("agreed", if agreed.is_empty() { "nothing".to_owned() } else { agreed.join(", ") }),
        ]));
    }
    for node in &report.forks {
        lines.push(format!("{node} has signed two histories"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_pass_unchanged_and_are_counted() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut watched = Watched::new(Box::new(io::Cursor::new(bytes.clone())), 256);
        // As if it took long, on a terminal.
        (watched.begun, watched.terminal) = (Instant::now().checked_sub(AFTER).unwrap(), true);
        let mut read = Vec::new();
        watched.read_to_end(&mut read).unwrap();
        assert_eq!((read, watched.read), (bytes, 256));
        assert_eq!(watched.bar.as_ref().map(ProgressBar::position), Some(256));
        watched.end();
        assert!(watched.bar.is_none());
    }
}
