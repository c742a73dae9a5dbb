//! The arguments of `open`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::ConversionArgs;

/// Arguments of `open`.
#[derive(Debug, Args)]
#[command(
    override_usage = "tap2pcap open [OPTIONS] <INPUT>... [-- <ARGS>...]",
    after_help = "\
Exit status: 0 done; 1 shown, but some input was damaged; 2 nothing could be read, or Wireshark or tshark has failed or is
not installed.

Examples:
  tap2pcap open path_0.pb                       look at a trace in Wireshark
  tap2pcap open --where 'response.code >= 500' traces/
  tap2pcap open --tshark traces/ -- -Y http     print a line for each packet that the filter holds for
  tap2pcap open --tshark path_0.pb -- -Y http -T fields -e http.host"
)]
pub struct OpenArgs {
    /// Trace files, archives, directories, or `-` for standard input; several are merged in time order
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// Start tshark rather than Wireshark
    #[arg(long)]
    pub tshark: bool,

    /// What conversions have in common.
    #[command(flatten)]
    pub conversion: ConversionArgs,

    /// Further arguments for Wireshark or tshark
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<OsString>,
}
