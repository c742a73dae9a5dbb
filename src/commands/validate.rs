//! `tap2pcap validate`: prints every finding of every trace, and changes nothing.

use std::{
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};

use super::{
    Status,
    error::Error,
    inspect::{self, Item, Reading},
    settings,
};
use crate::{
    cli::ValidateArgs,
    input::InputError,
    interrupt::Watched,
    report::{self, print_line},
    timeline,
    trace::{Finding, Place, Severity},
    untrusted::escape_json,
    words::count,
};

/// How many findings there are so far, by severity.
#[derive(Debug, Default)]
struct Counts {
    errors: u64,
    warnings: u64,
    notes: u64,
}

impl Counts {
    fn add(&mut self, severity: Severity) {
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => self.notes += 1,
        }
    }
}

pub(super) fn run(args: &ValidateArgs) -> Result<Status, Error> {
    let (found, unreadable) = inspect::inputs(&args.inspect, false, None)?;
    let (inputs, mut passed_over) = (&found.inputs, found.count_passed_over);
    let mut out = Watched(io::stdout().lock());
    let mut counts = Counts::default();
    let mut read = 0;
    for error in &unreadable {
        counts.add(Severity::Error);
        write_refusal(&mut out, args.inspect.json, error)?;
    }
    for input in inputs {
        let reading = Reading {
            input: settings::input_options(&args.inspect.from, args.inspect.limits)?,
            timeline: timeline::TimelineOptions {
                max_connections: Some(args.inspect.limits.max_connections),
                ..timeline::TimelineOptions::default()
            },
            ..Reading::default()
        };
        let result = inspect::read(input, reading, |item| {
            if let Item::Finding(finding) = item {
                counts.add(finding.code().severity());
                write_finding(&mut out, args.inspect.json, input.path(), finding)?;
            }
            Ok(())
        });
        match result {
            Ok(()) => read += 1,
            Err(Error::Input(error)) if input.is_found && error.is_other_json() => {
                passed_over += 1;
                super::passed_over(input.path(), &error, settings::verbosity(args.inspect.verbosity));
            }
            Err(Error::Input(error)) => {
                counts.add(Severity::Error);
                write_refusal(&mut out, args.inspect.json, &error)?;
            }
            Err(error) => return Err(error),
        }
    }
    out.flush()?;
    super::count_passed_over(passed_over, settings::verbosity(args.inspect.verbosity));
    if !args.inspect.json && !args.inspect.verbosity.quiet {
        let Counts { errors, warnings, notes } = counts;
        let [errors, warnings, notes] =
            [(errors, "error"), (warnings, "warning"), (notes, "note")].map(|(number, noun)| count(number, noun));
        print_line("note", &format_args!("{}: {errors}, {warnings}, {notes}", count(read, "trace")));
    }
    Ok(if read == 0 {
        Status::NotDone
    } else if counts.errors > 0 || (args.strict && counts.warnings > 0) {
        Status::Damaged
    } else {
        Status::Done
    })
}

fn write_finding(out: &mut impl Write, json: bool, path: &Path, finding: &Finding) -> io::Result<()> {
    let code = finding.code();
    let severity = code.severity().word();
    let path = path.display().to_string();
    if json {
        return out.write_all(json_of(&path, finding, &report::detail(finding)).as_bytes());
    }
    let line = format!("{severity:<7}  {code:<18}  {path}: {finding}", code = code.name());
    writeln!(out, "{}", report::for_terminal(&line))
}

fn write_refusal(out: &mut impl Write, json: bool, error: &InputError) -> io::Result<()> {
    let code = error.code();
    if json {
        let path = error.path().display().to_string();
        return out.write_all(json_of_refusal(&path, error, &report::with_causes(error)).as_bytes());
    }
    let line = format!("error    {code:<18}  {}", report::with_causes(error));
    writeln!(out, "{}", report::for_terminal(&line))
}

/// A finding as a line of JSON.
pub(super) fn json_of(path: &str, finding: &Finding, detail: &str) -> String {
    let code = finding.code();
    let Place { offset, message } = finding.place;
    let object = json!({
        "path": path, "severity": code.severity().word(), "code": code.name(),
        "offset": offset, "message": message, "detail": detail,
    });
    line(&object)
}

/// Why an input was not read, as a line of JSON.
pub(super) fn json_of_refusal(path: &str, error: &InputError, detail: &str) -> String {
    let object = json!({
        "path": path, "severity": "error", "code": error.code(), "offset": 0, "message": 0, "detail": detail,
    });
    line(&object)
}

fn line(object: &Value) -> String {
    let text = object.to_string();
    let mut line = escape_json(&text).into_owned();
    line.push('\n');
    line
}
