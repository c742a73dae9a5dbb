//! Reads traces without writing captures: what `validate`, `info` and `tables` share.

use std::path::Path;

use super::{
    connections::{Begun, Connections, SharedKey},
    error::Error,
    pump::{Attendant, Pump},
    select::{Selection, Selector},
    settings,
    trace::is_selected,
};
use crate::{
    cli::InspectArgs,
    http::{HttpItem, HttpStage},
    input::{self, Discovered, Input, InputError, Source, discover},
    interrupt,
    report::Progress,
    timeline::{
        self, ConnectionId, Endpoints, Entry, EntryKind, HttpTaps, Mappings, PerConnection, Summaries, Summary,
        Timelines,
    },
    trace::{Fact, Finding, Findings, Place},
};

/// What reading a trace yields, in order.
pub(super) enum Item<'a> {
    /// Something is wrong or remarkable.
    Finding(&'a Finding),
    /// Something is remarkable about the HTTP of a connection. Only with [`Reading::http`].
    HttpFinding(&'a Finding),
    /// An exchange or a connection with HTTP is over. Only with [`Reading::http`]. Those of a connection of a socket come
    /// before the connection itself.
    Http(HttpItem),
    /// A connection ended, within the trace or at its end. The endpoints are those that a capture would have.
    Connection(&'a Summary, &'a Endpoints, &'a Timelines),
    /// The source ended, after all of its connections, or those that were selected.
    End,
}

/// What the arguments stand for, and the errors of what cannot be read. If each input `is_read_twice`, pipes are copied.
/// Standard input is called `-`, unless it has a name.
pub(super) fn inputs(
    args: &InspectArgs,
    is_read_twice: bool,
    stdin_name: Option<&Path>,
) -> Result<(Discovered, Vec<InputError>), Error> {
    interrupt::install()?;
    let options = settings::input_options(&args.from, args.limits)?;
    let mut found = discover(&args.inputs, options);
    super::read_stdin_once(&found.inputs)?;
    stdin_name.into_iter().for_each(|name| found.name_stdin(name));
    if is_read_twice {
        found.copy_pipes()?;
    }
    found.look_into_pipe(options);
    let errors = found.unreadable.iter().map(input::Unreadable::as_input_error).collect();
    for error in &found.passed_over {
        super::passed_over(error.path(), error, settings::verbosity(args.verbosity));
    }
    if found.inputs.is_empty() && found.unreadable.is_empty() && interrupt::signal().is_none() {
        return Err(super::no_traces(&args.inputs, found.count_passed_over));
    }
    Ok((found, errors))
}

/// How a trace is read.
#[derive(Debug, Default)]
pub(super) struct Reading<'a> {
    pub input: input::SourceOptions,
    pub timeline: timeline::TimelineOptions,
    /// Leaves out connections without a match, for which it reads the trace twice.
    pub selector: Option<&'a Selector>,
    /// Reads the HTTP of connections as well.
    pub http: Option<HttpStage>,
    /// Rewrites addresses.
    pub mappings: Mappings,
    /// Whether a signal ends only the trace.
    pub live: bool,
    /// Shows how far it has come.
    pub progress: Option<&'a Progress>,
}

/// Reads one trace to its end and passes each item to `each`.
///
/// # Errors
/// The source cannot be opened or recognised, or holds nothing readable, or a signal came, or `each` has failed.
pub(super) fn read(
    input: &Input,
    reading: Reading<'_>,
    mut each: impl FnMut(Item<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let Reading { input: input_options, timeline: mut options, selector, http, mappings, live, progress } = reading;
    options.reread = input.is_rereadable().then_some(input_options);
    if http.is_some() {
        options.http_taps = HttpTaps::Both;
    }
    let selection = match selector {
        Some(selector) => Some(Selection::of(input, input_options, options, selector)?),
        None => None,
    };
    let source = match (Source::of(input, input_options), interrupt::signal()) {
        (Ok(source), _) => source,
        (Err(_), Some(signal)) => return Err(Error::Signal(signal)),
        (Err(error), None) => return Err(error.into()),
    };
    let mut http = Http { stage: http, findings: Findings::default(), selection: selection.as_ref() };
    let (mut open, mut selected) = (PerConnection::default(), 0);
    let mut connections =
        OpenConnections { connections: Connections::new(mappings), stem: input.stem(), ends: PerConnection::default() };
    let mut pump = Pump::new(Timelines::new(source, options), live);
    let mut summaries = Summaries::default();
    let mut findings = Findings::default();
    let hidden = Progress::hidden();
    let progress = progress.unwrap_or(&hidden);
    loop {
        let mut attendant = Each { each: &mut each, failed: Ok(()) };
        let more = pump.next(progress, &mut attendant)?;
        attendant.failed?;
        if !more {
            break;
        }
        let timelines = pump.stage();
        let Some(entry) = timelines.entry() else {
            http.read(timelines, false, &mut each)?;
            continue;
        };
        if let Some(selection) = &selection
            && !is_selected(timelines, selection, &mut open, &mut selected)
        {
            continue;
        }
        if let EntryKind::Opened = entry.kind {
            connections.open(timelines, entry.connection, &mut findings);
        }
        let summary = summaries.entry(timelines, &entry, &mut findings);
        if !findings.is_empty() {
            findings.take().iter().try_for_each(|finding| each(Item::Finding(finding)))?;
        }
        http.read(timelines, false, &mut each)?;
        if let Some(summary) = summary
            && let Some(endpoints) = connections.close(timelines)
        {
            each(Item::Connection(&summary, &endpoints, timelines))?;
        }
    }
    http.read(pump.stage(), true, &mut each)?;
    let timelines = pump.stage();
    if timelines.connections() == 0 && !pump.was_interrupted() {
        // The same error as a conversion's, which writes nothing then. Unknown fields mean nothing if there is no
        // trace.
        return Err(InputError::NothingReadable { path: input.path().to_owned() }.into());
    }
    let unknown = timelines.source().unknown_fields();
    let mut others = unknown.total();
    // They have no place of their own, because they are counted over the whole source.
    let mut unknown_field = |fact| each(Item::Finding(&Finding::new(Place::default(), fact)));
    for field in unknown.fields() {
        others -= field.count;
        unknown_field(Fact::UnknownField(field.clone()))?;
    }
    if others > 0 {
        unknown_field(Fact::UnknownFields { times: others })?;
    }
    each(Item::End)
}

/// Reads HTTP, if that is wanted.
struct Http<'a> {
    stage: Option<HttpStage>,
    findings: Findings,
    /// What is left out if it is not in it.
    selection: Option<&'a Selection>,
}

impl Http<'_> {
    /// Reads the HTTP of what the timelines have come to, or what ends with the source.
    fn read(
        &mut self,
        timelines: &Timelines,
        is_end: bool,
        each: &mut impl FnMut(Item<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { stage: Some(stage), findings, selection } = self else { return Ok(()) };
        if is_end {
            stage.end(findings);
        } else {
            stage.begin_entry();
        }
        while let Some(item) = stage.next_item(timelines, findings) {
            if selection.is_none_or(|selection| may_be_selected(selection, &item)) {
                each(Item::Http(item))?;
            }
        }
        if findings.is_empty() {
            return Ok(());
        }
        findings.take().iter().try_for_each(|finding| each(Item::HttpFinding(finding)))
    }
}

/// Whether it is not the end of an exchange of an HTTP tap that is left out. The stage has no others that are.
fn may_be_selected(selection: &Selection, item: &HttpItem) -> bool {
    match item {
        HttpItem::ConnectionEnd(end) if end.connection.http_tap => {
            selection.has_tap(end.connection.trace_id, end.connection.place)
        }
        _ => true,
    }
}

/// Passes findings to the closure that takes the other items.
struct Each<'a, F> {
    each: &'a mut F,
    failed: Result<(), Error>,
}

impl<F: FnMut(Item<'_>) -> Result<(), Error>> Attendant for Each<'_, F> {
    fn findings(&mut self, _: &Path, findings: &[Finding]) {
        if self.failed.is_ok() {
            self.failed = findings.iter().try_for_each(|finding| (self.each)(Item::Finding(finding)));
        }
    }
}

/// The endpoints of open connections, as a conversion keeps them: two connections that are open at once never have the
/// same.
struct OpenConnections {
    connections: Connections<()>,
    stem: String,
    /// The endpoints of each connection, and the key of one that several exchanges share.
    ends: PerConnection<(Endpoints, Option<SharedKey>)>,
}

impl OpenConnections {
    /// Takes a connection that has just been opened. Faults of its addresses become findings.
    fn open(&mut self, timelines: &Timelines, connection: ConnectionId, findings: &mut Findings) {
        let (Some(opening), Some(time)) = (timelines.opening(connection), timelines.time()) else { return };
        // This cannot fail, because nothing is written.
        let begun = self.connections.begin(&self.stem, opening, time, &mut |_| Ok(()));
        let (endpoints, key) = match begun {
            Ok(Begun::New(endpoints, key)) => {
                if let Some(key) = key {
                    self.connections.share(key, (), endpoints.clone(), opening.role, time);
                }
                (endpoints, key)
            }
            Ok(Begun::Resumed((), endpoints)) => (endpoints, None),
            Ok(Begun::Joined(key, endpoints)) => (endpoints, Some(key)),
            Err(_) => return,
        };
        timelines.report_faults(connection, &endpoints.faults, findings);
        self.ends.insert(connection, (endpoints, key));
    }

    /// Ends a connection: the current entry is its last one.
    fn close(&mut self, timelines: &Timelines) -> Option<Endpoints> {
        let Entry { connection, time, kind } = timelines.entry()?;
        let ((endpoints, key), opening) = (self.ends.take(connection)?, timelines.opening(connection)?);
        let complete = !matches!(kind, EntryKind::Abandoned);
        // This cannot fail, because nothing is written.
        let _ = match key {
            Some(key) => {
                let _ = self.connections.shared(key, time);
                self.connections.end_shared(key, complete, &mut |_| Ok(()))
            }
            None => self.connections.end((), endpoints.clone(), opening, time, complete, &mut |_| Ok(())),
        };
        Some(endpoints)
    }
}
