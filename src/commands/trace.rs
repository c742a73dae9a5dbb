//! One trace on its way into a capture.

use std::{io, path::Path};

use crate::{
    capture::Capture,
    input::{Advance, InputError, Source, trace_stem},
    interrupt,
    report::{Progress, Reporter, Verbosity, print_line},
    synth::{self, Flow, Identity, TcpMode, TruncatedMode},
    timeline::{Endpoints, EntryKind, Summaries, Summary, Timelines},
    trace::{Code, Nanos},
};

use super::{
    connections::{Begun, Connections},
    info::Hints,
    settings::Settings,
};

/// Why a conversion stops before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// The capture cannot be written.
    Output(io::Error),
    /// SIGINT or SIGTERM.
    Signal(u8),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// A trace, its flows and its place in the capture.
pub(super) struct Trace {
    timelines: Timelines,
    settings: Settings,
    /// The file's own name.
    name: String,
    /// Its name without what only tells how it is packed and encoded.
    stem: String,
    interface: Option<u32>,
    flows: Vec<Option<(Flow, Endpoints)>>,
    summaries: Summaries,
    /// Bytes that were counted as progress.
    counted: u64,
    packets: u64,
    /// It is converted as it arrives.
    live: bool,
    pub reporter: Reporter,
    /// For people: how to look into what Wireshark would not dissect by itself.
    pub hints: Hints,
}

impl Trace {
    /// Opens a trace. An `eager` one never waits for what may come later.
    pub(super) fn open(path: &Path, settings: &Settings, eager: bool) -> Result<Self, InputError> {
        let source = Source::open(path, settings.input)?;
        Ok(Self::new(source, settings, eager, path == Path::new("-")))
    }

    /// A trace that is converted as it arrives, and whose source says where it ends.
    pub(super) fn live(source: Source, settings: &Settings) -> Self {
        Self::new(source, settings, true, true)
    }

    fn new(source: Source, settings: &Settings, eager: bool, live: bool) -> Self {
        let mut options = settings.timeline;
        options.eager = eager;
        let synth::Options { tcp, truncated, .. } = settings.synth;
        options.join = !eager && tcp == TcpMode::Full && truncated == TruncatedMode::Snap;
        let path = source.path();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let stem = trace_stem(path);
        Self {
            timelines: Timelines::new(source, options),
            settings: settings.clone(),
            name,
            stem,
            interface: None,
            flows: Vec::new(),
            summaries: Summaries::default(),
            counted: 0,
            packets: 0,
            live,
            reporter: Reporter::new(settings.verbosity, settings.strict),
            hints: Hints::default(),
        }
    }

    pub(super) fn timelines(&self) -> &Timelines {
        &self.timelines
    }

    /// Whether there was something to convert.
    pub(super) fn has_connections(&self) -> bool {
        self.timelines.connections() > 0
    }

    /// Whether a signal ended standard input.
    pub(super) fn was_interrupted(&self) -> bool {
        self.live && interrupt::signal().is_some()
    }

    /// Whether something was wrong.
    pub(super) fn is_damaged(&self) -> bool {
        self.reporter.errors() > 0 || (self.settings.strict && self.reporter.warnings() > 0)
    }

    /// Goes to the next entry and answers its time; `None` at the end. Before it waits for input, what a live stream
    /// gave so far is flushed.
    #[inline(always)]
    pub(super) fn advance(&mut self, capture: &mut Capture, progress: &Progress) -> Result<Option<Nanos>, Stop> {
        let advance = self.timelines.advance();
        if advance == Advance::Message && !self.timelines.source().has_findings() && !self.summaries.has_findings() {
            return Ok(self.timelines.time());
        }
        self.advance_on(advance, capture, progress)
    }

    fn advance_on(
        &mut self,
        mut advance: Advance,
        capture: &mut Capture,
        progress: &Progress,
    ) -> Result<Option<Nanos>, Stop> {
        loop {
            if self.timelines.source().has_findings() || self.summaries.has_findings() {
                self.report();
            }
            match advance {
                Advance::Message => return Ok(self.timelines.time()),
                Advance::NeedInput => {
                    if self.live {
                        capture.flush().map_err(|error| Stop::Output(error.into_io()))?;
                    } else if let Some(signal) = interrupt::signal() {
                        return Err(Stop::Signal(signal));
                    }
                    self.timelines.source_mut().fill();
                    self.count_progress(progress);
                    advance = self.timelines.advance();
                }
                Advance::End => {
                    // It may be what ended a pipe with a name.
                    if let (false, Some(signal)) = (self.live, interrupt::signal()) {
                        return Err(Stop::Signal(signal));
                    }
                    self.report();
                    self.count_progress(progress);
                    return Ok(None);
                }
            }
        }
    }

    fn count_progress(&mut self, progress: &Progress) {
        let read = self.timelines.source().bytes_read();
        progress.bytes(read - self.counted);
        self.counted = read;
    }

    /// Writes the packets of the current entry.
    #[inline(always)]
    pub(super) fn write(&mut self, connections: &mut Connections, capture: &mut Capture) -> io::Result<()> {
        let before = capture.packets();
        let written = self.write_entry(connections, capture);
        self.packets += capture.packets() - before;
        written
    }

    #[inline(always)]
    fn write_entry(&mut self, connections: &mut Connections, capture: &mut Capture) -> io::Result<()> {
        let Some(entry) = self.timelines.entry() else { return Ok(()) };
        let summary = self.summaries.entry(&self.timelines, &entry);
        match (&entry.kind, self.flows.get_mut(entry.slot), self.interface) {
            (EntryKind::Data(data), Some(Some((flow, _))), Some(interface)) => {
                flow.data(entry.time, data, &mut capture.interface(interface))
            }
            _ => self.write_rare(summary, connections, capture),
        }
    }

    /// Writes the packets of an entry that is not just more data.
    fn write_rare(
        &mut self,
        summary: Option<Summary>,
        connections: &mut Connections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        let Some(entry) = self.timelines.entry() else { return Ok(()) };
        let (slot, time) = (entry.slot, entry.time);
        let interface = *self.interface.get_or_insert_with(|| capture.add_interface(&self.name));
        let Some(Some((flow, endpoints))) = self.flows.get_mut(slot) else {
            return self.open_flow(slot, time, interface, connections, capture);
        };
        match entry.kind {
            EntryKind::Data(data) => flow.data(time, &data, &mut capture.interface(interface)),
            EntryKind::Gap { direction, bytes, certain } => {
                flow.gap(time, direction, bytes, certain, &mut capture.interface(interface))
            }
            EntryKind::Opened => Ok(()),
            EntryKind::Closed { .. } | EntryKind::Abandoned => {
                if let Some(summary) = summary {
                    self.hints.add(&summary, endpoints);
                }
                let complete = !matches!(entry.kind, EntryKind::Abandoned);
                match (self.flows[slot].take(), self.timelines.opening(slot)) {
                    (Some((flow, endpoints)), Some(opening)) => {
                        connections.end(flow, endpoints, opening, time, complete, (interface, capture))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn open_flow(
        &mut self,
        slot: usize,
        time: Nanos,
        interface: u32,
        connections: &mut Connections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        let Some(opening) = self.timelines.opening(slot) else { return Ok(()) };
        let identity = |endpoints| Identity { trace_file: &self.name, source: &self.stem, opening, endpoints, time };
        let (flow, endpoints, written) = match connections.begin(&self.stem, opening, time) {
            Begun::New(endpoints) => {
                capture.add_names(&endpoints.names);
                let mut flow = Flow::new(self.settings.synth, &identity(&endpoints));
                let written = flow.open(time, &mut capture.interface(interface));
                (flow, endpoints, written)
            }
            Begun::Resumed(mut flow, endpoints) => {
                flow.resume(&identity(&endpoints));
                (*flow, endpoints, Ok(()))
            }
        };
        self.timelines.find_faults(slot, &endpoints.faults);
        if self.flows.len() <= slot {
            self.flows.resize_with(slot + 1, || None);
        }
        self.flows[slot] = Some((flow, endpoints));
        written
    }

    fn report(&mut self) {
        let mut findings = self.timelines.source_mut().take_findings();
        if self.was_interrupted() {
            // The user ended the stream, and not where a message ends, or what packs it.
            findings.retain(|finding| !matches!(finding.code, Code::CutOff | Code::ReadFailed));
        }
        findings.extend(self.summaries.take_findings());
        for finding in &findings {
            self.reporter.finding(self.timelines.source().path(), finding);
        }
    }

    /// Says what was converted, to those who asked for many words.
    pub(super) fn describe(&self) {
        if self.settings.verbosity == Verbosity::Verbose {
            let source = self.timelines.source();
            let (path, encoding) = (source.path().display(), source.encoding().name());
            let (connections, packets) = (self.timelines.connections(), self.packets);
            print_line("note", &format_args!("{path}: {encoding}, {connections} connections, {packets} packets"));
        }
    }

    /// Says what is to be said of the whole trace.
    pub(super) fn finish(&mut self) {
        self.report();
        let source = self.timelines.source();
        self.reporter.finish(source.path());
        self.reporter.unknown_fields(source.path(), source.unknown_fields());
    }
}
