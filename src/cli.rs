//! The command line: types only. `commands/` gives them their meaning.

#[cfg(feature = "live")]
mod extcap;
#[cfg(feature = "live")]
mod live;
mod open;
mod pair;
#[cfg(feature = "record")]
mod record;
mod redact;
#[cfg(feature = "report")]
mod report;
mod tables;
mod tap_config;

use std::{path::PathBuf, sync::Arc};

use clap::{
    Args, CommandFactory as _, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
    error::ErrorKind,
};

#[cfg(feature = "live")]
pub(crate) use self::extcap::{ENDPOINT as EXTCAP_ENDPOINT, ExtcapArgs, ExtcapCall, LINK as EXTCAP_LINK};
#[cfg(feature = "live")]
pub(crate) use self::live::{LiveArgs, LiveSource, TapArgs};
pub(crate) use self::open::OpenArgs;
pub(crate) use self::pair::PairArgs;
#[cfg(feature = "record")]
pub(crate) use self::record::RecordArgs;
pub(crate) use self::redact::RedactArgs;
#[cfg(feature = "report")]
pub(crate) use self::report::ReportArgs;
pub(crate) use self::tables::TablesArgs;
pub(crate) use self::tap_config::{TapConfigArgs, Target};
use crate::{
    capture::SplitBy,
    http::{Attribute, Filter},
    input::{Encoding, Layer},
    report::ProgressMode,
    synth::{TcpMode, TruncatedMode},
    timeline::{Mapping, Role, SideChoice, VersionChoice},
    trace::Nanos,
};

/// Convert Envoy tap traces to captures that Wireshark, tshark and tcpdump open.
#[derive(Debug, Parser)]
#[command(
    name = "tap2pcap",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100,
    override_usage = "tap2pcap [OPTIONS] <INPUT>... <OUTPUT>\n       tap2pcap <COMMAND>",
    after_help = "\
INPUT is a trace file, an archive (tar, ZIP) or a directory of them, or `-` (standard input). What is packed is unpacked,
and what else stands around a trace is taken off: the head of an HTTP response, log lines, a terminal session, and more.
In a directory or an archive, a file with a trace's suffix counts as a trace; any other file is judged by its first
bytes. OUTPUT is a capture file (several inputs are merged in time order), a directory (one capture per trace), or `-`
(standard output).

OUTPUT's suffix says what is written: .pcapng (also .ntar, or no suffix), .pcap (also .cap, .dmp) or .har. If .gz or
.zst follows, the output is packed. Any other suffix needs -F.

Exit status: 0 done; 1 done, but some input was damaged; 2 not done, and no output was written.

Examples:
  tap2pcap path_0.pb path_0.pcapng           convert a trace
  tap2pcap path_0.pb - | tshark -r -         look at it without a file
  tap2pcap traces/ all.pcapng                merge a directory in time order
  tap2pcap traces/ captures/                 one capture per trace
  tap2pcap traces/ exchanges.har             the HTTP in traces, for browsers' tools
  curl -s ... /tap | tap2pcap - - | tshark -r -"
)]
pub struct Cli {
    /// What to do instead of a conversion.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// What to convert.
    #[command(flatten)]
    pub convert: ConvertArgs,
}

impl Cli {
    /// Reads the process's arguments. If they are wrong, or ask for help, this ends the process.
    pub(crate) fn read() -> Self {
        let cli = Self::parse();
        if let Some(error) = cli.lacks_output() {
            error.exit();
        }
        cli
    }

    /// The error if there is an input, but no output.
    fn lacks_output(&self) -> Option<clap::Error> {
        let (paths, subcommand, output) = match &self.command {
            None => (&self.convert.paths, None, "OUTPUT"),
            Some(Command::Tables(args)) => (&args.paths, Some("tables"), "DIRECTORY"),
            #[cfg(feature = "report")]
            Some(Command::Report(args)) => (&args.paths, Some("report"), "OUTPUT.html"),
            Some(_) => return None,
        };
        if paths.len() > 1 {
            return None;
        }
        let mut program = Self::command();
        program.build();
        let command = match subcommand {
            Some(name) => program.find_subcommand_mut(name)?,
            None => &mut program,
        };
        // The words are clap's.
        let message = format!("the following required arguments were not provided:\n  <{output}>");
        Some(command.error(ErrorKind::MissingRequiredArgument, message))
    }
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check traces, change nothing
    ///
    /// Prints every finding: severity, code, place and what is wrong. Exit status: 0 nothing wrong; 1 there is an error
    /// or, with --strict, a warning; 2 nothing could be read.
    Validate(ValidateArgs),
    /// What is in traces, and how to open their captures
    ///
    /// Of several traces, a summary and one line for each connection; all that is known of each with -v, as of a single
    /// trace.
    Info(InfoArgs),
    /// The HTTP requests in traces, those of socket taps included
    ///
    /// Reads HTTP/1, HTTP/2, gRPC and WebSocket out of the bytes of connections, whatever their ports, and takes the
    /// exchanges of HTTP taps as they were recorded. Without --json, it prints a table, newest last; a status that ends
    /// with `!` belongs to an exchange of which something is missing. Exit status: 0 done; 1 some input was damaged;
    /// 2 nothing could be read.
    Http(HttpArgs),
    /// Connections, requests and findings of traces as three tables, each trace read once
    ///
    /// Writes connections.ndjson, requests.ndjson and findings.ndjson: the lines of `info --json`, `http --json` and
    /// `validate --json`. All three appear when they are complete, and older ones are replaced only then. Exit status:
    /// 0 done; 1 some input was damaged; 2 nothing could be read, and no table was written.
    Tables(TablesArgs),
    #[cfg(feature = "report")]
    /// A page that shows what happened: requests over time, routes, failures and where they came from
    ///
    /// The page is one HTML file that loads nothing, for every browser. All requests are counted, the failed and the slowest
    /// are shown with their heads and the beginnings of their bodies. Exit status: 0 done; 1 some input was damaged;
    /// 2 nothing could be read, and no page was written.
    Report(ReportArgs),
    #[cfg(feature = "live")]
    /// Tap a running Envoy, through its admin endpoint or its UDP sink, and write the capture meanwhile
    ///
    /// Without OUTPUT, it lists the taps that Envoy has. One request taps every extension with the config_id: sockets and
    /// HTTP filters. SIGINT or SIGTERM ends it, after the capture is complete. Exit status: 0 done; 1 something was lost
    /// or damaged; 2 it did not start, or the capture could not be written.
    Live(Box<LiveArgs>),
    #[cfg(feature = "live")]
    /// Be an interface in Wireshark, `Envoy tap`
    ///
    /// With the link that --install makes, Wireshark and tshark find this program: their interface envoy-tap captures what
    /// `tap2pcap live` does. Its options are in Wireshark's dialog. tshark takes them as preferences, such as
    /// -o extcap.envoy_tap.endpoint:http://HOST:PORT.
    Extcap(ExtcapArgs),
    /// Convert, and look at the capture in Wireshark or tshark
    ///
    /// The capture is a temporary file. Wireshark, or tshark with --tshark, is started with the options that it needs to
    /// dissect what is in it, and when it ends the file is removed.
    Open(OpenArgs),
    /// Print the configuration of a tap, to be added to Envoy's
    ///
    /// The YAML goes to standard output, with comments that say where each part belongs. Without options, it is an HTTP
    /// tap that records while somebody asks the admin endpoint for it.
    TapConfig(TapConfigArgs),
    #[cfg(feature = "record")]
    /// Record traces without Envoy: relay TCP connections through a tap
    ///
    /// Traces are written as Envoy 1.40's tap transport socket writes them: one file per connection, named after its
    /// id. With --pcapng, a capture is written while record runs, beside the traces or instead of them. SIGINT or
    /// SIGTERM ends it, after every trace and the capture are complete. Exit status: 0 done; 1 a trace could not be
    /// written; 2 it did not start, or the capture could not be written.
    Record(RecordArgs),
}

/// The arguments that `validate` and `info` share.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Trace files, archives, directories, or `-` for standard input
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,

    /// One JSON object per line
    #[arg(long)]
    pub json: bool,

    /// Encoding of the input, and before it what stands around the trace, the outermost first, such as gzip,json
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = AUTO, value_parser = from())]
    pub from: Vec<From>,

    /// Limits on what is read.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// How much to say.
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

/// Limits that keep a hostile trace from taking all memory.
#[derive(Clone, Copy, Debug, Args)]
pub struct LimitArgs {
    /// Largest message that is read, in bytes; a larger one is passed over
    #[arg(long, value_name = "BYTES", default_value_t = crate::input::MAX_MESSAGE, value_parser = max_message)]
    pub max_message: usize,

    /// Connections that one trace may have open at once; beyond that, the oldest are given up
    #[arg(long, value_name = "N", default_value_t = crate::timeline::MAX_CONNECTIONS, value_parser = limit)]
    pub max_connections: usize,

    /// Events that one message may have; those beyond are passed over
    #[arg(long, value_name = "N", default_value_t = crate::trace::MAX_EVENTS, value_parser = limit)]
    pub max_events: usize,

    /// Header fields that one message may have; those beyond are passed over
    #[arg(long, value_name = "N", default_value_t = crate::trace::MAX_HEADERS, value_parser = limit)]
    pub max_headers: usize,
}

/// Arguments of `validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// What to check.
    #[command(flatten)]
    pub inspect: InspectArgs,

    /// A warning counts as an error
    #[arg(long)]
    pub strict: bool,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// What to look into.
    #[command(flatten)]
    pub inspect: InspectArgs,

    /// Who opened the connections
    #[arg(long, value_name = "ROLE", default_value = AUTO, value_parser = or_auto::<Role>("By what the trace shows"))]
    pub role: OrAuto<Role>,

    /// What the lines of several traces are sorted by, the greatest last
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    pub sort: ConnectionKey,

    /// Only the last N of the lines of several traces
    #[arg(long, value_name = "N", value_parser = limit)]
    pub top: Option<usize>,

    /// Only connections with an exchange that this CEL expression over attributes holds for
    #[arg(long = "where", value_name = "EXPR", value_parser = unpaired_filter)]
    pub filter: Option<Arc<Filter>>,
}

/// What connections are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConnectionKey {
    /// When it began
    #[default]
    Time,
    /// How long it lasted
    Duration,
    /// How many bytes it carried in both directions
    Bytes,
}

/// Arguments of `http`.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// What to look into.
    #[command(flatten)]
    pub inspect: InspectArgs,

    /// Sort by this attribute, the greatest last; `--sort=-ATTRIBUTE` puts the least last [default: request.time for
    /// the table; --json keeps the order of the inputs]
    #[arg(long, value_name = "ATTRIBUTE", value_parser = sort_field, allow_hyphen_values = true)]
    pub sort: Option<SortField>,

    /// Only the last N of the sorted exchanges, or of the routes
    #[arg(long, value_name = "N", value_parser = limit)]
    pub top: Option<usize>,

    /// Only exchanges that this CEL expression over attributes holds for, such as `response.code >= 500`
    #[arg(long = "where", value_name = "EXPR", value_parser = filter)]
    pub filter: Option<Arc<Filter>>,

    /// Instead of exchanges, list routes: how many requests each had, how many failed, how long they took (the
    /// percentiles 50, 95 and 99), and bytes of bodies. Those with the most requests come last
    #[arg(long, conflicts_with = "sort")]
    pub stats: bool,

    /// Which exchanges belong together.
    #[command(flatten)]
    pub pair: PairArgs,

    /// What is taken out.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// Bytes of each body that are kept, for request.body and response.body
    #[arg(long, value_name = "BYTES", default_value_t = crate::http::MAX_BODY, value_parser = max_body)]
    pub max_body: usize,

    /// Who opened the connections
    #[arg(long, value_name = "ROLE", default_value = AUTO, value_parser = or_auto::<Role>("By what the trace shows"))]
    pub role: OrAuto<Role>,

    /// Worker threads [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,

    /// A warning counts as an error
    #[arg(long)]
    pub strict: bool,

    /// Show a progress bar
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,
}

impl HttpArgs {
    /// Whether exchanges are sorted before they are written.
    pub(crate) fn sorts(&self) -> bool {
        !self.inspect.json || self.sort.is_some() || self.top.is_some() || self.stats
    }
}

/// What exchanges are sorted by.
#[derive(Clone, Copy, Debug)]
pub struct SortField {
    /// The attribute.
    pub attribute: &'static Attribute,
    /// The greatest comes first.
    pub reverse: bool,
}

impl Default for SortField {
    fn default() -> Self {
        let attribute = Attribute::named("request.time").unwrap_or(&Attribute::ALL[0]);
        Self { attribute, reverse: false }
    }
}

/// Arguments of a conversion.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Trace files, archives, directories, `-` for standard input; last, the capture, `-` for standard output
    // Clap counts the values before an option and those after it apart, so that it cannot ask for two. With one name for
    // both, it shows none of them as optional.
    #[arg(required = true, num_args = 1.., value_name = "INPUT> <OUTPUT")]
    pub paths: Vec<PathBuf>,

    /// What is written.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Several captures with numbers in their names, such as capture-00001.pcapng: one for each `connection`, or a new
    /// one after `size=N` bytes (or 100M, 1GiB) or `time=D` of the packets' time (10s, 5min)
    #[arg(long, value_name = "WHAT", value_parser = split)]
    pub split: Option<SplitBy>,

    /// What conversions have in common.
    #[command(flatten)]
    pub conversion: ConversionArgs,
}

/// The arguments of everything that converts, whatever becomes of the capture.
#[derive(Debug, Args)]
pub struct ConversionArgs {
    /// Encoding of the input, and before it what stands around the trace, the outermost first, such as gzip,json
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = AUTO, value_parser = from())]
    pub from: Vec<From>,

    /// How traces become packets.
    #[command(flatten)]
    pub packets: PacketArgs,

    /// Only connections with an exchange that this CEL expression over attributes holds for, or into HAR only these
    /// exchanges, such as `response.code >= 500` or `source.address.startsWith("10.1.")`. `tap2pcap http --json` shows the attributes
    #[arg(long = "where", value_name = "EXPR", value_parser = filter)]
    pub filter: Option<Arc<Filter>>,

    /// Which connections belong together.
    #[command(flatten)]
    pub pair: PairArgs,

    /// What is taken out.
    #[command(flatten)]
    pub redact: RedactArgs,

    /// Time (RFC 3339) for traces that carry none [default: the date header of an HTTP response, the time of merged
    /// traces, the file's modification time]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start_time: Option<Nanos>,

    /// Worker threads [default: all cores]
    #[arg(short, long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,

    /// Limits on what is read.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// A warning counts as an error
    #[arg(long)]
    pub strict: bool,

    /// Show a progress bar
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ProgressMode::Auto)]
    pub progress: ProgressMode,

    /// How much to say.
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

/// What is written.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Format of the output [default: by OUTPUT's suffix, pcapng for `-` and for directories]
    #[arg(short = 'F', long, value_enum, value_name = "FORMAT")]
    pub format: Option<OutputFormat>,

    /// Precision of the times in pcap: us for readers that refuse nanoseconds [default: ns]
    #[arg(long, value_enum, value_name = "UNIT")]
    pub precision: Option<Precision>,

    /// Replace an output that is read-only
    #[arg(long)]
    pub force: bool,
}

/// How traces become packets.
#[derive(Debug, Args)]
pub struct PacketArgs {
    /// How much TCP to make up around the tapped bytes
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub tcp: TcpMode,

    /// Cut payload into segments of at most N bytes; HTTP/2's preface, 24 bytes, stays whole [default: what one IP
    /// packet holds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub mss: Option<u16>,

    /// What to write where bytes are missing from the trace
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub truncated: TruncatedMode,

    /// Who opened the connections
    #[arg(long, value_name = "ROLE", default_value = AUTO, value_parser = or_auto::<Role>("By what the trace shows"))]
    pub role: OrAuto<Role>,

    /// Rewrite an address (with its zone or without), an address:port, or the :port of every address (repeatable). OLD
    /// may also be a socket path, or `local` or `remote` for an address that the trace lacks
    #[arg(long, value_name = "OLD=NEW")]
    pub map: Vec<Mapping>,

    /// How to replay the exchanges of HTTP tap traces; auto uses HTTP/2 for gRPC, `te: trailers` and trailers
    #[arg(long, value_enum, value_name = "VERSION", default_value_t)]
    pub http: VersionChoice,

    /// Whose connection carries a replayed HTTP exchange: the client's, or Envoy's to the server
    #[arg(long, value_enum, value_name = "SIDE", default_value_t)]
    pub side: SideChoice,
}

/// `-q` and `-v`.
#[derive(Clone, Copy, Debug, Args)]
pub struct VerbosityArgs {
    /// Say only why a file was not converted, and what is damaged
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say what was done
    #[arg(short, long)]
    pub verbose: bool,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// libpcap's classic format, with nanoseconds unless --precision says otherwise
    Pcap,
    /// With comments, directions and names
    Pcapng,
    /// HAR 1.2, of what is HTTP
    Har,
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Microseconds, in pcap alone
    Us,
    /// Nanoseconds
    Ns,
}

/// A value of a stage's own enum, or `None` for `auto`. The alias is needed because clap takes a field whose type is
/// spelled `Option` for an argument that may be missing.
pub(crate) type OrAuto<T> = Option<T>;

const AUTO: &str = "auto";

/// Accepts `auto`, which `help` describes, and the values of `T`.
fn or_auto<T: ValueEnum + Send + Sync + 'static>(help: &'static str) -> impl TypedValueParser<Value = OrAuto<T>> {
    let values = T::value_variants().iter().filter_map(T::to_possible_value);
    let names = std::iter::once(PossibleValue::new(AUTO).help(help)).chain(values);
    PossibleValuesParser::new(names).map(|name| T::from_str(&name, false).ok())
}

/// A word of `--from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// What is inside is recognised.
    Auto,
    /// The layer that comes next.
    Layer(Layer),
    /// The encoding of the trace itself.
    Encoding(Encoding),
}

fn from() -> impl TypedValueParser<Value = From> {
    let encodings = Encoding::value_variants().iter().filter_map(Encoding::to_possible_value);
    let layers = Layer::value_variants().iter().filter_map(Layer::to_possible_value);
    let auto = std::iter::once(PossibleValue::new(AUTO).help("By content"));
    PossibleValuesParser::new(auto.chain(encodings).chain(layers)).map(|name| {
        let encoding = Encoding::from_str(&name, false).map(From::Encoding);
        encoding.or_else(|_| Layer::from_str(&name, false).map(From::Layer)).unwrap_or(From::Auto)
    })
}

fn jobs(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number of threads, at least 1".to_owned()),
        Ok(jobs) => Ok(jobs),
    }
}

/// A limit is at least 1, so that something is read, and it fits in 32 bits.
fn limit(text: &str) -> Result<usize, String> {
    in_range(text, 1, u32::MAX as usize)
}

/// No more than a tebibyte, which is beyond the memory of any machine that this runs on.
fn max_message(text: &str) -> Result<usize, String> {
    in_range(text, crate::input::LEAST_MAX_MESSAGE, usize::try_from(1_u64 << 40).unwrap_or(usize::MAX))
}

fn in_range(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from {min} to {max}")),
    }
}

fn sort_field(text: &str) -> Result<SortField, String> {
    let (name, reverse) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    let sortable =
        |attribute: &&Attribute| !attribute.name.ends_with("headers") && !attribute.name.ends_with("trailers");
    match Attribute::named(name).filter(sortable) {
        Some(attribute) => Ok(SortField { attribute, reverse }),
        None => {
            let names: Vec<_> = Attribute::ALL.iter().filter(sortable).map(|attribute| attribute.name).collect();
            Err(format!("expected one of {}", names.join(", ")))
        }
    }
}

/// No more than what exchanges may hold together.
fn max_body(text: &str) -> Result<usize, String> {
    in_range(text, 0, 16 << 20)
}

fn unpaired_filter(text: &str) -> Result<Arc<Filter>, String> {
    let filter = filter(text)?;
    match filter.needs_pairing() {
        true => Err("pairing, upstream.… and envoy.… are known to conversions, open, http and report alone".to_owned()),
        false => Ok(filter),
    }
}

fn filter(text: &str) -> Result<Arc<Filter>, String> {
    Filter::parse(text).map(Arc::new).map_err(|error| error.to_string())
}

fn split(text: &str) -> Result<SplitBy, String> {
    match text.split_once('=') {
        None if text == "connection" => Ok(SplitBy::Connection),
        Some(("size", size)) => size_in_bytes(size)
            .map(SplitBy::Size)
            .ok_or_else(|| "expected a number of bytes, at least 1, such as size=100M or size=1GiB".to_owned()),
        Some(("time", duration)) => {
            let nanos = humantime::parse_duration(duration).ok().and_then(|time| Nanos::try_from(time.as_nanos()).ok());
            nanos
                .filter(|nanos| *nanos > 0)
                .map(SplitBy::Time)
                .ok_or_else(|| "expected a duration such as time=10s, time=5min or time=1h".to_owned())
        }
        _ => Err("expected connection, size=N or time=DURATION".to_owned()),
    }
}

/// Bytes with a unit as in coreutils: K, M and G, also KiB and so on, are powers of 1024, and KB and so on of 1000.
fn size_in_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

fn parse_time(text: &str) -> Result<Nanos, String> {
    let time: prost_types::Timestamp =
        text.parse().map_err(|_| "expected an RFC 3339 time such as 2026-01-31T12:00:00Z".to_owned())?;
    crate::trace::nanos_from_timestamp(time.seconds, i64::from(time.nanos)).map_err(|error| error.to_string())
}
