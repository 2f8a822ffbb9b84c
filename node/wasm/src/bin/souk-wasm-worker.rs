//! The worker as a program of its own, for the tests and examples of this crate. The `souk` program has it as a hidden command.

use std::process::ExitCode;

fn main() -> ExitCode {
    souk_wasm::worker::main()
}
