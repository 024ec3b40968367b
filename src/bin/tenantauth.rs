//! The `tenantauth` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenantauth::cli::run(std::env::args_os())
}
