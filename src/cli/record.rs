//! The arguments of `record`.

use std::path::PathBuf;

use clap::Args;

use crate::tap::{Endpoint, TapSettings, TraceFormat};

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["config", "listen"]))]
#[command(group = clap::ArgGroup::new("output").multiple(true).args(["path_prefix", "pcapng"]))]
pub struct RecordArgs {
    /// Envoy bootstrap in YAML, or JSON if it ends in .json. What record cannot honour is refused by its path
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Accept connections here: host:port, or the path of a unix socket
    #[arg(long, value_name = "ADDR", requires_all = ["to", "output"])]
    pub listen: Option<Endpoint>,

    /// Relay them to here
    #[arg(long, value_name = "ADDR", requires = "listen")]
    pub to: Option<String>,

    /// What the traces' paths start with
    #[arg(long, value_name = "PREFIX", requires = "listen")]
    pub path_prefix: Option<PathBuf>,

    /// Write what clients send and get to this capture while it runs, `-` for standard output: every byte, whatever
    /// the limits of the traces. Always the side of the clients, of all listeners, also where --config taps servers
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,

    /// Permissions of the traces, the capture and folders that are made, in octal, whatever the umask. Folders may also
    /// be entered by whoever may read [default: 600, their owner's alone]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub mode: Option<u32>,

    /// Format of the traces
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = TraceFormat::ProtoBinary, requires = "path_prefix")]
    pub format: TraceFormat,

    /// Write events as they happen, rather than one message when the connection ends
    #[arg(long, requires = "path_prefix")]
    pub streaming: bool,

    /// Keep at most N bytes of what is read from the client: of each event when streaming, else of the connection
    #[arg(long, value_name = "N", default_value_t = TapSettings::DEFAULT_MAX_BUFFERED_BYTES, requires = "path_prefix")]
    pub max_rx: u32,

    /// Keep at most N bytes of what is written to the client
    #[arg(long, value_name = "N", default_value_t = TapSettings::DEFAULT_MAX_BUFFERED_BYTES, requires = "path_prefix")]
    pub max_tx: u32,

    /// Speak TLS with clients: certificate chain in PEM
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Speak TLS with the server. Like Envoy without a validation context, its certificate is not verified
    #[arg(long, requires = "listen")]
    pub to_tls: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o200 != 0 => Ok(mode),
        _ => Err("expected permissions in octal that let the owner write, such as 640".to_owned()),
    }
}
