//! `tap2pcap INPUT... OUTPUT`: traces to captures.

use std::{fs, path::Path};

use anyhow::bail;

use super::{
    Status, har,
    merge::{Outcome, merge},
    mirror::{Failed, mirror},
    output::{self, Kind, is_directory},
    settings::Settings,
    trace::Stop,
};
use crate::{
    capture::{Capture, Destination, Format, LATEST_PCAP_TIME, OutputError},
    cli::ConvertArgs,
    input::{Discovered, Input, discover},
    interrupt,
    report::{Progress, Verbosity, print_error, print_line},
    words,
};

pub(super) fn run(args: &ConvertArgs) -> anyhow::Result<Status> {
    let mut settings = Settings::new(args);
    let Some((output, inputs)) = args.paths.split_last() else { bail!("an input and an output are needed") };
    interrupt::install()?;

    let into_directory = is_directory(output);
    let Discovered { inputs: found, unreadable, passed_over } = discover(inputs);
    for unreadable in &unreadable {
        print_error(&unreadable.as_input_error());
    }
    super::read_stdin_once(&found)?;
    if let Some(path) = overwritten(&found, output) {
        return Err(both_input_and_output(path));
    }
    let (kind, packing) = output::kind(args, output)?;
    settings.output.packing = packing;
    for error in &passed_over {
        super::passed_over(error.path(), error, settings.verbosity);
    }
    if found.is_empty() {
        return match interrupt::signal() {
            Some(signal) => Ok(Status::Signal(signal)),
            None => Err(super::no_traces(inputs, passed_over.len())),
        };
    }
    let progress = Progress::new(args.progress, settings.verbosity, found.len(), || total_size(&found));
    let is_har = matches!(kind, Kind::Har);
    let outcome = match kind {
        Kind::Har if into_directory => har::many_files(&found, output, &settings, &progress).map_err(Ending::from),
        Kind::Har => har::one_file(&found, output, &settings, &progress).map_err(Ending::from),
        Kind::Capture(format) => {
            settings.timeline.latest = (format != Format::Pcapng).then_some(LATEST_PCAP_TIME);
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
    super::count_passed_over(passed_over.len() + outcome.skipped, settings.verbosity);
    let inputs = found.len() + unreadable.iter().filter(|unreadable| unreadable.is_trace()).count();
    let status = conclude(&outcome, inputs, output, into_directory, &settings);
    let unmatched = !is_har && outcome.converted > 0 && report_unmatched(&settings);
    Ok(if unmatched && settings.strict && status == Status::Done { Status::Damaged } else { status })
}

/// Bytes of all inputs. The size of a pipe is not known, and then neither is the whole.
fn total_size(inputs: &[Input]) -> Option<u64> {
    let file = |input: &Input| fs::metadata(&input.path).ok().filter(|file| file.is_file() && !input.is_stdin());
    inputs.iter().map(|input| file(input).map(|file| file.len())).sum()
}

/// Reports every `--map` that has rewritten nothing, and answers whether there is one.
fn report_unmatched(settings: &Settings) -> bool {
    let needed = if settings.strict { Verbosity::Quiet } else { Verbosity::Normal };
    let mut any = false;
    for mapping in settings.mappings.unmatched() {
        any = true;
        if settings.verbosity >= needed {
            print_line(
                "warning",
                &format_args!("--map {mapping}: rewrote nothing, no connection has what is before the '='"),
            );
        }
    }
    any
}

/// Says what is left to say, and how it ended.
fn conclude(outcome: &Outcome, inputs: usize, output: &Path, into_directory: bool, settings: &Settings) -> Status {
    if let Some(words) = outcome.cuts.words()
        && settings.verbosity > Verbosity::Quiet
    {
        print_line("warning", &words);
    }
    let tried = inputs - outcome.skipped;
    if inputs > 1 && settings.verbosity > Verbosity::Quiet {
        let tried = words::count(tried as u64, "trace");
        print_line("note", &format_args!("{} of {tried} converted", outcome.converted));
    }
    if outcome.converted == 0 {
        return Status::NotDone;
    }
    if !outcome.hints.is_empty() && settings.verbosity > Verbosity::Quiet && !Destination::new(output).is_stream() {
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

/// An input that is the output as well, by whatever name: writing would destroy what is read.
fn overwritten<'a>(inputs: &'a [Input], output: &Path) -> Option<&'a Path> {
    // A file may be called `-`; the output of this name is standard output.
    let output = if output == Path::new("-") { return None } else { output.canonicalize().ok()? };
    if !output.is_file() {
        return None;
    }
    let is_output = |input: &&Input| !input.is_stdin() && input.path.canonicalize().is_ok_and(|path| path == output);
    inputs.iter().find(is_output).map(|input| input.path.as_path())
}

fn one_capture(
    inputs: &[Input],
    output: &Path,
    format: Format,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Ending> {
    let destination = Destination::new(output);
    let live_output = destination.is_stream();
    let mut capture = Capture::create_with(&destination, format, settings.output)?;
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
