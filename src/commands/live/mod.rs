//! `tap2pcap live` taps a running Envoy and writes the capture meanwhile.

mod backlog;
mod feed;
mod requests;
mod sessions;
mod udp;

use std::{
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc::RecvTimeoutError},
    thread,
    time::Instant,
};

pub(super) use self::backlog::Cut;
use self::{
    backlog::{GRACE, Until},
    feed::Keeping,
    requests::Requests,
    sessions::{Session, Sessions},
};
use super::{
    Status,
    error::Error,
    hints::Hints,
    names::InputName,
    output::{self, Kind},
    redaction::{self, ReportFile},
    settings::Settings,
    trace::{PacketConnections, Trace, close_all},
};
use crate::{
    admin::{self, Admin, ConfiguredTap, TapKind, TapRequest, TapSink},
    capture::{
        Access, Capture, CaptureFormat, Captures, Destination, Gate, SplitCapture, folder, part_path, path_of_part,
    },
    cli::{LiveArgs, LiveSource, TapArgs},
    input::{InputError, Source},
    interrupt::{self, Watched},
    report::{Progress, Verbosity, print_line},
    untrusted::escape,
    words::{self, count},
};

pub(super) fn run(args: &LiveArgs) -> Result<Status, Error> {
    interrupt::install()?;
    refuse_options(args)?;
    let Some(path) = &args.destination else {
        return match &args.source {
            LiveSource::Admin(endpoint) => list(&Admin::new(endpoint)),
            LiveSource::Udp(_) => Err(Error::Arguments("udp:// needs an OUTPUT, a capture or `-`".to_owned())),
        };
    };
    let destination = Destination::new(path);
    if destination.is_directory() {
        return Err(Error::Arguments(format!("{}: is a directory; live writes a capture", path.display())));
    }
    let mut settings = Settings::of_live(args)?;
    let (kind, packing) = output::kind(&args.output, args.split.is_some(), !args.packets.map.is_empty(), &destination)?;
    let Kind::Capture(format) = kind else {
        return Err(Error::Arguments(
            "live writes captures, not HAR; to have both, keep the traces (docs/live.md, by hand) and convert them"
                .to_owned(),
        ));
    };
    settings.output.packing = packing;
    // It holds what TLS has hidden.
    settings.output.access = Access::Private;
    settings.timeline.latest = format.latest_time();
    redaction::expect(settings.redaction.as_deref(), &[], destination.file())?;
    let report = ReportFile::create(settings.redaction.as_ref())?;

    let until = Until::time(args.tap.duration.and_then(|duration| Instant::now().checked_add(duration)));
    watch_end(&until)?;
    // Before Envoy is asked: if there can be no capture, it is not tapped.
    let captures = create(&destination, format, &settings, args.keep, &until)?;
    let keeping = |name: String| Keeping {
        once: args.tap.once,
        until: until.clone(),
        max_backlog: args.max_backlog,
        verbosity: settings.verbosity,
        name,
    };
    let (name, sessions, has_http) = match &args.source {
        LiveSource::Udp(place) => {
            let name = format!("udp://{place}");
            (name.clone(), udp::start(place, keeping(name))?, true)
        }
        LiveSource::Admin(endpoint) => {
            let admin = Arc::new(Admin::new(endpoint));
            let (request, has_http) = request(&args.tap, &admin)?;
            let name = endpoint.to_string();
            (name.clone(), feed::start(admin, request, keeping(name))?, has_http)
        }
    };
    let status = capture(captures, &destination, &settings, &name, has_http, sessions, &until)?;
    report.map_or(Ok(()), ReportFile::finish)?;
    Ok(status)
}

/// Options of a tap mean nothing where Envoy is not asked for one.
fn refuse_options(args: &LiveArgs) -> Result<(), Error> {
    let tap = &args.tap;
    let given = [
        (tap.config_id.is_some(), "--config-id"),
        (tap.matching.is_some(), "--match"),
        (!tap.header.is_empty(), "--header"),
        (tap.path.is_some(), "--path"),
        (tap.max_traces.is_some(), "--max-traces"),
    ];
    match (&args.source, given.iter().find(|(is_given, _)| *is_given)) {
        (LiveSource::Udp(_), Some((_, option))) => Err(Error::Arguments(format!(
            "{option} is for Envoy's admin endpoint; what comes through UDP is what Envoy's configuration says"
        ))),
        _ => Ok(()),
    }
}

/// Starts a thread that sees to it that the command ends. After a second signal, what waits is no longer converted, and
/// a third one ends the process. If the capture goes into a pipe that nobody reads, no signal is needed once its time is
/// over.
fn watch_end(until: &Until) -> Result<(), Error> {
    let mut signals = interrupt::pass_on()?;
    signals.set_read_timeout(Some(interrupt::INTERVAL))?;
    let until = until.clone();
    let watch = move || {
        let mut count = 0;
        loop {
            match signals.read(&mut [0]) {
                Ok(1) => count += 1,
                Ok(_) => return,
                Err(_) => {}
            }
            match count {
                0 | 1 => {}
                2 => until.hurry(),
                _ => interrupt::abandon(128 + i32::from(interrupt::signal().unwrap_or(0))),
            }
            if let Some(over) = until.over_since()
                && over.elapsed() > GRACE
                && interrupt::is_stuck(over)
            {
                print_line("warning", &"nobody reads the capture, so its end is left out");
                interrupt::abandon(i32::from(Status::Damaged.code()));
            }
        }
    };
    thread::Builder::new().name("end".into()).spawn(watch)?;
    Ok(())
}

/// Prints the taps that a request can use.
fn list(admin: &Admin) -> Result<Status, Error> {
    let taps = admin.taps()?;
    if taps.is_empty() {
        return Err(no_taps());
    }
    let mut out = Watched(io::stdout().lock());
    for ConfiguredTap { config_id, kind, place, .. } in taps {
        let kind = kind.words();
        writeln!(out, "{}", escape(&format!("{config_id}  {kind}  {place}")))?;
    }
    Ok(Status::Done)
}

fn no_taps() -> Error {
    Error::Arguments(
        "this Envoy has no tap with an admin_config; `tap2pcap tap-config` prints what to add to its configuration"
            .to_owned(),
    )
}

/// What to ask Envoy for, and whether HTTP taps may answer.
fn request(args: &TapArgs, envoy: &Admin) -> Result<(TapRequest, bool), Error> {
    // Unless Envoy is asked for its taps, there may be any.
    let mut has_http = true;
    let config_id = match &args.config_id {
        Some(config_id) => config_id.clone(),
        None => {
            let taps = envoy.taps()?;
            has_http = taps.iter().any(|tap| tap.kind == TapKind::HttpFilter);
            match &mut *admin::config_ids(taps) {
                [] => return Err(no_taps()),
                [only] => std::mem::take(only),
                known => {
                    let known: Vec<_> = known.iter().map(|id| format!("{id:?}")).collect();
                    let known = words::list(&known);
                    return Err(Error::Arguments(format!(
                        "Envoy has taps with several config_ids, {known}: --config-id says which"
                    )));
                }
            }
        }
    };
    let sink = match args.max_traces {
        Some(max_traces) => TapSink::Buffered { max_traces, timeout: args.duration },
        None => TapSink::Streaming,
    };
    let request = TapRequest { config_id, matching: args.matching(), max_rx: args.max_rx, max_tx: args.max_tx, sink };
    Ok((request, has_http))
}

/// Writes what the sessions bring.
fn capture(
    mut captures: Captures,
    destination: &Destination,
    settings: &Settings,
    name: &str,
    has_http: bool,
    sessions: Sessions,
    until: &Until,
) -> Result<Status, Error> {
    // The reader of a pipe sees at once that it is a capture.
    captures.flush()?;
    let mut live = Live {
        settings,
        name,
        has_http,
        connections: PacketConnections::new(settings.mappings.clone()),
        captures,
        hints: Hints::default(),
        opened: 0,
        wanted: 0,
        damaged: false,
        left_out: 0,
    };
    loop {
        match sessions.receiver.recv_timeout(interrupt::INTERVAL) {
            Ok(session) => live.session(session)?,
            Err(RecvTimeoutError::Timeout) if !until.is_over() => {}
            Err(_) => break,
        }
    }
    if until.is_unread() {
        return Ok(Status::Done);
    }
    let mut status = live.finish(destination)?;
    if sessions.failed.load(Ordering::Relaxed) && status == Status::Done {
        status = Status::Damaged;
    }
    Ok(status)
}

/// Creates the capture, or what makes several of it.
fn create(
    destination: &Destination,
    format: CaptureFormat,
    settings: &Settings,
    keep: Option<usize>,
    until: &Until,
) -> Result<Captures, Error> {
    if let (Some(_), Some(path), false) = (settings.split, destination.file(), settings.output.force) {
        refuse_earlier(path)?;
    }
    let captures = match (settings.split, destination.file()) {
        (Some(by), Some(path)) => Captures::Split(Box::new(
            SplitCapture::new(by, path, format, settings.output, true).keeping(keep.unwrap_or(usize::MAX)),
        )),
        _ => {
            let mut capture = Capture::create_with(destination, format, settings.output)?;
            if let Some(pipe) = capture.pipe() {
                until.watch(pipe);
            }
            Captures::One(capture)
        }
    };
    Ok(match settings.selector {
        Some(_) => Captures::Gated(Box::new(Gate::new(captures))),
        None => captures,
    })
}

/// Captures of an earlier run would be replaced, removed, or mixed with new ones.
fn refuse_earlier(path: &Path) -> Result<(), Error> {
    // If the folder cannot be read, no capture can be written either, which will be said.
    let Ok(entries) = std::fs::read_dir(folder(path)) else { return Ok(()) };
    let names = entries.flatten().map(|entry| path.with_file_name(entry.file_name()));
    let earlier = names.filter(|name| path_of_part(name).as_deref() == Some(path)).min();
    earlier.map_or(Ok(()), |earlier| {
        Err(Error::Arguments(format!(
            "{}: is there from an earlier run; move the captures away, or replace them with --force",
            earlier.display()
        )))
    })
}

/// A capture that is being written.
struct Live<'a> {
    settings: &'a Settings,
    name: &'a str,
    /// Whether there may be segments of HTTP taps.
    has_http: bool,
    connections: PacketConnections,
    captures: Captures,
    hints: Hints,
    /// How many connections there were.
    opened: u64,
    /// How many of them have a match.
    wanted: u64,
    damaged: bool,
    /// How many bytes of the stream were not converted, because the capture was read too slowly.
    left_out: u64,
}

impl Live<'_> {
    /// Converts what a session brings, until its end.
    fn session(&mut self, session: Session) -> Result<(), Error> {
        let Session { number, reader, arrivals, cut, encoding } = session;
        let name = if number == 1 { self.name.to_owned() } else { format!("{} ({number})", self.name) };
        let options = crate::input::SourceOptions { encoding: Some(encoding), ..self.settings.input };
        let source = match Source::from_reader(Path::new(&name), reader, options) {
            Ok(source) => source,
            // Nothing came.
            Err(InputError::Empty { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let names = InputName { shown: name.clone(), stem: name };
        let mut trace = Trace::arriving(source, names, self.settings, arrivals, Arc::clone(&cut));
        let progress = Progress::hidden();
        let mut requests = Requests::of(&trace, self.settings.selector.as_deref(), self.name, self.has_http);
        while trace.advance(&mut self.captures, &progress)?.is_some() {
            if requests.entry(&trace)? {
                trace.want(&mut self.connections, &mut self.captures)?;
            }
            trace.write(&mut self.connections, &mut self.captures)?;
        }
        trace.finish();
        self.opened += trace.timelines().connections();
        self.wanted += trace.selected;
        self.hints.extend(&trace.hints);
        self.damaged |= trace.is_damaged();
        self.left_out += cut.left_out();
        Ok(self.captures.flush()?)
    }

    /// Completes the capture, and reports what it has.
    fn finish(mut self, destination: &Destination) -> Result<Status, Error> {
        close_all(&mut self.connections, &mut self.captures)?;
        let packets = self.captures.packets();
        let is_split = self.settings.split.is_some();
        let given_up = self.captures.given_up();
        let written: Vec<PathBuf> = self.captures.finish()?;
        if let (true, Some(path)) = (is_split, destination.file()) {
            super::mirror::sync(folder(path), &written)?;
        }
        if self.settings.verbosity > Verbosity::Quiet {
            let (connections, packets) = (count(self.opened, "connection"), count(packets, "packet"));
            match &self.settings.selector {
                Some(selector) => {
                    selector.doubts.report(self.settings.verbosity);
                    let wanted = self.wanted;
                    print_line("note", &format_args!("{wanted} of {connections} match, {packets}"));
                }
                None => print_line("note", &format_args!("{connections}, {packets}")),
            }
            if self.left_out > 0 {
                let bytes = count(self.left_out, "byte");
                print_line("warning", &format_args!("{bytes} of the stream that still waited are left out"));
            }
            if given_up > 0 {
                let connections = count(given_up, "connection");
                print_line(
                    "warning",
                    &format_args!("{connections} left out before there was a match: too much waited to be written"),
                );
            }
            if !self.hints.is_empty() && !destination.is_stream() {
                let first = if is_split { part_path(destination.path(), 1) } else { destination.path().to_owned() };
                let command = super::info::open_command(&first, &self.hints);
                print_line("note", &format_args!("to see it dissected: {command}"));
            }
        }
        Ok(if self.damaged || given_up > 0 || self.left_out > 0 { Status::Damaged } else { Status::Done })
    }
}
