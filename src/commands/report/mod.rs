//! `tap2pcap report`: a page that shows what happened. Each trace is read twice: to pair both sides, and for the page.

mod attempts;
mod collect;
mod detail;
mod origin;
mod selected;
mod sides;

use std::{
    collections::HashMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{
    attempts::Traces,
    collect::{Collected, ConnectionRow, Row},
    origin::{Evidence, origin},
    selected::Selected,
    sides::Sides,
};
use super::{
    Status,
    error::Error,
    http::{redactor::Redactor, stats::Sample},
    info::{quoted, quoted_word},
    inspect::{self, Item, Reading},
    mirror::overwritten,
    pair::{self, PairOptions, Paired},
    redaction::{self, ReportFile},
    settings,
    turns::Turns,
};
use crate::{
    access_log::LogEntry,
    capture::{Destination, Output, OutputOptions, PacketBuffer},
    cli::ReportArgs,
    http::{Exchange, ExchangeRecord, HttpConnection, HttpItem, HttpStage, HttpStageOptions, MAX_BODY},
    input::{Input, InputError},
    page::{self, Origin, Page, Side},
    redact::{Counts, Redaction},
    report::{self, Progress, Reporter, print_error},
    timeline::{Role, Summary, TimelineOptions},
    trace::{Finding, Nanos, Place, Severity},
    words::count,
};

/// How many bytes are written at once.
const CHUNK: usize = 256 << 10;

/// The longest texts of a row.
const MAX_PATH: usize = 1000;
const MAX_NAME: usize = 256;

pub(super) fn run(args: &ReportArgs) -> Result<Status, Error> {
    let output = Destination::new(args.paths.last().map_or(Path::new("-"), |path| path));
    check(&output)?;
    let redaction = redaction::redaction(&args.redact)?;
    let redaction_report = ReportFile::create(redaction.as_ref())?;
    let (found, unreadable) = inspect::inputs(&args.inspect(), true, None)?;
    let (inputs, passed_over) = (&found.inputs, found.count_passed_over);
    refuse_overwriting(&output, args, inputs, redaction.as_deref())?;
    let verbosity = settings::verbosity(args.verbosity);
    let file = Output::create(&output, OutputOptions { force: args.force, ..OutputOptions::default() })?;
    let Paired { pairs, log } = pair_inputs(args, inputs, redaction.is_some())?;
    let sides = Sides::new(pairs);
    let selected = Selected::of(args, inputs, &sides, verbosity)?;
    let progress = Progress::new(args.progress, verbosity, inputs.len(), || inputs.iter().map(Input::len).sum());
    let work = Work {
        args,
        inputs,
        log,
        sides,
        selected,
        done: Turns::new(Done { all: Collected::default(), read: 0, damaged: !unreadable.is_empty(), passed_over }),
        progress: &progress,
        redaction,
    };
    for error in &unreadable {
        print_error(error);
        work.done.with(|done| done.all.merge(work.refused(inputs.len(), error)));
    }
    work.done.run(settings::jobs(args.jobs), inputs.len(), || work.run());
    progress.finish();
    let Work { done, redaction, .. } = work;
    let Done { all, read, damaged, passed_over } = done.finish()?;
    super::count_passed_over(passed_over, verbosity);
    if read == 0 {
        return Ok(Status::NotDone);
    }
    let (mut page, attempts) = all.into_page();
    attempts::add(&mut page, &attempts, Traces { args, inputs, redaction: redaction.as_ref() })?;
    write(file, &complete(page, args, inputs, redaction.as_deref()))?;
    redaction_report.map_or(Ok(()), ReportFile::finish)?;
    Ok(if damaged { Status::Damaged } else { Status::Done })
}

/// Refuses what can be no output before anything is read.
fn check(output: &Destination) -> Result<(), Error> {
    let Some(path) = output.file() else { return Ok(()) };
    let suffix = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    if output.is_directory() {
        return Err(Error::Arguments(format!("{}: is a directory; the page is a file", path.display())));
    }
    if !output.is_stream() && !["html", "htm"].iter().any(|known| suffix.eq_ignore_ascii_case(known)) {
        return Err(Error::Arguments(format!("{}: the name of a page ends in .html or .htm", path.display())));
    }
    Ok(())
}

/// Refuses to write the page over an input, an access log or the report of what was taken out.
fn refuse_overwriting(
    output: &Destination,
    args: &ReportArgs,
    inputs: &[Input],
    redaction: Option<&Redaction>,
) -> Result<(), Error> {
    redaction::expect(redaction, inputs, output.file())?;
    redaction::spare(&args.access_log, redaction, output.file())?;
    let Some(path) = output.file() else { return Ok(()) };
    if let Some(input) = overwritten(inputs, &[path.to_owned()], false) {
        return Err(Error::Overwrite(input.path().to_owned()));
    }
    Ok(())
}

fn pair_inputs(args: &ReportArgs, inputs: &[Input], is_strict: bool) -> Result<Paired, Error> {
    let options = PairOptions {
        input: settings::input_options(&args.from, args.limits)?,
        timeline: timeline_options(args),
        is_strict,
        jobs: args.jobs,
        verbosity: settings::verbosity(args.verbosity),
    };
    pair::pair(inputs, &args.pair(), options)
}

/// How each input is read, so that its exchanges have the same numbers each time.
fn reading<'a>(args: &ReportArgs, redaction: Option<&Arc<Redaction>>) -> Result<Reading<'a>, Error> {
    let mut http = HttpStage::new(HttpStageOptions { all_connections: true, ..HttpStageOptions::default() });
    if redaction.is_some() {
        http.be_strict();
    }
    Ok(Reading {
        input: settings::input_options(&args.from, args.limits)?,
        timeline: timeline_options(args),
        http: Some(http),
        mappings: settings::mappings(Vec::new(), redaction),
        ..Reading::default()
    })
}

fn timeline_options(args: &ReportArgs) -> TimelineOptions {
    TimelineOptions {
        role: settings::role(args.role),
        max_connections: Some(args.limits.max_connections),
        ..TimelineOptions::default()
    }
}

/// Adds what the arguments say.
fn complete(page: Page, args: &ReportArgs, inputs: &[Input], redaction: Option<&Redaction>) -> Page {
    let shown = |path: String| redaction.map_or(path.clone(), |redaction| redaction.file(&path).into_owned());
    let files: Vec<String> = inputs.iter().map(|input| shown(input.path().display().to_string())).collect();
    let title = match &files[..] {
        [file] => Path::new(file).file_name().map_or(file.clone(), |name| name.to_string_lossy().into_owned()),
        files => count(files.len() as u64, "trace"),
    };
    let filter = args.filter.as_ref().map(|filter| filter.text());
    let mut list_command = "tap2pcap http".to_owned();
    if let Some(filter) = filter.filter(|_| redaction.is_none()) {
        list_command.push_str(&format!(" --where {}", quoted_word(OsStr::new(filter))));
    }
    let paths = args.paths.split_last().map_or(&[][..], |(_, inputs)| inputs);
    for path in paths {
        let path = redaction.map_or_else(|| path.clone(), |_| PathBuf::from(shown(path.display().to_string())));
        list_command.push_str(&format!(" {}", quoted(&path)));
    }
    Page {
        title,
        version: format!("tap2pcap {}", env!("CARGO_PKG_VERSION")),
        // It may quote what is secret.
        filter: filter.map(|filter| redaction.map_or_else(|| filter.to_owned(), |_| "not shown".to_owned())),
        redacted: redaction.map(redacted),
        files,
        list_command,
        ..page
    }
}

/// What was taken out, as a sentence.
fn redacted(redaction: &Redaction) -> String {
    let mut words = if redaction.bodies { "Secrets and all bodies" } else { "Secrets" }.to_owned();
    words.push_str(" were taken out");
    if redaction.addresses.is_some() {
        words.push_str(if redaction.names {
            "; addresses and names were replaced"
        } else {
            "; addresses were replaced"
        });
    }
    words
}

fn write(mut output: Output, page: &Page) -> Result<(), Error> {
    let mut html = Vec::new();
    page::write(page, &mut html)?;
    let mut buffer = PacketBuffer::default();
    for chunk in html.chunks(CHUNK) {
        buffer.append(chunk);
        output.write(&mut buffer)?;
    }
    Ok(output.finish(&buffer)?)
}

/// What all workers share.
struct Work<'a> {
    args: &'a ReportArgs,
    inputs: &'a [Input],
    /// The lines of the access logs.
    log: Vec<LogEntry>,
    sides: Sides,
    /// What `--where` selects.
    selected: Option<Selected>,
    done: Turns<Done>,
    progress: &'a Progress,
    redaction: Option<Arc<Redaction>>,
}

struct Done {
    all: Collected,
    read: usize,
    damaged: bool,
    passed_over: usize,
}

impl Work<'_> {
    /// Why an input was not read.
    fn refused(&self, index: usize, error: &InputError) -> Collected {
        let redacted = self.redaction.as_ref().map(|redaction| redaction.refusal(error));
        let error = redacted.as_ref().unwrap_or(error);
        let finding = page::Finding {
            severity: Severity::Error,
            code: error.code().to_owned(),
            file: error.path().display().to_string(),
            place: String::new(),
            text: report::with_causes(error),
            count: 1,
        };
        let mut collected = Collected::default();
        collected.input(true);
        collected.finding(index, None, finding);
        collected
    }

    /// Reads one input after another.
    fn run(&self) {
        self.done.each(self.inputs, |index, input| {
            let result = self.input(index, input);
            self.progress.file();
            result
        });
    }

    /// Reads one input, and adds what it tells at its turn.
    fn input(&self, index: usize, input: &Input) -> Result<(), Error> {
        let mut reader = Reader::new(self, index, input);
        let result = reader.read();
        if let Some(redactor) = &mut reader.redactor {
            redactor.end_all();
        }
        let damaged = reader.damaged();
        let mut collected = reader.collected;
        match result {
            Ok(()) => {
                collected.input(damaged);
                self.done.with(|done| {
                    done.read += 1;
                    done.damaged |= damaged;
                });
            }
            Err(Error::Input(error)) if input.is_found && error.is_other_json() => {
                self.done.with(|done| done.passed_over += 1);
                super::passed_over(input.path(), &error, settings::verbosity(self.args.verbosity));
                return Ok(());
            }
            Err(Error::Input(error)) => {
                self.done.with(|done| done.damaged = true);
                print_error(&error);
                collected.merge(self.refused(index, &error));
            }
            Err(error) => return Err(error),
        }
        self.done.at_turn(index, true, |done| {
            done.all.merge(collected);
            Ok(())
        })?;
        Ok(())
    }
}

/// Reads one input.
struct Reader<'a, 'w> {
    work: &'a Work<'w>,
    index: usize,
    input: &'a Input,
    file: String,
    reporter: Reporter,
    redactor: Option<Redactor>,
    collected: Collected,
    /// How many exchanges there were.
    number: u64,
    /// How many requests each open connection had.
    requests: HashMap<(u64, Place), u64>,
    /// What the end of HTTP on a connection says that it carried.
    protocol: Option<&'static str>,
}

impl<'a, 'w> Reader<'a, 'w> {
    fn new(work: &'a Work<'w>, index: usize, input: &'a Input) -> Self {
        Self {
            work,
            index,
            input,
            file: input.path().display().to_string(),
            reporter: Reporter::new(settings::verbosity(work.args.verbosity), work.args.strict),
            redactor: work.redaction.as_ref().map(|redaction| Redactor::new(redaction, input.path())),
            collected: Collected::default(),
            number: 0,
            requests: HashMap::new(),
            protocol: None,
        }
    }

    fn damaged(&self) -> bool {
        self.reporter.errors() > 0 || (self.work.args.strict && self.reporter.warnings() > 0)
    }

    fn read(&mut self) -> Result<(), Error> {
        let Work { args, redaction, progress, .. } = self.work;
        let reading = Reading { progress: Some(progress), ..reading(args, redaction.as_ref())? };
        inspect::read(self.input, reading, |item| {
            self.item(item);
            Ok(())
        })?;
        self.reporter.finish(self.input.path());
        Ok(())
    }

    fn item(&mut self, item: Item<'_>) {
        match item {
            Item::Finding(finding) | Item::HttpFinding(finding) => {
                self.reporter.finding(self.input.path(), finding);
                self.finding(finding);
            }
            Item::Http(HttpItem::Exchange(exchange)) => self.exchange(exchange),
            Item::Http(HttpItem::ConnectionEnd(end)) => {
                if let Some(redactor) = &mut self.redactor {
                    redactor.end(&end);
                }
                if end.connection.http_tap {
                    self.requests.remove(&(end.connection.trace_id, end.connection.place));
                } else {
                    self.protocol = end.protocol;
                }
            }
            Item::Http(HttpItem::Request(_)) | Item::End => {}
            Item::Connection(summary, ..) => self.connection(summary),
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let (file, finding) = match &self.work.redaction {
            Some(redaction) => (redaction.file(&self.file).into_owned(), redaction.finding(finding)),
            None => (self.file.clone(), finding.clone()),
        };
        let shown = page::Finding {
            severity: finding.code().severity(),
            code: finding.code().name().to_owned(),
            file,
            place: finding.place.to_string(),
            text: report::detail(&finding),
            count: 1 + finding.more,
        };
        self.collected.finding(self.index, Some(finding.code()), shown);
    }

    fn exchange(&mut self, mut exchange: Box<Exchange>) {
        let number = self.number;
        self.number += 1;
        let sides = &self.work.sides;
        let id = sides::id(self.index, number);
        let is_shown = |id| self.work.selected.as_ref().is_none_or(|selected| selected.has(id));
        if sides.is_attempt(id) {
            // It is shown with its request.
            if sides.owners(id).any(is_shown) {
                let connection = &exchange.connection;
                *self.requests.entry((connection.trace_id, connection.place)).or_default() += 1;
            }
            return;
        }
        if !is_shown(id) {
            return;
        }
        let connection = (self.index, exchange.connection.trace_id, exchange.connection.place);
        let entry = sides.line(id).and_then(|line| self.work.log.get(line));
        if let Some(redactor) = &mut self.redactor {
            redactor.exchange(&mut exchange);
        }
        let file = self.redactor.as_ref().map_or(&self.file, |redactor| &redactor.file);
        let sample =
            Sample::of(ExchangeRecord { exchange: &exchange, end: None, pairing: None, file, max_body: MAX_BODY });
        let attempted = (sides.answering_code(id), sides.has_no_attempt(id));
        let mut request = request_of(&exchange, sample.failed, self.index, entry, attempted);
        request.parts.upstream_first_byte = entry.and_then(|entry| entry.response_duration);
        sides.complete(&mut request, id, self.work.redaction.as_deref());
        let detail = self.collected.wants_detail(request.failed, request.duration).then(|| {
            let opened = opened(self.input, self.work.redaction.as_deref());
            let mut detail = detail::of(&exchange, opened.as_deref());
            detail.commands.extend(opened.and_then(|file| self.both_sides(&request, &file)));
            Box::new(detail)
        });
        let route = [sample.method.clone(), sample.host.clone(), sample.route.clone()];
        let attempts = if detail.is_some() { sides.told_attempts(id) } else { Vec::new() };
        self.request(Row { order: (self.index, number), request, connection, route, detail, attempts }, &sample);
    }

    /// The command that opens a request with its attempts, if it has some and all are in files.
    fn both_sides(&self, request: &page::Request, file: &Path) -> Option<page::Command> {
        let files = request.attempts.iter().map(|attempt| {
            let input = self.work.inputs.get(attempt.file)?;
            Some((opened(input, self.work.redaction.as_deref())?, attempt.connection_id))
        });
        let files = files.collect::<Option<Vec<_>>>().filter(|files| !files.is_empty())?;
        let attempts: Vec<_> = files.iter().map(|(file, id)| (file.as_path(), *id)).collect();
        Some(detail::both_sides((file, request.connection_id), &attempts))
    }

    fn request(&mut self, row: Row, sample: &Sample) {
        let (_, trace_id, place) = row.connection;
        *self.requests.entry((trace_id, place)).or_default() += 1;
        self.collected.request(row, sample);
    }

    fn connection(&mut self, summary: &Summary) {
        let opening = &summary.opening;
        let protocol = self.protocol.take();
        if opening.http.is_some() {
            return;
        }
        let requests = self.requests.remove(&(opening.trace_id, opening.place)).unwrap_or(0);
        let is_selected = |selected: &Selected| requests > 0 || selected.has_connection(self.index, opening);
        if !self.work.selected.as_ref().is_none_or(is_selected) {
            return;
        }
        let mut shown = HttpConnection::new(0, opening, summary.first);
        if let Some(redaction) = self.work.redaction.as_ref().filter(|redaction| redaction.addresses.is_some()) {
            shown.trace_id = redaction.trace_id(shown.trace_id);
            for end in [&mut shown.source, &mut shown.destination].into_iter().flatten() {
                redaction.address(end, &mut Counts::default());
            }
        }
        let text = |address: Option<crate::trace::Address>| {
            address.map_or_else(|| "-".to_owned(), |address| cut(address.to_string().as_bytes(), MAX_NAME))
        };
        let [inbound, outbound] = summary.sides.map(|side| side.bytes.saturating_add(side.lost));
        let (sent, received) = match shown.role {
            Role::Downstream => (inbound, outbound),
            Role::Upstream => (outbound, inbound),
        };
        let is_timed = shown.began.is_some();
        let connection = page::Connection {
            file: self.index,
            id: shown.trace_id,
            side: Some(side(shown.role)),
            source: text(shown.source),
            destination: text(shown.destination),
            protocol: protocol.unwrap_or_else(|| summary.speech.protocol.name()).to_owned(),
            begin: is_timed.then_some(summary.first),
            end: is_timed.then_some(summary.last),
            sent,
            received,
            requests,
            note: if summary.closed { String::new() } else { "its end is not in the trace".to_owned() },
        };
        self.collected.connection(ConnectionRow { key: (self.index, opening.trace_id, opening.place), connection });
    }
}

/// The file that commands open for an input, if it is in one; with redaction, what is shown of it.
fn opened(input: &Input, redaction: Option<&Redaction>) -> Option<PathBuf> {
    let path = input.place.path();
    let shown = |redaction: &Redaction| PathBuf::from(redaction.file(&path.display().to_string()).into_owned());
    (!input.is_from_stdin()).then(|| redaction.map_or_else(|| path.to_owned(), shown))
}

fn side(role: Role) -> Side {
    match role {
        Role::Downstream => Side::Downstream,
        Role::Upstream => Side::Upstream,
    }
}

/// Text for a row, at most so many bytes of it.
fn cut(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
    if bytes.len() > most { format!("{text}…") } else { text.into_owned() }
}

/// The row of an exchange, whose secrets were taken out.
fn request_of(
    exchange: &Exchange,
    failed: bool,
    file: usize,
    entry: Option<&LogEntry>,
    (answering_code, has_no_attempt): (Option<Option<u16>>, bool),
) -> page::Request {
    let began = exchange.request.began;
    let since = |time: Option<Nanos>| time?.checked_sub(began?);
    let text = |bytes: &Option<Vec<u8>>, most| cut(bytes.as_deref().unwrap_or_default(), most);
    let grpc = exchange.grpc.as_ref().and_then(|grpc| grpc.status);
    let connection = &exchange.connection;
    let knows_side = !connection.http_tap || connection.source.is_some() || connection.destination.is_some();
    let side = knows_side.then(|| side(connection.role));
    let evidence = Evidence {
        code: exchange.code,
        grpc: grpc.filter(|status| *status != 0),
        flags: entry.and_then(|entry| entry.flags.as_deref()),
        details: entry.and_then(|entry| entry.details.as_deref()),
        request_complete: exchange.request.complete,
        is_upstream: side == Some(Side::Upstream),
        has_no_attempt,
        answering_code,
        says_envoy: exchange.response.fields.get("server") == Some(b"envoy"),
        has_service_time: exchange.response.fields.get("x-envoy-upstream-service-time").is_some(),
    };
    let from: Option<(Origin, String)> = failed.then(|| origin(&evidence));
    let protocol = match (&exchange.grpc, &exchange.web_socket) {
        (Some(_), _) => "grpc".to_owned(),
        (_, Some(_)) => "websocket".to_owned(),
        _ => exchange.protocol.unwrap_or("-").to_ascii_lowercase(),
    };
    page::Request {
        time: began,
        duration: exchange.duration(),
        method: text(&exchange.method, MAX_NAME),
        host: text(&exchange.host, MAX_NAME),
        path: text(&exchange.path, MAX_PATH),
        protocol,
        code: exchange.code,
        grpc,
        failed,
        origin: from.as_ref().map(|(origin, _)| *origin),
        origin_reason: from.map(|(_, reason)| reason).unwrap_or_default(),
        complete: exchange.request.complete && exchange.response.complete,
        sent: exchange.request.size(),
        received: exchange.response.size(),
        side,
        file,
        offset: exchange.place.offset,
        connection_id: connection.trace_id,
        parts: page::Parts {
            request_end: since(exchange.request.ended),
            response_begin: since(exchange.response.began),
            response_end: since(exchange.response.ended),
            ..page::Parts::default()
        },
        ..page::Request::default()
    }
}
