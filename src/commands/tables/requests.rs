//! The requests of one input as lines.

use std::{path::Path, sync::Arc};

use crate::{
    commands::{
        error::Error,
        http::{
            backlog::{Backlog, Line},
            json,
            redactor::Redactor,
        },
        select::Doubts,
    },
    http::{Exchange, ExchangeRecord, Filter, HttpConnectionEnd},
    redact::Redaction,
};

/// The requests of one input. Each waits for the end of its connection, which belongs to its line.
#[derive(Debug)]
pub(super) struct Requests<'a> {
    filter: Option<&'a Filter>,
    doubts: &'a Doubts,
    file: String,
    max_body: usize,
    redactor: Option<Redactor>,
    backlog: Backlog,
}

impl<'a> Requests<'a> {
    /// `path` is that of the trace.
    pub(super) fn new(
        path: &Path,
        filter: Option<&'a Filter>,
        doubts: &'a Doubts,
        max_body: usize,
        redaction: Option<&Arc<Redaction>>,
    ) -> Self {
        let redactor = redaction.map(|redaction| Redactor::new(redaction, path));
        let file = path.display().to_string();
        Self { filter, doubts, file, max_body, redactor, backlog: Backlog::default() }
    }

    /// Takes an exchange, and returns whether it is known to match.
    pub(super) fn exchange(&mut self, mut exchange: Box<Exchange>) -> Result<bool, Error> {
        let record = self.record(&exchange, &self.file);
        let mut kept = Vec::new();
        let mut matches = false;
        match self.filter {
            Some(filter) if filter.needs_end() => kept = filter.keep(record),
            Some(filter) => {
                matches = self.doubts.settle(filter.holds(record));
                if !matches {
                    return Ok(false);
                }
            }
            None => {}
        }
        if let Some(redactor) = &mut self.redactor {
            redactor.exchange(&mut exchange);
        }
        let file = self.redactor.as_ref().map_or(&self.file, |redactor| &redactor.file);
        let mut text = Vec::new();
        json::begin(&mut text, self.record(&exchange, file));
        self.backlog.push(exchange.connection.number, &Line { key: Vec::new(), text, kept })?;
        Ok(matches)
    }

    fn record<'r>(&self, exchange: &'r Exchange, file: &'r str) -> ExchangeRecord<'r> {
        ExchangeRecord { exchange, end: None, pairing: None, file, max_body: self.max_body }
    }

    /// Takes the end of a connection, passes on the lines of its exchanges, and returns whether it is known only now to
    /// have a match.
    pub(super) fn end(
        &mut self,
        end: &HttpConnectionEnd,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let Self { filter, doubts, backlog, redactor, .. } = self;
        let needs_end = filter.filter(|filter| filter.needs_end());
        let mut matches = false;
        backlog.take(end.connection.number, |mut line| {
            if let Some(filter) = needs_end {
                if !doubts.settle(filter.holds_for_kept(&line.kept, end)) {
                    return Ok::<_, Error>(());
                }
                matches = true;
            }
            json::end(&mut line.text, end);
            each(&line.text)
        })?;
        if let Some(redactor) = redactor {
            redactor.end(end);
        }
        if let (Some(filter), false) = (self.filter, end.had_exchanges) {
            let exchange = Exchange::new(Arc::clone(&end.connection), end.connection.place);
            let record = ExchangeRecord { end: Some(end), ..self.record(&exchange, &self.file) };
            matches |= self.doubts.settle(filter.holds_without_exchange(record));
        }
        Ok(matches)
    }

    /// Reports what was taken out of connections whose ends have not come.
    pub(super) fn end_all(&mut self) {
        self.redactor.iter_mut().for_each(Redactor::end_all);
    }
}
