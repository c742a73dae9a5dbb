//! `tap2pcap INPUT... OUTPUT`: traces to captures.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::{
    Status, har,
    merge::{Outcome, merge},
    mirror::{Failed, mirror},
    settings::Settings,
    trace::Stop,
};
use crate::{
    capture::{Capture, Destination, Format, LATEST_PCAP_TIME, OutputError},
    cli::{self, ConvertArgs},
    input::{Input, discover},
    interrupt,
    report::{Progress, Verbosity, print_error, print_line},
};

pub(super) fn run(args: &ConvertArgs) -> anyhow::Result<Status> {
    let mut settings = Settings::new(args);
    let Some((output, inputs)) = args.paths.split_last() else { bail!("an input and an output are needed") };
    interrupt::install()?;

    let into_directory = is_directory(output);
    let (found, unreadable) = discover(inputs);
    for unreadable in &unreadable {
        print_error(&unreadable.as_input_error());
    }
    super::read_stdin_once(&found)?;
    if found.is_empty() {
        let named: Vec<_> = inputs.iter().map(|path| path.display().to_string()).collect();
        bail!("{}: no trace files (.pb, .pb_length_delimited, .pb_text, .json, .gz or .zst)", named.join(", "));
    }
    let progress = Progress::new(args.progress, settings.verbosity, &found);
    let outcome = match output_format(args.format, output) {
        Kind::Har if into_directory => har::many_files(&found, output, &settings, &progress).map_err(Ending::from),
        Kind::Har => not_onto_itself(&found, output)
            .and_then(|()| har::one_file(&found, output, &settings, &progress).map_err(Ending::from)),
        Kind::Capture(format) => {
            settings.timeline.latest = (format == Format::Pcap).then_some(LATEST_PCAP_TIME);
            if into_directory {
                mirror(&found, output, format, &settings, &progress).map_err(Ending::from)
            } else {
                one_capture(&found, output, format, &settings, &progress)
            }
        }
    };
    progress.finish();
    let mut outcome = match outcome {
        Ok(outcome) => outcome,
        Err(Ending::ReaderGone) => return Ok(Status::Done),
        Err(Ending::Signal(signal)) => return Ok(Status::Signal(signal)),
        Err(Ending::Failed(error)) => return Err(error),
    };
    outcome.damaged += unreadable.len();
    let inputs = found.len() + unreadable.iter().filter(|unreadable| unreadable.is_trace()).count();
    Ok(conclude(&outcome, inputs, output, into_directory, &settings))
}

/// Says what is left to say, and how it ended.
fn conclude(outcome: &Outcome, inputs: usize, output: &Path, into_directory: bool, settings: &Settings) -> Status {
    let tried = inputs - outcome.skipped;
    if inputs > 1 && settings.verbosity > Verbosity::Quiet {
        print_line("note", &format_args!("{} of {tried} traces converted", outcome.converted));
    }
    if outcome.converted == 0 {
        return Status::NotDone;
    }
    if !outcome.hints.is_empty() && settings.verbosity > Verbosity::Quiet && output != Path::new("-") {
        let capture = if into_directory { Path::new("CAPTURE") } else { output };
        let command = super::info::open_command(capture, &outcome.hints);
        print_line("note", &format_args!("to see it dissected: {command}"));
    }
    if outcome.damaged > 0 { Status::Damaged } else { Status::Done }
}

/// Why no capture came of it.
enum Ending {
    /// The reader of a pipe has seen enough.
    ReaderGone,
    Signal(u8),
    Failed(anyhow::Error),
}

impl From<OutputError> for Ending {
    fn from(error: OutputError) -> Self {
        if error.is_broken_pipe() { Self::ReaderGone } else { Self::Failed(error.into()) }
    }
}

impl From<Failed> for Ending {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Output(error) => error.into(),
            Failed::Overwrite(path) => Self::Failed(both_input_and_output(&path)),
            Failed::Signal(signal) => Self::Signal(signal),
        }
    }
}

/// Writing must not destroy what is read.
fn not_onto_itself(inputs: &[Input], output: &Path) -> Result<(), Ending> {
    match inputs.iter().find(|input| same_file(&input.path, output)) {
        Some(input) => Err(Ending::Failed(both_input_and_output(&input.path))),
        None => Ok(()),
    }
}

fn one_capture(
    inputs: &[Input],
    output: &Path,
    format: Format,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Ending> {
    not_onto_itself(inputs, output)?;
    let destination = if output == Path::new("-") { Destination::Stdout } else { Destination::File(output.to_owned()) };
    let mut capture = Capture::create(&destination, format)?;
    let live_output = destination == Destination::Stdout;
    match merge(inputs, settings, live_output, &mut capture, progress) {
        Ok(mut outcome) => {
            // Like tcpdump's, a capture that the user ended before anything came is a capture.
            if outcome.converted == 0 && interrupt::signal().is_some() {
                capture.add_interface("-");
                outcome = Outcome { converted: inputs.len(), ..outcome };
            }
            if outcome.converted > 0 {
                capture.finish()?;
            }
            Ok(outcome)
        }
        Err(Stop::Signal(signal)) => Err(Ending::Signal(signal)),
        Err(Stop::Output(source)) => Err(OutputError { path: output.to_owned(), source }.into()),
    }
}

fn both_input_and_output(path: &Path) -> anyhow::Error {
    anyhow::anyhow!("{}: is both input and output", path.display())
}

/// As with cp: a directory that exists, or a name that can only be one.
fn is_directory(output: &Path) -> bool {
    output != Path::new("-") && output.is_dir() || output.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// What is written.
enum Kind {
    Capture(Format),
    Har,
}

fn output_format(given: Option<cli::Format>, output: &Path) -> Kind {
    let has_suffix = |name: &str| output.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case(name));
    match given {
        Some(cli::Format::Pcap) => Kind::Capture(Format::Pcap),
        Some(cli::Format::Pcapng) => Kind::Capture(Format::Pcapng),
        Some(cli::Format::Har) => Kind::Har,
        None if has_suffix("pcap") => Kind::Capture(Format::Pcap),
        None if has_suffix("har") && !is_directory(output) => Kind::Har,
        None => Kind::Capture(Format::Pcapng),
    }
}

/// Whether two names are of one file: writing would destroy what is read.
fn same_file(input: &Path, output: &Path) -> bool {
    let canonical = |path: &Path| -> io::Result<PathBuf> { path.canonicalize() };
    match (canonical(input), canonical(output)) {
        (Ok(input), Ok(output)) => input == output && input.is_file(),
        _ => false,
    }
}
