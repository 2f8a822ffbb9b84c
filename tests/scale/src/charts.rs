//! The page's plots, as SVG that is readable on light and on dark ground, and its tables. Owns no figures: it draws what runs found.

use std::fmt::Write;

use crate::figures::{Figures, Percentiles};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 380.0;
/// Left, right, top, bottom.
const MARGIN: (f64, f64, f64, f64) = (64.0, 150.0, 40.0, 48.0);
/// Colours that stand out from white and from black.
const COLOURS: [&str; 4] = ["#2f81f7", "#d9730d", "#2da44e", "#a371f7"];

/// One line of a plot.
struct Series {
    name: &'static str,
    points: Vec<(f64, f64)>,
    /// Drawn beyond what was measured.
    dashed: bool,
    colour: usize,
}

/// One figure of a run.
type One = fn(&Figures) -> f64;

struct Chart {
    title: &'static str,
    x: &'static str,
    series: Vec<Series>,
    /// Powers of ten from the first to the second.
    decades: ((i32, i32), (i32, i32)),
}

impl Chart {
    /// Both axes in powers of ten.
    fn svg(&self) -> String {
        let (left, right, top, bottom) = MARGIN;
        let ((x0, x1), (y0, y1)) = self.decades;
        let across = |v: f64| left + (WIDTH - left - right) * (v.log10() - f64::from(x0)) / f64::from(x1 - x0);
        let down = |v: f64| {
            let v = v.max(10f64.powi(y0));
            HEIGHT - bottom - (HEIGHT - top - bottom) * (v.log10() - f64::from(y0)) / f64::from(y1 - y0)
        };
        let mut svg = head(self.title);
        for power in x0..=x1 {
            let x = across(10f64.powi(power));
            let _ = writeln!(svg, r#"<path class="g" d="M{x:.1} {top}V{:.1}"/>"#, HEIGHT - bottom);
            let y = HEIGHT - bottom + 18.0;
            let _ =
                writeln!(svg, r#"<text class="t" x="{x:.1}" y="{y:.1}" text-anchor="middle">{}</text>"#, ten(power));
        }
        for power in y0..=y1 {
            let y = down(10f64.powi(power));
            let _ = writeln!(svg, r#"<path class="g" d="M{left} {y:.1}H{:.1}"/>"#, WIDTH - right);
            let (x, y) = (left - 8.0, y + 4.0);
            let _ = writeln!(svg, r#"<text class="t" x="{x:.1}" y="{y:.1}" text-anchor="end">{}</text>"#, ten(power));
        }
        let middle = (left + WIDTH - right) / 2.0;
        let _ = writeln!(
            svg,
            r#"<text class="t" x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            HEIGHT - 10.0,
            self.x
        );
        let named = self.series.iter().filter(|s| !s.points.is_empty());
        for (n, series) in named.enumerate() {
            let colour = COLOURS[series.colour % COLOURS.len()];
            let path: Vec<String> =
                series.points.iter().map(|(x, y)| format!("{:.1} {:.1}", across(*x), down(*y))).collect();
            let dash = if series.dashed { r#" stroke-dasharray="5 4""# } else { "" };
            let _ = writeln!(
                svg,
                r#"<path fill="none" stroke="{colour}" stroke-width="2"{dash} d="M{}"/>"#,
                path.join("L")
            );
            for (x, y) in series.points.iter().filter(|_| !series.dashed) {
                let _ =
                    writeln!(svg, r#"<circle fill="{colour}" cx="{:.1}" cy="{:.1}" r="3.5"/>"#, across(*x), down(*y));
            }
            key(&mut svg, n, series.name, colour);
        }
        svg + "</svg>\n"
    }
}

fn head(title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<style>.t{{fill:#57606a}}.g{{stroke:#8b949e;stroke-opacity:.35;fill:none}}@media (prefers-color-scheme:dark){{.t{{fill:#adbac7}}}}</style>
<text class="t" x="{}" y="22" font-size="14">{title}</text>
"##,
        MARGIN.0
    )
}

fn key(svg: &mut String, n: usize, name: &str, colour: &str) {
    let (x, y) = (WIDTH - MARGIN.1 + 12.0, MARGIN.2 + 12.0 + 18.0 * n as f64);
    let _ = writeln!(svg, r#"<path stroke="{colour}" stroke-width="3" d="M{x} {:.1}h14"/>"#, y - 4.0);
    let _ = writeln!(svg, r#"<text class="t" x="{}" y="{y:.1}">{name}</text>"#, x + 20.0);
}

fn ten(power: i32) -> String {
    match power {
        -2 => "0.01".to_owned(),
        -1 => "0.1".to_owned(),
        0..=3 => 10u32.pow(power.unsigned_abs()).to_string(),
        _ => format!("10<tspan dy=\"-5\" font-size=\"9\">{power}</tspan>"),
    }
}

/// Cost a host, from runs of a thousand hosts and more: the mean of logarithms, as costs spread over decades.
fn slope(points: &[(f64, f64)]) -> f64 {
    let large: Vec<f64> = points.iter().filter(|(x, y)| *x >= 1000.0 && *y > 0.0).map(|(x, y)| (y / x).ln()).collect();
    if large.is_empty() { 0.0 } else { (large.iter().sum::<f64>() / large.len() as f64).exp() }
}

/// Runs that differ in their size only, smallest first.
fn plain(runs: &[Figures]) -> Vec<&Figures> {
    let mut all: Vec<&Figures> = runs
        .iter()
        .filter(|r| r.topics == 1 && r.loss_permille == 0 && r.hosts == r.nodes && r.unwanted_from == 1000)
        .collect();
    all.sort_by_key(|r| r.hosts);
    all
}

fn by_hosts(runs: &[&Figures], of: impl Fn(&Figures) -> f64) -> Vec<(f64, f64)> {
    runs.iter().map(|r| (f64::from(r.hosts), of(r))).collect()
}

fn percentiles(
    runs: &[&Figures],
    of: impl Fn(&Figures) -> Percentiles,
    first: usize,
    names: [&'static str; 2],
) -> [Series; 2] {
    let line = |name, colour, points| Series { name, points, dashed: false, colour };
    [line(names[0], first, by_hosts(runs, |r| of(r).p50)), line(names[1], first + 1, by_hosts(runs, |r| of(r).p99))]
}

/// The plots by file name, from the figures of runs.
#[must_use]
pub fn plots(runs: &[Figures]) -> Vec<(String, String)> {
    let plain = plain(runs);
    let fitted = |points: &[(f64, f64)]| {
        let a = slope(points);
        let points = [1e3, 1e4, 1e5, 1e6].map(|h| (h, a * h)).to_vec();
        Series { name: "fit, extrapolated", points, dashed: true, colour: 3 }
    };
    let cost = |title, of: fn(&Figures) -> Percentiles, decades| {
        let mut series: Vec<Series> = percentiles(&plain, of, 0, ["half of the nodes", "99 of 100"]).into();
        series.push(fitted(&series[0].points));
        Chart { title, x: "hosts", series, decades }.svg()
    };
    let mut visible: Vec<Series> = percentiles(&plain, |r| r.to_node, 0, ["a node, half", "a node, 99 %"]).into();
    visible.extend(percentiles(&plain, |r| r.to_all, 2, ["all, half", "all, 99 %"]));
    let catching = |name, colour, of: fn(&Figures) -> Option<f64>| Series {
        name,
        points: plain.iter().filter_map(|r| Some((f64::from(r.hosts), of(r)?))).collect(),
        dashed: false,
        colour,
    };
    let catch_up =
        vec![catching("joins, empty", 0, |r| r.joiner.seconds), catching("back after a cut", 1, |r| r.cut_off.seconds)];
    vec![
        ("received.svg".to_owned(), cost("Received by a node, kB/s", |r| r.received, ((2, 6), (0, 5)))),
        ("cpu.svg".to_owned(), cost("Processor time of a node, ms a second", |r| r.cpu, ((2, 6), (-1, 4)))),
        (
            "visible.svg".to_owned(),
            Chart {
                title: "From publication to a node, and to all, ms",
                x: "nodes",
                series: visible,
                decades: ((2, 4), (1, 3)),
            }
            .svg(),
        ),
        (
            "joining.svg".to_owned(),
            Chart {
                title: "From the first connection to the whole book, s",
                x: "hosts",
                series: catch_up,
                decades: ((2, 4), (-2, 2)),
            }
            .svg(),
        ),
        ("topics.svg".to_owned(), topics(runs)),
    ]
}

/// Bars: what nodes receive with one topic, with five, with twenty.
fn topics(runs: &[Figures]) -> String {
    let most = runs.iter().filter(|r| r.topics > 1).map(|r| r.hosts).max().unwrap_or(0);
    let plain = |r: &&Figures| r.hosts == most && r.loss_permille == 0 && r.unwanted_from == 1000 && r.nodes == r.hosts;
    let mut shown: Vec<&Figures> = runs.iter().filter(plain).collect();
    shown.sort_by_key(|r| r.topics);
    let top = shown.iter().map(|r| r.received.p99).fold(1.0, f64::max);
    let mut svg = head("Received by a node, kB/s, by topics");
    let (left, right, above, bottom) = MARGIN;
    let each = (WIDTH - left - right) / shown.len().max(1) as f64;
    for (n, run) in shown.iter().enumerate() {
        let x = left + each * n as f64;
        for (m, (value, colour)) in [(run.received.p50, COLOURS[0]), (run.received.p99, COLOURS[1])].iter().enumerate()
        {
            let high = (HEIGHT - above - bottom) * value / (1.1 * top);
            let (x, y) = (x + each * (0.1 + 0.4 * m as f64), HEIGHT - bottom - high);
            let wide = each * 0.36;
            let _ =
                writeln!(svg, r#"<rect fill="{colour}" x="{x:.1}" y="{y:.1}" width="{wide:.1}" height="{high:.1}"/>"#);
            let (x, y) = (x + wide / 2.0, y - 5.0);
            let _ = writeln!(svg, r#"<text class="t" x="{x:.1}" y="{y:.1}" text-anchor="middle">{value:.0}</text>"#);
        }
        let (x, y) = (x + each / 2.0, HEIGHT - bottom + 18.0);
        let _ = writeln!(svg, r#"<text class="t" x="{x:.1}" y="{y:.1}" text-anchor="middle">{}</text>"#, run.topics);
    }
    let middle = (left + WIDTH - right) / 2.0;
    let _ = writeln!(
        svg,
        r#"<text class="t" x="{middle}" y="{}" text-anchor="middle">topics, {most} hosts</text>"#,
        HEIGHT - 10.0
    );
    key(&mut svg, 0, "half of the nodes", COLOURS[0]);
    key(&mut svg, 1, "99 of 100", COLOURS[1]);
    svg + "</svg>\n"
}

/// The page's tables, as Markdown.
#[must_use]
pub fn tables(runs: &[Figures]) -> String {
    let mut all: Vec<&Figures> = runs.iter().collect();
    all.sort_by_key(|r| (r.unwanted_from != 1000, r.loss_permille, r.topics, r.nodes, r.hosts));
    let name = |r: &Figures| {
        let unwanted = if r.unwanted_from == 1000 { "" } else { ", `IDONTWANT` for all" };
        format!("{} | {} | {} | {} %{unwanted}", r.nodes, r.hosts, r.topics, r.loss_permille / 10)
    };
    let mut text = String::from(
        "| nodes | hosts | topics | loss | offers/s | copies | received kB/s: half, 99 % | of it offers, gossip's own, reconciliation | sent kB/s: half, 99 % | CPU ms/s: half, 99 % |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let pair = |p: Percentiles| format!("{:.1}, {:.1}", p.p50, p.p99);
    for r in &all {
        let [offers, own, books] = r.received_by_kind;
        let _ = writeln!(
            text,
            "| {} | {:.1} | {:.2} | {} | {offers:.1}, {own:.1}, {books:.1} | {} | {} |",
            name(r),
            r.offers_per_second,
            r.copies,
            pair(r.received),
            pair(r.sent),
            pair(r.cpu),
        );
    }
    text.push_str("\n| nodes | hosts | topics | loss | to a node, ms: half, 99 % | to all, ms: half, 99 % | missed by gossip, of a million | joins: s, kB | back after 10 min: s, kB | all books equal after |\n|---|---|---|---|---|---|---|---|---|---|\n");
    let catch = |s: Option<f64>, kb: f64| s.map_or("never".to_owned(), |s| format!("{s:.1}, {kb:.0}"));
    for r in &all {
        let _ = writeln!(
            text,
            "| {} | {:.0}, {:.0} | {:.0}, {:.0} | {:.1} | {} | {} | {} |",
            name(r),
            r.to_node.p50,
            r.to_node.p99,
            r.to_all.p50,
            r.to_all.p99,
            r.missed_per_million,
            catch(r.joiner.seconds, r.joiner.received_kb),
            catch(r.cut_off.seconds, r.cut_off.received_kb),
            r.equal_after.map_or("never".to_owned(), |s| format!("{s:.0} s")),
        );
    }
    let plain = plain(runs);
    let rows: [(&str, &str, One); 7] = [
        ("received, half of the nodes", "kB/s", |r| r.received.p50),
        ("received, 99 of 100", "kB/s", |r| r.received.p99),
        ("… offers by gossip, mean", "kB/s", |r| r.received_by_kind[0]),
        ("… what gossip says of them, mean", "kB/s", |r| r.received_by_kind[1]),
        ("… reconciliation, mean", "kB/s", |r| r.received_by_kind[2]),
        ("CPU, half of the nodes", "ms/s", |r| r.cpu.p50),
        ("CPU, 99 of 100", "ms/s", |r| r.cpu.p99),
    ];
    text.push_str("\n| | a host | 10⁴ hosts | 10⁵ hosts | 10⁶ hosts |\n|---|---|---|---|---|\n");
    for (what, unit, of) in rows {
        let points = by_hosts(&plain, of);
        // The share of comparisons that differ, and so read an index, still grows: the largest run tells.
        let last = points.last().map_or(0.0, |(x, y)| y / x);
        let a = if what.contains("reconciliation") { last } else { slope(&points) };
        let _ = writeln!(text, "| {what} | {a:.5} {unit} | {:.0} | {:.0} | {:.0} |", a * 1e4, a * 1e5, a * 1e6);
    }
    text
}
