//! `tap2pcap INPUT... OUTPUT` converts traces to captures.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Status,
    error::Error,
    har,
    hints::Hints,
    merge::{Totals, merge},
    mirror::{mirror, split_over, sync},
    output::{self, Kind},
    paired::PairedInputs,
    redaction::{self, ReportFile},
    settings::Settings,
};
use crate::{
    capture::{Capture, CaptureFormat, Captures, Destination, OutputPacking, SplitCapture, folder, part_path},
    cli::{ConvertArgs, PairArgs},
    input::{Discovered, Input, discover},
    interrupt,
    report::{Progress, ProgressMode, Verbosity, print_error, print_line},
    words,
};

pub(super) fn run(args: &ConvertArgs) -> Result<Status, Error> {
    let mut settings = Settings::new(&args.conversion)?;
    settings.output.force = args.output.force;
    settings.split = args.split;
    let Some((output, inputs)) = args.paths.split_last() else {
        return Err(Error::Arguments("an input and an output are needed".to_owned()));
    };
    interrupt::install()?;
    let report = ReportFile::create(settings.redaction.as_ref())?;
    let output = Destination::new(output);
    let (split, map) = (args.split.is_some(), !args.conversion.packets.map.is_empty());
    let kind = |output: &Destination| output::kind(&args.output, split, map, output);
    let (status, hints) = convert(inputs, &output, settings, &args.conversion.pair, args.conversion.progress, kind)?;
    if status != Status::NotDone {
        report.map_or(Ok(()), ReportFile::finish)?;
        suggest(&output, args, &hints);
    }
    Ok(status)
}

/// Converts, and reports what concerns the whole conversion. `kind` says what is written, and how it is packed. Returns
/// what Wireshark has to be told about the output as well.
pub(super) fn convert(
    inputs: &[PathBuf],
    output: &Destination,
    mut settings: Settings,
    pair: &PairArgs,
    progress: ProgressMode,
    kind: impl FnOnce(&Destination) -> Result<(Kind, OutputPacking), Error>,
) -> Result<(Status, Hints), Error> {
    let into_directory = output.is_directory();
    let mut found = discover(inputs, settings.input);
    for unreadable in &found.unreadable {
        print_error(&unreadable.as_input_error());
    }
    super::read_stdin_once(&found.inputs)?;
    if let Some(path) = overwritten(&found.inputs, output, settings.split.is_some()) {
        return Err(Error::Overwrite(path.to_owned()));
    }
    redaction::expect(settings.redaction.as_deref(), &found.inputs, output.file())?;
    redaction::spare(&pair.access_log, settings.redaction.as_deref(), output.file())?;
    let (kind, packing) = kind(output)?;
    settings.output.packing = packing;
    for error in &found.passed_over {
        super::passed_over(error.path(), error, settings.verbosity);
    }
    if found.inputs.is_empty() {
        return match interrupt::signal() {
            Some(signal) => Err(Error::Signal(signal)),
            None => Err(super::no_traces(inputs, found.count_passed_over)),
        };
    }
    // A pipe is read twice as well: once to select, once to convert.
    let names_pairs = settings.selector.as_ref().is_some_and(|selector| selector.filter.needs_pairing());
    let pairs = pair.is_on() || names_pairs;
    if settings.selector.is_some() || pairs {
        found.copy_pipes()?;
    }
    if pairs {
        found.look_into_pipe(settings.input);
        let paired = PairedInputs::of(&found.inputs, pair, &settings, matches!(kind, Kind::Har))?;
        settings.paired = Some(Arc::new(paired));
    }
    let size = || found.inputs.iter().map(Input::len).sum();
    let progress = Progress::new(progress, settings.verbosity, found.inputs.len(), size);
    let is_har = matches!(kind, Kind::Har);
    let outcome = match kind {
        Kind::Har if into_directory => arrive(&mut found, &settings, &progress)
            .and_then(|()| har::many_files(&found.inputs, output.path(), &settings, &progress)),
        Kind::Har => har::one_file(&mut found, output, &settings, &progress),
        Kind::Capture(format) => {
            settings.timeline.latest = format.latest_time();
            if into_directory {
                arrive(&mut found, &settings, &progress)
                    .and_then(|()| mirror(&found.inputs, output.path(), format, &settings, &progress))
            } else {
                one_capture(&mut found, output, format, &settings, &progress)
            }
        }
    };
    progress.finish();
    let mut outcome = outcome?;
    outcome.damaged += found.unreadable.len();
    super::count_passed_over(found.count_passed_over + outcome.skipped, settings.verbosity);
    let inputs = found.inputs.len() + found.unreadable.iter().filter(|unreadable| unreadable.is_trace()).count();
    let status = conclude(&outcome, inputs, &settings);
    let unmatched = !is_har && outcome.converted > 0 && report_unmatched(&settings);
    let status = if unmatched && settings.strict && status == Status::Done { Status::Damaged } else { status };
    Ok((status, outcome.hints))
}

/// Says how to see the output dissected.
fn suggest(output: &Destination, args: &ConvertArgs, hints: &Hints) {
    if hints.is_empty() || args.conversion.verbosity.quiet || output.is_stream() {
        return;
    }
    let first = part_path(output.path(), 1);
    let capture = match args.split {
        _ if output.is_directory() => Path::new("CAPTURE"),
        Some(_) => &first,
        None => output.path(),
    };
    let command = super::info::open_command(capture, hints);
    print_line("note", &format_args!("to see it dissected: {command}"));
}

/// Waits for what comes through a pipe, which may be an archive of traces.
pub(super) fn arrive(found: &mut Discovered, settings: &Settings, progress: &Progress) -> Result<(), Error> {
    let pipe: Vec<_> = found.inputs.iter().take(1).map(|input| input.path().to_owned()).collect();
    if !found.look_into_pipe(settings.input) {
        return Ok(());
    }
    for unreadable in &found.unreadable {
        print_error(&unreadable.as_input_error());
    }
    for error in &found.passed_over {
        super::passed_over(error.path(), error, settings.verbosity);
    }
    if found.inputs.is_empty() && interrupt::signal().is_none() {
        return Err(super::no_traces(&pipe, found.count_passed_over));
    }
    redaction::expect(settings.redaction.as_deref(), &found.inputs, None)?;
    progress.expect_files(found.inputs.len());
    Ok(())
}

/// Reports every `--map` that has rewritten nothing, and returns whether there is one.
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

/// Reports what concerns the whole conversion, and returns its status.
fn conclude(outcome: &Totals, inputs: usize, settings: &Settings) -> Status {
    if let Some(words) = outcome.cuts.words()
        && settings.verbosity > Verbosity::Quiet
    {
        print_line("warning", &words);
    }
    let tried = inputs - outcome.skipped;
    match outcome.without_http {
        0 => {}
        _ if outcome.converted == 0 => {
            print_line(
                "error",
                &format_args!("no HTTP that can be read is in the input; HAR is for HTTP, write pcapng"),
            );
        }
        count if settings.verbosity > Verbosity::Quiet => {
            let traces = words::count(count as u64, "trace");
            print_line("note", &format_args!("{traces} without HTTP that can be read; -v lists them"));
        }
        _ => {}
    }
    if let (Some(selector), true) = (&settings.selector, settings.verbosity > Verbosity::Quiet) {
        selector.doubts.report(settings.verbosity);
        let all = match outcome.exchanges {
            0 => words::count(outcome.connections, "connection"),
            exchanges => words::count(exchanges, "exchange"),
        };
        let traces = words::count(tried as u64, "trace");
        print_line("note", &format_args!("{} of {all} in {traces} match", outcome.selected));
    }
    if inputs > 1 && settings.selector.is_none() && settings.verbosity > Verbosity::Quiet {
        let tried = words::count(tried as u64, "trace");
        print_line("note", &format_args!("{} of {tried} converted", outcome.converted));
    }
    if let (Some(_), [first, .., last], true) =
        (settings.split, &*outcome.captures, settings.verbosity > Verbosity::Quiet)
    {
        let captures = words::count(outcome.captures.len() as u64, "capture");
        let (first, last) = (first.display(), last.display());
        print_line("note", &format_args!("{captures} written, from {first} to {last}"));
    }
    if outcome.converted == 0 {
        return Status::NotDone;
    }
    if outcome.damaged > 0 { Status::Damaged } else { Status::Done }
}

/// An input that is also the output, under any name: writing would destroy what is read.
fn overwritten<'a>(inputs: &'a [Input], output: &Destination, is_split: bool) -> Option<&'a Path> {
    if is_split && !output.is_directory() {
        return split_over(inputs, &[output.file()?.to_owned()]).map(Input::path);
    }
    let output = output.file()?.canonicalize().ok().filter(|path| path.is_file())?;
    inputs.iter().find(|input| input.place.canonical().is_some_and(|path| path == output)).map(Input::path)
}

fn one_capture(
    found: &mut Discovered,
    output: &Destination,
    format: CaptureFormat,
    settings: &Settings,
    progress: &Progress,
) -> Result<Totals, Error> {
    let mut captures = match (settings.split, output.file()) {
        (Some(by), Some(path)) => {
            let at_once = found.inputs.iter().any(Input::is_stdin);
            Captures::Split(Box::new(SplitCapture::new(by, path, format, settings.output, at_once)))
        }
        _ => Captures::One(Capture::create_with(output, format, settings.output)?),
    };
    arrive(found, settings, progress)?;
    let mut outcome = merge(&found.inputs, settings, output.is_stream(), &mut captures, progress)?;
    // Like tcpdump's, a capture that the user ended before anything came is still written.
    if outcome.converted == 0 && interrupt::signal().is_some() {
        captures.add_interface("-");
        outcome.converted = found.inputs.len().max(1);
    }
    if outcome.converted > 0 {
        outcome.captures = captures.finish()?;
        if let (Some(_), Some(path)) = (settings.split, output.file()) {
            sync(folder(path), &outcome.captures)?;
        }
    }
    Ok(outcome)
}
