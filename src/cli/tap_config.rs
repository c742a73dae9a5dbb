//! The arguments of `tap-config`.

use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

/// Envoy's limits are 1 KiB, which cuts nearly every body.
const MAX_BUFFERED: u32 = 1 << 20;

/// Arguments of `tap-config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tap2pcap tap-config                                     HTTP, for `curl .../tap` on the admin endpoint
  tap2pcap tap-config --socket --file /var/log/tap/path   the bytes of connections, into one file for each
  tap2pcap tap-config --socket --tls                      around the TLS that is there
  tap2pcap tap-config --for istio | kubectl apply -f -    after the label in it is changed")]
pub struct TapConfigArgs {
    /// Tap requests and responses, with the HTTP filter, which is the default
    #[arg(long, conflicts_with = "socket")]
    pub http: bool,

    /// Tap the bytes of connections, of any protocol, with the transport socket of a listener or a cluster
    #[arg(long)]
    pub socket: bool,

    /// The connections speak TLS already: show where the transport socket that is there now goes
    // clap drops a requirement that conflicts with another argument, so the conflicts are spelled out.
    #[arg(long, requires = "socket", conflicts_with = "http")]
    pub tls: bool,

    /// Record only while somebody asks the admin endpoint for it, which is the default
    #[arg(long, conflicts_with = "file")]
    pub admin: bool,

    /// What a request to the admin endpoint calls the tap
    #[arg(long, value_name = "ID", default_value = "tap", value_parser = NonEmptyStringValueParser::new(), conflicts_with = "file")]
    pub config_id: String,

    /// Record all the time, into files whose paths start with PREFIX
    #[arg(long, value_name = "PREFIX", value_parser = NonEmptyStringValueParser::new())]
    pub file: Option<String>,

    /// Keep at most N bytes of what is read from the peer: of each event of a socket, or of each HTTP body
    #[arg(long, value_name = "N", default_value_t = MAX_BUFFERED, requires = "file", conflicts_with_all = ["admin", "config_id"])]
    pub max_rx: u32,

    /// Keep at most N bytes of what is written to the peer, counted likewise
    #[arg(long, value_name = "N", default_value_t = MAX_BUFFERED, requires = "file", conflicts_with_all = ["admin", "config_id"])]
    pub max_tx: u32,

    /// What the configuration is for
    #[arg(long = "for", value_enum, value_name = "WHAT", default_value_t)]
    pub target: Target,
}

/// What reads the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Envoy: fragments to add to its configuration
    #[default]
    Envoy,
    /// Istio: an EnvoyFilter
    Istio,
}
