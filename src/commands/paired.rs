//! What a conversion does with pairs: it keeps both connections of a request, and says which they are.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use super::{
    error::Error,
    names::names,
    pair::{self, PairOptions},
    select::Selection,
    settings::Settings,
};
use crate::{
    cli::PairArgs,
    input::Input,
    pairing::{Certainty, Pairs, Seen},
    synth::PairedConnection,
    trace::Place,
};

/// A connection of an input.
type Key = (u64, Place);

/// What pairing tells of each input.
#[derive(Debug, Default)]
pub(super) struct PairedInputs {
    /// By the index of the input.
    inputs: HashMap<usize, PairedInput>,
    /// The access logs.
    logs: Vec<PathBuf>,
}

/// What pairing tells of one input.
#[derive(Debug, Default)]
pub(super) struct PairedInput {
    connections: HashMap<Key, Vec<PairedConnection>>,
    /// What `--where` has selected.
    selection: Option<Selection>,
}

impl PairedInputs {
    /// Pairs the exchanges of inputs, and selects the connections with a match and those that they are paired with.
    ///
    /// # Errors
    /// An access log cannot be read, or a signal came.
    pub(super) fn of(inputs: &[Input], args: &PairArgs, settings: &Settings, is_har: bool) -> Result<Self, Error> {
        let options = PairOptions {
            input: settings.input,
            timeline: settings.timeline,
            is_strict: settings.redaction.is_some(),
            jobs: Some(settings.jobs),
            verbosity: settings.verbosity,
        };
        let pairs = pair::pair(inputs, args, options)?.pairs;
        let mut selections = select(inputs, &pairs, settings, is_har)?;
        let mut connections = connections(inputs, &pairs, settings);
        let of_input = |(index, input): (usize, &Input)| {
            let paired = PairedInput {
                connections: std::mem::take(&mut connections[index]),
                selection: selections.get_mut(index).and_then(Option::take),
            };
            (input.index, paired)
        };
        Ok(Self { logs: args.access_log.clone(), inputs: inputs.iter().enumerate().map(of_input).collect() })
    }

    /// The access logs.
    pub(super) fn logs(&self) -> &[PathBuf] {
        &self.logs
    }

    /// What was selected of the input with this index.
    pub(super) fn selection(&self, input: usize) -> Option<&Selection> {
        self.inputs.get(&input)?.selection.as_ref()
    }

    /// The connections that one of this input is paired with.
    pub(super) fn connections(&self, input: usize, trace_id: u64, place: Place) -> &[PairedConnection] {
        let input = self.inputs.get(&input);
        input.and_then(|input| input.connections.get(&(trace_id, place))).map(Vec::as_slice).unwrap_or_default()
    }
}

/// What `--where` selects of each input. A capture has both connections of a request; HAR has the exchanges that match.
fn select(inputs: &[Input], pairs: &Pairs, settings: &Settings, is_har: bool) -> Result<Vec<Option<Selection>>, Error> {
    let Some(selector) = &settings.selector else { return Ok(Vec::new()) };
    let (mut selections, matched) =
        Selection::of_all(inputs, settings.input, settings.timeline, selector, pairs, settings.jobs)?;
    if !is_har {
        for id in matched {
            for other in pairs.attempts(id).into_iter().chain(pairs.owner(id)) {
                if let Some(Some(selection)) = selections.get_mut(other.id.input as usize) {
                    selection.add_connection(other.connection_id, other.connection_place);
                }
            }
        }
    }
    Ok(selections)
}

/// The paired connections of each input.
fn connections(inputs: &[Input], pairs: &Pairs, settings: &Settings) -> Vec<HashMap<Key, Vec<PairedConnection>>> {
    let key = |seen: &Seen| (seen.id.input, seen.connection_id, seen.connection_place);
    // Both connections, each with its input, and what is known of them.
    let mut links = BTreeMap::new();
    for (client, upstream, certainty) in pairs.iter() {
        for (own, other, is_upstream) in [(client, upstream, true), (upstream, client, false)] {
            let (requests, least) =
                links.entry((key(own), key(other), is_upstream)).or_insert((0_u64, Certainty::Certain));
            *requests += 1;
            *least = certainty.min(*least);
        }
    }
    let redaction = settings.redaction.as_deref();
    let names: Vec<_> = names(inputs).into_iter().map(|name| name.redacted(redaction).shown).collect();
    let mut found: Vec<HashMap<Key, Vec<PairedConnection>>> = inputs.iter().map(|_| HashMap::new()).collect();
    for (((input, trace_id, place), (other, other_id, _), is_upstream), (requests, certainty)) in links {
        let trace_id_shown = redaction.map_or(other_id, |redaction| redaction.trace_id(other_id));
        let paired = PairedConnection {
            trace_file: names.get(other as usize).cloned().unwrap_or_default(),
            trace_id: trace_id_shown,
            is_upstream,
            requests,
            certainty,
        };
        if let Some(input) = found.get_mut(input as usize) {
            input.entry((trace_id, place)).or_default().push(paired);
        }
    }
    found
}
