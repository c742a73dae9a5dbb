//! Writes one capture per trace, in a tree like that of the inputs.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{error::Error, merge::Totals, names::InputName, settings::Settings, trace::Trace};
use crate::{
    capture::{
        Capture, CaptureFormat, Captures, Destination, OutputOptions, SplitCapture, folder, path_of_part, sync_outputs,
    },
    input::{Input, InputPath},
    interrupt,
    report::{Progress, Verbosity, print_error, print_line},
    words,
};

/// Each worker holds up to four files, and some systems allow a process only 256.
const MAX_JOBS: usize = 32;

/// Converts each input into a capture of its own below `directory`.
pub(super) fn mirror(
    inputs: &[Input],
    directory: &Path,
    format: CaptureFormat,
    settings: &Settings,
    progress: &Progress,
) -> Result<Totals, Error> {
    let suffix = match format {
        CaptureFormat::Pcap | CaptureFormat::PcapMicros => ".pcap",
        CaptureFormat::Pcapng => ".pcapng",
    };
    let outputs = output_paths(inputs, directory, suffix, settings.verbosity);
    let is_new = is_new(directory);
    if !is_new {
        refuse_overwriting(inputs, &outputs, settings, settings.split.is_some())?;
    }
    let mut settings = settings.clone();
    settings.output.in_new_directory = is_new;
    let settings = &settings;
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let result = Mutex::new(Ok(Totals::default()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(input), Some(output)) = (inputs.get(index), outputs.get(index)) else { return };
            let converted = convert(input, output, format, settings, progress);
            progress.file();
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            match (converted, &mut *result) {
                (Ok(one), Ok(all)) => all.add(&one),
                // If one capture cannot be written, the others may still be, unless there is no room for any.
                (Err(error), Ok(all)) if error.spares_other_outputs() => {
                    print_error(&error);
                    all.add(&Totals { damaged: 1, ..Totals::default() });
                }
                (Err(error), Ok(_)) => {
                    stop.store(true, Ordering::Relaxed);
                    *result = Err(error);
                }
                // Only the first failure is reported.
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..settings.jobs.min(inputs.len()).min(MAX_JOBS) {
            // If another thread cannot be started, the others do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut outcome = result.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    outcome.captures.sort_unstable();
    sync(directory, &outcome.captures)?;
    Ok(outcome)
}

/// Waits until all outputs are on the disk.
pub(super) fn sync(directory: &Path, outputs: &[PathBuf]) -> Result<(), Error> {
    sync_outputs(directory, outputs).map_err(|source| Error::output(directory, source))
}

/// Where each input's capture goes: the input's name, with the capture's suffix after it. Inputs of the same name, from
/// different directories or archives, are numbered in their order, which a note says.
pub(super) fn output_paths(inputs: &[Input], directory: &Path, suffix: &str, verbosity: Verbosity) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let mut numbered = Vec::new();
    let named = |relative: &Path, middle: &str| {
        let mut name = OsString::from(relative);
        name.push(middle);
        name.push(suffix);
        directory.join(name)
    };
    let paths: Vec<_> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let relative = if input.is_stdin() { Path::new("stdin") } else { &input.mirrored };
            let mut path = named(relative, "");
            let mut number = 2;
            while !taken.insert(path.clone()) {
                path = named(relative, &format!("-{number}"));
                number += 1;
            }
            if number > 2 {
                numbered.push(index);
            }
            path
        })
        .collect();
    if let Some(first) = numbered.first().filter(|_| verbosity > Verbosity::Quiet) {
        let (input, output) = (inputs[*first].path().display(), paths[*first].display());
        let inputs = words::count(numbered.len() as u64, "input");
        let example = format_args!("{input} becomes {output}");
        print_line("note", &format_args!("{inputs} with the name of another one, told apart by numbers: {example}"));
    }
    paths
}

/// Whether nothing can be in a directory, because it does not exist yet. `new/../old` does not exist before `new` does,
/// but then it is `old`.
pub(super) fn is_new(directory: &Path) -> bool {
    !directory.exists() && !directory.components().any(|component| component == Component::ParentDir)
}

/// An input that is also one of the outputs, under any name, or one of the captures that an output is split into.
/// Nothing is in a new directory, which needs no look for each output.
pub(super) fn overwritten<'a>(inputs: &'a [Input], outputs: &[PathBuf], is_split: bool) -> Option<&'a Input> {
    if is_split {
        return split_over(inputs, outputs);
    }
    let existing: HashSet<_> = outputs.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let is_output = |input: &&Input| input.place.canonical().is_some_and(|path| existing.contains(&path));
    if existing.is_empty() { None } else { inputs.iter().find(is_output) }
}

/// Refuses outputs that are inputs or access logs.
///
/// # Errors
/// One of them is.
pub(super) fn refuse_overwriting(
    inputs: &[Input],
    outputs: &[PathBuf],
    settings: &Settings,
    is_split: bool,
) -> Result<(), Error> {
    let logs = settings.paired.as_ref().map(|paired| paired.logs()).unwrap_or_default();
    let logs: Vec<Input> = logs.iter().map(|log| Input::new(InputPath::new(log), log.clone(), false)).collect();
    let read = overwritten(inputs, outputs, is_split).or_else(|| overwritten(&logs, outputs, is_split));
    read.map_or(Ok(()), |input| Err(Error::Overwrite(input.path().to_owned())))
}

/// An input that may be one of the captures that one of the outputs is split into.
pub(super) fn split_over<'a>(inputs: &'a [Input], outputs: &[PathBuf]) -> Option<&'a Input> {
    let mut parts =
        inputs.iter().filter_map(|input| Some((input, path_of_part(&input.place.canonical()?)?))).peekable();
    // Few inputs, if any, have such a name.
    parts.peek()?;
    let outputs: HashSet<_> = outputs
        .iter()
        .filter_map(|output| Some(folder(output).canonicalize().ok()?.join(output.file_name()?)))
        .collect();
    parts.find(|(_, path)| outputs.contains(path)).map(|(input, _)| input)
}

fn convert(
    input: &Input,
    output: &Path,
    format: CaptureFormat,
    settings: &Settings,
    progress: &Progress,
) -> Result<Totals, Error> {
    let mut outcome = Totals::default();
    let mut trace = match Trace::open(input, &InputName::alone(input), settings, false) {
        Ok(trace) => trace,
        // The user ended the stream before it began. Like tcpdump's, its capture is empty, but it is written.
        Err(_) if input.is_stdin() && interrupt::signal().is_some() => {
            let mut captures = create(output, format, settings, true)?;
            captures.add_interface("-");
            return Ok(Totals { converted: 1, captures: captures.finish()?, ..outcome });
        }
        Err(error) => {
            outcome.refuse(input, &error, settings)?;
            return Ok(outcome);
        }
    };
    let mut captures = create(output, format, settings, input.is_stdin())?;
    trace.convert(&settings.mappings, &mut captures, progress)?;
    outcome.count(&mut trace);
    if trace.is_written() {
        outcome.captures = captures.finish()?;
    }
    Ok(outcome)
}

/// Creates a capture, and the directories that lead to it if they are missing. With `--split`, the captures of a stream
/// appear `at_once`.
fn create(output: &Path, format: CaptureFormat, settings: &Settings, at_once: bool) -> Result<Captures, Error> {
    let options = OutputOptions { many: true, ..settings.output };
    let create_folders = |folder| fs::create_dir_all(folder).map_err(|source| Error::output(output, source));
    if let Some(by) = settings.split {
        output.parent().map_or(Ok(()), create_folders)?;
        return Ok(Captures::Split(Box::new(SplitCapture::new(by, output, format, options, at_once))));
    }
    let destination = Destination::File(output.to_owned());
    let capture = match (Capture::create_with(&destination, format, options), output.parent()) {
        (Err(error), Some(parent)) if error.source.kind() == io::ErrorKind::NotFound => {
            create_folders(parent)?;
            Capture::create_with(&destination, format, options)?
        }
        (created, _) => created?,
    };
    Ok(Captures::One(capture))
}
