//! `tap2pcap tables`: connections, requests and findings, of which each trace is read once.

mod requests;
mod sink;

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _},
    path::Path,
    sync::Arc,
};

use self::{
    requests::Requests,
    sink::{Lines, Sink, Table},
};
use super::{
    Status,
    error::Error,
    info::json::ConnectionLines,
    inspect::{self, Item, Reading},
    mirror::overwritten,
    redaction::{self, ReportFile},
    select::Doubts,
    settings,
    turns::Turns,
    validate,
};
use crate::{
    capture::{Destination, OutputOptions, OutputPacking, file_at},
    cli::TablesArgs,
    http::{HttpItem, HttpStage, HttpStageOptions},
    input::{Input, InputError},
    redact::Redaction,
    report::{self, Progress, ProgressMode, Reporter, print_error},
    timeline::TimelineOptions,
    trace::Finding,
};

/// How many bytes of an input's lines wait before they are written.
const CHUNK: usize = 256 << 10;

pub(super) fn run(args: &TablesArgs) -> Result<Status, Error> {
    let output = Destination::new(args.paths.last().map_or(Path::new("-"), |path| path));
    check(&output, args.zst)?;
    let redaction = redaction::redaction(&args.redact)?;
    let report = ReportFile::create(redaction.as_ref())?;
    let inspect = args.inspect();
    let (found, unreadable) = inspect::inputs(&inspect, false, args.stdin_name.as_deref())?;
    let (inputs, passed_over) = (&found.inputs, found.count_passed_over);
    let packing = if args.zst { OutputPacking::Zstd } else { OutputPacking::None };
    refuse_overwriting(&output, packing, inputs, redaction.as_deref())?;
    let verbosity = settings::verbosity(args.verbosity);
    // Lines that come while files are read would run through a bar on the same terminal.
    let hidden = output == Destination::Stdout && io::stdout().is_terminal() && args.progress == ProgressMode::Auto;
    let when = if hidden { ProgressMode::Never } else { args.progress };
    let sink = Sink::create(&output, OutputOptions { packing, force: args.force, ..OutputOptions::default() })?;
    let progress = Progress::new(when, verbosity, inputs.len(), || inputs.iter().map(Input::len).sum());
    let work = Work {
        args,
        inputs,
        tagged: output == Destination::Stdout,
        done: Turns::new(Done { sink, read: 0, damaged: !unreadable.is_empty(), passed_over }),
        progress: &progress,
        doubts: Doubts::default(),
        redaction,
    };
    work.refuse(&unreadable)?;
    work.done.run(settings::jobs(args.jobs), inputs.len(), || work.run());
    progress.finish();
    let Work { done, doubts, .. } = work;
    let Done { sink, read, damaged, passed_over } = done.finish()?;
    if read > 0 || output == Destination::Stdout {
        sink.finish()?;
    }
    super::count_passed_over(passed_over, verbosity);
    doubts.report(verbosity);
    if read == 0 {
        return Ok(Status::NotDone);
    }
    report.map_or(Ok(()), ReportFile::finish)?;
    Ok(if damaged { Status::Damaged } else { Status::Done })
}

/// Refuses what can be no output before anything is read.
fn check(output: &Destination, packs: bool) -> Result<(), Error> {
    if packs && !cfg!(feature = "zstd") {
        return Err(Error::Arguments("--zst: this build of tap2pcap lacks Zstandard".to_owned()));
    }
    match output.file() {
        Some(path) if path.exists() && !path.is_dir() => {
            Err(Error::Arguments(format!("{}: is not a directory; the tables are files in one", path.display())))
        }
        _ => Ok(()),
    }
}

/// Refuses to write a table over an input or the report.
fn refuse_overwriting(
    output: &Destination,
    packing: OutputPacking,
    inputs: &[Input],
    redaction: Option<&Redaction>,
) -> Result<(), Error> {
    let tables: Vec<_> = output
        .file()
        .into_iter()
        .flat_map(|directory| Table::ALL.map(|table| table.path(directory, packing)))
        .collect();
    redaction::expect(redaction, inputs, None)?;
    for table in &tables {
        redaction::expect(redaction, &[], Some(table))?;
    }
    let report = redaction.and_then(|redaction| redaction.report.as_ref()).map(|report| &report.path);
    let mut files = HashSet::new();
    for path in tables.iter().chain(report) {
        if file_at(path).is_some_and(|file| !files.insert(file)) {
            let path = path.display();
            return Err(Error::Arguments(format!("{path}: is a link to another output")));
        }
    }
    match overwritten(inputs, &tables, false) {
        Some(input) => Err(Error::Overwrite(input.path().to_owned())),
        None => Ok(()),
    }
}

/// What all workers share.
struct Work<'a> {
    args: &'a TablesArgs,
    inputs: &'a [Input],
    /// Whether all lines go to standard output.
    tagged: bool,
    done: Turns<Done>,
    progress: &'a Progress,
    doubts: Doubts,
    redaction: Option<Arc<Redaction>>,
}

struct Done {
    sink: Sink,
    read: usize,
    damaged: bool,
    passed_over: usize,
}

impl Work<'_> {
    /// Writes why inputs cannot be read, before all others.
    fn refuse(&self, unreadable: &[InputError]) -> Result<(), Error> {
        let mut lines = Lines::new(self.tagged);
        for error in unreadable {
            print_error(error);
            lines.push(Table::Findings, self.refusal(error).as_bytes());
        }
        self.done.with(|done| done.sink.write(&lines, false))
    }

    /// Why an input was not read, as a line.
    fn refusal(&self, error: &InputError) -> String {
        let line = |error: &InputError| {
            let path = error.path().display().to_string();
            validate::json_of_refusal(&path, error, &report::with_causes(error))
        };
        match &self.redaction {
            Some(redaction) => line(&redaction.refusal(error)),
            None => line(error),
        }
    }

    /// A finding as a line.
    fn finding(&self, path: &Path, finding: &Finding) -> String {
        let path = path.display().to_string();
        match &self.redaction {
            Some(redaction) => {
                validate::json_of(&redaction.file(&path), finding, &report::detail(&redaction.finding(finding)))
            }
            None => validate::json_of(&path, finding, &report::detail(finding)),
        }
    }

    /// Reads one input after another.
    fn run(&self) {
        self.done.each(self.inputs, |index, input| {
            let result = self.input(index, input);
            self.progress.file();
            result
        });
    }

    /// Reads one input, and writes its lines at its turn.
    fn input(&self, index: usize, input: &Input) -> Result<(), Error> {
        let mut reader = Reader::new(self, index, input);
        let result = reader.read();
        reader.requests.end_all();
        match result {
            Ok(()) => {
                let damaged = reader.damaged();
                self.done.with(|done| {
                    done.read += 1;
                    done.damaged |= damaged;
                });
            }
            Err(Error::Input(error)) if input.is_found && error.is_other_json() => {
                self.done.with(|done| done.passed_over += 1);
                super::passed_over(input.path(), &error, settings::verbosity(self.args.verbosity));
            }
            Err(Error::Input(error)) => {
                self.done.with(|done| done.damaged = true);
                print_error(&error);
                reader.out.push(Table::Findings, self.refusal(&error).as_bytes())?;
            }
            Err(error) => return Err(error),
        }
        reader.out.write(true)
    }
}

/// Reads one input.
struct Reader<'a, 'w> {
    work: &'a Work<'w>,
    input: &'a Input,
    reporter: Reporter,
    connections: ConnectionLines,
    requests: Requests<'a>,
    out: Out<'a, 'w>,
}

impl<'a, 'w> Reader<'a, 'w> {
    fn new(work: &'a Work<'w>, index: usize, input: &'a Input) -> Self {
        let Work { args, redaction, .. } = work;
        let mut connections = ConnectionLines::new(input, redaction.as_ref());
        if args.filter.is_some() {
            connections.select();
        }
        Self {
            work,
            input,
            reporter: Reporter::new(settings::verbosity(args.verbosity), args.strict),
            connections,
            requests: Requests::new(
                input.path(),
                args.filter.as_deref(),
                &work.doubts,
                args.max_body,
                redaction.as_ref(),
            ),
            out: Out { work, index, is_live: input.is_stdin(), lines: Lines::new(work.tagged) },
        }
    }

    fn damaged(&self) -> bool {
        self.reporter.errors() > 0 || (self.work.args.strict && self.reporter.warnings() > 0)
    }

    fn read(&mut self) -> Result<(), Error> {
        let Work { args, redaction, progress, .. } = self.work;
        let options =
            HttpStageOptions { max_body: args.max_body, all_connections: true, ..HttpStageOptions::default() };
        let mut http = HttpStage::new(options);
        if redaction.is_some() {
            http.be_strict();
        }
        let reading = Reading {
            input: settings::input_options(&args.from, args.limits)?,
            timeline: TimelineOptions {
                role: settings::role(args.role),
                max_connections: Some(args.limits.max_connections),
                ..TimelineOptions::default()
            },
            http: Some(http),
            mappings: settings::mappings(Vec::new(), redaction.as_ref()),
            live: self.input.is_stdin(),
            progress: Some(progress),
            ..Reading::default()
        };
        inspect::read(self.input, reading, |item| self.item(item))?;
        self.reporter.finish(self.input.path());
        Ok(())
    }

    fn item(&mut self, item: Item<'_>) -> Result<(), Error> {
        let Self { work, input, reporter, connections, requests, out, .. } = self;
        match item {
            Item::Finding(finding) => {
                reporter.finding(input.path(), finding);
                out.push(Table::Findings, work.finding(input.path(), finding).as_bytes())
            }
            Item::HttpFinding(finding) => {
                reporter.finding(input.path(), finding);
                Ok(())
            }
            Item::Http(HttpItem::Exchange(exchange)) => {
                let connection = Arc::clone(&exchange.connection);
                if requests.exchange(exchange)? {
                    connections.keep(&connection);
                }
                Ok(())
            }
            Item::Http(HttpItem::ConnectionEnd(end)) => {
                if requests.end(&end, |line| out.push(Table::Requests, line))? {
                    connections.keep(&end.connection);
                }
                connections.end(end, |line| out.push(Table::Connections, line))
            }
            Item::Http(HttpItem::Request(_)) => Ok(()),
            Item::Connection(summary, endpoints, timelines) => {
                let line = connections.connection(summary, endpoints, timelines)?;
                if !line.is_empty() {
                    out.push(Table::Connections, &line)?;
                }
                // What a live source has brought should be seen at once.
                if out.is_live { out.write(false) } else { Ok(()) }
            }
            Item::End => connections.rest(|line| out.push(Table::Connections, line)),
        }
    }
}

/// The lines of an input that are complete.
struct Out<'a, 'w> {
    work: &'a Work<'w>,
    index: usize,
    /// Whether somebody waits for what its source has brought.
    is_live: bool,
    lines: Lines,
}

impl Out<'_, '_> {
    /// Adds a line. If there are many, writes them first, at this input's turn.
    fn push(&mut self, table: Table, line: &[u8]) -> Result<(), Error> {
        if self.lines.len() > CHUNK {
            self.write(true)?;
        }
        self.lines.push(table, line);
        Ok(())
    }

    /// Writes the lines at this input's turn, for which it may `wait`.
    fn write(&mut self, wait: bool) -> Result<(), Error> {
        let Self { work, index, is_live, lines } = self;
        if work.done.at_turn(*index, wait, |done| done.sink.write(lines, *is_live))? {
            lines.clear();
        }
        Ok(())
    }
}
