//! Everything that is printed for people on standard error. The words of findings are in `findings.rs` and `faults.rs`.

mod faults;
mod findings;

use std::{
    error::Error,
    fmt::Display,
    io::{self, IsTerminal, Write as _},
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::ValueEnum;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

pub use self::findings::detail;
use crate::{
    capture::ReadOnlyOutput,
    input::{InputError, Likeness},
    interrupt::Watched,
    trace::{Code, Finding, Severity, UnknownFields},
    untrusted::{cap, escape},
    words::{count, count_of, times},
};

/// How many findings of one source are printed. The rest are only counted.
const MAX_FINDINGS: u64 = 20;

/// The most bytes of one line for people.
const MAX_LINE: usize = 2000;

/// How much to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Only why something was not done, and what is damaged.
    Quiet,
    /// Errors, what people must know, and with `--strict` warnings.
    #[default]
    Normal,
    /// Also what was done.
    Verbose,
}

/// Prints what happens to one source and remembers how bad it was.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    verbosity: Verbosity,
    printed: u64,
    errors: u64,
    warnings: u64,
    strict: bool,
    muted: bool,
}

impl Reporter {
    /// A reporter that has seen nothing yet. If it is `strict`, warnings count as errors.
    #[must_use]
    pub(crate) fn new(verbosity: Verbosity, strict: bool) -> Self {
        Self { verbosity, printed: 0, errors: 0, warnings: 0, strict, muted: false }
    }

    /// The number of errors so far.
    #[must_use]
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// The number of warnings so far.
    #[must_use]
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings
    }

    /// Prints nothing from now on, but still counts: the library leaves printing to its caller.
    pub(crate) fn mute(&mut self) {
        self.muted = true;
    }

    /// Reports a finding in the source at `path`.
    pub(crate) fn finding(&mut self, path: &Path, finding: &Finding) {
        let severity = finding.code().severity();
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => {}
        }
        // Warnings are the business of `validate`. Without `--verbose`, a conversion prints only those that make it
        // fail, the one that its own `--map` may have caused, and the one that tells what of a source was not read.
        let fails = severity == Severity::Error || (self.strict && severity == Severity::Warning);
        let needed = match finding.code() {
            _ if fails => Verbosity::Quiet,
            Code::SameAddress | Code::TextAround => Verbosity::Normal,
            _ => Verbosity::Verbose,
        };
        if self.verbosity < needed || self.muted {
            return;
        }
        self.printed += 1;
        if self.printed <= MAX_FINDINGS {
            print_line(severity.word(), &format_args!("{}: {finding}", path.display()));
        }
    }

    /// Says how many findings were not printed.
    pub(crate) fn finish(&self, path: &Path) {
        if self.printed > MAX_FINDINGS {
            let more = self.printed - MAX_FINDINGS;
            let more = count_of(more, "more finding", "more findings");
            print_line("note", &format_args!("{}: {more} like these", path.display()));
        }
    }

    /// Reports fields that this version does not know.
    pub(crate) fn unknown_fields(&self, path: &Path, unknown: &UnknownFields) {
        if self.verbosity < Verbosity::Normal || unknown.total() == 0 {
            return;
        }
        let mut names: Vec<String> = unknown
            .fields()
            .iter()
            .map(|field| format!("{}.{} {}", field.message, field.field, times(field.count)))
            .collect();
        if self.verbosity < Verbosity::Verbose {
            names.truncate(3);
        }
        let (path, total) = (path.display(), count(unknown.total(), "field"));
        print_line("note", &format_args!("{path}: {total} of a newer Envoy skipped: {}", names.join(", ")));
    }
}

/// Prints why something was not done, with its causes.
pub(crate) fn print_error(error: &(dyn Error + 'static)) {
    print_line("error", &with_causes(error));
}

/// An error and its causes in one line.
#[must_use]
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = with_advice(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&with_advice(error));
        cause = error.source();
    }
    text
}

/// An error without its causes, followed by the option that helps against it.
fn with_advice(error: &(dyn Error + 'static)) -> String {
    let is_bare_protobuf = || {
        let error = error.downcast_ref::<InputError>();
        matches!(error, Some(InputError::Unrecognised { looks_like: Likeness::Protobuf, .. }))
    };
    let is_read_only = || {
        let error = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error.is_some_and(|error| error.is::<ReadOnlyOutput>())
    };
    if is_bare_protobuf() {
        format!("{error}; {READ_AS_BINARY}")
    } else if is_read_only() {
        format!("{error}; --force replaces it")
    } else {
        error.to_string()
    }
}

/// Advice for protobuf that may be a trace or any other message.
const READ_AS_BINARY: &str = "--from binary reads it as one";

/// Why a file in a directory was passed over, for a line that names it.
#[must_use]
pub(crate) fn why_passed_over(error: &InputError) -> String {
    match error {
        InputError::Unrecognised { looks_like: looks_like @ Likeness::Protobuf, .. } => {
            format!("{looks_like}; {READ_AS_BINARY}")
        }
        InputError::Unrecognised { looks_like, .. } => looks_like.to_string(),
        InputError::Read { source, .. } => format!("cannot be read: {source}"),
        InputError::Unfit { layer, .. } => format!("it is not {layer}"),
        InputError::Empty { .. } => "it is empty".to_owned(),
        InputError::NothingReadable { .. } => "it holds nothing that can be read".to_owned(),
    }
}

/// Escapes a line for people, because it may quote a trace, and cuts it to [`MAX_LINE`].
#[must_use]
pub(crate) fn for_terminal(line: &str) -> String {
    cap(&escape(line), MAX_LINE).into_owned()
}

/// Prints one line for people, after [`for_terminal`].
pub(crate) fn print_line(kind: &str, text: &dyn Display) {
    let text = text.to_string();
    // One write for the whole line, so that the lines of two threads do not mix.
    let line = format!("{kind}: {}\n", for_terminal(&text));
    // If standard error is closed, nobody is left to tell, so the error is dropped. eprintln! would panic.
    let print = || drop(Watched(io::stderr()).write_all(line.as_bytes()));
    match BAR.get() {
        // The bar is redrawn below the line.
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// When to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// On a terminal
    Auto,
    /// Even if standard error is not a terminal
    Always,
    /// Never
    Never,
}

/// Shows how far a conversion has come: a bar on a terminal, and otherwise a line now and then.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    shown: Shown,
    files: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    total_files: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines(Arc<Mutex<Instant>>),
}

/// The least time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

impl Progress {
    /// Shows progress over `files` files, if `when` and the terminal allow it. `bytes` looks up their total size, if it
    /// can be known.
    #[must_use]
    pub(crate) fn new(
        when: ProgressMode,
        verbosity: Verbosity,
        files: usize,
        bytes: impl FnOnce() -> Option<u64>,
    ) -> Self {
        let terminal = io::stderr().is_terminal();
        let shown = match (when, terminal) {
            (ProgressMode::Never, _) | (ProgressMode::Auto, false) => Shown::Nothing,
            (ProgressMode::Auto, true) if verbosity == Verbosity::Quiet => Shown::Nothing,
            (ProgressMode::Always, false) => Shown::Lines(Arc::new(Mutex::new(Instant::now()))),
            (ProgressMode::Auto | ProgressMode::Always, true) => Shown::Bar(bar(bytes())),
        };
        let progress = Self { shown, ..Self::hidden() };
        progress.expect_files(files);
        if let Shown::Bar(bar) = &progress.shown {
            bar.set_message(progress.files_done());
            // A process converts once, so no other bar has been set.
            let _ = BAR.set(bar.clone());
        }
        progress
    }

    /// Shows nothing.
    #[must_use]
    pub(crate) fn hidden() -> Self {
        Self { shown: Shown::Nothing, files: Arc::default(), bytes: Arc::default(), total_files: Arc::default() }
    }

    fn files_done(&self) -> String {
        format!("{}/{} files", self.files.load(Ordering::Relaxed), self.total_files.load(Ordering::Relaxed))
    }

    /// Sets how many files there are.
    pub(crate) fn expect_files(&self, files: usize) {
        self.total_files.store(files as u64, Ordering::Relaxed);
    }

    /// Counts more bytes of input. This costs more than converting an event, so it is not for every event.
    pub(crate) fn bytes(&self, count: u64) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.inc(count),
            Shown::Lines(last) => {
                self.bytes.fetch_add(count, Ordering::Relaxed);
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    self.print();
                }
            }
        }
    }

    /// Counts one more file.
    pub(crate) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(self.files_done());
        }
    }

    /// Removes the bar, or prints the last line.
    pub(crate) fn finish(&self) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => bar.finish_and_clear(),
            Shown::Lines(_) => self.print(),
        }
    }

    fn print(&self) {
        let bytes = HumanBytes(self.bytes.load(Ordering::Relaxed));
        print_line("progress", &format_args!("{}, {bytes}", self.files_done()));
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left, {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}, {msg}"),
    };
    bar.with_style(style(template))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
