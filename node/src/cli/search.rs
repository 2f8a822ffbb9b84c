//! `souk search`: what is on offer, as a table; what was left out, and why there is nothing.

use souk_protocol::query::Field;

use super::{
    Context,
    args::SearchArgs,
    error::Failure,
    listing,
    output::{self, Align, Table},
    template,
};
use crate::api::types::{AvoidedHost, Explanation, FailView, FieldValue, SearchRequest, SearchResults};

/// Avoided hosts that are named.
const NAMED: usize = 3;

pub(super) async fn search(context: &Context, args: SearchArgs) -> Result<u8, Failure> {
    let asked = args.explain;
    let template = template::named(context, args.template.as_deref())?;
    let query = args.query.join(" ");
    let of_template = template.as_ref();
    let request = SearchRequest {
        query: of_template.map_or_else(|| query.clone(), |template| template.query_with(&query)),
        order: Some(args.order.join(","))
            .filter(|order| !order.is_empty())
            .or_else(|| of_template.and_then(|template| template.order.clone())),
        rental: args.rental.map(Into::into).or_else(|| of_template.and_then(|template| template.rental)),
        storage_gb: args.storage.or_else(|| of_template.and_then(|t| Some(t.disk_mb?.div_ceil(1000)))),
        limit: args.limit,
        explain: args.explain,
        all: args.all,
    };
    let results: SearchResults = context.client()?.post("search", &request).await?;
    if context.json {
        output::json(&results)?;
        return Ok(0);
    }
    let shown = results.rows.len() as u64;
    if shown > 0 {
        output::line(listing::table(&results.rows))?;
    }
    if results.matched > shown {
        output::note(format!("{shown} of {} shown (--limit N)", results.matched));
    }
    if let Some(explanation) = &results.explain {
        if shown == 0 {
            output::line(nothing(explanation, asked))?;
        }
        if asked {
            output::line(conditions(explanation))?;
        }
        for miss in &explanation.nearest {
            let fails: Vec<String> = miss.fails.iter().map(fail).collect();
            let text = format!("nearest: {} {}: {}", miss.id.short(), miss.summary, fails.join(", "));
            output::line(output::plain(&text))?;
        }
    }
    if shown > 0 {
        hidden(&results);
    }
    let avoided = |condition: &str| condition.starts_with(Field::Avoided.name());
    if results.hidden.iter().any(|h| avoided(&h.condition)) || results.rows.iter().any(|r| r.is(Field::Avoided)) {
        for host in results.avoided.iter().take(NAMED) {
            output::note(format!("avoided: {}", avoided_host(host)));
        }
        if results.avoided.len() > NAMED {
            output::note(format!("and {} hosts more (--json lists them)", results.avoided.len() - NAMED));
        }
    }
    Ok(0)
}

/// `12D3…x9 failed you 2x (last: create_failed, 3 min 5 s ago), again from 2026-11-22T14:05:00Z`
pub(super) fn avoided_host(host: &AvoidedHost) -> String {
    let avoided = &host.avoided;
    format!(
        "{} failed you {}x (last: {}, {} ago), again from {}",
        host.host_id.short(),
        avoided.failures,
        avoided.last,
        output::ago(avoided.last_at_ms),
        output::time(avoided.until_ms)
    )
}

fn nothing(explanation: &Explanation, asked: bool) -> String {
    if explanation.considered == 0 {
        return "no offers yet (souk peers shows who is connected)".to_owned();
    }
    let hint = if asked { "" } else { " (souk search --explain)" };
    format!("{}{hint}", output::plain(&explanation.sentence))
}

fn hidden(results: &SearchResults) {
    for hidden in &results.hidden {
        let reason = output::plain(&hidden.reason);
        let how = if hidden.lifted_by_all { " (--all shows them)" } else { "" };
        output::note(format!("{} more {reason}{how}", hidden.count));
    }
    if results.other_currency > 0 {
        output::note(format!("{} more have prices in another currency", results.other_currency));
    }
}

fn conditions(explanation: &Explanation) -> String {
    let mut table = Table::new(&[("CONDITION", Align::Left), ("EXCLUDES", Align::Right), ("WITHOUT IT", Align::Right)]);
    for count in &explanation.conditions {
        let by_default = if count.by_default { " (by default)" } else { "" };
        table.row([
            format!("{}{by_default}", count.condition),
            count.excludes.to_string(),
            format!("{} more", count.alone),
        ]);
    }
    table.text()
}

/// `gpu_ram>=80 (has 48 GB, 32 GB off)`
fn fail(fail: &FailView) -> String {
    let unit =
        if fail.unit.is_empty() || fail.unit.contains(" to ") { String::new() } else { format!(" {}", fail.unit) };
    let number = |x: f64| {
        let text = format!("{x:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let have = match &fail.have {
        FieldValue::Whole(n) => format!("has {n}{unit}"),
        FieldValue::Number(x) => format!("has {}{unit}", number(*x)),
        FieldValue::Bool(truth) => format!("is {truth}"),
        FieldValue::Text(text) => format!("has {}", output::cut(text, 40)),
        FieldValue::Absent(()) => return format!("{} (not told)", fail.condition),
    };
    match fail.off_by {
        Some(off) if off > 0.0 => format!("{} ({have}, {}{unit} off)", fail.condition, number(off)),
        Some(_) | None => format!("{} ({have})", fail.condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_says_what_it_has_and_how_far_off_it_is() {
        let of =
            |have, off_by, unit: &str| FailView { condition: "x>=80".to_owned(), have, off_by, unit: unit.to_owned() };
        assert_eq!(fail(&of(FieldValue::Number(24.564), Some(55.436), "GB")), "x>=80 (has 24.564 GB, 55.436 GB off)");
        assert_eq!(fail(&of(FieldValue::Whole(4), Some(0.1 + 0.2), "")), "x>=80 (has 4, 0.3 off)");
        assert_eq!(fail(&of(FieldValue::Number(0.5), None, "0 to 1")), "x>=80 (has 0.5)");
        assert_eq!(fail(&of(FieldValue::Absent(()), None, "GB")), "x>=80 (not told)");
    }
}
