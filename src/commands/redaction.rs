//! What the options say about redaction, and its report.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::error::Error;
use crate::{
    capture::{Destination, Output, OutputError, OutputOptions, PacketBuffer},
    cli::RedactArgs,
    input::Input,
    redact::{Addresses, Redaction, Report},
};

/// A file that is longer is no key.
const MAX_KEY_FILE: u64 = 1 << 10;

/// What is taken out of the outputs; `None` if nothing is.
///
/// # Errors
/// The options contradict each other, or there is no key in the file.
pub(super) fn redaction(args: &RedactArgs) -> Result<Option<Arc<Redaction>>, Error> {
    if !args.is_on() {
        return match args.keep_header.first() {
            Some(_) => {
                Err(Error::Arguments("--keep-header needs --redact, which takes out values of fields".to_owned()))
            }
            None => Ok(None),
        };
    }
    if let (Some(report), Some(key)) = (&args.redact_report, &args.redact_addresses)
        && is_same(report, key)
    {
        return Err(Error::Arguments(format!("{}: is both the key and the report", report.display())));
    }
    let addresses = args.redact_addresses.as_deref().map(addresses).transpose()?;
    if args.redact_names && addresses.is_none() {
        return Err(Error::Arguments(
            "--redact-names needs --redact-addresses KEYFILE: without a secret key, whoever guesses a name could confirm \
             that it was there"
                .to_owned(),
        ));
    }
    let fields = |names: &[String]| names.iter().map(|name| name.clone().into_bytes()).collect();
    Ok(Some(Arc::new(Redaction {
        secret_fields: fields(&args.redact_header),
        kept_fields: fields(&args.keep_header),
        bodies: args.redact_bodies,
        keep_unknown: args.redact_keep_unknown,
        addresses,
        names: args.redact_names,
        report: args.redact_report.clone().map(Report::new),
    })))
}

/// Reads the key.
fn addresses(path: &Path) -> Result<Addresses, Error> {
    let refused = |why: &dyn std::fmt::Display| Error::Arguments(format!("{}: {why}", path.display()));
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_KEY_FILE + 1).read_to_end(&mut content));
    read.map_err(|error| refused(&error))?;
    Addresses::new(&content).map_err(|error| refused(&error))
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Refuses to write the report over an input or the output, and says in which order its connections come.
pub(super) fn expect(redaction: Option<&Redaction>, inputs: &[Input], output: Option<&Path>) -> Result<(), Error> {
    let Some(report) = redaction.and_then(|redaction| redaction.report.as_ref()) else { return Ok(()) };
    if output.is_some_and(|output| is_same(&report.path, output)) {
        return Err(Error::Arguments(format!("{}: is both the output and the report", report.path.display())));
    }
    let place = report.path.canonicalize().ok();
    if place.is_some() && inputs.iter().any(|input| input.place.canonical() == place) {
        return Err(Error::Overwrite(report.path.clone()));
    }
    report.expect(inputs.iter().map(Input::path));
    Ok(())
}

/// Refuses to write the output or the report over an access log.
pub(super) fn spare(logs: &[PathBuf], redaction: Option<&Redaction>, output: Option<&Path>) -> Result<(), Error> {
    let report = redaction.and_then(|redaction| redaction.report.as_ref()).map(|report| report.path.as_path());
    let is_written = |log: &&PathBuf| [output, report].into_iter().flatten().any(|path| is_same(path, log));
    logs.iter().find(is_written).map_or(Ok(()), |log| Err(Error::Overwrite(log.clone())))
}

fn failed(error: OutputError) -> Error {
    Error::Report(error.path.clone(), error.into_io())
}

/// The report's file. It gets its name when it is complete.
pub(super) struct ReportFile {
    output: Output,
    redaction: Arc<Redaction>,
}

impl ReportFile {
    /// Begins a report, if one is wanted.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn create(redaction: Option<&Arc<Redaction>>) -> Result<Option<Self>, Error> {
        let wanted = |redaction: &&Arc<Redaction>| redaction.report.is_some();
        let Some(redaction) = redaction.filter(wanted).cloned() else { return Ok(None) };
        let path: PathBuf = redaction.report.iter().map(|report| report.path.clone()).collect();
        if path.is_dir() {
            return Err(Error::Arguments(format!("{}: is a directory; the report is a file", path.display())));
        }
        let output = Output::create(&Destination::File(path), OutputOptions::default()).map_err(failed)?;
        Ok(Some(Self { output, redaction }))
    }

    /// Writes the report.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(self) -> Result<(), Error> {
        /// How many bytes are written at once.
        const CHUNK: usize = 256 << 10;
        let Self { mut output, redaction } = self;
        let mut buffer = PacketBuffer::default();
        if let Some(report) = &redaction.report {
            let written = report.finish(|bytes| {
                buffer.append(bytes);
                if buffer.len() < CHUNK {
                    return Ok(());
                }
                output.write(&mut buffer).map_err(|error| error.into_io())
            });
            written.map_err(|source| failed(output.error(source)))?;
        }
        output.finish(&buffer).map_err(failed)
    }
}
