//! `tap2pcap record`: a TCP relay that records what it relays, as trace files, a capture, or both.

use std::{
    cell::Cell,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{
    Status,
    error::{Because as _, Error},
    live_capture::{LiveCapture, Written},
    redaction::{self, ReportFile},
};
use crate::{
    capture::{Access, Destination, create_folders},
    cli::RecordArgs,
    interrupt,
    report::print_line,
    tap::{
        Config, Endpoint, FilePerTap, Notice, Relay, Route, Syntax, SystemClock, Tap, TapSettings, TlsClient,
        TlsIdentity, TlsServer,
    },
};

/// Runs the command until a signal comes or the capture ends.
///
/// # Errors
/// The configuration is refused, an address cannot be bound, or the capture cannot be written.
pub(super) fn run(args: &RecordArgs) -> Result<Status, Error> {
    let redaction = redaction::redaction(&args.redact)?;
    if redaction.is_some() && args.pcapng.is_none() {
        return Err(Error::Arguments("--redact is for the capture of --pcapng: traces have everything".to_owned()));
    }
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
        // If the folder cannot be read, no file is replaced: each trace is lost, and reported as lost.
        next_id.set(next_id.get().max(sink.next_id().unwrap_or(0)));
        make_tap(settings, args.mode.map_or(sink.clone(), |mode| sink.with_mode(mode)))
    };
    let mut routes = match &args.config {
        Some(path) => configured_routes(path, &prepare)?,
        None => vec![quick_route(args, &prepare)?],
    };
    allow_many_connections();
    let output = args.pcapng.as_deref().map(Destination::new);
    redaction::expect(redaction.as_deref(), &[], output.as_ref().and_then(Destination::file))?;
    let report = ReportFile::create(redaction.as_ref())?;
    let capture = output.as_ref().map(|output| LiveCapture::create(output, access, redaction.clone())).transpose()?;
    if let Some(capture) = &capture {
        for route in &mut routes {
            route.downstream_taps.push(capture.tap());
        }
    }
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().because(|| "no tokio runtime")?;
    let written = runtime.block_on(relay(routes, next_id.get(), capture))?;
    report.map_or(Ok(()), ReportFile::finish)?;
    if let Some(path) = output.as_ref().and_then(Destination::file)
        && !written.hints.is_empty()
    {
        let command = super::info::open_command(path, &written.hints);
        print_line("note", &format_args!("to see it dissected: {command}"));
    }
    let damaged = written.damaged || failed.load(Ordering::Relaxed);
    Ok(if damaged { Status::Damaged } else { Status::Done })
}

/// Raises the limit on file descriptors: a relayed connection takes two or three, and many systems allow a process
/// 1,024 unless it asks for more.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    // If the system forbids it, the old limit holds, and connections beyond it have to wait.
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

    /// Waits for the next signal and returns its number. POSIX fixes both numbers.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}

/// Relays until a signal comes or the capture ends.
///
/// # Errors
/// The relay did not start, the capture cannot be written, or its reader kept it from being completed after a signal.
async fn relay(routes: Vec<Route>, next_id: u64, capture: Option<LiveCapture>) -> Result<Written, Error> {
    let targets: Vec<Endpoint> = routes.iter().map(|route| route.upstream.clone()).collect();
    let mut signals = Signals::install()?;
    let relay = Relay::bind(routes, |notice| print_notice(&notice))
        .or_else(|(endpoint, error)| Err(error).because(|| format!("cannot listen on {endpoint}")))?
        .starting_at(next_id);
    for (endpoint, target) in relay.endpoints().iter().zip(&targets) {
        print_line("note", &format_args!("listening on {endpoint}, relaying to {target}"));
    }
    let Some(capture) = capture else {
        relay.run(async { _ = signals.next().await }).await;
        return Ok(Written::default());
    };
    let mut capture = capture.start().because(|| "no thread to write the capture")?;
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
        // The capture may go to a pipe that nobody reads. Do not wait for that forever.
        None => tokio::select! {
            ended = capture.ended() => ended,
            () = stuck() => return Err(Error::Signal(first)),
            signal = signals.next() => return Err(Error::Signal(signal)),
        },
    };
    match ended {
        // Nobody reads the capture any more. The traces are complete all the same.
        Some(Err(Error::Output(error))) if error.is_broken_pipe() => Ok(Written::default()),
        Some(written) => written,
        None => Err(Error::System(io::Error::other("the thread that writes the capture failed"))),
    }
}

/// Completes when a write to the capture has been blocked for too long.
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

fn configured_routes(path: &Path, make_tap: &dyn Fn(TapSettings, FilePerTap) -> Tap) -> Result<Vec<Route>, Error> {
    let text = fs::read_to_string(path).because(|| path.display())?;
    let config = Config::parse(&text, Syntax::of(path), make_tap).because(|| path.display())?;
    if config.has_admin {
        print_line("note", &format_args!("{}: admin: ignored, record has no admin interface", path.display()));
    }
    Ok(config.routes)
}

fn quick_route(args: &RecordArgs, make_tap: &dyn Fn(TapSettings, FilePerTap) -> Tap) -> Result<Route, Error> {
    let (Some(listen), Some(to)) = (&args.listen, &args.to) else {
        return Err(Error::Arguments("--listen and --to belong together".to_owned()));
    };
    let settings = TapSettings {
        streaming: args.streaming,
        max_buffered_rx_bytes: args.max_rx,
        max_buffered_tx_bytes: args.max_tx,
        ..TapSettings::default()
    };
    let mut route = Route::new(listen.clone(), to.parse()?);
    if let Some(path_prefix) = &args.path_prefix {
        route.downstream_taps = vec![make_tap(settings, FilePerTap::new(path_prefix, args.format))];
    }
    if let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let read = |path: &Path| fs::read(path).because(|| path.display());
        let identity = TlsIdentity::from_pem(&read(chain)?, &read(key)?)
            .because(|| format!("{} with {}", chain.display(), key.display()))?;
        route.downstream_tls = Some(TlsServer::new(identity, &[])?);
    }
    if args.to_tls {
        route.upstream_tls = Some(TlsClient::new(host_name(to).unwrap_or_default(), None, None, &[])?);
    }
    Ok(route)
}

/// The host of `host:port`, if it is a name: TLS then sends it as the server name (RFC 6066 section 3).
fn host_name(to: &str) -> Option<&str> {
    let (host, _) = to.rsplit_once(':')?;
    let is_name = host.contains(|char: char| char.is_ascii_alphabetic()) && !host.contains([':', '/', '@']);
    is_name.then_some(host)
}

/// Creates the folder of the traces. Envoy would lose the traces if it were missing.
fn prepare_folder(path_prefix: &Path, access: Access) {
    if let Some(folder) = path_prefix.parent()
        && let Err(error) = create_folders(folder, access)
    {
        print_line("warning", &format_args!("{}: {error}", folder.display()));
    }
}
