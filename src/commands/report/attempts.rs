//! What Envoy and the upstreams said in the attempts of requests that are shown with their messages. Only when all inputs
//! were read is it known which requests these are, so that the inputs of their attempts are read once more.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        error::Error,
        inspect::{self, Item},
        settings,
        turns::Turns,
    },
    detail, reading,
};
use crate::{
    cli::ReportArgs,
    http::HttpItem,
    input::Input,
    interrupt, page,
    pairing::ExchangeId,
    redact::{self, Counts, Redaction},
};

/// How many attempts of one request are shown with their messages.
pub(super) const MAX_TOLD: usize = 5;

/// How many bytes of attempts a page has.
const MAX_BYTES: usize = 4 << 20;

/// Where an attempt is told: the index of the request's details, and that of the attempt.
type Place = (usize, usize);

/// What was read before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traces<'a> {
    pub args: &'a ReportArgs,
    pub inputs: &'a [Input],
    pub redaction: Option<&'a Arc<Redaction>>,
}

/// Adds to the details of a page what was said in attempts, which are given for each.
///
/// # Errors
/// A signal came.
pub(super) fn add(page: &mut page::Page, attempts: &[Vec<ExchangeId>], traces: Traces<'_>) -> Result<(), Error> {
    let mut wanted: HashMap<usize, HashMap<u64, Vec<Place>>> = HashMap::new();
    for (index, ids) in attempts.iter().enumerate() {
        for (attempt, id) in ids.iter().enumerate() {
            let of_input = wanted.entry(id.input as usize).or_default();
            of_input.entry(u64::from(id.number)).or_default().push((index, attempt));
        }
        page.details[index].attempts = vec![page::Exchange::default(); ids.len()];
    }
    let mut inputs: Vec<usize> = wanted.keys().copied().collect();
    inputs.sort_unstable();
    let found = Turns::new(Vec::new());
    found.run(settings::jobs(traces.args.jobs), inputs.len(), || {
        found.each(&inputs, |_, input| {
            let mut told = read(traces, *input, &wanted[input])?;
            found.with(|found| found.append(&mut told));
            Ok(())
        });
    });
    let mut found = found.finish()?;
    found.sort_unstable_by_key(|(place, _)| *place);
    let mut room = MAX_BYTES;
    for ((detail, attempt), exchange) in found {
        let Some(left) = room.checked_sub(size(&exchange)) else { break };
        room = left;
        page.details[detail].attempts[attempt] = exchange;
    }
    interrupt::signal().map_or(Ok(()), |signal| Err(Error::Signal(signal)))
}

/// How many bytes of an exchange are shown.
fn size(exchange: &page::Exchange) -> usize {
    let messages = exchange.request.iter().chain(&exchange.response);
    let of_message = |message: &page::Message| {
        let fields = message.fields.iter().chain(&message.trailers);
        message.line.len()
            + message.body.shown.len()
            + fields.map(|(name, value)| name.len() + value.len()).sum::<usize>()
    };
    messages.map(of_message).sum()
}

/// Reads the exchanges with these numbers in one input.
fn read(
    traces: Traces<'_>,
    index: usize,
    wanted: &HashMap<u64, Vec<Place>>,
) -> Result<Vec<(Place, page::Exchange)>, Error> {
    let Some(input) = traces.inputs.get(index) else { return Ok(Vec::new()) };
    let reading = reading(traces.args, traces.redaction)?;
    let (mut told, mut number, mut left) = (Vec::new(), 0, wanted.len());
    let read = inspect::read(input, reading, |item| {
        let Item::Http(HttpItem::Exchange(mut exchange)) = item else { return Ok(()) };
        if let Some(places) = wanted.get(&number) {
            if let Some(redaction) = traces.redaction {
                // It was counted when the page was made.
                redact::exchange(redaction, &mut exchange, &mut Counts::default());
            }
            let said = detail::exchange(&exchange);
            told.extend(places.iter().map(|place| (*place, said.clone())));
            left -= 1;
        }
        number += 1;
        if left == 0 { Err(Error::Stopped) } else { Ok(()) }
    });
    match read {
        // What is wrong with the input was told before.
        Ok(()) | Err(Error::Stopped | Error::Input(_)) => Ok(told),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        commands::{
            inspect::Reading,
            pair::{self, PairOptions},
        },
        http::{HttpStage, HttpStageOptions},
        input::{SourceOptions, discover},
        report::Verbosity,
        timeline::TimelineOptions,
    };

    /// Pairing, the page and its attempts know an exchange by its number, and each reads the traces anew.
    #[test]
    fn exchanges_have_the_same_numbers_whoever_reads_them() {
        let testdata = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"));
        let found = discover(&[testdata], SourceOptions::default());
        let (mut exchanges, mut taps) = (0, 0);
        for (input, is_strict) in found.inputs.iter().flat_map(|input| [(input, false), (input, true)]) {
            let options = PairOptions {
                input: SourceOptions::default(),
                timeline: TimelineOptions::default(),
                is_strict,
                jobs: None,
                verbosity: Verbosity::Quiet,
            };
            let mut seen = pair::read(input, 0, options).into_iter();
            let mut http = HttpStage::new(HttpStageOptions { all_connections: true, ..HttpStageOptions::default() });
            if is_strict {
                http.be_strict();
            }
            let reading = Reading { http: Some(http), ..Reading::default() };
            let read = inspect::read(input, reading, |item| {
                if let Item::Http(HttpItem::Exchange(exchange)) = item {
                    let connection = &exchange.connection;
                    let own = (connection.trace_id, connection.place, connection.http_tap, exchange.request.began);
                    let other = seen.next();
                    let other = other.map(|seen| (seen.connection_id, seen.connection_place, seen.is_tap, seen.began));
                    assert_eq!(other, Some(own), "{}", input.path().display());
                    exchanges += 1;
                    taps += usize::from(connection.http_tap);
                }
                Ok(())
            });
            assert!(read.is_err() || seen.next().is_none(), "{}", input.path().display());
        }
        assert!(exchanges > 500 && taps > 50, "{exchanges} {taps}");
    }
}
