//! Options that say how a host gets an image.

use clap::Args;

/// How the host gets the image.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Pull the image with your own login at its registry: the password comes from $SOUK_REGISTRY_PASSWORD, Docker's configuration,
    /// or a question. The host is told it, and keeps it until it has the image
    #[arg(long, value_name = "[USER@]REGISTRY")]
    pub login: Option<String>,
    /// Send the image from your own Docker: only the layers that the host lacks
    #[arg(long, conflicts_with = "login")]
    pub push: bool,
    /// With --login: read the password from standard input
    #[arg(long, requires = "login")]
    pub password_stdin: bool,
}

/// `souk push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// The image in your own Docker [default: the name it was rented with]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Say nothing but what fails
    #[arg(short, long)]
    pub quiet: bool,
}

/// `souk snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// With --load: the name it gets in your own Docker [default: souk-snapshot]
    #[arg(value_name = "NAME", requires = "load")]
    pub name: Option<String>,
    /// Write it to this file, for `docker load`
    #[arg(short, long, value_name = "FILE", conflicts_with = "load")]
    pub out: Option<std::path::PathBuf>,
    /// Load it into your own Docker
    #[arg(long)]
    pub load: bool,
}

/// `souk clone`.
#[derive(Debug, Args)]
pub struct CloneArgs {
    /// The lease: its number, its label, or the first digits of its id
    pub id: String,
    /// The ask to rent for the clone: a row of the last search, or the first digits of its id
    pub ask: String,
    /// A name for the clone
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// End the old lease once the clone runs
    #[arg(long = "move")]
    pub moves: bool,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}
