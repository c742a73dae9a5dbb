//! Which requests `--where` selects: those that match, and those with an attempt that does.

use std::collections::HashSet;

use super::{
    super::{
        error::Error,
        select::{Doubts, Selection, Selector},
        settings,
    },
    sides::Sides,
};
use crate::{cli::ReportArgs, input::Input, pairing::ExchangeId, report::Verbosity, timeline::Opening};

/// What `--where` selects of all inputs.
#[derive(Debug)]
pub(super) struct Selected {
    requests: HashSet<ExchangeId>,
    connections: Vec<Option<Selection>>,
}

impl Selected {
    /// Reads all inputs once more, if there is a filter: whether one request is shown may depend on another input.
    ///
    /// # Errors
    /// A signal came.
    pub(super) fn of(
        args: &ReportArgs,
        inputs: &[Input],
        sides: &Sides,
        verbosity: Verbosity,
    ) -> Result<Option<Self>, Error> {
        let Some(filter) = &args.filter else { return Ok(None) };
        let selector = Selector { filter: filter.clone(), doubts: Doubts::default(), is_strict: args.redact.is_on() };
        let input_options = settings::input_options(&args.from, args.limits)?;
        let timeline = super::timeline_options(args);
        let jobs = settings::jobs(args.jobs);
        let (connections, matched) =
            Selection::of_all(inputs, input_options, timeline, &selector, sides.pairs(), jobs)?;
        selector.doubts.report(verbosity);
        let mut requests = HashSet::new();
        for id in matched {
            if sides.is_attempt(id) {
                requests.extend(sides.owners(id));
            } else {
                requests.insert(id);
            }
        }
        Ok(Some(Self { requests, connections }))
    }

    /// Whether a request is shown.
    pub(super) fn has(&self, id: ExchangeId) -> bool {
        self.requests.contains(&id)
    }

    /// Whether a connection matches, with or without HTTP.
    pub(super) fn has_connection(&self, input: usize, opening: &Opening) -> bool {
        self.connections.get(input).and_then(Option::as_ref).is_some_and(|selection| selection.has(opening))
    }
}
