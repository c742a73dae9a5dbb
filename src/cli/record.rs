//! The arguments of `record`.

use std::path::PathBuf;

use clap::Args;

use super::RedactArgs;
use crate::tap::{Endpoint, TapSettings, TraceFormat};

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["config", "listen"]))]
#[command(group = clap::ArgGroup::new("output").multiple(true).args(["path_prefix", "pcapng"]))]
pub struct RecordArgs {
    /// Envoy bootstrap in YAML, or in JSON if FILE ends in .json. A field that record cannot honour is refused, with
    /// its path
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Accept connections here: host:port, or the path of a unix socket
    #[arg(long, value_name = "ADDR", requires_all = ["to", "output"])]
    pub listen: Option<Endpoint>,

    /// Relay connections to this address
    #[arg(long, value_name = "ADDR", requires = "listen")]
    pub to: Option<String>,

    /// What the traces' paths start with
    #[arg(long, value_name = "PREFIX", requires = "listen")]
    pub path_prefix: Option<PathBuf>,

    /// Write what clients send and receive to this capture while record runs, `-` for standard output. It has every
    /// byte, whatever the limits of the traces, and the clients' side of all listeners, even if --config taps servers
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,

    /// What is taken out of the capture.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// Permissions of the traces, the capture and new folders, in octal, whatever the umask. Whoever may read a folder
    /// may also enter it [default: 600, for the owner alone]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub mode: Option<u32>,

    /// Format of the traces
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = TraceFormat::ProtoBinary, requires = "path_prefix")]
    pub format: TraceFormat,

    /// Write events as they happen, rather than one message when the connection ends
    #[arg(long, requires = "path_prefix")]
    pub streaming: bool,

    /// Keep at most N bytes of what is read from the client: per event when streaming, otherwise per connection
    #[arg(long, value_name = "N", default_value_t = TapSettings::DEFAULT_MAX_BUFFERED_BYTES, requires = "path_prefix")]
    pub max_rx: u32,

    /// Keep at most N bytes of what is written to the client, counted likewise
    #[arg(long, value_name = "N", default_value_t = TapSettings::DEFAULT_MAX_BUFFERED_BYTES, requires = "path_prefix")]
    pub max_tx: u32,

    /// Speak TLS with clients: certificate chain in PEM
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Speak TLS with the server. Its certificate is not verified, as in Envoy without a validation context
    #[arg(long, requires = "listen")]
    pub to_tls: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o200 != 0 => Ok(mode),
        _ => Err("expected permissions in octal that let the owner write, such as 640".to_owned()),
    }
}
