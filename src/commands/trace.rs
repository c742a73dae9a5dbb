//! Converts one trace into a capture.

#[cfg(feature = "live")]
use std::sync::Arc;
use std::{io, path::Path};

#[cfg(feature = "live")]
use crate::input::Arrivals;
use crate::{
    capture::{Captures, Lane},
    input::{Input, InputError, Source},
    redact::RedactStage,
    report::{Progress, Reporter, Verbosity, print_line},
    synth::{self, ExchangeStream, Flow, FlowIdentity, TcpMode, TruncatedMode},
    timeline::{
        ConnectionId, Data, Endpoints, EntryKind, Mappings, Opening, PerConnection, Summaries, Summary, Timelines,
        TimesFrom,
    },
    trace::{Finding, Findings, Nanos},
    words::count,
};

#[cfg(feature = "live")]
use super::live::Cut;
use super::{
    connections::{Begun, Connections, Over, SharedKey},
    cuts::Cuts,
    error::Error,
    hints::Hints,
    names::InputName,
    pump::{Attendant, Pump},
    select::Selection,
    settings::Settings,
};

/// The connections of a capture, each with its lane, whose interface is the trace that it was last seen in.
pub(super) type PacketConnections = Connections<(Box<Flow>, Lane)>;

/// Writes the last packets of a connection.
fn close(over: Over<(Box<Flow>, Lane)>, captures: &mut Captures) -> io::Result<()> {
    let Over { flow: (mut flow, lane), time, complete } = over;
    let sink = &mut captures.lane(lane);
    if complete {
        flow.close(time, sink)?
    } else {
        flow.abandon(time, sink)?
    }
    captures.end(lane)
}

/// Writes the last packets of the connections that are kept open.
pub(super) fn close_all(connections: &mut PacketConnections, captures: &mut Captures) -> Result<(), Error> {
    connections.end_all(&mut |over| close(over, captures)).map_err(|source| captures.error(source).into())
}

/// What writes one of the trace's connections.
#[expect(clippy::large_enum_variant, reason = "nearly all values are of the large variant, and each event uses it")]
enum ConnectionWriter {
    /// The flow of the whole connection.
    Own(Flow, Lane),
    /// The stream of one exchange, on a flow that other exchanges may share.
    Shared(SharedKey, ExchangeStream),
}

/// A trace, its flows and its place in the capture.
pub(super) struct Trace {
    pump: Pump<Timelines>,
    settings: Settings,
    name: InputName,
    /// The index of the input.
    input: usize,
    interface: Option<u32>,
    flows: PerConnection<(ConnectionWriter, Endpoints)>,
    /// The connections to convert, unless all are, and those of them that are open.
    selection: Option<(Selection, PerConnection<()>)>,
    /// How many connections were selected.
    pub selected: u64,
    summaries: Summaries,
    /// Findings about connections that ended. They are reported after those of the stages.
    summed: Findings,
    packets: u64,
    /// Takes secrets out.
    redact: Option<Box<RedactStage>>,
    pub reporter: Reporter,
    /// The first findings and how many to keep at most, for a program that wants them.
    kept: (Vec<Finding>, usize),
    /// What Wireshark must be told to dissect the trace's connections.
    pub hints: Hints,
    /// What Envoy's limit cut off.
    pub cuts: Cuts,
}

impl Trace {
    /// Opens a trace. An `eager` one never waits for the next event to write this one.
    pub(super) fn open(input: &Input, name: &InputName, settings: &Settings, eager: bool) -> Result<Self, InputError> {
        let selection = settings.selection(input)?.map(|selection| (selection, PerConnection::default()));
        let source = Source::of(input, settings.input)?;
        let new = Self::new(source, name.clone(), settings, eager, input.is_from_stdin());
        Ok(Self { selection, input: input.index, ..new })
    }

    /// A trace whose bytes arrive from a running Envoy.
    #[cfg(feature = "live")]
    pub(super) fn arriving(
        source: Source,
        name: InputName,
        settings: &Settings,
        arrivals: Arc<Arrivals>,
        cut: Arc<Cut>,
    ) -> Self {
        let mut trace = Self::new(source, name, settings, true, true);
        trace.pump.arriving(cut, |timelines| timelines.set_arrivals(arrivals));
        trace
    }

    /// A trace that is converted while it arrives, until its source ends.
    #[cfg(feature = "record")]
    pub(super) fn live(source: Source, settings: &Settings) -> Self {
        let name = source.path().to_string_lossy().into_owned();
        Self::new(source, InputName { shown: name.clone(), stem: name }, settings, true, true)
    }

    fn new(source: Source, name: InputName, settings: &Settings, eager: bool, live: bool) -> Self {
        let mut options = settings.timeline;
        options.eager = eager;
        options.reread = (source.is_member() || !live).then_some(settings.input);
        let synth::SynthOptions { tcp, truncated, .. } = settings.synth;
        // Joined events would become one for the stage that takes secrets out as well, but not its numbers.
        options.join =
            !eager && settings.redaction.is_none() && tcp == TcpMode::Full && truncated == TruncatedMode::Snap;
        Self {
            pump: Pump::new(Timelines::new(source, options), live),
            settings: settings.clone(),
            name: name.redacted(settings.redaction.as_deref()),
            input: 0,
            interface: None,
            flows: PerConnection::default(),
            selection: None,
            selected: 0,
            summaries: Summaries::default(),
            summed: Findings::default(),
            packets: 0,
            redact: settings.redaction.clone().map(|redaction| Box::new(RedactStage::new(redaction))),
            reporter: Reporter::new(settings.verbosity, settings.strict),
            kept: (Vec::new(), 0),
            hints: Hints::default(),
            cuts: Cuts::default(),
        }
    }

    /// Keeps findings from now on, but no more than `max`.
    pub(super) fn keep_findings(&mut self, max: usize) {
        self.kept.1 = max;
    }

    /// Takes the findings that were kept.
    pub(super) fn take_kept(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.kept.0)
    }

    pub(super) fn timelines(&self) -> &Timelines {
        self.pump.stage()
    }

    /// Whether there was something to convert.
    pub(super) fn has_connections(&self) -> bool {
        self.timelines().connections() > 0
    }

    /// Whether a capture has something of it.
    pub(super) fn is_written(&self) -> bool {
        self.has_connections() && (self.selection.is_none() || self.selected > 0)
    }

    /// Whether a signal ended standard input.
    pub(super) fn was_interrupted(&self) -> bool {
        self.pump.was_interrupted()
    }

    /// Whether something was wrong.
    pub(super) fn is_damaged(&self) -> bool {
        self.reporter.errors() > 0 || (self.settings.strict && self.reporter.warnings() > 0)
    }

    /// Advances to the next entry and returns its time, or `None` at the end. Before it waits for the input of a live
    /// stream, it flushes the capture.
    #[inline(always)]
    pub(super) fn advance(&mut self, captures: &mut Captures, progress: &Progress) -> Result<Option<Nanos>, Error> {
        let mut attendant = TraceAttendant {
            reporter: &mut self.reporter,
            kept: &mut self.kept,
            summed: &mut self.summed,
            captures: Some(captures),
        };
        loop {
            if !self.pump.next(progress, &mut attendant)? {
                return Ok(None);
            }
            let timelines = self.pump.stage();
            if match &mut self.selection {
                None => true,
                Some((selection, open)) => is_selected(timelines, selection, open, &mut self.selected),
            } {
                return Ok(timelines.time());
            }
        }
    }

    /// Like [`Trace::advance`], for the first entry, but it leaves the reports to the next call, because the trace may
    /// be dropped before that.
    pub(super) fn begin(&mut self, captures: &mut Captures) -> Result<Option<Nanos>, Error> {
        self.pump.hold = true;
        let time = self.advance(captures, &Progress::hidden());
        self.pump.hold = false;
        time
    }

    /// Counts the progress that [`Trace::begin`] has not reported.
    pub(super) fn keep(&self, progress: &Progress) {
        progress.bytes(self.pump.counted());
    }

    /// Whether the trace does not say when its first connection began. It may then begin with other traces.
    pub(super) fn begins_anywhere(&self) -> bool {
        let timelines = self.timelines();
        let opening = timelines.entry().and_then(|entry| timelines.opening(entry.connection));
        opening.is_some_and(|opening| {
            matches!(opening.times, TimesFrom::Neighbours | TimesFrom::Modified | TimesFrom::Nothing)
        })
    }

    /// The connection of the current entry is wanted.
    #[cfg(feature = "live")]
    pub(super) fn want(&mut self, connections: &mut PacketConnections, captures: &mut Captures) -> Result<(), Error> {
        let Some(entry) = self.pump.stage().entry() else { return Ok(()) };
        let lane = match self.flows.get_mut(entry.connection) {
            Some((ConnectionWriter::Own(_, lane), _)) => Some(*lane),
            Some((ConnectionWriter::Shared(key, _), _)) => {
                connections.shared(*key, entry.time).map(|((_, lane), _)| *lane)
            }
            None => None,
        };
        if let Some(lane) = lane
            && captures.want(lane).map_err(|source| captures.error(source))?
        {
            self.selected += 1;
        }
        Ok(())
    }

    /// Converts the whole trace into a capture of its own.
    pub(super) fn convert(
        &mut self,
        mappings: &Mappings,
        captures: &mut Captures,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut connections = PacketConnections::new(mappings.clone());
        while self.advance(captures, progress)?.is_some() {
            self.write(&mut connections, captures)?;
        }
        close_all(&mut connections, captures)?;
        // Now the packets that end the connections kept open count as well.
        self.packets = captures.packets();
        Ok(())
    }

    /// Writes the packets of the current entry.
    #[inline(always)]
    pub(super) fn write(&mut self, connections: &mut PacketConnections, captures: &mut Captures) -> Result<(), Error> {
        let before = captures.packets();
        let written = self.write_entry(connections, captures);
        self.packets += captures.packets() - before;
        written.map_err(|source| captures.error(source).into())
    }

    #[inline(always)]
    fn write_entry(&mut self, connections: &mut PacketConnections, captures: &mut Captures) -> io::Result<()> {
        let Some(entry) = self.pump.stage().entry() else { return Ok(()) };
        let summary = self.summaries.entry(self.pump.stage(), &entry, &mut self.summed);
        if self.redact.is_some() {
            return self.write_redacted(summary, connections, captures);
        }
        match (&entry.kind, self.flows.get_mut(entry.connection)) {
            (EntryKind::Data(data), Some((ConnectionWriter::Own(flow, lane), _))) => {
                flow.data(entry.time, data, &mut captures.lane(*lane))
            }
            _ => self.write_rare(summary, connections, captures),
        }
    }

    /// Writes the packets of what stands for the current entry.
    fn write_redacted(
        &mut self,
        summary: Option<Summary>,
        connections: &mut PacketConnections,
        captures: &mut Captures,
    ) -> io::Result<()> {
        let Some(mut redact) = self.redact.take() else { return Ok(()) };
        redact.entry(self.pump.stage());
        let mut written = Ok(());
        let mut summary = summary;
        for index in 0..redact.len() {
            let Some(entry) = self.pump.stage().entry().and_then(|entry| redact.written(index, entry)) else { break };
            written = match (entry.kind, self.flows.get_mut(entry.connection)) {
                (EntryKind::Data(data), Some((writer, _))) => {
                    let interface = *self.interface.get_or_insert_with(|| captures.add_interface(&self.name.shown));
                    write_data(writer, entry.time, &data, interface, connections, captures)
                }
                (EntryKind::Data(_), None) => Ok(()),
                _ => self.write_rare(summary.take(), connections, captures),
            };
            if written.is_err() {
                break;
            }
        }
        if let Some(redaction) = &self.settings.redaction {
            for (trace_id, counts) in redact.take_ended() {
                let path = self.pump.stage().source().path().display().to_string();
                redaction.report_connection(&path, trace_id, &counts);
            }
        }
        self.redact = Some(redact);
        written
    }

    /// Writes the packets of an entry that is not just more data on a flow of its own.
    fn write_rare(
        &mut self,
        summary: Option<Summary>,
        connections: &mut PacketConnections,
        captures: &mut Captures,
    ) -> io::Result<()> {
        let Some(entry) = self.pump.stage().entry() else { return Ok(()) };
        let (connection, time) = (entry.connection, entry.time);
        let interface = *self.interface.get_or_insert_with(|| captures.add_interface(&self.name.shown));
        let Some((writer, endpoints)) = self.flows.get_mut(connection) else {
            return self.open_flow(connection, time, interface, connections, captures);
        };
        match (entry.kind, writer) {
            (EntryKind::Opened, _) => Ok(()),
            (EntryKind::Data(data), writer) => write_data(writer, time, &data, interface, connections, captures),
            (EntryKind::Gap { direction, bytes, certain }, ConnectionWriter::Own(flow, lane)) => {
                flow.gap(time, direction, bytes, certain, &mut captures.lane(*lane))
            }
            (EntryKind::Gap { direction, bytes, certain }, ConnectionWriter::Shared(key, _)) => {
                match connections.shared(*key, time) {
                    Some(((flow, lane), at)) => {
                        *lane = lane.on(interface);
                        flow.gap(at, direction, bytes, certain, &mut captures.lane(*lane))
                    }
                    None => Ok(()),
                }
            }
            (EntryKind::Closed { .. } | EntryKind::Abandoned, _) => {
                if let Some(summary) = summary {
                    self.hints.add(&summary, endpoints, self.settings.synth.tcp);
                    self.cuts.connection(&summary);
                }
                let complete = !matches!(entry.kind, EntryKind::Abandoned);
                self.end_flow(connection, time, complete, interface, connections, captures)
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
        captures: &mut Captures,
    ) -> io::Result<()> {
        match (self.flows.take(connection), self.pump.stage().opening(connection)) {
            (Some((ConnectionWriter::Own(flow, lane), endpoints)), Some(opening)) => {
                let flow = (Box::new(flow), lane);
                connections.end(flow, endpoints, opening, time, complete, &mut |over| close(over, captures))
            }
            (Some((ConnectionWriter::Shared(key, _), _)), _) => {
                if let Some(((flow, lane), at)) = connections.shared(key, time) {
                    *lane = lane.on(interface);
                    // A connection stays open if the exchange is complete: other exchanges may follow on it.
                    if !complete {
                        flow.abandon(at, &mut captures.lane(*lane))?;
                    }
                }
                connections.end_shared(key, complete, &mut |over| close(over, captures))
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
        captures: &mut Captures,
    ) -> io::Result<()> {
        let Some(opening) = self.pump.stage().opening(connection) else { return Ok(()) };
        let InputName { shown, stem } = &self.name;
        let redacted = self.settings.redaction.as_deref().filter(|redaction| redaction.names);
        let pseudonym =
            redacted.map(|redaction| Opening { trace_id: redaction.trace_id(opening.trace_id), ..opening.clone() });
        let named = pseudonym.as_ref().unwrap_or(opening);
        let paired = match &self.settings.paired {
            Some(paired) => paired.connections(self.input, opening.trace_id, opening.place),
            None => &[],
        };
        let identity =
            |endpoints| FlowIdentity { trace_file: shown, source: stem, opening: named, endpoints, time, paired };
        let mut written = Ok(());
        let (writer, endpoints) = match connections.begin(stem, opening, time, &mut |over| close(over, captures))? {
            Begun::New(endpoints, key) => {
                let lane = captures.begin(interface, &endpoints.names)?;
                let mut flow = Flow::new(self.settings.synth, &identity(&endpoints));
                written = flow.open(time, &mut captures.lane(lane));
                let writer = match key {
                    Some(key) => {
                        let flow = (Box::new(flow), lane);
                        connections.share(key, flow, endpoints.clone(), opening.role, time);
                        ConnectionWriter::Shared(key, ExchangeStream::first())
                    }
                    None => ConnectionWriter::Own(flow, lane),
                };
                (writer, endpoints)
            }
            Begun::Resumed((mut flow, lane), endpoints) => {
                flow.resume(&identity(&endpoints));
                (ConnectionWriter::Own(*flow, lane.on(interface)), endpoints)
            }
            Begun::Joined(key, endpoints) => match connections.shared(key, time) {
                Some(((flow, _), _)) => {
                    (ConnectionWriter::Shared(key, ExchangeStream::joining(flow, &identity(&endpoints))), endpoints)
                }
                None => return Ok(()),
            },
        };
        let (timelines, findings) = self.pump.parts();
        timelines.report_faults(connection, &endpoints.faults, findings);
        self.flows.insert(connection, (writer, endpoints));
        written
    }

    /// With `--verbose`, says what was converted.
    pub(super) fn describe(&self) {
        if self.settings.verbosity == Verbosity::Verbose {
            let source = self.timelines().source();
            let (path, encoding) = (source.path().display(), super::encoding_and_layers(source));
            let (connections, packets) =
                (count(self.timelines().connections(), "connection"), count(self.packets, "packet"));
            print_line("note", &format_args!("{path}: {encoding}, {connections}, {packets}"));
        }
    }

    /// Reports what concerns the whole trace.
    pub(super) fn finish(&mut self) {
        self.pump.hand_on(&mut TraceAttendant {
            reporter: &mut self.reporter,
            kept: &mut self.kept,
            summed: &mut self.summed,
            captures: None,
        });
        let source = self.pump.stage().source();
        self.reporter.finish(source.path());
        // Unknown fields mean nothing if the source holds no trace.
        if self.has_connections() {
            self.reporter.unknown_fields(source.path(), source.unknown_fields());
        }
    }
}

/// Writes the packets of an event.
fn write_data(
    writer: &mut ConnectionWriter,
    time: Nanos,
    data: &Data<'_>,
    interface: u32,
    connections: &mut PacketConnections,
    captures: &mut Captures,
) -> io::Result<()> {
    match writer {
        ConnectionWriter::Own(flow, lane) => flow.data(time, data, &mut captures.lane(*lane)),
        ConnectionWriter::Shared(key, stream) => match connections.shared(*key, time) {
            Some(((flow, lane), at)) => {
                *lane = lane.on(interface);
                stream.data(flow, at, time, data, &mut captures.lane(*lane))
            }
            None => Ok(()),
        },
    }
}

/// Whether the current entry is of a connection that was selected.
pub(super) fn is_selected(
    timelines: &Timelines,
    selection: &Selection,
    open: &mut PerConnection<()>,
    count: &mut u64,
) -> bool {
    let Some(entry) = timelines.entry() else { return false };
    match entry.kind {
        EntryKind::Opened => {
            let is_selected = timelines.opening(entry.connection).is_some_and(|opening| selection.has(opening));
            if is_selected {
                open.insert(entry.connection, ());
                *count += 1;
            }
            is_selected
        }
        EntryKind::Closed { .. } | EntryKind::Abandoned => open.take(entry.connection).is_some(),
        EntryKind::Data(_) | EntryKind::Gap { .. } => open.get(entry.connection).is_some(),
    }
}

/// Reports what is found while a trace is converted.
struct TraceAttendant<'a> {
    reporter: &'a mut Reporter,
    kept: &'a mut (Vec<Finding>, usize),
    summed: &'a mut Findings,
    /// The capture to flush before a wait. At the end of the trace there is none.
    captures: Option<&'a mut Captures>,
}

impl Attendant for TraceAttendant<'_> {
    #[inline(always)]
    fn has_findings(&self) -> bool {
        !self.summed.is_empty()
    }

    fn findings(&mut self, path: &Path, findings: &[Finding]) {
        for finding in findings.iter().chain(&self.summed.take()) {
            self.reporter.finding(path, finding);
            if self.kept.0.len() < self.kept.1 {
                self.kept.0.push(finding.clone());
            }
        }
    }

    fn before_wait(&mut self) -> Result<(), Error> {
        Ok(self.captures.as_mut().map_or(Ok(()), |captures| captures.flush())?)
    }
}
