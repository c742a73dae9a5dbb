//! `tap2pcap record`: a TCP relay that taps what it relays, into trace files, a capture, or both.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Status,
    live_capture::{LiveCapture, Written},
};
use crate::{
    capture::{Access, create_folders},
    interrupt,
    report::print_line,
    tap::{
        Config, Endpoint, FilePerTap, Format, Identity, Notice, Relay, Route, Syntax, SystemClock, Tap, TapSettings,
        TlsClient, TlsServer,
    },
};

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
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = TraceFormat::Binary, requires = "path_prefix")]
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

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceFormat {
    /// PROTO_BINARY: messages back to back
    #[value(alias = "PROTO_BINARY")]
    Binary,
    /// PROTO_BINARY_LENGTH_DELIMITED
    #[value(alias = "PROTO_BINARY_LENGTH_DELIMITED")]
    Delimited,
    /// PROTO_TEXT
    #[value(alias = "PROTO_TEXT")]
    Text,
    /// JSON_BODY_AS_BYTES
    #[value(alias = "JSON_BODY_AS_BYTES")]
    Json,
    /// JSON_BODY_AS_STRING: binary data is lost
    #[value(alias = "JSON_BODY_AS_STRING")]
    JsonString,
}

impl From<TraceFormat> for Format {
    fn from(format: TraceFormat) -> Self {
        match format {
            TraceFormat::Binary => Self::ProtoBinary,
            TraceFormat::Delimited => Self::ProtoBinaryLengthDelimited,
            TraceFormat::Text => Self::ProtoText,
            TraceFormat::Json => Self::JsonBodyAsBytes,
            TraceFormat::JsonString => Self::JsonBodyAsString,
        }
    }
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && mode & 0o200 != 0 => Ok(mode),
        _ => Err("expected permissions in octal that let the owner write, such as 640".to_owned()),
    }
}

/// Runs the command until a signal ends it, or the capture does.
///
/// # Errors
/// The configuration is refused, an address cannot be bound, or the capture cannot be written.
pub fn run(args: &RecordArgs) -> anyhow::Result<Status> {
    let failed = Arc::new(AtomicBool::new(false));
    let make_tap = |settings: TapSettings, sink: FilePerTap| {
        let failed = Arc::clone(&failed);
        Tap::new(settings, Arc::new(sink), Arc::new(SystemClock)).on_error(move |error| {
            failed.store(true, Ordering::Relaxed);
            print_line("error", &format_args!("a trace is lost: {error}"));
        })
    };
    let access = args.mode.map_or(Access::Private, Access::Mode);
    let next_id = Cell::new(0);
    let prepare = |settings: TapSettings, sink: FilePerTap| {
        prepare_folder(sink.path_prefix(), access);
        // Where the folder cannot be read, no file is replaced either: the trace is lost, and says so.
        next_id.set(next_id.get().max(sink.next_id().unwrap_or(0)));
        make_tap(settings, args.mode.map_or(sink.clone(), |mode| sink.with_mode(mode)))
    };
    let mut routes = match &args.config {
        Some(path) => configured_routes(path, &prepare)?,
        None => vec![quick_route(args, &prepare)?],
    };
    allow_many_connections();
    let capture = args.pcapng.as_deref().map(|path| LiveCapture::create(path, access)).transpose()?;
    if let Some(capture) = &capture {
        for route in &mut routes {
            route.downstream_taps.push(capture.tap());
        }
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("no tokio runtime")?;
    let ending = runtime.block_on(relay(routes, next_id.get(), capture))?;
    let written = match ending {
        Ending::Traces => Written::default(),
        Ending::Capture(written) => written,
        Ending::Signal(signal) => return Ok(Status::Signal(signal)),
    };
    if let Some(path) = args.pcapng.as_deref().filter(|path| *path != Path::new("-"))
        && !written.hints.is_empty()
    {
        let command = super::info::open_command(path, &written.hints);
        print_line("note", &format_args!("to see it dissected: {command}"));
    }
    let damaged = written.damaged || failed.load(Ordering::Relaxed);
    Ok(if damaged { Status::Damaged } else { Status::Done })
}

/// A relayed connection takes two or three file descriptors; many systems allow a process 1,024 unless it asks for more.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    // Fails where the system forbids it; then the old limit holds, and too many connections have to wait.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    /// The next one's number: POSIX fixes both.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// How it ended.
enum Ending {
    /// All traces are written, and there was no capture to write.
    Traces,
    /// The capture is complete, or nobody reads it any more.
    Capture(Written),
    /// Somebody who reads the capture kept it from being completed after this signal.
    Signal(u8),
}

async fn relay(routes: Vec<Route>, next_id: u64, capture: Option<LiveCapture>) -> anyhow::Result<Ending> {
    let targets: Vec<Endpoint> = routes.iter().map(|route| route.upstream.clone()).collect();
    let mut signals = Signals::install()?;
    let relay = Relay::bind(routes, |notice| print_notice(&notice))
        .map_err(|(endpoint, error)| anyhow::Error::new(error).context(format!("cannot listen on {endpoint}")))?
        .starting_at(next_id);
    for (endpoint, target) in relay.endpoints().iter().zip(&targets) {
        print_line("note", &format_args!("listening on {endpoint}, relaying to {target}"));
    }
    let Some(capture) = capture else {
        relay.run(async { _ = signals.next().await }).await;
        return Ok(Ending::Traces);
    };
    let mut capture = capture.start().context("no thread to write the capture")?;
    let mut early = None;
    let mut first = 0;
    relay
        .run(async {
            tokio::select! {
                signal = signals.next() => first = signal,
                ended = capture.ended() => early = Some(ended),
            }
        })
        .await;
    capture.complete();
    let ended = match early {
        Some(ended) => ended,
        // It may be a pipe that nobody reads, and waiting for it is no longer wanted then.
        None => tokio::select! {
            ended = capture.ended() => ended,
            () = stuck() => return Ok(Ending::Signal(first)),
            signal = signals.next() => return Ok(Ending::Signal(signal)),
        },
    };
    match ended {
        Some(Ok(written)) => Ok(Ending::Capture(written)),
        Some(Err(error)) if error.is_broken_pipe() => Ok(Ending::Capture(Written::default())),
        Some(Err(error)) => Err(error.into()),
        None => bail!("the thread that writes the capture failed"),
    }
}

/// Completes when whoever reads the capture has done nothing for a while.
async fn stuck() {
    let signalled = Instant::now();
    while !interrupt::is_stuck(signalled) {
        tokio::time::sleep(interrupt::INTERVAL).await;
    }
}

fn print_notice(notice: &Notice<'_>) {
    match notice {
        Notice::ConnectFailed(endpoint, error) => {
            print_line("warning", &format_args!("cannot connect to {endpoint}: {error}"));
        }
        Notice::HandshakeFailed(endpoint, error) => {
            print_line("warning", &format_args!("no TLS with {endpoint}: {error}"));
        }
        Notice::AcceptFailed(endpoint, error) => {
            print_line("warning", &format_args!("cannot accept connections on {endpoint}: {error}"));
        }
    }
}

fn configured_routes(path: &Path, make_tap: &dyn Fn(TapSettings, FilePerTap) -> Tap) -> anyhow::Result<Vec<Route>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let config = Config::parse(&text, Syntax::of(path), make_tap).with_context(|| path.display().to_string())?;
    if config.has_admin {
        print_line("note", &format_args!("{}: admin: ignored, record has no admin interface", path.display()));
    }
    Ok(config.routes)
}

fn quick_route(args: &RecordArgs, make_tap: &dyn Fn(TapSettings, FilePerTap) -> Tap) -> anyhow::Result<Route> {
    let (Some(listen), Some(to)) = (&args.listen, &args.to) else { bail!("--listen and --to belong together") };
    let settings = TapSettings {
        streaming: args.streaming,
        max_buffered_rx_bytes: args.max_rx,
        max_buffered_tx_bytes: args.max_tx,
        ..TapSettings::default()
    };
    let mut route = Route::new(listen.clone(), to.parse()?);
    if let Some(path_prefix) = &args.path_prefix {
        route.downstream_taps = vec![make_tap(settings, FilePerTap::new(path_prefix, args.format.into()))];
    }
    if let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
        let identity = Identity::from_pem(&read(chain)?, &read(key)?)
            .with_context(|| format!("{} with {}", chain.display(), key.display()))?;
        route.downstream_tls = Some(TlsServer::new(identity, &[])?);
    }
    if args.to_tls {
        route.upstream_tls = Some(TlsClient::new(host_name(to).unwrap_or_default(), None, None, &[])?);
    }
    Ok(route)
}

/// The host of `host:port` if it is a name, which TLS then asks for.
fn host_name(to: &str) -> Option<&str> {
    let (host, _) = to.rsplit_once(':')?;
    let is_name = host.contains(|char: char| char.is_ascii_alphabetic()) && !host.contains([':', '/', '@']);
    is_name.then_some(host)
}

/// Envoy loses traces whose folder is missing. Here it is made; if it cannot be, the first trace says why.
fn prepare_folder(path_prefix: &Path, access: Access) {
    if let Some(folder) = path_prefix.parent()
        && let Err(error) = create_folders(folder, access)
    {
        print_line("warning", &format_args!("{}: {error}", folder.display()));
    }
}
