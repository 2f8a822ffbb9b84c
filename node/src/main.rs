//! The `souk` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    souk::cli::main()
}
