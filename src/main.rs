//! The thin binary: arguments in, exit status out.

use std::process::ExitCode;

use clap::Parser;
use tap2pcap::{cli::Cli, commands, report};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(&cli) {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) => {
            report::print_error(error.as_ref());
            ExitCode::from(commands::Status::NotDone.code())
        }
    }
}
