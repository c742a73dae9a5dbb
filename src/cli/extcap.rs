//! The arguments of `extcap`, and those that Wireshark gives a program in its extcap folder.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, CommandFactory as _, Parser, error::ErrorKind};

use super::{
    LimitArgs, LiveArgs, LiveSource, OutputArgs, OutputFormat, PacketArgs, RedactArgs, TapArgs, VerbosityArgs,
    live::MAX_BACKLOG, unpaired_filter,
};
use crate::http::Filter;

/// Envoy's admin endpoint in most of its documentation.
pub(crate) const ENDPOINT: &str = "http://127.0.0.1:9901";

/// The name of the link in Wireshark's extcap folder. A program that is called by it is called by Wireshark.
pub(crate) const LINK: &str = "tap2pcap-extcap";

/// Arguments of `extcap`, for people.
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    override_usage = "tap2pcap extcap --install [--system]\n       tap2pcap extcap --uninstall [--system]"
)]
pub struct ExtcapArgs {
    /// Put a link to this program into Wireshark's personal extcap folder
    #[arg(long, required_unless_present = "uninstall")]
    pub install: bool,

    /// Remove that link
    #[arg(long, conflicts_with = "install")]
    pub uninstall: bool,

    /// Use the extcap folder of all users
    #[arg(long)]
    pub system: bool,
}

/// How Wireshark calls a program in its extcap folder. Its documentation has this under "Extcap".
#[derive(Debug, Parser)]
#[command(
    name = LINK,
    version,
    about = "Wireshark calls this program by itself. `tap2pcap extcap --help` says how to install it.",
    disable_help_flag = true
)]
pub(crate) struct ExtcapCall {
    /// List the interfaces
    #[arg(long)]
    pub extcap_interfaces: bool,

    /// Wireshark's version
    #[arg(long, value_name = "VERSION")]
    pub extcap_version: Option<String>,

    /// The interface that the call is about
    #[arg(long, value_name = "NAME")]
    pub extcap_interface: Option<String>,

    /// List the link types of the interface
    #[arg(long)]
    pub extcap_dlts: bool,

    /// List the options of the interface
    #[arg(long)]
    pub extcap_config: bool,

    /// List the values of this option alone
    #[arg(long, value_name = "OPTION", requires = "extcap_config")]
    pub extcap_reload_option: Option<String>,

    /// Capture
    #[arg(long, requires = "fifo")]
    pub capture: bool,

    /// Where the capture goes
    #[arg(long, value_name = "PATH")]
    pub fifo: Option<PathBuf>,

    /// A capture filter to check, or to use
    #[arg(long, value_name = "FILTER")]
    pub extcap_capture_filter: Option<String>,

    /// A pipe with commands of a toolbar
    #[arg(long, value_name = "PATH")]
    pub extcap_control_in: Option<PathBuf>,

    /// A pipe for commands to a toolbar
    #[arg(long, value_name = "PATH")]
    pub extcap_control_out: Option<PathBuf>,

    /// Envoy's admin endpoint, or where its UDP sink sends to
    #[arg(long, value_name = "URL", default_value = ENDPOINT)]
    pub endpoint: LiveSource,

    /// What is tapped.
    #[command(flatten)]
    pub tap: TapArgs,

    /// How traces become packets.
    #[command(flatten)]
    pub packets: PacketArgs,

    /// Only connections with an exchange that this CEL expression holds for
    #[arg(long = "where", value_name = "EXPR", value_parser = unpaired_filter)]
    pub filter: Option<Arc<Filter>>,

    /// Limits on what is read.
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl ExtcapCall {
    /// What follows the program's name in a call from Wireshark. `None` if a person calls, so that these are not the
    /// arguments of an extcap.
    pub(crate) fn recognise(mut args: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
        let is_link = args.next().is_some_and(|name| Path::new(&name).file_name() == Some(OsStr::new(LINK)));
        let mut args: Vec<_> = args.collect();
        let is_call = |arg: Option<&OsString>| {
            arg.is_some_and(|arg| arg == "--capture" || arg.as_encoded_bytes().starts_with(b"--extcap-"))
        };
        if !is_link && args.first().is_some_and(|arg| arg == "extcap") && is_call(args.get(1)) {
            args.remove(0);
        }
        (is_link || is_call(args.first())).then_some(args)
    }

    /// Reads the arguments of a call.
    ///
    /// # Errors
    /// Why they are no call, in one sentence.
    pub(crate) fn read(args: Vec<OsString>) -> Result<Self, String> {
        let args = std::iter::once(OsString::from(LINK)).chain(tidy(args));
        Self::try_parse_from(args).map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.exit(),
            _ => sentence(&error.to_string()),
        })
    }

    /// Whether these arguments ask for the values of an option. Wireshark passes all others as they are at that moment,
    /// complete or not.
    pub(crate) fn asks_for_values(args: &[OsString]) -> bool {
        args.iter().any(|arg| arg == "--extcap-reload-option")
    }

    /// The pipe that a call to capture names, whether its other arguments are valid or not.
    pub(crate) fn fifo_of(args: &[OsString]) -> Option<PathBuf> {
        let captures = args.iter().any(|arg| arg == "--capture");
        let at = args.iter().position(|arg| arg == "--fifo").filter(|_| captures)?;
        args.get(at + 1).map(PathBuf::from)
    }

    /// The arguments of `live` that capture the same into `fifo`.
    pub(crate) fn live(self, fifo: PathBuf) -> LiveArgs {
        LiveArgs {
            source: self.endpoint,
            destination: Some(fifo),
            tap: self.tap,
            output: OutputArgs { format: Some(OutputFormat::Pcapng), precision: None, force: false },
            packets: self.packets,
            filter: self.filter,
            redact: RedactArgs::default(),
            split: None,
            keep: None,
            max_backlog: MAX_BACKLOG,
            limits: self.limits,
            strict: false,
            // Wireshark shows everything on standard error as an error.
            verbosity: VerbosityArgs { quiet: true, verbose: false },
        }
    }
}

/// Puts a call's arguments into a form that clap takes for what Wireshark means.
fn tidy(args: Vec<OsString>) -> Vec<OsString> {
    let reloads = ExtcapCall::asks_for_values(&args);
    let command = ExtcapCall::command();
    let takes_value = |name: &str| {
        let known = command.get_arguments().find(|arg| arg.get_long() == Some(name));
        known.map(|arg| arg.get_action().takes_values())
    };
    let mut tidied = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let Some(option) = arg.to_str().and_then(|arg| arg.strip_prefix("--")) else {
            // Wireshark's reload passes an empty value after an option that takes none.
            if !arg.is_empty() {
                tidied.push(arg);
            }
            continue;
        };
        let (name, joined) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let is_protocol = name.starts_with("extcap-") || matches!(name, "capture" | "fifo" | "endpoint");
        match (takes_value(name), joined) {
            // An option of a later Wireshark, with its value.
            (None, joined) if name.starts_with("extcap-") => {
                let is_value = |next: &OsString| !next.as_encoded_bytes().starts_with(b"--");
                if joined.is_none() {
                    args.next_if(is_value);
                }
            }
            (Some(true), None) => {
                // A field of the dialog that was left empty is an option that is not given.
                let Some(value) = args.next() else {
                    tidied.push(arg);
                    continue;
                };
                if !value.is_empty() && (is_protocol || !reloads) {
                    // Joined, because a value may begin with a hyphen.
                    let mut whole = OsString::from(format!("--{name}="));
                    whole.push(value);
                    tidied.push(whole);
                }
            }
            (Some(true), Some("")) => {}
            _ if is_protocol || !reloads => tidied.push(arg),
            _ => {}
        }
    }
    tidied
}

/// The sentence in an error of clap's, without the usage that follows it.
fn sentence(error: &str) -> String {
    let text = error.strip_prefix("error: ").unwrap_or(error);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|part| text.find(part)).min();
    text[..end.unwrap_or(text.len())].split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn calls_from_wireshark_are_known_by_the_name_of_the_link_or_by_their_first_argument() {
        for (args, expected) in [
            (&["/x/tap2pcap-extcap", "--extcap-interfaces"][..], Some(&["--extcap-interfaces"][..])),
            (&["/x/tap2pcap-extcap"], Some(&[])),
            (&["tap2pcap", "--capture", "--fifo", "x"], Some(&["--capture", "--fifo", "x"])),
            (&["tap2pcap", "extcap", "--extcap-dlts"], Some(&["--extcap-dlts"])),
            (&["tap2pcap", "extcap", "--install"], None),
            (&["tap2pcap", "extcap"], None),
            (&["tap2pcap", "a.pb", "--extcap-dlts"], None),
            (&["tap2pcap", "extcap", "a.pcap"], None),
        ] {
            let got = ExtcapCall::recognise(strings(args).into_iter());
            assert_eq!(got, expected.map(strings), "{args:?}");
        }
    }

    #[test]
    fn empty_values_are_no_values_and_options_of_later_versions_are_passed_over() {
        let args = ["--capture", "--path", "", "--once", "", "--fifo=f", "--extcap-new", "3", "--where", "-1 < 2"];
        let tidied = tidy(strings(&args));
        assert_eq!(tidied, strings(&["--capture", "--once", "--fifo=f", "--where=-1 < 2"]));
        let args = ["--extcap-later", "--extcap-config", "--extcap-x=y", "--extcap-interface", "i"];
        assert_eq!(tidy(strings(&args)), strings(&["--extcap-config", "--extcap-interface=i"]));
    }

    #[test]
    fn values_of_other_options_do_not_keep_a_list_from_being_reloaded() {
        let args = ["--extcap-config", "--extcap-reload-option", "config-id", "--match", "{", "--endpoint", "unix:x"];
        let tidied = tidy(strings(&args));
        assert_eq!(tidied, strings(&["--extcap-config", "--extcap-reload-option=config-id", "--endpoint=unix:x"]));
    }
}
