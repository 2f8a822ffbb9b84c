//! Runs the market with thousands of nodes in virtual time and prints what it costs each of them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person to read")]

use std::{fs, path::PathBuf, time::Instant};

use clap::{Parser, Subcommand};
use souk_scale::{Figures, Plan};

#[derive(Parser)]
#[command(about = "souk's market with thousands of nodes, in virtual time: docs/scaling.md")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Simulate
    Run(Run),
    /// Measure what the steps cost on this machine, beside what is counted for them
    Costs,
    /// Draw the page's plots from runs' figures, and print its tables
    Plots {
        /// Files written by `run --json`
        files: Vec<PathBuf>,
        /// Where the plots go
        #[arg(long, default_value = "docs/scaling")]
        out: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Nodes, beside the observers
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    /// Of them, hosts [default: all]
    #[arg(long)]
    hosts: Option<u32>,
    /// Virtual seconds to measure
    #[arg(long, default_value_t = 900)]
    seconds: u64,
    /// Copies lost, in a hundred
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Topics that offers are sharded over
    #[arg(long, default_value_t = 1)]
    topics: u16,
    /// Whole engines that take everything in
    #[arg(long, default_value_t = 20)]
    observers: u32,
    /// Copies of so many bytes are announced by IDONTWANT
    #[arg(long, default_value_t = 1000)]
    unwanted_from: usize,
    /// Gives the same again
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures there, too
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Run(args) => run(&args),
        What::Costs => {
            for row in souk_scale::measure()? {
                println!("{:40} {:>7} ns, counted {:>7}", row.what, row.ns, row.counted);
            }
            Ok(())
        }
        What::Plots { files, out } => {
            let read = |path: &PathBuf| anyhow::Ok(serde_json::from_slice(&fs::read(path)?)?);
            let runs: Vec<Figures> = files.iter().map(read).collect::<Result<_, _>>()?;
            fs::create_dir_all(&out)?;
            for (name, text) in souk_scale::plots(&runs) {
                fs::write(out.join(name), text)?;
            }
            println!("{}", souk_scale::tables(&runs));
            Ok(())
        }
    }
}

fn run(args: &Run) -> anyhow::Result<()> {
    let plan = Plan {
        nodes: args.nodes,
        hosts: args.hosts.unwrap_or(args.nodes),
        seconds: args.seconds,
        loss_permille: (args.loss * 10.0).round() as u64,
        topics: args.topics,
        observers: args.observers,
        unwanted_from: args.unwanted_from,
        seed: args.seed,
    };
    eprintln!("seed {}", plan.seed);
    let start = Instant::now();
    let figures = souk_scale::run(&plan)?;
    let text = serde_json::to_string_pretty(&figures)?;
    println!("{text}");
    eprintln!("{:.0} s by the clock", start.elapsed().as_secs_f64());
    if let Some(path) = &args.json {
        fs::write(path, text + "\n")?;
    }
    Ok(())
}
