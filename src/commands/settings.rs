//! The settings that a command's arguments stand for.

use std::sync::Arc;

use super::{
    error::Error,
    paired::PairedInputs,
    redaction::redaction,
    select::{Doubts, Selection, Selector},
};
use crate::{
    capture::{OutputOptions, SplitBy},
    cli::{self, ConversionArgs, OrAuto, PacketArgs},
    http::Filter,
    input::{self, Encoding, Input, InputError, Layers},
    redact::Redaction,
    report::Verbosity,
    synth::{self, SettingNames},
    timeline::{self, HttpOptions, Mappings, Role, RoleChoice},
};

/// What comments in a capture call the settings: the names of the options that give them.
const NAMES: SettingNames = SettingNames { role: "--role", start_time: "--start-time", mss: "--mss", map: "--map" };

/// The settings of a conversion.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub input: input::SourceOptions,
    pub timeline: timeline::TimelineOptions,
    pub synth: synth::SynthOptions,
    pub mappings: Mappings,
    pub strict: bool,
    pub verbosity: Verbosity,
    /// Worker threads.
    pub jobs: usize,
    pub output: OutputOptions,
    /// Selects connections.
    pub selector: Option<Arc<Selector>>,
    /// What pairing tells of the inputs, once they are known.
    pub paired: Option<Arc<PairedInputs>>,
    /// What gets a capture of its own.
    pub split: Option<SplitBy>,
    /// What is taken out of the output.
    pub redaction: Option<Arc<Redaction>>,
}

impl Settings {
    #[cfg(feature = "record")]
    /// The settings for a tap on the client's side that records in the encoding of a [`pipe`](crate::tap::pipe()).
    pub(super) fn of_live_tap(redaction: Option<Arc<Redaction>>) -> Self {
        Self {
            input: input::SourceOptions { encoding: Some(Encoding::Delimited), ..input::SourceOptions::default() },
            timeline: timeline::TimelineOptions {
                role: RoleChoice::Known(Role::Downstream),
                ..timeline::TimelineOptions::default()
            },
            synth: synth::SynthOptions { redacted: redacted(redaction.as_deref()), ..synth::SynthOptions::default() },
            mappings: mappings(Vec::new(), redaction.as_ref()),
            strict: false,
            verbosity: Verbosity::Normal,
            jobs: 1,
            output: OutputOptions::default(),
            selector: None,
            paired: None,
            split: None,
            redaction,
        }
    }

    /// The settings of `live`. The format of the output is still to be set.
    #[cfg(feature = "live")]
    pub(super) fn of_live(args: &cli::LiveArgs) -> Result<Self, Error> {
        let redaction = redaction(&args.redact)?;
        Ok(Self {
            input: input_options(&[], args.limits)?,
            timeline: timeline_options(&args.packets, args.limits),
            synth: synth::SynthOptions { redacted: redacted(redaction.as_deref()), ..synth_options(&args.packets) },
            mappings: mappings(args.packets.map.clone(), redaction.as_ref()),
            strict: args.strict,
            verbosity: verbosity(args.verbosity),
            jobs: 1,
            output: OutputOptions { force: args.output.force, ..OutputOptions::default() },
            selector: selector(args.filter.as_ref(), redaction.is_some()),
            paired: None,
            split: args.split,
            redaction,
        })
    }

    pub(super) fn new(args: &ConversionArgs) -> Result<Self, Error> {
        let redaction = redaction(&args.redact)?;
        Ok(Self {
            input: input_options(&args.from, args.limits)?,
            timeline: timeline::TimelineOptions {
                start_time: args.start_time,
                ..timeline_options(&args.packets, args.limits)
            },
            synth: synth::SynthOptions { redacted: redacted(redaction.as_deref()), ..synth_options(&args.packets) },
            mappings: mappings(args.packets.map.clone(), redaction.as_ref()),
            strict: args.strict,
            verbosity: verbosity(args.verbosity),
            jobs: jobs(args.jobs),
            output: OutputOptions::default(),
            selector: selector(args.filter.as_ref(), redaction.is_some()),
            paired: None,
            split: None,
            redaction,
        })
    }

    /// What `--where` keeps of an input; `None` if that is all. Without pairs, the input is read for it.
    ///
    /// # Errors
    /// The input cannot be opened.
    pub(super) fn selection(&self, input: &Input) -> Result<Option<Selection>, InputError> {
        let Some(selector) = &self.selector else { return Ok(None) };
        match self.paired.as_ref().and_then(|paired| paired.selection(input.index)) {
            Some(known) => Ok(Some(known.clone())),
            None => Selection::of(input, self.input, self.timeline, selector).map(Some),
        }
    }
}

/// What rewrites addresses: first the user's rules, then redaction.
pub(super) fn mappings(rules: Vec<timeline::Mapping>, redaction: Option<&Arc<Redaction>>) -> Mappings {
    let mappings = Mappings::from(rules);
    match redaction.filter(|redaction| redaction.addresses.is_some()) {
        Some(redaction) => mappings.with_pseudonyms(Arc::<Redaction>::clone(redaction)),
        None => mappings,
    }
}

pub(super) fn input_options(from: &[cli::From], limits: cli::LimitArgs) -> Result<input::SourceOptions, Error> {
    let (mut layers, mut encoding) = (Vec::new(), None);
    for word in from {
        if let (Some(encoding), false) = (encoding, *word == cli::From::Auto) {
            let encoding: Encoding = encoding;
            let name = encoding.name();
            return Err(Error::Arguments(format!("--from: {name} is the trace itself, so nothing can follow it")));
        }
        match word {
            cli::From::Auto => {}
            cli::From::Layer(layer) => layers.push(*layer),
            cli::From::Encoding(given) => encoding = Some(*given),
        }
    }
    let layers = Layers::new(&layers)
        .ok_or_else(|| Error::Arguments(format!("--from: more than {} layers", input::MAX_LAYERS)))?;
    Ok(input::SourceOptions {
        encoding,
        layers,
        read_size: None,
        max_message: Some(limits.max_message),
        max_events: Some(limits.max_events),
        max_headers: Some(limits.max_headers),
    })
}

fn timeline_options(packets: &PacketArgs, limits: cli::LimitArgs) -> timeline::TimelineOptions {
    timeline::TimelineOptions {
        role: role(packets.role),
        max_connections: Some(limits.max_connections),
        http: HttpOptions { version: packets.http, side: packets.side },
        ..timeline::TimelineOptions::default()
    }
}

fn selector(filter: Option<&Arc<Filter>>, is_strict: bool) -> Option<Arc<Selector>> {
    filter.map(|filter| Arc::new(Selector { filter: Arc::clone(filter), doubts: Doubts::default(), is_strict }))
}

fn synth_options(args: &PacketArgs) -> synth::SynthOptions {
    synth::SynthOptions { tcp: args.tcp, truncated: args.truncated, mss: args.mss, names: &NAMES, redacted: None }
}

/// What comments say of redaction.
fn redacted(redaction: Option<&Redaction>) -> Option<synth::Redacted> {
    redaction.map(|redaction| synth::Redacted {
        bodies: redaction.bodies,
        keeps_unknown: redaction.keep_unknown,
        addresses: redaction.addresses.is_some(),
        names: redaction.names,
    })
}

pub(super) fn role(role: OrAuto<Role>) -> RoleChoice {
    role.map_or(RoleChoice::Auto, RoleChoice::Always)
}

pub(super) fn verbosity(verbosity: cli::VerbosityArgs) -> Verbosity {
    match verbosity {
        cli::VerbosityArgs { quiet: true, .. } => Verbosity::Quiet,
        cli::VerbosityArgs { verbose: true, .. } => Verbosity::Verbose,
        cli::VerbosityArgs { .. } => Verbosity::Normal,
    }
}

/// How many files one job may have open: its trace, its capture, and both once more in the thread that writes.
const FILES_OF_A_JOB: u64 = 4;

pub(super) fn jobs(given: Option<usize>) -> usize {
    let wanted = given.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    // Jobs get half of what the process may open: traces between two reads and the rest of the program need some as
    // well.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let max = usize::try_from(files / 2 / FILES_OF_A_JOB).unwrap_or(usize::MAX);
    wanted.min(max).max(1)
}
