//! Which connections of a trace `--where` keeps: a first pass over the trace finds those with a match.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    error::Error,
    http::backlog::{Backlog, Line},
    pump::read_http_first,
    turns::Turns,
};
use crate::{
    http::{Exchange, ExchangeRecord, Filter, HttpConnection, HttpItem, HttpStage, HttpStageOptions, MAX_BODY},
    input::{Input, InputError, SourceOptions},
    interrupt,
    pairing::{ExchangeId, Pairs},
    report::{Verbosity, print_line},
    timeline::{Opening, TimelineOptions},
    trace::Place,
};

/// What `--where` could not decide. It counts as no match, and is reported once.
#[derive(Debug, Default)]
pub(super) struct Doubts(Mutex<Option<String>>);

impl Doubts {
    /// Whether there is a match.
    pub(super) fn settle(&self, holds: Result<bool, String>) -> bool {
        holds.unwrap_or_else(|reason| {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            false
        })
    }

    /// Says what could not be decided.
    pub(super) fn report(&self, verbosity: Verbosity) {
        if verbosity > Verbosity::Quiet
            && let Some(reason) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner)
        {
            let message = format_args!("--where could not be decided everywhere, which counts as no match: {reason}");
            print_line("warning", &crate::report::for_terminal(&message.to_string()));
        }
    }
}

impl Match {
    fn read(key: &[u8]) -> Option<Self> {
        let (of_sockets, number) = key.split_first_chunk()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        Some(Self { of_sockets: u64::from_be_bytes(*of_sockets), number })
    }
}

/// `--where` in a conversion.
#[derive(Debug)]
pub(super) struct Selector {
    pub filter: Arc<Filter>,
    pub doubts: Doubts,
    /// Whether bytes after a loss count only if they prove what they are, as for an output without secrets.
    pub is_strict: bool,
}

/// What tells a connection apart in its source: its `trace_id`, and where the first message about it begins.
type Key = (u64, Place);

/// What is kept of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    connections: HashSet<Key>,
    /// The exchanges of sockets, by their number in the order in which they end, from 1.
    exchanges: HashSet<u64>,
}

impl Selection {
    pub(super) fn has(&self, opening: &Opening) -> bool {
        self.connections.contains(&(opening.trace_id, opening.place))
    }

    /// Whether the exchange of an HTTP tap is selected whose first message is at `origin`.
    pub(super) fn has_tap(&self, trace_id: u64, origin: Place) -> bool {
        self.connections.contains(&(trace_id, origin))
    }

    pub(super) fn has_exchange(&self, number: u64) -> bool {
        self.exchanges.contains(&number)
    }

    fn add(&mut self, connection: &HttpConnection, exchange: Option<u64>) {
        self.connections.insert((connection.trace_id, connection.place));
        match exchange {
            Some(number) if !connection.http_tap => drop(self.exchanges.insert(number)),
            Some(_) | None => {}
        }
    }

    /// Reads a source to its end, and selects the connections with a match. What is wrong with the source is left to
    /// the pass that converts it.
    ///
    /// # Errors
    /// The source cannot be opened.
    pub(super) fn of(
        input: &Input,
        options: SourceOptions,
        timeline: TimelineOptions,
        selector: &Selector,
    ) -> Result<Self, InputError> {
        Ok(Self::with_pairs(input, options, timeline, selector, None)?.0)
    }

    /// As [`Selection::of`]. With the pairs of all inputs, and the index of this one, returns the numbers of the exchanges
    /// that matched as well.
    pub(super) fn with_pairs(
        input: &Input,
        options: SourceOptions,
        timeline: TimelineOptions,
        Selector { filter, doubts, is_strict }: &Selector,
        paired: Option<(&Pairs, u32)>,
    ) -> Result<(Self, Vec<u32>), InputError> {
        let mut stage = HttpStage::new(HttpStageOptions { all_connections: true, ..HttpStageOptions::default() });
        if *is_strict {
            stage.be_strict();
        }
        let mut search = Search::new(filter, doubts, input.path().display().to_string());
        search.paired = paired;
        let (mut selection, mut matched) = (Self::default(), Vec::new());
        read_http_first(input, options, timeline, stage, |item| {
            let found = |connection: &HttpConnection, exchange: Option<Match>| {
                selection.add(connection, exchange.map(|exchange| exchange.of_sockets));
                matched.extend(exchange.map(|exchange| exchange.number));
            };
            let failed = |source| InputError::Read { path: input.path().to_owned(), source };
            search.item(item, found).map(|()| true).map_err(failed)
        })?;
        Ok((selection, matched))
    }

    /// What is selected of each input that can be read, and the exchanges that matched, with what pairing tells of them.
    /// Whoever reads the inputs afterwards tells what is wrong with them.
    ///
    /// # Errors
    /// A signal came.
    pub(super) fn of_all(
        inputs: &[Input],
        options: SourceOptions,
        timeline: TimelineOptions,
        selector: &Selector,
        pairs: &Pairs,
        jobs: usize,
    ) -> Result<(Vec<Option<Self>>, Vec<ExchangeId>), Error> {
        let found = Turns::new(vec![(None, Vec::new()); inputs.len()]);
        found.run(jobs, inputs.len(), || {
            found.each(inputs, |index, input| {
                let paired = Some((pairs, index as u32));
                if let Ok((selection, matched)) = Self::with_pairs(input, options, timeline, selector, paired) {
                    found.with(|found| found[index] = (Some(selection), matched));
                }
                interrupt::signal().map_or(Ok(()), |signal| Err(Error::Signal(signal)))
            });
        });
        let (mut selections, mut matched) = (Vec::new(), Vec::new());
        for (index, (selection, numbers)) in found.finish()?.into_iter().enumerate() {
            selections.push(selection);
            matched.extend(numbers.into_iter().map(|number| ExchangeId { input: index as u32, number }));
        }
        Ok((selections, matched))
    }

    /// Selects a connection besides.
    pub(super) fn add_connection(&mut self, trace_id: u64, place: Place) {
        self.connections.insert((trace_id, place));
    }
}

/// Which exchange has matched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    /// Its number among those of sockets, from 1.
    of_sockets: u64,
    /// Its number among all, from 0.
    number: u32,
}

/// Finds the exchanges that `--where` holds for.
pub(super) struct Search<'a> {
    filter: &'a Filter,
    doubts: &'a Doubts,
    file: String,
    /// Exchanges whose connections decide when they end.
    backlog: Backlog,
    /// How many exchanges of sockets there were.
    exchanges: u64,
    /// How many exchanges there were.
    number: u32,
    /// What pairing tells, and the index of the input.
    paired: Option<(&'a Pairs, u32)>,
}

impl<'a> Search<'a> {
    /// `file` names the source.
    pub(super) fn new(filter: &'a Filter, doubts: &'a Doubts, file: String) -> Self {
        Self { filter, doubts, file, backlog: Backlog::default(), exchanges: 0, number: 0, paired: None }
    }

    /// Takes the next item of the stage. `found` gets the connection of each match, and which exchange it was.
    ///
    /// # Errors
    /// What waits for the ends of connections cannot be kept.
    pub(super) fn item(
        &mut self,
        item: HttpItem,
        mut found: impl FnMut(&HttpConnection, Option<Match>),
    ) -> io::Result<()> {
        let Self { filter, doubts, file, backlog, exchanges, number, paired } = self;
        match item {
            HttpItem::Exchange(exchange) => {
                let connection = &exchange.connection;
                *exchanges += u64::from(!connection.http_tap);
                let of_sockets = *exchanges;
                let exchange_match = Match { of_sockets, number: *number };
                let pairing = paired.map(|(pairs, input)| pairs.of(ExchangeId { input, number: *number }));
                *number += 1;
                let pairing = pairing.as_ref();
                let record = ExchangeRecord { exchange: &exchange, end: None, pairing, file, max_body: MAX_BODY };
                if filter.needs_end() {
                    let key = [of_sockets.to_be_bytes().as_slice(), &exchange_match.number.to_be_bytes()].concat();
                    let line = Line { key, text: Vec::new(), kept: filter.keep(record) };
                    return backlog.push(connection.number, &line);
                }
                if doubts.settle(filter.holds(record)) {
                    found(connection, Some(exchange_match));
                }
            }
            HttpItem::Request(_) => {}
            HttpItem::ConnectionEnd(end) => {
                backlog.take(end.connection.number, |line| {
                    if doubts.settle(filter.holds_for_kept(&line.kept, &end)) {
                        found(&end.connection, Match::read(&line.key));
                    }
                    Ok::<_, io::Error>(())
                })?;
                if !end.had_exchanges {
                    let exchange = Exchange::new(end.connection.clone(), end.connection.place);
                    let record = ExchangeRecord {
                        exchange: &exchange,
                        end: Some(&end),
                        pairing: None,
                        file,
                        max_body: MAX_BODY,
                    };
                    if doubts.settle(filter.holds_without_exchange(record)) {
                        found(&end.connection, None);
                    }
                }
            }
        }
        Ok(())
    }
}
