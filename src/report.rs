//! Everything that a person reads, on standard error.

use std::{error::Error, fmt::Display, path::Path};

use crate::{
    trace::{Finding, Severity, UnknownFields},
    untrusted::{cap, escape},
};

/// Findings of one source that are printed one by one; the rest is counted.
const MAX_FINDINGS: u64 = 20;

/// Bytes of one message for people.
const MAX_LINE: usize = 2000;

/// How much to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Only why something was not done.
    Quiet,
    /// Errors, warnings and what people must know.
    #[default]
    Normal,
    /// What was done as well.
    Verbose,
}

/// Prints what happens to one source and remembers how bad it was.
#[derive(Clone, Debug)]
pub struct Reporter {
    verbosity: Verbosity,
    printed: u64,
    errors: u64,
    warnings: u64,
}

impl Reporter {
    /// A reporter that has seen nothing yet.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Self {
        Self { verbosity, printed: 0, errors: 0, warnings: 0 }
    }

    /// How much it says.
    #[must_use]
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Errors so far.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Warnings so far.
    #[must_use]
    pub fn warnings(&self) -> u64 {
        self.warnings
    }

    /// Reports a finding in the source at `path`.
    pub fn finding(&mut self, path: &Path, finding: &Finding) {
        let severity = finding.code.severity();
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => {}
        }
        let needed = if severity == Severity::Note { Verbosity::Verbose } else { Verbosity::Normal };
        if self.verbosity < needed {
            return;
        }
        self.printed += 1;
        if self.printed <= MAX_FINDINGS {
            print_line(severity.word(), &format_args!("{}: {finding}", path.display()));
        }
    }

    /// Says how many findings were not printed.
    pub fn finish(&self, path: &Path) {
        if self.printed > MAX_FINDINGS {
            let more = self.printed - MAX_FINDINGS;
            print_line("note", &format_args!("{}: {more} more findings like these", path.display()));
        }
    }

    /// Reports fields that this version does not know.
    pub fn unknown_fields(&self, path: &Path, unknown: &UnknownFields) {
        if self.verbosity < Verbosity::Normal || unknown.total() == 0 {
            return;
        }
        let mut names: Vec<String> = unknown
            .fields()
            .iter()
            .map(|field| format!("{}.{} {} times", field.message, field.field, field.count))
            .collect();
        if self.verbosity < Verbosity::Verbose {
            names.truncate(3);
        }
        let (path, total) = (path.display(), unknown.total());
        print_line("note", &format_args!("{path}: {total} fields of a newer Envoy skipped: {}", names.join(", ")));
    }
}

/// Prints why something was not done, with its causes.
pub fn print_error(error: &(dyn Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    print_line("error", &text);
}

/// Prints one line for people: escaped, because it may quote a trace, and capped.
pub fn print_line(kind: &str, text: &dyn Display) {
    let text = text.to_string();
    eprintln!("{kind}: {}", cap(&escape(&text), MAX_LINE));
}
