//! The program `tap2pcap`, for its `main` and for `examples/manuals.rs`, which makes manual pages of its arguments.
//! This module is not part of the library's interface: it changes with the program.

use std::process::ExitCode;

pub use crate::cli::Cli;
use crate::{
    commands::{self, Status},
    report,
};

/// Runs the command that the process's arguments ask for.
pub fn main() -> ExitCode {
    let status = run().unwrap_or_else(|error| {
        report::print_error(error.as_ref());
        Status::NotDone
    });
    ExitCode::from(status.code())
}

fn run() -> anyhow::Result<Status> {
    #[cfg(feature = "live")]
    if let Some(args) = crate::cli::ExtcapCall::recognise(std::env::args_os()) {
        return commands::extcap(args);
    }
    commands::run(&Cli::read())
}
