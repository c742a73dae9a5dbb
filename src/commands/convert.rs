//! `tap2pcap INPUT... OUTPUT`: traces to captures.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::Status;
use crate::{
    capture::{Capture, Destination, Format},
    cli::{self, ConvertArgs},
    input::{Advance, Encoding, Source},
    report::{Reporter, Verbosity, print_line},
    synth::{self, Flow, Identity, TcpMode, TruncatedMode},
    timeline::{self, Endpoints, EntryKind, Resolver, Role, RoleChoice, Timelines},
    trace::Finding,
};

/// What the arguments come to.
#[derive(Clone, Debug)]
struct Settings {
    encoding: Option<Encoding>,
    timeline: timeline::Options,
    synth: synth::Options,
    mappings: Vec<timeline::Mapping>,
    strict: bool,
    verbosity: Verbosity,
}

impl Settings {
    fn new(args: &ConvertArgs) -> Self {
        let role = match args.role {
            cli::Role::Auto => RoleChoice::Auto,
            cli::Role::Downstream => RoleChoice::Always(Role::Downstream),
            cli::Role::Upstream => RoleChoice::Always(Role::Upstream),
        };
        Self {
            encoding: match args.from {
                cli::From::Auto => None,
                cli::From::Binary => Some(Encoding::Binary),
                cli::From::Delimited => Some(Encoding::Delimited),
                cli::From::Text => Some(Encoding::Text),
                cli::From::Json => Some(Encoding::Json),
            },
            timeline: timeline::Options { role, start_time: args.start_time.unwrap_or(0), eager: false },
            synth: synth::Options {
                tcp: match args.tcp {
                    cli::Tcp::Full => TcpMode::Full,
                    cli::Tcp::Bare => TcpMode::Bare,
                },
                truncated: match args.truncated {
                    cli::Truncated::Snap => TruncatedMode::Snap,
                    cli::Truncated::Gap => TruncatedMode::Gap,
                    cli::Truncated::Zero => TruncatedMode::Zero,
                },
                mss: args.mss,
            },
            mappings: args.map.clone(),
            strict: args.strict,
            verbosity: match args.verbosity {
                cli::Verbosity { quiet: true, .. } => Verbosity::Quiet,
                cli::Verbosity { verbose: true, .. } => Verbosity::Verbose,
                cli::Verbosity { .. } => Verbosity::Normal,
            },
        }
    }
}

pub(super) fn run(args: &ConvertArgs) -> anyhow::Result<Status> {
    let settings = Settings::new(args);
    let Some((output, inputs)) = args.paths.split_last() else { bail!("an input and an output are needed") };
    let [input] = inputs else { bail!("only one input is supported") };
    convert_one(&settings, input, output, args.format)
}

fn convert_one(
    settings: &Settings,
    input: &Path,
    output: &Path,
    format: Option<cli::Format>,
) -> anyhow::Result<Status> {
    let format = capture_format(format, output);
    let destination = if output == Path::new("-") { Destination::Stdout } else { Destination::File(output.to_owned()) };
    if same_file(input, output) {
        bail!("{}: is both input and output", input.display());
    }
    let live = input == Path::new("-");
    let mut timeline_options = settings.timeline;
    // Nobody may wait for the next event where a reader follows the stream.
    timeline_options.eager = live && destination == Destination::Stdout;

    let source = Source::open(input, crate::input::Options { encoding: settings.encoding, piece: None })?;
    let mut trace = Trace::new(Timelines::new(source, timeline_options), settings.synth);
    let mut resolver = Resolver::new(settings.mappings.clone());
    let mut reporter = Reporter::new(settings.verbosity);
    let mut capture = Capture::create(&destination, format)?;

    let result = loop {
        let step = match trace.timelines.advance() {
            Advance::Message => trace.write_entry(&mut resolver, &mut capture),
            Advance::NeedInput => {
                let flushed = if live { capture.flush().map_err(|error| error.into_io()) } else { Ok(()) };
                trace.timelines.source_mut().fill();
                flushed
            }
            Advance::End => break Ok(()),
        };
        trace.report(&mut reporter);
        if step.is_err() {
            break step;
        }
    };
    trace.report(&mut reporter);
    reporter.finish(input);
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Status::Done),
        Err(source) => {
            return Err(crate::capture::OutputError { path: output.to_owned(), source }.into());
        }
        Ok(()) => {}
    }
    if trace.timelines.connections() == 0 {
        capture.abandon();
        bail!("{}: holds no socket trace that can be read; no capture written", input.display());
    }
    reporter.unknown_fields(input, trace.timelines.source().unknown_fields());
    if settings.verbosity == Verbosity::Verbose {
        let (connections, packets) = (trace.timelines.connections(), capture.packets());
        let encoding = trace.timelines.source().encoding().name();
        let input = input.display();
        print_line("note", &format_args!("{input}: {encoding}, {connections} connections, {packets} packets"));
    }
    match capture.finish() {
        Err(error) if error.is_broken_pipe() => return Ok(Status::Done),
        result => result?,
    }
    let damaged = reporter.errors() > 0 || (settings.strict && reporter.warnings() > 0);
    Ok(if damaged { Status::Damaged } else { Status::Done })
}

/// A trace on its way into a capture.
struct Trace {
    timelines: Timelines,
    options: synth::Options,
    /// The file as it was named.
    name: String,
    /// Its name without directory and trace suffix.
    stem: String,
    interface: Option<u32>,
    flows: Vec<Option<(Flow, Endpoints)>>,
}

impl Trace {
    fn new(timelines: Timelines, options: synth::Options) -> Self {
        let path = timelines.source().path();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let stem = trace_stem(&name).to_owned();
        Self { timelines, options, name, stem, interface: None, flows: Vec::new() }
    }

    /// Writes the packets of the current entry.
    fn write_entry(&mut self, resolver: &mut Resolver, capture: &mut Capture) -> io::Result<()> {
        let Some(entry) = self.timelines.entry() else { return Ok(()) };
        let (slot, time) = (entry.slot, entry.time);
        let interface = *self.interface.get_or_insert_with(|| capture.add_interface(&self.name));
        if let Some(Some((flow, endpoints))) = self.flows.get_mut(slot) {
            let sink = &mut capture.interface(interface);
            return match entry.kind {
                EntryKind::Data(data) => flow.data(time, &data, sink),
                EntryKind::Gap { direction, bytes, certain } => flow.gap(time, direction, bytes, certain, sink),
                EntryKind::Closed { .. } | EntryKind::Abandoned => {
                    let written = match entry.kind {
                        EntryKind::Abandoned => flow.abandon(time, sink),
                        _ => flow.close(time, sink),
                    };
                    resolver.close(endpoints);
                    self.flows[slot] = None;
                    written
                }
                EntryKind::Opened => Ok(()),
            };
        }
        let Some(opening) = self.timelines.opening(slot) else { return Ok(()) };
        let endpoints = resolver.open(&self.stem, opening);
        capture.add_names(&endpoints.names);
        let identity = Identity { trace_file: &self.name, source: &self.stem, opening, endpoints: &endpoints, time };
        let mut flow = Flow::new(self.options, &identity);
        let written = flow.open(time, &mut capture.interface(interface));
        let (offset, message) = (opening.offset, opening.message);
        for (code, detail) in &endpoints.faults {
            let finding = Finding { code: *code, offset, message, detail: detail.clone() };
            self.timelines.source_mut().add_finding(finding);
        }
        if self.flows.len() <= slot {
            self.flows.resize_with(slot + 1, || None);
        }
        self.flows[slot] = Some((flow, endpoints));
        written
    }

    fn report(&mut self, reporter: &mut Reporter) {
        if self.timelines.source().has_findings() {
            let findings = self.timelines.source_mut().take_findings();
            for finding in &findings {
                reporter.finding(self.timelines.source().path(), finding);
            }
        }
    }
}

fn capture_format(given: Option<cli::Format>, output: &Path) -> Format {
    match given {
        Some(cli::Format::Pcap) => Format::Pcap,
        Some(cli::Format::Pcapng) => Format::Pcapng,
        None if output.extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("pcap")) => Format::Pcap,
        None => Format::Pcapng,
    }
}

/// The name of a trace file without the suffix that only tells its encoding, so that the same messages give the same
/// packets in every encoding.
fn trace_stem(name: &str) -> &str {
    let suffixes = [".pb", ".pb_length_delimited", ".pb_text", ".json"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// Whether two names are of one file: writing would destroy what is read.
fn same_file(input: &Path, output: &Path) -> bool {
    let canonical = |path: &Path| -> Option<PathBuf> { path.canonicalize().ok() };
    match (canonical(input), canonical(output)) {
        (Some(input), Some(output)) => input == output && input.is_file(),
        _ => false,
    }
}
