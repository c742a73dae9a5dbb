//! The arguments of what pairs the two sides of a request.

use std::{path::PathBuf, sync::Arc};

use clap::Args;

use crate::access_log::Format;

/// Which exchanges with upstreams belong to which exchange with a client.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// Pair the exchanges with clients and with upstreams that are of one request, which reads the inputs twice. This
    /// gives upstream.address, upstream.connection.id, upstream.request_attempt_count, envoy.request_latency,
    /// envoy.response_latency and pairing. It is done too where --where or --sort names one of them. A capture says in
    /// comments which connections carried the same requests, and --where keeps both
    #[arg(long)]
    pub pair: bool,

    /// An access log of the same Envoy, whose lines with %CONNECTION_ID% and %UPSTREAM_CONNECTION_ID% make pairs certain;
    /// includes --pair
    #[arg(long, value_name = "FILE")]
    pub access_log: Vec<PathBuf>,

    /// The format of the access log, as it stands in Envoy's configuration: the text, or the object of a json_format
    /// [default: the usual names in JSON, and the text formats of Envoy and Istio]
    #[arg(long, value_name = "FORMAT", value_parser = format, requires = "access_log")]
    pub(crate) access_log_format: Option<Arc<Format>>,
}

impl PairArgs {
    /// Whether these arguments ask for it.
    pub(crate) fn is_on(&self) -> bool {
        self.pair || !self.access_log.is_empty()
    }
}

pub(super) fn format(text: &str) -> Result<Arc<Format>, String> {
    Format::parse(text).map(Arc::new).map_err(|error| error.to_string())
}
