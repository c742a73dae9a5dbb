//! The arguments of `live`.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use clap::Args;

use super::{
    LimitArgs, OutputArgs, PacketArgs, RedactArgs, VerbosityArgs, limit, size_in_bytes, split, unpaired_filter,
};
use crate::{
    admin::{Endpoint, MatchConfig},
    capture::SplitBy,
    http::Filter,
};

/// Envoy's own limit is 1 KiB, which cuts most bodies.
const MAX_BYTES: &str = "1M";

/// The default of [`LiveArgs::max_backlog`].
pub(super) const MAX_BACKLOG: u64 = 1 << 30;

/// Where traces come from while requests pass.
#[derive(Clone, Debug)]
pub(crate) enum LiveSource {
    /// Envoy's admin endpoint.
    Admin(Endpoint),
    /// The address that Envoy's UDP sink sends to: host and port.
    Udp(String),
}

impl FromStr for LiveSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("udp://") {
            Some(place)
                if place
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) =>
            {
                Ok(Self::Udp(place.to_owned()))
            }
            Some(_) => {
                Err("expected udp://HOST:PORT, an address of this machine that Envoy's UDP sink sends to".to_owned())
            }
            None => text.parse().map(Self::Admin).map_err(|error| error.to_string()),
        }
    }
}

/// Which requests and connections are tapped.
#[derive(Debug, Args)]
pub struct TapArgs {
    /// The config_id of the tap [default: that of the only one]
    #[arg(long, value_name = "ID")]
    pub config_id: Option<String>,

    /// Tap only what this matcher of Envoy's tap holds for, in JSON or YAML [default: any_match: true]
    #[arg(long = "match", value_name = "MATCHER", value_parser = MatchConfig::parse)]
    pub(crate) matching: Option<MatchConfig>,

    /// Tap only requests with this header (repeatable). Sockets know no headers, so only HTTP taps can match
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) header: Vec<MatchConfig>,

    /// Tap only requests whose path begins with this. Only HTTP taps can match
    #[arg(long, value_name = "PREFIX", value_parser = MatchConfig::path_prefix)]
    pub(crate) path: Option<MatchConfig>,

    /// Keep at most so many bytes of what Envoy receives: of each event or part of a body, or of each trace with
    /// --max-traces
    #[arg(long, value_name = "BYTES", default_value = MAX_BYTES, value_parser = max_bytes)]
    pub max_rx: u32,

    /// Keep at most so many bytes of what Envoy sends, counted likewise
    #[arg(long, value_name = "BYTES", default_value = MAX_BYTES, value_parser = max_bytes)]
    pub max_tx: u32,

    /// End after the first N whole traces, each of which Envoy sends when its connection or request is over
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_traces: Option<u64>,

    /// End after this time, such as 30s or 5min
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,

    /// End when Envoy does, rather than wait until it is there again
    #[arg(long)]
    pub once: bool,
}

impl TapArgs {
    /// The matcher that all of the arguments together stand for.
    pub(crate) fn matching(&self) -> MatchConfig {
        let all: Vec<_> = self.matching.iter().chain(&self.header).chain(&self.path).cloned().collect();
        if all.is_empty() { MatchConfig::any() } else { MatchConfig::all(all) }
    }
}

/// Arguments of `live`.
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// Envoy's admin endpoint: http://HOST:PORT or unix:PATH. Or udp://HOST:PORT, an address of this machine that
    /// Envoy's UDP sink sends to
    #[arg(value_name = "URL")]
    pub(crate) source: LiveSource,

    /// The capture, `-` for standard output. Without it, the taps that Envoy has are listed
    #[arg(value_name = "OUTPUT")]
    pub destination: Option<PathBuf>,

    /// What is tapped.
    #[command(flatten)]
    pub tap: TapArgs,

    /// What is written.
    #[command(flatten)]
    pub output: OutputArgs,

    /// How traces become packets.
    #[command(flatten)]
    pub packets: PacketArgs,

    /// Only connections with an exchange that this CEL expression over attributes holds for, such as
    /// `response.code >= 500`. They are written once it does
    #[arg(long = "where", value_name = "EXPR", value_parser = unpaired_filter)]
    pub filter: Option<Arc<Filter>>,

    /// What is taken out.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// Several captures with numbers in their names, such as capture-00001.pcapng: one for each `connection`, or a new
    /// one after `size=N` bytes (or 100M, 1GiB) or `time=D` of the packets' time (10s, 5min)
    #[arg(long, value_name = "WHAT", value_parser = split)]
    pub split: Option<SplitBy>,

    /// Keep only the last N of the captures that --split makes
    #[arg(long, value_name = "N", value_parser = limit, requires = "split")]
    pub keep: Option<usize>,

    /// Most bytes of the stream that wait, in a temporary file, while the capture is written or read more slowly. Beyond
    /// that, the tap is paused
    #[arg(long, value_name = "BYTES", default_value_t = MAX_BACKLOG, value_parser = max_backlog)]
    pub max_backlog: u64,

    /// Limits on what is read.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// A warning counts as an error
    #[arg(long)]
    pub strict: bool,

    /// How much to say.
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

fn header(text: &str) -> Result<MatchConfig, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => MatchConfig::header(name, value),
        _ => Err("expected NAME=VALUE, such as x-request-id=1234".to_owned()),
    }
}

fn max_bytes(text: &str) -> Result<u32, String> {
    let bytes = size_in_bytes(text).and_then(|bytes| u32::try_from(bytes).ok());
    bytes.ok_or_else(|| "expected a number of bytes from 1 to 4294967295, such as 64K or 1M".to_owned())
}

/// A piece of the stream fits.
fn max_backlog(text: &str) -> Result<u64, String> {
    size_in_bytes(text)
        .filter(|bytes| *bytes >= 1 << 20)
        .ok_or_else(|| "expected a number of bytes, at least 1M, such as 64M or 1G".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration such as 30s or 5min".to_owned())
}
