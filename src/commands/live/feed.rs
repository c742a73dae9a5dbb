//! The thread that reads from Envoy as fast as Envoy writes, and taps it again when it was gone.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    super::error::Error,
    backlog::{BacklogWriter, Refusal, Until},
    sessions::{Session, Sessions},
};
use crate::{
    admin::{Admin, AdminError, TapRequest, TapSink, TapStream},
    input::Encoding,
    interrupt,
    report::{Verbosity, print_error, print_line},
    trace::Nanos,
    untrusted,
    words::count,
};

/// How long to wait before the first attempt to tap again, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// After this time without a byte, the user is told why.
const SILENCE: Duration = Duration::from_secs(10);

/// Bytes per read.
const READ_SIZE: usize = 256 << 10;

/// Now, in nanoseconds since the Unix epoch.
pub(super) fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}

/// How a tap is kept.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    /// Whether the end of the stream is the end of the tap.
    pub once: bool,
    /// When to end.
    pub until: Until,
    /// How many bytes may wait for the capture.
    pub max_backlog: u64,
    /// How much to say.
    pub verbosity: Verbosity,
    /// What messages call the endpoint.
    pub name: String,
}

/// Reads what a tap sends.
struct Feed {
    admin: Arc<Admin>,
    request: TapRequest,
    keeping: Keeping,
    sessions: SyncSender<Session>,
    received: Arc<AtomicU64>,
    failed: Arc<AtomicBool>,
}

/// Why a session is over.
enum End {
    /// Envoy ended the answer.
    Complete,
    /// The connection broke off.
    Broken(std::io::Error),
    /// The reader of the capture is too far behind.
    Behind,
    /// It is behind, and what waits for it cannot be kept.
    Failed(std::io::Error),
    /// It is time to end, or nobody reads any more.
    Over,
}

/// Starts a tap, and a thread that reads it.
///
/// # Errors
/// Envoy cannot be tapped now.
pub(super) fn start(admin: Arc<Admin>, request: TapRequest, keeping: Keeping) -> Result<Sessions, Error> {
    let before = admin.counters();
    let stream = admin.start(&request).map_err(|error| match error {
        AdminError::Interrupted => interrupt::signal().map_or(Error::Admin(error), Error::Signal),
        error => Error::Admin(admin.with_known_ids(error)),
    })?;
    if keeping.verbosity > Verbosity::Quiet {
        let config_id = untrusted::escape(&request.config_id);
        print_line("note", &format_args!("{}: tapping {config_id}", keeping.name));
    }
    let (sender, receiver) = sync_channel(1);
    let received = Arc::new(AtomicU64::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    if keeping.verbosity > Verbosity::Quiet
        && let Ok(before) = before
    {
        let (admin, request, keeping) = (Arc::clone(&admin), request.clone(), keeping.clone());
        let received = Arc::clone(&received);
        let watch = move || {
            let since = Instant::now();
            let is_tapped = || received.load(Ordering::Relaxed) > 0;
            if keeping.until.wait_for(|| is_tapped() || since.elapsed() >= SILENCE) && !is_tapped() {
                explain_silence(&admin, &request, &before, &keeping);
            }
        };
        // Without the thread, the user is not told why nothing comes.
        let _ = thread::Builder::new().name("silence".into()).spawn(watch);
    }
    let feed = Feed { admin, request, keeping, sessions: sender, received, failed: Arc::clone(&failed) };
    let (first_writer, reader) = feed.session(1);
    // The channel is empty, so this does not wait.
    let _ = feed.sessions.send(reader);
    thread::Builder::new().name("tap".into()).spawn(move || feed.run(stream, first_writer))?;
    Ok(Sessions { receiver, failed })
}

fn explain_silence(admin: &Admin, request: &TapRequest, before: &crate::admin::Counters, keeping: &Keeping) {
    let seconds = SILENCE.as_secs();
    let what = format!("{}: nothing was tapped in {seconds} s", keeping.name);
    match admin.reasons(request, before) {
        Ok(reasons) if reasons.is_empty() => print_line("note", &what),
        Ok(reasons) => {
            for reason in reasons {
                print_line("note", &format_args!("{what}: {reason}"));
            }
        }
        Err(error) => print_line("note", &format_args!("{what}; why is not known: {error}")),
    }
}

impl Feed {
    fn session(&self, number: u64) -> (BacklogWriter, Session) {
        Session::begin(number, Encoding::Json, &self.keeping)
    }

    fn say(&self, kind: &str, text: &str) {
        if self.keeping.verbosity > Verbosity::Quiet {
            print_line(kind, &format_args!("{}: {text}", self.keeping.name));
        }
    }

    fn run(self, mut stream: TapStream, mut writer: BacklogWriter) {
        let mut number = 1;
        let mut wait = FIRST_WAIT;
        loop {
            let began = Instant::now();
            let watch = writer.watch();
            let end = self.pass_on(stream, writer);
            match end {
                End::Over => return,
                // The first traces were all that was wanted.
                End::Complete if matches!(self.request.sink, TapSink::Buffered { .. }) => return,
                End::Complete => self.say("warning", "Envoy ended the tap"),
                End::Broken(error) => {
                    self.failed.fetch_or(matches!(self.request.sink, TapSink::Buffered { .. }), Ordering::Relaxed);
                    self.say("warning", &format!("the connection to Envoy broke off: {error}"));
                }
                End::Behind => {
                    self.failed.store(true, Ordering::Relaxed);
                    let held = count(watch.waiting(), "byte");
                    self.say(
                        "warning",
                        &format!(
                            "the capture is read too slowly: {held} of the stream wait for it. The tap is paused until they \
                             are read, because Envoy would keep what nobody reads in its memory"
                        ),
                    );
                }
                End::Failed(error) => {
                    self.failed.store(true, Ordering::Relaxed);
                    let folder = std::env::temp_dir();
                    let text = format!(
                        "the capture is read too slowly, and what waits for it cannot be kept in {}: {error}. The tap is \
                         paused until it is read",
                        folder.display()
                    );
                    print_line("error", &format_args!("{}: {text}", self.keeping.name));
                }
            }
            if self.keeping.once || matches!(self.request.sink, TapSink::Buffered { .. }) {
                return;
            }
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            // A tap whose bytes nobody takes yet would be kept by Envoy.
            if !self.keeping.until.wait_for(|| watch.is_drained()) {
                return;
            }
            let Some(next) = self.tap_again(&mut wait) else { return };
            stream = next;
            number += 1;
            let (next, session) = self.session(number);
            writer = next;
            if self.sessions.send(session).is_err() {
                return;
            }
        }
    }

    /// Passes on what the stream brings, until its end.
    fn pass_on(&self, mut stream: TapStream, mut writer: BacklogWriter) -> End {
        let mut buffer = vec![0; READ_SIZE];
        loop {
            let count = match stream.read(&mut buffer) {
                _ if self.keeping.until.is_over() => return End::Over,
                Ok(0) => return End::Complete,
                Ok(count) => count,
                Err(error) => return End::Broken(error),
            };
            self.received.fetch_add(count as u64, Ordering::Relaxed);
            match writer.write(&buffer[..count], now()) {
                Ok(()) => {}
                Err(Refusal::Abandoned) => return End::Over,
                Err(Refusal::Full) => return End::Behind,
                Err(Refusal::Failed(error)) => return End::Failed(error),
            }
        }
    }

    /// Taps again as soon as Envoy lets it, but not before `wait` is over, which becomes longer each time. `None` if it is
    /// time to end.
    fn tap_again(&self, wait: &mut Duration) -> Option<TapStream> {
        let mut said = String::new();
        loop {
            let until = Instant::now() + *wait;
            *wait = (*wait * 2).min(LONGEST_WAIT);
            if !self.keeping.until.wait_for(|| Instant::now() >= until) {
                return None;
            }
            match self.admin.start(&self.request) {
                Ok(stream) => {
                    self.say("note", "tapped again");
                    return Some(stream);
                }
                Err(_) if self.keeping.until.is_over() => return None,
                // Another client's tap may be one with `buffered_admin`. Envoy 1.40 dies if this one follows it while a
                // connection of it is open.
                Err(error @ AdminError::Busy { .. }) if !error.is_temporary() => {
                    self.failed.store(true, Ordering::Relaxed);
                    print_error(&error);
                    return None;
                }
                Err(error) => {
                    let words = error.to_string();
                    if words != said {
                        // Even what seems lasting may pass: Envoy gets its listeners from elsewhere after it has started.
                        let kind = if error.is_temporary() { "note" } else { "warning" };
                        self.say(kind, &format!("not tapped yet, trying again: {words}"));
                        said = words;
                    }
                }
            }
        }
    }
}
