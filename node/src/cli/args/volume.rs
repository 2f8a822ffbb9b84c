//! Options of `souk volume`.

use clap::{Args, Subcommand};
use souk_protocol::{Amount, Millis};

use super::values::duration;

/// `souk volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Rent disk on a machine, to be attached to instances there
    #[command(
        after_help = "It is billed by its size, from now until it is deleted, and outlives the instances it is attached \
                      to. Past its contract's end it is kept for 48 h.\n\nExamples:\n  souk volume create data 1 --size 50\n  \
                      souk volume create data 3fa9c1 --size 50 --for 30days --extend 90days -y\n  \
                      souk rent 1 --image debian:12 --volume data:/data -- ./job"
    )]
    Create(CreateVolumeArgs),
    /// List volumes
    #[command(
        after_help = "Examples:\n  souk volume list\n  souk volume list -a\n  souk volume list --json | jq -r '.[].label'"
    )]
    List {
        /// Those that are over, too
        #[arg(short, long)]
        all: bool,
    },
    /// All about one volume
    #[command(after_help = "Examples:\n  souk volume show data\n  souk volume show data --json | jq .due")]
    Show {
        /// Its name, number, or the first digits of its lease's id
        volume: String,
    },
    /// Make another volume with the same files, on any machine
    #[command(
        after_help = "The files go from the one host to the other through this machine. Cut off, the same command goes on where it \
                      stopped. What is written meanwhile may be missing in the clone: run it again to take that along.\n\nExamples:\n  \
                      souk volume clone data 2\n  souk volume clone data 3fa9c1 --name models --size 100 --for 30days -y"
    )]
    Clone(CloneVolumeArgs),
    /// Delete volumes, with all that is in them
    #[command(after_help = "One that is attached to an instance is refused: destroy that first.\n\nExamples:\n  \
                      souk volume delete data\n  souk volume delete -y data models")]
    Delete(DeleteVolumeArgs),
}

/// `souk volume create`.
#[derive(Debug, Args)]
pub struct CreateVolumeArgs {
    /// Its name
    pub name: String,
    /// Any ask of the machine: a row of the last search, or the first digits of its id
    pub ask: String,
    /// Its size in GB, such as 50 or 0.5
    #[arg(long, value_name = "GB", value_parser = megabytes)]
    pub size: u64,
    /// How long the contract shall run, such as 30days [default: as long as the host grants]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub term: Option<Millis>,
    /// Let the host extend it by itself, by up to this beyond its end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub extend: Option<Millis>,
    /// What it may cost at most, all in all
    #[arg(long, value_name = "AMOUNT")]
    pub max_spend: Option<Amount>,
    /// Time between two receipts, such as 60s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `souk volume clone`.
#[derive(Debug, Args)]
pub struct CloneVolumeArgs {
    /// The volume: its name, number, or the first digits of its lease's id
    pub volume: String,
    /// Any ask of the machine: a row of the last search, or the first digits of its id
    pub ask: String,
    /// The clone's name [default: the volume's, and -clone]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Its size in GB, not below the volume's [default: the volume's]
    #[arg(long, value_name = "GB", value_parser = megabytes)]
    pub size: Option<u64>,
    /// How long the contract shall run, such as 30days [default: as long as the host grants]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub term: Option<Millis>,
    /// Let the host extend it by itself, by up to this beyond its end
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub extend: Option<Millis>,
    /// What it may cost at most, all in all
    #[arg(long, value_name = "AMOUNT")]
    pub max_spend: Option<Amount>,
    /// Time between two receipts, such as 60s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub tick: Option<Millis>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
    /// Don't tell how far it is
    #[arg(short, long)]
    pub quiet: bool,
}

/// `souk volume delete`.
#[derive(Debug, Args)]
pub struct DeleteVolumeArgs {
    /// Names, numbers, or the first digits of their leases' ids
    #[arg(required = true, value_name = "VOLUME")]
    pub volumes: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// GB, with up to three decimals, in MB.
fn megabytes(text: &str) -> Result<u64, String> {
    let wrong = || "write the size in GB, such as 50 or 0.5".to_owned();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    whole.checked_mul(1000).and_then(|mb| mb.checked_add(part)).filter(|mb| *mb <= 1_000_000_000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::megabytes;

    #[test]
    fn sizes_are_gigabytes() {
        assert_eq!((megabytes("50"), megabytes("0.5"), megabytes("1.024")), (Ok(50_000), Ok(500), Ok(1_024)));
        for wrong in ["", "x", "-1", "1.0001", ".5.", "1e3", "99999999999"] {
            assert!(megabytes(wrong).is_err(), "{wrong}");
        }
    }
}
