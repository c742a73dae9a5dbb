//! Merges many traces into one capture, in time order.
//!
//! A trace is open only between its first event and its last: a first pass learns when each trace begins, and closes it
//! again until its turn comes. So thousands of traces need few open files and little memory, unless they all happened
//! at once.

use std::{cmp::Reverse, collections::BinaryHeap, path::PathBuf};

use super::{
    cuts::Cuts,
    error::Error,
    hints::Hints,
    names::names,
    settings::Settings,
    trace::{PacketConnections, Trace, close_all},
};
use crate::{
    capture::Captures,
    input::{Input, InputError},
    interrupt,
    report::{Progress, Verbosity, print_error, print_line},
    trace::Nanos,
    words::count,
};

/// Traces stay open between the first pass and their turn if there are no more inputs than this.
const KEEP: usize = 32;

/// Bytes for the windows of all traces together, and the least that one window gets.
const WINDOWS: usize = 64 << 20;
const LEAST_WINDOW: usize = 8 << 10;

/// What became of the inputs.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Inputs from which something was converted.
    pub converted: usize,
    /// Inputs that were damaged or not converted at all.
    pub damaged: usize,
    /// Files found in a directory that are not traces.
    pub skipped: usize,
    /// Connections in the inputs, and those of them that `--where` selected.
    pub connections: u64,
    pub selected: u64,
    /// HTTP exchanges in the inputs, for an output of exchanges; `selected` counts them then.
    pub exchanges: u64,
    /// Inputs with connections, but without HTTP.
    pub without_http: usize,
    /// What Wireshark has to be told.
    pub hints: Hints,
    /// What Envoy's limit cut off.
    pub cuts: Cuts,
    /// The captures that were written.
    pub captures: Vec<PathBuf>,
}

impl Totals {
    /// Adds what became of other inputs.
    pub(super) fn add(&mut self, other: &Self) {
        self.converted += other.converted;
        self.damaged += other.damaged;
        self.skipped += other.skipped;
        self.connections += other.connections;
        self.selected += other.selected;
        self.exchanges += other.exchanges;
        self.without_http += other.without_http;
        self.hints.extend(&other.hints);
        self.cuts.add(other.cuts);
        self.captures.extend_from_slice(&other.captures);
    }

    /// Counts a trace that was read to its end.
    pub(super) fn count(&mut self, trace: &mut Trace) {
        trace.finish();
        trace.describe();
        let converted = trace.has_connections();
        if converted {
            self.converted += 1;
        } else if trace.was_interrupted() {
            return;
        } else {
            super::nothing_readable(trace.timelines().source().path());
        }
        if !converted || trace.is_damaged() {
            self.damaged += 1;
        }
        self.connections += trace.timelines().connections();
        self.selected += trace.selected;
        self.hints.extend(&trace.hints);
        self.cuts.add(trace.cuts);
    }

    /// Reports an input that could not be opened, unless a signal is the reason.
    pub(super) fn refuse(&mut self, input: &Input, error: &InputError, settings: &Settings) -> Result<(), Error> {
        match interrupt::signal() {
            // It has cut a member of an archive. What came of the stream before that is converted.
            Some(_) if input.is_from_stdin() && !input.is_stdin() => return Ok(()),
            Some(signal) if !input.is_stdin() => return Err(Error::Signal(signal)),
            _ => {}
        }
        if input.is_found && error.is_other_json() {
            self.skipped += 1;
            super::passed_over(input.path(), error, settings.verbosity);
        } else {
            self.damaged += 1;
            print_error(error);
        }
        Ok(())
    }
}

/// A trace: it waits for its turn, or is being read.
enum Turn {
    Waiting,
    Open(Box<Trace>),
}

/// Merges `inputs` into `captures`.
pub(super) fn merge(
    inputs: &[Input],
    settings: &Settings,
    live_output: bool,
    captures: &mut Captures,
    progress: &Progress,
) -> Result<Totals, Error> {
    let mut settings = settings.clone();
    if inputs.len() > 1 {
        settings.input.read_size = Some((WINDOWS / inputs.len()).clamp(LEAST_WINDOW, 256 << 10));
    }
    let names = names(inputs);
    let open = |index: usize, settings: &Settings| {
        let input = &inputs[index];
        let live = live_output && input.is_stdin();
        Trace::open(input, &names[index], settings, live).map(Box::new)
    };
    let mut outcome = Totals::default();
    let mut turns: Vec<Turn> = inputs.iter().map(|_| Turn::Waiting).collect();
    let mut queue = BinaryHeap::new();
    // Traces without any time begin when the others begin. A file can be opened again when that is known. A pipe can be
    // read only once, so pipes are opened after the files.
    let (files, pipes): (Vec<usize>, Vec<usize>) = (0..inputs.len()).partition(|index| inputs[*index].is_rereadable());
    let mut without_time = Vec::new();
    for index in files.iter().chain(&pipes).copied() {
        let input = &inputs[index];
        let is_file = input.is_rereadable();
        let mut trace = match open(index, &settings) {
            Ok(trace) => trace,
            // The user ended the stream before it began.
            Err(_) if input.is_stdin() && interrupt::signal().is_some() => continue,
            Err(error) => {
                outcome.refuse(input, &error, &settings)?;
                progress.file();
                continue;
            }
        };
        let keep = inputs.len() <= KEEP || !is_file;
        let begun = if is_file { trace.begin(captures)? } else { trace.advance(captures, progress)? };
        match begun {
            Some(time) if trace.begins_anywhere() => {
                if is_file {
                    without_time.push((time, index));
                } else {
                    queue.push(Reverse((time, index)));
                    turns[index] = Turn::Open(trace);
                }
            }
            Some(time) => {
                queue.push(Reverse((time, index)));
                let earliest = &mut settings.timeline.neighbours;
                *earliest = Some(earliest.map_or(time, |earliest| earliest.min(time)));
                if keep {
                    if is_file {
                        trace.keep(progress);
                    }
                    turns[index] = Turn::Open(trace);
                }
            }
            None if keep => {
                outcome.count(&mut trace);
                progress.file();
            }
            // The trace is read again, and makes its reports then.
            None => queue.push(Reverse((0, index))),
        }
    }
    let earliest = settings.timeline.neighbours;
    queue.extend(without_time.into_iter().map(|(time, index)| Reverse((earliest.unwrap_or(time), index))));

    let mut connections = PacketConnections::new(settings.mappings.clone());
    while let Some(Reverse((_, index))) = queue.pop() {
        let mut trace = match std::mem::replace(&mut turns[index], Turn::Waiting) {
            Turn::Open(trace) => trace,
            Turn::Waiting => match open(index, &settings) {
                Ok(mut trace) => match trace.advance(captures, progress)? {
                    Some(_) => trace,
                    None => {
                        outcome.count(&mut trace);
                        progress.file();
                        continue;
                    }
                },
                Err(error) => {
                    outcome.refuse(&inputs[index], &error, &settings)?;
                    progress.file();
                    continue;
                }
            },
        };
        let next = queue.peek().map(|Reverse(next)| *next);
        if let Some(time) = write_until(&mut trace, index, next, &mut connections, captures, progress)? {
            queue.push(Reverse((time, index)));
            turns[index] = Turn::Open(trace);
        } else {
            outcome.count(&mut trace);
            progress.file();
        }
    }
    let before = captures.packets();
    close_all(&mut connections, captures)?;
    let ends = captures.packets() - before;
    if ends > 0 && settings.verbosity == Verbosity::Verbose {
        let packets = count(ends, "packet");
        print_line("note", &format_args!("{packets} more, to end connections that were kept open for more exchanges"));
    }
    Ok(outcome)
}

/// Writes entries of one trace until another one's turn comes, and returns the time of the entry that waits.
fn write_until(
    trace: &mut Trace,
    index: usize,
    next: Option<(Nanos, usize)>,
    connections: &mut PacketConnections,
    captures: &mut Captures,
    progress: &Progress,
) -> Result<Option<Nanos>, Error> {
    loop {
        trace.write(connections, captures)?;
        let Some(time) = trace.advance(captures, progress)? else { return Ok(None) };
        if next.is_some_and(|next| next < (time, index)) {
            return Ok(Some(time));
        }
    }
}
