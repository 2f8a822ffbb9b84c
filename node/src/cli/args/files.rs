//! Options of `souk copy` and `souk run`.

use std::ffi::OsString;

use clap::Args;
use souk_protocol::{Amount, Millis};

use super::{ImageArgs, values::duration};

/// `souk copy`.
#[derive(Debug, Args)]
pub struct CopyArgs {
    /// A local path, or ID:PATH in an instance
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// Where to: a local path, or ID:PATH in an instance
    #[arg(value_name = "DST")]
    pub target: OsString,
    /// Leave out what matches, such as '*.pyc', '/data/**' or 'tmp/' (repeatable)
    #[arg(short = 'x', long, value_name = "GLOB")]
    pub exclude: Vec<OsString>,
    /// Read and write in the instance as this user [default: the instance's]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Don't tell how far it is
    #[arg(short, long)]
    pub quiet: bool,
}

/// `souk run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How the host gets the image.
    #[command(flatten)]
    pub image_access: ImageArgs,
    /// Conditions a machine must meet; the best that does is taken
    #[arg(
        short = 'Q',
        long,
        value_name = "QUERY",
        conflicts_with = "ask",
        default_value = "",
        hide_default_value = true
    )]
    pub query: String,
    /// Sort the matches by these fields [default: score-]
    #[arg(short, long, value_name = "FIELDS", allow_hyphen_values = true)]
    pub order: Option<String>,
    /// This ask: a row of the last search, or the first digits of its id
    #[arg(long, value_name = "ASK", conflicts_with = "count")]
    pub ask: Option<String>,
    /// Run on so many machines at once; SOUK_RANK and SOUK_COUNT tell each which it is
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), default_value_t = 1)]
    pub count: u32,
    /// Copy this up first: to DEST, or to its own name in the working directory (repeatable)
    #[arg(long = "in", value_name = "PATH[:DEST]")]
    pub inputs: Vec<OsString>,
    /// Copy this down afterwards: to DEST, or to its own name here; with --count into a folder for each rank (repeatable)
    #[arg(long = "out", value_name = "PATH[:DEST]")]
    pub outputs: Vec<OsString>,
    /// Add a variable (repeatable); K alone passes on this shell's
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Disk in GB
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub disk: Option<u64>,
    /// What it may reach [default: the most the host grants]
    #[arg(long, value_name = "EGRESS", value_enum)]
    pub egress: Option<super::EgressArg>,
    /// Take at most this price, per hour for each instance
    #[arg(long, value_name = "AMOUNT")]
    pub max_price: Option<Amount>,
    /// What each lease may cost at most, all in all
    #[arg(long, value_name = "AMOUNT")]
    pub max_spend: Option<Amount>,
    /// The longest it may take; the lease ends then, whatever happens here
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "24h")]
    pub term: Millis,
    /// Wait so long for a match, such as for slots that were just given back
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub wait: Millis,
    /// Pass standard input on to the command
    #[arg(short, long, conflicts_with = "count")]
    pub interactive: bool,
    /// Say nothing of souk's own
    #[arg(short, long)]
    pub quiet: bool,
    /// Take from this template what isn't said here: a name, a file, or the first digits of an id
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// The image
    #[arg(value_name = "IMAGE", required_unless_present = "template")]
    pub image: Option<String>,
    /// The command
    #[arg(last = true, value_name = "CMD", required_unless_present = "template")]
    pub command: Vec<String>,
}
