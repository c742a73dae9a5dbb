//! Reads Envoy's access logs, so that their lines can be joined with the requests of traces.
//!
//! Without a format, each line is judged by itself: an object of JSON whose keys are the usual ones, or a line in
//! Envoy's or Istio's own text format. What stands before a line, such as a time or the name of a pod, is passed over,
//! and so are records of Docker and of log pipelines around it.

mod entry;
mod format;
mod json;
mod operator;
#[cfg(test)]
mod tests;
mod time;

use std::{
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

pub(crate) use self::{entry::LogEntry, format::Format};
use crate::interrupt::{self, Interruptible};

/// The longest line that is read.
const MAX_LINE: usize = 64 << 10;

/// The most entries that are kept of all logs. Each takes about 800 bytes, with what pairing compares of it, and its text.
const MAX_ENTRIES: usize = 1_000_000;

/// The most bytes that the text of all entries may have.
const MAX_TEXT: usize = 512 << 20;

/// How many numbers of lines are kept that cannot be read.
const MAX_UNREAD: usize = 5;

/// How many entries of all logs may still be kept, and how many bytes of their text.
#[derive(Debug)]
pub(crate) struct Room {
    entries: usize,
    text: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, text: MAX_TEXT }
    }
}

impl Room {
    /// Whether there is room for an entry, which takes it.
    fn take(&mut self, entry: &LogEntry) -> bool {
        let text = entry.text_len();
        let has_room = self.entries > 0 && self.text >= text;
        if has_room {
            self.entries -= 1;
            self.text -= text;
        }
        has_room
    }
}

/// The lines of one log.
#[derive(Debug, Default)]
pub(crate) struct AccessLog {
    /// What could be read, in its order.
    pub entries: Vec<LogEntry>,
    /// How many lines are no entries.
    pub unread_lines: u64,
    /// The numbers of the first of them, counted from 1.
    pub first_unread: Vec<u64>,
    /// How many entries are left out because there are too many.
    pub beyond: u64,
}

/// A log that cannot be read.
#[derive(Debug, Error)]
#[error("{path}: cannot read the access log", path = path.display())]
pub(crate) struct LogError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Reads a log, which may be packed with gzip, as far as there is `room`.
///
/// # Errors
/// The file cannot be read, or a signal came.
pub(crate) fn read(path: &Path, format: Option<&Format>, room: &mut Room) -> Result<AccessLog, LogError> {
    let failed = |source| LogError { path: path.to_owned(), source };
    if path == Path::new("-") {
        return Err(failed(io::Error::other("an access log cannot be standard input")));
    }
    let mut file = BufReader::with_capacity(1 << 16, Interruptible(interrupt::open(path).map_err(failed)?));
    let is_packed = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let log = if is_packed {
        read_lines(BufReader::new(MultiGzDecoder::new(file)), format, room)
    } else {
        read_lines(file, format, room)
    };
    log.map_err(failed)
}

fn read_lines(mut reader: impl BufRead, format: Option<&Format>, room: &mut Room) -> io::Result<AccessLog> {
    let mut log = AccessLog::default();
    let mut line = Vec::new();
    for number in 1.. {
        if number % 1024 == 0 && interrupt::signal().is_some() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        line.clear();
        let is_long = match next_line(&mut reader, &mut line)? {
            Line::End => break,
            Line::Whole => false,
            Line::Cut => true,
        };
        let bytes = line.trim_ascii();
        if bytes.is_empty() {
            continue;
        }
        let entry = if is_long { None } else { entry_of(bytes, format) };
        match entry {
            None => {
                log.unread_lines += 1;
                if log.first_unread.len() < MAX_UNREAD {
                    log.first_unread.push(number);
                }
            }
            Some(entry) if room.take(&entry) => log.entries.push(LogEntry { line: number, ..entry }),
            Some(_) => log.beyond += 1,
        }
    }
    Ok(log)
}

enum Line {
    Whole,
    /// It is longer than what was kept of it.
    Cut,
    /// There are no more.
    End,
}

/// Reads a line without its end. No more than [`MAX_LINE`] bytes of it are kept.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    let read = reader.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(Line::End);
    }
    if line.ends_with(b"\n") || line.len() <= MAX_LINE {
        return Ok(Line::Whole);
    }
    reader.skip_until(b'\n')?;
    Ok(Line::Cut)
}

/// What a line tells; `None` if it is no entry.
fn entry_of(line: &[u8], format: Option<&Format>) -> Option<LogEntry> {
    let entry = match format {
        Some(format) => format.read(line).or_else(|| json::content(line).and_then(|line| format.read(&line))),
        None => json::read(line)
            .or_else(|| format::read_usual(line))
            .or_else(|| json::content(line).and_then(|line| json::read(&line).or_else(|| format::read_usual(&line)))),
    };
    entry.filter(LogEntry::is_useful)
}
