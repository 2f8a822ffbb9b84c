//! `souk trust`, `block`, `attest`, `report` and `reputation`.

use souk_protocol::HostId;

use super::{
    Context,
    args::{AttestArgs, BlockArgs, ReportArgs, ReputationArgs, TrustArgs},
    error::Failure,
    output::{self, Align, Table},
};
use crate::api::client::escape;
use crate::api::types::{
    AttestRequest, AttestationView, BlockRequest, BlockView, ReportRequest, ReportView, ReputationView, ScoreView,
    TrustRequest, TrustView,
};

pub(super) async fn trust(context: &Context, args: TrustArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let TrustArgs { peer, credit, currency, remove } = args;
    let all: Vec<TrustView> = match peer {
        Some(peer) => client.post("trust", &TrustRequest { peer, credit, currency, remove }).await?,
        None => client.get("trust").await?,
    };
    if context.json {
        output::json(&all)?;
        return Ok(0);
    }
    if all.is_empty() {
        output::note("nobody is trusted; souk trust PEER adds somebody");
        return Ok(0);
    }
    let columns = [("PEER", Align::Left), ("NAMED BY", Align::Left), ("CREDIT", Align::Left), ("SINCE", Align::Left)];
    let mut table = Table::new(&columns);
    for one in &all {
        let credit: Vec<String> = one.credit.iter().map(|(currency, amount)| format!("{amount} {currency}")).collect();
        let credit = if credit.is_empty() { "as a stranger's".to_owned() } else { credit.join(", ") };
        let since = one.trusted_at_ms.map_or_else(|| "-".to_owned(), output::time);
        table.row([one.peer.to_string(), one.named_by.clone(), credit, since]);
    }
    output::line(table.text())?;
    Ok(0)
}

pub(super) async fn block(context: &Context, args: BlockArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let all: Vec<BlockView> = match args.peer {
        Some(peer) => client.post("block", &BlockRequest { peer, remove: args.remove }).await?,
        None => client.get("block").await?,
    };
    if context.json {
        output::json(&all)?;
        return Ok(0);
    }
    if all.is_empty() {
        output::note("nobody is blocked");
        return Ok(0);
    }
    let mut table = Table::new(&[("PEER", Align::Left), ("SINCE", Align::Left)]);
    for one in &all {
        table.row([one.peer.to_string(), output::time(one.blocked_at_ms)]);
    }
    output::line(table.text())?;
    Ok(0)
}

pub(super) async fn attest(context: &Context, args: AttestArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let AttestArgs { peer, claim, until, withdraw } = args;
    let all: Vec<AttestationView> = match (peer, claim) {
        (Some(peer), Some(claim)) => {
            let request = AttestRequest { peer, claim, until_ms: until, withdraw };
            let made: AttestationView = client.post("attestations", &request).await?;
            if context.json {
                output::json(&made)?;
                return Ok(0);
            }
            vec![made]
        }
        _ => client.get("attestations").await?,
    };
    if context.json {
        output::json(&all)?;
        return Ok(0);
    }
    if all.is_empty() {
        output::note("nothing is vouched for, by this node or about it");
        return Ok(0);
    }
    let columns = [("BY", Align::Left), ("ABOUT", Align::Left), ("CLAIM", Align::Left), ("UNTIL", Align::Left)];
    let mut table = Table::new(&columns);
    for one in &all {
        let until = match (one.withdrawn, one.until_ms) {
            (true, _) => "withdrawn".to_owned(),
            (false, Some(until)) => output::time(until),
            (false, None) => "no end".to_owned(),
        };
        table.row([one.by.short(), one.about.short(), one.claim.clone(), until]);
    }
    output::line(table.text())?;
    Ok(0)
}

pub(super) async fn report(context: &Context, args: ReportArgs) -> Result<u8, Failure> {
    let ReportArgs { id, code, sentence } = args;
    let request = ReportRequest { code, sentence };
    let path = format!("leases/{}/report", escape(&id));
    let made: ReportView = context.client()?.post(&path, &request).await?;
    if context.json {
        output::json(&made)?;
        return Ok(0);
    }
    let lease = made.lease.short();
    output::line(format!("signed: lease {lease}, {} by {}", made.code.name(), made.against.short()))?;
    output::note(format!("the evidence as a file: souk ledger export --lease {lease} FILE"));
    Ok(0)
}

pub(super) async fn reputation(context: &Context, args: ReputationArgs) -> Result<u8, Failure> {
    let path = match &args.peer {
        Some(peer) => format!("reputation/{}?explain={}", escape(peer), args.explain),
        None => "reputation".to_owned(),
    };
    let all: Vec<ReputationView> = context.client()?.get(&path).await?;
    if context.json {
        output::json(&all)?;
        return Ok(0);
    }
    match &args.peer {
        Some(_) => {
            for one in &all {
                describe(one)?;
            }
            if all.is_empty() {
                output::note("no node of that owner is on the market");
            }
        }
        None => list(&all)?,
    }
    Ok(0)
}

fn list(all: &[ReputationView]) -> Result<(), Failure> {
    let columns = [
        ("PEER", Align::Left),
        ("TRUST", Align::Right),
        ("RELIABILITY", Align::Right),
        ("AS RENTER", Align::Right),
        ("RATERS", Align::Right),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for one in all {
        table.row([
            one.peer.to_string(),
            share(one.host.trust),
            share(one.host.reliability),
            share(one.renter.trust),
            one.host.raters.max(one.renter.raters).to_string(),
            words(one),
        ]);
    }
    output::line(table.text())
}

fn words(one: &ReputationView) -> String {
    let named = [(one.trusted, "trusted"), (one.blocked, "blocked")];
    let named = named.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned());
    named.chain(one.attested.iter().cloned()).collect::<Vec<_>>().join(", ")
}

fn share(value: f64) -> String {
    format!("{value:.2}")
}

fn describe(one: &ReputationView) -> Result<(), Failure> {
    let seen = one.computed_at_ms.map_or_else(|| "not yet".to_owned(), output::time);
    let mut about = vec![("node", one.peer.to_string())];
    if one.host_id != HostId::Node(one.peer) {
        about.push(("owner", one.host_id.to_string()));
    }
    let side = |score: &ScoreView| {
        let uptime = score.uptime.map_or_else(String::new, |up| format!(", there {:.0} % of the time", up * 100.0));
        format!(
            "trust {}, reliability {}: {:.2} for it, {:.2} against, {} raters{uptime}",
            share(score.trust),
            share(score.reliability),
            score.successes,
            score.failures,
            score.raters
        )
    };
    about.push(("as a host", side(&one.host)));
    about.push(("as a renter", side(&one.renter)));
    let words = words(one);
    about.push(("said", if words.is_empty() { "nothing".to_owned() } else { words }));
    about.push(("from", format!("{} leases, at {seen}", one.leases_known)));
    output::line(output::pairs(&about))?;
    for (title, score) in [("as a host", &one.host), ("as a renter", &one.renter)] {
        if score.reasons.is_empty() {
            continue;
        }
        let columns =
            [("LEASE", Align::Left), ("WORD OF", Align::Left), (title, Align::Left), ("WEIGHT", Align::Right)];
        let mut table = Table::new(&columns);
        for reason in &score.reasons {
            let lease = reason.lease.map_or_else(|| "seen here".to_owned(), |lease| lease.to_string());
            let what = if reason.admitted { reason.what.clone() } else { format!("{}, claimed", reason.what) };
            table.row([lease, reason.by.short(), what, format!("{:.4}", reason.weight)]);
        }
        output::line(table.text())?;
        if score.reasons_left_out > 0 {
            output::note(format!("and {} receipts more", score.reasons_left_out));
        }
    }
    Ok(())
}
