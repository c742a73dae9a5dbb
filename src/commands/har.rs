//! `tap2pcap INPUT... OUTPUT.har` writes the HTTP exchanges of traces as HAR.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    convert::arrive,
    cuts::Cuts,
    error::Error,
    merge::Totals,
    mirror::{is_new, output_paths, refuse_overwriting, sync},
    pump::{Attendant, Pump},
    select::Selection,
    settings::Settings,
};
use crate::{
    capture::{Destination, OutputError, OutputOptions},
    har::{Exchanges, Har},
    http::{HttpItem, HttpStage, HttpStageOptions},
    input::{Discovered, Input, MAX_MESSAGE, Source},
    interrupt,
    redact::Counts,
    report::{Progress, Reporter, Verbosity, print_error, print_line},
    timeline::{HttpTaps, Summaries, Timelines, Track},
    trace::{Fact, Finding, MessageView, Place},
};

/// Writes all exchanges of all inputs into one file, input by input.
pub(super) fn one_file(
    found: &mut Discovered,
    output: &Destination,
    settings: &Settings,
    progress: &Progress,
) -> Result<Totals, Error> {
    let har = create(output, settings.output, settings)?;
    arrive(found, settings, progress)?;
    write(&found.inputs, har, settings, progress)
}

fn create(output: &Destination, options: OutputOptions, settings: &Settings) -> Result<Har, Error> {
    let timeline = &settings.timeline;
    let har = Har::create_with(output, timeline.http, timeline.start_time, options)?;
    Ok(har.redacting(settings.redaction.clone()))
}

/// Writes all exchanges of these inputs.
fn write(inputs: &[Input], mut har: Har, settings: &Settings, progress: &Progress) -> Result<Totals, Error> {
    let mut outcome = Totals::default();
    for input in inputs {
        add(input, &mut har, settings, progress, &mut outcome)?;
        progress.file();
    }
    // As with captures, a file that the user ended before anything came is written nevertheless.
    if outcome.converted == 0 && interrupt::signal().is_some() {
        outcome.converted = inputs.len().max(1);
    }
    if outcome.converted > 0 {
        har.finish()?;
    }
    Ok(outcome)
}

/// Writes a file for each input below `directory`.
pub(super) fn many_files(
    inputs: &[Input],
    directory: &Path,
    settings: &Settings,
    progress: &Progress,
) -> Result<Totals, Error> {
    let mut outcome = Totals::default();
    let outputs: Vec<PathBuf> = output_paths(inputs, directory, ".har", settings.verbosity);
    let is_new = is_new(directory);
    if !is_new {
        refuse_overwriting(inputs, &outputs, settings, false)?;
    }
    let options = OutputOptions { many: true, in_new_directory: is_new, ..settings.output };
    for (input, output) in inputs.iter().zip(&outputs) {
        let file = Destination::File(output.clone());
        let directories = output.parent().map_or(Ok(()), fs::create_dir_all);
        let written = directories
            .map_err(|source| Error::output(output, source))
            .and_then(|()| create(&file, options, settings))
            .and_then(|har| write(std::slice::from_ref(input), har, settings, progress));
        match written {
            Ok(one) => outcome.add(&one),
            // As with captures, the others may still be written if one cannot be, unless there is no room.
            Err(error) if error.spares_other_outputs() => {
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
    har: &mut Har,
    settings: &Settings,
    progress: &Progress,
    outcome: &mut Totals,
) -> Result<(), Error> {
    let mut options = settings.timeline;
    options.http_taps = HttpTaps::Unreplayed;
    options.reread = input.is_rereadable().then_some(settings.input);
    let selection = match settings.selection(input) {
        Ok(selection) => selection,
        Err(error) => return outcome.refuse(input, &error, settings),
    };
    let source = match Source::of(input, settings.input) {
        Ok(source) => source,
        Err(_) if input.is_stdin() && interrupt::signal().is_some() => return Ok(()),
        Err(error) => return outcome.refuse(input, &error, settings),
    };
    let mut pump = Pump::new(Timelines::new(source, options), input.is_from_stdin());
    let mut reporter = Reporter::new(settings.verbosity, settings.strict);
    // The limit of one message: a streamed exchange is no larger than the buffered trace of the same exchange.
    let max_held = settings.input.max_message.unwrap_or(MAX_MESSAGE);
    let found = read(input, &mut pump, har, &mut reporter, progress, max_held, selection.as_ref())?;
    outcome.cuts.add(found.cuts);
    reporter.finish(input.path());
    reporter.unknown_fields(input.path(), pump.stage().source().unknown_fields());
    // Nothing has to match, as in a capture.
    let converted = found.entries > 0 || (selection.is_some() && found.exchanges > 0);
    outcome.exchanges += found.exchanges;
    outcome.selected += found.entries;
    if converted {
        outcome.converted += 1;
    } else if pump.stage().connections() > 0 {
        // In a directory, most traces may be of other protocols, which is nothing wrong.
        outcome.without_http += 1;
        if settings.verbosity == Verbosity::Verbose {
            print_line("note", &format_args!("{}: no HTTP that can be read", input.path().display()));
        }
    } else if pump.was_interrupted() {
        return Ok(());
    } else {
        super::nothing_readable(input.path());
    }
    let damaged = reporter.errors() > 0 || (settings.strict && reporter.warnings() > 0);
    if damaged || (!converted && pump.stage().connections() == 0) {
        outcome.damaged += 1;
    }
    Ok(())
}

/// What was found in one input.
#[derive(Debug, Default)]
struct Found {
    /// How many exchanges there were, and how many of them were written.
    exchanges: u64,
    entries: u64,
    cuts: Cuts,
}

/// Reads one input to its end.
fn read(
    input: &Input,
    pump: &mut Pump<Timelines>,
    har: &mut Har,
    reporter: &mut Reporter,
    progress: &Progress,
    max_held: usize,
    selection: Option<&Selection>,
) -> Result<Found, Error> {
    let (name, path) = (input.name(), input.path());
    let mut exchanges = Exchanges::new(max_held);
    let mut stage = HttpStage::new(HttpStageOptions { max_body: max_held, max_held, ..HttpStageOptions::default() });
    let mut summaries = Summaries::default();
    let mut found = Found::default();
    let mut sockets = 0;
    let redaction = har.redaction();
    if redaction.is_some() {
        stage.be_strict();
    }
    let report = |trace_id, counts: &Counts| {
        redaction
            .as_ref()
            .inspect(|redaction| redaction.report_connection(&path.display().to_string(), trace_id, counts));
    };
    let mut counted = HashMap::new();
    loop {
        let more = pump.next(progress, &mut HarAttendant { reporter, har })?;
        let mut cut = Vec::new();
        let mut each = |origin: Place, view: MessageView<'_>, tracks: &[Track; 2]| {
            found.exchanges += 1;
            if selection.is_some_and(|selection| !selection.has_tap(view.message().trace_id, origin)) {
                return Ok(());
            }
            cut.extend(truncation(view, tracks));
            found.cuts.exchange(tracks);
            found.entries += 1;
            let mut counts = Counts::default();
            har.counted_entry(&name, view, tracks, &mut counts)?;
            report(view.message().trace_id, &counts);
            Ok(())
        };
        let (timelines, findings) = pump.parts();
        let written: Result<(), OutputError> = match (more, timelines.entry(), timelines.unreplayed()) {
            (true, Some(entry), _) => {
                if let Some(summary) = summaries.entry(timelines, &entry, findings) {
                    found.cuts.connection(&summary);
                }
                stage.begin_entry();
                Ok(())
            }
            (true, None, Some(view)) => exchanges.message(view, &mut each),
            (true, None, None) => Ok(()),
            (false, ..) => exchanges.end(&mut each),
        };
        for finding in &cut {
            reporter.finding(path, finding);
        }
        written?;
        let (timelines, findings) = pump.parts();
        while let Some(item) = stage.next_item(timelines, findings) {
            let mut exchange = match item {
                HttpItem::Exchange(exchange) => exchange,
                HttpItem::Request(_) => continue,
                HttpItem::ConnectionEnd(end) => {
                    let counts = counted.remove(&end.connection.number);
                    counts.inspect(|counts| report(end.connection.trace_id, counts));
                    continue;
                }
            };
            found.exchanges += 1;
            sockets += 1;
            if selection.is_none_or(|selection| selection.has_exchange(sockets)) {
                found.entries += 1;
                let number = exchange.connection.number;
                let mut counts = Counts::default();
                har.counted_exchange(&name, &mut exchange, &mut counts)?;
                if redaction.is_some() {
                    counted.entry(number).or_insert_with(Counts::default).merge(&counts);
                }
            }
        }
        if !more {
            break;
        }
    }
    pump.hand_on(&mut HarAttendant { reporter, har });
    Ok(found)
}

/// Reports what is found while a source is read.
struct HarAttendant<'a> {
    reporter: &'a mut Reporter,
    har: &'a mut Har,
}

impl Attendant for HarAttendant<'_> {
    fn findings(&mut self, path: &Path, findings: &[Finding]) {
        for finding in findings {
            self.reporter.finding(path, finding);
        }
    }

    fn before_wait(&mut self) -> Result<(), Error> {
        Ok(self.har.flush()?)
    }
}

fn truncation(view: MessageView<'_>, tracks: &[Track; 2]) -> Option<Finding> {
    let message = view.message();
    let fact = Fact::TruncatedBody { trace_id: message.trace_id };
    tracks.iter().any(|track| track.truncated).then(|| Finding::new(message.place(), fact))
}
