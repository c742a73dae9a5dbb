//! What the program does, one file for each thing. Only this module joins the stages.

mod connections;
mod convert;
mod cuts;
mod error;
#[cfg(feature = "live")]
mod extcap;
mod har;
mod hints;
mod http;
mod info;
mod inspect;
mod library;
#[cfg(feature = "live")]
mod live;
#[cfg(feature = "record")]
mod live_capture;
mod merge;
mod mirror;
mod names;
mod open;
mod output;
mod pair;
mod paired;
mod pump;
#[cfg(feature = "record")]
mod record;
mod redaction;
#[cfg(feature = "report")]
mod report;
mod select;
mod settings;
mod tables;
mod tap_config;
mod trace;
mod turns;
mod validate;

use std::path::{Path, PathBuf};

use self::error::Error;
pub use self::library::{Conversion, ConvertError, ConvertOptions, convert};
#[cfg(feature = "live")]
use crate::cli::ExtcapCall;
use crate::{
    cli::{Cli, Command},
    input::{Input, InputError, Source},
    report::{Verbosity, print_line, why_passed_over},
};

/// How a run of the program ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done, nothing wrong.
    #[default]
    Done,
    /// Done, but some input was damaged; everything readable was converted.
    Damaged,
    /// Not done; no output file is left.
    NotDone,
    /// Ended by this signal; unfinished files are removed.
    Signal(u8),
}

impl Status {
    /// The exit status.
    #[must_use]
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Damaged => 1,
            Self::NotDone => 2,
            // What a shell reports for a process that the signal ended.
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Runs the command that `cli` asks for.
///
/// # Errors
/// Why the command was not done, which is status 2.
pub(crate) fn run(cli: &Cli) -> anyhow::Result<Status> {
    let status = match &cli.command {
        None => convert::run(&cli.convert),
        Some(Command::Validate(args)) => validate::run(args),
        Some(Command::Info(args)) => info::run(args),
        Some(Command::Http(args)) => http::run(args),
        #[cfg(feature = "report")]
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Tables(args)) => tables::run(args),
        #[cfg(feature = "live")]
        Some(Command::Live(args)) => live::run(args),
        #[cfg(feature = "live")]
        Some(Command::Extcap(args)) => extcap::run(args),
        Some(Command::Open(args)) => open::run(args),
        Some(Command::TapConfig(args)) => tap_config::run(args),
        #[cfg(feature = "record")]
        Some(Command::Record(args)) => record::run(args),
    };
    status.or_else(Error::into_status)
}

/// Answers a call from Wireshark, whose arguments these are.
///
/// # Errors
/// As [`run`].
#[cfg(feature = "live")]
pub(crate) fn extcap(args: Vec<std::ffi::OsString>) -> anyhow::Result<Status> {
    let reloads = ExtcapCall::asks_for_values(&args);
    let fifo = ExtcapCall::fifo_of(&args);
    let status = match ExtcapCall::read(args) {
        Ok(call) => extcap::answer(call),
        Err(_) if reloads => extcap::answer_without_values(),
        Err(why) => {
            fifo.as_deref().inspect(|fifo| extcap::let_go(fifo));
            Err(Error::Arguments(why))
        }
    };
    status.or_else(Error::into_status)
}

fn read_stdin_once(inputs: &[Input]) -> Result<(), Error> {
    if inputs.iter().filter(|input| input.is_stdin()).count() > 1 {
        return Err(Error::Arguments("standard input can be read only once".to_owned()));
    }
    Ok(())
}

/// The encoding of a trace, and the layers that it was read through.
fn encoding_and_layers(source: &Source) -> String {
    let encoding = source.encoding().name();
    let layers: Vec<_> = source.layers().iter().map(|layer| layer.name()).collect();
    if layers.is_empty() { encoding.to_owned() } else { format!("{encoding} in {}", layers.join(", ")) }
}

fn nothing_readable(path: &Path) {
    print_line("error", &format_args!("{}: holds no trace that can be read", path.display()));
}

/// With `--verbose`, says why a file in a directory was passed over.
fn passed_over(path: &Path, error: &InputError, verbosity: Verbosity) {
    if verbosity == Verbosity::Verbose {
        let why = why_passed_over(error);
        print_line("note", &format_args!("{}: passed over, {why}", path.display()));
    }
}

/// Says how many files in directories were passed over.
fn count_passed_over(count: usize, verbosity: Verbosity) {
    if count > 0 && verbosity > Verbosity::Quiet {
        let list = if verbosity == Verbosity::Verbose { "" } else { "; -v lists them" };
        let files = if count == 1 {
            "1 file that is not a trace was"
        } else {
            &format!("{count} files that are not traces were")
        };
        print_line("note", &format_args!("{files} passed over{list}"));
    }
}

/// The error if there is nothing to do.
fn no_traces(inputs: &[PathBuf], passed_over: usize) -> Error {
    let named: Vec<_> = inputs.iter().map(|path| path.display().to_string()).collect();
    Error::Arguments(format!("{}: no trace files among {passed_over} files", named.join(", ")))
}
