//! Options that say how a host gets an image.

use clap::Args;

/// How the host gets the image.
#[derive(Debug, Args)]
pub struct ImageArgs {
    /// Pull the image with your own login at its registry: the password comes from $SOUK_REGISTRY_PASSWORD, Docker's configuration,
    /// or a question. The host is told it, and keeps it until it has the image
    #[arg(long, value_name = "[USER@]REGISTRY")]
    pub login: Option<String>,
    /// With --login: read the password from standard input
    #[arg(long, requires = "login")]
    pub password_stdin: bool,
}
