//! One trace on its way into a capture.

use std::io;

use crate::{
    capture::Capture,
    input::{Advance, Input, InputError, Source},
    interrupt,
    report::{Progress, Reporter, Verbosity, print_line},
    synth::{self, Flow, Identity, Stream, TcpMode, TruncatedMode},
    timeline::{ConnectionId, Endpoints, EntryKind, PerConnection, Summaries, Summary, Timelines, TimesFrom},
    trace::{Code, Findings, Nanos},
    words::count,
};

use super::{
    connections::{Begun, Connections, Over, SharedKey},
    cuts::Cuts,
    hints::Hints,
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

/// What is written of one of the trace's connections.
#[expect(clippy::large_enum_variant, reason = "the large one is nearly all of them, and each event looks into it")]
enum Writer {
    /// All of it.
    Own(Flow),
    /// One exchange of a connection that others may share.
    Shared(SharedKey, Stream),
}

/// A trace, its flows and its place in the capture.
pub(super) struct Trace {
    timelines: Timelines,
    settings: Settings,
    name: Name,
    interface: Option<u32>,
    flows: PerConnection<(Writer, Endpoints)>,
    summaries: Summaries,
    /// What the stages have found and nobody has told.
    findings: Findings,
    /// The same of what the connections came to, which is told after it.
    summed: Findings,
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
            flows: PerConnection::default(),
            summaries: Summaries::default(),
            findings: Findings::default(),
            summed: Findings::default(),
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
        let advance = self.timelines.advance(&mut self.findings);
        if advance == Advance::Message && self.findings.is_empty() && self.summed.is_empty() {
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
            if !self.hold && !(self.findings.is_empty() && self.summed.is_empty()) {
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
                    self.timelines.fill(&mut self.findings);
                    self.count_progress(progress);
                    advance = self.timelines.advance(&mut self.findings);
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
        let opening = self.timelines.entry().and_then(|entry| self.timelines.opening(entry.connection));
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
        let summary = self.summaries.entry(&self.timelines, &entry, &mut self.summed);
        match (&entry.kind, self.flows.get_mut(entry.connection), self.interface) {
            (EntryKind::Data(data), Some((Writer::Own(flow), _)), Some(interface)) => {
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
        let (connection, time) = (entry.connection, entry.time);
        let interface = *self.interface.get_or_insert_with(|| capture.add_interface(&self.name.shown));
        let Some((writer, endpoints)) = self.flows.get_mut(connection) else {
            return self.open_flow(connection, time, interface, connections, capture);
        };
        let sink = &mut capture.interface(interface);
        match (entry.kind, writer) {
            (EntryKind::Opened, _) => Ok(()),
            (EntryKind::Data(data), Writer::Own(flow)) => flow.data(time, &data, sink),
            (EntryKind::Data(data), Writer::Shared(key, stream)) => match connections.shared(*key, time) {
                Some(((flow, _), at)) => stream.data(flow, at, time, &data, sink),
                None => Ok(()),
            },
            (EntryKind::Gap { direction, bytes, certain }, Writer::Own(flow)) => {
                flow.gap(time, direction, bytes, certain, sink)
            }
            (EntryKind::Gap { direction, bytes, certain }, Writer::Shared(key, _)) => {
                match connections.shared(*key, time) {
                    Some(((flow, _), at)) => flow.gap(at, direction, bytes, certain, sink),
                    None => Ok(()),
                }
            }
            (EntryKind::Closed { .. } | EntryKind::Abandoned, _) => {
                if let Some(summary) = summary {
                    self.hints.add(&summary, endpoints, self.settings.synth.tcp);
                    self.cuts.connection(&summary);
                }
                let complete = !matches!(entry.kind, EntryKind::Abandoned);
                self.end_flow(connection, time, complete, interface, connections, capture)
            }
        }
    }

    fn end_flow(
        &mut self,
        connection: ConnectionId,
        time: Nanos,
        complete: bool,
        interface: u32,
        connections: &mut PacketConnections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        match (self.flows.take(connection), self.timelines.opening(connection)) {
            (Some((Writer::Own(flow), endpoints)), Some(opening)) => {
                let flow = (Box::new(flow), interface);
                connections.end(flow, endpoints, opening, time, complete, &mut |over| close(over, capture))
            }
            (Some((Writer::Shared(key, _), _)), _) => {
                if let Some(((flow, last_seen), at)) = connections.shared(key, time) {
                    *last_seen = interface;
                    // The connection may go on with other exchanges.
                    if !complete {
                        flow.abandon(at, &mut capture.interface(interface))?;
                    }
                }
                connections.end_shared(key, complete, &mut |over| close(over, capture))
            }
            _ => Ok(()),
        }
    }

    fn open_flow(
        &mut self,
        connection: ConnectionId,
        time: Nanos,
        interface: u32,
        connections: &mut PacketConnections,
        capture: &mut Capture,
    ) -> io::Result<()> {
        let Some(opening) = self.timelines.opening(connection) else { return Ok(()) };
        let Name { shown, stem } = &self.name;
        let identity = |endpoints| Identity { trace_file: shown, source: stem, opening, endpoints, time };
        let mut written = Ok(());
        let (writer, endpoints) = match connections.begin(stem, opening, time, &mut |over| close(over, capture))? {
            Begun::New(endpoints, key) => {
                capture.add_names(&endpoints.names);
                let mut flow = Flow::new(self.settings.synth, &identity(&endpoints));
                written = flow.open(time, &mut capture.interface(interface));
                let writer = match key {
                    Some(key) => {
                        let flow = (Box::new(flow), interface);
                        connections.share(key, flow, endpoints.clone(), opening.role, time);
                        Writer::Shared(key, Stream::first())
                    }
                    None => Writer::Own(flow),
                };
                (writer, endpoints)
            }
            Begun::Resumed((mut flow, _), endpoints) => {
                flow.resume(&identity(&endpoints));
                (Writer::Own(*flow), endpoints)
            }
            Begun::Joined(key, endpoints) => match connections.shared(key, time) {
                Some(((flow, _), _)) => (Writer::Shared(key, Stream::joining(flow, &identity(&endpoints))), endpoints),
                None => return Ok(()),
            },
        };
        self.timelines.find_faults(connection, &endpoints.faults, &mut self.findings);
        self.flows.insert(connection, (writer, endpoints));
        written
    }

    fn report(&mut self) {
        let mut findings = self.findings.take();
        if self.was_interrupted() {
            // The user ended the stream, and not where a message ends, or what packs it.
            findings.retain(|finding| !matches!(finding.code(), Code::CutOff | Code::ReadFailed));
        }
        findings.extend(self.summed.take());
        for finding in &findings {
            self.reporter.finding(self.timelines.source().path(), finding);
        }
    }

    /// The trace has a capture of its own, which is complete: the ends of connections that were kept open count as well.
    pub(super) fn count_all_packets(&mut self, capture: &Capture) {
        self.packets = capture.packets();
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
