//! `tap2pcap::convert` converts one trace into one capture, for programs. It prints nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{error::Error, names::InputName, output, settings::Settings, trace::Trace};
use crate::{
    capture::{Capture, CaptureFormat, Captures, Destination, OutputError, OutputOptions, OutputPacking},
    input::{self, Input, InputError, InputPath},
    report::{Progress, Verbosity},
    synth, timeline,
    trace::Finding,
};

/// How many findings of one conversion are kept. The rest are only counted.
const MAX_FINDINGS: usize = 1000;

/// How [`convert`] converts. The default is what the program does without options.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// How the trace is read: its encoding, if that is not to be detected, and the limits.
    pub input: input::SourceOptions,
    /// How connections are assembled: who opened them, what replaces missing times, how HTTP is replayed. [`convert`]
    /// sets the fields that depend on the input or the output (`reread`, `eager`, `join`, `latest`).
    pub timeline: timeline::TimelineOptions,
    /// How packets are synthesized.
    pub synth: synth::SynthOptions,
    /// Addresses to rewrite.
    pub map: Vec<timeline::Mapping>,
    /// What is written. If `None`, the output's suffix says it, and a pipe or device gets pcapng.
    pub format: Option<CaptureFormat>,
    /// How the output is created. If no packing is set here, the output's suffix decides that too.
    pub output: OutputOptions,
}

/// What [`convert`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// The number of connections in the trace.
    pub connections: u64,
    /// The number of packets in the capture.
    pub packets: u64,
    /// What was wrong or remarkable, in order: the first thousand findings. Their words may quote the trace, so escape
    /// them before they reach a terminal.
    pub findings: Vec<Finding>,
    /// The number of errors among all findings. If there are any, the trace is damaged, and the capture has what was
    /// readable.
    pub errors: u64,
    /// The number of warnings among all findings.
    pub warnings: u64,
}

/// Why [`convert`] has written no capture.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The input cannot be read, or is not a trace.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Writing the output would destroy the input.
    #[error("{path}: is both input and output", path = .0.display())]
    SameFile(PathBuf),
    /// [`ConvertOptions::format`] is not given, and the output's name does not end in a suffix that says it.
    #[error("{path}: the name does not say what to write", path = .0.display())]
    UnknownFormat(PathBuf),
}

/// Converts the trace `input` into the capture `output`: two files, or `-` for standard input and standard output.
///
/// A capture file appears only when it is complete. A damaged trace is converted too: the capture has what was
/// readable, and [`Conversion::findings`] tell the rest. Nothing is printed.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let output = dir.path().join("path_0.pcapng");
/// use tap2pcap::{ConvertOptions, convert};
///
/// let input = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";
/// let done = convert(input, &output, &ConvertOptions::default())?;
/// println!("{} connections, {} packets", done.connections, done.packets);
/// for finding in &done.findings {
///     println!("{input}: {finding}");
/// }
/// # assert!(done.connections == 1 && done.packets > 3 && done.errors == 0 && output.is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ConvertError`] if no capture was written.
pub fn convert(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ConvertOptions,
) -> Result<Conversion, ConvertError> {
    let place = InputPath::new(input.as_ref());
    let output = Destination::new(output.as_ref());
    if output.file().and_then(|path| path.canonicalize().ok()).is_some_and(|path| place.canonical() == Some(path)) {
        return Err(ConvertError::SameFile(place.path().to_owned()));
    }
    let (format, packing) = output::capture_format(options.format, &output)
        .ok_or_else(|| ConvertError::UnknownFormat(output.path().to_owned()))?;
    let mut settings = Settings {
        input: options.input,
        timeline: options.timeline,
        synth: options.synth,
        mappings: options.map.clone().into(),
        strict: false,
        verbosity: Verbosity::Quiet,
        jobs: 1,
        output: options.output,
        selector: None,
        paired: None,
        split: None,
        redaction: None,
    };
    settings.timeline.latest = format.latest_time();
    if settings.output.packing == OutputPacking::None {
        settings.output.packing = packing;
    }
    let mut captures = Captures::One(Capture::create_with(&output, format, settings.output)?);
    let relative = PathBuf::from(place.path().file_name().unwrap_or_default());
    let input = Input::new(place, relative, false);
    // The program does the same: the reader of a pipe must not wait for events that may come later.
    let eager = input.is_stdin() && output.is_stream();
    let mut trace = Trace::open(&input, &InputName::alone(&input), &settings, eager)?;
    trace.reporter.mute();
    trace.keep_findings(MAX_FINDINGS);
    trace.convert(&settings.mappings, &mut captures, &Progress::hidden()).map_err(|error| match error {
        Error::Output(error) => error,
        // Only the program handles signals, so nothing else can fail here.
        error => captures.error(io::Error::other(error)),
    })?;
    trace.finish();
    if !trace.has_connections() {
        return Err(InputError::NothingReadable { path: input.path().to_owned() }.into());
    }
    let packets = captures.packets();
    captures.finish()?;
    Ok(Conversion {
        connections: trace.timelines().connections(),
        packets,
        errors: trace.reporter.errors(),
        warnings: trace.reporter.warnings(),
        findings: trace.take_kept(),
    })
}
