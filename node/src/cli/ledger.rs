//! `souk receipts`, `ledger check`, `ledger export`, and `verify`, which needs no node.

use std::{
    fs::File,
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::json;
use souk_ledger::verify::{Fault, Report, Verdict};

use super::{
    Context,
    args::{ExportArgs, ReceiptsArgs},
    error::{FAILED, Failure},
    leases,
    output::{self, Align, Table},
};
use crate::{
    api::{
        client::{Pieces, escape},
        types::{LedgerCheckView, ReceiptView},
    },
    market::ErrorCode,
};

pub(super) async fn receipts(context: &Context, args: &ReceiptsArgs) -> Result<u8, Failure> {
    let mut path = format!("receipts?limit={}", args.limit);
    path.extend(args.id.as_ref().map(|id| format!("&lease={}", escape(id))));
    path.extend(args.before.map(|number| format!("&before={number}")));
    let receipts: Vec<ReceiptView> = context.client()?.get(&path).await?;
    if context.json {
        output::json(&receipts)?;
    } else if receipts.is_empty() {
        output::line("no receipts yet")?;
    } else {
        output::line(table(&receipts))?;
    }
    Ok(0)
}

fn table(receipts: &[ReceiptView]) -> String {
    let mut table = Table::new(&[
        ("LEASE", Align::Right),
        ("ID", Align::Left),
        ("ROLE", Align::Left),
        ("PEER", Align::Left),
        ("N", Align::Right),
        ("TIME", Align::Left),
        ("RUNNING", Align::Right),
        ("DISK TIME", Align::Right),
        ("IN", Align::Right),
        ("OUT", Align::Right),
        ("DUE", Align::Right),
        ("ACKED", Align::Right),
        ("", Align::Left),
    ]);
    for r in receipts {
        let remark = match (r.acked_n, r.partial) {
            (_, Some(souk_protocol::receipt::PartialReason::OverMetered)) => "partial: over-metered",
            (_, Some(souk_protocol::receipt::PartialReason::NotRunning)) => "partial: not running",
            (_, Some(souk_protocol::receipt::PartialReason::NotAsked)) => "partial: not asked for",
            (_, Some(souk_protocol::receipt::PartialReason::Silent)) => "partial: nothing answered inside",
            (None, None) => "not countersigned",
            (Some(n), None) if n < r.n => "ack behind",
            (Some(_), None) if r.closed => "closed",
            (Some(_), None) => "",
        };
        table.row([
            r.number.to_string(),
            r.lease.short(),
            leases::role(r.role).to_owned(),
            r.peer.short(),
            r.n.to_string(),
            output::time(r.time_ms),
            r.counters.active_ms.to_string(),
            r.counters.storage_ms.to_string(),
            output::bytes(r.counters.rx_bytes),
            output::bytes(r.counters.tx_bytes),
            output::money(r.due, &r.currency, 9),
            output::money(r.acked, &r.currency, 9),
            remark.to_owned(),
        ]);
    }
    table.text()
}

pub(super) async fn check(context: &Context) -> Result<u8, Failure> {
    let found: LedgerCheckView = context.client()?.get("ledger/check").await?;
    if context.json {
        output::json(&found)?;
    } else {
        output::line(format!(
            "{} entries, {} leases, {} receipts: {}",
            found.entries,
            found.leases,
            found.receipts,
            match found.faults.len() {
                0 => "all holds".to_owned(),
                1 => "1 fault".to_owned(),
                n => format!("{n} faults"),
            }
        ))?;
        for fault in &found.faults {
            output::line(format!("  {}", output::plain(fault)))?;
        }
    }
    Ok(if found.faults.is_empty() { 0 } else { FAILED })
}

pub(super) async fn export(context: &Context, args: ExportArgs) -> Result<u8, Failure> {
    let to_stdout = args.file == Path::new("-");
    if !to_stdout && args.file.exists() {
        return Err(taken(&args.file));
    }
    let mut path = "ledger/export".to_owned();
    if let Some(lease) = &args.lease {
        path = format!("{path}?lease={}", escape(lease));
    }
    let pieces = context.client()?.stream(&path).await?;
    if to_stdout {
        let mut out = std::io::stdout();
        copy(pieces, &mut out).await?;
        return Ok(0);
    }
    let bytes = save(pieces, &args.file).await?;
    if context.json {
        output::json(&json!({ "file": args.file, "bytes": bytes }))?;
    } else {
        let size = output::bytes(bytes);
        output::line(format!("wrote {} ({size})", args.file.display()))?;
    }
    Ok(0)
}

fn taken(file: &Path) -> Failure {
    Failure::new(format!("{} is there already; exports overwrite nothing", file.display()))
        .code(ErrorCode::WrongState)
        .hint("name another file")
}

async fn copy(mut pieces: Pieces, to: &mut impl Write) -> Result<u64, Failure> {
    let mut bytes = 0;
    while let Some(piece) = pieces.next().await? {
        to.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    to.flush()?;
    Ok(bytes)
}

/// Whole or not at all: under another name until its last byte is on disk.
async fn save(pieces: Pieces, file: &Path) -> Result<u64, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("can't write {}: {e}", file.display()));
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    let dir = parent.map_or_else(|| PathBuf::from("."), Path::to_owned);
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let bytes = copy(pieces, temporary.as_file_mut()).await?;
    temporary.as_file().sync_all().map_err(failed)?;
    match temporary.persist_noclobber(file) {
        Ok(_) => Ok(bytes),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(file)),
        Err(e) => Err(failed(e.error)),
    }
}

pub(super) fn verify(context: &Context, file: &Path) -> Result<u8, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("can't read {}: {e}", file.display()));
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(failed)?)
    };
    let report = souk_ledger::verify::verify(BufReader::with_capacity(1 << 20, reader)).map_err(failed)?;
    if context.json {
        output::json(&as_json(&report))?;
    } else {
        output::line(as_text(&report))?;
    }
    Ok(report.verdict.exit_code())
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
    if let Some(header) = &report.header {
        let agreed: Vec<String> = report.agreed.iter().map(|(c, a)| output::money(*a, c, 9)).collect();
        lines.push(output::pairs(&[
            ("author", header.author.to_string()),
            ("records", report.records.to_string()),
            ("leases", format!("{}, {} never answered", report.leases, report.unanswered)),
            ("agreed", agreed.join(", ")),
        ]));
    }
    for node in &report.forks {
        lines.push(format!("{node} has signed two histories"));
    }
    lines.join("\n")
}
