//! The table for people: one line for each exchange.

use std::{
    io::{self, IsTerminal as _, Write},
    path::Path,
};

use super::json::rfc3339_nanos;
use crate::{
    http::{Attribute, Exchange, ExchangeRecord, Value},
    report::for_terminal,
    trace::Nanos,
};

/// How a table looks.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Layout {
    /// The names of the columns.
    pub titles: &'static [&'static str],
    /// The columns that are aligned to the right.
    pub right: &'static [usize],
    /// The column that is shortened on a narrow terminal.
    pub flexible: usize,
    /// The column with codes of HTTP, which give it its colour.
    pub status: Option<usize>,
}

const EXCHANGES: Layout = Layout {
    titles: &["TIME", "METHOD", "HOST AND PATH", "STATUS", "SENT", "RECEIVED", "DURATION", "CLIENT", "TRACE"],
    right: &[4, 5, 6],
    flexible: 2,
    status: Some(3),
};

/// The least that is left of the host and path on a narrow terminal.
const LEAST: usize = 20;

/// How many rows decide about the widths of the columns.
const MAX_MEASURED: usize = 1000;

/// The longest host and path that a row keeps.
const MAX_TARGET: usize = 2000;

/// What divides the cells of a row: no escaped text has it.
const DIVIDER: char = '\u{1f}';

/// The cells of a row.
pub(super) fn row(record: ExchangeRecord<'_>) -> Vec<u8> {
    let exchange = record.exchange;
    let absent = || "-".to_owned();
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(escaped);
    let target = format!("{}{}", text(&exchange.host).unwrap_or_default(), text(&exchange.path).unwrap_or_default());
    let size = |size: Option<u64>| size.map_or_else(absent, |size| size.to_string());
    let client = match Attribute::named("source.address").and_then(|attribute| attribute.of(record)) {
        Some(Value::Text(address)) => escaped(&address),
        _ => absent(),
    };
    let file = Path::new(record.file).file_name().map_or(record.file.into(), |name| name.to_string_lossy());
    let cells = [
        exchange.request.began.or(exchange.response.began).map_or_else(absent, time),
        text(&exchange.method).unwrap_or_else(absent),
        if target.is_empty() { absent() } else { target },
        status(exchange),
        size(exchange.request.size()),
        size(exchange.response.size()),
        exchange.duration().map_or_else(absent, duration),
        client,
        for_terminal(&file),
    ];
    joined(&cells)
}

/// The cells as one row.
pub(in crate::commands) fn joined(cells: &[String]) -> Vec<u8> {
    cells.join(&DIVIDER.to_string()).into_bytes()
}

fn escaped(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TARGET)]);
    for_terminal(&text)
}

/// Milliseconds are enough for people.
pub(in crate::commands) fn time(time: Nanos) -> String {
    let text = rfc3339_nanos(time);
    text[..23].replace('T', " ")
}

/// The code; gRPC's own status after it if that is no success, and a mark if the exchange is not whole.
fn status(exchange: &Exchange) -> String {
    let code = exchange.code.map_or_else(|| "-".to_owned(), |code| code.to_string());
    let grpc = exchange.grpc.as_ref().and_then(|grpc| grpc.status).filter(|status| *status != 0);
    let grpc = grpc.map(|status| format!("/{status}")).unwrap_or_default();
    let mark = if exchange.request.complete && exchange.response.complete { "" } else { "!" };
    format!("{code}{grpc}{mark}")
}

pub(in crate::commands) fn duration(nanos: Nanos) -> String {
    match nanos {
        0..10_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{:.0} ms", nanos as f64 / 1e6),
        _ => format!("{:.1} s", nanos as f64 / 1e9),
    }
}

/// Prints rows below each other.
pub(in crate::commands) struct Table<W> {
    out: W,
    layout: Layout,
    rows: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    terminal: Option<usize>,
    colour: bool,
}

impl<W: Write> Table<W> {
    /// A table of exchanges for standard output.
    pub(super) fn new(out: W) -> Self {
        Self::with_layout(out, EXCHANGES)
    }

    /// A table for standard output.
    pub(in crate::commands) fn with_layout(out: W, layout: Layout) -> Self {
        let terminal = io::stdout().is_terminal().then(columns);
        // <https://no-color.org>: set and not empty.
        let colour = terminal.is_some() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { out, layout, rows: Vec::new(), widths: None, terminal, colour }
    }

    pub(in crate::commands) fn row(&mut self, row: &[u8]) -> io::Result<()> {
        let row: Vec<String> = String::from_utf8_lossy(row).split(DIVIDER).map(str::to_owned).collect();
        if self.widths.is_some() {
            return self.print(&row);
        }
        self.rows.push(row);
        if self.rows.len() == MAX_MEASURED { self.measure() } else { Ok(()) }
    }

    pub(in crate::commands) fn finish(mut self) -> io::Result<()> {
        if self.widths.is_none() && !self.rows.is_empty() {
            self.measure()?;
        }
        self.out.flush()
    }

    /// Decides about the widths, and prints the rows that they were measured by.
    fn measure(&mut self) -> io::Result<()> {
        let Layout { titles, flexible, .. } = self.layout;
        let mut widths: Vec<usize> = titles.iter().map(|title| title.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if let Some(columns) = self.terminal {
            let others: usize = widths.iter().sum::<usize>() - widths[flexible] + 2 * (widths.len() - 1);
            widths[flexible] = widths[flexible].min(columns.saturating_sub(others).max(LEAST));
        }
        self.widths = Some(widths);
        let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
        self.print(&titles)?;
        std::mem::take(&mut self.rows).iter().try_for_each(|row| self.print(row))
    }

    fn print(&mut self, row: &[String]) -> io::Result<()> {
        let Layout { right, flexible, status, titles } = self.layout;
        let widths = self.widths.as_deref().unwrap_or_default();
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths.iter().copied()).enumerate() {
            let cell = if self.terminal.is_some() && index == flexible { shorten(cell, width) } else { cell.clone() };
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if right.contains(&index) { (padding.as_str(), "") } else { ("", padding.as_str()) };
            let colour = if self.colour && Some(index) == status { colour(&cell) } else { None };
            let (on, off) = colour.map_or(("", ""), |code| (code, "\x1b[0m"));
            line.extend([before, on, cell.as_str(), off]);
            if index + 1 < titles.len() {
                line.extend([after, "  "]);
            }
        }
        writeln!(self.out, "{}", line.trim_end())
    }
}

fn colour(status: &str) -> Option<&'static str> {
    // gRPC's errors come with 200.
    if status.contains('/') {
        return Some("\x1b[31m");
    }
    match status.as_bytes().first() {
        Some(b'2') => Some("\x1b[32m"),
        Some(b'3') => Some("\x1b[36m"),
        Some(b'4') => Some("\x1b[33m"),
        Some(b'5') => Some("\x1b[31m"),
        _ => None,
    }
}

pub(super) fn shorten(cell: &str, width: usize) -> String {
    match cell.char_indices().nth(width) {
        None => cell.to_owned(),
        Some(_) => {
            let end = cell.char_indices().nth(width.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", &cell[..end])
        }
    }
}

/// The width of the terminal.
pub(super) fn columns() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let measured = || rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    asked.or_else(measured).filter(|columns| *columns > 0).unwrap_or(80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_the_terminal() {
        let cells = |path: &str| ["t", "GET", path, "500", "0", "12", "1 ms", "10.0.0.1:5", "a.pb"].join("\u{1f}");
        let mut out = Vec::new();
        let mut table = Table {
            out: &mut out,
            layout: EXCHANGES,
            rows: Vec::new(),
            widths: None,
            terminal: Some(90),
            colour: true,
        };
        table.row(cells(&"/long".repeat(100)).as_bytes()).unwrap();
        table.row(cells("/short").as_bytes()).unwrap();
        table.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        let plain = text.replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert!(plain.lines().all(|line| line.chars().count() <= 90), "{plain}");
        assert_eq!(plain.lines().count(), 3);
        assert_eq!(text.matches("\x1b[31m500\x1b[0m").count(), 2);
        assert!(plain.contains("…") && plain.contains("/short"));
    }

    #[test]
    fn numbers_are_aligned_and_text_is_not_cut_without_a_terminal() {
        let mut out = Vec::new();
        let mut table =
            Table { out: &mut out, layout: EXCHANGES, rows: Vec::new(), widths: None, terminal: None, colour: false };
        let path = "/long".repeat(100);
        table.row(["t", "GET", &path, "200", "0", "12", "1 ms", "c", "a.pb"].join("\u{1f}").as_bytes()).unwrap();
        table.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&path) && text.lines().nth(1).unwrap().contains("     0        12"), "{text}");
    }

    #[test]
    fn durations_are_short() {
        assert_eq!([1_234_000, 12_345_678, 12_345_678_901].map(duration), ["1.23 ms", "12 ms", "12.3 s"]);
        assert_eq!(time(1_769_860_800_123_456_789), "2026-01-31 12:00:00.123");
        assert_eq!(shorten("abcdef", 4), "abc…");
    }
}
