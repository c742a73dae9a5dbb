//! Reads traces without writing captures: what `validate` and `info` share.

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
    input::{self, Discovered, Input, InputError, Source, discover},
    interrupt,
    report::Progress,
    timeline::{
        self, ConnectionId, Endpoints, Entry, EntryKind, Mappings, PerConnection, Summaries, Summary, Timelines,
    },
    trace::{Fact, Finding, Findings, Place},
};

/// What reading a trace yields, in order.
pub(super) enum Item<'a> {
    /// Something is wrong or remarkable.
    Finding(&'a Finding),
    /// A connection ended, within the trace or at its end. The endpoints are those that a capture would have.
    Connection(&'a Summary, &'a Endpoints, &'a Timelines),
    /// The source ended, after all of its connections, or those that were selected.
    End,
}

/// What the arguments stand for, and the errors of what cannot be read. If each input `is_read_twice`, pipes are copied.
pub(super) fn inputs(args: &InspectArgs, is_read_twice: bool) -> Result<(Discovered, Vec<InputError>), Error> {
    interrupt::install()?;
    let options = settings::input_options(&args.from, args.limits)?;
    let mut found = discover(&args.inputs, options);
    super::read_stdin_once(&found.inputs)?;
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

/// Reads one trace to its end and passes each item to `each`.
///
/// # Errors
/// The source cannot be opened or recognised, or holds nothing readable, or a signal came.
pub(super) fn read(
    input: &Input,
    input_options: input::SourceOptions,
    mut options: timeline::TimelineOptions,
    selector: Option<&Selector>,
    mut each: impl FnMut(Item<'_>),
) -> Result<(), Error> {
    options.reread = input.is_rereadable().then_some(input_options);
    let selection = match selector {
        Some(selector) => Some(Selection::of(input, input_options, options, selector)?),
        None => None,
    };
    let source = match (Source::of(input, input_options), interrupt::signal()) {
        (Ok(source), _) => source,
        (Err(_), Some(signal)) => return Err(Error::Signal(signal)),
        (Err(error), None) => return Err(error.into()),
    };
    let (mut open, mut selected) = (PerConnection::default(), 0);
    let mut connections = OpenConnections {
        connections: Connections::new(Mappings::default()),
        stem: input.stem(),
        ends: PerConnection::default(),
    };
    let mut pump = Pump::new(Timelines::new(source, options), false);
    let mut summaries = Summaries::default();
    let mut findings = Findings::default();
    let progress = Progress::hidden();
    while pump.next(&progress, &mut Each(&mut each))? {
        let timelines = pump.stage();
        let Some(entry) = timelines.entry() else { continue };
        if let Some(selection) = &selection
            && !is_selected(timelines, selection, &mut open, &mut selected)
        {
            continue;
        }
        if let EntryKind::Opened = entry.kind {
            connections.open(timelines, entry.connection, &mut findings);
        }
        let summary = summaries.entry(timelines, &entry, &mut findings);
        for finding in &findings.take() {
            each(Item::Finding(finding));
        }
        if let Some(summary) = summary
            && let Some(endpoints) = connections.close(timelines)
        {
            each(Item::Connection(&summary, &endpoints, timelines));
        }
    }
    let timelines = pump.stage();
    if timelines.connections() == 0 {
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
        unknown_field(Fact::UnknownField(field.clone()));
    }
    if others > 0 {
        unknown_field(Fact::UnknownFields { times: others });
    }
    each(Item::End);
    Ok(())
}

/// Passes findings to the closure that takes the other items.
struct Each<'a, F>(&'a mut F);

impl<F: FnMut(Item<'_>)> Attendant for Each<'_, F> {
    fn findings(&mut self, _: &Path, findings: &[Finding]) {
        findings.iter().for_each(|finding| (self.0)(Item::Finding(finding)));
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
