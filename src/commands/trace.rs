//! One trace on its way into a capture.

use std::io;

use crate::{
    capture::Capture,
    input::{Advance, Input, InputError, Source},
    interrupt,
    report::{Progress, Reporter, Verbosity, print_line},
    synth::{self, Flow, Identity, TcpMode, TruncatedMode},
    timeline::{Endpoints, EntryKind, Summaries, Summary, Timelines, TimesFrom},
    trace::{Code, Nanos},
    words::count,
};

use super::{
    connections::{Begun, Connections, Over},
    cuts::Cuts,
    info::Hints,
    names::Name,
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

/// The connections of a capture: each with the interface of the trace that it was last seen in.
pub(super) type PacketConnections = Connections<(Box<Flow>, u32)>;

/// Writes the last packets of a connection.
fn close(over: Over<(Box<Flow>, u32)>, capture: &mut Capture) -> io::Result<()> {
    let Over { flow: (mut flow, interface), time, complete } = over;
    let sink = &mut capture.interface(interface);
    if complete { flow.close(time, sink) } else { flow.abandon(time, sink) }
}

/// Writes the last packets of the connections that are kept open.
pub(super) fn close_all(connections: &mut PacketConnections, capture: &mut Capture) -> io::Result<()> {
    connections.end_all(&mut |over| close(over, capture))
}

/// A trace, its flows and its place in the capture.
pub(super) struct Trace {
    timelines: Timelines,
    settings: Settings,
    name: Name,
    interface: Option<u32>,
    flows: Vec<Option<(Flow, Endpoints)>>,
    summaries: Summaries,
    /// Bytes that were counted as progress.
    counted: u64,
    packets: u64,
    /// It is converted as it arrives.
    live: bool,
    /// Findings wait: it may be opened again.
    hold: bool,
    pub reporter: Reporter,
    /// For people: how to look into what Wireshark would not dissect by itself.
    pub hints: Hints,
    /// What Envoy's limit cut.
    pub cuts: Cuts,
}

impl Trace {
    /// Opens a trace. An `eager` one never waits for what may come later.
    pub(super) fn open(input: &Input, name: &Name, settings: &Settings, eager: bool) -> Result<Self, InputError> {
        let source = Source::of(input, settings.input)?;
        Ok(Self::new(source, name.clone(), settings, eager, input.is_stdin()))
    }

    #[cfg(feature = "record")]
    /// A trace that is converted as it arrives, and whose source says where it ends.
    pub(super) fn live(source: Source, settings: &Settings) -> Self {
        let name = source.path().to_string_lossy().into_owned();
        Self::new(source, Name { shown: name.clone(), stem: name }, settings, true, true)
    }

    fn new(source: Source, name: Name, settings: &Settings, eager: bool, live: bool) -> Self {
        let mut options = settings.timeline;
        options.eager = eager;
        options.reread = (!live && source.path().is_file()).then_some(settings.input);
        let synth::Options { tcp, truncated, .. } = settings.synth;
        options.join = !eager && tcp == TcpMode::Full && truncated == TruncatedMode::Snap;
        Self {
            timelines: Timelines::new(source, options),
            settings: settings.clone(),
            name,
            interface: None,
            flows: Vec::new(),
            summaries: Summaries::default(),
            counted: 0,
            packets: 0,
            live,
            hold: false,
            reporter: Reporter::new(settings.verbosity, settings.strict),
            hints: Hints::default(),
            cuts: Cuts::default(),
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
            if !self.hold && (self.timelines.source().has_findings() || self.summaries.has_findings()) {
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
                    if !self.hold {
                        self.report();
                    }
                    self.count_progress(progress);
                    return Ok(None);
                }
            }
        }
    }

    /// As [`Trace::advance`] for the first entry, but what is to be told waits for the next call: the trace may be
    /// dropped before that.
    pub(super) fn begin(&mut self, capture: &mut Capture) -> Result<Option<Nanos>, Stop> {
        self.hold = true;
        let time = self.advance(capture, &Progress::hidden());
        self.hold = false;
        time
    }

    /// What [`Trace::begin`] has not told counts as progress.
    pub(super) fn keep(&self, progress: &Progress) {
        progress.bytes(self.counted);
    }

    /// Whether nothing in the trace says when its first connection began. Other traces may.
    pub(super) fn begins_anywhere(&self) -> bool {
        let opening = self.timelines.entry().and_then(|entry| self.timelines.opening(entry.slot));
        opening.is_some_and(|opening| {
            matches!(opening.times, TimesFrom::Neighbours | TimesFrom::Modified | TimesFrom::Nothing)
        })
    }

    fn count_progress(&mut self, progress: &Progress) {
        let read = self.timelines.source().bytes_read();
        progress.bytes(read - self.counted);
        self.counted = read;
    }

    /// Writes the packets of the current entry.
    #[inline(always)]
    pub(super) fn write(&mut self, connections: &mut PacketConnections, capture: &mut Capture) -> io::Result<()> {
        let before = capture.packets();
        let written = self.write_entry(connections, capture);
        self.packets += capture.packets() - before;
        written
    }

    #[inline(always)]
    fn write_entry(&mut self, connections: &mut PacketConnections, capture: &mut Capture) -> io::Result<()> {
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
        connections: &mut PacketConnections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        let Some(entry) = self.timelines.entry() else { return Ok(()) };
        let (slot, time) = (entry.slot, entry.time);
        let interface = *self.interface.get_or_insert_with(|| capture.add_interface(&self.name.shown));
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
                    self.cuts.connection(&summary);
                }
                let complete = !matches!(entry.kind, EntryKind::Abandoned);
                match (self.flows[slot].take(), self.timelines.opening(slot)) {
                    (Some((flow, endpoints)), Some(opening)) => {
                        let flow = (Box::new(flow), interface);
                        connections.end(flow, endpoints, opening, time, complete, &mut |over| close(over, capture))
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
        connections: &mut PacketConnections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        let Some(opening) = self.timelines.opening(slot) else { return Ok(()) };
        let Name { shown, stem } = &self.name;
        let identity = |endpoints| Identity { trace_file: shown, source: stem, opening, endpoints, time };
        let (flow, endpoints, written) =
            match connections.begin(stem, opening, time, &mut |over| close(over, capture))? {
                Begun::New(endpoints) => {
                    capture.add_names(&endpoints.names);
                    let mut flow = Flow::new(self.settings.synth, &identity(&endpoints));
                    let written = flow.open(time, &mut capture.interface(interface));
                    (flow, endpoints, written)
                }
                Begun::Resumed((mut flow, _), endpoints) => {
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
            let (connections, packets) =
                (count(self.timelines.connections(), "connection"), count(self.packets, "packet"));
            print_line("note", &format_args!("{path}: {encoding}, {connections}, {packets}"));
        }
    }

    /// Says what is to be said of the whole trace.
    pub(super) fn finish(&mut self) {
        self.report();
        let source = self.timelines.source();
        self.reporter.finish(source.path());
        // Of what holds no trace, the fields are nobody's.
        if self.timelines.connections() > 0 {
            self.reporter.unknown_fields(source.path(), source.unknown_fields());
        }
    }
}
