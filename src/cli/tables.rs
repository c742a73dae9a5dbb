//! The arguments of `tables`.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use super::{
    AUTO, From, InspectArgs, LimitArgs, OrAuto, RedactArgs, VerbosityArgs, from, jobs, max_body, or_auto,
    unpaired_filter,
};
use crate::{http::Filter, report::ProgressMode, timeline::Role};

/// Arguments of `tables`.
#[derive(Debug, Args)]
#[command(override_usage = "tap2pcap tables [OPTIONS] <INPUT>... <DIRECTORY>")]
pub struct TablesArgs {
    /// Trace files, archives, directories, `-` for standard input; last, the directory of the tables, which is made if
    /// it is missing, or `-` for all lines on standard output, each with its `table`
    // As a conversion's.
    #[arg(required = true, num_args = 1.., value_name = "INPUT> <DIRECTORY")]
    pub paths: Vec<PathBuf>,

    /// Pack the tables with Zstandard: connections.ndjson.zst and so on
    #[arg(long)]
    pub zst: bool,

    /// What the lines call standard input instead of `-`
    #[arg(long, value_name = "NAME")]
    pub stdin_name: Option<PathBuf>,

    /// Only requests that this CEL expression over attributes holds for, and the connections that have some; findings
    /// are not selected
    #[arg(long = "where", value_name = "EXPR", value_parser = unpaired_filter)]
    pub filter: Option<Arc<Filter>>,

    /// What is taken out.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// Bytes of each body that are kept, for request.body and response.body
    #[arg(long, value_name = "BYTES", default_value_t = crate::http::MAX_BODY, value_parser = max_body)]
    pub max_body: usize,

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

    /// Replace tables that are read-only
    #[arg(long)]
    pub force: bool,

    /// Show a progress bar
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,

    /// How much to say.
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

impl TablesArgs {
    /// The inputs, and how they are read.
    pub(crate) fn inspect(&self) -> InspectArgs {
        let inputs = self.paths.split_last().map_or(&[][..], |(_, inputs)| inputs).to_vec();
        InspectArgs { inputs, json: true, from: self.from.clone(), limits: self.limits, verbosity: self.verbosity }
    }
}
