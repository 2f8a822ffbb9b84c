//! The grammar of templates.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};

use super::RentArgs;

/// What of `souk rent` a template has nothing of. They are told so where they are given all the same.
const OF_ONE_RENTAL: [&str; 12] = [
    "ask",
    "template",
    "price",
    "bid",
    "max_price",
    "extend",
    "max_spend",
    "label",
    "tick",
    "detach",
    "yes",
    "patience",
];
const OF_ORDERS: [&str; 3] = ["wait", "wait_for", "failover"];

/// `souk template`.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Make a template, with the options of souk rent
    #[command(
        after_help = "A variable without a value (-e K or -e K=) is asked for at each rental: so secrets stay out of the template.\n\n\
                      Examples:\n  souk template new train --image pytorch/pytorch --disk 50 --query 'gpu_ram>=24' -e EPOCHS=3 -e HF_TOKEN -- python train.py\n  \
                      souk template new lab --image jupyter/scipy-notebook --jupyter\n  \
                      souk template new train --from 1        what a lease runs\n  \
                      souk template new ./train.json --image debian:12"
    )]
    New(Box<TemplateNewArgs>),
    /// List the templates that are kept here
    #[command(after_help = "Examples:\n  souk template list\n  souk template list --json | jq -r '.[].id'")]
    List,
    /// Say what a template does
    #[command(
        after_help = "Examples:\n  souk template show train\n  souk template show ./downloaded.json\n  souk template show 3fa9c1"
    )]
    Show {
        /// A name, a file, or the first digits of an id
        #[arg(value_name = "TEMPLATE")]
        template: String,
    },
    /// Forget templates
    #[command(after_help = "Examples:\n  souk template rm train old-one")]
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Write a template to a file for others
    #[command(
        after_help = "Its id is the BLAKE3 of that file: b3sum shows it.\n\nExamples:\n  souk template export train train.json\n  souk template export train | ssh box souk template import -n train -"
    )]
    Export {
        /// A name, a file, or the first digits of an id
        #[arg(value_name = "TEMPLATE")]
        template: String,
        /// The file [default: standard output]
        file: Option<PathBuf>,
    },
    /// Keep a template that came as a file; souk template show says first what it does
    #[command(
        after_help = "Examples:\n  souk template import ./train.json\n  souk template import --name lab ./other.json"
    )]
    Import {
        /// The name to keep it under [default: the file's]
        #[arg(short, long)]
        name: Option<String>,
        /// Replace another of this name
        #[arg(short, long)]
        force: bool,
        /// The file; - for standard input
        file: PathBuf,
    },
}

/// `souk template new`.
#[derive(Debug, Args)]
pub struct TemplateNewArgs {
    /// A name to keep it under here, or a file to write it to
    #[arg(value_name = "NAME|FILE")]
    pub to: String,
    /// Begin with what this lease runs; the values of its variables stay out
    #[arg(long, value_name = "ID")]
    pub from: Option<String>,
    /// What it is for, in a line
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Replace another of this name
    #[arg(long)]
    pub force: bool,
    /// The rental it stands for.
    #[command(flatten)]
    pub rent: TemplateRentArgs,
}

/// The options of `souk rent` that make a template.
#[derive(Debug)]
pub struct TemplateRentArgs(pub RentArgs);

impl FromArgMatches for TemplateRentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        RentArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for TemplateRentArgs {
    fn augment_args(command: Command) -> Command {
        let mut command = RentArgs::augment_args(command);
        for name in OF_ONE_RENTAL.into_iter().chain(OF_ORDERS) {
            command = command.mut_arg(name, |arg| arg.hide(true));
        }
        command.mut_arg("env", |arg| arg.help("Add a variable (repeatable); K alone is asked for at each rental"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
