//! `tap2pcap info`: shows what is in traces, and how to open their captures.

pub(super) mod json;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, Write},
    net::IpAddr,
    path::Path,
};

use self::json::ConnectionLines;
use super::{
    Status,
    error::Error,
    hints::Hints,
    http::{
        backlog::{Line, Sorter},
        table::{self, Layout, Table},
    },
    inspect::{self, Item, Reading},
    select::{Doubts, Selector},
    settings,
};
use crate::{
    cli::{ConnectionKey, InfoArgs},
    http::HttpItem,
    interrupt::Watched,
    report::{self, Reporter, print_error},
    synth::TcpMode,
    timeline::{self, AddressPair, Direction, DirectionTotals, Endpoints, Speech, Summary, Timelines},
    trace::{Address, Nanos, rfc3339},
    untrusted::escape,
    words,
};

pub(super) fn run(args: &InfoArgs) -> Result<Status, Error> {
    let selector = args.filter.clone().map(|filter| Selector { filter, doubts: Doubts::default(), is_strict: false });
    let (found, unreadable) = inspect::inputs(&args.inspect, selector.is_some(), None)?;
    let (inputs, mut passed_over) = (&found.inputs, found.count_passed_over);
    let mut out = Watched(io::stdout().lock());
    let mut damaged = !unreadable.is_empty();
    let mut read = 0;
    // One command merges all traces of an archive on standard input, because none of them can be read by its own name.
    let mut merged = Hints::default();
    let mut any_merged = false;
    unreadable.iter().for_each(|error| print_error(error));
    // One trace, or with -v each, is shown in full; many as a table.
    let is_table = inputs.len() > 1 && !args.inspect.json && !args.inspect.verbosity.verbose;
    let mut many = Many::new(args.top);
    for input in inputs {
        let reading = Reading {
            input: settings::input_options(&args.inspect.from, args.inspect.limits)?,
            timeline: timeline::TimelineOptions {
                role: settings::role(args.role),
                max_connections: Some(args.inspect.limits.max_connections),
                ..timeline::TimelineOptions::default()
            },
            selector: selector.as_ref(),
            http: args.inspect.json.then(ConnectionLines::http_stage),
            ..Reading::default()
        };
        let mut lines = ConnectionLines::new(input, None);
        let mut reporter = Reporter::new(settings::verbosity(args.inspect.verbosity), false);
        let mut hints = Hints::default();
        let is_merged = input.is_from_stdin() && !input.is_stdin();
        let mut shown = false;
        let mut take = |item: Item<'_>| {
            match item {
                Item::Finding(finding) => reporter.finding(input.path(), finding),
                Item::Connection(summary, endpoints, timelines) => {
                    hints.add(summary, endpoints, TcpMode::Full);
                    if is_merged {
                        merged.add(summary, endpoints, TcpMode::Full);
                    }
                    shown = true;
                    if is_table {
                        many.add(summary, endpoints, timelines, args.sort)?;
                    } else if args.inspect.json {
                        out.write_all(&lines.connection(summary, endpoints, timelines)?)?;
                    } else {
                        write_connection(&mut out, summary, endpoints, timelines)?;
                    }
                }
                Item::Http(HttpItem::ConnectionEnd(end)) => lines.end(end, |line| Ok(out.write_all(line)?))?,
                Item::Http(_) | Item::HttpFinding(_) => {}
                Item::End => {
                    lines.rest(|line| Ok(out.write_all(line)?))?;
                    any_merged |= is_merged && shown;
                    if !args.inspect.json && !is_table && shown && !is_merged {
                        let command = pipe_command(input.path(), &hints);
                        writeln!(out, "  open: {}", report::for_terminal(&command))?;
                    }
                }
            }
            Ok(())
        };
        let result = inspect::read(input, reading, &mut take);
        match result {
            Ok(()) => {
                read += 1;
                reporter.finish(input.path());
                damaged |= reporter.errors() > 0;
                many.trace(reporter.errors() > 0, &hints);
            }
            Err(Error::Input(error)) if input.is_found && error.is_other_json() => {
                passed_over += 1;
                super::passed_over(input.path(), &error, settings::verbosity(args.inspect.verbosity));
            }
            Err(Error::Input(error)) => {
                damaged = true;
                print_error(&error);
            }
            Err(error) => return Err(error),
        }
    }
    if is_table && read > 0 {
        many.write(&mut out)?;
    }
    if any_merged && !args.inspect.json {
        writeln!(out, "open: {}", report::for_terminal(&pipe_command(Path::new("-"), &merged)))?;
    }
    out.flush()?;
    if let Some(selector) = &selector {
        selector.doubts.report(settings::verbosity(args.inspect.verbosity));
    }
    super::count_passed_over(passed_over, settings::verbosity(args.inspect.verbosity));
    Ok(match (read, damaged) {
        (0, _) => Status::NotDone,
        (_, true) => Status::Damaged,
        (_, false) => Status::Done,
    })
}

/// What is known of many traces.
struct Many {
    traces: u64,
    damaged: u64,
    connections: u64,
    open: u64,
    cut: u64,
    bytes: [u64; 2],
    span: Option<(Nanos, Nanos)>,
    protocols: BTreeMap<&'static str, u64>,
    hints: Hints,
    rows: Sorter,
}

const CONNECTIONS: Layout = Layout {
    titles: &["TIME", "CLIENT", "SERVER", "PROTOCOL", "READ", "WROTE", "DURATION", "STATE", "TRACE"],
    right: &[4, 5, 6],
    flexible: 8,
    status: None,
};

impl Many {
    fn new(top: Option<usize>) -> Self {
        Self {
            traces: 0,
            damaged: 0,
            connections: 0,
            open: 0,
            cut: 0,
            bytes: [0; 2],
            span: None,
            protocols: BTreeMap::new(),
            hints: Hints::default(),
            rows: Sorter::new(top),
        }
    }

    fn trace(&mut self, damaged: bool, hints: &Hints) {
        self.traces += 1;
        self.damaged += u64::from(damaged);
        self.hints.extend(hints);
    }

    fn add(
        &mut self,
        summary: &Summary,
        endpoints: &Endpoints,
        timelines: &Timelines,
        sort: ConnectionKey,
    ) -> io::Result<()> {
        let [read, write] = summary.sides;
        let is_cut = summary.sides.iter().any(|side| side.lost > 0 || side.open_ended > 0);
        self.cut += u64::from(is_cut);
        self.open += u64::from(!summary.closed);
        for (bytes, side) in self.bytes.iter_mut().zip(summary.sides) {
            *bytes = bytes.saturating_add(side.bytes);
        }
        let (first, last) = self.span.unwrap_or((summary.first, summary.last));
        self.span = Some((first.min(summary.first), last.max(summary.last)));
        let protocol = summary.speech.protocol.name();
        *self.protocols.entry(protocol).or_default() += 1;
        let duration = summary.last.saturating_sub(summary.first);
        let AddressPair(client, server) = endpoints.tuple(summary.opening.role);
        let path = timelines.source().path();
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let state = match (summary.closed, is_cut) {
            (true, false) => "closed",
            (true, true) => "closed, cut",
            (false, false) => "open",
            (false, true) => "open, cut",
        };
        let cells = [
            table::time(summary.first),
            client.to_string(),
            server.to_string(),
            report::for_terminal(&protocol_cell(&summary.speech)),
            read.bytes.to_string(),
            write.bytes.to_string(),
            table::duration(duration),
            state.to_owned(),
            report::for_terminal(&name),
        ];
        let key = match sort {
            ConnectionKey::Time => summary.first,
            ConnectionKey::Duration => duration,
            ConnectionKey::Bytes => read.bytes.saturating_add(write.bytes),
        };
        // Connections with the same value keep their order.
        let key = [key.to_be_bytes(), self.connections.to_be_bytes()].concat();
        self.connections += 1;
        self.rows.push(Line { key, text: table::joined(&cells), kept: Vec::new() })
    }

    /// Writes the summary, then the connections.
    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let count = words::count;
        let damaged = if self.damaged > 0 { format!(" ({} damaged)", self.damaged) } else { String::new() };
        let mut notes = Vec::new();
        notes.extend((self.open > 0).then(|| format!("{} not closed", self.open)));
        notes.extend((self.cut > 0).then(|| format!("{} with bytes missing", self.cut)));
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        let [read, wrote] = self.bytes.map(|bytes| count(bytes, "byte"));
        writeln!(out, "{}{damaged}, {}{notes}", count(self.traces, "trace"), count(self.connections, "connection"))?;
        if let Some((first, last)) = self.span {
            writeln!(out, "{} to {}; read {read}, wrote {wrote}", rfc3339(first), rfc3339(last))?;
            let protocols: Vec<_> = self.protocols.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(out, "protocols: {}", protocols.join(", "))?;
            writeln!(out)?;
            let mut table = Table::with_layout(&mut *out, CONNECTIONS);
            self.rows.finish(|line| table.row(&line.text))?;
            table.finish()?;
            writeln!(out)?;
            writeln!(out, "to see a capture of them dissected: {}", open_command(Path::new("CAPTURE"), &self.hints))?;
        }
        Ok(())
    }
}

/// A connection's protocol in a table, with the name of the server that its client asks for in TLS.
fn protocol_cell(speech: &Speech) -> String {
    /// Longer names are cut, because other columns need room too.
    const MAX_NAME: usize = 40;
    let mut cell = speech.protocol.name().to_owned();
    if speech.goes_on_in_tls {
        cell.push_str(", then tls");
    }
    if let Some(name) = speech.hello.as_ref().and_then(|hello| hello.server_name.as_deref()) {
        let cut: String = name.chars().take(MAX_NAME).collect();
        let mark = if cut.len() < name.len() { "…" } else { "" };
        cell.push_str(&format!(" {cut}{mark}"));
    }
    cell
}

fn write_connection(
    out: &mut impl Write,
    summary: &Summary,
    endpoints: &Endpoints,
    timelines: &Timelines,
) -> io::Result<()> {
    let source = timelines.source();
    let path = source.path().display().to_string();
    let opening = &summary.opening;
    let mode = if opening.buffered { "buffered" } else { "streamed" };
    let role = opening.role.word();
    let speech = &summary.speech;
    let protocol = speech.protocol.name();
    let [read, write] = summary.sides;
    let (first, last) = (rfc3339(summary.first), rfc3339(summary.last));
    let AddressPair(client, server) = endpoints.tuple(opening.role);
    let name = |address: &Option<Address>| match address {
        Some(Address::Socket { address, .. }) if address.parse::<IpAddr>().is_ok() => String::new(),
        Some(named) => format!(" ({named})"),
        None => String::new(),
    };
    let (client_name, server_name) = match opening.role.client_direction() {
        Direction::Inbound => (name(&opening.connection.remote), name(&opening.connection.local)),
        Direction::Outbound => (name(&opening.connection.local), name(&opening.connection.remote)),
    };
    let ending = if summary.closed { "closed" } else { "not closed" };
    let count = |side: DirectionTotals| {
        let lost = match (side.lost, side.open_ended) {
            (0, 0) => String::new(),
            (lost, 0) => format!(", {lost} lost"),
            (0, _) => ", how many are lost is not known".to_owned(),
            (lost, _) => format!(", more than {lost} lost"),
        };
        format!("{} in {}{lost}", words::count(side.bytes, "byte"), words::count(side.events, "event"))
    };
    let then = if speech.goes_on_in_tls { ", goes on in TLS" } else { "" };
    let mut lines = vec![
        format!(
            "{path}: {}, {mode}, trace_id {}, {role}, {protocol}{then}, {ending}",
            super::encoding_and_layers(source),
            opening.trace_id
        ),
        format!("  {client}{client_name} -> {server}{server_name}"),
    ];
    lines.extend(speech.proxy.as_deref().map(|proxy| match proxy.source {
        Some(source) => format!("  a PROXY header (version {}) names the client {source}", proxy.version),
        None => format!("  a PROXY header (version {}) names no client", proxy.version),
    }));
    lines.extend(speech.hello.as_deref().map(|hello| {
        let server = hello.server_name.as_deref().unwrap_or("a server without a name");
        let alpn = match (hello.alpn.is_empty(), hello.is_cut) {
            (false, _) => format!(", ALPN {}", hello.alpn.join(", ")),
            (true, false) => String::new(),
            (true, true) => ", ALPN not in the trace".to_owned(),
        };
        format!("  TLS to {server}{alpn}")
    }));
    lines.extend([format!("  {first} to {last}"), format!("  read {}; wrote {}", count(read), count(write))]);
    lines.iter().try_for_each(|line| writeln!(out, "{}", report::for_terminal(line)))
}

/// The command that shows a capture dissected.
pub(super) fn open_command(capture: &Path, hints: &Hints) -> String {
    let twice = if hints.reads_twice() { "-2 " } else { "" };
    format!("tshark {twice}-r {}{}", quoted(capture), hints.options())
}

/// The command that shows a trace dissected. It needs no capture file in between unless tshark must read it twice.
fn pipe_command(trace: &Path, hints: &Hints) -> String {
    let (capture, then) = if hints.reads_twice() { ("capture.pcapng", "&&") } else { ("-", "|") };
    format!("tap2pcap {} {capture} {then} {}", quoted(trace), open_command(Path::new(capture), hints))
}

/// Quotes a path for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    // A path with a leading dash would be taken for an option.
    quoted_after(if bytes.starts_with(b"-") && bytes != b"-" { "./" } else { "" }, path.as_os_str())
}

/// Quotes an argument for a shell.
pub(super) fn quoted_word(word: &OsStr) -> String {
    quoted_after("", word)
}

fn quoted_after(prefix: &str, word: &OsStr) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+,:@%".contains(char);
    match word.to_str() {
        Some(word) if !word.is_empty() && word.chars().all(plain) => format!("{prefix}{word}"),
        Some(word) if matches!(escape(word), Cow::Borrowed(_)) => {
            format!("'{prefix}{}'", word.replace('\'', "'\\''"))
        }
        // What is not readable text is escaped in the way that bash, zsh and ksh understand.
        _ => format!("$'{prefix}{}'", word.as_encoded_bytes().escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_command_reaches_its_program_as_it_was() {
        let hints = Hints::of_http2(&[10_000]);
        let command = |path: &str| open_command(Path::new(path), &hints);
        assert_eq!(command("a/b_0.pcapng"), "tshark -r a/b_0.pcapng -d tcp.port==10000,http");
        assert_eq!(command("it's here"), "tshark -r 'it'\\''s here' -d tcp.port==10000,http");
        assert_eq!(command("-r"), "tshark -r ./-r -d tcp.port==10000,http");
        assert_eq!(command("- x"), "tshark -r './- x' -d tcp.port==10000,http");
        assert_eq!(command("für"), "tshark -r 'für' -d tcp.port==10000,http");
        assert_eq!(command("it's\n\x1bhere"), "tshark -r $'it\\'s\\n\\x1bhere' -d tcp.port==10000,http");
        let no_text = std::os::unix::ffi::OsStrExt::from_bytes(b"-\xff");
        assert_eq!(quoted(Path::new::<std::ffi::OsStr>(no_text)), "$'./-\\xff'");
    }
}
