//! `souk receipts`, `ledger check`, `ledger compact`, `ledger export`.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
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
        types::{LedgerCheckView, LedgerCompactView, ReceiptView},
    },
    market::ErrorCode,
};

/// A compaction that takes longer is shown to be under way.
const QUIET: Duration = Duration::from_secs(1);

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

pub(super) async fn compact(context: &Context) -> Result<u8, Failure> {
    let (client, body) = (context.client()?, json!({}));
    let asked = client.post::<LedgerCompactView>("ledger/compact", &body);
    tokio::pin!(asked);
    let done = match tokio::time::timeout(QUIET, &mut asked).await {
        Ok(done) => done?,
        Err(_) => {
            let bar = under_way();
            let done = asked.await;
            bar.iter().for_each(ProgressBar::finish_and_clear);
            done?
        }
    };
    if context.json {
        output::json(&done)?;
        return Ok(0);
    }
    output::line(format!(
        "{} of {} records dropped; {} on disk before, {} now",
        done.dropped,
        done.records,
        output::bytes(done.bytes_before),
        output::bytes(done.bytes_after)
    ))?;
    output::line(format!(
        "entry {} of this node's chain is the checkpoint: it stands for those up to {}, of which {} are kept",
        done.checkpoint, done.up_to, done.entries_kept
    ))?;
    if done.still_read {
        output::note("replaced files are still being read; their space is free when that is over");
    }
    Ok(0)
}

/// That the node is at work: a clock on a terminal, a line elsewhere.
fn under_way() -> Option<ProgressBar> {
    let what = "compacting: the journal is read and what matters of it written anew; the node works on";
    if !std::io::stderr().is_terminal() {
        output::note(what);
        return None;
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    Some(bar)
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
