//! Asks as a table, in the columns that Vast.ai's users know, with ours at the end.
//!
//! On a terminal the columns that matter least are left out until the rest fits its width; elsewhere all are there.

use souk_protocol::{Currency, query::Field};

use super::output::{self, Align, Table};
use crate::api::types::AskRow;

/// One column: its head, how it stands, and when it goes; 0 stays, of others the greatest goes first.
struct Column {
    head: &'static str,
    align: Align,
    goes: u8,
    cell: fn(&AskRow) -> String,
}

const fn right(head: &'static str, goes: u8, cell: fn(&AskRow) -> String) -> Column {
    Column { head, align: Align::Right, goes, cell }
}

const fn left(head: &'static str, goes: u8, cell: fn(&AskRow) -> String) -> Column {
    Column { head, align: Align::Left, goes, cell }
}

const COLUMNS: &[Column] = &[
    right("#", 0, |row| row.row.to_string()),
    left("ID", 0, |row| row.id.short()),
    right("CUDA", 14, |row| number(row, Field::CudaVers, 1)),
    right("N", 0, |row| format!("{}x", row.slots)),
    left("MODEL", 0, model),
    right("VRAM", 3, |row| number(row, Field::GpuRam, 1)),
    right("PCIE", 16, |row| number(row, Field::PcieBw, 1)),
    right("GHZ", 17, |row| number(row, Field::CpuGhz, 1)),
    right("VCPUS", 2, |row| number(row, Field::CpuCoresEffective, 1)),
    right("RAM", 1, |row| number(row, Field::CpuRam, 1)),
    right("DISK", 6, |row| number(row, Field::DiskSpace, 0)),
    right("$/H", 0, price),
    right("MIN_BID", 7, |row| number(row, Field::MinBid, 4)),
    right("DLP", 9, |row| number(row, Field::Dlperf, 1)),
    right("DLP/$", 12, |row| number(row, Field::DlperfUsd, 1)),
    right("SCORE", 13, |row| number(row, Field::Score, 3)),
    left("DRIVER", 18, |row| output::cut(row.text(Field::DriverVersion).unwrap_or("-"), 12)),
    right("NET_UP", 11, |row| number(row, Field::InetUp, 0)),
    right("NET_DOWN", 10, |row| number(row, Field::InetDown, 0)),
    right("R", 8, |row| row.number(Field::Reliability).map_or("-".to_owned(), |r| format!("{:.1}", r * 100.0))),
    right("MAX_DAYS", 15, |row| number(row, Field::Duration, 1)),
    right("TRUST", 5, |row| number(row, Field::Trust, 2)),
    left("HOST", 19, |row| row.host_id.short()),
    left("WHERE", 4, |row| output::cut(row.text(Field::Geolocation).unwrap_or("-"), 8)),
    left("STATUS", 0, status),
];

/// The asks, as wide as standard output takes.
pub(super) fn table(rows: &[AskRow]) -> String {
    fitting(rows, output::width())
}

fn fitting(rows: &[AskRow], width: Option<usize>) -> String {
    let mut columns: Vec<&Column> = COLUMNS.iter().collect();
    // A column that says nothing is not worth its place.
    columns.retain(|column| column.head != "STATUS" || rows.iter().any(|row| !(column.cell)(row).is_empty()));
    loop {
        let heads: Vec<(&'static str, Align)> = columns.iter().map(|column| (column.head, column.align)).collect();
        let mut table = Table::new(&heads);
        for row in rows {
            table.row(columns.iter().map(|column| (column.cell)(row)));
        }
        let text = table.text();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        let last = columns.iter().map(|column| column.goes).max().unwrap_or_default();
        if last == 0 || width.is_none_or(|width| widest <= width) {
            return text;
        }
        columns.retain(|column| column.goes != last);
    }
}

fn number(row: &AskRow, field: Field, decimals: usize) -> String {
    row.number(field).map_or("-".to_owned(), |x| format!("{x:.decimals$}"))
}

fn model(row: &AskRow) -> String {
    let gpus = row.number(Field::NumGpus).unwrap_or_default() > 0.0;
    if gpus { output::cut(row.text(Field::GpuName).unwrap_or("?"), 24) } else { "CPU".to_owned() }
}

fn price(row: &AskRow) -> String {
    let price = number(row, Field::Dph, 4);
    if row.currency == Currency::usd() { price } else { format!("{price} {}", row.currency) }
}

fn status(row: &AskRow) -> String {
    let rented = (!row.is(Field::Rentable)).then_some("rented");
    let relayed = (row.text(Field::Reachability) == Some("relayed")).then_some("relayed");
    let avoided = row.is(Field::Avoided).then_some("avoided");
    let verified = row.is(Field::Verified).then_some("verified");
    [rented, relayed, avoided, verified].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use souk_protocol::{AskId, DocumentId, MachineId, NodeId};

    use super::*;
    use crate::api::types::FieldValue;

    fn row(gpus: i64) -> AskRow {
        let fields = [
            ("num_gpus", FieldValue::Whole(gpus)),
            ("gpu_name", FieldValue::Text("RTX 4090".to_owned())),
            ("dph", FieldValue::Number(0.351_4)),
            ("rentable", FieldValue::Bool(true)),
            ("reliability", FieldValue::Number(0.995)),
        ];
        AskRow {
            row: 1,
            id: AskId([7; 8]),
            host_id: souk_protocol::HostId::Node(NodeId([1; 32])),
            node: NodeId([1; 32]),
            machine_id: MachineId([2; 16]),
            offer: DocumentId([3; 32]),
            slots: 2,
            currency: Currency::usd(),
            fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn what_matters_least_goes_until_the_rest_fits() {
        let whole = fitting(&[row(2)], None);
        assert!(whole.contains("MAX_DAYS") && whole.contains("99.5") && !whole.contains("STATUS"), "{whole}");
        for width in [200, 120, 100, 80] {
            let narrow = fitting(&[row(2)], Some(width));
            assert!(narrow.lines().all(|line| line.chars().count() <= width), "{width}: {narrow}");
            for word in ["0707070707070707".get(..12).unwrap(), "2x", "RTX 4090", "0.3514"] {
                assert!(narrow.contains(word), "{width}: no {word} in {narrow}");
            }
        }
        assert!(fitting(&[row(0)], Some(80)).contains("CPU"));
    }
}
