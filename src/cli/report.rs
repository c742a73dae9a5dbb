//! The arguments of `report`.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{
    AUTO, From, InspectArgs, LimitArgs, OrAuto, PairArgs, RedactArgs, VerbosityArgs, filter, from, jobs, or_auto,
};
use crate::{access_log::Format, http::Filter, report::ProgressMode, timeline::Role};

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(override_usage = "tap2pcap report [OPTIONS] <INPUT>... <OUTPUT.html>")]
pub struct ReportArgs {
    /// Trace files, archives, directories, `-` for standard input; last, the page, whose name ends in .html or .htm, or `-`
    /// for standard output
    // As a conversion's.
    #[arg(required = true, num_args = 1.., value_name = "INPUT> <OUTPUT.html")]
    pub paths: Vec<PathBuf>,

    /// Only requests that this CEL expression over attributes holds for, and the connections that have some; findings
    /// are not selected
    #[arg(long = "where", value_name = "EXPR", value_parser = filter)]
    pub filter: Option<Arc<Filter>>,

    /// What is taken out.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// An access log of the same Envoy (repeatable), whose lines say where failures came from, and make pairs certain
    #[arg(long, value_name = "FILE")]
    pub access_log: Vec<PathBuf>,

    /// The format of the access log, as it stands in Envoy's configuration: the text, or the object of a json_format
    /// [default: the usual names in JSON, and the text formats of Envoy and Istio]
    #[arg(long, value_name = "FORMAT", value_parser = super::pair::format, requires = "access_log")]
    pub(crate) access_log_format: Option<Arc<Format>>,

    /// Encoding of the input, and before it what stands around the trace, the outermost first, such as gzip,json
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = AUTO, value_parser = from())]
    pub from: Vec<From>,

    /// Who opened the connections
    #[arg(long, value_name = "ROLE", default_value = AUTO, value_parser = or_auto::<Role>("By what the trace shows"))]
    pub role: OrAuto<Role>,

    /// Worker threads [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,

    /// Limits on what is read.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// A warning counts as an error
    #[arg(long)]
    pub strict: bool,

    /// Replace a page that is read-only
    #[arg(long)]
    pub force: bool,

    /// Show a progress bar
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,

    /// How much to say.
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

impl ReportArgs {
    /// What pairs the two sides.
    pub(crate) fn pair(&self) -> PairArgs {
        PairArgs { pair: true, access_log: self.access_log.clone(), access_log_format: self.access_log_format.clone() }
    }

    /// The inputs, and how they are read.
    pub(crate) fn inspect(&self) -> InspectArgs {
        let inputs = self.paths.split_last().map_or(&[][..], |(_, inputs)| inputs).to_vec();
        InspectArgs { inputs, json: false, from: self.from.clone(), limits: self.limits, verbosity: self.verbosity }
    }
}
