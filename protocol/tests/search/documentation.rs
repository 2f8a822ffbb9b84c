//! The page on search says what the program knows.

use souk_protocol::query::{Kind, fields};

const PAGE: &str = include_str!("../../../docs/search.md");

/// The table of fields as the page has it.
fn table() -> String {
    let mut table = "| field | type | unit | what it is |\n|---|---|---|---|\n".to_owned();
    for info in fields() {
        let kind = match info.kind {
            Kind::Number => "number",
            Kind::Version => "version",
            Kind::Bool => "true or false",
            Kind::Text => "text",
            Kind::Id => "id",
        };
        table.push_str(&format!("| `{}` | {kind} | {} | {} |\n", info.name, info.unit, info.doc));
    }
    table
}

#[test]
fn the_page_has_every_field_with_its_unit() {
    let table = table();
    assert!(PAGE.contains(&table), "docs/search.md is to have this table:\n{table}");
}
