//! `tap2pcap INPUT... OUTPUT.har` converts HTTP tap traces to HAR.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    convert::arrive,
    cuts::Cuts,
    error::Error,
    merge::Totals,
    mirror::{output_paths, overwritten, sync},
    pump::{Attendant, Pump},
    settings::Settings,
};
use crate::{
    capture::{Destination, OutputOptions},
    har::{Exchanges, Har},
    input::{Discovered, Input, MAX_MESSAGE, Source},
    interrupt,
    report::{Progress, Reporter, print_error, print_line},
    timeline::Track,
    trace::{Fact, Finding, MessageView},
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
    Ok(Har::create_with(output, timeline.http, timeline.start_time, options)?)
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
    if let Some(input) = overwritten(inputs, directory, &outputs) {
        return Err(Error::Overwrite(input.path().to_owned()));
    }
    let options = OutputOptions { many: true, ..settings.output };
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
    let source = match Source::of(input, settings.input) {
        Ok(source) => source,
        Err(_) if input.is_stdin() && interrupt::signal().is_some() => return Ok(()),
        Err(error) => return outcome.refuse(input, &error, settings),
    };
    let mut pump = Pump::new(source, input.is_from_stdin());
    let mut reporter = Reporter::new(settings.verbosity, settings.strict);
    let before = har.entries();
    // The limit of one message: a streamed exchange is no larger than the buffered trace of the same exchange.
    let max_held = settings.input.max_message.unwrap_or(MAX_MESSAGE);
    let cuts = &mut outcome.cuts;
    let refused = read(input, &mut pump, har, &mut reporter, progress, max_held, cuts)?;
    reporter.finish(input.path());
    reporter.unknown_fields(input.path(), pump.stage().unknown_fields());
    let converted = har.entries() > before;
    if converted {
        outcome.converted += 1;
    } else if refused {
        let path = input.path().display();
        print_line("error", &format_args!("{path}: holds socket traces; HAR is for HTTP tap traces, write pcapng"));
    } else if pump.was_interrupted() {
        return Ok(());
    } else {
        super::nothing_readable(input.path());
    }
    let damaged = reporter.errors() > 0 || (settings.strict && reporter.warnings() > 0);
    if !converted || damaged {
        outcome.damaged += 1;
    }
    Ok(())
}

/// Reads one input to its end, and returns whether there were socket traces in it.
fn read(
    input: &Input,
    pump: &mut Pump<Source>,
    har: &mut Har,
    reporter: &mut Reporter,
    progress: &Progress,
    max_held: usize,
    cuts: &mut Cuts,
) -> Result<bool, Error> {
    let (name, path) = (input.name(), input.path());
    let mut exchanges = Exchanges::new(max_held);
    let mut sockets: Option<Finding> = None;
    let mut entries = 0;
    loop {
        let more = pump.next(progress, &mut HarAttendant { reporter, har })?;
        let mut cut = Vec::new();
        let mut each = |view: MessageView<'_>, tracks: &[Track; 2]| {
            cut.extend(truncation(view, tracks));
            cuts.exchange(tracks);
            entries += 1;
            har.entry(&name, view, tracks)
        };
        let written = if more {
            let view = pump.stage().message();
            let message = view.message();
            if let Some(kind) = message.kind.filter(|kind| !kind.is_http())
                && sockets.is_none()
            {
                sockets = Some(Finding::new(message.place(), Fact::SocketTrace(kind)));
            }
            exchanges.message(view, &mut each)
        } else {
            exchanges.end(&mut each)
        };
        for finding in &cut {
            reporter.finding(path, finding);
        }
        written?;
        if !more {
            break;
        }
    }
    // If the source holds nothing else, the refusal is enough.
    if let (Some(finding), true) = (&sockets, entries > 0) {
        reporter.finding(path, finding);
    }
    Ok(sockets.is_some())
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
