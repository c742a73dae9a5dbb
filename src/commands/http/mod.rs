//! `tap2pcap http`: the HTTP requests in traces, those of socket taps included.

pub(super) mod backlog;
pub(super) mod json;
pub(super) mod redactor;
pub(super) mod stats;
pub(super) mod table;

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write},
    path::Path,
    sync::Arc,
};

use self::{
    backlog::{Backlog, Line, Sorter},
    redactor::Redactor,
    stats::{Sample, Stats},
    table::Table,
};
use super::{
    Status,
    error::Error,
    inspect,
    pair::{self, PairOptions, Paired},
    pump::{Attendant, Pump},
    redaction::{self, ReportFile},
    select::Doubts,
    settings,
    turns::Turns,
};
use crate::{
    cli::{HttpArgs, SortField},
    http::{
        Attribute, Exchange, ExchangeRecord, HttpConnectionEnd, HttpItem, HttpStage, HttpStageOptions, Pairing, Value,
    },
    input::{Input, InputError, Source},
    interrupt::{self, Watched},
    pairing::ExchangeId,
    redact::Redaction,
    report::{Progress, ProgressMode, Reporter, print_error},
    timeline::{HttpTaps, Summaries, TimelineOptions, Timelines},
    trace::Finding,
};

pub(super) fn run(args: &HttpArgs) -> Result<Status, Error> {
    let redaction = redaction::redaction(&args.redact)?;
    let report = ReportFile::create(redaction.as_ref())?;
    let (found, unreadable) = inspect::inputs(&args.inspect, pairs(args), None)?;
    let (inputs, passed_over) = (&found.inputs, found.count_passed_over);
    redaction::expect(redaction.as_deref(), inputs, None)?;
    redaction::spare(&args.pair.access_log, redaction.as_deref(), None)?;
    unreadable.iter().for_each(|error| print_error(error));
    let paired = pairs(args).then(|| pair_inputs(args, inputs, redaction.is_some())).transpose()?;
    let verbosity = settings::verbosity(args.inspect.verbosity);
    // Lines that come while files are read would run through a bar on the same terminal.
    let hidden = !args.sorts() && io::stdout().is_terminal() && args.progress == ProgressMode::Auto;
    let when = if hidden { ProgressMode::Never } else { args.progress };
    let progress = Progress::new(when, verbosity, inputs.len(), || inputs.iter().map(Input::len).sum());
    let work = Work {
        args,
        inputs,
        done: Turns::new(Done {
            read: 0,
            damaged: !unreadable.is_empty(),
            passed_over,
            sorter: Sorter::new(args.top),
            stats: Stats::default(),
        }),
        progress: &progress,
        doubts: Doubts::default(),
        redaction,
        paired,
    };
    work.done.run(settings::jobs(args.jobs), inputs.len(), || work.run());
    progress.finish();
    let Work { done, doubts, .. } = work;
    let done = done.finish()?;
    let mut out = io::BufWriter::with_capacity(1 << 16, Watched(io::stdout().lock()));
    match args.inspect.json {
        json if args.stats => done.stats.write(&mut out, json, args.top)?,
        true => done.sorter.finish(|line| out.write_all(&line.text))?,
        false => {
            let mut table = Table::new(&mut out);
            done.sorter.finish(|line| table.row(&line.text))?;
            table.finish()?;
        }
    }
    out.flush()?;
    super::count_passed_over(done.passed_over, verbosity);
    doubts.report(verbosity);
    let status = match (done.read, done.damaged) {
        (0, _) => Status::NotDone,
        (_, true) => Status::Damaged,
        (_, false) => Status::Done,
    };
    if status != Status::NotDone {
        report.map_or(Ok(()), ReportFile::finish)?;
    }
    Ok(status)
}

/// Whether the exchanges are paired.
fn pairs(args: &HttpArgs) -> bool {
    let named = args.filter.as_ref().is_some_and(|filter| filter.needs_pairing());
    args.pair.is_on() || named || args.sort.is_some_and(|sort| sort.attribute.is_of_pair())
}

fn pair_inputs(args: &HttpArgs, inputs: &[Input], is_strict: bool) -> Result<Paired, Error> {
    let options = PairOptions {
        input: settings::input_options(&args.inspect.from, args.inspect.limits)?,
        timeline: TimelineOptions {
            role: settings::role(args.role),
            max_connections: Some(args.inspect.limits.max_connections),
            ..TimelineOptions::default()
        },
        is_strict,
        jobs: args.jobs,
        verbosity: settings::verbosity(args.inspect.verbosity),
    };
    pair::pair(inputs, &args.pair, options)
}

/// What only the end of a connection tells, by the second part of its name.
fn end_values(end: &HttpConnectionEnd) -> impl Iterator<Item = (&'static str, Value<'_>)> {
    let names = Attribute::ALL.iter().filter(|attribute| attribute.of_end).map(|attribute| attribute.parts().1);
    names.filter_map(|name| Some((name, end.value(name)?)))
}

/// A value as bytes that compare as the values do; an absent one is less than any other.
fn sortable(value: Option<&Value<'_>>) -> Vec<u8> {
    let number = |number: u64| [&[1], number.to_be_bytes().as_slice()].concat();
    match value {
        None | Some(Value::Map(_)) => vec![0],
        Some(Value::Number(value) | Value::Time(value) | Value::Duration(value)) => number(*value),
        Some(Value::Flag(flag)) => number(u64::from(*flag)),
        // A zero ends the text, so that what follows in a key does not change the order.
        Some(Value::Text(text) | Value::Bytes(text)) => [&[1], text.as_ref(), &[0]].concat(),
    }
}

/// What all workers share.
struct Work<'a> {
    args: &'a HttpArgs,
    inputs: &'a [Input],
    done: Turns<Done>,
    progress: &'a Progress,
    doubts: Doubts,
    redaction: Option<Arc<Redaction>>,
    /// Which exchanges belong together, if that is asked for.
    paired: Option<Paired>,
}

struct Done {
    read: usize,
    damaged: bool,
    passed_over: usize,
    sorter: Sorter,
    stats: Stats,
}

impl Work<'_> {
    /// Reads one input after another.
    fn run(&self) {
        let mut sorter = Sorter::new(self.args.top);
        let mut stats = Stats::default();
        while let Some((index, input)) = self.done.next(self.inputs) {
            let mut reader = Reader::new(self, index, input, &mut sorter, &mut stats);
            let result = reader.read().and_then(|()| reader.write_all());
            reader.redactor.iter_mut().for_each(Redactor::end_all);
            let damaged = reader.damaged();
            self.progress.file();
            match result {
                Ok(()) => self.done.with(|done| {
                    done.read += 1;
                    done.damaged |= damaged;
                }),
                Err(Error::Input(error)) if input.is_found && error.is_other_json() => {
                    self.done.with(|done| done.passed_over += 1);
                    super::passed_over(input.path(), &error, settings::verbosity(self.args.inspect.verbosity));
                }
                Err(Error::Input(error)) => {
                    self.done.with(|done| done.damaged = true);
                    print_error(&error);
                }
                Err(error) => self.done.fail(error),
            }
            if !self.args.sorts() {
                self.done.pass(index);
            }
        }
        let merged = self.done.with(|done| {
            done.stats.merge(stats);
            done.sorter.merge(sorter)
        });
        merged.unwrap_or_else(|error| self.done.fail(error.into()));
    }

    /// Writes bytes of an input to standard output. If it is not yet its turn, waits for it or, if it must not `wait`,
    /// writes nothing.
    fn write(&self, index: usize, wait: bool, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let written = self.done.at_turn(index, wait, |_| {
            let mut out = Watched(io::stdout().lock());
            out.write_all(bytes)?;
            Ok(out.flush()?)
        })?;
        if written {
            bytes.clear();
        }
        Ok(())
    }
}

/// How many bytes of lines wait before they are written.
const CHUNK: usize = 256 << 10;

/// Reads one input.
struct Reader<'a, 'w> {
    work: &'a Work<'w>,
    index: usize,
    input: &'a Input,
    sorter: &'a mut Sorter,
    stats: &'a mut Stats,
    reporter: Reporter,
    backlog: Backlog,
    /// Lines that are complete.
    out: Vec<u8>,
    /// How many exchanges were kept.
    exchanges: u64,
    /// The number of the next one.
    number: u32,
    redactor: Option<Redactor>,
}

impl<'a, 'w> Reader<'a, 'w> {
    fn new(work: &'a Work<'w>, index: usize, input: &'a Input, sorter: &'a mut Sorter, stats: &'a mut Stats) -> Self {
        let reporter = Reporter::new(settings::verbosity(work.args.inspect.verbosity), work.args.strict);
        let (backlog, out) = (Backlog::default(), Vec::new());
        let redactor = work.redaction.as_ref().map(|redaction| Redactor::new(redaction, input.path()));
        Self { work, index, input, sorter, stats, reporter, backlog, out, exchanges: 0, number: 0, redactor }
    }

    fn damaged(&self) -> bool {
        self.reporter.errors() > 0 || (self.work.args.strict && self.reporter.warnings() > 0)
    }

    fn read(&mut self) -> Result<(), Error> {
        let args = self.work.args;
        let input_options = settings::input_options(&args.inspect.from, args.inspect.limits)?;
        let source = match (Source::of(self.input, input_options), interrupt::signal()) {
            (Ok(source), _) => source,
            (Err(_), Some(signal)) => return Err(Error::Signal(signal)),
            (Err(error), None) => return Err(error.into()),
        };
        let options = TimelineOptions {
            role: settings::role(args.role),
            max_connections: Some(args.inspect.limits.max_connections),
            http_taps: HttpTaps::Unreplayed,
            reread: self.input.is_rereadable().then_some(input_options),
            ..TimelineOptions::default()
        };
        let mut stage = HttpStage::new(HttpStageOptions { max_body: args.max_body, ..HttpStageOptions::default() });
        if self.work.redaction.is_some() {
            stage.be_strict();
        }
        let mut pump = Pump::new(Timelines::new(source, options), self.input.is_stdin());
        let mut summaries = Summaries::default();
        let file = self.input.path().display().to_string();
        let progress = self.work.progress;
        loop {
            let more = pump.next(progress, &mut Report(&mut self.reporter))?;
            let (timelines, findings) = pump.parts();
            if more {
                if let Some(entry) = timelines.entry() {
                    summaries.entry(timelines, &entry, findings);
                }
                stage.begin_entry();
            } else {
                stage.end(findings);
            }
            while let Some(item) = stage.next_item(timelines, findings) {
                self.item(item, &file)?;
            }
            if !more {
                break;
            }
        }
        pump.hand_on(&mut Report(&mut self.reporter));
        let timelines = pump.stage();
        if timelines.connections() == 0 && timelines.unreplayed_messages() == 0 && !pump.was_interrupted() {
            return Err(InputError::NothingReadable { path: self.input.path().to_owned() }.into());
        }
        self.reporter.finish(self.input.path());
        self.reporter.unknown_fields(self.input.path(), timelines.source().unknown_fields());
        Ok(())
    }

    /// Takes what the stage gives out.
    fn item(&mut self, item: HttpItem, file: &str) -> Result<(), Error> {
        let args = self.work.args;
        match item {
            HttpItem::Exchange(mut exchange) => {
                let id = ExchangeId { input: self.index as u32, number: self.number };
                self.number += 1;
                let mut pairing = self.work.paired.as_ref().map(|paired| paired.pairs.of(id));
                let record = ExchangeRecord {
                    exchange: &exchange,
                    end: None,
                    pairing: pairing.as_ref(),
                    file,
                    max_body: args.max_body,
                };
                let mut kept = Vec::new();
                match &args.filter {
                    Some(filter) if filter.needs_end() => kept = filter.keep(record),
                    Some(filter) if !self.work.doubts.settle(filter.holds(record)) => return Ok(()),
                    _ => {}
                }
                let file = self.redact(&mut exchange, pairing.as_mut(), file);
                let record = ExchangeRecord {
                    exchange: &exchange,
                    end: None,
                    pairing: pairing.as_ref(),
                    file: &file,
                    max_body: args.max_body,
                };
                if args.stats {
                    let sample = Sample::of(record);
                    if args.filter.as_ref().is_none_or(|filter| !filter.needs_end()) {
                        self.stats.add(&sample);
                        return Ok(());
                    }
                    let line = Line { key: Vec::new(), text: sample.write(), kept };
                    self.backlog.push(exchange.connection.number, &line)?;
                    return Ok(());
                }
                let mut text = Vec::new();
                if args.inspect.json {
                    json::begin(&mut text, record);
                } else {
                    text = table::row(record);
                }
                let mut key = Vec::new();
                if self.work.args.sorts() {
                    key = match args.sort.unwrap_or_default().attribute {
                        attribute if attribute.of_end => Vec::new(),
                        attribute => sortable(attribute.of(record).as_ref()),
                    };
                }
                let line = Line { key, text, kept };
                let waits = args.inspect.json
                    || args.sort.is_some_and(|sort| sort.attribute.of_end)
                    || args.filter.as_ref().is_some_and(|filter| filter.needs_end());
                if !waits {
                    return self.line(line, None);
                }
                self.backlog.push(exchange.connection.number, &line)?;
                Ok(())
            }
            HttpItem::Request(_) => Ok(()),
            HttpItem::ConnectionEnd(end) => {
                let mut backlog = std::mem::take(&mut self.backlog);
                let result = backlog.take(end.connection.number, |line| self.line(line, Some(&end)));
                self.backlog = backlog;
                result?;
                if let Some(redactor) = &mut self.redactor {
                    redactor.end(&end);
                }
                if !self.work.args.sorts() && !self.out.is_empty() {
                    // What a live source has brought should be seen at once.
                    let wait = self.out.len() > CHUNK;
                    self.work.write(self.index, wait, &mut self.out)?;
                }
                Ok(())
            }
        }
    }

    /// Takes the secrets out of an exchange, if that is asked for, and returns what is shown of the trace's path.
    fn redact<'f>(&mut self, exchange: &mut Exchange, pairing: Option<&mut Pairing>, file: &'f str) -> Cow<'f, str> {
        let Some(redactor) = &mut self.redactor else { return Cow::Borrowed(file) };
        let args = self.work.args;
        let sorts_by_body = args.sort.is_some_and(|sort| sort.attribute.name.ends_with(".body"));
        if !args.inspect.json && !sorts_by_body && redactor.redaction.report.is_none() {
            // Nobody sees them.
            (exchange.request.body, exchange.response.body) = (Vec::new(), Vec::new());
        }
        redactor.exchange(exchange);
        pairing.into_iter().for_each(|pairing| redactor.pairing(pairing));
        Cow::Owned(redactor.file.clone())
    }

    /// Completes a line, and passes it on. The end of the connection is given if the line has waited for it.
    fn line(&mut self, mut line: Line, end: Option<&HttpConnectionEnd>) -> Result<(), Error> {
        if let (Some(filter), Some(end)) = (self.work.args.filter.as_ref().filter(|filter| filter.needs_end()), end)
            && !self.work.doubts.settle(filter.holds_for_kept(&std::mem::take(&mut line.kept), end))
        {
            return Ok(());
        }
        if self.work.args.stats {
            Sample::read(&line.text).iter().for_each(|sample| self.stats.add(sample));
            return Ok(());
        }
        if let (true, Some(end)) = (self.work.args.inspect.json, end) {
            json::end(&mut line.text, end);
        }
        if !self.work.args.sorts() {
            self.out.append(&mut line.text);
            if self.out.len() > CHUNK {
                self.work.write(self.index, true, &mut self.out)?;
            }
            return Ok(());
        }
        let SortField { attribute, reverse } = self.work.args.sort.unwrap_or_default();
        if let (true, Some(end)) = (attribute.of_end, end) {
            let (_, name) = attribute.parts();
            let value = end_values(end).find(|(other, _)| *other == name);
            line.key = sortable(value.as_ref().map(|(_, value)| value));
        }
        if reverse {
            line.key.iter_mut().for_each(|byte| *byte = !*byte);
        }
        // Lines with the same value keep their order.
        line.key.extend((self.index as u64).to_be_bytes());
        line.key.extend(self.exchanges.to_be_bytes());
        self.exchanges += 1;
        Ok(self.sorter.push(line)?)
    }

    /// Writes what is left, at this input's turn.
    fn write_all(&mut self) -> Result<(), Error> {
        let mut out = std::mem::take(&mut self.out);
        if out.is_empty() { Ok(()) } else { self.work.write(self.index, true, &mut out) }
    }
}

/// Reports what is found while a source is read.
struct Report<'a>(&'a mut Reporter);

impl Attendant for Report<'_> {
    fn findings(&mut self, path: &Path, findings: &[Finding]) {
        findings.iter().for_each(|finding| self.0.finding(path, finding));
    }
}
