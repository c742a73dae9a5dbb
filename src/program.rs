//! The program `tap2pcap`, for its `main` and for whoever makes manual pages of its arguments. No part of the library:
//! it changes with the program.

use std::process::ExitCode;

use clap::Parser as _;

pub use crate::cli::Cli;
use crate::{
    commands::{self, Status},
    report,
};

/// Does what the process's arguments ask for.
pub fn main() -> ExitCode {
    let status = commands::run(&Cli::parse()).unwrap_or_else(|error| {
        report::print_error(error.as_ref());
        Status::NotDone
    });
    ExitCode::from(status.code())
}
