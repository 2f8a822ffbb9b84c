//! `souk receipts`, `ledger check`, `ledger export`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::json;

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
