//! One capture per trace, in the tree of the inputs.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{
    merge::Outcome,
    settings::Settings,
    trace::{Stop, Trace},
};
use crate::{
    capture::{Capture, Destination, Format, OutputError},
    input::Input,
    report::{Progress, print_error},
    timeline::Resolver,
};

/// Each worker holds up to four files, and a process may have as few as 256.
const MAX_JOBS: usize = 32;

/// Why the whole of it stops: no room for captures, or a signal.
#[derive(Debug)]
pub(super) enum Failed {
    Output(OutputError),
    Signal(u8),
}

/// Converts each input into a capture of its own below `directory`.
pub(super) fn mirror(
    inputs: &[Input],
    directory: &Path,
    format: Format,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Failed> {
    let outputs = output_paths(inputs, directory, format);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let result = Mutex::new(Ok(Outcome::default()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(input), Some(output)) = (inputs.get(index), outputs.get(index)) else { return };
            let converted = convert(input, output, format, settings, progress);
            progress.file();
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            match (converted, &mut *result) {
                (Ok(one), Ok(all)) => all.add(&one),
                // One capture that cannot be written says nothing of the others, unless there is no room for any.
                (Err(Failed::Output(error)), Ok(all)) if !error.is_out_of_space() => {
                    print_error(&error);
                    all.add(&Outcome { damaged: 1, ..Outcome::default() });
                }
                (Err(error), Ok(_)) => {
                    stop.store(true, Ordering::Relaxed);
                    *result = Err(error);
                }
                // The first failure is the one to tell.
                (_, Err(_)) => {}
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..settings.jobs.min(inputs.len()).min(MAX_JOBS) {
            // Where there is no room for another thread, those that are there do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    result.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Where each input's capture goes: the name it had, with the capture's suffix after it. Inputs of the same name, from
/// different directories, are numbered in their order.
fn output_paths(inputs: &[Input], directory: &Path, format: Format) -> Vec<PathBuf> {
    let mut taken = HashSet::new();
    let suffix = match format {
        Format::Pcap => ".pcap",
        Format::Pcapng => ".pcapng",
    };
    let named = |relative: &Path, middle: &str| {
        let mut name = OsString::from(relative);
        name.push(middle);
        name.push(suffix);
        directory.join(name)
    };
    inputs
        .iter()
        .map(|input| {
            let relative = if input.path == Path::new("-") { Path::new("stdin") } else { &input.relative };
            let mut path = named(relative, "");
            let mut number = 2;
            while !taken.insert(path.clone()) {
                path = named(relative, &format!("-{number}"));
                number += 1;
            }
            path
        })
        .collect()
}

fn convert(
    input: &Input,
    output: &Path,
    format: Format,
    settings: &Settings,
    progress: &Progress,
) -> Result<Outcome, Failed> {
    let mut outcome = Outcome::default();
    let mut trace = match Trace::open(&input.path, settings, false) {
        Ok(trace) => trace,
        Err(error) => {
            outcome.refuse(input, &error, settings);
            return Ok(outcome);
        }
    };
    let failed = |source| Failed::Output(OutputError { path: output.to_owned(), source });
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut capture = Capture::create(&Destination::File(output.to_owned()), format).map_err(Failed::Output)?;
    let mut resolver = Resolver::new(settings.mappings.clone());
    let mut run = || -> Result<(), Stop> {
        while trace.advance(&mut capture, progress)?.is_some() {
            trace.write(&mut resolver, &mut capture)?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => {}
        Err(Stop::Output(source)) => return Err(failed(source)),
        Err(Stop::Signal(signal)) => return Err(Failed::Signal(signal)),
    }
    outcome.count(&mut trace);
    if trace.has_connections() {
        capture.finish().map_err(Failed::Output)?;
    }
    Ok(outcome)
}
