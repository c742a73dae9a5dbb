//! Reads all inputs once, to pair the exchanges with clients and with upstreams that are of one request.

use std::{collections::HashMap, sync::Arc};

use super::{error::Error, pump::read_http_first, settings, turns::Turns};
use crate::{
    access_log::{self, AccessLog, LogEntry, Room},
    cli::PairArgs,
    http::{HttpItem, HttpStage, HttpStageOptions},
    input::{Input, InputError, SourceOptions},
    interrupt,
    pairing::{ExchangeId, LoggedRequest, Pairs, Seen},
    report::{Verbosity, print_line},
    timeline::TimelineOptions,
    trace::Address,
    words::count,
};

/// The most exchanges that are compared. Each takes about 500 bytes.
const MAX_EXCHANGES: usize = 2_000_000;

/// How inputs are read: as they are read afterwards, so that exchanges have the same numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct PairOptions {
    pub input: SourceOptions,
    pub timeline: TimelineOptions,
    /// [`HttpStage::be_strict`]
    pub is_strict: bool,
    pub jobs: Option<usize>,
    pub verbosity: Verbosity,
}

/// What pairing has found.
#[derive(Debug, Default)]
pub(super) struct Paired {
    pub pairs: Pairs,
    /// The lines of the access logs.
    #[cfg(feature = "report")]
    pub log: Vec<LogEntry>,
}

/// Pairs the exchanges of inputs that can be read again. What is wrong with an input is left to those who read it
/// afterwards.
///
/// # Errors
/// An access log cannot be read, or a signal came.
pub(super) fn pair(inputs: &[Input], args: &PairArgs, options: PairOptions) -> Result<Paired, Error> {
    // A signal ends the wait for a log that is a pipe.
    let of_signal = |error| interrupt::signal().map_or(error, Error::Signal);
    let log = read_logs(args, options.verbosity).map_err(of_signal)?;
    let found = Turns::new(Found::default());
    found.run(settings::jobs(options.jobs), inputs.len(), || {
        found.each(inputs, |index, input| {
            let seen = read(input, index, options);
            found.at_turn(index, true, |found| {
                found.add(seen);
                Ok(())
            })?;
            Ok(())
        });
    });
    let Found { seen, beyond } = found.finish()?;
    if let Some(signal) = interrupt::signal() {
        return Err(Error::Signal(signal));
    }
    if beyond > 0 && options.verbosity > Verbosity::Quiet {
        let (beyond, most) = (count(beyond, "exchange"), count(MAX_EXCHANGES as u64, "exchange"));
        print_line("warning", &format_args!("{beyond} not paired: no more than {most} are compared"));
    }
    let logged: Vec<LoggedRequest> = log.iter().map(logged).collect();
    Ok(Paired {
        pairs: Pairs::find(seen, &logged),
        #[cfg(feature = "report")]
        log,
    })
}

/// The exchanges of all inputs so far, in the order of the inputs.
#[derive(Debug, Default)]
struct Found {
    seen: Vec<Seen>,
    beyond: u64,
}

impl Found {
    fn add(&mut self, mut seen: Vec<Seen>) {
        let room = MAX_EXCHANGES - self.seen.len();
        self.beyond += seen.len().saturating_sub(room) as u64;
        seen.truncate(room);
        self.seen.append(&mut seen);
    }
}

fn read_logs(args: &PairArgs, verbosity: Verbosity) -> Result<Vec<LogEntry>, Error> {
    let (mut entries, mut room) = (Vec::new(), Room::default());
    for path in &args.access_log {
        let log = access_log::read(path, args.access_log_format.as_deref(), &mut room)?;
        let AccessLog { entries: of_log, unread_lines, first_unread, beyond } = log;
        if (unread_lines > 0 || of_log.is_empty()) && verbosity > Verbosity::Quiet {
            let place = first_unread.first().map(|line| format!(", first line {line}")).unwrap_or_default();
            let (read, unread) = (count(of_log.len() as u64, "line"), count(unread_lines, "line"));
            let path = crate::report::for_terminal(&path.display().to_string());
            print_line(
                "warning",
                &format_args!(
                    "{path}: {read} of requests, {unread} in no known format{place}; --access-log-format says what it is"
                ),
            );
        }
        if beyond > 0 && verbosity > Verbosity::Quiet {
            let path = crate::report::for_terminal(&path.display().to_string());
            print_line(
                "warning",
                &format_args!("{path}: {} left out, because there are too many", count(beyond, "line")),
            );
        }
        entries.extend(of_log);
    }
    Ok(entries)
}

/// What joins a line with exchanges.
fn logged(entry: &LogEntry) -> LoggedRequest {
    let logged = LoggedRequest {
        start: entry.start.map(|start| (start, entry.start_precision)),
        connection_id: entry.connection_id,
        upstream_connection_id: entry.upstream_connection_id,
        code: entry.code,
        ..LoggedRequest::default()
    };
    let target = entry.method.as_deref().zip(entry.path.as_deref());
    logged.with(entry.upstream_local_address.as_deref(), target, entry.request_id.as_deref())
}

/// The exchanges of one input.
pub(super) fn read(input: &Input, index: usize, options: PairOptions) -> Vec<Seen> {
    let mut stage = HttpStage::new(HttpStageOptions::default());
    if options.is_strict {
        stage.be_strict();
    }
    let mut addresses: HashMap<Address, Arc<Address>> = HashMap::new();
    let mut share = |address: &Address| match addresses.get(address) {
        Some(shared) => Arc::clone(shared),
        None => {
            // Upstreams are few. Of hostile ones, not all are kept.
            if addresses.len() >= MAX_ADDRESSES {
                addresses.clear();
            }
            let shared = Arc::new(address.clone());
            addresses.insert(address.clone(), Arc::clone(&shared));
            shared
        }
    };
    let mut seen: Vec<Seen> = Vec::new();
    // By the number of the connection, the exchanges without an end.
    let mut open: HashMap<u64, Vec<usize>> = HashMap::new();
    let read = read_http_first(input, options.input, options.timeline, stage, |item| {
        match item {
            HttpItem::Exchange(exchange) => {
                if exchange.response.ended.is_none() {
                    open.entry(exchange.connection.number).or_default().push(seen.len());
                }
                let id = ExchangeId { input: index as u32, number: seen.len() as u32 };
                seen.push(Seen::of(id, &exchange, &mut share));
            }
            HttpItem::ConnectionEnd(end) => {
                for exchange in open.remove(&end.connection.number).unwrap_or_default() {
                    seen[exchange].closed = end.closed;
                }
            }
            HttpItem::Request(_) => {}
        }
        Ok::<_, InputError>(seen.len() <= MAX_EXCHANGES)
    });
    // Whoever reads the input afterwards tells why it cannot be opened.
    drop(read);
    seen
}

/// How many addresses of one input are shared between its exchanges.
const MAX_ADDRESSES: usize = 1024;
