//! `tap2pcap INPUT... OUTPUT.har`: HTTP tap traces to HAR.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    cuts::Cuts,
    is_stdin,
    merge::Outcome,
    mirror::{Failed, output_paths, overwritten, sync},
    settings::Settings,
    trace::Stop,
};
use crate::{
    capture::{Destination, OutputError, OutputOptions},
    har::{Exchanges, Har},
    input::{Advance, Input, MAX_MESSAGE, Source},
    interrupt,
    report::{Progress, Reporter, print_error, print_line},
    timeline::Track,
    trace::{Code, Fact, Finding, Findings, MessageView},
};

/// Writes all exchanges of all inputs into one file, input by input.
pub(super) fn one_file(
    inputs: &[Input],
    output: &Path,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Failed> {
    one_file_with(inputs, output, settings.output, settings, progress)
}

fn one_file_with(
    inputs: &[Input],
    output: &Path,
    options: OutputOptions,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Failed> {
    let destination = Destination::new(output);
    let timeline = &settings.timeline;
    let mut har =
        Har::create_with(&destination, timeline.http, timeline.start_time, options).map_err(Failed::Output)?;
    let mut outcome = Outcome::default();
    for input in inputs {
        add(input, output, &mut har, settings, progress, &mut outcome)?;
        progress.file();
    }
    // As with captures: one that the user ended before anything came is a file.
    if outcome.converted == 0 && interrupt::signal().is_some() {
        outcome.converted = inputs.len();
    }
    if outcome.converted > 0 {
        har.finish().map_err(Failed::Output)?;
    }
    Ok(outcome)
}

/// Writes a file for each input below `directory`.
pub(super) fn many_files(
    inputs: &[Input],
    directory: &Path,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Failed> {
    let mut outcome = Outcome::default();
    let outputs: Vec<PathBuf> = output_paths(inputs, directory, ".har");
    if let Some(input) = overwritten(inputs, &outputs) {
        return Err(Failed::Overwrite(input.path.clone()));
    }
    let options = OutputOptions { many: true, ..settings.output };
    for (input, output) in inputs.iter().zip(&outputs) {
        let failed = |source| Failed::Output(OutputError { path: output.clone(), source });
        let directories = output.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed);
        match directories.and_then(|()| one_file_with(std::slice::from_ref(input), output, options, settings, progress))
        {
            Ok(one) => outcome.add(&one),
            // As with captures: one that cannot be written says nothing of the others, unless there is no room.
            Err(Failed::Output(error)) if !error.is_out_of_space() => {
                print_error(&error);
                outcome.damaged += 1;
            }
            Err(error) => return Err(error),
        }
    }
    sync(directory, &outputs)?;
    Ok(outcome)
}

/// Adds the exchanges of one input.
fn add(
    input: &Input,
    output: &Path,
    har: &mut Har,
    settings: &Settings,
    progress: &Progress,
    outcome: &mut Outcome,
) -> Result<(), Failed> {
    let stopped = |stop| match stop {
        Stop::Output(source) => Failed::Output(OutputError { path: output.to_owned(), source }),
        Stop::Signal(signal) => Failed::Signal(signal),
    };
    let mut source = match Source::of(input, settings.input) {
        Ok(source) => source,
        Err(_) if is_stdin(input) && interrupt::signal().is_some() => return Ok(()),
        Err(error) => return outcome.refuse(input, &error, settings).map_err(stopped),
    };
    let mut reporter = Reporter::new(settings.verbosity, settings.strict);
    let before = har.entries();
    // As much as one message may have: a streamed exchange is no larger than the buffered trace of the same.
    let max_held = settings.input.max_message.unwrap_or(MAX_MESSAGE);
    let cuts = &mut outcome.cuts;
    let refused = read(input, &mut source, har, &mut reporter, progress, max_held, cuts).map_err(stopped)?;
    reporter.finish(&input.path);
    reporter.unknown_fields(&input.path, source.unknown_fields());
    let converted = har.entries() > before;
    if converted {
        outcome.converted += 1;
    } else if refused {
        let path = input.path.display();
        print_line("error", &format_args!("{path}: holds socket traces; HAR is for HTTP tap traces, pcapng for these"));
    } else if is_stdin(input) && interrupt::signal().is_some() {
        return Ok(());
    } else {
        super::nothing_readable(&input.path);
    }
    let damaged = reporter.errors() > 0 || (settings.strict && reporter.warnings() > 0);
    if !converted || damaged {
        outcome.damaged += 1;
    }
    Ok(())
}

/// Reads one input to its end. Answers whether there were socket traces in it.
fn read(
    input: &Input,
    source: &mut Source,
    har: &mut Har,
    reporter: &mut Reporter,
    progress: &Progress,
    max_held: usize,
    cuts: &mut Cuts,
) -> Result<bool, Stop> {
    let live = is_stdin(input);
    let name = input.path.file_name().unwrap_or(input.path.as_os_str()).to_string_lossy().into_owned();
    let mut exchanges = Exchanges::new(max_held);
    let mut sockets: Option<Finding> = None;
    let mut findings = Findings::default();
    let mut counted = 0;
    let mut entries = 0;
    loop {
        let advance = source.advance(&mut findings);
        let mut each = |view: MessageView<'_>, tracks: &[Track; 2]| {
            findings.extend(truncation(view, tracks));
            cuts.exchange(tracks);
            entries += 1;
            har.entry(&name, view, tracks)
        };
        let written = match advance {
            Advance::Message => {
                let view = source.message();
                let message = view.message();
                if let Some(kind) = message.kind.filter(|kind| !kind.is_http())
                    && sockets.is_none()
                {
                    sockets = Some(Finding::new(message.place(), Fact::SocketTrace(kind)));
                }
                exchanges.message(view, &mut each)
            }
            Advance::NeedInput => {
                if !live && let Some(signal) = interrupt::signal() {
                    return Err(Stop::Signal(signal));
                }
                let flushed = if live { har.flush() } else { Ok(()) };
                source.fill(&mut findings);
                progress.bytes(source.bytes_read() - counted);
                counted = source.bytes_read();
                flushed
            }
            Advance::End => {
                // It may be what ended a pipe with a name.
                if let (false, Some(signal)) = (live, interrupt::signal()) {
                    return Err(Stop::Signal(signal));
                }
                exchanges.end(&mut each)
            }
        };
        // The user ended the stream, and not where a message ends, or what packs it.
        let interrupted = live && interrupt::signal().is_some();
        let meant = |finding: &&Finding| interrupted && matches!(finding.code(), Code::CutOff | Code::ReadFailed);
        for finding in findings.take().iter().filter(|finding| !meant(finding)) {
            reporter.finding(&input.path, finding);
        }
        written.map_err(|error| Stop::Output(error.into_io()))?;
        if advance == Advance::End {
            break;
        }
    }
    // With nothing else in the source, the refusal says it all.
    if let (Some(finding), true) = (&sockets, entries > 0) {
        reporter.finding(&input.path, finding);
    }
    Ok(sockets.is_some())
}

fn truncation(view: MessageView<'_>, tracks: &[Track; 2]) -> Option<Finding> {
    let message = view.message();
    let fact = Fact::TruncatedBody { trace_id: message.trace_id };
    tracks.iter().any(|track| track.truncated).then(|| Finding::new(message.place(), fact))
}
